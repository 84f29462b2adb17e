"""Evaluations without a simulator: how far a policy's actions are from recorded ones on held-out episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robolift import storage
from robolift.errors import DataError
from robolift.manifest import METRICS_FILE, Manifest
from robolift.reports.success import VARIANTS, evaluated_policies, variant_place

OFFLINE_FILE = "offline.parquet"


@dataclass(frozen=True, kw_only=True)
class OfflineRow:
    """Action error of one policy under one condition.

    Attributes:
        error: Mean squared error in units of each dimension's variance.
        low: Lower end of its 95 % interval over episodes, None for a single episode.
        high: Its upper end.
        human_error: The same over frames that a person controlled, None without any.
    """

    variant: str
    name: str
    condition: str
    error: float
    low: float | None
    high: float | None
    human_error: float | None
    episodes: int
    n: int

    def facts(self) -> dict[str, Any]:
        """Return the row's numbers for summary.json."""
        return {
            "variant": self.variant,
            "condition": self.condition,
            "action_mse": self.error,
            "ci_low": self.low,
            "ci_high": self.high,
            "human_action_mse": self.human_error,
            "episodes": self.episodes,
            "n": self.n,
        }


def offline_rows(evaluations: Sequence[Manifest]) -> tuple[OfflineRow, ...]:
    """Read the offline evaluations, in the order of the success table; empty without any.

    Raises:
        DataError: If one lacks its numbers.
    """
    rows = []
    for evaluation in evaluations:
        if not storage.exists(evaluation.file(OFFLINE_FILE)):
            continue
        variant = str(evaluated_policies([evaluation])[0].config["variant"])
        try:
            rows += [_row(variant, condition, found) for condition, found in evaluation.metrics()["conditions"].items()]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"not an offline evaluation: {error!r}",
                where=evaluation.file(METRICS_FILE),
                expected="conditions: action_mse, ci_low, ci_high, human_action_mse, episodes, n",
                mend="evaluate the policy again",
            ) from error
    return tuple(sorted(rows, key=lambda row: (variant_place(row.variant), row.condition)))


def _row(variant: str, condition: str, found: dict[str, Any]) -> OfflineRow:
    return OfflineRow(
        variant=variant,
        name=VARIANTS.get(variant, (variant.replace("_", " "), ""))[0],
        condition=condition,
        error=found["action_mse"],
        low=found["ci_low"],
        high=found["ci_high"],
        human_error=found["human_action_mse"],
        episodes=int(found["episodes"]),
        n=int(found["n"]),
    )
