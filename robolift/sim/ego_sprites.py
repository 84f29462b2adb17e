"""What is drawn in the simulated egocentric videos: a table, an object, a goal and hands, with NumPy alone.

The hand has a palm, five tapering fingers and shading, because that is what a hand detector trained on photographs
needs: MediaPipe's finds it (scores 0.8 to 0.94) as long as it is an eighth to a quarter of the picture's larger side.
Colours are part of the contract with the colour-based detector: skin has r/(r+g+b) in [0.40, 0.48], nothing else more
than 0.38.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

Image = np.ndarray[Any, Any]

SKIN_TONES = ((214, 160, 122), (198, 140, 104), (232, 182, 146), (170, 116, 84))
SLEEVE = (38, 48, 92)
OBJECT = (30, 70, 235)
GOAL = (25, 215, 70)
TABLES = ((112, 118, 122), (110, 120, 116), (116, 119, 122), (110, 116, 122))
HAND_HEIGHT = 64 / 240
OBJECT_RADIUS = 20 / 240
RESTING_SCALE = 0.7
# Sprites are drawn this many times larger and averaged down, so that their edges are smooth.
_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Sprite:
    """A picture with transparency.

    Attributes:
        colour: (H, W, 3) float, 0 to 255, already multiplied by alpha.
        alpha: (H, W, 1) float, 0 to 1.
        anchor: (y, x) pixel of the sprite that lies at the place it is drawn at.
    """

    colour: Image
    alpha: Image
    anchor: tuple[int, int]

    def blurred(self, sigma: float) -> Sprite:
        """Return it out of focus, with room for the rim; ``sigma`` in pixels."""
        if sigma == 0:
            return self
        room = int(np.ceil(3 * sigma))
        pad = ((room, room), (room, room), (0, 0))
        return Sprite(
            gaussian_blur(np.pad(self.colour, pad), sigma),
            gaussian_blur(np.pad(self.alpha, pad), sigma),
            (self.anchor[0] + room, self.anchor[1] + room),
        )


def gaussian_blur(image: Image, sigma: float) -> Image:
    """Blur (H, W, C) with a Gaussian of ``sigma`` pixels; at the border the weights that are left count as all."""
    down, across = _kernel(len(image), sigma), _kernel(image.shape[1], sigma)
    return np.asarray(np.einsum("yi,ixc,jx->yjc", down, image, across, optimize=True))


@cache
def _kernel(size: int, sigma: float) -> Image:
    distance = np.arange(size)[:, None] - np.arange(size)[None]
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def _average_down(colour: Image, alpha: Image, anchor: tuple[float, float]) -> Sprite:
    s = _SUPERSAMPLING
    height, width = (length // s for length in alpha.shape)

    def mean(image: Image) -> Image:
        return np.asarray(image[: height * s, : width * s].reshape(height, s, width, s, -1).mean((1, 3)))

    return Sprite(mean(colour * alpha[..., None]), mean(alpha), (round(anchor[0]), round(anchor[1])))


def disc(radius: float, colour: tuple[int, int, int]) -> Sprite:
    """Return a shaded ball of ``radius`` pixels."""
    s = _SUPERSAMPLING
    half = int(np.ceil(radius)) * s
    y, x = np.mgrid[-half:half, -half:half] + 0.5
    distance = np.hypot(y, x) / (radius * s)
    light = 1 - 0.35 * np.clip(distance, 0, 1) ** 2
    return _average_down(light[..., None] * np.array(colour), (distance < 1).astype(float), (half / s, half / s))


def hand(height: float, skin: tuple[int, int, int], *, arm: float, mirrored: bool = False) -> Sprite:
    """Return the back of a hand with its fingers up and a sleeved forearm; anchored at the middle of the palm.

    Args:
        height: From fingertip to wrist, pixels.
        skin: Colour of the skin at its lightest.
        arm: Length of the sleeve below the wrist, pixels.
        mirrored: A left hand in place of a right one.
    """
    s = _SUPERSAMPLING
    rows, columns = int((height + arm) * s), int(0.9 * height) * s
    y, x = (np.mgrid[0:rows, 0:columns] + 0.5) / (height * s)
    palm = _capsule(x, y, (0.43, 0.62), (0.43, 0.80), 0.19, 0.16)
    depth, shade = palm, np.clip(palm / 0.19, 0, 1)
    tips = ((0.28, 0.50, 0.20, 0.20), (0.39, 0.46, 0.36, 0.08), (0.50, 0.46, 0.51, 0.06), (0.60, 0.50, 0.65, 0.14))
    for x0, y0, x1, y1 in (*tips, (0.57, 0.72, 0.81, 0.44)):
        finger = _capsule(x, y, (x0, y0), (x1, y1), 0.065, 0.05)
        over_palm = np.where(depth > 0.03, shade, 0)
        shade = np.where(finger > 0, np.maximum(np.clip(finger / 0.06, 0, 1), over_palm), shade)
        depth = np.maximum(depth, finger)
    light = 0.62 + 0.38 * np.sqrt(shade)
    colour = light[..., None] * np.array(skin, float)
    sleeve = (depth <= 0) & (y > 0.88) & (np.abs(x - 0.43) < 0.19)
    colour[sleeve] = SLEEVE
    alpha = ((depth > 0) | sleeve).astype(float)
    if mirrored:
        colour, alpha = colour[:, ::-1], alpha[:, ::-1]
    middle = 0.43 * height
    return _average_down(colour, alpha, (0.62 * height, columns / s - middle if mirrored else middle))


def _capsule(x: Image, y: Image, start: tuple[float, float], end: tuple[float, float], r0: float, r1: float) -> Image:
    """Return how deep each point lies inside a capsule whose radius goes from ``r0`` to ``r1``; negative outside."""
    (ax, ay), (bx, by) = start, end
    along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2), 0, 1)
    return r0 + (r1 - r0) * along - np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay))


def table(height: int, width: int, rng: np.random.Generator) -> Image:
    """Return a (height, width, 3) float tabletop: grain, boards and some dull boxes; no colour of a hand."""
    image = np.tile(np.array(TABLES[rng.integers(len(TABLES))], float), (height, width, 1))
    coarse = rng.normal(size=(height // 12 + 1, width // 4 + 1)).repeat(12, 0)[:height].repeat(4, 1)[:, :width]
    image += (5 * coarse + rng.normal(scale=9, size=(height, width)))[..., None]
    image[rng.integers(8) :: max(height // 7, 1)] *= 0.72  # gaps between boards
    for _ in range(int(rng.integers(3, 6))):
        h, w = rng.integers(height // 16, height // 7, 2)
        y, x = rng.integers(0, height - h), rng.integers(0, width - w)
        image[y : y + h, x : x + w] = image[y : y + h, x : x + w] * 0.5 + rng.uniform(40, 80)
    return image
