from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import column, label, make_targets, noisy_values, publish_dataset, publish_values
from structlog.testing import capture_logs

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.labeling.advantage import nstep_advantage, progress_advantage
from robolift.labeling.prompts import PromptTable
from robolift.manifest import Manifest

SCORE_ALL = {"population": "all", "demo": "score", "intervention": "score"}


@pytest.fixture
def recap(dataset: Manifest, output_root: str) -> dict[str, Manifest]:
    """The inputs of recap: a recorded dataset, its targets, and a value model that is nearly right."""
    targets = make_targets(output_root, dataset)
    values = publish_values(output_root, dataset, noisy_values(dataset, targets, noise=0.05))
    return {"dataset": dataset, "targets": targets, "values": values}


def summary_of(labels: Manifest) -> dict[str, Any]:
    return dict(storage.read_json(labels.file("summary.json")))


def prompts_of(labels: Manifest) -> list[str]:
    table = PromptTable.from_dict(storage.read_json(labels.file("prompts.json")))
    return [table[index] for index in column(labels, "prompt_index")]


def test_recap_labels_of_a_recorded_dataset(recap: dict[str, Manifest], output_root: str) -> None:
    labels = label(output_root, **recap, lookahead=5)
    opened = Dataset.open(recap["dataset"])
    modes = opened.frames.column("control_mode").to_pylist()
    found, reasons, prompts = column(labels, "advantage_label"), column(labels, "reason"), prompts_of(labels)
    assert {"demo", "autonomous", "correcting", "paused"} == set(modes)
    task = opened.tasks[0]
    for mode, given, reason, text in zip(modes, found, reasons, prompts, strict=True):
        if mode == "paused":
            assert (given, reason, text) == ("none", "excluded", task)
            continue
        assert text == f"{task}, Advantage: {given}"
        expected = {"demo": "demo", "correcting": "forced_intervention", "autonomous": "threshold"}[mode]
        assert reason == expected
        assert given == "positive" if mode != "autonomous" else given in ("positive", "negative")
    autonomous = np.array(modes) == "autonomous"
    num = int(autonomous.sum())
    positive = np.array(found)[autonomous] == "positive"
    assert int(positive.sum()) == num - math.ceil(0.7 * (num - 1))
    rewards, values = (
        recap[name].table(name).column(key).to_numpy() for name, key in (("targets", "reward"), ("values", "value"))
    )
    advantage = nstep_advantage(rewards, values, opened.starts, lookahead=5).astype(np.float32)
    assert column(labels, "advantage") == advantage.tolist()
    assert advantage[autonomous][positive].min() > advantage[autonomous][~positive].max()
    assert column(labels, "valid") == [True] * len(modes)
    assert column(labels, "weight") == [1.0] * len(modes)
    assert column(labels, "slice") == [None] * len(modes)
    assert [group == task for group in column(labels, "group")] == autonomous.tolist()
    assert labels.counts == {
        "episodes": 8,
        "frames": len(modes),
        "positive": found.count("positive"),
        "negative": found.count("negative"),
        "none": modes.count("paused"),
    }


def test_summary_tells_cuts_and_shares(output_root: str) -> None:
    dataset = publish_dataset(
        output_root,
        [2, 6, 2],
        kind=["demo", "rollout", "rollout"],
        outcome=["success", "failure", "success"],
        iteration=[1, 1, 2],
        control_mode=["demo"] * 2 + ["autonomous"] * 5 + ["paused", "autonomous", "correcting"],
    )
    values = publish_values(output_root, dataset, [9, 9, 1, 2, 3, 4, 5, 9, 6, 9])
    labels = label(
        output_root, dataset, values=values, source="column", column="value", positive_fraction=0.5, lookahead=2
    )
    summary = summary_of(labels)
    assert summary["groups"] == {
        "fold": {
            "n": 6,
            "cut": 3.5,
            "ties": 0,
            "positives": 3,
            "requested_share": 0.5,
            "achieved_share": 0.5,
            "edges": [],
        }
    }
    counts = {"frames": 10, "positive": 6, "negative": 3, "none": 1, "positive_share": 6 / 9}
    assert summary["all"] == counts
    assert summary["ranked"] == {"frames": 6, "positive": 3, "negative": 3, "none": 0, "positive_share": 0.5}
    shares = {
        name: {key: part["positive_share"] for key, part in summary[name].items()} for name in summary if "by" in name
    }
    assert shares == {
        "by_outcome": {"success": 1.0, "failure": 2 / 5},
        "by_control_mode": {"demo": 1.0, "autonomous": 0.5, "correcting": 1.0, "paused": None},
        "by_iteration": {"1": 4 / 7, "2": 1.0},
        "by_reason": {"threshold": 0.5, "forced_intervention": 1.0, "demo": 1.0, "excluded": None},
    }
    assert summary["failure_tail"] == {
        "tail_frames": 1,
        "tail_share": 1.0,
        "body_frames": 4,
        "body_share": 0.25,
        "margin": 0.2,
        "suspicious": True,
    }
    assert summary["weight"] == {"scheme": "none", "mean": 1.0, "zero_share": 0.0, "unknown_progress": 0}
    assert labels.metrics()["positive_share_ranked"] == 0.5
    assert labels.metrics()["failure_tail"] == summary["failure_tail"]


def test_slices_give_each_frame_a_bin_and_its_prompt(output_root: str) -> None:
    modes = ["autonomous"] * 10 + ["correcting", "paused"]
    dataset = publish_dataset(output_root, [12], control_mode=modes)
    values = publish_values(output_root, dataset, [*range(1, 11), 0, 0])
    labels = label(output_root, dataset, values=values, source="column", column="value", scheme="slices", num_slices=4)
    assert column(labels, "slice") == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3, None]
    assert column(labels, "advantage_label") == ["negative"] * 7 + ["positive"] * 4 + ["none"]
    assert prompts_of(labels) == [
        *(f"fold, Advantage: {i}" for i in [0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3]),
        "fold",
    ]
    assert summary_of(labels)["groups"]["fold"]["edges"] == [1.0, 3.25, 5.5, 7.75]


def test_kai0_stage_aware_labels(output_root: str) -> None:
    dataset = publish_dataset(output_root, [10], kind="demo")
    values = publish_values(output_root, dataset, range(1, 11), std=np.arange(10) / 10)
    labels = label(
        output_root,
        dataset,
        values=values,
        source="column",
        column="value",
        group_by="task_stage",
        num_task_stages=2,
        stage_progress_column="value_std",
        **SCORE_ALL,
    )
    assert [name == "positive" for name in column(labels, "advantage_label")] == [0, 0, 0, 1, 1, 0, 0, 0, 1, 1]
    assert column(labels, "group") == ["fold, stage 0"] * 5 + ["fold, stage 1"] * 5
    assert column(labels, "reason") == ["threshold"] * 10


@pytest.mark.parametrize(
    ("short_tail", "valid_tail"), [("scale", [True, False]), ("drop", [False, False]), ("kai0_legacy", [True, True])]
)
def test_progress_of_a_dataset_column(
    short_tail: str, valid_tail: list[bool], dataset: Manifest, output_root: str
) -> None:
    labels = label(
        output_root, dataset, source="progress", column="progress_gt", lookahead=2, short_tail=short_tail, **SCORE_ALL
    )
    opened = Dataset.open(dataset)
    expected, valid = progress_advantage(
        opened.column("progress_gt"), opened.starts, lookahead=2, short_tail=short_tail
    )
    paused = opened.column("control_mode") == "paused"
    assert column(labels, "valid") == valid.tolist()
    assert valid[opened.starts[1] - 2 : opened.starts[1]].tolist() == valid_tail
    stored = np.array([np.nan if a is None else a for a in column(labels, "advantage")])
    assert np.isnan(stored).tolist() == (~valid).tolist()
    assert stored[valid] == pytest.approx(expected[valid].astype(np.float32))
    labelled = np.array(column(labels, "advantage_label")) != "none"
    assert labelled.tolist() == (valid & ~paused).tolist()


def test_progress_is_not_clipped(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4])
    values = publish_values(output_root, dataset, [0.5, 0.3, 0.31, 0.3])
    options = {"source": "progress", "column": "value", "lookahead": 50}
    labels = label(output_root, dataset, values=values, **options)
    assert column(labels, "advantage") == [
        pytest.approx(-50 * 0.2 / 3),
        pytest.approx(0),
        pytest.approx(-50 * 0.01),
        None,
    ]
    labels = label(output_root, dataset, values=values, short_tail="kai0_legacy", **options)
    assert column(labels, "advantage") == pytest.approx([-50 * 0.2 / 4, 0, -50 * 0.01 / 2, 0])


def test_gae(recap: dict[str, Manifest], output_root: str) -> None:
    whole = label(output_root, **recap, source="gae", gae_lambda=1.0)
    assert column(whole, "advantage") == pytest.approx(column(label(output_root, **recap), "advantage"), abs=1e-6)
    assert column(label(output_root, **recap, source="gae"), "advantage") != column(whole, "advantage")


def test_two_tasks_have_their_own_cut_unless_pooled(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4, 4], task=["a", "b"])
    values = publish_values(output_root, dataset, [1, 2, 3, 4, 11, 12, 13, 14])
    options = {"source": "column", "column": "value", "positive_fraction": 0.5}
    each = label(output_root, dataset, values=values, **options)
    assert [x == "positive" for x in column(each, "advantage_label")] == [0, 0, 1, 1] * 2
    assert prompts_of(each)[-1] == "b, Advantage: positive"
    pooled = label(output_root, dataset, values=values, group_by="all", **options)
    assert [x == "positive" for x in column(pooled, "advantage_label")] == [0] * 4 + [1] * 4
    assert column(pooled, "group") == ["all"] * 8


def test_the_newest_iteration_sets_the_cut_for_all(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4, 4], iteration=[1, 2])
    values = publish_values(output_root, dataset, [1, 2, 3, 20, 11, 12, 13, 14])
    labels = label(
        output_root,
        dataset,
        values=values,
        source="column",
        column="value",
        population="latest_rollout_autonomous",
        positive_fraction=0.5,
    )
    assert [x == "positive" for x in column(labels, "advantage_label")] == [0, 0, 0, 1, 0, 0, 1, 1]
    assert summary_of(labels)["groups"]["fold"]["n"] == 4


def test_a_paused_or_autonomous_frame_in_a_demonstration(output_root: str) -> None:
    modes = ["autonomous", "paused", "demo", *["autonomous"] * 3, "demo"]
    dataset = publish_dataset(output_root, [3, 4], kind=["demo", "rollout"], control_mode=modes)
    values = publish_values(output_root, dataset, range(7))
    labels = label(output_root, dataset, values=values, source="column", column="value")
    assert column(labels, "reason") == ["demo", "excluded", "demo", "threshold", "threshold", "threshold", "demo"]


def test_rabc_weights_leave_paused_frames_out(output_root: str) -> None:
    modes = ["autonomous"] * 4 + ["paused"]
    dataset = publish_dataset(output_root, [5], control_mode=modes)
    values = publish_values(output_root, dataset, [0.0, 0.5, 0.4, np.nan, 0.9], relative=[1, 2, 3, 4, None])
    labels = label(
        output_root,
        dataset,
        values=values,
        source="column",
        column="relative_advantage",
        weight="rabc",
        lookahead=1,
    )
    assert column(labels, "weight") == [1.0, 0.0, 1.0, 1.0, 0.0]
    assert summary_of(labels)["weight"] == {
        "scheme": "rabc",
        "mean": 0.6,
        "zero_share": 0.4,
        "unknown_progress": 1,
    }


def test_a_null_advantage_of_an_unranked_frame_stays_null(output_root: str) -> None:
    dataset = publish_dataset(output_root, [2, 2], kind=["demo", "rollout"])
    values = publish_values(output_root, dataset, np.zeros(4), relative=[None, 1, 2, 3])
    labels = label(output_root, dataset, values=values, source="column", column="relative_advantage")
    assert column(labels, "advantage") == [None, 1, 2, 3]
    assert column(labels, "valid") == [False, True, True, True]
    assert column(labels, "advantage_label") == ["positive", "positive", "negative", "positive"]


def test_the_order_of_the_episodes_does_not_matter(output_root: str) -> None:
    rng = np.random.default_rng(4)
    lengths, order = rng.integers(5, 30, 12), rng.permutation(12)
    outcome, task = np.where(rng.random(12) < 0.5, "success", "failure"), np.where(rng.random(12) < 0.5, "a", "b")
    made = []
    noise = [rng.normal(0, 0.1, size=length) for length in lengths]
    for turn in (np.arange(12), order):
        dataset = publish_dataset(
            output_root,
            lengths[turn].tolist(),
            outcome=outcome[turn].tolist(),
            task=task[turn].tolist(),
            tasks=["a", "b"],
        )
        targets = make_targets(output_root, dataset)
        value = targets.table("targets").column("value_target").to_numpy() + np.concatenate([noise[e] for e in turn])
        values = publish_values(output_root, dataset, value)
        labels = label(output_root, dataset, targets=targets, values=values, lookahead=7, scheme="slices")
        ends = np.cumsum(lengths[turn])
        names = ("advantage", "advantage_label", "slice", "group")
        rows = list(zip(*(column(labels, name) for name in names), strict=True))
        made.append({int(e): rows[end - lengths[e] : end] for e, end in zip(turn, ends, strict=True)})
    assert made[0] == made[1]


def test_failure_tails_that_look_good_are_warned_of(output_root: str) -> None:
    # An advantage that rises through the failure and stays below that in the success.
    dataset = publish_dataset(output_root, [20, 20], outcome=["failure", "success"])
    rising = np.arange(40) / 40
    values = publish_values(output_root, dataset, [*range(20), *rising[:20]])
    options = {"source": "column", "column": "value", "lookahead": 5}
    with capture_logs() as logs:
        labels = label(output_root, dataset, values=values, **options)
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert len(warnings) == 1
    assert "ends of failed episodes are labelled positive" in warnings[0]["event"]
    assert (warnings[0]["tail_share"], warnings[0]["body_share"]) == (1.0, 7 / 15)
    assert summary_of(labels)["failure_tail"]["suspicious"]
    with capture_logs() as logs:
        labels = label(output_root, dataset, values=values, tail_margin=0.6, **options)
    assert [entry for entry in logs if entry["log_level"] == "warning"] == []
    assert not summary_of(labels)["failure_tail"]["suspicious"]


def test_the_same_work_gives_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        root = str(tmp_path / name)
        dataset = publish_dataset(root, [15, 9, 12], outcome=["success", "failure", "success"])
        targets = make_targets(root, dataset)
        values = publish_values(root, dataset, noisy_values(dataset, targets, noise=0.1))
        made.append(label(root, dataset, targets=targets, values=values))
    assert made[0].files == made[1].files
    assert sorted(storage.read_json(made[0].file("files.json"))) == [
        "labels.parquet",
        "metrics.json",
        "prompts.json",
        "summary.json",
    ]


def test_relabelling_leaves_the_first_labels_alone(recap: dict[str, Manifest], output_root: str) -> None:
    first = label(output_root, **recap)
    before = storage.read_bytes(first.file("labels.parquet"))
    second = label(output_root, **recap, positive_fraction=0.4)
    assert second.uri != first.uri
    assert storage.read_bytes(first.file("labels.parquet")) == before
