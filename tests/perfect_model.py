"""What a perfect model sees in pictures of the recordings of ``synthetic.py``, and what it says to each protocol."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from openai_server import Request

LONGEST = 1.2  # the furthest that a synthetic square starts from its goal


def decoded(url: str) -> np.ndarray:
    """Return the picture of a data URL, (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


def progress_of(picture: np.ndarray) -> float:
    """Return how near the red square is to the green goal: 1 - distance / LONGEST, in [0, 1].

    The colours may have been through a video codec. Where the square covers a part of the goal, the goal's middle is
    taken from what is seen of both.
    """
    red, green, blue = np.moveaxis(picture.astype(int), 2, 0)
    square = (red > 140) & (green < 120) & (blue < 120)
    goal = (green > 130) & (red < 120)
    if not square.any() or not goal.any():
        return 1.0 if square.any() else 0.0
    distance = np.linalg.norm(_middle(square) - _middle(goal)) * 2 / (len(picture) - 1)
    return float(np.clip(1 - distance / LONGEST, 0, 1))


def _middle(mask: np.ndarray) -> np.ndarray:
    places = np.argwhere(mask)
    return (places.min(axis=0) + places.max(axis=0)) / 2


def right_answer(request: Request) -> str:
    """Return what a perfect model says to each protocol, told apart by the words of its prompt."""
    text, progress = request.text, request.progress
    if "True or False" in text:
        return str(progress[-1] > 0.5)
    if "number from 1 to 5" in text:
        return str(1 + round(4 * progress[-1]))
    if "signed number" in text:
        middle = len(progress) // 2  # two moments, seen by every camera
        return f"{round(100 * (np.mean(progress[middle:]) - np.mean(progress[:middle]))):+d}"
    if found := re.search(r"one for each numbered frame \((\d+) in all\)", text):
        return json.dumps(_percents(progress, int(found[1])))
    return json.dumps([round(100 * value) for value in progress])


def _percents(progress: Sequence[float], moments: int) -> list[int]:
    """Of every moment, after the start that was shown first: the part of the way from there that is done."""
    cameras = len(progress) // (moments + 1)
    start, *seen = np.mean(np.reshape(progress, (moments + 1, cameras)), axis=1).tolist()
    return [round(100 * max(0.0, value - start) / (1 - start)) for value in seen]
