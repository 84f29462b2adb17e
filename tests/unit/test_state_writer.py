"""States that are written while training goes on: of the step they say, one at a time, and no failure goes unsaid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch
from torch import nn

from robolift.errors import UsageError
from robolift.training.checkpoint import ResumeState, StateStore
from robolift.training.distributed import ALONE, World, connections
from robolift.training.loop import LoopOptions, fit
from robolift.training.profiling import NO_PROFILE
from robolift.training.sharding import Piece, full
from robolift.training.state_writer import StateWriter
from robolift.training.stopping import TrainingStoppedError

OPTIONS = LoopOptions(
    steps=12,
    peak_learning_rate=0.05,
    warmup_steps=1,
    final_learning_rate_fraction=0.1,
    weight_decay=0.01,
    gradient_clip=1.0,
    ema_decay=0.9,
    log_every=5,
    eval_every=3,
    save_every=4,
    select="best",
)


class Line:
    """Fits a line; ``at`` maps a step to what happens before its loss."""

    def __init__(self, model, at):
        self.model, self.at = model, at

    def losses(self, step, part=0):
        self.at.get(step, lambda: None)()
        x = torch.from_numpy(np.random.default_rng([7, step]).standard_normal((16, 1)).astype(np.float32))
        return {"loss": (self.model(x) - (2 * x - 1)).square().mean()}

    def evaluate(self):
        x = torch.linspace(-1, 1, 9)[:, None]
        return {"loss": (self.model(x) - (2 * x - 1)).square().mean().item()}


def train(store, at=None, profile=NO_PROFILE, **changes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 1))
    model[2].requires_grad_(requires_grad=False)
    options = LoopOptions(**{**vars(OPTIONS), **changes})
    return fit(model, Line(model, at or {}), options, world=ALONE, store=store, profile=profile)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class SlowStore(StateStore):
    """Writes each state only when it is told to."""

    def save(self, state, world=ALONE):
        self.steps.append(state.step)
        self.begun.set()
        assert self.go_on.wait(60)
        super().save(state, world)


def slow_store(folder, keep_every=0):
    store = SlowStore(str(folder), keep_every)
    for name in ("begun", "go_on"):
        object.__setattr__(store, name, threading.Event())
    object.__setattr__(store, "steps", [])
    return store


def test_a_state_is_that_of_its_step_however_far_training_has_gone_on(tmp_path):
    train(StateStore(str(tmp_path / "at once"), 4), save_in_background=False)
    slow = slow_store(tmp_path / "behind", 4)
    # The state of step 4 is written when three more steps and an evaluation have changed everything in place.
    train(slow, at={4: lambda: slow.begun.wait(60), 7: slow.go_on.set})
    assert contents(tmp_path / "behind") == contents(tmp_path / "at once")
    assert len(contents(tmp_path / "behind")) == 10


def test_one_state_at_a_time_is_under_way_and_its_memory_is_used_again(tmp_path, monkeypatch):
    store, wait = slow_store(tmp_path), StateWriter.wait
    weights = {"w": torch.ones(3), "frozen": torch.ones(3)}

    def state(step):
        tensors = {"best.w": weights["w"], "best.frozen": weights["frozen"]}
        return ResumeState(step=step, weights=weights, tensors=tensors, document={}, frozen=frozenset({"frozen"}))

    def places():
        return {key: place.tolist() for key, place in writer._copies._places.items()}

    def checked(writer):
        if store.begun.is_set():  # the second save waits: the first one's copy is as it was when it goes on
            assert places() == {("weights", "w"): [1, 1, 1], ("tensors", "best.w"): [1, 1, 1]}
            store.go_on.set()
        wait(writer)

    monkeypatch.setattr(StateWriter, "wait", checked)
    with StateWriter(store, ALONE, background=True, sharded=False) as writer:
        writer.reserve(state(0))
        reserved = [place.data_ptr() for place in writer._copies._places.values()]
        writer.save(state(1))
        assert store.begun.wait(60)
        weights["w"].fill_(2)
        writer.save(state(2))
        monkeypatch.undo()
        writer.wait()
        # What is frozen is not there.
        assert places() == {("weights", "w"): [2, 2, 2], ("tensors", "best.w"): [2, 2, 2]}
        assert [place.data_ptr() for place in writer._copies._places.values()] == reserved
    assert store.steps == [1, 2]
    with store.opened() as found:
        assert (found.step, found.weight("w").tolist(), found.weight("frozen").tolist()) == (2, [2] * 3, [1] * 3)
        assert found.tensor("best", "frozen").tolist() == [1] * 3


def test_memory_for_copies_is_taken_before_the_first_step_and_its_lack_is_told(tmp_path, monkeypatch):
    taken = {}

    def first(writer):
        taken.update(writer._copies._places)
        raise ZeroDivisionError

    monkeypatch.setattr(StateWriter, "save", lambda writer, state: first(writer))
    with pytest.raises(ZeroDivisionError):
        train(StateStore(str(tmp_path)))
    # Layers 0 and 3 are trained: their weights, averages, two moments, the best average.
    assert len(taken) == 4 * 5
    assert not [name for _, name in taken if name in ("2.weight", "best.2.weight")]
    too_much = {"w": torch.ones(1).expand(1 << 50)}
    told = pytest.raises(
        UsageError, match=r"no memory for a copy of .*; give it more, or set save_in_background: false"
    )
    with StateWriter(StateStore(""), ALONE, background=True, sharded=False) as writer, told:
        writer.reserve(ResumeState(step=0, weights=too_much, tensors={}, document={}))


class Refused(StateStore):
    """Writes states below a step and fails from there on."""

    def save(self, state, world=ALONE):
        if state.step >= 8:
            raise UsageError(f"no room is left for step {state.step}")
        super().save(state, world)


@pytest.mark.parametrize("steps", [8, 20])
def test_what_a_write_failed_with_ends_training_at_the_next_save_or_at_the_end(tmp_path, steps):
    reached = []
    at = {step: lambda step=step: reached.append(step) for step in range(steps)}
    with pytest.raises(UsageError, match="no room is left for step 8"):
        train(Refused(str(tmp_path)), at, steps=steps)
    assert reached[-1] == (7 if steps == 8 else 11)
    with StateStore(str(tmp_path)).opened() as found:
        assert found.step == 4


def test_an_error_of_training_is_told_rather_than_that_of_the_write_beside_it(tmp_path):
    def cut():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(Refused(str(tmp_path)), at={9: cut})


def test_a_run_that_is_asked_to_stop_ends_when_its_state_is_written(tmp_path, monkeypatch):
    store = slow_store(tmp_path)
    stop = {5: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    wait = StateWriter.wait

    def begun(writer):
        if writer._writing is not None:  # the loop waits for the write of its state
            store.go_on.set()
        wait(writer)

    monkeypatch.setattr(StateWriter, "wait", begun)
    with pytest.raises(TrainingStoppedError, match="after step 6, its state is saved"):
        train(store, stop, save_every=100)
    with store.opened() as found:
        assert found.step == 6
    with pytest.raises(UsageError, match="no room is left for step 9"):
        train(Refused(str(tmp_path / "full")), {8: stop[5]}, save_every=100)


def test_a_stop_asked_for_while_the_last_state_is_written_lets_it_be_written(tmp_path, monkeypatch):
    store, told, leave = slow_store(tmp_path), [], StateWriter.__exit__

    def stopped(writer, *error):
        assert store.begun.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)
        store.go_on.set()
        return leave(writer, *error)

    monkeypatch.setattr(StateWriter, "__exit__", stopped)
    before = signal.signal(signal.SIGTERM, lambda *_: told.append("ends here"))
    try:
        train(store, steps=8, save_every=8)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == []


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from robolift.training import checkpoint
from test_state_writer import StateStore, train
write, written = checkpoint.write_tensors, []

def dying(*given):
    if len(written) == int(sys.argv[3]):
        os._exit(9)
    written.append(write(*given))
    return written[-1]

checkpoint.write_tensors = dying
train(StateStore(sys.argv[1]), steps=16)
"""


def test_a_kill_while_a_state_is_written_leaves_the_one_before_and_the_bits_of_an_uninterrupted_run(tmp_path):
    # The fourth tensor file of the run is the second of step 8; training itself is further on.
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "cut"), os.path.dirname(__file__), "3"]
    assert subprocess.run(command, check=False).returncode == 9
    store = StateStore(str(tmp_path / "cut"))
    with store.opened() as found:
        assert found.step == 4
    again, whole = train(store, steps=16), train(StateStore(str(tmp_path / "whole")), steps=16)
    assert again.curves == whole.curves
    assert all(torch.equal(again.weights[name], weight) for name, weight in whole.weights.items())


def join(rank, folder):
    """Do the part of one of two processes: hold pieces of tensors, which rank 0 gets whole."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        group, found = connections(), []
        for rows in (7, 2, 1):
            whole = torch.arange(float(rows * 2)).reshape(rows, 2)
            mine = whole[: (rows + 1) // 2] if rank == 0 else whole[(rows + 1) // 2 :]
            found.append(full(Piece(mine.clone(), whole.shape, group), World(rank=rank, size=2)).flatten().tolist())
        return found
    finally:
        torch.distributed.destroy_process_group()


def test_processes_put_pieces_together_where_some_have_no_rows(tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[2]); from test_state_writer import join; "
    code += "assert join(1, sys.argv[1]) == [[]] * 3"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), os.path.dirname(__file__)])
    assert join(0, tmp_path) == [list(map(float, range(rows * 2))) for rows in (7, 2, 1)]
    assert other.wait(120) == 0
