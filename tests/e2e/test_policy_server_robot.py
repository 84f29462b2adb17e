"""openpi's client drives the simulated robot through the policy server, among clients that mean no good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import robot_client
from policy_server import Process, publish_small, serving
from websockets.sync.client import connect

from robolift.labeling.prompts import advantage_prompts
from robolift.manifest import Manifest
from robolift.policy import presets
from robolift.policy.encoder import EncoderSpec
from robolift.policy.normalize import Normalizer
from robolift.policy.server.prompt_rule import PromptLabel
from robolift.policy.server.served import ServedPolicy
from robolift.policy.serving import Policy
from robolift.sim import tasks
from robolift.sim.plans import Behaviour, EpisodePlan, WorldSpec, evaluation_seeds
from robolift.sim.recording import Actor, record_with_actor
from robolift.sim.records import EpisodeRecord
from robolift.sim.workers import Workers
from robolift.stages import acting

pytestmark = [pytest.mark.filterwarnings(robot_client.QUIET), pytest.mark.timeout(900)]
TASK = tasks.TASKS["pick-place-v3"]
CAMERA = f"{tasks.CAMERA_KEY}corner2"
STATES = (tasks.STATE_DIM, tasks.ENVIRONMENT_STATE_DIM)
VICTIM = """
import sys, numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy
client = WebsocketClientPolicy(sys.argv[1])
sys.stdout.write("connected\\n"), sys.stdout.flush()
while True:
    client._ws.send(b"\\xc1")
"""


def checkpoint(root, **changes) -> Manifest:
    """Publish a policy of the simulated robot; untrained."""
    return publish_small(
        root,
        prompts=advantage_prompts([TASK]),
        state_keys=(tasks.STATE, tasks.ENVIRONMENT_STATE),
        state_dims=STATES,
        action=Normalizer(np.zeros(4, np.float32), np.full(4, 0.3, np.float32)),
        action_horizon=4,
        fps=float(tasks.CONTROL_HZ),
        **changes,
    )


class ExpertPolicy(Policy):
    """Under ``positive`` the scripted expert, which solves the task; under any other prompt it does nothing."""

    def act(self, observation, *, prompts, seed, guidance=1.0):
        from robolift.sim.experts import Expert

        self._check(observation, len(prompts))
        chunk = np.zeros((len(prompts), self.action_horizon, self.action_dim), np.float32)
        for row in [row for row, prompt in enumerate(prompts) if prompt.endswith("positive")]:
            seen = np.zeros(39)
            seen[:4] = observation[tasks.STATE][row, :4]
            seen[4:11] = observation[tasks.ENVIRONMENT_STATE][row, :7]
            seen[36:] = observation[tasks.ENVIRONMENT_STATE][row, 14:]
            chunk[row] = Expert("pick-place-v3").act(seen)
        return chunk


def episodes(count: int) -> list[EpisodePlan]:
    return [
        EpisodePlan(index=index, seed=seed, behaviour=Behaviour.AUTONOMOUS, by_policy=True, max_frames=75, execute=2)
        for index, seed in enumerate(evaluation_seeds(3, count))
    ]


def simulator(*cameras: str) -> Workers:
    return Workers(WorldSpec(task="pick-place-v3", cameras=cameras), 1)


def play(workers: Workers, count: int, actor: Actor) -> list[EpisodeRecord]:
    """One robot, one episode after the other."""
    return list(record_with_actor(workers, episodes(count), actor, slots=1))


def robot(address: str) -> Actor:
    """Return openpi's client as what moves the robot; it sends the bare task."""
    client = robot_client.connect(address)

    def act(observation, seeds):
        rows = [{key: array[row] for key, array in observation.items()} for row in range(len(seeds))]
        asked = [{**row, "prompt": TASK, "seed": seed} for row, seed in zip(rows, seeds, strict=True)]
        return np.stack([client.infer(each)["actions"] for each in asked])

    return act


@contextmanager
def bad_company(address: str) -> Iterator[None]:
    """Let one client send garbage all the while, and another be killed while its messages are under way."""
    done = threading.Event()

    def garble() -> None:
        rng = np.random.default_rng(0)
        with connect(address, compression=None) as client:
            client.recv()
            while not done.wait(0.05):
                client.send(rng.bytes(int(rng.integers(0, 5000))))
                assert isinstance(client.recv(), str)

    thread = threading.Thread(target=garble)
    thread.start()
    env = {**os.environ, "PYTHONPATH": str(robot_client.FOLDER)}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", VICTIM, address]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout.readline() == "connected\n"
        killer = threading.Timer(0.3, victim.send_signal, [signal.SIGKILL])
        killer.start()
        try:
            yield
        finally:
            killer.join()
            done.set()
            thread.join(60)
            assert victim.wait(60) == -signal.SIGKILL
    assert not thread.is_alive()


def num_answers(records: list[EpisodeRecord]) -> int:
    """Return how often the robot asked: two actions of each chunk are carried out before the next question."""
    return sum(-(-record.length // 2) for record in records)


def say(capsys: pytest.CaptureFixture[str], stats: dict) -> None:
    with capsys.disabled():
        sys.stdout.write(
            f"\n{stats['answers']} answers; ms of the policy {stats['infer_ms']}, in all {stats['answer_ms']}\n"
        )


@pytest.mark.parametrize(("label", "solved"), [("positive", True), ("negative", False)])
def test_the_forced_prompt_decides_what_the_robot_does(tmp_path, capsys, label, solved):
    policy = ExpertPolicy.load(checkpoint(tmp_path, cameras=0).uri)
    served = ServedPolicy(policy, checkpoint="0", label=PromptLabel(label), guidance=1.0)
    with simulator() as workers, serving(served) as running, bad_company(running.address):
        records = play(workers, 2 if solved else 1, robot(running.address))
        stats = running.await_stats(answers=num_answers(records))
    assert [record.success for record in records] == [solved] * len(records)
    assert stats["refusals"] > 1
    assert stats["failures"] == 0
    say(capsys, stats)


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_episodes_through_the_server_are_those_of_the_policy_itself(tmp_path, capsys, count):
    eye = EncoderSpec(cameras=(CAMERA,), image_size=(48, 48), channels=(4,), kernels=(3,), strides=(2,))
    seen = sum(STATES) + eye.num_features
    output = checkpoint(
        tmp_path,
        architecture=replace(presets.tiny(), sampling_steps=4),
        encoder=eye,
        observation=Normalizer(np.zeros(seen, np.float32), np.ones(seen, np.float32)),
    )
    act = acting.actor(Policy.load(output.uri), prompt=f"{TASK}, Advantage: positive", guidance=1.0)
    with simulator("corner2") as workers, Process(output.uri) as server:
        with bad_company(server.address):
            served = play(workers, count, robot(server.address))
        stats = server.await_stats(answers=num_answers(served))
        code, log = server.end(signal.SIGTERM)
        alone = play(workers, count, act)
    assert code == 143, log[-2000:]
    say(capsys, stats)
    assert len(served) == count
    for ours, theirs in zip(served, alone, strict=True):
        assert (ours.success, ours.length) == (theirs.success, theirs.length)
        assert ours.columns["action"].tobytes() == theirs.columns["action"].tobytes()
