"""What the reader makes of datasets that LeRobot wrote, that our writer wrote, and of other spellings."""

from __future__ import annotations

import json
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import synthetic
from coded_dataset import (
    CAMERAS,
    EPISODES,
    LENGTHS,
    TASKS,
    TOP,
    VERSIONS,
    WRIST,
    columns,
    data_file,
    edit_json,
    rewrite,
    with_column,
    write_packed,
)
from coded_video import read_code

from robolift import storage
from robolift.data import lerobot
from robolift.data.lerobot import LeRobotReader
from robolift.data.video_decoder import OpenVideos
from robolift.errors import UsageError

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One dataset of each version. Read only."""
    return write_packed(tmp_path_factory.mktemp("originals"))


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
    monkeypatch.setattr("robolift.data.video_decoder.OPEN_VIDEOS", 2)
    reader = LeRobotReader.open(str(v21))
    for episode in (0, 1, 2, 3, 0):
        assert read_code(reader.frames_at(episode, TOP, [4])[0]) == (episode, 4)
        assert reader.frames_at(episode, TOP, [5], size=(16, 16)).shape == (1, 16, 16, 3)  # by the same decoder
    assert len(reader._videos._idle) == 2
    reader.close()
    assert read_code(reader.frames_at(1, TOP, [2])[0]) == (1, 2)
    reader.close()


def test_no_more_videos_stay_open_than_a_quarter_of_the_files_a_process_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for allowed, limit in ((20, 5), (1024, 128), (resource.RLIM_INFINITY, 128)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, allowed=allowed: (allowed, allowed))
        assert OpenVideos(fps=20)._limit == limit


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


def test_rows_in_another_file_are_looked_for_beside_the_stated_one(tmp_path, monkeypatch):
    synthetic.write_recording(tmp_path / "d", episodes=6, version="v2.1", cameras=[])
    four, five = (tmp_path / f"d/data/chunk-000/episode_00000{number}.parquet" for number in (4, 5))
    rows = four.read_bytes()
    four.write_bytes(five.read_bytes())
    five.write_bytes(rows)
    opened: list[str] = []
    data_file = lerobot.DataFile
    monkeypatch.setattr(lerobot, "DataFile", lambda uri, content: opened.append(uri[-9:-8]) or data_file(uri, content))
    table = LeRobotReader.open(str(tmp_path / "d")).table(4, ["episode_index"])
    assert set(table.column("episode_index").to_pylist()) == {4}
    assert opened == ["4", "3", "5"]
