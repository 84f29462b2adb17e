"""``python -m robolift export-policy``: what it writes loads as it was, and nothing else is ever written over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import miniature_pi05 as miniature
import numpy as np
import pytest
import safetensors
from policy_server import publish_small
from tiny_tokenizer import tiny_tokenizer

from robolift import storage
from robolift.__main__ import main
from robolift.manifest import Output, Plan
from robolift.policy import export_cli
from robolift.policy.norm_stats import NormStats
from robolift.policy.normalize import Normalizer
from robolift.policy.pi05 import export, policy_files, tree
from robolift.policy.pi05.weights import Form, load_params
from robolift.schema import Kind

CONFIG = miniature.config()
STATE = Normalizer(np.array([0.25, -3.1, 7], np.float32), np.array([0.1, 2.7, 1], np.float32))
ACTION = Normalizer(np.array([10.7], np.float32), np.array([0.3], np.float32))
WEIGHTS = {"orbax": "params", "openpi_torch": "model.safetensors", "safetensors": "model.safetensors"}


@pytest.fixture(scope="module", autouse=True)
def quick_compiling():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return miniature.tokenizer(tmp_path_factory.mktemp("words"))


def publish(root, words, config=CONFIG):
    """Publish a policy of a network without training it."""
    data = miniature.rows(config, miniature.recipe(label_dropout=0.3), words)
    rng = np.random.default_rng(0)
    flat = {path: rng.standard_normal(shape, np.float32) for path, shape in tree.names_and_shapes(config).items()}
    digest = storage.digest_of(sorted(flat))
    plan = Plan(stage="train_policy", kind=Kind.POLICY, root=str(root), config={}, inputs={}, code="0", digest=digest)
    output = Output(plan)
    spec = miniature.spec_of(data, config, action=ACTION, state=STATE)
    policy_files.save(output.path, spec, tree.unflatten(flat), tiny_tokenizer())
    return output.publish({}), flat


@pytest.fixture(scope="module")
def published(tmp_path_factory, words):
    return publish(tmp_path_factory.mktemp("runs"), words)


def run(*options):
    return main(["export-policy", *map(str, options)])


def options(policy, target, form="orbax"):
    return ["--checkpoint", policy.uri, "--form", form, "--output", str(target)]


def read_all(uri):
    return {name: storage.read_bytes(storage.join(uri, name)) for name, _ in storage.list_files(uri)}


def test_forms_are_those_that_weights_have():
    assert set(export_cli.FORMS) == set(Form.__args__)


@pytest.mark.parametrize("form", export_cli.FORMS)
def test_what_was_exported_loads_as_it_was(published, tmp_path, capsys, form):
    policy, flat = published
    target = tmp_path / "deep" / "exported"
    assert run(*options(policy, target, form), "--asset-id", "lab/arm") == 0
    assert capsys.readouterr().out.strip() == f"file://{target}"
    for address in (target, target / WEIGHTS[form]):
        loaded = tree.flatten(load_params(str(address), CONFIG))
        assert loaded.keys() == flat.keys()
        assert all(np.array_equal(loaded[path], weight) for path, weight in flat.items())
    if form != "orbax":
        with safetensors.safe_open(str(target / WEIGHTS[form]), "np") as file:
            assert any(name.startswith("paligemma_with_expert.") for name in file.keys()) == (form == "openpi_torch")  # noqa: SIM118
    document = json.loads((target / "export.json").read_text())
    assert (document["policy"], document["form"], document["asset_id"]) == (policy.digest, form, "lab/arm")
    assert document["network"]["prompt_format"] == "kai0"
    assert document["network"]["camera_keys"] == {"base_0_rgb": "topview"}
    assert (document["network"]["action_horizon"], document["network"]["action_dim"]) == (1, 4)
    found = dict(storage.list_files(str(target)))
    assert found.pop("export.json")
    assert document["files"] == found
    assert not [path for path in target.parent.iterdir() if path != target]


def test_statistics_are_those_under_which_openpi_normalises_as_we_did(published, tmp_path):
    run(*options(published[0], tmp_path / "exported", "safetensors"))
    found = json.loads((tmp_path / "exported/assets/robolift/norm_stats.json").read_text())
    stats = NormStats.from_dict(found)
    for part, ours in ((stats.state, STATE), (stats.actions, ACTION)):
        for method in ("quantile", "mean_std"):
            theirs = part.normalizer(method)
            np.testing.assert_array_equal(theirs.offset, ours.offset)
            np.testing.assert_array_equal(theirs.scale, ours.scale)
    # openpi's rule itself, which adds 1e-6 to a range.
    x = np.array([0.2, -1.0, 7.5])
    theirs = (x - stats.state.q01) / (stats.state.q99 - stats.state.q01 + 1e-6) * 2 - 1
    np.testing.assert_allclose(theirs, STATE.apply(x), atol=1e-5)


def test_statistics_and_prompts_are_those_of_a_wider_state_and_a_shorter_task(words):
    spec = miniature.spec_of(miniature.rows(CONFIG, miniature.recipe(), words), CONFIG)
    assert export.network(spec)["state_width"] == 3
    assert export.norm_stats(spec)["norm_stats"]["state"]["q99"] == [1, 1, 1]
    tasks = dict.fromkeys(spec.formatter["tasks"], "fo")
    wider = replace(spec, formatter={**spec.formatter, "state_dim": 5, "tasks": tasks})
    state = export.norm_stats(wider)["norm_stats"]["state"]
    assert state == {
        "mean": [0, 0, 0, 0, 0],
        "std": [1, 1, 1, 1, 1],
        "q01": [-1, -1, -1, 0, 0],
        "q99": [1, 1, 1, 0, 0],
    }
    # openpi's rule gives the numbers that fill a state up the lowest bin, as in training.
    q01, q99 = np.array(state["q01"]), np.array(state["q99"])
    assert ((np.zeros(5) - q01) / (q99 - q01 + 1e-6) * 2 - 1)[3:].tolist() == [-1, -1]
    found = export.network(wider)
    assert found["state_width"] == 5
    assert found["prompts"] == ["fo", "fo, Advantage: negative", "fo, Advantage: positive"]


def test_what_has_a_like_name_beside_an_export_stays(published, tmp_path):
    for name in (".fold.bak", ".fold*.old"):
        (tmp_path / name).mkdir()
    assert run(*options(published[0], tmp_path / "fold")) == 0
    assert run(*options(published[0], tmp_path / "fold*")) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fold*.old", ".fold.bak", "fold", "fold*"]


def test_again_it_changes_nothing(published, tmp_path, capsys):
    wanted = options(published[0], tmp_path / "exported")
    run(*wanted)
    before = read_all(str(tmp_path / "exported"))
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "exported").rglob("*")}
    assert run(*wanted) == 0
    assert read_all(str(tmp_path / "exported")) == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "exported").rglob("*")} == times
    assert capsys.readouterr().out.splitlines() == [f"file://{tmp_path}/exported"] * 2


@pytest.mark.parametrize("lost", ["export", "rest"])
def test_what_was_lost_or_not_yet_copied_is_completed(published, tmp_path, lost):
    wanted = options(published[0], tmp_path / "exported")
    run(*wanted)
    for path in (tmp_path / "exported/params").rglob("*"):
        if path.is_file() and (lost == "rest" or path.name == "_METADATA"):
            path.unlink()
    assert run(*wanted) == 0
    flat = tree.flatten(load_params(str(tmp_path / "exported"), CONFIG))
    assert all(np.array_equal(flat[path], weight) for path, weight in published[1].items())
    listing = json.loads((tmp_path / "exported/export.json").read_text())["files"]
    assert {*listing, "export.json"} == {name for name, _ in storage.list_files(str(tmp_path / "exported"))}


def test_to_a_store_the_marker_goes_first_and_what_makes_weights_readable_last(
    published, tmp_path, monkeypatch, capsys
):
    copied = []
    upload = storage.upload

    def killed(path, uri):
        if len(copied) == 2:
            raise KeyboardInterrupt
        copied.append(uri)
        upload(path, uri)

    target = "memory://exported"
    wanted = options(published[0], target)
    with monkeypatch.context() as patched:
        patched.setattr(storage, "upload", killed)
        with pytest.raises(KeyboardInterrupt):
            run(*wanted)
    assert copied[0] == f"{target}/export.json"
    assert not storage.exists(f"{target}/params/_METADATA")
    names = []
    monkeypatch.setattr(storage, "upload", lambda path, uri: (names.append(uri), upload(path, uri)))
    assert run(*wanted) == 0
    assert (names[0], names[-1]) == (f"{target}/export.json", f"{target}/params/_METADATA")
    found = {name for name, _ in storage.list_files(target)}
    assert found == {*storage.read_json(f"{target}/export.json")["files"], "export.json"}
    assert run(*wanted) == 0
    assert len(names) == len(found)


def test_what_is_no_export_or_another_one_stays_as_it_is(published, tmp_path, capsys):
    policy = published[0]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    run(*options(policy, tmp_path / "other", "safetensors"))
    before = read_all(str(tmp_path))
    for target, said in (
        ("mine", "holds something that is no export"),
        ("file", "holds something that is no export"),
        ("other", "is another export"),
    ):
        assert run(*options(policy, tmp_path / target)) == 64
        assert said in capsys.readouterr().err
    assert run(*options(policy, policy.uri)) == 64
    assert read_all(str(tmp_path)) == before
    (tmp_path / "empty").mkdir()
    assert run(*options(policy, tmp_path / "empty")) == 0


def test_what_has_no_such_form_is_refused_before_any_work(tmp_path, words, capsys):
    lora, flat = publish(tmp_path / "lora", words, miniature.with_updates(CONFIG))
    assert run(*options(lora, tmp_path / "torch", "openpi_torch")) == 64
    assert "has no name in openpi's PyTorch model" in capsys.readouterr().err
    small = publish_small(tmp_path / "small")
    assert run(*options(small, tmp_path / "tiny")) == 64
    assert "is of preset small, which openpi does not have" in capsys.readouterr().err
    assert run(*options(lora, tmp_path / "x"), "--asset-id", "../x") == 64
    assert "--asset-id is '../x'" in capsys.readouterr().err
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["lora", "small"]
    assert run(*options(lora, tmp_path / "orbax")) == 0
    loaded = tree.flatten(load_params(str(tmp_path / "orbax"), miniature.with_updates(CONFIG)))
    assert all(np.array_equal(loaded[path], weight) for path, weight in flat.items())


def test_what_openpis_configuration_must_say_alike_is_named(words):
    data = miniature.rows(CONFIG, miniature.recipe(), words)
    found = export.network(miniature.spec_of(data, miniature.with_updates(CONFIG)))
    assert found["lora_rank"] == {"paligemma": 2, "action_expert": 2}
    assert found["prompts"] == ["fold", "fold, Advantage: negative", "fold, Advantage: positive"]
