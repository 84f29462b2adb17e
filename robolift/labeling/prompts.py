"""The one place where an advantage label becomes text, for labels, training, evaluation and serving alike.

The wording is kai0's (``"<task>, Advantage: positive"``, arXiv 2602.09021), with the task text of the dataset. A policy
only ever sees prompts of the table that its labels were made with.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robolift.errors import DataError, UsageError

BINARY_LABELS = ("negative", "positive")
UNLABELLED = "none"
"""Names the bare task where a label is expected."""
_MARK = ", Advantage: "
_LABELLED = re.compile(rf"(.*){_MARK}({'|'.join(BINARY_LABELS)}|0|[1-9][0-9]{{0,8}})", re.DOTALL)


def clause(label: str | int | None) -> str:
    """Return what an advantage label adds to a task: ``", Advantage: positive"``, or nothing for None.

    Args:
        label: ``"positive"``, ``"negative"``, the number of a slice, or None for the bare task.

    Raises:
        UsageError: If ``label`` is anything else.
    """
    if label is None:
        return ""
    is_slice = isinstance(label, int) and not isinstance(label, bool) and label >= 0
    if not is_slice and label not in BINARY_LABELS:
        raise UsageError(f"no prompt for label {label!r}; expected {', '.join(BINARY_LABELS)}, a slice number or None")
    return f"{_MARK}{label}"


def prompt(task: str, label: str | int | None) -> str:
    """Return the prompt of a task under an advantage label.

    Args:
        task: Task text of the dataset, unchanged.
        label: ``"positive"``, ``"negative"``, the number of a slice, or None for the bare task.

    Raises:
        UsageError: If ``label`` is anything else.
    """
    return task + clause(label)


def split(text: str) -> tuple[str, str | int | None]:
    """Return the task and the label of a prompt: the inverse of :func:`prompt`.

    A task text of the dataset that ends like a labelled prompt is read as one. That is what is meant: kai0 publishes
    its labels as such task texts.
    """
    match = _LABELLED.fullmatch(text)
    if match is None:
        return text, None
    task, label = match.groups()
    return task, int(label) if label.isdecimal() else label


def best_label(task: str, trained: Collection[str]) -> str | int:
    """Return the label to act under: ``positive``, or the highest slice, or ``none`` where no label was trained.

    Args:
        task: Task text of the dataset.
        trained: Prompts that occurred in training.
    """
    if prompt(task, BINARY_LABELS[1]) in trained:
        return BINARY_LABELS[1]
    before = prompt(task, 0).removesuffix("0")
    tails = [text.removeprefix(before) for text in trained if text.startswith(before)]
    # By number, not by place: a policy may have been trained on some slices only.
    return max((int(tail) for tail in tails if tail.isdecimal()), default=UNLABELLED)


@dataclass(frozen=True)
class PromptTable:
    """Every prompt that may be trained on or served, in the order ``prompt_index`` counts.

    Attributes:
        prompts: The texts, each once.
    """

    prompts: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.prompts)) != len(self.prompts):
            twice = sorted({text for text in self.prompts if self.prompts.count(text) > 1})
            raise DataError(
                f"prompts stand twice in the table: {twice}",
                expected="each prompt once",
                mend="rename the tasks so that no task text equals another task's prompt",
            )

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> str:
        return self.prompts[index]

    def index(self, prompt: str) -> int:
        """Return the index of a prompt.

        Raises:
            UsageError: If the table does not hold it; the message lists what it holds.
        """
        if prompt not in self.prompts:
            known = "\n  ".join(self.prompts)
            raise UsageError(f"unknown prompt {prompt!r}; the policy was trained on:\n  {known}")
        return self.prompts.index(prompt)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of the table."""
        return {"prompts": list(self.prompts)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> PromptTable:
        """Rebuild a table from :meth:`to_dict`.

        Raises:
            DataError: If the document is not a prompt table.
        """
        prompts = document.get("prompts")
        if not isinstance(prompts, list) or not all(isinstance(text, str) for text in prompts):
            raise DataError("not a prompt table", expected='{"prompts": ["...", ...]}', mend="make the labels again")
        return cls(tuple(prompts))


def advantage_prompts(tasks: Sequence[str], num_slices: int | None = None) -> PromptTable:
    """Return the table of all prompts of a dataset.

    Args:
        tasks: Task texts; the table keeps their order.
        num_slices: Number of advantage slices, None for positive and negative.

    Returns:
        For each task the bare task and then its labels: negative, positive, or slices 0 to ``num_slices`` - 1.

    Raises:
        DataError: If a task text is empty or two prompts are equal.
    """
    if not all(task.strip() for task in tasks):
        raise DataError("a task has no text", where="tasks of the dataset", mend="give each task a text")
    labels: Sequence[str | int] = BINARY_LABELS if num_slices is None else range(num_slices)
    return PromptTable(tuple(prompt(task, label) for task in tasks for label in (None, *labels)))
