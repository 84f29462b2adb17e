"""Video files with PyAV alone: encode, look into, join and cut without loss."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolift import storage
from robolift.errors import DataError, UsageError

if TYPE_CHECKING:  # read by stages that never look into a video: FFmpeg is imported by the functions that do
    from av.container import InputContainer
    from av.video.stream import VideoStream

# SVT-AV1 writes its settings to stderr for each file unless told not to, before it is opened.
os.environ.setdefault("SVT_LOG", "1")

# A frame belongs to a time if it is nearer than this part of a frame's duration.
TOLERANCE_FRAMES = 0.25


@dataclass(frozen=True)
class Codec:
    """How frames are encoded.

    Attributes:
        name: Canonical name, as LeRobot's ``video.codec`` has it.
        encoder: FFmpeg's encoder.
        options: Its options. One thread, so that the bytes don't depend on the machine's number of cores; no B frames
            and a keyframe every second frame, so that a frame is found by decoding at most two. x264's macroblock
            tree is off: it reads memory that it never wrote, and one video in some hundreds came out with other bytes.
        faststart: Whether the index stands before the pictures, so that a browser plays before it has all.
    """

    name: str
    encoder: str
    options: tuple[tuple[str, str], ...]
    faststart: bool = False


H264 = Codec(
    "h264", "libx264", (("preset", "veryfast"), ("crf", "23"), ("g", "2"), ("bf", "0"), ("x264-params", "mbtree=0"))
)
AV1 = Codec("av1", "libsvtav1", (("preset", "12"), ("crf", "30"), ("g", "2"), ("svtav1-params", "lp=1")))
CODECS = {codec.name: codec for codec in (H264, AV1)}


def clip_codec(crf: int) -> Codec:
    """Return how clips to be looked at are encoded: H.264, a keyframe every 15 frames, playable from the first byte."""
    options = (("preset", "veryfast"), ("crf", str(crf)), ("g", "15"), ("bf", "0"))
    return Codec("h264", "libx264", (*options, ("x264-params", "mbtree=0:scenecut=0")), faststart=True)


@dataclass(frozen=True)
class VideoFacts:
    """What a video file's header says.

    Attributes:
        frames: Number of frames; 0 when the container does not say.
        extradata: The decoder's set-up; clips join without loss only if it is the same.
    """

    width: int
    height: int
    codec: str
    pix_fmt: str
    fps: Fraction
    frames: int
    extradata: bytes

    def joins(self, other: VideoFacts) -> bool:
        """Tell whether packets of both may stand in one stream."""
        mine = (self.width, self.height, self.codec, self.pix_fmt, self.extradata)
        return mine == (other.width, other.height, other.codec, other.pix_fmt, other.extradata)

    def to_info(self) -> dict[str, Any]:
        """Return the ``info`` entry of a video feature, spelled as LeRobot 0.3.3 and 0.4.4 spell it."""
        return {
            "video.height": self.height,
            "video.width": self.width,
            "video.codec": self.codec,
            "video.pix_fmt": self.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": number(self.fps),
            "video.channels": 3,
            "has_audio": False,
        }


@dataclass(frozen=True)
class VideoClip:
    """Consecutive frames inside a video file.

    Attributes:
        uri: The file.
        start_s: Time of the first frame.
        num_frames: How many.
        fps: Frames a second.
    """

    uri: str
    start_s: float
    num_frames: int
    fps: float


def number(value: Fraction | float) -> int | float:
    """Return a rate as an int if it is whole, as info.json has it."""
    return int(value) if value == int(value) else float(value)


def rate(fps: float) -> Fraction:
    """Return frames a second as the fraction a container stores, so that frame k lies at k / fps exactly."""
    return Fraction(fps).limit_denominator(1001)


class VideoEncoder:
    """Encodes RGB frames into an mp4 file as they come; a context manager, which finishes the file.

    Attributes:
        count: Frames written so far.
    """

    def __init__(self, path: Path, *, fps: float, size: tuple[int, int], codec: Codec = H264) -> None:
        """Open a file.

        Args:
            path: File to write.
            fps: Frames a second.
            size: (H, W) each frame must have; both even, because colour is stored at half the resolution.
            codec: H264 or AV1.

        Raises:
            UsageError: If the size is odd.
        """
        import av  # noqa: PLC0415

        height, width = size
        if height % 2 or width % 2:
            raise UsageError(f"a video of {height}x{width} can't be encoded: height and width must be even")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.count = 0
        self._finished = False
        self._path, self._shape = path, (height, width, 3)
        self._container = av.open(str(path), "w", options={"movflags": "faststart"} if codec.faststart else {})
        stream: Any = self._container.add_stream(codec.encoder, rate=rate(fps), options=dict(codec.options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        self._stream = stream

    def __enter__(self) -> VideoEncoder:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.finish()
        self._container.close()

    def finish(self) -> None:
        """Write what is still held back, and close the file; nothing happens the second time."""
        if not self._finished:
            self._finished = True
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def add(self, image: np.ndarray) -> None:
        """Encode the next frame, (H, W, 3) uint8.

        Raises:
            UsageError: If it is not as said.
        """
        if image.shape != self._shape or image.dtype != np.uint8:
            raise UsageError(
                f"frame {self.count} is {image.dtype} {image.shape}, expected uint8 {self._shape}: {self._path.name}"
            )
        from av import VideoFrame  # noqa: PLC0415

        rgb = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self._container.mux(self._stream.encode(rgb.reformat(format="yuv420p", threads=1)))
        self.count += 1


def encode_video(
    path: Path, frames: Iterable[np.ndarray], *, fps: float, size: tuple[int, int], codec: Codec = H264
) -> int:
    """Encode RGB frames into an mp4 file, one at a time, and return how many; see :class:`VideoEncoder`."""
    with VideoEncoder(path, fps=fps, size=size, codec=codec) as encoder:
        for image in frames:
            encoder.add(image)
    return encoder.count


@contextmanager
def open_video(uri: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video at any address for reading.

    Raises:
        DataError: If it is missing, unreadable, or has no video in it.
    """
    import av  # noqa: PLC0415

    local = storage.local_path(uri)
    file = None if local is not None else storage.open_file(uri)
    try:
        with av.open(file or str(local), "r") as container:
            if not container.streams.video:
                raise DataError("the file has no video stream", where=uri, mend="write or copy the video again")
            yield container, container.streams.video[0]
    except FileNotFoundError as error:
        raise DataError("video file not found", where=uri, mend="copy the videos together with the tables") from error
    except av.FFmpegError as error:
        raise DataError(f"unreadable video: {error}", where=uri, mend="write or copy the video again") from error
    finally:
        if file is not None:
            file.close()


def probe(uri: str) -> VideoFacts:
    """Read a video's header.

    Raises:
        DataError: If it is missing or unreadable.
    """
    with open_video(uri) as (_, stream):
        context = stream.codec_context
        if not (context.width and context.height and context.pix_fmt):
            raise DataError("the video's header is incomplete", where=uri, mend="write or copy the video again")
        return VideoFacts(
            width=context.width,
            height=context.height,
            codec=context.codec.canonical_name,
            pix_fmt=context.pix_fmt,
            fps=Fraction(stream.average_rate or stream.base_rate or 0),
            frames=stream.frames,
            extradata=bytes(context.extradata or b""),
        )


def concatenate(clips: Sequence[tuple[Path, int]], path: Path, *, fps: float) -> None:
    """Join clips that share their codec set-up into one mp4 without decoding them.

    Args:
        clips: (file, number of frames) each; clip k begins exactly where the frames before it end.
        path: File to write.
        fps: Frames a second of all of them.
    """
    import av  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    frames_before = 0
    with av.open(str(path), "w") as target:
        joined: Any = None
        for clip, length in clips:
            with open_video(str(clip)) as (source, stream):
                joined = joined or target.add_stream_from_template(stream, opaque=True)
                offset = Fraction(frames_before) / rate(fps)
                for packet in source.demux(stream):
                    if packet.dts is None or packet.pts is None or packet.time_base is None:
                        continue
                    shift = round(offset / packet.time_base)
                    packet.pts += shift
                    packet.dts += shift
                    packet.stream = joined
                    target.mux(packet)
            frames_before += length


def cut(clip: VideoClip, path: Path) -> bool:
    """Copy a clip's packets into a file of their own, so that its first frame is at time 0.

    Returns:
        False, and no file, if that is impossible without encoding again: the clip does not begin at a keyframe, or
        its packets are mixed with those of frames outside it.
    """
    import av  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    with open_video(clip.uri) as (source, stream):
        time_base = stream.time_base
        assert time_base is not None
        first = round(Fraction(clip.start_s) / time_base)
        slack = float(TOLERANCE_FRAMES / clip.fps / time_base)
        packets: list[Any] = []
        source.seek(first, stream=stream, backward=True)
        for packet in source.demux(stream):
            if packet.pts is None or len(packets) == clip.num_frames:
                break
            if packet.pts < first - slack:
                if packets:
                    return False
                continue
            packets.append(packet)
        times = sorted(packet.pts for packet in packets if packet.pts is not None)
        step = float(1 / clip.fps / time_base)
        gaps = np.abs(np.array(times, float) - first - np.arange(len(times)) * step)
        if len(times) < clip.num_frames or gaps.max(initial=0.0) > slack:
            return False
        # In an open group the keyframe comes first in the file but has a later time than the pictures leading to it.
        if not packets[0].is_keyframe or packets[0].pts != times[0]:
            return False
        with av.open(str(path), "w") as target:
            copied: Any = target.add_stream_from_template(stream, opaque=True)
            start = times[0]
            for packet in packets:
                assert packet.pts is not None
                assert packet.dts is not None
                packet.pts -= start
                packet.dts -= start
                packet.stream = copied
                target.mux(packet)
    return True
