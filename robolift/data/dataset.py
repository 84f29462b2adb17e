"""What every later stage opens: the episodes and frames of one or more LeRobot sources, read where they lie.

An imported dataset is ``dataset.json`` (its sources and what they share), ``episodes.parquet``, ``frames.parquet`` and
for each source the list of its files, by which a change since is noticed. Episodes are counted over all sources: those
of the first come first.
"""

from __future__ import annotations

import bisect
import functools
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from robolift import schema, storage
from robolift.data.columns import to_model, to_numpy
from robolift.data.content import ContentCheck
from robolift.data.lerobot import LeRobotReader
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.table_files import TableReader

if TYPE_CHECKING:
    from robolift.data.video_decoder import OpenVideos

DATASET_FILE = "dataset.json"
FRAMES = "frames"
CONTENT_FILE = "sources/{number}.json"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One LeRobot dataset inside a dataset.

    Attributes:
        uri: Where it lies.
        version: ``v2.1`` or ``v3.0``.
        first_episode: Number of its first episode in the whole.
        num_episodes: How many it has.
        digest: Its content when it was imported.
    """

    uri: str
    version: str
    first_episode: int
    num_episodes: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What dataset.json holds.

    Attributes:
        sources: In the order of their episodes.
        fps: Frames a second, the same in all.
        robot_type: The same in all.
        cameras: Camera features, sorted, the same in all.
        tasks: Task texts of all sources, each once, in order of appearance.
        features: Declarations of the columns that all sources have.
        simulator: What the recordings say about the simulator they come from, None for a robot's.
    """

    sources: tuple[Source, ...]
    fps: float
    robot_type: str
    cameras: tuple[str, ...]
    tasks: tuple[str, ...]
    features: dict[str, dict[str, Any]]
    simulator: dict[str, Any] | None

    def to_dict(self, *, root: str) -> dict[str, Any]:
        """Return the JSON document; addresses below ``root`` become relative to the output's folder.

        So a run's outputs can be moved together, and the same work in another root has the same bytes.
        """
        document = asdict(self)
        base = storage.normalize(root).rstrip("/") + "/"
        for source in document["sources"]:
            if source["uri"].startswith(base):
                source["uri"] = f"../../{source['uri'].removeprefix(base)}"
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, folder: str) -> DatasetFacts:
        """Rebuild the facts of the output in ``folder``."""
        sources = [Source(**{**source, "uri": _resolve(source["uri"], folder)}) for source in document["sources"]]
        sequences = {name: tuple(document[name]) for name in ("cameras", "tasks")}
        return cls(**{**document, **sequences, "sources": tuple(sources)})


def _resolve(uri: str, folder: str) -> str:
    if "://" in uri:
        return uri
    scheme, _, path = storage.normalize(folder).partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(path, uri))}"


class Dataset:
    """An imported dataset, open for reading.

    Attributes:
        uri: Folder of the import.
        sources: The LeRobot datasets it refers to.
        fps: Frames a second.
        cameras: Camera features, sorted.
        tasks: Task texts.
        robot_type: As recorded.
        features: Declarations of the columns that all sources have, as in LeRobot's info.json.
        simulator: What the recordings say about their simulator, or None.
        episodes: Table ``episodes``, one row an episode.
        starts: (E + 1,) int64 row offsets of the episodes in table ``frames``.
    """

    def __init__(self, uri: str, facts: DatasetFacts, episodes: pa.Table) -> None:
        self.uri = uri
        self.facts = facts
        self.sources = facts.sources
        self.fps = facts.fps
        self.cameras = facts.cameras
        self.tasks = facts.tasks
        self.robot_type = facts.robot_type
        self.features = facts.features
        self.simulator = facts.simulator
        self.episodes = episodes
        lengths = episodes.column("length").to_numpy()
        self.starts: np.ndarray[Any, Any] = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._firsts = [source.first_episode for source in facts.sources]
        self._readers: dict[int, LeRobotReader] = {}
        self._videos: OpenVideos | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return all but open files and table ``frames``: another process opens and reads its own."""
        own = {**self.__dict__, "_readers": {}, "_videos": None}
        return {name: value for name, value in own.items() if name != FRAMES}

    @classmethod
    def open(cls, manifest: Manifest) -> Dataset:
        """Open the output of ``import_dataset``.

        Raises:
            DataError: If a file of it is missing or broken.
            UsageError: If the manifest is of another kind.
        """
        if manifest.kind != schema.Kind.DATASET:
            raise UsageError(f"{manifest.uri} is a {manifest.kind}, expected a {schema.Kind.DATASET}")
        facts = DatasetFacts.from_dict(storage.read_json(manifest.file(DATASET_FILE)), folder=manifest.uri)
        dataset = cls(manifest.uri, facts, manifest.table("episodes"))
        dataset.frame_blocks(()).close()  # its footer is read: that it is there, whole and of the right length
        return dataset

    @property
    def num_episodes(self) -> int:
        """How many episodes there are."""
        return len(self.starts) - 1

    @property
    def num_frames(self) -> int:
        """How many frames all episodes have together."""
        return int(self.starts[-1])

    @functools.cached_property
    def frames(self) -> pa.Table:
        """Table ``frames``, sorted by (episode_index, frame_index), whole: about 40 bytes a frame in memory.

        Raises:
            DataError: If it is missing, broken or not as long as the episodes are.
        """
        table = schema.read_table(self.uri, FRAMES)
        self._check_length(table.num_rows)
        return table

    def frame_blocks(self, columns: Sequence[str] | None = None) -> TableReader:
        """Open table ``frames`` to be read by blocks of rows; use it in a ``with`` statement.

        Args:
            columns: Which columns; all by default.

        Raises:
            DataError: If it is missing, broken or not as long as the episodes are.
        """
        reader = TableReader(self.uri, FRAMES, columns)
        try:
            self._check_length(reader.num_rows)
        except DataError:
            reader.close()
            raise
        return reader

    def keys(self, first: int, end: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the keys of rows ``first`` to ``end - 1`` of table ``frames``, (end - first,) int64 each.

        Nothing is read for them: an import counts episodes and their frames from 0 on.
        """
        start = int(np.searchsorted(self.starts, first, side="right")) - 1
        stop = int(np.searchsorted(self.starts, end, side="left"))
        lengths = np.diff(self.starts[start : stop + 1].clip(first, end))
        frame = np.arange(first, end) - np.repeat(self.starts[start:stop], lengths)
        return {schema.EPISODE_INDEX: np.repeat(np.arange(start, stop), lengths), schema.FRAME_INDEX: frame}

    def _check_length(self, rows: int) -> None:
        if rows != self.num_frames:
            raise DataError(
                f"table {FRAMES} has {rows} rows",
                where=storage.join(self.uri, f"{FRAMES}.parquet"),
                expected=f"{self.num_frames}, the lengths of the {self.num_episodes} episodes together",
                mend="import the dataset again",
            )

    @property
    def action_dim(self) -> int:
        """Width of ``action``."""
        return int(np.prod(self.features["action"]["shape"]))

    def content(self, source: int) -> dict[str, dict[str, Any]]:
        """Return what the files of a source were when it was imported."""
        return dict(storage.read_json(storage.join(self.uri, CONTENT_FILE.format(number=source))))

    def reader(self, source: int) -> LeRobotReader:
        """Return the reader of a source, checked to be what was imported.

        Raises:
            DataError: If the source is gone or was changed. Its data and videos are compared when they are first read.
        """
        if source not in self._readers:
            facts = self.sources[source]
            check = ContentCheck(facts.uri, self.content(source))
            reader = LeRobotReader.open(facts.uri, check=check, videos=self._open_videos())
            first, last = facts.first_episode, facts.first_episode + facts.num_episodes
            imported = self.episodes.column("length").to_numpy()[first:last].tolist()
            if [meta.length for meta in reader.episodes] != imported:
                raise DataError(
                    "the LeRobot dataset was changed after it was imported",
                    where=facts.uri,
                    expected=f"{facts.num_episodes} episodes with {sum(imported)} frames",
                    mend="import it again",
                )
            check.meta()
            self._readers[source] = reader
        return self._readers[source]

    def _open_videos(self) -> OpenVideos:
        """Return what holds videos open for all sources, however many there are."""
        from robolift.data.video_decoder import OpenVideos  # noqa: PLC0415  (FFmpeg)

        if self._videos is None:
            self._videos = OpenVideos(fps=self.fps)
        return self._videos

    def locate(self, episode: int) -> tuple[int, int]:
        """Return the number of the source that holds an episode, and the episode's index in it.

        Raises:
            UsageError: If there is no such episode.
        """
        if not 0 <= episode < self.num_episodes:
            raise UsageError(f"no episode {episode}; the dataset has {self.num_episodes}")
        number = bisect.bisect_right(self._firsts, episode) - 1
        return number, self.reader(number).episodes[episode - self._firsts[number]].index

    def column(self, name: str, episodes: Sequence[int] | None = None) -> np.ndarray[Any, Any]:
        """Return one column.

        Args:
            name: A feature all sources have. ``episode_index``, ``index`` and ``task_index`` count over all of them.
            episodes: Which episodes, in the order wanted; all by default.

        Returns:
            (rows,) or (rows, d); float32 for real numbers, int64 for integers and booleans, object for text.

        Raises:
            DataError: If a source has no such column.
            UsageError: If there is no such episode.
        """
        chosen = range(self.num_episodes) if episodes is None else episodes
        if name in ("index", "task_index") or name in schema.TABLES[FRAMES].names:
            return self._own_column(name, chosen)
        return to_model(self.stored_columns([name], chosen)[name])

    def stored_columns(
        self, names: Sequence[str], episodes: Sequence[int] | None = None
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return several columns in the dtypes they are stored in, reading each file once.

        Args:
            names: Features that all sources have.
            episodes: Which episodes, in the order wanted; all by default.

        Returns:
            For each name (rows,) or (rows, d).

        Raises:
            DataError: If a source has no such column.
            UsageError: If there is no such episode.
        """
        for name in names:
            if name not in self.features or self.features[name]["dtype"] == "video":
                raise DataError(
                    f"no column {name} in the dataset",
                    where=", ".join(source.uri for source in self.sources),
                    expected=", ".join(key for key, facts in self.features.items() if facts["dtype"] != "video"),
                )
        parts: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in names}
        for episode in range(self.num_episodes) if episodes is None else episodes:
            number, index = self.locate(episode)
            table = self.reader(number).table(index, list(parts))
            for name, found in parts.items():
                found.append(to_numpy(table.column(name), where=f"episode {episode}, column {name}"))
        return {name: np.concatenate(found) if found else np.empty(0, np.float32) for name, found in parts.items()}

    def _own_column(self, name: str, episodes: Sequence[int]) -> np.ndarray[Any, Any]:
        chosen = np.asarray(episodes, dtype=np.int64)
        starts, lengths = self.starts[chosen], self.starts[chosen + 1] - self.starts[chosen]
        frame = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = np.repeat(starts, lengths) + frame
        if name == "task_index":
            number = {task: index for index, task in enumerate(self.tasks)}
            tasks = np.array([number[task] for task in self.episodes.column("task").to_pylist()], np.int64)
            return np.repeat(tasks[chosen], lengths)
        counted = {"index": rows, schema.EPISODE_INDEX: np.repeat(chosen, lengths), schema.FRAME_INDEX: frame}
        return counted[name] if name in counted else to_model(np.asarray(self.frames.column(name).to_numpy())[rows])

    def video(
        self,
        episode: int,
        camera: str,
        *,
        size: tuple[int, int] | None = None,
        parts: Iterable[range] | None = None,
    ) -> Iterator[np.ndarray[Any, Any]]:
        """Yield an episode's frames of one camera in order, each once.

        Args:
            episode: Which episode.
            camera: One of ``cameras``.
            size: (height, width) to scale to; the video's own by default.
            parts: Only these ascending ranges of its frames; all by default.

        Yields:
            (H, W, 3) uint8 RGB.

        Raises:
            DataError: If the video is shorter than the table.
            UsageError: If there is no such episode or camera.
        """
        self._check_camera(camera)
        number, index = self.locate(episode)
        return self.reader(number).video(index, camera, size=size, parts=parts)

    def images(
        self, episode: int, camera: str, frames: np.ndarray[Any, Any], *, size: tuple[int, int] | None = None
    ) -> np.ndarray[Any, Any]:
        """Return some frames of an episode as :meth:`video` gives them, (n, H, W, 3); many threads may ask at once.

        Args:
            episode: Which episode.
            camera: One of ``cameras``.
            frames: (n,) frame indices inside it, in any order.
            size: (height, width) to scale to; the video's own by default.

        Raises:
            DataError: If the video is shorter than the table.
            UsageError: If there is no such episode, camera or frame.
        """
        self._check_camera(camera)
        number, index = self.locate(episode)
        return self.reader(number).frames_at(index, camera, frames, size=size)

    def image_size(self, camera: str, episode: int = 0) -> tuple[int, int]:
        """Return (height, width) of a camera's images in an episode; sources may differ.

        Raises:
            UsageError: If there is no such camera or episode.
        """
        self._check_camera(camera)
        return self.reader(self.locate(episode)[0]).image_size(camera)

    def _check_camera(self, camera: str) -> None:
        if camera not in self.cameras:
            raise UsageError(f"no camera {camera!r}; the dataset has: {', '.join(self.cameras) or 'none'}")
