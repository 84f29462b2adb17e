"""Percent of the task that is done, of frames shown out of order (GVL, ICLR 2025).

In order, a model would count up and never look. The first frame is given as 0 percent; the others are shuffled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np

from robolift.annotators.labeller import CAUSAL_PREFIX, Labeller
from robolift.annotators.messages import Answer, Question
from robolift.annotators.prompts import Prompt
from robolift.annotators.protocol import Anchor, Look, ParseError, Scene, all_of, number_in, parts, spoken
from robolift.annotators.sampling import moments, prefixes

VERSION = "v1"
CAUSAL = True
NEEDS_HEADS = False
MIN_LENGTH = 2

NUMBERED = re.compile(r"(?:frame\s+)?(\d{1,6})\s*[:.)]\s*([+-]?\d+(?:\.\d+)?)\s*%?", re.IGNORECASE | re.ASCII)


def looks(labeller: Labeller, length: int) -> list[Look]:
    """Return one look at the whole episode, or one a growing part, which then judges the part's last frame alone."""
    if labeller.sampling == CAUSAL_PREFIX:
        # The part that is the first frame alone asks nothing.
        return [
            Look(frames=_shuffled(frames, labeller.seed), judged=frames[-1:])
            for frames in prefixes(labeller, length)[1:]
        ]
    frames = moments(length, labeller.max_frames)
    return [Look(frames=_shuffled(frames, labeller.seed), judged=frames[1:])]


def _shuffled(frames: tuple[int, ...], seed: int) -> tuple[int, ...]:
    order = np.random.default_rng([seed, *frames]).permutation(len(frames) - 1)
    return (frames[0], *(frames[1 + place] for place in order.tolist()))


def answer_tokens(look: Look) -> int:
    """Return about how long a list of percents is."""
    return 4 * len(look.frames)


def question(prompt: Prompt, scene: Scene, look: Look) -> Question:
    """Ask for the percents of all frames but the first."""
    return Question(
        parts=parts(prompt, scene, look),
        system=prompt.fill("system", task=scene.task),
        max_tokens=256 + 16 * len(look.frames),
    )


def parse(answer: Answer, look: Look) -> tuple[Anchor, ...]:
    """Return the percents of the frames judged, put back into order.

    Raises:
        ParseError: If there are too few or too many, or one is not between 0 and 100.
    """
    text = spoken(answer)
    percents = _listed(text) if text.startswith("[") else _numbered(text)
    asked = look.frames[1:]
    if len(percents) != len(asked):
        raise ParseError(f"percents given: {len(percents)}, numbered frames: {len(asked)}")
    found = [
        Anchor(frame_index=frame, score=percent, progress=percent / 100)
        for frame, percent in zip(asked, percents, strict=True)
        if frame in look.judged
    ]
    return tuple(sorted(found, key=lambda anchor: anchor.frame_index))


def _listed(text: str) -> list[float]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError("the answer is not a JSON list") from error
    for value in values:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ParseError(f"{str(value)[:80]!r} is not a number")
        if not 0 <= value <= 100:
            raise ParseError(f"{str(value)[:80]} is not between 0 and 100")
    return [float(value) for value in values]


def _numbered(text: str) -> list[float]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [NUMBERED.fullmatch(line) for line in lines]
    percents = []
    for number, (line, match) in enumerate(zip(lines, found, strict=True), start=1):
        if match is None or int(match[1]) != number:
            raise ParseError(f"{line[:80]!r} is neither a JSON list nor the percent of Frame {number}")
        percents.append(number_in(match[2], 0, 100))
    return percents


def anchors(readings: Sequence[tuple[Anchor, ...]]) -> list[Anchor]:
    """Return an anchor a frame; the first is the 0 percent that the model was told."""
    return [Anchor(frame_index=0, score=0.0, progress=0.0, asked=False), *all_of(readings)]
