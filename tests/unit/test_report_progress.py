"""Measures of a progress estimator, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from robolift.reports import progress

ONE = np.array([0, 3])


def test_the_error_of_pairs_counts_every_ordered_pair_of_two_frames():
    # d = 0, 1, 3: squares of differences 1, 9, 4, each twice, over six ordered pairs.
    assert progress.pair_errors(np.array([0.0, 1.0, 3.0]), ONE).tolist() == pytest.approx([14 / 3])


def test_a_constant_offset_costs_a_two_frame_estimator_nothing():
    assert progress.pair_errors(np.array([0.4, 0.4, 0.4]), ONE)[0] == pytest.approx(0.0)
    assert progress.frame_errors(np.array([0.5, 0.5, 0.5]), ONE)[0] == pytest.approx(0.25)


def test_uniform_progress_gives_the_published_constants():
    uniform = (np.arange(4000) + 0.5) / 4000
    starts = np.array([0, 4000])
    assert progress.pair_errors(uniform, starts)[0] == pytest.approx(progress.PAIR_BASELINE, abs=1e-4)
    assert progress.frame_errors(uniform - uniform.mean(), starts)[0] == pytest.approx(1 / 12, abs=1e-4)


def test_an_episode_of_one_frame_has_no_pair_and_is_not_counted():
    starts = np.array([0, 1, 4])
    errors = progress.pair_errors(np.array([9.0, 0.0, 1.0, 3.0]), starts)
    assert np.isnan(errors[0])
    assert progress.pooled(errors, starts) == pytest.approx(14 / 3)
    assert progress.pooled(np.array([np.nan]), np.array([0, 1])) is None


def test_errors_are_pooled_by_frames():
    assert progress.pooled(np.array([1.0, 4.0]), np.array([0, 1, 3])) == pytest.approx(3.0)


def test_skill_is_the_share_of_the_baseline_removed():
    starts = np.array([0, 10, 20, 30])
    found = progress.skill(np.array([0.1, 0.2, 0.3]), np.array([1.0, 1.0, 1.0]), starts)
    assert found is not None
    assert found.estimate == pytest.approx(0.8)
    assert 0.7 <= found.low < 0.8 < found.high <= 0.9
    assert found == progress.skill(np.array([0.1, 0.2, 0.3]), np.array([1.0, 1.0, 1.0]), starts)
    assert progress.skill(np.array([0.1]), np.array([1.0]), np.array([0, 10])) is None
    assert progress.skill(np.array([0.1, 0.1]), np.zeros(2), np.array([0, 10, 20])) is None


def test_ranks_agree_whatever_the_scale():
    starts = np.array([0, 4, 8])
    predicted = np.array([0.0, 0.1, 0.5, 0.9, 0.3, 0.2, 0.1, 0.0])
    annotated = np.array([0.0, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5])
    found = progress.rank_agreement(predicted, annotated, starts)
    assert found[0] == pytest.approx(1.0)
    assert np.isnan(found[1])  # constant progress orders nothing
    measured = progress.spread(found)
    assert measured is not None
    assert (measured.mean, measured.n) == (pytest.approx(1.0), 1)
    assert progress.spread(np.array([np.nan])) is None


def test_value_order_is_the_rank_correlation_with_time():
    starts = np.array([0, 4, 8, 12])
    values = np.array([0.0, 0.1, 0.7, 0.9, 0.9, 0.7, 0.1, 0.0, 0.0, 0.2, 0.1, 0.3])
    assert progress.value_order(values, starts).tolist() == pytest.approx([1.0, -1.0, 0.8])


def test_roughness_is_zero_for_steady_progress_at_any_speed():
    starts = np.array([0, 4, 8, 10])
    values = np.array([0.0, 0.1, 0.2, 0.3, 0.0, 0.1, 0.0, 0.1, 0.0, 1.0])
    found = progress.roughness(values, starts)
    assert found[:2].tolist() == pytest.approx([0.0, 0.2])
    assert np.isnan(found[2])  # two frames have no second difference


def test_stages_are_cut_as_labels_cut_them():
    values = np.array([-0.1, 0.0, 0.3, 0.7 - 1e-12, 0.999, 1.0, 1.3])
    assert progress.stages(values, 10).tolist() == [0, 0, 3, 7, 9, 9, 9]
    assert progress.stages(np.array([0.49, 0.5], dtype=np.float32), 2).tolist() == [0, 1]


def test_stage_accuracy_counts_the_frames_of_each_true_stage():
    annotated = np.array([0.1, 0.2, 0.3, 0.6, 0.9])
    predicted = np.array([0.1, 0.2, 0.6, 0.4, 0.8])
    first, second = progress.stage_accuracy(predicted, annotated, 2)
    assert (first.frames, first.correct, first.predicted) == (3, pytest.approx(2 / 3), (2, 1))
    assert (second.frames, second.correct) == (2, 0.5)
    assert [stage.number for stage in progress.stage_accuracy(predicted[:2], annotated[:2], 3)] == [0]
