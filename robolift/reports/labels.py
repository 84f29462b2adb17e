"""What the labels look like: shares by outcome and by who acted, reasons, cuts, and how right they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robolift import schema, storage
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.reports.frames import Codes, FrameFacts
from robolift.reports.ranking import auc
from robolift.reports.style import blend

LABEL_COLOURS = {"positive": "positive", "negative": "negative", "none": "none"}
OUTCOME_COLOURS = {"success": "positive", "failure": "negative", "unknown": "none"}
MODE_COLOURS = {
    "demo": "demo",
    "autonomous": "none",
    "correcting": "human",
    "paused": "paused",
}
REASON_MEANINGS = {
    "threshold": "its advantage, against the cut of its group",
    "forced_intervention": "a person was correcting: positive by rule",
    "demo": "a demonstration: positive by rule",
    "excluded": "left out of the comparison, such as a paused frame",
}


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One part of a stacked bar."""

    name: str
    colour: str
    count: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One stacked bar: how ``total`` things divide."""

    name: str
    total: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where one group of frames was cut: ``share`` of its ``n`` frames lie at or above ``cut``."""

    group: str
    n: int
    cut: float
    requested: float
    achieved: float
    ties: int


@dataclass(frozen=True, kw_only=True)
class Truth:
    """How the labels compare with what the simulator knows, over autonomous frames of rollouts.

    Attributes:
        auc: Chance that a good frame has a higher advantage than a bad one.
        base_share: Share of good frames among all.
        positive_share: Share of good frames among those labelled positive.
        negative_share: The same among those labelled negative.
        n: Frames compared.
    """

    auc: float | None
    base_share: float
    positive_share: float | None
    negative_share: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class LabelFacts:
    """Everything the label section shows."""

    by_outcome: tuple[Bar, ...]
    by_control_mode: tuple[Bar, ...]
    reasons: tuple[tuple[str, str, int], ...]
    cuts: tuple[Cut, ...]
    truth: Truth | None
    suspicious_tail: bool
    positive_share: float
    categories: tuple[tuple[str, str], ...]


def stacked(name: str, counts: Mapping[str, int], colours: Mapping[str, str]) -> Bar:
    """Return a bar of ``counts``, in their order, empty parts left out."""
    total = sum(counts.values())
    parts = tuple(
        Segment(name=part, colour=colours[part], count=count, share=count / total)
        for part, count in counts.items()
        if count
    )
    return Bar(name=name, total=total, segments=parts)


def categories(frames: FrameFacts) -> tuple[Codes, tuple[tuple[str, str], ...]]:
    """Return each frame's label as a code (N,), and the name and colour of each code.

    Binary labels give positive, negative and none; slices give one category each, from worst to best, then none.
    """
    if not (frames.slice_index >= 0).any():
        return frames.label, tuple((name, LABEL_COLOURS[name]) for name in schema.ADVANTAGE_LABELS)
    num = int(frames.slice_index.max()) + 1
    named = [(f"slice {i}", blend(i / max(num - 1, 1))) for i in range(num)]
    code = np.where(frames.slice_index >= 0, frames.slice_index, num)
    return code, (*named, ("none", LABEL_COLOURS["none"]))


def autonomous(frames: FrameFacts) -> NDArray[np.bool_]:
    """Return (N,) which frames a policy controlled."""
    return np.equal(frames.control_mode, schema.CONTROL_MODES.index("autonomous"))


def _bars(
    code: Codes,
    named: tuple[tuple[str, str], ...],
    by: Codes,
    names: tuple[str, ...],
) -> tuple[Bar, ...]:
    bars = []
    for index, name in enumerate(names):
        rows = by == index
        if rows.any():
            counts = np.bincount(code[rows], minlength=len(named))
            labels = [label for label, _ in named]
            bars.append(stacked(name, dict(zip(labels, counts.tolist(), strict=True)), dict(named)))
    return tuple(bars)


def measure_truth(frames: FrameFacts) -> Truth | None:
    """Compare the labels with the ground truth of the recordings; None when they carry none."""
    if frames.is_good is None:
        return None
    rows = autonomous(frames) & frames.valid & np.isfinite(frames.advantage) & (frames.is_good >= 0)
    if not rows.any():
        return None
    good, label = frames.is_good[rows] == 1, frames.label[rows]

    def share(name: str) -> float | None:
        chosen = label == schema.ADVANTAGE_LABELS.index(name)
        return float(good[chosen].mean()) if chosen.any() else None

    return Truth(
        auc=auc(frames.advantage[rows], good),
        base_share=float(good.mean()),
        positive_share=share("positive"),
        negative_share=share("negative"),
        n=int(rows.sum()),
    )


def read_summary(labels: Manifest) -> tuple[tuple[Cut, ...], bool]:
    """Read where each group was cut, and whether the ends of failures are suspiciously often positive.

    Raises:
        DataError: If the summary lacks what is needed.
    """
    uri = labels.file("summary.json")
    summary: dict[str, Any] = storage.read_json(uri)
    try:
        cuts = tuple(
            Cut(
                group=name,
                n=int(group["n"]),
                cut=float(group["cut"]),
                requested=float(group["requested_share"]),
                achieved=float(group["achieved_share"]),
                ties=int(group["ties"]),
            )
            for name, group in sorted(summary["groups"].items())
        )
        return cuts, bool(summary["failure_tail"]["suspicious"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"not the summary of labels: {error!r}",
            where=uri,
            expected="groups (name: n, cut, ties, requested_share, achieved_share) and failure_tail",
            mend="run label_advantage again",
        ) from error


def label_facts(frames: FrameFacts, labels: Manifest) -> LabelFacts:
    """Summarize the labels of a run."""
    cuts, suspicious = read_summary(labels)
    code, named = categories(frames)
    reasons = np.bincount(frames.reason, minlength=len(schema.LABEL_REASONS)).tolist()
    on = autonomous(frames)
    positive = frames.label == schema.ADVANTAGE_LABELS.index("positive")
    return LabelFacts(
        by_outcome=_bars(code, named, frames.outcome, schema.OUTCOMES),
        by_control_mode=_bars(code, named, frames.control_mode, schema.CONTROL_MODES),
        reasons=tuple((r, REASON_MEANINGS[r], n) for r, n in zip(schema.LABEL_REASONS, reasons, strict=True) if n),
        cuts=cuts,
        truth=measure_truth(frames),
        suspicious_tail=suspicious,
        positive_share=float(positive[on].mean()) if on.any() else float(positive.mean()),
        categories=named,
    )
