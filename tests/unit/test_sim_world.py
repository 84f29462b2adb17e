"""The simulated robot: its determinism, what it sees, its experts and its ground truth; with the real simulator."""

from __future__ import annotations

import numpy as np
import pytest

from robolift.errors import UsageError
from robolift.sim import graphics

graphics.select("egl")

import mujoco  # noqa: E402
from metaworld.env_dict import ALL_V3_ENVIRONMENTS  # noqa: E402

from robolift.sim import tasks  # noqa: E402
from robolift.sim.episodes import run_episode  # noqa: E402
from robolift.sim.experts import Expert  # noqa: E402
from robolift.sim.plans import Behaviour, EpisodePlan, WorldSpec  # noqa: E402
from robolift.sim.progress import StallWatch, progress, stage_progress  # noqa: E402
from robolift.sim.render import UPSIDE_DOWN, Renderer  # noqa: E402
from robolift.sim.world import World  # noqa: E402

CAMERAS = ("behindGripper", "gripperPOV", "topview")


@pytest.fixture(scope="module")
def world():
    made = World(WorldSpec(task="pick-place-v3", cameras=CAMERAS, image_size=64))
    yield made
    made.close()


@pytest.fixture(scope="module")
def blind():
    return World(WorldSpec(task="pick-place-v3"))


def play(world, *, seed, behaviour=Behaviour.AUTONOMOUS, **changes):
    plan = EpisodePlan(index=0, seed=seed, behaviour=behaviour, **{"action_noise": 0.15, **changes})
    running = run_episode(world, plan, Expert(world.spec.task))
    with pytest.raises(StopIteration) as finished:
        next(running)
    return finished.value.value


def test_the_table_of_tasks_is_meta_worlds():
    assert set(tasks.TASKS) == set(ALL_V3_ENVIRONMENTS)


def test_a_seed_decides_object_and_goal(blind):
    blind.reset(1)
    first = blind.observation.copy()
    blind.reset(2)
    assert np.abs(blind.observation[4:7] - first[4:7]).max() > 0.005
    assert np.abs(blind.observation[36:39] - first[36:39]).max() > 0.005
    blind.reset(1)
    np.testing.assert_array_equal(blind.observation, first)


@pytest.mark.parametrize("task", ["pick-place-v3", "door-open-v3", "assembly-v3"])
def test_an_episode_does_not_depend_on_the_ones_before_it(task):
    used, fresh = World(WorldSpec(task=task)), World(WorldSpec(task=task))
    for seed in (5, 6):
        play(used, seed=seed, max_frames=20)
    one, other = (play(world, seed=7, behaviour=Behaviour.TAKEOVER, max_frames=40) for world in (used, fresh))
    for name in one.columns:
        np.testing.assert_array_equal(one.columns[name], other.columns[name], err_msg=name)


def test_states_are_now_and_one_control_step_earlier(blind):
    blind.reset(3)
    before = blind.states()
    np.testing.assert_array_equal(before[tasks.STATE][:4], before[tasks.STATE][4:])
    blind.step(np.array([1.0, 0.0, 0.0, -1.0]))
    after = blind.states()
    assert after[tasks.STATE].shape == (8,)
    assert after[tasks.ENVIRONMENT_STATE].shape == (17,)
    assert after[tasks.STATE].dtype == np.float32
    np.testing.assert_array_equal(after[tasks.STATE][4:], before[tasks.STATE][:4])
    np.testing.assert_array_equal(after[tasks.ENVIRONMENT_STATE][7:14], before[tasks.ENVIRONMENT_STATE][:7])
    np.testing.assert_array_equal(after[tasks.ENVIRONMENT_STATE][14:], blind.observation[36:39].astype(np.float32))


def test_full_speed_moves_the_hand_two_centimetres_a_frame(blind):
    blind.reset(3)
    for _ in range(6):
        blind.step(np.array([1.0, 0.0, 0.0, -1.0]))
    moved = blind.states()[tasks.STATE]
    # Two commands a frame of at most 1 cm each; the arm is at speed by the sixth frame.
    assert moved[0] - moved[4] == pytest.approx(0.02, abs=0.002)


def test_images_are_drawn_once_a_step_and_change_with_it(world):
    world.reset(4)
    first = world.images()
    assert sorted(first) == [f"observation.images.{name}" for name in CAMERAS]
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image in first.values())
    assert world.images() is first
    for _ in range(5):
        world.step(np.array([1.0, 0.0, 0.0, -1.0]))
    for name, image in world.images().items():
        assert np.abs(image.astype(int) - first[name]).mean() > 1, name


def test_the_first_image_shows_the_new_goal(world):
    world.reset(8)
    fresh = world.images()["observation.images.topview"]
    world.reset(9)
    world.images()
    world.reset(8)
    np.testing.assert_array_equal(world.images()["observation.images.topview"], fresh)


def test_culling_changes_no_pixel(world):
    env = world._env
    whole = Renderer(env.model, CAMERAS, 64, "egl", cull=False)
    for seed in (1, 2):
        world.reset(seed)
        for _ in range(8):
            world.step(np.array([0.5, 1.0, -0.5, -1.0]))
        plain = whole.render(env.model, env.data)
        culled = world.renderer.render(env.model, env.data)
        for name in CAMERAS:
            np.testing.assert_array_equal(culled[name], plain[name])
    whole.close()


@pytest.fixture(scope="module")
def watched():
    """A world of its own, since its goal is moved about."""
    made = World(WorldSpec(task="pick-place-v3", cameras=tasks.CAMERAS, image_size=96))
    made.reset(3)
    yield made
    made.close()


def test_the_cameras_that_are_turned_are_those_whose_top_points_down(watched):
    model, data = watched._env.model, watched._env.data
    # The second column of a camera's frame is its upward axis; it is level where a camera looks straight down.
    upward = {name: data.cam_xmat[model.camera(name).id].reshape(3, 3)[2, 1] for name in tasks.CAMERAS}
    assert {name for name, up in upward.items() if up < -0.5} == UPSIDE_DOWN
    assert {name for name, up in upward.items() if up >= -0.01} == set(tasks.CAMERAS) - UPSIDE_DOWN
    assert not UPSIDE_DOWN & set(CAMERAS)


@pytest.mark.parametrize("camera", [*sorted(UPSIDE_DOWN), "behindGripper"])
def test_pictures_stand_upright_and_are_not_mirrored(watched, camera):
    """What goes up goes up in the picture, and what goes to the camera's right goes to the picture's right."""
    env, goal = watched._env, watched._env.model.site("goal")
    looks = -env.data.cam_xmat[env.model.camera(camera).id].reshape(3, 3)[:, 2]
    right = np.cross(looks, [0.0, 0.0, 1.0])
    goal.size = [0.05, 0, 0]  # large, and beside the arm: every camera sees it

    def goal_at(offset):
        goal.pos = np.array([0.15, 0.8, 0.1]) + offset
        mujoco.mj_forward(env.model, env.data)
        image = watched.renderer.render(env.model, env.data)[camera].astype(int)
        rows, columns = np.nonzero(image[..., 2] - image[..., :2].max(axis=2) > 60)  # nothing else is blue
        assert len(rows) > 10
        return rows.mean(), columns.mean()

    row, column = goal_at(np.zeros(3))
    assert goal_at(np.array([0.0, 0.0, 0.1]))[0] < row - 3
    assert goal_at(0.1 * right / np.linalg.norm(right))[1] > column + 3


def test_images_have_the_colours_that_video_keeps(world):
    world.reset(4)
    image = world.images()["observation.images.topview"].astype(float)
    # 4:2:0: the colour differences are constant within 2x2 blocks, up to rounding; brightness is not.
    red_minus_brightness = (image[..., 0] - image @ [0.299, 0.587, 0.114]).reshape(32, 2, 32, 2)
    inside = np.ptp(red_minus_brightness, axis=(1, 3))
    assert np.quantile(inside, 0.9) < 6
    brightness = (image @ [0.299, 0.587, 0.114]).reshape(32, 2, 32, 2)
    assert np.quantile(np.ptp(brightness, axis=(1, 3)), 0.9) > 6


def test_a_world_without_cameras_draws_nothing(blind):
    blind.reset(1)
    assert blind.images() == {}
    blind.close()


def test_the_expert_solves_the_task(blind):
    records = [play(blind, seed=seed, behaviour=Behaviour.DEMO) for seed in range(10)]
    assert sum(record.success for record in records) >= 9
    assert all(record.length == len(record.columns["action"]) for record in records)
    assert 15 < np.mean([record.length for record in records]) < 45


def test_the_expert_opens_a_closed_gripper(blind):
    """Meta-World's own expert asks for effort 0 here and drags a closed gripper to the object."""
    blind.reset(1)
    expert = Expert("pick-place-v3")
    assert expert._policy.get_action(blind.observation)[3] == 0
    assert expert.act(blind.observation)[3] == -1
    near = blind.observation.copy()
    near[4:7] = near[:3]
    assert expert.act(near)[3] == 1


def test_the_expert_can_be_made_to_miss(blind):
    blind.reset(1)
    expert = Expert("pick-place-v3")
    hand = blind.observation[:3]
    beside = blind.observation.copy()
    beside[4:7] = hand - [0.0, 0.0, 0.1]  # the hand hovers right above the object
    aimed = expert.act(beside)
    missed = expert.act(beside, object_offset_m=np.array([0.05, 0.0, 0.0]))
    assert missed[0] - aimed[0] == pytest.approx(0.5, abs=0.06)  # gain 10 per metre
    np.testing.assert_array_equal(beside[4:7], hand - [0.0, 0.0, 0.1])


@pytest.fixture
def posed(blind):
    """Put hand, object and goal anywhere; the object started 0.2 m from the goal, on the table at z = 0.02."""

    def pose(*, hand, thing, goal=(0.1, 0.8, 0.02)):
        blind.reset(1)
        blind.initial[4:7] = (0.1, 0.6, 0.02)
        blind.initial[36:39] = goal
        blind.observation[:3] = hand
        blind.observation[4:7] = thing
        blind.observation[36:39] = goal
        return blind

    return pose


@pytest.mark.parametrize(
    ("hand", "thing", "expected", "in_stages"),
    [
        # hand 0.125 m away from an object at its start: half of reaching
        ((0.1, 0.6, 0.145), (0.1, 0.6, 0.02), 0.15, 0.2495),
        # 0.3 m away: nothing yet
        ((0.1, 0.6, 0.32), (0.1, 0.6, 0.02), 0.0, 0.0),
        # at the object: all of reaching
        ((0.1, 0.6, 0.02), (0.1, 0.6, 0.02), 0.3, 0.499),
        # pushed half of the way along the table: carrying counts in progress, not in the stages
        ((0.1, 0.7, 0.02), (0.1, 0.7, 0.02), 0.65, 0.499),
        # at the goal height is not needed: 2 cm off the table is the second stage
        (
            (0.1, 0.7, 0.05),
            (0.1, 0.7, 0.05),
            0.3 + 0.7 * (1 - np.hypot(0.1, 0.03) / 0.2),
            1 - np.hypot(0.1, 0.03) / 0.4,
        ),
    ],
)
def test_progress_of_pick_place(posed, hand, thing, expected, in_stages):
    world = posed(hand=hand, thing=thing)
    assert progress(world) == pytest.approx(expected, abs=1e-9)
    assert stage_progress(world) == pytest.approx(in_stages, abs=1e-9)


def test_progress_of_other_tasks_is_the_shaped_reward():
    world = World(WorldSpec(task="door-open-v3"))
    record = play(world, seed=3, behaviour=Behaviour.DEMO, frames_after_success=1)
    assert record.success
    assert record.columns["progress_gt"][0] == 0
    assert record.columns["progress_gt"][-1] == 1
    assert record.columns["progress_gt"].min() >= 0
    np.testing.assert_array_equal(record.columns["progress_gt"], record.columns["stage_progress_gt"])


def test_stalling_is_patience_frames_without_gain():
    watch = StallWatch(patience=3, min_gain=0.25)
    told = [watch.stalled(value) for value in (0.0, 0.25, 0.375, 0.375, 0.5, 0.5, 0.625, 0.6875, 0.875)]
    # 0.5 gains 0.25 on 0.25, the best that counted; 0.6875 is the third in a row that doesn't gain on 0.5.
    assert told == [False] * 7 + [True, False]


def test_a_failure_ends_at_the_limit_and_a_success_soon_after_it(blind):
    failed = play(blind, seed=0, behaviour=Behaviour.DEMO, max_frames=9)
    assert (failed.success, failed.length, len(failed.columns["action"])) == (False, 9, 9)
    solved = play(blind, seed=0, behaviour=Behaviour.DEMO, frames_after_success=3)
    assert solved.success
    assert len(solved.columns["action"]) == solved.length + 3
    assert solved.columns["progress_gt"][-1] > 0.8


def test_a_missing_library_is_explained():
    said = r"apt-get install libegl1 libgl1-mesa-dri.*record without cameras"
    with pytest.raises(UsageError, match=said), graphics.explained("egl"):
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")


def test_the_library_can_not_be_changed_once_loaded(monkeypatch):
    graphics.select("egl")
    graphics.select(None)
    with pytest.raises(UsageError, match="already loaded with MUJOCO_GL='egl', not 'osmesa'"):
        graphics.select("osmesa")
