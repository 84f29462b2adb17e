"""AdamW, the learning-rate schedule and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from robolift.training.sharding import is_sharded, local, norm_over_processes

BETAS = (0.9, 0.95)
EPSILON = 1e-8
CLIP_EPSILON = 1e-6


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int, final_fraction: float) -> float:
    """Return the learning rate of ``step``: linear warm-up, then one cosine that ends exactly at the last step.

    Args:
        step: 0-based optimizer step.
        peak: Highest rate, reached at the end of the warm-up.
        warmup_steps: Steps of the warm-up; the first has peak / (warmup_steps + 1).
        total_steps: Steps of the whole run.
        final_fraction: Rate of the last step as a share of ``peak``.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    # Both ends included: step = warmup_steps has the peak, step = total_steps - 1 the final rate.
    done = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    return peak * (final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), equal to torch.optim.AdamW.

    Vectors (biases, gains, temperatures) are not decayed. Its state is kept by parameter name, ready for a checkpoint.
    Frozen parameters have none, and of those that are dealt out over processes each moves its own piece.
    PyTorch's own class isn't used because making one imports torch.compile, three seconds in each process.

    Args:
        model: Whose parameters are trained.
        weight_decay: Of matrices and kernels.
        fused: Whether a weight, its moments and its gradient are gone through once, by PyTorch's fused kernel, rather
            than once an operation: less time, and no scratch memory of a weight's size. Last bits differ.

    Attributes:
        parameters: Trained parameters by name.
        moments: ``mean`` and ``square``: running averages of the gradient and of its square, by parameter name.
        steps: Updates made.
    """

    def __init__(self, model: nn.Module, *, weight_decay: float, fused: bool = False) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weight_decay, self.fused = weight_decay, fused
        self.moments = {
            moment: {name: torch.zeros_like(p) for name, p in self.parameters.items()} for moment in ("mean", "square")
        }
        self.steps = 0

    @torch.no_grad()
    def update(self, rate: float, *, max_norm: float) -> None:
        """Clip the gradients to global norm ``max_norm``, move the parameters by one step and drop the gradients.

        Raises:
            ValueError: If a parameter has no gradient; a loss that leaves one out would freeze it unnoticed.
        """
        gradients = [local(p.grad) for p in self.parameters.values() if p.grad is not None]
        if len(gradients) != len(self.parameters):
            raise ValueError(f"no gradient for {[name for name, p in self.parameters.items() if p.grad is None]}")
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if any(map(is_sharded, self.parameters.values())):
            norm = norm_over_processes(norm)
        self.steps += 1
        if self.fused:
            self._move_at_once(gradients, rate, ((norm + CLIP_EPSILON) / max_norm).clamp(min=1.0))
        else:
            self._move(gradients, rate, (max_norm / (norm + CLIP_EPSILON)).clamp(max=1.0))
        for parameter in self.parameters.values():
            parameter.grad = None

    def _pieces(self) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        """Return this process's weights, means and squares, in the order of :attr:`parameters`."""
        sets = (self.parameters, self.moments["mean"], self.moments["square"])
        weights, mean, square = ([local(tensor.detach()) for tensor in tensors.values()] for tensors in sets)
        return weights, mean, square

    def _move(self, gradients: list[torch.Tensor], rate: float, scale: torch.Tensor) -> None:
        """Move weights and moments by gradients times ``scale``, an operation at a time."""
        weights, mean, square = self._pieces()
        torch._foreach_mul_(gradients, scale)
        torch._foreach_lerp_(mean, gradients, 1 - BETAS[0])
        torch._foreach_mul_(square, BETAS[1])
        torch._foreach_addcmul_(square, gradients, gradients, 1 - BETAS[1])
        root = torch._foreach_sqrt(square)
        torch._foreach_div_(root, math.sqrt(1 - BETAS[1] ** self.steps))
        torch._foreach_add_(root, EPSILON)
        if self.weight_decay:
            torch._foreach_mul_([p for p in weights if p.ndim >= 2], 1 - rate * self.weight_decay)
        torch._foreach_addcdiv_(weights, mean, root, -rate / (1 - BETAS[0] ** self.steps))

    def _move_at_once(self, gradients: list[torch.Tensor], rate: float, divisor: torch.Tensor) -> None:
        """Move weights and moments by gradients over ``divisor``, by one kernel: first those that decay."""
        rows = list(zip(*self._pieces(), gradients, strict=True))
        done = divisor.new_full((), float(self.steps))
        for decays in (True, False):
            if chosen := [row for row in rows if (row[0].ndim >= 2) == decays]:
                weights, mean, square, gradient = map(list, zip(*chosen, strict=True))
                torch._fused_adamw_(
                    weights,
                    gradient,
                    mean,
                    square,
                    [],
                    [done] * len(weights),
                    lr=rate,
                    beta1=BETAS[0],
                    beta2=BETAS[1],
                    weight_decay=self.weight_decay if decays else 0.0,
                    eps=EPSILON,
                    amsgrad=False,
                    maximize=False,
                    grad_scale=divisor,
                )


class MovingAverage:
    """Exponential moving average of a model's parameters.

    The decay is warmed up as min(decay, (1 + step) / (10 + step)), so that a short run isn't held at its random start
    (the schedule of TensorFlow's ExponentialMovingAverage).

    Attributes:
        weights: Averaged parameters by name; a frozen one is its own average and takes no memory.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = copied(model)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model's parameters after step ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        moving = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        torch._foreach_lerp_(
            [local(self.weights[name]) for name in moving], [local(p) for p in moving.values()], 1 - decay
        )

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Put the averaged weights into ``model``, and its own back at the end, bit for bit.

        The two change places one tensor at a time, so that there is never a third set: within the block
        :attr:`weights` holds the model's own.
        """
        self._change_places(model)
        try:
            yield
        finally:
            self._change_places(model)

    @torch.no_grad()
    def _change_places(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                one, other = local(parameter), local(self.weights[name])
                kept = one.clone()
                one.copy_(other)
                other.copy_(kept)


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters by name: copies of those that are trained, and the frozen ones themselves."""
    return {name: p.detach().clone() if p.requires_grad else p.detach() for name, p in model.named_parameters()}
