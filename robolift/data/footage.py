"""Videos as people and cameras make them: any rate, also a varying one, turned by a display matrix, started late.

Nothing here counts frames to tell the time: a frame is shown at its own time stamp, measured from the first frame's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from robolift.data.video import open_video
from robolift.errors import DataError

Picture = VideoFrame
"""A decoded picture, not yet converted."""

MEND = "copy the video again, or leave it out"


@dataclass(frozen=True)
class Footage:
    """What is known of a video after it was read once.

    Attributes:
        fps: Mean frames a second.
        num_frames: Pictures in it.
        duration_s: From the first picture's time to the end of the last one.
        width: As shown, after rotation, pixels.
        height: As shown.
        rotation: Degrees that the pictures are turned by, counterclockwise, to be shown: 0, 90, 180 or 270.
        codec: Canonical name.
        start_s: Time of the first picture on the file's own clock.
    """

    fps: float
    num_frames: int
    duration_s: float
    width: int
    height: int
    rotation: int
    codec: str
    start_s: float


def inspect(uri: str) -> Footage:
    """Read a video to its end, decoding its first pictures and its last ones.

    Raises:
        DataError: If it is no video, has no picture, ends early, or its first or last pictures are damaged.
    """
    with open_video(uri) as (container, stream):
        times, only_ticks, keyframe = _read_packets(container, stream, uri)
    with open_video(uri) as (container, stream):
        first = _decode(container, stream, uri)
        assert stream.time_base is not None
        tick = Fraction(stream.time_base)
        container.seek(keyframe, stream=stream, backward=True)
        last = max((picture.pts or 0 for picture in _pictures(container, stream, uri)), default=0)
        if last < times[-1]:
            raise DataError("the last pictures can't be decoded", where=uri, expected="a whole video", mend=MEND)
        rotation = round(first.rotation / 90) % 4 * 90
        width, height = round(first.width * (stream.sample_aspect_ratio or 1)), first.height
        if rotation % 180:
            width, height = height, width
        # The last picture lasts as long as the others do in the mean: containers often don't say, or say nonsense.
        ticks = Fraction(times[-1] - times[0], len(times) - 1) * len(times) if len(times) > 1 else only_ticks
        duration = ticks * tick
        if not duration:
            raise DataError("the video lasts no time", where=uri, expected="pictures with time stamps", mend=MEND)
        return Footage(
            fps=float(len(times) / duration),
            num_frames=len(times),
            duration_s=float(duration),
            width=width,
            height=height,
            rotation=rotation,
            codec=stream.codec_context.codec.canonical_name,
            start_s=float(times[0] * tick),
        )


def _read_packets(container: InputContainer, stream: VideoStream, uri: str) -> tuple[list[int], int, int]:
    """Return the time stamps of all pictures, sorted, the duration of the last packet, and the last keyframe's time."""
    times: list[int] = []
    packets = keyframe = duration = 0
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        if packet.pts is None:
            raise DataError("a picture has no time", where=uri, expected="time stamps", mend="remux the video")
        packets += 1
        if packet.is_discard:  # cut off by an edit list
            continue
        times.append(packet.pts)
        duration = packet.duration or 0
        if packet.is_keyframe:
            keyframe = max(keyframe, packet.pts)
    if not times:
        raise DataError("the video has no pictures", where=uri, mend=MEND)
    if packets < stream.frames:
        raise DataError(
            f"the video ends after {packets} of {stream.frames} pictures",
            where=uri,
            expected="a whole video",
            mend=MEND,
        )
    times.sort()
    return times, duration, keyframe


def _decode(container: InputContainer, stream: VideoStream, uri: str) -> VideoFrame:
    for frame in _pictures(container, stream, uri):
        return frame
    raise DataError("no picture of the video can be decoded", where=uri, mend=MEND)


def _pictures(container: InputContainer, stream: VideoStream, uri: str) -> Iterator[VideoFrame]:
    try:
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise DataError("a picture is damaged", where=uri, expected="a whole video", mend=MEND)
            yield frame
    except av.FFmpegError as error:
        raise DataError(f"unreadable video: {error}", where=uri, mend=MEND) from error


class FootageReader:
    """An open video, read forward by time; a context manager. It holds no more than one picture.

    Example:
        >>> with FootageReader(uri, footage) as reader:  # doctest: +SKIP
        ...     for time_s, frame in reader.pictures(12.0):
        ...         image = reader.to_image(frame, 480, "letterbox")
    """

    def __init__(self, uri: str, footage: Footage) -> None:
        """Open the video at ``uri``, of which ``footage`` is known.

        Raises:
            DataError: If it is missing or unreadable.
        """
        self._uri = uri
        self.footage = footage
        self._opened = open_video(uri)
        self._container, self._stream = self._opened.__enter__()
        self._stream.codec_context.thread_count = 1
        assert self._stream.time_base is not None
        self._tick = Fraction(self._stream.time_base)
        self._reformatter = VideoReformatter()

    def __enter__(self) -> FootageReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.__exit__(None, None, None)

    def pictures(self, from_s: float) -> Iterator[tuple[float, Picture]]:
        """Yield (seconds from the first picture, picture) from the one shown at ``from_s``, or earlier, to the end.

        A jump into an open group of pictures loses the first ones, whose references lie before it: then it goes back
        further, twice as far each time.

        Raises:
            DataError: If a picture is damaged.
        """
        back_s = 0.0
        while True:
            target_s = max(from_s - back_s, 0.0)
            ticks = int((Fraction(target_s) + Fraction(self.footage.start_s)) / self._tick)
            self._container.seek(ticks, stream=self._stream, backward=True)
            pictures = _pictures(self._container, self._stream, self._uri)
            first = next(pictures, None)
            if first is None or target_s == 0 or self._seconds(first) <= from_s:
                break
            back_s = 2 * back_s or 1.0
        if first is not None:
            yield self._seconds(first), first
        for frame in pictures:
            yield self._seconds(frame), frame

    def _seconds(self, frame: VideoFrame) -> float:
        if frame.pts is None:
            raise DataError("a picture has no time", where=self._uri, expected="time stamps", mend=MEND)
        return float(frame.pts * self._tick) - self.footage.start_s

    def to_image(self, frame: Picture, side: int, fit: str) -> np.ndarray:
        """Return a picture upright, scaled to a square.

        Args:
            frame: A picture of this video.
            side: Height and width of the square.
            fit: ``letterbox`` keeps the aspect and pads with black, ``stretch`` fills the square.

        Returns:
            (side, side, 3) uint8 RGB.
        """
        size = fitted_size(self.footage.height, self.footage.width, side) if fit == "letterbox" else (side, side)
        height, width = size[::-1] if self.footage.rotation % 180 else size
        shrinks = height <= frame.height and width <= frame.width
        rgb = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            interpolation=Interpolation.AREA if shrinks else Interpolation.BILINEAR,
            threads=1,
        ).to_ndarray()
        upright = np.rot90(rgb, self.footage.rotation // 90)
        if size == (side, side):
            return np.ascontiguousarray(upright)
        square = np.zeros((side, side, 3), np.uint8)
        top, left = (side - size[0]) // 2, (side - size[1]) // 2
        square[top : top + size[0], left : left + size[1]] = upright
        return square


def fitted_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Return the largest height and width of the same aspect inside a square; at least two pixels each."""
    longest = max(height, width)
    return max(round(height * side / longest), 2), max(round(width * side / longest), 2)
