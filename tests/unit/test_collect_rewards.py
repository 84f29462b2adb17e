"""A labeller's shards, put together: every frame labelled, no label invented, no trace of the cut."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from labelled import publish_dataset
from reward_shards import collect, column, publish_plan, publish_shards

from robolift import schema, storage
from robolift.annotators.shard import ANCHORS
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.stages import collect_rewards


def percent(episode: int, *marks: tuple[int, float]) -> list[dict[str, float]]:
    return [{"episode": episode, "frame": frame, "progress": progress, "confidence": 1.0} for frame, progress in marks]


def logarithm(episode: int, *marks: tuple[int, float]) -> list[dict[str, float]]:
    """Anchors of `logprob`: how probable the model calls it at a frame; the last says how the episode ended."""
    last = marks[-1][0]
    return [
        {"episode": episode, "frame": frame, "score": math.log(p / 2), "progress": p}
        | ({"success_prob": p} if frame == last else {})
        for frame, p in marks
    ]


@pytest.fixture
def dataset(output_root: str) -> Manifest:
    return publish_dataset(output_root, [5, 3, 2], outcome=["success", "failure", "unknown"])


@pytest.fixture
def plan(output_root: str, dataset: Manifest) -> Manifest:
    return publish_plan(output_root, dataset, "shuffled")


EVERY = [*percent(0, (0, 0.0), (4, 1.0)), *percent(1, (1, 0.25)), *percent(2, (0, 0.5), (1, 0.75))]


def test_every_frame_gets_what_lies_between_its_anchors(output_root: str, dataset: Manifest, plan: Manifest) -> None:
    shards = publish_shards(output_root, dataset, plan, EVERY, num_shards=2)
    made = collect(output_root, dataset, plan, shards)
    assert column(made, "progress") == [0.0, 0.25, 0.5, 0.75, 1.0, 0.25, 0.25, 0.25, 0.5, 0.75]
    assert column(made, "anchor") == [True, False, False, False, True, False, True, False, True, True]
    assert column(made, "confidence") == [1.0] * 10
    assert column(made, "source") == ["vlm"] * 10
    for name in ("success_prob", "reward", "tri", "stage"):
        assert column(made, name) == [None] * 10
    assert made.counts == {"episodes": 3, "frames": 10, "labelled": 3, "errors": 0, "anchors": 5}
    assert made.metrics() == {
        "coverage": 1.0,
        "errors_by_class": {},
        "requests": 5,
        "input_tokens": 500,
        "output_tokens": 5,
    }
    assert storage.read_json(made.file("errors.json")) == []
    anchors = schema.read_parquet(made.file("anchors.parquet"))
    assert anchors.schema.equals(ANCHORS)
    assert anchors.column("episode_index").to_pylist() == [0, 0, 1, 2, 2]


def test_a_value_that_the_model_was_told_is_interpolated_from_and_is_no_anchor(
    output_root: str, dataset: Manifest, plan: Manifest
) -> None:
    # Of episode 1, which has an error, the anchors don't count, and the others' marks stay with them.
    anchors = [one | {"asked": one["frame"] != 0} for one in EVERY]
    made = collect(
        output_root,
        dataset,
        plan,
        publish_shards(output_root, dataset, plan, anchors, {1: "unparsable"}),
        min_coverage=0.6,
    )
    assert column(made, "progress") == [0.0, 0.25, 0.5, 0.75, 1.0, None, None, None, 0.5, 0.75]
    assert column(made, "anchor") == [False, False, False, False, True, False, False, False, False, True]
    assert made.counts["anchors"] == 2
    assert schema.read_parquet(made.file("anchors.parquet")).column("asked").to_pylist() == [
        False,
        True,
        True,
        False,
        True,
    ]


def test_the_cut_shows_neither_in_the_address_nor_in_a_byte(
    output_root: str, tmp_path, dataset: Manifest, plan: Manifest
) -> None:
    made = {}
    for num in (1, 3):
        shards = publish_shards(output_root, dataset, plan, EVERY, num_shards=num)
        shards = shards[::-1]
        made[num] = collect(str(tmp_path / str(num)), dataset, plan, shards)
    assert made[1].digest == made[3].digest
    for name in ("rewards.parquet", "anchors.parquet", "errors.json", "metrics.json"):
        assert storage.read_bytes(made[1].file(name)) == storage.read_bytes(made[3].file(name))
    part = publish_shards(output_root, dataset, plan, EVERY, num_shards=3)[:2]
    assert collect_rewards.input_identity("shards", part) == [shard.digest for shard in part]


def test_an_episode_with_an_error_stays_null(output_root: str, dataset: Manifest, plan: Manifest) -> None:
    # Episode 1 has an anchor from before its answer could not be read: it counts for nothing.
    shards = publish_shards(output_root, dataset, plan, EVERY, {1: "unparsable"}, num_shards=2)
    made = collect(output_root, dataset, plan, shards, min_coverage=0.6)
    assert column(made, "progress")[5:8] == [None] * 3
    assert column(made, "source")[5:8] == ["none"] * 3
    assert column(made, "anchor")[5:8] == [False] * 3
    assert made.metrics()["coverage"] == pytest.approx(2 / 3)
    assert made.metrics()["errors_by_class"] == {"unparsable": 1}
    assert [error["answers"] for error in storage.read_json(made.file("errors.json"))] == [["hm"]]


def test_too_few_labelled_episodes(output_root: str, dataset: Manifest, plan: Manifest) -> None:
    errors = {1: "unparsable", 2: "truncated"}
    shards = publish_shards(output_root, dataset, plan, EVERY[:2], errors)
    with pytest.raises(DataError, match=r"2 of 3 episodes have no labels \(1 truncated, 1 unparsable\)") as caught:
        collect(output_root, dataset, plan, shards)
    assert "1 (unparsable: no number in it); 2 (truncated: no number in it)" in caught.value.where
    assert "at least 1, found 0.3333" in caught.value.expected
    assert "min_coverage" in caught.value.mend
    assert collect(output_root, dataset, plan, shards, min_coverage=0.33).counts["labelled"] == 1


def test_nobody_was_asked(output_root: str, dataset: Manifest) -> None:
    plan = publish_plan(output_root, dataset, "none")
    made = collect(output_root, dataset, plan, publish_shards(output_root, dataset, plan, []))
    assert column(made, "source") == ["none"] * 10
    assert column(made, "progress") == column(made, "reward") == [None] * 10
    assert made.counts["labelled"] == 0


def test_of_logprob_the_logarithm_is_interpolated(output_root: str, dataset: Manifest) -> None:
    plan = publish_plan(output_root, dataset, "logprob")
    anchors = [*logarithm(0, (0, 0.01), (2, 0.25), (4, 1.0)), *logarithm(1, (0, 0.5)), *logarithm(2, (1, 0.1))]
    made = collect(output_root, dataset, plan, publish_shards(output_root, dataset, plan, anchors))
    # Half way between 0.01 and 0.25 by logarithm lies their geometric mean, the root of 0.0025.
    assert column(made, "progress") == pytest.approx([0.01, 0.05, 0.25, 0.5, 1.0, 0.5, 0.5, 0.5, 0.1, 0.1])
    assert column(made, "success_prob") == pytest.approx([1.0] * 5 + [0.5] * 3 + [0.1] * 2)


def test_a_probability_of_nothing_has_a_logarithm_all_the_same(output_root: str) -> None:
    dataset = publish_dataset(output_root, [3])
    plan = publish_plan(output_root, dataset, "logprob")
    anchors = [{"episode": 0, "frame": 0, "progress": 0.0}, {"episode": 0, "frame": 2, "progress": 1.0}]
    made = collect(output_root, dataset, plan, publish_shards(output_root, dataset, plan, anchors))
    assert column(made, "progress") == pytest.approx([1e-12, 1e-6, 1.0])


def test_a_verdict_on_the_end_is_no_progress_of_what_came_before(output_root: str, dataset: Manifest) -> None:
    plan = publish_plan(output_root, dataset, "rubric")
    anchors = [
        {"episode": 0, "frame": 4, "score": 4, "progress": 0.75, "success_prob": 0.75},
        {"episode": 1, "frame": 2, "score": 1, "progress": 0.0, "success_prob": 0.0},
        {"episode": 2, "frame": 0, "score": 1, "progress": 0.0, "success_prob": 0.0},
        {"episode": 2, "frame": 1, "score": 5, "progress": 1.0, "success_prob": 1.0},
    ]
    made = collect(output_root, dataset, plan, publish_shards(output_root, dataset, plan, anchors))
    assert column(made, "progress") == [None, None, None, None, 0.75, None, None, 0.0, 0.0, 1.0]
    assert column(made, "success_prob") == [0.75] * 5 + [0.0] * 4 + [1.0]


def calibrated_inputs(root: str) -> tuple[Manifest, Manifest, list[Manifest]]:
    dataset = publish_dataset(root, [3] * 5, outcome=["success", "success", "failure", "failure", "unknown"])
    plan = publish_plan(root, dataset, "logprob")
    anchors = []
    for episode, (begin, end) in enumerate([(-8, -1), (-8, -3), (-8, -4), (-8, -2), (-8, -2)]):
        anchors += [{"episode": episode, "frame": frame, "score": s} for frame, s in ((0, begin), (2, end))]
    return dataset, plan, publish_shards(root, dataset, plan, anchors)


def test_isotonic_calibration_by_hand(output_root: str) -> None:
    dataset, plan, shards = calibrated_inputs(output_root)
    made = collect(output_root, dataset, plan, shards, calibration="isotonic", min_calibration_episodes=2)
    # Points: five beginnings -8 -> 0; ends -4 -> 0, -3 -> 1, -2 -> 0, -1 -> 1. The middle two are pooled to a half.
    found = storage.read_json(made.file("calibration.json"))
    assert found["progress"] == {"score": [-8.0, -4.0, -3.0, -2.0, -1.0], "value": [0.0, 0.0, 0.5, 0.5, 1.0]}
    assert found["success_prob"] == {"score": [-4.0, -3.0, -2.0, -1.0], "value": [0.0, 0.5, 0.5, 1.0]}
    assert found["points"] == {"successes": 2, "failures": 2, "beginnings": 5}
    assert made.metrics()["calibration"] == found["points"]
    # Between: the score is interpolated (-8, -4.5, -1), then mapped.
    assert column(made, "progress")[:6] == pytest.approx([0.0, 0.0, 1.0, 0.0, 0.0, 0.5])
    assert column(made, "success_prob")[:6] == pytest.approx([1.0] * 3 + [0.5] * 3)


def calibrated_success(root: str, begins: np.ndarray, ends: np.ndarray, outcome: list[str]) -> np.ndarray:
    """Return the success_prob of episodes of three frames, scored in the first and the last, (E,)."""
    dataset = publish_dataset(root, [3] * len(ends), outcome=outcome)
    plan = publish_plan(root, dataset, "logprob")
    anchors = [
        {"episode": episode, "frame": frame, "score": float(scores[episode])}
        for episode in range(len(ends))
        for frame, scores in ((0, begins), (2, ends))
    ]
    made = collect(root, dataset, plan, publish_shards(root, dataset, plan, anchors), calibration="isotonic")
    return np.array(column(made, "success_prob"))[2::3]


def test_scores_that_say_nothing_give_the_share_of_successes(output_root: str, tmp_path) -> None:
    outcome = ["success"] * 12 + ["failure"] * 28
    constant = np.full(40, -3.0)
    assert calibrated_success(output_root, constant, constant, outcome) == pytest.approx([0.3] * 40)
    rng = np.random.default_rng(0)
    begins, ends = -rng.random((2, 40))
    # The map keeps the mean of what it is fitted on; with beginnings among it that would be 12 of 80.
    assert calibrated_success(str(tmp_path), begins, ends, outcome).mean() == pytest.approx(0.3)


def test_calibrated_success_is_how_often_episodes_succeed(output_root: str) -> None:
    rng = np.random.default_rng(0)
    chance = rng.random(600)
    ended = np.where(rng.random(600) < chance, "success", "failure")
    # Of every third episode nobody recorded how it ended: the map was not fitted on it.
    ended[::3] = "unknown"
    found = calibrated_success(output_root, np.full(600, -8.0), np.log(chance / 4), ended.tolist())
    assert np.abs(found - chance)[::3].mean() < 0.06


def test_a_verdict_alone_is_an_end_and_no_beginning(output_root: str) -> None:
    dataset = publish_dataset(output_root, [3] * 4, outcome=["success", "success", "failure", "failure"])
    plan = publish_plan(output_root, dataset, "rubric")
    anchors = [{"episode": e, "frame": 2, "score": s, "progress": (s - 1) / 4} for e, s in enumerate((5, 3, 3, 1))]
    shards = publish_shards(output_root, dataset, plan, anchors)
    made = collect(output_root, dataset, plan, shards, calibration="isotonic", min_calibration_episodes=2)
    found = storage.read_json(made.file("calibration.json"))
    assert found["progress"] == found["success_prob"] == {"score": [1.0, 3.0, 5.0], "value": [0.0, 0.5, 1.0]}
    assert found["points"] == {"successes": 2, "failures": 2, "beginnings": 0}
    assert column(made, "progress") == [None, None, 1.0, None, None, 0.5, None, None, 0.5, None, None, 0.0]
    assert column(made, "success_prob") == [1.0] * 3 + [0.5] * 6 + [0.0] * 3


def test_calibration_needs_both_outcomes(output_root: str) -> None:
    dataset, plan, shards = calibrated_inputs(output_root)
    with pytest.raises(DataError, match="2 successes and 2 failures have a score at their end") as caught:
        collect(output_root, dataset, plan, shards, calibration="isotonic")
    assert "10 of each" in caught.value.expected


def test_calibration_needs_a_score(output_root: str, dataset: Manifest, plan: Manifest) -> None:
    shards = publish_shards(output_root, dataset, plan, EVERY)
    with pytest.raises(UsageError, match=r"calibration isotonic is for the scores of logprob and rubric; .* shuffled"):
        collect(output_root, dataset, plan, shards, calibration="isotonic")


def test_shards_of_something_else_are_refused(output_root: str, dataset: Manifest, plan: Manifest) -> None:
    shards = publish_shards(output_root, dataset, plan, EVERY, num_shards=3)
    with pytest.raises(DataError, match=r"the shards are not the whole of one annotation: .*; missing: 1"):
        collect(output_root, dataset, plan, [shards[0], shards[2]])
    with pytest.raises(DataError, match="given are 0 of 3, 0 of 3, 1 of 3, 2 of 3"):
        collect(output_root, dataset, plan, [*shards, shards[0]])
    other = publish_shards(output_root, dataset, plan, EVERY, num_shards=3, config={"batch_size": 2})
    with pytest.raises(DataError, match="shards were annotated with different configurations"):
        collect(output_root, dataset, plan, [*shards[:2], other[2]])
    with pytest.raises(DataError, match="a RewardShard is of another plan"):
        collect(output_root, dataset, publish_plan(output_root, dataset, "head"), shards)
    foreign = publish_dataset(output_root, [5, 3, 2], outcome="success")
    with pytest.raises(DataError, match="a LabelPlan is of another dataset"):
        collect(output_root, foreign, plan, shards)
    with pytest.raises(DataError, match="a RewardShard is of another dataset"):
        collect(output_root, foreign, publish_plan(output_root, foreign, "shuffled"), shards)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (percent(2, (2, 0.5)), "1 anchors are about no frame of the dataset"),
        (percent(3, (0, 0.5)), "1 anchors are about no frame of the dataset"),
        (percent(0, (4, 0.5)), "1 frames were labelled twice"),
        (percent(0, (2, 1.5)), r"1 anchors have a progress outside \[0, 1\]"),
        ([{"episode": 0, "frame": 2, "success_prob": -0.5}], r"1 anchors have a success_prob outside \[0, 1\]"),
    ],
)
def test_anchors_that_cannot_be_are_refused(
    extra: list, message: str, output_root: str, dataset: Manifest, plan: Manifest
) -> None:
    shards = publish_shards(output_root, dataset, plan, [*EVERY, *extra])
    with pytest.raises(DataError, match=message):
        collect(output_root, dataset, plan, shards)


def test_an_episode_that_nobody_accounts_for(output_root: str, dataset: Manifest, plan: Manifest) -> None:
    shards = publish_shards(output_root, dataset, plan, EVERY[:2], {2: "unparsable"})
    with pytest.raises(DataError, match="1 episodes have neither labels nor an error") as caught:
        collect(output_root, dataset, plan, shards, min_coverage=0)
    assert caught.value.where == "first: episode 1, frame 0"
    with pytest.raises(DataError, match="1 errors are about no episode of the dataset"):
        collect(output_root, dataset, plan, publish_shards(output_root, dataset, plan, EVERY, {7: "unparsable"}))


def test_a_shard_without_a_column_is_refused(output_root: str, dataset: Manifest, plan: Manifest) -> None:
    (shard,) = publish_shards(output_root, dataset, plan, EVERY)
    path = storage.local_path(shard.file("anchors.parquet"))
    assert path
    schema.write_table(path, schema.read_parquet(str(path)).drop_columns(["score"]))
    with pytest.raises(DataError, match="column score is missing"):
        collect(output_root, dataset, plan, [shard])


def test_the_order_of_anchors_in_a_shard_makes_no_difference(
    output_root: str, tmp_path, dataset: Manifest, plan: Manifest
) -> None:
    made = [
        collect(str(tmp_path / name), dataset, plan, publish_shards(str(tmp_path / name), dataset, plan, anchors))
        for name, anchors in (("a", EVERY), ("b", EVERY[::-1]))
    ]
    tables = [one.table("rewards") for one in made]
    assert tables[0].equals(tables[1])
    assert isinstance(tables[0], pa.Table)
    assert np.isfinite(tables[0].column("progress").to_numpy()).all()
