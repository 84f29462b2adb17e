"""Random views of training frames; what is drawn depends on seed and step, never on the number of processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolift.data.frames import Frames
from robolift.value_model.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The chance of one step, a row for each value of the batch.

    The frames of a pair share camera and light, as they do in an episode; noise is drawn for each.

    Attributes:
        shift: (B, K, 2) int64 pixels down and right.
        gain: (B, K) float32 factor on brightness.
        noise: (B, P, S) float32 added to the normalised state of each of the P frames of a value.
    """

    shift: np.ndarray
    gain: np.ndarray
    noise: np.ndarray

    def part(self, rows: slice) -> Draws:
        """Return the rows of one process."""
        return Draws(shift=self.shift[rows], gain=self.gain[rows], noise=self.noise[rows])


def draw(recipe: Recipe, step: int, *, num_cameras: int, state_dim: int, num_frames: int = 1) -> Draws:
    """Draw for the whole batch of ``step``, every process the same."""
    rng = np.random.default_rng([recipe.seed, step, recipe.batch_size])
    batch, reach = recipe.batch_size, recipe.shift_px
    return Draws(
        shift=rng.integers(-reach, reach + 1, size=(batch, num_cameras, 2)),
        gain=rng.uniform(1 - recipe.brightness, 1 + recipe.brightness, (batch, num_cameras)).astype(np.float32),
        noise=(recipe.input_noise * rng.standard_normal((batch, num_frames, state_dim))).astype(np.float32),
    )


def shifted(images: Frames | np.ndarray, rows: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return frames moved by whole pixels, the border repeated.

    Args:
        images: (N, K, H, W, 3) uint8 by row; only ``rows`` are read.
        rows: (B,) frames wanted.
        shift: (B, K, 2) pixels that the content moves down and right.

    Returns:
        (B, K, H, W, 3) uint8.
    """
    found = images[rows]
    result = np.empty_like(found)
    for target, frame, shifts in zip(result, found, shift, strict=True):
        for view, image, (down, right) in zip(target, frame, shifts, strict=True):
            _shift_into(view, image, int(down), int(right))
    return result


def _shift_into(view: np.ndarray, image: np.ndarray, down: int, right: int) -> None:
    """Write ``image`` moved into ``view``: four slices, a quarter of the time of index arrays."""
    height, width, _ = view.shape
    top, bottom = max(down, 0), height + min(down, 0)
    left, end = max(right, 0), width + min(right, 0)
    view[top:bottom, left:end] = image[top - down : bottom - down, left - right : end - right]
    view[:top, left:end] = view[top, left:end]
    view[bottom:, left:end] = view[bottom - 1, left:end]
    view[:, :left] = view[:, left : left + 1]
    view[:, end:] = view[:, end - 1 : end]
