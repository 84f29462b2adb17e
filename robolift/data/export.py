"""Writes a dataset with further columns as one standalone LeRobot dataset of real files.

Rows, Arrow types and metadata of the sources are kept as they are; only the numbering changes where sources are joined.
An episode is in memory at a time, or a data file of the source, and what each episode's meta row says.
A file of one episode that stays one (v2.1) is spliced: its columns are copied as they are encoded, beside the new ones.
Videos are copied. They are cut by packets where v2.1 wants a file of its own for each episode, and encoded again only
where an episode does not begin at a keyframe.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolift import schema, storage
from robolift.data import lerobot_format as fmt
from robolift.data import video
from robolift.data.column_blocks import statistics_of_blocks
from robolift.data.columns import is_text, to_numpy
from robolift.data.dataset import Dataset
from robolift.data.export_meta import EpisodeRow, EpisodeRows, write_info
from robolift.data.export_rows import Rows, dtype_of, write_beside
from robolift.data.fresh_columns import NUMBERING, FreshColumns
from robolift.data.joined import JoinedColumns
from robolift.data.lerobot import LeRobotReader, VideoPlace
from robolift.data.lerobot_files import Files, PackedFiles, SeparateFiles
from robolift.data.source_statistics import EpisodeStatistics, read_statistics
from robolift.data.statistics import ImageStatistics, Statistics, column_statistics, is_finite, sample_indices
from robolift.data.validate import data_files, split_episodes, table_features
from robolift.errors import DataError
from robolift.logging import get_logger, progress

CHUNK_SIZE = 1000
DATA_FILE_MB = 100.0
VIDEO_FILE_MB = 200.0


@dataclass(frozen=True, kw_only=True)
class Additions:
    """What is joined to the rows.

    Attributes:
        columns: The joined columns; one of ``task_index`` is there where ``tasks`` are given.
        names: Those that the rows get; a column of the sources with that name gives way.
        tasks: Task texts that replace the sources', None to keep theirs.
    """

    columns: JoinedColumns
    names: Collection[str]
    tasks: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A second copy of the rows in a folder beside ``data``, with more columns: how kai0 keeps what it predicts (v2.1).

    Attributes:
        folder: Its name, such as ``data_KAI0_100000``.
        names: Joined columns that only this copy has; ``info.json``, which describes ``data``, does not name them.
    """

    folder: str
    names: Collection[str]


def export(
    dataset: Dataset, additions: Additions, path: Path, *, version: str, beside: Beside | None = None
) -> dict[str, int]:
    """Write ``dataset`` with ``additions`` to an empty local folder.

    Args:
        dataset: What to export; all sources become one.
        additions: Columns and tasks to join.
        path: Folder to write; made if missing.
        version: ``v2.1`` or ``v3.0``.
        beside: A second copy of the rows to write, None for none.

    Returns:
        How many videos were ``copied``, ``cut`` and ``encoded``.

    Raises:
        DataError: If a source can't be read or was changed since its import, or sources store a column in types that
            don't agree.
    """
    return _Export(dataset, additions, path, version, beside).run()


@dataclass
class _Videos:
    """Puts the videos of one dataset in place, each file once, and says where they went."""

    path: Path
    version: str
    counts: dict[str, int] = field(default_factory=lambda: {"copied": 0, "cut": 0, "encoded": 0})
    encoded_cameras: dict[str, Path] = field(default_factory=dict)
    _places: dict[tuple[str, str], int] = field(default_factory=dict)
    _files: dict[str, int] = field(default_factory=dict)

    def add(self, episode: int, camera: str, clip: video.VideoClip, *, alone: bool) -> dict[str, Any]:
        """Bring one episode's clip over.

        Args:
            episode: Its number in the export.
            camera: Camera feature.
            clip: Where it lies.
            alone: Whether its file holds nothing else.

        Returns:
            What the episode's meta row says about it.
        """
        if self.version == fmt.V21:
            names = {"episode_chunk": episode // CHUNK_SIZE, "episode_index": episode, "video_key": camera}
            self._separate(clip, self.path / fmt.VIDEO_PATHS[fmt.V21].format(**names), camera, alone=alone)
            return {}
        key = (camera, clip.uri)
        if key not in self._places:
            number = self._places[key] = self._files.get(camera, 0)
            self._files[camera] = number + 1
            fetch(clip.uri, self.path / packed_video_path(camera, number))
            self.counts["copied"] += 1
        chunk, file = divmod(self._places[key], CHUNK_SIZE)
        prefix = f"videos/{camera}"
        return {
            f"{prefix}/chunk_index": chunk,
            f"{prefix}/file_index": file,
            f"{prefix}/from_timestamp": clip.start_s,
            f"{prefix}/to_timestamp": clip.start_s + clip.num_frames / clip.fps,
        }

    def _separate(self, clip: video.VideoClip, target: Path, camera: str, *, alone: bool) -> None:
        if alone:
            fetch(clip.uri, target)
            self.counts["copied"] += 1
        elif video.cut(clip, target):
            self.counts["cut"] += 1
        else:
            facts = video.probe(clip.uri)
            codec = video.CODECS.get(facts.codec, video.H264)
            size = (facts.height, facts.width)
            from robolift.data.video_decoder import decode_frames  # noqa: PLC0415  (FFmpeg)

            video.encode_video(target, decode_frames(clip), fps=clip.fps, size=size, codec=codec)
            self.counts["encoded"] += 1
            self.encoded_cameras.setdefault(camera, target)


class _Export:
    def __init__(self, dataset: Dataset, additions: Additions, path: Path, version: str, beside: Beside | None) -> None:
        self._dataset = dataset
        self._additions = additions
        self._path = path
        self._version = version
        self._files: Files = (
            SeparateFiles(path, chunk_size=CHUNK_SIZE)
            if version == fmt.V21
            else PackedFiles(
                path,
                fps=dataset.fps,
                chunk_size=CHUNK_SIZE,
                data_file_mb=DATA_FILE_MB,
                video_file_mb=VIDEO_FILE_MB,
            )
        )
        self._videos = _Videos(path, version)
        self._meta = EpisodeRows(path, version)
        self._tasks, task = _tasks(dataset, additions)
        self._fresh = FreshColumns(dataset, additions.columns, task)
        self._rows = self._rows_with(additions.names)
        self._beside = beside
        self._more_rows = self._rows_with([*additions.names, *(beside.names if beside else ())])
        self._sharing = [_sharing(dataset.reader(number)) for number in range(len(dataset.sources))]
        self._statistics = [
            EpisodeStatistics(dataset.reader(number), without=self._rows.fresh)
            for number in range(len(dataset.sources))
        ]

    def _rows_with(self, names: Collection[str]) -> Rows:
        types = {name: kind for name, kind in self._fresh.types.items() if name in (*NUMBERING, *names)}
        return Rows(types, names, self._dataset.features, self._version)

    def run(self) -> dict[str, int]:
        episodes = self._dataset.num_episodes
        for episode, source, stored in progress(self._stored(), total=episodes, what="export", unit="episode"):
            self._meta.add(self._add(episode, source, stored))
        self._files.finish()
        info_of_cameras = {
            camera: video.probe(str(path)).to_info() for camera, path in self._videos.encoded_cameras.items()
        }
        self._meta.finish(self._tasks, self._dataset_statistics())
        write_info(
            self._path,
            self._dataset,
            version=self._version,
            num_tasks=len(self._tasks),
            added={name: dtype_of(self._fresh.types[name]) for name in self._additions.names},
            video_info=info_of_cameras,
            limits={"data_files_size_in_mb": DATA_FILE_MB, "video_files_size_in_mb": VIDEO_FILE_MB},
            chunk_size=CHUNK_SIZE,
        )
        if self._videos.counts["encoded"]:
            get_logger("export").warning("videos encoded again: no keyframe at the cut", **self._videos.counts)
        return self._videos.counts

    def _dataset_statistics(self) -> dict[str, Statistics]:
        """Return the statistics over the dataset that are known exactly; the others are merged from the episodes'."""
        if self._version == fmt.V21:  # has them per episode
            return {}
        stated: dict[str, Statistics] = {}
        reader = self._dataset.reader(0)
        # Those of one source say nothing of all.
        single = len(self._dataset.sources) == 1 and reader.version == fmt.V30
        if single and storage.exists(storage.join(reader.uri, fmt.STATS_FILE)):
            stated = {name: facts for name, facts in read_statistics(reader.uri).items() if is_finite(facts)}
        numbers = [name for name, kind in self._rows.fresh.items() if not is_text(kind)]
        return stated | {name: statistics_of_blocks(partial(self._fresh.blocks, name), where=name) for name in numbers}

    def _stored(self) -> Iterator[tuple[int, int, pa.Table | bytes]]:
        """Yield (episode, source, rows as stored or finished file) of the whole dataset in order."""
        for number, source in enumerate(self._dataset.sources):
            reader = self._dataset.reader(number)
            expected = source.first_episode
            for name in data_files(reader):
                uri, content = storage.join(reader.uri, name), reader.data(name)
                if content and (spliced := self._spliced(expected, number, content, uri)):
                    yield expected, number, spliced
                    expected += 1
                    continue
                for index, rows in split_episodes(_read_rows(uri, content)):
                    length = reader.episodes[index].length if 0 <= index < len(reader.episodes) else -1
                    if source.first_episode + index != expected or rows.num_rows != length:
                        raise DataError(
                            f"rows of episode {index} are incomplete or out of order",
                            where=uri,
                            expected=f"the {length} rows of episode {expected - source.first_episode}",
                            mend="import the dataset again, so that it is checked again",
                        )
                    yield expected, number, rows
                    expected += 1

    def _spliced(self, episode: int, number: int, content: bytes, uri: str) -> bytes | None:
        """Return the episode's file made of the source's, None if its rows have to be read: to be measured, for one."""
        source = self._dataset.sources[number]
        index = episode - source.first_episode
        whole = self._version == source.version == fmt.V21 and self._beside is None
        stated = self._statistics[number].of(index) if whole else {}
        if not whole or not all(name in self._rows.fresh or name in stated for name in self._measured(number)):
            return None
        # An import has checked that these count from 0 on.
        same = {"episode_index", "index"} - set(self._additions.names) if number == 0 else set[str]()
        with schema.intact_parquet(uri):
            return self._rows.splice(content, index, self._fresh.of(episode), same=same)

    def _measured(self, number: int) -> list[str]:
        """Return the stored columns that have statistics."""
        features = table_features(self._dataset.reader(number))
        return [
            name for name, facts in features.items() if name in self._dataset.features and facts["dtype"] != "string"
        ]

    def _add(self, episode: int, source: int, stored: pa.Table | bytes) -> EpisodeRow:
        """Write one episode's rows and videos."""
        dataset, reader = self._dataset, self._dataset.reader(source)
        meta = reader.episodes[episode - dataset.sources[source].first_episode]
        places = self._write_rows(episode, stored)
        for camera in dataset.cameras:
            clip = reader.clip(meta.index, camera)
            places |= self._videos.add(episode, camera, clip, alone=self._is_alone(source, meta.videos[camera]))
        described = dataset.episodes.slice(episode, 1).to_pylist()[0]
        used = dict.fromkeys(self._fresh.of(episode)["task_index"].to_pylist())
        return EpisodeRow(
            index=episode,
            length=meta.length,
            first_row=int(dataset.starts[episode]),
            tasks=[self._tasks[index] for index in used],
            places=places,
            # A later import of the export finds what this import found out.
            extra={**meta.extra, **{name: described[name] for name in ("outcome", "kind", "iteration")}},
            statistics=self._measure(source, meta.index, episode, stored),
        )

    def _write_rows(self, episode: int, stored: pa.Table | bytes) -> dict[str, Any]:
        if isinstance(stored, bytes) and isinstance(self._files, SeparateFiles):
            self._files.add_file(episode, stored)
            return {}
        fresh, where = self._fresh.of(episode), f"episode {episode}"
        if self._beside:
            more = self._more_rows.table(stored, fresh, where=where)
            write_beside(self._path, self._beside.folder, episode, more, chunk_size=CHUNK_SIZE)
        return self._files.add(episode, self._rows.table(stored, fresh, where=where), {})

    def _is_alone(self, source: int, place: VideoPlace) -> bool:
        """Tell whether a clip is all there is in its video file."""
        return self._sharing[source][place.path] == 1 and place.start_s == 0

    def _measure(self, source: int, index: int, episode: int, stored: pa.Table | bytes) -> dict[str, Statistics]:
        """Return an episode's statistics: the source's where they still hold, measured where not."""
        found = self._statistics[source].of(index)
        columns = {} if isinstance(stored, bytes) else dict(zip(stored.column_names, stored.columns, strict=True))
        columns |= {name: pa.chunked_array([array]) for name, array in self._fresh.of(episode).items()}
        statistics: dict[str, Statistics] = {}
        for name in self._rows.numbers:
            if name in found:
                statistics[name] = found[name]
            else:
                values = to_numpy(columns[name])
                # A column that may hold NaN has nothing to measure in some episodes; LeRobot merges the others.
                if np.isfinite(values.reshape(len(values), -1)).all(axis=1).any():
                    statistics[name] = column_statistics(values, where=f"episode {index}, column {name}")
        reader = self._dataset.reader(source)
        for camera in self._dataset.cameras:
            statistics[camera] = found[camera] if camera in found else _image_statistics(reader, index, camera)
        return statistics


def _tasks(dataset: Dataset, additions: Additions) -> tuple[tuple[str, ...], np.ndarray[Any, Any]]:
    """Return the task texts of the export and, where none are given, the number of each episode's, (E,)."""
    if additions.tasks is not None:
        return additions.tasks, np.zeros(dataset.num_episodes, np.int64)
    texts = dataset.reader(0).tasks
    if len(dataset.sources) > 1 or not set(dataset.tasks) <= set(texts):
        texts = dataset.tasks
    position = {task: texts.index(task) for task in dataset.tasks}
    return texts, np.array([position[task] for task in dataset.episodes.column("task").to_pylist()], np.int64)


def _sharing(reader: LeRobotReader) -> Counter[str]:
    """Count the episodes in each video file."""
    return Counter(place.path for meta in reader.episodes for place in meta.videos.values())


def _image_statistics(reader: LeRobotReader, episode: int, camera: str) -> Statistics:
    """Measure what the source does not state; this decodes the clip."""
    statistics = ImageStatistics()
    sampled = set(sample_indices(reader.episodes[episode].length).tolist())
    for frame, image in enumerate(reader.video(episode, camera)):
        if frame in sampled:
            statistics.add(image)
    return statistics.result()


def _read_rows(uri: str, content: bytes | None) -> pa.Table:
    """Read a data file whole, in one thread: there are many of them, and most are small."""
    with (
        schema.intact_parquet(uri),
        storage.open_file(uri) if content is None else pa.BufferReader(content) as file,
        pq.ParquetFile(file) as opened,
    ):
        # A chunk for each row group, because where chunks end can show in the pages that are written of them.
        return pa.concat_tables(
            opened.read_row_group(group, use_threads=False) for group in range(opened.num_row_groups)
        )


def packed_video_path(camera: str, number: int) -> str:
    """Return where v3.0 puts the video file of a number."""
    chunk, file = divmod(number, CHUNK_SIZE)
    return fmt.VIDEO_PATHS[fmt.V30].format(video_key=camera, chunk_index=chunk, file_index=file)


def fetch(uri: str, path: Path) -> None:
    """Copy one file from any address to a local path, as a real file even where the source is a link.

    Raises:
        DataError: If it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    local = storage.local_path(uri)
    try:
        if local is not None:
            shutil.copyfile(local, path)
        else:
            fs, remote = storage.filesystem(uri)
            fs.get_file(remote, str(path))
    except FileNotFoundError as error:
        raise DataError("video file not found", where=uri, mend="restore the file and import again") from error
