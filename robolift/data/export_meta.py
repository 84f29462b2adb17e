"""The meta folder of an exported dataset: counts, tasks, episodes and statistics in step with its rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robolift import storage
from robolift.data import lerobot_format as fmt
from robolift.data.columns import to_numpy
from robolift.data.dataset import Dataset
from robolift.data.source_statistics import STATS_PREFIX
from robolift.data.statistics import Statistics, aggregate_rows, from_json, to_json
from robolift.errors import DataError

ROWS_AT_ONCE = 100
"""Episodes that wait to be written together."""
# Made anew for every export, or meant for one of the two versions only.
COUNTED_KEYS = frozenset(
    {
        *("codebase_version", "robot_type", "total_episodes", "total_frames", "total_tasks", "total_videos"),
        *("total_chunks", "chunks_size", "data_files_size_in_mb", "video_files_size_in_mb", "fps", "splits"),
        *("data_path", "video_path", "features", "robolift"),
    }
)


@dataclass(frozen=True, kw_only=True)
class EpisodeRow:
    """One episode of the export.

    Attributes:
        index: Its number.
        length: Number of frames.
        first_row: Row number of its first frame.
        tasks: Its task texts, in order of appearance.
        places: v3.0: which files hold it.
        extra: Further keys of its meta row.
        statistics: By feature.
    """

    index: int
    length: int
    first_row: int
    tasks: list[str]
    places: dict[str, Any]
    extra: dict[str, Any]
    statistics: dict[str, Statistics]


class EpisodeRows:
    """Takes the rows about episodes as they come: written at once in v2.1, kept as columns in v3.0."""

    def __init__(self, path: Path, version: str) -> None:
        """Start with none, in a folder without meta files."""
        self._path = path
        self._version = version
        self._waiting: list[EpisodeRow] = []
        self._columns: dict[str, list[pa.Array]] = {}
        self._num_kept = 0

    def add(self, row: EpisodeRow) -> None:
        """Append the next episode."""
        self._waiting.append(row)
        if len(self._waiting) == ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        rows, self._waiting = self._waiting, []
        if self._version == fmt.V30:
            self._keep(_columns(rows), len(rows))
            return
        episodes = [{"episode_index": r.index, "tasks": r.tasks, "length": r.length, **r.extra} for r in rows]
        _append(self._path / fmt.EPISODES_JSONL, episodes)
        statistics = [
            {"episode_index": r.index, "stats": {name: to_json(facts) for name, facts in r.statistics.items()}}
            for r in rows
        ]
        _append(self._path / fmt.EPISODES_STATS_JSONL, statistics)

    def _keep(self, columns: Mapping[str, pa.Array], count: int) -> None:
        """Append columns to those that are kept, null where a row lacks one."""
        for name in dict.fromkeys([*self._columns, *columns]):
            before = [pa.nulls(self._num_kept)] if self._num_kept else []
            self._columns.setdefault(name, before).append(columns[name] if name in columns else pa.nulls(count))
        self._num_kept += count

    def finish(self, tasks: Sequence[str], exact: Mapping[str, Statistics]) -> None:
        """Complete the files of episodes, tasks and statistics.

        Raises:
            DataError: If a key of theirs has different types.
        """
        if self._waiting:
            self._flush()
        if self._version == fmt.V21:
            _append(self._path / fmt.TASKS_JSONL, [{"task_index": i, "task": text} for i, text in enumerate(tasks)])
            return
        table = pa.table({name: _whole(name, self._columns.pop(name)) for name in list(self._columns)})
        target = self._path / fmt.EPISODES_PATH.format(chunk_index=0, file_index=0)
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target, compression="snappy")
        pq.write_table(fmt.tasks_table(list(tasks)), self._path / fmt.TASKS_PARQUET)
        document = {name: to_json(facts) for name, facts in _merged(table, exact).items()}
        _write(self._path / fmt.STATS_FILE, _json(document, indent=4))


def write_info(
    path: Path,
    dataset: Dataset,
    *,
    version: str,
    num_tasks: int,
    added: Mapping[str, str],
    video_info: Mapping[str, Mapping[str, Any]],
    limits: Mapping[str, float],
    chunk_size: int,
) -> None:
    """Write ``info.json``, the last of the meta files.

    Args:
        path: Folder of the export.
        dataset: What was exported.
        version: ``v2.1`` or ``v3.0``.
        num_tasks: How many tasks there are.
        added: Dtypes of the added columns.
        video_info: Facts of the cameras whose videos were encoded again.
        limits: v3.0: sizes at which files are closed.
        chunk_size: Files in one storage folder.
    """
    chunks = -(-dataset.num_episodes // chunk_size)
    videos = dataset.num_episodes * len(dataset.cameras)
    old = {"total_videos": videos, "total_chunks": chunks, "chunks_size": chunk_size}
    source = dataset.reader(0).info
    # Splits are ranges of episode numbers, which joining changes.
    splits = source.get("splits") if len(dataset.sources) == 1 else None
    info = {
        "codebase_version": version,
        "robot_type": source.get("robot_type"),
        "total_episodes": dataset.num_episodes,
        "total_frames": dataset.num_frames,
        "total_tasks": num_tasks,
        **(old if version == fmt.V21 else {"chunks_size": chunk_size, **limits}),
        "fps": source["fps"],
        "splits": splits or {"train": f"0:{dataset.num_episodes}"},
        "data_path": fmt.DATA_PATHS[version],
        "video_path": fmt.VIDEO_PATHS[version] if dataset.cameras else None,
        "features": _features(dataset, added, video_info),
        **{key: value for key, value in source.items() if key not in COUNTED_KEYS},
        **({"robolift": dataset.simulator} if dataset.simulator else {}),
    }
    _write(path / fmt.INFO_FILE, _json(info, indent=4))


def _features(
    dataset: Dataset, added: Mapping[str, str], video_info: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the declarations as the first source spells them, with the added columns."""
    stated = dataset.reader(0).info["features"]
    kept = {name: dict(feature) for name, feature in stated.items() if name in dataset.features}
    for camera, facts in video_info.items():
        kept[camera] = {**kept[camera], "info": dict(facts)}
    return {**kept, **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in added.items()}}


def _columns(rows: Sequence[EpisodeRow]) -> dict[str, pa.Array]:
    """Return what v3.0 says about some episodes."""
    records = [
        {
            "episode_index": row.index,
            "tasks": row.tasks,
            "length": row.length,
            "dataset_from_index": row.first_row,
            "dataset_to_index": row.first_row + row.length,
            **row.places,
            **row.extra,
            **{
                f"{STATS_PREFIX}{name}/{key}": value
                for name, facts in row.statistics.items()
                for key, value in to_json(facts).items()
            },
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for row in rows
    ]
    names = list(dict.fromkeys(name for record in records for name in record))
    return {name: _column(name, [record.get(name) for record in records]) for name in names}


def _whole(name: str, parts: Sequence[pa.Array]) -> pa.Array:
    """Return a column of all rows, of a type that holds those of its parts."""
    try:
        joined = pa.concat_tables([pa.table({name: part}) for part in parts], promote_options="permissive")
    except pa.ArrowException as error:
        raise _disagreement(name, error) from error
    return joined.column(name).combine_chunks()


def _merged(table: pa.Table, exact: Mapping[str, Statistics]) -> dict[str, Statistics]:
    """Return the statistics over all episodes: the exact ones, the others merged from those in the table."""
    fields: dict[str, list[str]] = {}
    for column in table.column_names:
        if column.startswith(STATS_PREFIX):
            name, _, field = column.removeprefix(STATS_PREFIX).rpartition("/")
            fields.setdefault(name, []).append(field)
    return {name: exact[name] if name in exact else _merged_feature(table, name, fields[name]) for name in fields}


def _merged_feature(table: pa.Table, name: str, fields: Sequence[str]) -> Statistics:
    """Return the statistics of a feature over all episodes that state any."""
    stated = {field: table.column(f"{STATS_PREFIX}{name}/{field}").drop_null() for field in fields}
    shape = from_json({"mean": stated["mean"][0].as_py()})["mean"].shape
    rows = {field: to_numpy(column, where=name) for field, column in stated.items()}
    if any(array.size != len(array) * math.prod(shape) for field, array in rows.items() if field != "count"):
        problem = "statistics of different shapes can't be merged"
        raise DataError(problem, where=name, expected="one shape for a feature")
    return aggregate_rows({f: r if f == "count" else r.reshape(len(r), *shape) for f, r in rows.items()})


def _column(name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except pa.ArrowException as error:
        raise _disagreement(name, error) from error


def _disagreement(name: str, error: Exception) -> DataError:
    return DataError(
        f"the episodes' meta rows hold values of different types under {name!r}: {error}",
        expected="one type in all episodes",
        mend="write the key alike in all sources, or export them one by one",
    )


def _append(path: Path, documents: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.writelines(_json(document) for document in documents)


def _write(path: Path, content: bytes) -> None:
    storage.write_bytes(str(path), content)


def _json(document: Any, *, indent: int | None = None) -> bytes:
    # Key order is kept: LeRobot takes the order of features from info.json.
    return (json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode()
