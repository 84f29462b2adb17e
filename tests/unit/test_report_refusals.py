"""What the report refuses, and that it says what and where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from report_page import damage, small, write
from synthetic_run import TASK, TOP

from robolift.errors import DataError, UsageError
from robolift.stages.stage import execute


def test_an_unknown_camera_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=f"camera 'wrist' is not in the dataset; it has: {re.escape(TOP)}"):
        write(small(tmp_path), {"camera": "wrist"})


def test_a_page_that_is_too_large_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="expected: at most max_size_bytes = 100000"):
        write(small(tmp_path), {"max_size_bytes": 100_000})


def test_labels_of_another_dataset_are_refused(tmp_path: Path):
    other = small(tmp_path / "other", num_episodes=9).build()
    with pytest.raises(DataError, match=r"its \d+ frames are not the dataset's(.|\n)*labels.parquet"):
        write(small(tmp_path / "own"), labels=other["labels"])


def test_a_value_model_of_another_dataset_is_refused(tmp_path: Path):
    other = small(tmp_path / "other", num_episodes=24, data="other").build()
    with pytest.raises(DataError, match="the values were predicted by another value model"):
        write(small(tmp_path / "own"), checkpoint=other["checkpoint"])


@pytest.mark.parametrize(
    ("which", "name", "document", "message"),
    [
        ("labels", "summary.json", {"groups": {TASK: {"n": 1}}, "failure_tail": {}}, "not the summary of labels"),
        ("labels", "summary.json", {"groups": {}}, "not the summary of labels"),
        ("checkpoint", "curves.json", {"train": [{"loss": 1.0}]}, "not training curves"),
        ("checkpoint", "curves.json", {"train": [3]}, "not training curves"),
    ],
)
def test_broken_inputs_are_named(tmp_path: Path, which: str, name: str, document: Any, message: str):
    run = small(tmp_path)
    inputs = run.build()
    damage(inputs[which][0], name, document)
    with pytest.raises(DataError, match=message) as caught:
        execute("write_report", {}, inputs, str(run.root))
    assert f"{inputs[which][0]}/{name}" in str(caught.value)


def test_a_report_without_iterations_is_refused(tmp_path: Path):
    run = small(tmp_path)
    first = write(run)
    damage(first.uri, "summary.json", {"headline": ""})
    with pytest.raises(DataError, match="no list of iterations"):
        write(run, previous=[first.uri])
