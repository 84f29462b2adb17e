"""The stage that records: what lies in the dataset, whose hands were on it, and who may act."""

from __future__ import annotations

import acted_policies
import numpy as np
import pytest

from robolift.data.lerobot import LeRobotReader
from robolift.errors import UsageError
from robolift.stages import stage
from robolift.stages.simulate_episodes import FEATURES

SMALL = {"num_demos": 1, "num_autonomous": 2, "num_takeovers": 1, "max_frames": 40, "num_workers": 1}
BLIND = {**SMALL, "cameras": []}


def simulate(root, config, policy=None):
    inputs = {"policy": policy.uri} if policy else {}
    return stage.execute("simulate_episodes", config, inputs, str(root))


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Four episodes with two cameras."""
    return simulate(tmp_path_factory.mktemp("seen"), {**SMALL, "cameras": ["topview", "gripperPOV"], "image_size": 48})


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("blind"), BLIND)


def columns(reader, name):
    return [np.array(reader.table(meta.index, [name]).column(name).to_pylist()) for meta in reader.episodes]


def test_a_recording_is_a_lerobot_dataset_that_says_where_it_is_from(seen):
    reader = LeRobotReader.open(seen.uri)
    assert (reader.version, reader.fps, reader.robot_type) == ("v3.0", 40, "metaworld_sawyer")
    assert reader.cameras == ("observation.images.gripperPOV", "observation.images.topview")
    assert reader.image_size("observation.images.topview") == (48, 48)
    assert reader.tasks == ("pick up the puck and place it at the goal",)
    assert reader.info["robolift"] == {
        "simulator": "metaworld",
        "task": "pick-place-v3",
        "instruction": "pick up the puck and place it at the goal",
        "control_hz": 40,
        "max_frames": 40,
        "image_size": 48,
        "seeds": [0, 4],
    }
    declared = {name: (reader.features[name]["dtype"], tuple(reader.features[name]["shape"])) for name in FEATURES}
    assert declared == {
        "observation.state": ("float32", (8,)),
        "observation.environment_state": ("float32", (17,)),
        "action": ("float32", (4,)),
        "control_mode": ("string", (1,)),
        "intervention": ("int64", (1,)),
        "progress_gt": ("float32", (1,)),
        "stage_progress_gt": ("float32", (1,)),
        "is_good_gt": ("int64", (1,)),
    }


def test_episodes_say_kind_outcome_and_seed(seen):
    reader = LeRobotReader.open(seen.uri)
    extra = [meta.extra for meta in reader.episodes]
    assert [row["kind"] for row in extra] == ["demo", "rollout", "rollout", "rollout"]
    assert [row["seed"] for row in extra] == [0, 1, 2, 3]
    successes = sum(row["outcome"] == "success" for row in extra)
    assert seen.counts == {
        "episodes": 4,
        "frames": sum(meta.length for meta in reader.episodes),
        "successes": successes,
    }
    lasting = [meta.length for meta, row in zip(reader.episodes, extra, strict=True) if row["outcome"] == "failure"]
    assert set(lasting) <= {40}


def test_frames_say_who_controlled_them(seen):
    reader = LeRobotReader.open(seen.uri)
    modes = columns(reader, "control_mode")
    assert set(modes[0]) == {"demo"}
    assert set(modes[1]) == set(modes[2]) == {"autonomous"}
    good, corrected = columns(reader, "is_good_gt"), columns(reader, "intervention")
    assert good[0].all()
    assert 0 < np.concatenate(good[1:3]).mean() < 1
    for episode in range(4):
        np.testing.assert_array_equal(corrected[episode], modes[episode] == "correcting")


def test_ground_truth_grows_towards_success(seen):
    reader = LeRobotReader.open(seen.uri)
    progress = columns(reader, "progress_gt")[0]
    assert reader.episodes[0].extra["outcome"] == "success"
    assert progress[0] < 0.2
    assert progress[-1] > 0.7
    assert all(0 <= p.min() <= p.max() <= 1 for p in columns(reader, "stage_progress_gt"))


def test_video_shows_each_frame_as_a_policy_would_see_it(seen):
    from robolift.sim import graphics

    graphics.select("egl")
    from robolift.sim.plans import WorldSpec
    from robolift.sim.world import World

    reader = LeRobotReader.open(seen.uri)
    frames = list(reader.video(1, "observation.images.topview"))
    actions = columns(reader, "action")[1]
    assert len(frames) == len(actions)
    world = World(WorldSpec(task="pick-place-v3", cameras=("topview",), image_size=48))
    world.reset(1)
    for frame, action in zip(frames[:12], actions, strict=False):
        live = world.images()["observation.images.topview"]
        assert np.abs(frame.astype(int) - live).mean() < 3.5
        world.step(action)
    world.close()


def test_states_and_actions_belong_together(blind):
    """Replaying the recorded actions from the recorded seed gives the recorded states."""
    from robolift.sim import graphics

    graphics.select("egl")
    from robolift.sim.plans import WorldSpec
    from robolift.sim.world import World

    reader = LeRobotReader.open(blind.uri)
    world = World(WorldSpec(task="pick-place-v3"))
    for episode in (1, 3):
        world.reset(reader.episodes[episode].extra["seed"])
        states, actions = columns(reader, "observation.state")[episode], columns(reader, "action")[episode]
        for state, action in zip(states, actions, strict=True):
            np.testing.assert_array_equal(world.states()["observation.state"], state.astype(np.float32))
            world.step(action)


def test_the_bytes_do_not_depend_on_workers_or_place(blind, tmp_path):
    again = simulate(tmp_path, {**BLIND, "num_workers": 2})
    assert again.digest == blind.digest
    assert again.files == blind.files


def test_no_camera_needs_no_video(blind):
    reader = LeRobotReader.open(blind.uri)
    assert reader.cameras == ()
    assert reader.info["video_path"] is None


def test_version_21_and_another_task_and_text(tmp_path):
    config = {**BLIND, "num_takeovers": 0, "version": "v2.1", "task": "door-open-v3", "instruction": "open it"}
    made = simulate(tmp_path, config)
    reader = LeRobotReader.open(made.uri)
    assert reader.version == "v2.1"
    assert reader.tasks == ("open it",)
    assert reader.info["robolift"]["task"] == "door-open-v3"


def test_another_seed_makes_other_episodes(blind, tmp_path):
    other = simulate(tmp_path, {**BLIND, "seed": 1})
    states = [columns(LeRobotReader.open(made.uri), "observation.environment_state")[0][0] for made in (blind, other)]
    assert np.abs(states[0] - states[1]).max() > 0.005
    assert other.digest != blind.digest


@pytest.fixture
def policies(monkeypatch):
    return acted_policies.serve_by_rule(monkeypatch)


def test_a_policy_acts_in_its_rollouts_and_the_expert_rescues_it(policies, tmp_path):
    """This policy does nothing without a label, so all its rollouts fail and every takeover happens."""
    policy = acted_policies.publish(tmp_path, trained=(0,))
    made = simulate(tmp_path, {**BLIND, "num_takeovers": 2, "max_frames": 60}, policy)
    reader = LeRobotReader.open(made.uri)
    modes, good = columns(reader, "control_mode"), columns(reader, "is_good_gt")
    assert set(modes[0]) == {"demo"}
    for episode in (1, 2):
        assert set(modes[episode]) == {"autonomous"}
        assert (good[episode] == -1).all()  # nobody knows whether a policy acts well
        assert reader.episodes[episode].extra["outcome"] == "failure"
    for episode in (3, 4):
        alone = int((modes[episode] == "autonomous").sum())
        assert 15 <= alone < len(modes[episode])
        assert modes[episode].tolist() == ["autonomous"] * alone + ["correcting"] * (len(modes[episode]) - alone)
    seeds = [meta.extra["seed"] for meta in reader.episodes]
    assert seeds[0] >= 2_000_000_000
    assert {text for call in policies[0].calls for text in call["prompts"]} == {acted_policies.TASK}


def test_a_policy_is_asked_with_the_text_of_the_dataset_it_was_trained_on(policies, tmp_path):
    """That dataset may have been imported under another text than the simulator's; the recording then has it too."""
    policy = acted_policies.publish(tmp_path, task="place the puck")
    made = simulate(tmp_path, {**BLIND, "num_demos": 0, "num_autonomous": 1, "num_takeovers": 0}, policy)
    reader = LeRobotReader.open(made.uri)
    assert {text for call in policies[0].calls for text in call["prompts"]} == {"place the puck, Advantage: positive"}
    assert reader.tasks == (reader.info["robolift"]["instruction"],) == ("place the puck",)


def test_a_policy_is_asked_for_good_actions_and_explores_around_them(policies, tmp_path):
    policy = acted_policies.publish(tmp_path)
    config = {**BLIND, "num_demos": 0, "num_autonomous": 4, "num_takeovers": 0, "guidance": 2.0, "execute": 1}
    made = simulate(tmp_path, {**config, "max_frames": 75}, policy)
    assert made.counts["successes"] >= 3
    calls = policies[0].calls
    assert {text for call in calls for text in call["prompts"]} == {f"{acted_policies.TASK}, Advantage: positive"}
    assert {call["guidance"] for call in calls} == {2.0}
    actions = np.concatenate(columns(LeRobotReader.open(made.uri), "action"))
    free = np.abs(actions) < 0.5
    assert 0.05 < actions[free].std() < 0.4
    assert len(np.unique(actions[:, 3])) > 2  # the policy's gripper command is +-1: the noise shows


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_demos": 0, "num_autonomous": 0, "num_takeovers": 0}, "no episodes"),
        ({"cameras": ["wrist"]}, "no camera wrist; there are: topview"),
        ({"cameras": ["topview", "topview"]}, "a camera stands twice"),
        ({"task": "push"}, "no such Meta-World task; there are: assembly-v3"),
        ({"bad_fraction": 1.0}, "less than 1"),
        ({"image_size": 97}, "multiple of 2"),
        ({"version": "v4"}, "v2.1"),
        ({"max_frames": 251}, "less than or equal to 250"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path, config, said):
    with pytest.raises(UsageError, match=said):
        simulate(tmp_path, config)


@pytest.mark.parametrize(
    ("facts", "config", "said"),
    [
        ({"cameras": ["observation.images.topview"], "image_size": [48, 48]}, {}, "which `cameras` does not record"),
        ({"state_keys": ["observation.effort"]}, {}, "reads observation.effort; the simulator has"),
        ({"action_dim": 7}, {}, "makes 7 numbers at 40 Hz, the simulated robot takes 4 at 40 Hz"),
        ({"fps": 50.0}, {}, "4 numbers at 50 Hz"),
        ({}, {"execute": 5}, "execute is 5, but the policy predicts 4 actions"),
        ({"trained": (0,)}, {"label": "positive"}, "wasn't trained on the prompt .*Advantage: positive"),
        ({}, {"instruction": "fold the towel", "label": "positive"}, "wasn't trained on the prompt 'fold the towel"),
        ({}, {"task": "door-open-v3", "label": "positive"}, "wasn't trained on the prompt"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(policies, tmp_path, facts, config, said):
    policy = acted_policies.publish(tmp_path, **facts)
    with pytest.raises(UsageError, match=said):
        simulate(tmp_path, {**BLIND, **config}, policy)
    assert policies == []  # before any work
