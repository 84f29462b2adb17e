"""Images of any layout and range as 8-bit RGB, by hand; and every case that can be read in two ways."""

from __future__ import annotations

import numpy as np
import pytest

from robolift.data.rgb8 import as_rgb8
from robolift.errors import DataError, UsageError

# Two pixels beside each other: (red, green, blue).
PIXELS = [[[10, 20, 30], [40, 50, 255]]]
HWC = np.array(PIXELS, np.uint8)
CHW = np.array([[[10, 40]], [[20, 50]], [[30, 255]]], np.uint8)


def convert(values, dtype, **options):
    """Convert one picture of 1x1 pixel, or of as many as there are triples."""
    return as_rgb8(np.array(values, dtype).reshape(1, -1, 3), **options).tolist()


@pytest.mark.parametrize(("images", "layout"), [(HWC, "auto"), (HWC, "hwc"), (CHW, "auto"), (CHW, "chw")])
def test_layouts(images, layout):
    found = as_rgb8(images, layout=layout)
    assert found.tolist() == PIXELS
    assert (found.dtype, found.flags.c_contiguous) == (np.uint8, True)


@pytest.mark.parametrize("leading", [(1,), (4,), (2, 3), (3,)])
def test_leading_dimensions_stay(leading):
    images = np.broadcast_to(CHW, (*leading, 3, 1, 2))
    assert as_rgb8(images).shape == (*leading, 1, 2, 3)
    assert as_rgb8(images)[(0,) * len(leading)].tolist() == PIXELS


def test_no_image_is_no_error():
    assert as_rgb8(np.empty((0, 3, 4, 5), np.uint8)).shape == (0, 4, 5, 3)
    assert as_rgb8(np.empty((0, 4, 5, 3), np.float32)).shape == (0, 4, 5, 3)


def test_three_columns_and_three_channels_must_be_told_apart():
    images = np.arange(3 * 2 * 3, dtype=np.uint8).reshape(3, 2, 3)
    with pytest.raises(DataError, match=r"shape \(3, 2, 3\) have 3 at both places(.*\n)*.*set layout to hwc or chw"):
        as_rgb8(images)
    assert as_rgb8(images, layout="hwc").tolist() == images.tolist()
    # The red values of the first row are the first three numbers.
    assert as_rgb8(images, layout="chw")[0, :, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((4, 5, 4), "auto", "no 3 channels"),  # RGBA
        ((4, 4, 5), "auto", "no 3 channels"),
        ((4, 5, 1), "auto", "no 3 channels"),
        ((3, 4, 5), "hwc", "no 3 channels in layout hwc"),
        ((4, 5, 3), "chw", "no 3 channels in layout chw"),
        ((4, 5), "auto", r"images of shape \(4, 5\)"),
        ((0, 5, 3), "auto", r"images of shape \(0, 5, 3\)"),
    ],
)
def test_what_is_no_colour_image_is_refused(shape, layout, message):
    with pytest.raises(DataError, match=f"{message}(.*\n)*.*"):
        as_rgb8(np.zeros(shape, np.uint8), layout=layout, where="episode 3, camera head")


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.int32, np.int64])
def test_other_integers_count_from_0_to_255(dtype):
    assert convert([0, 1, 127], dtype) == [[[0, 1, 127]]]


@pytest.mark.parametrize(("value", "dtype"), [(-1, np.int16), (256, np.int16), (65535, np.uint16), (-128, np.int8)])
def test_integers_out_of_range_are_refused_and_not_clipped(value, dtype):
    images = np.zeros((3, 2, 2, 3), dtype)
    images[2, 1, 1, 1] = value
    with pytest.raises(DataError, match=r"numbers of the images go from .*\n  where: camera head, first in image 2\n"):
        as_rgb8(images, where="camera head")


def test_integers_are_not_in_0_to_1():
    with pytest.raises(UsageError, match="value_range is unit, and the images are uint8"):
        as_rgb8(HWC, value_range="unit")
    assert as_rgb8(HWC, value_range="byte").tolist() == PIXELS


def test_a_mask_is_no_image():
    with pytest.raises(DataError, match="the images are bool"):
        as_rgb8(np.ones((2, 2, 3), bool))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bytes_as_real_numbers(dtype):
    assert convert([0.0, 2.0, 255.0], dtype) == [[[0, 2, 255]]]
    # Half to even, and what rounds to the ends is inside.
    assert convert([0.5, 1.5, 254.5, -0.5, 255.5, 3.2], dtype, value_range="byte") == [[[0, 2, 254], [0, 255, 3]]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_picture_over_255_comes_back(dtype):
    picture = np.arange(256).repeat(3).reshape(16, 16, 3)
    assert as_rgb8((picture / 255).astype(dtype)).tolist() == picture.tolist()


def test_real_numbers_in_0_to_1_where_it_is_said():
    # 0.5 * 255 = 127.5 rounds to 128, 0.1 * 255 = 25.5 (a little more in float32) to 26.
    assert convert([0.5, 0.1, 1.0], np.float32, value_range="unit") == [[[128, 26, 255]]]
    assert convert([1.001, -0.001, 0.0], np.float32, value_range="unit") == [[[255, 0, 0]]]


def test_black_is_black():
    assert convert([0, 0, 0], np.float32) == [[[0, 0, 0]]]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([0.0, 1.0, 1.0], "all numbers are 0 or 1"),  # black and white, or three bytes of an almost black picture
        ([0.3, 0.0, 0.7001], "not all are 255ths"),  # interpolated, or almost black
        ([0.2, 1.05, 0.4], "the largest number is 1.05"),  # an overshoot, or almost black
        ([0.0, 1.99, 0.0], "the largest number is 1.99"),
    ],
)
def test_a_range_that_can_not_be_known_must_be_said(values, why):
    with pytest.raises(DataError, match=rf"can't be known .*: .*{why}(.*\n)*.*set value_range to unit or byte"):
        convert(values, np.float32)
    assert convert(values, np.float32, value_range="byte") == [[[round(value) for value in values]]]


def test_a_dark_frame_of_a_bright_episode_stays_dark():
    """Taken alone it would be multiplied by 255."""
    episode = np.zeros((2, 2, 2, 3), np.float32)
    episode[0] = 200
    episode[1] = 1
    assert as_rgb8(episode)[1].max() == 1
    with pytest.raises(DataError, match="can't be known"):
        as_rgb8(episode[1:])


@pytest.mark.parametrize(
    ("values", "value_range"),
    [
        ([0.0, 256.0, 0.0], "auto"),
        ([-0.6, 30.0, 0.0], "auto"),
        ([-1.0, 1.0, 0.5], "auto"),  # normalized to [-1, 1]
        ([0.0, 1.01, 0.0], "unit"),
        ([-0.01, 1.0, 0.0], "unit"),
        ([0.0, 200.0, 0.0], "unit"),
        ([-1.0, 200.0, 0.0], "byte"),
    ],
)
def test_real_numbers_out_of_range_are_refused_and_not_clipped(values, value_range):
    with pytest.raises(DataError, match=r"numbers of the images go from .*\n  where: first in image 0\n"):
        convert(values, np.float32, value_range=value_range)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("value_range", ["auto", "unit", "byte"])
def test_what_is_not_finite_is_refused(value, value_range):
    images = np.zeros((3, 2, 2, 3), np.float32)
    images[1, 0, 0, 0] = value
    with pytest.raises(DataError, match=r"1 numbers of the images are NaN or infinite\n  where: first in image 1"):
        as_rgb8(images, value_range=value_range)


@pytest.mark.parametrize("layout", ["hwc", "chw"])
def test_each_image_of_a_batch_is_converted_as_it_is_alone(layout):
    rng = np.random.default_rng(0)
    shape = (5, 4, 6, 3) if layout == "hwc" else (5, 3, 4, 6)
    images = rng.uniform(0, 255, shape).astype(np.float32)
    whole = as_rgb8(images, layout=layout, value_range="byte")
    alone = [as_rgb8(image, layout=layout, value_range="byte") for image in images]
    np.testing.assert_array_equal(whole, np.stack(alone))
    np.testing.assert_array_equal(as_rgb8(images[[3, 1]], layout=layout), whole[[3, 1]])


def test_the_images_given_are_not_changed():
    images = np.array(PIXELS, np.float32)
    before = images.copy()
    as_rgb8(images)[...] = 7
    np.testing.assert_array_equal(images, before)
