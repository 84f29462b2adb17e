"""Measures of reward labels, by hand and beside SciPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from robolift.errors import UsageError
from robolift.labeling.label_quality import (
    area_under_curve,
    calibration_error,
    clock,
    constant_episodes,
    disagreement,
    mean_gap,
    value_order_correlation,
)

NAN = np.nan


def array(*numbers):
    return np.array(numbers, float)


def test_a_clock_has_perfect_order_and_separates_nothing():
    starts = np.array([0, 4, 5, 7])
    time = clock(starts)
    assert time.tolist() == [0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 1.0]
    np.testing.assert_array_equal(value_order_correlation(time, starts), [1.0, NAN, 1.0])
    ends = time[starts[1:] - 1]
    assert area_under_curve(ends[:1], ends[1:]) == 0.5
    assert mean_gap(ends[:1], ends[1:]) == 0.0


def test_order_correlation_by_hand():
    # Ranks 1 3 2: sum of squared differences 2, so 1 - 6 * 2 / (3 * 8) = 0.5. Falling: -1. Constant: 0.
    progress = array(0.1, 0.5, 0.3, 0.9, 0.4, 0.2, 0.2, 0.2)
    assert value_order_correlation(progress, np.array([0, 3, 6, 8])).tolist() == [0.5, -1.0, 0.0]


def test_order_is_over_the_known_frames():
    progress = array(0.1, NAN, 0.5, NAN, 0.3, NAN, 0.7, NAN, NAN)
    np.testing.assert_array_equal(value_order_correlation(progress, np.array([0, 6, 8, 9])), [0.5, NAN, NAN])


episodes = st.lists(st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=12), min_size=1, max_size=5)


@given(episodes)
def test_scipy_finds_the_same_order(drawn):
    progress = np.array([NAN if value is None else value / 5 for each in drawn for value in each], float)
    starts = np.concatenate([[0], np.cumsum([len(each) for each in drawn])])
    found = value_order_correlation(progress, starts)
    constant, asked = constant_episodes(progress, starts)
    for number, each in enumerate(drawn):
        known = [(time, value) for time, value in enumerate(each) if value is not None]
        values = {value for _, value in known}
        assert asked[number] == (len(known) >= 2)
        assert constant[number] == (len(known) >= 2 and len(values) == 1)
        if len(known) < 2:
            assert np.isnan(found[number])
        elif len(values) == 1:
            assert found[number] == 0.0
        else:
            assert found[number] == pytest.approx(spearmanr(*zip(*known, strict=True)).statistic)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=30),
    st.lists(st.integers(0, 6), min_size=1, max_size=30),
)
def test_scikit_learn_finds_the_same_area(positive, negative):
    labels = [1] * len(positive) + [0] * len(negative)
    theirs = roc_auc_score(labels, positive + negative)
    assert area_under_curve(array(*positive), array(*negative)) == pytest.approx(theirs)


def test_area_and_gap_by_hand():
    # Of six pairs 1 > 0, 1 > 0.5, 0.5 > 0 and 0.5 = 0.5, 1 > 0, 0.5 > 0.
    assert area_under_curve(array(1, 0.5), array(0, 0.5, 0)) == 5.5 / 6
    assert mean_gap(array(1, 0.5), array(0, 0.5, 0.25)) == 0.5
    assert np.isnan(area_under_curve(array(), array(1)))
    assert np.isnan(mean_gap(array(1), array()))


def test_disagreement_by_segment():
    # Four segments of two episodes. [0, 2): said rising, and it does. [2, 4): said rising, falls from 0.4 to 0.2.
    # [4, 5), the last frame of its episode: nothing to say. [5, 8): said stalled; 0.01 in 2 steps is 5% of the clock's
    # pace of a tenth a frame, so it stalls. [8, 15): said falling, and it gains.
    starts = np.array([0, 5, 15])
    tri = array(1, 1, NAN, 1, -1, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1)
    progress = array(0.0, 0.2, 0.4, 0.4, 0.2, 0.5, 0.5, 0.5, 0.51, 0.6, 0.6, 0.6, 0.6, 0.6, 0.7)
    wrong, both = disagreement(progress, tri, starts)
    assert both.tolist() == [True, True, False, True, False, *[True] * 10]
    assert wrong.tolist() == [False, False, False, True, False, False, False, False, *[True] * 7]


def test_standing_still_is_slower_than_a_tenth_of_the_clock():
    starts, tri = np.array([0, 10]), np.zeros(10)
    for end, stalls in ((0.089, True), (0.091, False), (-0.089, True), (-0.091, False)):
        # Nine steps of a clock that needs ten frames: 0.9, a tenth of which is 0.09.
        wrong, _ = disagreement(np.linspace(0, end, 10), tri, starts)
        assert wrong.all() != stalls


def test_nothing_contradicts_what_is_not_known():
    starts, tri = np.array([0, 3]), array(1, 1, 1)
    for progress in (array(NAN, 0.1, 0.2), array(0.2, 0.1, NAN)):
        assert not disagreement(progress, tri, starts)[1].any()
    assert disagreement(array(0.2, NAN, 0.0), tri, starts)[0].all()


def test_calibration_error_by_hand():
    # Bin of 0.9 and 0.95: mean 0.925, share 1 / 2.
    assert calibration_error(array(0.9, 0.95), np.array([True, False])) == pytest.approx(0.425)
    assert calibration_error(array(0.05, 0.95, 1.0), np.array([False, True, True])) == pytest.approx(0.1 / 3)
    # The last bin holds its upper edge: 1.95 against one success.
    assert calibration_error(array(0.95, 1.0), np.array([True, False])) == pytest.approx(0.475)
    assert np.isnan(calibration_error(array(), np.array([], bool)))


def test_arrays_of_another_length_are_refused():
    with pytest.raises(UsageError, match="progress has shape"):
        value_order_correlation(array(1, 2), np.array([0, 3]))
    with pytest.raises(UsageError, match="tri has shape"):
        disagreement(array(1, 2, 3), array(1), np.array([0, 3]))
