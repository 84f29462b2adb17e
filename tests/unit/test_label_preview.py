"""A dry run of labelling: it shows what the labels would be, refuses what a run would refuse, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from labelled import column, label, publish_dataset, publish_values

from robolift.__main__ import main
from robolift.labeling.histogram import Histogram
from robolift.manifest import Manifest


@pytest.fixture
def inputs(output_root: str) -> dict[str, Manifest]:
    dataset = publish_dataset(output_root, [10, 10], kind="demo")
    advantage = [*range(1, 11), *range(11, 21)]
    return {
        "dataset": dataset,
        "values": publish_values(output_root, dataset, advantage, std=[0.0] * 8 + [0.4] * 2 + [0.9] * 10),
    }


CONFIG = {
    "preset": "stage_advantage",
    "source": "column",
    "column": "value",
    "stage_nums": 3,
    "stage_progress_column": "value_std",
}


def dry_run(capsys: pytest.CaptureFixture[str], root: str, inputs: dict[str, Manifest], **config: object) -> list[str]:
    settings = {"output_root": root, **{f"inputs.{name}": made.uri for name, made in inputs.items()}, **config}
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert main(["label_advantage", "--dry-run", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_dry_run_shows_the_statistics(
    inputs: dict[str, Manifest], output_root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = dry_run(capsys, output_root, inputs, **CONFIG)
    plan = json.loads("\n".join(shown[: shown.index("}") + 1]))
    assert plan["config"]["positive_fraction"] == 0.3
    text = shown[shown.index("}") + 2 :]
    assert text[0] == "20 frames: 20 ranked (column, lookahead 50)"
    assert text[1] == "labels: 6 positive, 14 negative, 0 none; of those ranked 30.0 % are positive"
    assert [" ".join(line.split()) for line in text[3:7]] == [
        "group frames mean sd min max cut asked got positive ties",
        "fold, stage 0 8 4.50000 2.29129 1.00000 8.00000 7.000000 30.0 % 25.0 % 2 1",
        "fold, stage 1 2 9.50000 0.50000 9.00000 10.00000 10.000000 30.0 % 50.0 % 1 1",
        "fold, stage 2 10 15.50000 2.87228 11.00000 20.00000 18.000000 30.0 % 30.0 % 3 1",
    ]
    assert text[8] == "fold, stage 0: advantage of 8 frames"
    assert text[9].split() == ["+1", "|" + "#" * 50, "1"]
    assert sum(line.endswith("<- cut 7") for line in text) == 1
    assert max(len(line) for line in text) <= 130


def test_a_dry_run_writes_nothing_and_says_what_the_run_makes(
    inputs: dict[str, Manifest], output_root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path(output_root).rglob("*"))
    shown = dry_run(capsys, output_root, inputs, **CONFIG)
    assert sorted(Path(output_root).rglob("*")) == before
    made = label(output_root, inputs["dataset"], values=inputs["values"], **CONFIG)
    assert made.uri == json.loads("\n".join(shown[: shown.index("}") + 1]))["uri"]
    assert column(made, "advantage_label").count("positive") == 6


def test_a_stage_without_frames_has_its_row(
    inputs: dict[str, Manifest], output_root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for preset, cut in (("stage_advantage", "none"), ("kai0_legacy", "0.000000")):
        shown = dry_run(capsys, output_root, inputs, **{**CONFIG, "preset": preset, "stage_nums": 4})
        rows = [" ".join(line.split()) for line in shown if line.startswith("fold, stage 2")]
        assert rows == [f"fold, stage 2 0 {cut}"]


def test_frames_that_are_not_ranked_are_counted(output_root: str, capsys: pytest.CaptureFixture[str]) -> None:
    modes = ["demo"] * 2 + ["autonomous"] * 5 + ["correcting", "paused", "paused"]
    dataset = publish_dataset(output_root, [2, 8], kind=["demo", "rollout"], control_mode=modes)
    values = publish_values(output_root, dataset, range(10))
    config = {"source": "column", "column": "value", "lookahead": 3}
    shown = dry_run(capsys, output_root, {"dataset": dataset, "values": values}, **config)
    assert "10 frames: 5 ranked (column, lookahead 3), 2 demonstrated, 1 corrected, 2 left out" in shown
    assert "labels: 5 positive, 3 negative, 2 none; of those ranked 40.0 % are positive" in shown


def test_slices_are_shown_with_their_edges(
    inputs: dict[str, Manifest], output_root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {**CONFIG, "stage_nums": 1, "discretion_type": "n_slices", "n_slices": 4, "preset": "kai0_legacy"}
    shown = dry_run(capsys, output_root, inputs, **config)
    assert [line.strip() for line in shown if "slice " in line] == [
        "slice 0: from 1.000000, 5 frames",
        "slice 1: from 5.750000, 5 frames",
        "slice 2: from 10.500000, 5 frames",
        "slice 3: from 15.250000, 5 frames",
    ]


def test_a_dry_run_refuses_data_that_a_run_would_refuse(output_root: str, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = publish_dataset(output_root, [3])
    values = publish_values(output_root, dataset, [1, 1, 1])
    arguments = ["--set", f"output_root={output_root}", "--set", f"inputs.dataset={dataset.uri}"]
    arguments += ["--set", f"inputs.values={values.uri}", "--set", "source=column", "--set", "column=value"]
    assert main(["label_advantage", "--dry-run", *arguments]) == 65
    assert "all 3 advantages of the population are 1" in capsys.readouterr().err


def histogram_lines(values: list[float], *, cut: float | None = None, num_bins: int = 20, width: int = 50) -> list[str]:
    histogram = Histogram(min(values), max(values), num_bins=num_bins)
    for block in np.array_split(np.array(values), 2):
        histogram.add(block)
    return histogram.lines(cut=cut, width=width)


def test_a_histogram() -> None:
    assert histogram_lines([0.0, 0.1, 0.1, 0.1, 0.1, 0.35, 0.4], cut=0.31, num_bins=4, width=8) == [
        "  +0 |##       1",
        "+0.1 |######## 4",
        "+0.2 |         0",
        "+0.3 |####     2  <- cut 0.31",
    ]
    assert histogram_lines([0.5, 0.5, 0.5], width=4) == ["+0.5 |#### 3"]
    assert histogram_lines([-1.0, 1.0], cut=np.inf, num_bins=2, width=3) == [
        "-1 |### 1",
        "+0 |### 1  <- cut inf",
    ]
