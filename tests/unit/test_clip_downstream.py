"""The downstream check: what a policy is asked, on which clips it is trained, and that comparisons are fair."""

from __future__ import annotations

import itertools
from typing import Any

import clip_sets
import numpy as np
import pyarrow as pa
import pytest
from clip_sets import World
from hypothesis import given, settings
from hypothesis import strategies as st

from robolift import schema
from robolift.clips import downstream
from robolift.clips.downstream import Task, displacements, draw_subsets
from robolift.clips.split import hold_out
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.stages.stage import execute

NAN = float("nan")


def test_displacements_by_hand() -> None:
    time = np.array([0.0, 0.4, 0.8, 1.2])
    hand = np.array([[0.0, 0.0], [0.4, 0.0], [0.4, 0.8], [NAN, NAN]])
    flow = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.5], [NAN, NAN]])
    found, by_hand = displacements(time, hand, flow, 0.6)
    # At 0: the hand at 0.6 is halfway between (0.4, 0) and (0.4, 0.8).
    assert found[0] == pytest.approx([0.4, 0.4])
    # At 0.4: at 1.0 the hand is not known, as it is gone at 1.2; flow 0.4 s of 2 and 0.2 s of (0, 0.5).
    assert found[1] == pytest.approx([0.8, 0.1])
    # At 0.8 and 1.2 the future is beyond the last frame.
    assert np.isnan(found[2:]).all()
    assert by_hand.tolist() == [True, False, False, False]
    # A horizon that ends on a sampled frame needs only that frame.
    exact, known = displacements(time, hand, flow, 0.8)
    assert exact[0] == pytest.approx([0.4, 0.8])
    assert known.tolist() == [True, False, False, False]
    assert exact[1] == pytest.approx([0.8, 0.2])


def test_without_hands_and_flow_nothing_is_known() -> None:
    time, nothing = np.array([0.0, 1.0]), np.full((2, 2), NAN)
    found, by_hand = displacements(time, nothing, nothing, 0.5)
    assert np.isnan(found).all()
    assert not by_hand.any()


def test_the_output_layer_by_hand() -> None:
    # One column of ones, targets 1 and 3: sum 4 over 2 + 2 samples' worth of penalty.
    ones = np.ones((2, 1))
    assert downstream.fit(ones, np.array([[1.0, 0.0], [3.0, 0.0]]), penalty=2.0).tolist() == [[1.0, 0.0]]
    layer = downstream.hidden_layer(np.zeros((3, 4)), units=5, seed=0)
    assert layer.shape == (3, 6)
    assert layer[:, 5].tolist() == [1.0, 1.0, 1.0]
    assert (downstream.hidden_layer(np.zeros((3, 4)), units=5, seed=1)[0] != layer[0])[:5].all()


def test_the_output_layer_is_where_the_penalized_loss_is_flat() -> None:
    rng = np.random.default_rng(0)
    hidden, targets = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    weights = downstream.fit(hidden, targets, penalty=0.5)
    slope = hidden.T @ (hidden @ weights - targets) + 0.5 * weights
    assert slope == pytest.approx(np.zeros((3, 2)), abs=1e-12)


def test_the_policy_learns_what_can_be_learned() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 5))
    targets = np.tanh(inputs @ rng.normal(size=(5, 2)))
    hidden = downstream.hidden_layer(inputs, units=64, seed=0)
    weights = downstream.fit(hidden[:300], targets[:300], penalty=0.1)
    assert ((hidden[300:] @ weights - targets[300:]) ** 2).mean() < 0.2 * (targets**2).mean()


def test_the_penalty_suits_random_subsets_whatever_the_test_says() -> None:
    rng = np.random.default_rng(0)
    inputs, clip = rng.normal(size=(400, 4)), np.repeat(np.arange(40), 10)
    signal = inputs @ rng.normal(size=(4, 2))
    for noise, expected in ((0.05, {1.0, 3.0}), (20.0, {300.0, 1000.0})):
        samples = downstream.Samples(
            clip=clip,
            inputs=np.column_stack([inputs, np.zeros((400, 6))]),
            targets=signal + noise * rng.normal(size=(400, 2)),
            by_hand=np.ones(400, bool),
        )
        task = Task.of(samples, np.arange(40) >= 30, components=4)
        hidden = [downstream.hidden_layer(task.inputs, units=16, seed=0)]
        found = downstream.choose_penalty(task, hidden, np.arange(30), size=5, seed=0)
        assert found in expected
        turned = downstream.Task(
            clip=task.clip,
            inputs=task.inputs,
            targets=np.where(task.test[:, None], -task.targets, task.targets),
            test=task.test,
        )
        assert downstream.choose_penalty(turned, hidden, np.arange(30), size=5, seed=0) == found


@settings(max_examples=20, deadline=None)
@given(room=st.integers(2, 5), spare=st.integers(0, 9), seed=st.integers(0, 3))
def test_subsets_are_of_one_size_separate_and_in_order(room: int, spare: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    num = 20 * room + spare
    scores, pool = rng.normal(size=num + 10), np.arange(10, num + 10)
    size = downstream.subset_size(num, num_subsets=20, size=0)
    assert size == room
    found = draw_subsets(scores, pool, num_subsets=20, num_random=5, size=size, seed=seed)
    assert [subset.group for subset in found] == ["stratum"] * 20 + ["random"] * 5
    for subset in found:
        assert len(set(subset.clips.tolist())) == size
        assert set(subset.clips.tolist()) <= set(pool.tolist())
    strata = [subset.clips for subset in found[:20]]
    assert len(set(np.concatenate(strata).tolist())) == 20 * size  # no clip is in two
    for lower, upper in itertools.pairwise(strata):
        assert scores[lower].max() <= scores[upper].min()


def test_too_few_clips_for_separate_subsets_are_refused() -> None:
    assert downstream.subset_size(45, num_subsets=10, size=3) == 3
    with pytest.raises(UsageError, match="10 separate subsets of 5 clips need 50, and 45 are not held out"):
        downstream.subset_size(45, num_subsets=10, size=5)
    with pytest.raises(UsageError, match="10 separate subsets of 2 clips need 20, and 19 are not held out"):
        downstream.subset_size(19, num_subsets=10, size=0)


def test_groups_are_never_divided() -> None:
    groups = [f"P{number % 7}" for number in range(50)]
    held = hold_out(groups, 0.3, seed=1)
    out = {group for group, is_out in zip(groups, held, strict=True) if is_out}
    assert len(out) == 2
    assert [group in out for group in groups] == held.tolist()
    # At least one on each side.
    assert hold_out(["a", "b"], 0.01, 0).sum() == 1
    assert hold_out(["a", "b"], 0.99, 0).sum() == 1


def _experiment(root: str, world: World, **config: Any) -> Manifest:
    scores = execute("score_clips", {"method": "motion"}, {"features": world.features.uri}, root)
    given = {"features": world.features.uri, "scores": scores.uri, "clips": world.clips.uri}
    small = {"num_subsets": 10, "num_random": 3, "num_seeds": 2}
    return execute("train_downstream", {**small, **config}, given, root)


def _rows(*shards: Manifest) -> list[dict[str, Any]]:
    found = [row for shard in shards for row in schema.read_parquet(shard.file("downstream.parquet")).to_pylist()]
    return sorted(found, key=lambda row: (row["subset"], row["seed"]))


def test_results_do_not_depend_on_the_cut(output_root: str) -> None:
    world = clip_sets.make_world(output_root, num_participants=4, clips=8)
    whole = _experiment(output_root, world)
    assert whole.counts == {"subsets": 13, "trainings": 26, "pool_clips": 48, "test_clips": 16}
    shards = [_experiment(output_root, world, shard=shard, num_shards=4) for shard in range(4)]
    assert _rows(whole) == _rows(*shards)
    held = {clip_id[:3] for row in _rows(whole) for clip_id in row["clips"]}
    assert len(held) == 3  # three participants are drawn from, the fourth is the test
    assert whole.metrics()["split_by"] == "participant"
    assert whole.metrics()["hand_share"] == 1.0
    with pytest.raises(UsageError, match="shard is 4; expected 0 to 3"):
        _experiment(output_root, world, shard=4, num_shards=4)


def test_the_order_of_clips_and_their_scores_do_not_change_m() -> None:
    rng = np.random.default_rng(0)
    samples = downstream.Samples(
        clip=np.repeat(np.arange(20), 5),
        inputs=rng.normal(size=(100, 6)),
        targets=rng.normal(size=(100, 2)),
        by_hand=np.ones(100, bool),
    )
    task = Task.of(samples, np.arange(20) >= 15, components=8)
    for values in (task.inputs, task.targets):  # in the scale of the clips that subsets are drawn from
        assert values[~task.test].mean(axis=0) == pytest.approx(np.zeros(values.shape[1]), abs=1e-9)
        assert values[~task.test].std(axis=0) == pytest.approx(np.ones(values.shape[1]))
    clips = np.array([3, 1, 9])
    hidden, other = (downstream.hidden_layer(task.inputs, units=8, seed=seed) for seed in (0, 1))
    one = downstream.measure(task, hidden, clips, penalty=1.0)
    assert downstream.measure(task, hidden, clips[::-1], penalty=1.0) == one
    assert downstream.measure(task, other, clips, penalty=1.0) != one
    # A held-out clip among the training clips teaches nothing.
    assert downstream.measure(task, hidden, np.array([3, 1, 9, 17]), penalty=1.0) == one
    # Unit scale: held at 0 the policy predicts the pool's mean, whose loss is that of a constant.
    constant = downstream.describe(samples, task)["constant_loss"]
    assert downstream.measure(task, hidden, clips, penalty=1e12) == pytest.approx(-constant)


def test_videos_are_held_out_where_participants_are_not_known(output_root: str) -> None:
    world = clip_sets.make_world(output_root, num_participants=2, clips=12, participants_known=False)
    made = _experiment(output_root, world)
    assert made.metrics()["split_by"] == "video"
    assert made.counts["test_clips"] == 12  # one of four videos


def test_frames_that_say_nothing_are_refused() -> None:
    frames = pa.table(
        {
            "clip_id": ["a", "a"],
            "time_s": [0.0, 1.0],
            "embedding": [[0.0], [1.0]],
            **{name: pa.array([None, None], pa.float64()) for name in ("hand_x", "hand_y", "flow_x", "flow_y")},
        }
    )
    with pytest.raises(DataError, match=r"no frame has a future of 0.5 s"):
        downstream.read_samples(frames, ["a"], horizon_s=0.5, where="frames")
    with pytest.raises(DataError, match=r"1 clips have no frames"):
        downstream.read_samples(frames, ["a", "b"], horizon_s=0.5, where="frames")
    still = frames
    for name in ("hand_x", "hand_y", "flow_x", "flow_y"):
        still = still.set_column(still.column_names.index(name), name, [[0.5, 0.5]])
    both = pa.concat_tables([still, still.set_column(0, "clip_id", [["b", "b"]])])
    samples = downstream.read_samples(both, ["a", "b"], horizon_s=0.5, where="frames")
    assert samples.inputs.tolist() == [[0.0, 0.5, 0.5, 1.0, 0.0, 0.0, 0.0]] * 2
    with pytest.raises(DataError, match="nothing moves"):
        Task.of(samples, np.array([False, True]), components=8)
    with pytest.raises(DataError, match="0 of 2 samples are of held-out clips"):
        Task.of(samples, np.array([False, False]), components=8)


def test_the_policy_sees_how_fast_the_hand_came() -> None:
    hand_x = [0.1, 0.2, None, 0.5, 0.9]
    frames = pa.table(
        {
            "clip_id": ["a"] * 5,
            "time_s": [0.0, 0.5, 1.0, 1.5, 2.0],
            "embedding": [[0.0]] * 5,
            "hand_x": hand_x,
            "hand_y": [None if x is None else 0.4 for x in hand_x],
            "flow_x": [0.0] * 5,
            "flow_y": [0.0] * 5,
        }
    )
    samples = downstream.read_samples(frames, ["a"], horizon_s=0.5, where="frames")
    # Place, seen, velocity, known: of the first frame and after a gap no velocity is known; the last has no future.
    assert samples.inputs[:, 1:].round(9).tolist() == [
        [0.1, 0.4, 1, 0, 0, 0],
        [0.2, 0.4, 1, 0.2, 0, 1],
        [0, 0, 0, 0, 0, 0],
        [0.5, 0.4, 1, 0, 0, 0],
    ]
