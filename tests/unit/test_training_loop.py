from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
import torch
from torch import nn

from robolift.errors import EXIT_TERMINATED, UsageError
from robolift.training import loop
from robolift.training.checkpoint import StateStore
from robolift.training.distributed import TrainingStoppedError, World
from robolift.training.loop import LoopOptions, Trainer, fit

OPTIONS = {
    "steps": 20,
    "peak_learning_rate": 0.05,
    "warmup_steps": 2,
    "final_learning_rate_fraction": 0.1,
    "weight_decay": 0.01,
    "gradient_clip": 1.0,
    "ema_decay": 0.9,
    "log_every": 6,
    "eval_every": 5,
    "save_every": 4,
    "select": "last",
}


class Line:
    """Fits y = 2x - 1 from noisy points; ``at`` maps a step to what happens before its loss."""

    def __init__(self, model, at=None):
        self.model, self.at = model, at or {}
        self.measured = []

    def losses(self, step, part=0):
        if step in self.at:
            self.at.pop(step)()
        rng = np.random.default_rng([7, step])
        x = torch.from_numpy(rng.standard_normal((16, 1)).astype(np.float32))
        error = (self.model(x) - (2 * x - 1)).square().mean()
        return {"loss": error, "twice": 2 * error}

    def evaluate(self):
        x = torch.linspace(-1, 1, 9)[:, None]
        self.measured.append((self.model(x) - (2 * x - 1)).square().mean().item())
        return {"loss": self.measured[-1], "spearman": None}


def train(folder, *, at=None, objective=None, keep_every=0, **changes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    objective = (objective or Line)(model, at)
    options = LoopOptions(**{**OPTIONS, **changes})
    return fit(model, objective, options, world=World(), store=StateStore(str(folder), keep_every)), objective


def same(a, b):
    return a.step == b.step and a.curves == b.curves and all(torch.equal(a.weights[k], b.weights[k]) for k in b.weights)


class PowerCutError(Exception):
    pass


def cut():
    raise PowerCutError


@pytest.mark.parametrize("select", ["last", "best"])
@pytest.mark.parametrize("killed_at", [1, 4, 11, 19])
def test_a_killed_run_ends_with_the_bits_of_an_uninterrupted_one(tmp_path, killed_at, select):
    whole, _ = train(tmp_path / "whole", select=select)
    with pytest.raises(PowerCutError):
        train(tmp_path / "cut", at={killed_at: cut}, select=select)
    resumed, _ = train(tmp_path / "cut", select=select)
    assert same(resumed, whole)
    assert whole.curves["train"][-1]["loss"] < whole.curves["train"][0]["loss"] / 2


@pytest.mark.parametrize("killed_at", [2, 7, 15])
def test_kept_states_are_the_same_bytes_however_often_a_run_was_killed_or_saved(tmp_path, killed_at):
    def kept(name):
        StateStore(str(tmp_path / name), 3).copy_kept(tmp_path / "kept" / name, OPTIONS["steps"])
        folder = tmp_path / "kept" / name / "checkpoints"
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}

    train(tmp_path / "whole", keep_every=3, save_every=100)
    with pytest.raises(PowerCutError):
        train(tmp_path / "cut", at={killed_at: cut}, keep_every=3)
    train(tmp_path / "cut", keep_every=3)
    assert kept("cut") == kept("whole")
    assert {name.split("/")[0] for name in kept("whole")} == {"3", "6", "9", "12", "15", "18"}


def test_curves_hold_means_since_the_row_before_and_the_last_step(tmp_path):
    result, objective = train(tmp_path)
    assert [row["step"] for row in result.curves["train"]] == [6, 12, 18, 20]
    assert [row["step"] for row in result.curves["validation"]] == [5, 10, 15, 20]
    assert [row["loss"] for row in result.curves["validation"]] == objective.measured
    for row in result.curves["train"]:
        assert row["twice"] == pytest.approx(2 * row["loss"])
    dense, _ = train(tmp_path / "dense", log_every=1)
    losses = [row["loss"] for row in dense.curves["train"]]
    assert result.curves["train"][0]["loss"] == pytest.approx(np.mean(losses[:6]))
    assert result.curves["train"][3]["loss"] == pytest.approx(np.mean(losses[18:]))


def test_best_keeps_the_weights_of_the_lowest_held_out_loss(tmp_path):
    class Worsens(Line):
        def evaluate(self):
            self.measured.append({5: 3.0, 10: 1.0, 15: 2.0, 20: 2.5}[5 * len(self.measured) + 5])
            return {"loss": self.measured[-1]}

    result, _ = train(tmp_path / "best", objective=Worsens, select="best")
    assert result.step == 10
    # The state of step 10 has the same average in it, whatever the run did later.
    with pytest.raises(PowerCutError):
        train(tmp_path / "cut", at={11: cut}, save_every=10)
    with StateStore(str(tmp_path / "cut")).opened() as stopped:
        assert stopped.step == 10
        assert all(torch.equal(stopped.weight(name), weight) for name, weight in result.weights.items())


def test_every_process_calls_the_same_weights_the_best(tmp_path, monkeypatch):
    theirs = iter([3.0, 1.0, 2.0, 2.5])
    monkeypatch.setattr(loop, "share", lambda _, mine: mine and {"loss": next(theirs)})  # nothing to resume: None
    result, objective = train(tmp_path, select="best")
    assert result.step == 10
    assert [row["loss"] for row in result.curves["validation"]] == [3.0, 1.0, 2.0, 2.5] != objective.measured


def test_going_on_and_keeping_the_best_fill_what_is_there(tmp_path):
    with pytest.raises(PowerCutError):
        train(tmp_path, at={11: cut}, select="best")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    options = LoopOptions(**{**OPTIONS, "select": "best"})
    trainer = Trainer(model, Line(model), options, World(), StateStore(str(tmp_path)))

    def places():
        sets = (dict(model.named_parameters()), trainer.average.weights, *trainer.optimizer.moments.values())
        return [tensor.data_ptr() for tensors in sets for tensor in tensors.values()]

    before = places()
    trainer.restore()
    assert trainer.step == 8
    best = [tensor.data_ptr() for tensor in trainer.best.values()]
    while trainer.step < 10:
        trainer.advance(threading.Event())
        trainer.record()
    assert trainer.best_step == 10
    assert places() == before
    assert [tensor.data_ptr() for tensor in trainer.best.values()] == best


def test_sigterm_saves_the_step_in_progress_and_a_rerun_goes_on(tmp_path):
    whole, _ = train(tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStoppedError, match="after step 6") as stopped:
        train(tmp_path / "cut", at={5: lambda: os.kill(os.getpid(), signal.SIGTERM)}, save_every=100)
    assert stopped.value.exit_code == EXIT_TERMINATED
    assert signal.getsignal(signal.SIGTERM) is before
    with StateStore(str(tmp_path / "cut")).opened() as state:
        assert state.step == 6
    assert same(train(tmp_path / "cut", save_every=100)[0], whole)


def test_training_works_outside_the_main_thread(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(train(tmp_path)[0].step))
    thread.start()
    thread.join()
    assert results == [20]


def test_a_diverging_run_says_so(tmp_path):
    class Diverges(Line):
        def losses(self, step, part=0):
            loss = super().losses(step)["loss"]
            return {"loss": loss * float("inf" if step == 7 else 1)}

    with pytest.raises(UsageError, match=r"diverged.*step 12"):
        train(tmp_path, objective=Diverges)


def test_no_evaluation_when_nothing_is_held_out(tmp_path):
    result, objective = train(tmp_path, eval_every=0)
    assert result.curves["validation"] == []
    assert objective.measured == []
