# No postponed annotations in this file: KFP reads the components' as they are.
import io
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import toy_stage

from components._local import Console
from robolift import storage
from robolift.__main__ import main
from robolift.errors import DataError, UsageError
from robolift.stages.component import record, run_check, run_component
from robolift.stages.preflight import check_source
from robolift.stages.stage import execute

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    toy_stage.install(monkeypatch)


def artifact(folder: Path, name: str = "targets") -> SimpleNamespace:
    """What a component sees of an artifact: a path that nobody made yet, and metadata."""
    return SimpleNamespace(path=str(folder / "executor" / name), uri=f"minio://mlpipeline/{name}", metadata={})


def test_a_step_publishes_and_hands_on_the_manifest(tmp_path):
    made = artifact(tmp_path)
    uri = run_component(
        "toy", artifact=made, shown=toy_stage.UNSEEN, output_root=f"{tmp_path}/runs", stages={"toy": {"rows": 2}}
    )

    payload = Path(made.path).read_bytes()
    assert payload == storage.read_bytes(f"{uri}/manifest.json")
    assert len(payload) < 4096
    assert made.metadata == {"uri": uri, "digest": uri.rpartition("/")[2], "kind": "ValueTargets", "frames": 2}
    assert made.uri == "minio://mlpipeline/targets"  # moving it would fail the step on a cluster


def test_a_step_reads_the_manifests_of_its_inputs(tmp_path):
    root = f"{tmp_path}/runs"
    one, two, made = (artifact(tmp_path, name) for name in ("one", "two", "made"))
    first = run_component("toy", artifact=one, shown=toy_stage.UNSEEN, output_root=root, stages={"toy": {"seed": 1}})
    second = run_component("toy", artifact=two, shown=toy_stage.UNSEEN, output_root=root, stages={"toy": {"seed": 2}})

    uri = run_component(
        "toy",
        artifact=made,
        shown=toy_stage.UNSEEN,
        output_root=root,
        stages={},
        inputs={"before": one, "others": [one, two]},
    )

    assert uri == execute("toy", {}, {"before": first, "others": [first, second]}, root).uri


@pytest.mark.parametrize("absent", [None, "", []])
def test_an_optional_input_may_be_absent(tmp_path, absent):
    uri = run_component(
        "toy",
        artifact=artifact(tmp_path),
        shown=toy_stage.UNSEEN,
        output_root=str(tmp_path),
        stages={},
        inputs={"before": absent, "others": None},
    )
    assert storage.read_json(f"{uri}/manifest.json")["inputs"] == {}


def test_what_the_pipeline_sets_is_added_to_the_run_s_configuration(tmp_path):
    uri = run_component(
        "toy",
        artifact=artifact(tmp_path),
        shown=toy_stage.UNSEEN,
        output_root=str(tmp_path),
        stages={"toy": {"rows": 2}, "other": {"unknown": 1}},
        seed=9,
    )
    assert storage.read_json(f"{uri}/manifest.json")["seed"] == 9


def test_what_the_pipeline_sets_cannot_be_set_by_stage_as_well(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_component(
            "toy",
            artifact=artifact(tmp_path),
            shown=toy_stage.UNSEEN,
            output_root=str(tmp_path),
            stages={"toy": {"seed": 1}},
            seed=1,
        )
    assert stopped.value.code == 64
    assert "stages.toy.seed: the pipeline sets it; use its parameter seed instead" in capsys.readouterr().err
    assert toy_stage.runs == 0


def test_a_stage_without_settings_takes_its_defaults(tmp_path):
    uri = run_component(
        "toy", artifact=artifact(tmp_path), shown=toy_stage.UNSEEN, output_root=str(tmp_path), stages={"toy": None}
    )
    assert uri == execute("toy", {}, {}, str(tmp_path)).uri


def test_numbers_that_arrive_as_floats_are_the_same_work_as_from_the_command_line(tmp_path, capsys):
    # KFP hands the integers inside a dictionary over as floats.
    stages = json.loads('{"toy": {"rows": 2.0, "part": {"size": 4.0}, "scores": [1.0, 0.5]}}')
    uri = run_component(
        "toy", artifact=artifact(tmp_path), shown=toy_stage.UNSEEN, output_root=f"{tmp_path}/runs", stages=stages
    )

    capsys.readouterr()
    words = ["rows=2", "part.size=4", "scores=[1, 0.5]", f"output_root={tmp_path}/runs"]
    assert main(["toy", *(word for k_v in words for word in ("--set", k_v))]) == 0
    assert capsys.readouterr().out.strip() == uri
    assert toy_stage.runs == 1


def test_a_wrong_configuration_stops_the_step_before_the_work(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_component(
            "toy",
            artifact=artifact(tmp_path),
            shown=toy_stage.UNSEEN,
            output_root=str(tmp_path),
            stages={"toy": {"rows": "x"}},
        )
    assert stopped.value.code == 64
    shown = capsys.readouterr().err
    assert "robolift.errors.UsageError: wrong configuration:" in shown
    assert "toy.rows" in shown
    assert toy_stage.runs == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "kind", "code", "message"),
    [
        (
            lambda root: run_component(
                "toy",
                artifact=artifact(root),
                shown=toy_stage.UNSEEN,
                output_root=str(root),
                stages={"toy": {"fault": "data"}},
            ),
            DataError,
            65,
            "episode 3 has no video\n  where: videos/3.mp4",
        ),
        (lambda _: run_check(check_source, "/nowhere"), DataError, 65, "no LeRobot dataset\n  where: /nowhere\n"),
        (
            lambda _: run_component("toyy", artifact=None, shown=toy_stage.UNSEEN, output_root="", stages={}),
            UsageError,
            64,
            "no stage 'toyy'",
        ),
    ],
)
def test_a_user_s_error_ends_a_step_with_its_code_and_the_local_run_reads_it(
    tmp_path, capsys, call, kind, code, message
):
    with pytest.raises(SystemExit) as stopped:
        call(tmp_path)
    assert stopped.value.code == code
    console = Console(io.StringIO(), io.StringIO())
    console.write(capsys.readouterr().err)
    assert type(console.error) is kind
    assert str(console.error).startswith(message)


def test_a_bug_keeps_its_traceback(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"):
        run_component(
            "toy",
            artifact=artifact(tmp_path),
            shown=toy_stage.UNSEEN,
            output_root=str(tmp_path),
            stages={"toy": {"fault": "bug"}},
        )


def test_metadata_holds_nothing_that_a_cluster_refuses(tmp_path):
    found = execute("toy", {}, {}, str(tmp_path))
    made = artifact(tmp_path)
    record(found, made)

    assert all(isinstance(value, (str, int)) for value in made.metadata.values())


def test_a_step_that_is_stopped_ends_what_it_started_and_says_143(tmp_path):
    """torchrun below a step must hear of it: a step's own Python would end at once and leave its processes behind."""
    program = tmp_path / "step.py"
    program.write_text(
        "import pathlib, sys, time\n"
        "from robolift.stages.component import run_check\n"
        "def work(folder):\n"
        "    try:\n"
        "        (folder / 'ready').touch()\n"
        "        time.sleep(300)\n"
        "    finally:\n"
        "        (folder / 'saved').touch()\n"
        "run_check(work, pathlib.Path(sys.argv[1]))\n"
    )
    process = subprocess.Popen([sys.executable, str(program), str(tmp_path)], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    assert process.wait(120) == 143
    assert (tmp_path / "saved").exists()


def test_a_pipeline_step_runs_for_real(tmp_path, monkeypatch):
    here = Path(__file__).parent
    root = here.parents[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(here)]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of KFP's own making
        from kfp import dsl, local

        @dsl.component(base_image="python:3.11", install_kfp_package=False)
        def step(
            stages: dict,
            output_root: str,
            seed: int,
            targets: dsl.Output[dsl.Artifact],
            metrics: dsl.Output[dsl.Metrics],
            page: dsl.Output[dsl.Markdown],
        ) -> str:
            import pytest
            import toy_stage

            from robolift.stages.component import run_component

            toy_stage.install(pytest.MonkeyPatch())
            shown = {"metrics": metrics, "page": page}
            return run_component(
                "toy", artifact=targets, shown=shown, output_root=output_root, stages=stages, seed=seed
            )

        @dsl.component(base_image="python:3.11", install_kfp_package=False)
        def after(
            before: dsl.Input[dsl.Artifact],
            output_root: str,
            targets: dsl.Output[dsl.Artifact],
            metrics: dsl.Output[dsl.Metrics],
            page: dsl.Output[dsl.Markdown],
        ) -> str:
            import pytest
            import toy_stage

            from robolift.stages.component import run_component

            toy_stage.install(pytest.MonkeyPatch())
            inputs = {"before": before, "others": [before, before]}
            shown = {"metrics": metrics, "page": page}
            return run_component(
                "toy", artifact=targets, shown=shown, output_root=output_root, stages={}, inputs=inputs
            )

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
    pages = [p.read_text().splitlines()[0] for p in (tmp_path / "kfp").rglob("page")]
    assert pages == ["# toy", "# toy"]
    (said,) = (tmp_path / "kfp").rglob("after/executor_output.json")
    assert json.loads(said.read_text())["artifacts"]["metrics"]["artifacts"][0]["metadata"] == {"frames": 3}
