"""What a dry run of labelling shows: counts, cuts and shares of every group, and how its advantages are spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robolift.labeling.discretize import Cut
from robolift.labeling.histogram import histogram_lines
from robolift.labeling.population import Reason
from robolift.stages.label_config import Config
from robolift.stages.label_decision import Decision

MAX_HISTOGRAMS = 8
HEAD = (
    ("frames", 10),
    ("mean", 10),
    ("sd", 10),
    ("min", 10),
    ("max", 10),
    ("cut", 11),
    ("asked", 8),
    ("got", 8),
    ("positive", 10),
    ("ties", 8),
)


def describe(config: Config, decision: Decision, summary: Mapping[str, Any]) -> str:
    """Return the statistics of the labels as text: a table of the groups, and a histogram of each, up to eight."""
    advantage, reason = decision.advantage, decision.reason
    ranked = reason == Reason.THRESHOLD
    whole = summary["all"]
    share = summary["ranked"]["positive_share"]
    among = "" if share is None else f"; of those ranked {100 * share:.1f} % are positive"
    lines = [
        f"{whole['frames']:,} frames: {int(ranked.sum()):,} ranked ({config.source}, lookahead {config.lookahead})"
        f"{_others(reason)}",
        f"labels: {whole['positive']:,} positive, {whole['negative']:,} negative, {whole['none']:,} none{among}",
        "",
    ]
    names = [*decision.group_names, "group"]
    column = max(len(name) for name in names) + 1
    lines.append(f"{'group':<{column}}" + _cells([name for name, _ in HEAD]))
    members = {cut.group: advantage[_in_group(decision, cut, ranked)] for cut in decision.cuts}
    rows = {cut.group: _row(cut, members[cut.group]) for cut in decision.cuts}
    for name in decision.group_names:
        cells = rows.get(name) or _empty_row(summary["empty_groups"].get(name))
        lines.append(f"{name:<{column}}" + _cells(cells))
    for cut in decision.cuts[:MAX_HISTOGRAMS]:
        lines += ["", f"{cut.group}: advantage of {len(members[cut.group]):,} frames"]
        lines += [f"  {line}" for line in histogram_lines(members[cut.group], cut=cut.cut)]
        lines += _slices(decision, cut, ranked)
    if len(decision.cuts) > MAX_HISTOGRAMS:
        lines += ["", f"({len(decision.cuts) - MAX_HISTOGRAMS} more groups without a histogram)"]
    return "\n".join(lines)


def _cells(texts: Sequence[str]) -> str:
    return "".join(f"{text:>{size}}" for text, (_, size) in zip(texts, HEAD, strict=True))


def _in_group(decision: Decision, cut: Cut, ranked: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the frames of a group whose advantage counts: those ranked, else (nobody is) those that set the cut."""
    of_group = decision.group == decision.group_names.index(cut.group)
    here: np.ndarray[Any, Any] = of_group & ranked
    return here if here.any() else of_group


def _row(cut: Cut, values: np.ndarray[Any, Any]) -> list[str]:
    exact = values.astype(np.float64)
    spread = [f"{number:.5f}" for number in (exact.mean(), exact.std(), exact.min(), exact.max())]
    shares = [f"{100 * cut.requested:.1f} %", f"{100 * cut.achieved:.1f} %"]
    return [f"{cut.num_frames:,}", *spread, f"{cut.cut:.6f}", *shares, f"{cut.num_positive:,}", f"{cut.num_ties:,}"]


def _empty_row(cut: float | None) -> list[str]:
    return ["0", "", "", "", "", "none" if cut is None else f"{cut:.6f}", "", "", "", ""]


def _others(reason: np.ndarray[Any, Any]) -> str:
    counts = {
        "demonstrated": Reason.DEMO,
        "corrected": Reason.FORCED_INTERVENTION,
        "left out": Reason.EXCLUDED,
    }
    found = {name: int((reason == code).sum()) for name, code in counts.items()}
    return "".join(f", {count:,} {name}" for name, count in found.items() if count)


def _slices(decision: Decision, cut: Cut, ranked: np.ndarray[Any, Any]) -> list[str]:
    if not cut.edges:
        return []
    here = ranked & (decision.group == decision.group_names.index(cut.group))
    counts = np.bincount(decision.slices[here], minlength=len(cut.edges)).tolist()
    return [
        f"  slice {number}: from {edge:.6f}, {count:,} frames"
        for number, (edge, count) in enumerate(zip(cut.edges, counts, strict=True))
    ]
