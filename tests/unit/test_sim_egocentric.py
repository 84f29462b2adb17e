"""Simulated egocentric videos: the planted quality is in the pictures, and the hand's way can be learned."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from robolift import schema, storage
from robolift.sim import ego_motion, ego_sprites
from robolift.sim.ego_motion import FACTORS, Course, Manner, course
from robolift.sim.egocentric import EgoVideo, plan_videos, render, tone_curve
from robolift.stages import stage

SMALL = {"num_videos": 3, "num_participants": 2, "seconds": 6.0, "height": 96, "fps": 15.0}
WHO = Manner(care=(0.0,) * 5, skin=0, left_handed=False, second_hand=False)


def still(**factors: float) -> np.ndarray:
    """One frame of a hand at the middle, sharp and well exposed unless said otherwise."""
    values = dict.fromkeys(FACTORS, 1.0) | factors
    frames = 1
    video = EgoVideo(
        video_id="v",
        participant_id="P01",
        who=WHO,
        course=Course(
            factors=np.array([[values[name] for name in FACTORS]]),
            too_dark=np.array([True]),
            hand=np.tile([0.5, 0.4], (frames, 1)),
            target=np.tile([0.3, 1.0], (frames, 1)),
            carrying=np.zeros(frames, bool),
            camera=np.zeros((frames, 2)),
            tasks=(),
        ),
        height=240,
        fps=15.0,
        seed=(7,),
    )
    return next(render(video))


def skin(image: np.ndarray) -> np.ndarray:
    total = image.astype(float).sum(2)
    share = image / np.maximum(total, 1)[..., None]
    return (share[..., 0] > 0.39) & (share[..., 0] < 0.49) & (share[..., 1] > 0.28) & (total > 60)


def sharpness(image: np.ndarray) -> float:
    grey = image.astype(float).mean(2)
    return float((4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]).var())


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return stage.execute("simulate_videos", SMALL, {}, str(tmp_path_factory.mktemp("ego")))


def test_the_hand_is_where_it_is_said_to_be_and_the_only_skin():
    mask = skin(still())
    y, x = np.argwhere(mask).mean(0)
    assert (y, x) == (pytest.approx(0.5 * 240, abs=12), pytest.approx(0.4 * 240, abs=6))
    assert 0.015 < mask.mean() < 0.035
    assert not skin(still(hands=0.0)).any()


def test_bad_moments_look_bad():
    assert sharpness(still(sharpness=0.0)) < 0.02 * sharpness(still())
    assert still(exposure=0.0).mean() < 0.35 * still().mean()
    assert tone_curve(1.0, 0.0, 0.0)[200] == 255
    np.testing.assert_array_equal(tone_curve(1.0, 1.0, 1.0), np.arange(256))


def test_utility_is_the_documented_sum():
    drawn = course(WHO, seconds=20, fps=15, rng=np.random.default_rng(3))
    weights = {"sharpness": 0.25, "exposure": 0.25, "steadiness": 1.2, "hands": 1.2, "purpose": 0.3}
    assert weights == ego_motion.UTILITY_WEIGHTS
    expected = sum(weight * drawn.factors[:, FACTORS.index(name)] for name, weight in weights.items())
    np.testing.assert_allclose(drawn.utility, expected)
    hands, purpose = drawn.factors[:, 3], drawn.factors[:, 4]
    assert (purpose[hands == 0] == 0).all()


def test_a_purposeful_hand_nears_its_target_as_documented_and_an_idle_one_does_not():
    fps = 30.0
    drawn = course(WHO, seconds=120, fps=fps, rng=np.random.default_rng(5))
    purpose = drawn.factors[:, 4] > 0
    ahead = round(0.5 * fps)
    share = 1 - np.exp(-ego_motion.APPROACH / 2)
    steady = [t for t in range(len(purpose) - ahead) if (drawn.target[t] == drawn.target[t + ahead]).all()]
    working = [t for t in steady if purpose[t : t + ahead + 1].all()]
    idle = [t for t in steady if (drawn.factors[t : t + ahead + 1, 3:] == [1, 0]).all()]
    assert min(len(working), len(idle)) > 200
    moved = drawn.hand[np.array(working) + ahead] - drawn.hand[working]
    np.testing.assert_allclose(moved, share * (drawn.target - drawn.hand)[working], atol=1e-9)
    wandered = drawn.hand[np.array(idle) + ahead] - drawn.hand[idle]
    toward = share * (drawn.target - drawn.hand)[idle]
    assert abs(np.corrcoef(wandered.ravel(), toward.ravel())[0, 1]) < 0.5


def test_an_unsteady_camera_jerks_and_a_steady_one_hardly_moves():
    rng = np.random.default_rng(0)
    steady, shaky = (ego_motion._camera(np.full(300, level), 30.0, rng) for level in (1.0, 0.0))
    jerk = [np.abs(np.diff(camera, 3, axis=0)).mean() for camera in (steady, shaky)]
    assert jerk[1] > 50 * jerk[0]
    assert np.abs(shaky).max() <= ego_motion.SHAKE


def test_only_the_hand_has_the_colour_of_skin():
    for tone in ego_sprites.SKIN_TONES:
        assert 0.40 <= tone[0] / sum(tone) <= 0.48
        assert 0.29 <= tone[1] / sum(tone) <= 0.35
    for other in (ego_sprites.SLEEVE, ego_sprites.OBJECT, ego_sprites.GOAL, *ego_sprites.TABLES):
        assert other[0] / sum(other) < 0.38


def test_a_video_depends_on_the_seed_and_its_number_alone():
    facts = {"num_participants": 2, "seconds": 6.0, "height": 96, "fps": 15.0}
    few = plan_videos(num_videos=2, seed=1, **facts)
    many = plan_videos(num_videos=4, seed=1, **facts)
    other = plan_videos(num_videos=2, seed=2, **facts)
    for a, b in zip(few, many, strict=False):
        assert a.video_id == b.video_id
        np.testing.assert_array_equal(a.course.hand, b.course.hand)
    assert not np.array_equal(few[0].course.hand, other[0].course.hand)
    assert [video.video_id for video in many] == ["P01_01", "P02_01", "P01_02", "P02_02"]


def test_the_stage_writes_videos_annotations_and_truth(recording, tmp_path):
    folder = storage.local_path(recording.uri)
    assert sorted(path.name for path in (folder / "videos").iterdir()) == ["P01_01.mp4", "P01_02.mp4", "P02_01.mp4"]
    truth = schema.read_parquet(f"{recording.uri}/truth.parquet")
    assert truth.num_rows == recording.counts["frames"] == 3 * 90
    assert set(FACTORS) < set(truth.column_names)
    absent = truth.column("hands").to_numpy() == 0
    np.testing.assert_array_equal(truth.column("hand_x").is_null().to_numpy(), absent)
    rows = list(csv.DictReader(io.StringIO((folder / "annotations.csv").read_text())))
    assert len(rows) == recording.counts["segments"] > 0
    assert all(0 <= float(row["start_s"]) < float(row["stop_s"]) <= 6 for row in rows)
    again = stage.execute("simulate_videos", SMALL, {}, str(tmp_path))
    assert again.files == recording.files
    assert Path(folder / "videos" / "P01_01.mp4").stat().st_size > 1000
