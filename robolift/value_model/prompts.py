"""Prompts of a value model that reads text with a tokenizer: the task, then a line "Value:", as RECAP's."""

from __future__ import annotations

from collections.abc import Sequence

from robolift.data.tokenizer import Tokenizer
from robolift.errors import DataError
from robolift.labeling.prompt_formats import fit
from robolift.value_model.presets import TokenModelConfig
from robolift.value_model.recipe import Recipe

FORMAT = "value"


def prompt_tokens(recipe: Recipe, config: TokenModelConfig, tasks: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return the tokens of every task's prompt, the one that begins a sequence first.

    Raises:
        UsageError: If there is no tokenizer where the recipe says.
        DataError: If it is another than expected or of another vocabulary, a prompt is too long, or two tasks have the
            same one.
    """
    tokenizer = Tokenizer.load(recipe.tokenizer, vocabulary=config.language.vocabulary, sha256=recipe.tokenizer_sha256)
    task_of: dict[tuple[int, ...], str] = {}
    for task in tasks:
        fitted = fit(
            FORMAT, task, None, None, encoder=tokenizer, length=config.text_tokens, long_prompt=recipe.long_prompt
        )
        other = task_of.setdefault(tuple(fitted.tokens), task)
        if other != task:
            raise DataError(
                f"tasks {other!r} and {task!r} look the same to the model",
                expected="task texts that differ within the length of a prompt",
                mend="word one of them otherwise",
            )
    return tuple(task_of)
