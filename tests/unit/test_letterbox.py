"""Pictures of any size as squares: where they lie, what fills the rest, and that packed frames are the same."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

from robolift.data.dataset import Dataset
from robolift.data.frames import pack_frames
from robolift.data.letterbox import inner_size, letterbox, place, put


@pytest.mark.parametrize(
    ("size", "outer", "inner"),
    [
        ((480, 640), (224, 224), (168, 224)),
        ((640, 480), (224, 224), (224, 168)),
        ((100, 100), (28, 28), (28, 28)),
        ((1, 1000), (28, 28), (1, 28)),  # never less than a pixel
        ((10, 20), (28, 28), (14, 28)),  # scaled up as well
    ],
)
def test_a_picture_keeps_its_shape(size, outer, inner):
    assert inner_size(size, outer) == inner


def test_it_lies_in_the_middle_and_black_fills_the_rest():
    assert place((168, 224), (224, 224)) == (slice(28, 196), slice(0, 224))
    assert place((3, 4), (4, 4)) == (slice(0, 3), slice(0, 4))
    wide = np.full((2, 10, 20, 3), 200, np.uint8)
    boxed = letterbox(wide, (8, 8))
    assert boxed.shape == (2, 8, 8, 3)
    assert (boxed[:, 2:6] == 200).all()
    assert (boxed[:, :2] == 0).all()
    assert (boxed[:, 6:] == 0).all()
    assert letterbox(wide, (10, 20)) is wide


def test_scaling_averages_areas():
    checks = np.indices((8, 8)).sum(0) % 2 * 255
    boxed = letterbox(np.repeat(checks[None, :, :, None], 3, axis=3).astype(np.uint8), (4, 4))
    assert np.abs(boxed.astype(int) - 127).max() <= 1


def test_packed_frames_are_padded_or_stretched(dataset, tmp_path):
    opened = Dataset.open(dataset)
    packed = pack_frames(opened, [synthetic.TOPVIEW], size=(20, 12), folder=tmp_path, padded=True)
    stretched = pack_frames(opened, [synthetic.TOPVIEW], size=(20, 12), folder=tmp_path)
    # Square pictures of 32 pixels: 12 x 12, in rows 4 to 16.
    assert (packed[:, :, :4] == 0).all()
    assert (packed[:, :, 16:] == 0).all()
    decoded = next(iter(opened.video(0, synthetic.TOPVIEW, size=(12, 12))))
    assert (packed[0, 0, 4:16] == decoded).all()
    assert (stretched[0, 0, :4] > 0).any()


def test_a_picture_is_put_in_the_middle_of_black_whatever_was_there():
    target = np.full((4, 5, 3), 9, np.uint8)
    put(np.full((2, 2, 3), 7, np.uint8), target)
    assert target[..., 0].tolist() == [[0] * 5, [0, 7, 7, 0, 0], [0, 7, 7, 0, 0], [0] * 5]
    put(np.full((4, 5, 3), 8, np.uint8), target)
    assert (target == 8).all()
