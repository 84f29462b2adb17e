from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolift.errors import DataError, UsageError
from robolift.labeling.advantage import nstep_advantage
from robolift.labeling.cut_rule import CutRule, Tie, check_positive_fraction, quantile
from robolift.labeling.discretize import Candidates, Discretized, discretize
from robolift.labeling.population import (
    Population,
    Reason,
    Role,
    Treatment,
    label_reasons,
    population_mask,
    task_stages,
)
from robolift.labeling.returns import telescoped_rewards, value_targets
from robolift.labeling.summary import NEGATIVE, POSITIVE, FailureTail


def cut_all(
    advantage: Any,
    *,
    positive_fraction: float = 0.3,
    tie: Tie = Tie.AT_LEAST,
    num_slices: int | None = None,
    group_names: Sequence[str] = ("all",),
    **options: Any,
) -> Discretized:
    """Rank all frames in one group."""
    values = np.asarray(advantage, np.float32)
    everywhere = np.ones(len(values), dtype=bool)
    given = {"population": everywhere, "scored": everywhere, "group": np.zeros(len(values), np.int64), **options}
    rule = CutRule(positive_fraction=positive_fraction, tie=tie, num_slices=num_slices)
    return discretize(Candidates(advantage=values, **given), rule, group_names)


def failure_tail(
    label: np.ndarray, scored: np.ndarray, failed: np.ndarray, starts: np.ndarray, *, lookahead: int, margin: float
) -> dict[str, Any]:
    """Compare tails and bodies, two episodes at a time."""
    tail = FailureTail(lookahead=lookahead, margin=margin)
    for first in range(0, len(starts) - 1, 2):
        some = starts[first : first + 3]
        rows = slice(int(some[0]), int(some[-1]))
        tail.add(label[rows], scored[rows], failed[rows], some - some[0])
    return tail.describe()


def untied(num: int, seed: int = 0) -> np.ndarray:
    """Different numbers in a random order."""
    return np.random.default_rng(seed).permutation(num) / num


@pytest.mark.parametrize(("autonomous", "positive", "negative"), [(14_318, 4_296, 10_022), (141_677, 42_503, 99_174)])
def test_golden_counts_of_public_runs(autonomous: int, positive: int, negative: int) -> None:
    found = cut_all(untied(autonomous).astype(np.float32))
    assert int(found.positive.sum()) == positive
    assert int((~found.positive).sum()) == negative
    assert found.cuts[0].num_positive == positive
    assert found.cuts[0].num_ties == 0


def test_golden_count_of_the_seed_run_with_its_interventions() -> None:
    # 21,286 frames of rollouts: 6,968 corrected by a person, 14,318 autonomous.
    role = np.array([Role.INTERVENTION] * 6_968 + [Role.AUTONOMOUS] * 14_318)
    role = role[np.random.default_rng(0).permutation(21_286)]
    everywhere = np.ones(21_286, dtype=bool)
    reason = label_reasons(role, everywhere, intervention=Treatment.POSITIVE, demo=Treatment.POSITIVE)
    found = cut_all(
        untied(21_286),
        population=population_mask(role, Population.ROLLOUT_AUTONOMOUS, everywhere),
        scored=reason == Reason.THRESHOLD,
    )
    assert int((reason == Reason.FORCED_INTERVENTION).sum()) == 6_968
    assert int(found.positive.sum()) == 4_296
    assert int((found.positive | (reason == Reason.FORCED_INTERVENTION)).sum()) == 11_264


@settings(deadline=None, max_examples=300)
@given(st.integers(2, 400), st.integers(1, 999), st.integers(0, 5))
def test_untied_positives_are_n_less_ceil_of_q_times_n_less_1(num: int, thousandths: int, seed: int) -> None:
    found = cut_all(untied(num, seed), positive_fraction=thousandths / 1000)
    expected = num - math.ceil((1 - Fraction(thousandths, 1000)) * (num - 1))
    assert int(found.positive.sum()) == expected


@settings(deadline=None, max_examples=200)
@given(st.integers(2, 60), st.integers(1, 99))
def test_the_count_holds_for_neighbouring_floats(num: int, hundredths: int) -> None:
    # No float32 lies between these numbers; the cut is a float64.
    values = np.float32(1) + np.arange(num, dtype=np.float32) * np.finfo(np.float32).eps
    found = cut_all(values, positive_fraction=hundredths / 100)
    assert int(found.positive.sum()) == num - math.ceil((1 - Fraction(hundredths, 100)) * (num - 1))


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.floats(0, 1))
def test_quantile_is_numpys(values: list[float], q: float) -> None:
    ordered = np.sort(values)
    assert quantile(len(values), ordered.__getitem__, q) == pytest.approx(float(np.quantile(ordered, q)), abs=1e-12)


def test_kai0_binary_vector() -> None:
    found = cut_all(np.arange(1.0, 11.0))
    assert found.cuts[0].cut == pytest.approx(7.3)
    assert found.positive.astype(int).tolist() == [0] * 7 + [1] * 3
    assert (found.slices == -1).all()


def test_kai0_slices_vector() -> None:
    found = cut_all(np.arange(1.0, 11.0), num_slices=4)
    assert found.slices.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert found.cuts[0].edges == (1.0, 3.25, 5.5, 7.75)


def test_kai0_two_task_stages_vector() -> None:
    stage = task_stages(np.arange(10) / 10, 2)
    found = cut_all(np.arange(1.0, 11.0), group=stage, group_names=["first", "second"])
    assert found.positive.astype(int).tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 1, 1]
    assert [(cut.group, cut.num_frames, cut.num_positive, cut.achieved) for cut in found.cuts] == [
        ("first", 5, 2, 0.4),
        ("second", 5, 2, 0.4),
    ]


def test_ties_at_least_goes_over_the_share_and_exact_keeps_it() -> None:
    values = np.array([0, 0, 1, 1, 1, 1, 1, 2, 0, 0.0])
    loose = cut_all(values)
    assert loose.positive.tolist() == (values >= 1).tolist()
    assert (loose.cuts[0].num_ties, loose.cuts[0].num_positive, loose.cuts[0].achieved) == (5, 6, 0.6)
    exact = cut_all(values, tie=Tie.EXACT)
    # Among the five frames at the cut the later two.
    assert np.flatnonzero(exact.positive).tolist() == [5, 6, 7]
    assert (exact.cuts[0].num_ties, exact.cuts[0].num_positive, exact.cuts[0].cut) == (5, 3, 1.0)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=80).filter(lambda v: len(set(v)) > 1), st.floats(0.01, 0.99))
def test_exact_gives_the_rounded_share_whatever_the_ties(values: list[int], share: float) -> None:
    found = cut_all(np.array(values, float), positive_fraction=share, tie=Tie.EXACT)
    assert int(found.positive.sum()) == round(share * len(values))
    if 0 < found.positive.sum() < len(values):
        assert np.array(values)[found.positive].min() >= np.array(values)[~found.positive].max()


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=80).filter(lambda v: len(set(v)) > 1), st.integers(2, 12))
def test_exact_slices_have_equal_counts_and_ascend(values: list[int], num_slices: int) -> None:
    found = cut_all(np.array(values, float), tie=Tie.EXACT, num_slices=num_slices)
    counts = np.bincount(found.slices, minlength=num_slices)
    assert len(counts) == num_slices
    assert counts.max() - counts.min() <= 1
    order = np.lexsort([np.arange(len(values)), values])
    assert (np.diff(found.slices[order]) >= 0).all()


def test_tied_slices_collapse_upward_unless_exact() -> None:
    values = np.array([0.0] * 8 + [1.0, 2.0])
    assert cut_all(values, num_slices=4).slices.tolist() == [3] * 10
    assert cut_all(values, num_slices=4, tie=Tie.EXACT).slices.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


@pytest.mark.parametrize("tie", list(Tie))
def test_frames_outside_the_population_are_compared_with_its_cut(tie: Tie) -> None:
    population = np.array([True] * 10 + [False] * 3)
    values = np.array([*range(10), -5.0, 6.0, 50.0])
    found = cut_all(values, population=population, tie=tie, num_slices=5)
    assert found.positive.tolist() == [False] * 7 + [True] * 3 + [False, False, True]
    assert found.slices.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 3, 4]


def test_population_that_is_not_scored_sets_the_cut_and_stays_unlabelled() -> None:
    scored = np.array([True] * 6 + [False] * 4)
    found = cut_all(np.arange(10.0), scored=scored, num_slices=2, tie=Tie.EXACT, positive_fraction=0.5)
    assert found.positive.tolist() == [False] * 5 + [True] + [False] * 4
    assert found.slices.tolist() == [0] * 5 + [1] + [-1] * 4
    assert found.cuts[0].num_positive == 5


def test_each_group_has_its_own_cut() -> None:
    values = np.array([0, 100, 1, 101, 2, 102, 3, 103.0])
    found = cut_all(values, group=np.array([0, 2] * 4), group_names=["low", "none", "high"], positive_fraction=0.5)
    assert found.positive.astype(int).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [(cut.group, cut.cut) for cut in found.cuts] == [("low", 1.5), ("high", 101.5)]


def test_permuting_the_frames_permutes_the_labels() -> None:
    rng = np.random.default_rng(0)
    values, group = untied(500), rng.integers(0, 4, 500)
    names = ["a", "b", "c", "d"]
    straight = cut_all(values, group=group, group_names=names, num_slices=7)
    order = rng.permutation(500)
    permuted = cut_all(values[order], group=group[order], group_names=names, num_slices=7)
    assert permuted.positive.tolist() == straight.positive[order].tolist()
    assert permuted.slices.tolist() == straight.slices[order].tolist()
    assert permuted.cuts == straight.cuts


def test_a_float32_cut_is_not_rounded() -> None:
    # Half way between two neighbouring float32 numbers lies no float32: the lower one must stay negative.
    low = np.float32(0.1)
    values = np.array([low, np.nextafter(low, np.float32(1))], np.float32)
    assert cut_all(values, positive_fraction=0.5).positive.tolist() == [False, True]


@pytest.mark.parametrize("tie", [Tie.AT_LEAST, Tie.EXACT])
def test_a_constant_population_is_refused(tie: Tie) -> None:
    with pytest.raises(DataError, match=r"all 5 advantages of the population are 0.25") as caught:
        cut_all(np.full(5, 0.25), tie=tie)
    assert "group 'all'" in str(caught.value)
    assert caught.value.exit_code == 65


def test_a_group_without_population_is_refused() -> None:
    group = np.array([0, 0, 1])
    with pytest.raises(DataError, match="no frame to set the cut") as caught:
        cut_all([0.0, 1.0, 2.0], population=group == 0, group=group, group_names=["fold", "stack"])
    assert "group 'stack'" in str(caught.value)


def test_nan_among_the_ranked_is_refused_and_elsewhere_is_not() -> None:
    values = np.array([0.0, 1.0, np.nan, 2.0])
    with pytest.raises(DataError, match="1 advantages to rank are not finite") as caught:
        cut_all(values)
    assert "row 2" in str(caught.value)
    known = np.isfinite(values)
    assert cut_all(values, population=known, scored=known).positive.tolist() == [False, False, False, True]


@pytest.mark.parametrize("share", [30, 1.0, 0.0, -0.1, float("nan"), 150.0])
def test_a_share_outside_zero_to_one_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match=r"expected a share in \(0, 1\)"):
        cut_all([0.0, 1.0], positive_fraction=share)


def test_a_percentage_is_told_its_share() -> None:
    with pytest.raises(UsageError, match=r"positive_fraction is 30, .*; write 0.3 for 30 %"):
        check_positive_fraction(30)


def test_one_slice_is_refused() -> None:
    with pytest.raises(UsageError, match="num_slices is 1, expected at least 2"):
        cut_all([0.0, 1.0], num_slices=1)


def test_task_stages_on_their_edges() -> None:
    assert task_stages(np.array([0.0, 0.3, 0.4999, 0.5, 0.99, 1.0, 1.5, -0.2]), 2).tolist() == [0, 0, 0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("num_stages", [2, 3, 5, 7, 10, 30])
def test_task_stages_do_not_depend_on_precision(num_stages: int) -> None:
    edges = np.arange(num_stages) / num_stages
    assert task_stages(edges, num_stages).tolist() == list(range(num_stages))
    assert task_stages(edges.astype(np.float32), num_stages).tolist() == list(range(num_stages))


ROLES = np.array([Role.AUTONOMOUS, Role.INTERVENTION, Role.DEMO, Role.PAUSED, Role.AUTONOMOUS])
LATEST = np.array([True, True, True, True, False])


@pytest.mark.parametrize(
    ("population", "expected"),
    [
        (Population.ROLLOUT_AUTONOMOUS, [1, 0, 0, 0, 1]),
        (Population.LATEST_ROLLOUT_AUTONOMOUS, [1, 0, 0, 0, 0]),
        (Population.ROLLOUT, [1, 1, 0, 0, 1]),
        (Population.ALL, [1, 1, 1, 0, 1]),
    ],
)
def test_populations(population: Population, expected: list[int]) -> None:
    assert population_mask(ROLES, population, LATEST).astype(int).tolist() == expected


@pytest.mark.parametrize(
    ("intervention", "demo", "expected"),
    [
        ("positive", "positive", ["THRESHOLD", "FORCED_INTERVENTION", "DEMO", "EXCLUDED", "EXCLUDED"]),
        ("score", "positive", ["THRESHOLD", "THRESHOLD", "DEMO", "EXCLUDED", "EXCLUDED"]),
        ("positive", "score", ["THRESHOLD", "FORCED_INTERVENTION", "THRESHOLD", "EXCLUDED", "EXCLUDED"]),
        ("score", "score", ["THRESHOLD", "THRESHOLD", "THRESHOLD", "EXCLUDED", "EXCLUDED"]),
    ],
)
def test_reasons(intervention: str, demo: str, expected: list[str]) -> None:
    valid = np.array([True, True, True, True, False])
    found = label_reasons(ROLES, valid, intervention=Treatment(intervention), demo=Treatment(demo))
    assert [Reason(code).name for code in found] == expected


def test_a_person_is_right_even_where_the_advantage_is_not_valid() -> None:
    found = label_reasons(
        np.array([Role.INTERVENTION, Role.DEMO, Role.PAUSED]),
        np.zeros(3, dtype=bool),
        intervention=Treatment.POSITIVE,
        demo=Treatment.POSITIVE,
    )
    assert [Reason(code).name for code in found] == ["FORCED_INTERVENTION", "DEMO", "EXCLUDED"]


def test_failure_tail_compares_tail_and_body_of_failures_only() -> None:
    # Two failures of 4 and 3 frames and a success; tails are the last 2 frames of each.
    starts = np.array([0, 4, 7, 10])
    failed = np.repeat([True, True, False], [4, 3, 3])
    label = np.where(np.array([0, 1, 1, 1, 0, 0, 1, 1, 1, 1], bool), POSITIVE, NEGATIVE)
    found = failure_tail(label, np.ones(10, dtype=bool), failed, starts, lookahead=2, margin=0.2)
    assert found == {
        "tail_frames": 4,
        "tail_share": 0.75,
        "body_frames": 3,
        "body_share": pytest.approx(1 / 3),
        "margin": 0.2,
        "suspicious": True,
    }
    assert not failure_tail(label, np.ones(10, dtype=bool), failed, starts, lookahead=2, margin=0.5)["suspicious"]
    none = failure_tail(label, np.ones(10, dtype=bool), failed, starts, lookahead=9, margin=0.0)
    assert (none["body_share"], none["suspicious"]) == (None, False)


@pytest.mark.parametrize("noise", [0.002, 0.02, 0.2])
def test_tails_of_failures_are_not_favoured_by_a_noisy_value_model(noise: float) -> None:
    rng = np.random.default_rng(5)
    lengths = rng.integers(120, 400, 120)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    failed = rng.random(120) < 0.5
    targets = value_targets(starts, np.zeros(120, np.int64), failed)
    values = targets + rng.normal(0, noise, size=len(targets))
    advantage = nstep_advantage(telescoped_rewards(targets, starts), values, starts, lookahead=50)
    label = np.where(cut_all(advantage).positive, POSITIVE, NEGATIVE)
    everywhere = np.ones(len(label), dtype=bool)
    found = failure_tail(label, everywhere, np.repeat(failed, lengths), starts, lookahead=50, margin=0.05)
    assert not found["suspicious"]
    assert found["tail_share"] == pytest.approx(0.24, abs=0.05)  # less spread than the body: one value, not two
    assert found["body_share"] == pytest.approx(0.31, abs=0.03)


def test_tails_of_failures_are_favoured_when_the_terminal_reward_is_missing() -> None:
    # The same value model with limb's documented reward, 0 at the end of a failure: the check must fire.
    rng = np.random.default_rng(5)
    starts = np.arange(0, 8_001, 400)
    failed = np.repeat(np.arange(20) % 2 == 0, 400)
    targets = value_targets(starts, np.zeros(20, np.int64), np.arange(20) % 2 == 0)
    rewards = telescoped_rewards(targets, starts)
    rewards[starts[1:] - 1] = 0
    values = targets + rng.normal(0, 0.02, size=len(targets))
    label = np.where(cut_all(nstep_advantage(rewards, values, starts, lookahead=50)).positive, POSITIVE, NEGATIVE)
    found = failure_tail(label, np.ones(8_000, dtype=bool), failed, starts, lookahead=50, margin=0.2)
    assert found["suspicious"]
    assert found["tail_share"] == 1.0
