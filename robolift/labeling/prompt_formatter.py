"""The one formatter of a model: from a prompt of its table and a state to tokens, alike in training and serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from robolift.errors import DataError
from robolift.labeling import prompt_formats
from robolift.labeling.prompt_formats import NUM_BINS, Encoder, LongPrompt
from robolift.labeling.prompts import PromptTable, split

_DIGITS = np.array([len(str(number)) for number in range(-1, NUM_BINS)])
"""Characters of each bin as text."""
MOST_ADDED = 2
"""Tokens that stand for no byte of the text: the one that begins a sequence, and a space some put before the first."""


class IdentifiedEncoder(Encoder, Protocol):
    """A tokenizer that can be told from others."""

    @property
    def digest(self) -> str:
        """Identity of its content."""
        ...


@dataclass(frozen=True)
class PromptFormatter:
    """How a model reads the prompts of its table; made once before training, then kept with the model.

    Which words of a long task stay is settled here, for all labels and for the longest state. Otherwise the task would
    read differently from frame to frame, and under guidance the two passes would differ in more than the label.

    Attributes:
        format: Name of the prompt format.
        prompts: The prompts; no other may be asked for.
        tasks: The words that stay of each task, by the task.
        encoder: The model's tokenizer.
        length: Most tokens that the model reads.
        state_dim: Length of the state in the text, 0 for none.
    """

    format: str
    prompts: PromptTable
    tasks: Mapping[str, str]
    encoder: IdentifiedEncoder
    length: int
    state_dim: int

    @classmethod
    def fit(
        cls,
        name: str,
        prompts: PromptTable,
        encoder: IdentifiedEncoder,
        *,
        length: int,
        state_dim: int = 0,
        long_prompt: LongPrompt = "refuse",
    ) -> PromptFormatter:
        """Return the formatter of a table.

        Args:
            name: Of the prompt format.
            prompts: The prompts that will be asked for, the bare ones included where labels are dropped.
            encoder: The model's tokenizer.
            length: Most tokens that the model reads.
            state_dim: Length of the state in the text, 0 for none.
            long_prompt: Whether a task that is too long is refused or shortened; see :attr:`cuts`.

        Raises:
            UsageError: If the format is unknown or has no place for a label of the table or for the state.
            DataError: If a task is empty, a prompt with the longest state has more than ``length`` tokens, or two tasks
                have the same text.
        """
        state = _longest_state(encoder, state_dim)
        tasks: dict[str, str] = {}
        for prompt in prompts.prompts:
            task, label = split(prompt)
            # One label after the other, each may cut further; what fits the longest fits them all.
            kept = tasks.get(task, task)
            tasks[task] = prompt_formats.fit(
                name, kept, label, state, encoder=encoder, length=length, long_prompt=long_prompt
            ).task
        _check_distinct(name, tasks)
        return cls(name, prompts, tasks, encoder, length, state_dim)

    @property
    def cuts(self) -> dict[str, str]:
        """What was cut from the end of each task that was too long, by the task."""
        return {task: task[len(kept) :] for task, kept in self.tasks.items() if kept != task}

    def filled(self, states: np.ndarray) -> np.ndarray:
        """Return (N, state_dim) of (N, S) normalized states: dimensions that the robot lacks have the lowest bin.

        kai0 pads states with 0 before it normalizes them, by a range of quantiles from 0 to 0: the result is -1.

        Raises:
            DataError: If S is more than ``state_dim``.
        """
        lacking = self.state_dim - states.shape[1]
        if lacking < 0:
            raise DataError(
                f"a state has {states.shape[1]} numbers",
                expected=f"at most {self.state_dim}, which the prompt has room for",
                mend="set state_width to more, or to null for the state's own",
            )
        return np.pad(states, [(0, 0), (0, lacking)], constant_values=-1)

    def check_states(self, prompt: str, states: np.ndarray) -> None:
        """Check that a prompt fits with each of some states, so that none is found too long in the midst of training.

        :meth:`fit` knows the longest state unless the tokenizer joins pieces across spaces. A text of fewer bytes than
        there may be tokens always fits; others are tokenized, equal ones once.

        Args:
            prompt: Of the table.
            states: (N, state_dim) normalized, state_dim 0 for none.

        Raises:
            DataError: If one has too many tokens.
        """
        if not self.state_dim or not len(states):
            return
        shortest = len(self.text(prompt, np.full(self.state_dim, -1.0)).encode())
        bins = np.digitize(states, prompt_formats.BIN_EDGES) - 1
        num_bytes = shortest + (_DIGITS[bins + 1] - 1).sum(axis=1)
        near = num_bytes + MOST_ADDED > self.length
        for row in np.unique(bins[near], axis=0, return_index=True)[1]:
            self.tokens(prompt, states[near][row])

    def text(self, prompt: str, state: npt.ArrayLike | None = None) -> str:
        """Return the text of a prompt of the table; arguments and errors as in :meth:`tokens`."""
        return self._fitted(prompt, state).text

    def tokens(self, prompt: str, state: npt.ArrayLike | None = None) -> list[int]:
        """Return the tokens of a prompt of the table.

        Args:
            prompt: Of the table.
            state: (state_dim,) normalized state; None where the text holds none.

        Returns:
            At most ``length`` tokens, the one that begins a sequence first.

        Raises:
            UsageError: If the table does not hold the prompt.
            DataError: If the state is missing, of another length or not finite.
        """
        return self._fitted(prompt, state).tokens

    def _fitted(self, prompt: str, state: npt.ArrayLike | None) -> prompt_formats.Fitted:
        task, label = split(self.prompts[self.prompts.index(prompt)])
        shape = None if state is None else np.shape(state)
        expected = (self.state_dim,) if self.state_dim else None
        if shape != expected:
            raise DataError(
                f"the state has the shape {shape}", where=f"prompt {prompt!r}", expected=f"{expected}, as in training"
            )
        return prompt_formats.fit(self.format, self.tasks[task], label, state, encoder=self.encoder, length=self.length)

    def to_dict(self) -> dict[str, Any]:
        """Return what a model keeps of it, ready for JSON: all but the tokenizer, of which the digest."""
        return {
            "format": self.format,
            **self.prompts.to_dict(),
            "tasks": dict(self.tasks),
            "tokenizer": self.encoder.digest,
            "length": self.length,
            "state_dim": self.state_dim,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], encoder: IdentifiedEncoder) -> PromptFormatter:
        """Return the formatter that :meth:`to_dict` wrote.

        Raises:
            UsageError: If it was written by a version with other formats.
            DataError: If the tokenizer is another one than in training.
        """
        if encoder.digest != document["tokenizer"]:
            raise DataError(
                f"the tokenizer has the digest {encoder.digest}",
                expected=f"{document['tokenizer']}, with which the model was trained",
                mend="give that tokenizer",
            )
        return cls(
            prompt_formats.find_format(document["format"]).name,
            PromptTable.from_dict(document),
            dict(document["tasks"]),
            encoder,
            document["length"],
            document["state_dim"],
        )


def _check_distinct(name: str, tasks: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    for task, kept in tasks.items():
        other = seen.setdefault(prompt_formats.render(name, kept, None, None), task)
        if other != task:
            raise DataError(
                f"tasks {other!r} and {task!r} look the same to the model",
                where=f"format {name}: {kept!r}",
                expected="task texts that differ in the words that stay",
                mend="word one of them otherwise, or raise max_token_len",
            )


def _longest_state(encoder: Encoder, dim: int) -> npt.NDArray[np.float64] | None:
    """Return (D,) the state whose text has the most tokens, None for no state.

    The bins stand between spaces, so each is measured after one; where a tokenizer joins pieces across spaces the
    longest state is missed, and :meth:`PromptFormatter.tokens` refuses what does not fit after all.
    """
    if not dim:
        return None
    longest = max(range(-1, NUM_BINS), key=lambda number: len(encoder.encode(f" {number}", bos=False)))
    return np.full(dim, (2 * longest + 1) / NUM_BINS - 1)
