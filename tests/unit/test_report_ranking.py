from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolift.reports.ranking import auc, ranks, spearman


def test_ties_share_the_mean_of_their_ranks():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4.0, 1.0, 4.0, 2.0, 4.0]


def test_auc_counts_pairs():
    # Good 3 and 2, bad 2 and 1: three pairs won, one tied, of four.
    assert auc(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False])) == pytest.approx(3.5 / 4)


def test_auc_needs_both_classes():
    assert auc(np.array([1.0, 2.0]), np.array([True, True])) is None
    assert auc(np.array([1.0, 2.0]), np.array([False, False])) is None


def test_spearman_sees_order_alone():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert spearman(x, -(x**3)) == pytest.approx(-1.0)
    # By hand: ranks 1 2 3 4 and 2 1 4 3, d = 1 each, 1 - 6 * 4 / (4 * 15).
    assert spearman(x, np.array([2.0, 1.0, 4.0, 3.0])) == pytest.approx(0.6)


def test_spearman_of_a_constant_is_not_defined():
    assert spearman(np.array([1.0, 2.0]), np.array([5.0, 5.0])) is None
    assert spearman(np.array([1.0]), np.array([5.0])) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_equals_the_count_over_all_pairs(rows):
    scores = np.array([score for score, _ in rows], dtype=np.float64)
    good = np.array([is_good for _, is_good in rows])
    found = auc(scores, good)
    if good.all() or not good.any():
        assert found is None
        return
    wins = [(a > b) + 0.5 * (a == b) for a in scores[good] for b in scores[~good]]
    assert found == pytest.approx(np.mean(wins))
