"""A recording of some steps of training, to see what they spend their time on; needs neither PyTorch nor JAX.

It lies beside the outputs and belongs to none of them: what is trained has the same bytes with and without.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from robolift import staging, storage
from robolift.logging import get_logger

WARM_UP_STEPS = 3
"""Steps of this process that are not recorded: they compile, choose kernels and fill caches."""


@dataclass(frozen=True)
class Profile:
    """What is recorded.

    Attributes:
        steps: Steps, 0 for none.
        uri: Folder at any address for the recording.
    """

    steps: int = 0
    uri: str = ""


NO_PROFILE = Profile()


class Recorder(Protocol):
    """Records what this process and its device do."""

    def start(self, folder: Path) -> None:
        """Begin; what is written goes into the empty ``folder``."""

    def stop(self, folder: Path) -> None:
        """End, and write the recording into ``folder``."""


class StepTrace:
    """Records the steps of a loop by a profile; a context, at whose end a recording under way ends, too.

    Args:
        profile: How many steps and where to.
        recorder: How.
    """

    def __init__(self, profile: Profile, recorder: Recorder) -> None:
        self._profile, self._recorder = profile, recorder
        self._seen = 0
        self._staging: staging.Staging | None = None
        self._log = get_logger("training")

    def __enter__(self) -> Self:
        """Check that the recording can be left where it goes.

        Raises:
            UsageError: If nothing may be written there.
        """
        if self._profile.steps:
            probe = storage.join(self._profile.uri, f".probe-{secrets.token_hex(8)}")
            storage.write_bytes(probe, b"")
            storage.remove(probe)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._staging is not None:
            self._stop()
        elif self._profile.steps and self._seen < WARM_UP_STEPS:
            self._log.warning("nothing was profiled: the run ended before", steps=self._seen, first=WARM_UP_STEPS + 1)

    def advanced(self, wait: Callable[[], object] = lambda: None) -> None:
        """Take note that a step has ended.

        Args:
            wait: Waits until the device has done all that it was asked to; called before a recording begins or ends.
        """
        if not self._profile.steps:
            return
        self._seen += 1
        if self._seen == WARM_UP_STEPS:
            wait()
            self._start()
        elif self._seen == WARM_UP_STEPS + self._profile.steps:
            wait()
            self._stop()

    def _start(self) -> None:
        # What a killed process left of such a folder is removed when the next is claimed.
        self._staging = staging.claim(Path(tempfile.gettempdir()), "robolift-profile")
        self._recorder.start(self._staging.path)

    def _stop(self) -> None:
        assert self._staging is not None
        private, self._staging = self._staging, None
        steps, uri = self._seen - WARM_UP_STEPS, self._profile.uri
        try:
            self._recorder.stop(private.path)
            for file in sorted(private.path.rglob("*")):
                if file.is_file():
                    storage.upload(file, storage.join(uri, file.relative_to(private.path).as_posix()))
        except Exception as failure:
            # What is trained is worth more than the recording, and what ended training comes first.
            self._log.warning("the profile was not written", uri=uri, error=str(failure))
        else:
            cut = {} if steps == self._profile.steps else {"asked": self._profile.steps}
            self._log.info("profiled", steps=steps, **cut, uri=uri)
        finally:
            private.release()
