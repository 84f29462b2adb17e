"""wait, status, logs and cancel: what a run's account says, how a wait ends, where a log comes from."""

import json
from pathlib import Path

import pytest
import yaml
from argo_workflow import BEGAN, Workflow
from kfp_models import problems
from kfp_server import Fault

from components import _runs, _steps, _wait, _workflow
from robolift.errors import UsageError

ROOT = Path(__file__).parents[2]
RUN = "6f1c0c1e-0d5b-4a2e-9f5f-2d8f4bb1f001"


@pytest.fixture
def a_run(kfp):
    """A run on the server, in the state and with the workflow that a test gives."""

    def make(*progress, workflow=None, **finishes):
        kfp.state.progress = list(progress)
        kfp.state.workflows = [workflow] if workflow else []
        kfp.state.finishes = finishes
        kfp.state.runs[RUN] = {
            "run_id": RUN,
            "display_name": "first try",
            "created_at": BEGAN,
            "runtime_config": {"parameters": {"output_root": "s3://bucket/runs"}},
        }

    return make


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Poll without pause: the server counts polls, not seconds."""
    monkeypatch.setattr(_wait.time, "sleep", lambda seconds: None)


def test_a_wait_shows_each_change_once_and_ends_with_0(kfp, submit):
    kfp.state.progress = ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    kfp.state.workflows = [
        Workflow(),
        Workflow().step("check-run", "Running"),
        Workflow().step("check-run", "Succeeded", "2026-11-01T10:01:05Z").step("train-value", "Running"),
        Workflow()
        .step("check-run", "Succeeded", "2026-11-01T10:01:05Z")
        .step("train-value", "Succeeded", "2026-11-01T12:00:00Z", attempts=("Failed", "Succeeded")),
    ]
    done = submit("--wait")
    assert done.code == 0
    shown = done.out[done.out.index("run is pending") :].splitlines()
    # A step that still runs shows the time so far, which is today's.
    shown = [line if "running" not in line else line.split(" running ")[0] for line in shown]
    assert shown == [
        "run is pending",
        "run is running",
        "  ▸ check-run               ",
        "  ✓ check-run                succeeded    0:01:05",
        "  ▸ train-value             ",
        "run is succeeded",
        "  ✓ train-value              succeeded    2:00:00",
    ]
    assert len(kfp.state.sent("GET", f"/v2beta1/runs/{next(iter(kfp.state.runs))}")) == 4


def test_a_run_that_fails_ends_the_wait_with_1_and_says_why_and_where_to_look(kfp, submit):
    kfp.state.progress = ["RUNNING", "FAILED"]
    failed = {"attempts": ("Failed", "Failed"), "message": "OOMKilled\n(exit code 137)"}
    kfp.state.workflows = [Workflow().step("train-value", "Failed", "2026-11-01T10:00:30Z", **failed)]
    kfp.state.finishes = {"error": {"code": 2, "message": "step failed"}}
    done = submit("--wait")
    assert done.code == 1
    assert done.out.count("✗") == 1
    assert "  ✗ train-value              failed       0:00:30  OOMKilled (exit code 137)" in done.out
    assert "error: step failed" in done.out
    assert f"log:   pipeline.py logs {next(iter(kfp.state.runs))} --step train-value" in done.out


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("SKIPPED", 0), ("FAILED", 1), ("CANCELED", 1)])
def test_every_last_state_ends_the_wait(kfp, submit, state, code):
    kfp.state.progress = ["RUNNING", "CANCELING" if state == "CANCELED" else "PAUSED", state]
    assert submit("--wait").code == code


def test_a_run_that_takes_too_long_ends_the_wait_with_3_and_goes_on(kfp, submit):
    kfp.state.progress = ["RUNNING"]
    done = submit("--wait", "--timeout", "0.05")
    assert done.code == 3
    run_id = next(iter(kfp.state.runs))
    assert f"run {run_id} did not finish in 0 s and goes on: {kfp.url}/#/runs/details/{run_id}" in done.err
    assert f"pipeline.py cancel {run_id}" in done.err
    assert kfp.state.terminated == []


def test_a_server_that_restarts_does_not_end_the_wait(kfp, submit):
    kfp.state.progress = ["RUNNING", "SUCCEEDED"]
    kfp.state.faults = [Fault("GET", "/runs/", 503, "restarting", times=12)]
    done = submit("--wait")
    assert done.code == 0
    assert done.err.count("answered 503: restarting") == 1
    assert "still waiting; the run goes on without us" in done.err


@pytest.mark.parametrize(("status", "body"), [(503, "gone"), (403, "not yours"), (401, "who are you")])
def test_a_wait_that_loses_the_server_ends_with_3_and_says_how_to_take_it_up(kfp, submit, monkeypatch, status, body):
    monkeypatch.setattr(_wait, "MAX_FAILED_POLLS", 2)
    kfp.state.faults = [Fault("GET", "/runs/", status, body, times=99)]
    done = submit("--wait")
    assert done.code == 3
    (run_id,) = kfp.state.runs
    assert f"answered {status}: {body}" in done.err
    assert f"run {run_id} was started and goes on, and cannot be followed any more: {kfp.url}/#/runs/" in done.err
    assert done.err.endswith(f"  wait again with: pipeline.py status {run_id} --wait\n")
    assert kfp.state.terminated == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_that_passes_does_not_end_the_wait(kfp, submit, status):
    kfp.state.progress = ["RUNNING", "SUCCEEDED"]
    kfp.state.faults = [Fault("GET", "/runs/", status, "a moment", times=3)]
    assert submit("--wait").code == 0


def test_a_token_file_that_is_empty_for_a_moment_does_not_end_the_wait(kfp, submit, monkeypatch, tmp_path):
    kfp.state.tokens = frozenset({"secret-of-dana"})
    kfp.state.progress = ["RUNNING", "RUNNING", "SUCCEEDED"]
    token = tmp_path / "token"
    token.write_text("secret-of-dana")
    looks = []

    def meanwhile(seconds):
        looks.append(seconds)
        token.write_text("" if len(looks) == 1 else "secret-of-dana")

    monkeypatch.setattr(_wait.time, "sleep", meanwhile)
    done = submit("--wait", "--token-file", str(token))
    assert done.code == 0
    assert "expected one token and nothing else, found 0 words\n  still waiting; the run goes on" in done.err
    assert len(kfp.state.sent("POST", "/runs")) == 1


@pytest.mark.parametrize(("status", "code"), [(403, 64), (404, 64), (503, 69)])
def test_a_wait_for_a_run_that_was_never_seen_ends_as_any_other_call(kfp, command, monkeypatch, status, code):
    monkeypatch.setattr(_wait, "MAX_FAILED_POLLS", 2)
    kfp.state.faults = [Fault("GET", "/runs/", status, "no", times=99)]
    done = command("status", RUN, "--wait")
    assert done.code == code
    assert "was started" not in done.err


def test_an_end_that_is_refused_after_ctrl_c_leaves_the_run(kfp, submit, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_runs, "get", interrupted)
    monkeypatch.setattr(_runs, "confirmed", lambda question: True)
    monkeypatch.setattr(_wait.sys.stdin, "isatty", lambda: True)
    kfp.state.faults = [Fault("POST", ":terminate$", 403, "not yours", times=9)]
    done = submit("--wait")
    assert done.code == 130
    assert "answered 403: not yours" in done.err
    assert "left running: " in done.err


def _some_workflow():
    workflow = Workflow()
    loop = workflow.group("for-loop-4", below=workflow.group("recap-iteration"))
    workflow.step("check-run", "Succeeded", "2026-11-01T10:00:09Z")
    workflow.step(
        "predict-values", "Succeeded", "2026-11-01T10:00:07Z", below=workflow.group("iteration-item", below=loop)
    )
    workflow.failed_driver("export-dataset", "no such Secret")
    return workflow.step(
        "train-value", "Failed", BEGAN, attempts=("Failed", "Failed"), message="OOMKilled (exit code 137)"
    )


def test_status_shows_steps_with_times_and_reasons_and_hides_kubeflow_s_own(kfp, command, a_run):
    a_run("RUNNING", workflow=_some_workflow())
    done = command("status", f"{kfp.url}/#/runs/details/{RUN}")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == f"run first try ({RUN})"
    assert lines[1].startswith("state: running, ")
    assert lines[2:] == [
        f"page:  {kfp.url}/#/runs/details/{RUN}",
        "  ✓ check-run                succeeded    0:00:09",
        "  ✗ export-dataset-driver    failed       0:00:00  no such Secret",
        "  ✓ predict-values           succeeded    0:00:07",
        "  ✗ train-value              failed       0:00:00  OOMKilled (exit code 137)",
    ]


def test_status_lacks_only_the_reasons_where_the_server_hands_out_no_workflow(kfp, command, a_run):
    a_run("RUNNING", workflow=_some_workflow())
    whole = command("status", RUN).out.splitlines()[2:]
    kfp.state.v1beta1 = False
    bare = command("status", RUN).out.splitlines()[2:]
    assert whole != bare
    assert bare == [line.removesuffix("  OOMKilled (exit code 137)").removesuffix("  no such Secret") for line in whole]


@pytest.mark.parametrize("pipeline", ["recap", "stage_advantage"])
def test_every_step_of_a_pipeline_is_shown_and_no_part_of_its_graph(pipeline):
    spec = next(yaml.load_all((ROOT / f"tests/golden/{pipeline}.yaml").read_text(), Loader=yaml.CSafeLoader))
    components = spec["components"]
    assert components
    for component in [spec["root"], *components.values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            is_graph = "dag" in components[task["componentRef"]["name"]]
            assert bool(_steps.PLUMBING.fullmatch(name)) == is_graph, name
            assert _steps.PLUMBING.fullmatch(f"{name}-driver")


def test_status_of_a_failed_run_ends_with_1(command, a_run):
    a_run("FAILED", error={"code": 2, "message": "boom"}, finished_at="2026-11-01T11:00:00Z")
    done = command("status", RUN)
    assert done.code == 1
    assert "state: failed, 1:00:00\n" in done.out
    assert "error: boom\n" in done.out


def test_status_names_the_report_that_the_last_step_logged(kfp, command, a_run):
    workflow = Workflow().step("write-report", "Succeeded", BEGAN, attempts=("Failed", "Succeeded"))
    a_run("SUCCEEDED", workflow=workflow)
    event = {"event": "finished", "stage": "write_report", "uri": "s3://bucket/runs/write_report/0a1b"}
    kfp.state.logs[workflow.pod("write-report", 1)] = f"noise write_report\n2026 {json.dumps(event)}\n"
    assert "report: s3://bucket/runs/write_report/0a1b/report.html\n" in command("status", RUN).out
    kfp.state.logs_at = "nobody"
    assert "report: below s3://bucket/runs/write_report\n" in command("status", RUN).out


@pytest.mark.parametrize("text", ["recap", "", "http://localhost:8080/#/runs"])
def test_what_is_no_run_is_refused(kfp, command, text):
    done = command("status", text)
    assert done.code == 64
    assert "is no run: expected its id" in done.err
    assert kfp.state.requests == []


def test_a_run_that_is_not_there(command):
    done = command("status", RUN)
    assert done.code == 64
    assert f"reading run {RUN}: " in done.err
    assert "answered 404" in done.err


def test_a_pod_is_named_by_its_template_with_the_retry_and_the_labels():
    workflow = Workflow().step("train-value", "Failed", BEGAN, attempts=("Failed", "Failed"))
    (task,) = [task for task in workflow.tasks() if task["display_name"] == "train-value"]
    children = [child["pod_name"] for child in task["child_tasks"]]
    found = _workflow.Workflow(json.loads(workflow.v1beta1(RUN)["pipeline_runtime"]["workflow_manifest"]))
    assert [pod.name for pod in found.pods("train-value", children)] == [
        "recap-x1-metadata-0-2-retry-system-container-impl-106",
        "recap-x1-metadata-0-2-retry-system-container-impl-107",
    ]
    document = json.loads(workflow.v1beta1(RUN)["pipeline_runtime"]["workflow_manifest"])
    document["metadata"]["annotations"] = {"workflows.argoproj.io/pod-name-format": "v1"}
    assert [pod.name for pod in _workflow.Workflow(document).pods("train-value", children)] == [
        "recap-x1-106",
        "recap-x1-107",
    ]


STEPS = Workflow().step("check-run", "Succeeded", BEGAN).step("train-value", "Failed", BEGAN, ("Failed", "Failed"))
CHECK, FIRST, SECOND = STEPS.pod("check-run"), STEPS.pod("train-value"), STEPS.pod("train-value", 1)


@pytest.mark.parametrize("door", ["api", "ui"])
def test_logs_of_every_attempt_come_from_the_api_or_the_web_server(kfp, command, a_run, door):
    a_run("FAILED", workflow=STEPS)
    kfp.state.logs_at = door
    kfp.state.logs = {CHECK: "checked\n", FIRST: "boom", SECOND: "boom again"}
    done = command("logs", RUN)
    assert done.code == 0
    assert done.out == (
        f"==> check-run ({CHECK})\nchecked\n==> train-value ({FIRST})\nboom\n==> train-value ({SECOND})\nboom again\n"
    )
    if door == "ui":
        asked = kfp.state.sent("GET", "/k8s/pod/logs")[0].query
        assert asked == {"podname": CHECK, "runid": RUN, "podnamespace": "team"}


def test_the_workflow_s_tasks_are_what_the_published_models_have():
    assert [p for task in _some_workflow().tasks() for p in problems(task, "V2beta1PipelineTaskDetail")] == []


def test_a_step_that_is_never_repeated_is_its_pod():
    workflow = Workflow().step("train-value", "Failed", BEGAN, message="OOMKilled")
    (retry,) = [node for node in workflow.nodes.values() if node["type"] == "Retry"]
    (graph,) = [node for node in workflow.nodes.values() if node["displayName"] == "train-value"]
    retry.update(type="Pod", templateName="metadata-0-2-system-container-impl", message="OOMKilled", children=[])
    found = _workflow.Workflow(json.loads(workflow.v1beta1(RUN)["pipeline_runtime"]["workflow_manifest"]))
    name = f"recap-x1-metadata-0-2-system-container-impl-{retry['id'].rpartition('-')[2]}"
    expected = _workflow.Pod(name=name, failed=True, message="OOMKilled")
    assert found.pods("train-value", graph["children"]) == [expected]


def test_logs_with_a_queue_s_label_too(kfp, command, a_run):
    workflow = Workflow(labels="metadata-0-3-").step("train-value", "Running")
    a_run("RUNNING", workflow=workflow)
    kfp.state.logs = {workflow.pod("train-value"): "step 1"}
    assert command("logs", RUN).out.endswith("metadata-0-3-retry-system-container-impl-106)\nstep 1\n")


def test_logs_of_one_step_under_either_spelling(kfp, command, a_run):
    a_run("FAILED", workflow=STEPS)
    kfp.state.logs = {SECOND: "boom"}
    for name in ("train_value", "train-value"):
        assert command("logs", RUN, "--step", name).out == f"==> train-value ({SECOND})\nboom\n"
    missing = command("logs", RUN, "--step", "train_valu")
    assert missing.code == 64
    assert "no step 'train_valu' in this run; there are: check-run, train-value" in missing.err


def test_logs_that_the_server_does_not_have_are_to_be_had_with_kubectl(kfp, command, a_run):
    a_run("FAILED", workflow=STEPS)
    kfp.state.logs = {FIRST: "boom"}
    done = command("logs", RUN, "--namespace", "another")
    assert done.code == 1
    assert done.out == (
        f"==> train-value ({FIRST})\nboom\n"
        "the server has no log of: check-run; ask the cluster:\n"
        f"  kubectl -n team logs -l pipeline/runid={RUN},robolift.io/stage=check_run -c main --tail=-1\n"
    )


def test_logs_where_the_server_names_no_pods_are_to_be_had_with_kubectl(kfp, command, a_run):
    workflow = Workflow().step("train-value", "Failed", BEGAN).step("train-policy-2", "Running")
    a_run("FAILED", workflow=workflow)
    kfp.state.v1beta1 = False
    done = command("logs", RUN, "--namespace", "another")
    assert done.code == 1
    assert done.out == (
        "the server has no log of: train-policy-2, train-value; ask the cluster:\n"
        f"  kubectl -n another logs -l pipeline/runid={RUN},robolift.io/stage=train_policy -c main --tail=-1\n"
        f"  kubectl -n another logs -l pipeline/runid={RUN},robolift.io/stage=train_value -c main --tail=-1\n"
    )
    assert [r for r in kfp.state.requests if r.path.endswith(("/log", "/logs"))] == []


def test_a_token_in_a_log_is_not_printed(kfp, command, a_run, tmp_path):
    a_run("FAILED", workflow=STEPS)
    kfp.state.logs = {SECOND: "Bearer secret-of-dana"}
    (tmp_path / "token").write_text("secret-of-dana")
    done = command("logs", RUN, "--step", "train-value", "--token-file", str(tmp_path / "token"))
    assert done.out.endswith("Bearer ***\n")


def test_logs_before_the_first_step(command, a_run):
    a_run("PENDING")
    assert command("logs", RUN).out == "no step has started yet\n"


def test_cancel_needs_a_yes(kfp, command, a_run, monkeypatch):
    a_run("RUNNING")
    done = command("cancel", RUN)
    assert done.code == 64
    assert f"End run first try ({RUN}), running? There is no terminal to ask on; add --yes" in done.err
    assert kfp.state.terminated == []
    assert command("cancel", RUN, "--yes").out == f"ending run {RUN}\n"
    assert kfp.state.terminated == [RUN]
    (sent,) = kfp.state.sent("POST", ":terminate")
    assert sent.body is None


def test_cancel_of_a_run_that_is_over_sends_nothing(kfp, command, a_run):
    a_run("SUCCEEDED")
    done = command("cancel", RUN, "--yes")
    assert (done.code, done.out) == (0, f"run {RUN} is over: succeeded\n")
    assert not kfp.state.sent("POST")


def test_a_run_that_ends_while_it_is_cancelled_is_no_error(kfp, command, a_run):
    a_run("RUNNING", "SUCCEEDED")
    kfp.state.faults = [Fault("POST", ":terminate$", 400, '{"message": "run has finished"}')]
    assert command("cancel", RUN, "--yes").code == 0
    a_run("RUNNING")
    kfp.state.faults = [Fault("POST", ":terminate$", 403, '{"message": "not yours"}')]
    refused = command("cancel", RUN, "--yes")
    assert refused.code == 64
    assert f"ending run {RUN}: " in refused.err


def test_a_run_s_id_is_found_in_what_a_person_pastes():
    assert _runs.run_id(f"https://kubeflow.example/_/pipeline/?ns=team#/runs/details/{RUN}") == RUN
    with pytest.raises(UsageError):
        _runs.run_id("6f1c0c1e")
