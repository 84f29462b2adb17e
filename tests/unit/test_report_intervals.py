"""Intervals against published examples, and the properties that make them intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolift.reports.intervals import newcombe_paired, newcombe_unpaired, wilson


def outcomes(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, first, second, neither])
    b = np.repeat([True, False, True, False], [both, first, second, neither])
    return a, b


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    found = wilson(successes, n)
    assert found.estimate == successes / n
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_wilson_touches_the_ends():
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="successes of"):
        wilson(successes, n)


def test_unpaired_difference_gives_the_published_interval():
    # Newcombe (1998), 873-890, example (a): 56/70 against 48/80
    found = newcombe_unpaired((56, 70), (48, 80))
    assert found.estimate == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_paired_difference_gives_the_published_interval():
    # Bentur et al. (2009) in Fagerland, Lydersen and Laake, chapter 8: 1, 1, 7, 12
    found = newcombe_paired(*outcomes(1, 1, 7, 12))
    assert found.estimate == pytest.approx(-6 / 21)
    assert (found.low, found.high) == (pytest.approx(-0.507, abs=5e-4), pytest.approx(-0.026, abs=5e-4))


def test_a_negative_association_is_not_shrunk():
    # By hand: p1 = p2 = 0.5 of 8 with Wilson limits 0.5 -+ 0.28477, phi = -1, so the half width is twice that.
    found = newcombe_paired(*outcomes(0, 4, 4, 0))
    assert found.low == pytest.approx(-2 * 0.2848, abs=2e-4)
    assert found.high == pytest.approx(2 * 0.2848, abs=2e-4)


def test_always_against_never_is_not_certain():
    found = newcombe_paired(*outcomes(0, 20, 0, 0))
    assert found.estimate == 1.0
    assert found.high == 1.0
    assert 0.7 < found.low < 1.0


def test_paired_outcomes_must_be_pairs():
    with pytest.raises(ValueError, match="different lengths"):
        newcombe_paired(np.ones(3, bool), np.ones(4, bool))


counts = st.integers(0, 40)


@given(counts, counts, counts, counts)
def test_swapping_the_policies_mirrors_the_interval(both, first, second, neither):
    if both + first + second + neither == 0:
        return
    a, b = outcomes(both, first, second, neither)
    forward, backward = newcombe_paired(a, b), newcombe_paired(b, a)
    assert -1 <= forward.low <= forward.estimate <= forward.high <= 1
    assert forward.low == pytest.approx(-backward.high, abs=1e-12)
    assert forward.high == pytest.approx(-backward.low, abs=1e-12)


def test_agreement_narrows_the_interval():
    agreeing = newcombe_paired(*outcomes(40, 10, 0, 50))
    unpaired = newcombe_unpaired((50, 100), (40, 100))
    assert agreeing.high - agreeing.low < 0.6 * (unpaired.high - unpaired.low)
