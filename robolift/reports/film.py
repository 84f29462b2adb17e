"""Film strips: a few frames of an episode, and which episodes to show."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.errors import UsageError
from robolift.reports.frames import FrameFacts

JPEG_QUALITY = 82


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One frame of a strip."""

    frame: int
    data_uri: str
    is_human: bool


@dataclass(frozen=True, kw_only=True)
class Example:
    """An episode to show, and why."""

    kind: str
    title: str
    episode: int


def pick_examples(frames: FrameFacts, held_out: NDArray[np.int64] | None) -> list[Example]:
    """Pick one success, one failure and one corrected episode by a fixed rule; kinds that are absent are left out.

    Of each kind the episode of median length is taken, the first of equals, among rollouts that the value model was
    not trained on where there are such.
    """
    human = frames.control_mode == schema.CONTROL_MODES.index("correcting")
    corrected = np.logical_or.reduceat(human, frames.starts[:-1])
    outcome = frames.outcome[frames.starts[:-1]]
    rollout = np.asarray(frames.episodes.column("kind").to_pylist(), dtype=object) == "rollout"
    unseen = np.zeros(frames.num_episodes, dtype=bool)
    unseen[held_out if held_out is not None else []] = True
    success = outcome == schema.OUTCOMES.index("success")
    failure = outcome == schema.OUTCOMES.index("failure")
    kinds = (
        ("success", "A success", success & ~corrected),
        ("failure", "A failure", failure & ~corrected),
        ("corrected", "A corrected episode", corrected),
    )
    examples = []
    for kind, title, fits in kinds:
        # From the narrowest wish to the widest, the first that has any episode.
        wishes = (fits & rollout & unseen, fits & rollout, fits)
        chosen = next((np.flatnonzero(wish) for wish in wishes if wish.any()), None)
        if chosen is not None:
            examples.append(Example(kind=kind, title=title, episode=_median_length(frames, chosen)))
    return examples


def _median_length(frames: FrameFacts, episodes: NDArray[np.int64]) -> int:
    lengths = np.diff(frames.starts)[episodes]
    order = np.argsort(lengths, kind="stable")
    middle = lengths[order[(len(order) - 1) // 2]]
    return int(episodes[np.flatnonzero(lengths == middle)[0]])


def choose_camera(dataset: Dataset, camera: str) -> str | None:
    """Return the camera to show: ``camera``, or the dataset's first if it is empty; None without any.

    Raises:
        UsageError: If the dataset has no such camera.
    """
    if camera and camera not in dataset.cameras:
        raise UsageError(f"camera {camera!r} is not in the dataset; it has: {', '.join(dataset.cameras) or 'none'}")
    return camera or next(iter(dataset.cameras), None)


def film_strip(
    dataset: Dataset, frames: FrameFacts, episode: int, camera: str, *, num_pictures: int, height: int
) -> list[Picture]:
    """Decode an episode once and return evenly spaced frames, each from the middle of its part of the episode."""
    human = frames.control_mode[frames.rows(episode)] == schema.CONTROL_MODES.index("correcting")
    return episode_strip(dataset, episode, camera, human, num_pictures=num_pictures, height=height)


def episode_strip(
    dataset: Dataset, episode: int, camera: str, is_human: NDArray[np.bool_], *, num_pictures: int, height: int
) -> list[Picture]:
    """Decode an episode and return evenly spaced frames at most ``height`` pixels high.

    Args:
        dataset: Where the episode is.
        episode: Its number.
        camera: A camera of the dataset.
        is_human: (T,) whether a person was correcting.
        num_pictures: How many, fewer where the episode has fewer frames.
        height: Pixels, at most the camera's own.
    """
    native = dataset.image_size(camera)
    size = (min(height, native[0]), max(round(min(height, native[0]) * native[1] / native[0]), 1))
    return pictures(dataset.video(episode, camera, size=size), is_human, num_pictures=num_pictures)


def pictures(video: Iterable[NDArray[np.uint8]], is_human: NDArray[np.bool_], *, num_pictures: int) -> list[Picture]:
    """Return evenly spaced frames of a video, each from the middle of its part.

    Args:
        video: T frames, (H, W, 3); read to the end, since one that is too short must be an error and no shorter strip.
        is_human: (T,) whether a person was correcting.
        num_pictures: How many, fewer where the video has fewer frames.
    """
    length = len(is_human)
    wanted = {int((i + 0.5) * length / num_pictures) for i in range(num_pictures)} if length > num_pictures else None
    return [
        Picture(frame=frame, data_uri=jpeg_uri(image), is_human=bool(is_human[frame]))
        for frame, image in enumerate(video)
        if wanted is None or frame in wanted
    ]


def jpeg_uri(image: NDArray[np.uint8]) -> str:
    """Return an (H, W, 3) image as a ``data:`` address that needs no file beside the page."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
