from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from coded_video import SIZE, coded_frames, coded_image, read_code

from robolift.data.video import AV1, H264, Codec, VideoClip, concatenate, cut, encode_video, open_video, probe, rate
from robolift.data.video_decoder import VideoDecoder, decode_frames
from robolift.errors import DataError, UsageError

FPS = 20
LENGTH = 24


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A clip of LENGTH frames for each codec, by its name."""
    folder = tmp_path_factory.mktemp("clips")
    for codec in (H264, AV1):
        encode_video(folder / f"{codec.name}.mp4", coded_frames(3, LENGTH), fps=FPS, size=SIZE, codec=codec)
    return {codec.name: folder / f"{codec.name}.mp4" for codec in (H264, AV1)}


@pytest.fixture(scope="module")
def open_gop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An HEVC file with open groups of pictures: leading B frames need the group before their keyframe."""
    path = tmp_path_factory.mktemp("hevc") / "open.mp4"
    settings = (
        "log-level=none:keyint=8:min-keyint=8:open-gop=1:bframes=3:b-adapt=0:scenecut=0:pools=none:frame-threads=1"
    )
    codec = Codec("hevc", "libx265", (("preset", "veryfast"), ("crf", "18"), ("x265-params", settings)))
    encode_video(path, coded_frames(0, 48, (64, 64)), fps=FPS, size=(64, 64), codec=codec)
    return path


def codes(images: Iterator[np.ndarray] | np.ndarray) -> list[tuple[int, int]]:
    return [read_code(image) for image in images]


@pytest.mark.parametrize("name", ["h264", "av1"])
def test_frames_come_back_in_order_and_close_to_what_went_in(clips: dict[str, Path], name: str) -> None:
    images = list(decode_frames(VideoClip(str(clips[name]), 0.0, LENGTH, FPS)))
    assert codes(iter(images)) == [(3, frame) for frame in range(LENGTH)]
    assert images[0].shape == (*SIZE, 3)
    assert images[0].dtype == np.uint8
    difference = np.abs(images[5].astype(int) - coded_image(3, 5))
    assert difference.mean() < 4
    facts = probe(str(clips[name]))
    assert (facts.codec, facts.frames, facts.fps, facts.pix_fmt) == (name, LENGTH, Fraction(FPS), "yuv420p")
    assert (facts.height, facts.width) == SIZE


@pytest.mark.parametrize("codec", [H264, AV1])
def test_the_same_frames_give_the_same_bytes(clips: dict[str, Path], codec: Codec, tmp_path: Path) -> None:
    again = tmp_path / "again.mp4"
    assert encode_video(again, coded_frames(3, LENGTH), fps=FPS, size=SIZE, codec=codec) == LENGTH
    assert again.read_bytes() == clips[codec.name].read_bytes()


def test_frames_are_held_one_at_a_time(tmp_path: Path) -> None:
    given: list[weakref.ref[np.ndarray]] = []
    most = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal most
        for frame in range(40):
            image = coded_image(0, frame)
            given.append(weakref.ref(image))
            most = max(most, sum(reference() is not None for reference in given))
            yield image

    encode_video(tmp_path / "a.mp4", frames(), fps=FPS, size=SIZE)
    assert len(given) == 40
    assert most <= 3


def test_wrong_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="33x64 can't be encoded"):
        encode_video(tmp_path / "a.mp4", [], fps=FPS, size=(33, 64))
    with pytest.raises(UsageError, match=r"frame 1 is uint8 \(32, 32, 3\), expected uint8 \(32, 64, 3\)"):
        encode_video(tmp_path / "a.mp4", [coded_image(0, 0), coded_image(0, 0, (32, 32))], fps=FPS, size=SIZE)
    with pytest.raises(UsageError, match="frame 0 is float64"):
        encode_video(tmp_path / "a.mp4", [coded_image(0, 0) / 255], fps=FPS, size=SIZE)


@pytest.mark.parametrize("name", ["h264", "av1"])
def test_random_access_gives_the_frames_of_a_sequential_pass(clips: dict[str, Path], name: str) -> None:
    order = [17, 3, 3, 23, 0, 4, 5, 22, 9]
    with VideoDecoder(str(clips[name]), fps=FPS) as decoder:
        whole = list(decoder.frames())
        assert len(whole) == LENGTH
        found = decoder.decode_at(np.array(order) / FPS)
        assert np.array_equal(found, np.stack([whole[frame] for frame in order]))
        assert codes(decoder.frames(start_s=7 / FPS, num_frames=4)) == [(3, 7), (3, 8), (3, 9), (3, 10)]


def test_scaling_averages_over_areas(clips: dict[str, Path]) -> None:
    with VideoDecoder(str(clips["h264"]), fps=FPS) as decoder:
        full = next(decoder.frames())
    with VideoDecoder(str(clips["h264"]), fps=FPS, size=(16, 32)) as decoder:
        small = next(decoder.frames())
    assert small.shape == (16, 32, 3)
    expected = full.astype(float).reshape(16, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - expected).mean() < 2


def test_one_pass_decodes_each_frame_once(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    joined = tmp_path / "joined.mp4"
    concatenate([(clips["h264"], LENGTH)] * 3, joined, fps=FPS)
    decoded = 0
    original = VideoDecoder._next

    def counted(self: VideoDecoder) -> object:
        nonlocal decoded
        decoded += 1
        return original(self)

    monkeypatch.setattr(VideoDecoder, "_next", counted)
    for start in (0, LENGTH, 2 * LENGTH):
        assert len(list(decode_frames(VideoClip(str(joined), start / FPS, LENGTH, FPS)))) == LENGTH
    assert decoded == 3 * LENGTH


@pytest.mark.parametrize("name", ["h264", "av1"])
def test_clips_join_without_loss_at_exact_times(clips: dict[str, Path], name: str, tmp_path: Path) -> None:
    joined = tmp_path / "joined.mp4"
    concatenate([(clips[name], LENGTH), (clips[name], LENGTH)], joined, fps=FPS)
    one = list(decode_frames(VideoClip(str(clips[name]), 0.0, LENGTH, FPS)))
    with VideoDecoder(str(joined), fps=FPS) as decoder:
        both = list(decoder.frames())
    assert np.array_equal(np.stack(both), np.stack(one + one))
    with open_video(str(joined)) as (container, stream):
        times = [frame.pts * frame.time_base for frame in container.decode(stream)]
    assert times == [Fraction(frame, FPS) for frame in range(2 * LENGTH)]


def test_clips_join_only_with_the_same_set_up(clips: dict[str, Path], tmp_path: Path) -> None:
    encode_video(tmp_path / "other.mp4", coded_frames(0, 4, (32, 32)), fps=FPS, size=(32, 32))
    facts = probe(str(clips["h264"]))
    assert facts.joins(probe(str(clips["h264"])))
    assert not facts.joins(probe(str(clips["av1"])))
    assert not facts.joins(probe(str(tmp_path / "other.mp4")))


@pytest.mark.parametrize("name", ["h264", "av1"])
def test_cutting_copies_from_a_keyframe_and_refuses_elsewhere(
    clips: dict[str, Path], name: str, tmp_path: Path
) -> None:
    joined, piece = tmp_path / "joined.mp4", tmp_path / "piece.mp4"
    concatenate([(clips[name], LENGTH), (clips[name], LENGTH)], joined, fps=FPS)
    assert cut(VideoClip(str(joined), LENGTH / FPS, LENGTH, FPS), piece)
    assert probe(str(piece)).frames == LENGTH
    assert np.array_equal(
        np.stack(list(decode_frames(VideoClip(str(piece), 0.0, LENGTH, FPS)))),
        np.stack(list(decode_frames(VideoClip(str(clips[name]), 0.0, LENGTH, FPS)))),
    )
    for start, length in ((3, 5), (40, 20)):
        missing = tmp_path / "none.mp4"
        assert not cut(VideoClip(str(joined), start / FPS, length, FPS), missing)
        assert not missing.exists()


def test_a_plain_keyframe_seek_fails_on_open_groups(open_gop: Path) -> None:
    """Guards the two tests below: without leading pictures after a keyframe they would prove nothing."""
    wrong = 0
    with open_video(str(open_gop)) as (container, stream):
        assert stream.time_base is not None
        for frame in range(48):
            target = round(frame / FPS / stream.time_base)
            container.seek(target, stream=stream, backward=True)
            first = next(f for f in container.decode(stream) if f.pts is not None and f.pts >= target)
            wrong += first.pts != target
    assert wrong > 5


def test_open_groups_random_access_is_right_everywhere(open_gop: Path) -> None:
    order = np.random.default_rng(0).permutation(48)
    with VideoDecoder(str(open_gop), fps=FPS) as decoder:
        for frame in order.tolist():
            assert read_code(decoder.decode_at([frame / FPS])[0]) == (0, frame)
        assert codes(decoder.decode_at(order / FPS)) == [(0, frame) for frame in order.tolist()]


def test_open_groups_sequential_decoding_from_any_frame(open_gop: Path) -> None:
    for start in range(0, 44, 3):
        found = codes(decode_frames(VideoClip(str(open_gop), start / FPS, 4, FPS)))
        assert found == [(0, start + step) for step in range(4)]


def test_open_groups_are_never_cut_into_undecodable_pieces(open_gop: Path, tmp_path: Path) -> None:
    for start in range(1, 40):
        path = tmp_path / f"{start}.mp4"
        if cut(VideoClip(str(open_gop), start / FPS, 8, FPS), path):
            assert codes(decode_frames(VideoClip(str(path), 0.0, 8, FPS))) == [(0, start + i) for i in range(8)]


def test_a_short_video_says_how_many_frames_are_there(clips: dict[str, Path]) -> None:
    with pytest.raises(
        DataError, match=r"the video ends before 1\.200 s[\s\S]*26 frames from 0\.000 s on, 24 are there"
    ):
        list(decode_frames(VideoClip(str(clips["h264"]), 0.0, 26, FPS)))
    with VideoDecoder(str(clips["h264"]), fps=FPS) as decoder, pytest.raises(DataError, match=r"a frame at 5\.0000 s"):
        decoder.decode_at([0.0, 5.0])


def test_a_lost_frame_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "lost.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for frame in (0, 1, 2, 4, 5):
            picture = av.VideoFrame.from_ndarray(coded_image(0, frame), format="rgb24")
            picture.pts, picture.time_base = frame, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match=r"no frame at 0\.1500 s, the next one is at 0\.2000 s"):
        list(decode_frames(VideoClip(str(path), 0.0, 5, FPS)))
    assert not cut(VideoClip(str(path), 0.0, 5, FPS), tmp_path / "none.mp4")


def test_a_wrong_frame_rate_is_noticed(clips: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="a frame every 1/30 s"):
        list(decode_frames(VideoClip(str(clips["h264"]), 0.0, LENGTH, 30)))


def test_files_that_are_no_video_are_named(clips: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video at all")
    with pytest.raises(DataError, match=r"unreadable video[\s\S]*text\.mp4"):
        probe(str(tmp_path / "text.mp4"))
    with pytest.raises(DataError, match=r"video file not found[\s\S]*absent\.mp4"):
        probe(str(tmp_path / "absent.mp4"))
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(DataError, match="no video stream"):
        probe(str(tmp_path / "sound.wav"))
    (tmp_path / "half.mp4").write_bytes(clips["h264"].read_bytes()[:2000])
    with pytest.raises(DataError, match="unreadable video"):
        list(decode_frames(VideoClip(str(tmp_path / "half.mp4"), 0.0, LENGTH, FPS)))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("h264", lambda packet: packet[: len(packet) // 2] + bytes(len(packet) // 2), r"damaged frame at 0\.600 s"),
        ("h264", lambda packet: b"\xff" * len(packet), "unreadable video"),
        ("av1", lambda packet: b"\xff" * len(packet), "unreadable video"),
        ("av1", lambda packet: bytes(len(packet)), r"no frame at 0\.6000 s"),
    ],
)
def test_damaged_frames_are_not_passed_on(
    clips: dict[str, Path], name: str, damage: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    content = bytearray(clips[name].read_bytes())
    with open_video(str(clips[name])) as (_, stream):
        entry = stream.index_entries[12]
        place = slice(entry.pos, entry.pos + entry.size)
    content[place] = damage(bytes(content[place])).ljust(entry.size, b"\0")
    (tmp_path / "damaged.mp4").write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(decode_frames(VideoClip(str(tmp_path / "damaged.mp4"), 0.0, LENGTH, FPS)))


def test_a_bare_stream_without_times_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.h264"
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for image in coded_frames(0, 6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="unreadable video"):
        list(decode_frames(VideoClip(str(path), 0.0, 6, FPS)))


def test_rates_are_stored_as_containers_want_them() -> None:
    assert rate(40) == Fraction(40)
    assert rate(29.97) == Fraction(2997, 100)
    assert rate(30000 / 1001) == Fraction(30000, 1001)
    assert rate(12.5) == Fraction(25, 2)


def test_videos_on_another_store_are_read_through_it(clips: dict[str, Path]) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/videos/a.mp4", clips["h264"].read_bytes())
    found = codes(decode_frames(VideoClip("memory://videos/a.mp4", 10 / FPS, 3, FPS)))
    assert found == [(3, 10), (3, 11), (3, 12)]
