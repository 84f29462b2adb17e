"""Any array of colour images as 8-bit RGB, and an error where its numbers can be read in two ways."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from robolift.errors import DataError, UsageError

Layout = Literal["auto", "hwc", "chw"]
ValueRange = Literal["auto", "unit", "byte"]

SLACK = 1e-3
"""How far a number may lie outside [0, 1] through rounding; online_rl's labeller has the same."""
BYTE_SLACK = 0.5
"""The same for numbers from 0 to 255: what still rounds to one of them."""
SURELY_BYTES = 2.0
"""Largest value from which an array that also exceeds 1 counts from 0 to 255. Below it may be [0, 1] and an overshoot
of interpolation, or an almost black picture."""

Array = np.ndarray[Any, np.dtype[Any]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def as_rgb8(images: Array, *, layout: Layout = "auto", value_range: ValueRange = "auto", where: str = "") -> Bytes:
    """Return images as (..., H, W, 3) uint8 RGB in memory order; what is so already is given back uncopied.

    Give a whole episode at once: layout and range are decided once for all of ``images``. Deciding frame by frame lets
    a dark frame shine: online_rl's labeller (``hil_reward_labeler.torch_frame_to_qimage``) multiplies each frame whose
    largest number is at most 1.001 by 255, takes width 3 for channels, and clips what is out of range. Here:

    * ``layout="auto"``: channels are where a 3 is, last or third from last; if both are 3 it must be said.
    * uint8 is taken as it is; other integers must lie in 0 to 255.
    * Real numbers are ``unit`` ([0, 1], times 255) or ``byte`` (0 to 255), rounded half to even.
      ``value_range="auto"`` takes them for bytes where one is at least 2, and for ``unit`` where none exceeds 1 and
      all are 255ths, as a converted picture has them, some of them broken. Else it must be said: an almost black
      picture in bytes, one of zeros and ones, and one that was interpolated look alike. All zero is black either way.

    Args:
        images: (..., H, W, 3) or (..., 3, H, W), of uint8, another integer, or a real type.
        layout: ``hwc`` or ``chw``; ``auto`` as above.
        value_range: ``unit`` or ``byte``, for real numbers; ``auto`` as above.
        where: What the images are, for the error.

    Raises:
        DataError: If it can't be known where the channels are or what the numbers mean, or numbers are not finite or
            out of range.
        UsageError: If ``value_range`` is ``unit`` and these are integers.
    """
    last = _channels_last(images, layout, where)
    if images.dtype == np.uint8 or np.issubdtype(images.dtype, np.integer):
        if value_range == "unit":
            raise UsageError(f"value_range is unit, and the images are {images.dtype}; integers count from 0 to 255")
        if images.dtype != np.uint8 and images.size:
            _check_within(images, 0, 255, where)
        return np.ascontiguousarray(last, np.uint8)
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"the images are {images.dtype}", where=where, expected="integers or real numbers")
    if not images.size:
        return np.empty(last.shape, np.uint8)
    unit = _is_unit(images, value_range, where)
    result = np.empty(last.shape, np.uint8)
    height, width = last.shape[-3:-1]
    # One image at a time: an episode of real numbers is four to eight times the bytes it becomes.
    for source, target in zip(_each(last), result.reshape(-1, height, width, 3), strict=True):
        wide = source.astype(np.promote_types(source.dtype, np.float32))
        target[...] = np.clip(np.rint(wide * 255 if unit else wide), 0, 255)
    return result


def _channels_last(images: Array, layout: Layout, where: str) -> Array:
    shape = images.shape
    if len(shape) < 3 or 0 in shape[-3:]:
        raise DataError(
            f"images of shape {shape}", where=where, expected="(..., height, width, 3) or (..., 3, height, width)"
        )
    fits = {"hwc": shape[-1] == 3, "chw": shape[-3] == 3}
    if layout == "auto":
        if all(fits.values()):
            raise DataError(
                f"images of shape {shape} have 3 at both places where channels may be",
                where=where,
                expected="one of (..., height, width, 3) and (..., 3, height, width)",
                mend="set layout to hwc or chw",
            )
        layout = "hwc" if fits["hwc"] else "chw"
    if not fits[layout]:
        raise DataError(
            f"images of shape {shape} have no 3 channels in layout {layout}",
            where=where,
            expected="red, green and blue, without alpha or depth",
            mend="give 3 channels, or set the other layout",
        )
    return images if layout == "hwc" else np.moveaxis(images, -3, -1)


def _is_unit(images: Array, value_range: ValueRange, where: str) -> bool:
    """Tell whether real numbers are in [0, 1] rather than in 0 to 255, after checking that they are in range."""
    finite = np.isfinite(images)
    if not finite.all():
        raise DataError(
            f"{int((~finite).sum())} numbers of the images are NaN or infinite",
            where=_place(~finite, where),
            expected="finite numbers",
            mend="drop these frames, or record them again",
        )
    largest = float(images.max())
    unit = value_range == "unit" or (value_range == "auto" and largest < SURELY_BYTES)
    if unit:
        _check_within(images, -SLACK, 1 + SLACK if value_range == "unit" else SURELY_BYTES, where)
    else:
        _check_within(images, -BYTE_SLACK, 255 + BYTE_SLACK, where)
    if value_range == "auto" and unit and images.any():
        why = _doubt(images, largest)
        if why:
            raise DataError(
                f"it can't be known whether the images are in [0, 1] or in 0 to 255: {why}",
                where=where,
                expected=f"255ths up to 1, or a number of at least {SURELY_BYTES:g}",
                mend="set value_range to unit or byte",
            )
    return unit


def _doubt(images: Array, largest: float) -> str:
    """Return why real numbers below 2, some of them not 0, could be bytes; nothing if they can't."""
    if largest > 1 + SLACK:
        return f"the largest number is {largest:g}"
    step = max(SLACK, 255 * float(np.finfo(images.dtype).eps))
    wide = (image.astype(np.promote_types(image.dtype, np.float32)) * 255 for image in _each(images))
    if any((np.abs(image - np.rint(image)) > step).any() for image in wide):
        return "no number is above 1, and not all are 255ths"
    if all((np.rint(image) == image).all() for image in _each(images)):
        return "all numbers are 0 or 1"
    return ""


def _each(images: Array) -> Array:
    """Return the images one after the other, (N, ., ., .); a view where the memory allows."""
    return images.reshape(-1, *images.shape[-3:])


def _check_within(images: Array, low: float, high: float, where: str) -> None:
    outside = (images < low) | (images > high)
    if outside.any():
        raise DataError(
            f"numbers of the images go from {images.min():g} to {images.max():g}",
            where=_place(outside, where),
            expected="[0, 1] or 0 to 255" if low < 0 else "0 to 255",
            mend="undo the normalization before they are taken as pictures",
        )


def _place(wrong: Array, where: str) -> str:
    """Return where the first of the wrong numbers is: which image of how many."""
    image = int(np.flatnonzero(wrong.reshape(-1, int(np.prod(wrong.shape[-3:]))).any(axis=1))[0])
    return ", ".join(filter(None, [where, f"first in image {image}"]))
