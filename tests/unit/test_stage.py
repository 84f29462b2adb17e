from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import toy_stage

from robolift import manifest as manifests
from robolift import provenance, storage
from robolift.__main__ import PROFILED
from robolift.errors import DataError, UsageError
from robolift.manifest import Output, Plan
from robolift.schema import Kind
from robolift.stages import NAMES, stage
from robolift.stages.description import field_texts
from robolift.stages.profiled import ProfiledConfig


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    toy_stage.install(monkeypatch)


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def plan_digest(config=None, inputs=None, root="memory://r") -> str:
    return stage.plan(
        "toy", stage.parse_config("toy", config or {}), stage.load_inputs("toy", inputs or {}), root
    ).digest


def test_a_stage_runs_and_publishes(tmp_path):
    found = stage.execute("toy", {"rows": 2, "scores": [0.5]}, {}, str(tmp_path))

    assert found.stage == "toy"
    assert found.counts == {"frames": 2}
    assert found.metrics() == {"scores": [0.5]}
    assert found.config == {"rows": 2, "seed": 0, "note": "", "part": {"size": 2}, "scores": [0.5]}
    assert found.table("targets").num_rows == 2
    manifests.verify(found)


def test_the_same_work_is_done_once(tmp_path):
    first = stage.execute("toy", {"rows": 2}, {}, str(tmp_path))
    before = tree(tmp_path)
    again = stage.execute("toy", stage.parse_config("toy", {"rows": 2}), {}, str(tmp_path))

    assert toy_stage.runs == 1
    assert again == first
    assert tree(tmp_path) == before


def test_work_in_another_root_has_the_same_identity_and_bytes(tmp_path):
    one = stage.execute("toy", {}, {}, str(tmp_path / "one"))
    two = stage.execute("toy", {}, {}, str(tmp_path / "two"))
    after_one = stage.execute("toy", {}, {"before": one.uri}, str(tmp_path / "one"))
    after_two = stage.execute("toy", {}, {"before": two.uri}, str(tmp_path / "two"))

    assert (one.digest, one.files) == (two.digest, two.files)
    assert (after_one.digest, after_one.files) == (after_two.digest, after_two.files)
    assert after_one.parent("before") == one
    assert after_two.parent("before") == two


def test_defaults_and_equal_values_have_one_identity():
    assert plan_digest() == plan_digest({"rows": 3}) == plan_digest({"rows": 3.0, "part": {"size": 2.0}})


@pytest.mark.parametrize("change", [{"rows": 4}, {"seed": 1}, {"note": "x"}, {"part": {"size": 3}}])
def test_what_changes_the_result_changes_the_identity(change):
    assert plan_digest(change) != plan_digest()


def test_how_fast_the_work_is_done_is_no_part_of_its_identity(tmp_path):
    assert plan_digest({"num_workers": 8}) == plan_digest()
    found = stage.execute("toy", {"num_workers": 8}, {}, str(tmp_path))
    assert "num_workers" not in found.config


def test_code_inputs_and_external_content_are_part_of_the_identity(tmp_path, monkeypatch):
    plain = plan_digest()
    first = stage.execute("toy", {"seed": 1}, {}, str(tmp_path))
    second = stage.execute("toy", {"seed": 2}, {}, str(tmp_path))
    seen = {
        plain,
        plan_digest(inputs={"before": first.uri}),
        plan_digest(inputs={"before": second.uri}),
        plan_digest(inputs={"others": [first.uri, second.uri]}),
        plan_digest(inputs={"others": [second.uri, first.uri]}),
    }
    monkeypatch.setattr(toy_stage, "identity", lambda config: {"content": "abc"}, raising=False)
    seen.add(plan_digest())
    monkeypatch.delattr(toy_stage, "identity")
    monkeypatch.setattr(provenance, "code_digest", lambda _: "edited")
    seen.add(plan_digest())

    assert len(seen) == 7


def test_a_failed_run_leaves_nothing_and_can_be_run_again(tmp_path):
    with pytest.raises(DataError, match="episode 3 has no video"):
        stage.execute("toy", {"fault": "data"}, {}, str(tmp_path))
    assert tree(tmp_path) == {}
    with pytest.raises(KeyboardInterrupt):
        stage.execute("toy", {"fault": "interrupt"}, {}, str(tmp_path))
    assert tree(tmp_path) == {}

    assert stage.execute("toy", {}, {}, str(tmp_path)).counts == {"frames": 3}


def test_an_error_while_publishing_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Output, "_move", full)
    with pytest.raises(OSError, match="No space left"):
        stage.execute("toy", {}, {}, str(tmp_path))
    assert tree(tmp_path) == {}


def test_reuse_removes_what_a_killed_run_left(tmp_path):
    found = stage.execute("toy", {}, {}, str(tmp_path))
    planned = stage.plan("toy", stage.parse_config("toy", {}), stage.load_inputs("toy", {}), str(tmp_path))
    storage.write_bytes(storage.join(planned.work_uri, "step-3"), b"state")
    (tmp_path / "toy" / f".{found.digest}.12345678").mkdir()

    stage.execute("toy", {}, {}, str(tmp_path))

    assert [p.name for p in (tmp_path / "toy").iterdir()] == [found.digest]
    assert not storage.exists(planned.work_uri)


def test_a_config_too_long_for_the_manifest_is_refused_before_the_work(tmp_path):
    with pytest.raises(UsageError, match="manifest of toy"):
        stage.execute("toy", {"note": "x" * 4000}, {}, str(tmp_path))
    assert toy_stage.runs == 0
    assert tree(tmp_path) == {}


def test_an_unknown_stage_lists_the_known_ones():
    with pytest.raises(UsageError, match="no stage 'train'; there are: simulate_episodes, import_replay_buffer"):
        stage.find("train")


def test_every_wrong_field_is_named_with_what_it_was():
    with pytest.raises(UsageError) as caught:
        stage.parse_config("toy", {"rows": "many", "part": {"size": None}, "lookahed": 3})

    lines = str(caught.value).splitlines()
    assert lines[0] == "wrong configuration:"
    assert lines[1].startswith("toy.rows: Input should be a valid integer")
    assert lines[1].endswith("(got 'many')")
    assert lines[2].startswith("toy.part.size: ")
    assert lines[3] == "toy.lookahed: Extra inputs are not permitted (got 3)"


def test_a_number_that_is_none_is_refused_by_every_config():
    with pytest.raises(UsageError, match=r"toy\.scores\.1: .*finite"):
        stage.parse_config("toy", {"scores": [0.0, float("nan")]})


def test_a_config_cannot_be_changed_after_it_was_checked():
    config = stage.parse_config("toy", {})
    with pytest.raises(ValueError, match="frozen"):
        config.rows = 5


def test_inputs_are_checked_before_the_work(tmp_path, monkeypatch):
    one = stage.execute("toy", {}, {}, str(tmp_path))
    monkeypatch.setattr(toy_stage, "runs", 0)
    needs = {**toy_stage.INPUTS, "dataset": stage.Input(kind=Kind.DATASET)}

    def refused(match, inputs, error=UsageError):
        with pytest.raises(error, match=match):
            stage.execute("toy", {}, inputs, str(tmp_path))

    refused("toy has no input value; it has: before, others", {"value": one.uri})
    refused("toy takes one before, got 2", {"before": [one.uri, one.uri]})
    refused("input before is 5, expected an address", {"before": 5})
    refused("input others is .*, expected an address or a list", {"others": {"a": "b"}})
    refused("input others is .*, expected an address or a list", {"others": [one.uri, 5]})
    refused("no manifest: this output is not finished", {"before": str(tmp_path / "nothing")}, DataError)
    monkeypatch.setattr(toy_stage, "INPUTS", needs)
    refused("toy needs input dataset", {})
    refused("input dataset is a ValueTargets", {"dataset": one.uri})
    assert toy_stage.runs == 0


def test_inputs_that_are_absent_are_told_apart(tmp_path):
    one = stage.execute("toy", {}, {}, str(tmp_path))
    loaded = stage.load_inputs("toy", {"before": "", "others": [one.uri, "", one.uri]})

    assert loaded.get_one("before") is None
    assert loaded["others"] == [one, one]
    assert stage.load_inputs("toy", {"before": None, "others": ()}) == {}
    assert stage.load_inputs("toy", {"before": [one.uri]}).one("before") == one


def test_inputs_are_left_as_they_were(tmp_path):
    one = stage.execute("toy", {}, {}, str(tmp_path / "one"))
    before = tree(tmp_path / "one")

    stage.execute("toy", {}, {"before": one.uri, "others": [one.uri]}, str(tmp_path / "two"))

    assert tree(tmp_path / "one") == before


@pytest.mark.parametrize("store", ["memory", "s3"])
def test_a_stage_publishes_to_any_store(store, request, tmp_path):
    base = "memory://stage" if store == "memory" else request.getfixturevalue("s3")
    root = storage.join(base, "runs")
    found = stage.execute("toy", {}, {}, root)
    again = stage.execute("toy", {}, {"before": found.uri}, root)
    on_disk = stage.execute("toy", {}, {}, str(tmp_path))

    assert toy_stage.runs == 3
    assert found.uri == f"{root}/toy/{found.digest}"
    assert found.files == on_disk.files
    assert again.parent("before") == found
    manifests.verify(again)
    storage.remove(root)


def test_a_plan_writes_nothing(tmp_path):
    planned = stage.plan("toy", stage.parse_config("toy", {}), stage.load_inputs("toy", {}), str(tmp_path / "root"))
    assert isinstance(planned, Plan)
    assert planned.finished() is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_an_output_whose_manifest_was_deleted_makes_it_again(tmp_path):
    found = stage.execute("toy", {}, {}, str(tmp_path))
    Path(storage.local_path(found.file("manifest.json"))).unlink()
    again = stage.execute("toy", {}, {}, str(tmp_path))

    assert toy_stage.runs == 2
    assert again == found
    shutil.rmtree(tmp_path)


def test_every_stage_name_is_a_module_that_keeps_the_contract(monkeypatch):
    monkeypatch.setattr(stage, "NAMES", NAMES)
    for name in NAMES:
        module = stage.find(name)
        assert issubclass(module.Config, stage.StageConfig)
        assert isinstance(module.OUTPUT, Kind)
        assert all(isinstance(spec, stage.Input) for spec in module.INPUTS.values())
        assert callable(module.run)
        undescribed = [key for key, text in field_texts(module.Config).items() if not text]
        assert not undescribed, f"{name}: no description of {undescribed}"
        assert set(module.Config.RUNTIME) <= set(module.Config.model_fields)
        assert issubclass(module.Config, ProfiledConfig) == (name in PROFILED)
        assert module.Config.__doc__ != stage.StageConfig.__doc__, f"{name}.Config needs a docstring"
    assert "robolift.stages.toy" in sys.modules


@pytest.mark.parametrize("root", ["memory://closed/runs", "file"])
def test_a_place_that_takes_no_output_is_refused_before_the_work(root, tmp_path, monkeypatch):
    if root == "file":
        (tmp_path / "file").write_text("")
        root = f"{tmp_path}/file/runs"
    else:
        fs, _ = storage.filesystem(root)

        def refuse(*_args, **_kwargs):
            raise PermissionError("Access Denied")

        monkeypatch.setattr(type(fs), "pipe_file", refuse)
    with pytest.raises(UsageError, match=r"runs/.* can't be written: .*give this account write access"):
        stage.execute("toy", {}, {}, root)
    assert toy_stage.runs == 0


def test_a_stage_may_say_what_identifies_an_input(tmp_path, monkeypatch):
    one, two = (stage.execute("toy", {"seed": seed}, {}, str(tmp_path)) for seed in (1, 2))
    both = [{"others": uris} for uris in ([one.uri, two.uri], [two.uri, one.uri])]
    assert plan_digest(inputs=both[0]) != plan_digest(inputs=both[1])

    def as_a_set(name, manifests):
        return sorted(stage.digests(name, manifests)) if name == "others" else stage.digests(name, manifests)

    plain = plan_digest(inputs={"before": one.uri})
    monkeypatch.setattr(toy_stage, "input_identity", as_a_set, raising=False)
    assert plan_digest(inputs=both[0]) == plan_digest(inputs=both[1])
    assert plan_digest(inputs={"before": one.uri}) == plain
