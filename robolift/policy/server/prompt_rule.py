"""Which prompt a policy acts under, whatever a client sends: pure text."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robolift.errors import DataError, UsageError
from robolift.labeling.prompts import UNLABELLED, best_label, prompt

SHOWN = 20
SHOWN_CHARACTERS = 200


class PromptLabel(enum.StrEnum):
    """The advantage label that is asked for.

    ``positive`` is the best that was trained: positive, the highest slice, or the bare task of a policy without labels.
    """

    POSITIVE = "positive"
    NEGATIVE = "negative"
    AS_SENT = "as_sent"


@dataclass(frozen=True, kw_only=True)
class PromptRule:
    """The texts that clients may send, and the prompt that each stands for.

    Attributes:
        label: What is asked for.
        prompts: Text that a client may send -> prompt that the policy acts under.
        trained: Every prompt that the policy was trained on.
    """

    label: PromptLabel
    prompts: Mapping[str, str]
    trained: tuple[str, ...]

    @classmethod
    def of(cls, label: PromptLabel, *, tasks: Sequence[str], trained: Sequence[str]) -> PromptRule:
        """Return the rule for a policy.

        Args:
            label: What to ask for; ``as_sent`` leaves it to the client, who must send a trained prompt as it is.
            tasks: Task texts that the policy knows, without a label.
            trained: Prompts that it was trained on.

        Raises:
            UsageError: If no task was trained under the label.
        """
        if label is PromptLabel.AS_SENT:
            return cls(label=label, prompts={text: text for text in trained}, trained=tuple(trained))
        prompts: dict[str, str] = {}
        for task in tasks:
            asked = best_label(task, trained) if label is PromptLabel.POSITIVE else label.value
            text = prompt(task, None if asked == UNLABELLED else asked)
            if text in trained:
                prompts |= {task: text, text: text}
        if not prompts:
            raise UsageError(
                f"no task was trained under {label.value}; the policy was trained on:\n  {_shown(trained)}"
            )
        return cls(label=label, prompts=prompts, trained=tuple(trained))

    @property
    def served(self) -> list[str]:
        """The prompts that the policy acts under, each once."""
        return list(dict.fromkeys(self.prompts.values()))

    def resolve(self, sent: Any) -> str:
        """Return the prompt to act under.

        Args:
            sent: The observation's ``prompt``: a text, also as NumPy's.

        Raises:
            DataError: If it is not a text, or one that was not trained, or one that this server does not act under.
        """
        text = sent.item() if getattr(sent, "ndim", None) == 0 else sent
        if not isinstance(text, str):
            raise DataError(f"the prompt is {type(sent).__name__}", where="prompt", expected="text")
        if (found := self.prompts.get(str(text))) is not None:
            return found
        short = repr(str(text)[:SHOWN_CHARACTERS])
        expected = f"one of:\n    {_shown(list(self.prompts), indent=4)}"
        if text in self.trained:
            raise DataError(
                f"the prompt {short} is not served: this server acts under {self.label.value}",
                where="prompt",
                expected=expected,
                mend="send the task alone, or start the server with --prompt-label as_sent",
            )
        raise DataError(
            f"the policy was not trained on the prompt {short}: another task, or another format of prompts",
            where="prompt",
            expected=expected,
        )


def _shown(texts: Sequence[str], *, indent: int = 2) -> str:
    shown = [repr(text) for text in texts[:SHOWN]]
    if more := len(texts) - len(shown):
        shown.append(f"and {more} more")
    return ("\n" + " " * indent).join(shown)
