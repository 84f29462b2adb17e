"""The network, Euler sampling and guidance."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robolift.policy import model, sampling
from robolift.policy.model import PolicyShape
from robolift.policy.normalize import Normalizer
from robolift.policy.presets import PRESETS, tiny
from robolift.policy.recipe import Recipe


def _shape(objective="flow", prompts=3):
    return PolicyShape(observation_dim=5, num_prompts=prompts, action_horizon=4, action_dim=2, objective=objective)


def _weights(shape, seed=0):
    return model.init(jax.random.key(seed), tiny(), shape)


@pytest.mark.parametrize("objective", ["flow", "regression"])
def test_the_prompt_changes_the_actions_before_any_training(objective):
    shape = _shape(objective)
    observation, noise = jnp.ones((3, 5)), jnp.ones((3, 4, 2))
    actions = sampling.sample(_weights(shape), shape, observation, jnp.arange(3), noise, num_steps=4)
    spread = [float(jnp.abs(actions[a] - actions[b]).max()) for a, b in ((0, 1), (1, 2))]
    assert min(spread) > 0.05


def test_number_of_weights_and_the_dummy_inputs_of_regression():
    hidden = 2 * (256 * 256 + 256)
    regression = 3 * 16 + (5 + 16) * 256 + 256 + hidden + 256 * 8 + 8
    assert model.count(_weights(_shape("regression"))) == regression
    assert model.count(_weights(_shape("flow"))) == regression + 8 * 256 + 64 * 256


def test_time_embedding_is_sines_then_cosines_from_period_4e_3_to_4():
    embedded = model.embed_time(jnp.array([0.0, 1.0]), 4)
    assert embedded[0].tolist() == [0, 0, 1, 1]
    angles = [2 * math.pi / 4e-3, 2 * math.pi / 4]
    assert embedded[1] == pytest.approx([math.sin(a) for a in angles] + [math.cos(a) for a in angles], abs=1e-3)


def test_euler_of_a_constant_velocity_is_exact_and_of_a_linear_one_literal():
    noise, actions = jnp.array([[[3.0]], [[-1.0]]]), jnp.array([[[1.0]], [[0.5]]])
    for steps in (1, 3, 10):
        assert np.asarray(sampling.integrate(lambda x, t: noise - actions, noise, steps)) == pytest.approx(
            np.asarray(actions), abs=1e-6
        )
    # dx/dt = t in two steps from t = 1: x - 1/2 * 1 - 1/2 * 1/2.
    linear = sampling.integrate(lambda x, t: jnp.broadcast_to(t[:, None, None], x.shape), noise, 2)
    assert linear.ravel().tolist() == [2.25, -1.75]


def test_guidance_algebra():
    u, c = jnp.array([1.0, 2.0]), jnp.array([3.0, 1.0])
    assert sampling.guide(u, c, 0.0).tolist() == [1, 2]
    assert sampling.guide(u, c, 1.0).tolist() == [3, 1]
    assert sampling.guide(u, c, 2.0).tolist() == [5, 0]


@pytest.mark.parametrize("objective", ["flow", "regression"])
def test_guided_sampling_equals_conditional_at_1_and_unconditional_at_0(objective):
    shape = _shape(objective)
    params = _weights(shape)
    observation = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5)), jnp.float32)
    noise = jnp.asarray(np.random.default_rng(1).standard_normal((4, 4, 2)), jnp.float32)
    prompt, bare = jnp.array([1, 2, 1, 2]), jnp.zeros(4, jnp.int32)

    def sample(prompt, **guidance):
        return np.asarray(sampling.sample(params, shape, observation, prompt, noise, num_steps=5, **guidance))

    conditional, unconditional = sample(prompt), sample(bare)
    assert sample(prompt, bare=bare, strength=1.0) == pytest.approx(conditional, abs=1e-5)
    assert sample(prompt, bare=bare, strength=0.0) == pytest.approx(unconditional, abs=1e-5)
    beyond = sample(prompt, bare=bare, strength=2.0)
    if objective == "regression":
        assert beyond == pytest.approx(2 * conditional - unconditional, abs=1e-5)
    assert not np.allclose(beyond, conditional, atol=1e-2)


def test_sampling_with_a_cached_prefix_is_the_plain_euler_loop():
    shape = _shape()
    params, prompt = _weights(shape), jnp.array([1, 2])
    observation = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5)), jnp.float32)
    chunk = noise = jnp.asarray(np.random.default_rng(1).standard_normal((2, 4, 2)), jnp.float32)
    for k in range(10):
        cached = model.prefix(params, observation, prompt)
        velocity = model.predict(params, cached, shape, chunk, jnp.full(2, 1 - k / 10))
        chunk = chunk - 0.1 * velocity
    sampled = sampling.sample(params, shape, observation, prompt, noise, num_steps=10)
    assert np.asarray(sampled) == pytest.approx(np.asarray(chunk), abs=1e-5)


def test_normalizer_literal_numbers():
    data = np.array([[0.0, 7.0], [2.0, 7.0], [4.0, 7.0]])
    fit = Normalizer.fit(data, "mean_std")
    assert fit.offset.tolist() == [2, 7]
    assert fit.scale == pytest.approx([math.sqrt(8 / 3), 1])  # a constant dimension is shifted and not scaled
    assert fit.apply(data)[:, 1].tolist() == [0, 0, 0]
    hundred = Normalizer.fit(np.arange(101.0)[:, None], "quantile")
    assert hundred.apply(np.array([[1.0], [50.0], [99.0]])).ravel() == pytest.approx([-1, 0, 1])
    assert fit.invert(fit.apply(data)) == pytest.approx(data, abs=1e-6)
    again = Normalizer.from_dict(fit.to_dict())
    assert (again.scale == fit.scale).all()
    assert again.scale.dtype == np.float32


def test_presets_are_frozen_and_the_recipe_refuses_what_can_not_work():
    assert {name: preset().preset for name, preset in PRESETS.items()} == {"tiny": "tiny"}
    for wrong, message in (
        ({"preset": "huge"}, "there are: tiny"),
        ({"execute": 9}, "at most action_horizon"),
        ({"vision": "none", "state_keys": []}, "see nothing"),
        ({"vision": "none", "cameras": ["a"]}, "vision is none"),
        ({"batch_size": 5, "num_devices": 2}, "multiple of num_devices"),
        ({"num_devices": 3, "fsdp_devices": 2, "batch_size": 6}, "divisor of num_devices"),
        ({"label_dropout": 1.0}, "less than 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Recipe(**wrong)
    assert Recipe(action_horizon=8).executed == 4
    assert Recipe(action_horizon=1).executed == 1
    assert Recipe(action_horizon=6, execute=3).executed == 3
