"""The stage that measures a policy: closed loop on fresh scenes, or action error on held-out episodes."""

from __future__ import annotations

import acted_policies
import av
import numpy as np
import pytest

from robolift import schema
from robolift.data.lerobot_writer import FeatureSpec, LeRobotWriter
from robolift.errors import UsageError
from robolift.manifest import Manifest
from robolift.sim import tasks
from robolift.stages import acting, offline, stage
from robolift.stages.evaluate_policy import Condition, Config, conditions_of

BOTH = [{"label": "positive"}, {"label": "negative"}]


def evaluate(root, policy: Manifest, dataset: Manifest, **config) -> Manifest:
    inputs = {"policy": policy.uri, "dataset": dataset.uri}
    return stage.execute("evaluate_policy", {"num_workers": 1, **config}, inputs, str(root))


def imported(root, uri) -> Manifest:
    given = {"control_mode": "autonomous", "outcome": "success"} if "plain" in uri else {}
    return stage.execute("import_dataset", {"dataset_uri": uri, **given}, {}, str(root))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Manifest:
    """A simulated dataset without cameras."""
    root = tmp_path_factory.mktemp("recorded")
    config = {"num_demos": 1, "num_autonomous": 1, "num_takeovers": 0, "cameras": [], "num_workers": 1}
    made = stage.execute("simulate_episodes", config, {}, str(root))
    return imported(root, made.uri)


@pytest.fixture
def policies(monkeypatch):
    return acted_policies.serve_by_rule(monkeypatch)


def test_success_depends_on_what_the_policy_is_asked_for(policies, recorded, tmp_path):
    policy = acted_policies.publish(tmp_path)
    found = evaluate(tmp_path, policy, recorded, num_episodes=4, conditions=BOTH)
    table = schema.read_parquet(found.file("rollouts.parquet"))
    assert table.schema.names == ["condition", "prompt", "seed", "success", "length"]
    assert [str(table.schema.field(name).type) for name in ("seed", "success", "length")] == ["int64", "bool", "int32"]
    assert table.column("condition").to_pylist() == ["positive"] * 4 + ["negative"] * 4
    assert table.column("seed").to_pylist() == [*range(1_000_000_000, 1_000_000_004)] * 2
    assert set(table.column("prompt").to_pylist()[:4]) == {f"{acted_policies.TASK}, Advantage: positive"}
    success, length = (np.array(table.column(name).to_pylist()) for name in ("success", "length"))
    assert success.tolist() == [True] * 4 + [False] * 4
    assert set(length[4:]) == {75}
    assert length[:4].max() < 75
    assert found.counts == {"conditions": 2, "episodes": 8}
    assert policies[0].calls[0]["keys"] == ["observation.environment_state", "observation.state"]
    metrics = found.metrics()
    assert metrics["mode"] == "closed_loop"
    assert metrics["task"] == "pick-place-v3"
    positive, negative = metrics["conditions"]["positive"], metrics["conditions"]["negative"]
    assert positive["success_rate"] == 1.0
    # Wilson for 4 of 4 and 0 of 4: 1/(1 + z^2/4) = 0.5101
    assert (positive["ci_low"], positive["ci_high"]) == (pytest.approx(0.51011, abs=1e-5), 1.0)
    assert negative == {
        "success_rate": 0.0,
        "ci_low": 0.0,
        "ci_high": pytest.approx(0.48989, abs=1e-5),
        "n": 4,
        "mean_length": None,
    }
    assert positive["mean_length"] == length[:4].mean()
    difference = metrics["differences"]["positive - negative"]
    assert difference["difference"] == 1.0
    assert 0 < difference["ci_low"] < 1


def test_the_result_does_not_depend_on_the_workers(policies, recorded, tmp_path):
    policy = acted_policies.publish(tmp_path)
    config = {"num_episodes": 3, "max_frames": 25, "conditions": BOTH}
    one = evaluate(tmp_path / "one", policy, recorded, **config)
    two = evaluate(tmp_path / "two", policy, recorded, **config, num_workers=2)
    assert (two.digest, two.files) == (one.digest, one.files)


def test_episodes_can_be_watched(policies, recorded, tmp_path):
    camera = "observation.images.topview"
    policy = acted_policies.publish(tmp_path, cameras=[camera], image_size=[48, 48], execute=4)
    found = evaluate(tmp_path, policy, recorded, num_episodes=3, record_episodes=1, max_frames=10)
    (name,) = [f for f in (stage.manifests.storage.read_json(found.file("files.json"))) if f.endswith(".mp4")]
    assert name == "videos/positive/1000000000.mp4"
    with av.open(found.file(name).removeprefix("file://")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 10
    assert frames[0].shape == (96, 96, 3)
    # The policy was trained on smaller images than were recorded: what it sees is scaled as its training data was.
    shown = policies[0].shown[camera]
    assert shown.shape[1:] == (48, 48, 3)
    assert shown.std() > 10


def test_a_policy_without_cameras_is_filmed_from_outside(policies, recorded, tmp_path):
    policy = acted_policies.publish(tmp_path)
    found = evaluate(tmp_path, policy, recorded, num_episodes=1, record_episodes=1, max_frames=3)
    path = found.file("videos/positive/1000000000.mp4").removeprefix("file://")
    with av.open(path) as video:
        assert sum(1 for _ in video.decode(video=0)) == 3


def test_scenes_of_the_training_data_are_refused(policies, recorded, tmp_path, monkeypatch):
    from robolift.stages import evaluate_policy

    monkeypatch.setattr(evaluate_policy, "evaluation_seeds", lambda seed, count: range(1, count + 1))
    with pytest.raises(UsageError, match="scenes 1 to 1 are in the training data"):
        evaluate(tmp_path, acted_policies.publish(tmp_path), recorded)
    assert policies == []


def facts(*trained) -> acting.PolicyFacts:
    return acting.PolicyFacts(
        uri="",
        cameras=(),
        image_size=None,
        state_keys=(tasks.STATE,),
        action_dim=4,
        action_horizon=4,
        execute=2,
        fps=40.0,
        trained_prompts=tuple(f"push{tail}" for tail in trained),
    )


@pytest.mark.parametrize(
    ("trained", "configured", "expected"),
    [
        (("", ", Advantage: negative", ", Advantage: positive"), [], ["positive"]),
        ((", Advantage: positive",), [], ["positive"]),
        (("", ", Advantage: 0", ", Advantage: 1", ", Advantage: 2"), [], ["2"]),
        (("",), [], ["none"]),
        (("",), BOTH, ["none"]),
        (("", ", Advantage: positive"), [{"label": "none"}, {"label": "positive", "guidance": 2}], None),
    ],
)
def test_the_conditions_are_those_asked_for_or_the_best(trained, configured, expected):
    found = [c.key for c in conditions_of(Config(conditions=configured), facts(*trained), "push")]
    assert found == (expected or ["none", "positive, guidance 2"])


def test_conditions_of_one_name_are_refused(recorded, tmp_path):
    with pytest.raises(UsageError, match="conditions stand twice: positive"):
        evaluate(tmp_path, recorded, recorded, conditions=[{"label": "positive"}, {"name": "positive", "label": 3}])
    assert Condition(label=3).key == "3"


def test_a_label_that_was_not_trained_is_refused_before_any_work(policies, recorded, tmp_path):
    policy = acted_policies.publish(tmp_path, trained=(0, 2))
    with pytest.raises(UsageError, match=r"wasn't trained on the prompt .*negative"):
        evaluate(tmp_path, policy, recorded, conditions=BOTH)
    assert policies == []


def test_a_damaged_policy_is_refused(recorded, tmp_path):
    policy = acted_policies.publish(tmp_path, trained_prompts=[7])
    with pytest.raises(Exception, match="not a policy: IndexError"):
        evaluate(tmp_path, policy, recorded)


# --- offline -----------------------------------------------------------------------------------------------------

CAMERA = "observation.images.topview"
LENGTHS = (12, 12, 7, 12)


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
    return imported(root, str(root / "plain"))


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
    from robolift.policy.data import split_episodes

    policy = acted_policies.publish(tmp_path, dataset=real, **LOOKS)
    found = evaluate(tmp_path, policy, real, conditions=[{"label": "negative"}], stride=3)
    table = schema.read_parquet(found.file("offline.parquet")).to_pydict()
    expected = split_episodes(4, np.arange(4), 0.5, 0).tolist()
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
        ({}, {"val_fraction": 0.0}, "held out no episode"),
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


def test_a_filtered_policy_held_out_successes_only(real, tmp_path):
    opened = offline.Dataset.open(real)
    policy = acted_policies.publish(tmp_path, dataset=real, config={"variant": "filtered"}, **LOOKS)
    assert len(offline.held_out_episodes(policy, real, opened)) == 2


def test_the_bootstrap_draws_whole_episodes():
    """Two episodes, means 0 and 1: a quarter of the draws is each alone, so the interval spans both."""
    values, groups = np.repeat([0.0, 1.0], 50), np.repeat([3, 9], 50)
    assert offline.bootstrap_interval(values, groups, seed=0) == (0.0, 1.0)
    low, high = offline.bootstrap_interval(np.tile([0.0, 1.0], 50), groups, seed=0)
    assert (low, high) == (0.5, 0.5)
    assert offline.bootstrap_interval(values, np.arange(100), seed=5) == offline.bootstrap_interval(
        values, np.arange(100), seed=5
    )
