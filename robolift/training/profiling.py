"""A recording of some steps of training, to see what they spend their time on; needs neither PyTorch nor JAX.

It lies beside the outputs and belongs to none of them: what is trained has the same bytes with and without.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from robolift import storage
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
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._stop()

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
        self._folder = tempfile.TemporaryDirectory(prefix="robolift-profile-")
        self._recorder.start(Path(self._folder.name))

    def _stop(self) -> None:
        assert self._folder is not None
        folder, self._folder = self._folder, None
        with folder as path:
            self._recorder.stop(Path(path))
            for file in sorted(Path(path).rglob("*")):
                if file.is_file():
                    storage.upload(file, storage.join(self._profile.uri, file.relative_to(path).as_posix()))
        get_logger("training").info("profiled", steps=self._seen - WARM_UP_STEPS, uri=self._profile.uri)
