"""An output that several processes make together: one of them publishes it and the others wait."""

from __future__ import annotations

import time

from robolift.manifest import Plan

POLL_S = 0.5
PUBLISH_TIMEOUT_S = 3600.0
"""A large model with many kept states takes its time to upload."""


def wait_for(plan: Plan) -> None:
    """Wait until the main process of the job has published, so that no pod reports success for it.

    Raises:
        TimeoutError: If it doesn't within an hour.
    """
    deadline = time.monotonic() + PUBLISH_TIMEOUT_S
    while not plan.finished():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{plan.uri} was not published by the main process")
        time.sleep(POLL_S)
