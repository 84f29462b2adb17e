from __future__ import annotations

import io
import itertools
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from robolift.annotators.review import packs as module
from robolift.annotators.review.footage import EpisodeFootage
from robolift.annotators.review.packs import Packs, pack
from robolift.data.dataset import Dataset
from robolift.data.jpeg import JpegEncoder
from robolift.errors import UsageError

CAMERA = "observation.images.topview"


def unpack(body: bytes) -> list[bytes]:
    """Read a pack as the page does."""
    assert body[:4] == b"RLFP"
    (count,) = struct.unpack_from("<I", body, 4)
    offsets = struct.unpack_from(f"<{count + 1}I", body, 8)
    first = 8 + 4 * (count + 1)
    assert first + offsets[-1] == len(body)
    return [body[first + start : first + stop] for start, stop in itertools.pairwise(offsets)]


def pixels(picture: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(picture))
    assert image.format == "JPEG"
    return np.asarray(image.convert("RGB"))


@pytest.fixture
def opened(dataset):
    return Dataset.open(dataset)


@pytest.fixture
def packs(opened):
    made = Packs(EpisodeFootage(opened))
    yield made
    made.close()


def test_the_format_by_hand():
    assert (
        pack([b"ab", b"", b"cde"])
        == b"RLFP" + bytes([3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0]) + b"abcde"
    )
    assert pack([]) == b"RLFP" + bytes(8)


def test_a_pack_holds_the_frames_asked_for(opened, packs):
    truth = list(opened.video(2, CAMERA))
    pictures = unpack(packs.frames(2, CAMERA, 3, 17))
    assert len(pictures) == 14
    for picture, image in zip(pictures, truth[3:17], strict=True):
        assert np.abs(pixels(picture).astype(int) - image).mean() < 3


def test_going_through_an_episode_decodes_each_frame_once(opened, packs, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 5)
    seeks = []
    found = unpack(packs.frames(2, CAMERA, 0, 5))
    decoder = packs._films[2, CAMERA].decoder
    seek = decoder._seek
    monkeypatch.setattr(decoder, "_seek", lambda time_s: (seeks.append(time_s), seek(time_s)))
    for start in range(5, 24, 5):
        found += unpack(packs.frames(2, CAMERA, start, min(start + 5, 24)))
    assert (packs.decoded, seeks) == (24, [])
    assert packs._films[2, CAMERA].decoder is decoder
    assert found == unpack(packs.frames(2, CAMERA, 0, 24))
    assert packs.decoded == 24  # from the cache


def test_the_first_frames_do_not_wait_for_the_rest_of_their_chunk(opened, packs, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 10)
    monkeypatch.setattr(module, "FIRST", 3)
    found = unpack(packs.frames(2, CAMERA, 0, 3))
    assert packs.decoded == 3
    found += unpack(packs.frames(2, CAMERA, 3, 10))
    assert packs.decoded == 10
    other = Packs(EpisodeFootage(opened))
    assert found + unpack(packs.frames(2, CAMERA, 10, 24)) == unpack(other.frames(2, CAMERA, 0, 24))
    assert unpack(packs.frames(2, CAMERA, 2, 12)) == unpack(other.frames(2, CAMERA, 2, 12))
    other.close()


def test_chunks_out_of_order_and_side_by_side_are_the_same(opened, packs, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    whole = unpack(packs.frames(2, CAMERA, 0, 24))
    other = Packs(EpisodeFootage(opened))
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: other.frames(2, CAMERA, start, start + 4), [20, 0, 12, 4, 16, 8, 0, 20]))
    found = dict(zip([20, 0, 12, 4, 16, 8], parts, strict=False))
    assert [picture for start in sorted(found) for picture in unpack(found[start])] == whole
    assert other.decoded == 24
    other.close()


def test_the_cache_is_bounded_in_bytes(opened, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    packs = Packs(EpisodeFootage(opened), cache_bytes=2000)
    for start in range(0, 24, 4):
        packs.frames(2, CAMERA, start, start + 4)
    assert packs._held_bytes == sum(len(picture) for chunk in packs._chunks.values() for picture in chunk)
    assert packs._held_bytes <= 2000 or len(packs._chunks) == 1
    assert (2, CAMERA, 20) in packs._chunks
    packs.close()


def test_few_videos_stay_open_and_all_can_be_read(opened, monkeypatch):
    monkeypatch.setattr(module, "OPEN_VIDEOS", 2)
    packs = Packs(EpisodeFootage(opened), cache_bytes=1)
    jobs = [(episode, camera) for episode in range(8) for camera in opened.cameras] * 3
    with ThreadPoolExecutor(6) as pool:
        for body in pool.map(lambda job: packs.frames(*job, 0, 6), jobs):
            assert len(unpack(body)) == 6
    assert len(packs._films) <= 2
    packs.close()


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (48, 64)])
def test_jpegs_are_faithful_and_the_same_each_time(size):
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.stack([x * 5 % 256, y * 5 % 256, np.full_like(x, 128)], axis=-1).astype(np.uint8)
    encoder = JpegEncoder(size)
    first = encoder.encode(image)
    encoder.encode(255 - image)
    assert encoder.encode(image) == first == JpegEncoder(size).encode(image)
    assert pixels(first).shape == image.shape
    assert np.abs(pixels(first).astype(int) - image).mean() < 4


@pytest.mark.parametrize("image", [np.zeros((2, 3, 3), np.float32), np.zeros((3, 2, 3), np.uint8)])
def test_another_picture_than_announced_is_refused(image):
    with pytest.raises(UsageError, match=r"expected uint8 \(2, 3, 3\)"):
        JpegEncoder((2, 3)).encode(image)


def test_a_video_that_opens_slowly_keeps_no_other_waiting(packs, monkeypatch):
    begun, hold = threading.Event(), threading.Event()
    real = module.VideoDecoder

    def open_video(uri, **given):
        if not begun.is_set():
            begun.set()
            assert hold.wait(timeout=120)
        return real(uri, **given)

    monkeypatch.setattr(module, "VideoDecoder", open_video)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(packs.frames, 0, CAMERA, 0, 2)
        assert begun.wait(timeout=120)
        try:
            assert len(unpack(pool.submit(packs.frames, 1, CAMERA, 0, 2).result(timeout=60))) == 2
            assert not slow.done()
        finally:
            hold.set()
        assert len(unpack(slow.result())) == 2
