"""How probable a model calls the task done after growing parts of an episode (TOPReward).

The value of a part that ends at t is log P("True") of the first token of the answer. It is kept raw: scaled by episode,
as the public port does it, a failure's end could become 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from robolift.annotators.labeller import Labeller
from robolift.annotators.messages import Answer, Question
from robolift.annotators.prompts import Prompt
from robolift.annotators.protocol import Anchor, Look, ParseError, Scene, all_of, check_given, parts
from robolift.annotators.sampling import prefixes

VERSION = "v1"
CAUSAL = True
NEEDS_HEADS = False
MIN_LENGTH = 1

FLOOR = 0.5
"""Least probability of True and False together. Below it the model was about to say something else, such as its
thoughts, and how the little that is left falls to the two words means nothing."""
SMALLEST = 1e-12
"""No probability is taken for less: a softmax in single precision can't tell it from 0."""
SPELLING = " \t\n\r\u2581\u0120\"'.`*"
"""What may stand around the word in a token, tokenizers' marks of a space among it."""


def looks(labeller: Labeller, length: int) -> list[Look]:
    """Return a look a growing part of the episode; each judges the part's last frame."""
    return [Look(frames=frames, judged=frames[-1:]) for frames in prefixes(labeller, length)]


def answer_tokens(_look: Look) -> int:
    """Return the length of an answer: one token."""
    return 1


def question(prompt: Prompt, scene: Scene, look: Look) -> Question:
    """Ask whether the task is done."""
    return Question(
        parts=parts(prompt, scene, look),
        system=prompt.fill("system", task=scene.task),
        max_tokens=1,
        wants_logprobs=True,
    )


def parse(answer: Answer, look: Look) -> tuple[Anchor, ...]:
    """Return log P("True") as score, P("True") / (P("True") + P("False")) as progress, their sum as confidence.

    A word's probability is the sum over its spellings (``True``, `` true``, ...). A word that is not listed is no more
    probable than the least probable candidate, and than what the candidates leave over: the smaller of the two counts.

    Raises:
        ParseError: If the words that are listed have less than ``FLOOR`` of the probability, or none came through.
    """
    check_given(answer)
    if any(math.isnan(value) or value > 1e-3 for value in answer.logprobs.values()):
        raise ParseError("the candidates' numbers are no logarithms of probabilities")
    true, false = _probability(answer, "true"), _probability(answer, "false")
    if (both := (true or 0.0) + (false or 0.0)) < FLOOR:
        raise _other_word(answer, both)
    candidates = [math.exp(value) for value in answer.logprobs.values()]
    bound = min(*candidates, 1.0 - sum(candidates), 1.0)
    true, false = (max(bound if value is None else value, SMALLEST) for value in (true, false))
    return (
        Anchor(
            frame_index=look.judged[0],
            score=math.log(true),
            progress=true / (true + false),
            confidence=min(true + false, 1.0),
        ),
    )


def _other_word(answer: Answer, both: float) -> ParseError:
    likeliest = max(answer.logprobs, key=lambda token: answer.logprobs[token], default="")
    return ParseError(
        f"the first word is neither True nor False, but most likely {likeliest[:80]!r} "
        f"(True and False together have a probability of {both:.2g}, at least {FLOOR:g} is needed)",
        mend="if the model thinks before it answers, switch thinking off at the server, or choose protocol rubric",
    )


def _probability(answer: Answer, word: str) -> float | None:
    found = [value for token, value in answer.logprobs.items() if token.strip(SPELLING).lower() == word]
    return sum(math.exp(value) for value in found) if found else None


def anchors(readings: Sequence[tuple[Anchor, ...]]) -> list[Anchor]:
    """Return an anchor a part; the last, which saw the whole episode, says how it ended."""
    found = all_of(readings)
    return [*found[:-1], replace(found[-1], success_prob=found[-1].progress)]
