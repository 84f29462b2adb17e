from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from robolift.training.permutation import KeyedPermutation
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


@pytest.mark.parametrize(
    ("num_rows", "block", "window"),
    [(100, 7, 3), (10, 3, 2), (12, 3, 2), (5, 8, 2), (64, 1, 4), (17, 5, 100), (1, 1, 1)],
)
def test_by_blocks_an_epoch_holds_each_row_once_too(num_rows, block, window):
    sampler = EpochSampler(num_rows=num_rows, batch_size=6, seed=1, block=block, window=window)
    drawn = np.concatenate([sampler.batch(step) for step in range(num_rows // 2 + 1)])
    assert len(drawn) >= 3 * num_rows
    epochs = drawn[: 3 * num_rows].reshape(3, num_rows)
    assert (np.sort(epochs) == np.arange(num_rows)).all()
    if num_rows > 10:
        assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


def test_by_blocks_rows_of_one_window_come_from_its_blocks_alone():
    sampler = EpochSampler(num_rows=1000, batch_size=50, seed=5, block=10, window=5)
    windows = [sampler.batch(step) for step in range(20)]
    for rows in windows:
        assert len(np.unique(rows // 10)) == 5
        assert rows.tolist() != sorted(rows.tolist())
    assert sorted(np.concatenate([np.unique(rows // 10) for rows in windows]).tolist()) == list(range(100))
    # Neighbouring blocks are not kept together.
    assert all(np.ptp(rows // 10) > 5 for rows in windows)


def test_by_blocks_a_batch_is_a_function_of_seed_and_step_without_what_came_before():
    settings = {"num_rows": 1003, "batch_size": 32, "block": 16, "window": 4}
    whole = [EpochSampler(**settings, seed=1).batch(step) for step in range(70)]
    for step in (69, 40, 3):
        assert EpochSampler(**settings, seed=1).batch(step).tolist() == whole[step].tolist()
    assert EpochSampler(**settings, seed=2).batch(3).tolist() != whole[3].tolist()


def test_a_thousand_million_rows_take_the_memory_of_a_window():
    sampler = EpochSampler(num_rows=10**9, batch_size=4096, seed=0, block=4096, window=16)
    tracemalloc.start()
    try:
        batches = [sampler.batch(step) for step in (0, 123_456, 244_140)]  # the last one ends in the next epoch
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6
    assert all(len(np.unique(batch)) == 4096 for batch in batches)
    assert max(batch.max() for batch in batches) < 10**9


def permutation(size, seed=0):
    keys = np.random.default_rng(seed).integers(2**63, size=KeyedPermutation.ROUNDS)
    return KeyedPermutation(size=size, keys=tuple(keys.tolist()))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 16, 17, 1000, 4096, 4097])
def test_a_keyed_permutation_holds_each_number_once_and_knows_their_places(size):
    for seed in range(5):
        order = permutation(size, seed).at(np.arange(size))
        assert sorted(order.tolist()) == list(range(size))
        for place in {0, 1, size // 2, size - 1} & set(range(size)):
            assert permutation(size, seed).place(int(order[place])) == place


def test_keyed_permutations_put_every_number_everywhere_equally_often():
    counts = np.zeros((6, 6))
    for seed in range(3000):
        counts[np.arange(6), permutation(6, seed).at(np.arange(6))] += 1
    # 500 each, with a standard deviation of 20.
    assert np.abs(counts - 500).max() < 5 * 20


def test_a_keyed_permutation_stays_what_it_is():
    assert KeyedPermutation(size=10, keys=tuple(range(8))).at(np.arange(10)).tolist() == [1, 7, 8, 2, 4, 9, 6, 3, 0, 5]
