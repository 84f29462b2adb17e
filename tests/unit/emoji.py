"""Pictures of hands that MediaPipe finds: those of Debian's emoji font."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
FONT_PX = 109  # the only size that this bitmap font has
RAISED_HAND = "\N{RAISED HAND}"


def with_hand(x: int, y: int, *, side: int = 240, hand_px: int = 70) -> np.ndarray:
    """Return a light grey (side, side, 3) picture with a raised hand whose upper left corner is at (x, y)."""
    drawn = Image.new("RGBA", (136, 128))
    font = ImageFont.truetype(FONT, FONT_PX)
    ImageDraw.Draw(drawn).text((0, 0), RAISED_HAND, font=font, embedded_color=True)
    hand = drawn.resize((hand_px, hand_px))
    picture = Image.new("RGB", (side, side), (200, 200, 200))
    picture.paste(hand, (x, y), hand)
    return np.asarray(picture)
