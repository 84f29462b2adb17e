"""Action error on held-out episodes: which are measured, in which units, and with which interval."""

from __future__ import annotations

import acted_policies
import numpy as np
import pyarrow as pa
import pytest

from robolift import schema
from robolift.data.lerobot_writer import FeatureSpec, LeRobotWriter
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.sim import tasks
from robolift.stages import acting, offline, stage

BOTH = [{"label": "positive"}, {"label": "negative"}]
CAMERA = "observation.images.topview"
LENGTHS = (12, 12, 7, 12)


def evaluate(root, policy: Manifest, dataset: Manifest, **config) -> Manifest:
    inputs = {"policy": policy.uri, "dataset": dataset.uri}
    return stage.execute("evaluate_policy", {"num_workers": 1, **config}, inputs, str(root))


def state(episode, frame):
    return np.array([episode, frame, 0, 0, 0, 0, 0, 0], np.float32)


def write_robot(path) -> LeRobotWriter:
    features = {
        tasks.STATE: FeatureSpec("float32", (8,)),
        tasks.ENVIRONMENT_STATE: FeatureSpec("float32", (17,)),
        "action": FeatureSpec("float32", (4,)),
    }
    return LeRobotWriter(path, fps=40, features=features, cameras={CAMERA: (32, 32)}, robot_type="arm", version="v3.0")


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Manifest:
    """Four episodes of a robot: the action is +1 or -1 in turn, in the first dimension only."""
    root = tmp_path_factory.mktemp("plain")
    writer = write_robot(root / "plain")
    for episode, length in enumerate(LENGTHS):
        action = np.zeros((length, 4), np.float32)
        action[:, 0] = (-1.0) ** np.arange(length)
        columns = {
            tasks.STATE: np.stack([state(episode, t) for t in range(length)]),
            tasks.ENVIRONMENT_STATE: np.zeros((length, 17), np.float32),
            "action": action,
        }
        images = [np.full((32, 32, 3), 10 * t + 20, np.uint8) for t in range(length)]
        writer.add_episode(columns, videos={CAMERA: images}, task=acted_policies.TASK)
    writer.finish()
    config = {"dataset_uri": str(root / "plain"), "control_mode": "autonomous", "outcome": "success"}
    return stage.execute("import_dataset", config, {}, str(root))


class Still:
    """Predicts no motion, except under ``negative``: one in the first dimension. Notes what it was shown."""

    cameras = (CAMERA,)
    state_keys = (tasks.STATE,)
    image_size = (32, 32)

    def __init__(self):
        self.seen = []

    def act(self, observation, *, prompts, seed, guidance=1.0):
        self.seen.append({**observation, "seed": list(seed)})
        chunk = np.zeros((len(prompts), 4, 4), np.float32)
        chunk[:, :, 0] = [[float(text.endswith("negative"))] * 4 for text in prompts]
        return chunk


@pytest.fixture
def still(monkeypatch):
    policy = Still()
    monkeypatch.setattr(acting, "load_policy", lambda facts: policy)
    return policy


LOOKS = {"cameras": [CAMERA], "image_size": [32, 32], "state_keys": [tasks.STATE]}


def test_the_error_is_in_units_of_the_actions_spread(still, real, tmp_path):
    """Actions are +-1 in one of four dimensions: predicting 0 errs by 1 there, 1/4 on average; the spread is 1."""
    policy = acted_policies.publish(tmp_path, dataset=real, **LOOKS)
    found = evaluate(tmp_path, policy, real, conditions=BOTH, stride=2)
    metrics = found.metrics()
    assert metrics["mode"] == "offline"
    positive, negative = metrics["conditions"]["positive"], metrics["conditions"]["negative"]
    spread = np.concatenate([(-1.0) ** np.arange(length) for length in LENGTHS]).std()
    assert positive["action_mse"] == pytest.approx(0.25 / spread**2)
    assert positive["first_action_mse"] == pytest.approx(0.25 / spread**2)
    assert (positive["ci_low"], positive["ci_high"]) == (
        pytest.approx(0.25 / spread**2),
        pytest.approx(0.25 / spread**2),
    )
    # Under negative: error 0 at even frames, 2 at odd ones. Every measured frame is even, so its first action is right.
    assert negative["first_action_mse"] == 0
    assert 0.4 < negative["action_mse"] < 0.6
    assert positive["human_action_mse"] is None


def test_only_held_out_episodes_are_measured_and_the_end_of_one_is_not_padded(still, real, tmp_path):
    policy = acted_policies.publish(tmp_path, dataset=real, **LOOKS)
    found = evaluate(tmp_path, policy, real, conditions=[{"label": "negative"}], stride=3)
    table = schema.read_parquet(found.file("offline.parquet")).to_pydict()
    expected = [1, 2]
    assert sorted(set(table["episode_index"])) == expected
    assert found.counts["episodes"] == len(expected) == 2
    for episode in expected:
        frames = [f for e, f in zip(table["episode_index"], table["frame_index"], strict=True) if e == episode]
        assert frames == list(range(0, LENGTHS[episode], 3))
    spread = np.concatenate([(-1.0) ** np.arange(length) for length in LENGTHS]).std()
    rows = zip(table["episode_index"], table["frame_index"], table["action_mse"], strict=True)
    for episode, frame, error in rows:
        real_steps = range(frame, min(frame + 4, LENGTHS[episode]))
        wrong = np.mean([step % 2 for step in real_steps])  # (1 - -1)^2 / 4 dimensions = 1 at odd steps
        assert error == pytest.approx(wrong / spread**2, rel=1e-5)


def test_the_policy_sees_the_measured_frames(still, real, tmp_path):
    policy = acted_policies.publish(tmp_path, dataset=real, **LOOKS)
    evaluate(tmp_path, policy, real, stride=5)
    for call in still.seen:
        frames = call[tasks.STATE][:, 1]
        brightness = call[CAMERA].mean(axis=(1, 2, 3))
        np.testing.assert_allclose(brightness, 10 * frames + 20, atol=3)
        assert len(set(call["seed"])) == len(frames)


@pytest.fixture(scope="module")
def another(tmp_path_factory) -> str:
    """One more episode of that robot, not imported."""
    root = tmp_path_factory.mktemp("another")
    writer = write_robot(root / "plain")
    columns = {
        tasks.STATE: np.ones((5, 8), np.float32),
        tasks.ENVIRONMENT_STATE: np.ones((5, 17), np.float32),
        "action": np.eye(5, 4, dtype=np.float32),
    }
    writer.add_episode(columns, videos={CAMERA: np.zeros((5, 32, 32, 3), np.uint8)}, task=acted_policies.TASK)
    writer.finish()
    return str(root / "plain")


def test_a_dataset_that_grew_from_the_training_data_is_refused(still, real, another, tmp_path):
    config = {"dataset_uri": another, "control_mode": "demo"}
    grown = stage.execute("import_dataset", config, {"previous": real.uri}, str(tmp_path))
    policy = acted_policies.publish(tmp_path, dataset=real, **LOOKS)
    with pytest.raises(UsageError, match="trained on a part of this dataset"):
        evaluate(tmp_path, policy, grown)


def test_a_dataset_that_is_all_new_is_measured_whole(still, real, another, tmp_path):
    config = {"dataset_uri": another, "control_mode": "demo"}
    alone = stage.execute("import_dataset", config, {}, str(tmp_path))
    found = evaluate(tmp_path, acted_policies.publish(tmp_path, dataset=alone, **LOOKS), real)
    assert found.counts["episodes"] == 4
    found = evaluate(tmp_path, acted_policies.publish(tmp_path, dataset=real, **LOOKS), alone, stride=1)
    assert found.counts["episodes"] == 1
    positive = found.metrics()["conditions"]["positive"]
    assert positive["human_action_mse"] == positive["action_mse"]
    # In four of the five frames one action of four dimensions is 1; four of five such columns have spread 0.4.
    assert positive["first_action_mse"] == pytest.approx(4 / 5 / 4 / 0.4**2)


@pytest.mark.parametrize(
    ("facts", "config", "said"),
    [
        ({"held_out_episodes": []}, {}, "held out no episode"),
        ({"held_out_episodes": None}, {}, "does not say which episodes it held out"),
        ({"action_dim": 7}, {}, "makes 7 numbers at 40 Hz, the dataset has 4 at 40 Hz"),
        ({"state_keys": ["observation.effort"]}, {}, "reads observation.effort, which the dataset does not have"),
    ],
)
def test_what_can_not_be_measured_offline_is_refused(still, real, tmp_path, facts, config, said):
    policy = acted_policies.publish(tmp_path, dataset=real, config=config, **{**LOOKS, **facts})
    with pytest.raises(UsageError, match=said):
        evaluate(tmp_path, policy, real)


def test_closed_loop_needs_simulated_data(still, real, tmp_path):
    policy = acted_policies.publish(tmp_path, dataset=real, **LOOKS)
    with pytest.raises(UsageError, match=r"do not in: simulator, task.*\n.*mode: offline"):
        evaluate(tmp_path, policy, real, mode="closed_loop")


def test_one_episode_gives_no_interval(still, real, tmp_path):
    policy = acted_policies.publish(tmp_path, dataset=real, held_out_episodes=[2], **LOOKS)
    measured = evaluate(tmp_path, policy, real).metrics()["conditions"]["positive"]
    assert (measured["episodes"], measured["ci_low"], measured["ci_high"]) == (1, None, None)
    assert measured["action_mse"] > 0


def test_an_action_dimension_that_never_changes_is_not_blown_up():
    """In float32 the spread of a constant 0.1 is a rounding error, and dividing by it gave errors above 10^9."""
    root = np.full((500, 4), 0.1, np.float32)
    assert 0 < root.std(axis=0)[0] < 1e-6

    class Constant:
        starts = np.array([0, 500])
        cameras = ()
        episodes = pa.table({"task": ["stay"]})
        frames = pa.table({"control_mode": ["autonomous"] * 500})

        def column(self, name, episodes=None):
            return root

    def act(observed, seeds):
        return np.full((len(seeds), 4, 4), 0.2, np.float32)

    asked = offline.Asked("positive", {"stay": "stay"}, {"stay": act})
    (table,) = offline.measure(Constant(), {0: np.arange(0, 500, 50)}, [asked], keys=["state"], image_size=None, seed=0)
    np.testing.assert_allclose(table.column("action_mse").to_numpy(), 0.01, rtol=1e-5)


def test_episodes_in_which_nothing_acted_are_left_out(real):
    opened = offline.Dataset.open(real)
    modes = opened.column("control_mode").copy()
    modes[opened.column("episode_index") == 1] = "paused"
    opened.column = lambda name, episodes=None: modes
    rows = offline.rows_to_measure(opened, [1, 2], stride=5)
    assert {episode: found.tolist() for episode, found in rows.items()} == {2: [24, 29]}
    with pytest.raises(DataError, match="no frame to measure in the held-out episodes") as refused:
        offline.rows_to_measure(opened, [1], stride=5)
    assert "episodes 1, every 5th frame: all paused" in str(refused.value)


def test_the_bootstrap_draws_whole_episodes():
    """Two episodes, means 0 and 1: a quarter of the draws is each alone, so the interval spans both."""
    values, groups = np.repeat([0.0, 1.0], 50), np.repeat([3, 9], 50)
    assert offline.bootstrap_interval(values, groups, seed=0) == (0.0, 1.0)
    low, high = offline.bootstrap_interval(np.tile([0.0, 1.0], 50), groups, seed=0)
    assert (low, high) == (0.5, 0.5)
    assert offline.bootstrap_interval(values, np.arange(100), seed=5) == offline.bootstrap_interval(
        values, np.arange(100), seed=5
    )
