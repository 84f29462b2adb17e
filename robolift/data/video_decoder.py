"""Decodes video in order or at given times, each frame once, straight to the target size.

Two things bite here. A keyframe seek in a file with open groups of pictures (x265's default) lands on frames that can't
be decoded from there, so every frame's time is compared with the one asked for. And PyAV's one-line conversions set up
a scaler for every frame; one reused reformatter, straight to the target size, is about twice as fast.
"""

from __future__ import annotations

import itertools
import resource
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from robolift.data.video import TOLERANCE_FRAMES, VideoClip, number, open_video
from robolift.errors import DataError

# Decoding on over this many frames is cheaper than a seek.
FORWARD_FRAMES = 4
OPEN_VIDEOS = 128
"""Videos that stay open for the next who asks: 2 MB each at 480x640, and opening one of H.264 costs as much as several
frames, because FFmpeg decodes the first ones. Fewer where the system allows a process few files."""


class VideoDecoder:
    """An open video, decoded in order or at given times; a context manager, for one thread at a time.

    Attributes:
        uri: The file.
        fps: Frames a second it is expected to have.
        size: (height, width) of the frames given out, None for the video's own; may be set between calls.
    """

    def __init__(self, uri: str, *, fps: float, size: tuple[int, int] | None = None, threads: int = 1) -> None:
        """Open a video.

        Args:
            uri: The file, at any address.
            fps: Frames a second it is expected to have.
            size: (height, width) of the frames given out; None for the video's own.
            threads: Decoding threads. Decoding several videos side by side pays better than more threads for one.

        Raises:
            DataError: If it is missing or unreadable.
        """
        self.uri = uri
        self.fps = fps
        self.size = size
        self._opened = open_video(uri)
        self._container, self._stream = self._opened.__enter__()
        self._stream.codec_context.thread_count = threads
        assert self._stream.time_base is not None
        self._time_base = float(self._stream.time_base)
        self._reformatter = VideoReformatter()
        self._keyframes = np.array([e.timestamp for e in self._stream.index_entries if e.is_keyframe], np.int64)
        self._frames: Iterator[VideoFrame] | None = None
        self._last: VideoFrame | None = None

    def __enter__(self) -> VideoDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._frames = self._last = None
        self._opened.__exit__(None, None, None)

    def frames(
        self, *, start_s: float = 0.0, num_frames: int | None = None, parts: Iterable[range] | None = None
    ) -> Iterator[np.ndarray]:
        """Yield consecutive frames, each decoded once.

        Args:
            start_s: Time of the first one.
            num_frames: How many; None for all up to the end.
            parts: Only these ascending ranges of them; what lies between is skipped, by a seek where that is cheaper.

        Yields:
            (H, W, 3) uint8 RGB.

        Raises:
            DataError: If the video ends early, a frame is missing or damaged, or the times don't fit ``fps``.
        """
        whole = itertools.count() if num_frames is None else range(num_frames)
        next_index = -1
        for index in whole if parts is None else itertools.chain.from_iterable(parts):
            wanted_s = start_s + index / self.fps
            frame = self._advance_to(wanted_s) if index == next_index else self._find(wanted_s)
            if frame is None:
                if num_frames is None:
                    return
                raise self._too_short(wanted_s, f"{num_frames} frames from {start_s:.3f} s on, {index} are there")
            yield self._to_rgb(frame)
            next_index = index + 1

    def decode_at(self, timestamps: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the frames at the given times, in the order asked for.

        Args:
            timestamps: (n,) seconds, in any order and with repetitions.

        Returns:
            (n, H, W, 3) uint8 RGB.

        Raises:
            DataError: If the video has no frame at one of the times.
        """
        wanted = np.asarray(timestamps, np.float64)
        if len(wanted) == 1:
            return self._image_at(float(wanted[0]))[None]
        times, places = np.unique(wanted, return_inverse=True)
        return np.stack([self._image_at(time_s) for time_s in times.tolist()])[places]

    def _image_at(self, time_s: float) -> np.ndarray:
        frame = self._find(time_s)
        if frame is None:
            raise self._too_short(time_s, f"a frame at {time_s:.4f} s")
        return self._to_rgb(frame)

    def _time(self, frame: VideoFrame) -> float:
        if frame.pts is None:
            raise DataError("a frame of the video has no time", where=self.uri, mend="write the video again")
        return frame.pts * self._time_base

    def _next(self) -> VideoFrame | None:
        """Decode one more frame; None at the end."""
        try:
            frame = None if self._frames is None else next(self._frames, None)
        except av.FFmpegError as error:
            raise DataError(f"unreadable video: {error}", where=self.uri, mend="copy the video again") from error
        if frame is not None and frame.is_corrupt:
            raise DataError(
                f"damaged frame at {self._time(frame):.3f} s", where=self.uri, mend="write or copy the video again"
            )
        self._last = frame
        return frame

    def _find(self, time_s: float) -> VideoFrame | None:
        """Return the frame at a time, by decoding on or by a seek; None if the video ends before it."""
        tolerance_s = TOLERANCE_FRAMES / self.fps
        if self._last is not None:
            ahead_s = time_s - self._time(self._last)
            if abs(ahead_s) <= tolerance_s:
                return self._last
            if ahead_s > 0 and self._on_the_way(time_s):
                return self._advance_to(time_s)
        self._seek(time_s + tolerance_s)
        return self._advance_to(time_s)

    def _on_the_way(self, time_s: float) -> bool:
        """Tell whether decoding on reaches a time as cheaply as a seek would."""
        assert self._last is not None
        last_s = self._time(self._last)
        if time_s - last_s <= FORWARD_FRAMES / self.fps:
            return True
        span = np.array([last_s, time_s]) / self._time_base
        low, high = np.searchsorted(self._keyframes, span, side="right")
        return bool(low == high)

    def _seek(self, time_s: float) -> None:
        """Go to a keyframe from which the frame at ``time_s`` can be decoded, and decode the first frame.

        After a seek into an open group the decoder drops the leading pictures: the first frame out is already later
        than the one asked for. Then go one keyframe further back, to the beginning if need be.
        """
        target = int(time_s / self._time_base)
        while True:
            try:
                self._container.seek(target, stream=self._stream, backward=True)
            except av.FFmpegError as error:
                raise DataError(f"unreadable video: {error}", where=self.uri, mend="copy the video again") from error
            self._frames = self._container.decode(self._stream)
            first = self._next()
            if first is None or target <= 0 or self._time(first) <= time_s:
                return
            # The index holds decoding times, which lie before the times shown.
            earlier = self._keyframes[self._keyframes < target]
            target = int(earlier[-1]) if len(earlier) else 0

    def _advance_to(self, time_s: float) -> VideoFrame | None:
        """Decode on until the frame at a time; None at the end of the video."""
        tolerance_s = TOLERANCE_FRAMES / self.fps
        frame = self._last
        while frame is not None and self._time(frame) < time_s - tolerance_s:
            frame = self._next()
        if frame is not None and self._time(frame) > time_s + tolerance_s:
            raise DataError(
                f"the video has no frame at {time_s:.4f} s, the next one is at {self._time(frame):.4f} s",
                where=self.uri,
                expected=f"a frame every 1/{number(self.fps)} s",
                mend="record or encode the video with a constant frame rate",
            )
        return frame

    def _to_rgb(self, frame: VideoFrame) -> np.ndarray:
        height, width = self.size or (frame.height, frame.width)
        # Area averaging when the size changes; plain conversion gives the pixels LeRobot's decoders give.
        same = (height, width) == (frame.height, frame.width)
        method = Interpolation.BILINEAR if same else Interpolation.AREA
        rgb = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=method, threads=1
        )
        return rgb.to_ndarray()

    def _too_short(self, time_s: float, expected: str) -> DataError:
        return DataError(
            f"the video ends before {time_s:.3f} s",
            where=self.uri,
            expected=expected,
            mend="copy the video again, or drop the episode",
        )


class OpenVideos:
    """Videos that stay open for the next who asks for them, the last few; for any number of threads."""

    def __init__(self, *, fps: float, limit: int | None = None) -> None:
        """Hold no video yet.

        Args:
            fps: Frames a second of all of them.
            limit: Most videos that stay open while nobody uses them; OPEN_VIDEOS by default, and no more than a quarter
                of the files that this process may have open.
        """
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = OPEN_VIDEOS if allowed == resource.RLIM_INFINITY else min(OPEN_VIDEOS, allowed // 4)
        self._fps, self._limit = fps, most if limit is None else limit
        self._lock = threading.Lock()
        self._idle: list[VideoDecoder] = []

    @contextmanager
    def borrowed(self, uri: str, size: tuple[int, int] | None) -> Iterator[VideoDecoder]:
        """Give a decoder of a video that nobody else has meanwhile; arguments and errors as of VideoDecoder."""
        with self._lock:
            place = next((i for i, idle in enumerate(self._idle) if idle.uri == uri), None)
            decoder = None if place is None else self._idle.pop(place)
        decoder = decoder or VideoDecoder(uri, fps=self._fps)
        decoder.size = size
        try:
            yield decoder
        except BaseException:
            decoder.close()
            raise
        with self._lock:
            self._idle.append(decoder)
            oldest = self._idle.pop(0) if len(self._idle) > self._limit else None
        if oldest is not None:
            oldest.close()

    def close(self) -> None:
        """Close those that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.close()


def decode_frames(
    clip: VideoClip, *, size: tuple[int, int] | None = None, parts: Iterable[range] | None = None
) -> Iterator[np.ndarray]:
    """Yield a clip's frames in order, each (H, W, 3) uint8 RGB; see :meth:`VideoDecoder.frames`.

    Args:
        clip: Where they lie.
        size: (height, width) to scale to; None for the video's own.
        parts: Only these ascending ranges of its frames.
    """
    with VideoDecoder(clip.uri, fps=clip.fps, size=size) as decoder:
        yield from decoder.frames(start_s=clip.start_s, num_frames=clip.num_frames, parts=parts)
