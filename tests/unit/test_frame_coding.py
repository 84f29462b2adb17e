"""Single pictures become bytes and come back: raw, PNG and JPEG."""

from __future__ import annotations

import numpy as np
import pytest

from robolift.data.frame_coding import Coding
from robolift.errors import DataError

CODINGS = [Coding(format="raw"), Coding(format="png"), Coding(format="jpeg", quantizer=4)]


def test_jpeg_keeps_greys_and_the_mean_of_a_picture():
    y, x = np.mgrid[:40, :60]
    soft = np.stack([4 * x, 6 * y, 255 - 4 * x], axis=-1).astype(np.uint8)
    coder, found = Coding(format="jpeg").coder((40, 60)), np.empty_like(soft)
    for level in (0, 16, 128, 200, 235, 255):
        coder.decode(np.frombuffer(coder.encode(np.full_like(soft, level)), np.uint8), found)
        assert np.abs(found.astype(int) - level).max() <= 1
    coder.decode(np.frombuffer(coder.encode(soft), np.uint8), found)
    assert np.abs(found.astype(int) - soft).mean() < 3
    assert abs(found.mean() - soft.mean()) < 1.5


def test_a_coder_that_was_used_before_gives_the_same_bytes_as_a_fresh_one():
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
    for coding in CODINGS:
        used = coding.coder((16, 24))
        for picture in pictures:
            content = used.encode(picture)
            assert content == coding.coder((16, 24)).encode(picture)
            found = np.empty_like(picture)
            used.decode(np.frombuffer(content, np.uint8), found)
            assert np.array_equal(found, picture) or not coding.lossless


def test_wrong_pictures_of_a_coder_are_told():
    into = np.empty((4, 6, 3), np.uint8)
    with pytest.raises(DataError, match=r"7 bytes[\s\S]*expected: 72"):
        Coding().coder((4, 6)).decode(np.zeros(7, np.uint8), into)
    for coding in CODINGS[1:]:
        other = coding.coder((8, 8)).encode(np.zeros((8, 8, 3), np.uint8))
        with pytest.raises(DataError, match=r"8x8[\s\S]*expected: 4x6"):
            coding.coder((4, 6)).decode(np.frombuffer(other, np.uint8), into)
