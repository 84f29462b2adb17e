"""The report measures the value model on the episodes that its training held out, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_page import damage, page_of, small, summary_of, write

from robolift import manifest, storage
from robolift.data.dataset import Dataset
from robolift.data.split import split_episodes
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.reports.training import held_out_episodes
from robolift.stages.stage import execute


def train(dataset: Manifest, root: str, **config: Any) -> Manifest:
    targets = execute("label_returns", {}, {"dataset": dataset.uri}, root)
    quick = {"cameras": [], "steps": 2, "warmup_steps": 1, "batch_size": 4, "eval_every": 2}
    return execute("train_value", {**quick, **config}, {"dataset": dataset.uri, "targets": targets.uri}, root)


def test_training_says_what_it_held_out_and_the_report_reads_it(dataset: Manifest, output_root: str):
    opened = Dataset.open(dataset)
    found = held_out_episodes(train(dataset, output_root, val_fraction=0.25), opened)
    assert found is not None
    success = np.array(dataset.table("episodes").column("outcome").to_pylist()) == "success"
    assert found.tolist() == split_episodes(success.astype(np.int64), 0.25, 0)[1].tolist()
    assert len(found) == 2
    other = held_out_episodes(train(dataset, output_root, val_fraction=0.25, seed=1), opened)
    assert other is not None
    assert other.tolist() != found.tolist()
    nothing = held_out_episodes(train(dataset, output_root, val_fraction=0), opened)
    assert nothing is not None
    assert len(nothing) == 0


def test_held_out_episodes_alone_are_counted_and_named(tmp_path: Path):
    run = small(tmp_path)
    report = write(run)
    page, summary = page_of(report), summary_of(report)
    checkpoint, values, targets = (report.parent(name) for name in ("checkpoint", "values", "targets"))
    assert storage.read_json(checkpoint.file("checkpoint.json"))["held_out_episodes"] == [3]

    unseen = run.columns["episode_index"] == 3
    value = values.table("values").column("value").to_numpy()[unseen]
    target = targets.table("targets").column("value_target").to_numpy()[unseen]
    assert summary["value"]["held_out"] is True
    assert summary["value"]["mean_error"] == pytest.approx(float(np.abs(value - target).mean()))
    assert "Spearman, held-out episodes" in page.words
    assert "1 held-out episode; Spearman" in page.words
    assert f"{unseen.sum()} frames of held-out episodes; the dashed diagonal" in page.html
    assert "among those that the value model was not trained on" in page.words
    assert "those of training" not in page.words


def test_a_model_that_held_nothing_out_is_measured_on_what_it_knows_and_the_page_says_so(tmp_path: Path):
    run = small(tmp_path)
    inputs = run.build()
    damage(inputs["checkpoint"][0], "checkpoint.json", {"cameras": [], "step": 1500, "held_out_episodes": []})
    report = execute("write_report", {}, inputs, str(run.root))
    words = page_of(report).words
    assert summary_of(report)["value"]["held_out"] is False
    assert "8 episodes; Spearman" in words
    assert "No episode was held out, so those of training are counted too" in words
    assert "was not trained on" not in words


def test_a_checkpoint_that_does_not_say_is_told_apart_from_one_that_held_nothing_out(tmp_path: Path):
    words = page_of(write(small(tmp_path, held_out=False))).words
    assert "Which episodes were held out is not known, so those of training are counted too" in words


def test_a_value_model_that_the_values_are_not_from_is_refused(tmp_path: Path):
    other = small(tmp_path / "other", cameras=()).build()
    run = small(tmp_path / "own")
    with pytest.raises(DataError, match="the values were predicted by another value model") as refused:
        write(run, checkpoint=other["checkpoint"])
    assert refused.value.expected == manifest.load(other["checkpoint"][0]).uri
