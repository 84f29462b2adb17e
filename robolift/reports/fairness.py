"""Whether the policies that a report compares differ in what they imitate alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robolift.manifest import Manifest

UNCOMPARED_TRAINING = frozenset({"variant", "seed"})
UNCOMPARED_EVALUATION = frozenset({"conditions", "num_episodes", "record_episodes", "gl", "num_workers", "seed"})
"""Settings that say what is asked for or how much is kept, and not how an episode is run."""
MADE_FROM = ("dataset", "labels", "values", "checkpoint", "norm_stats")


def evaluation_settings(evaluation: Manifest) -> dict[str, Any]:
    """Return how an evaluation ran its episodes."""
    return {name: value for name, value in evaluation.config.items() if name not in UNCOMPARED_EVALUATION}


def differing_settings(
    policies: Sequence[Manifest], evaluations: Sequence[Manifest], made: Mapping[str, Manifest]
) -> tuple[str, ...]:
    """Return in what the policies, what they were made from, or their evaluations differ, besides variant and seed.

    Args:
        policies: The policies that were evaluated.
        evaluations: Their evaluations.
        made: What the report is about, by the name of the policies' input.
    """
    training = [
        {name: value for name, value in policy.config.items() if name not in UNCOMPARED_TRAINING} for policy in policies
    ]
    sources = [
        {name: [parent.digest for parent in policy.inputs[name]] for name in MADE_FROM if name in policy.inputs}
        for policy in policies
    ]
    if policies:
        sources.append({name: [own.digest] for name, own in made.items()})
    running = [evaluation_settings(evaluation) for evaluation in evaluations]
    return (
        *_differing(training),
        # A variant that needs no labels may have been given none.
        *(f"input {name}" for name in _differing(sources, absent_differs=False)),
        *(f"evaluation's {name}" for name in _differing(running)),
    )


def _differing(found: Sequence[Mapping[str, Any]], *, absent_differs: bool = True) -> list[str]:
    names = sorted({name for one in found for name in one})
    return [name for name in names if not _agree([one.get(name) for one in found if absent_differs or name in one])]


def _agree(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)
