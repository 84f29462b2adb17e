"""Writes LeRobot datasets, v2.1 and v3.0, an episode at a time, as LeRobot's own loader reads them.

Matches what ``lerobot`` 0.3.3 (v2.1) and 0.4.4 (v3.0) write; ``tests/oracle`` holds us to it. The same episodes give
the same bytes. ``meta/info.json`` is written last: without it a dataset isn't finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolift import storage
from robolift.data import lerobot_format as fmt
from robolift.data import video
from robolift.data.lerobot_files import Files, PackedFiles, SeparateFiles
from robolift.data.lerobot_format import FeatureSpec
from robolift.data.statistics import ImageStatistics, Statistics, column_statistics, sample_indices, to_json
from robolift.data.video import Codec, VideoClip
from robolift.data.video_decoder import decode_frames
from robolift.errors import DataError, UsageError

__all__ = ["FeatureSpec", "LeRobotWriter"]

Frames = Iterable[np.ndarray] | VideoClip


class LeRobotWriter:
    """Writes one dataset into an empty local folder; call :meth:`finish` at the end."""

    def __init__(
        self,
        path: Path,
        *,
        fps: float,
        features: Mapping[str, FeatureSpec],
        cameras: Mapping[str, tuple[int, int]],
        robot_type: str,
        version: str = fmt.V21,
        codec: Codec = video.H264,
        extra_info: Mapping[str, Any] | None = None,
        tasks: Sequence[str] = (),
        chunk_size: int = 1000,
        data_file_mb: float = 100,
        video_file_mb: float = 200,
    ) -> None:
        """Begin a dataset.

        Args:
            path: Folder to write into; made if missing, must be empty.
            fps: Frames a second.
            features: Columns besides the five standard ones, which the writer makes.
            cameras: (height, width) of each camera, by feature name such as ``observation.images.top``.
            robot_type: Goes into info.json.
            version: ``v2.1`` or ``v3.0``.
            codec: Of videos given as frames; :data:`video.H264` or :data:`video.AV1`.
            extra_info: More keys of info.json.
            tasks: Task texts that take the first task indices, in this order; others follow as they appear.
            chunk_size: Files in one ``chunk-000`` folder (v2.1: episodes).
            data_file_mb: v3.0: size at which a Parquet file is closed.
            video_file_mb: v3.0: size at which a video file is closed.

        Raises:
            UsageError: If the version is unknown, a feature's name is taken or malformed, or the folder isn't empty.
        """
        _check_declarations(path, version, fps, features, cameras)
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.version = version
        self._fps = fps
        self._features = {**features, **fmt.STANDARD_FEATURES}
        self._own_columns = set(features)
        self._cameras = dict(cameras)
        self._codec = codec
        self._schema = fmt.data_schema(self._features, version)
        self._chunk_size = chunk_size
        self._limits = {
            "chunks_size": chunk_size,
            "data_files_size_in_mb": data_file_mb,
            "video_files_size_in_mb": video_file_mb,
        }
        self._robot_type = robot_type
        self._extra_info = dict(extra_info or {})
        self._files: Files = (
            SeparateFiles(path, chunk_size=chunk_size)
            if version == fmt.V21
            else PackedFiles(
                path, fps=fps, chunk_size=chunk_size, data_file_mb=data_file_mb, video_file_mb=video_file_mb
            )
        )
        self._task_index: dict[str, int] = {}
        for task in tasks:
            self._task_index.setdefault(task, len(self._task_index))
        self._episodes: list[dict[str, Any]] = []
        self._episode_statistics: list[dict[str, Statistics]] = []
        self._camera_statistics = {camera: ImageStatistics() for camera in cameras}
        self._num_frames = 0

    def add_episode(
        self,
        columns: Mapping[str, np.ndarray | list[Any]],
        *,
        videos: Mapping[str, Frames],
        task: str,
        frame_tasks: Sequence[str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> int:
        """Write one episode.

        Args:
            columns: For each declared feature T values: (T,), (T, d), or T strings.
            videos: For each camera T frames, (H, W, 3) uint8 RGB, taken one at a time; or a :class:`VideoClip`,
                which is copied without encoding where its keyframes allow.
            task: The episode's task text.
            frame_tasks: T task texts, when frames differ; ``task`` is then only used for the episode's first task.
            extra: More keys of the episode's meta row, JSON scalars.

        Returns:
            The episode's index.

        Raises:
            UsageError: If a column or camera is missing, unknown or of the wrong length or shape.
            DataError: If a column has no finite value, or a clip can't be read.
        """
        length = self._check_columns(columns, videos, frame_tasks)
        row_extra = _checked_extra(extra or {})
        episode = len(self._episodes)
        images = {camera: self._write_clip(episode, camera, videos[camera], length) for camera in self._cameras}
        statistics = {camera: found.result() for camera, found in images.items()}
        per_frame = [task] * length if frame_tasks is None else list(frame_tasks)
        task_index = dict(self._task_index)
        for text in per_frame:
            task_index.setdefault(text, len(task_index))
        table = self._table(episode, columns, [task_index[text] for text in per_frame])
        for name, spec in self._features.items():
            if spec.dtype != "string":
                where = f"episode {episode}, column {name}"
                statistics[name] = column_statistics(_numbers(table.column(name)), where=where)
        # From here on nothing is refused any more: a failed episode must leave no trace.
        self._task_index = task_index
        for camera, found in images.items():
            self._camera_statistics[camera].merge(found)
        places = self._files.add(episode, table, dict.fromkeys(self._cameras, length))
        tasks = list(dict.fromkeys([task, *per_frame] if frame_tasks is None else per_frame))
        self._episodes.append(
            {
                "episode_index": episode,
                "tasks": tasks,
                "length": length,
                "dataset_from_index": self._num_frames,
                "dataset_to_index": self._num_frames + length,
                **places,
                **row_extra,
            }
        )
        self._episode_statistics.append(statistics)
        self._num_frames += length
        return episode

    def finish(self) -> None:
        """Complete the files and write the meta folder, ``info.json`` last.

        Raises:
            UsageError: If no episode was added.
        """
        if not self._episodes:
            raise UsageError(f"no episode was written to {self.path}: a LeRobot dataset has at least one")
        self._files.finish()
        if self.version == fmt.V21:
            self._write_meta_v21()
        else:
            self._write_meta_v30()
        storage.write_bytes(str(self.path / fmt.INFO_FILE), _json(self._info(), indent=4))

    def _check_columns(
        self, columns: Mapping[str, Any], videos: Mapping[str, Frames], frame_tasks: Sequence[str] | None
    ) -> int:
        """Return the episode's number of frames after checking that all there is has it."""
        for what, given, declared in (("columns", columns, self._own_columns), ("cameras", videos, self._cameras)):
            wrong = set(given) ^ set(declared)
            if wrong:
                raise UsageError(
                    f"{what} differ from the declared ones in {sorted(wrong)}; declared: {sorted(declared)}"
                )
        lengths = {name: len(values) for name, values in columns.items()}
        if frame_tasks is not None:
            lengths["frame_tasks"] = len(frame_tasks)
        length = next(iter(lengths.values()))
        if length < 1 or len(set(lengths.values())) != 1:
            raise UsageError(f"columns of one episode need the same number of rows, at least one: {lengths}")
        for name, values in columns.items():
            spec = self._features[name]
            expected = {(length, *spec.shape)} | ({(length,)} if spec.shape == (1,) else set())
            if spec.dtype != "string" and np.shape(values) not in expected:
                raise UsageError(f"column {name} has shape {np.shape(values)}, expected {(length, *spec.shape)}")
        return length

    def _write_clip(self, episode: int, camera: str, frames: Frames, length: int) -> ImageStatistics:
        """Write one camera's clip and return its image statistics."""
        path = self._files.clip_path(episode, camera)
        where = f"episode {episode}, camera {camera}"
        size = self._cameras[camera]
        statistics = ImageStatistics()
        if isinstance(frames, VideoClip):
            facts = video.probe(frames.uri)
            if frames.num_frames != length or frames.fps != self._fps or (facts.height, facts.width) != size:
                raise UsageError(f"{where}: the clip {frames} of {facts.height}x{facts.width} does not fit")
            copied = video.cut(frames, path)
            source = VideoClip(str(path), 0.0, length, self._fps) if copied else frames
            images = _watch(decode_frames(source), length, statistics, where)
            if copied:
                for _ in images:
                    pass
                return statistics
        else:
            images = _watch(frames, length, statistics, where)
        video.encode_video(path, images, fps=self._fps, size=size, codec=self._codec)
        return statistics

    def _table(self, episode: int, columns: Mapping[str, Any], tasks: Sequence[int]) -> pa.Table:
        length = len(tasks)
        frame = np.arange(length)
        standard = {
            "timestamp": frame / self._fps,
            "frame_index": frame,
            "episode_index": np.full(length, episode),
            "index": frame + self._num_frames,
            "task_index": tasks,
        }
        values = {**columns, **standard}
        arrays = [fmt.arrow_column(values[name], spec) for name, spec in self._features.items()]
        return pa.Table.from_arrays(arrays, schema=self._schema)

    def _info(self) -> dict[str, Any]:
        features: dict[str, Any] = {name: spec.to_info() for name, spec in self._features.items()}
        own = [name for name in features if name not in fmt.STANDARD_COLUMNS]
        described = {name: features[name] for name in own}
        for camera, (height, width) in self._cameras.items():
            described[camera] = {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": fmt.IMAGE_NAMES,
                "info": video.probe(str(self._files.first_videos[camera])).to_info(),
            }
        described |= {name: features[name] for name in fmt.STANDARD_COLUMNS}
        episodes = len(self._episodes)
        chunks = -(-episodes // self._chunk_size)
        v21 = self.version == fmt.V21
        old = {"total_videos": episodes * len(self._cameras), "total_chunks": chunks} if v21 else {}
        limits = {"chunks_size": self._chunk_size} if v21 else self._limits
        return {
            "codebase_version": self.version,
            "robot_type": self._robot_type,
            "total_episodes": episodes,
            "total_frames": self._num_frames,
            "total_tasks": len(self._task_index),
            **old,
            **limits,
            "fps": int(self._fps) if self._fps == int(self._fps) else self._fps,
            "splits": {"train": f"0:{episodes}"},
            "data_path": fmt.DATA_PATHS[self.version],
            "video_path": fmt.VIDEO_PATHS[self.version] if self._cameras else None,
            "features": described,
            **self._extra_info,
        }

    def _write_meta_v21(self) -> None:
        hidden = ("dataset_from_index", "dataset_to_index")
        rows = [{key: value for key, value in row.items() if key not in hidden} for row in self._episodes]
        tasks = [{"task_index": index, "task": task} for task, index in self._task_index.items()]
        statistics = [
            {"episode_index": index, "stats": {name: to_json(found) for name, found in parts.items()}}
            for index, parts in enumerate(self._episode_statistics)
        ]
        for name, lines in (
            (fmt.EPISODES_JSONL, rows),
            (fmt.TASKS_JSONL, tasks),
            (fmt.EPISODES_STATS_JSONL, statistics),
        ):
            storage.write_bytes(str(self.path / name), b"".join(_json(line) for line in lines))

    def _write_meta_v30(self) -> None:
        place = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        rows = []
        for row, parts in zip(self._episodes, self._episode_statistics, strict=True):
            flat = {
                f"stats/{name}/{key}": value for name, found in parts.items() for key, value in to_json(found).items()
            }
            rows.append({**row, **flat, **place})
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in columns})
        target = self.path / fmt.EPISODES_PATH.format(chunk_index=0, file_index=0)
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target, compression="snappy")
        pq.write_table(fmt.tasks_table(list(self._task_index)), self.path / fmt.TASKS_PARQUET)
        statistics = {name: to_json(found) for name, found in self._dataset_statistics().items()}
        storage.write_bytes(str(self.path / fmt.STATS_FILE), _json(statistics, indent=4))

    def _dataset_statistics(self) -> dict[str, Statistics]:
        """Return exact statistics over all frames; one column at a time is read back, so memory stays small."""
        found = {camera: images.result() for camera, images in self._camera_statistics.items()}
        for name, spec in self._features.items():
            if spec.dtype != "string":
                parts = [pq.read_table(path, columns=[name]).column(name) for path in self._files.data_files]
                found[name] = column_statistics(np.concatenate([_numbers(part) for part in parts]), where=name)
        return found


def _check_declarations(
    path: Path, version: str, fps: float, features: Mapping[str, FeatureSpec], cameras: Mapping[str, tuple[int, int]]
) -> None:
    if version not in fmt.VERSIONS:
        raise UsageError(f"no LeRobot version {version!r}; there are: {', '.join(fmt.VERSIONS)}")
    if fps <= 0:
        raise UsageError(f"fps is {fps}, expected a positive number")
    if not features:
        raise UsageError("a LeRobot dataset needs at least one column besides the standard ones")
    taken = sorted((set(features) & set(fmt.STANDARD_COLUMNS)) | (set(features) & set(cameras)))
    if taken:
        raise UsageError(f"the writer makes these columns itself, or a camera has the name: {', '.join(taken)}")
    for name in [*features, *cameras]:
        if "/" in name or not name:
            raise UsageError(f"feature name {name!r}: LeRobot allows no '/' and no empty name")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is not an empty folder; a dataset is never written over another")


def _checked_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    reserved = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"}
    for key, value in extra.items():
        if key in reserved or key.startswith(("data/", "videos/", "stats/", "meta/")):
            raise UsageError(f"episode key {key!r} belongs to LeRobot")
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise UsageError(f"episode key {key!r} is {type(value).__name__}, expected text, a number or a boolean")
    return dict(extra)


def _watch(frames: Iterable[np.ndarray], length: int, statistics: ImageStatistics, where: str) -> Iterator[np.ndarray]:
    """Pass frames on while counting them and taking the sampled ones into the statistics."""
    sampled = set(sample_indices(length).tolist())
    count = 0
    for frame in frames:
        count += 1
        if count > length:
            break
        yield frame
        if count - 1 in sampled:
            statistics.add(frame)
    if count != length:
        found = f"more than {length}" if count > length else f"only {count}"
        raise DataError(f"a video has {found} frames", where=where, expected=f"{length}, one a row")


def _numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return a numeric Arrow column as (rows,) or (rows, d)."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_fixed_size_list(array.type):
        flat = array.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat.reshape(len(array), array.type.list_size))
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _json(document: Any, *, indent: int | None = None) -> bytes:
    # Key order is kept: LeRobot takes the order of features from info.json.
    return (json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode()
