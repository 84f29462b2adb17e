"""The sum of NumPy, of numbers that come block by block."""

from __future__ import annotations

import numpy as np
import pytest

from robolift.labeling.numpy_sum import NumpySum, pairwise_sum


@pytest.mark.parametrize(
    "cuts", [[], [1, 2, 9000], [8192, 16384], [5, 8191, 20000, 20001], list(range(700, 25000, 700))]
)
def test_however_they_are_cut_the_sum_is_numpys_to_the_bit(cuts: list[int]) -> None:
    generator = np.random.default_rng(3)
    values = (generator.normal(size=25001) * 10.0 ** generator.integers(-20, 20, 25001)).astype(np.float32)
    total = NumpySum()
    for block in np.split(values, cuts):
        total.add(block)
    assert total.count == 25001
    assert total.total() == float(values.sum(dtype=np.float64))
    assert total.total() / total.count == float(values.mean(dtype=np.float64))
    assert total.total() != float(values.astype(np.float64).sum())  # another order of additions has other bits


@pytest.mark.parametrize(
    ("count", "length"), [(0, 1), (1, 1), (1000, 7), (65537, 65536), (300001, 997), (300001, 131072)]
)
def test_the_sum_of_float64_is_numpys_to_the_bit(count: int, length: int) -> None:
    generator = np.random.default_rng(5)
    values = generator.normal(size=count) * 10.0 ** generator.integers(-20, 20, count)
    blocks = [values[at : at + length] for at in range(0, count, length)]
    assert pairwise_sum(blocks, count) == float(values.sum())
    assert pairwise_sum(blocks, count) / max(count, 1) == (float(values.mean()) if count else 0)
