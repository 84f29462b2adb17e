"""Whether scores foretell usefulness: validation.json, and the line through its subsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolift import storage
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.reports.clip_reward import Floats
from robolift.reports.intervals import Z_95, Interval

VALIDATION_FILE = "validation.json"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What leaving features out costs.

    Attributes:
        drop: The features.
        rho: Correlation without them.
        loss: By how much the correlation falls, with its paired interval over subsets.
        passed: Whether it falls as much as expected.
    """

    drop: tuple[str, ...]
    rho: float
    loss: Interval
    passed: bool

    @property
    def name(self) -> str:
        """The features in words."""
        return f"without {', '.join(self.drop)}"


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What ``validate_reward`` says.

    Attributes:
        rho: Spearman's correlation of a subset's mean score with dM.
        pearson: Pearson's.
        rho_min: What was asked.
        reasons: Why it did not pass.
        controls: The same correlation of scores that nobody learned, by name.
        mean_score: (K,) mean score of each subset.
        delta_m: (K,) by how much the policy trained on it is better than one trained on as many random clips.
        power: Interval that so many subsets could give a correlation of just what was asked, None with very few.
        shuffled: What the same scores reach at most, dealt out among the clips at random (97.5 % of the time).
    """

    rho: Interval
    pearson: float
    passed: bool
    rho_min: float
    reasons: tuple[str, ...]
    controls: Mapping[str, Interval]
    ablations: tuple[Ablation, ...]
    mean_score: Floats
    delta_m: Floats
    power: tuple[float, float] | None
    shuffled: float

    @property
    def num_subsets(self) -> int:
        """K."""
        return len(self.delta_m)

    @property
    def best_control(self) -> str | None:
        """The control with the highest correlation, None without controls."""
        return max(self.controls, key=lambda name: self.controls[name].estimate, default=None)


def read(made: Manifest) -> Validation:
    """Read validation.json.

    Raises:
        DataError: If it is not what ``validate_reward`` writes.
    """
    where = made.file(VALIDATION_FILE)
    document = storage.read_json(where)
    try:
        return _parse(document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"not the validation of a reward: {error!r}",
            where=where,
            expected="validation.json as validate_reward writes it",
            mend="run validate_reward again",
        ) from error


def _parse(document: Mapping[str, Any]) -> Validation:
    found = document["rho"]
    ablations = [
        Ablation(
            drop=tuple(str(name) for name in one["drop"]),
            rho=float(one["rho"]),
            loss=_interval(one, "drop_in_rho"),
            passed=bool(one["passed"]),
        )
        for one in document["ablations"]
    ]
    power = document["power"]["interval_of_rho_min"]
    return Validation(
        rho=_interval(found, "spearman"),
        pearson=float(found["pearson"]),
        passed=bool(document["passed"]),
        rho_min=float(document["rho_min"]),
        reasons=tuple(str(reason) for reason in document["reasons"]),
        controls={str(name): _interval(one, "rho") for name, one in sorted(document["controls"].items())},
        ablations=tuple(sorted(ablations, key=lambda one: (-one.loss.estimate, one.drop))),
        mean_score=np.array([one["mean_score"] for one in document["delta_m"]], np.float64),
        delta_m=np.array([one["delta_m"] for one in document["delta_m"]], np.float64),
        power=(float(power[0]), float(power[1])) if power else None,
        shuffled=float(document["chance"]["upper"]),
    )


def _interval(one: Mapping[str, Any], name: str) -> Interval:
    return Interval(estimate=float(one[name]), low=float(one["lower"]), high=float(one["upper"]))


@dataclass(frozen=True, kw_only=True)
class Line:
    """A straight line through points, at ``x``, with the 95 % interval of its height there; each (n,)."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats
    slope: float


def fit_line(x: Floats, y: Floats, *, num: int = 60) -> Line | None:
    """Fit y = a + b x by least squares; None where fewer than three points or one x say nothing.

    The interval is that of the line's height, normal: 1.96 s sqrt(1 / n + (x - mean)² / Sxx), with s² the residuals'
    sum of squares over n - 2.
    """
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    centre, spread = x.mean(), float(((x - x.mean()) ** 2).sum())
    slope = float(((x - centre) * (y - y.mean())).sum() / spread)
    error = np.sqrt((((y - y.mean()) - slope * (x - centre)) ** 2).sum() / (len(x) - 2))
    at = np.linspace(x.min(), x.max(), num)
    height = y.mean() + slope * (at - centre)
    half = Z_95 * error * np.sqrt(1 / len(x) + (at - centre) ** 2 / spread)
    return Line(x=at, y=height, low=height - half, high=height + half, slope=slope)
