"""Clips: exactly as long as they are said to be, by time whatever the video's rate, and the same bytes each time."""

from __future__ import annotations

import av
import coded_video
import numpy as np
import odd_videos
import pytest

from robolift import schema, storage
from robolift.clips.extraction import ClipRules, PlannedClip, plan_clips, write_clips
from robolift.data.footage import inspect
from robolift.errors import DataError, UsageError
from robolift.stages import stage

RULES = ClipRules(
    seconds=3.0, fps=15.0, side=128, fit="letterbox", num_annotated=2, num_random=3, min_gap_s=2.0, crf=18, seed=42
)


def segment(name: str, start_s: float, stop_s: float) -> dict:
    return {"segment_id": name, "video_id": "v", "start_s": start_s, "stop_s": stop_s}


def clip_at(start_s: float, fps: float) -> PlannedClip:
    first = round(start_s * fps)
    return PlannedClip(start_frame=first, stop_frame=first + round(3 * fps), start_s=first / fps, segment=None)


def cut(path, starts, tmp_path, rules=RULES):
    footage = inspect(str(path))
    files = [tmp_path / f"clip_{number}.mp4" for number in range(len(starts))]
    clips = [clip_at(start_s, footage.fps) for start_s in starts]
    write_clips(str(path), footage, list(zip(clips, files, strict=True)), rules)
    return files


def shown_numbers(path) -> list[int]:
    """What a letterboxed clip's pictures say: the code is in the middle rows."""
    with av.open(str(path)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [coded_video.read_code(image[32:96])[1] for image in images]


@pytest.mark.parametrize("fps", [50.0, 60.0, 25.0, 15.0, 29.97, 10.0])
def test_picture_k_is_the_one_nearest_to_its_time_at_any_rate(tmp_path, fps):
    path = odd_videos.write_steady(tmp_path / "v.mkv", fps=fps, seconds=5)
    [file] = cut(path, [1.0], tmp_path)
    times = np.round(np.arange(round(5 * fps)) * 1000 / fps) / 1000
    start_s = round(1.0 * inspect(str(path)).fps) / inspect(str(path)).fps
    wanted = start_s + np.arange(45) / 15
    assert shown_numbers(file) == [int(np.abs(times - time).argmin()) for time in wanted]


def test_a_clip_of_a_video_at_50_pictures_a_second_shows_three_seconds_and_not_2_7(tmp_path):
    # Taking every third picture (int(50 / 15)) covers 45 x 3 / 50 = 2.7 s; or 3.33 s where 50 of them are written.
    [file] = cut(odd_videos.write_steady(tmp_path / "v.mkv", fps=50, seconds=5), [0.0], tmp_path)
    numbers = shown_numbers(file)
    # Picture k lies at k / 15 s = 50 k / 15 pictures: 0, 3.33, 6.67, 10, ... 146.67.
    assert numbers[:5] == [0, 3, 7, 10, 13]
    assert numbers[-1] == 147


def test_the_container_holds_45_pictures_at_k_fifteenths_and_lasts_3_seconds(tmp_path):
    [file] = cut(odd_videos.write_steady(tmp_path / "v.mkv", fps=50, seconds=5), [1.3], tmp_path)
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate, stream.codec_context.pix_fmt) == (45, 15, "yuv420p")
        assert float(stream.duration * stream.time_base) == 3.0
        assert container.duration == 3_000_000
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert [float(packet.pts * stream.time_base) for packet in packets] == pytest.approx(
            [k / 15 for k in range(45)]
        )
        assert [k for k, packet in enumerate(packets) if packet.is_keyframe] == [0, 15, 30]
    content = file.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_a_varying_rate_is_followed_by_time(tmp_path):
    times = [*range(0, 2000, 20), *range(2000, 6000, 200)]
    [file] = cut(odd_videos.write_timed(tmp_path / "v.mkv", times), [0.0], tmp_path)
    expected = [int(np.abs(np.array(times) - k * 1000 / 15).argmin()) for k in range(45)]
    assert shown_numbers(file) == expected
    assert expected[30] == 100
    assert expected[-1] == 105


def test_overlapping_clips_and_far_jumps_come_from_one_pass_and_equal_lone_clips(tmp_path):
    path = odd_videos.write_steady(tmp_path / "v.mkv", fps=25, seconds=20)
    starts = [0.0, 2.0, 3.0, 14.0, 17.0]
    together = cut(path, starts, tmp_path)
    for number, start_s in enumerate(starts):
        (tmp_path / str(number)).mkdir()
        [alone] = cut(path, [start_s], tmp_path / str(number))
        assert alone.read_bytes() == together[number].read_bytes()


def test_the_end_of_a_video_belongs_to_its_last_picture(tmp_path):
    path = odd_videos.write_steady(tmp_path / "v.mkv", fps=10, seconds=3)
    numbers = shown_numbers(cut(path, [0.0], tmp_path)[0])
    assert (len(numbers), numbers[-1]) == (45, 29)


def test_a_video_that_got_shorter_is_an_error(tmp_path):
    path = odd_videos.write_steady(tmp_path / "v.mkv", fps=10, seconds=5)
    footage = inspect(str(path))
    odd_videos.write_steady(path, fps=10, seconds=2)
    with pytest.raises(DataError, match=r"ends before 5\.000 s"):
        write_clips(str(path), footage, [(clip_at(2.0, 10), tmp_path / "c.mp4")], RULES)


def test_clips_are_centred_on_segments_and_stay_inside():
    segments = [segment("a", 10.0, 12.0), segment("b", 0.0, 1.0), segment("c", 29.0, 30.0)]
    rules = ClipRules(**{**vars(RULES), "num_annotated": 3, "num_random": 0})
    clips = plan_clips("v", duration_s=30.0, fps=50.0, segments=segments, rules=rules)
    found = {clip.segment["segment_id"]: clip for clip in clips}
    # Centre 11 s minus half of 3 s; the others are pushed inside.
    assert [found[name].start_s for name in "abc"] == [9.5, 0.0, 27.0]
    assert (found["a"].start_frame, found["a"].stop_frame) == (475, 625)


def test_starts_keep_their_distance_and_depend_on_seed_and_video():
    rules = ClipRules(**{**vars(RULES), "num_random": 20})
    segments = [segment("a", 10.0, 12.0), segment("b", 10.5, 11.5), segment("c", 20.0, 21.0)]
    clips = plan_clips("v", duration_s=31.0, fps=25.0, segments=segments, rules=rules)
    starts = [clip.start_s for clip in clips]
    # 28 s of starts at least 2 s apart: 14 or 15 fit, and at least 8 are found however they fall.
    assert 8 <= len(starts) <= 15
    assert min(np.diff(starts)) >= 2.0
    assert sum(clip.segment is not None for clip in clips) == 2  # a and b are too near to each other
    again = plan_clips("v", duration_s=31.0, fps=25.0, segments=segments[::-1], rules=rules)
    assert again == clips
    other = ClipRules(**{**vars(rules), "seed": 43})
    assert [c.start_s for c in plan_clips("v", duration_s=31.0, fps=25.0, segments=[], rules=other)] != starts
    assert [c.start_s for c in plan_clips("w", duration_s=31.0, fps=25.0, segments=segments, rules=rules)] != starts


def test_no_gap_still_takes_each_place_once():
    rules = ClipRules(**{**vars(RULES), "min_gap_s": 0.0, "num_random": 5})
    clips = plan_clips("v", duration_s=3.2, fps=10.0, segments=[], rules=rules)
    assert [clip.start_frame for clip in clips] == [0, 1, 2]


@pytest.mark.parametrize(("duration_s", "number"), [(2.99, 0), (3.0, 1), (4.9, 1), (5.0, 2)])
def test_a_video_shorter_than_a_clip_gives_none(duration_s, number):
    found = [len(plan_clips(f"v{k}", duration_s=duration_s, fps=50.0, segments=[], rules=RULES)) for k in range(200)]
    assert max(found) == number


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A VideoSet of two videos that give clips and one that is too short."""
    folder = tmp_path_factory.mktemp("videos")
    odd_videos.write_steady(folder / "anna" / "one.mp4", fps=50, seconds=8)
    odd_videos.write_steady(folder / "ben" / "two.mkv", fps=25, seconds=7)
    odd_videos.write_steady(folder / "ben" / "short.mp4", fps=25, seconds=1)
    (folder / "a.csv").write_text("video_id,start_s,stop_s,verb,noun\nanna_one,4,5,take,cup\n")
    config = {"videos_uri": str(folder), "annotations_uri": str(folder / "a.csv")}
    return stage.execute("ingest_videos", config, {}, str(tmp_path_factory.mktemp("ingested")))


def test_the_stage_writes_clips_and_their_table(videos, tmp_path):
    config = {"side": 64, "num_random": 2}
    made = stage.execute("extract_clips", config, {"videos": videos.uri}, str(tmp_path / "a"))
    table = schema.read_parquet(f"{made.uri}/clips.parquet").to_pylist()
    assert [row["clip_id"] for row in table] == sorted(row["clip_id"] for row in table)
    [annotated] = [row for row in table if row["kind"] == "annotated"]
    assert annotated["clip_id"] == "anna_one_00000150"  # 4.5 s - 1.5 s at 50 pictures a second
    assert (annotated["start_frame"], annotated["stop_frame"], annotated["start_s"]) == (150, 300, 3.0)
    assert (annotated["fps"], annotated["duration"], annotated["num_frames"]) == (15.0, 3.0, 45)
    assert (annotated["action"], annotated["participant_id"], annotated["source"]) == ("take cup", "anna", "folder")
    assert made.counts["clips"] == len(table)
    assert (made.counts["videos"], made.counts["short_videos"], made.counts["annotated"]) == (3, 1, 1)
    for row in table:
        assert len(odd_videos.picture_numbers(storage.local_path(f"{made.uri}/{row['file']}"))) == 45
    again = stage.execute("extract_clips", config, {"videos": videos.uri}, str(tmp_path / "b"))
    assert again.files == made.files


def test_no_clip_at_all_is_an_error(videos, tmp_path):
    with pytest.raises(DataError, match="no video gives a clip"):
        stage.execute("extract_clips", {"seconds": 30.0}, {"videos": videos.uri}, str(tmp_path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"seconds": 1.01}, "expected whole ones"),
        ({"num_annotated": 0, "num_random": 0}, "no clips"),
        ({"side": 65}, "multiple of 2"),
    ],
)
def test_wrong_configuration(config, message):
    with pytest.raises(UsageError, match=message):
        stage.parse_config("extract_clips", config)


@pytest.fixture
def two_videos(tmp_path):
    """A sound video, and one of another person with a damaged picture in its middle."""
    for name in ("anna", "ben"):
        odd_videos.write_steady(tmp_path / "in" / name / "v.mp4", fps=15, seconds=6)
    return tmp_path / "in"


def _damage(path) -> None:
    """Overwrite some pictures in the middle; the index of the file, its beginning and its end stay sound."""
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat")
    size = int.from_bytes(content[start - 4 : start], "big")
    middle, length = start + size // 2, size // 8
    content[middle : middle + length] = b"\xff" * length
    path.write_bytes(bytes(content))


def _ingest(folder, root):
    return stage.execute("ingest_videos", {"videos_uri": str(folder)}, {}, str(root))


def _extract(videos, root, **config):
    asked = {"side": 64, "num_annotated": 0, "num_random": 5, "min_gap_s": 0.5, **config}
    return stage.execute("extract_clips", asked, {"videos": videos.uri}, str(root))


def test_a_video_damaged_in_the_middle_is_refused_or_left_out_and_said(two_videos, tmp_path):
    _damage(two_videos / "ben" / "v.mp4")
    videos = _ingest(two_videos, tmp_path / "out")
    assert videos.counts["videos"] == 2  # its beginning and its end are sound
    with pytest.raises(DataError, match=r"(unreadable video|a picture is damaged)[\s\S]*ben/v\.mp4"):
        _extract(videos, tmp_path / "out")
    made = _extract(videos, tmp_path / "out", bad_videos="leave_out")
    assert {row["video_id"] for row in schema.read_parquet(f"{made.uri}/clips.parquet").to_pylist()} == {"anna_v"}
    assert (made.counts["bad_videos"], made.counts["videos"]) == (1, 2)
    [problem] = storage.read_json(f"{made.uri}/problems.json")
    assert problem["uri"].endswith("ben/v.mp4")
    assert all(name.startswith("anna_v") for name, _ in storage.list_files(f"{made.uri}/clips"))


def test_a_video_that_changed_after_it_was_ingested_is_refused(two_videos, tmp_path):
    videos = _ingest(two_videos, tmp_path / "out")
    path = two_videos / "anna" / "v.mp4"
    content = path.read_bytes()
    changed = content.replace(b"x264", b"x265", 1)  # a comment inside; the size is the same
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(DataError, match=r"the video was changed or lost after it was ingested[\s\S]*anna/v\.mp4"):
        _extract(videos, tmp_path / "out")
    assert _ingest(two_videos, tmp_path / "out").digest != videos.digest
    path.unlink()
    with pytest.raises(DataError, match="the video was changed or lost"):
        _extract(videos, tmp_path / "out")
    made = _extract(videos, tmp_path / "out", bad_videos="leave_out")
    assert made.counts["bad_videos"] == 1


def test_nothing_but_bad_videos_is_an_error(two_videos, tmp_path):
    videos = _ingest(two_videos, tmp_path / "out")
    for name in ("anna", "ben"):
        (two_videos / name / "v.mp4").unlink()
    with pytest.raises(DataError, match=r"no video gives a clip[\s\S]*v\.mp4: the video was changed or lost"):
        _extract(videos, tmp_path / "out", bad_videos="leave_out")
