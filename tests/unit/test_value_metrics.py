from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from robolift.value_model.metrics import area_under_curve, average_ranks, spearman


def test_ties_share_their_mean_rank():
    assert average_ranks(np.array([3.0, 1.0, 3.0, 7.0, 3.0])).tolist() == [3, 1, 3, 5, 3]


def test_spearman_by_hand_and_against_scipy():
    assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 100, 1000])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 200).astype(float), rng.integers(0, 5, 200).astype(float)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_spearman_without_spread_is_not_known():
    assert spearman(np.zeros(5), np.arange(5.0)) is None
    assert spearman(np.ones(1), np.ones(1)) is None
    assert spearman(np.empty(0), np.empty(0)) is None


def test_auc_counts_ties_as_half():
    assert area_under_curve(np.array([3.0, 4]), np.array([1.0, 2])) == 1
    assert area_under_curve(np.array([1.0, 3.0]), np.array([2.0, 3.0])) == pytest.approx((0 + 0 + 1 + 0.5) / 4)
    assert area_under_curve(np.array([1.0]), np.array([])) is None
