"""The last frames of failures: ranked by default, left out on request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from labelled import column, label, make_targets, publish_dataset, publish_values

from robolift.errors import UsageError
from robolift.manifest import Manifest


@pytest.fixture
def timed_out(output_root: str) -> dict[str, Manifest]:
    """A success and two failures of 10 frames; the value model sees no clock and says the same for all of a failure."""
    dataset = publish_dataset(output_root, [6, 10, 10], outcome=["success", "failure", "failure"])
    targets = make_targets(output_root, dataset)
    values = np.concatenate([np.linspace(-0.3, 0.0, 6), np.full(20, -0.75) + np.linspace(0, 1e-3, 20)])
    return {"dataset": dataset, "targets": targets, "values": publish_values(output_root, dataset, values)}


def test_without_a_clock_the_ends_of_failures_look_like_a_gain(
    timed_out: dict[str, Manifest], output_root: str
) -> None:
    labels = label(output_root, **timed_out, lookahead=3)
    found = np.array(column(labels, "advantage_label"))
    assert list(found[13:16]) == ["positive"] * 3
    assert list(found[23:26]) == ["positive"] * 3


def test_excluded_ends_are_unlabelled_and_the_share_is_of_the_rest(
    timed_out: dict[str, Manifest], output_root: str
) -> None:
    labels = label(output_root, **timed_out, lookahead=3, failure_end="exclude")
    found, reason = np.array(column(labels, "advantage_label")), np.array(column(labels, "reason"))
    ends = [13, 14, 15, 23, 24, 25]
    assert set(found[ends]) == {"none"}
    assert set(reason[ends]) == {"excluded"}
    rest = np.delete(np.arange(26), ends)
    assert set(reason[rest]) == {"threshold"}
    assert (found[rest] == "positive").sum() == 6  # 20 frames at 0.3: 20 - ceil(0.7 * 19)
    assert [column(labels, "advantage")[i] for i in ends] == [None] * 6


@pytest.mark.parametrize("change", [{"source": "gae"}, {"source": "progress", "column": "value"}])
def test_only_for_the_n_step_advantage(
    timed_out: dict[str, Manifest], output_root: str, change: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="failure_end exclude is for source nstep"):
        label(output_root, **timed_out, failure_end="exclude", **change)
