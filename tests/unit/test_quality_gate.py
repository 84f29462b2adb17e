"""Labels that did not pass their measures are merged for their report, and are not exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic
from exported_dataset import run_export
from reward_shards import publish_rewards

from robolift.errors import DataError, UsageError
from robolift.stages.stage import execute

COLUMNS = {"columns": ["rewards"], "reward_columns": ["progress"]}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def measured(root):
    """Labels of two episodes that never move, their quality, and what is merged from them all the same."""
    synthetic.write_recording(Path(root, "recording"), episodes=2, cameras=[])
    dataset = execute("import_dataset", {"dataset_uri": f"{root}/recording"}, {}, root)
    frames = dataset.counts["frames"]
    automatic = publish_rewards(root, dataset, progress=[0.5] * frames, source=["vlm"] * frames, anchor=[True] * frames)
    reviews = publish_rewards(root, dataset, "import_reviews")
    said = {"dataset": dataset.uri, "automatic": automatic.uri, "reviews": reviews.uri}
    quality = execute("label_quality", {"max_constant": 0.25}, said, root)
    rewards = execute("merge_rewards", {"quality_gate": False}, {**said, "quality": quality.uri}, root)
    return {**said, "quality": quality.uri, "rewards": rewards.uri}


def given(measured, **changed):
    return {name: measured[name] for name in ("dataset", "rewards", "quality")} | changed


def test_labels_that_did_not_pass_are_not_exported(measured, root, tmp_path):
    with pytest.raises(DataError, match=r"did not pass label_quality: constant_share is 1, asked is 0\.25"):
        run_export(given(measured), str(tmp_path), **COLUMNS)
    assert not list(tmp_path.rglob("*.parquet"))
    anyway = run_export(given(measured), root, **COLUMNS, quality_gate=False)
    assert anyway.counts["columns"] == 1


def test_labels_that_passed_are_exported(measured, root):
    said = {name: measured[name] for name in ("dataset", "automatic", "reviews")}
    passed = execute("label_quality", {"max_constant": 1}, said, root)
    assert run_export(given(measured, quality=passed.uri), root, **COLUMNS).counts["columns"] == 1


def test_the_quality_must_be_of_these_labels(measured, root):
    said = {"dataset": measured["dataset"], "automatic": measured["reviews"], "reviews": measured["reviews"]}
    other = execute("label_quality", {}, said, root)
    with pytest.raises(DataError, match="the quality was measured on other automatic labels"):
        run_export(given(measured, quality=other.uri), root, **COLUMNS, quality_gate=False)
    with pytest.raises(UsageError, match="give the output of merge_rewards as rewards"):
        run_export(given(measured, rewards=measured["automatic"]), root, **COLUMNS)
