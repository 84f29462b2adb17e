"""Signed percent of the task between neighbouring moments, added up (VLAC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from robolift.annotators.labeller import Labeller
from robolift.annotators.messages import Answer, Question
from robolift.annotators.prompts import Prompt
from robolift.annotators.protocol import Anchor, Look, Scene, all_of, number_in, parts, spoken
from robolift.annotators.sampling import moments

VERSION = "v1"
CAUSAL = False
NEEDS_HEADS = False
MIN_LENGTH = 2


def looks(labeller: Labeller, length: int) -> list[Look]:
    """Return a look a pair of neighbouring moments; each judges the later one."""
    return [Look(frames=pair, judged=pair[1:]) for pair in pairwise(moments(length, labeller.max_frames))]


def answer_tokens(_look: Look) -> int:
    """Return about how long a signed number is."""
    return 4


def question(prompt: Prompt, scene: Scene, look: Look) -> Question:
    """Ask for the change from the earlier moment to the later one."""
    return Question(parts=parts(prompt, scene, look), system=prompt.fill("system", task=scene.task))


def parse(answer: Answer, look: Look) -> tuple[Anchor, ...]:
    """Return the change, in percent, as score of the later moment.

    Raises:
        ParseError: If the answer is anything but a number from -100 to 100.
    """
    text = spoken(answer).rstrip(".").removesuffix("%").rstrip()
    return (Anchor(frame_index=look.judged[0], score=number_in(text, -100, 100)),)


def anchors(readings: Sequence[tuple[Anchor, ...]]) -> list[Anchor]:
    """Return progress as the sum of all changes up to a moment, from 0 at the first frame on, clipped to [0, 1]."""
    found = [Anchor(frame_index=0, score=0.0, asked=False), *all_of(readings)]
    progress = np.clip(np.cumsum([anchor.score for anchor in found]) / 100, 0, 1)
    return [replace(anchor, progress=float(value)) for anchor, value in zip(found, progress, strict=True)]
