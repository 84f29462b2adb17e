"""A model in this process."""

from __future__ import annotations

from collections.abc import Sequence

from robolift.annotators.messages import Answer, Question


class HFTransport:
    """A model in this process."""

    workers = 1

    def __init__(self, *, model: str, dtype: str, device: str, batch_size: int, expect_sha256: str = "") -> None:
        raise NotImplementedError

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer every question, in order."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the model."""
