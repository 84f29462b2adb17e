"""From advantages to labels: a cut in each group, or slices of equal count, in three passes over the frames.

The frames come in blocks, in the order of their keys and alike in each pass; what is decided is to the bit what one
array of all of them would give. First the population of each group is counted by the upper bits of its advantages, then
by the lower bits where the cuts lie, and then each frame is labelled. What is held follows the number of groups and of
different advantages (at most 65,536 counters a group), never that of the frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robolift.errors import DataError
from robolift.labeling.cut_rule import CutRule, Tie
from robolift.labeling.order_statistics import OrderStatistics, to_codes, values_of
from robolift.labeling.returns import BoolArray, Float64Array, FloatArray, IntArray

Slices = npt.NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What was decided in one group.

    Attributes:
        group: Its name.
        num_frames: Frames of the population, n.
        cut: Least advantage that is positive; an interpolated quantile under ``at_least``.
        num_ties: Frames of the population whose advantage equals the cut.
        num_positive: Frames of the population at or above the cut (exactly the share asked for under ``exact``).
        requested: Share asked for.
        edges: Lower edges of the slices, empty without slices.
    """

    group: str
    num_frames: int
    cut: float
    num_ties: int
    num_positive: int
    requested: float
    edges: tuple[float, ...] = ()

    @property
    def achieved(self) -> float:
        """Share of the population that lies at or above the cut."""
        return self.num_positive / self.num_frames


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The next n frames to rank.

    Attributes:
        advantage: A, (n,) float32.
        population: Frames that set the cuts, (n,).
        scored: Frames to label, (n,).
        group: Number of each frame's group, (n,), read only where ``population`` or ``scored``.
    """

    advantage: FloatArray
    population: BoolArray
    scored: BoolArray
    group: IntArray


@dataclass(frozen=True, kw_only=True)
class Discretized:
    """Labels of the scored frames; elsewhere False and -1."""

    positive: BoolArray
    slices: Slices
    cuts: tuple[Cut, ...]


class Ranking:
    """Labels frames by the distribution of the population, group by group.

    Positive iff A >= cut; under ``tie: exact`` exactly round(f n) (half to even) of the n frames, of equal ones the
    later. A scored frame outside the population is compared with the cut. ``kai0_legacy`` is kai0's script itself, to
    the last bit: there a constant population is no error.

    For all blocks :meth:`count`, then :meth:`seek`; for all :meth:`refine`, then :meth:`decide`; for all :meth:`label`.
    """

    def __init__(self, rule: CutRule, group_names: Sequence[str]) -> None:
        """Start with no frames.

        Args:
            rule: How a group is cut.
            group_names: Name of each group.
        """
        self._rule = rule
        self._names = group_names
        num = len(group_names)
        self._order = OrderStatistics()
        self._num_scored = np.zeros(num, np.int64)
        self._num_frames = np.zeros(num, np.int64)
        self._num_positive = np.zeros(num, np.int64)
        self._num_ties = np.zeros(num, np.int64)
        self._cut = np.full(num, np.nan)
        self._edges = np.zeros((num, rule.num_slices or 0))

    def count(self, frames: Candidates) -> None:
        """First pass.

        Raises:
            DataError: If an advantage to rank is not a finite number.
        """
        unknown = np.flatnonzero((frames.population | frames.scored) & ~np.isfinite(frames.advantage))
        if len(unknown):
            raise DataError(f"{len(unknown)} advantages to rank are not finite", where=f"first at row {unknown[0]}")
        self._num_scored += np.bincount(frames.group[frames.scored], minlength=len(self._names))
        self._order.count(_population_codes(frames))

    def seek(self) -> None:
        """Between the first pass and the second.

        Raises:
            DataError: If a group with scored frames has no population.
        """
        groups, sizes = self._order.sizes()
        self._num_frames[groups] = sizes
        missing = np.flatnonzero((self._num_scored > 0) & (self._num_frames == 0))
        # Groups are judged in their order, and which of the others are constant is not known yet.
        self._missing = int(missing[0]) if len(missing) else len(self._names)
        starts = np.cumsum(sizes) - sizes
        ranks = [np.array(self._rule.ranks(size)) for size in sizes.tolist()]
        self._groups, self._ranks = groups, ranks
        whole = [start + asked for start, asked in zip(starts, ranks, strict=True)]
        self._order.seek(np.concatenate([np.zeros(0, np.int64), *whole]))

    def refine(self, frames: Candidates) -> None:
        """Second pass."""
        self._order.refine(_population_codes(frames))

    def decide(self) -> None:
        """Between the second pass and the third.

        Raises:
            DataError: If a group with scored frames has no population, or a population has one single value
                (``kai0_legacy`` labels that one, and ``exact`` a single frame).
        """
        codes, below = self._order.found()
        values = values_of(codes)
        first = 0
        for group, ranks in zip(self._groups.tolist(), self._ranks, strict=True):
            found = values[first : first + len(ranks)]
            self._check_population(group, float(found[0]), float(found[-1]))
            at = dict(zip(ranks.tolist(), found.tolist(), strict=True)).__getitem__
            num = int(self._num_frames[group])
            self._cut[group] = self._rule.cut(num, at)
            self._edges[group] = self._rule.edges(num, at)
            first += len(ranks)
        self._check_missing(len(self._names))
        self._watch(codes, below)

    def _check_population(self, group: int, least: float, most: float) -> None:
        self._check_missing(group)
        num = int(self._num_frames[group])
        # One frame has nobody to be ranked against: round(f) positives of it is none.
        alone = self._rule.tie == Tie.EXACT and num == 1
        if least == most and not alone and self._rule.tie != Tie.KAI0_LEGACY:
            raise DataError(
                f"all {num} advantages of the population are {least:g}",
                where=f"group {self._names[group]!r}",
                expected="advantages that differ, or a cut means nothing",
                mend="check the values or the column they come from, or choose coarser groups",
            )

    def _check_missing(self, before: int) -> None:
        if self._missing < before:
            raise DataError(
                "there are frames to label and no frame to set the cut",
                where=f"group {self._names[self._missing]!r}",
                expected="at least two frames of the population with different advantages",
                mend="choose a wider population or coarser groups, or add rollouts",
            )

    def _watch(self, codes: npt.NDArray[np.int64], below: npt.NDArray[np.int64]) -> None:
        """Remember the wanted advantages, with how many of their group lie below: equal ones are told apart there."""
        self._watched, first = np.unique(codes, return_index=True)
        group = np.repeat(self._groups, [len(ranks) for ranks in self._ranks])
        starts = np.cumsum(self._num_frames) - self._num_frames
        self._place = below[first] - starts[group[first]]  # of the next frame with that advantage
        self._shares = np.array([self._rule.share(size) for size in self._num_frames.tolist()])

    def label(self, frames: Candidates) -> tuple[BoolArray, Slices]:
        """Third pass: return who is positive, False where not scored, and in which slice, -1 where not, (n,) each."""
        ranked = np.flatnonzero(frames.population | frames.scored)
        group, pool, scored = frames.group[ranked], frames.population[ranked], frames.scored[ranked]
        values, cut = frames.advantage[ranked].astype(np.float64), self._cut[group]
        above, bins = values >= cut, self._bins(values, group)
        if self._rule.tie == Tie.EXACT:
            self._part_ties(_population_codes(frames), np.flatnonzero(pool), group[pool], above, bins)
        num = len(self._names)
        self._num_positive += np.bincount(group[pool & above], minlength=num)
        self._num_ties += np.bincount(group[pool & (values == cut)], minlength=num)
        positive, slices = np.zeros(len(frames.group), np.bool_), np.full(len(frames.group), -1, np.int16)
        positive[ranked], slices[ranked] = above & scored, np.where(scored, bins, -1)
        return positive, slices

    def _bins(self, values: Float64Array, group: IntArray) -> Slices:
        """Return the slice of each frame by the edges of its group, -1 without slices, (n,)."""
        bins = np.full(len(values), -1, np.int16)
        if self._rule.num_slices is not None:
            for number, rows in members(group):
                bins[rows] = np.maximum(np.searchsorted(self._edges[number], values[rows], side="right") - 1, 0)
        return bins

    def _part_ties(
        self, codes: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], group: IntArray, above: BoolArray, bins: Slices
    ) -> None:
        """Tell equal frames of the population apart by their place in the whole order, and mend their labels.

        Args:
            codes: Of the block's frames of the population, (p,).
            rows: Where they stand in ``above`` and ``bins``, (p,).
            group: Their groups, (p,).
            above: Who is positive; changed.
            bins: The slices; changed.
        """
        spot = np.minimum(np.searchsorted(self._watched, codes), len(self._watched) - 1)
        tied = np.flatnonzero(self._watched[spot] == codes)
        spot, rows, num = spot[tied], rows[tied], self._num_frames[group[tied]]
        order = np.argsort(spot, kind="stable")
        ordinal = np.empty(len(spot), np.int64)
        ordinal[order] = np.arange(len(spot)) - np.searchsorted(spot[order], spot[order])
        place = self._place[spot] + ordinal
        self._place += np.bincount(spot, minlength=len(self._place))
        above[rows] = place >= num - self._shares[group[tied]]
        if self._rule.num_slices is not None:
            bins[rows] = place * self._rule.num_slices // num

    def cuts(self) -> tuple[Cut, ...]:
        """Return what was decided, in the order of the groups that have frames to rank, after the third pass."""
        return tuple(
            Cut(
                group=self._names[number],
                num_frames=int(self._num_frames[number]),
                cut=float(self._cut[number]),
                num_ties=int(self._num_ties[number]),
                num_positive=int(self._num_positive[number]),
                requested=self._rule.positive_fraction,
                edges=tuple(self._edges[number].tolist()),
            )
            for number in self._groups.tolist()
        )


def _population_codes(frames: Candidates) -> npt.NDArray[np.int64]:
    return to_codes(frames.group[frames.population], frames.advantage[frames.population])


def members(group: IntArray) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each group's number and its rows in ascending order."""
    rows = np.argsort(group, kind="stable")
    numbers, first = np.unique(group[rows], return_index=True)
    bounds = itertools.pairwise([*first.tolist(), len(rows)])
    yield from ((number, rows[slice(*span)]) for number, span in zip(numbers.tolist(), bounds, strict=True))


def discretize(frames: Candidates, rule: CutRule, group_names: Sequence[str]) -> Discretized:
    """Label frames that are all there at once.

    Args:
        frames: All frames.
        rule: How a group is cut.
        group_names: Name of each group.

    Returns:
        Labels and, in the order of the groups, cuts.

    Raises:
        DataError: If an advantage is not a finite number, a group with scored frames has no population, or a
            population has one single value (``kai0_legacy`` labels that one, and ``exact`` a single frame).
    """
    ranking = Ranking(rule, group_names)
    ranking.count(frames)
    ranking.seek()
    ranking.refine(frames)
    ranking.decide()
    positive, slices = ranking.label(frames)
    return Discretized(positive=positive, slices=slices, cuts=ranking.cuts())
