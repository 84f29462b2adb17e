from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import synthetic
from synthetic import change_episodes, change_info, change_rows, set_column

from robolift.__main__ import main
from robolift.data.lerobot import LeRobotReader
from robolift.data.problems import MAX_PLACES, MAX_PROBLEMS, Problems
from robolift.data.validate import check_videos
from robolift.errors import EXIT_DATA, DataError

TOP = synthetic.TOPVIEW
VIDEO = f"videos/chunk-000/{TOP}/episode_000002.mp4"


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("intact") / "v21"
    synthetic.write_recording(path, episodes=4, version="v2.1", cameras=[TOP])
    return path


@pytest.fixture
def recording(intact, tmp_path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "recording"))


def import_it(path: Path, *settings: str) -> int:
    root = path.parent / "runs"
    overrides = [f"dataset_uri={path}", f"output_root={root}", *settings]
    code = main(["import_dataset", *(part for item in overrides for part in ("--set", item))])
    if code:
        # Refused before anything is written.
        assert not list(root.rglob("*.parquet"))
    return code


def rows(episode: int, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda path: change_rows(path, episode, change)


def info(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda path: change_info(path, change)


def column(name: str, values: object, episode: int = 1) -> Callable[[Path], None]:
    return rows(episode, set_column(name, values))


def replaced(index: int, value: object) -> Callable[[list], list]:
    return lambda old: [*old[:index], value, *old[index + 1 :]]


def as_type(kind: pa.DataType) -> Callable[[list], pa.Array]:
    return lambda old: pa.array(old, kind)


def drop_frames(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 3), table.slice(5)])


def lose_frame(table: pa.Table) -> pa.Table:
    """One frame lost, the last doubled: as many rows, a gap in their numbers."""
    return pa.concat_tables([table.slice(0, 3), table.slice(4), table.slice(table.num_rows - 1)])


def short_video(path: Path) -> None:
    longer, shorter = path / VIDEO, path / VIDEO.replace("000002", "000001")
    shutil.copy(shorter, longer)


def shape_of(name: str, shape: list[int]) -> Callable[[Path], None]:
    return info(lambda document: document["features"][name].update(shape=shape))


FAULTS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "nan in the state": (
        column(
            "observation.state", lambda old: pa.array(replaced(2, [float("nan")] * 8)(old), pa.list_(pa.float32(), 8))
        ),
        ("column observation.state holds NaN or infinity", "episode 1: 1 of 16 rows, first in frame 2"),
    ),
    "infinite action": (
        column("action", lambda old: pa.array(replaced(0, [float("inf")] * 4)(old), pa.list_(pa.float32(), 4))),
        ("column action holds NaN or infinity", "first in frame 0", "allow_nan: [action]"),
    ),
    "nan in a column that is ranked": (
        column("progress_gt", lambda old: pa.array(replaced(15, float("nan"))(old), pa.float32())),
        ("column progress_gt holds NaN or infinity", "first in frame 15"),
    ),
    "null": (
        column("progress_gt", lambda old: pa.array(replaced(1, None)(old), pa.float32())),
        ("column progress_gt has nulls", "episode 1"),
    ),
    "gap in frame_index": (
        rows(1, lose_frame),
        ("frame_index has a gap or is out of order", "episode 1: row 3 has 4, expected 3", "restore the missing rows"),
    ),
    "missing rows": (
        rows(1, drop_frames),
        ("another number of rows than its meta row says", "episode 1: 14 rows, length 16"),
    ),
    "gap in index": (
        column("index", lambda old: [value + 1 for value in old], episode=3),
        ("index has a gap or is out of order", "episode 3: row 0 has 47, expected 46"),
    ),
    "undeclared column": (
        column("adv_ind", ["none"] * 16),
        (
            "column adv_ind is in the data but not declared in meta/info.json",
            "episode_000001.parquet",
            "declare adv_ind",
        ),
    ),
    "absent column": (
        rows(1, lambda table: table.drop_columns("progress_gt")),
        ("column progress_gt is declared in meta/info.json but absent from the data", "write progress_gt or drop"),
    ),
    "another dtype": (
        column("task_index", as_type(pa.int32())),
        ("column task_index is int32, meta/info.json declares int64", "expected: int64, 1 in each row"),
    ),
    "float64 where float32 is declared": (
        column("progress_gt", as_type(pa.float64())),
        ("column progress_gt is double, meta/info.json declares float32",),
    ),
    "another width": (
        shape_of("action", [5]),
        ("column action has rows of another width than declared", "5 numbers in each row", "episode 0: 4"),
    ),
    "ragged lists": (
        column("action", lambda old: pa.array(replaced(1, [0.0])(old), pa.list_(pa.float32()))),
        ("column action has rows of another width", "episode 1: different widths"),
    ),
    "timestamps": (
        column("timestamp", lambda old: pa.array([2 * value for value in old], pa.float32())),
        ("timestamp is not frame_index / fps", "episode 1: frame 15 is at 1.5000 s", "a frame every 1/20 s from 0 on"),
    ),
    "task that is not there": (
        column("task_index", lambda old: replaced(4, 7)(old)),
        ("task_index 7 has no task", "expected: 0 to 0"),
    ),
    "rows of another episode": (
        column("episode_index", lambda old: [9] * len(old)),
        ("rows that belong to no episode of the meta folder", "episode_index 9", "an episode has no rows"),
    ),
    "rows twice": (
        lambda path: shutil.copy(
            path / "data/chunk-000/episode_000000.parquet", path / "data/chunk-000/episode_000001.parquet"
        ),
        ("rows that belong to no episode of the meta folder, or do not stand together", "episode_index 0"),
    ),
    "episode_index of another type": (
        column("episode_index", as_type(pa.int32())),
        ("column episode_index is int32",),
    ),
    "no episode_index": (
        rows(1, lambda table: table.drop_columns("episode_index")),
        ("column episode_index is missing", "episode_000001.parquet"),
    ),
    "declared dtype of a standard column": (
        info(lambda document: document["features"]["timestamp"].update(dtype="float64")),
        ("feature timestamp is declared as float64", "expected: float32"),
    ),
    "no action": (
        info(lambda document: document["features"].pop("action")),
        ("there is no feature action", "meta/info.json"),
    ),
    "images in the table": (
        info(lambda document: document["features"].update(cam={"dtype": "image", "shape": [8, 8, 3], "names": None})),
        ("feature cam has dtype image", "store images as video"),
    ),
    "wrong totals": (
        info(lambda document: document.update(total_frames=99)),
        ("total_frames is 99 in info.json, the meta tables have 61",),
    ),
    "damaged table": (
        lambda path: (path / "data/chunk-000/episode_000002.parquet").write_bytes(b"PAR1 and then nothing"),
        ("not a readable Parquet file", "episode_000002.parquet"),
    ),
    "missing table": (
        lambda path: (path / "data/chunk-000/episode_000002.parquet").unlink(),
        ("1 files are missing, the first is data/chunk-000/episode_000002.parquet",),
    ),
    "missing video": (
        lambda path: (path / VIDEO).unlink(),
        (f"1 files are missing, the first is {VIDEO}",),
    ),
    "video shorter than the table": (
        short_video,
        ("the video has 16 frames", "episode_000002.mp4, episode 2", "at least 24: the episode has 24 rows"),
    ),
    "damaged video": (
        lambda path: (path / VIDEO).write_bytes(b"not a video at all"),
        ("unreadable video", "episode_000002.mp4"),
    ),
    "no task": (
        lambda path: (path / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": " "}\n'),
        ("a task has no text", "set task"),
    ),
    "another task in the meta row": (
        lambda path: change_episodes(path, lambda row: row.update(tasks=["dance"])),
        ("an episode's frames have another task than its meta row", "'dance'"),
    ),
    "not a dataset": (
        lambda path: shutil.rmtree(path / "meta"),
        ("no LeRobot dataset", "meta/info.json of a v2.1 or v3.0 dataset"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_before_anything_is_written(fault, recording, capsys):
    change, expected = FAULTS[fault]
    change(recording)

    assert import_it(recording) == EXIT_DATA
    message = capsys.readouterr().err
    for part in expected:
        assert part in message


def test_the_intact_recording_passes(recording):
    assert import_it(recording, "check_videos=full") == 0


def test_all_faults_are_reported_at_once(recording, capsys):
    for episode in range(4):
        change_rows(
            recording, episode, set_column("progress_gt", lambda old: pa.array([float("nan")] * len(old), pa.float32()))
        )
    change_rows(recording, 0, lambda table: table.drop_columns("is_good_gt"))
    change_rows(recording, 3, set_column("task_index", lambda old: [5] * len(old)))
    short_video(recording)

    assert import_it(recording) == EXIT_DATA
    message = capsys.readouterr().err
    assert f"4 problems in file://{recording}" in message
    assert "1. column is_good_gt is declared in meta/info.json but absent" in message
    assert "2. column progress_gt holds NaN or infinity" in message
    assert "first in frame 0; episode 2: 24 of 24 rows, first in frame 0; and 1 more" in message
    assert "3. task_index 5 has no task" in message
    assert "4. the video has 16 frames" in message


def test_nan_is_allowed_where_nothing_is_learned_from_it(recording):
    change_rows(recording, 0, set_column("progress_gt", lambda old: pa.array([float("nan")] * len(old), pa.float32())))

    assert import_it(recording) == EXIT_DATA
    assert import_it(recording, "allow_nan=[progress_gt]") == 0


def test_lists_of_any_kind_are_accepted_for_vectors(recording):
    """pandas, kai0's labelling and its converter rewrite fixed lists as others; the numbers are the same."""
    change_rows(recording, 0, set_column("action", as_type(pa.list_(pa.float32()))))
    change_rows(recording, 1, set_column("action", as_type(pa.large_list(pa.float32()))))
    change_rows(
        recording,
        2,
        set_column("action", lambda old: pa.array([[row] for row in old], pa.list_(pa.list_(pa.float32())))),
    )
    change_rows(recording, 3, set_column("control_mode", as_type(pa.large_string())))
    assert import_it(recording) == 0


def test_full_decoding_finds_what_the_header_hides(recording, capsys):
    """A truncated copy keeps the header, which lies at the end of our files, only if the middle is damaged."""
    video = recording / VIDEO
    content = bytearray(video.read_bytes())
    start = content.index(b"mdat") + 4
    content[start + 40 : start + 2000] = bytes(len(content[start + 40 : start + 2000]))
    video.write_bytes(content)

    assert import_it(recording, "check_videos=full") == EXIT_DATA
    assert "episode_000002.mp4" in capsys.readouterr().err


def test_videos_can_be_left_unchecked(recording):
    short_video(recording)
    assert import_it(recording, "check_videos=none") == 0


def test_a_video_of_another_rate_is_refused(recording, tmp_path):
    slow = tmp_path / "slow"
    synthetic.write_recording(slow, episodes=4, version="v2.1", cameras=[TOP], fps=10)
    shutil.copy(slow / VIDEO, recording / VIDEO)
    problems = Problems("here")
    check_videos(LeRobotReader.open(str(recording)), "counts", problems)
    with pytest.raises(DataError, match="frames/s"):
        problems.check()


def test_packed_files_are_checked_as_well(tmp_path, capsys):
    path = tmp_path / "recording"
    synthetic.write_recording(path, episodes=3, version="v3.0", cameras=[TOP])
    (path / "meta/info.json").write_text(json.dumps({**json.loads((path / "meta/info.json").read_text()), "fps": 30}))
    assert import_it(path) == EXIT_DATA
    message = capsys.readouterr().err
    assert "timestamp is not frame_index / fps" in message
    assert "the video has 20.000 frames/s" in message


def test_one_problem_reads_like_any_error():
    problems = Problems("gs://bucket/set")
    problems.add("column x has nulls", where="episode 3", expected="a value", mend="fill it")
    with pytest.raises(DataError) as caught:
        problems.check()
    assert str(caught.value) == (
        "column x has nulls\n  where: gs://bucket/set, episode 3\n  expected: a value\n  mend: fill it"
    )


def test_problems_are_grouped_and_limited():
    problems = Problems("set")
    for number in range(MAX_PROBLEMS + 5):
        for place in range(MAX_PLACES + 2):
            problems.add(f"fault {number}", where=f"episode {place}")
    with pytest.raises(DataError) as caught:
        problems.check()
    lines = str(caught.value).splitlines()
    assert lines[0] == "25 problems in set"
    assert lines[2] == "     where: episode 0; episode 1; episode 2; and 2 more"
    assert lines[-1] == "  and 5 more"
    assert len(lines) == 2 + 2 * MAX_PROBLEMS


def test_no_problem_passes():
    Problems("set").check()
