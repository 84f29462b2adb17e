"""What a dry run of labelling shows: counts, cuts and shares of every group, and how its advantages are spread."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robolift.labeling.discretize import Candidates, Cut, members
from robolift.labeling.exact_sum import ExactSum
from robolift.labeling.histogram import Histogram
from robolift.labeling.population import Reason
from robolift.labeling.returns import Float64Array, IntArray
from robolift.stages.label_config import Config
from robolift.stages.label_decision import Decided, Decision

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


class _Spread:
    """How the advantages of one group are spread."""

    def __init__(self, num_slices: int) -> None:
        self.sum, self.squares = ExactSum(), ExactSum()
        self.least, self.most = math.inf, -math.inf
        self.slices = np.zeros(num_slices, np.int64)

    def add(self, values: Float64Array) -> None:
        self.sum.add(values)
        self.least, self.most = min(self.least, float(values.min())), max(self.most, float(values.max()))


class Shown:
    """Gathers what a dry run shows: :meth:`add` each block, then :meth:`describe`."""

    def __init__(self, config: Config, decision: Decision) -> None:
        """Start with no frames."""
        self._config, self._decision = config, decision
        self._reasons: Counter[int] = Counter()
        # Of the frames that are ranked; where nobody is, of those that set the cut.
        self._ranked: dict[int, _Spread] = {}
        self._population: dict[int, _Spread] = {}

    def add(self, block: Decided) -> None:
        """Look at the frames of a block."""
        counts = np.bincount(block.reason)
        self._reasons.update(dict(enumerate(counts.tolist())))
        ranked = block.reason == Reason.THRESHOLD
        for spreads, rows in ((self._ranked, ranked), (self._population, (block.group >= 0) & ~ranked)):
            self._spread(spreads, block, np.flatnonzero(rows))

    def _spread(self, spreads: dict[int, _Spread], block: Decided, rows: IntArray) -> None:
        num = self._config.slices or 0
        for number, places in members(block.group[rows]):
            here = rows[places]
            spread = spreads.setdefault(number, _Spread(num))
            spread.add(block.advantage[here].astype(np.float64))
            if num:
                spread.slices += np.bincount(block.slices[here], minlength=num) if spreads is self._ranked else 0

    def describe(self, summary: Mapping[str, Any]) -> str:
        """Return the statistics as text: a table of the groups, and a histogram of each, up to eight."""
        decision, config, cuts = self._decision, self._config, self._decision.cuts()
        whole = summary["all"]
        share = summary["ranked"]["positive_share"]
        among = "" if share is None else f"; of those ranked {100 * share:.1f} % are positive"
        lines = [
            f"{whole['frames']:,} frames: {self._reasons[Reason.THRESHOLD]:,} ranked ({config.source}, lookahead "
            f"{config.lookahead}){self._others()}",
            f"labels: {whole['positive']:,} positive, {whole['negative']:,} negative, {whole['none']:,} none{among}",
            "",
        ]
        number_of = {name: number for number, name in enumerate(decision.group_names)}
        numbers = [number_of[cut.group] for cut in cuts]
        spreads = {number: self._ranked.get(number) or self._population[number] for number in numbers}
        histograms = self._second_look(spreads, numbers[:MAX_HISTOGRAMS])
        column = max(len(name) for name in [*decision.group_names, "group"]) + 1
        lines.append(f"{'group':<{column}}" + _cells([name for name, _ in HEAD]))
        rows = {cut.group: _row(cut, spreads[number]) for cut, number in zip(cuts, numbers, strict=True)}
        for name in decision.group_names:
            cells = rows.get(name) or _empty_row(summary["empty_groups"].get(name))
            lines.append(f"{name:<{column}}" + _cells(cells))
        for cut, number in zip(cuts[:MAX_HISTOGRAMS], numbers, strict=False):
            lines += ["", f"{cut.group}: advantage of {spreads[number].sum.count:,} frames"]
            lines += [f"  {line}" for line in histograms[number].lines(cut=cut.cut)]
            lines += _slices(cut, spreads[number])
        if len(cuts) > MAX_HISTOGRAMS:
            lines += ["", f"({len(cuts) - MAX_HISTOGRAMS} more groups without a histogram)"]
        return "\n".join(lines)

    def _second_look(self, spreads: Mapping[int, _Spread], drawn: Sequence[int]) -> dict[int, Histogram]:
        """Go through all frames again, now that means and extremes are known."""
        histograms = {number: Histogram(spreads[number].least, spreads[number].most) for number in drawn}
        means = {number: spread.sum.mean() for number, spread in spreads.items()}
        for frames in self._decision.candidates():
            for number, values in self._in_groups(frames):
                spreads[number].squares.add((values - means[number]) ** 2)
                if number in histograms:
                    histograms[number].add(values)
        return histograms

    def _in_groups(self, frames: Candidates) -> list[tuple[int, Float64Array]]:
        """Return the groups of a block and the advantages that count in each."""
        found = []
        rows = np.flatnonzero(frames.group >= 0)
        for number, places in members(frames.group[rows]):
            here = rows[places]
            counts = (frames.scored if number in self._ranked else frames.population)[here]
            found.append((number, frames.advantage[here[counts]].astype(np.float64)))
        return found

    def _others(self) -> str:
        counts = {
            "demonstrated": Reason.DEMO,
            "corrected": Reason.FORCED_INTERVENTION,
            "left out": Reason.EXCLUDED,
        }
        return "".join(f", {self._reasons[code]:,} {name}" for name, code in counts.items() if self._reasons[code])


def _cells(texts: Sequence[str]) -> str:
    return "".join(f"{text:>{size}}" for text, (_, size) in zip(texts, HEAD, strict=True))


def _row(cut: Cut, spread: _Spread) -> list[str]:
    deviation = math.sqrt(spread.squares.mean())
    numbers = [f"{number:.5f}" for number in (spread.sum.mean(), deviation, spread.least, spread.most)]
    shares = [f"{100 * cut.requested:.1f} %", f"{100 * cut.achieved:.1f} %"]
    return [f"{cut.num_frames:,}", *numbers, f"{cut.cut:.6f}", *shares, f"{cut.num_positive:,}", f"{cut.num_ties:,}"]


def _empty_row(cut: float | None) -> list[str]:
    return ["0", "", "", "", "", "none" if cut is None else f"{cut:.6f}", "", "", "", ""]


def _slices(cut: Cut, spread: _Spread) -> list[str]:
    return [
        f"  slice {number}: from {edge:.6f}, {count:,} frames"
        for number, (edge, count) in enumerate(zip(cut.edges, spread.slices.tolist(), strict=True))
    ]
