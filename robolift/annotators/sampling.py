"""Which moments of an episode a model is shown, and their pictures."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from robolift.annotators.labeller import Labeller
from robolift.data.dataset import Dataset

MIN_MOMENTS = 4
"""With several cameras and fewer moments, models say yes to what has not happened (strands-labs/robots #2486)."""

Pictures = dict[tuple[int, str], npt.NDArray[np.uint8]]


def moments(length: int, count: int) -> tuple[int, ...]:
    """Return frame numbers spread evenly over an episode, first and last among them.

    They are round(linspace(0, length - 1, count)), or all frames where there are no more than ``count``.

    Args:
        length: Frames of the episode, at least 1.
        count: Moments wanted, at least 2.

    Returns:
        min(length, count) frame numbers, ascending.
    """
    if length <= count:
        return tuple(range(length))
    return tuple(np.rint(np.linspace(0, length - 1, count)).astype(int).tolist())


def prefixes(labeller: Labeller, length: int) -> list[tuple[int, ...]]:
    """Return the moments of growing parts of an episode, each spread evenly from its first frame to the part's last.

    Returns:
        min(length, num_prefixes) parts of at most ``max_frames`` frame numbers; the first part is frame 0 alone.
    """
    return [moments(end + 1, labeller.max_frames) for end in moments(length, labeller.num_prefixes)]


def few_moments(labeller: Labeller) -> str:
    """Return a warning where several cameras are shown at too few moments, else an empty text."""
    shown = 2 if labeller.protocol == "pairwise" else labeller.max_frames
    if len(labeller.cameras) < 2 or shown >= MIN_MOMENTS:
        return ""
    return (
        f"{shown} moments are shown with {len(labeller.cameras)} cameras: models then often say yes to what has not "
        f"happened; show {MIN_MOMENTS} moments or more, or one camera"
    )


def scaled(size: tuple[int, int], image_side: int) -> tuple[int, int]:
    """Return (height, width) in pixels with the aspect kept and no side above ``image_side``; never larger."""
    longest = max(size)
    if longest <= image_side:
        return size
    height, width = (max(1, round(side * image_side / longest)) for side in size)
    return height, width


def read_pictures(dataset: Dataset, episode: int, labeller: Labeller, frames: Collection[int]) -> Pictures:
    """Read some frames of an episode from all cameras that are shown.

    Each video is decoded once, in order, no further than needed, and only the frames wanted are kept.

    Returns:
        (H, W, 3) uint8 RGB by (frame number, camera), scaled by averaging areas.

    Raises:
        DataError: If a video is missing, damaged or shorter than its table.
    """
    wanted, last = set(frames), max(frames)
    number, _ = dataset.locate(episode)
    found: Pictures = {}
    for camera in labeller.cameras:
        size = scaled(dataset.reader(number).image_size(camera), labeller.image_side)
        for frame, pixels in enumerate(dataset.video(episode, camera, size=size)):
            if frame in wanted:
                found[frame, camera] = pixels
            if frame == last:
                break
    return found
