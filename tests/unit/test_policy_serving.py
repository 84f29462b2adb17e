"""A policy as files, and what it answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from toy_policies import BARE, PROMPTS, observe, save_small

from robolift.errors import DataError, UsageError
from robolift.policy import encoder
from robolift.policy.checkpoint import PolicySpec, load_policy, read_tensors
from robolift.policy.serving import Policy

POSITIVE = "fold, Advantage: positive"
NEGATIVE = "fold, Advantage: negative"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    save_small(path)
    return path


@pytest.fixture(scope="module")
def policy(folder):
    return Policy.load(str(folder))


def pick(observation, rows):
    return {key: array[rows] for key, array in observation.items()}


def test_a_loaded_policy_knows_what_it_needs_and_gives(policy):
    assert policy.cameras == ("observation.images.0",)
    assert policy.image_size == (16, 16)
    assert policy.state_keys == ("observation.state", "observation.force")
    assert (policy.action_horizon, policy.execute, policy.action_dim) == (3, 2, 2)
    assert policy.prompts == PROMPTS


def test_the_spec_survives_json(folder):
    document = json.loads((folder / "policy.json").read_text())
    spec = load_policy(str(folder))[0]
    assert json.loads(json.dumps(spec.to_dict())) == document
    assert document["preset"] == "small"
    assert document["cameras"] == ["observation.images.0"]
    assert document["action"] == {"offset": [10.0, 20.0], "scale": [1.0, 2.0]}
    assert PolicySpec.from_dict(document).to_dict() == spec.to_dict()


def test_saving_what_was_loaded_gives_the_same_bytes(folder, tmp_path):
    save_small(tmp_path)
    for name in ("policy.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_batch_of_one_is_the_row_of_a_batch_of_seven(policy):
    observation = observe(policy.spec, 7)
    prompts = [POSITIVE, NEGATIVE, "fold"] * 2 + [POSITIVE]
    seeds = list(range(100, 107))
    for guidance in (1.0, 2.0):
        together = policy.act(observation, prompts=prompts, seed=seeds, guidance=guidance)
        assert together.shape == (7, 3, 2)
        assert together.dtype == np.float32
        for row in range(7):
            alone = policy.act(
                pick(observation, [row]), prompts=prompts[row : row + 1], seed=seeds[row : row + 1], guidance=guidance
            )
            assert alone[0].tobytes() == together[row].tobytes()


def test_more_rows_than_one_compiled_call_takes(policy):
    observation = observe(policy.spec, 19)
    together = policy.act(observation, prompts=[POSITIVE] * 19, seed=list(range(19)))
    last = policy.act(pick(observation, [17, 18]), prompts=[POSITIVE] * 2, seed=[17, 18])
    assert (together[17:] == last).all()
    assert len(np.unique(together[:, 0, 0])) == 19
    assert policy.act(observe(policy.spec, 0), prompts=[], seed=0).shape == (0, 3, 2)


def test_the_seed_decides_the_actions(policy):
    observation = pick(observe(policy.spec, 1), [0, 0])
    first = policy.act(observation, prompts=[POSITIVE] * 2, seed=5)
    assert (policy.act(observation, prompts=[POSITIVE] * 2, seed=5) == first).all()
    assert np.abs(first[0] - first[1]).max() > 1e-3  # each row has its own noise
    assert np.abs(policy.act(observation, prompts=[POSITIVE] * 2, seed=6) - first).max() > 1e-3
    with pytest.raises(UsageError, match="3 seeds for 2 prompts"):
        policy.act(observation, prompts=[POSITIVE] * 2, seed=[1, 2, 3])


def test_actions_are_in_the_data_s_units(policy, folder, tmp_path):
    spec = save_small(tmp_path, objective="regression")
    document = json.loads((tmp_path / "policy.json").read_text())
    plain = Policy.load(str(tmp_path))
    observation = observe(spec, 2)
    actions = plain.act(observation, prompts=[POSITIVE] * 2, seed=0)
    assert (plain.act(observation, prompts=[POSITIVE] * 2, seed=1) == actions).all()  # regression draws no noise
    document["action"] = {"offset": [0.0, 0.0], "scale": [1.0, 1.0]}
    (tmp_path / "policy.json").write_text(json.dumps(document))
    normalised = Policy.load(str(tmp_path)).act(observation, prompts=[POSITIVE] * 2, seed=0)
    assert actions == pytest.approx(normalised * [1, 2] + [10, 20], abs=1e-5)


def test_guidance_1_is_the_conditional_policy_and_0_the_unconditional_one(policy):
    observation = observe(policy.spec, 3)

    def act(prompt, guidance):
        return policy.act(observation, prompts=[prompt] * 3, seed=1, guidance=guidance)

    conditional, bare = act(POSITIVE, 1), act("fold", 1)
    assert act(POSITIVE, 1.0 + 1e-6) == pytest.approx(conditional, abs=1e-3)
    assert act(POSITIVE, 0.0) == pytest.approx(bare, abs=1e-4)
    assert act("fold", 3.0) == pytest.approx(bare, abs=1e-4)
    assert np.abs(act(POSITIVE, 2.0) - conditional).max() > 1e-2
    assert np.abs(conditional - bare).max() > 1e-2


def test_images_and_states_reach_the_actions(policy):
    observation = observe(policy.spec, 1)
    before = policy.act(observation, prompts=[POSITIVE], seed=0)
    for key, array in observation.items():
        changed = {**observation, key: 255 - array if array.dtype == np.uint8 else array + 1}
        assert np.abs(policy.act(changed, prompts=[POSITIVE], seed=0) - before).max() > 1e-3, key
    extra = {**observation, "observation.images.unused": np.zeros(1)}
    assert (policy.act(extra, prompts=[POSITIVE], seed=0) == before).all()


def test_unknown_and_untrained_prompts_are_refused(policy, tmp_path):
    observation = observe(policy.spec, 1)
    with pytest.raises(UsageError) as refused:
        policy.act(observation, prompts=["fold, Advantage: great"], seed=0)
    assert str(refused.value) == (
        "unknown prompt 'fold, Advantage: great'; the policy was trained on:\n"
        "  fold\n  fold, Advantage: negative\n  fold, Advantage: positive"
    )
    save_small(tmp_path, trained_prompts=(BARE,), variant="plain")
    plain = Policy.load(str(tmp_path))
    with pytest.raises(UsageError, match=r"unknown prompt 'fold, Advantage: positive'.*\n  fold$"):
        plain.act(observation, prompts=[POSITIVE], seed=0)


def test_prompts_count_rows_of_the_whole_table(policy, tmp_path):
    save_small(tmp_path, trained_prompts=(2,))
    only = Policy.load(str(tmp_path))
    observation = observe(policy.spec, 2)
    expected = policy.act(observation, prompts=[POSITIVE] * 2, seed=3)
    assert (only.act(observation, prompts=[POSITIVE] * 2, seed=3) == expected).all()
    with pytest.raises(UsageError, match=r"guidance is 2\.0, but the bare prompt 'fold' was not trained"):
        only.act(observation, prompts=[POSITIVE] * 2, seed=3, guidance=2.0)


def test_missing_and_wrong_observations_are_named(policy):
    observation = observe(policy.spec, 2)
    camera = "observation.images.0"
    act = {"prompts": [POSITIVE] * 2, "seed": 0}
    for key in observation:
        with pytest.raises(DataError, match=f"the observation has no {key}"):
            policy.act({name: array for name, array in observation.items() if name != key}, **act)
    for key, array, message in (
        (camera, np.zeros((2, 15, 16, 3), np.uint8), r"is uint8 \(2, 15, 16, 3\)"),
        (camera, np.zeros((2, 16, 16, 3), np.float32), r"is float32 \(2, 16, 16, 3\)"),
        (camera, np.zeros((1, 16, 16, 3), np.uint8), r"is uint8 \(1, 16, 16, 3\)"),
        ("observation.state", np.zeros((2, 4), np.float32), r"is float32 \(2, 4\)"),
        ("observation.state", np.zeros((2, 3), np.uint8), r"is uint8 \(2, 3\)"),
        ("observation.state", np.full((2, 3), np.nan), "a state is not finite"),
    ):
        with pytest.raises(DataError, match=message):
            policy.act({**observation, key: array}, **act)


def test_a_policy_without_cameras(tmp_path):
    spec = save_small(tmp_path, cameras=0)
    blind = Policy.load(str(tmp_path))
    assert blind.cameras == ()
    assert blind.image_size is None
    assert blind.act(observe(spec, 2), prompts=[POSITIVE] * 2, seed=0).shape == (2, 3, 2)


def test_two_cameras_are_not_exchanged(tmp_path):
    spec = save_small(tmp_path, cameras=2)
    policy = Policy.load(str(tmp_path))
    observation = observe(spec, 1)
    first, second = spec.cameras
    swapped = {**observation, first: observation[second], second: observation[first]}
    actions = [policy.act(seen, prompts=[POSITIVE], seed=0) for seen in (observation, swapped)]
    assert np.abs(actions[0] - actions[1]).max() > 1e-3
    stored = read_tensors(str(tmp_path / "model.safetensors"))
    loaded = load_policy(str(tmp_path))[2]
    assert (np.asarray(loaded[1]["conv0.weight"]) == stored["encoder.1.conv0.weight"]).all()
    assert encoder.pick_weights(stored, spec.encoder, where="here").keys() == {
        f"encoder.{k}.{name}" for k in (0, 1) for name in ("conv0.weight", "conv0.bias", "log_temperature")
    }


def test_damaged_files_are_refused(tmp_path):
    save_small(tmp_path)
    spec, weights = tmp_path / "policy.json", tmp_path / "model.safetensors"
    whole = spec.read_text()
    for change, message in (
        (lambda d: d.pop("action"), "not a policy: KeyError"),
        (lambda d: d["architecture"].update(depth=3), "not a policy: TypeError"),
        (lambda d: d.update(state_dims=7), "not a policy: TypeError"),
        (lambda d: d.update(action_horizon=4), r"weight .* is Spec\(shape=.*, dtype='float32'\)"),
    ):
        document = json.loads(whole)
        change(document)
        spec.write_text(json.dumps(document))
        with pytest.raises(DataError, match=message):
            Policy.load(str(tmp_path))
    spec.write_text(whole[:100])
    with pytest.raises(DataError, match=r"policy\.json"):
        Policy.load(str(tmp_path))
    spec.write_text(whole)
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(DataError, match="not readable as safetensors"):
        Policy.load(str(tmp_path))
    weights.unlink()
    with pytest.raises(DataError, match=r"model\.safetensors"):
        Policy.load(str(tmp_path))
