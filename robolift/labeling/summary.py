"""What the labels look like: shares by any property of a frame, cuts, and the failure-tail check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robolift.labeling.discretize import Cut
from robolift.labeling.returns import BoolArray, IntArray, frames_to_end

POSITIVE, NEGATIVE, NONE = 0, 1, 2
"""Codes of a label, in the order of the schema's ADVANTAGE_LABELS."""


class LabelCounts:
    """How many frames of each part of the data have each label."""

    def __init__(self, names: Sequence[str]) -> None:
        """Start with none.

        Args:
            names: Names of the parts.
        """
        self._names = names
        self._counts = np.zeros((len(names), 3), np.int64)

    def add(self, part: IntArray, label: IntArray) -> None:
        """Count some more frames.

        Args:
            part: Position in the names of each frame, (n,).
            label: Label code of each frame, (n,).
        """
        counts = np.bincount(part.astype(np.intp) * 3 + label, minlength=self._counts.size)
        self._counts += counts.reshape(self._counts.shape)

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return for each part that occurs how many frames have each label, and the share of positives."""
        return {
            name: describe_counts(counts)
            for name, counts in zip(self._names, self._counts, strict=True)
            if counts.any()
        }

    def total(self) -> dict[str, Any]:
        """Return the same of all parts together."""
        return describe_counts(self._counts.sum(axis=0))

    def of(self, part: int) -> dict[str, Any]:
        """Return the same of one part, whether it occurs or not."""
        return describe_counts(self._counts[part])


def describe_counts(counts: IntArray) -> dict[str, Any]:
    """Return how many frames have each label, (3,), and the share of positives among positives and negatives."""
    positive, negative, none = counts.tolist()
    labelled = positive + negative
    return {
        "frames": positive + negative + none,
        "positive": positive,
        "negative": negative,
        "none": none,
        "positive_share": positive / labelled if labelled else None,
    }


def describe_cuts(cuts: Sequence[Cut]) -> dict[str, dict[str, Any]]:
    """Return, by group: n, cut, ties, positives, requested and achieved share, and the edges of slices."""
    return {
        cut.group: {
            "n": cut.num_frames,
            "cut": cut.cut,
            "ties": cut.num_ties,
            "positives": cut.num_positive,
            "requested_share": cut.requested,
            "achieved_share": cut.achieved,
            "edges": list(cut.edges),
        }
        for cut in cuts
    }


class FailureTail:
    """Compares the last ``lookahead`` frames of failed episodes with the frames before them.

    Where rewards and targets disagree (a failure whose terminal reward is 0, say), the bootstrap of 0 after the end
    makes the last frames of every failure look excellent. A tail more positive than its body by ``margin`` is the sign.
    """

    def __init__(self, *, lookahead: int, margin: float) -> None:
        """Start with no frames.

        Args:
            lookahead: Length of a tail, in frames.
            margin: Difference of shares that is suspicious.
        """
        self._lookahead = lookahead
        self._margin = margin
        self._frames = {"tail": 0, "body": 0}
        self._positive = {"tail": 0, "body": 0}

    def add(self, label: IntArray, scored: BoolArray, failed: BoolArray, starts: IntArray) -> None:
        """Count the frames of some whole episodes.

        Args:
            label: Label code of each frame, (n,).
            scored: Whether its label came from its advantage, (n,).
            failed: Whether its episode failed, (n,).
            starts: Offsets of the episodes, (E + 1,).
        """
        near_end = frames_to_end(starts) < self._lookahead
        for name, part in (("tail", near_end), ("body", ~near_end)):
            found = label[scored & failed & part]
            self._frames[name] += len(found)
            self._positive[name] += int((found == POSITIVE).sum())

    def describe(self) -> dict[str, Any]:
        """Return positive shares of tail and body, None where there are no frames, and whether that is suspicious."""
        tail, body = (self._positive[name] / num if num else None for name, num in self._frames.items())
        suspicious = tail is not None and body is not None and tail - body > self._margin
        return {
            "tail_frames": self._frames["tail"],
            "tail_share": tail,
            "body_frames": self._frames["body"],
            "body_share": body,
            "margin": self._margin,
            "suspicious": suspicious,
        }
