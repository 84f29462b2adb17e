"""The process behind a :class:`robolift.data.loader.Loader`: ``python -m robolift.data.loader_worker DESCRIPTOR``.

It makes items until the process that started it is gone or does not want it any more.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from typing import Any

from robolift import logging
from robolift.data.handover import Connection, Failure, Files, GoneError, packed


def serve(connection: Connection) -> None:
    """Answer each step with it and its item until the other end is gone; the first object received makes the items."""
    try:
        fetch: Callable[[int], Any] = connection.receive(writable=False)
    except Exception as error:
        failed = error

        def fetch(_step: int) -> Any:
            raise failed

    with suppress(GoneError), closing(Files()) as files:
        while True:
            step = connection.receive()
            with ExitStack() as stack:
                try:
                    ready = stack.enter_context(packed((step, fetch(step)), files))
                except Exception as error:
                    ready = stack.enter_context(packed((step, Failure.of(error)), files))
                connection.send_packed(ready)


def _end_with_parent() -> None:
    """End in the middle of an item when the process that started this one ends: only it can write to the pipe."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(0)


def main(descriptor: int) -> None:
    """Serve the socket that was passed as ``descriptor``."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # A signal to all processes of a machine is for the parent, which may yet need an item for the step it finishes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.configure()
    serve(Connection(socket.socket(fileno=descriptor)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
