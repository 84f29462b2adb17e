"""What travels between protocols and transports: a question of words and pictures, and a model's answer to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from robolift.errors import RoboliftError


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image of a question.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
    """

    pixels: npt.NDArray[np.uint8]


Part = str | Picture


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a model is asked at once.

    Attributes:
        parts: Words and pictures of the user's message, in reading order.
        system: The system message, maybe empty.
        max_tokens: Longest answer, in tokens.
        wants_logprobs: Whether the candidates of the first token of the answer are needed.
        wants_heads: Whether the model's progress and success heads are read behind each picture; no text is generated.
        earlier: (answer, what was wrong with it) of this question asked before; empty at first.
    """

    parts: tuple[Part, ...]
    system: str = ""
    max_tokens: int = 256
    wants_logprobs: bool = False
    wants_heads: bool = False
    earlier: tuple[tuple[str, str], ...] = ()


WITHHELD = "content_filter"
"""Why an answer ended that a server's filter of contents did not let through."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said; every field can be written as JSON and read back.

    Attributes:
        text: The answer, without a model's thoughts.
        logprobs: Natural logarithm of the probability of each candidate of the first token, by its text.
        progress: From a progress head, (pictures,), in [0, 1].
        success: From a success head, (pictures,), probabilities.
        input_tokens: Tokens of the question, None where the transport does not say.
        output_tokens: Tokens of the answer, likewise.
        finish_reason: Why it ended: ``stop``, ``length``, ``content_filter``; empty where not told.
    """

    text: str = ""
    logprobs: Mapping[str, float] = field(default_factory=dict)
    progress: tuple[float, ...] = ()
    success: tuple[float, ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str = ""


Heard = Callable[[int, Answer], object]
"""Is told of each answer when it comes, with the place of its question; several threads may do so at once."""


class TransportError(RoboliftError):
    """A question got no answer, and trying again later may help: the server is away, overloaded or too slow."""


class Transport(Protocol):
    """A way to a model; safe to call from several threads.

    Attributes:
        workers: How many episodes may be asked about at the same time.
        form: What else decides an answer than model and question: how it is computed, or the form of a request.
    """

    workers: int
    form: Mapping[str, str | int]

    def probe(self) -> None:
        """See whether there is anybody to ask, before work is put into questions.

        Raises:
            TransportError: If there is not, after all tries.
            UsageError: If it takes no questions from us.
        """

    def ask(self, questions: Sequence[Question], heard: Heard | None = None) -> list[Answer]:
        """Answer every question, in order; ``heard`` is told of each answer when it comes, before an error too.

        Raises:
            TransportError: If one got no answer after all tries.
            UsageError: If the model or server can't do what is asked for (no such model, no log-probabilities).
        """

    def close(self) -> None:
        """Let go of connections and memory."""
