"""A question as turns of a conversation and as an OpenAI-compatible server's request, and its answer read back."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from robolift.annotators.messages import WITHHELD, Answer, Part, Picture, Question

REQUEST_VERSION = 1
"""Of the form of a request: format of pictures, turns, sampling, candidates. Answers to another form are not reused."""
TOP_LOGPROBS = 20
SEED = 0
THINKING = "chat_template_kwargs"

_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)


def turns(question: Question) -> list[tuple[str, tuple[Part, ...]]]:
    """Return (role, parts) of each turn; an answer given before is followed by what was wrong with it."""
    said: list[tuple[str, tuple[Part, ...]]] = [("system", (question.system,))] if question.system else []
    said.append(("user", question.parts))
    for answer, complaint in question.earlier:
        said += [("assistant", (answer,)), ("user", (complaint,))]
    return said


def request_body(question: Question, *, model: str) -> dict[str, Any]:
    """Return the JSON of ``POST /chat/completions``; the same question gives the same bytes.

    Answers are greedy. Thinking is switched off where the model's chat template knows the switch (vLLM, SGLang): the
    first token must be the answer's, and thoughts would be paid for and thrown away.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": role, "content": _content(role, parts)} for role, parts in turns(question)],
        "temperature": 0,
        "seed": SEED,
        "max_tokens": 1 if question.wants_logprobs else question.max_tokens,
        THINKING: {"enable_thinking": False},
    }
    if question.wants_logprobs:
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    return body


def _content(role: str, parts: tuple[Part, ...]) -> str | list[dict[str, Any]]:
    if role != "user":
        return "".join(part for part in parts if isinstance(part, str))
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(part)}}
        for part in parts
    ]


def data_url(picture: Picture) -> str:
    """Return a picture as a JPEG data URL, of quality 95 with colours at full resolution.

    Recordings come out of lossy videos already. PNG would be six times as large, which is beyond what many servers take
    for a long episode, and cost fifteen times the work.
    """
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture.pixels)).save(file, "JPEG", quality=95, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def answer_of(completion: Any) -> Answer:
    """Read a chat completion.

    Args:
        completion: Parsed by the ``openai`` package, or anything with the same attributes.

    Raises:
        ValueError: If it is no chat completion.
    """
    try:
        choice, usage = completion.choices[0], getattr(completion, "usage", None)
        tokens = [_count(getattr(usage, name, None)) for name in ("prompt_tokens", "completion_tokens")]
        finish_reason = str(getattr(choice, "finish_reason", None) or "")
        if finish_reason == WITHHELD:
            return Answer(finish_reason=WITHHELD, input_tokens=tokens[0], output_tokens=tokens[1])
        if choice.message is None:
            raise TypeError("no message")
        first = getattr(getattr(choice, "logprobs", None), "content", None) or []
        tops = getattr(first[0], "top_logprobs", None) or [] if first else []
        return Answer(
            text=without_thoughts(_text(getattr(choice.message, "content", None))),
            logprobs=candidates((_name(top.token), float(top.logprob)) for top in tops),
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            finish_reason=finish_reason,
        )
    except (AttributeError, TypeError, IndexError, KeyError) as error:
        raise ValueError(f"an answer that lacks a part: {error}") from error


def _text(content: object) -> str:
    """Return the words of a message, which some servers cut into parts."""
    if not isinstance(content, list):
        return "" if content is None else _name(content)
    return "".join(_name(part["text"]) for part in content if part.get("type", "text") == "text")


def _name(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{str(text)[:80]!r} is no text")
    return text


def _count(tokens: object) -> int | None:
    """Return a count of tokens; one that is no number is as good as not told."""
    digits = str(tokens)
    return int(digits) if digits.isascii() and digits.isdigit() else None


def candidates(tokens: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return log-probabilities by token text; tokens that read alike are one candidate, their probabilities added."""
    found: dict[str, float] = {}
    for text, logprob in tokens:
        if math.isfinite(logprob):
            found[text] = float(np.logaddexp(found[text], logprob)) if text in found else float(logprob)
    return found


def without_thoughts(text: str) -> str:
    """Return ``text`` without ``<think>`` blocks, closed, cut off, or opened by the chat template alone."""
    _, closed, rest = text.rpartition("</think>") if "<think>" not in text else ("", "", text)
    return _THOUGHTS.sub("", rest if closed else text).strip()
