"""online_rl's replay buffer as a LeRobot recording, imported like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from replay_buffer import BufferWriter, make_episode, torchrl_sample, write_buffer

from robolift.data.dataset import Dataset
from robolift.data.lerobot import LeRobotReader
from robolift.errors import DataError, UsageError
from robolift.stages.stage import execute

TASK = "fold the towel"
SIZE = (32, 48)


def run(path: Path, root: str, **config):
    return execute(
        "import_replay_buffer", {"buffer_uri": str(path), "task": TASK, "cameras": ["head"], **config}, {}, root
    )


def coloured(number: int, length: int, mode: int, *, colour: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """A segment with images of one colour each, a little brighter from row to row."""
    episode = make_episode(number, length, mode, size=SIZE)
    images = np.array(colour, np.uint8)[None, :, None, None] + np.arange(length, dtype=np.uint8)[:, None, None, None]
    episode["head"] = np.broadcast_to(images, (length, 3, *SIZE)).copy()
    episode["reward"] = np.linspace(0, 1, length, dtype=np.float32)
    return episode


@pytest.fixture(scope="module")
def buffer(tmp_path_factory) -> Path:
    """Two episodes: the policy, a person, the policy again; and the policy alone."""
    return write_buffer(
        tmp_path_factory.mktemp("buffer") / "b",
        40,
        [
            coloured(10000, 6, 0, colour=(200, 20, 20)),
            coloured(10001, 3, 1, colour=(20, 200, 20)),
            coloured(10002, 4, 0, colour=(20, 20, 200)),
            coloured(20000, 5, 0, colour=(90, 90, 20)),
        ],
    )


def test_every_row_arrives_in_its_column(buffer, output_root):
    recording = run(buffer, output_root)
    assert recording.counts == {
        "episodes": 2,
        "frames": 18,
        "segments": 4,
        "left_out_unended_segments": 0,
        "left_out_overwritten_rows": 0,
        "left_out_unfinished_rows": 0,
    }
    reader = LeRobotReader.open(recording.uri)
    assert (reader.version, reader.fps, reader.tasks) == ("v3.0", 20, (TASK,))
    assert [meta.length for meta in reader.episodes] == [13, 5]
    table = reader.table(0)
    assert table.column("control_mode").to_pylist() == ["autonomous"] * 6 + ["correcting"] * 3 + ["autonomous"] * 4
    ramp = [*range(6), *range(3), *range(4)]
    states = [10000 + 2 * n for n in range(6)] + [10001 + 2 * n for n in range(3)] + [10002 + 2 * n for n in range(4)]
    assert [state[0] for state in table.column("observation.state").to_pylist()] == states
    assert [action[1] for action in table.column("action").to_pylist()] == [n + 0.5 for n in ramp]
    assert table.column("labeller_reward").to_pylist()[6:9] == [0.0, 0.5, 1.0]
    assert reader.episodes[1].extra == {"kind": "rollout", "buffer_episode": 20000}


def test_the_images_are_the_rows(buffer, output_root):
    reader = LeRobotReader.open(run(buffer, output_root).uri)
    frames = np.stack(list(reader.video(0, "observation.images.head"))).astype(int)
    assert frames.shape == (13, *SIZE, 3)
    # One colour a segment, red, green, blue in this order, one brighter with every row.
    expected = [(200 + n, 20 + n, 20 + n) for n in range(6)]
    expected += [(20 + n, 200 + n, 20 + n) for n in range(3)]
    expected += [(20 + n, 20 + n, 200 + n) for n in range(4)]
    assert np.abs(frames.mean(axis=(1, 2)) - np.array(expected)).max() < 6


def test_the_recording_is_imported_like_any_other(buffer, output_root):
    recording = run(buffer, output_root)
    # How an episode ended is not in the buffer: it has to be said, or allowed not to be known.
    with pytest.raises(DataError, match="outcome"):
        execute("import_dataset", {}, {"recording": recording.uri}, output_root)
    made = execute("import_dataset", {"allow_unknown_outcome": True}, {"recording": recording.uri}, output_root)
    dataset = Dataset.open(made)
    assert dataset.tasks == (TASK,)
    assert dataset.episodes.column("kind").to_pylist() == ["rollout", "rollout"]
    assert dataset.frames.column("control_mode").to_pylist()[5:7] == ["autonomous", "correcting"]


def test_segments_can_stay_episodes(buffer, output_root):
    reader = LeRobotReader.open(run(buffer, output_root, join_segments=False, cameras=[]).uri)
    assert [meta.length for meta in reader.episodes] == [6, 3, 4, 5]
    assert [meta.extra["buffer_episode"] for meta in reader.episodes] == [10000, 10001, 10002, 20000]


def test_keys_and_columns_can_be_chosen(buffer, output_root):
    columns = {"action": "action", "task_index": "robot_task", "reward": "progress"}
    reader = LeRobotReader.open(run(buffer, output_root, cameras=[], columns=columns, fps=10, robot_type="igris").uri)
    assert set(reader.features) >= {"action", "robot_task", "progress", "control_mode"}
    assert "observation.state" not in reader.features
    assert (reader.fps, reader.robot_type, reader.cameras) == (10, "igris", ())
    assert reader.table(1).column("robot_task").to_pylist() == [2.0] * 5


def test_what_is_not_whole_is_refused_or_left_out_and_counted(tmp_path, output_root):
    path = torchrl_sample(tmp_path / "wrapped", "wrapped")
    message = (
        r"0 segments without an end, 15 rows of a segment .*, 0 unfinished(.*\n)*.*row 5 \(episode 10000, 15 rows\)"
    )
    with pytest.raises(DataError, match=message):
        run(path, output_root, cameras=[])
    recording = run(path, output_root, cameras=[], incomplete="leave_out")
    reader = LeRobotReader.open(recording.uri)
    assert [meta.extra["buffer_episode"] for meta in reader.episodes] == [10001, 20000, 30000]
    assert recording.counts["left_out_overwritten_rows"] == 15
    # Seven rows at the end of the storage, five at its beginning.
    states = [state[0] for state in reader.table(2).column("observation.state").to_pylist()]
    assert states == [30000 + 2 * n for n in range(12)]

    torn = run(torchrl_sample(tmp_path / "torn", "torn"), output_root, cameras=[], incomplete="leave_out")
    assert (torn.counts["episodes"], torn.counts["left_out_unfinished_rows"]) == (2, 15)


def test_a_row_of_the_operators_choice(tmp_path, output_root):
    path = torchrl_sample(tmp_path / "wrapped", "wrapped")
    recording = run(path, output_root, cameras=[], incomplete="leave_out", write_cursor=20)
    assert recording.counts["left_out_overwritten_rows"] == 15
    with pytest.raises(UsageError, match="write_cursor is 60, and the buffer has 60 rows"):
        run(path, output_root, cameras=[], write_cursor=60)


def test_a_buffer_without_a_whole_segment(tmp_path, output_root):
    writer = BufferWriter(tmp_path / "b", 8)
    writer.extend(make_episode(10000, 4, 0), fails_at="index")
    writer.extend({"index": np.zeros(0, np.int64)})
    writer.arrays["index"] = np.zeros(8, np.int64)
    with pytest.raises(DataError, match=r"no whole segment is in the buffer\n.*0 of 8 rows finished"):
        run(writer.close(), output_root, cameras=[], incomplete="leave_out")


def test_a_control_mode_that_is_unknown(tmp_path, output_root):
    path = write_buffer(tmp_path / "b", 8, [make_episode(10000, 4, 0), make_episode(10001, 2, 2)])
    with pytest.raises(
        DataError, match=r"control_mode 2 in 2 rows\n.*first: row 4\n.*0 \(autonomous\), 1 \(correcting\)"
    ):
        run(path, output_root, cameras=[])


def test_images_are_no_column_and_states_no_camera(buffer, output_root):
    with pytest.raises(DataError, match=r"head is \(3, 32, 48\) in each row(.*\n)*.*name it in cameras"):
        run(buffer, output_root, cameras=[], columns={"head": "head"})
    with pytest.raises(DataError, match=r"images of shape \(2,\)\n  where: key proprio"):
        run(buffer, output_root, cameras=["proprio"], columns={"action": "action"})
    with pytest.raises(DataError, match=r"images of shape \(3, 32, 48\) have no 3 channels in layout hwc"):
        run(buffer, output_root, layout="hwc")
    with pytest.raises(UsageError, match="no key left in"):
        run(buffer, output_root, cameras=["head", "left"])


def test_real_numbers_are_read_alike_in_all_of_an_episode(tmp_path, output_root):
    """Its first frame is black in bytes: alone it would be multiplied by 255."""
    episode = coloured(10000, 4, 0, colour=(0, 0, 0))
    episode["head"] = np.full((4, 3, *SIZE), 200, np.float32)
    episode["head"][0] = 1
    path = write_buffer(tmp_path / "b", 9, [episode])
    frames = list(LeRobotReader.open(run(path, output_root).uri).video(0, "observation.images.head"))
    assert frames[0].max() < 10
    assert frames[1].min() > 190
    dark = {**episode, "head": episode["head"][:1].repeat(4, axis=0)}
    path = write_buffer(tmp_path / "dark", 9, [dark])
    with pytest.raises(DataError, match=r"can't be known whether(.*\n)*.*episode 0, camera head"):
        run(path, output_root)
    assert run(path, output_root, value_range="byte").counts["frames"] == 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"columns": {}}, "columns is empty"),
        ({"columns": {"action": "action", "proprio": "action"}}, "action would be made twice"),
        ({"columns": {"action": "control_mode"}}, "control_mode would be made twice"),
        ({"columns": {"episode": "number"}}, "episode is read anyway"),
        ({"task": ""}, r"import_replay_buffer\.task"),
        ({"fps": 0}, r"import_replay_buffer\.fps"),
    ],
)
def test_a_configuration_that_makes_no_sense(config, message, buffer, output_root):
    with pytest.raises(UsageError, match=message):
        run(buffer, output_root, **config)


def test_the_same_rows_are_the_same_output_wherever_they_lie(buffer, tmp_path, output_root):
    first = run(buffer, output_root, cameras=[])
    segments = [coloured(10000, 6, 0, colour=(1, 1, 1))]
    changed = write_buffer(tmp_path / "b", 40, segments)
    once = run(changed, output_root, cameras=[])
    segments[0]["reward"][2] += 1
    again = run(write_buffer(tmp_path / "b", 40, segments), output_root, cameras=[])
    assert len({first.digest, once.digest, again.digest}) == 3
