"""What the pods of a job say: the first pod's log as it is written, and why pods failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from robolift.errors import RoboliftError
from robolift.launch.cluster import Cluster
from robolift.logging import get_logger

LAST_LINES = 200
OVERLAP_S = 5
"""Asked for again after a lost connection; lines that were seen are dropped by their time."""


@dataclass
class Follower:
    """Copies the log of the newest pod with some labels, across restarts of the pod and lost connections.

    Attributes:
        cluster: Where the pod runs.
        selector: Labels of the pod.
        container: Its container.
        say: Takes each line.
        pause_s: Between two attempts.
    """

    cluster: Cluster
    selector: str
    container: str
    say: Callable[[str], None]
    pause_s: float = 5.0
    _last_stamp: str = ""
    _last_seen: float | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        # A daemon: a connection that hangs must not keep the step alive.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def start(self) -> None:
        """Begin to copy."""
        self._thread.start()

    def stop(self) -> None:
        """Copy nothing any more than what is there already; don't wait for it."""
        self._stop.set()

    def finish(self, timeout_s: float) -> None:
        """Copy what is still to come of a finished pod, for at most ``timeout_s``."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            last = self._stop.is_set()  # asked before reading: after the end everything is read once more
            try:
                self._read_on()
            except RoboliftError as error:
                self.say(f"no log: {error}")
                return
            except Exception as error:  # whatever ends a connection
                get_logger("launch").debug("log interrupted", cause=str(error))
            if last:
                return
            self._stop.wait(self.pause_s)

    def _read_on(self) -> None:
        running = [pod for pod in self.cluster.pods(self.selector) if _has_log(pod, self.container)]
        if not running:
            return
        since = None if self._last_seen is None else int(time.monotonic() - self._last_seen) + OVERLAP_S
        known = self._last_stamp
        for line in self.cluster.follow(running[-1]["metadata"]["name"], self.container, since):
            stamp, _, text = line.partition(" ")
            if stamp <= known:
                continue
            self._last_stamp, self._last_seen = stamp, time.monotonic()
            self.say(text)


def _container_state(pod: dict[str, Any], container: str) -> dict[str, Any]:
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return next((status.get("state") or {} for status in statuses if status.get("name") == container), {})


def _has_log(pod: dict[str, Any], container: str) -> bool:
    return bool({"running", "terminated"} & _container_state(pod, container).keys())


@dataclass(frozen=True)
class PodFailure:
    """A pod that failed.

    Attributes:
        name: Of the pod.
        exit_code: Of its container, None if it never ran.
        reason: In the cluster's words.
        error: The last line of its log that states a user's error, empty if there is none.
    """

    name: str
    exit_code: int | None
    reason: str
    error: str


def tell_failures(cluster: Cluster, selector: str, container: str, say: Callable[[str], None]) -> list[PodFailure]:
    """Show the last lines and the events of every failed pod, and return what failed."""
    failures = []
    for pod in cluster.pods(selector):
        ended = _container_state(pod, container).get("terminated") or {}
        if pod.get("status", {}).get("phase") != "Failed" and not ended.get("exitCode"):
            continue
        name = pod["metadata"]["name"]
        reason = ended.get("reason") or pod["status"].get("reason") or ""
        lines = cluster.tail(name, container, LAST_LINES).splitlines()
        say(f"--- pod {name} failed: exit code {ended.get('exitCode', 'none')} {reason}; its last lines:")
        for line in lines:
            say(line)
        for event in cluster.events(name):
            say(f"--- event of {name}: {event}")
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        failures.append(PodFailure(name, ended.get("exitCode"), reason, errors[-1] if errors else ""))
    return failures
