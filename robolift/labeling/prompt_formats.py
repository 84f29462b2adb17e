"""What a language model reads of a prompt and a state: the texts of openpi, kai0, pistar and RECAP's value model.

The wording of a label is that of :mod:`robolift.labeling.prompts` in every format; a format says only where it stands.
Each text equals the original's byte for byte. What the originals do with a text that is too long is not kept: they cut
it on the right, where the label, ``Action:`` and ``Value:`` are. Here the task gives way, and only if that is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from robolift.errors import DataError, UsageError
from robolift.labeling.prompts import clause

BIN_EDGES = np.linspace(-1, 1, 257)[:-1]
NUM_BINS = len(BIN_EDGES)

LongPrompt = Literal["refuse", "shorten"]


class Encoder(Protocol):
    """What a format needs of a tokenizer."""

    def encode(self, text: str, *, bos: bool) -> list[int]:
        """Return the tokens of a text, after the token that begins a sequence if ``bos``."""
        ...


def _clean(text: str) -> str:
    return text.strip().replace("_", " ").replace("\n", " ")


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """One text format.

    Attributes:
        name: In configurations and checkpoints.
        with_state: Template of the text that holds the state; its segments are tokenized one by one. Empty: the model
            reads no state as text.
        without_state: The same for a model that gets the state in another way.
        label: Where the advantage stands: ``in_task`` before the task is cleaned, ``apart`` where the template has
            it, ``nowhere`` where a label is refused.
        clean: What is done to the task text.
    """

    name: str
    with_state: tuple[str, ...]
    without_state: tuple[str, ...]
    label: Literal["in_task", "apart", "nowhere"]
    clean: Callable[[str], str] = _clean

    def segments(self, task: str, label: str | int | None, state: npt.ArrayLike | None) -> tuple[str, ...]:
        """Return the text in the parts that are tokenized apart; most formats have one.

        Args:
            task: Task text of the dataset.
            label: ``"positive"``, ``"negative"``, the number of a slice, or None for the bare task.
            state: (D,) normalized state, or None where the text holds none.

        Raises:
            UsageError: If the format has no place for the label or the state.
            DataError: If the task is empty, or the state is no row of finite numbers.
        """
        if label is not None and self.label == "nowhere":
            raise UsageError(
                f"the prompt format {self.name} has no place for the label {label!r}; {_others(self.label)}"
            )
        if state is not None and not self.with_state:
            raise UsageError(f"the prompt format {self.name} has no place for a state; give none")
        if not self.clean(task).strip():
            raise DataError(
                f"the task {task!r} has no text", expected="a sentence", mend="give the task a text when recording"
            )
        advantage = clause(label)
        return tuple(
            part.format(
                task=self.clean(task + advantage if self.label == "in_task" else task),
                advantage=advantage,
                state="" if state is None else " ".join(map(str, state_bins(state))),
            )
            for part in (self.without_state if state is None else self.with_state)
        )


def _others(label: str) -> str:
    names = [name for name, known in FORMATS.items() if known.label != label]
    return f"formats that have one: {', '.join(names)}"


_OPENPI = PromptFormat(
    name="openpi",
    with_state=("Task: {task}, State: {state};\nAction: ",),
    without_state=("{task}", "\n"),
    label="nowhere",
)
FORMATS = {
    known.name: known
    for known in (
        _OPENPI,
        PromptFormat(name="kai0", with_state=_OPENPI.with_state, without_state=_OPENPI.without_state, label="in_task"),
        PromptFormat(
            name="pistar",
            with_state=("Task: {task}, State: {state}{advantage};\nAction: ",),
            without_state=("Task: {task}{advantage};\nAction: ",),
            label="apart",
        ),
        PromptFormat(name="value", with_state=(), without_state=("{task}\nValue:",), label="nowhere", clean=str.rstrip),
    )
}
"""By name: openpi's pi0.5 and pi0; kai0's, which is openpi's with the label in the task; pistar's; that of RECAP's
value model, which sees neither label nor state and whose task is only stripped on the right."""


def find_format(name: str) -> PromptFormat:
    """Return the format of a name.

    Raises:
        UsageError: If there is none; the message lists them.
    """
    if name not in FORMATS:
        raise UsageError(f"no prompt format {name!r}; expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def state_bins(state: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return (D,) the bins that a state is read as: ``digitize(state, linspace(-1, 1, 257)[:-1]) - 1``.

    The 256 bins of [-1, 1) are 0 to 255; 1 and all above is 255 too, all below -1 is -1.

    Args:
        state: (D,) normalized state.

    Raises:
        DataError: If it is no row, has no number or one that is not finite.
    """
    values = np.asarray(state)
    if values.ndim != 1 or not len(values):
        raise DataError(f"the state has the shape {values.shape}", expected="(D,), one row of D numbers")
    if not np.isfinite(values).all():
        where = f"position {int(np.flatnonzero(~np.isfinite(values))[0])} of {len(values)}"
        raise DataError(
            "the state is not finite", where=where, expected="numbers", mend="look at the recording and its statistics"
        )
    bins: npt.NDArray[np.int64] = np.digitize(values, BIN_EDGES) - 1
    return bins


def render(name: str, task: str, label: str | int | None, state: npt.ArrayLike | None) -> str:
    """Return the whole text; arguments and errors as in :meth:`PromptFormat.segments`."""
    return "".join(find_format(name).segments(task, label, state))


class Fitted(NamedTuple):
    """A text that fits.

    Attributes:
        text: The text.
        tokens: Its tokens, the one that begins a sequence first.
        task: The task as it stands in the text, before cleaning: the one given, or its first words.
        cut: What was cut from the task's end, "" for nothing.
    """

    text: str
    tokens: list[int]
    task: str
    cut: str


def fit(
    name: str,
    task: str,
    label: str | int | None,
    state: npt.ArrayLike | None,
    *,
    encoder: Encoder,
    length: int,
    long_prompt: LongPrompt = "refuse",
    mend: str = "raise max_token_len, give the task fewer words",
) -> Fitted:
    """Return the text and its tokens, with the task shortened word by word from its end if need be and allowed.

    The label, the state, ``Action:`` and ``Value:`` are never cut; of the task the first word stays.

    Args:
        name: Of the format.
        task: Task text of the dataset.
        label: ``"positive"``, ``"negative"``, the number of a slice, or None for the bare task.
        state: (D,) normalized state, or None where the text holds none.
        encoder: The model's tokenizer.
        length: Most tokens that the model reads.
        long_prompt: Whether a text of more tokens is refused or its task shortened.
        mend: What helps against a text that is too long, besides ``long_prompt``.

    Raises:
        UsageError: If the format has no place for the label or the state.
        DataError: If the task is empty, the state is no row of finite numbers, or the text is too long.
    """
    known = find_format(name)
    needed = 0
    for kept in _beginnings(task) if long_prompt == "shorten" else (task,):
        segments = known.segments(kept, label, state)
        tokens = [token for i, part in enumerate(segments) for token in encoder.encode(part, bos=i == 0)]
        if len(tokens) <= length:
            return Fitted("".join(segments), tokens, kept, task[len(kept) :])
        needed = needed or len(tokens)
    raise DataError(
        f"the prompt has {needed} tokens"
        + (", and too many even with the first word of its task alone" if long_prompt == "shorten" else ""),
        where=f"task {task!r}, format {name}, label {label!r}",
        expected=f"at most {length}",
        mend=mend + ("" if long_prompt == "shorten" else ", or set long_prompt: shorten"),
    )


def _beginnings(task: str) -> Iterator[str]:
    """Yield the task, then the task with ever fewer of its words, down to one."""
    yield task
    # As the texts are cleaned, "_" separates words too.
    ends = [match.end() for match in re.finditer(r"[^\s_]+", task)]
    yield from (task[:end] for end in reversed(ends) if end < len(task))
