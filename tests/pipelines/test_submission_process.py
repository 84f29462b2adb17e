"""pipeline.py and make as processes: the real compiled pipeline, a terminal, and Ctrl-C on it."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kfp_models import problems

ROOT = Path(__file__).parents[2]
SUBMIT = ("submit", "recap", "--params", "params/recap.yaml", "--set", "output_root=s3://bucket/runs", "--allow-tags")
RUN = "6f1c0c1e-0d5b-4a2e-9f5f-2d8f4bb1f001"
QUESTION = "[y/N] "
DEADLINE_S = 90


@pytest.fixture(autouse=True)
def _interruptible():
    """Let Ctrl-C reach what is started here, even if the tests run in the background of a shell that has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)


def _pipeline(*arguments):
    return _run(sys.executable, "pipeline.py", *arguments)


def test_the_whole_pipeline_is_submitted_and_waited_for(kfp, monkeypatch, tmp_path):
    monkeypatch.setenv("KFP_HOST", kfp.url)
    kfp.state.tokens = frozenset({"secret-of-dana"})
    (tmp_path / "token").write_text("secret-of-dana")
    done = _pipeline(*SUBMIT, "--wait", "--poll", "0.1", "--token-file", str(tmp_path / "token"), "--run", "whole")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (run,) = kfp.state.sent("POST", "/runs")
    assert problems(run.body, "V2beta1Run") == []
    spec = run.body["pipeline_spec"]
    spec = spec.get("pipeline_spec", spec)
    assert len(spec["deploymentSpec"]["executors"]) > 40
    assert run.body["runtime_config"]["parameters"]["positive_fraction"] == 0.3
    assert {r.headers["authorization"] for r in kfp.state.requests} == {"Bearer secret-of-dana"}
    lines = done.stdout.splitlines()
    run_id = next(iter(kfp.state.runs))
    assert lines[0] == f"pipeline recap ({len(spec['deploymentSpec']['executors'])} steps in the graph)"
    assert lines[-3:] == [
        f"run:        whole ({run_id})",
        f"submitted:  {kfp.url}/#/runs/details/{run_id}",
        "run is succeeded",
    ]


def test_a_dry_run_as_a_process_sends_nothing(kfp, monkeypatch):
    monkeypatch.setenv("KFP_HOST", kfp.url)
    done = _pipeline(*SUBMIT, "--dry-run", "--wait", "--release")
    assert done.returncode == 0
    assert "output_root = 's3://bucket/runs'" in done.stdout
    assert kfp.state.requests == []


# In the child and not by preexec_fn: that would fork Python, which JAX forbids once some other test has started it.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A process on a terminal of its own, where Ctrl-C is a key."""

    def __init__(self, *arguments):
        self.master, slave = os.openpty()
        command = [sys.executable, "-c", TAKE_TERMINAL, "pipeline.py", *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.text = ""

    def expect(self, wanted, times=1):
        """Read until ``wanted`` has been printed ``times`` times."""
        until = time.monotonic() + DEADLINE_S
        while self.text.count(wanted) < times:
            assert time.monotonic() < until, f"no {wanted!r} in:\n{self.text}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.text += self._read()

    def _read(self):
        try:
            return os.read(self.master, 65536).decode()
        except OSError:  # the other end is closed
            assert self.process.wait(DEADLINE_S) is not None
            return ""

    def press(self, keys):
        os.write(self.master, keys.encode())

    def end(self):
        """Return the exit code, with everything read."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            if select.select([self.master], [], [], 0.1)[0]:
                said = self._read()
                self.text += said
                if not said:  # the other end is closed, and nothing of it is left
                    break
        return self.process.wait(1)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def waiting(kfp):
    """A wait for a run which never ends, on a terminal; and the run's id."""
    kfp.state.progress = ["RUNNING"]
    kfp.state.runs[RUN] = {"run_id": RUN, "display_name": "first try", "created_at": "2026-11-01T10:00:00Z"}
    with Terminal("status", RUN, "--host", kfp.url, "--wait", "--poll", "0.1") as terminal:
        terminal.expect("run is running")
        yield terminal, RUN


def test_ctrl_c_during_a_submission_s_wait_and_yes_ends_the_run(kfp):
    kfp.state.progress = ["RUNNING"]
    with Terminal(*SUBMIT, "--host", kfp.url, "--wait", "--poll", "0.1") as terminal:
        terminal.expect("run is running")
        run_id = next(iter(kfp.state.runs))
        terminal.press("\x03")
        terminal.expect(f"End run {run_id}? Otherwise it goes on without us. {QUESTION}")
        assert kfp.state.terminated == []
        terminal.press("y\n")
        assert terminal.end() == 1
    assert kfp.state.terminated == [run_id]
    assert f"ending run {run_id}" in terminal.text
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize("keys", ["\n", pytest.param("\x03", marks=pytest.mark.slow)], ids=["enter", "ctrl-c"])
def test_ctrl_c_and_anything_else_leaves_the_run(kfp, waiting, keys):
    terminal, run_id = waiting
    terminal.press("\x03")
    terminal.expect(QUESTION)
    terminal.press(keys)
    assert terminal.end() == 130
    assert kfp.state.terminated == []
    assert f"left running: {kfp.url}/#/runs/details/{run_id}" in terminal.text
    assert f"pipeline.py status {run_id} --wait" in terminal.text
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize(
    ("answer", "ended"), [("yes\n", [RUN]), pytest.param("\n", [], marks=pytest.mark.slow)], ids=["yes", "enter"]
)
def test_cancel_asks_on_a_terminal(kfp, answer, ended):
    kfp.state.progress = ["RUNNING"]
    kfp.state.runs[RUN] = {"run_id": RUN, "display_name": "first try"}
    with Terminal("cancel", RUN, "--host", kfp.url) as terminal:
        terminal.expect(f"End run first try ({RUN}), running? {QUESTION}")
        terminal.press(answer)
        assert terminal.end() == 0
    assert kfp.state.terminated == ended


def test_an_interrupt_without_a_terminal_leaves_the_run(kfp):
    kfp.state.progress = ["RUNNING"]
    kfp.state.runs[RUN] = {"run_id": RUN, "display_name": "first try"}
    command = [sys.executable, "pipeline.py", "status", RUN, "--host", kfp.url, "--wait", "--poll", "0.1"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "run is running\n"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()  # or a failure would wait for it, and leave it to the next test
    assert process.returncode == 130
    assert errors.startswith("left running: ")
    assert kfp.state.terminated == []


@pytest.mark.parametrize(
    ("call", "command"),
    [
        (
            "submit PIPELINE=recap SET='a=1 b=2' HOST=http://h WAIT=1 DRY_RUN=1 RELEASE=1 EXPERIMENT=e RUN='my run' "
            "NAMESPACE=n ALLOW_TAGS=1 SERVICE_ACCOUNT=s TOKEN_FILE=/t",
            "submit recap --params params/recap.yaml --set a=1 --set b=2 --host http://h --namespace n --token-file /t "
            "--allow-tags --experiment e --service-account s --dry-run --run my run --wait --release",
        ),
        ("submit PARAMS=p.yaml", "submit recap --params p.yaml"),
        ("upload HOST=http://h AUTH=kubectl", "upload recap --host http://h --auth kubectl"),
        (
            "schedule CRON='0 0 2 * * *' NAME=n REPLACE=1",
            "schedule recap --params params/recap.yaml --cron 0 0 2 * * * --name n --replace",
        ),
        ("schedule LIST=1", "schedule --list"),
        ("schedule DELETE=n", "schedule --delete n"),
        ("status RUN=1 HOST=http://h WAIT=1 TIMEOUT=2h", "status 1 --wait --timeout 2h --host http://h"),
        ("logs RUN=1 STEP=train_value", "logs 1 --step train_value"),
        ("cancel RUN=1 YES=1", "cancel 1 --yes"),
    ],
)
def test_make_forwards_and_adds_nothing(tmp_path, call, command):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$ROBOLIFT_VALUES|$@"\n')
    python.chmod(0o755)
    stamp = tmp_path / ".installed"
    stamp.touch()
    # -o: the environment is there already, and it is no part of this.
    made = subprocess.run(
        f"HOST=shell NAME=shell RUN=shell make -s -o install {call} VALUES=site.yaml BIN={tmp_path}",
        cwd=ROOT,
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    said = re.sub(r" +", " ", made.stdout.strip())
    assert said == f"site.yaml|pipeline.py {command}"
