"""The few exceptions a user sees, each with the exit code it ends a process with.

Exit codes follow sysexits.h: after 64 and 65 running the same thing again can't help. Kubeflow Pipelines retries
all the same: it doesn't look at the code.
"""

from __future__ import annotations

EXIT_USAGE = 64
EXIT_DATA = 65
EXIT_INTERNAL = 70
EXIT_TERMINATED = 143


class RoboliftError(Exception):
    """A failure that the user can mend; its text says what, where, what was expected and how to mend it."""

    exit_code = EXIT_INTERNAL


class UsageError(RoboliftError):
    """The call is wrong: an unknown option, a value out of range, an input of the wrong kind."""

    exit_code = EXIT_USAGE


class DataError(RoboliftError):
    """The data is wrong: a missing column, a NaN where a rank is needed, a video shorter than its table.

    Args:
        problem: What is wrong, in one clause.
        where: File, episode or column it was found in.
        expected: What a correct input has there.
        mend: What the user can do about it.
    """

    exit_code = EXIT_DATA

    def __init__(self, problem: str, *, where: str = "", expected: str = "", mend: str = "") -> None:
        parts = [problem]
        parts += [
            f"{label}: {text}" for label, text in (("where", where), ("expected", expected), ("mend", mend)) if text
        ]
        super().__init__("\n  ".join(parts))
        self.problem = problem
        self.where = where
        self.expected = expected
        self.mend = mend
