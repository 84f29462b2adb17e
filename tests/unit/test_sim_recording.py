"""Simulator processes: order, independence of their number, policies in lockstep, and what happens when one fails."""

from __future__ import annotations

import os
import signal
import sys
from ctypes.util import find_library

import numpy as np
import pytest

from robolift.errors import UsageError
from robolift.sim.plans import Behaviour, EpisodePlan, WorldSpec
from robolift.sim.recording import RECORDS_AHEAD_PER_WORKER, record_scripted, record_with_actor
from robolift.sim.workers import Begin, Workers, import_simulator, serve

STATES = WorldSpec(task="pick-place-v3")


@pytest.fixture(scope="module")
def pair():
    """Two workers, shared by the tests that leave them whole."""
    with Workers(STATES, 2) as workers:
        yield workers


def scripted(count, **changes):
    modes = [Behaviour.DEMO, Behaviour.AUTONOMOUS, Behaviour.TAKEOVER]
    return [
        EpisodePlan(index=i, seed=i, behaviour=modes[i % 3], **{"action_noise": 0.15, "max_frames": 20, **changes})
        for i in range(count)
    ]


def driven(count, **changes):
    return [
        EpisodePlan(
            index=i,
            seed=i,
            behaviour=Behaviour.AUTONOMOUS,
            by_policy=True,
            **{"max_frames": 4 + 3 * (i % 3), "execute": 3, **changes},
        )
        for i in range(count)
    ]


def reaching(observations, seeds):
    """Move to the object, with a little noise that only the row's seed decides."""
    state, scene = observations["observation.state"], observations["observation.environment_state"]
    chunk = np.zeros((len(state), 4, 4), np.float32)
    chunk[:, :, :3] = np.clip(10 * (scene[:, :3] - state[:, :3]), -1, 1)[:, None]
    noise = [np.random.default_rng(seed).normal(0, 0.1, (4, 4)) for seed in seeds]
    return chunk + np.array(noise, np.float32)


def assert_same(found, expected):
    assert [record.plan for record in found] == [record.plan for record in expected]
    for one, other in zip(found, expected, strict=True):
        for name in one.columns:
            np.testing.assert_array_equal(one.columns[name], other.columns[name], err_msg=name)
        for name in one.images:
            np.testing.assert_array_equal(one.images[name], other.images[name], err_msg=name)


def test_episodes_come_in_order_and_do_not_depend_on_the_number_of_workers(pair):
    plans = scripted(7)
    with Workers(STATES, 1) as one:
        alone, together = list(record_scripted(one, plans)), list(record_scripted(pair, plans))
    assert [record.plan.index for record in alone] == list(range(7))
    assert_same(together, alone)


def test_only_a_few_records_are_made_ahead(pair, monkeypatch):
    begun = []
    send = pair.send
    monkeypatch.setattr(
        pair, "send", lambda worker, requests: (begun.append(requests[0].plan.index), send(worker, requests))
    )
    records = record_scripted(pair, scripted(30, max_frames=1))
    next(records)
    assert max(begun) < 2 * RECORDS_AHEAD_PER_WORKER
    list(records)
    assert sorted(begun) == list(range(30))


def test_policies_act_in_lockstep_whatever_the_slots_and_workers(pair):
    plans = driven(5)
    sizes = []

    def counting(observations, seeds):
        sizes.append(len(seeds))
        return reaching(observations, seeds)

    single = list(record_with_actor(pair, plans, reaching, slots=1))
    batched = list(record_with_actor(pair, plans, counting, slots=3))
    assert_same(batched, single)
    assert [record.length for record in single] == [4, 7, 10, 4, 7]
    # Calls every 3 frames: 2, 3, 4, 2 and 3 of them. A new episode begins in the round after another has ended.
    assert sizes == [3, 3, 2, 2, 2, 1, 1]


def test_each_call_of_an_episode_has_its_own_seed(pair):
    seen = []

    def noting(observations, seeds):
        seen.extend(seeds)
        return reaching(observations, seeds)

    list(record_with_actor(pair, driven(2), noting))
    assert sorted(seen) == [0, 1, 1000, 1001, 1002]


def test_a_policy_gets_the_images_of_now():
    spec = WorldSpec(task="pick-place-v3", cameras=("topview",), image_size=32)
    shown = []

    def looking(observations, seeds):
        shown.append(observations["observation.images.topview"])
        return reaching(observations, seeds)

    with Workers(spec, 1) as workers:
        plans = driven(2, max_frames=6, keep_images=True)
        records = list(record_with_actor(workers, plans, looking))
    assert [batch.shape for batch in shown] == [(2, 32, 32, 3)] * 2
    for row, record in enumerate(records):
        images = record.images["observation.images.topview"]
        assert images.shape == (6, 32, 32, 3)
        np.testing.assert_array_equal(shown[0][row], images[0])
        np.testing.assert_array_equal(shown[1][row], images[3])


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        (np.zeros((2, 4, 7)), r"shape \(2, 4, 7\), expected \(2, horizon, 4\)"),
        (np.zeros((2, 0, 4)), r"shape \(2, 0, 4\)"),
        (np.full((2, 4, 4), np.nan), "not finite"),
    ],
)
def test_a_policy_for_another_robot_is_refused(pair, actions, said):
    with pytest.raises(UsageError, match=said):
        list(record_with_actor(pair, driven(2), lambda observations, seeds: actions))


def test_rendering_that_can_not_start_is_explained(monkeypatch):
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "99")
    spec = WorldSpec(task="pick-place-v3", cameras=("topview",), image_size=32)
    with Workers(spec, 1) as workers, pytest.raises(UsageError, match=r"MUJOCO_GL=egl does not start.*\n.*\n.*libegl1"):
        list(record_scripted(workers, scripted(1)))


def test_osmesa_is_explained_or_draws():
    spec = WorldSpec(task="pick-place-v3", cameras=("topview",), image_size=32, gl="osmesa")
    with Workers(spec, 1) as workers:
        records = record_scripted(workers, scripted(1, max_frames=2, keep_images=True))
        if find_library("OSMesa"):
            assert next(records).images["observation.images.topview"].std() > 5
        else:
            with pytest.raises(UsageError, match="apt-get install libosmesa6"):
                next(records)


def test_a_bug_in_a_worker_carries_its_traceback(pair):
    with pytest.raises(RuntimeError, match=r"simulator process 0 failed:\nTraceback"):
        list(record_scripted(pair, scripted(1, action_noise=-1.0)))


def test_a_worker_that_dies_is_noticed():
    with Workers(STATES, 2) as workers:
        workers.send(0, {0: Begin(scripted(1)[0])})
        os.kill(workers._processes[1].pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="simulator process 1 died with exit code -9"):
            workers.receive(1)
        workers._processes[1].join()
        with pytest.raises(RuntimeError, match="simulator process 1 died"):
            workers.send(1, {0: Begin(scripted(1)[0])})
        assert workers.receive(0)[0].length == 20


def test_a_simulator_that_is_not_installed_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(UsageError, match=r"pip install 'robolift\[sim\]'"):
        import_simulator(STATES)


class Wire:
    """A connection with requests prepared: what a worker's main function sees, in this process."""

    def __init__(self, *requests):
        self.requests = list(requests)
        self.replies = []

    def recv(self):
        if not self.requests:
            raise EOFError
        return self.requests.pop(0)

    def send(self, reply):
        self.replies.append(reply)


@pytest.mark.parametrize("ending", [(None,), ()], ids=["told to stop", "parent gone"])
def test_a_worker_serves_until_it_is_told_or_its_parent_is_gone(ending, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    demo, policy = scripted(1)[0], driven(1, max_frames=4)[0]
    wire = Wire({0: Begin(demo), 3: Begin(policy)}, {9: "no request"}, *ending)
    serve(wire, STATES)
    replies, failure = wire.replies
    assert replies[0].length == 20
    assert sorted(replies[3]) == ["observation.environment_state", "observation.state"]
    assert "Traceback" in failure
