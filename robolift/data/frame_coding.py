"""How single pictures of a frame cache become bytes and come back: as they are, as PNG, or as JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol

import av
import numpy as np
from av.video.frame import VideoFrame

from robolift.data.jpeg import QUANTIZER, JpegDecoder, JpegEncoder
from robolift.errors import DataError

Format = Literal["raw", "jpeg", "png"]
Size = tuple[int, int]

# Bytes that a pixel takes, about: measured on pictures of robots and synthetic ones of 168x224 to 448x448.
BYTES_PER_PIXEL: dict[Format, float] = {"raw": 3.0, "jpeg": 0.25, "png": 2.0}


@dataclass(frozen=True, kw_only=True)
class Coding:
    """What bytes a picture becomes.

    Attributes:
        format: ``raw`` (uint8), ``png`` or ``jpeg`` (colour at half resolution).
        quantizer: JPEG's, of FFmpeg's scale, from 1, the best, to 31, the smallest.
    """

    format: Format = "raw"
    quantizer: int = QUANTIZER

    @property
    def lossless(self) -> bool:
        """Whether pictures come back as they were."""
        return self.format != "jpeg"

    def estimate(self, size: Size) -> float:
        """Return about how many bytes a picture of ``size`` takes."""
        return BYTES_PER_PIXEL[self.format] * size[0] * size[1]

    def coder(self, size: Size) -> Coder:
        """Return what encodes and decodes pictures of ``size``, for one thread at a time."""
        if self.format == "raw":
            return RawCoder(size)
        return PngCoder(size) if self.format == "png" else JpegCoder(size, self.quantizer)


class Coder(Protocol):
    """Encodes and decodes pictures of one size."""

    def encode(self, pixels: np.ndarray) -> bytes:
        """Return the bytes of a (H, W, 3) uint8 picture; the same picture gives the same bytes."""
        ...

    def decode(self, content: np.ndarray, into: np.ndarray) -> None:
        """Write the (H, W, 3) uint8 picture of (n,) uint8 ``content``.

        Raises:
            DataError: If they are not the bytes of such a picture.
        """
        ...


@dataclass
class RawCoder:
    """Pixels as they are."""

    size: Size

    def encode(self, pixels: np.ndarray) -> bytes:
        """See Coder."""
        return pixels.tobytes()

    def decode(self, content: np.ndarray, into: np.ndarray) -> None:
        """See Coder."""
        expected = self.size[0] * self.size[1] * 3
        if len(content) != expected:
            raise damaged(f"{len(content)} bytes", f"{expected}")
        into[...] = content.reshape(*self.size, 3)


class JpegCoder:
    """JPEG with colour at half resolution."""

    def __init__(self, size: Size, quantizer: int) -> None:
        self._encoder = JpegEncoder(size, quantizer=quantizer, half_colour=True)
        self._decoder = JpegDecoder()

    def encode(self, pixels: np.ndarray) -> bytes:
        """See Coder."""
        return self._encoder.encode(pixels)

    def decode(self, content: np.ndarray, into: np.ndarray) -> None:
        """See Coder."""
        try:
            found = self._decoder.decode(content.tobytes())
        except (av.FFmpegError, ValueError) as error:
            raise damaged(str(error), "a JPEG file") from error
        _put(found, into)


class PngCoder:
    """PNG with Paeth's filter, quickly compressed: two thirds of the pixels' bytes where there is noise."""

    def __init__(self, size: Size) -> None:
        encoder: Any = av.CodecContext.create("png", "w")
        encoder.height, encoder.width = size
        encoder.pix_fmt = "rgb24"
        encoder.time_base = Fraction(1, 1)
        encoder.thread_count = 1
        encoder.options = {"pred": "paeth", "compression_level": "1"}
        decoder: Any = av.CodecContext.create("png", "r")
        decoder.thread_count = 1
        self._encoder, self._decoder = encoder, decoder
        self._count = 0

    def encode(self, pixels: np.ndarray) -> bytes:
        """See Coder."""
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts = self._count
        self._count += 1
        return b"".join(bytes(packet) for packet in self._encoder.encode(frame))

    def decode(self, content: np.ndarray, into: np.ndarray) -> None:
        """See Coder."""
        packet = av.Packet(content.tobytes())
        packet.is_keyframe = True  # any other is added to the picture decoded before
        try:
            (frame,) = self._decoder.decode(packet)
        except (av.FFmpegError, ValueError) as error:
            raise damaged(str(error), "a PNG file") from error
        _put(frame.to_ndarray(format="rgb24"), into)


def _put(found: np.ndarray, into: np.ndarray) -> None:
    if found.shape != into.shape:
        raise damaged(f"{found.shape[0]}x{found.shape[1]}", f"{into.shape[0]}x{into.shape[1]}")
    into[...] = found


def damaged(found: str, expected: str) -> DataError:
    """Return what is said of bytes that are no picture."""
    return DataError(
        f"a picture of the frame cache is damaged: {found}", expected=expected, mend="delete the cache and pack again"
    )
