"""Egocentric-looking videos of known quality: a hand carries objects to goals on a table, filmed well or badly.

Everything is drawn once a video, in a few grades of blur, and pasted a frame at a time: 30 s of 240x320 at 30 fps take
about a second to draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolift.sim import ego_sprites as sprites
from robolift.sim.ego_motion import FACTORS, SHAKE, Course, Manner, course, manner
from robolift.sim.ego_sprites import Sprite

Image = np.ndarray[Any, Any]

MAX_BLUR = 0.02
"""Standard deviation of the worst blur, in picture heights."""
_BLUR_GRADES = 7


@dataclass(frozen=True, kw_only=True)
class EgoVideo:
    """One simulated video, before it is drawn.

    Attributes:
        video_id: ``<participant>_<number>``, as EPIC-KITCHENS names its videos.
        participant_id: ``P01`` and so on.
        who: The participant's manner.
        course: What happens.
        height: Of the picture, pixels; the width is 4/3 of it, both even.
        fps: Frames a second.
        seed: Decides table and objects.
    """

    video_id: str
    participant_id: str
    who: Manner
    course: Course
    height: int
    fps: float
    seed: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, round(self.height * 2 / 3) * 2


def plan_videos(
    *, num_videos: int, num_participants: int, seconds: float, height: int, fps: float, seed: int
) -> list[EgoVideo]:
    """Draw the videos of a set; each depends on the seed and its own number alone."""
    people = [manner(np.random.default_rng([seed, 1, k]), len(sprites.SKIN_TONES)) for k in range(num_participants)]
    videos = []
    for index in range(num_videos):
        number, participant = divmod(index, num_participants)
        name = f"P{participant + 1:02d}"
        videos.append(
            EgoVideo(
                video_id=f"{name}_{number + 1:02d}",
                participant_id=name,
                who=people[participant],
                course=course(
                    people[participant], seconds=seconds, fps=fps, rng=np.random.default_rng([seed, 2, index])
                ),
                height=height,
                fps=fps,
                seed=(seed, 3, index),
            )
        )
    return videos


def render(video: EgoVideo) -> Iterator[Image]:
    """Yield the frames of a video, each (H, W, 3) uint8 RGB."""
    drawer = _Drawer(video)
    for t in range(len(video.course.hand)):
        yield drawer.frame(t)


class _Drawer:
    """Draws the frames of one video from a table and sprites kept in every grade of blur that it needs."""

    def __init__(self, video: EgoVideo) -> None:
        rng = np.random.default_rng(list(video.seed))
        self._video = video
        self._size = video.size
        self._margin = int(np.ceil(SHAKE * video.height)) + 1
        self._second = np.array([0.95, 0.18 if not video.who.left_handed else video.size[1] / video.height - 0.18])
        self._table = sprites.table(self._size[0] + 2 * self._margin, self._size[1] + 2 * self._margin, rng)
        skin = sprites.SKIN_TONES[video.who.skin]
        hand = sprites.HAND_HEIGHT * video.height
        left = video.who.left_handed
        ball = sprites.OBJECT_RADIUS * video.height
        self._sprites = {
            "object": sprites.disc(ball, sprites.OBJECT),
            "goal": sprites.disc(ball, sprites.GOAL),
            "hand": sprites.hand(hand, skin, arm=video.height, mirrored=left),
            "second": sprites.hand(hand * sprites.RESTING_SCALE, skin, arm=video.height / 2, mirrored=not left),
        }
        self._grades: dict[int, tuple[Image, dict[str, Sprite]]] = {}
        self._tone: tuple[tuple[float, ...], Image] | None = None

    def frame(self, t: int) -> Image:
        course = self._video.course
        values = dict(zip(FACTORS, course.factors[t].tolist(), strict=True))
        grade = round((1 - values["sharpness"]) * (_BLUR_GRADES - 1))
        table, parts = self._graded(grade)
        shift = np.round(course.camera[t] * self._video.height).astype(int)
        y, x = self._margin - shift
        picture = table[y : y + self._size[0], x : x + self._size[1]].copy()
        names = [("goal" if course.carrying[t] else "object", course.target[t])]
        if values["hands"]:
            names += [("second", self._second)] if self._video.who.second_hand else []
            names += [("hand", course.hand[t])]
        for name, place in names:
            _paste(picture, parts[name], np.round(place * self._video.height).astype(int) + shift)
        tone = (values["sharpness"], values["exposure"], float(course.too_dark[t]))
        if self._tone is None or self._tone[0] != tone:
            self._tone = (tone, tone_curve(*tone))
        return np.take(self._tone[1], picture)

    def _graded(self, grade: int) -> tuple[Image, dict[str, Sprite]]:
        """Return table and sprites in one grade of blur, in whole numbers: 8 bits after the point are plenty."""
        if grade not in self._grades:
            sigma = grade / (_BLUR_GRADES - 1) * MAX_BLUR * self._video.height
            table = sprites.gaussian_blur(self._table, sigma) if sigma else self._table
            soft = {name: sprite.blurred(sigma) for name, sprite in self._sprites.items()}
            whole = {
                name: Sprite(
                    np.round(sprite.colour * 256).astype(np.uint16),
                    np.round(256 - sprite.alpha * 256).astype(np.uint16),
                    sprite.anchor,
                )
                for name, sprite in soft.items()
            }
            self._grades[grade] = table.clip(0, 255).astype(np.uint8), whole
        return self._grades[grade]


def tone_curve(sharpness: float, exposure: float, too_dark: float) -> Image:
    """Return what each 8-bit value becomes: a defocused lens is also veiled, and a wrong exposure dims or burns out."""
    contrast = 1 - 0.15 * (1 - sharpness)
    gain = 1 - 0.7 * (1 - exposure) if too_dark else 1 + 0.3 * (1 - exposure)
    values = np.arange(256.0)
    return np.asarray(np.clip(gain * (118 + contrast * (values - 118)), 0, 255).round().astype(np.uint8))


def _paste(picture: Image, sprite: Sprite, place: Image) -> None:
    """Draw a sprite, in whole numbers and with 256 minus alpha as its alpha, into the part of it that is in view."""
    top, left = (int(place[axis]) - sprite.anchor[axis] for axis in (0, 1))
    height, width = sprite.alpha.shape[:2]
    y0, y1 = max(top, 0), min(top + height, len(picture))
    x0, x1 = max(left, 0), min(left + width, picture.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    region = picture[y0:y1, x0:x1]
    region[:] = (region * sprite.alpha[inside] + sprite.colour[inside]) >> 8
