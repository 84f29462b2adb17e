"""The pi0.5 network: openpi's recorded outputs, what sees what, low-rank updates, guidance, types."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pi05_case
import pytest

from robolift.policy.loss import flow_errors
from robolift.policy.pi05 import gemma, lora, network, tree
from robolift.policy.pi05.config import dummy

CONFIG = dummy()
CLOSE = 1e-5
# Compiling is most of the time of these tests; without LLVM's optimizations it is half.
compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
velocity = compiled(network.velocity, static_argnums=1)


def _params(config=CONFIG):
    return tree.unflatten(pi05_case.weights(config))


def _inputs(case):
    return network.Inputs(*case[:4])


def _time(case):
    return case.beta * np.float32(0.999) + np.float32(0.001)


def _loss_rows(params, config, case, real_dims):
    at = partial(network.velocity, params, config, _inputs(case))
    return flow_errors(at, case.actions, case.noise, _time(case), real_dims=real_dims).mean(1)


@pytest.fixture(scope="module")
def case():
    return pi05_case.case(CONFIG)


@pytest.fixture(scope="module")
def params():
    return _params()


def _assert_close(found, wanted, tolerance=CLOSE):
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["dummy", "dummy_lora"])
def test_outputs_are_openpis(name, case):
    config = CONFIG if name == "dummy" else pi05_case.with_lora()
    recorded, params, inputs = pi05_case.golden(name), _params(config), _inputs(case)

    @compiled
    def outputs(params, noise, time):
        return (
            _loss_rows(params, config, case, config.action_dim),
            network.velocity(params, config, inputs, noise, time),
            network.sample(params, config, inputs, noise, steps=config.sampling_steps),
        )

    found = outputs(params, case.noise, _time(case))
    for output, value in zip(("loss_rows", "velocity", "actions"), found, strict=True):
        _assert_close(value, recorded[output])


def test_the_loss_is_of_the_real_dims_alone(params, case):
    time, real = _time(case), 3
    share = time[:, None, None]
    found = velocity(params, CONFIG, _inputs(case), share * case.noise + (1 - share) * case.actions, time)
    rows = compiled(lambda params: _loss_rows(params, CONFIG, case, real))(params)
    wanted = ((np.asarray(found) - (case.noise - case.actions))[:, :, :real] ** 2).mean((1, 2))
    np.testing.assert_allclose(rows, wanted, rtol=1e-5)


def test_cached_velocity_is_velocity(params, case):
    @compiled
    def cached(params, inputs, noisy, time):
        cache = network.prefix_cache(params, CONFIG, inputs)
        return network.cached_velocity(params, CONFIG, cache, noisy, time)

    inputs, chunk = _inputs(case), (case.noise, _time(case))
    _assert_close(cached(params, inputs, *chunk), velocity(params, CONFIG, inputs, *chunk))


def test_the_prefix_does_not_depend_on_the_actions(params, case, monkeypatch):
    seen, forward = [], gemma.forward

    def recording(*args, **options):
        seen.append(forward(*args, **options))
        return seen[-1]

    monkeypatch.setattr(gemma, "forward", recording)

    @compiled
    def both(params, noisy, time):
        seen.clear()
        network.velocity(params, CONFIG, _inputs(case), noisy, time)
        ((prefix, suffix), _), *_ = seen
        return prefix, suffix

    (prefix, suffix), (again, other) = (
        both(params, case.noise, _time(case)),
        both(params, case.actions, 1 - _time(case)),
    )
    np.testing.assert_array_equal(prefix, again)
    assert np.abs(np.asarray(suffix) - other).max() > 0.1


def test_what_is_masked_changes_nothing_and_what_is_not_does(params, case):
    inputs, noisy, time = _inputs(case), case.noise, _time(case)
    before = np.asarray(velocity(params, CONFIG, inputs, noisy, time))

    def after(camera_seen, token_seen):
        images = np.where(inputs.image_mask[..., None, None, None] == camera_seen, -inputs.images, inputs.images)
        tokens = np.where(inputs.token_mask == token_seen, (inputs.tokens + 1) % CONFIG.vocabulary, inputs.tokens)
        return velocity(params, CONFIG, inputs._replace(images=images, tokens=tokens), noisy, time)

    np.testing.assert_array_equal(after(False, False), before)
    assert np.abs(after(True, False) - before).max(axis=(1, 2)).min() > 1e-3


def test_recomputing_layers_changes_no_gradient(params, case):
    def gradient(remat):
        config = replace(CONFIG, remat=remat)

        def loss(params):
            return _loss_rows(params, config, case, 8).mean()

        return tree.flatten(compiled(jax.grad(loss))(params))

    kept, again = gradient(False), gradient(True)
    for path, value in kept.items():
        np.testing.assert_allclose(again[path], value, rtol=1e-4, atol=1e-6, err_msg=path)
    unused = [path for path, value in kept.items() if not np.any(value)]
    assert unused == ["PaliGemma/llm/final_norm/scale"]  # of the prefix; openpi's tree has it too


def test_bfloat16_computes_near_float32_and_its_gradients_are_float32(params, case):
    half, inputs, time = replace(CONFIG, dtype="bfloat16"), _inputs(case), _time(case)
    found = velocity(params, half, inputs, case.noise, time)
    assert found.dtype == jnp.float32
    exact = np.asarray(velocity(params, CONFIG, inputs, case.noise, time))
    assert 1e-5 < np.abs(found - exact).max() < 0.1

    def loss(params):
        return _loss_rows(params, half, case, 8).mean()

    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(jax.grad(loss), params))} == {jnp.dtype("float32")}


def test_a_fresh_low_rank_update_changes_nothing(params, case):
    config = pi05_case.with_lora()
    zero = {path: np.zeros(w.shape, np.float32) for path, w in tree.weights(config).items() if w.spread == 0}
    first, second = ({path for path in tree.weights(config) if path.endswith(end)} for end in ("lora_a", "lora_b"))
    assert len(first) == len(second) == 2 * 5  # matrices of two experts
    assert second <= zero.keys()
    assert not first & zero.keys()
    plain = tree.flatten(params)
    updates = {path: value for path, value in pi05_case.weights(config).items() if path not in plain} | {
        path: zero[path] for path in second
    }
    updated = tree.unflatten({**plain, **updates})
    args = (_inputs(case), case.noise, _time(case))
    np.testing.assert_array_equal(velocity(updated, config, *args), velocity(params, CONFIG, *args))


def test_equations_of_a_low_rank_update():
    assert lora.low_rank_equations("BTW,AWH->BTAH") == ("BTW,AWL->BTAL", "BTAL,ALH->BTAH")
    assert lora.low_rank_equations("BTAH,AHW->BTW") == ("BTAH,AHL->BTL", "BTL,ALW->BTW")


def test_guidance(params, case):
    inputs = _inputs(case)
    bare = inputs._replace(tokens=(inputs.tokens + 1) % CONFIG.vocabulary)

    @compiled
    def sampled(params, inputs, bare, guidance):
        options = {"steps": 2, "guidance": guidance, "unconditional": bare}
        return network.sample(params, CONFIG, inputs, case.noise, **options)

    alone = compiled(partial(network.sample, config=CONFIG, steps=2))
    plain, without = (alone(params, inputs=seen, noise=case.noise) for seen in (inputs, bare))
    _assert_close(sampled(params, inputs, bare, 1.0), plain)
    _assert_close(sampled(params, inputs, bare, 0.0), without)
    assert np.abs(np.asarray(sampled(params, inputs, bare, 2.0)) - plain).max() > 1e-3


def test_fresh_weights_are_float32_of_the_said_spread_and_the_same_for_a_key():
    init = compiled(network.init, static_argnums=1)
    fresh, again, other = (jax.tree.map(np.asarray, tree.flatten(init(jax.random.key(k), CONFIG))) for k in (0, 0, 1))
    for path, weight in tree.weights(CONFIG).items():
        assert fresh[path].dtype == jnp.float32
        np.testing.assert_array_equal(fresh[path], again[path])
        assert np.array_equal(fresh[path], other[path]) == (weight.spread == 0), path
        if fresh[path].size > 1000:
            assert float(fresh[path].mean()) == pytest.approx(weight.mean, abs=0.1 * weight.spread), path
            assert float(fresh[path].std()) == pytest.approx(weight.spread, rel=0.1), path


def test_time_embedding_is_sines_then_cosines_of_periods_from_4e_3_to_4():
    found = network.embed_time(jnp.array([0.0, 0.001]), 4)
    assert found[0].tolist() == [0, 0, 1, 1]
    angles = 2 * np.pi * 0.001 / np.array([4e-3, 4.0])
    assert found[1] == pytest.approx([*np.sin(angles), *np.cos(angles)], abs=1e-6)
