"""The door for KFP: what every component's body calls."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from robolift import logging
from robolift.errors import EXIT_TERMINATED, RoboliftError, UsageError
from robolift.manifest import Manifest
from robolift.stages import remote
from robolift.stages.preflight import find_overridden
from robolift.stages.show import show
from robolift.stages.stage import execute

P = ParamSpec("P")
T = TypeVar("T")


@contextlib.contextmanager
def _exit_code() -> Iterator[None]:
    # KFP's executor would end with 1 whatever the exception, and print its own frames before it.
    with _ended_by_sigterm():
        try:
            yield
        except RoboliftError as error:
            sys.stderr.writelines(traceback.format_exception_only(error))
            sys.exit(error.exit_code)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a step by an exception, so that what it started is told to stop, and saves."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(*_: Any) -> None:
    sys.exit(EXIT_TERMINATED)


@_exit_code()
def run_check(check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of :mod:`robolift.stages.preflight` inside a pipeline step; errors end it as they end a stage."""
    return check(*args, **kwargs)


@_exit_code()
def run_component(
    name: str,
    *,
    artifact: Any,
    shown: Mapping[str, Any],
    output_root: str,
    stages: Mapping[str, Mapping[str, Any]],
    inputs: Mapping[str, Any] | None = None,
    launch: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> str:
    """Run one stage inside a pipeline step.

    What travels through KFP is the manifest: it is read from each input artifact's path and written to the output's.

    Args:
        name: The stage.
        artifact: The step's output artifact.
        shown: What the UI shows beside it, by :func:`robolift.stages.show.show`.
        output_root: Where the stage publishes.
        stages: The run's stage configurations, of which ``stages[name]`` is this one's.
        inputs: Input artifacts by name, a list where the stage takes many, None where an optional one is absent.
        launch: How the stage runs as a job of its own, which this step then watches; empty or None to run it here.
            Outside a cluster it always runs here.
        parameters: Configuration that the pipeline sets itself; ``stages`` must not set it too.

    Returns:
        The address of the finished output.

    Raises:
        SystemExit: With the exit code of a user's error, which is on the standard error.
    """
    logging.configure()
    own = stages.get(name) or {}
    if overridden := find_overridden(name, own, parameters):
        raise UsageError("\n  ".join(["wrong parameters:", *overridden]))
    config = {**own, **parameters}
    addresses = {key: _addresses(value) for key, value in (inputs or {}).items()}
    if launch and remote.is_remote(launch):
        manifest = remote.execute(name, config, addresses, output_root, launch=launch)
    else:
        manifest = execute(name, config, addresses, output_root)
    record(manifest, artifact)
    show(manifest, shown)
    return manifest.uri


def _addresses(value: Any) -> str | Sequence[str]:
    if value is None:
        return ()
    if isinstance(value, (list, tuple)):
        return [address for item in value for address in [_addresses(item)] if isinstance(address, str)]
    return value if isinstance(value, str) else str(value.path)


def record(manifest: Manifest, artifact: Any) -> None:
    """Write the manifest as the artifact's payload and its plain facts as the artifact's metadata."""
    path = Path(artifact.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(manifest.to_bytes())
    facts = {
        "uri": manifest.uri,
        "digest": manifest.digest,
        "kind": manifest.kind,
        **manifest.counts,
    }
    artifact.metadata.update({key: value for key, value in facts.items() if value is not None})
