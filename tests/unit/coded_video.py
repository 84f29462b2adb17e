"""Images that say which frame of which episode they are, readable after lossy compression."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BITS = 16
SIZE = (32, 64)


def coded_image(episode: int, frame: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Sixteen black or white bars: the frame's number in the upper half, the episode's in the lower."""
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    bar = width // BITS
    for bit in range(BITS):
        columns = slice(bit * bar, (bit + 1) * bar)
        image[: height // 2, columns] = 230 * (frame >> bit & 1)
        image[height // 2 :, columns] = 230 * (episode >> bit & 1)
    return image


def read_code(image: np.ndarray) -> tuple[int, int]:
    """Return (episode, frame) of an image of any size."""
    height, width = image.shape[:2]
    bar = width // BITS
    codes = []
    for rows in (slice(height // 2, height), slice(0, height // 2)):
        levels = [image[rows, bit * bar : (bit + 1) * bar].mean() for bit in range(BITS)]
        codes.append(sum((level > 115) << bit for bit, level in enumerate(levels)))
    return codes[0], codes[1]


def coded_frames(episode: int, length: int, size: tuple[int, int] = SIZE) -> Iterator[np.ndarray]:
    for frame in range(length):
        yield coded_image(episode, frame, size)
