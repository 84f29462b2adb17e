"""Encodes and decodes single pictures as JPEG, with the codecs that the video library brings along."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from robolift.errors import UsageError

# Of FFmpeg's scale, with colour at full resolution: a mean error like that of libjpeg's quality 90, in fewer bytes.
QUANTIZER = 3
# Without accurate rounding the scaler takes one from the colour of half the resolution, and grey comes back green.
ACCURATE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class JpegEncoder:
    """Encodes pictures of one size; not for several threads at a time."""

    def __init__(self, size: tuple[int, int], *, quantizer: int = QUANTIZER, half_colour: bool = False) -> None:
        """Set up the encoder.

        Args:
            size: (height, width) of the pictures.
            quantizer: From 1, the best, to 31, the smallest.
            half_colour: Whether colour has half the resolution, as in nearly all video: about half the bytes.
        """
        self.size = size
        self._format, self._method = ("yuvj420p", ACCURATE) if half_colour else ("yuvj444p", Interpolation.BILINEAR)
        context: Any = av.CodecContext.create("mjpeg", "w")
        context.height, context.width = size
        context.pix_fmt = self._format
        context.time_base = Fraction(1, 1)
        context.thread_count = 1
        context.qmin = context.qmax = quantizer
        self._context = context
        self._reformatter = VideoReformatter()
        self._count = 0

    def encode(self, pixels: np.ndarray) -> bytes:
        """Return one picture as a JPEG file; the same picture gives the same bytes.

        Args:
            pixels: (H, W, 3) uint8 RGB.

        Raises:
            UsageError: If it has another shape or dtype.
        """
        if pixels.shape != (*self.size, 3) or pixels.dtype != np.uint8:
            raise UsageError(f"a picture is {pixels.dtype} {pixels.shape}, expected uint8 {(*self.size, 3)}")
        frame = self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"),
            format=self._format,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            interpolation=self._method,
            threads=1,
        )
        frame.pts = self._count
        self._count += 1
        return b"".join(bytes(packet) for packet in self._context.encode(frame))


class JpegDecoder:
    """Decodes JPEG files, of any size; not for several threads at a time."""

    def __init__(self) -> None:
        context: Any = av.CodecContext.create("mjpeg", "r")
        context.thread_count = 1
        self._context = context
        self._reformatter = VideoReformatter()

    def decode(self, content: bytes) -> np.ndarray:
        """Return a JPEG file's picture, (H, W, 3) uint8 RGB.

        Raises:
            av.FFmpegError: If it is no JPEG file, or a part of one.
        """
        (frame,) = self._context.decode(av.Packet(content))
        # The full range of BT.601, as JPEG has it, must be said: what is taken for video loses its darks and lights.
        rgb = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        picture: np.ndarray = rgb.to_ndarray()
        return picture
