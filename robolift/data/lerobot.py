"""Reads LeRobot datasets, v2.1 and v3.0, where they lie: any fsspec address, packed files, old spellings.

Nothing is trusted that can be checked while it is read: each data file against the declared features, each episode's
rows against the meta folder, each frame's time against the one asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from robolift import storage
from robolift.data import lerobot_format as fmt
from robolift.data.content import ContentCheck
from robolift.data.data_file import DataFile
from robolift.data.lerobot_checks import canonical, check_rows
from robolift.data.lerobot_meta import EpisodeMeta, Meta, VideoPlace, read_lines, read_meta
from robolift.data.statistics import Statistics, aggregate, from_json
from robolift.data.video import VideoClip, VideoFacts, probe
from robolift.errors import DataError, UsageError
from robolift.logging import get_logger

__all__ = ["EpisodeMeta", "LeRobotReader", "VideoPlace"]

OPEN_DATA_FILES = 2


class LeRobotReader:
    """One LeRobot dataset, opened by :meth:`open`. Reading is safe from several threads.

    Attributes:
        uri: Its folder.
        version: ``v2.1`` or ``v3.0``.
        fps: Frames a second.
        robot_type: As info.json has it.
        features: Declared features; shapes are tuples without leading ones.
        info: info.json as it stands.
        cameras: Names of the video features, sorted.
        tasks: Task texts by task_index.
        episodes: By index.
    """

    def __init__(self, uri: str, meta: Meta, check: ContentCheck | None = None) -> None:
        self.uri = uri
        self._check = check
        self.version = meta.version
        self.fps = meta.fps
        self.robot_type: str | None = meta.info.get("robot_type")
        self.features = meta.features
        self.info = meta.info
        self.cameras = meta.cameras
        self.tasks = meta.tasks
        self.episodes = meta.episodes
        self._stored = [name for name, feature in meta.features.items() if feature["dtype"] != "video"]
        self._lock = threading.RLock()
        self._data_files: OrderedDict[str, DataFile] = OrderedDict()
        self._moved: dict[int, str] = {}
        from robolift.data.video_decoder import OpenVideos  # noqa: PLC0415  (FFmpeg)

        self._probed: tuple[str, VideoFacts] | None = None
        self._videos = OpenVideos(fps=meta.fps)

    @classmethod
    def open(cls, uri: str, *, check: ContentCheck | None = None) -> LeRobotReader:
        """Open a dataset; only its meta folder is read.

        Args:
            uri: The folder, at any address.
            check: Checks each data and video file before it is read. A data file that it lets pass is taken for what
                was checked when it was imported, and its rows are not checked again.

        Raises:
            DataError: If the meta folder is missing, garbled or does not add up.
        """
        return cls(uri, read_meta(uri), check)

    def close(self) -> None:
        """Close all open files; the reader opens them again when needed."""
        with self._lock:
            for file in self._data_files.values():
                file.close()
            self._data_files.clear()
        self._videos.close()

    def table(self, episode: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return an episode's rows in frame order.

        Args:
            episode: Its index.
            columns: Which columns; None for all. Shape (1,) comes as a scalar, (d,) as a fixed-size list.

        Raises:
            UsageError: If there is no such episode.
            DataError: If a column is unknown, the file is missing or unreadable, or its rows are wrong.
        """
        meta = self._episode(episode)
        wanted = self._stored if columns is None else list(columns)
        unknown = sorted(set(wanted).difference(self._stored))
        if unknown:
            raise DataError(
                f"no column {', '.join(unknown)}", where=self.uri, expected=f"one of {', '.join(sorted(self._stored))}"
            )
        with self._lock:
            file = self._file_of(meta)
            if self._check is None:
                file.check(self.features)
            needed = wanted if self._check else sorted({*wanted, *fmt.STANDARD_COLUMNS})
            rows = file.rows(episode, needed)
        if self._check is None:
            check_rows(
                rows, episode=episode, length=meta.length, fps=self.fps, num_tasks=len(self.tasks), where=file.uri
            )
        arrays = [
            canonical(rows.column(name), self.features[name], where=f"{file.uri}, episode {episode}, column {name}")
            for name in wanted
        ]
        return pa.table(dict(zip(wanted, arrays, strict=True)))

    def raw_table(self, episode: int) -> pa.Table:
        """Return an episode's rows as they stand, undeclared columns too, for a caller with checks of its own.

        Raises:
            UsageError: If there is no such episode.
            DataError: If the file is missing or unreadable, or has no rows of the episode.
        """
        meta = self._episode(episode)
        with self._lock:
            file = self._file_of(meta)
            return file.rows(episode, file.columns)

    def data(self, path: str) -> bytes | None:
        """Return the bytes of a data file, checked to be what was imported; None if they are too many to hold.

        Raises:
            DataError: If it was changed or is gone.
        """
        return self._check.read(path) if self._check else None

    def video(
        self,
        episode: int,
        camera: str,
        *,
        size: tuple[int, int] | None = None,
        parts: Iterable[range] | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield every frame of an episode once, in order.

        Args:
            episode: Its index.
            camera: One of ``cameras``.
            size: (height, width) to scale to; None for the video's own.
            parts: Only these ascending ranges of its frames.

        Yields:
            (H, W, 3) uint8 RGB.

        Raises:
            DataError: If the camera or file is missing, the video unreadable, or shorter than the episode.
        """
        from robolift.data.video_decoder import decode_frames  # noqa: PLC0415

        return decode_frames(self.clip(episode, camera), size=size, parts=parts)

    def frames_at(
        self, episode: int, camera: str, frames: Sequence[int] | np.ndarray, *, size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Return some frames of an episode, for a training loader of many threads; recently used videos stay open.

        Args:
            episode: Its index.
            camera: One of ``cameras``.
            frames: (n,) frame indices, in any order and with repetitions.
            size: (height, width) to scale to.

        Returns:
            (n, H, W, 3) uint8 RGB.

        Raises:
            UsageError: If a frame index is outside the episode.
            DataError: As :meth:`video`.
        """
        clip = self.clip(episode, camera)
        indices = np.asarray(frames, np.int64)
        if len(indices) and (indices.min() < 0 or indices.max() >= clip.num_frames):
            raise UsageError(f"episode {episode} has frames 0..{clip.num_frames - 1}, asked for {indices.tolist()}")
        with self._videos.borrowed(clip.uri, size) as decoder:
            return decoder.decode_at(clip.start_s + indices / self.fps)

    def clip(self, episode: int, camera: str) -> VideoClip:
        """Return where an episode's frames of one camera lie, ready for the decoder or the writer.

        Raises:
            UsageError: If there is no such episode.
            DataError: If there is no such camera.
        """
        meta = self._episode(episode)
        self._check_camera(camera)
        place = meta.videos[camera]
        if self._check:
            self._check.file(place.path)
        return VideoClip(storage.join(self.uri, place.path), place.start_s, meta.length, self.fps)

    def image_size(self, camera: str) -> tuple[int, int]:
        """Return the declared (height, width) of a camera.

        Raises:
            DataError: If there is no such camera.
        """
        self._check_camera(camera)
        return fmt.image_size(self.features[camera])

    def statistics(self) -> dict[str, Statistics]:
        """Return the statistics of each feature over the dataset, as it states them (v2.1: merged over episodes).

        Raises:
            DataError: If they are missing or garbled.
        """
        if self.version == fmt.V30:
            stated = storage.read_json(storage.join(self.uri, fmt.STATS_FILE))
            return {name: from_json(found) for name, found in stated.items()}
        uri = storage.join(self.uri, fmt.EPISODES_STATS_JSONL)
        parts = [row["stats"] for row in read_lines(uri)]
        return {name: aggregate([from_json(part[name]) for part in parts]) for name in parts[0]}

    def check_files(self) -> None:
        """Check that every data and video file that the meta folder names is there; one listing, nothing is read.

        Raises:
            DataError: Naming the first missing file and how many there are.
        """
        present = {name for name, _ in storage.list_files(self.uri)}
        named = (path for e in self.episodes for path in (e.data_path, *(place.path for place in e.videos.values())))
        missing = dict.fromkeys(path for path in named if path not in present)
        if missing:
            raise DataError(
                f"{len(missing)} files are missing, the first is {next(iter(missing))}",
                where=self.uri,
                expected="every file that the meta folder names",
                mend="copy the dataset again",
            )

    def check_video(self, episode: int, camera: str) -> None:
        """Check an episode's video against its header, without decoding: size, frame rate and length.

        Raises:
            DataError: If it is missing, unreadable, of another size or rate, or shorter than the episode.
        """
        clip = self.clip(episode, camera)
        where = f"{clip.uri}, episode {episode}"
        with self._lock:
            if self._probed is None or self._probed[0] != clip.uri:
                self._probed = (clip.uri, probe(clip.uri))
            facts = self._probed[1]
        declared = self.image_size(camera)
        if (facts.height, facts.width) != declared:
            raise DataError(
                f"the video is {facts.height}x{facts.width}", where=where, expected=f"{declared[0]}x{declared[1]}"
            )
        if abs(float(facts.fps) - self.fps) > 0.01 * self.fps:
            raise DataError(f"the video has {float(facts.fps):.3f} frames/s", where=where, expected=f"{self.fps:g}")
        needed = round(clip.start_s * self.fps) + clip.num_frames
        if facts.frames and facts.frames < needed:
            raise DataError(
                f"the video has {facts.frames} frames",
                where=where,
                expected=f"at least {needed}: the episode has {clip.num_frames} rows",
                mend="copy the video again, or drop the episode",
            )

    def _episode(self, episode: int) -> EpisodeMeta:
        if not 0 <= episode < len(self.episodes):
            raise UsageError(f"{self.uri} has episodes 0..{len(self.episodes) - 1}, asked for {episode}")
        return self.episodes[episode]

    def _check_camera(self, camera: str) -> None:
        if camera not in self.cameras:
            raise DataError(
                f"no camera {camera}", where=self.uri, expected=f"one of {', '.join(self.cameras) or '(it has none)'}"
            )

    def _open(self, path: str) -> DataFile:
        file = self._data_files.pop(path, None)
        if file is None:
            file = DataFile(storage.join(self.uri, path), self.data(path))
        self._data_files[path] = file
        if len(self._data_files) > OPEN_DATA_FILES:
            self._data_files.popitem(last=False)[1].close()
        return file

    def _file_of(self, meta: EpisodeMeta) -> DataFile:
        """Open the file that really holds an episode's rows.

        LeRobot 0.4.0's converter recorded the previous file for each file's first episode; its own loader never
        notices, because it reads all files. So the rows decide, not the meta folder.
        """
        path = self._moved.get(meta.index, meta.data_path)
        file = self._open(path)
        if meta.index in file.spans:
            return file
        for other in dict.fromkeys(episode.data_path for episode in self.episodes):
            if other != path and meta.index in (file := self._open(other)).spans:
                get_logger("data").warning(
                    "episode lies in another file than the meta folder says",
                    uri=self.uri,
                    episode=meta.index,
                    stated=meta.data_path,
                    found=other,
                )
                self._moved[meta.index] = other
                return file
        raise DataError(
            f"no rows of episode {meta.index}",
            where=storage.join(self.uri, meta.data_path),
            expected=f"{meta.length} rows",
            mend="copy the data files again",
        )
