"""A model's own progress and success heads, read behind the pictures of each moment (Robometer)."""

from __future__ import annotations

from collections.abc import Sequence

from robolift.annotators.labeller import CAUSAL_PREFIX, Labeller
from robolift.annotators.messages import Answer, Question
from robolift.annotators.prompts import Prompt
from robolift.annotators.protocol import Anchor, Look, ParseError, Scene, all_of, parts
from robolift.annotators.sampling import moments, prefixes

VERSION = "v1"
CAUSAL = True
NEEDS_HEADS = True
MIN_LENGTH = 1


def looks(labeller: Labeller, length: int) -> list[Look]:
    """Return one look that judges all its moments, or one a growing part that judges the part's last frame."""
    if labeller.sampling == CAUSAL_PREFIX:
        parts_seen = [(frames, frames[-1:]) for frames in prefixes(labeller, length)]
    else:
        frames = moments(length, labeller.max_frames)
        parts_seen = [(frames, frames)]
    return [Look(frames=shown, judged=judged, num_cameras=len(labeller.cameras)) for shown, judged in parts_seen]


def answer_tokens(_look: Look) -> int:
    """Return the length of an answer: nothing is generated."""
    return 0


def question(prompt: Prompt, scene: Scene, look: Look) -> Question:
    """Ask for the heads' values."""
    return Question(
        parts=parts(prompt, scene, look), system=prompt.fill("system", task=scene.task), max_tokens=0, wants_heads=True
    )


def parse(answer: Answer, look: Look) -> tuple[Anchor, ...]:
    """Return progress and success of the frames judged.

    Of a moment's pictures the last one's value counts: behind it the model has seen all cameras.

    Raises:
        ParseError: If there are not as many values as pictures, or one is outside [0, 1].
    """
    progress = _by_moment(answer.progress, "progress", look)
    success = _by_moment(answer.success, "success", look) if answer.success else [None] * len(look.frames)
    return tuple(
        Anchor(frame_index=frame, score=value, progress=value, success_prob=chance)
        for frame, value, chance in zip(look.frames, progress, success, strict=True)
        if frame in look.judged
    )


def _by_moment(values: Sequence[float], name: str, look: Look) -> list[float]:
    pictures = len(look.frames) * look.num_cameras
    if len(values) != pictures:
        raise ParseError(f"there are {len(values)} values of {name}, and {pictures} pictures")
    if wrong := [value for value in values if not 0 <= value <= 1]:
        raise ParseError(f"{name} {wrong[0]:g} is not between 0 and 1")
    return list(values[look.num_cameras - 1 :: look.num_cameras])


def anchors(readings: Sequence[tuple[Anchor, ...]]) -> list[Anchor]:
    """Return an anchor a moment."""
    return all_of(readings)
