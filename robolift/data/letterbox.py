"""Pictures of any size as squares, unstretched: scaled to fit and put in the middle of black."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

Size = tuple[int, int]


def inner_size(size: Size, outer: Size) -> Size:
    """Return the (height, width) that a picture of ``size`` is scaled to inside one of ``outer``; openpi's rounding."""
    ratio = max(size[0] / outer[0], size[1] / outer[1])
    return max(1, int(size[0] / ratio)), max(1, int(size[1] / ratio))


def place(inner: tuple[int, ...], outer: tuple[int, ...]) -> tuple[slice, slice]:
    """Return where a picture of ``inner`` lies in one of ``outer``: in the middle, half a pixel further up or left."""
    top, left = (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2
    return slice(top, top + inner[0]), slice(left, left + inner[1])


def on_black(image: np.ndarray, outer: Size) -> np.ndarray:
    """Return (*outer, 3) uint8: (H, W, 3) uint8, no larger than that, in the middle of black."""
    if image.shape[:2] == outer:
        return image
    square = np.empty((*outer, 3), np.uint8)
    put(image, square)
    return square


def put(image: np.ndarray, target: np.ndarray) -> None:
    """Write (H, W, 3) uint8 to the middle of ``target``, (H', W', 3) and no smaller, and black around it."""
    rows, columns = place(image.shape[:2], target.shape[:2])
    target[: rows.start] = 0
    target[rows.stop :] = 0
    target[rows, : columns.start] = 0
    target[rows, columns.stop :] = 0
    target[rows, columns] = image


def letterbox(images: np.ndarray, outer: Size) -> np.ndarray:
    """Return (B, *outer, 3) uint8 of (B, H, W, 3) uint8, scaled by area averaging as decoded frames are."""
    size = (images.shape[1], images.shape[2])
    if size == outer:
        return images
    inner = inner_size(size, outer)
    result = np.zeros((len(images), *outer, 3), np.uint8)
    for picture, target in zip(images, result, strict=True):
        target[place(inner, outer)] = picture if inner == size else _scaled(picture, inner)
    return result


def _scaled(image: np.ndarray, size: Size) -> np.ndarray:
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    scaled = frame.reformat(width=size[1], height=size[0], interpolation=Interpolation.AREA)
    return scaled.to_ndarray(format="rgb24")
