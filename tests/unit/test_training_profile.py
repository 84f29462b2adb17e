"""What the profiler records: the steps that were asked for, outside the output, whose bytes it leaves alone."""

from __future__ import annotations

import gzip
import json

import jax.numpy as jnp
import pytest
from test_policy_fit import SHORT
from test_policy_fit import store_in as policy_store
from test_state_writer import StateStore, contents, train
from toy_policies import SMALL, recipe, shape_of, two_modes

from robolift.policy import learning
from robolift.policy.loop import ChunkLearner, make_optimizer
from robolift.training.profiling import Profile, StepTrace


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
