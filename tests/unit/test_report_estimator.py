"""The report of a progress estimator: measured on episodes it has not seen, and told as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_page import page_of, summary_of, write
from synthetic_estimator import COLUMN, AnnotatedRun

from robolift import manifest, storage
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.reports import diagnosis
from robolift.reports.estimator import Estimator, estimate
from robolift.reports.frames import load_frames
from robolift.stages.stage import execute

RATES = {("plain", "none"): 0.2, ("advantage", "negative"): 0.0, ("advantage", "positive"): 0.8}
STAGES = {"num_task_stages": 2}


def small(root: Path, **changes: Any) -> AnnotatedRun:
    settings = {"num_episodes": 16, "num_rollouts": 60, "rates": RATES, "cameras": ()}
    return AnnotatedRun(root, **{**settings, **changes})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write(small(tmp_path_factory.mktemp("run"), cameras=("observation.images.topview",)), STAGES)


def test_the_section_stands_in_the_page(report: Manifest):
    page = page_of(report)
    assert page.faults == []
    assert "estimator" in [attributes["id"] for attributes in page.all("section")]
    assert "It sees two frames of an episode" in page.words
    assert "The progress estimator removes 99\u202f% of a constant's error on 3 unseen episodes." in page.words
    assert page.text("h1")[0] == "Advantage conditioning: 80\u202f% success against 20\u202f% for plain cloning"
    assert "arXiv 2411.04549" in page.words
    assert "Labels of the labelled data" in page.words
    assert "What may explain" not in page.words
    assert "value target" not in page.words
    assert page.text("figcaption").count("Held-out labelled episodes") == 1
    assert page.html.count("predicted and annotated progress</b>") == 2  # two films


def test_the_same_inputs_give_the_same_bytes(report: Manifest, tmp_path: Path):
    again = write(small(tmp_path, cameras=("observation.images.topview",)), STAGES)
    for name in ("report.html", "summary.json"):
        assert storage.read_bytes(report.file(name)) == storage.read_bytes(again.file(name))


def test_held_out_and_new_episodes_are_measured_apart(report: Manifest):
    found = summary_of(report)["estimator"]
    assert (found["labelled"]["episodes"], found["new"]["episodes"]) == (3, 16)
    assert found["labelled"]["unseen"]
    assert found["new"]["unseen"]
    for one in found.values():
        # Noise of 0.02 a frame: the difference of two frames has twice its variance.
        assert one["mse"] == pytest.approx(2 * 0.02**2, rel=0.15)
        assert one["nominal_constant_mse"] == pytest.approx(1 / 6)
        assert 0.1 < one["constant_mse"] < 0.25
        assert one["verdict"] == "better"
        assert one["stage_accuracy"] > 0.9
        assert one["along_episodes"]["value_order_success"]["annotated"]["mean"] == pytest.approx(1.0)
        assert one["along_episodes"]["roughness"]["annotated"]["mean"] == pytest.approx(0.0, abs=1e-6)
        assert one["along_episodes"]["roughness"]["predicted"]["mean"] > 0.02
    assert report.metrics()["estimator_mse/new"] == found["new"]["mse"]


def test_labels_of_the_annotation_are_counted(report: Manifest):
    labelled = summary_of(report)["labelled"]
    assert labelled["episodes"] == 16
    assert labelled["cuts"]["all"]["achieved"] == pytest.approx(0.3, abs=0.03)


def test_a_single_frame_estimator_is_measured_by_frames(tmp_path: Path):
    made = write(small(tmp_path, head="single", noise=0.05))
    found = summary_of(made)["estimator"]["new"]
    assert found["mse"] == pytest.approx(0.05**2 + 0.02**2, rel=0.15)  # noise, and an offset of 0.02
    assert found["nominal_constant_mse"] == pytest.approx(1 / 12)
    assert found["stage_accuracy"] is None
    words = page_of(made).words
    assert "It sees one frame" in words
    assert "1/12 = 0.083" in words


def test_new_episodes_without_annotation_are_not_measured(tmp_path: Path):
    made = write(small(tmp_path, annotated=False), STAGES)
    assert list(summary_of(made)["estimator"]) == ["labelled"]
    page = page_of(made)
    assert page.faults == []
    assert "New episodes" not in page.words
    assert summary_of(made)["value"]["spearman"] is None


def test_an_estimator_that_is_no_better_than_a_constant_is_called_so(tmp_path: Path):
    rates = {("plain", "none"): 0.5, ("advantage", "negative"): 0.5, ("advantage", "positive"): 0.5}
    made = write(small(tmp_path, noise=0.4, rates=rates, num_rollouts=40))
    page = page_of(made)
    assert page.text("h1")[0].startswith("No clear difference")
    assert "The progress estimator does worse than a constant on 3 unseen episodes." in page.words
    assert "What may explain that there is no clear gain" in page.words
    doubts = " ".join(summary_of(made)["doubts"])
    assert "of a constant's error on unseen episodes" in doubts
    assert "the indicator does not steer it" in doubts
    assert "Only 40 starts were tried" in doubts


def test_without_held_out_episodes_the_labelled_ones_are_not_called_unseen(tmp_path: Path):
    made = write(small(tmp_path, held_out=False))
    summary = summary_of(made)
    assert summary["estimator"]["labelled"]["unseen"] is False
    assert "Labelled episodes, those of training among them" in page_of(made).words
    assert "on 16 unseen episodes" in summary["detail"]  # the new ones


def test_labelled_inputs_belong_together(tmp_path: Path):
    run = small(tmp_path)
    inputs = run.build()
    del inputs["labelled_values"]
    with pytest.raises(UsageError, match="got labelled, labelled_labels; give labelled, labelled_values"):
        execute("write_report", {}, inputs, str(run.root))


def test_values_of_another_checkpoint_are_refused(tmp_path: Path):
    one, other = small(tmp_path / "one").build(), small(tmp_path / "other", head="single").build()
    with pytest.raises(DataError, match="predicted by another value model"):
        execute("write_report", {}, {**one, "checkpoint": other["checkpoint"]}, str(tmp_path))


def test_partly_annotated_episodes_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = {name: manifest.load(uris[0]) for name, uris in small(tmp_path).build().items() if name != "evaluations"}
    dataset = Dataset.open(made["dataset"])
    frames = load_frames(dataset, targets=None, values=made["values"], labels=made["labels"])
    column = dataset.column(COLUMN).copy()
    column[frames.rows(2)][5:] = np.nan
    monkeypatch.setattr(dataset, "column", lambda name: column)
    estimator = Estimator(head="relative", column=COLUMN)
    found = estimate(estimator, dataset, frames, None, key="new", num_stages=1)
    assert found is not None
    assert 2 not in found.numbers
    assert len(found.numbers) == 15
    column[:] = np.nan
    assert estimate(estimator, dataset, frames, None, key="new", num_stages=1) is None


def test_a_clear_gain_leaves_no_doubt(report: Manifest):
    assert summary_of(report)["doubts"] == []
    assert diagnosis.doubts(baseline=None, comparisons=[], estimation=None, label_facts=None) == []  # type: ignore[arg-type]
