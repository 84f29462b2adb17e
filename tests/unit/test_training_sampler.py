from __future__ import annotations

import numpy as np

from robolift.training.sampler import EpochSampler


def test_an_epoch_holds_each_row_once_though_batches_cross_its_end():
    sampler = EpochSampler(num_rows=10, batch_size=4, seed=3)
    drawn = np.concatenate([sampler.batch(step) for step in range(5)])
    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:]) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


def test_a_batch_is_a_function_of_seed_and_step():
    once = [EpochSampler(num_rows=50, batch_size=8, seed=1).batch(step) for step in (0, 9, 3)]
    again = [EpochSampler(num_rows=50, batch_size=8, seed=1).batch(step) for step in (0, 9, 3)]
    other = EpochSampler(num_rows=50, batch_size=8, seed=2).batch(0)
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    assert not np.array_equal(once[0], other)


def test_a_batch_larger_than_the_data_repeats_whole_epochs():
    batch = EpochSampler(num_rows=3, batch_size=8, seed=0).batch(0)
    assert len(batch) == 8
    assert np.bincount(batch, minlength=3).min() >= 2
