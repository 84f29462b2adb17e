from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from dot_world import DotDataset

from robolift.data.split import split_episodes
from robolift.errors import DataError, UsageError
from robolift.training import device
from robolift.training.distributed import World
from robolift.value_model import augment, checkpoint, train
from robolift.value_model.evaluation import outcome_auc
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


def run(folder: Path, dataset=None, **changes) -> Path:
    dataset = dataset or DotDataset()
    recipe = Recipe(**{**FAST, **changes})
    folder.mkdir(parents=True)
    places = train.Places(dataset_uri="", targets_uri="", work_uri=f"{folder}.work", folder=str(folder))
    train.train_here(recipe, places, World(), dataset, train.prepare(recipe, dataset, dataset.targets))
    return folder


ALONE = World()


def objective(world=ALONE, **changes):
    recipe = Recipe(**{**FAST, **changes})
    dataset = DotDataset()
    data = train.prepare(recipe, dataset, dataset.targets)
    model = train.initial_model(train.describe(recipe, dataset, data), seed=0)
    images = dataset.all_frames(data.cameras, recipe.image_size) if data.cameras else None
    return ValueObjective(model=model, data=data, images=images, recipe=recipe, world=world)


def test_training_writes_a_checkpoint_that_loads(tmp_path):
    folder = run(tmp_path / "out", cameras=["side", "front"])
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint.json", "curves.json", "model.safetensors"]
    document = json.loads((folder / "checkpoint.json").read_text())
    assert document["cameras"] == ["side", "front"]
    assert document["image_size"] == [24, 24]
    assert document["state_keys"] == ["observation.state"]
    assert len(document["state_mean"]) == len(document["state_std"]) == 5
    assert document["tasks"] == ["go to the green dot", "go to the dot that is green"]
    assert document["head"] == "distribution"
    assert document["held_out_episodes"] == [4, 7]
    assert document["value_head"] == {"atoms": 201, "low": -1.0, "high": 0.0}
    assert document["encoder"]["strides"] == [2, 2, 1, 1]
    assert document["held_out_episodes"] == split_episodes(DotDataset().success.astype(int), 0.25, 0)[1].tolist()
    assert document["step"] == 12
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    assert weights["encoder.1.conv3.weight"].shape == (32, 32, 3, 3)
    assert {"encoder.0.log_temperature", "value_head.weight", "action_head.2.weight"} <= weights.keys()
    model, found = checkpoint.load(str(folder))
    assert json.loads(json.dumps(found.to_dict())) == document
    assert not model.training
    curves = json.loads((folder / "curves.json").read_text())
    assert [row["step"] for row in curves["train"]] == [4, 8, 12]
    assert set(curves["train"][0]) == {"step", "loss", "value_loss", "action_loss"}
    assert set(curves["validation"][0]) == {"step", "loss", "spearman", "outcome_auc"}


def test_the_checkpoint_holds_the_average_of_the_weights(tmp_path):
    # With decay 0 the average is the last step's weights, so a decay must give something else.
    last, average = (
        safetensors.numpy.load_file(run(tmp_path / str(d), ema_decay=d) / "model.safetensors") for d in (0, 0.9)
    )
    assert not np.allclose(last["value_head.weight"], average["value_head.weight"], atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path, precision):
    one, two, other = (
        {p.name: p.read_bytes() for p in run(tmp_path / name, seed=seed, precision=precision).iterdir()}
        for name, seed in (("one", 3), ("two", 3), ("other", 4))
    )
    assert one == two
    assert one["model.safetensors"] != other["model.safetensors"]


def test_a_model_without_cameras_learns_values_from_state(tmp_path):
    dataset = DotDataset(lengths=(12,) * 24)
    folder = run(tmp_path / "out", dataset, cameras=[], steps=300, batch_size=32, learning_rate=3e-3, warmup_steps=20)
    held_out = json.loads((folder / "curves.json").read_text())["validation"]
    assert held_out[-1]["loss"] < held_out[0]["loss"]
    assert held_out[-1]["spearman"] > 0.5
    assert "encoder.0.conv0.weight" not in safetensors.numpy.load_file(folder / "model.safetensors")


def test_a_model_that_only_sees_learns_from_pixels(tmp_path):
    dataset = DotDataset(lengths=(10,) * 24, cameras=("front",))
    folder = run(
        tmp_path / "out", dataset, state_keys=[], steps=150, batch_size=32, learning_rate=3e-3, warmup_steps=20
    )
    curves = json.loads((folder / "curves.json").read_text())
    assert curves["train"][-1]["action_loss"] < 0.5 * curves["train"][0]["action_loss"]
    assert curves["validation"][-1]["spearman"] > 0.3


def test_no_frames_are_left_on_disk(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    run(tmp_path / "out")
    assert list(scratch.iterdir()) == []

    def damaged(*_, folder, **__):
        (folder / "frames.npy").write_bytes(b"half of them")
        raise DataError("a video is damaged")

    monkeypatch.setattr(train, "pack_frames", damaged)
    with pytest.raises(DataError, match="a video is damaged"):
        run(tmp_path / "damaged")
    assert list(scratch.iterdir()) == []


def test_two_processes_see_together_what_one_sees_alone():
    alone, first, second = objective(), objective(World(0, 2)), objective(World(1, 2))
    for step in (0, 5):
        parts = [part.losses(step) for part in (first, second)]
        for name, whole in alone.losses(step).items():
            assert whole.item() == pytest.approx(sum(part[name].item() for part in parts) / 2, rel=1e-5)


def test_the_loss_is_the_weighted_sum_and_the_action_head_is_optional():
    losses = objective(value_weight=0.25, action_weight=2.0).losses(0)
    assert losses["loss"].item() == pytest.approx(0.25 * losses["value_loss"].item() + 2 * losses["action_loss"].item())
    for changes in ({"cameras": []}, {"action_weight": 0}):
        other = objective(**changes)
        assert other.model.action_head is None
        assert other.losses(0).keys() == {"loss", "value_loss"}


def test_bfloat16_convolutions_stay_close():
    exact, rough = objective().losses(0), objective(precision="bfloat16").losses(0)
    assert rough["loss"].dtype == torch.float32
    assert exact["loss"].item() != rough["loss"].item()
    assert exact["loss"].item() == pytest.approx(rough["loss"].item(), rel=0.02)


def test_no_camera_s_encoder_is_shared_and_each_gets_its_own_view():
    model = objective().model
    images = torch.randint(0, 256, (3, 2, 24, 24, 3), dtype=torch.uint8)
    both = model.encode(images)
    assert both.shape == (3, 192)
    assert torch.equal(both[:, 96:], model.encoder[1](images[:, 1]))
    swapped = model.encode(images.flip(1))
    assert not torch.allclose(both[:, :96], swapped[:, 96:], atol=1e-3)


def test_the_task_text_changes_the_value_and_padding_does_not():
    model = objective(cameras=[]).model
    state = torch.zeros(2, 5)
    logits = model.value_logits(torch.zeros(2, 0), state, torch.tensor([0, 1]))
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)
    longer = torch.nn.functional.pad(model.tokens, (0, 3), value=-1)
    model.tokens = longer
    assert torch.allclose(model.value_logits(torch.zeros(2, 0), state, torch.tensor([0, 1])), logits, atol=1e-6)


def test_outcome_auc_compares_episode_means():
    starts, success = np.array([0, 2, 4, 6, 8]), np.array([1, 0, -1, 1])
    values = np.array([-0.1, -0.3, -0.5, -0.4, 0.0, 0.0, -0.9, -0.8])
    assert outcome_auc(values, np.arange(8), starts, success) == 0.5
    assert outcome_auc(values[:4], np.arange(4), starts, success) == 1.0
    assert outcome_auc(values[:2], np.arange(2), starts, success) is None


def test_an_unknown_preset_and_a_missing_gpu_are_usage_errors(tmp_path, monkeypatch):
    places = train.Places(dataset_uri="", targets_uri="", work_uri="", folder="")
    with pytest.raises(UsageError, match="'huge' is unknown; there are: tiny"):
        train.train(Recipe(preset="huge"), places)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device is cuda"):
        train.train(Recipe(device="cuda"), places)


def test_a_job_of_another_size_than_the_recipe_is_refused():
    dataset = DotDataset()
    recipe = Recipe(**FAST)
    places = train.Places(dataset_uri="", targets_uri="", work_uri="", folder="")
    with pytest.raises(UsageError, match="2 processes were started and num_processes is 1"):
        train.train_here(recipe, places, World(0, 2), dataset, train.prepare(recipe, dataset, dataset.targets))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return run(tmp_path_factory.mktemp("trained") / "out", cameras=["side", "front"])


@pytest.mark.parametrize(
    ("dataset", "texts"),
    [
        (DotDataset(cameras=("front", "wrist")), ["camera 'side'", "['front', 'wrist']", "['side', 'front']"]),
        (DotDataset(tasks=("fold the cloth",)), ["task 'fold the cloth'", "'go to the green dot'"]),
    ],
)
def test_a_dataset_the_model_was_not_trained_for_is_refused_naming_both(trained, dataset, texts):
    _, found = checkpoint.load(str(trained))
    with pytest.raises(DataError) as refused:
        found.check_dataset(dataset)
    assert all(text in str(refused.value) for text in texts)


def test_a_dataset_with_fewer_tasks_or_more_cameras_is_fine(trained):
    _, found = checkpoint.load(str(trained))
    found.check_dataset(DotDataset(cameras=("front", "side", "wrist"), tasks=("go to the dot that is green",)))


def test_another_size_of_state_is_refused_naming_both(trained):
    _, found = checkpoint.load(str(trained))
    with pytest.raises(DataError, match=r"'observation.state': 7(.|\n)*'observation.state': 5"):
        found.check_state((7,))


def test_a_broken_checkpoint_is_named(trained, tmp_path):
    for name in ("checkpoint.json", "model.safetensors"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    document = json.loads((tmp_path / "checkpoint.json").read_text())
    (tmp_path / "checkpoint.json").write_text(json.dumps({**document, "cameras": ["front"]}))
    with pytest.raises(DataError, match=r"do not fit(.|\n)*model\.safetensors"):
        checkpoint.load(str(tmp_path))
    del document["tasks"]
    (tmp_path / "checkpoint.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="'tasks'"):
        checkpoint.load(str(tmp_path))


def test_a_checkpoint_that_does_not_say_what_was_held_out_still_loads(trained, tmp_path):
    document = json.loads((trained / "checkpoint.json").read_text())
    assert len(document.pop("held_out_episodes")) == 2
    (tmp_path / "checkpoint.json").write_text(json.dumps(document))
    (tmp_path / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    _, found = checkpoint.load(str(tmp_path))
    assert found.held_out_episodes is None
    assert found.to_dict()["held_out_episodes"] is None


def test_augmentation_is_left_out_of_evaluation(monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("evaluation must not augment")

    found = objective()
    monkeypatch.setattr(augment, "draw", forbidden)
    assert dataclasses.is_dataclass(found)
    assert found.evaluate() == found.evaluate()


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with device.threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    assert os.environ.get("RANK") is None


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # PyTorch's own, while it traces
def test_a_compiled_step_with_a_fused_optimizer_learns_the_same_and_held_out_frames_are_not_compiled(
    tmp_path, monkeypatch
):
    asked = []
    whole = torch.compile

    def tracing(method, **options):
        asked.append((method.__name__, options))
        return whole(method, backend="eager", **options)  # traced as ever; machine code would take a minute

    monkeypatch.setattr(torch, "compile", tracing)
    plain, compiled = run(tmp_path / "plain"), run(tmp_path / "compiled", compile=True, fused_optimizer=True)
    assert asked == [(name, {"dynamic": False}) for name in ("encode", "value_logits", "actions")]
    one, other = (safetensors.numpy.load_file(folder / "model.safetensors") for folder in (plain, compiled))
    assert max(np.abs(one[name] - other[name]).max() for name in one) < 1e-4
    assert any((one[name] != other[name]).any() for name in one)  # so it belongs to the identity
    assert json.loads((compiled / "checkpoint.json").read_text()) == json.loads((plain / "checkpoint.json").read_text())


def test_compiling_is_refused_without_a_compiler_and_where_weights_are_dealt_out(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match="there is no no-such-compiler; install one, name another in CXX"):
        device.check_compiler("cpu")
    monkeypatch.setenv("CC", sys.executable)
    device.check_compiler("cuda")  # Triton's is another one
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="a C compiler, and there is no gcc or clang; install one, name another in CC"):
        device.check_compiler("cuda")
    with pytest.raises(ValueError, match="compile is for sharding ddp"):
        Recipe(preset="pi05_dummy", tokenizer="x", compile=True, sharding="fsdp", num_processes=2, batch_size=8)
