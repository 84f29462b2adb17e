"""The rising map from scores to shares of successes, beside scikit-learn's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from robolift.errors import UsageError
from robolift.labeling.isotonic import Isotonic, fit_isotonic


def fit(score, target, weight=None):
    return fit_isotonic(np.array(score, float), np.array(target, float), None if weight is None else np.array(weight))


def test_violators_are_pooled():
    # 1 and 0 at scores 2 and 3 become their mean; 0.5 is above the 0 before it and below the 1 after.
    found = fit([1, 2, 3, 4], [0, 1, 0, 1])
    assert found == Isotonic(score=(1.0, 2.0, 3.0, 4.0), value=(0.0, 0.5, 0.5, 1.0))
    assert found.apply(np.array([0.0, 1.5, 2.5, 3.5, 9.0])).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_equal_scores_are_one_point_with_the_mean():
    assert fit([2, 2, 2, 5], [0, 0, 1, 1]).value == (pytest.approx(1 / 3), 1.0)


def test_a_weight_counts_as_that_many_points():
    # Pool of 1 (weight 3) and 0 (weight 1).
    assert fit([1, 2], [1, 0], [3.0, 1.0]).value == (0.75, 0.75)


def test_one_pool_over_everything():
    found = fit([1, 2, 3, 4], [4, 3, 2, 1])
    assert found == Isotonic(score=(1.0, 4.0), value=(2.5, 2.5))
    assert fit([7], [0.25]).apply(np.array([-1.0, 7.0, 99.0])).tolist() == [0.25] * 3


def test_a_map_survives_json_and_nan_stays():
    found = fit([0.1, 0.2, 0.7], [0, 1, 1])
    again = Isotonic.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    np.testing.assert_array_equal(again.apply(np.array([np.nan, 0.7])), [np.nan, 1.0])


@pytest.mark.parametrize(
    ("score", "target", "weight", "message"),
    [
        ([], [], None, "one each a point"),
        ([1], [1, 2], None, "one each a point"),
        ([np.nan], [1], None, "must be finite"),
        ([1], [np.inf], None, "must be finite"),
        ([1], [1], [0.0], "weights above 0"),
    ],
)
def test_points_that_are_none_are_refused(score, target, weight, message):
    with pytest.raises(UsageError, match=message):
        fit(score, target, weight)


points = st.lists(
    st.tuples(
        st.integers(-8, 8).map(lambda number: number / 4),
        st.integers(0, 4).map(lambda number: number / 4),
        st.integers(1, 5).map(float),
    ),
    min_size=1,
    max_size=40,
)


@given(points)
def test_scikit_learn_finds_the_same_map(rows):
    score, target, weight = (np.array(part, float) for part in zip(*rows, strict=True))
    theirs = IsotonicRegression(out_of_bounds="clip").fit(score, target, weight)
    grid = np.linspace(-3, 3, 49)
    np.testing.assert_allclose(fit_isotonic(score, target, weight).apply(grid), theirs.predict(grid), atol=1e-9)


@given(points, st.randoms(use_true_random=False))
def test_the_map_rises_and_knows_no_order(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    found, again = (fit(*zip(*each, strict=True)) for each in (rows, shuffled))
    assert found.score == again.score
    assert found.value == pytest.approx(again.value, abs=1e-12)
    assert (np.diff(found.value) >= 0).all()
    assert (np.diff(found.score) > 0).all()
    mean = np.average([row[1] for row in rows], weights=[row[2] for row in rows])
    at_points = found.apply(np.array([row[0] for row in rows]))
    assert np.average(at_points, weights=[row[2] for row in rows]) == pytest.approx(mean)  # pooling keeps the mean
