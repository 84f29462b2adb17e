"""What the profiler records: the steps that were asked for, outside the output, whose bytes it leaves alone."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile

import jax.numpy as jnp
import pytest
import structlog
from test_policy_fit import SHORT
from test_policy_fit import store_in as policy_store
from test_state_writer import StateStore, contents, train
from toy_policies import SMALL, recipe, shape_of, two_modes

from robolift.errors import UsageError
from robolift.policy import learning
from robolift.policy.loop import ChunkLearner, make_optimizer
from robolift.training.profiling import Profile, StepTrace
from robolift.training.stopping import TrainingStoppedError


class Notes:
    """A recorder that says what it was asked."""

    def __init__(self):
        self.events = []

    def start(self, folder):
        assert list(folder.iterdir()) == []
        self.events.append("start")

    def stop(self, folder):
        (folder / "plugins" / "profile").mkdir(parents=True)
        (folder / "plugins" / "profile" / "trace").write_bytes(b"seen")
        self.events.append("stop")


@pytest.mark.parametrize(
    ("steps", "length", "expected"),
    [
        (2, 9, [1, 2, "wait", "start", 3, 4, "wait", "stop", 5, 6, 7, 8, 9]),
        (2, 4, [1, 2, "wait", "start", 3, 4, "stop"]),  # what ends early leaves what there is
        (2, 2, [1, 2]),
        (0, 4, [1, 2, 3, 4]),
    ],
)
def test_steps_are_recorded_after_three_others_and_the_device_is_waited_for(tmp_path, steps, length, expected):
    notes = Notes()
    with StepTrace(Profile(steps, f"memory://{tmp_path}/at"), notes) as trace:
        for step in range(1, length + 1):
            trace.advanced(lambda: notes.events.append("wait"))
            notes.events.append(step)
    assert notes.events == expected


@pytest.mark.parametrize(
    ("length", "told"),
    [
        (2, {"event": "nothing was profiled: the run ended before", "steps": 2, "first": 4, "log_level": "warning"}),
        (4, {"event": "profiled", "steps": 1, "asked": 2, "log_level": "info"}),
        (9, {"event": "profiled", "steps": 2, "log_level": "info"}),
    ],
)
def test_it_is_told_what_was_recorded_of_what_was_asked(tmp_path, length, told):
    with structlog.testing.capture_logs() as logs, StepTrace(Profile(2, f"memory://{tmp_path}"), Notes()) as trace:
        for _ in range(length):
            trace.advanced()
    assert [{key: value for key, value in log.items() if key in told} for log in logs] == [told]
    assert all("asked" in told or "asked" not in log for log in logs)


def test_where_nothing_may_be_written_is_told_before_the_first_step(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    trace = StepTrace(Profile(2, str(tmp_path / "file" / "profile")), Notes())
    with pytest.raises(UsageError, match="can't be written"), trace:
        pytest.fail("a step was done")


def test_a_recording_that_cannot_be_written_ends_no_training_and_hides_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    uri = tmp_path / "profile"
    trace = StepTrace(Profile(1, str(uri)), Notes())
    with structlog.testing.capture_logs() as logs, trace:
        for step in range(6):
            if step == 3:
                uri.rmdir()
                uri.write_bytes(b"")
            trace.advanced()
    assert [(log["event"], log["log_level"]) for log in logs] == [("the profile was not written", "warning")]
    uri.unlink()

    def ended():
        with StepTrace(Profile(9, str(uri)), Notes()) as trace:
            for _ in range(4):
                trace.advanced()
            uri.rmdir()
            uri.write_bytes(b"")
            raise TrainingStoppedError("stopped")

    with pytest.raises(TrainingStoppedError):
        ended()
    assert list((tmp_path / "scratch").iterdir()) == []


KILLED = """
import os, sys
from robolift.training.profiling import Profile, StepTrace
from test_training_profile import Notes

with StepTrace(Profile(1, sys.argv[1]), Notes()) as trace:
    for _ in range(3):
        trace.advanced()
    os._exit(9)
"""


def test_what_a_killed_process_recorded_is_removed_by_the_next(tmp_path, monkeypatch):
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environ = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": paths}
    command = [sys.executable, "-c", KILLED, f"memory://{tmp_path}"]
    assert subprocess.run(command, check=False, env=environ).returncode == 9
    assert len(list(tmp_path.glob(".robolift-profile.*"))) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with StepTrace(Profile(1, f"memory://{tmp_path}"), Notes()) as trace:
        for _ in range(5):
            trace.advanced()
    assert list(tmp_path.glob(".robolift-profile.*")) == []


def test_a_recording_of_pytorch_holds_every_operator_of_its_steps_and_changes_no_byte(tmp_path):
    train(StateStore(str(tmp_path / "plain"), 4))
    train(StateStore(str(tmp_path / "profiled"), 4), profile=Profile(4, str(tmp_path / "profiles" / "digest")))
    assert contents(tmp_path / "plain") == contents(tmp_path / "profiled")
    (name,) = contents(tmp_path / "profiles")
    assert name == "digest/torch.pt.trace.json.gz"
    with gzip.open(tmp_path / "profiles" / name) as file:
        events = json.load(file)["traceEvents"]
    # Three layers, in steps 4 to 7 and in the held-out measure after step 6.
    assert sum(event.get("name") == "aten::addmm" for event in events) == 15


def test_a_recording_of_jax_opens_in_tensorboard_and_in_perfetto(tmp_path):
    data, settings = two_modes(), recipe(objective="flow", **SHORT)
    learner = ChunkLearner(SMALL, shape_of(data, "flow"), settings, jnp.asarray(data.bare), make_optimizer(settings))
    profile = Profile(4, str(tmp_path / "profiles"))
    learning.run(learner, data, settings, policy_store(tmp_path), profile=profile)
    found = contents(tmp_path / "profiles")
    assert [name for name in found if name.endswith(".xplane.pb")]
    (trace,) = [content for name, content in found.items() if name.endswith("perfetto_trace.json.gz")]
    assert json.loads(gzip.decompress(trace))["traceEvents"]
