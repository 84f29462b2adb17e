from __future__ import annotations

import numpy as np
import pytest

from robolift.value_model.augment import draw, shifted
from robolift.value_model.recipe import Recipe


def test_content_moves_down_and_right_and_the_border_is_repeated():
    image = np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3, 1).repeat(3, axis=4)
    moved = shifted(image, np.array([0]), np.array([[[1, -1]]]))
    assert moved[0, 0, :, :, 0].tolist() == [[1, 2, 2], [1, 2, 2], [4, 5, 5]]
    assert np.array_equal(shifted(image, np.array([0]), np.array([[[0, 0]]])), image)


@pytest.mark.parametrize("size", [(8, 8), (5, 11)])
def test_shifts_equal_cropping_a_padded_image(size):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 2, *size, 3), dtype=np.uint8)
    rows = np.array([5, 0, 0, 3])
    shift = rng.integers(-4, 5, (4, 2, 2))
    found = shifted(images, rows, shift)
    for i, row in enumerate(rows):
        for k in range(2):
            padded = np.pad(images[row, k], ((4, 4), (4, 4), (0, 0)), mode="edge")
            top, left = 4 - shift[i, k]
            assert np.array_equal(found[i, k], padded[top : top + size[0], left : left + size[1]])


def test_draws_depend_on_seed_and_step_and_keep_their_bounds():
    recipe = Recipe(batch_size=200, shift_px=3, brightness=0.2, input_noise=0.5, seed=4)
    one, again = (draw(recipe, 9, num_cameras=2, state_dim=5) for _ in range(2))
    assert all(np.array_equal(getattr(one, name), getattr(again, name)) for name in ("shift", "gain", "noise"))
    assert not np.array_equal(one.shift, draw(recipe, 10, num_cameras=2, state_dim=5).shift)
    assert (one.shift.min(), one.shift.max()) == (-3, 3)
    assert 0.8 <= one.gain.min() < 0.85 < 1.15 < one.gain.max() <= 1.2
    assert one.noise.std() == pytest.approx(0.5, rel=0.1)
    part = one.part(slice(50, 60))
    assert np.array_equal(part.noise, one.noise[50:60])
    assert part.shift.shape == (10, 2, 2)


def test_augmentation_can_be_turned_off():
    calm = draw(Recipe(shift_px=0, brightness=0, input_noise=0), 0, num_cameras=1, state_dim=2)
    assert not calm.shift.any()
    assert (calm.gain == 1).all()
    assert not calm.noise.any()
