"""What the labels look like: shares by any property of a frame, cuts, and the failure-tail check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robolift.labeling.discretize import Cut
from robolift.labeling.returns import BoolArray, IntArray, frames_to_end

POSITIVE, NEGATIVE, NONE = 0, 1, 2
"""Codes of a label, in the order of the schema's ADVANTAGE_LABELS."""


def count_labels(label: IntArray) -> dict[str, Any]:
    """Return how many frames have each label, and the share of positives among positives and negatives."""
    positive, negative, none = np.bincount(label, minlength=3).tolist()
    labelled = positive + negative
    return {
        "frames": len(label),
        "positive": positive,
        "negative": negative,
        "none": none,
        "positive_share": positive / labelled if labelled else None,
    }


def count_by(code: IntArray, names: Sequence[str], label: IntArray) -> dict[str, dict[str, Any]]:
    """Return :func:`count_labels` for each name that occurs.

    Args:
        code: Position in ``names`` of each frame, (F,).
        names: Names of the parts.
        label: Label code of each frame, (F,).
    """
    present = np.flatnonzero(np.bincount(code, minlength=len(names)))
    return {names[part]: count_labels(label[code == part]) for part in present.tolist()}


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


def failure_tail(
    label: IntArray, scored: BoolArray, failed: BoolArray, starts: IntArray, *, lookahead: int, margin: float
) -> dict[str, Any]:
    """Compare the last ``lookahead`` frames of failed episodes with the frames before them.

    Where rewards and targets disagree (a failure whose terminal reward is 0, say), the bootstrap of 0 after the end
    makes the last frames of every failure look excellent. A tail more positive than its body by ``margin`` is the sign.

    Args:
        label: Label code of each frame, (F,).
        scored: Whether its label came from its advantage, (F,).
        failed: Whether its episode failed, (F,).
        starts: Offsets of the episodes, (E + 1,).
        lookahead: Length of a tail, in frames.
        margin: Difference of shares that is suspicious.

    Returns:
        Positive shares of tail and body, None where there are no frames, and whether that is ``suspicious``.
    """
    near_end = frames_to_end(starts) < lookahead
    tail = label[scored & failed & near_end] == POSITIVE
    body = label[scored & failed & ~near_end] == POSITIVE
    tail_share = float(tail.mean()) if len(tail) else None
    body_share = float(body.mean()) if len(body) else None
    suspicious = tail_share is not None and body_share is not None and tail_share - body_share > margin
    return {
        "tail_frames": len(tail),
        "tail_share": tail_share,
        "body_frames": len(body),
        "body_share": body_share,
        "margin": margin,
        "suspicious": suspicious,
    }
