"""Training pi0.5: what it learns, which weights it changes, what it never looks at, and that it goes on from a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import miniature_pi05 as miniature
import numpy as np
import pytest
from toy_policies import NEGATIVE, POSITIVE

from robolift import storage
from robolift.errors import DataError
from robolift.policy import learning, loss
from robolift.policy.pi05 import network, tree, weights
from robolift.policy.pi05.acting import Pi05Network
from robolift.policy.pi05.batches import Batch, as_inputs
from robolift.policy.pi05.config import PRESETS
from robolift.policy.pi05.learner import decays
from robolift.policy.pi05.state_store import ShardedStore
from robolift.policy.recipe import Recipe

CONFIG = miniature.config()
SHORT = {"steps": 6, "save_every": 2, "log_every": 3, "label_dropout": 0.3}


@pytest.fixture(scope="module", autouse=True)
def quick_compiling():
    """Compiling takes most of the time, and what is computed is not to depend on how well it was optimised."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return miniature.tokenizer(tmp_path_factory.mktemp("words"))


def train(config, settings: Recipe, words, store):
    learner = miniature.learner(config, settings)
    return learner, learning.run(learner, miniature.rows(config, settings, words), settings, store)


def test_a_run_that_goes_on_ends_with_the_same_bits(words, tmp_path):
    settings, store = miniature.recipe(**SHORT), ShardedStore(str(tmp_path))
    whole = train(CONFIG, settings, words, store)[1]
    # The store still has what a run that was killed after step 4 leaves.
    assert storage.read_json(f"{store.uri}/latest.json")["step"] == 4
    again = train(CONFIG, settings, words, store)[1]
    assert [row["step"] for row in whole.curves["train"]] == [3, 6]
    assert again.curves == whole.curves
    assert again.params.keys() == whole.params.keys() == tree.names_and_shapes(CONFIG).keys()
    for name, weight in whole.params.items():
        assert again.params[name].tobytes() == weight.tobytes(), name


def test_low_rank_training_changes_updates_and_what_they_leave_open(words, tmp_path):
    lora = replace(miniature.with_updates(CONFIG), dtype="bfloat16")
    settings = miniature.recipe(steps=3, val_fraction=0, frozen=["PaliGemma/img/.*"], learning_rate=1e-2)
    learner, fitted = train(lora, settings, words, ShardedStore(str(tmp_path)))
    first = tree.flatten(learner.whole({}))
    last = tree.flatten(learner.whole(fitted.params))
    changed = {name for name in first if not np.array_equal(first[name], last[name])}
    allowed = {name for name in first if "lora" in name or ("llm" not in name and "/img/" not in name)}
    assert fitted.params.keys() == allowed
    assert changed <= allowed
    assert {"action_out_proj/kernel", "action_in_proj/kernel"} <= changed
    assert all(weight.dtype == np.float32 for weight in last.values())
    state, frozen = learner.template()
    assert {leaf.size for leaf in jax.tree.leaves(state.optimizer) if leaf.ndim} <= {first[n].size for n in allowed}
    assert frozen["PaliGemma/llm/layers/attn/q_einsum/w"].dtype == jnp.bfloat16
    assert frozen["PaliGemma/llm/embedder/input_embedding"].dtype == jnp.float32


def test_padding_is_no_target_and_the_loss_is_the_networks_own(words):
    settings = miniature.recipe()
    learner, data = miniature.learner(CONFIG, settings), miniature.rows(CONFIG, settings, words)
    batch = data.batch(np.arange(8))
    assert batch.actions.shape == (8, 1, 4)
    assert (batch.actions[:, :, miniature.REAL_DIMS :] == 0).all()
    params = {name: jnp.asarray(weight) for name, weight in tree.flatten(learner.whole({})).items()}
    key = jax.random.key(3)
    objective = jax.jit(learner._loss)
    found = float(objective(params, {}, key, batch))
    other = dict(params)
    # What the network says of padded dimensions is in the last columns of its output.
    other["action_out_proj/kernel"] = params["action_out_proj/kernel"].at[:, miniature.REAL_DIMS :].add(5)
    other["action_out_proj/bias"] = params["action_out_proj/bias"].at[miniature.REAL_DIMS :].add(5)
    assert float(objective(other, {}, key, batch)) == found
    noise_key, time_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, batch.actions.shape)
    time = loss.flow_time(jax.random.uniform(time_key, (8,)))
    inputs = as_inputs(jnp.asarray(batch.images), batch.tokens, batch.mask)
    share, velocity = time[:, None, None], jax.jit(network.velocity, static_argnames="config")
    noisy = share * noise + (1 - share) * batch.actions
    error = velocity(tree.unflatten(params), CONFIG, inputs, noisy, time) - (noise - batch.actions)
    assert found == pytest.approx(float(jnp.square(error)[:, :, : miniature.REAL_DIMS].mean()), rel=1e-5)


def test_a_camera_that_is_left_out_is_as_if_it_were_masked(words):
    settings = miniature.recipe()
    data = miniature.rows(CONFIG, settings, words)
    batch = data.batch(np.arange(2))
    params = miniature.learner(CONFIG, settings).whole({})
    params["PaliGemma"]["img"]["head"]["kernel"] = jnp.ones_like(params["PaliGemma"]["img"]["head"]["kernel"])
    seen = as_inputs(jnp.asarray(batch.images), batch.tokens, batch.mask)
    absent = jnp.zeros((2, 1), bool)
    masked = seen._replace(
        images=jnp.concatenate([seen.images, seen.images * 0.5], axis=1),
        image_mask=jnp.concatenate([seen.image_mask, absent], axis=1),
    )
    noise, time = jnp.ones((2, 1, 4)), jnp.full(2, 0.5)
    velocity = jax.jit(network.velocity, static_argnames="config")
    alone = np.asarray(velocity(params, CONFIG, seen, noise, time))
    assert np.asarray(velocity(params, CONFIG, masked, noise, time)) == pytest.approx(alone, abs=1e-5)


def test_labels_are_dropped_at_the_recipe_s_rate(words):
    settings = miniature.recipe(label_dropout=0.5)
    data = miniature.rows(CONFIG, settings, words)
    batch = data.batch(np.arange(4))
    texts = [
        words.processor.decode([int(t) for t in row[mask]]) for row, mask in zip(batch.tokens, batch.mask, strict=True)
    ]
    bare = [
        words.processor.decode([int(t) for t in r[m]]) for r, m in zip(batch.bare_tokens, batch.bare_mask, strict=True)
    ]
    assert texts[0].startswith("Task: fold, Advantage: positive, State: ")
    assert texts[1].startswith("Task: fold, Advantage: negative, State: ")
    assert all(text.startswith("Task: fold, State: ") and text.endswith(";\nAction: ") for text in bare)
    same = miniature.rows(CONFIG, miniature.recipe(), words).batch(np.arange(4))
    assert (same.bare_tokens == same.tokens).all()


def test_the_label_chooses_the_action(words, tmp_path):
    settings = miniature.recipe(
        steps=150, val_fraction=0, learning_rate=3e-3, batch_size=16, log_every=150, save_every=150
    )
    learner, fitted = train(CONFIG, settings, words, ShardedStore(str(tmp_path)))
    data = miniature.rows(CONFIG, settings, words)
    acting = Pi05Network(miniature.spec_of(data, CONFIG), learner.whole(fitted.params), data.formatter)
    rng = np.random.default_rng(5)
    picture = rng.integers(0, 256, (1, 20, 14, 3), dtype=np.uint8)
    state, noise = np.zeros((1, 3), np.float32), rng.standard_normal((1, 1, 4)).astype(np.float32)

    def act(row: int) -> float:
        prompt = np.array([row])
        return float(acting.act([*acting.inputs([picture], state, prompt, prompt), noise][:-1], noise, 1.0)[0, 0, 0])

    assert act(POSITIVE) - act(NEGATIVE) > 0.5


@pytest.mark.parametrize(("preset", "trained"), [("pi05", 3_353_433_872), ("pi05_lora", 466_957_072)])
def test_a_step_of_the_full_presets_gives_a_state_of_the_same_form(preset, trained):
    settings = Recipe(preset=preset, tokenizer="t", cameras=["a", "b", "c"])
    full = PRESETS[preset]()
    learner = miniature.learner(full, settings)
    state, frozen = learner.template()
    shapes = ((2, 3, 224, 224, 3), *[(2, 200)] * 4, (2, 50, 32), (2, 50), (2,))
    kinds = ("uint8", "int32", "bool", "int32", "bool", *["float32"] * 3)
    batch = Batch(*(jax.ShapeDtypeStruct(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)))
    after = jax.eval_shape(learning.make_step(learner.objective, settings, learner.optimizer), state, batch, frozen)
    forms = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(found)] for found in (after, state)]
    assert forms[0] == forms[1]
    assert sum(weight.size for weight in after.params.values()) == trained
    assert sum(weight.size for weight in frozen.values()) == tree.count(full) - trained


def test_matrices_decay_and_biases_norms_and_embeddings_do_not():
    decayed = {n for n in tree.names_and_shapes(CONFIG) if decays((jax.tree_util.DictKey(n),))}
    assert {"action_in_proj/kernel", "PaliGemma/llm/layers/attn/q_einsum/w"} <= decayed
    assert "PaliGemma/llm/layers/mlp/gating_einsum" in decayed
    for name in ("embedder/input_embedding", "final_norm/scale", "layers/pre_ffw_norm_1/Dense_0/bias"):
        assert f"PaliGemma/llm/{name}" in tree.names_and_shapes(CONFIG)
        assert f"PaliGemma/llm/{name}" not in decayed


def test_training_begins_with_the_weights_that_are_given(tmp_path: Path):
    start = miniature.learner(CONFIG, miniature.recipe(seed=77)).whole({})
    uri = str(tmp_path / "start.safetensors")
    weights.save_params(start, uri)
    lora = miniature.with_updates(CONFIG)
    expected = {name: np.asarray(weight) for name, weight in tree.flatten(start).items()}
    for config in (CONFIG, lora):
        learner = miniature.learner(config, miniature.recipe(weights=uri))
        found = tree.flatten(learner.whole({}))
        assert found.keys() == tree.names_and_shapes(config).keys()
        assert all(np.array_equal(found[name], weight) for name, weight in expected.items())
    with pytest.raises(DataError, match="action_in_proj/kernel"):
        miniature.learner(replace(CONFIG, action_dim=5), miniature.recipe(weights=uri)).whole({})
    with pytest.raises(DataError, match="0" * 64):
        miniature.learner(CONFIG, miniature.recipe(weights=uri, weights_sha256="0" * 64)).whole({})
