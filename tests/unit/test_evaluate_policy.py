"""The stage that measures a policy closed loop on fresh scenes."""

from __future__ import annotations

import acted_policies
import av
import numpy as np
import pytest

from robolift import schema
from robolift.errors import UsageError
from robolift.manifest import Manifest
from robolift.sim import tasks
from robolift.stages import acting, stage
from robolift.stages.evaluate_policy import Condition, Config, conditions_of

BOTH = [{"label": "positive"}, {"label": "negative"}]


def evaluate(root, policy: Manifest, dataset: Manifest, **config) -> Manifest:
    inputs = {"policy": policy.uri, "dataset": dataset.uri}
    return stage.execute("evaluate_policy", {"num_workers": 1, **config}, inputs, str(root))


def imported(root, uri) -> Manifest:
    return stage.execute("import_dataset", {"dataset_uri": uri}, {}, str(root))


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


def test_the_task_text_is_the_dataset_s_and_not_the_simulator_s(policies, recorded, tmp_path):
    source = stage.manifests.load(recorded.uri).config["dataset_uri"]
    named = stage.execute("import_dataset", {"dataset_uri": source, "task": "place the puck"}, {}, str(tmp_path))
    policy = acted_policies.publish(tmp_path, task="place the puck")
    found = evaluate(tmp_path, policy, named, num_episodes=1, max_frames=3)
    table = schema.read_parquet(found.file("rollouts.parquet"))
    assert table.column("prompt").to_pylist() == ["place the puck, Advantage: positive"]


def test_closed_loop_needs_one_task(policies, recorded, tmp_path):
    other = stage.execute(
        "simulate_episodes",
        {"num_demos": 1, "num_autonomous": 0, "num_takeovers": 0, "cameras": [], "seed": 5, "num_workers": 1}
        | {"instruction": "another text"},
        {},
        str(tmp_path),
    )
    both = stage.execute("import_dataset", {"dataset_uri": other.uri}, {"previous": recorded.uri}, str(tmp_path))
    with pytest.raises(UsageError, match=r"one task; this one has: 'pick.*', 'another text'\n.*import_dataset\.task"):
        evaluate(tmp_path, acted_policies.publish(tmp_path), both, num_episodes=1)
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
        tasks=("push",),
        trained_prompts=tuple(f"push{tail}" for tail in trained),
        held_out_episodes=(),
    )


@pytest.mark.parametrize(
    ("trained", "configured", "expected"),
    [
        (("", ", Advantage: negative", ", Advantage: positive"), [], ["positive"]),
        ((", Advantage: positive",), [], ["positive"]),
        (("", ", Advantage: 0", ", Advantage: 1", ", Advantage: 2"), [], ["2"]),
        (("", ", Advantage: 0", ", Advantage: 9"), [], ["9"]),
        (("", ", Advantage: 10", ", Advantage: 9"), [], ["10"]),
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
