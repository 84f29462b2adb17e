"""How long answers took, and how many there were of each kind."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WINDOW = 10_000
"""Answers over which percentiles are taken: the last ones."""


def _window() -> deque[float]:
    return deque(maxlen=WINDOW)


def percentiles(durations_ms: deque[float]) -> dict[str, float | None]:
    """Return p50 and p95, linearly interpolated and rounded to microseconds; None without any duration."""
    if not durations_ms:
        return {"p50": None, "p95": None}
    low, high = np.percentile(np.array(durations_ms), [50, 95])
    return {"p50": round(float(low), 3), "p95": round(float(high), 3)}


@dataclass
class Stats:
    """What a server did since it started.

    Attributes:
        clients: Connections that are open.
        answers: Observations that were answered with actions.
        refusals: Messages that were refused, with the reason as the answer.
        failures: Messages on which the server itself failed.
        infer_ms: Durations of the policy alone.
        answer_ms: From the arrival of a message until its answer was sent; the wait for other clients is in it.
    """

    clients: int = 0
    answers: int = 0
    refusals: int = 0
    failures: int = 0
    infer_ms: deque[float] = field(default_factory=_window)
    answer_ms: deque[float] = field(default_factory=_window)

    def to_dict(self) -> dict[str, Any]:
        """Return counts and percentiles, ready for JSON."""
        counts = {name: getattr(self, name) for name in ("clients", "answers", "refusals", "failures")}
        return {**counts, "infer_ms": percentiles(self.infer_ms), "answer_ms": percentiles(self.answer_ms)}
