"""Where the rows and clips of an episode go on disk: one file each in v2.1, packed files in v3.0."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from robolift.data import video
from robolift.data.lerobot_format import DATA_PATHS, V21, V30, VIDEO_PATHS

MEGABYTE = 1 << 20
CLIPS_FOLDER = ".clips"
MOST_ROW_GROUPS = 1000
"""In a Parquet file: until it is closed its writer holds some kilobytes for each, as does whoever opens it."""


class Files(Protocol):
    """The files of a dataset being written."""

    data_files: list[Path]
    first_videos: dict[str, Path]

    def clip_path(self, episode: int, camera: str) -> Path:
        """Return where to put the clip of one episode and camera."""

    def add(self, episode: int, table: pa.Table, clips: Mapping[str, int]) -> dict[str, Any]:
        """Take over an episode: its rows, and for each camera the number of frames of the clip now in its place.

        Returns:
            What the episode's meta row says about where they lie.
        """

    def finish(self) -> None:
        """Complete all files."""


class SeparateFiles:
    """v2.1: one Parquet file an episode, one mp4 an episode and camera."""

    def __init__(self, root: Path, *, chunk_size: int) -> None:
        self._root = root
        self._chunk_size = chunk_size
        self.data_files: list[Path] = []
        self.first_videos: dict[str, Path] = {}

    def clip_path(self, episode: int, camera: str) -> Path:
        """Return the clip's final place."""
        chunk = episode // self._chunk_size
        return self._root / VIDEO_PATHS[V21].format(episode_chunk=chunk, episode_index=episode, video_key=camera)

    def add(self, episode: int, table: pa.Table, clips: Mapping[str, int]) -> dict[str, Any]:
        """Write the rows; the clips lie in their places already."""
        pq.write_table(table, self._data_path(episode), compression="snappy")
        for camera in clips:
            self.first_videos.setdefault(camera, self.clip_path(episode, camera))
        return {}

    def add_file(self, episode: int, content: bytes) -> None:
        """Take over an episode without videos whose rows are a whole Parquet file already."""
        self._data_path(episode).write_bytes(content)

    def _data_path(self, episode: int) -> Path:
        name = DATA_PATHS[V21].format(episode_chunk=episode // self._chunk_size, episode_index=episode)
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.data_files.append(path)
        return path

    def finish(self) -> None:
        """Do nothing: every file was complete when it was written."""


@dataclass
class _Place:
    """The numbers of a packed file: file 0..chunk_size-1 in chunk 0, 1, ..."""

    chunk: int = 0
    file: int = 0

    def advance(self, chunk_size: int) -> None:
        self.file += 1
        if self.file == chunk_size:
            self.chunk, self.file = self.chunk + 1, 0

    def format(self, template: str, **names: str) -> str:
        return template.format(chunk_index=self.chunk, file_index=self.file, **names)


@dataclass
class _OpenVideo:
    """The clips that will be joined into one packed file."""

    place: _Place = field(default_factory=_Place)
    clips: list[tuple[Path, int]] = field(default_factory=list)
    size_bytes: int = 0
    facts: video.VideoFacts | None = None

    @property
    def frames(self) -> int:
        return sum(length for _, length in self.clips)


class PackedFiles:
    """v3.0: Parquet files with a row group per episode, mp4 files with the episodes of one camera back to back.

    A file is closed before the episode that would make it larger than its limit; a Parquet file also after a thousand.
    Clips wait in a folder beside the dataset and are joined once, when their file is closed.
    """

    def __init__(self, root: Path, *, fps: float, chunk_size: int, data_file_mb: float, video_file_mb: float) -> None:
        self._root = root
        self._fps = fps
        self._chunk_size = chunk_size
        self._data_limit = data_file_mb * MEGABYTE
        self._video_limit = video_file_mb * MEGABYTE
        self._data_place = _Place()
        self._data_bytes = self._num_groups = 0
        self._table_writer: pq.ParquetWriter | None = None
        self._videos: dict[str, _OpenVideo] = {}
        self.data_files: list[Path] = []
        self.first_videos: dict[str, Path] = {}

    def clip_path(self, episode: int, camera: str) -> Path:
        """Return a place beside the dataset's files."""
        return self._root / CLIPS_FOLDER / camera / f"{episode:06d}.mp4"

    def add(self, episode: int, table: pa.Table, clips: Mapping[str, int]) -> dict[str, Any]:
        """Append the rows to the open Parquet file and each clip to its camera's open video."""
        row = self._add_rows(table)
        for camera, length in clips.items():
            row |= self._add_clip(camera, self.clip_path(episode, camera), length)
        return row

    def _add_rows(self, table: pa.Table) -> dict[str, Any]:
        # Closed before it grows over its limit, taking the last episode's size as this one's.
        sink = self.data_files[-1] if self._table_writer is not None else None
        if sink is not None:
            written = sink.stat().st_size
            full = written + (written - self._data_bytes) >= self._data_limit
            if full or self._num_groups == MOST_ROW_GROUPS:
                self._close_table()
                self._data_place.advance(self._chunk_size)
            else:
                self._data_bytes = written
        if self._table_writer is None:
            path = self._root / self._data_place.format(DATA_PATHS[V30])
            path.parent.mkdir(parents=True, exist_ok=True)
            self._table_writer = pq.ParquetWriter(path, table.schema, compression="snappy")
            self.data_files.append(path)
            self._data_bytes = self._num_groups = 0
        self._table_writer.write_table(table, row_group_size=max(len(table), 1))
        self._num_groups += 1
        return {"data/chunk_index": self._data_place.chunk, "data/file_index": self._data_place.file}

    def _add_clip(self, camera: str, clip: Path, length: int) -> dict[str, Any]:
        target = self._videos.setdefault(camera, _OpenVideo())
        facts = video.probe(str(clip))
        size = clip.stat().st_size
        too_large = target.size_bytes + size >= self._video_limit
        if target.clips and (too_large or target.facts is None or not target.facts.joins(facts)):
            self._close_video(camera)
        target.facts = target.facts or facts
        start = target.frames
        target.clips.append((clip, length))
        target.size_bytes += size
        prefix = f"videos/{camera}"
        return {
            f"{prefix}/chunk_index": target.place.chunk,
            f"{prefix}/file_index": target.place.file,
            f"{prefix}/from_timestamp": start / self._fps,
            f"{prefix}/to_timestamp": (start + length) / self._fps,
        }

    def _close_table(self) -> None:
        if self._table_writer is not None:
            self._table_writer.close()
            self._table_writer = None

    def _close_video(self, camera: str) -> None:
        done = self._videos[camera]
        path = self._root / done.place.format(VIDEO_PATHS[V30], video_key=camera)
        video.concatenate(done.clips, path, fps=self._fps)
        for clip, _ in done.clips:
            clip.unlink()
        self.first_videos.setdefault(camera, path)
        done.place.advance(self._chunk_size)
        done.clips, done.size_bytes, done.facts = [], 0, None

    def finish(self) -> None:
        """Close the open files and remove the clips' folder."""
        self._close_table()
        for camera, target in self._videos.items():
            if target.clips:
                self._close_video(camera)
        shutil.rmtree(self._root / CLIPS_FOLDER, ignore_errors=True)
