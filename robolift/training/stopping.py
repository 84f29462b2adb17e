"""Training that is asked to stop: SIGTERM becomes a flag, so that a step in progress ends and its state is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from robolift.errors import EXIT_TERMINATED, RoboliftError


class TrainingStoppedError(RoboliftError):
    """A training process was stopped or lost; the same command goes on from the last saved state."""

    exit_code = EXIT_TERMINATED


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn SIGTERM into an event for the length of the block, so that a step in progress ends before the process."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, previous)
