"""What becomes of a job when its launcher is stopped: that depends on what becomes of the run."""

from __future__ import annotations

import signal

import pytest
from job_specs import NAME
from test_launch_watch import JOBS, launch, plays, program, wait_until
from test_launch_watch import kubernetes as kubernetes

from robolift.launch import watch


def test_a_cancelled_launcher_deletes_its_job_and_ends_with_143(kubernetes):
    kubernetes.on_create = plays("Running")
    process = program(kubernetes)
    wait_until(lambda: any("watch" in query for _, _, query in list(kubernetes.requests)))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143, output
    wait_until(lambda: kubernetes.names(JOBS) == [])


@pytest.mark.parametrize(
    ("workflow", "left"),
    [
        ({"status": {"phase": "Running"}}, [NAME]),  # the step's pod alone is moved: its node is drained
        ({"spec": {"activeDeadlineSeconds": 0}, "status": {"phase": "Running"}}, []),  # what Terminate in the UI does
        ({"status": {"phase": "Failed"}}, []),
    ],
)
def test_a_stopped_launcher_leaves_the_job_of_a_run_that_goes_on(kubernetes, workflow, left):
    kubernetes.put("workflows", "recap-x1", {"metadata": {"uid": "u-7"}, **workflow})
    kubernetes.on_create = plays("Running")
    process = program(kubernetes)
    wait_until(lambda: any("watch" in query for _, _, query in list(kubernetes.requests)))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143, output
    wait_until(lambda: kubernetes.names(JOBS) == left)
    assert kubernetes.count("DELETE", JOBS) == (0 if left else 1)


def test_what_is_stopped_before_it_had_a_job_deletes_nobody_s(kubernetes, monkeypatch):
    kubernetes.on_create = plays("Running")
    monkeypatch.setattr(watch, "_check_ours", lambda *_: (_ for _ in ()).throw(SystemExit(143)))
    other = {"metadata": {"name": NAME, "annotations": {"robolift.io/spec-digest": "other"}}}
    kubernetes.put(JOBS, NAME, other)
    with pytest.raises(SystemExit):
        launch(kubernetes)
    assert kubernetes.count("DELETE", JOBS) == 0
