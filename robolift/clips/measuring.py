"""Measures clips: one decoding pass a clip feeds every extractor, and memory holds a frame and what they keep of it."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import cv2
import numpy as np

from robolift import storage
from robolift.clips.extractor import Clip, Extractor, Findings, Frame, Tools
from robolift.clips.letterbox import WHOLE, areas
from robolift.data.video_decoder import VideoDecoder
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.schema import read_parquet


@dataclass
class Measured:
    """A clip and all that its extractors found; the fields are those of :class:`Findings`."""

    clip: Clip
    scalars: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    tracks: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, name: str, extractor: Extractor, found: Findings) -> None:
        """Take in what an extractor found.

        Raises:
            DataError: If a number is not finite.
        """
        for scalar in extractor.SCALARS:
            if scalar in found.missing:
                self.missing[scalar] = found.missing[scalar]
            elif np.isfinite(found.scalars[scalar]):
                self.scalars[scalar] = found.scalars[scalar]
            else:
                raise DataError(
                    f"{scalar} is {found.scalars[scalar]}",
                    where=self.clip.uri,
                    expected="a finite number, or a reason why there is none",
                    mend=f"look at the clip, or leave out the extractor {name}",
                )
        self.tracks.update({track: found.tracks[track] for track in extractor.TRACKS})


def sample(num_frames: int, wanted: int) -> tuple[int, ...]:
    """Return at most ``wanted`` different frames from the first to the last, evenly: whole parts of a linspace.

    Of 45 frames 8 are 0, 6, 12, 18, 25, 31, 37 and 44.
    """
    return tuple(np.unique(np.linspace(0, num_frames - 1, wanted).astype(int)).tolist())


def shard_of(clip_id: str, num_shards: int) -> int:
    """Return the shard of a clip: crc32(clip_id) mod num_shards, whatever other clips there are."""
    return zlib.crc32(clip_id.encode()) % num_shards


def read_clips(clips: Manifest, *, side: int, embedding_frames: int) -> list[Clip]:
    """Return the clips of a ClipSet, sorted by name.

    Args:
        clips: The ClipSet.
        side: Height and width that the pictures will be decoded to.
        embedding_frames: Most frames of a clip that are sampled.

    Raises:
        DataError: If there are none, a name stands twice, one is without frames, or their rates differ.
    """
    uri = clips.file("clips.parquet")
    rows = (
        read_parquet(uri, columns=["clip_id", "video_id", "file", "fps", "num_frames"]).sort_by("clip_id").to_pylist()
    )
    names = [row["clip_id"] for row in rows]
    empty = [row["clip_id"] for row in rows if row["num_frames"] < 1]
    rates = sorted({row["fps"] for row in rows})
    repeated = [name for name, after in itertools.pairwise(names) if name == after]
    for wrong, problem in (
        (not rows, "no clips"),
        (repeated, f"clip {repeated[:1]} stands twice"),
        (empty, f"clip {empty[:1]} has no frames"),
        (len(rates) > 1, f"clips of several rates: {rates} frames a second"),
    ):
        if wrong:
            raise DataError(
                problem,
                where=uri,
                expected="clips of one rate and at least one frame, each once",
                mend="extract the clips again",
            )
    found = areas(clips, side)
    return [
        Clip(
            clip_id=row["clip_id"],
            uri=storage.join(clips.uri, row["file"]),
            fps=row["fps"],
            num_frames=row["num_frames"],
            sampled=sample(row["num_frames"], embedding_frames),
            area=found.get(row["video_id"], WHOLE),
        )
        for row in rows
    ]


def measure(
    clips: Iterable[Clip], extractors: Mapping[str, Extractor], tools: Tools, *, side: int
) -> Iterator[Measured]:
    """Yield what is found in each clip, in order; no clip changes what is found in another.

    Args:
        clips: What to measure.
        extractors: By name.
        tools: What they use.
        side: Height and width that the pictures are decoded to.

    Raises:
        DataError: If a clip is missing, damaged or shorter than its table says.
    """
    # Sums of several threads could be added in another order.
    cv2.setNumThreads(1)
    for clip in clips:
        yield _measure(clip, extractors, tools, side)


def _measure(clip: Clip, extractors: Mapping[str, Extractor], tools: Tools, side: int) -> Measured:
    measured = Measured(clip)
    with ExitStack() as stack:
        running = {}
        for name, extractor in extractors.items():
            running[name] = extractor.start(clip, tools)
            stack.callback(running[name].close)
        decoder = stack.enter_context(VideoDecoder(clip.uri, fps=clip.fps, size=(side, side)))
        for index, rgb in enumerate(decoder.frames(num_frames=clip.num_frames)):
            frame = Frame(index, rgb, clip.area)
            for measurement in running.values():
                measurement.see(frame)
        for name, measurement in running.items():
            measured.add(name, extractors[name], measurement.finish())
    return measured
