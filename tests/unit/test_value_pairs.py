from __future__ import annotations

import numpy as np
import pytest

from robolift.training.sampler import EpochSampler
from robolift.value_model.pairs import AdvantagePairs

STARTS = np.array([0, 5, 6, 8, 20])  # episodes of 5, 1, 2 and 12 frames


def pairs(seed=3):
    return AdvantagePairs(starts=STARTS, seed=seed)


def episode_of(rows):
    return np.searchsorted(STARTS, rows, side="right") - 1


def test_a_frame_is_compared_with_another_of_its_episode():
    rows = np.tile(np.arange(20), 50)
    others = np.concatenate([pairs().draw(step, rows) for step in range(20)])
    rows = np.tile(rows, 20)
    assert np.array_equal(episode_of(others), episode_of(rows))
    lonely = rows == 5
    assert (others[lonely] == 5).all()  # the one frame of an episode has only itself
    assert (others[~lonely] != rows[~lonely]).all()


def test_each_other_frame_is_equally_likely():
    rows = np.full(60_000, 11)
    drawn = pairs().draw(0, rows)
    counts = np.bincount(drawn, minlength=20)
    assert counts[11] == 0
    expected = 60_000 / 11
    assert counts[8:].sum() == 60_000
    assert np.abs(np.delete(counts[8:], 3) - expected).max() < 4 * np.sqrt(expected)


def test_the_second_frame_of_two_is_compared_with_the_first_and_the_first_with_the_second():
    assert pairs().draw(9, np.array([6, 7, 6])).tolist() == [7, 6, 7]


def test_draws_depend_on_seed_and_step_alone():
    rows = np.arange(8, 20)
    assert np.array_equal(pairs().draw(4, rows), pairs().draw(4, rows))
    assert not np.array_equal(pairs().draw(4, rows), pairs().draw(5, rows))
    assert not np.array_equal(pairs().draw(4, rows), pairs(seed=4).draw(4, rows))


def test_held_out_pairs_are_always_the_same():
    rows = np.concatenate([np.arange(0, 5), np.arange(8, 20)])
    fixed = pairs().fixed(rows)
    assert np.array_equal(fixed, pairs().fixed(rows))
    assert (fixed != rows).all()
    assert np.array_equal(episode_of(fixed), episode_of(rows))
    assert not np.array_equal(fixed, pairs(seed=4).fixed(rows))


def test_the_mean_square_difference_of_uniform_progress_is_a_sixth():
    long = AdvantagePairs(starts=np.array([0, 1000]), seed=0)
    progress = np.linspace(0, 1, 1000)
    rows = np.tile(np.arange(1000), 100)
    assert np.square(progress[rows] - progress[long.draw(0, rows)]).mean() == pytest.approx(1 / 6, rel=0.02)
    assert progress.var() == pytest.approx(1 / 12, rel=0.01)


@pytest.mark.parametrize("num_processes", [1, 2, 3, 4, 6])
def test_an_epoch_holds_each_frame_once_over_all_processes(num_processes):
    sampler = EpochSampler(num_rows=20, batch_size=12, seed=1)
    share = 12 // num_processes
    epochs = []
    for step in range(5):  # 60 rows: three epochs of 20, the second begins inside a batch
        rows, others = sampler.batch(step), pairs().draw(step, sampler.batch(step))
        for rank in range(num_processes):
            part = slice(rank * share, (rank + 1) * share)
            epochs += list(zip(rows[part].tolist(), others[part].tolist(), strict=True))
    for epoch in range(3):
        assert sorted(row for row, _ in epochs[20 * epoch : 20 * epoch + 20]) == list(range(20))
    # The pairs too are those of one process.
    alone = [pair for step in range(5) for pair in zip(sampler.batch(step), pairs().draw(step, sampler.batch(step)))]  # noqa: B905
    assert epochs == [(int(row), int(other)) for row, other in alone]
