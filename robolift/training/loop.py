"""The training loop: the same for every model, resumable bit for bit, alone or in several processes.

What a step draws at random is a function of seed and step alone (see :mod:`robolift.training.sampler`), so the state
to save is weights, their average, optimizer moments and the curves so far; no generator lives across steps.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import nn

from robolift.errors import UsageError
from robolift.logging import get_logger
from robolift.training.checkpoint import ResumeState, StateStore
from robolift.training.distributed import World, any_of, average_gradients, collect, share, sum_over
from robolift.training.optim import AdamW, MovingAverage, learning_rate
from robolift.training.profiling import NO_PROFILE, Profile, StepTrace
from robolift.training.sharding import fill, is_sharded, local
from robolift.training.state_writer import StateWriter
from robolift.training.stopping import TrainingStoppedError, stop_requests
from robolift.training.torch_recorder import TorchRecorder


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How long and how fast to train.

    Attributes:
        steps: Optimizer steps.
        peak_learning_rate: Highest learning rate.
        warmup_steps: Steps of linear warm-up.
        final_learning_rate_fraction: Last learning rate as a share of the peak.
        weight_decay: AdamW's, on matrices and kernels.
        gradient_clip: Largest global norm of the gradient.
        ema_decay: Decay of the moving average of weights, which is the result.
        log_every: Steps between two rows of the training curve.
        eval_every: Steps between two evaluations on held-out data; 0 for none.
        save_every: Steps between two resumable states, besides those that the store keeps.
        select: The weights kept: the last, or the best by held-out loss.
        accumulate: Parts of equal size that a process's rows of a step are computed in, one after the other.
        fused_optimizer: Whether AdamW is one kernel a weight; see :class:`~robolift.training.optim.AdamW`.
        save_in_background: Whether states are written while training goes on, from a copy in the host's memory.
    """

    steps: int
    peak_learning_rate: float
    warmup_steps: int
    final_learning_rate_fraction: float
    weight_decay: float
    gradient_clip: float
    ema_decay: float
    log_every: int
    eval_every: int
    save_every: int
    select: Literal["last", "best"]
    accumulate: int = 1
    fused_optimizer: bool = False
    save_in_background: bool = True


class Objective(Protocol):
    """What is learned."""

    def losses(self, step: int, part: int = 0) -> dict[str, torch.Tensor]:
        """Return the mean losses of a part of this process's rows of ``step``; ``loss`` is the one to minimise."""

    def evaluate(self) -> dict[str, float | None]:
        """Return held-out measures of the model as it is now; ``loss`` decides which weights are best."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What training gave.

    Attributes:
        weights: Averaged parameters, the selected ones, dealt out as they were trained.
        step: Steps after which they were taken.
        curves: ``train`` and ``validation``: rows of step and numbers.
    """

    weights: Mapping[str, torch.Tensor]
    step: int
    curves: dict[str, list[dict[str, Any]]]


@dataclass
class Trainer:
    """One run of :func:`fit`: the state that changes from step to step."""

    model: nn.Module
    objective: Objective
    options: LoopOptions
    world: World
    store: StateStore
    step: int = 0
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"train": [], "validation": []})
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_loss: float = math.inf
    best_step: int = 0
    pending: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.optimizer = AdamW(self.model, weight_decay=self.options.weight_decay, fused=self.options.fused_optimizer)
        self.average = MovingAverage(self.model, self.options.ema_decay)
        self.parameters = self.optimizer.parameters
        weights = list(self.model.parameters())
        self.device, self.sharded = weights[0].device, any(map(is_sharded, weights))
        self.writer = StateWriter(
            self.store, self.world, background=self.options.save_in_background, sharded=self.sharded
        )
        self.log = get_logger("training")

    def advance(self, asked: threading.Event) -> bool:
        """Do one optimizer step; return whether any process was asked to stop by the time it had its gradients."""
        options = self.options
        rate = learning_rate(
            self.step,
            peak=options.peak_learning_rate,
            warmup_steps=options.warmup_steps,
            total_steps=options.steps,
            final_fraction=options.final_learning_rate_fraction,
        )
        for part in range(options.accumulate):
            losses = self.objective.losses(self.step, part)
            (losses["loss"] / options.accumulate).backward()  # type: ignore[no-untyped-call]
            for name, loss in losses.items():
                value = loss.detach().double() / options.accumulate
                self.pending[name] = self.pending[name] + value if name in self.pending else value
        stop = self._exchange(stop=asked.is_set())
        self.optimizer.update(rate, max_norm=options.gradient_clip)
        self.average.update(self.model, self.step)
        self.step += 1
        # Looked at last: a GPU then has the whole step to do while the host waits.
        return bool(stop)

    def _exchange(self, *, stop: bool) -> torch.Tensor:
        """Average the gradients over the processes, unless that is done where weights are dealt out."""
        if self.sharded:
            return any_of(self.world, self.device, stop=stop)
        return average_gradients(list(self.parameters.values()), self.world, stop=stop)

    def record(self) -> None:
        """Add what is due after this step to the curves.

        Raises:
            UsageError: If the loss is not a number any more.
        """
        options = self.options
        if self.step % options.log_every == 0 or self.step == options.steps:
            since = (self.step - 1) % options.log_every + 1
            row = {
                name: sum_over(self.world, total).item() / (since * self.world.size)
                for name, total in self.pending.items()
            }
            self.pending = {}
            self.curves["train"].append({"step": self.step, **row})
            self._say("step", steps=options.steps, **row)
            if not math.isfinite(row["loss"]):
                raise UsageError(
                    f"training diverged: the loss is {row['loss']} at step {self.step}; lower the learning rate"
                )
        if options.eval_every and (self.step % options.eval_every == 0 or self.step == options.steps):
            with self.average.applied(self.model):
                # Last bits may differ between processes, and all must call the same weights the best.
                measures = share(self.world, self.objective.evaluate())
            self.curves["validation"].append({"step": self.step, **measures})
            self._say("held out", **measures)
            loss = measures["loss"]
            if options.select == "best" and loss is not None and loss < self.best_loss:
                self.best_loss, self.best_step = loss, self.step
                self.best = self.best or self._another_set()
                for name in self.parameters:
                    local(self.best[name]).copy_(local(self.average.weights[name]))

    def _another_set(self) -> dict[str, torch.Tensor]:
        """Return room for a copy of the average, which a frozen weight needs none of."""
        return {
            name: torch.empty_like(weight) if name in self.parameters else weight
            for name, weight in self.average.weights.items()
        }

    @property
    def saves(self) -> bool:
        """Whether this process has a part in writing states."""
        return self.world.is_main or self.sharded

    def reserve(self) -> None:
        """Take the memory that states need while training goes on, if there will be one before the last step.

        Raises:
            UsageError: If there isn't as much.
        """
        if self.saves and self.options.save_every < self.options.steps - self.step:
            state = self.state({})
            best = self.average.weights if self.options.select == "best" else {}
            named = {f"best.{name}": weight for name, weight in best.items()}
            self.writer.reserve(replace(state, tensors={**state.tensors, **named}))

    def save(self) -> None:
        """Save the resumable state, from rank 0; it may be written after the return."""
        # The sums since the curve's last row are each process's own; rank 0 saves them all, one place a rank.
        pending = {name: self._by_rank(total) for name, total in self.pending.items()}
        if self.saves:
            self.writer.save(self.state(pending))

    def state(self, pending: Mapping[str, torch.Tensor]) -> ResumeState:
        """Return the resumable state as it is now, sharing memory.

        Args:
            pending: For each loss its sums since the curve's last row, one a rank.
        """
        groups: dict[str, Mapping[str, torch.Tensor]] = {
            "model": self.parameters,
            "best": self.best,
            "pending": pending,
            **self.optimizer.moments,
        }
        tensors = {f"{group}.{name}": tensor for group, found in groups.items() for name, tensor in found.items()}
        document = {
            "curves": {name: list(rows) for name, rows in self.curves.items()},  # training adds to them
            "best_step": self.best_step,
            "best_loss": None if math.isinf(self.best_loss) else self.best_loss,
        }
        return ResumeState(
            step=self.step,
            weights=self.average.weights,
            tensors=tensors,
            document=document,
            frozen=frozenset(self.average.weights.keys() - self.parameters.keys()),
        )

    def _by_rank(self, total: torch.Tensor) -> torch.Tensor:
        totals = total.new_zeros(self.world.size)
        totals[self.world.rank] = total
        return sum_over(self.world, totals)

    def restore(self) -> None:
        """Go on from the latest state, if there is one; rank 0 reads it and the others get it from rank 0.

        Each tensor is filled where it lies, so that going on takes no more memory than training.
        """
        with self.store.opened() if self.world.is_main else nullcontext() as state:
            facts = None
            if state is not None:
                totals = {name: state.tensor("pending", name) for name in state.group("pending")}
                facts = state.step, state.document, totals, bool(state.group("best"))
            facts = share(self.world, facts)
            if facts is None:
                return
            for name, weight in self.average.weights.items():  # of a frozen one the model's own
                fill(weight, state.weight(name) if state else None, self.world)
            step, document, pending, has_best = facts
            groups: dict[str, Mapping[str, torch.Tensor]] = {"model": self.parameters, **self.optimizer.moments}
            if has_best:
                groups["best"] = self.best = self._another_set()
            for group, tensors in groups.items():
                for name in self.parameters:
                    fill(tensors[name], state.tensor(group, name) if state else None, self.world)
        self.pending = {name: totals[self.world.rank].to(self.device) for name, totals in pending.items()}
        self.optimizer.steps = self.step = step
        self.curves = document["curves"]
        self.best_step = document["best_step"]
        loss = document["best_loss"]
        self.best_loss = math.inf if loss is None else loss
        self._say("resumed")

    def _say(self, event: str, **facts: float | None) -> None:
        """Log from rank 0 alone: the numbers are the same in every process."""
        if self.world.is_main:
            rounded = {name: value if value is None else round(value, 5) for name, value in facts.items()}
            self.log.info(event, step=self.step, **rounded)


def fit(
    model: nn.Module,
    objective: Objective,
    options: LoopOptions,
    *,
    world: World,
    store: StateStore,
    profile: Profile = NO_PROFILE,
) -> Fit:
    """Train ``model``; killed at any moment and called again, it ends with the same bits.

    Args:
        model: Initialised alike in every process.
        objective: Losses and held-out measures of that model.
        options: Length, schedule, bookkeeping.
        world: This process among those that train together.
        store: Where the resumable state lies.
        profile: Steps that rank 0 records.

    Raises:
        UsageError: If training diverges, a state can't be written, or there is no memory for copies of states.
        TrainingStoppedError: If SIGTERM came; the state is saved first.
    """
    trainer = Trainer(model, objective, options, world, store)
    trainer.restore()
    trace = StepTrace(profile if world.is_main else NO_PROFILE, TorchRecorder())
    # A SIGTERM after the last step must not cut the write of the last state off either.
    with stop_requests() as asked, trainer.writer as writer, trace:
        trainer.reserve()
        while trainer.step < options.steps:
            stop = trainer.advance(asked)
            trainer.record()
            if trainer.step % options.save_every == 0 or store.keeps(trainer.step) or stop:
                trainer.save()
            if stop:
                writer.wait()
                collect(world, None)  # a process that ends takes the others with it
                raise TrainingStoppedError(
                    f"stopped after step {trainer.step}, its state is saved; run again to resume"
                )
            trace.advanced()
    best = options.select == "best"
    weights = trainer.best if best else trainer.average.weights
    return Fit(weights=weights, step=trainer.best_step if best else trainer.step, curves=trainer.curves)
