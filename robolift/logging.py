"""Logs and progress: readable on a terminal, one JSON object a line everywhere else."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from robolift.errors import UsageError

T = TypeVar("T")
PROGRESS_INTERVAL_S = 10.0
_importing = threading.Lock()
_asked: tuple[int, bool] | None = None
"""What :func:`configure` was told and structlog wasn't yet: the lowest level, and whether lines are JSON."""


def _structlog() -> Any:
    """Return structlog, set up as asked; a command that logs nothing does without.

    Where Rich is installed, structlog imports it to draw tracebacks, twice as long as its own import takes. Ours are
    text before it gets them, so it is told that there is none.
    """
    global _asked
    with _importing:  # or one thread would take away what the other has put there
        hidden = not {"structlog", "rich"} & set(sys.modules)
        if hidden:
            sys.modules["rich"] = None  # type: ignore[assignment]
        try:
            structlog = importlib.import_module("structlog")
        finally:
            if hidden:
                sys.modules.pop("rich", None)
        if _asked:
            level, as_json = _asked
            _set_up(structlog, level, as_json=as_json)
            _asked = None
    return structlog


def configure(*, level: str | None = None, json_lines: bool | None = None) -> None:
    """Say how this process logs, from its first line on; safe to call more than once.

    Args:
        level: Lowest level shown, ``ROBOLIFT_LOG_LEVEL`` or ``info`` by default.
        json_lines: JSON lines instead of coloured text; by default when stderr is not a terminal.

    Raises:
        UsageError: If there is no such level.
    """
    global _asked
    name = (level or os.environ.get("ROBOLIFT_LOG_LEVEL") or "info").upper()
    levels = logging.getLevelNamesMapping()
    if name not in levels:
        raise UsageError(f"log level {name.lower()!r}; there are: {', '.join(sorted(levels)).lower()}")
    _asked = levels[name], not sys.stderr.isatty() if json_lines is None else json_lines
    if "structlog" in sys.modules:
        _structlog()


def _set_up(structlog: Any, level: int, *, as_json: bool) -> None:
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Looked up at each call: a test or a notebook may have replaced the stream.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> Any:
    """Return a structlog logger whose events carry ``logger=name``."""
    return _structlog().get_logger().bind(logger=name)


def progress(items: Iterable[T], *, total: int | None, what: str, unit: str = "it") -> Iterator[T]:
    """Yield ``items`` while showing how far the work is.

    A bar on a terminal; elsewhere a log line every ten seconds, because a bar fills a pod's log with rubbish.

    Args:
        items: What to iterate over.
        total: How many there will be, None when not known.
        what: What is being done, in a few words.
        unit: Name of one item.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm  # noqa: PLC0415

        yield from tqdm(items, total=total, desc=what, unit=unit, leave=False)
        return
    log = get_logger("progress")
    started = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= PROGRESS_INTERVAL_S:
            last = now
            log.info(what, done=done, total=total, unit=unit, per_s=round(done / (now - started), 2))
