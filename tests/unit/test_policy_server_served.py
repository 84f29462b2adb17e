"""A policy behind the server: what it is told, what it answers, what it refuses."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from policy_server import publish_small
from toy_policies import observe

from robolift.data.letterbox import letterbox
from robolift.data.scaling import scale_images
from robolift.errors import DataError, RoboliftError, UsageError
from robolift.policy.server.prompt_rule import PromptLabel
from robolift.policy.server.served import MAX_SIDE, ServedPolicy
from robolift.policy.serving import Policy

IMAGE, STATE, FORCE = "observation.images.0", "observation.state", "observation.force"
POSITIVE = "fold, Advantage: positive"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return publish_small(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def policy(checkpoint):
    return Policy.load(checkpoint.uri)


def served(policy, label="positive", guidance=1.0):
    return ServedPolicy(policy, checkpoint="0" * 64, label=PromptLabel(label), guidance=guidance)


@pytest.fixture
def observation(policy):
    return {**{key: array[0] for key, array in observe(policy.spec, 1).items()}, "prompt": "fold"}


def test_the_metadata_is_all_that_a_client_needs(checkpoint):
    found = ServedPolicy.load(checkpoint, label=PromptLabel.POSITIVE, guidance=1.5).metadata
    assert json.loads(json.dumps(found)) == {
        "preset": "small",
        "checkpoint": checkpoint.digest,
        "cameras": [IMAGE],
        "image_size": [16, 16],
        "states": {STATE: 3, FORCE: 1},
        "action_dim": 2,
        "action_horizon": 3,
        "execute": 2,
        "fps": 20.0,
        "prompts": {"fold": POSITIVE, POSITIVE: POSITIVE},
        "prompt_label": "positive",
        "guidance": 1.5,
    }


@pytest.mark.parametrize(
    ("label", "prompt", "guidance"),
    [("positive", POSITIVE, 1), ("negative", "fold, Advantage: negative", 1), ("positive", POSITIVE, 3)],
)
def test_an_answer_is_what_the_policy_does_under_the_forced_prompt(policy, observation, label, prompt, guidance):
    batch = observe(policy.spec, 1)
    expected = policy.act(batch, prompts=[prompt], seed=[42], guidance=guidance)[0]
    found = served(policy, label, guidance).infer({**observation, "seed": 42, "more": "ignored"})
    assert list(found) == ["actions"]
    assert found["actions"].dtype == np.float32
    assert found["actions"].tobytes() == expected.tobytes()


def test_without_a_seed_the_observation_decides_the_noise(policy, observation):
    actor = served(policy)
    first = actor.infer(observation)["actions"]
    actor.infer({**observation, "seed": 5})
    assert actor.infer(observation)["actions"].tobytes() == first.tobytes()
    assert served(policy, "as_sent").infer({**observation, "prompt": POSITIVE})["actions"].tobytes() == first.tobytes()
    moved = {**observation, FORCE: observation[FORCE] + np.float32(1e-6)}
    assert np.abs(actor.infer(moved)["actions"] - first).max() > 0.01  # other noise, not only another state


def test_images_of_any_size_are_scaled_as_training_frames_were(policy, observation):
    camera = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    actor = served(policy)
    small = scale_images(camera[None], (16, 16))[0]
    assert small.shape == (16, 16, 3)
    # Area averaging: a pixel is the mean of the 3 x 4 that it covers.
    assert np.abs(small[5, 7].astype(int) - camera[15:18, 28:32].reshape(-1, 3).mean(axis=0)).max() <= 1.5
    expected = actor.infer({**observation, IMAGE: small, "seed": 1})["actions"]
    assert actor.infer({**observation, IMAGE: camera, "seed": 1})["actions"].tobytes() == expected.tobytes()


def test_the_longest_images_are_scaled(policy, observation):
    for size in ((MAX_SIDE, 1), (1, MAX_SIDE), (3, MAX_SIDE)):
        assert letterbox(np.zeros((1, *size, 3), np.uint8), (28, 28)).shape == (1, 28, 28, 3)
        assert "actions" in served(policy).infer({**observation, IMAGE: np.zeros((*size, 3), np.uint8)})


def test_states_may_be_lists_and_of_any_number_type(policy, observation):
    actor = served(policy)
    expected = actor.infer({**observation, STATE: np.array([1, 2, 3], np.float32), "seed": 1})["actions"]
    for state in ([1, 2, 3], [1.0, 2, 3], np.array([1, 2, 3]), np.array([1, 2, 3], np.float64)):
        assert actor.infer({**observation, STATE: state, "seed": 1})["actions"].tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({IMAGE: None}, "observation.images.0 is NoneType"),
        ({IMAGE: np.zeros((16, 16, 3), np.float32)}, r"observation.images.0 is float32 \(16, 16, 3\)"),
        ({IMAGE: np.zeros((3, 16, 16), np.uint8)}, r"is uint8 \(3, 16, 16\)"),
        ({IMAGE: np.zeros((16, 16, 4), np.uint8)}, r"is uint8 \(16, 16, 4\)"),
        ({IMAGE: np.zeros((16, 16), np.uint8)}, r"is uint8 \(16, 16\)"),
        ({IMAGE: np.zeros((0, 16, 3), np.uint8)}, r"is uint8 \(0, 16, 3\)"),
        ({IMAGE: np.zeros((1, 16, 16, 3), np.uint8)}, r"expected: uint8 \(height, width, 3\), RGB"),
        ({IMAGE: np.zeros((1, 8193, 3), np.uint8)}, r"is uint8 \(1, 8193, 3\)\n.*\n  expected: .* up to 8192"),
        ({IMAGE: np.zeros((8193, 1, 3), np.uint8)}, r"is uint8 \(8193, 1, 3\)"),
        ({IMAGE: b"jpeg"}, "is bytes"),
        ({STATE: np.zeros(2, np.float32)}, r"observation.state is float32 \(2,\)\n.*\n  expected: numbers \(3,\)"),
        ({STATE: np.zeros((1, 3), np.float32)}, r"is float32 \(1, 3\)"),
        ({STATE: np.array([1, np.nan, 2])}, "observation.state is not finite"),
        ({STATE: np.array([1, 1e39, 2])}, "observation.state is not finite"),
        ({STATE: np.array(["a", "b", "c"])}, r"observation.state is <U1 \(3,\)"),
        ({STATE: np.array([True, False, True])}, r"is bool \(3,\)"),
        ({STATE: "abc"}, "is str"),
        ({STATE: [[1], [2, 3]]}, "is list"),
        ({STATE: [1, None, 3]}, "is list"),
        ({STATE: {}}, "is dict"),
        ({"prompt": 5}, "the prompt is int"),
        ({"prompt": "fold, Advantage: negative"}, "is not served"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": True}, "seed is True"),
    ],
)
def test_what_the_policy_was_not_trained_on_is_refused(policy, observation, changes, problem):
    with pytest.raises(DataError, match=problem):
        served(policy).infer({**observation, **changes})


@pytest.mark.parametrize("key", [IMAGE, STATE, FORCE, "prompt"])
def test_what_is_missing_is_named(policy, observation, key):
    del observation[key]
    with pytest.raises(DataError, match=f"the observation has no {re.escape(key)}\n  where: keys: "):
        served(policy).infer({**observation, b"bytes": 1})


def test_actions_that_are_no_numbers_do_not_reach_a_robot(policy, observation, monkeypatch):
    monkeypatch.setattr(policy, "act", lambda *_, **__: np.full((1, 3, 2), np.nan, np.float32))
    with pytest.raises(RoboliftError, match="the policy's actions are not finite"):
        served(policy).infer(observation)


def test_warming_up_finds_guidance_that_was_not_trained_for(tmp_path):
    policy = Policy.load(publish_small(tmp_path, trained_prompts=(2,)).uri)
    served(policy).warm_up()
    with pytest.raises(UsageError, match="the bare prompt 'fold' was not trained"):
        served(policy, guidance=2.0).warm_up()


def test_a_policy_without_cameras_or_states_is_served(tmp_path):
    blind = served(Policy.load(publish_small(tmp_path, cameras=0).uri))
    blind.warm_up()
    assert blind.metadata["image_size"] is None
    answer = blind.infer({STATE: np.zeros(3), FORCE: np.zeros(1), "prompt": "fold"})
    assert answer["actions"].shape == (3, 2)
