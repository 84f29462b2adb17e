"""One to five for how an episode ended (RoboReward), (grade - 1) / 4 as progress of its last frame.

Nothing is said of the frames before, unless each is judged from what led up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from robolift.annotators.labeller import CAUSAL_PREFIX, Labeller
from robolift.annotators.messages import Answer, Question
from robolift.annotators.prompts import Prompt
from robolift.annotators.protocol import Anchor, Look, ParseError, Scene, all_of, number_in, parts, spoken
from robolift.annotators.sampling import moments, prefixes

VERSION = "v1"
CAUSAL = True
NEEDS_HEADS = False
MIN_LENGTH = 1

LOWEST, HIGHEST = 1, 5


def looks(labeller: Labeller, length: int) -> list[Look]:
    """Return one look at the whole episode, or one a growing part; each judges its last frame."""
    causal = labeller.sampling == CAUSAL_PREFIX
    shown = prefixes(labeller, length) if causal else [moments(length, labeller.max_frames)]
    return [Look(frames=frames, judged=frames[-1:]) for frames in shown]


def answer_tokens(_look: Look) -> int:
    """Return about how long a grade is."""
    return 2


def question(prompt: Prompt, scene: Scene, look: Look) -> Question:
    """Ask for the grade of the last moment."""
    return Question(parts=parts(prompt, scene, look), system=prompt.fill("system", task=scene.task))


def parse(answer: Answer, look: Look) -> tuple[Anchor, ...]:
    """Return the grade as score, (grade - 1) / 4 as progress.

    Raises:
        ParseError: If the answer is anything but a whole number from 1 to 5.
    """
    grade = number_in(spoken(answer).rstrip("."), LOWEST, HIGHEST)
    if not grade.is_integer():
        raise ParseError(f"{grade:g} is not a whole number")
    return (Anchor(frame_index=look.judged[0], score=grade, progress=(grade - LOWEST) / (HIGHEST - LOWEST)),)


def anchors(readings: Sequence[tuple[Anchor, ...]]) -> list[Anchor]:
    """Return an anchor a grade; the last frame's is the probability of success too."""
    found = all_of(readings)
    return [*found[:-1], replace(found[-1], success_prob=found[-1].progress)]
