"""Statistics of a column that comes block by block: those of all its numbers at once."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolift.data.column_blocks import statistics_of_blocks
from robolift.data.statistics import QUANTILES, Statistics, column_statistics
from robolift.errors import DataError

RNG = np.random.default_rng(0)
COLUMNS = {
    "whole numbers": RNG.integers(-5, 900, 3000),
    "counting": np.arange(3000),
    "large": RNG.integers(-(1 << 50), 1 << 50, 3000),
    "single": RNG.normal(0, 3, 3000).astype(np.float32),
    "double": RNG.normal(0, 1e-9, 3000),
    "wide": RNG.normal(0, 1, 3000) * 10.0 ** RNG.integers(-100, 100, 3000),
    "few": np.array([0.25, -0.5, 1.0])[RNG.integers(0, 3, 3000)],
    "unknown": np.where(np.arange(3000) % 7 == 0, np.nan, RNG.random(3000)).astype(np.float32),
    "constant": np.full(3000, 0.1, np.float32),
    "boolean": np.arange(3000) % 5 == 0,
    "one": np.array([7], np.int64),
    "two": np.array([1.5, -2.5]),
}


def cut(values: np.ndarray, size: int) -> Callable[[], Iterator[np.ndarray]]:
    return lambda: (values[first : first + size] for first in range(0, len(values), size))


def assert_same(found: Statistics, expected: Statistics, *, exact: bool) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        if name in ("mean", "std") and not exact:
            np.testing.assert_allclose(found[name], value, rtol=1e-13, atol=1e-14 * np.abs(expected["max"]).max())
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("size", [1, 77, 3000])
def test_they_are_those_of_all_numbers_at_once(name: str, size: int) -> None:
    values = COLUMNS[name]
    assert_same(statistics_of_blocks(cut(values, size)), column_statistics(values), exact=size >= len(values))


def test_literal_numbers() -> None:
    found = statistics_of_blocks(cut(np.array([3.0, 1.0, 2.0, 10.0, 4.0]), 2))
    assert {name: value.tolist() for name, value in found.items()} == {
        "min": [1.0],
        "max": [10.0],
        "mean": [4.0],
        "std": [pytest.approx(10**0.5)],
        "count": [5],
        "q01": [pytest.approx(1.04)],
        "q10": [1.4],
        "q50": [3.0],
        "q90": [pytest.approx(7.6)],
        "q99": [pytest.approx(9.76)],
    }


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=60),
    st.integers(min_value=1, max_value=60),
)
def test_quantiles_of_any_numbers(numbers: list[float], size: int) -> None:
    values = np.array(numbers)
    found = statistics_of_blocks(cut(values, size))
    for name, share in QUANTILES.items():
        assert found[name][0] == np.quantile(values, share)


def test_a_column_without_a_finite_number_is_refused() -> None:
    with pytest.raises(DataError, match="no finite value"):
        statistics_of_blocks(cut(np.array([np.nan, np.inf]), 1), where="weight")


def test_memory_does_not_follow_the_length() -> None:
    def peak(blocks: int) -> int:
        tracemalloc.start()
        rng = np.random.default_rng
        statistics_of_blocks(lambda: (rng(number).random(10_000) for number in range(blocks)))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2)  # what is made once
    assert peak(80) < 1.1 * peak(4)
