"""Small things of the cluster suite: run a program, wait for something, and what the release is called."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHART = Path(__file__).parents[2] / "charts" / "robolift"
RELEASE = "robolift"
TIMEOUT_S = 180.0


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Return what ``condition`` returns as soon as it is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.5)
    return found


@dataclass(frozen=True)
class Tool:
    """A program and the arguments that it always gets."""

    command: tuple[str, ...]

    def __call__(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run it and return what it printed."""
        done = subprocess.run([*self.command, *arguments], input=stdin, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout if check else done.stdout + done.stderr
