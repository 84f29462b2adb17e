"""What the evaluations are made to say: pooling, pairing, comparing, and a headline no stronger than its numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic_run import TASK, SyntheticRun

from robolift import manifest
from robolift.errors import DataError
from robolift.manifest import Output, Parent
from robolift.reports import fairness, headline, success
from robolift.reports.success import Rollouts
from robolift.schema import Kind


def rollouts(variant: str, condition: str, outcomes: str, *, training_seed: int = 0, first: int = 100) -> Rollouts:
    """One letter an episode: s for success."""
    good = np.array([letter == "s" for letter in outcomes])
    return Rollouts(
        variant=variant,
        condition=condition,
        prompt=TASK,
        training_seed=training_seed,
        seed=np.arange(len(good)) + first,
        success=good,
        length=np.where(good, 10, 50) + np.arange(len(good)),
        settings={"max_frames": 75},
        videos={},
    )


def rows_of(*found: Rollouts) -> dict[str, success.SuccessRow]:
    return {row.key: row for row in success.success_rows(found)}


def test_rows_run_from_the_baseline_to_the_method():
    found = rows_of(
        rollouts("advantage", "positive", "ss"),
        rollouts("advantage", "none", "sf"),
        rollouts("advantage", "negative", "ff"),
        rollouts("mystery", "none", "sf"),
        rollouts("filtered", "none", "sf"),
        rollouts("shuffled", "positive", "ff"),
        rollouts("plain", "none", "ff"),
    )
    assert list(found) == [
        "plain", "shuffled/positive", "filtered", "mystery",
        "advantage/none", "advantage/negative", "advantage/positive",
    ]  # fmt: skip
    assert [key for key, row in found.items() if row.is_method] == ["advantage/positive"]
    assert found["advantage/none"].asked == "no indicator"
    assert found["plain"].asked == ""
    assert found["mystery"].name == "mystery"


def test_a_row_counts_its_episodes():
    row = rows_of(rollouts("plain", "none", "sfsf"))["plain"]
    assert (row.successes, row.n, row.num_seeds) == (2, 4, 4)
    assert row.rate.estimate == 0.5
    assert row.mean_length == 11.0  # frames 10 and 12; failures do not count
    assert row.facts()["success_rate"] == 0.5


def test_without_a_success_there_is_no_mean_length():
    assert rows_of(rollouts("plain", "none", "ff"))["plain"].mean_length is None


def test_training_seeds_are_pooled_and_told_apart():
    row = rows_of(
        rollouts("plain", "none", "ssss", training_seed=1), rollouts("plain", "none", "ffff", training_seed=0)
    )["plain"]
    assert (row.successes, row.n, row.num_seeds) == (4, 8, 4)
    assert row.by_training_seed == (0.0, 1.0)
    assert row.pairs[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_one_policy_twice_on_a_seed_is_refused():
    with pytest.raises(DataError, match="plain \\(none\\) was evaluated twice on the same seed"):
        success.success_rows([rollouts("plain", "none", "ss"), rollouts("plain", "none", "ss")])


def test_the_highest_slice_is_the_method_where_there_are_slices():
    found = rows_of(
        rollouts("advantage", "9", "ss"), rollouts("advantage", "10", "ss"), rollouts("advantage", "0", "ff")
    )
    assert [key for key, row in found.items() if row.is_method] == ["advantage/10"]
    assert found["advantage/10"].asked == "asked for slice 10"


def test_same_seeds_are_compared_in_pairs_whatever_their_order():
    one, other = rollouts("advantage", "positive", "sssf"), rollouts("plain", "none", "fffs")
    turned = Rollouts(
        **{**vars(other), "seed": other.seed[::-1], "success": other.success[::-1], "length": other.length[::-1]}
    )
    straight = success.comparisons(success.success_rows([one, other]))
    backwards = success.comparisons(success.success_rows([one, turned]))
    assert straight[0].paired
    assert backwards[0].difference == straight[0].difference
    assert straight[0].difference.estimate == pytest.approx(0.5)


def test_other_seeds_are_compared_unpaired():
    found = success.comparisons(
        success.success_rows([rollouts("advantage", "positive", "ss"), rollouts("plain", "none", "ff", first=500)])
    )
    assert not found[0].paired
    assert found[0].facts()["second"] == "plain"


def test_without_the_method_nothing_is_compared():
    assert success.comparisons(success.success_rows([rollouts("plain", "none", "ff")])) == []
    assert success.against_baseline([]) is None


def title(*found: Rollouts) -> headline.Headline:
    rows = success.success_rows(found)
    baseline = success.against_baseline(success.comparisons(rows))
    return headline.write_headline(rows, baseline, None, setting="task x")  # type: ignore[arg-type]


def test_headline_of_a_clear_gain():
    told = title(rollouts("advantage", "positive", "s" * 82 + "f" * 18), rollouts("plain", "none", "s" * 14 + "f" * 86))
    assert told.title == "Advantage conditioning: 82\u202f% success against 14\u202f% for plain cloning"
    assert told.detail.startswith("+68 points (95\u202f% interval +")
    assert told.detail.endswith("over the same 100 starts. Task x.")


def test_headline_of_a_clear_loss():
    told = title(rollouts("advantage", "positive", "f" * 50), rollouts("plain", "none", "s" * 50))
    assert told.title == "Advantage conditioning does worse: 0\u202f% success against 100\u202f% for plain cloning"


def test_headline_claims_nothing_when_the_interval_holds_zero():
    told = title(rollouts("advantage", "positive", "sssff"), rollouts("plain", "none", "ssfff"))
    assert told.title == "No clear difference: advantage conditioning 60\u202f%, plain cloning 40\u202f% success"


def test_headline_without_a_baseline_gives_the_rate():
    told = title(rollouts("advantage", "positive", "ssss"), rollouts("advantage", "negative", "ffff"))
    assert told.title == "Advantage conditioning: 100\u202f% success"
    assert "over 4 episodes" in told.detail


def limits(**changes) -> str:
    rows = success.success_rows([rollouts("advantage", "positive", "ss"), rollouts("plain", "none", "ff")])
    given = {
        "simulator": {"task": "pick-place-v3"},
        "seen": "pixels",
        "value_seen": "pixels",
        "differing": (),
        "value_held_out": True,
        **changes,
    }
    return "\n".join(headline.limits(rows, success.comparisons(rows), **given))


def test_limits_say_what_was_not_shown():
    text = limits()
    assert "Each policy was trained once." in text
    assert "One simulated task (pick-place-v3)" in text
    assert "OBS=state" not in text
    assert "Value quality" not in text
    assert "differ in more" not in text


def test_limits_name_whoever_reads_object_positions():
    assert "Policies and value model read object positions from the simulator (OBS=state)" in limits(
        seen="state", value_seen="pixels and state"
    )
    assert "Value model read object positions" in limits(value_seen="state")


def test_limits_name_unequal_settings_and_unknown_splits():
    text = limits(differing=("batch_size", "steps"), value_held_out=False)
    assert "differ in more than their variant: batch_size, steps." in text
    assert "Value quality counts all episodes" in text


def test_limits_without_evaluation():
    notes = headline.limits([], [], simulator=None, seen="", value_seen="", differing=(), value_held_out=True)
    assert notes == ["No closed-loop evaluation was given: labels alone do not show that a policy gets better."]


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ("pixels", "task t in Meta\u2011World; policies see camera pixels"),
        ("state", "task t in Meta\u2011World; policies see low-dimensional state (OBS=state), no pixels"),
        ("pixels and state", "task t in Meta\u2011World; policies see pixels and state"),
        ("", "task t in Meta\u2011World"),
    ],
)
def test_setting_in_words(seen, words):
    assert headline.describe_setting({"simulator": "metaworld", "task": "t"}, seen) == words


def test_setting_of_a_robot():
    assert headline.describe_setting(None, "pixels") == "recorded episodes; policies see camera pixels"


def evaluation(run: SyntheticRun, *, policy_config: dict, table: dict) -> manifest.Manifest:
    policy = run.publish("train_policy", Kind.POLICY, config=policy_config)

    def write(output: Output) -> None:
        pq.write_table(pa.table(table), output.path / "rollouts.parquet")

    return run.publish("evaluate_policy", Kind.EVALUATION, inputs={"policy": [policy]}, write=write)


FULL = {"condition": ["none"], "prompt": [TASK], "seed": [1], "success": [True], "length": [9]}


def test_a_policy_must_say_its_variant(tmp_path):
    with pytest.raises(DataError, match="does not say its variant"):
        success.read_rollouts([evaluation(SyntheticRun(tmp_path), policy_config={}, table=FULL)])


def test_a_table_without_a_column_is_refused(tmp_path):
    table = {name: column for name, column in FULL.items() if name != "seed"}
    made = evaluation(SyntheticRun(tmp_path), policy_config={"variant": "plain"}, table=table)
    with pytest.raises(DataError, match="columns seed are missing"):
        success.read_rollouts([made])


def test_an_empty_table_is_refused(tmp_path):
    table = {name: column[:0] for name, column in FULL.items()}
    made = evaluation(SyntheticRun(tmp_path), policy_config={"variant": "plain"}, table=table)
    with pytest.raises(DataError, match="no episode was evaluated"):
        success.read_rollouts([made])


def test_settings_that_differ_are_found(tmp_path):
    run = SyntheticRun(tmp_path)
    found = [
        evaluation(run, policy_config={"variant": variant, "steps": steps, "seed": seed}, table=FULL)
        for variant, steps, seed in (("plain", 10, 0), ("advantage", 20, 1))
    ]
    policies = success.evaluated_policies(found)
    assert fairness.differing_settings(policies, found, {}) == ("steps",)
    assert fairness.differing_settings(policies[:1], found[:1], {}) == ()
    other = replace(found[1], config={**found[1].config, "max_frames": 250, "num_episodes": 7})
    assert fairness.differing_settings(policies, [found[0], other], {}) == ("steps", "evaluation's max_frames")
    assert fairness.differing_settings(policies, found, {"labels": found[0]}) == ("steps",)
    learned = [replace(one, inputs={"labels": [Parent(uri="memory://x", digest="0" * 16)]}) for one in policies]
    assert fairness.differing_settings(learned, found, {"labels": found[0]}) == ("steps", "input labels")
    assert [policy.config["variant"] for policy in success.evaluated_policies(found[::-1])] == ["plain", "advantage"]


def test_episodes_run_in_different_ways_are_no_pairs():
    first, second = rollouts("plain", "none", "sfsf"), rollouts("advantage", "positive", "ssss")
    rows = rows_of(first, second)
    assert success.compare(rows["advantage/positive"], rows["plain"]).paired
    rows = rows_of(first, replace(second, settings={"max_frames": 250}))
    assert not success.compare(rows["advantage/positive"], rows["plain"]).paired


def test_starts_met_by_several_trainings_are_resampled_together():
    # The start decides everything here: three trainings tell no more than one.
    outcomes = "sf" * 20
    once = rows_of(rollouts("plain", "none", outcomes))["plain"]
    thrice = rows_of(*(rollouts("plain", "none", outcomes, training_seed=seed) for seed in range(3)))["plain"]
    assert (once.rate.low, once.rate.high) == pytest.approx((0.352, 0.648), abs=1e-3)  # Wilson, 20 of 40
    assert (thrice.rate.low, thrice.rate.high) == pytest.approx((0.35, 0.65), abs=1e-9)  # of 60 of 120: 0.41 to 0.59
    better = rollouts("advantage", "positive", "s" * 40)
    rows = rows_of(
        *(
            replace(one, training_seed=seed)
            for seed in range(3)
            for one in (better, rollouts("plain", "none", outcomes))
        )
    )
    found = success.compare(rows["advantage/positive"], rows["plain"]).difference
    assert (found.estimate, found.low, found.high) == pytest.approx((0.5, 0.35, 0.65), abs=1e-9)
