"""Videos of any making: what is known of each, and which are refused."""

from __future__ import annotations

from dataclasses import replace

import coded_video
import numpy as np
import odd_videos
import pytest

from robolift.data.footage import FootageReader, fitted_size, inspect
from robolift.data.video import clip_codec, encode_video
from robolift.errors import DataError


def test_a_steady_video(tmp_path):
    path = odd_videos.write_steady(tmp_path / "v.mp4", fps=50, seconds=2)
    footage = inspect(str(path))
    assert (footage.fps, footage.num_frames, footage.duration_s) == (pytest.approx(50), 100, pytest.approx(2.0))
    assert (footage.height, footage.width, footage.rotation, footage.codec) == (64, 128, 0, "h264")


def test_a_varying_rate_is_told_by_its_mean(tmp_path):
    times = [*range(0, 1000, 20), *range(1000, 3000, 100)]
    footage = inspect(str(odd_videos.write_timed(tmp_path / "v.mkv", times)))
    assert footage.num_frames == 70
    # 69 gaps in 2.9 s; the last picture is shown for one more of the mean.
    assert footage.fps == pytest.approx(69 / 2.9)
    assert footage.duration_s == pytest.approx(2.9 * 70 / 69)


def test_a_late_start_is_not_part_of_the_video(tmp_path):
    footage = inspect(str(odd_videos.write_steady(tmp_path / "v.mkv", fps=25, seconds=2, start_ms=5000)))
    assert (footage.start_s, footage.duration_s) == (pytest.approx(5.0), pytest.approx(2.0, abs=0.002))
    with FootageReader(str(tmp_path / "v.mkv"), footage) as reader:
        time_s, frame = next(reader.pictures(0.0))
        assert time_s == pytest.approx(0.0)
        assert coded_video.read_code(frame.to_ndarray(format="rgb24"))[1] == 0


def test_a_turned_video_is_shown_upright(tmp_path):
    path = odd_videos.write_steady(tmp_path / "v.mp4", fps=25, seconds=1)
    with FootageReader(str(path), inspect(str(path))) as reader:
        flat = reader.to_image(next(reader.pictures(0.9))[1], 128, "letterbox")
    odd_videos.turn_clockwise(path, height=64)
    footage = inspect(str(path))
    assert (footage.rotation, footage.height, footage.width) == (270, 128, 64)
    with FootageReader(str(path), footage) as reader:
        turned = reader.to_image(next(reader.pictures(0.9))[1], 128, "letterbox")
        stretched = reader.to_image(next(reader.pictures(0.9))[1], 64, "stretch")
    np.testing.assert_array_equal(turned, np.rot90(flat, -1))
    assert turned[:, :32].max() == turned[:, 96:].max() == 0 < turned[:, 32:96].max()
    assert stretched.shape == (64, 64, 3)


def test_an_odd_size_is_no_problem(tmp_path):
    path = odd_videos.write_timed(tmp_path / "v.mp4", range(0, 1000, 40), size=(65, 129))
    footage = inspect(str(path))
    assert (footage.height, footage.width) == (65, 129)
    with FootageReader(str(path), footage) as reader:
        image = reader.to_image(next(reader.pictures(0.0))[1], 64, "letterbox")
    assert image.shape == (64, 64, 3)
    assert image[:16].max() == image[-16:].max() == 0


def test_a_jump_lands_at_or_before_the_time(tmp_path):
    # Open groups of pictures: those behind a keyframe need the ones before it.
    path = odd_videos.write_steady(
        tmp_path / "v.mkv",
        fps=25,
        seconds=8,
        **{"x264-params": "open-gop=1:keyint=50:min-keyint=50:scenecut=0", "bf": "3"},
    )
    with FootageReader(str(path), inspect(str(path))) as reader:
        for wanted in (7.9, 3.96, 4.0, 4.04, 0.0, 6.01):
            times = []
            for time_s, frame in reader.pictures(wanted):
                times.append(time_s)
                if time_s > wanted:
                    break
                number = coded_video.read_code(frame.to_ndarray(format="rgb24"))[1]
            assert times[0] <= wanted
            assert number == int(wanted * 25 + 1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (odd_videos.write_audio, "no video stream"),
        (odd_videos.write_empty, "no video stream"),
        (lambda path: path.write_text("hello"), "unreadable video"),
        (lambda path: path.write_bytes(b""), "unreadable video"),
        (lambda path: None, "not found"),
    ],
)
def test_what_is_no_video_is_said_to_be_none(tmp_path, make, message):
    path = tmp_path / "v.mp4"
    make(path)
    with pytest.raises(DataError, match=message) as error:
        inspect(str(path))
    assert str(path) in str(error.value)


def test_a_stream_without_a_picture_is_refused(tmp_path):
    path = odd_videos.write_empty(tmp_path / "v.avi")
    with pytest.raises(DataError, match="no pictures"):
        inspect(str(path))


def test_a_single_picture_lasts_as_long_as_it_says(tmp_path):
    encode_video(tmp_path / "v.mp4", coded_video.coded_frames(0, 1), fps=10, size=coded_video.SIZE)
    footage = inspect(str(tmp_path / "v.mp4"))
    assert (footage.num_frames, footage.duration_s, footage.fps) == (1, pytest.approx(0.1), pytest.approx(10))


@pytest.mark.parametrize("faststart", [True, False])
def test_a_truncated_video_is_refused_wherever_its_index_lies(tmp_path, faststart):
    path = tmp_path / "v.mp4"
    codec = replace(clip_codec(18), faststart=faststart)
    encode_video(path, coded_video.coded_frames(0, 60, (64, 128)), fps=15, size=(64, 128), codec=codec)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 7 // 10])
    with pytest.raises(DataError, match=r"ends after \d+ of 60 pictures|unreadable video"):
        inspect(str(path))


def test_fitted_sizes():
    assert fitted_size(240, 320, 480) == (360, 480)
    assert fitted_size(1920, 1080, 480) == (480, 270)
    assert fitted_size(1, 1000, 480) == (2, 480)
