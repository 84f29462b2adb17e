# No postponed annotations in this file: KFP reads the components' as they are.
import json
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import toy_stage

from robolift import storage
from robolift.__main__ import main
from robolift.errors import UsageError
from robolift.stages.component import record, run_component
from robolift.stages.stage import execute


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    toy_stage.install(monkeypatch)


def artifact(folder: Path, name: str = "targets") -> SimpleNamespace:
    """What a component sees of an artifact: a path that nobody made yet, and metadata."""
    return SimpleNamespace(path=str(folder / "executor" / name), uri=f"minio://mlpipeline/{name}", metadata={})


def test_a_step_publishes_and_hands_on_the_manifest(tmp_path):
    made = artifact(tmp_path)
    uri = run_component("toy", artifact=made, output_root=f"{tmp_path}/runs", stages={"toy": {"rows": 2}})

    payload = Path(made.path).read_bytes()
    assert payload == storage.read_bytes(f"{uri}/manifest.json")
    assert len(payload) < 4096
    assert made.metadata == {"uri": uri, "digest": uri.rpartition("/")[2], "kind": "ValueTargets", "frames": 2}
    assert made.uri == "minio://mlpipeline/targets"  # moving it would fail the step on a cluster


def test_a_step_reads_the_manifests_of_its_inputs(tmp_path):
    root = f"{tmp_path}/runs"
    one, two, made = (artifact(tmp_path, name) for name in ("one", "two", "made"))
    first = run_component("toy", artifact=one, output_root=root, stages={"toy": {"seed": 1}})
    second = run_component("toy", artifact=two, output_root=root, stages={"toy": {"seed": 2}})

    uri = run_component("toy", artifact=made, output_root=root, stages={}, inputs={"before": one, "others": [one, two]})

    assert uri == execute("toy", {}, {"before": first, "others": [first, second]}, root).uri


@pytest.mark.parametrize("absent", [None, "", []])
def test_an_optional_input_may_be_absent(tmp_path, absent):
    uri = run_component(
        "toy",
        artifact=artifact(tmp_path),
        output_root=str(tmp_path),
        stages={},
        inputs={"before": absent, "others": None},
    )
    assert storage.read_json(f"{uri}/manifest.json")["inputs"] == {}


def test_what_the_pipeline_sets_wins_over_the_run_s_configuration(tmp_path):
    uri = run_component(
        "toy",
        artifact=artifact(tmp_path),
        output_root=str(tmp_path),
        stages={"toy": {"seed": 1, "rows": 2}, "other": {"unknown": 1}},
        seed=9,
    )
    assert storage.read_json(f"{uri}/manifest.json")["seed"] == 9


def test_numbers_that_arrive_as_floats_are_the_same_work_as_from_the_command_line(tmp_path, capsys):
    # KFP hands the integers inside a dictionary over as floats.
    stages = json.loads('{"toy": {"rows": 2.0, "part": {"size": 4.0}, "scores": [1.0, 0.5]}}')
    uri = run_component("toy", artifact=artifact(tmp_path), output_root=f"{tmp_path}/runs", stages=stages)

    capsys.readouterr()
    words = ["rows=2", "part.size=4", "scores=[1, 0.5]", f"output_root={tmp_path}/runs"]
    assert main(["toy", *(word for k_v in words for word in ("--set", k_v))]) == 0
    assert capsys.readouterr().out.strip() == uri
    assert toy_stage.runs == 1


def test_a_wrong_configuration_stops_the_step_before_the_work(tmp_path):
    with pytest.raises(UsageError, match=r"toy\.rows"):
        run_component("toy", artifact=artifact(tmp_path), output_root=str(tmp_path), stages={"toy": {"rows": "x"}})
    assert toy_stage.runs == 0
    assert list(tmp_path.iterdir()) == []


def test_metadata_holds_nothing_that_a_cluster_refuses(tmp_path):
    found = execute("toy", {}, {}, str(tmp_path))
    made = artifact(tmp_path)
    record(found, made)

    assert all(isinstance(value, (str, int)) for value in made.metadata.values())


def test_a_pipeline_step_runs_for_real(tmp_path, monkeypatch):
    here = Path(__file__).parent
    root = here.parents[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(here)]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of KFP's own making
        from kfp import dsl, local

        @dsl.component(base_image="python:3.11", install_kfp_package=False)
        def step(stages: dict, output_root: str, seed: int, targets: dsl.Output[dsl.Artifact]) -> str:
            import pytest
            import toy_stage

            from robolift.stages.component import run_component

            toy_stage.install(pytest.MonkeyPatch())
            return run_component("toy", artifact=targets, output_root=output_root, stages=stages, seed=seed)

        @dsl.component(base_image="python:3.11", install_kfp_package=False)
        def after(before: dsl.Input[dsl.Artifact], output_root: str, targets: dsl.Output[dsl.Artifact]) -> str:
            import pytest
            import toy_stage

            from robolift.stages.component import run_component

            toy_stage.install(pytest.MonkeyPatch())
            inputs = {"before": before, "others": [before, before]}
            return run_component("toy", artifact=targets, output_root=output_root, stages={}, inputs=inputs)

        @dsl.pipeline(name="one-step")
        def pipeline(stages: dict, output_root: str) -> str:
            made = step(stages=stages, output_root=output_root, seed=3)
            return after(before=made.outputs["targets"], output_root=output_root).outputs["Output"]

        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "kfp"))
        ran = pipeline(stages={"toy": {"rows": 2}}, output_root=f"{tmp_path}/runs")

    first = execute("toy", {"rows": 2, "seed": 3}, {}, f"{tmp_path}/runs")
    second = execute("toy", {}, {"before": first.uri, "others": [first.uri, first.uri]}, f"{tmp_path}/runs")
    assert toy_stage.runs == 0  # both were made by the pipeline's own processes
    assert ran.output == second.uri
    payloads = [p.read_bytes() for p in (tmp_path / "kfp").rglob("targets")]
    assert sorted(payloads) == sorted([first.to_bytes(), second.to_bytes()])
