"""How much was recorded: what the meta folder of a LeRobot dataset says, and a few files' sizes. No video is opened.

Memory does not grow with the number of episodes: ``info.json`` holds the totals, and where files lie is counted while
the episodes' table streams by.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robolift import storage
from robolift.errors import DataError

# As robolift.data says, which the planner does not import: it is arithmetic, and starts without NumPy.
INFO_FILE = "meta/info.json"
DATASET_FILE = "dataset.json"
EPISODES_FOLDER = "meta/episodes"
V21, V30 = "v2.1", "v3.0"
SAMPLED_FILES = 8
"""Files of each sort that the store is asked the size of; a listing of all takes memory for each."""
SECONDS_PER_HOUR = 3600
MEND = "write the dataset's meta folder again, or take it from an intact copy"


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera.

    Attributes:
        name: Its feature.
        height: Pixels.
        width: Pixels.
        codec: As the dataset states it, ``h264`` or ``av1``; empty where it doesn't.
    """

    name: str
    height: int
    width: int
    codec: str


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """The size of a dataset.

    Attributes:
        episodes: How many.
        frames: Of all episodes.
        fps: Frames a second.
        tasks: Different task texts.
        cameras: Of each frame.
        data_files: Parquet files with rows.
        video_files: Of all cameras.
        data_bytes: Of all Parquet files, from the mean of a few.
        video_bytes: Of all videos, from the mean of a few.
    """

    episodes: float
    frames: float
    fps: float
    tasks: int
    cameras: tuple[Camera, ...]
    data_files: float
    video_files: float
    data_bytes: float
    video_bytes: float

    @property
    def hours(self) -> float:
        """Time of the robot."""
        return self.frames / self.fps / SECONDS_PER_HOUR

    @property
    def pictures(self) -> float:
        """Frames of all cameras."""
        return self.frames * len(self.cameras)

    def scaled(self, hours: float) -> Recordings:
        """Return ``hours`` of the same robot: all but rate, cameras and tasks grows alike."""
        factor = hours / self.hours
        grown = ("episodes", "frames", "data_files", "video_files", "data_bytes", "video_bytes")
        return replace(self, **{name: getattr(self, name) * factor for name in grown})

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {**asdict(self), "hours": self.hours}


def read(uri: str) -> Recordings:
    """Read the size of a LeRobot dataset, or of all sources of an imported one.

    Args:
        uri: The folder, at any address.

    Raises:
        DataError: If there is neither, it is of another version, or the meta folder is garbled.
    """
    if storage.exists(storage.join(uri, INFO_FILE)):
        return _lerobot(uri)
    if not storage.exists(storage.join(uri, DATASET_FILE)):
        raise DataError(
            "no dataset",
            where=uri,
            expected=f"{INFO_FILE} of a LeRobot dataset, or {DATASET_FILE} of an imported one",
            mend="check the address and the credentials for it",
        )
    facts = storage.read_json(storage.join(uri, DATASET_FILE))
    parts = [_lerobot(_resolved(source["uri"], uri)) for source in facts["sources"]]
    grown = ("episodes", "frames", "data_files", "video_files", "data_bytes", "video_bytes")
    return replace(
        parts[0],
        tasks=len(facts["tasks"]),
        cameras=tuple(camera for camera in parts[0].cameras if camera.name in facts["cameras"]),
        **{name: sum(getattr(part, name) for part in parts) for name in grown},
    )


def _resolved(source: str, folder: str) -> str:
    """Return a source's address; those below an import's own root are relative to its folder."""
    if "://" in source:
        return source
    scheme, _, path = storage.normalize(folder).partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(path, source))}"


def _lerobot(uri: str) -> Recordings:
    where = storage.join(uri, INFO_FILE)
    info = storage.read_json(where)
    try:
        version = info["codebase_version"]
        episodes, frames, tasks = (int(info[f"total_{name}"]) for name in ("episodes", "frames", "tasks"))
        fps = float(info["fps"])
        cameras = tuple(_camera(name, f) for name, f in sorted(info["features"].items()) if f["dtype"] == "video")
        if version not in (V21, V30) or min(episodes, frames) < 1 or not fps > 0:
            raise ValueError(f"version {version}, {episodes} episodes, {frames} frames, {fps} frames a second")
        read_files = _separate_files if version == V21 else _packed_files
        data, videos = read_files(uri, info, [camera.name for camera in cameras])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"info.json does not say how much there is: {error!r}",
            where=where,
            expected=f"LeRobot {V21} or {V30} with totals, fps and features",
            mend=MEND,
        ) from error
    return Recordings(
        episodes=episodes,
        frames=frames,
        fps=fps,
        tasks=tasks,
        cameras=cameras,
        data_files=data.count,
        video_files=videos.count,
        data_bytes=data.total_bytes(uri),
        video_bytes=videos.total_bytes(uri),
    )


def _camera(name: str, feature: Mapping[str, Any]) -> Camera:
    # Some recorders declare (channels, height, width); the names tell.
    names = feature.get("names") or ["height", "width", "channels"]
    by_name = dict(zip(names, feature["shape"], strict=False))
    stated = feature.get("info") or feature.get("video_info") or {}
    height, width = (int(by_name.get(side, feature["shape"][at])) for at, side in enumerate(("height", "width")))
    return Camera(name=name, height=height, width=width, codec=str(stated.get("video.codec") or ""))


@dataclass(frozen=True)
class _Files:
    """Files of one sort: how many, and the paths of some."""

    count: int
    some: Sequence[str]

    def total_bytes(self, uri: str) -> float:
        """Return about the bytes of all; DataError if one of those that are asked for is not there."""
        sizes = []
        for path in self.some:
            where = storage.join(uri, path)
            if (facts := storage.info(where)) is None:
                raise DataError(
                    "a file of the dataset is not there", where=where, expected="what the meta folder lists", mend=MEND
                )
            sizes.append(float(facts["size"]))
        return self.count * sum(sizes) / len(sizes) if sizes else 0.0


def _separate_files(uri: str, info: Mapping[str, Any], cameras: Sequence[str]) -> tuple[_Files, _Files]:
    """Return the Parquet files and videos of v2.1: one an episode, and one an episode and camera."""
    del uri
    episodes, chunk = int(info["total_episodes"]), int(info.get("chunks_size") or 1000)
    some = [{"episode_chunk": e // chunk, "episode_index": e} for e in _spread(episodes)]
    data = [_template(info, "data_path").format(**names) for names in some]
    videos = [_template(info, "video_path").format(**names, video_key=name) for name in cameras for names in some]
    return _Files(episodes, data), _Files(episodes * len(cameras), videos)


def _packed_files(uri: str, info: Mapping[str, Any], cameras: Sequence[str]) -> tuple[_Files, _Files]:
    """Return the Parquet files and videos of v3.0, which the episodes' table places."""
    data = _PlacedFiles("data", _template(info, "data_path"))
    videos = [_PlacedFiles(f"videos/{name}", _template(info, "video_path"), name) for name in cameras]
    for rows in _episode_rows(uri, [column for files in (data, *videos) for column in files.columns]):
        for files in (data, *videos):
            files.see(rows)
    shot = [path for files in videos for path in files.paths()]
    return _Files(data.count, data.paths()), _Files(sum(files.count for files in videos), shot)


def _template(info: Mapping[str, Any], key: str) -> str:
    if not isinstance(info[key], str):
        raise TypeError(f"{key} is {info[key]!r}")
    return str(info[key])


class _PlacedFiles:
    """The packed files of one sort, counted while the episodes' rows stream by: a new place is a new file."""

    def __init__(self, prefix: str, template: str, camera: str = "") -> None:
        self.columns = (f"{prefix}/chunk_index", f"{prefix}/file_index")
        self._template, self._camera = template, camera
        self._places: set[tuple[int, int]] = set()

    @property
    def count(self) -> int:
        return len(self._places)

    def see(self, rows: Mapping[str, list[Any]]) -> None:
        self._places.update(zip(*(rows[column] for column in self.columns), strict=True))

    def paths(self) -> list[str]:
        places = sorted(self._places)
        chosen = (places[at] for at in _spread(len(places)))
        return [self._template.format(chunk_index=c, file_index=f, video_key=self._camera) for c, f in chosen]


def _episode_rows(uri: str, columns: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    folder = storage.join(uri, EPISODES_FOLDER)
    for name, _ in storage.list_files(folder):
        if name.endswith(".parquet"):
            with storage.open_file(storage.join(folder, name)) as file:
                try:
                    for batch in pq.ParquetFile(file).iter_batches(batch_size=4096, columns=list(columns)):
                        yield batch.to_pydict()
                except pa.ArrowException as error:
                    raise DataError(
                        f"not readable as Parquet: {error}", where=storage.join(folder, name), mend=MEND
                    ) from error


def _spread(count: int) -> list[int]:
    """Return at most SAMPLED_FILES positions, evenly spread."""
    number = min(count, SAMPLED_FILES)
    return [at * count // number for at in range(number)]
