"""What people look at: episodes of a robot's dataset, or clips cut from videos of people."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from robolift import manifest as manifests
from robolift.annotators.review.pairs import ByClip, ByFrames, Naming
from robolift.data.dataset import Dataset
from robolift.data.video import VideoClip, probe
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.schema import Kind, read_parquet

CLIP_CAMERA = "clip"
CLIP_COLUMNS = ["clip_id", "fps", "num_frames", "file"]


class Footage(Protocol):
    """Numbered recordings, each of the same cameras.

    Recordings go by their number alone: a request can name nothing else, so no text of it reaches the store, and what
    they are called (which tells the video) stays hidden from those who judge them.
    """

    @property
    def noun(self) -> Literal["episode", "clip"]:
        """What one recording is called, in addresses too."""
        ...

    @property
    def lengths(self) -> Sequence[int]:
        """Frames of each recording."""
        ...

    @property
    def fps(self) -> float:
        """Frames a second."""
        ...

    @property
    def cameras(self) -> Sequence[str]:
        """Names of the cameras."""
        ...

    @property
    def tasks(self) -> Sequence[str]:
        """What is done, as far as those who judge may know."""
        ...

    @property
    def version(self) -> str:
        """What identifies the content of all frames."""
        ...

    @property
    def naming(self) -> Naming:
        """How pairs name two recordings."""
        ...

    def about(self, number: int) -> dict[str, Any]:
        """Return ``task`` and ``outcome`` of a recording."""
        ...

    def image_size(self, camera: str) -> tuple[int, int]:
        """Return (height, width) of a camera's frames."""
        ...

    def video(self, number: int, camera: str) -> VideoClip:
        """Return where a recording's frames lie.

        Raises:
            UsageError: If there is no such recording or camera.
        """
        ...


class EpisodeFootage:
    """The episodes of an imported dataset; see :class:`Footage`."""

    noun: Literal["episode"] = "episode"

    def __init__(self, dataset: Dataset) -> None:
        """Show the episodes of ``dataset``."""
        self._dataset = dataset
        self._about = dataset.episodes.select(["task", "outcome"]).to_pylist()
        self.lengths: list[int] = dataset.episodes.column("length").to_pylist()
        self.fps = dataset.fps
        self.cameras = dataset.cameras
        self.tasks = dataset.tasks
        self.naming = ByFrames(self.lengths)
        digests = "\0".join(f"{source.uri} {source.digest}" for source in dataset.sources)
        self.version = hashlib.sha256(digests.encode()).hexdigest()[:16]

    def about(self, number: int) -> dict[str, Any]:
        """Return the episode's task and recorded outcome."""
        return dict(self._about[number])

    def image_size(self, camera: str) -> tuple[int, int]:
        """Return (height, width) of a camera's frames."""
        return self._dataset.image_size(camera)

    def video(self, number: int, camera: str) -> VideoClip:
        """Return the part of the source's video that holds the episode."""
        source, index = self._dataset.locate(number)
        return self._dataset.reader(source).clip(index, camera)


class ClipFootage:
    """The clips of a ClipSet, each filmed by one camera; see :class:`Footage`.

    Nothing but the frames is given out: kind, narration and video of a clip would tell what to think of it.
    """

    noun: Literal["clip"] = "clip"
    cameras = (CLIP_CAMERA,)
    tasks = ()

    def __init__(self, manifest: Manifest) -> None:
        """Show the clips of a finished output.

        Raises:
            UsageError: If it is of another kind.
            DataError: If it is damaged, or holds no clips or clips of several rates.
        """
        self._manifest = manifests.expect(manifest, Kind.CLIPS, name="clips")
        uri = manifest.file("clips.parquet")
        table = read_parquet(uri, CLIP_COLUMNS)
        rates = set(table.column("fps").to_pylist())
        if len(rates) != 1:
            raise DataError(f"clips of {len(rates)} rates", where=uri, expected="one rate", mend="extract clips again")
        self.fps = float(rates.pop())
        self.lengths: list[int] = table.column("num_frames").to_pylist()
        self.naming = ByClip(table.column("clip_id").to_pylist(), self.lengths)
        self.version = manifest.digest
        self._files = table.column("file").to_pylist()
        facts = probe(manifest.file(self._files[0]))  # all are cut to one size
        self._size = (facts.height, facts.width)

    def about(self, number: int) -> dict[str, Any]:
        """Return nothing that is known of the clip."""
        return {"task": "", "outcome": None}

    def image_size(self, camera: str) -> tuple[int, int]:
        """Return (height, width) of the clips."""
        return self._size

    def video(self, number: int, camera: str) -> VideoClip:
        """Return the clip's file."""
        if camera != CLIP_CAMERA or not 0 <= number < len(self.lengths):
            raise UsageError(f"no camera {camera!r} of clip {number}; there are {len(self.lengths)} clips")
        uri = self._manifest.file(self._files[number])
        return VideoClip(uri=uri, start_s=0.0, num_frames=self.lengths[number], fps=self.fps)
