"""Statistics in two passes: what NumPy gives on all rows at once, to the bit where it can be, in any order."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robolift.data.exact_statistics import measure
from robolift.errors import DataError
from robolift.float_order import from_order_keys, order_keys

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
EDGES = [-np.inf, -3.4e38, -1.5, -1e-42, -0.0, 0.0, 1e-45, 1.17e-38, 1.5, 3.4e38, np.inf]


def of(*episodes, quantiles=(0.01, 0.99)):
    return measure(lambda: [np.asarray(rows, np.float32) for rows in episodes], quantiles)


def test_numbers_worked_out_by_hand():
    found = of([[1, 10], [2, 10]], [[6, 10]], quantiles=(0.0, 0.25, 0.5, 1.0))
    assert found.count == 3
    assert found.mean.tolist() == [3, 10]
    assert found.std.tolist() == [np.sqrt((4 + 1 + 9) / 3), 0]
    assert (found.minimum.tolist(), found.maximum.tolist()) == ([1, 10], [6, 10])
    assert [q.tolist() for q in found.quantiles] == [[1, 10], [1.5, 10], [2, 10], [6, 10]]


@settings(max_examples=60, deadline=None)
@given(rows=arrays(np.float32, st.tuples(st.integers(1, 40), st.just(2)), elements=FLOATS), cut=st.integers(0, 40))
def test_quantiles_are_numpy_s_to_the_bit(rows, cut):
    quantiles = (0.01, 0.5, 0.99)
    found = of(rows[:cut], rows[cut:], quantiles=quantiles)
    for mine, numpy_s in zip(found.quantiles, np.quantile(rows.astype(np.float64), quantiles, axis=0), strict=True):
        assert mine.tolist() == numpy_s.tolist()


def test_a_long_skewed_column_with_ties():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.lognormal(size=30_000), np.round(rng.normal(size=30_000), 1)], axis=1).astype(np.float32)
    found = of(*np.array_split(rows, 37))
    wide = rows.astype(np.float64)
    assert np.array_equal(found.quantiles, np.quantile(wide, [0.01, 0.99], axis=0))
    assert found.mean == pytest.approx(wide.mean(0), rel=1e-13)
    assert found.std == pytest.approx(wide.std(0), rel=1e-13)


def test_the_order_of_episodes_does_not_change_a_bit():
    rng = np.random.default_rng(1)
    # Sums of numbers of such different size depend on their order, unless they are rounded once.
    episodes = [rng.normal(size=(length, 3)) * 10.0 ** rng.integers(-6, 7) for length in rng.integers(1, 50, 40)]
    first, other = of(*episodes), of(*[episodes[i] for i in rng.permutation(40)])
    for name in ("mean", "std", "minimum", "maximum", "quantiles"):
        assert np.array_equal(getattr(first, name), getattr(other, name)), name
    naive = [
        np.sum([e.astype(np.float32).sum(0, dtype=float) for e in chain], axis=0)
        for chain in (episodes, episodes[::-1])
    ]
    assert not np.array_equal(*naive)


def test_a_constant_far_from_zero_has_no_deviation_and_a_small_one_is_not_lost():
    found = of(np.full((7, 1), 0.1), np.full((900, 1), 0.1))
    assert found.std.tolist() == [0.0]
    assert found.mean.tolist() == [float(np.float32(0.1))]
    # The mean of squares less the square of the mean, as openpi has it, gives 0 here in float32 and noise in float64.
    near = of(1e6 + np.tile([[0.0], [0.125]], (500, 1)))
    assert near.std.tolist() == [0.0625]


def test_keys_order_as_the_numbers_do_and_give_them_back():
    values = np.array(EDGES, np.float32)
    keys = order_keys(values)
    assert (np.diff(keys.astype(np.int64)) > 0).sum() == len(EDGES) - 2  # -0 and 0 share a key
    assert np.array_equal(from_order_keys(keys), values)
    assert not np.signbit(from_order_keys(keys)[4])


def test_nothing_to_measure_and_widths_that_differ_are_refused():
    for episodes in ((), (np.zeros((0, 3)),)):
        with pytest.raises(DataError, match="there is no frame to measure"):
            of(*episodes)
    with pytest.raises(DataError, match="a vector has 2 numbers"):
        of(np.zeros((2, 3)), np.zeros((2, 2)))


def test_memory_does_not_grow_with_the_frames():
    def episodes():
        rng = np.random.default_rng(2)
        for _ in range(250):
            yield rng.standard_normal((4000, 4)).astype(np.float32)  # 16 MB in all

    peaks = []
    for count in (25, 250):
        tracemalloc.start()
        measure(lambda count=count: (rows for rows, _ in zip(episodes(), range(count), strict=False)), (0.01, 0.99))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 30e6
