"""A process that does a part of the work, and the pipe to it.

It is spawned: what its parent has loaded (torch, its threads) stays there.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from robolift import logging
from robolift.data.lost_worker import lost

END_TIMEOUT_S = 10.0
"""How long a process may take to end once it has closed its end of the pipe."""


class Spawned:
    """A process, and this one's end of the pipe, ``connection``."""

    def __init__(self, serve: Callable[..., None], *arguments: Any, name: str) -> None:
        """Start it.

        Args:
            serve: What it does: a function of the module level, of its end of the pipe and the arguments.
            arguments: What else it gets; has to pickle, or to be memory that is shared.
            name: What tools that list processes call it.
        """
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        with theirs:  # closed here, so that reading from a dead process ends instead of waiting
            self.process = context.Process(target=run, args=(serve, theirs, *arguments), name=name, daemon=True)
            self.process.start()

    def send(self, message: Any) -> None:
        """Send it something; that it died is told of when its answer is asked for."""
        with suppress(OSError):
            self.connection.send(message)

    def receive(self, who: str, when: str, *, setting: str) -> Any:
        """Wait for its answer.

        Raises:
            WorkerLostError: If it died, in the words of :func:`robolift.data.lost_worker.lost`.
        """
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError) as error:
            self.process.join(END_TIMEOUT_S)
            raise lost(who, self.process.exitcode, when, setting=setting) from error

    def end(self, within_s: float = 0.0) -> None:
        """Close the pipe, and end the process if it has not ended by itself after so many seconds."""
        self.connection.close()
        self.process.join(within_s)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


def run(serve: Callable[..., None], *arguments: Any) -> None:
    """Serve until the pipe ends; the main function of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    logging.configure()
    with suppress(EOFError, ConnectionError):  # the parent is gone, perhaps before it read an answer
        serve(*arguments)
