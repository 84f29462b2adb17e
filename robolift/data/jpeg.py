"""Encodes single pictures as JPEG, with the encoder that the video library brings along."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from robolift.errors import UsageError

# Of FFmpeg's scale, with colour at full resolution: a mean error like that of libjpeg's quality 90, in fewer bytes.
QUANTIZER = 3


class JpegEncoder:
    """Encodes pictures of one size; not for several threads at a time."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Set up the encoder for pictures of ``size`` (height, width)."""
        self.size = size
        context: Any = av.CodecContext.create("mjpeg", "w")
        context.height, context.width = size
        context.pix_fmt = "yuvj444p"
        context.time_base = Fraction(1, 1)
        context.thread_count = 1
        context.qmin = context.qmax = QUANTIZER
        self._context = context
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
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
            format="yuvj444p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG, threads=1
        )
        frame.pts = self._count
        self._count += 1
        return b"".join(bytes(packet) for packet in self._context.encode(frame))
