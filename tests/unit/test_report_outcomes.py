"""The value model as a classifier of episodes: the curve and the matrix that the Kubeflow UI draws."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from report_page import small, write

from robolift import schema, storage
from robolift.reports.outcomes import MAX_POINTS, outcome_curve


def facts(means: list[float], outcomes: list[str]) -> Any:
    """Episodes of two frames each, around the given mean value."""
    value = np.repeat(means, 2) + np.tile([-0.01, 0.01], len(means))
    codes = np.repeat([schema.OUTCOMES.index(name) for name in outcomes], 2)
    starts = np.arange(0, 2 * len(means) + 1, 2)
    return SimpleNamespace(
        num_episodes=len(means),
        starts=starts,
        outcome=codes,
        value=value,
        rows=lambda episode: slice(int(starts[episode]), int(starts[episode + 1])),
    )


def test_the_curve_of_six_episodes() -> None:
    # One failure (-0.3) lies above one success (-0.4).
    found = outcome_curve(
        facts([-0.1, -0.2, -0.3, -0.4, -0.8, -0.9], ["success", "success", "failure", "success", "failure", "failure"]),
        None,
    )
    assert found is not None
    assert found.threshold[1:] == pytest.approx([-0.1, -0.2, -0.3, -0.4, -0.8, -0.9])
    assert found.threshold[0] > found.threshold[1]
    assert found.true_positive_rate == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1, 1, 1])
    assert found.false_positive_rate == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 2 / 3, 1])
    # 2/3 - 0 at -0.2 and 1 - 1/3 at -0.4 are equally far apart: the stricter cut is taken.
    assert found.cut == pytest.approx(-0.2)
    assert found.confusion == [[2, 1], [0, 3]]
    assert found.held_out is False


def test_held_out_episodes_alone_are_counted() -> None:
    means, outcomes = [-0.1, -0.9, -0.2, -0.8], ["failure", "success", "success", "failure"]
    found = outcome_curve(facts(means, outcomes), np.array([2, 3]))
    assert found is not None
    assert found.held_out is True
    assert found.confusion == [[1, 0], [0, 1]]


@pytest.mark.parametrize("outcomes", [["success"] * 3, ["failure", "unknown", "failure"]])
def test_episodes_of_one_outcome_have_no_curve(outcomes: list[str]) -> None:
    assert outcome_curve(facts([-0.1, -0.2, -0.3], outcomes), None) is None


def test_equal_values_are_one_point_and_many_are_thinned() -> None:
    tied = outcome_curve(facts([-0.5, -0.5], ["success", "failure"]), None)
    assert tied is not None
    assert (tied.true_positive_rate, tied.false_positive_rate) == ([0, 1], [0, 1])
    rng = np.random.default_rng(0)
    many = outcome_curve(facts(rng.random(1000).tolist(), ["success", "failure"] * 500), None)
    assert many is not None
    assert len(many.threshold) == MAX_POINTS
    assert (many.true_positive_rate[-1], many.false_positive_rate[-1]) == (1, 1)


def test_the_report_writes_it_where_episodes_of_both_outcomes_were_held_out(tmp_path: Path) -> None:
    report = write(small(tmp_path / "few"))  # one held-out episode
    assert not storage.exists(report.file("outcomes.json"))
    report = write(small(tmp_path / "known", held_out=False))
    curve = storage.read_json(report.file("outcomes.json"))
    assert curve["categories"] == ["success", "failure"]
    assert curve["held_out"] is False
    assert sum(map(sum, curve["confusion"])) == 8
