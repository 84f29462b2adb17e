"""The downstream check: what a policy is asked, on which clips it is trained, and that comparisons are fair."""

from __future__ import annotations

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


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    shapes = ((3, 4), (4,), (4, 2), (2,))
    parameters = tuple(rng.normal(size=shape) for shape in shapes)
    _, gradient = downstream.loss_and_gradient(parameters, inputs, targets)  # type: ignore[arg-type]
    for number, place in ((0, (1, 2)), (1, (3,)), (2, (0, 1)), (3, (1,))):
        losses = []
        for step in (1e-6, -1e-6):
            moved = [value.copy() for value in parameters]
            moved[number][place] += step
            losses.append(downstream.loss_and_gradient(tuple(moved), inputs, targets)[0])  # type: ignore[arg-type]
        assert gradient[number][place] == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-5)


def test_the_policy_learns_what_can_be_learned() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 5))
    targets = np.tanh(inputs @ rng.normal(size=(5, 2)))
    parameters = downstream.fit(inputs, targets, steps=300, seed=0)
    assert ((downstream.predict(parameters, inputs) - targets) ** 2).mean() < 0.05 * (targets**2).mean()


@settings(max_examples=20, deadline=None)
@given(num=st.integers(30, 80), size=st.integers(2, 20), seed=st.integers(0, 3))
def test_subsets_are_of_one_size_from_the_pool_and_spread(num: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, pool = rng.normal(size=num + 10), np.arange(10, num + 10)
    found = draw_subsets(scores, pool, num_subsets=20, num_random=5, size=size, seed=seed)
    assert [subset.group for subset in found] == ["stratum"] * 20 + ["random"] * 5
    for subset in found:
        assert len(set(subset.clips.tolist())) == size
        assert set(subset.clips.tolist()) <= set(pool.tolist())
    # The first comes from the lowest fifth (or half, if three subsets don't fit into less), the last from the highest.
    window = max(size, min(max(-(-num // 5), 3 * size), -(-num // 2)))
    order = np.sort(scores[pool])
    assert scores[found[0].clips].max() <= order[window - 1]
    assert scores[found[19].clips].min() >= order[num - window]


def test_a_subset_does_not_depend_on_how_many_others_there_are() -> None:
    scores, pool = np.arange(40.0), np.arange(40)
    few = draw_subsets(scores, pool, num_subsets=10, num_random=3, size=5, seed=0)
    more = draw_subsets(scores, pool, num_subsets=10, num_random=9, size=5, seed=0)
    for one, other in zip(few, more, strict=False):
        assert one.clips.tolist() == other.clips.tolist()
    with pytest.raises(UsageError, match="subset_size 40 of 40 clips"):
        draw_subsets(scores, pool, num_subsets=10, num_random=3, size=40, seed=0)


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
    small = {"num_subsets": 10, "num_random": 3, "subset_size": 6, "num_seeds": 2, "steps": 20}
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
    task = Task.of(samples, np.arange(20) >= 15)
    for values in (task.inputs, task.targets):  # in the scale of the clips that subsets are drawn from
        assert values[~task.test].mean(axis=0) == pytest.approx(np.zeros(values.shape[1]), abs=1e-9)
        assert values[~task.test].std(axis=0) == pytest.approx(np.ones(values.shape[1]))
    clips = np.array([3, 1, 9])
    one = downstream.measure(task, clips, steps=10, seed=0)
    assert downstream.measure(task, clips[::-1], steps=10, seed=0) == one
    assert downstream.measure(task, clips, steps=10, seed=1) != one
    # A held-out clip among the training clips teaches nothing.
    assert downstream.measure(task, np.array([3, 1, 9, 17]), steps=10, seed=0) == one
    # Unit scale: without a step the policy predicts the pool's mean, whose loss is that of a constant.
    constant = downstream.describe(samples, task)["constant_loss"]
    assert downstream.measure(task, clips, steps=0, seed=0) == pytest.approx(-constant)


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
        Task.of(samples, np.array([False, True]))
    with pytest.raises(DataError, match="0 of 2 samples are of held-out clips"):
        Task.of(samples, np.array([False, False]))


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
