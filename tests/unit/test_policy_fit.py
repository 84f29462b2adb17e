"""The training loop: it learns what the label says, reports it, and goes on from where it was killed."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_policies import BAD, BARE, GOOD, NEGATIVE, POSITIVE, SMALL, recipe, shape_of, two_modes

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.policy import loop, loss, sampling
from robolift.policy.checkpoint import StateStore, flatten
from robolift.policy.data import ChunkData
from robolift.training.stopping import TrainingStoppedError

LEARN = {"steps": 250, "learning_rate": 1e-2, "log_every": 100}
SHORT = {"steps": 12, "save_every": 5, "log_every": 7, "label_dropout": 0.3, "input_noise": 0.1}


def store_in(tmp_path, name="work"):
    return StateStore(str(tmp_path / name))


def train(data, settings, store, objective="flow"):
    return loop.fit(SMALL, shape_of(data, objective), data, recipe(objective=objective, **settings), store)


def acted(params, data, prompt, objective="flow", rows=64):
    """Return the actions (rows,) under one prompt for fresh observations."""
    rng = np.random.default_rng(9)
    observation = rng.standard_normal((rows, 3)).astype(np.float32)
    noise = rng.standard_normal((rows, 1, 1)).astype(np.float32)
    asked = jnp.full(rows, prompt)
    shape = shape_of(data, objective)
    sample = jax.jit(lambda: sampling.sample(params, shape, observation, asked, noise, num_steps=10))
    return np.asarray(sample()).ravel()


@dataclass(frozen=True)
class KilledStore(StateStore):
    """Ends the run right after the state was saved for the second time."""

    saved: list[int] = field(default_factory=list)

    def save(self, tree, document, *, step):
        super().save(tree, document, step=step)
        self.saved.append(int(tree.step))
        if len(self.saved) == 2:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class ToldToStop(StateStore):
    """Sends this process SIGTERM while it saves its first state, as a cluster does that wants its node back."""

    saved: list[int] = field(default_factory=list)

    def save(self, tree, document, *, step):
        super().save(tree, document, step=step)
        self.saved.append(step)
        if len(self.saved) == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@dataclass(frozen=True)
class ToldToStopAtTheEnd(StateStore):
    """Sends this process SIGTERM while it completes the last save, after the last step."""

    closed: list[bool] = field(default_factory=list)

    def close(self):
        if not self.closed:
            os.kill(os.getpid(), signal.SIGTERM)
        self.closed.append(True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    return train(two_modes(), SHORT, StateStore(str(tmp_path_factory.mktemp("whole"))))


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The store of the same run, killed after step 10; read only."""
    store = KilledStore(str(tmp_path_factory.mktemp("killed")))
    with pytest.raises(KeyboardInterrupt):
        train(two_modes(), SHORT, store)
    assert store.saved == [5, 10]
    return store


def test_sigterm_ends_the_run_after_a_step_whose_state_is_saved(whole, tmp_path):
    store = ToldToStop(str(tmp_path))
    by_worker = {**SHORT, "loader_workers": 1}
    with pytest.raises(TrainingStoppedError, match="stopped after step 6, its state is saved") as stopped:
        train(two_modes(), by_worker, store)
    assert stopped.value.exit_code == 143
    assert store.saved == [5, 6]
    assert storage.read_json(f"{store.uri}/latest.json") == {"step": 6}
    resumed = train(two_modes(), by_worker, StateStore(store.uri))
    assert resumed.curves == whole.curves
    for name, tensor in flatten(whole.params).items():
        assert np.array_equal(flatten(resumed.params)[name], tensor), name


def test_sigterm_after_the_last_step_does_not_cut_the_last_save_off(tmp_path):
    store, told = ToldToStopAtTheEnd(str(tmp_path)), []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append("ends here"))
    try:
        train(two_modes(), {**SHORT, "steps": 4, "save_every": 2}, store)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert store.closed
    assert told == []


@pytest.mark.parametrize("objective", ["flow", "regression"])
def test_the_label_chooses_the_mode(objective, tmp_path):
    data = two_modes()
    fitted = train(data, LEARN, store_in(tmp_path), objective)
    good, bad = (acted(fitted.params, data, prompt, objective) for prompt in (POSITIVE, NEGATIVE))
    assert np.median(good) == pytest.approx(GOOD, abs=0.15)
    assert np.median(bad) == pytest.approx(BAD, abs=0.15)
    assert good.min() > bad.max()


def test_without_labels_regression_averages_the_modes(tmp_path):
    data = replace(two_modes(labelled=False), held_out_rows=np.zeros(0, np.int64))
    fitted = train(data, {**LEARN, "weight_decay": 1.0, "steps": 200}, store_in(tmp_path), "regression")
    assert [row["step"] for row in fitted.curves["train"]] == [100, 200]
    assert fitted.curves["validation"] == []
    actions = acted(fitted.params, data, BARE, "regression")
    assert np.median(actions) == pytest.approx((GOOD + BAD) / 2, abs=0.3)


def test_curves_have_a_row_every_log_every_and_at_the_end(whole, tmp_path):
    fine = train(two_modes(), {**SHORT, "log_every": 1}, store_in(tmp_path))
    for name in ("train", "validation"):
        assert [row["step"] for row in whole.curves[name]] == [7, 12]
        assert [row["step"] for row in fine.curves[name]] == list(range(1, 13))
    losses = [row["loss"] for row in fine.curves["train"]]
    means = [np.mean(losses[:7]), np.mean(losses[7:])]
    assert [row["loss"] for row in whole.curves["train"]] == pytest.approx(means, rel=1e-5)
    assert whole.curves["validation"] == [fine.curves["validation"][6], fine.curves["validation"][11]]


def test_held_out_loss_is_that_of_the_averaged_weights(whole):
    data = two_modes()
    expected = loss.loss(whole.params, jax.random.key(loop.EVAL_KEY), data.held_out(), shape_of(data))
    assert whole.curves["validation"][-1] == {"step": 12, "loss": pytest.approx(float(expected), rel=1e-5)}


def test_average_weighs_steps_by_its_decay():
    data, settings = two_modes(), recipe(ema_decay=0.15)
    shape, optimizer = shape_of(data), loop.make_optimizer(settings)
    step = jax.jit(loop.make_step(shape, settings, optimizer, jnp.asarray(data.bare)))
    states = [loop.initial_state(SMALL, shape, settings, optimizer)]
    for _ in range(3):
        states.append(step(states[-1], data.batch(np.arange(8))))
    assert int(states[3].step) == 3
    expected = states[0].params
    # (1 + step) / (10 + step) is 1/10, 2/11 and 3/12; the last two are above ema_decay.
    for decay, state in zip((0.1, 0.15, 0.15), states[1:], strict=True):
        expected = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, expected, state.params)
        for found, wanted in zip(jax.tree.leaves(state.average), jax.tree.leaves(expected), strict=True):
            assert np.asarray(found) == pytest.approx(np.asarray(wanted), abs=1e-6)
    first = states[0].params["output"]["kernel"]
    assert not np.allclose(first, states[1].params["output"]["kernel"], atol=1e-5)


def test_learning_rate_rises_for_30_percent_and_falls_to_nearly_0():
    optimizer = loop.make_optimizer(recipe(steps=10, learning_rate=1e-2, weight_decay=0.0))
    params = {"bias": jnp.zeros(1)}
    state, rates = optimizer.init(params), []
    for _ in range(11):
        # Under a constant gradient Adam's update is the learning rate itself.
        update, state = optimizer.update({"bias": jnp.full(1, 0.5)}, state, params)
        rates.append(-float(update["bias"][0]))
    assert rates[0] == pytest.approx(1e-2 / 25, rel=1e-3)
    assert rates[3] == pytest.approx(1e-2, rel=1e-3)
    assert rates[10] == pytest.approx(1e-2 / 25 / 1e4, rel=1e-2)
    assert np.diff(rates[:4]).min() > 0
    assert np.diff(rates[3:]).max() < 0


def test_kernels_decay_and_biases_and_prompts_do_not():
    optimizer = loop.make_optimizer(recipe(steps=10, learning_rate=1e-2, weight_decay=0.5))
    params = {"prompt": jnp.full(1, 2.0), "output": {"kernel": jnp.full(1, 2.0), "bias": jnp.full(1, 2.0)}}
    update, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert update["prompt"].tolist() == update["output"]["bias"].tolist() == [0]
    assert float(update["output"]["kernel"][0]) == pytest.approx(-1e-2 / 25 * 0.5 * 2, rel=1e-4)


def test_gradients_are_clipped_to_their_global_norm():
    optimizer = loop.make_optimizer(recipe(gradient_clip=0.1))
    params = {"bias": jnp.zeros(2)}
    _, state = optimizer.update({"bias": jnp.array([3.0, 4.0])}, optimizer.init(params), params)
    # Adam's first moment after one step is a tenth of the gradient: (0.06, 0.08) of (3, 4).
    assert optax.tree_utils.tree_get(state, "mu")["bias"] == pytest.approx(np.array([0.006, 0.008]), rel=1e-5)


def test_divergence_is_an_error_and_names_the_step(tmp_path):
    with pytest.raises(UsageError, match=r"training diverged: the loss is (inf|nan) at step 4; lower learning_rate"):
        train(two_modes(), {"steps": 8, "log_every": 4, "learning_rate": 1e30}, store_in(tmp_path))


def test_a_resumed_run_ends_with_the_same_bits(whole, killed, monkeypatch):
    batches = []
    inner = ChunkData.batch
    monkeypatch.setattr(ChunkData, "batch", lambda self, rows: batches.append(len(rows)) or inner(self, rows))
    resumed = train(two_modes(), SHORT, StateStore(killed.uri))
    assert batches == [32, 32]  # steps 11 and 12 alone
    assert resumed.curves == whole.curves
    for again, first in zip(jax.tree.leaves(resumed.params), jax.tree.leaves(whole.params), strict=True):
        assert again.tobytes() == first.tobytes()


def test_the_state_of_another_network_is_refused(killed):
    with pytest.raises(DataError, match=r"weight .*\.chunk\.kernel is .*float32") as refused:
        train(two_modes(), SHORT, StateStore(killed.uri), "regression")
    assert "no such weight" in str(refused.value)


def test_a_damaged_state_is_refused(killed, tmp_path):
    content = storage.read_bytes(killed.file)
    store = store_in(tmp_path)
    for broken in (b"no tensors", content[: len(content) // 2]):
        storage.write_bytes(store.file, broken)
        with pytest.raises(DataError, match="the saved training state is damaged") as refused:
            train(two_modes(), SHORT, store)
        assert f"delete {store.uri} to train from the start" in str(refused.value)


def test_more_devices_than_there_are_is_refused(tmp_path):
    with pytest.raises(UsageError, match="num_devices is 32, this machine has 1"):
        train(two_modes(), {"num_devices": 32}, store_in(tmp_path))
