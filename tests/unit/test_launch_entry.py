"""The first process of a training pod: what it hands on, and how its end reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robolift import storage
from robolift.errors import DataError
from robolift.launch import entry

FAKE_STAGE = """
import json, os, signal, sys, time
plan = json.load(open(os.environ["PLAN"]))
open(os.environ["PLAN"] + ".started", "w").write(" ".join(sys.argv[1:]))
if plan.get("wait"):
    if "on_term" in plan:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(plan["on_term"]))
    open(os.environ["PLAN"] + ".ready", "w").close()
    time.sleep(300)
if "signal" in plan:
    os.kill(os.getpid(), plan["signal"])
sys.exit(plan["code"])
"""


@pytest.fixture
def pod(tmp_path):
    """Start the entry process over a stage that does as it is told."""
    package = tmp_path / "fake" / "robolift"
    real = Path(entry.__file__).parents[1]
    package.mkdir(parents=True)
    for item in real.iterdir():
        if item.name != "__main__.py":
            (package / item.name).symlink_to(item)
    (package / "__main__.py").write_text(FAKE_STAGE)
    work = tmp_path / "work"
    work.mkdir()

    def start(plan, **environ):
        plan_path = tmp_path / "plan.json"
        plan_path.write_bytes(storage.to_json_bytes(plan))
        env = {**os.environ, "PYTHONPATH": str(tmp_path / "fake"), "PLAN": str(plan_path), "ROBOLIFT_JOB": "job-1"}
        command = [sys.executable, "-m", "robolift.launch.entry", "train_value", "--config", f"{work}/job.json"]
        return subprocess.Popen(command, cwd=tmp_path, env={**env, **environ}, stderr=subprocess.PIPE, text=True)

    start.work = str(work)
    start.plan = tmp_path / "plan.json"
    return start


def finish(process):
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ({"code": 0}, 0),
        ({"code": 65}, 65),
        ({"code": 137}, 143),
        ({"signal": 9}, 143),
    ],
)
def test_the_pod_s_exit_code(pod, plan, code):
    assert finish(pod(plan))[0] == code
    started = Path(f"{pod.plan}.started").read_text()
    assert started == f"train_value --config {pod.work}/job.json"


@pytest.mark.parametrize(
    ("code", "asked", "expected"),
    [
        (0, True, 0),
        (64, False, 64),
        (64, True, 64),
        (65, True, 65),
        (1, True, 143),
        (70, False, 70),
        (70, True, 143),
        (143, False, 143),
        (1, False, 1),
        (-6, False, 143),
        (-9, False, 143),
    ],
)
def test_what_an_end_means(code, asked, expected):
    assert entry.exit_code(code, asked_to_stop=asked) == expected


@pytest.mark.parametrize(("plan", "code"), [({"wait": True, "on_term": 143}, 143), ({"wait": True}, 143)])
def test_sigterm_is_handed_on(pod, plan, code):
    process = pod(plan)
    deadline = time.monotonic() + 120
    while not Path(f"{pod.plan}.ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == code


def write_step(work, step):
    storage.write_bytes(f"{work}/latest.json", storage.to_json_bytes({"step": step}))


def test_three_attempts_without_a_step_between_them_are_the_last(pod):
    write_step(pod.work, 7)
    for _ in range(3):
        assert finish(pod({"code": 143}))[0] == 143
    code, stderr = finish(pod({"code": 143}))
    assert code == 65
    assert "error: 3 attempts of this job ended without getting past step 7" in stderr
    assert f"where: {pod.work}" in stderr
    assert "mend: look into the logs of the failed pods" in stderr


def test_a_step_further_starts_the_count_anew(tmp_path):
    work = str(tmp_path)
    for _ in range(3):
        entry.count_attempt(work, "job-1")  # no state yet is step 0
    write_step(work, 2)
    for _ in range(3):
        entry.count_attempt(work, "job-1")
    with pytest.raises(DataError, match="past step 2"):
        entry.count_attempt(work, "job-1")
    entry.count_attempt(work, "job-2")  # another run, whose user may have mended the cause
    assert storage.read_json(f"{work}/attempts.json") == {"job": "job-2", "step": 2, "attempts": 1}


@pytest.mark.parametrize(
    ("environ", "first"),
    [
        ({}, True),
        ({"PET_NODE_RANK": "0"}, True),
        ({"PET_NODE_RANK": "1"}, False),
    ],
)
def test_only_the_first_pod_counts(environ, first):
    assert entry.is_first_pod(environ) is first


def test_a_pod_made_anew_after_the_others_had_finished_is_done(tmp_path, monkeypatch):
    # The work folder is gone by then, and job.json with it.
    job = f"{tmp_path}/runs/_work/train_value/0123456789abcdef/job.json"
    storage.write_bytes(f"{tmp_path}/runs/train_value/0123456789abcdef/manifest.json", b"{}")
    assert entry.main(["train_value", "--config", job]) == 0
    assert not storage.exists(job.rpartition("/")[0])
    other = f"{tmp_path}/runs/_work/train_value/another/job.json"
    assert not entry.is_published(other)
