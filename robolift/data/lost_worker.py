"""What is said, wherever processes share work, when one of them is lost."""

from __future__ import annotations

from robolift.errors import EXIT_TERMINATED, RoboliftError


class WorkerLostError(RoboliftError):
    """A process that does a part of the work was killed or ended by itself; nothing is wrong with call or data."""

    exit_code = EXIT_TERMINATED


def lost(who: str, code: int | None, when: str, *, setting: str) -> WorkerLostError:
    """Return the error that says how a process ended.

    Args:
        who: The process.
        code: Its exit code, negative if a signal killed it; None if it lives and doesn't answer any more.
        when: What did not happen any more, a clause.
        setting: The setting that says how many there are.
    """
    how = "hung up" if code is None else f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
    return WorkerLostError(
        f"{who} {how} before {when}; where memory ran out, ask for fewer {setting} or more memory, and run again: "
        "what is saved is not done twice"
    )
