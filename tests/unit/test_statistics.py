from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolift.data.statistics import (
    QUANTILES,
    ImageStatistics,
    aggregate,
    column_statistics,
    from_json,
    sample_indices,
    to_json,
)
from robolift.errors import DataError


def test_a_vector_column_by_hand() -> None:
    found = column_statistics(np.array([[1.0, 10], [2, 20], [3, 60]], np.float32))
    assert found["min"].tolist() == [1, 10]
    assert found["max"].tolist() == [3, 60]
    assert found["mean"].tolist() == [2, 30]
    assert found["std"] == pytest.approx([np.sqrt(2 / 3), np.sqrt((400 + 100 + 900) / 3)])
    assert found["count"].tolist() == [3]
    assert found["q50"].tolist() == [2, 20]
    assert found["q10"] == pytest.approx([1.2, 12])
    assert found["q99"] == pytest.approx([2.98, 59.2])


def test_integers_stay_integers_and_booleans_become_them() -> None:
    assert column_statistics(np.array([3, 1, 2]))["max"].tolist() == [3]
    found = column_statistics(np.array([True, False, True, True]))
    assert to_json(found)["min"] == [0]
    assert found["mean"].tolist() == [0.75]


def test_rows_that_are_not_finite_are_left_out() -> None:
    found = column_statistics(np.array([1.0, np.nan, 3.0, np.inf]))
    assert found["count"].tolist() == [2]
    assert found["mean"].tolist() == [2.0]
    with pytest.raises(DataError, match=r"no finite value[\s\S]*column x"):
        column_statistics(np.array([np.nan]), where="column x")


@pytest.mark.parametrize(
    ("length", "count"), [(1, 1), (50, 50), (100, 100), (400, 100), (1000, 177), (300_000, 10_000)]
)
def test_sampled_frames_follow_lerobots_rule(length: int, count: int) -> None:
    indices = sample_indices(length)
    assert len(indices) == count
    assert (indices[0], indices[-1]) == (0, length - 1)
    assert (np.diff(indices) >= 0).all()


def _image_reference(images: np.ndarray) -> dict[str, np.ndarray]:
    pixels = images.reshape(-1, 3) / 255.0
    fields = {"min": pixels.min(0), "max": pixels.max(0), "mean": pixels.mean(0), "std": pixels.std(0)}
    fields |= {name: np.quantile(pixels, q, axis=0) for name, q in QUANTILES.items()}
    return {name: value.reshape(3, 1, 1) for name, value in fields.items()}


def test_image_statistics_are_exact_and_merge() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)
    whole, first, second = ImageStatistics(), ImageStatistics(), ImageStatistics()
    for number, image in enumerate(images):
        whole.add(image)
        (first if number < 2 else second).add(image)
    first.merge(second)
    for found in (whole.result(), first.result()):
        for name, expected in _image_reference(images).items():
            np.testing.assert_allclose(found[name], expected, atol=1e-12)
        assert found["count"].tolist() == [5]


def test_large_images_are_strided_down() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[::4, ::4] = 200  # stride 640 // 150 = 4 sees nothing else
    statistics = ImageStatistics()
    statistics.add(image)
    assert statistics.result()["mean"].ravel() == pytest.approx([200 / 255] * 3)


def test_no_image_is_an_error() -> None:
    with pytest.raises(DataError, match="no image"):
        ImageStatistics().result()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8), min_size=1, max_size=5))
def test_merged_statistics_equal_those_of_all_rows(parts: list[list[float]]) -> None:
    merged = aggregate([column_statistics(np.array(part)) for part in parts])
    whole = column_statistics(np.concatenate([np.array(part) for part in parts]))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(merged[name], whole[name], atol=1e-6)


def test_merging_weighs_quantiles_by_count_and_refuses_nonsense() -> None:
    merged = aggregate([column_statistics(np.array([0.0])), column_statistics(np.array([4.0, 4.0, 4.0]))])
    assert merged["q50"].tolist() == [3.0]
    without = aggregate([{k: v for k, v in column_statistics(np.array([1.0])).items() if k not in QUANTILES}])
    assert set(without) == {"min", "max", "mean", "std", "count"}
    with pytest.raises(DataError, match="no statistics"):
        aggregate([])
    with pytest.raises(DataError, match="different shapes"):
        aggregate([column_statistics(np.zeros((2, 2))), column_statistics(np.zeros((2, 3)))])


def test_json_round_trip() -> None:
    found = column_statistics(np.array([[1.5, 2.5], [3.5, 4.5]]))
    back = from_json(json.loads(json.dumps(to_json(found))))
    assert set(back) == set(found)
    assert all(np.array_equal(back[name], found[name]) for name in found)


@pytest.mark.parametrize("num", [1, 2, 3, 7, 100, 101, 999])
def test_quantiles_of_whole_numbers_are_numpys_to_the_bit(num: int) -> None:
    rng = np.random.default_rng(num)
    for values in (rng.integers(-5, 5, (num, 3)), rng.integers(0, 10**12, (num, 1)), np.arange(num)[:, None]):
        found = column_statistics(values)
        expected = np.quantile(values.astype(np.float64), list(QUANTILES.values()), axis=0)
        assert [found[name].tolist() for name in QUANTILES] == expected.tolist()


@pytest.mark.parametrize("number", [0, 1, -7, 12345, 2**31 - 1, -(2**40), 2**53 + 1, -(2**63)])
@pytest.mark.parametrize("num", [1, 2, 9, 1000, 100_003])
def test_one_whole_number_is_measured_as_numpy_does_to_the_bit(number: int, num: int) -> None:
    rows = np.full((num, 2), number, np.int64)
    exact = rows.astype(np.float64)
    found = column_statistics(rows)
    assert list(found) == ["min", "max", "mean", "std", "count", *QUANTILES]
    assert found["min"].tolist() == found["max"].tolist() == [number, number]
    assert found["min"].dtype == np.int64
    for name, expected in {"mean": exact.mean(axis=0), "std": exact.std(axis=0)}.items():
        assert found[name].tobytes() == expected.tobytes(), name
    for name, share in QUANTILES.items():
        assert found[name].tobytes() == np.quantile(exact, share, axis=0).tobytes(), name
