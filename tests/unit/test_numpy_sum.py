"""The sum of NumPy, of numbers that come block by block."""

from __future__ import annotations

import numpy as np
import pytest

from robolift.labeling.numpy_sum import NumpySum


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
