"""Videos of any source become one table; what can't be used is said, and never silently left out."""

from __future__ import annotations

import json
import shutil

import odd_videos
import pytest

from robolift import schema, storage
from robolift.clips.annotations import read_segments, seconds
from robolift.clips.listing import find_videos
from robolift.errors import DataError, UsageError
from robolift.stages import stage

EPIC_HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)
EPIC_ROW = (
    "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:01.37,8,202,open door,open,3,door,3,['door'],[3]\n"
    'P01_01_1,P01,P01_01,00:00:02.629,00:00:01.80,00:00:02.60,222,269,"turn on, light",turn-on,6,light,114,'
    "\"['a', 'b']\",[114]\n"
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A short sound video."""
    return odd_videos.write_steady(tmp_path_factory.mktemp("sound") / "v.mp4", fps=25, seconds=3)


@pytest.fixture
def folder(tmp_path, clip):
    """Two sound videos, as a camera leaves them."""
    for name in ("anna/GX010012.MP4", "ben/GX010012.MP4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        shutil.copy(clip, tmp_path / "in" / name)
    return tmp_path / "in"


def ingest(root, **config):
    return stage.execute("ingest_videos", config, {}, str(root))


def rows(made, name):
    return schema.read_parquet(f"{made.uri}/{name}.parquet").to_pylist()


def problems(made):
    return json.loads(storage.read_bytes(f"{made.uri}/problems.json"))


def test_a_folder_of_videos(folder, tmp_path):
    (folder / "a.csv").write_text("video_id,start_s,stop_s,narration\nanna_GX010012,0.5,2,pour\n")
    made = ingest(tmp_path / "out", videos_uri=str(folder), annotations_uri=str(folder / "a.csv"))
    anna, ben = rows(made, "videos")
    assert (anna["video_id"], anna["participant_id"]) == ("anna_GX010012", "anna")
    assert (ben["video_id"], ben["participant_id"]) == ("ben_GX010012", "ben")
    assert (anna["fps"], anna["num_frames"], anna["duration_s"]) == (pytest.approx(25), 75, pytest.approx(3.0))
    assert (anna["source"], anna["license"], anna["bytes"]) == (
        "folder",
        "unstated",
        (folder / "anna/GX010012.MP4").stat().st_size,
    )
    assert anna["etag"].startswith("sha256:")
    [segment] = rows(made, "segments")
    assert (segment["video_id"], segment["start_s"], segment["narration"]) == ("anna_GX010012", 0.5, "pour")
    assert problems(made) == []
    assert made.counts["videos"] == 2


def test_epic_uses_time_stamps_and_the_participant_of_the_name(clip, tmp_path):
    video = tmp_path / "in" / "P01" / "videos" / "P01_01.MP4"
    video.parent.mkdir(parents=True)
    shutil.copy(clip, video)
    annotations = tmp_path / "EPIC_100_train.csv"
    annotations.write_text(EPIC_HEADER + EPIC_ROW + EPIC_ROW.replace("P01_01", "P02_07"))
    made = ingest(tmp_path / "out", source="epic", videos_uri=str(tmp_path / "in"), annotations_uri=str(annotations))
    [row] = rows(made, "videos")
    assert (row["video_id"], row["participant_id"], row["license"]) == ("P01_01", "P01", "CC-BY-NC-4.0")
    first, second = rows(made, "segments")
    assert (first["segment_id"], first["start_s"], first["stop_s"]) == ("P01_01_0", 0.14, 1.37)
    assert (first["verb"], first["noun"], first["action"]) == ("open", "door", "open door")
    assert second["narration"] == "turn on, light"
    assert made.counts["segments_without_video"] == 2


def test_ego4d_moments_become_segments_of_three_seconds(clip, tmp_path):
    uid = "001e3e4e-2743-47fc-8564-d5efd11f9e90"
    video = tmp_path / "in" / f"{uid}.mp4"
    video.parent.mkdir()
    shutil.copy(clip, video)
    notes = {
        uid: {
            "narration_pass_1": {"narrations": [{"timestamp_sec": 2.0, "narration_text": "#C C picks a bag"}]},
            "narration_pass_2": {"narrations": [{"timestamp_sec": 0.5, "narration_text": "#C C walks"}]},
            "status": "complete",
        }
    }
    (tmp_path / "narration.json").write_text(json.dumps(notes))
    made = ingest(
        tmp_path / "out",
        source="ego4d",
        videos_uri=str(tmp_path / "in"),
        annotations_uri=str(tmp_path / "narration.json"),
    )
    assert rows(made, "videos")[0]["license"] == "Ego4D License Agreement"
    spans = [(row["start_s"], row["stop_s"], row["narration"]) for row in rows(made, "segments")]
    assert spans == [(0.5, 3.5, "#C C picks a bag"), (0.0, 2.0, "#C C walks")]


def test_licences_filter_and_are_counted(folder, tmp_path):
    text = "video_id,start_s,stop_s,license\nanna_GX010012,0,1,CC-BY-4.0\nben_GX010012,0,1,\n"
    (folder / "a.csv").write_text(text)
    config = {"videos_uri": str(folder), "annotations_uri": str(folder / "a.csv"), "license": "private"}
    made = ingest(tmp_path / "out", licenses=["CC-BY-4.0"], **config)
    assert [row["license"] for row in rows(made, "videos")] == ["CC-BY-4.0"]
    assert made.counts["other_licenses"] == 1
    assert [row["video_id"] for row in rows(made, "segments")] == ["anna_GX010012"]
    with pytest.raises(DataError, match=r"may hold CC-BY-4.0, private") as error:
        ingest(tmp_path / "out", licenses=["MIT"], **config)
    assert "no video has one of the licences" in str(error.value)
    (folder / "a.csv").write_text(text + "anna_GX010012,1,2,MIT\n")
    with pytest.raises(DataError, match=r"several licences: CC-BY-4\.0, MIT"):
        ingest(tmp_path / "out", **config)


def test_bad_videos_are_refused_together_or_written_down(folder, tmp_path):
    odd_videos.write_audio(folder / "sound.mp4")
    (folder / "text.mp4").write_text("hello")
    with pytest.raises(DataError, match="2 problems") as error:
        ingest(tmp_path / "out", videos_uri=str(folder))
    assert "sound.mp4" in str(error.value)
    assert "text.mp4" in str(error.value)
    made = ingest(tmp_path / "out", videos_uri=str(folder), bad_videos="leave_out")
    assert [row["video_id"] for row in rows(made, "videos")] == ["anna_GX010012", "ben_GX010012"]
    found = problems(made)
    assert found[0]["problem"] == "the file has no video stream"
    assert all(set(entry) == {"uri", "problem", "expected", "mend"} for entry in found)
    assert made.counts["bad_videos"] == 2


def test_nothing_but_bad_videos_is_an_error_whatever_was_asked(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.mp4").write_text("hello")
    with pytest.raises(DataError, match="unreadable video"):
        ingest(tmp_path / "out", videos_uri=str(tmp_path / "in"), bad_videos="leave_out")


def test_a_segment_behind_its_video_is_refused_or_written_down(folder, tmp_path):
    (folder / "a.csv").write_text("video_id,start_s,stop_s\nanna_GX010012,7,9\nanna_GX010012,2,9\n")
    config = {"videos_uri": str(folder), "annotations_uri": str(folder / "a.csv")}
    with pytest.raises(DataError, match="begins behind the end"):
        ingest(tmp_path / "out", **config)
    made = ingest(tmp_path / "out", bad_videos="leave_out", **config)
    assert (made.counts["segments"], made.counts["bad_segments"]) == (1, 1)
    assert "segment anna_GX010012_000000 at 7.00 s" in problems(made)[0]["uri"]


def test_changed_videos_or_annotations_are_another_output(folder, tmp_path, clip):
    (folder / "a.csv").write_text("video_id,start_s,stop_s\nanna_GX010012,0,1\n")
    config = {"videos_uri": str(folder), "annotations_uri": str(folder / "a.csv")}
    first = ingest(tmp_path / "out", **config)
    (folder / "a.csv").write_text("video_id,start_s,stop_s\nanna_GX010012,0,2\n")
    second = ingest(tmp_path / "out", **config)
    shutil.copy(clip, folder / "more.mp4")
    third = ingest(tmp_path / "out", **config)
    assert len({first.digest, second.digest, third.digest}) == 3


def test_a_simulated_recording_brings_its_annotations(tmp_path):
    config = {"num_videos": 2, "num_participants": 2, "seconds": 6.0, "height": 64, "fps": 10.0}
    recorded = stage.execute("simulate_videos", config, {}, str(tmp_path))
    made = stage.execute("ingest_videos", {}, {"recording": recorded.uri}, str(tmp_path))
    found = rows(made, "videos")
    assert [(row["video_id"], row["participant_id"]) for row in found] == [("P01_01", "P01"), ("P02_01", "P02")]
    assert found[0]["uri"].startswith("../../simulate_videos/")
    clips = stage.execute("extract_clips", {"side": 32, "num_random": 1}, {"videos": made.uri}, str(tmp_path))
    assert clips.counts["clips"] >= 2
    for inputs, more in (({}, {}), ({"recording": recorded.uri}, {"videos_uri": str(tmp_path)})):
        with pytest.raises(UsageError, match="give one of them"):
            stage.execute("ingest_videos", more, inputs, str(tmp_path))


def test_videos_in_a_bucket(s3, folder, tmp_path):
    for path in folder.rglob("*.MP4"):
        storage.upload(path, f"{s3}/in/{path.relative_to(folder)}")
    made = ingest(f"{s3}/runs", videos_uri=f"{s3}/in")
    anna, _ = rows(made, "videos")
    assert len(anna["etag"]) == 32
    assert anna["uri"] == f"{s3}/in/anna/GX010012.MP4"
    clips = stage.execute("extract_clips", {"side": 32, "num_random": 1}, {"videos": made.uri}, f"{s3}/runs")
    assert clips.counts["clips"] == 2


def test_names_that_collide_are_refused(tmp_path, clip):
    for name in ("a/b.mp4", "a/b.mov"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(clip, tmp_path / name)
    with pytest.raises(DataError, match="two videos are called a_b"):
        find_videos(str(tmp_path), source="folder", pattern="**/*.{mp4,mov}", participant_pattern="")
    [only] = find_videos(str(tmp_path), source="folder", pattern="a/*.mov", participant_pattern="^(a)_")
    assert (only.video_id, only.participant_id) == ("a_b", "a")


@pytest.mark.parametrize(("pattern", "message"), [("(", "no regular expression"), ("P", "has no group")])
def test_wrong_participant_patterns(tmp_path, pattern, message):
    with pytest.raises(UsageError, match=message):
        find_videos(str(tmp_path), source="folder", pattern="*.mp4", participant_pattern=pattern)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no videos"):
        ingest(tmp_path / "out", videos_uri=str(tmp_path))


@pytest.mark.parametrize(
    ("source", "text", "message"),
    [
        ("epic", "video_id,start_frame\n", "columns narration_id, start_timestamp"),
        ("epic", EPIC_HEADER + EPIC_ROW.replace("00:00:00.14", "soon"), "line 2"),
        ("epic", EPIC_HEADER + EPIC_ROW + EPIC_ROW, "a segment stands twice"),
        ("folder", "video_id,start_s,stop_s\nv,2,1\n", "goes from 2.0 s to 1.0 s"),
        ("folder", "video_id,start_s,stop_s\nv,nan,1\n", "is no time"),
        ("folder", "video_id,start_s,stop_s\nv,1\n", "is no time"),
        ("ego4d", "[]", "no narrations of Ego4D"),
        ("ego4d", '{"v": 3}', "narration_pass_1 is no list"),
        ("ego4d", '{"v": {"narration_pass_1": {"narrations": [{"timestamp_sec": "1"}]}}}', "timestamp_sec is '1'"),
        ("ego4d", "video_id", "not valid JSON"),
    ],
)
def test_wrong_annotations(tmp_path, source, text, message):
    (tmp_path / "a").write_text(text)
    with pytest.raises(DataError, match=message):
        read_segments(source, str(tmp_path / "a"))


def test_times():
    assert seconds("00:01:02.5") == 62.5
    assert seconds("1:00:00") == 3600.0
    assert seconds("7.25") == 7.25


def test_epic_rows_without_words_are_segments_too(tmp_path):
    (tmp_path / "a").write_text(
        "narration_id,video_id,start_timestamp,stop_timestamp\nP01_101_0,P01_101,00:00:02.86,00:00:03.87\n"
    )
    [segment] = read_segments("epic", str(tmp_path / "a"))
    assert (segment.start_s, segment.stop_s, segment.verb, segment.action) == (2.86, 3.87, None, None)
