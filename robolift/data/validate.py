"""What must hold of a LeRobot dataset before anything is learned from it; every fault is noted, none is repaired.

The reader refuses a broken meta folder at once. Here the files themselves are read, not through the reader, so that
one pass finds everything wrong with the rows, and files an importer would silently ignore are seen.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from robolift import schema, storage
from robolift.data.columns import is_text, scalar_type, to_numpy
from robolift.data.lerobot import EpisodeMeta, LeRobotReader
from robolift.data.lerobot_format import ARROW_TYPES, STANDARD_DTYPES, declared, squeezed
from robolift.data.problems import Problems
from robolift.data.video import TOLERANCE_FRAMES
from robolift.errors import DataError
from robolift.logging import progress

ACTION = "action"
VIDEO = "video"
# Sources that differ in these can't be one dataset.
SHARED_FACTS = ("fps", "robot_type", "cameras")
SHARED_FEATURES = (ACTION, "observation.state")


def check_declarations(reader: LeRobotReader, problems: Problems) -> None:
    """Check what info.json declares and that every file it names is there."""
    where = "meta/info.json"
    for name, dtype in STANDARD_DTYPES.items():
        declared = reader.features[name]["dtype"]
        if declared != dtype:
            problems.add(f"feature {name} is declared as {declared}", where=where, expected=dtype)
    if ACTION not in reader.features:
        problems.add(f"there is no feature {ACTION}", where=where, expected="a vector of numbers in each frame")
    for name, feature in reader.features.items():
        if feature["dtype"] == "image":
            problems.add(
                f"feature {name} has dtype image",
                where=where,
                expected=f"{VIDEO}, or one of {', '.join(ARROW_TYPES)}",
                mend="store images as video; LeRobot can convert them",
            )
    try:
        reader.check_files()
    except DataError as error:
        problems.add_error(error)


def table_features(reader: LeRobotReader) -> dict[str, dict[str, Any]]:
    """Return the features that are columns of the data files."""
    return {name: feature for name, feature in reader.features.items() if feature["dtype"] != VIDEO}


def data_files(reader: LeRobotReader) -> list[str]:
    """Return the data files, relative to the dataset, in the order of their episodes."""
    return list(dict.fromkeys(meta.data_path for meta in reader.episodes))


def split_episodes(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Yield (episode_index, rows) of each run of rows of one episode."""
    owners = to_numpy(table.column(schema.EPISODE_INDEX))
    edges = np.flatnonzero(np.diff(owners)) + 1
    bounds = [0, *edges.tolist(), len(owners)] if len(owners) else [0]
    for start, stop in pairwise(bounds):
        yield int(owners[start]), table.slice(start, stop - start)


class FrameChecker:
    """Reads the rows of every data file once, as stored, and checks them."""

    def __init__(self, reader: LeRobotReader, problems: Problems, *, nan_columns: Collection[str] = ()) -> None:
        """Prepare to check.

        Args:
            reader: The dataset.
            problems: Where faults are noted.
            nan_columns: Columns that may hold NaN.
        """
        self._reader = reader
        self._features = {name: f for name, f in table_features(reader).items() if f["dtype"] in ARROW_TYPES}
        self._problems = problems
        self._nan_columns = set(nan_columns)
        self._starts = np.cumsum([0, *(meta.length for meta in reader.episodes)])

    def episodes(self) -> Iterator[tuple[EpisodeMeta, pa.Table]]:
        """Check all rows and yield those of each sound episode, as stored."""
        seen: set[int] = set()
        for path in data_files(self._reader):
            for index, rows in self._runs(path):
                if index in seen or not 0 <= index < len(self._reader.episodes):
                    self._problems.add(
                        "rows that belong to no episode of the meta folder, or do not stand together",
                        where=f"{path}: episode_index {index}",
                        expected="each episode of the meta folder in one run of rows",
                        mend="write the dataset again, sorted by episode_index and frame_index",
                    )
                    continue
                seen.add(index)
                before = len(self._problems)
                self._check_rows(self._reader.episodes[index], rows)
                if len(self._problems) == before:
                    yield self._reader.episodes[index], rows
        for meta in self._reader.episodes:
            if meta.index not in seen:
                self._problems.add("an episode has no rows", where=f"episode {meta.index}", mend="copy the files again")

    def _runs(self, path: str) -> Iterator[tuple[int, pa.Table]]:
        """Yield (episode_index, rows) of each run of rows of one episode in a data file, a part of it in memory."""
        owner, parts = -1, list[pa.Table]()
        try:
            for table in schema.read_batches(storage.join(self._reader.uri, path)):
                if not table.num_rows:
                    self._check_names(table.column_names, path)
                if not self._readable(schema.EPISODE_INDEX, table, path):
                    return
                for index, rows in split_episodes(table):
                    if parts and index != owner:
                        yield owner, pa.concat_tables(parts)
                        parts = []
                    owner = index
                    parts.append(rows)
        except DataError as error:
            self._problems.add_error(error)
            return
        if parts:
            yield owner, pa.concat_tables(parts)

    def _check_names(self, names: list[str], path: str) -> None:
        declared = set(table_features(self._reader))
        for name in sorted(set(names) - declared):
            self._problems.add(
                f"column {name} is in the data but not declared in meta/info.json",
                where=path,
                expected="every column of the data files declared as a feature; LeRobot v3.0 refuses to load others",
                mend=f"declare {name} with dtype and shape, or drop the column",
            )
        for name in sorted(declared - set(names)):
            self._problems.add(
                f"column {name} is declared in meta/info.json but absent from the data",
                where=path,
                expected="every declared feature in each data file; a loader would read it as null",
                mend=f"write {name} or drop its declaration",
            )

    def _check_rows(self, meta: EpisodeMeta, table: pa.Table) -> None:
        where = f"episode {meta.index}"
        if table.num_rows != meta.length:
            self._problems.add(
                "an episode has another number of rows than its meta row says",
                where=f"{where}: {table.num_rows} rows, length {meta.length}",
                mend="restore the missing rows or write the meta folder again",
            )
        values: dict[str, np.ndarray[Any, Any]] = {}
        for name in self._features:
            if self._readable(name, table, where) and not is_text(table.schema.field(name).type):
                values[name] = to_numpy(table.column(name))
                self._check_finite(name, values[name], where)
        self._check_index(meta, values, where)
        self._check_times(values, where)
        self._check_task(values, where)

    def _readable(self, name: str, table: pa.Table, where: str) -> bool:
        """Check dtype, width and nulls of one column; returns whether its values can be read."""
        if name not in table.column_names:
            if name == schema.EPISODE_INDEX:
                self._problems.add(f"column {name} is missing", where=where)
            return False
        feature, column = self._features[name], table.column(name)
        scalar, expected = scalar_type(column.type), ARROW_TYPES[feature["dtype"]]
        width = math.prod(squeezed(feature["shape"]))
        if scalar != expected and not (is_text(scalar) and is_text(expected)):
            self._problems.add(
                f"column {name} is {column.type}, meta/info.json declares {feature['dtype']}",
                where=where,
                expected=f"{expected}, {width} in each row",
                mend="write the column with the declared dtype",
            )
            return False
        if column.null_count:
            self._problems.add(f"column {name} has nulls", where=where, expected="a value in each row")
            return False
        try:
            found = math.prod(to_numpy(column).shape[1:])
        except DataError:
            found = -1
        if table.num_rows and found != width:
            self._problems.add(
                f"column {name} has rows of another width than declared",
                where=f"{where}: {'different widths' if found < 0 else found}",
                expected=f"{width} numbers in each row",
            )
        return bool(found == width)

    def _check_finite(self, name: str, values: np.ndarray[Any, Any], where: str) -> None:
        if name in self._nan_columns or not np.issubdtype(values.dtype, np.floating):
            return
        wrong = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if wrong.any():
            self._problems.add(
                f"column {name} holds NaN or infinity",
                where=f"{where}: {int(wrong.sum())} of {len(values)} rows, first in frame {int(wrong.argmax())}",
                expected="finite numbers",
                mend=f"repair or drop these episodes, or set allow_nan: [{name}] if nothing is learned from it",
            )

    def _check_index(self, meta: EpisodeMeta, values: Mapping[str, np.ndarray[Any, Any]], where: str) -> None:
        start = int(self._starts[meta.index])
        for name, first, expected, mend in (
            ("frame_index", 0, "0, 1, 2, ... in each episode", "restore the missing rows, or renumber after filtering"),
            ("index", start, "each frame's row number in the dataset", "renumber index after filtering"),
        ):
            found = values.get(name)
            if found is None:
                continue
            wrong = found.reshape(-1) != first + np.arange(len(found))
            if wrong.any():
                row = int(wrong.argmax())
                self._problems.add(
                    f"{name} has a gap or is out of order",
                    where=f"{where}: row {row} has {int(found[row])}, expected {first + row}",
                    expected=expected,
                    mend=mend,
                )

    def _check_times(self, values: Mapping[str, np.ndarray[Any, Any]], where: str) -> None:
        times = values.get("timestamp")
        if times is None or not len(times):
            return
        fps = self._reader.fps
        off = np.abs(times.reshape(-1) - np.arange(len(times)) / fps) * fps
        if (off > TOLERANCE_FRAMES).any():
            row = int(off.argmax())
            self._problems.add(
                "timestamp is not frame_index / fps",
                where=f"{where}: frame {row} is at {float(times[row]):.4f} s",
                expected=f"a frame every 1/{fps:g} s from 0 on",
                mend="resample the episode to a constant rate, or correct fps",
            )

    def _check_task(self, values: Mapping[str, np.ndarray[Any, Any]], where: str) -> None:
        task, known = values.get("task_index"), len(self._reader.tasks)
        if task is None or not len(task):
            return
        unknown = sorted(set(task.reshape(-1).tolist()) - set(range(known)))
        if unknown:
            self._problems.add(
                f"task_index {unknown[0]} has no task",
                where=where,
                expected=f"0 to {known - 1}, as in the tasks of the meta folder",
                mend="add the task to the meta folder or correct task_index",
            )


def task_of(reader: LeRobotReader, meta: EpisodeMeta, table: pa.Table, problems: Problems) -> str | None:
    """Return the one task of an episode, None after noting that it has none or several."""
    where = f"episode {meta.index}"
    used = {reader.tasks[index] for index in set(to_numpy(table.column("task_index")).tolist())}
    if len(used) > 1:
        problems.add(
            f"an episode has {len(used)} tasks: {', '.join(sorted(used))}",
            where=where,
            expected="one task in all frames of an episode",
            mend="set task to the text that all episodes share, or split the episodes",
        )
        return None
    text = str(used.pop())
    if not text.strip():
        problems.add("a task has no text", where=where, mend="name it in the meta folder's tasks, or set task")
        return None
    if set(meta.tasks) != {text}:
        problems.add(
            "an episode's frames have another task than its meta row",
            where=f"{where}: {text!r} and {', '.join(map(repr, meta.tasks)) or 'none'}",
            expected="the same task in both",
            mend="write the meta folder again, or set task",
        )
        return None
    return text


def check_videos(reader: LeRobotReader, mode: str, problems: Problems) -> None:
    """Check that every episode has its video frames.

    Args:
        reader: The dataset.
        mode: ``counts`` compares size, rate and number of frames in each file's header, without decoding; ``full``
            decodes every frame besides; ``none`` does nothing.
        problems: Where faults are noted.
    """
    if mode == "none":
        return
    clips = ((meta.index, camera) for camera in reader.cameras for meta in reader.episodes)
    for episode, camera in progress(
        clips, total=len(reader.cameras) * len(reader.episodes), what="check videos", unit="clip"
    ):
        try:
            reader.check_video(episode, camera)
            if mode == "full":
                for _ in reader.video(episode, camera):
                    pass
        except DataError as error:
            problems.add_error(error)


def check_same(first: Mapping[str, Any], other: Mapping[str, Any], problems: Problems) -> None:
    """Check that two sources can be one dataset.

    Args:
        first: Facts of the sources before: fps, robot_type, cameras, features.
        other: The same of the source to be added.
        problems: Where faults are noted.
    """
    pairs: list[tuple[str, Any, Any]] = [(name, first[name], other[name]) for name in SHARED_FACTS]
    cameras = [name for name in first["cameras"] if name in other["cameras"]]
    for name in (*SHARED_FEATURES, *cameras):
        mine, its = (_declared(facts["features"].get(name)) for facts in (first, other))
        pairs.append((f"feature {name}", mine, its))
    for name, mine, its in pairs:
        if mine != its:
            problems.add(
                f"{name} is {_text(its)}, the dataset before has {_text(mine)}",
                expected="the same in all sources",
                mend="import this source on its own, or convert it",
            )


def _declared(feature: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    return None if feature is None else declared(feature)


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value) or "none"
    return "absent" if value is None else str(value)
