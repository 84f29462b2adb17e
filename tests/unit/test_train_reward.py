"""From preferences to scores: what is learned, what is measured, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import clip_sets
import numpy as np
import pytest
from clip_sets import World

from robolift import schema, storage
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.reward_model import checkpoint, tensorboard
from robolift.reward_model.comparisons import Comparisons
from robolift.reward_model.metrics import log_loss, ranking
from robolift.reward_model.recipe import Recipe
from robolift.reward_model.train import train
from robolift.stages.stage import execute


def _train(root: str, tmp_path: Path, world: World, count: int = 500, **config: Any) -> Manifest:
    uri = clip_sets.preferences_csv(tmp_path / f"said-{count}.csv", world, clip_sets.random_pairs(world, count))
    said = execute("import_preferences", {"preferences_uri": uri}, {"clips": world.clips.uri}, root)
    given = {"features": world.features.uri, "preferences": said.uri, "clips": world.clips.uri}
    return execute("train_reward", config, given, root)


def _score(root: str, world: World, model: Manifest | None = None, **config: Any) -> np.ndarray:
    given = {"features": world.features.uri, **({"model": model.uri} if model else {})}
    made = execute("score_clips", config, given, root)
    table = schema.read_parquet(made.file("scores.parquet"))
    assert table.column("clip_id").to_pylist() == sorted(world.clip_id)
    return table.column("score").to_numpy()


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.argsort().argsort(), second.argsort().argsort())[0, 1])


def test_a_linear_reward_finds_the_planted_utility(output_root: str, tmp_path: Path) -> None:
    world = clip_sets.make_world(output_root)
    model = _train(output_root, tmp_path, world)
    facts = storage.read_json(model.file("model.json"))
    assert len(facts["held_out_groups"]) == 2  # a fifth of eight participants
    counts = model.counts
    assert sum(counts[f"{name}_annotations"] for name in ("train", "held_out", "crossing")) == 500
    assert counts["crossing_annotations"] > counts["held_out_annotations"] > 10
    measured = model.metrics()
    assert measured["held_out"]["pair_auc"] > 0.85
    assert measured["held_out"]["pair_auc_low"] < measured["held_out"]["pair_auc"]
    assert measured["held_out"]["loss"] < measured["held_out"]["chance_loss"]
    assert measured["controls"]["composite"]["pair_auc"] < measured["held_out"]["pair_auc"]
    # Jerkiness and exposure were planted as worthless; less motion is better.
    loaded = checkpoint.load(model.uri)
    weights = np.mean([member["weights"] for member in loaded.members], axis=0)
    by_name = dict(zip(loaded.design.fields, weights, strict=False))
    assert by_name["blur"] > 0.5
    assert by_name["motion_var"] < -0.5
    assert abs(by_name["exposure"]) < 0.4
    scores = _score(output_root, world, model)
    assert _rank_correlation(scores, world.utility) > 0.85
    known = np.array([person not in facts["held_out_groups"] for person in world.participant])
    assert scores[known].mean() == pytest.approx(0, abs=1e-9)
    assert scores[known].std() == pytest.approx(1)


def test_the_same_inputs_give_the_same_bytes(output_root: str, tmp_path: Path) -> None:
    world = clip_sets.make_world(output_root, num_participants=4)
    for model in ("linear", "mlp"):
        config = {"model": model, "epochs": 2, "ensemble": 2}
        one = _train(output_root, tmp_path, world, 200, **config)
        listed = storage.read_json(one.file("files.json"))
        storage.remove(one.uri)
        assert storage.read_json(_train(output_root, tmp_path, world, 200, **config).file("files.json")) == listed
        assert any("tensorboard/" in name for name in listed)


def test_tensorboard_reads_the_curves(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    points = [("member_0/loss", 0, 0.5), ("member_0/loss", 300, 0.25), ("l2", 1, 3.0)]
    tensorboard.write_scalars(tmp_path, points)
    events = list(EventFileLoader(str(tmp_path / tensorboard.FILE)).Load())
    assert events[0].file_version == "brain.Event:2"
    found = []
    for event in events[1:]:
        value = event.summary.value[0]
        number = value.simple_value if value.HasField("simple_value") else value.tensor.float_val[0]
        found.append((value.tag, event.step, number))
        assert event.wall_time == event.step
    assert found == points
    assert tensorboard.crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


def _auc_of(model: str, seed: int) -> float:
    """The check of the prototype's net: 300 clips, 5 + 512 numbers each, a linear utility, 200 pairs to learn from."""
    rng = np.random.default_rng(seed)
    scalars, hidden = rng.normal(size=(300, 5)), rng.normal(size=(300, 8))
    embedding = hidden @ rng.normal(size=(8, 512)) + rng.normal(size=(300, 512))
    utility = scalars @ rng.normal(size=5) + hidden @ rng.normal(size=8) * 0.5
    utility /= utility.std()

    def ask(count: int) -> Comparisons:
        a, b = rng.integers(0, 300, size=(2, count))
        a = np.where(a == b, (a + 1) % 300, a)
        said = rng.random(count) < 1 / (1 + np.exp(-2 * (utility[a] - utility[b])))
        return Comparisons.of(a, b, np.where(said, "A", "B").tolist())

    names = tuple("abcde")
    columns = dict(zip(names, scalars.T, strict=True))
    recipe = Recipe(model=model, fields=names, ensemble=1, epochs=15, seed=seed)  # type: ignore[arg-type]
    facts = {"features": {}}
    made = train(columns, embedding, ask(200), training=np.ones(300, bool), recipe=recipe, facts=facts)
    return float(ranking(made.rewards, ask(1000), seed=0)["pair_auc"])


def test_at_two_hundred_pairs_the_linear_model_is_better_than_the_network() -> None:
    linear, mlp = ([_auc_of(model, seed) for seed in range(2)] for model in ("linear", "mlp"))
    assert min(linear) > 0.75
    assert np.mean(linear) > np.mean(mlp) + 0.05
    assert np.mean(mlp) > 0.5


def test_a_network_learns_and_stops_by_what_its_sample_left_out(output_root: str, tmp_path: Path) -> None:
    world = clip_sets.make_world(output_root)
    model = _train(output_root, tmp_path, world, model="mlp", epochs=15, ensemble=2, ties="davidson")
    curves = storage.read_json(model.file("curves.json"))["members"]
    assert len(curves) == 2
    assert curves[0][0]["validation_loss"] > min(row["validation_loss"] for row in curves[0])
    assert model.metrics()["held_out"]["pair_auc"] > 0.6
    assert storage.read_json(model.file("model.json"))["tie_logit"] < 0  # ties are rare
    scores = _score(output_root, world, model)
    assert _rank_correlation(scores, world.utility) > 0.5
    held = storage.read_json(model.file("model.json"))["held_out_groups"]
    known = np.array([person not in held for person in world.participant])
    assert scores[known].mean() == pytest.approx(0, abs=1e-5)
    assert scores[known].std() == pytest.approx(1, abs=1e-5)


def test_the_rate_halves_on_a_plateau_and_training_stops() -> None:
    from robolift.reward_model.neural import rewards, train_member

    rng = np.random.default_rng(0)
    found = Comparisons.of(np.arange(20), np.arange(20, 40), ["A"] * 10 + ["B"] * 10)
    sample = np.repeat([1.0, 0.0], 10)
    recipe = Recipe(model="mlp", epochs=200, patience=20, learning_rate=1e-2)
    # All that is trained on is A, all that decides when to stop is B: it can only get worse.
    design = rng.normal(size=(40, 3)) * 0.1 + np.repeat([[1.0], [0.0]], 20, axis=0)
    weights, _, curve = train_member(design, found, sample, recipe, seed=0)
    assert len(curve) == 21
    # The first epoch was the best, and its weights are the ones that are kept; dropout takes no part in judging it.
    given = rewards(weights, design)
    out = found.where(sample == 0)
    loss = log_loss(given[out.a] - given[out.b], out.targets("soft"))
    assert loss == pytest.approx(curve[0]["validation_loss"], abs=1e-5)
    assert loss < curve[1]["validation_loss"]
    assert curve[10]["learning_rate"] == 1e-2
    assert curve[11]["learning_rate"] == 5e-3


def _noise(num_clips: int, num_pairs: int) -> tuple[dict[str, np.ndarray], np.ndarray, Comparisons]:
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=num_clips) for name in Recipe().fields}
    a = rng.integers(num_clips, size=num_pairs)
    b = (a + 1 + rng.integers(num_clips - 1, size=num_pairs)) % num_clips
    return columns, rng.normal(size=(num_clips, 512)), Comparisons.of(a, b, rng.choice(["A", "B"], num_pairs).tolist())


def test_a_single_network_stops_by_pairs_that_it_does_not_learn_from() -> None:
    columns, embedding, found = _noise(100, 100)
    recipe = Recipe(model="mlp", ensemble=1, epochs=60, patience=5)
    made = train(columns, embedding, found, training=np.ones(100, bool), recipe=recipe, facts={})
    [curve] = made.curves["members"]
    # Answers are random: what is learned of them helps with no other pair, so that it stops soon.
    assert len(curve) < 20
    assert curve[-1]["validation_loss"] > curve[-1]["train_loss"] + 0.2
    kept = found.leave_out(np.random.default_rng(0), 0.2)
    assert len(np.unique(found.pair_codes()[kept == 0])) == round(0.2 * len(np.unique(found.pair_codes())))
    assert not set(found.pair_codes()[kept == 0]) & set(found.pair_codes()[kept == 1])
    one = Comparisons.of(np.array([0]), np.array([1]), ["A"])
    with pytest.raises(DataError, match="1 answers are too few for a network"):
        train(columns, embedding, one, training=np.ones(100, bool), recipe=recipe, facts={})


def test_a_network_does_not_depend_on_the_number_of_threads() -> None:
    from robolift.training.device import threads

    columns, embedding, found = _noise(400, 200)
    recipe = Recipe(model="mlp", ensemble=1, epochs=1, batch_size=200)
    rewards = []
    for number in (1, 4):
        with threads(number):
            made = train(columns, embedding, found, training=np.ones(400, bool), recipe=recipe, facts={})
        rewards.append(made.rewards)
    assert np.array_equal(rewards[0], rewards[1])


PRINCIPAL = """
import robolift, hashlib, numpy as np
from robolift.data.principal import principal_directions
vectors = np.random.default_rng(0).normal(size=(400, 256))
print(hashlib.sha256(principal_directions(vectors - vectors.mean(axis=0), 16).tobytes()).hexdigest())
"""


def test_linear_algebra_does_not_depend_on_the_number_of_cores() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", PRINCIPAL],
            env={**os.environ, "OPENBLAS_NUM_THREADS": number},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in ("1", "2")
    ]
    assert said[0] == said[1]


def test_dropped_features_are_not_seen(output_root: str, tmp_path: Path) -> None:
    world = clip_sets.make_world(output_root)
    whole = _train(output_root, tmp_path, world)
    blind = _train(output_root, tmp_path, world, drop=("motion",))
    facts = storage.read_json(blind.file("model.json"))
    assert facts["fields"] == ["blur", "exposure", "hands"]
    assert facts["embedding"] == clip_sets.WIDTH
    assert blind.metrics()["held_out"]["pair_auc"] < whole.metrics()["held_out"]["pair_auc"]
    only = _train(output_root, tmp_path, world, drop=("embedding", "hands"))
    assert storage.read_json(only.file("model.json"))["embedding"] == 0
    assert storage.read_json(_train(output_root, tmp_path, world, pca=0).file("model.json"))["embedding"] == 0
    with pytest.raises(UsageError, match="drop names gloves"):
        _train(output_root, tmp_path, world, drop=("gloves",))
    with pytest.raises(UsageError, match="would see nothing"):
        _train(output_root, tmp_path, world, drop=("embedding",), fields=())


@pytest.mark.parametrize("ties", ["soft", "drop", "davidson"])
def test_every_treatment_of_ties_learns(output_root: str, tmp_path: Path, ties: str) -> None:
    world = clip_sets.make_world(output_root)
    model = _train(output_root, tmp_path, world, ties=ties, ensemble=1)
    assert model.metrics()["held_out"]["pair_auc"] > 0.85
    logit = storage.read_json(model.file("model.json"))["tie_logit"]
    assert (logit is not None) == (ties == "davidson")


def test_scores_by_hand(output_root: str) -> None:
    columns = {
        "blur": [500.0, 2000.0, 0.0],
        "exposure": [8.0, 4.0, 0.0],
        "motion_var": [5.0, 20.0, 0.0],
        "hands": [1.0, 0.5, 0.0],
        "jerk": [0.0, 10.0, 5.0],
    }
    features = clip_sets.publish_features(output_root, ["a", "b", "c"], columns, np.zeros((3, 0)))

    def scores(**config: Any) -> list[float]:
        made = execute("score_clips", config, {"features": features.uri}, output_root)
        return list(schema.read_parquet(made.file("scores.parquet")).column("score").to_pylist())

    # 0.2 * (0.5 + 1 + 0.5 + 1 + 1) = 0.8; 0.2 * (1 + 0.5 + 1 + 0.5 + 0) = 0.6; 0.2 * (0 + 0 + 0 + 0 + 0) = 0
    by_hand = np.array([0.8, 0.6, 0.0])
    standard = (by_hand - by_hand.mean()) / by_hand.std()
    assert scores(method="composite", composite="prototype") == pytest.approx(standard)
    # One weight: the standardized feature itself, 1, 0.5, 0: mean 0.5, deviation sqrt(1/6).
    assert scores(method="composite", weights={"hands": 3.0}) == pytest.approx([1.5**0.5, 0, -(1.5**0.5)])
    assert scores(method="motion")[1] == max(scores(method="motion"))
    assert scores(method="random") != scores(method="random", seed=1)
    with pytest.raises(DataError, match="feature sharpness was not measured"):
        scores(method="composite", weights={"sharpness": 1.0})
    with pytest.raises(UsageError, match="needs input model"):
        scores()


def test_what_can_not_be_learned_is_refused(output_root: str, tmp_path: Path) -> None:
    world = clip_sets.make_world(output_root)
    with pytest.raises(DataError, match="no decided pair lies within the held-out clips"):
        _train(output_root, tmp_path, world, 3)
    unknown = clip_sets.make_world(output_root, participants_known=False)
    with pytest.raises(DataError, match="have no participant"):
        _train(output_root, tmp_path, unknown)
    assert _train(output_root, tmp_path, unknown, split_by="video").counts["held_out_clips"] == 36  # 3 of 16 videos
    alone = clip_sets.make_world(output_root, num_participants=1)
    with pytest.raises(DataError, match="all clips are of one group"):
        _train(output_root, tmp_path, alone)


def test_features_measured_otherwise_are_refused(output_root: str, tmp_path: Path) -> None:
    world = clip_sets.make_world(output_root)
    model = _train(output_root, tmp_path, world)
    ids, scalars, embedding = sorted(world.clip_id), world.scalars, world.embedding
    origin = {**clip_sets.ORIGIN, "decode": {"side": 480, "fps": 15.0, "fit": "letterbox"}}
    other = clip_sets.publish_features(output_root, ids, scalars, embedding, origin=origin, name="480")
    given = {"features": other.uri, "model": model.uri}
    with pytest.raises(DataError, match="the features' decode is not the one"):
        execute("score_clips", {}, given, output_root)
    wide = clip_sets.publish_features(output_root, ids, scalars, np.zeros((len(ids), 7)), name="wide")
    with pytest.raises(DataError, match="embeddings have 7 numbers"):
        execute("score_clips", {}, {**given, "features": wide.uri}, output_root)
    holes = {**scalars, "blur": [None, *scalars["blur"][1:]]}
    holey = clip_sets.publish_features(output_root, ids, holes, embedding, name="holes")
    with pytest.raises(DataError, match="feature blur is not known for 1 of 192 clips"):
        execute("score_clips", {}, {**given, "features": holey.uri}, output_root)
    fewer = clip_sets.publish_features(
        output_root, ids[1:], {name: values[1:] for name, values in scalars.items()}, embedding[1:], name="fewer"
    )
    asked = {"clips": world.clips.uri, "model": model.uri, "features": fewer.uri}
    with pytest.raises(DataError, match="only in the other"):
        execute("propose_pairs", {"method": "active", "num_pairs": 3}, asked, output_root)


@pytest.mark.parametrize(
    ("changed", "drop", "refused"),
    [
        ({"extractors": {**clip_sets.ORIGIN["extractors"], "motion": 2}}, (), "motion_var"),
        ({"extractors": {**clip_sets.ORIGIN["extractors"], "motion": 2}}, ("motion",), ""),
        ({"extractors": {**clip_sets.ORIGIN["extractors"], "embedding": 2}}, (), "embedding"),
        ({"fields": {**clip_sets.ORIGIN["fields"], "hands": "hands_colour"}}, (), "hands"),
        ({"hand_model": "cd" * 32}, (), "hands"),
        ({"hand_model": None}, ("hands",), ""),
        ({"encoder": None}, (), "encoder"),
        ({"encoder": None}, ("embedding",), ""),
    ],
)
def test_what_the_model_sees_must_be_measured_as_in_training(
    changed: dict[str, Any], drop: tuple[str, ...], refused: str
) -> None:
    columns, embedding, found = _noise(60, 40)
    recipe = Recipe(drop=drop, ensemble=1, l2=0.1, pca=4)
    made = train(
        columns, embedding, found, training=np.ones(60, bool), recipe=recipe, facts={"features": clip_sets.ORIGIN}
    )
    if not refused:
        scores = made.model.member_scores(columns, embedding, {**clip_sets.ORIGIN, **changed})
        assert np.array_equal(scores, made.model.member_scores(columns, embedding, clip_sets.ORIGIN))
        return
    with pytest.raises(DataError, match=f"the features' {refused} is not the one"):
        made.model.member_scores(columns, embedding, {**clip_sets.ORIGIN, **changed})


def test_an_ensemble_says_which_pairs_to_ask_about(output_root: str, tmp_path: Path) -> None:
    world = clip_sets.make_world(output_root)
    model = _train(output_root, tmp_path, world, 200)
    given = {"clips": world.clips.uri, "model": model.uri, "features": world.features.uri}
    made = execute("propose_pairs", {"method": "active", "num_pairs": 40}, given, output_root)
    plain = execute("propose_pairs", {"num_pairs": 40}, {"clips": world.clips.uri}, output_root)
    utility = dict(zip(world.clip_id, world.utility, strict=True))

    def closeness(pairs: Manifest) -> float:
        rows = schema.read_parquet(pairs.file("pairs.parquet")).to_pylist()
        return float(np.mean([abs(utility[row["clip_a_id"]] - utility[row["clip_b_id"]]) for row in rows]))

    assert closeness(made) < closeness(plain)
