"""Heads that read progress and success from a model's state behind each picture, as Robometer has them (NumPy).

Beside the weights lie ``heads.json`` (``token``, ``hidden_size``, ``bins``) and ``heads.safetensors``. Both heads are
Robometer's (linear, layer norm, GELU, dropout, linear) under the names that torch gives a ``Sequential`` of these,
``progress_head.0.weight`` to ``success_head.4.bias``, so that its tensors can be copied as they are.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from robolift.errors import DataError, UsageError

HEADS_FILE = "heads.json"
TENSORS_FILE = "heads.safetensors"
LAYER_NORM_EPSILON = 1e-5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Head:
    """Linear (inner, hidden), layer norm, GELU, linear (out, inner).

    Attributes:
        tensors: By the name behind the head's own: ``0.weight``, ``0.bias``, ``1.weight``, ``1.bias``, ``4.weight``,
            ``4.bias``.
    """

    tensors: dict[str, Floats]

    def __call__(self, states: Floats) -> Floats:
        """Return the logits, (n, out), of states (n, hidden)."""
        inner = states @ self.tensors["0.weight"].T + self.tensors["0.bias"]
        spread = np.sqrt(inner.var(axis=1, keepdims=True) + LAYER_NORM_EPSILON)
        normed = (inner - inner.mean(axis=1, keepdims=True)) / spread
        bent = _gelu(normed * self.tensors["1.weight"] + self.tensors["1.bias"])
        return np.asarray(bent @ self.tensors["4.weight"].T + self.tensors["4.bias"])


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Both heads of a model.

    Attributes:
        token: Set behind each picture; its state is what the heads read.
        progress: Gives logits of bins whose centres are ``linspace(0, 1, bins)``.
        success: Gives one logit.
    """

    token: str
    progress: Head
    success: Head

    def read(self, states: npt.NDArray[np.float32]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return progress and success probability behind each picture.

        Args:
            states: (pictures, hidden), the model's last states.

        Returns:
            The expectation over the bins, in [0, 1], and the sigmoid of the success logit.
        """
        wide = states.astype(np.float64)
        return tuple(expectation(self.progress(wide)).tolist()), tuple(_sigmoid(self.success(wide)[:, 0]).tolist())


def expectation(logits: Floats) -> Floats:
    """Return sum_b softmax(logits)_b * b/(B-1), (n,), of logits (n, B)."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights @ np.linspace(0, 1, logits.shape[1]) / weights.sum(axis=1))


def read_heads(folder: Path, *, hidden_size: int) -> Heads:
    """Return the heads beside a model's weights.

    Raises:
        UsageError: If the model has none.
        DataError: If they don't fit the model or each other.
    """
    if not (folder / HEADS_FILE).exists() or not (folder / TENSORS_FILE).exists():
        raise UsageError(
            f"{folder} has no {HEADS_FILE} and {TENSORS_FILE}: this model has no heads for progress; "
            "choose another protocol than head, such as logprob"
        )
    document = json.loads((folder / HEADS_FILE).read_bytes())
    tensors = safetensors.numpy.load_file(folder / TENSORS_FILE)
    if document["hidden_size"] != hidden_size:
        raise _unfit(
            folder, f"heads for states of {document['hidden_size']} numbers", f"{hidden_size}, as the model has"
        )
    return Heads(
        token=document["token"],
        progress=_head(folder, tensors, "progress_head", hidden_size, document["bins"]),
        success=_head(folder, tensors, "success_head", hidden_size, 1),
    )


def _head(folder: Path, tensors: dict[str, npt.NDArray[np.float32]], name: str, hidden_size: int, out: int) -> Head:
    found = {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
    inner = found["0.weight"].shape[0] if "0.weight" in found else hidden_size // 2
    shapes = {
        "0.weight": (inner, hidden_size),
        "0.bias": (inner,),
        "1.weight": (inner,),
        "1.bias": (inner,),
        "4.weight": (out, inner),
        "4.bias": (out,),
    }
    if {key: tensor.shape for key, tensor in found.items()} != shapes:
        listed = ", ".join(f"{key} {tensor.shape}" for key, tensor in sorted(found.items()))
        raise _unfit(folder, f"{name} with {listed or 'no tensors'}", ", ".join(f"{k} {v}" for k, v in shapes.items()))
    return Head(tensors={key: tensor.astype(np.float64) for key, tensor in found.items()})


def _unfit(folder: Path, problem: str, expected: str) -> DataError:
    return DataError(problem, where=str(folder / TENSORS_FILE), expected=expected, mend="write the model's own heads")


def _gelu(x: Floats) -> Floats:
    return np.asarray(x * 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))))


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))
