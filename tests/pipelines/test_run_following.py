"""wait, status, logs and cancel: what a run's account says, how a wait ends, where a log comes from."""

import json

import pytest
from kfp_server import Fault

from components import _runs, _steps, _wait
from robolift.errors import UsageError

RUN = "6f1c0c1e-0d5b-4a2e-9f5f-2d8f4bb1f001"
BEGAN = "2026-11-01T10:00:00Z"


def task(name, state, ended=None, node=None, error=None, **more):
    """Return the API's account of a task."""
    made = {"display_name": name, "task_id": f"id-{name}", "state": state, "create_time": BEGAN, "start_time": BEGAN}
    made["end_time"] = ended or "1970-01-01T00:00:00Z"
    if node:
        made["child_tasks"] = [{"pod_name": node}]
    if error:
        made["state_history"] = [
            {"update_time": BEGAN, "state": "RUNNING"},
            {"update_time": BEGAN, "state": state, "error": {"code": 2, "message": error}},
        ]
    return {**made, **more}


@pytest.fixture
def a_run(kfp):
    """A run on the server, in the state and with the tasks that a test gives."""

    def make(*progress, tasks=(), **finishes):
        kfp.state.progress = list(progress)
        kfp.state.tasks = [list(tasks)] if tasks else []
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
    first = [task("root-driver", "SUCCEEDED"), task("check-run", "RUNNING")]
    second = [task("check-run", "SUCCEEDED", "2026-11-01T10:01:05Z"), task("train-value", "RUNNING")]
    third = [second[0], task("train-value", "SUCCEEDED", "2026-11-01T12:00:00Z")]
    kfp.state.tasks = [[], first, second, third]
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
    assert len(kfp.state.sent("GET", f"/runs/{next(iter(kfp.state.runs))}")) == 4


def test_a_run_that_fails_ends_the_wait_with_1_and_says_why_and_where_to_look(kfp, submit):
    kfp.state.progress = ["RUNNING", "FAILED"]
    kfp.state.tasks = [[task("train-value", "FAILED", "2026-11-01T10:00:30Z", error="OOMKilled\n(exit code 137)")]]
    kfp.state.finishes = {"error": {"code": 2, "message": "step failed"}}
    done = submit("--wait")
    assert done.code == 1
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


def test_status_shows_steps_with_times_and_hides_kubeflow_s_own(kfp, command, a_run):
    a_run(
        "RUNNING",
        tasks=[
            task("root", "RUNNING"),
            task("root-driver", "SUCCEEDED", BEGAN),
            task("check-run", "SUCCEEDED", "2026-11-01T10:00:09Z"),
            task("executor", "SUCCEEDED", BEGAN),
            task("for-loop-1", "RUNNING"),
            task("train-value-driver", "FAILED", BEGAN, error="no such Secret"),
        ],
    )
    done = command("status", f"{kfp.url}/#/runs/details/{RUN}")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == f"run first try ({RUN})"
    assert lines[1].startswith("state: running, ")
    assert lines[2:] == [
        f"page:  {kfp.url}/#/runs/details/{RUN}",
        "  ✓ check-run                succeeded    0:00:09",
        "  ✗ train-value-driver       failed       0:00:00  no such Secret",
    ]


def test_status_of_a_failed_run_ends_with_1(command, a_run):
    a_run("FAILED", error={"code": 2, "message": "boom"}, finished_at="2026-11-01T11:00:00Z")
    done = command("status", RUN)
    assert done.code == 1
    assert "state: failed, 1:00:00\n" in done.out
    assert "error: boom\n" in done.out


def test_status_names_the_report_that_the_last_step_logged(kfp, command, a_run):
    a_run("SUCCEEDED", tasks=[task("write-report", "SUCCEEDED", BEGAN, node="recap-x1-42")])
    event = {"event": "finished", "stage": "write_report", "uri": "s3://bucket/runs/write_report/0a1b"}
    kfp.state.logs["recap-x1-system-container-impl-42"] = f"noise write_report\n2026 {json.dumps(event)}\n"
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


def test_an_argo_node_s_pod_is_found_by_its_template():
    assert _steps.pod_names("recap-x1-42") == ["recap-x1-system-container-impl-42", "recap-x1-42"]
    assert _steps.pod_names("recap-x1-system-container-impl-42") == ["recap-x1-system-container-impl-42"]
    assert _steps.pod_names("pod") == ["pod"]


STEPS = [
    task("check-run", "SUCCEEDED", BEGAN, node="recap-x1-1"),
    task("train-value", "FAILED", BEGAN, pod_name="recap-x1-2"),
    task("check-run-driver", "SUCCEEDED", BEGAN, node="recap-x1-9"),
]


@pytest.mark.parametrize("door", ["api", "ui"])
def test_logs_of_every_step_come_from_the_api_or_the_web_server(kfp, command, a_run, door):
    a_run("FAILED", tasks=STEPS)
    kfp.state.logs_at = door
    kfp.state.logs = {"recap-x1-system-container-impl-1": "checked\n", "recap-x1-2": "boom"}
    done = command("logs", RUN)
    assert done.code == 0
    assert done.out == (
        "==> check-run (recap-x1-system-container-impl-1)\nchecked\n"
        "==> train-value (recap-x1-system-container-impl-2)\nboom\n"
    )
    if door == "ui":
        asked = kfp.state.sent("GET", "/k8s/pod/logs")[0].query
        expected = {"podname": "recap-x1-system-container-impl-1", "runid": RUN, "podnamespace": "kubeflow"}
        assert asked == expected


def test_logs_of_one_step_under_either_spelling(kfp, command, a_run):
    a_run("FAILED", tasks=STEPS)
    kfp.state.logs = {"recap-x1-2": "boom"}
    for name in ("train_value", "train-value"):
        assert command("logs", RUN, "--step", name).out.endswith("boom\n")
    missing = command("logs", RUN, "--step", "train_valu")
    assert missing.code == 64
    assert "no step 'train_valu' in this run; there are: check-run, train-value" in missing.err


def test_logs_that_the_server_does_not_have_are_to_be_had_with_kubectl(kfp, command, a_run):
    a_run("FAILED", tasks=STEPS)
    kfp.state.logs = {"recap-x1-2": "boom"}
    done = command("logs", RUN, "--namespace", "team")
    assert done.code == 1
    assert "the server has no log of: check-run; ask the cluster:\n" in done.out
    assert "  kubectl -n team logs recap-x1-system-container-impl-1 -c main\n" in done.out
    assert f"  kubectl -n team get pods -l pipeline/runid={RUN} " in done.out


def test_a_token_in_a_log_is_not_printed(kfp, command, a_run, tmp_path):
    a_run("FAILED", tasks=STEPS)
    kfp.state.logs = {"recap-x1-2": "Bearer secret-of-dana"}
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
