"""A question as tokens and picture patches of the Qwen-VL family (Qwen2-VL to Qwen3-VL, Cosmos-Reason2).

transformers' own processors want torchvision for the videos that we never show; the part for pictures is short. A
picture stands as one token in the chat template's text and is widened to as many as its patches need.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from robolift.annotators.messages import Part, Picture, Question
from robolift.annotators.transports.chat import turns
from robolift.errors import DataError, UsageError


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the model is given for one question of L tokens and n pictures.

    Attributes:
        input_ids: (L,) int64.
        is_picture: (L,) int64, 1 where a token stands for patches of a picture (``mm_token_type_ids``).
        patches: (P, D) float32, of all pictures; None without any.
        grids: (n, 3) int64, patches of each picture along time, height and width.
    """

    input_ids: npt.NDArray[np.int64]
    is_picture: npt.NDArray[np.int64]
    patches: npt.NDArray[np.float32] | None
    grids: npt.NDArray[np.int64]

    @property
    def shape(self) -> tuple[Any, ...]:
        """Prompts of one shape can be computed at once with nothing filled up."""
        return (len(self.input_ids), self.is_picture.tobytes(), self.grids.tobytes())


@dataclass(frozen=True, kw_only=True)
class Prompter:
    """Turns questions into prompts.

    Attributes:
        tokenizer: Of transformers.
        image_processor: Of transformers, Pillow's variant.
        image_token: Stands for a picture in the chat template's text.
        image_token_id: The same as a number.
        template: Chat template.
    """

    tokenizer: Any
    image_processor: Any
    image_token: str
    image_token_id: int
    template: str

    def prompt(self, question: Question, *, behind_pictures: str = "") -> Prompt:
        """Return what the model is given.

        Args:
            question: Any.
            behind_pictures: Token set behind each picture, where heads are read.

        Raises:
            UsageError: If the words hold a token that is a mark of the model's own.
        """
        self._check_words(question)
        pictures = [part for part in question.parts if isinstance(part, Picture)]
        earlier = tuple((self._unmarked(answer), self._unmarked(said)) for answer, said in question.earlier)
        question = replace(question, earlier=earlier)
        text = self.tokenizer.apply_chat_template(
            [{"role": role, "content": _content(role, parts, behind_pictures)} for role, parts in turns(question)],
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        patches, grids = self._patches(pictures)
        pieces = text.split(self.image_token)
        if len(pieces) != len(pictures) + 1:
            raise UsageError(
                f"{len(pictures)} pictures but {len(pieces) - 1} times {self.image_token} in the question; "
                "the chat template is not one that shows pictures: use the one that came with the model"
            )
        widths = grids.prod(axis=1) // self.image_processor.merge_size**2
        wide = [self.image_token * int(width) for width in widths]
        text = "".join(piece + picture for piece, picture in zip(pieces, [*wide, ""], strict=True))
        ids = np.array(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int64)
        is_picture = (ids == self.image_token_id).astype(np.int64)
        return Prompt(input_ids=ids, is_picture=is_picture, patches=patches, grids=grids)

    @cached_property
    def _marks(self) -> tuple[str, ...]:
        """Texts that become one token wherever they stand: ends of turns, places of pictures and the like."""
        return tuple(str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)

    def _check_words(self, question: Question) -> None:
        for text in (question.system, *(part for part in question.parts if isinstance(part, str))):
            if found := [mark for mark in self._marks if mark in text]:
                raise UsageError(
                    f"the question's words hold {found[0]}, which the model takes for a mark of its own and not for "
                    f"words: {text.strip()[:200]!r}; take it out of the task's text or the prompt"
                )

    def _unmarked(self, text: str) -> str:
        """Return what was said before, with marks as words: a model may begin its answer with one."""
        for mark in self._marks:
            text = text.replace(mark, mark.strip("<|>"))
        return text

    def _patches(self, pictures: Sequence[Picture]) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.int64]]:
        if not pictures:
            return None, np.zeros((0, 3), np.int64)
        images = [Image.fromarray(np.ascontiguousarray(picture.pixels)) for picture in pictures]
        seen = self.image_processor(images=images, return_tensors="np")
        return np.asarray(seen["pixel_values"], np.float32), np.asarray(seen["image_grid_thw"], np.int64)


def _content(role: str, parts: tuple[Part, ...], behind_pictures: str) -> str | list[dict[str, str]]:
    if role != "user":
        return "".join(part for part in parts if isinstance(part, str))
    content: list[dict[str, str]] = []
    for part in parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
            continue
        content.append({"type": "image"})
        if behind_pictures:
            content.append({"type": "text", "text": behind_pictures})
    return content


def chat_template(folder: Path, tokenizer: Any) -> str:
    """Return the template for pictures: that of the processor where an older folder keeps one apart.

    Raises:
        DataError: If there is none.
    """
    apart = folder / "chat_template.json"
    template = json.loads(apart.read_bytes())["chat_template"] if apart.exists() else tokenizer.chat_template
    if not isinstance(template, str):
        raise DataError(
            "a model without a chat template",
            where=str(folder),
            expected="chat_template.jinja, or one in tokenizer_config.json",
            mend="use the model that was tuned for instructions, or copy its template",
        )
    return template
