"""Labels decided in three passes over blocks are those of one array, to the bit."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_array_labels import label_whole

from robolift.errors import DataError
from robolift.labeling.cut_rule import CutRule, Tie
from robolift.labeling.discretize import Candidates, Cut, Discretized, Ranking
from robolift.labeling.exact_sum import ExactSum
from robolift.labeling.order_statistics import OrderStatistics, Tally, to_codes, values_of

NAMES = [f"group {number}" for number in range(5)]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Candidates, CutRule, list[int]]:
    num = draw(st.integers(1, 80))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    advantage = {
        "different": rng.normal(size=num),
        "few": rng.integers(-2, 3, num) / 8,
        "wide": rng.normal(size=num) * 10.0 ** rng.integers(-40, 38, num),
        "neighbours": 1 + rng.integers(0, 4, num) * 2.0**-23,
        "mostly one": np.where(rng.random(num) < 0.8, 0.25, rng.normal(size=num)),
    }[draw(st.sampled_from(["different", "few", "wide", "neighbours", "mostly one"]))].astype(np.float32)
    population = rng.random(num) < draw(st.sampled_from([0.5, 0.9, 1.0]))
    scored = rng.random(num) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    advantage[~(population | scored)] = np.nan
    group = rng.integers(0, draw(st.integers(1, 5)), num)
    group[~(population | scored)] = -1
    rule = CutRule(
        positive_fraction=draw(st.integers(1, 99)) / 100,
        tie=draw(st.sampled_from(list(Tie))),
        num_slices=draw(st.sampled_from([None, 2, 3, 7, 100])),
        kai0_single=draw(st.booleans()),
    )
    cuts = draw(st.lists(st.integers(0, num), max_size=5))
    frames = Candidates(advantage=advantage, population=population, scored=scored, group=group)
    return frames, rule, [0, *sorted(cuts), num]


def part(frames: Candidates, rows: slice) -> Candidates:
    return Candidates(**{name: array[rows] for name, array in vars(frames).items()})


def in_blocks(frames: Candidates, rule: CutRule, bounds: list[int]) -> Discretized:
    blocks = [part(frames, slice(*pair)) for pair in itertools.pairwise(bounds)]
    ranking = Ranking(rule, NAMES)
    for block in blocks:
        ranking.count(block)
    ranking.seek()
    for block in reversed(blocks):  # the second pass counts, so order is nothing to it
        ranking.refine(block)
    ranking.decide()
    positive, slices = (np.concatenate(found) for found in zip(*map(ranking.label, blocks), strict=True))
    return Discretized(positive=positive, slices=slices, cuts=ranking.cuts())


def whole(frames: Candidates, rule: CutRule) -> Discretized:
    legacy_double = rule.tie == Tie.KAI0_LEGACY and not rule.kai0_single
    return label_whole(
        frames.advantage.astype(np.float64) if legacy_double else frames.advantage,
        population=frames.population,
        scored=frames.scored,
        group=frames.group,
        group_names=NAMES,
        positive_fraction=rule.positive_fraction,
        tie=rule.tie,
        num_slices=rule.num_slices,
    )


def outcome(call: Any, *given: Any) -> Any:
    try:
        found = call(*given)
    except DataError as error:
        return str(error)
    return found.positive.tolist(), found.slices.tolist(), [bits(cut) for cut in found.cuts]


def bits(cut: Cut) -> dict[str, Any]:
    """Return a cut with its numbers to the bit; which of the zeros it is depends on nothing but the order of frames."""
    return {**vars(cut), "cut": (cut.cut + 0.0).hex(), "edges": [(edge + 0.0).hex() for edge in cut.edges]}


@settings(deadline=None, max_examples=150)
@given(cases())
def test_labels_in_blocks_are_those_of_one_array(case: tuple[Candidates, CutRule, list[int]]) -> None:
    frames, rule, bounds = case
    assert outcome(in_blocks, frames, rule, bounds) == outcome(whole, frames, rule)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=60), st.integers(0, 1000))
def test_every_place_of_the_order_is_found(values: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, len(values))
    codes = to_codes(group, np.array(values, np.float32))
    order = OrderStatistics()
    for block in np.array_split(codes, 4):
        order.count(block)
    order.seek(np.arange(len(codes)))
    for block in np.array_split(rng.permutation(codes), 3):
        order.refine(block)
    found, below = order.found()
    expected = np.lexsort([values, group])
    assert values_of(found).tolist() == (np.array(values)[expected] + 0.0).tolist()
    assert below.tolist() == np.searchsorted(found, found).tolist()
    assert dict(zip(*(part.tolist() for part in order.sizes()), strict=True)) == {
        number: int((group == number).sum()) for number in sorted(set(group.tolist()))
    }


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=40), st.integers(1, 5))
def test_a_sum_in_blocks_is_fsum(values: list[float], num_blocks: int) -> None:
    added = ExactSum()
    for block in np.array_split(np.array(values, np.float64), num_blocks):
        added.add(block)
    try:
        expected = math.fsum(values)
    except OverflowError:  # fsum gives up on partial sums that are too large, ours has none
        return
    assert added.total() == expected
    assert added.count == len(values)
    assert math.isnan(added.mean()) == (not values)


def test_what_is_counted_follows_the_different_advantages_and_not_the_frames() -> None:
    values = np.repeat(np.arange(-500, 500, dtype=np.float32) / 1000, 5)
    everywhere = np.ones(len(values), bool)
    frames = Candidates(advantage=values, population=everywhere, scored=everywhere, group=np.arange(len(values)) % 5)
    counted = []
    for num_blocks in (1, 50):
        tally = Tally()
        for _ in range(num_blocks):
            tally.add(to_codes(frames.group, frames.advantage))
        numbers, counts = tally.result()
        counted.append(len(numbers))
        assert counts.tolist() == [num_blocks] * 5000
        assert tally._num_waiting == 0
    assert counted == [5000, 5000]
