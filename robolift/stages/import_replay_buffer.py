"""Take what online_rl's robots recorded, a replay buffer of torchrl on disk, as a LeRobot recording."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from robolift.data.lerobot_format import V30
from robolift.data.lerobot_writer import FeatureSpec, LeRobotWriter
from robolift.data.replay_buffer import ReplayBuffer
from robolift.data.replay_segments import Segment, Segments, find_segments, join_segments
from robolift.data.rgb8 import Layout, ValueRange, as_rgb8
from robolift.errors import DataError, UsageError
from robolift.logging import progress
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS: Mapping[str, Input] = {}
OUTPUT = Kind.RECORDING

EPISODE, CONTROL_MODE, DONE = "episode", "control_mode", "next/done"
OWN = frozenset({EPISODE, CONTROL_MODE, DONE, "index"})
MODES = {0: "autonomous", 1: "correcting"}
CAMERA = "observation.images.{}"
ROWS_AT_ONCE = 64


class Config(StageConfig):
    """Where the buffer lies, what the robot was told, and which of its keys become which columns."""

    buffer_uri: str = Field(min_length=1)
    """Folder of the buffer at any address: the scratch_dir of its LazyMemmapStorage. Not while it is written to."""
    task: str = Field(min_length=1)
    """Task text of all episodes: the buffer knows a number only."""
    fps: float = Field(default=20, gt=0)
    """Rows a second."""
    robot_type: str = ""
    """Goes into the recording's info.json."""
    cameras: tuple[str, ...] = ("head", "left", "right")
    """Keys with images; each becomes `observation.images.<key>`. Without any, no video is recorded."""
    layout: Layout = "chw"
    """Where the images' channels are."""
    value_range: ValueRange = "auto"
    """What images of real numbers mean: unit (0 to 1), byte (0 to 255); auto: worked out over an episode or refused."""
    columns: dict[str, str] = Field(
        default={"proprio": "observation.state", "action": "action", "reward": "labeller_reward"}
    )
    """Column that each other key becomes; keys that are not named are left out. The reward of online_rl is what its
    labeller wrote into a frame, progress or a person's -1, 0, +1: it is no step's, and its name does not say so."""
    join_segments: bool = True
    """Whether the segments that online_rl cuts an episode into, where control changes, become one episode again."""
    incomplete: Literal["refuse", "leave_out"] = "refuse"
    """What becomes of segments that are not whole, and of the oldest one of a full buffer, whose beginning may be
    overwritten. Those left out are counted."""
    write_cursor: int | None = Field(default=None, ge=0)
    """Row of a full buffer that would be overwritten next; by default where the numbers of its episodes fall back."""

    @model_validator(mode="after")
    def _agree(self) -> Config:
        if not self.columns:
            raise ValueError("columns is empty; a recording has a column at least")
        made = [*self.columns.values(), *(CAMERA.format(name) for name in self.cameras), CONTROL_MODE]
        if twice := sorted({name for name in made if made.count(name) > 1}):
            raise ValueError(f"columns and cameras: {', '.join(twice)} would be made twice")
        if taken := sorted(OWN & {*self.columns, *self.cameras}):
            raise ValueError(f"columns and cameras: {', '.join(taken)} is read anyway")
        return self


def identity(config: Config) -> dict[str, Any]:
    """Return a digest of the buffer: its layout and every number in its rows, of images which rows there are."""
    buffer = ReplayBuffer.open(config.buffer_uri)
    extent = len(buffer.finished(EPISODE))
    digest = hashlib.sha256()
    for name, leaf in sorted(buffer.leaves.items()):
        digest.update(json.dumps([name, str(leaf.dtype), leaf.shape, extent]).encode())
        # Images are terabytes; whatever changed them changed states and actions with them.
        if name not in config.cameras:
            for start in range(0, extent, 1 << 16):
                digest.update(buffer.rows(name, start, min(start + (1 << 16), extent)).tobytes())
    return {"buffer": digest.hexdigest()}


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write the recording (LeRobot v3.0) and return the counts, also of what was left out."""
    buffer = ReplayBuffer.open(config.buffer_uri)
    features = {column: _feature(buffer, key) for key, column in config.columns.items()}
    sizes = {CAMERA.format(name): _image_size(config, buffer, name) for name in config.cameras}
    found = _segments(config, buffer)
    episodes = join_segments(found.whole) if config.join_segments else list(found.whole)
    writer = LeRobotWriter(
        output.path,
        fps=config.fps,
        features={**features, CONTROL_MODE: FeatureSpec("string")},
        cameras=sizes,
        robot_type=config.robot_type,
        version=V30,
    )
    frames = 0
    for number, episode in enumerate(progress(episodes, total=len(episodes), what="import", unit="episode")):
        columns = {column: _column(buffer, key, episode) for key, column in config.columns.items()}
        columns[CONTROL_MODE] = np.array([MODES[mode] for mode in _column(buffer, CONTROL_MODE, episode).ravel()])
        videos = {CAMERA.format(name): _images(config, buffer, name, episode, number) for name in config.cameras}
        # Who ended it how is not recorded; a correction alone is no demonstration.
        extra = {"kind": "rollout", "buffer_episode": episode.episode}
        writer.add_episode(columns, videos=videos, task=config.task, extra=extra)
        frames += len(columns[CONTROL_MODE])
    writer.finish()
    return {
        "episodes": len(episodes),
        "frames": frames,
        "segments": len(found.whole),
        "left_out_unended_segments": found.unended,
        "left_out_overwritten_rows": found.overwritten,
        "left_out_unfinished_rows": found.unfinished,
    }


def _segments(config: Config, buffer: ReplayBuffer) -> Segments:
    """Find the segments, and refuse those that are not whole unless they are to be left out."""
    if config.write_cursor is not None and config.write_cursor >= buffer.capacity:
        raise UsageError(f"write_cursor is {config.write_cursor}, and the buffer has {buffer.capacity} rows")
    finished = buffer.finished(EPISODE)
    mode = buffer.scalars(CONTROL_MODE, len(finished))
    strange = np.flatnonzero(finished & ~np.isin(mode, list(MODES)))
    if len(strange):
        raise DataError(
            f"control_mode {mode[strange[0]]} in {len(strange)} rows",
            where=f"{buffer.uri}, first: row {strange[0]}",
            expected=", ".join(f"{number} ({name})" for number, name in MODES.items()),
        )
    found = find_segments(
        episode=buffer.scalars(EPISODE, len(finished)),
        done=buffer.scalars(DONE, len(finished)).astype(bool),
        mode=mode,
        finished=finished,
        capacity=buffer.capacity,
        write_cursor=config.write_cursor,
        where=buffer.uri,
    )
    if found.left_out and config.incomplete == "refuse":
        raise DataError(
            f"not all of the buffer is whole: {found.unended} segments without an end, {found.overwritten} rows of a "
            f"segment that may lack its beginning, {found.unfinished} unfinished rows",
            where=f"{buffer.uri}, first: {found.first_left_out}",
            expected="each segment from its first row to the one marked done",
            mend="set incomplete to leave_out, and these are left out and counted",
        )
    if not found.whole:
        raise DataError(
            "no whole segment is in the buffer",
            where=f"{buffer.uri}, {int(finished.sum())} of {buffer.capacity} rows finished",
            expected="rows up to one whose next/done is true",
        )
    return found


def _feature(buffer: ReplayBuffer, key: str) -> FeatureSpec:
    """Return the declaration of the column that a key becomes.

    Raises:
        DataError: If a row of it is no number and no vector.
    """
    leaf = buffer.leaf(key)
    if len(leaf.shape) > 2:
        raise DataError(
            f"{key} is {leaf.shape[1:]} in each row",
            where=leaf.uri,
            expected="a number or a vector",
            mend="name it in cameras if it is an image, or leave it out of columns",
        )
    return FeatureSpec(leaf.dtype.name, leaf.shape[1:] or (1,))


def _image_size(config: Config, buffer: ReplayBuffer, name: str) -> tuple[int, int]:
    """Return (height, width) of a camera, after checking on its shape that these are images."""
    leaf = buffer.leaf(name)
    shape = as_rgb8(np.zeros(leaf.shape[1:], np.uint8), layout=config.layout, where=f"key {name}").shape
    return shape[0], shape[1]


def _column(buffer: ReplayBuffer, key: str, episode: Segment) -> np.ndarray[Any, Any]:
    """Return a key's rows of an episode, (T,) or (T, d)."""
    return np.concatenate([buffer.rows(key, start, stop) for start, stop in episode.spans])


def _images(
    config: Config, buffer: ReplayBuffer, name: str, episode: Segment, number: int
) -> Iterator[np.ndarray[Any, Any]]:
    """Yield an episode's images of a camera, (H, W, 3) uint8 RGB."""
    where = f"episode {number}, camera {name}"
    if buffer.leaf(name).dtype != np.uint8:
        # What real numbers mean is decided over the whole episode.
        whole = _column(buffer, name, episode)
        yield from as_rgb8(whole, layout=config.layout, value_range=config.value_range, where=where)
        return
    for first, last in episode.spans:
        for start in range(first, last, ROWS_AT_ONCE):
            rows = buffer.rows(name, start, min(start + ROWS_AT_ONCE, last))
            yield from as_rgb8(rows, layout=config.layout, where=where)
