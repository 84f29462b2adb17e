"""Reads the meta folder of a LeRobot dataset, v2.1 or v3.0, into one shape, and refuses what does not add up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robolift import schema, storage
from robolift.data import lerobot_format as fmt
from robolift.errors import DataError

REWRITE = "write the dataset's meta folder again, or take it from an intact copy"
EPISODE_COLUMNS = ("episode_index", "tasks", "length")
PYTHON_ROWS = 1024
MAX_SHARED = 1024


@dataclass(frozen=True, slots=True)
class VideoPlace:
    """Where an episode's frames of one camera lie: file relative to the dataset, time of the first frame."""

    path: str
    start_s: float


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the paths of an episode's files are formed; what all episodes of a dataset share."""

    version: str
    cameras: tuple[str, ...]
    data_template: str
    video_template: str
    chunks_size: Any

    @classmethod
    def of(cls, info: Mapping[str, Any], cameras: tuple[str, ...]) -> _Layout:
        version = str(info["codebase_version"])
        data_template = str(info.get("data_path") or fmt.DATA_PATHS[version])
        video_template = str(info.get("video_path") or fmt.VIDEO_PATHS[version])
        return cls(version, cameras, data_template, video_template, info.get("chunks_size") or 1000)

    def numbers(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Return what a meta row says of the places of the episode's files; v2.1 goes by the index alone."""
        if self.version != fmt.V30:
            return ()
        keys = ["data/chunk_index", "data/file_index"]
        for camera in self.cameras:
            keys += [f"videos/{camera}/{key}" for key in ("chunk_index", "file_index", "from_timestamp")]
        return tuple(row[key] for key in keys)

    def data_path(self, index: int, numbers: Sequence[float]) -> str:
        return self.data_template.format(**self._names(index, numbers[:2]))

    def video(self, index: int, numbers: Sequence[float], camera: str) -> VideoPlace:
        place = self.cameras.index(camera)
        of_camera = numbers[2 + 3 * place : 5 + 3 * place]
        path = self.video_template.format(**self._names(index, of_camera), video_key=camera)
        return VideoPlace(path, float(of_camera[2]) if of_camera else 0.0)

    def _names(self, index: int, numbers: Sequence[float]) -> dict[str, float]:
        chunk = index // int(self.chunks_size)
        if self.version == fmt.V30:
            return {"chunk_index": numbers[0], "file_index": numbers[1]}
        return {"episode_chunk": chunk, "episode_index": index}


@dataclass(frozen=True, slots=True)
class EpisodeMeta:
    """One episode, as the meta folder describes it; a few hundred bytes, for there may be a hundred thousand.

    Attributes:
        index: Its number, 0..E-1.
        length: Number of frames.
        tasks: Its task texts.
        extra: What else the meta row says, such as ``outcome``; episodes that say the same share it.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    extra: Mapping[str, Any]
    _layout: _Layout
    _numbers: tuple[float, ...]

    @property
    def data_path(self) -> str:
        """Parquet file with its rows, relative to the dataset."""
        return self._layout.data_path(self.index, self._numbers)

    @property
    def videos(self) -> dict[str, VideoPlace]:
        """For each camera where its frames are."""
        return {camera: self.video(camera) for camera in self._layout.cameras}

    def video(self, camera: str) -> VideoPlace:
        """Return where the frames of one of the dataset's cameras are."""
        return self._layout.video(self.index, self._numbers, camera)


@dataclass(frozen=True)
class Meta:
    """The meta folder.

    Attributes:
        info: info.json as it stands.
        features: Its features with shapes squeezed (kai0's [1, 14] is (14,)) and video facts under ``info``.
        tasks: Task texts by task_index.
        episodes: By index.
    """

    info: dict[str, Any]
    version: str
    fps: float
    features: dict[str, dict[str, Any]]
    cameras: tuple[str, ...]
    tasks: tuple[str, ...]
    episodes: tuple[EpisodeMeta, ...]


def read_meta(uri: str) -> Meta:
    """Read and check a dataset's meta folder.

    Args:
        uri: The dataset's folder, at any address.

    Raises:
        DataError: If a file is missing or garbled, the version is another one, or totals, tasks and episodes disagree.
    """
    info_uri = storage.join(uri, fmt.INFO_FILE)
    info = storage.read_json(info_uri)
    if not isinstance(info, dict):
        raise DataError("info.json is not an object", where=info_uri, mend=REWRITE)
    version = info.get("codebase_version")
    if version not in fmt.VERSIONS:
        raise DataError(
            f"LeRobot version {version!r}",
            where=info_uri,
            expected=" or ".join(fmt.VERSIONS),
            mend="convert it with LeRobot's own convert_dataset script",
        )
    fps = info.get("fps")
    if not isinstance(fps, (int, float)) or isinstance(fps, bool) or not fps > 0:
        raise DataError(f"fps is {fps!r}", where=info_uri, expected="a positive number", mend=REWRITE)
    features = _features(info, info_uri)
    cameras = tuple(sorted(name for name, feature in features.items() if feature["dtype"] == "video"))
    read = _read_v21 if version == fmt.V21 else _read_v30
    tasks, rows = read(uri)
    layout, shared = _Layout.of(info, cameras), dict[Any, Any]()
    found = (_episode(layout, row, uri, shared) for row in rows)
    episodes = tuple(sorted(found, key=lambda episode: episode.index))
    _check_totals(info, tasks, episodes, info_uri)
    return Meta(info, str(version), float(fps), features, cameras, tuple(tasks), episodes)


def _features(info: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    declared = info.get("features")
    if not isinstance(declared, dict) or not declared:
        raise DataError("info.json declares no features", where=where, mend=REWRITE)
    features: dict[str, dict[str, Any]] = {}
    for name, feature in declared.items():
        known = isinstance(feature, dict) and feature.get("dtype") in {*fmt.ARROW_TYPES, "video", "image"}
        shape = feature.get("shape") if known else None
        if not isinstance(shape, (list, tuple)) or not all(isinstance(size, int) and size > 0 for size in shape):
            raise DataError(
                f"feature {name} is declared as {feature!r}",
                where=where,
                expected="a dtype LeRobot knows and a shape of positive sizes",
                mend=REWRITE,
            )
        pictures = feature["dtype"] in ("video", "image")
        features[name] = {**feature, "shape": tuple(shape) if pictures else fmt.squeezed(shape)}
        if "video_info" in feature:  # the spelling of older writers, kai0's among them
            features[name]["info"] = feature.get("info") or features[name].pop("video_info")
    missing = [name for name in fmt.STANDARD_COLUMNS if name not in features]
    if missing:
        raise DataError(f"info.json does not declare {', '.join(missing)}", where=where, mend=REWRITE)
    return features


def read_lines(uri: str) -> list[dict[str, Any]]:
    """Read a JSON-lines file of objects.

    Raises:
        DataError: If it is missing or a line is not a JSON object.
    """
    return [row for _, row in lines(uri)]


def lines(uri: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield each line of a JSON-lines file of objects, and the object.

    Raises:
        DataError: If the file is missing or a line is not a JSON object.
    """
    for number, line in enumerate(storage.read_bytes(uri).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"line {number} is not JSON: {error}", where=uri, mend=REWRITE) from error
        if not isinstance(row, dict):
            raise DataError(f"line {number} is not an object", where=uri, mend=REWRITE)
        yield line, row


def _read_v21(uri: str) -> tuple[list[str], Iterable[dict[str, Any]]]:
    tasks_uri = storage.join(uri, fmt.TASKS_JSONL)
    found = read_lines(tasks_uri)
    tasks = {row.get("task_index"): row.get("task") for row in found}
    if len(tasks) != len(found):
        raise DataError("a task_index stands twice", where=tasks_uri, mend=REWRITE)
    return (
        _checked_tasks([(index, tasks[index]) for index in sorted(tasks, key=str)], tasks_uri),
        (row for _, row in lines(storage.join(uri, fmt.EPISODES_JSONL))),
    )


def _checked_tasks(rows: list[tuple[Any, Any]], where: str) -> list[str]:
    """Return the task texts; row i must be task i, because readers take a task by its position."""
    by_index = sorted(rows, key=lambda row: row[0]) if all(isinstance(row[0], int) for row in rows) else rows
    for position, (index, text) in enumerate(by_index):
        if index != position or not isinstance(text, str):
            raise DataError(
                f"task {position} has task_index {index!r} and text {text!r}",
                where=where,
                expected="task_index 0, 1, 2, ... and a text each",
                mend=REWRITE,
            )
    return [text for _, text in by_index]


def _read_v30(uri: str) -> tuple[list[str], Iterable[dict[str, Any]]]:
    tasks_uri = storage.join(uri, fmt.TASKS_PARQUET)
    table = schema.read_parquet(tasks_uri)
    text = next((name for name in ("task", fmt.TASK_INDEX_COLUMN) if name in table.column_names), None)
    if text is None or "task_index" not in table.column_names:
        raise DataError(
            f"tasks.parquet has columns {table.column_names}",
            where=tasks_uri,
            expected=f"task_index, and task or {fmt.TASK_INDEX_COLUMN}",
            mend=REWRITE,
        )
    positions = table.column("task_index").to_pylist()
    if positions != list(range(len(positions))):
        raise DataError(
            f"rows of tasks.parquet stand in the order {positions[:8]}",
            where=tasks_uri,
            expected="row i holds task_index i: readers take the row by its position",
            mend="sort the table by task_index",
        )
    tasks = _checked_tasks(list(zip(positions, table.column(text).to_pylist(), strict=True)), tasks_uri)
    return tasks, _read_episode_tables(storage.join(uri, fmt.EPISODES_FOLDER))


def _read_episode_tables(folder: str) -> Iterator[dict[str, Any]]:
    names = [name for name, _ in storage.list_files(folder) if name.endswith(".parquet")]
    if not names:
        raise DataError("no episode table", where=folder, expected="chunk-000/file-000.parquet", mend=REWRITE)
    for name in names:
        file_uri = storage.join(folder, name)
        for rows in schema.read_batches(file_uri, lambda column: not column.startswith("stats/")):
            for batch in rows.to_batches(PYTHON_ROWS):
                yield from batch.to_pylist()


def _episode(layout: _Layout, row: Mapping[str, Any], uri: str, shared: dict[Any, Any]) -> EpisodeMeta:
    """Return the episode of a meta row; what it has in common with earlier ones it takes from ``shared``."""
    where = f"{storage.join(uri, 'meta')}, episode {row.get('episode_index')}"
    index, tasks, length = (row.get(key) for key in EPISODE_COLUMNS)
    if not isinstance(index, int) or not isinstance(length, int) or length < 1 or not isinstance(tasks, list):
        raise DataError(
            f"episode_index, length, tasks are {index!r}, {length!r}, {tasks!r}",
            where=where,
            expected="a number, a positive number, a list of texts",
            mend=REWRITE,
        )
    known = {*EPISODE_COLUMNS, "dataset_from_index", "dataset_to_index"}
    extra = {k: v for k, v in row.items() if k not in known and not k.startswith(("data/", "videos/", "meta/"))}
    texts = tuple(str(task) for task in tasks)
    try:
        numbers = layout.numbers(row)
        texts = shared.setdefault(("tasks", texts), texts)
        found = EpisodeMeta(index, length, texts, _once(extra, shared), layout, numbers)
        _ = found.data_path, found.videos  # formed whenever they are asked for; here it shows whether they can be
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(
            f"the episode's files can't be told: {error!r}",
            where=where,
            expected=f"{layout.data_template} and {layout.video_template} with the numbers of the episode's meta row",
            mend=REWRITE,
        ) from error
    return found


def _once(extra: dict[str, Any], shared: dict[Any, Any]) -> dict[str, Any]:
    """Return an equal one that was seen before; values of different types are not equal, and lists are left alone."""
    key = ("extra", *((name, type(value), value) for name, value in extra.items()))
    try:
        hash(key)
    except TypeError:
        return extra
    return shared.setdefault(key, extra) if key in shared or len(shared) < MAX_SHARED else extra


def _check_totals(info: Mapping[str, Any], tasks: list[str], episodes: tuple[EpisodeMeta, ...], where: str) -> None:
    indices = [episode.index for episode in episodes]
    if not indices or indices != list(range(len(indices))):
        wrong = next((i for i, index in enumerate(indices) if i != index), 0)
        raise DataError(
            f"episode indices are not 0..{len(indices) - 1}: first wrong one at place {wrong}",
            where=where,
            expected="each episode once, without a gap",
            mend=REWRITE,
        )
    found = {
        "total_episodes": len(episodes),
        "total_frames": sum(episode.length for episode in episodes),
        "total_tasks": len(tasks),
    }
    for key, value in found.items():
        if info.get(key) != value:
            raise DataError(
                f"{key} is {info.get(key)!r} in info.json, the meta tables have {value}",
                where=where,
                expected="the same number",
                mend=REWRITE,
            )
