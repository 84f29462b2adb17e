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

from robolift.annotators.messages import Answer, Part, Picture, Question

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
    """Return a picture as a PNG data URL: the model sees the very pixels that its answer is stored under."""
    file = io.BytesIO()
    # Level 1 takes a quarter of the time of the default and makes photographs a few percent larger.
    Image.fromarray(np.ascontiguousarray(picture.pixels)).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def answer_of(completion: Any) -> Answer:
    """Read a chat completion.

    Args:
        completion: Parsed by the ``openai`` package, or anything with the same attributes.

    Raises:
        ValueError: If it is no chat completion.
    """
    choices = getattr(completion, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise ValueError("an answer without choices")
    choice, usage = choices[0], getattr(completion, "usage", None)
    first = getattr(getattr(choice, "logprobs", None), "content", None) or []
    return Answer(
        text=without_thoughts(choice.message.content or ""),
        logprobs=candidates((top.token, top.logprob) for top in first[0].top_logprobs or []) if first else {},
        input_tokens=getattr(usage, "prompt_tokens", None),
        output_tokens=getattr(usage, "completion_tokens", None),
        finish_reason=choice.finish_reason or "",
    )


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
