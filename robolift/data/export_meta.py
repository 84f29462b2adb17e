"""The meta folder of an exported dataset: counts, tasks, episodes and statistics in step with its rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robolift import schema, storage
from robolift.data import lerobot_format as fmt
from robolift.data.dataset import Dataset
from robolift.data.lerobot import LeRobotReader
from robolift.data.lerobot_meta import read_lines
from robolift.data.statistics import Statistics, aggregate, from_json, is_finite, to_json
from robolift.errors import DataError

STATS_PREFIX = "stats/"
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


def read_episode_statistics(reader: LeRobotReader, *, without: Collection[str]) -> dict[int, dict[str, Statistics]]:
    """Return what a dataset states about each episode's features, empty where it states nothing.

    Args:
        reader: The dataset.
        without: Features that are not asked for; nor are those that are not finite.
    """
    if reader.version == fmt.V21:
        uri = storage.join(reader.uri, fmt.EPISODES_STATS_JSONL)
        rows = read_lines(uri) if storage.exists(uri) else []
        return {row["episode_index"]: _usable(row["stats"], without) for row in rows}
    found: dict[int, dict[str, Statistics]] = {}
    folder = storage.join(reader.uri, fmt.EPISODES_FOLDER)
    for name in (name for name, _ in storage.list_files(folder) if name.endswith(".parquet")):
        for row in schema.read_parquet(storage.join(folder, name)).to_pylist():
            features: dict[str, dict[str, Any]] = {}
            for key, value in row.items():
                if key.startswith(STATS_PREFIX) and value is not None:
                    feature, _, statistic = key.removeprefix(STATS_PREFIX).rpartition("/")
                    features.setdefault(feature, {})[statistic] = value
            found[row["episode_index"]] = _usable(features, without)
    return found


def _usable(features: Mapping[str, dict[str, Any]], without: Collection[str]) -> dict[str, Statistics]:
    stated = {name: from_json(facts) for name, facts in features.items() if name not in without}
    return {name: statistics for name, statistics in stated.items() if is_finite(statistics)}


def read_statistics(uri: str) -> dict[str, Statistics]:
    """Return what a dataset's stats.json states."""
    stated = storage.read_json(storage.join(uri, fmt.STATS_FILE))
    return {name: from_json(facts) for name, facts in stated.items()}


def write_meta(
    path: Path,
    dataset: Dataset,
    rows: Sequence[EpisodeRow],
    *,
    version: str,
    tasks: Sequence[str],
    added: Mapping[str, str],
    statistics: Mapping[str, Statistics],
    video_info: Mapping[str, Mapping[str, Any]],
    limits: Mapping[str, float],
    chunk_size: int,
) -> None:
    """Write the meta folder, ``info.json`` last.

    Args:
        path: Folder of the export.
        dataset: What was exported.
        rows: Its episodes.
        version: ``v2.1`` or ``v3.0``.
        tasks: Task texts by task_index.
        added: Dtypes of the added columns.
        statistics: Those over all episodes that are known exactly.
        video_info: Facts of the cameras whose videos were encoded again.
        limits: v3.0: sizes at which files are closed.
        chunk_size: Files in one storage folder.
    """
    if version == fmt.V21:
        _write_v21(path, rows, tasks)
    else:
        _write_v30(path, rows, tasks, statistics)
    chunks = -(-len(rows) // chunk_size)
    videos = len(rows) * len(dataset.cameras)
    old = {"total_videos": videos, "total_chunks": chunks, "chunks_size": chunk_size}
    source = dataset.reader(0).info
    # Splits are ranges of episode numbers, which joining changes.
    splits = source.get("splits") if len(dataset.sources) == 1 else None
    info = {
        "codebase_version": version,
        "robot_type": source.get("robot_type"),
        "total_episodes": len(rows),
        "total_frames": dataset.num_frames,
        "total_tasks": len(tasks),
        **(old if version == fmt.V21 else {"chunks_size": chunk_size, **limits}),
        "fps": source["fps"],
        "splits": splits or {"train": f"0:{len(rows)}"},
        "data_path": fmt.DATA_PATHS[version],
        "video_path": fmt.VIDEO_PATHS[version] if dataset.cameras else None,
        "features": _features(dataset, added, video_info),
        **{key: value for key, value in source.items() if key not in COUNTED_KEYS},
        **({"robolift": dataset.simulator} if dataset.simulator else {}),
    }
    _write(path / fmt.INFO_FILE, [_json(info, indent=4)])


def _features(
    dataset: Dataset, added: Mapping[str, str], video_info: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the declarations as the first source spells them, with the added columns."""
    stated = dataset.reader(0).info["features"]
    kept = {name: dict(feature) for name, feature in stated.items() if name in dataset.features}
    for camera, facts in video_info.items():
        kept[camera] = {**kept[camera], "info": dict(facts)}
    return {**kept, **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in added.items()}}


def _write_v21(path: Path, rows: Sequence[EpisodeRow], tasks: Sequence[str]) -> None:
    _write(path / fmt.TASKS_JSONL, [_json({"task_index": i, "task": text}) for i, text in enumerate(tasks)])
    episodes = [{"episode_index": r.index, "tasks": r.tasks, "length": r.length, **r.extra} for r in rows]
    _write(path / fmt.EPISODES_JSONL, [_json(episode) for episode in episodes])
    statistics = [
        {"episode_index": r.index, "stats": {name: to_json(facts) for name, facts in r.statistics.items()}}
        for r in rows
    ]
    _write(path / fmt.EPISODES_STATS_JSONL, [_json(line) for line in statistics])


def _write_v30(path: Path, rows: Sequence[EpisodeRow], tasks: Sequence[str], exact: Mapping[str, Statistics]) -> None:
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
    table = pa.table({name: _column(name, [record.get(name) for record in records]) for name in names})
    target = path / fmt.EPISODES_PATH.format(chunk_index=0, file_index=0)
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, target, compression="snappy")
    pq.write_table(fmt.tasks_table(list(tasks)), path / fmt.TASKS_PARQUET)
    merged: dict[str, Statistics] = {}
    for name in dict.fromkeys(name for row in rows for name in row.statistics):
        parts = [row.statistics[name] for row in rows if name in row.statistics]
        merged[name] = exact[name] if name in exact else aggregate(parts)
    document = {name: to_json(facts) for name, facts in merged.items()}
    _write(path / fmt.STATS_FILE, [_json(document, indent=4)])


def _column(name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except pa.ArrowException as error:
        raise DataError(
            f"the episodes' meta rows hold values of different types under {name!r}: {error}",
            expected="one type in all episodes",
            mend="write the key alike in all sources, or export them one by one",
        ) from error


def _write(path: Path, parts: Sequence[bytes]) -> None:
    storage.write_bytes(str(path), b"".join(parts))


def _json(document: Any, *, indent: int | None = None) -> bytes:
    # Key order is kept: LeRobot takes the order of features from info.json.
    return (json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode()
