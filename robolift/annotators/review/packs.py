"""Frames for the page: a recording's camera decoded in order, as packs of JPEGs that a browser unpacks by itself."""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from robolift.annotators.review.footage import Footage
from robolift.data.jpeg import JpegEncoder
from robolift.data.video_decoder import VideoDecoder

MAGIC = b"RLFP"
CHUNK = 64
FIRST = 8
"""Frames of an episode's first chunk: the page shows frame 0 before the others are decoded."""
MAX_FRAMES = 256
"""Most frames of one pack."""
OPEN_VIDEOS = 8
CACHE_BYTES = 256 << 20


def pack(pictures: Sequence[bytes]) -> bytes:
    """Return pictures as one body: magic, count, count + 1 offsets counted from the first picture, pictures."""
    offsets = [0]
    for picture in pictures:
        offsets.append(offsets[-1] + len(picture))
    return b"".join([MAGIC, struct.pack(f"<{len(offsets) + 1}I", len(pictures), *offsets), *pictures])


def _chunk_of(frame: int) -> tuple[int, int]:
    """Return the first frame of the chunk that holds ``frame``, and of the next one."""
    first = frame // CHUNK * CHUNK
    if first == 0 and FIRST < CHUNK:
        return (0, FIRST) if frame < FIRST else (FIRST, CHUNK)
    return first, first + CHUNK


@dataclass
class _Film:
    """One camera of one recording, open where decoding stopped last; not open yet until it is first decoded."""

    decoder: VideoDecoder | None = None
    start_s: float = 0.0
    length: int = 0
    encoder: JpegEncoder | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False


class Packs:
    """Decodes and encodes frames by chunks, and keeps those used last."""

    def __init__(self, footage: Footage, *, cache_bytes: int = CACHE_BYTES) -> None:
        """Serve frames of ``footage``, keeping at most ``cache_bytes`` of JPEGs."""
        self._footage = footage
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self._chunks: OrderedDict[tuple[int, str, int], list[bytes]] = OrderedDict()
        self._films: OrderedDict[tuple[int, str], _Film] = OrderedDict()
        self._lock = threading.Lock()
        self.decoded = 0

    def frames(self, number: int, camera: str, start: int, stop: int) -> bytes:
        """Return frames ``start`` to ``stop`` (exclusive) of a recording as a pack.

        Going through a recording in order decodes each frame once: the video stays open between chunks.

        Raises:
            DataError: If the video is missing, damaged, changed or too short.
            UsageError: If there is no such recording or camera.
        """
        pictures: list[bytes] = []
        while start < stop:
            first, end = _chunk_of(start)
            pictures += self._chunk(number, camera, first)[start - first : stop - first]
            start = end
        return pack(pictures)

    def close(self) -> None:
        """Close all videos."""
        with self._lock:
            films, self._films = list(self._films.values()), OrderedDict()
        for film in films:
            self._shut(film)

    def _chunk(self, number: int, camera: str, first: int) -> list[bytes]:
        key = (number, camera, first)
        while True:
            if (held := self._held(key)) is not None:
                return held
            film = self._film(number, camera)
            with film.lock:
                if (held := self._held(key)) is not None:  # another request was waiting for the same
                    return held
                if film.closed:  # others needed the place
                    continue
                pictures = self._decode(film, self._opened(film, number, camera), first)
                self._keep(key, pictures)
                return pictures

    def _opened(self, film: _Film, number: int, camera: str) -> VideoDecoder:
        """Return the film's decoder; a store may take seconds to give the video, while others go on with theirs."""
        if film.decoder is None:
            clip = self._footage.video(number, camera)
            film.decoder, film.start_s, film.length = (
                VideoDecoder(clip.uri, fps=clip.fps),
                clip.start_s,
                clip.num_frames,
            )
        return film.decoder

    def _decode(self, film: _Film, decoder: VideoDecoder, first: int) -> list[bytes]:
        count = min(_chunk_of(first)[1], film.length) - first
        pictures = []
        for image in decoder.frames(start_s=film.start_s + first / decoder.fps, num_frames=count):
            if film.encoder is None:
                film.encoder = JpegEncoder((image.shape[0], image.shape[1]))
            pictures.append(film.encoder.encode(image))
        self.decoded += count
        return pictures

    def _film(self, number: int, camera: str) -> _Film:
        key, dropped = (number, camera), []
        with self._lock:
            film = self._films[key] = self._films.pop(key) if key in self._films else _Film()
            while len(self._films) > OPEN_VIDEOS:
                dropped.append(self._films.popitem(last=False)[1])
        for old in dropped:
            self._shut(old)
        return film

    @staticmethod
    def _shut(film: _Film) -> None:
        with film.lock:
            film.closed = True
            if film.decoder is not None:
                film.decoder.close()

    def _held(self, key: tuple[int, str, int]) -> list[bytes] | None:
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
            return self._chunks.get(key)

    def _keep(self, key: tuple[int, str, int], pictures: list[bytes]) -> None:
        with self._lock:
            self._chunks[key] = pictures
            self._held_bytes += sum(map(len, pictures))
            while self._held_bytes > self._cache_bytes and len(self._chunks) > 1:
                _, old = self._chunks.popitem(last=False)
                self._held_bytes -= sum(map(len, old))
