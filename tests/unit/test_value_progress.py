"""Heads that learn progress: two frames compared, or one frame by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
from dot_world import DotDataset

from robolift.errors import DataError, UsageError
from robolift.training.distributed import World
from robolift.value_model import checkpoint, heads, presets, train
from robolift.value_model.evaluation import episode_spearman
from robolift.value_model.objective import ValueObjective
from robolift.value_model.recipe import Recipe

FAST = {
    "image_size": [24, 24],
    "steps": 12,
    "batch_size": 8,
    "warmup_steps": 2,
    "val_fraction": 0.25,
    "log_every": 4,
    "eval_every": 6,
    "save_every": 5,
    "shift_px": 2,
}
HEADS = ("relative", "single")
ALONE = World()


def run(folder, dataset=None, **changes):
    dataset = dataset or DotDataset()
    recipe = Recipe(**{**FAST, **changes})
    folder.mkdir(parents=True)
    places = train.Places(dataset_uri="", targets_uri="", work_uri=f"{folder}.work", folder=str(folder))
    train.train_here(recipe, places, World(), dataset, train.prepare(recipe, dataset, None))
    return folder


def objective(dataset=None, world=ALONE, **changes):
    recipe = Recipe(**{**FAST, **changes})
    dataset = dataset or DotDataset()
    data = train.prepare(recipe, dataset, None)
    model = train.initial_model(train.describe(recipe, dataset, data), seed=0)
    images = dataset.all_frames(data.cameras, recipe.image_size) if data.cameras else None
    return ValueObjective(model=model, data=data, images=images, recipe=recipe, world=world)


def test_the_heads_read_and_lose_what_they_should():
    logits, target = torch.tensor([[0.0], [2.0], [-3.0]]), torch.tensor([0.25, 0.5, -1.0])
    relative, single = (heads.HEADS[name](presets.tiny()) for name in HEADS)
    assert relative.read(logits)[0].tolist() == pytest.approx([0, 0.96403, -0.99505], abs=1e-5)
    assert single.read(logits)[0].tolist() == pytest.approx([0.5, 0.88080, 0.04743], abs=1e-5)
    assert single.read(logits)[1].tolist() == [0, 0, 0]
    assert relative.loss_rows(logits, target).tolist() == pytest.approx([0.0625, 0.21532, 0.0000245], abs=1e-5)
    assert single.loss_rows(logits, target).tolist() == pytest.approx([0.0625, 0.14501, 1.09711], abs=1e-5)
    assert (relative.num_frames, single.num_frames) == (2, 1)
    assert (relative.uniform_error, single.uniform_error) == (1 / 6, 1 / 12)


@pytest.mark.parametrize("head", HEADS)
def test_training_writes_a_checkpoint_and_measures_next_to_constants(tmp_path, head):
    folder = run(tmp_path / "out", head=head)
    document = json.loads((folder / "checkpoint.json").read_text())
    assert (document["head"], "value_head" in document) == (head, False)
    model, found = checkpoint.load(str(folder))
    assert json.loads(json.dumps(found.to_dict())) == document
    assert model.head.num_frames == {"relative": 2, "single": 1}[head]
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    assert weights["value_head.weight"].shape == (1, 256)
    # Two cameras of 96 features and a state of 64, once or twice, and the text; one encoder a camera in any case.
    assert weights["trunk.0.weight"].shape == (256, (192 + 64) * model.head.num_frames + 16)
    assert {int(name.split(".")[1]) for name in weights if name.startswith("encoder.")} == {0, 1}
    curves = json.loads((folder / "curves.json").read_text())
    assert set(curves["train"][0]) == {"step", "loss", "value_loss", "action_loss"}
    assert set(curves["validation"][0]) == {
        "step",
        "loss",
        "spearman",
        "episode_spearman",
        "constant_loss",
        "uniform_constant_loss",
    }
    last = curves["validation"][-1]
    assert last["uniform_constant_loss"] == {"relative": 1 / 6, "single": 1 / 12}[head]
    # No constant does better on these very targets.
    found = objective(head=head)
    rows = found.data.val_rows
    frames = np.stack([found.batches.pairs.fixed(rows), rows], axis=1)[:, 2 - model.head.num_frames :]
    targets = found.data.value_targets(frames)
    errors = [np.square(targets - guess).mean() for guess in np.linspace(-1, 1, 2001)]
    assert last["constant_loss"] == pytest.approx(min(errors), abs=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_learns_progress_from_pixels_and_beats_its_constants(tmp_path, head):
    dataset = DotDataset(lengths=(10,) * 24, cameras=("front",))
    folder = run(
        tmp_path / "out",
        dataset,
        head=head,
        state_keys=[],
        steps=120,
        batch_size=32,
        learning_rate=3e-3,
        warmup_steps=20,
        value_weight=10,
        eval_every=120,
    )
    last = json.loads((folder / "curves.json").read_text())["validation"][-1]
    assert last["loss"] < 0.5 * min(last["constant_loss"], last["uniform_constant_loss"])
    # One frame cannot tell from where its episode started; two can.
    assert last["episode_spearman"] > {"relative": 0.7, "single": 0.2}[head]


def test_the_target_of_a_pair_is_the_progress_from_the_first_to_the_second():
    found = objective(head="relative")
    progress = found.data.targets
    frames = np.array([[3, 5], [5, 3], [2, 2]])
    assert found.data.value_targets(frames).tolist() == [progress[5] - progress[3], progress[3] - progress[5], 0]
    assert found.data.value_targets(frames[:, 1:]).tolist() == progress[[5, 3, 2]].tolist()
    drawn = found.batches.frames(7)
    assert drawn.shape == (8, 2)
    assert np.array_equal(drawn[:, 1], found.data.train_rows[found.batches.sampler.batch(7)])


def test_both_frames_go_through_the_same_encoder_and_the_comparison_frame_comes_first():
    found = objective(head="relative", shift_px=0, brightness=0, input_noise=0, action_weight=0)
    model, frames = found.model, found.batches.frames(0)
    features = model.encode(torch.from_numpy(found.images))
    states = torch.from_numpy(found.data.states)
    logits = model.value_logits(features[frames], states[frames], torch.from_numpy(found.data.tasks[frames[:, 1]]))
    target = torch.from_numpy(found.data.value_targets(frames))
    loss = (torch.tanh(logits[:, 0]) - target).square().mean()
    assert found.losses(0)["value_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    swapped = model.value_logits(
        features[frames[:, ::-1].copy()], states[frames[:, ::-1].copy()], torch.zeros(8, dtype=torch.int64)
    )
    assert not torch.allclose(swapped, logits, atol=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_two_processes_see_together_what_one_sees_alone(head):
    alone, first, second = (objective(head=head, world=w) for w in (World(), World(0, 2), World(1, 2)))
    for step in (0, 5):
        assert np.array_equal(
            np.concatenate([part.batches.frames(step) for part in (first, second)]), alone.batches.frames(step)
        )
        parts = [part.losses(step) for part in (first, second)]
        for name, whole in alone.losses(step).items():
            assert whole.item() == pytest.approx(sum(part[name].item() for part in parts) / 2, rel=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_every_training_frame_is_seen_once_an_epoch_in_any_number_of_processes(head):
    dataset = DotDataset(lengths=(7, 9, 1, 12, 8, 6, 10, 11))  # an episode of one frame among them
    for size in (1, 2, 4):
        parts = [objective(dataset, head=head, world=World(rank, size), cameras=[]) for rank in range(size)]
        rows = parts[0].data.train_rows
        steps = 8 * len(rows) // 8  # whole epochs: eight
        seen = np.concatenate([part.batches.frames(step)[:, -1] for step in range(steps) for part in parts])
        for epoch in range(8):
            assert sorted(seen[epoch * len(rows) : (epoch + 1) * len(rows)]) == rows.tolist()


def test_the_pair_of_an_episode_of_one_frame_is_the_frame_twice():
    dataset = DotDataset(lengths=(6, 1, 6, 1))
    found = objective(dataset, head="relative", cameras=[], val_fraction=0)
    assert found.data.train_rows.tolist() == list(range(14))
    frames = np.concatenate([found.batches.frames(step) for step in range(20)])
    lonely = np.isin(frames[:, 1], [6, 13])
    assert lonely.any()
    assert np.array_equal(frames[lonely, 0], frames[lonely, 1])
    assert not found.data.value_targets(frames[lonely]).any()
    assert (frames[~lonely, 0] != frames[~lonely, 1]).all()


def test_one_frame_episodes_alone_have_nothing_to_compare():
    dataset = DotDataset(lengths=(1, 1, 1, 1))
    with pytest.raises(DataError, match="stage_progress_gt is the same within each training episode"):
        objective(dataset, head="relative", cameras=[])
    assert objective(dataset, head="single", cameras=[]).data.targets.shape == (4,)


@pytest.mark.parametrize("head", HEADS)
def test_progress_that_says_nothing_is_refused(head):
    dataset = DotDataset()
    dataset.columns["stage_progress_gt"][:] = 0
    with pytest.raises(DataError, match=r"the same (.|\n)*annotate the episodes"):
        objective(dataset, head=head)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("value", [float("nan"), -0.01, 1.01])
def test_progress_that_is_no_fraction_is_placed(head, value):
    dataset = DotDataset()
    dataset.columns["stage_progress_gt"][[9, 30]] = value
    with pytest.raises(DataError, match=r"2 of 68 values of stage_progress_gt(.|\n)*episode 1, frame 2: "):
        objective(dataset, head=head)


def test_rollouts_without_annotation_are_refused_with_what_to_do():
    dataset = DotDataset()
    del dataset.features["stage_progress_gt"]
    with pytest.raises(DataError, match=r"no column stage_progress_gt(.|\n)*train on those that are annotated and pre"):
        objective(dataset, head="relative")


def test_another_column_can_be_learned():
    dataset = DotDataset()
    found = objective(dataset, head="single", progress_column="gripper")
    assert np.array_equal(found.data.targets, dataset.columns["gripper"])


def test_targets_go_with_the_distribution_alone():
    dataset = DotDataset()
    with pytest.raises(UsageError, match="head distribution learns value targets"):
        train.prepare(Recipe(**FAST), dataset, None)
    with pytest.raises(UsageError, match="head relative learns column stage_progress_gt"):
        train.prepare(Recipe(**FAST, head="relative"), dataset, dataset.targets)


def test_rank_correlation_is_measured_episode_by_episode():
    value = np.array([0.1, 0.2, 0.3, 0.9, 0.8, 0.7, 0.5, 0.5])
    progress = np.array([0.0, 0.5, 1.0, 0.0, 0.5, 1.0, 0.0, 1.0])
    episode = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    assert episode_spearman(value, progress, episode) == 0.0  # +1 and -1; the third is constant and doesn't count
    assert episode_spearman(value[:3], progress[:3], episode[:3]) == 1.0
    assert episode_spearman(value[6:], progress[6:], episode[6:]) is None


@pytest.mark.parametrize("head", HEADS)
def test_what_is_measured_does_not_depend_on_how_episodes_are_encoded(head, monkeypatch):
    found = objective(head=head)
    whole = found.evaluate()
    monkeypatch.setattr("robolift.value_model.evaluation.EVALUATION_BATCH", 3)
    assert found.evaluate() == pytest.approx(whole, rel=1e-5)
