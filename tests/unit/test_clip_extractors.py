"""What extractors measure, on pictures whose numbers are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data
import skimage.filters
import skimage.measure
import skimage.registration
from small_clips import coloured, grey, shifted, texture, watch

from robolift.clips import extractors
from robolift.clips.extractor import Clip
from robolift.clips.extractors import blur, exposure, hands_colour, motion, shake
from robolift.clips.hand_path import HandPath
from robolift.clips.letterbox import picture_area
from robolift.clips.measuring import sample
from robolift.errors import UsageError

SKIN = (214, 160, 122)
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")


def grey_photograph(name: str) -> np.ndarray:
    return cv2.cvtColor(getattr(skimage.data, name)(), cv2.COLOR_RGB2GRAY)


def checkerboard(side: int) -> np.ndarray:
    return coloured((np.indices((side, side)).sum(axis=0) % 2 * 255).astype(np.uint8))


def test_all_files_of_the_package_are_registered():
    assert extractors.names() == ["blur", "embedding", "exposure", "hands", "hands_colour", "motion", "shake"]
    assert list(extractors.load(["motion", "blur"])) == ["motion", "blur"]


def test_extractors_that_are_unknown_or_fill_one_column_are_refused():
    with pytest.raises(UsageError, match=r"no extractor sharpness; there are: blur, .*motion"):
        extractors.load(["blur", "sharpness"])
    with pytest.raises(UsageError, match="hands and hands_colour both measure hands; choose one"):
        extractors.load(["hands", "hands_colour"])


def test_a_uniform_picture_has_no_edges_and_no_information():
    assert watch("blur", [grey(90)]).scalars == {"blur": 0.0}
    assert watch("exposure", [grey(90)]).scalars == {"exposure": 0.0}


def test_each_pixel_of_a_checkerboard_has_a_laplacian_of_four_steps():
    # Every neighbour of a 0 is 255 and the other way round, mirrored borders too: L = +-4 * 255, half of each.
    assert watch("blur", [checkerboard(8)]).scalars == {"blur": 1020.0**2}


def test_half_black_half_white_is_one_bit_and_four_equal_levels_are_two():
    halves = np.zeros((8, 8), np.uint8)
    halves[:, 4:] = 255
    quarters = np.repeat(np.array([0, 60, 120, 180], np.uint8), 16).reshape(8, 8)
    assert watch("exposure", [coloured(halves)]).scalars == {"exposure": 1.0}
    assert watch("exposure", [coloured(quarters)]).scalars == {"exposure": 2.0}
    # A clip has the mean of its frames.
    assert watch("exposure", [coloured(halves), coloured(quarters), grey(3, 8)]).scalars == {"exposure": 1.0}


def test_grey_is_of_red_green_blue_and_not_the_other_way_round():
    red = np.zeros((4, 8, 3), np.uint8)
    red[:, :4, 0] = 255
    # Red is 0.299 * 255 = 76: one column on each side of the edge has L = +-76, six columns have 0.
    assert watch("blur", [red]).scalars["blur"] == 2 * 76**2 / 8


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_give_what_scikit_image_gives(name):
    picture = grey_photograph(name)
    padded = np.pad(picture.astype(np.float64), 1, mode="reflect")
    oracle = skimage.filters.laplace(padded)[1:-1, 1:-1].var()
    assert blur.sharpness(picture) == pytest.approx(oracle, rel=1e-9)
    assert exposure.entropy_bits(picture) == pytest.approx(skimage.measure.shannon_entropy(picture, base=2), abs=1e-12)


def test_a_blurred_photograph_is_less_sharp():
    picture = grey_photograph("coffee")
    assert blur.sharpness(cv2.GaussianBlur(picture, (0, 0), 2)) < 0.2 * blur.sharpness(picture)


def test_a_steady_shift_is_its_mean_and_nothing_else():
    found = watch("motion", shifted(texture(), [0, 2, 4, 6, 8, 10]), sampled=(0, 2, 5))
    assert found.scalars["motion_mean"] == pytest.approx(2, rel=0.05)
    assert found.scalars["motion_var"] < 0.05
    assert found.scalars["jerk"] < 0.1
    # 2 px of 96 fifteen times a second, to the right; after the last frame nothing is known.
    np.testing.assert_allclose(found.tracks["flow_x"][:2], 2 / 96 * 15, rtol=0.05)
    np.testing.assert_allclose(found.tracks["flow_y"][:2], 0, atol=0.02)
    assert np.isnan(found.tracks["flow_x"][2])


def test_flow_between_sampled_frames_is_the_mean_of_the_way():
    found = watch("motion", shifted(texture(), [0, 1, 4, 4]), sampled=(0, 2, 3))
    np.testing.assert_allclose(found.tracks["flow_x"][:2], [2 / 96 * 15, 0], rtol=0.05, atol=1e-3)


def test_a_standing_picture_does_not_move():
    standing = {"motion_mean": 0.0, "motion_var": 0.0, "jerk": 0.0}
    assert watch("motion", [texture()] * 4).scalars == pytest.approx(standing, abs=0.01)


def test_jerk_is_the_mean_second_difference_by_hand():
    assert motion.jerk(np.array([1.0, 2.0, 3.0, 4.0])) == 0  # constant acceleration
    assert motion.jerk(np.array([1.0, 2.0, 4.0, 7.0])) == 1  # |4 - 4 + 1|, |7 - 8 + 2|
    assert motion.jerk(np.array([3.0, 1.0, 3.0])) == 4
    assert motion.jerk(np.array([1.0, 5.0])) == 0
    steady = watch("motion", shifted(texture(), [0, 1, 3, 6, 10])).scalars  # magnitudes 1, 2, 3, 4
    sudden = watch("motion", shifted(texture(), [0, 1, 2, 5])).scalars  # magnitudes 1, 1, 3
    assert steady["jerk"] < 0.2
    assert steady["motion_var"] == pytest.approx(np.std([1, 2, 3, 4]), rel=0.1)
    assert sudden["jerk"] == pytest.approx(2, rel=0.1)


def test_flow_is_opencvs_with_the_settings_of_the_prototype():
    frames = shifted(texture(), [0, 3])
    before, after = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames)
    oracle = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    np.testing.assert_array_equal(motion.flow(before, after), oracle)


def test_the_motion_of_one_frame_is_not_known():
    found = watch("motion", [texture()])
    assert not found.scalars
    assert found.missing == dict.fromkeys(("motion_mean", "motion_var", "jerk"), "a clip of one frame")


def moved(picture: np.ndarray, places: list[tuple[int, int]], size: int = 200) -> list[np.ndarray]:
    """Look at a large picture through a window whose upper left corner is at (x, y)."""
    return [coloured(picture[y : y + size, x : x + size]) for x, y in places]


def test_shake_is_how_much_the_camera_changes_its_way():
    coffee = grey_photograph("coffee")
    found = watch("shake", moved(coffee, [(100, 100), (102, 100), (104, 100), (101, 104)]), fps=15.0)
    # Shifts (2, 0), (2, 0), (-3, 4): changes 0 and |(-5, 4)|, of 200 px, fifteen times a second.
    assert found.scalars == {"shake": pytest.approx(np.hypot(5, 4) / 2 / 200 * 15, rel=0.01)}
    turning = watch("shake", moved(coffee, [(60 + 5 * k, 100) for k in range(6)]))
    assert turning.scalars["shake"] < 0.01
    assert watch("shake", [coloured(coffee[:200, :200])] * 4).scalars == {"shake": pytest.approx(0, abs=1e-6)}


def test_shake_does_not_mind_focus_light_or_a_moving_hand():
    places = [(100, 100), (104, 98), (99, 101), (103, 103), (100, 97)]
    clear = moved(grey_photograph("coffee"), places)
    dim = [np.asarray(cv2.GaussianBlur(frame, (0, 0), 2) * 0.3, np.uint8) for frame in clear]
    acting = [frame.copy() for frame in clear]
    for k, frame in enumerate(acting):
        frame[120:160, 20 + 30 * k : 60 + 30 * k] = SKIN
    plain = watch("shake", clear).scalars["shake"]
    assert watch("shake", dim).scalars["shake"] == pytest.approx(plain, rel=0.05)
    assert watch("shake", acting).scalars["shake"] == pytest.approx(plain, rel=0.05)
    # What the eye calls motion depends on all of these.
    assert watch("motion", dim).scalars["motion_mean"] < 0.9 * watch("motion", clear).scalars["motion_mean"]


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_shifts_are_those_of_scikit_image(name):
    picture = grey_photograph(name)
    before, after = (picture[y : y + 180, x : x + 240] for x, y in ((60, 50), (51, 56)))
    window = np.outer(np.hanning(180), np.hanning(240))
    oracle, *_ = skimage.registration.phase_cross_correlation(before * window, after * window)
    np.testing.assert_allclose(shake.shift(before, after), -oracle[::-1], atol=0.1)
    np.testing.assert_allclose(shake.shift(before, after), (9, -6), atol=0.1)


def test_a_shift_that_is_not_clear_is_left_out():
    rng = np.random.default_rng(0)
    noise = [coloured(rng.integers(0, 256, (120, 120), np.uint8)) for _ in range(8)]
    assert watch("shake", noise).missing == {"shake": "no three neighbouring frames whose shift is clear"}
    assert watch("shake", noise[:2]).missing == {"shake": "no three neighbouring frames whose shift is clear"}
    steady = moved(grey_photograph("coffee"), [(100, 100), (103, 100), (106, 100)], size=120)
    assert watch("shake", [*noise[:2], *steady]).scalars["shake"] < 0.02


def with_hand(x: int, y: int, side: int = 20) -> np.ndarray:
    picture = grey(110, 100)
    picture[y : y + side, x : x + side] = SKIN
    return picture


def test_a_hand_of_skin_colour_is_followed():
    # Its middle goes from (20, 40) to (26, 48), 10 px of 100 in a fifteenth of a second.
    found = watch("hands_colour", [with_hand(10, 30), with_hand(16, 38), grey(110, 100), grey(110, 100)])
    assert found.scalars == {"hands": 0.5, "hand_motion": pytest.approx(0.1 * 15)}
    np.testing.assert_allclose(found.tracks["hand_x"], [0.20, 0.26, np.nan, np.nan])
    np.testing.assert_allclose(found.tracks["hand_y"], [0.40, 0.48, np.nan, np.nan])


def test_speed_is_known_only_between_neighbouring_frames_with_a_hand():
    found = watch("hands_colour", [with_hand(10, 30), grey(110, 100), with_hand(40, 30)])
    assert found.scalars == {"hands": pytest.approx(2 / 3)}
    assert found.missing == {"hand_motion": "no two neighbouring frames with a hand"}


def test_the_largest_region_counts_and_a_speck_does_not():
    both = with_hand(10, 30)
    both[70:80, 70:80] = SKIN
    assert hands_colour.centroids(hands_colour.skin(both)) == [pytest.approx((0.20, 0.40)), pytest.approx((0.75, 0.75))]
    # 0.3 % of 10 000 pixels are 30.
    assert hands_colour.centroids(hands_colour.skin(with_hand(10, 30, side=5))) == []
    assert hands_colour.centroids(hands_colour.skin(with_hand(10, 30, side=6))) == [pytest.approx((0.13, 0.33))]


@pytest.mark.parametrize("colour", [(255, 236, 190), (21, 17, 12), (90, 71, 60)])
def test_skin_in_bad_light_is_skin(colour):
    assert hands_colour.skin(np.full((4, 4, 3), colour, np.uint8)).all()


def test_speed_is_of_one_hand_when_another_becomes_the_largest():
    clip = Clip(clip_id="c", uri="", fps=10.0, num_frames=3, sampled=(0, 1, 2))
    path = HandPath(clip)
    path.add([(0.2, 0.2), (0.8, 0.8)])
    path.add([(0.8, 0.8), (0.23, 0.24)])  # the first went 0.05, and the other is the largest now
    path.add([(0.8, 0.8), (0.30, 0.30)])  # which stands still
    found = path.findings()
    assert found.scalars == {"hands": 1.0, "hand_motion": pytest.approx(0.05 / 2 * 10)}
    assert found.tracks["hand_x"].tolist() == [0.2, 0.8, 0.8]


@pytest.mark.parametrize("colour", [(10, 7, 6), (255, 255, 255), (90, 100, 120), (200, 60, 40)])
def test_what_is_dark_or_of_another_colour_is_no_skin(colour):
    assert not hands_colour.skin(np.full((4, 4, 3), colour, np.uint8)).any()


@pytest.mark.parametrize(
    ("width", "height", "rows", "columns"),
    [
        (320, 240, slice(32, 208), slice(None)),  # 240 x 180, bars of 30 above and below
        (1080, 1920, slice(None), slice(55, 185)),  # 135 wide, bars of 52.5
        (500, 500, slice(None), slice(None)),
        (1000, 1, slice(119, 121), slice(None)),  # something is left of the narrowest
    ],
)
def test_bars_of_a_letterbox_are_left_out(width, height, rows, columns):
    assert picture_area(width, height, 240) == (rows, columns)


def test_frames_are_sampled_evenly_from_first_to_last():
    assert sample(45, 8) == (0, 6, 12, 18, 25, 31, 37, 44)
    assert sample(3, 8) == (0, 1, 2)
    assert sample(1, 8) == (0,)
    assert sample(45, 1) == (0,)
