"""What the reader refuses, and that it says what is wrong and where."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from coded_dataset import (
    EPISODES,
    FPS,
    TOP,
    VERSIONS,
    WRIST,
    data_file,
    edit_json,
    rewrite,
    with_column,
    write_packed,
)
from coded_video import SIZE, coded_frames

from robolift import storage
from robolift.data.lerobot import LeRobotReader
from robolift.data.video import encode_video
from robolift.errors import DataError, UsageError


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One dataset of each version. Read only."""
    return write_packed(tmp_path_factory.mktemp("originals"))


@pytest.fixture
def v21(originals: dict[str, Path], tmp_path: Path) -> Path:
    """A v2.1 dataset to spoil."""
    return Path(shutil.copytree(originals["v2.1"], tmp_path / "v21"))


@pytest.fixture
def v30(originals: dict[str, Path], tmp_path: Path) -> Path:
    """A v3.0 dataset to spoil."""
    return Path(shutil.copytree(originals["v3.0"], tmp_path / "v30"))


def spoil_info(key: str, value: Any) -> Callable[[Path], None]:
    def change(info: dict[str, Any]) -> None:
        info[key] = value

    return lambda root: edit_json(root / "meta/info.json", change)


def spoil_feature(name: str, value: Any) -> Callable[[Path], None]:
    def change(info: dict[str, Any]) -> None:
        if value is None:
            del info["features"][name]
        else:
            info["features"][name] = value

    return lambda root: edit_json(root / "meta/info.json", change)


META_FAULTS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda root: shutil.rmtree(root / "meta"), r"file not found[\s\S]*info\.json"),
    (lambda root: (root / "meta/info.json").write_text("{oops"), r"not valid JSON[\s\S]*info\.json"),
    (lambda root: (root / "meta/info.json").write_text("[1]"), "info.json is not an object"),
    (spoil_info("codebase_version", "v1.6"), r"LeRobot version 'v1\.6'[\s\S]*v2\.1 or v3\.0"),
    (spoil_info("fps", 0), "fps is 0"),
    (spoil_info("fps", "20"), "fps is '20'"),
    (spoil_info("features", {}), "declares no features"),
    (spoil_feature("action", {"dtype": "float33", "shape": [2]}), "feature action is declared as"),
    (spoil_feature("action", {"dtype": "float32", "shape": "2"}), "feature action is declared as"),
    (spoil_feature("action", ["float32"]), "feature action is declared as"),
    (spoil_feature("frame_index", None), "does not declare frame_index"),
    (spoil_info("total_episodes", 5), r"total_episodes is 5 in info\.json, the meta tables have 4"),
    (spoil_info("total_frames", 42), r"total_frames is 42 in info\.json, the meta tables have 43"),
    (spoil_info("total_tasks", None), r"total_tasks is None in info\.json, the meta tables have 2"),
    (spoil_info("chunks_size", "many"), "the episode's files can't be told"),
    (spoil_info("data_path", "data/{no_such_name}.parquet"), "the episode's files can't be told"),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("spoil", "message"), META_FAULTS)
def test_a_broken_info_is_refused(
    originals: dict[str, Path], tmp_path: Path, version: str, spoil: Callable[[Path], Any], message: str
) -> None:
    root = Path(shutil.copytree(originals[version], tmp_path / "d"))
    spoil(root)
    with pytest.raises(DataError, match=message):
        LeRobotReader.open(str(root))


def replace_lines(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Path], Any]:
    def spoil(root: Path) -> None:
        path = root / "meta" / name
        path.write_text("\n".join(change(path.read_text().splitlines())))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "meta/episodes.jsonl").unlink(), r"file not found[\s\S]*episodes\.jsonl"),
        (replace_lines("episodes.jsonl", lambda ls: [ls[0], "{x", *ls[2:]]), "line 2 is not JSON"),
        (replace_lines("episodes.jsonl", lambda ls: [*ls, "3"]), "line 5 is not an object"),
        (replace_lines("episodes.jsonl", lambda ls: [ls[0], ls[1], ls[1], ls[3]]), "episode indices are not 0..3"),
        (replace_lines("episodes.jsonl", lambda ls: [ls[0], ls[1], ls[3]]), "first wrong one at place 2"),
        (replace_lines("episodes.jsonl", lambda ls: []), "episode indices"),
        (replace_lines("episodes.jsonl", lambda ls: ['{"length": 3}', *ls[1:]]), "episode_index, length, tasks"),
        (replace_lines("episodes.jsonl", lambda ls: [ls[0].replace("12", "0"), *ls[1:]]), "episode_index, length"),
        (replace_lines("tasks.jsonl", lambda ls: [ls[0], ls[0]]), "a task_index stands twice"),
        (replace_lines("tasks.jsonl", lambda ls: ls[1:]), "task 0 has task_index 1"),
        (
            replace_lines("tasks.jsonl", lambda ls: [ls[0], '{"task_index": 1}']),
            "task 1 has task_index 1 and text None",
        ),
    ],
)
def test_broken_meta_of_v21_is_refused(v21: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(v21)
    with pytest.raises(DataError, match=message):
        LeRobotReader.open(str(v21))


def change_table(name: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], Any]:
    return lambda root: rewrite(root / name, change)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: (root / "meta/tasks.parquet").write_text("x"),
            r"not a readable Parquet file[\s\S]*tasks\.parquet",
        ),
        (lambda root: (root / EPISODES).write_text("x"), r"not a readable Parquet file[\s\S]*file-000\.parquet"),
        (lambda root: shutil.rmtree(root / "meta/episodes"), "no episode table"),
        (
            change_table("meta/tasks.parquet", lambda t: t.take([1, 0])),
            r"rows of tasks\.parquet stand in the order \[1, 0\][\s\S]*row i holds task_index i",
        ),
        (change_table("meta/tasks.parquet", lambda t: t.select(["task_index"])), "tasks.parquet has columns"),
        (change_table(EPISODES, lambda t: t.drop_columns(["data/file_index"])), "files can't be told"),
        (change_table(EPISODES, lambda t: t.drop_columns([f"videos/{TOP}/from_timestamp"])), "from_timestamp"),
        (change_table(EPISODES, lambda t: t.slice(1)), "episode indices are not 0..2"),
    ],
)
def test_broken_meta_of_v30_is_refused(v30: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(v30)
    with pytest.raises(DataError, match=message):
        LeRobotReader.open(str(v30))


def shifted(table: pa.Table, name: str, row: int, by: float) -> pa.Table:
    values = table.column(name).to_numpy().copy()
    values[row] += by
    return with_column(name, pa.array(values, table.schema.field(name).type))(table)


TABLE_FAULTS: list[tuple[Callable[[pa.Table], pa.Table], str]] = [
    (lambda t: t.append_column("adv", pa.array([0.0] * 12)), r"columns not declared in info\.json: adv"),
    (lambda t: t.drop_columns(["action"]), r"columns declared in info\.json are absent: action"),
    (
        lambda t: with_column("intervention", t.column("intervention").cast(pa.int32()))(t),
        "column intervention holds int32, declared is int64",
    ),
    (lambda t: with_column("control_mode", pa.array([1] * 12))(t), "column control_mode holds int64"),
    (lambda t: t.slice(0, 11), r"11 rows[\s\S]*expected: 12"),
    (lambda t: shifted(t, "frame_index", 5, 1), "gap in frame_index: row 5 has 6"),
    (lambda t: shifted(t, "timestamp", 7, 0.02), r"timestamp of frame 7 is 0\.3700 s[\s\S]*0\.3500 s"),
    (lambda t: shifted(t, "timestamp", 7, float("nan")), "timestamp of frame 7 is nan"),
    (lambda t: shifted(t, "task_index", 3, 2), r"task_index of frame 3 is 2[\s\S]*0\.\.1"),
    (lambda t: shifted(t, "task_index", 3, -1), "task_index of frame 3 is -1"),
    (lambda t: shifted(t, "episode_index", 3, 1), "rows of episode 0 are not together"),
    (
        lambda t: with_column("episode_index", pa.array([1] * 12, pa.int64()))(t),
        r"no rows of episode 0[\s\S]*expected: 12 rows",
    ),
    (lambda t: with_column("index", pa.array([None, *range(1, 12)], pa.int64()))(t), "column index has nulls"),
    (
        lambda t: with_column("intervention", pa.array([None] + [0] * 11, pa.int64()))(t),
        "1 nulls[\\s\\S]*episode 0, column intervention",
    ),
    (
        lambda t: with_column("action", pa.array([[1.0, 2.0]] * 10 + [[1.0], [1, 2, 3]], pa.list_(pa.float32())))(t),
        "row 10 has another width[\\s\\S]*column action",
    ),
    (
        lambda t: with_column("action", pa.array([[1.0] * 3] * 12, pa.list_(pa.float32(), 3)))(t),
        "36 entries in 12 rows",
    ),
    (lambda t: t.drop_columns(["episode_index"]), "column episode_index is absent"),
]


@pytest.mark.parametrize(("change", "message"), TABLE_FAULTS)
def test_broken_rows_are_refused(v21: Path, change: Callable[[pa.Table], pa.Table], message: str) -> None:
    rewrite(data_file(v21), change)
    reader = LeRobotReader.open(str(v21))
    with pytest.raises(DataError, match=message):
        reader.table(0)
    assert len(reader.table(1)) == 9  # the others are still fine


def test_missing_and_damaged_data_files_are_named(v21: Path) -> None:
    data_file(v21, 1).unlink()
    data_file(v21, 2).write_bytes(data_file(v21, 2).read_bytes()[:-10])
    content = bytearray(data_file(v21, 3).read_bytes())
    content[10:400] = bytes(390)
    data_file(v21, 3).write_bytes(content)
    reader = LeRobotReader.open(str(v21))
    with pytest.raises(DataError, match=r"1 files are missing, the first is data/chunk-000/episode_000001\.parquet"):
        reader.check_files()
    for episode, message in ((1, "file not found"), (2, "not a readable Parquet"), (3, "damaged|not a readable")):
        with pytest.raises(DataError, match=rf"{message}[\s\S]*episode_00000{episode}\.parquet"):
            reader.table(episode)


def test_unknown_columns_cameras_and_episodes_are_refused(v21: Path) -> None:
    reader = LeRobotReader.open(str(v21))
    with pytest.raises(DataError, match=r"no column reward[\s\S]*observation\.state"):
        reader.table(0, ["reward"])
    with pytest.raises(DataError, match=rf"no column {TOP}"):
        reader.table(0, [TOP])
    for call in (
        reader.image_size,
        lambda camera: reader.video(0, camera),
        lambda camera: reader.check_video(0, camera),
    ):
        with pytest.raises(DataError, match=rf"no camera left[\s\S]*{TOP}, {WRIST}"):
            call("left")
    for episode in (-1, 4):
        with pytest.raises(UsageError, match=r"has episodes 0\.\.3"):
            reader.table(episode)


def test_a_video_shorter_than_its_table_is_an_error(v21: Path) -> None:
    reader = LeRobotReader.open(str(v21))
    clip = reader.clip(0, TOP)
    path = storage.local_path(clip.uri)
    assert path is not None
    encode_video(path, coded_frames(0, 10), fps=FPS, size=SIZE)
    with pytest.raises(DataError, match=r"the video has 10 frames[\s\S]*at least 12: the episode has 12 rows"):
        reader.check_video(0, TOP)
    with pytest.raises(DataError, match=r"the video ends before 0\.500 s[\s\S]*10 are there"):
        list(reader.video(0, TOP))


def test_a_packed_video_shorter_than_its_episodes_is_an_error(v30: Path) -> None:
    last = LeRobotReader.open(str(v30)).clip(3, TOP)
    path = storage.local_path(last.uri)
    assert path is not None
    encode_video(path, coded_frames(3, 5), fps=FPS, size=SIZE)
    reader = LeRobotReader.open(str(v30))
    with pytest.raises(DataError, match="the video has 5 frames"):
        reader.check_video(3, TOP)
    with pytest.raises(DataError, match="the video ends before"):
        list(reader.video(3, TOP))


@pytest.mark.parametrize(
    ("size", "fps", "message"),
    [((32, 32), FPS, r"the video is 32x32[\s\S]*expected: 32x64"), (SIZE, 30, r"30\.000 frames/s[\s\S]*expected: 20")],
)
def test_videos_of_another_size_or_rate_are_an_error(v21: Path, size: Any, fps: int, message: str) -> None:
    reader = LeRobotReader.open(str(v21))
    path = storage.local_path(reader.clip(1, TOP).uri)
    assert path is not None
    encode_video(path, coded_frames(1, 9, size), fps=fps, size=size)
    with pytest.raises(DataError, match=message):
        reader.check_video(1, TOP)


def test_missing_and_unreadable_videos_are_named(v21: Path) -> None:
    reader = LeRobotReader.open(str(v21))
    for episode, spoil in ((0, Path.unlink), (1, lambda path: path.write_text("x"))):
        path = storage.local_path(reader.clip(episode, WRIST).uri)
        assert path is not None
        spoil(path)
        for call in (lambda e: list(reader.video(e, WRIST)), lambda e: reader.check_video(e, WRIST)):
            with pytest.raises(DataError, match=rf"(not found|unreadable)[\s\S]*episode_00000{episode}\.mp4"):
                call(episode)
    with pytest.raises(DataError, match="1 files are missing"):
        reader.check_files()
