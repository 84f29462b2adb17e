"""What ``label_quality`` measured, ready to show: each measure beside a clock and what was asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robolift import storage
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.reports.numbers import NOTHING, THIN, decimal

QUALITY_FILE = "quality.json"
MAX_DIGITS = 5

TITLES = {
    "coverage": "Coverage",
    "coverage_progress": "Coverage of progress",
    "coverage_vlm": "Coverage by the model",
    "coverage_human": "Coverage by people",
    "success_auroc": "Success told from failure",
    "failure_gap": "Gap between successes and failures",
    "calibration_error": "Calibration error",
    "value_order_correlation": "Order in time",
    "constant_share": "Constant progress",
    "disagreement": "Contradicted by people",
    "progress_error": "Distance from people's task stages",
    "agreement_tri": "Agreement on progress",
    "agreement_outcome": "Agreement on outcomes",
    "agreement_preference": "Agreement on preferences",
}
COVERAGES = frozenset({"coverage", "coverage_progress", "coverage_vlm", "coverage_human"})
SHARES = COVERAGES | {"disagreement", "constant_share"}
LOWER_IS_BETTER = frozenset({"disagreement", "constant_share", "calibration_error", "progress_error"})
WITHOUT_CLOCK = COVERAGES
"""A clock that speaks of the same frames covers as many: there is nothing to compare."""
ASKS_NOTHING = {
    "failure_gap": -1.0,
    "disagreement": 1.0,
    "constant_share": 1.0,
    "agreement_tri": -1.0,
    "agreement_outcome": -1.0,
    "agreement_preference": -1.0,
}
"""Thresholds that every value meets, where that is not 0."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure of the labels.

    Attributes:
        value: What the labels reach; None where it could not be measured.
        clock: What a labeller would reach that only knows the time; None where that means nothing.
        threshold: What was asked; None where nothing was.
        passed: Whether the value meets the threshold; None where it was not asked.
        about: What is measured, in words.
    """

    name: str
    value: float | None
    clock: float | None
    threshold: float | None
    passed: bool | None
    about: str

    @property
    def title(self) -> str:
        """What the page calls it."""
        return TITLES.get(self.name, self.name.replace("_", " ").capitalize())

    @property
    def wants_less(self) -> bool:
        """Whether a smaller value is better."""
        return self.name in LOWER_IS_BETTER

    @property
    def demands(self) -> bool:
        """Whether a threshold was set that some value would miss."""
        return self.threshold is not None and self.threshold != ASKS_NOTHING.get(self.name, 0.0)

    @property
    def verdict(self) -> str:
        """One of passed, failed, nothing asked, not measured."""
        if self.passed is False:
            return "failed"
        if self.value is None:
            return "not measured"
        return "passed" if self.demands and self.passed else "nothing asked"

    @property
    def clock_is_perfect(self) -> bool:
        """Whether nothing can be better than a clock, as with order in time."""
        return self.clock == (0.0 if self.wants_less else 1.0)

    @property
    def beats_clock(self) -> bool | None:
        """Whether the value is better than a clock's; None without both, or where a clock is perfect."""
        if self.value is None or self.clock is None or self.clock_is_perfect:
            return None
        return self.value < self.clock if self.wants_less else self.value > self.clock

    @property
    def against_clock(self) -> str:
        """The comparison in words, a dash without."""
        if self.clock_is_perfect:
            return "a clock is perfect"
        return {True: "better", False: "no better", None: NOTHING}[self.beats_clock]

    @property
    def asked(self) -> str:
        """The threshold in words, a dash without."""
        return (
            f"{'at most' if self.wants_less else 'at least'} {self.text(self.threshold)}" if self.demands else NOTHING
        )

    def text(self, number: float | None) -> str:
        """Return a value of this measure as it is read: a share in per cent, else a number."""
        return self._written(number, self._digits)

    @property
    def _digits(self) -> int:
        # A value that misses what was asked by a hair must not be written like it.
        others = [other for other in (self.threshold, self.clock) if other is not None and other != self.value]
        for digits in range(self._least_digits, MAX_DIGITS):
            if self._written(self.value, digits) not in {self._written(other, digits) for other in others}:
                return digits
        return MAX_DIGITS

    @property
    def _least_digits(self) -> int:
        return 0 if self.name in SHARES else 2

    def _written(self, number: float | None, digits: int) -> str:
        if number is None or self.name not in SHARES:
            return decimal(number, digits)
        return f"{decimal(100 * number, digits)}{THIN}%"


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Everything that ``label_quality`` says.

    Attributes:
        passed: Whether the labels may be trained on.
        alarms: What looks wrong though nothing forbids it, in sentences.
        per_task: For each task the value of each measure, None where it could not be measured.
    """

    measures: tuple[Measure, ...]
    passed: bool
    alarms: tuple[str, ...]
    per_task: Mapping[str, Mapping[str, float | None]]

    @property
    def failed(self) -> tuple[Measure, ...]:
        """Measures that miss what was asked."""
        return tuple(one for one in self.measures if one.passed is False)

    @property
    def demanded(self) -> tuple[Measure, ...]:
        """Measures that were measured and of which something was asked."""
        return tuple(one for one in self.measures if one.verdict in ("passed", "failed"))

    def against_clock(self, *, better: bool) -> tuple[Measure, ...]:
        """Return the measures that are better than a clock's, or that are not."""
        return tuple(one for one in self.measures if one.beats_clock is better)


def read(made: Manifest) -> Quality:
    """Read quality.json.

    Raises:
        DataError: If it is not what ``label_quality`` writes.
    """
    where = made.file(QUALITY_FILE)
    document = storage.read_json(where)
    try:
        measures = [
            Measure(
                name=name,
                value=_number(one["value"]),
                clock=None if name in WITHOUT_CLOCK else _number(one["clock"]),
                threshold=_number(one["threshold"]),
                passed=one["passed"],
                about=one["about"],
            )
            for name, one in document["measures"].items()
        ]
        order = list(TITLES)
        measures.sort(key=lambda one: (order.index(one.name) if one.name in order else len(order), one.name))
        per_task = {
            task: {name: _number(one["value"]) for name, one in found.items() if name != "episodes"}
            for task, found in sorted(document["per_task"].items())
        }
        return Quality(
            measures=tuple(measures),
            passed=bool(document["passed"]),
            alarms=tuple(str(alarm) for alarm in document["alarms"]),
            per_task=per_task,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"not the measures of labels: {error!r}",
            where=where,
            expected="quality.json as label_quality writes it",
            mend="run label_quality again",
        ) from error


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
