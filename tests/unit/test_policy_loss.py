"""Flow matching, regression and their masks: literal numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robolift.policy import loss as losses
from robolift.policy import model
from robolift.policy.loss import Batch
from robolift.policy.model import PolicyShape
from robolift.policy.presets import tiny


def _batch(rows=6, dim=5, horizon=4, actions=2, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(
        observation=rng.standard_normal((rows, dim)).astype(np.float32),
        prompt=np.zeros(rows, np.int32),
        actions=rng.standard_normal((rows, horizon, actions)).astype(np.float32),
        real=np.ones((rows, horizon), np.float32),
        weight=np.ones(rows, np.float32),
    )


def _shape(objective):
    return PolicyShape(observation_dim=5, num_prompts=3, action_horizon=4, action_dim=2, objective=objective)


def test_flow_time_is_beta_1_5_1_stretched_so_that_1_is_noise():
    # Beta(1.5, 1) has distribution function x^1.5, so u = 1/8 gives 1/4.
    uniform = jnp.array([0.0, 0.125, 1.0])
    assert losses.flow_time(uniform) == pytest.approx([0.001, 0.001 + 0.999 * 0.25, 1.0], abs=1e-6)
    many = losses.flow_time(jax.random.uniform(jax.random.key(0), (200_000,)))
    assert float(many.mean()) == pytest.approx(0.001 + 0.999 * 0.6, abs=2e-3)  # the mean of Beta(1.5, 1) is 1.5 / 2.5
    assert float(many.min()) >= 0.001


def test_interpolation_and_velocity():
    actions, noise = jnp.array([[[1.0, 2.0]]]), jnp.array([[[5.0, -2.0]]])
    chunk, velocity = losses.interpolate(actions, noise, jnp.array([0.25]))
    assert chunk.tolist() == [[[2.0, 1.0]]]  # 0.25 * 5 + 0.75 * 1, 0.25 * -2 + 0.75 * 2
    assert velocity.tolist() == [[[4.0, -4.0]]]
    assert losses.interpolate(actions, noise, jnp.array([1.0]))[0].tolist() == noise.tolist()
    assert losses.interpolate(actions, noise, jnp.array([0.0]))[0].tolist() == actions.tolist()


def test_the_mean_square_is_of_the_actions_that_exist():
    prediction = jnp.array([[[1.0, 3.0], [100.0, 100.0]], [[0.0, 0.0], [2.0, 0.0]]])
    real = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    errors = losses.mean_square(prediction, jnp.zeros_like(prediction))
    # Real errors: (1 + 9) / 2 = 5, 0, (4 + 0) / 2 = 2; three real actions.
    assert float(losses.masked_mean(errors, real, jnp.ones(2))) == pytest.approx(7 / 3)
    assert float(losses.masked_mean(errors, real, jnp.array([2.0, 0.0]))) == pytest.approx(10 / 3)


@pytest.mark.parametrize("objective", ["flow", "regression"])
def test_what_is_predicted_past_the_end_is_no_error(objective):
    shape = _shape(objective)
    params = model.init(jax.random.key(0), tiny(), shape)
    batch = _batch()
    batch.real[:, 2:] = 0
    value = jax.jit(lambda bias: _loss_with_bias(params, bias, batch, shape))
    zero = jnp.zeros((4, 2))
    assert float(value(zero.at[2:].set(9.0))) == float(value(zero))
    assert float(value(zero.at[1].set(9.0))) > float(value(zero)) + 10


def _loss_with_bias(params, bias, batch, shape):
    output = {**params["output"], "bias": bias.reshape(-1)}
    return losses.loss({**params, "output": output}, jax.random.key(1), batch, shape)


def test_flow_loss_is_the_error_of_the_velocity():
    shape, batch = _shape("flow"), _batch()
    params = model.init(jax.random.key(0), tiny(), shape)
    key = jax.random.key(7)
    noise_key, time_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, batch.actions.shape)
    time = losses.flow_time(jax.random.uniform(time_key, (6,)))
    t = time[:, None, None]
    cached = model.prefix(params, batch.observation, batch.prompt)
    predicted = model.predict(params, cached, shape, t * noise + (1 - t) * batch.actions, time)
    expected = ((predicted - (noise - batch.actions)) ** 2).mean()
    assert float(losses.loss(params, key, batch, shape)) == pytest.approx(float(expected), rel=1e-5)


def test_weights_scale_rows():
    shape, batch = _shape("regression"), _batch()
    params = model.init(jax.random.key(0), tiny(), shape)
    key = jax.random.key(0)
    single = [losses.loss(params, key, jax.tree.map(lambda a, i=i: a[i : i + 1], batch), shape) for i in range(6)]
    weight = np.array([0, 1, 2, 0, 3, 0], np.float32)
    expected = sum(float(w * s) for w, s in zip(weight, single, strict=True)) / 6
    assert float(losses.loss(params, key, batch._replace(weight=weight), shape)) == pytest.approx(expected, rel=1e-5)


def test_dropped_labels_fall_back_to_their_own_bare_task():
    bare = jnp.array([0, 0, 0, 3, 3, 3])
    prompt = jnp.tile(jnp.array([1, 2, 4, 5]), 5000)
    dropped = losses.drop_labels(jax.random.key(0), prompt, bare, 0.3)
    changed = np.asarray(dropped != prompt)
    # 20,000 draws: four standard deviations are 0.013.
    assert changed.mean() == pytest.approx(0.3, abs=0.013)
    assert set(np.asarray(dropped)[changed & np.asarray(prompt < 3)]) == {0}
    assert set(np.asarray(dropped)[changed & np.asarray(prompt > 3)]) == {3}
    assert (losses.drop_labels(jax.random.key(0), prompt, bare, 0.3) == dropped).all()
    assert (losses.drop_labels(jax.random.key(1), prompt, bare, 0.3) != dropped).any()
    assert (losses.drop_labels(jax.random.key(0), prompt, bare, 0.0) == prompt).all()
