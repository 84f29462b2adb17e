"""Prompts of a value model that reads text with a tokenizer: the task, then a line "Value:", as RECAP's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from robolift.data.tokenizer import Tokenizer
from robolift.errors import DataError
from robolift.labeling.prompt_formats import fit
from robolift.logging import get_logger
from robolift.value_model.presets import TokenModelConfig
from robolift.value_model.recipe import Recipe

FORMAT = "value"


class Prompts(NamedTuple):
    """What a model reads as its tasks.

    Attributes:
        tokens: Of every task's prompt, the one that begins a sequence first.
        tokenizer_sha256: Of the tokenizer that made them.
    """

    tokens: tuple[tuple[int, ...], ...]
    tokenizer_sha256: str


def tokenized(recipe: Recipe, config: TokenModelConfig, tasks: Sequence[str]) -> Prompts:
    """Return the prompts of all tasks, and say which tasks had to be shortened.

    Raises:
        UsageError: If there is no tokenizer where the recipe says.
        DataError: If it is another than expected or of another vocabulary, a prompt is too long, or two tasks have the
            same one.
    """
    tokenizer = Tokenizer.load(recipe.tokenizer, vocabulary=config.language.vocabulary, sha256=recipe.tokenizer_sha256)
    task_of: dict[tuple[int, ...], str] = {}
    for task in tasks:
        fitted = fit(
            FORMAT,
            task,
            None,
            None,
            encoder=tokenizer,
            length=config.text_tokens,
            long_prompt=recipe.long_prompt,
            mend="give the task fewer words",
        )
        if fitted.cut:
            get_logger("training").warning("a task is too long for the prompt", task=task, cut=fitted.cut)
        other = task_of.setdefault(tuple(fitted.tokens), task)
        if other != task:
            raise DataError(
                f"tasks {other!r} and {task!r} look the same to the model",
                expected="task texts that differ within the length of a prompt",
                mend="word one of them otherwise",
            )
    return Prompts(tuple(task_of), tokenizer.digest)
