"""What every protocol offers: which moments it shows, what it asks, what an answer means."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from robolift.annotators.labeller import Labeller
from robolift.annotators.messages import WITHHELD, Answer, Part, Picture, Question
from robolift.annotators.prompts import Prompt

THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
OPEN_THOUGHTS = re.compile(r"<think>.*", re.DOTALL)
FENCE = re.compile(r"^```[a-z]*\n(.*?)\n?```$", re.DOTALL)


class ParseError(ValueError):
    """An answer that is not of the form asked for; its text says what was wrong, in words a model understands.

    Args:
        problem: That text.
        mend: What a user can do where models go on answering so; a model is not told.
    """

    def __init__(self, problem: str, *, mend: str = "") -> None:
        super().__init__(problem)
        self.mend = mend


@dataclass(frozen=True, kw_only=True)
class Look:
    """The moments that one question shows.

    Attributes:
        frames: Frame numbers in the order shown.
        judged: Those of them that the answer speaks of.
        num_cameras: Pictures a moment, for a protocol whose answer has a value a picture.
    """

    frames: tuple[int, ...]
    judged: tuple[int, ...]
    num_cameras: int = 1


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """What an answer says of one frame; None: nothing.

    Attributes:
        frame_index: The frame.
        score: As the protocol measures it: log P("True"), percent, 1 to 5, signed percent, a head's value.
        progress: The same as progress before any calibration, in [0, 1].
        success_prob: How probable it is that the episode ends in success.
        confidence: How far the answer can be relied on, in [0, 1].
        asked: False where the model was told the value, and not asked: progress begins there, and nothing is measured.
    """

    frame_index: int
    score: float | None = None
    progress: float | None = None
    success_prob: float | None = None
    confidence: float | None = None
    asked: bool = True


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What can be shown of an episode.

    Attributes:
        task: Its task text.
        cameras: Cameras in the order they are shown at each moment.
        pictures: (H, W, 3) uint8 RGB by (frame number, camera).
    """

    task: str
    cameras: tuple[str, ...]
    pictures: Mapping[tuple[int, str], npt.NDArray[np.uint8]]


class LabelProtocol(Protocol):
    """A module of :mod:`robolift.annotators.protocols`.

    Attributes:
        VERSION: Of its questions; another one asks everything again.
        CAUSAL: Whether each moment can be judged from the frames up to it.
        NEEDS_HEADS: Whether it reads a model's own heads, which no server gives out.
        MIN_LENGTH: Frames an episode must have.
    """

    VERSION: str
    CAUSAL: bool
    NEEDS_HEADS: bool
    MIN_LENGTH: int

    def looks(self, labeller: Labeller, length: int) -> list[Look]:
        """Return the moments of each question about an episode of ``length`` frames."""

    def answer_tokens(self, look: Look) -> int:
        """Return about how many tokens a good answer has, for the estimate."""

    def question(self, prompt: Prompt, scene: Scene, look: Look) -> Question:
        """Return the question about some moments."""

    def parse(self, answer: Answer, look: Look) -> tuple[Anchor, ...]:
        """Return what an answer says of the frames judged, in order of time.

        Raises:
            ParseError: If it is not exactly of the form asked for. Nothing is guessed.
        """

    def anchors(self, readings: Sequence[tuple[Anchor, ...]]) -> list[Anchor]:
        """Put together what all answers about an episode say, in order of time."""


def parts(prompt: Prompt, scene: Scene, look: Look) -> tuple[Part, ...]:
    """Return words and pictures of a question: interleaved by moment first, then by camera.

    Shown camera after camera, models say yes to what has not happened; moment after moment they hardly do
    (strands-labs/robots #2486). Where the prompt has a ``reference`` section, the first moment stands under that and
    the others are counted from 1. Words end with a line: some chat templates put parts together with nothing between.
    """
    reference, moments = split(prompt, look)
    words: dict[str, str | int] = {"task": scene.task, "num_frames": len(moments)}
    made: list[Part] = [prompt.fill("opening", **words)]
    for frame in reference:
        for camera in scene.cameras:
            made += [prompt.fill("reference", camera=short_name(camera)), picture(scene, frame, camera)]
    for number, frame in enumerate(moments, start=1):
        for camera in scene.cameras:
            made += [prompt.fill("moment", number=number, camera=short_name(camera)), picture(scene, frame, camera)]
    made.append(prompt.fill("closing", **words))
    return tuple(f"{part}\n" if isinstance(part, str) else part for part in made if part != "")


def split(prompt: Prompt, look: Look) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the moments that stand under ``reference``, if the prompt has that, and those that are numbered."""
    given = 1 if "reference" in prompt.sections else 0
    return look.frames[:given], look.frames[given:]


def picture(scene: Scene, frame: int, camera: str) -> Picture:
    """Return the picture of a moment as part of a question."""
    return Picture(pixels=scene.pictures[frame, camera])


def short_name(camera: str) -> str:
    """Return the name of a camera without the feature's prefix."""
    return camera.removeprefix("observation.images.")


def all_of(readings: Sequence[tuple[Anchor, ...]]) -> list[Anchor]:
    """Return the anchors of all answers in order of time."""
    return sorted((anchor for reading in readings for anchor in reading), key=lambda anchor: anchor.frame_index)


def spoken(answer: Answer) -> str:
    """Return an answer's text without thoughts, a code fence and blank ends.

    Raises:
        ParseError: If nothing is left, it was withheld or cut off, or did not come to an end of its own.
    """
    check_given(answer)
    text = THOUGHTS.sub("", answer.text)
    # A chat template may have opened the thoughts itself, and a model may never come to their end.
    text = OPEN_THOUGHTS.sub("", text.rpartition("</think>")[2]).strip()
    if fenced := FENCE.match(text):
        text = fenced[1].strip()
    if answer.finish_reason == "length":
        raise ParseError("the answer is too long and was cut off")
    if answer.finish_reason not in ("stop", ""):
        raise ParseError(f"the answer did not come to its end, but to {answer.finish_reason[:80]!r}")
    if not text:
        raise ParseError("the answer is empty")
    return text


def check_given(answer: Answer) -> None:
    """Check that a server's filter let the answer through.

    Raises:
        ParseError: If not.
    """
    if answer.finish_reason == WITHHELD:
        raise ParseError(
            "the answer was withheld by a content filter",
            mend="switch the filter off at the server, or leave the label to people",
        )


def number_in(text: str, low: float, high: float) -> float:
    """Return a number written in decimals.

    Raises:
        ParseError: If it is none, or outside [low, high].
    """
    if not re.fullmatch(r"[+-]?\d+(\.\d+)?", text, re.ASCII):
        raise ParseError(f"{text[:80]!r} is not a number")
    value = float(text)
    if not math.isfinite(value) or not low <= value <= high:
        raise ParseError(f"{text[:80]} is not between {low:g} and {high:g}")
    return value
