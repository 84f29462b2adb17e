"""A replay buffer of torchrl on disk: its files, the rows that were finished, and the segments they make."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from replay_buffer import TORCHRL_SHA256, BufferWriter, make_episode, torchrl_sample, tree_sha256, write_buffer

from robolift import storage
from robolift.data.replay_buffer import ReplayBuffer
from robolift.data.replay_segments import Segment, find_segments, join_segments
from robolift.errors import DataError, UsageError


@pytest.mark.parametrize("name", TORCHRL_SHA256)
def test_the_fixture_is_what_torchrl_writes(name, tmp_path):
    assert tree_sha256(torchrl_sample(tmp_path / name, name)) == TORCHRL_SHA256[name]


def test_what_a_buffer_holds(tmp_path):
    buffer = ReplayBuffer.open(str(torchrl_sample(tmp_path / "b", "part")))
    assert buffer.capacity == 60
    assert {name: (leaf.dtype.str, leaf.shape) for name, leaf in buffer.leaves.items()} == {
        "head": ("|u1", (60, 3, 4, 5)),
        "proprio": ("<f4", (60, 2)),
        "action": ("<f4", (60, 2)),
        "control_mode": ("|i1", (60,)),
        "episode": ("<i8", (60,)),
        "reward": ("<f4", (60,)),
        "task_index": ("<f4", (60, 1)),
        "next/done": ("|b1", (60, 1)),
        "index": ("<i8", (60,)),
    }
    assert buffer.rows("proprio", 19, 22).tolist() == [[10038, 10039], [10001, 10002], [10003, 10004]]
    assert np.flatnonzero(buffer.scalars("next/done", 60)).tolist() == [19, 34]
    assert buffer.finished("episode").tolist() == [True] * 35


def test_an_object_store_is_read_by_ranges(tmp_path):
    path = torchrl_sample(tmp_path / "b", "part")
    for file in (file for file in path.rglob("*") if file.is_file()):
        storage.write_bytes(f"memory://buffers/b/{file.relative_to(path)}", file.read_bytes())
    buffer = ReplayBuffer.open("memory://buffers/b")
    assert buffer.rows("head", 1, 2).tolist() == ReplayBuffer.open(str(path)).rows("head", 1, 2).tolist()


def test_a_row_is_finished_when_its_index_is_written(tmp_path):
    torn = ReplayBuffer.open(str(torchrl_sample(tmp_path / "torn", "torn")))
    assert torn.finished("episode").tolist() == [True] * 20 + [False] * 15 + [True] * 5
    # The index of row 0 is 0 by itself, so it says nothing.
    empty = write_buffer(tmp_path / "empty", 4, [make_episode(10000, 2, 0)])
    (empty / "index.memmap").write_bytes(bytes(4 * 8))
    assert ReplayBuffer.open(str(empty)).finished("episode").tolist() == [False] * 2
    (empty / "episode.memmap").write_bytes(bytes(4 * 8))
    assert ReplayBuffer.open(str(empty)).finished("episode").tolist() == []


def change_meta(path: Path, **changes: object) -> None:
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps({**meta, **changes}))


def test_what_is_no_buffer_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no replay buffer lies there: file not found(.*\n)*.*scratch_dir"):
        ReplayBuffer.open(str(tmp_path))
    path = write_buffer(tmp_path / "b", 8, [make_episode(10000, 4, 0)])
    assert ReplayBuffer.open(str(path)).capacity == 8
    with pytest.raises(UsageError, match=r"no key wrist in .*; it has: action, control_mode"):
        ReplayBuffer.open(str(path)).rows("wrist", 0, 1)
    with pytest.raises(DataError, match=r"proprio is \(2,\) in each row"):
        ReplayBuffer.open(str(path)).scalars("proprio", 4)

    content = (path / "action.memmap").read_bytes()
    (path / "action.memmap").write_bytes(content[:-4])
    with pytest.raises(DataError, match=r"action has 60 bytes\n.*action\.memmap\n.*8 rows of 8 bytes"):
        ReplayBuffer.open(str(path))
    (path / "action.memmap").unlink()
    with pytest.raises(DataError, match="action has no file"):
        ReplayBuffer.open(str(path))
    (path / "action.memmap").write_bytes(content)

    facts = json.loads((path / "meta.json").read_text())["action"]
    for wrong, message in (
        ({"dtype": "torch.complex64"}, "key action is stored as .*complex64"),
        ({"is_nested": True}, "key action is stored as"),
        ({"shape": []}, "key action is stored as"),
        ({"shape": [4, 4]}, "action has 4 rows, index 8"),
    ):
        change_meta(path, action={**facts, **wrong})
        with pytest.raises(DataError, match=message):
            ReplayBuffer.open(str(path))
    change_meta(path, action=facts, index={**facts, "shape": [8]})
    with pytest.raises(DataError, match="the folder has no index of rows"):
        ReplayBuffer.open(str(path))


def segments(path: Path, **options):
    buffer = ReplayBuffer.open(str(path))
    finished = buffer.finished("episode")
    return find_segments(
        episode=buffer.scalars("episode", len(finished)),
        done=buffer.scalars("next/done", len(finished)),
        mode=buffer.scalars("control_mode", len(finished)),
        finished=finished,
        capacity=buffer.capacity,
        **options,
    )


def spans(found) -> dict[int, tuple[tuple[int, int], ...]]:
    return {segment.episode: segment.spans for segment in found.whole}


def lost(found) -> tuple[int, int, int]:
    return found.overwritten, found.unended, found.unfinished


def test_a_buffer_with_room_left(tmp_path):
    found = segments(torchrl_sample(tmp_path / "b", "part"))
    assert spans(found) == {10000: ((0, 20),), 10001: ((20, 35),)}
    assert (lost(found), found.left_out) == ((0, 0, 0), 0)


def test_of_a_full_buffer_the_oldest_segment_is_no_longer_whole(tmp_path):
    """The last of four went round and took the first five rows of the first, which no row tells."""
    found = segments(torchrl_sample(tmp_path / "b", "wrapped"))
    assert spans(found) == {10001: ((20, 35),), 20000: ((35, 53),), 30000: ((53, 60), (0, 5))}
    assert (lost(found), found.left_out) == ((15, 0, 0), 1)
    assert found.first_left_out == ("row 5 (episode 10000, 15 rows): the oldest, and its beginning may be overwritten")


def test_a_hole_is_no_segment(tmp_path):
    found = segments(torchrl_sample(tmp_path / "b", "torn"))
    assert spans(found) == {10000: ((0, 20),), 20000: ((35, 40),)}
    assert (lost(found), found.left_out) == ((0, 0, 15), 1)
    assert found.first_left_out == "row 20 (episode 10001, 15 rows): never finished"


def test_a_write_that_failed_and_was_tried_again(tmp_path):
    """Both have the same number, and the first one no end."""
    writer = BufferWriter(tmp_path / "b", 20)
    writer.extend(make_episode(10000, 3, 0))
    writer.extend(make_episode(20000, 4, 0), fails_at="next/done")
    writer.extend(make_episode(20000, 4, 0))
    found = segments(writer.close())
    assert (spans(found), lost(found)) == ({10000: ((0, 3),), 20000: ((7, 11),)}, (0, 0, 4))


def test_a_last_write_that_failed_is_counted(tmp_path):
    writer = BufferWriter(tmp_path / "b", 20)
    writer.extend(make_episode(10000, 3, 0))
    writer.extend(make_episode(20000, 4, 0), fails_at="next/done")
    found = segments(writer.close())
    assert (spans(found), lost(found)) == ({10000: ((0, 3),)}, (0, 0, 4))


def test_a_hole_at_the_end_of_the_storage_hides_no_round(tmp_path):
    """The write of 30000 failed over rows 7 and 8 and row 0; 40000 then took the rest of the oldest one's beginning."""
    writer = BufferWriter(tmp_path / "b", 9)
    writer.extend(make_episode(10000, 4, 0))
    writer.extend(make_episode(20000, 3, 0))
    writer.extend(make_episode(30000, 3, 0), fails_at="next/done")
    writer.extend(make_episode(40000, 2, 0))
    found = segments(writer.close())
    assert spans(found) == {20000: ((4, 7),), 40000: ((1, 3),)}
    assert found.overwritten == 1


def test_a_segment_without_an_end(tmp_path):
    stopped = make_episode(20000, 5, 0)
    stopped["next/done"][:] = False
    found = segments(write_buffer(tmp_path / "b", 30, [make_episode(10000, 3, 0), stopped, make_episode(30000, 4, 0)]))
    assert spans(found) == {10000: ((0, 3),), 30000: ((8, 12),)}
    assert (lost(found), found.first_left_out) == ((0, 1, 0), "row 3 (episode 20000, 5 rows): not ended")


def test_two_segments_of_one_number_are_two(tmp_path):
    """What is done has ended, whatever the next is called."""
    found = segments(write_buffer(tmp_path / "b", 30, [make_episode(10000, 3, 0), make_episode(10000, 4, 0)]))
    assert [segment.spans for segment in found.whole] == [((0, 3),), ((3, 7),)]


def test_a_buffer_that_is_just_full_has_an_oldest_segment_too(tmp_path):
    found = segments(write_buffer(tmp_path / "b", 7, [make_episode(10000, 3, 0), make_episode(20000, 4, 0)]))
    assert (spans(found), lost(found)) == ({20000: ((3, 7),)}, (3, 0, 0))


def test_numbers_that_do_not_grow_do_not_tell_the_oldest_row(tmp_path):
    """Several labellers hand segments over out of order, so numbers fall back where nothing was overwritten."""
    rows = [make_episode(number, 4, 0) for number in (10000, 30000, 20000, 40000, 50000)]
    path = write_buffer(tmp_path / "b", 18, rows)
    with pytest.raises(DataError, match=r"numbers fall back at 2 rows(.*\n)*.*set write_cursor"):
        segments(path)
    found = segments(path, write_cursor=2)
    assert spans(found) == {
        30000: ((4, 8),),
        20000: ((8, 12),),
        40000: ((12, 16),),
        50000: ((16, 18), (0, 2)),
    }
    assert lost(found) == (2, 0, 0)


def test_an_episode_as_long_as_the_buffer(tmp_path):
    with pytest.raises(DataError, match="numbers fall back at 0 rows"):
        segments(write_buffer(tmp_path / "b", 4, [make_episode(10000, 4, 0)]))


def test_an_empty_buffer_has_no_segment():
    nothing = np.empty(0, np.int64)
    found = find_segments(episode=nothing, done=nothing > 0, mode=nothing, finished=nothing > 0, capacity=4)
    assert (found.whole, found.left_out) == ((), 0)


def segment(number: int, rows: tuple[int, int], mode: int) -> Segment:
    return Segment(episode=number, spans=(rows,), first_mode=mode, last_mode=mode, last_episode=number)


def joined(*given: Segment) -> list[tuple[int, tuple[tuple[int, int], ...]]]:
    return [(found.episode, found.spans) for found in join_segments(given)]


def test_segments_of_an_episode_are_joined_in_the_order_of_their_numbers():
    first, second, third = segment(30000, (0, 4), 0), segment(30001, (9, 12), 1), segment(30002, (4, 9), 0)
    assert joined(second, third, first) == [(30000, ((0, 4), (9, 12), (4, 9)))]


@pytest.mark.parametrize(
    "others",
    [
        [segment(40000, (4, 8), 1)],  # another episode
        [segment(30002, (4, 8), 1)],  # one between them is missing
        [segment(30001, (4, 8), 0)],  # control does not change: these are not online_rl's numbers
    ],
)
def test_what_does_not_follow_is_not_joined(others):
    assert joined(segment(30000, (0, 4), 0), *others) == [(30000, ((0, 4),)), (others[0].episode, others[0].spans)]


def test_the_last_of_ten_thousand_is_followed_by_another_episode():
    assert len(joined(segment(39999, (0, 4), 0), segment(40000, (4, 8), 1))) == 2


def test_a_number_that_stands_twice_is_refused():
    with pytest.raises(DataError, match=r"two segments are numbered 30000\n  where: rows 0 and 4\n"):
        join_segments([segment(30000, (0, 4), 0), segment(30000, (4, 8), 1)])
