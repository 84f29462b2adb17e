"""Task text without a vocabulary file: words and pairs of neighbours, hashed into a fixed number of buckets."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence

import numpy as np

from robolift.errors import DataError

PADDING = -1


def tokenize(text: str, buckets: int) -> list[int]:
    """Return the bucket of each word and of each pair of neighbouring words.

    The pairs keep word order through the mean over tokens: "a on b" and "b on a" differ.
    """
    words = re.findall(r"\w+", text.lower())
    pairs = [f"{first} {second}" for first, second in itertools.pairwise(words)]
    return [zlib.crc32(token.encode()) % buckets for token in [*words, *pairs]]


def token_table(tasks: Sequence[str], buckets: int) -> np.ndarray:
    """Return the tokens of every task, (num_tasks, longest) int64, filled up with PADDING.

    Raises:
        DataError: If a task has no word, or two tasks look the same to the model.
    """
    rows = [tokenize(task, buckets) for task in tasks]
    seen: dict[tuple[int, ...], str] = {}
    for task, row in zip(tasks, rows, strict=True):
        if not row:
            raise DataError(
                f"task {task!r} has no word", expected="a sentence", mend="give the task a text when recording"
            )
        other = seen.setdefault(tuple(sorted(row)), task)
        if other != task:
            raise DataError(
                f"tasks {other!r} and {task!r} look the same to the model",
                expected="task texts that differ in their words",
                mend="word one of them otherwise",
            )
    table = np.full((len(rows), max(map(len, rows))), PADDING, dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table
