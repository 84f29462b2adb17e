from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coded_dataset import CAMERAS, FPS, LENGTHS, TASKS, TOP, WRIST, columns, edit_json, write_dataset
from coded_video import SIZE, coded_frames, read_code

from robolift import storage
from robolift.data.lerobot import LeRobotReader
from robolift.data.video import encode_video
from robolift.errors import DataError, UsageError

FIXTURES = Path(__file__).parents[1] / "fixtures"
VERSIONS = ("v2.1", "v3.0")
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One dataset of each version; v3.0's is packed into several files. Read only."""
    folder = tmp_path_factory.mktemp("originals")
    limits = {"data_file_mb": 0.003, "video_file_mb": 0.006}
    return {version: write_dataset(folder / version, version, **limits) for version in VERSIONS}


@pytest.fixture(params=VERSIONS)
def original(request: pytest.FixtureRequest, originals: dict[str, Path]) -> Path:
    return originals[request.param]


@pytest.fixture
def v21(originals: dict[str, Path], tmp_path: Path) -> Path:
    """A v2.1 dataset to spoil."""
    return Path(shutil.copytree(originals["v2.1"], tmp_path / "v21"))


@pytest.fixture
def v30(originals: dict[str, Path], tmp_path: Path) -> Path:
    """A v3.0 dataset to spoil."""
    return Path(shutil.copytree(originals["v3.0"], tmp_path / "v30"))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def with_column(name: str, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index(name), name, values)


def data_file(root: Path, episode: int = 0) -> Path:
    return root / f"data/chunk-000/episode_{episode:06d}.parquet"


# --- what LeRobot itself wrote -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lerobot_v21", "lerobot_v30"])
def test_datasets_recorded_by_lerobot_are_read_as_lerobot_reads_them(name: str) -> None:
    expected = json.loads((FIXTURES / f"{name}.expected.json").read_text())
    reader = LeRobotReader.open(str(FIXTURES / name))
    reader.check_files()
    assert (reader.fps, reader.robot_type, len(reader.episodes)) == (20, "sawyer", 4)
    assert reader.cameras == ("observation.images.top", "observation.images.wrist")
    assert reader.tasks == TASKS
    rows = pa.concat_tables([reader.table(meta.index) for meta in reader.episodes])
    for column in ("observation.state", "action", "intervention", "timestamp", "frame_index", "index", "task_index"):
        np.testing.assert_array_equal(np.array(rows.column(column).to_pylist()), np.array(expected[column]))
    assert rows.column("control_mode").to_pylist() == expected["control_mode"]
    assert [reader.tasks[index] for index in rows.column("task_index").to_pylist()] == expected["task"]
    for camera in reader.cameras:
        images = np.concatenate([np.stack(list(reader.video(meta.index, camera))) for meta in reader.episodes])
        count, height, width, _ = images.shape
        assert (height, width) == reader.image_size(camera)
        tiles = images.reshape(count, 4, height // 4, 4, width // 4, 3).mean(axis=(2, 4))
        # The expectation is rounded to 0.01; decoders of other builds may differ by a level.
        np.testing.assert_allclose(tiles, np.array(expected[camera]), atol=1.0)
        reader.check_video(3, camera)
    assert reader.statistics()["observation.state"]["mean"] == pytest.approx([60 / 43, 228 / 43, 22.8 / 43])


def test_the_fixture_packs_several_episodes_into_several_files() -> None:
    reader = LeRobotReader.open(str(FIXTURES / "lerobot_v30"))
    assert len({meta.data_path for meta in reader.episodes}) == 2
    assert len({meta.videos["observation.images.top"].path for meta in reader.episodes}) == 3
    assert [meta.videos["observation.images.top"].start_s for meta in reader.episodes] == [0.0, 0.6, 0.0, 0.0]


# --- what our writer wrote -----------------------------------------------------------------------------------------


def test_tables_hold_what_was_written(original: Path) -> None:
    reader = LeRobotReader.open(str(original))
    assert reader.version == original.name
    for meta, length in zip(reader.episodes, LENGTHS, strict=True):
        assert (meta.length, meta.tasks) == (length, (TASKS[meta.index % 2],))
        table = reader.table(meta.index)
        for name, values in columns(meta.index, length).items():
            expected = np.asarray(values, np.float32) if name == "observation.state" else np.asarray(values)
            assert np.array_equal(np.array(table.column(name).to_pylist()).astype(expected.dtype), expected)
        assert table.column("observation.state").type == pa.list_(pa.float32(), 3)
        assert table.column("frame_index").to_pylist() == list(range(length))
    assert reader.table(2, ["done", "action"]).column_names == ["done", "action"]


def test_videos_hold_what_was_written_in_any_order_of_asking(original: Path) -> None:
    reader = LeRobotReader.open(str(original))
    for episode in (2, 0, 3, 1):
        for camera in (WRIST, TOP):
            reader.check_video(episode, camera)
            found = [read_code(image) for image in reader.video(episode, camera)]
            assert found == [(episode, frame) for frame in range(LENGTHS[episode])]
    assert next(reader.video(1, TOP, size=(16, 32))).shape == (16, 32, 3)
    reader.check_files()
    reader.close()


def test_frames_for_training_are_those_of_the_pass(original: Path) -> None:
    reader = LeRobotReader.open(str(original))
    for episode in (1, 3, 1):
        whole = np.stack(list(reader.video(episode, TOP)))
        order = [5, 0, 5, len(whole) - 1, 3]
        assert np.array_equal(reader.frames_at(episode, TOP, order), whole[order])
    small = reader.frames_at(0, TOP, [2, 1], size=(16, 32))
    assert small.shape == (2, 16, 32, 3)
    with pytest.raises(UsageError, match=r"frames 0\.\.11, asked for \[12\]"):
        reader.frames_at(0, TOP, [12])
    with pytest.raises(UsageError, match=r"asked for \[-1\]"):
        reader.frames_at(0, TOP, [-1])
    reader.close()


def test_few_videos_stay_open(v21: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robolift.data.lerobot.OPEN_VIDEOS", 2)
    reader = LeRobotReader.open(str(v21))
    for episode in (0, 1, 2, 3, 0):
        assert read_code(reader.frames_at(episode, TOP, [4])[0]) == (episode, 4)
    assert len(reader._decoders) == 2
    reader.close()
    assert read_code(reader.frames_at(1, TOP, [2])[0]) == (1, 2)
    reader.close()


def test_a_reader_serves_several_threads(original: Path) -> None:
    reader = LeRobotReader.open(str(original))

    def read(episode: int) -> tuple[int, list[tuple[int, int]]]:
        table = reader.table(episode)
        return len(table), [read_code(image) for image in reader.frames_at(episode, TOP, [1, 6])]

    with ThreadPoolExecutor(4) as pool:
        for number, (length, found) in enumerate(pool.map(read, [0, 1, 2, 3] * 4)):
            assert length == LENGTHS[number % 4]
            assert found == [(number % 4, 1), (number % 4, 6)]
    reader.close()


def test_any_store_will_do(original: Path, s3: str) -> None:
    for root in ("memory://copied", s3):
        for name, _ in storage.list_files(str(original)):
            storage.write_bytes(storage.join(root, original.name, name), (original / name).read_bytes())
        reader = LeRobotReader.open(storage.join(root, original.name))
        reader.check_files()
        assert [len(reader.table(episode)) for episode in range(4)] == list(LENGTHS)
        assert [read_code(image) for image in reader.video(1, WRIST)] == [(1, frame) for frame in range(9)]
        assert read_code(reader.frames_at(2, TOP, [14])[0]) == (2, 14)
        reader.check_video(2, TOP)
        reader.close()
    fsspec.filesystem("memory").rm("/copied", recursive=True)


# --- spellings of other writers ------------------------------------------------------------------------------------


def test_older_spellings_of_video_facts_and_shapes(v21: Path) -> None:
    def respell(info: dict[str, Any]) -> None:
        info["features"][TOP]["video_info"] = info["features"][TOP].pop("info")
        info["features"][WRIST]["info"]["is_depth_map"] = info["features"][WRIST]["info"].pop("video.is_depth_map")
        info["features"]["observation.state"]["shape"] = [1, 3]

    edit_json(v21 / "meta/info.json", respell)
    states = pa.array([[[0.0, frame, frame / 10]] for frame in range(12)], pa.list_(pa.list_(pa.float32())))
    rewrite(data_file(v21), with_column("observation.state", states))
    rewrite(data_file(v21, 1), lambda t: with_column("action", t.column("action").cast(pa.list_(pa.float32())))(t))
    rewrite(data_file(v21, 1), lambda t: with_column("control_mode", t.column("control_mode").cast("large_string"))(t))
    rewrite(
        data_file(v21, 1), lambda t: with_column("done", pa.array([[False]] * 8 + [[True]], pa.list_(pa.bool_())))(t)
    )
    reader = LeRobotReader.open(str(v21))
    assert reader.features[TOP]["info"]["video.height"] == 32
    assert "video_info" not in reader.features[TOP]
    assert reader.features[WRIST]["info"]["is_depth_map"] is False
    assert reader.features["observation.state"]["shape"] == (3,)
    table = reader.table(0, ["observation.state"])
    assert table.column("observation.state").type == pa.list_(pa.float32(), 3)
    assert table.column("observation.state")[4].as_py() == pytest.approx([0, 4, 0.4])
    other = reader.table(1)
    assert other.column("action").type == pa.list_(pa.float32(), 2)
    assert other.column("control_mode").type == pa.string()
    assert other.column("done").to_pylist() == [False] * 8 + [True]


def test_channels_first_shapes_are_told_by_their_names(v21: Path) -> None:
    def swap(info: dict[str, Any]) -> None:
        info["features"][TOP] |= {"shape": [3, 32, 64], "names": ["channels", "height", "width"]}

    edit_json(v21 / "meta/info.json", swap)
    reader = LeRobotReader.open(str(v21))
    assert reader.image_size(TOP) == (32, 64)
    reader.check_video(0, TOP)


def test_matrices_stay_nested(v21: Path) -> None:
    def declare(info: dict[str, Any]) -> None:
        info["features"]["action"]["shape"] = [2, 2]

    edit_json(v21 / "meta/info.json", declare)
    nested = pa.array([[[1.0, 2.0], [3.0, 4.0]]] * 12, pa.list_(pa.list_(pa.float32())))
    rewrite(data_file(v21), with_column("action", nested))
    assert LeRobotReader.open(str(v21)).table(0).column("action")[3].as_py() == [[1.0, 2.0], [3.0, 4.0]]


def test_the_newer_name_of_the_task_column(v30: Path) -> None:
    rewrite(v30 / "meta/tasks.parquet", lambda table: table.rename_columns(["task_index", "task"]))
    assert LeRobotReader.open(str(v30)).tasks == TASKS


def test_rows_are_found_where_they_are_not_where_the_meta_folder_says(v30: Path) -> None:
    """LeRobot 0.4.0's converter recorded the previous data file for each file's first episode."""
    before = LeRobotReader.open(str(v30))
    places = [meta.data_path for meta in before.episodes]
    moved = [i for i in range(1, 4) if places[i] != places[i - 1]]
    assert moved

    def mistake(table: pa.Table) -> pa.Table:
        stated = table.column("data/file_index").to_pylist()
        wrong = [stated[i - 1] if i in moved else stated[i] for i in range(len(stated))]
        return with_column("data/file_index", pa.array(wrong, pa.int64()))(table)

    rewrite(v30 / EPISODES, mistake)
    reader = LeRobotReader.open(str(v30))
    assert reader.episodes[moved[0]].data_path != places[moved[0]]
    for episode in (3, 2, 1, 0, 1):
        assert reader.table(episode).equals(before.table(episode))


def test_raw_rows_come_as_they_stand(v21: Path) -> None:
    rewrite(data_file(v21), lambda table: table.append_column("adv_ind", pa.array(["positive"] * 12)))
    reader = LeRobotReader.open(str(v21))
    assert reader.raw_table(0).column("adv_ind")[0].as_py() == "positive"
    assert "adv_ind" not in reader.raw_table(1).column_names


# --- what is wrong is named ----------------------------------------------------------------------------------------


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


def test_statistics_are_read_in_both_versions(originals: dict[str, Path]) -> None:
    v21, v30 = (LeRobotReader.open(str(originals[version])).statistics() for version in VERSIONS)
    assert (
        set(v21)
        == set(v30)
        == {*CAMERAS, *columns(0, 1), "timestamp", "frame_index", "episode_index", "index", "task_index"}
        - {"control_mode"}
    )
    for name, found in v30.items():
        for key in ("min", "max", "mean", "std", "count"):
            np.testing.assert_allclose(v21[name][key], found[key], atol=1e-9)
