"""Training a value model with towers: the ways to save memory change nothing, and what is frozen stays."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from dot_world import DotDataset
from pydantic import ValidationError
from structlog.testing import capture_logs
from tiny_tokenizer import tiny_tokenizer

from robolift.errors import DataError
from robolift.training import device, distributed
from robolift.training.distributed import World
from robolift.value_model import checkpoint, predict, train
from robolift.value_model.objective import ValueObjective
from robolift.value_model.recipe import Recipe
from robolift.value_model.weights import NAMINGS

SETTINGS = {
    "steps": 4,
    "batch_size": 8,
    "warmup_steps": 1,
    "val_fraction": 0.25,
    "log_every": 1,
    "eval_every": 2,
    "save_every": 2,
    "shift_px": 2,
    "learning_rate": 1e-3,
}


@pytest.fixture(autouse=True)
def one_thread():
    with device.threads(1):
        yield


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tiny.model"
    path.write_bytes(tiny_tokenizer(512))
    return str(path)


@pytest.fixture
def recipe(tokenizer):
    def make(preset="pi05_dummy", **changes):
        return Recipe(**{**SETTINGS, "preset": preset, "tokenizer": tokenizer, **changes})

    return make


def fit(recipe, folder, dataset=None):
    dataset = dataset or DotDataset(lengths=(4, 5, 3, 4, 4, 3, 5, 4))
    folder.mkdir(parents=True, exist_ok=True)
    places = train.Places(dataset_uri="", targets_uri="", work_uri=f"{folder}.work", folder=str(folder))
    targets = dataset.targets if recipe.head == "distribution" else None
    train.train_here(recipe, places, World(), dataset, train.prepare(recipe, dataset, targets))
    return safetensors.torch.load_file(folder / "model.safetensors"), json.loads((folder / "curves.json").read_text())


def openpi_weights(folder, recipe):
    """First weights of the towers as openpi names them; the value token and its head have none."""
    dataset = DotDataset()
    model = train.initial_model(train.describe(recipe, dataset, train.prepare(recipe, dataset, dataset.targets)), 11)
    folder.mkdir()
    rules = [(ours, theirs) for theirs, ours in NAMINGS["gemma"].prefixes if ours]
    tensors = {
        theirs + name.removeprefix(ours): weight
        for name, weight in model.state_dict().items()
        for ours, theirs in rules
        if name.startswith(ours)
    }
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    return folder


def gradients(recipe, watch=lambda model: None):
    dataset = DotDataset(lengths=(4, 5, 3, 4, 4, 3, 5, 4))
    data = train.prepare(recipe, dataset, dataset.targets if recipe.head == "distribution" else None)
    model = train.trainable(
        train.initial_model(train.describe(recipe, dataset, data), seed=0), recipe, World(), torch.device("cpu")
    )
    watch(model)
    images = dataset.all_frames(data.cameras, recipe.image_size)
    objective = ValueObjective(model=model, data=data, images=images, recipe=recipe, world=World())
    total = 0.0
    for part in range(recipe.accumulate):
        loss = objective.losses(0, part)["loss"] / recipe.accumulate
        loss.backward()
        total += loss.item()
    return total, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_accumulating_and_recomputing_give_the_gradients_of_the_whole_batch(recipe):
    computed = []

    def watch(model):
        computed.append({"vision": 0, "language": 0})
        for name, layer in (("vision", model.vision.encoder.layers[0]), ("language", model.language.layers[0])):
            layer.self_attn.register_forward_pre_hook(
                lambda *_, name=name, counts=computed[-1]: counts.update({name: counts[name] + 1})
            )

    loss, whole = gradients(recipe(head="relative"), watch)
    assert all(gradient is not None for gradient in whole.values())
    for changes in ({"accumulate": 4}, {"checkpoint_activations": True}):
        again, parts = gradients(recipe(head="relative", **changes), watch)
        assert again == pytest.approx(loss, rel=1e-5)
        assert max((parts[name] - gradient).abs().max().item() for name, gradient in whole.items()) < 1e-5
    assert max(gradient.abs().max().item() for gradient in whole.values()) > 1e-2
    assert computed == [{"vision": times, "language": times} for times in (1, 4, 2)]


def test_bfloat16_keeps_float32_weights_and_stays_close(recipe):
    exact, _ = gradients(recipe("siglip_gemma_dummy"))
    rough, found = gradients(recipe("siglip_gemma_dummy", precision="bfloat16"))
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.02)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}


@pytest.mark.parametrize(("freeze", "frozen"), [("vision", ("vision.",)), ("backbones", ("vision.", "language."))])
def test_what_is_frozen_stays_bit_for_bit_and_everything_else_moves(recipe, tmp_path, freeze, frozen):
    made = recipe("siglip_gemma_dummy", freeze=freeze)
    dataset = DotDataset(lengths=(4, 5, 3, 4, 4, 3, 5, 4))
    before = train.initial_model(
        train.describe(made, dataset, train.prepare(made, dataset, dataset.targets)), made.seed
    ).state_dict()
    after, _ = fit(made, tmp_path / "out")
    assert after.keys() == before.keys()
    for name, weight in after.items():
        assert torch.equal(weight, before[name]) == name.startswith(frozen), name
    saved = safetensors.torch.load_file(tmp_path / "out.work" / "checkpoints" / "4" / "optimizer.safetensors")
    assert not [name for name in saved if name.partition(".")[2].startswith(frozen)]


@pytest.mark.parametrize(("preset", "freeze"), [("pi05_dummy", "vision"), ("siglip_gemma_dummy", "none")])
def test_a_killed_run_ends_like_an_uninterrupted_one(recipe, tmp_path, monkeypatch, preset, freeze):
    made = recipe(preset, freeze=freeze, accumulate=2)
    whole = fit(made, tmp_path / "whole")
    losses = ValueObjective.losses

    def cut(self, step, part=0):
        if step == 3:
            raise ConnectionError
        return losses(self, step, part)

    with monkeypatch.context() as patch:
        patch.setattr(ValueObjective, "losses", cut)
        with pytest.raises(ConnectionError):
            fit(made, tmp_path / "cut")
    again = fit(made, tmp_path / "cut")
    assert whole[1] == again[1]
    assert all(torch.equal(weight, again[0][name]) for name, weight in whole[0].items())


WORKER = """
    import sys
    from contextlib import nullcontext
    from pathlib import Path

    import torch
    from dot_world import DotDataset

    from robolift.training import distributed
    from robolift.training.sharding import is_sharded
    from robolift.value_model import train, weights
    from robolift.value_model.objective import ValueObjective
    from robolift.value_model.recipe import Recipe

    folder = Path(sys.argv[2])
    distributed.die_with_parent()
    world = distributed.launched_world()
    with distributed.reporting_errors(), distributed.connected(world, torch.device("cpu")):
        distributed.connected = lambda *_: nullcontext()  # three runs, one connection
        dataset = DotDataset(lengths=(4, 5, 3, 4, 4, 3, 5, 4))
        losses, materialize = ValueObjective.losses, weights.materialize

        def cut(self, step, part=0):
            assert all(map(is_sharded, self.model.parameters()))
            if step == 3:
                raise ConnectionError
            return losses(self, step, part)

        def counted(*given):
            with (folder / f"materialized-{world.rank}").open("a") as file:
                file.write("x")
            return materialize(*given)

        weights.materialize = counted
        recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
        data = train.prepare(recipe, dataset, None)
        for name, interrupted in (("whole", False), ("cut", True), ("cut", False)):
            out = folder / name
            out.mkdir(exist_ok=True)
            places = train.Places(dataset_uri="", targets_uri="", work_uri=f"{out}.work", folder=str(out))
            ValueObjective.losses = cut if interrupted else losses
            try:
                train.train_here(recipe, places, world, dataset, data)
            except ConnectionError:
                assert interrupted
"""


@pytest.mark.slow
@pytest.mark.timeout(900)  # two processes import everything on a core that others use
@pytest.mark.parametrize("freeze", ["none", "vision"])
def test_two_processes_that_share_the_weights_train_like_one_and_resume(recipe, tmp_path, monkeypatch, freeze):
    shared = {"head": "relative", "freeze": freeze, "batch_size": 8, "select": "best", "eval_frames": 5}
    shared["weights"] = str(openpi_weights(tmp_path / "weights", recipe()))
    made = recipe("pi05_dummy", **shared, sharding="fsdp", num_processes=2, accumulate=2, checkpoint_activations=True)
    (tmp_path / "shard_worker.py").write_text(textwrap.dedent(WORKER))
    (tmp_path / "recipe.json").write_text(made.model_dump_json())
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{here}:{here.parents[1]}")
    for name in ("RANK", "WORLD_SIZE", "PET_NNODES", "NPROC_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    arguments = [str(tmp_path / "recipe.json"), str(tmp_path)]
    distributed.launch("shard_worker", arguments, num_processes=2, error_file=tmp_path / "error.json")
    alone, curves = fit(recipe("pi05_dummy", **shared), tmp_path / "alone")
    found = {name: safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut")}
    assert (tmp_path / "whole" / "curves.json").read_bytes() == (tmp_path / "cut" / "curves.json").read_bytes()
    theirs = json.loads((tmp_path / "whole" / "curves.json").read_text())
    for kind in ("train", "validation"):
        for one, other in zip(curves[kind], theirs[kind], strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    for name, weight in alone.items():
        assert torch.equal(found["whole"][name], found["cut"][name]), name
        # Softmax does not feel a bias of the keys: its gradient is noise, and Adam makes steps of it.
        if not name.endswith("k_proj.bias"):
            assert (found["whole"][name] - weight).abs().max() < 1e-5, name
    # Three runs on one machine: one process gets the file, the other waits.
    assert (tmp_path / "materialized-0").read_text() == "xxx"
    assert not (tmp_path / "materialized-1").exists()


@pytest.mark.parametrize(("preset", "head"), [("pi05_dummy", "relative"), ("siglip_gemma_dummy", "distribution")])
def test_a_trained_model_predicts_without_its_tokenizer_whatever_the_shards(recipe, tmp_path, preset, head):
    dataset = DotDataset(lengths=(4, 5, 3, 4))
    fit(recipe(preset, head=head, steps=2, val_fraction=0), tmp_path / "out", dataset)
    model, found = checkpoint.load(str(tmp_path / "out"))
    document = json.loads((tmp_path / "out" / "checkpoint.json").read_text())
    assert document["model"]["language"]["vocabulary"] == 512
    assert document["prompts"][0][0] == 2  # the token that begins a sequence
    assert "encoder" not in document
    assert json.loads(json.dumps(found.to_dict())) == document
    saved = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(weight, saved[name]) for name, weight in model.state_dict().items())
    columns = []
    for num_shards in (1, 3):
        parts = [
            predict.predict(
                model,
                found,
                dataset,
                episodes=predict.shard_episodes(dataset.starts, shard, num_shards),
                batch_size=8,
                lookahead=2,
                folder=tmp_path,
                save_features=True,
            )
            for shard in range(num_shards)
        ]
        columns.append({name: np.concatenate([part[name] for part in parts]).tolist() for name in parts[0]})
    assert columns[0] == columns[1]
    assert np.std(columns[0]["value"]) > 0
    assert not list(tmp_path.glob("features*"))
    rough = predict.predict(
        model,
        found,
        dataset,
        episodes=range(4),
        batch_size=8,
        lookahead=2,
        folder=tmp_path,
        save_features=True,
        precision="bfloat16",
    )
    assert rough["value"].dtype == np.float32
    assert 0 < np.abs(rough["value"] - columns[0]["value"]).max() < 0.02


def test_loading_draws_no_weights(recipe, tmp_path):
    dataset = DotDataset(lengths=(2, 3))
    made = recipe()
    found = train.describe(made, dataset, train.prepare(made, dataset, dataset.targets))
    checkpoint.save(tmp_path, found, train.initial_model(found, seed=3).state_dict())
    torch.manual_seed(0)
    torch.randn(found.config.language.width)  # the value token alone
    expected = torch.random.get_rng_state()
    torch.manual_seed(0)
    model, _ = checkpoint.load(str(tmp_path))
    assert torch.equal(torch.random.get_rng_state(), expected)
    whole, loaded = train.initial_model(found, seed=3), model.state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in whole.state_dict().items())
    buffers = dict(model.named_buffers())  # they are in no file
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in whole.named_buffers())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match="weights can't be read"):
        checkpoint.load(str(tmp_path))


@pytest.mark.parametrize(("preset", "boxed"), [("pi05_dummy", True), ("siglip_gemma_dummy", False)])
def test_training_and_predicting_see_the_same_pictures_and_pi05_sees_them_unstretched(recipe, preset, boxed):
    class Wide(DotDataset):
        def image_size(self, camera, episode=0):
            return (12, 24)

    dataset = Wide(lengths=(2, 3), cameras=("front",))
    made = recipe(preset)
    data = train.prepare(made, dataset, dataset.targets)
    found = train.describe(made, dataset, data)
    with train.packed(made, World(), dataset, data, padded=found.padded) as images:
        trained_on = images[np.arange(5)][:, 0]
    predicted_from = [views[0] for views in predict.iterate_frames(dataset, found, range(2))]
    assert np.array_equal(np.stack(predicted_from), trained_on)
    assert (trained_on[:, 7:21] > 0).any(axis=(1, 2, 3)).all()
    edges = np.concatenate([trained_on[:, :7], trained_on[:, 21:]], axis=1)
    assert (edges == 0).all() == boxed


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"preset": "pi05"}, r"needs a tokenizer"),
        ({"preset": "pi05", "tokenizer": "x", "image_size": (96, 96)}, r"needs image_size \(224, 224\)"),
        ({"preset": "pi05", "tokenizer": "x", "state_keys": ["observation.state"]}, r"needs state_keys \[\]"),
        ({"preset": "pi05", "tokenizer": "x", "action_weight": 1.0}, "needs action_weight 0"),
        ({"preset": "pi05", "tokenizer": "x", "cameras": []}, "camera"),
        ({"weights": "x", "freeze": "vision"}, "preset tiny needs no weights.*; freeze none"),
        ({"sharding": "fsdp", "num_processes": 2}, "preset tiny needs sharding ddp"),
        ({"preset": "pi05", "tokenizer": "x", "sharding": "fsdp"}, "fsdp needs num_processes above 1"),
        ({"batch_size": 8, "accumulate": 3}, "can't be shared by num_processes 1 in accumulate 3 parts"),
    ],
)
def test_settings_that_the_preset_cannot_follow_are_named(changes, text):
    with pytest.raises(ValidationError, match=text):
        Recipe(**changes)


def test_a_preset_with_towers_brings_recap_s_defaults_and_what_is_set_beside_it_wins():
    made = Recipe(preset="pi05", tokenizer="x", weight_decay=0.5)
    assert (made.image_size, made.state_keys, made.action_weight) == ((224, 224), [], 0)
    assert (made.learning_rate, made.final_learning_rate_fraction, made.weight_decay) == (2.5e-5, 0.1, 0.5)
    named = Recipe(recipe="ADVANTAGE_TORCH_KAI0_HANG_CLOTH", preset="pi05", tokenizer="x")
    assert (named.preset, named.head, named.batch_size) == ("pi05", "relative", 128)


def test_a_tokenizer_of_another_vocabulary_and_a_long_task_are_refused(recipe, tmp_path):
    dataset = DotDataset(tasks=(" ".join(["fold the cloth"] * 20),))
    made = recipe()
    data = train.prepare(made, dataset, dataset.targets)
    with pytest.raises(DataError, match=r"at most 48(.|\n)*give the task fewer words, or set long_prompt") as refused:
        train.describe(made, dataset, data)
    assert "max_token_len" not in str(refused.value)
    with capture_logs() as told:
        shortened = train.describe(recipe(long_prompt="shorten"), dataset, data)
    assert len(shortened.prompts[0]) <= 48
    (warning,) = [entry for entry in told if entry["event"] == "a task is too long for the prompt"]
    assert warning["task"] == dataset.tasks[0]
    assert dataset.tasks[0].endswith(warning["cut"])
    assert warning["cut"].endswith("fold the cloth")
    (tmp_path / "other.model").write_bytes(tiny_tokenizer(600))
    with pytest.raises(DataError, match=r"600 pieces(.|\n)*512"):
        train.describe(recipe(tokenizer=str(tmp_path / "other.model")), dataset, data)


def test_tasks_that_are_the_same_once_shortened_are_refused_and_both_named(recipe):
    same = " ".join(["fold the cloth"] * 20)
    dataset = DotDataset(tasks=(f"{same} once", f"{same} twice"))
    made = recipe(long_prompt="shorten")
    with pytest.raises(DataError, match=r"once'(.|\n)*twice'(.|\n)*look the same"):
        train.describe(made, dataset, train.prepare(made, dataset, dataset.targets))
