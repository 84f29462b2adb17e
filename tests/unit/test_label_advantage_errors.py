"""What labelling refuses, and what it says then."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import column, label, make_targets, noisy_values, publish_dataset, publish_values

from robolift.__main__ import main
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest


@pytest.fixture
def recap(dataset: Manifest, output_root: str) -> dict[str, Manifest]:
    """The inputs of recap: a recorded dataset, its targets, and a value model that is nearly right."""
    targets = make_targets(output_root, dataset)
    values = publish_values(output_root, dataset, noisy_values(dataset, targets, noise=0.05))
    return {"dataset": dataset, "targets": targets, "values": values}


def test_a_perfect_value_model_leaves_nothing_to_rank(output_root: str) -> None:
    dataset = publish_dataset(output_root, [30, 20], outcome=["success", "failure"])
    targets = make_targets(output_root, dataset)
    values = publish_values(output_root, dataset, noisy_values(dataset, targets, noise=0.0))
    with pytest.raises(DataError, match="all 50 advantages of the population are 0") as caught:
        label(output_root, dataset, targets=targets, values=values)
    assert "group 'fold'" in str(caught.value)


@pytest.mark.parametrize("source", ["nstep", "gae"])
@pytest.mark.parametrize("missing", ["targets", "values"])
def test_a_source_without_its_input_is_refused(
    source: str, missing: str, recap: dict[str, Manifest], output_root: str
) -> None:
    given = {name: made for name, made in recap.items() if name != missing}
    with pytest.raises(UsageError, match=f"source {source} needs input {missing}") as caught:
        label(output_root, **given, source=source)
    assert caught.value.exit_code == 64


def test_a_column_that_is_nowhere_is_refused(dataset: Manifest, output_root: str) -> None:
    with pytest.raises(UsageError, match=r"no column 'value' in values \(no input values was given\)") as caught:
        label(output_root, dataset, source="column", column="value")
    assert "progress_gt" in str(caught.value)


@pytest.mark.parametrize("name", ["observation.state", "control_mode"])
def test_a_column_that_is_not_one_number_a_frame_is_refused(name: str, dataset: Manifest, output_root: str) -> None:
    with pytest.raises(DataError, match=f"column {name} is") as caught:
        label(output_root, dataset, source="column", column=name)
    assert "expected: one number a frame" in str(caught.value)


def test_whole_numbers_may_be_ranked(dataset: Manifest, output_root: str) -> None:
    labels = label(output_root, dataset, source="column", column="is_good_gt")
    assert set(column(labels, "advantage")) == {0.0, 1.0}


def test_nan_in_a_value_is_refused_with_its_frame(output_root: str) -> None:
    dataset = publish_dataset(output_root, [3, 4])
    value = np.linspace(-1, 0, 7)
    value[[5, 6]] = np.nan
    values = publish_values(output_root, dataset, value)
    with pytest.raises(DataError, match="column value of values is nan in 2 frames") as caught:
        label(output_root, dataset, targets=make_targets(output_root, dataset), values=values)
    assert "first at episode 1, frame 2" in str(caught.value)


def test_nan_in_a_ranked_column_ends_with_code_65(output_root: str, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = publish_dataset(output_root, [3, 3])
    values = publish_values(output_root, dataset, np.zeros(6), relative=[0.1, 0.2, 0.3, 0.4, None, 0.6])
    settings = {
        "output_root": output_root,
        "inputs.dataset": dataset.uri,
        "inputs.values": values.uri,
        "source": "column",
        "column": "relative_advantage",
    }
    assert main(["label_advantage", *(part for k, v in settings.items() for part in ("--set", f"{k}={v}"))]) == 65
    told = capsys.readouterr().err
    assert "the advantage from column relative_advantage is nan in 1 frames that are ranked" in told
    assert "episode 1, frame 1" in told
    assert not list(Path(output_root, "label_advantage").glob("*/manifest.json"))


def test_a_percentage_for_a_share_ends_with_code_64(output_root: str, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = publish_dataset(output_root, [3])
    settings = {"output_root": output_root, "inputs.dataset": dataset.uri, "positive_fraction": 30}
    assert main(["label_advantage", *(part for k, v in settings.items() for part in ("--set", f"{k}={v}"))]) == 64
    assert "expected a share in (0, 1); write 0.3 for 30 %" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lookahead": 0}, "greater than or equal to 1"),
        ({"gae_lambda": 1.5}, "less than or equal to 1"),
        ({"num_slices": 1}, "greater than or equal to 2"),
        ({"source": "progress"}, "source progress needs `column`"),
        ({"source": "column"}, "source column needs `column`"),
        ({"group_by": "task_stage"}, "group_by task_stage needs num_task_stages of 2 or more"),
        ({"population": "autonomous"}, "rollout_autonomous"),
        ({"top_percent": 30}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_configuration_is_a_usage_error(config: dict[str, Any], message: str, output_root: str) -> None:
    dataset = publish_dataset(output_root, [3])
    with pytest.raises(UsageError, match=message):
        label(output_root, dataset, **config)


def test_a_constant_population_is_refused(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4, 2], task=["a", "b"])
    values = publish_values(output_root, dataset, [1, 2, 3, 4, 5, 5])
    with pytest.raises(DataError, match="all 2 advantages of the population are 5") as caught:
        label(output_root, dataset, values=values, source="column", column="value")
    assert "group 'b'" in str(caught.value)


def test_demonstrations_alone_have_nobody_to_rank(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4], kind="demo")
    values = publish_values(output_root, dataset, range(4))
    with pytest.raises(DataError, match="no frame belongs to the population rollout_autonomous"):
        label(output_root, dataset, values=values, source="column", column="value")


def test_a_task_without_population_is_refused(output_root: str) -> None:
    dataset = publish_dataset(output_root, [3, 3], task=["a", "b"], kind=["rollout", "demo"])
    values = publish_values(output_root, dataset, range(6))
    with pytest.raises(DataError, match="no frame to set the cut") as caught:
        label(output_root, dataset, values=values, source="column", column="value", demo="score")
    assert "group 'b'" in str(caught.value)


def test_unknown_stage_progress_of_a_ranked_frame_is_refused(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4])
    values = publish_values(output_root, dataset, range(4), std=[0, 0.5, np.nan, 1])
    options = {"source": "column", "column": "value", "group_by": "task_stage", "num_task_stages": 2}
    with pytest.raises(DataError, match="stage progress value_std is nan") as caught:
        label(output_root, dataset, values=values, stage_progress_column="value_std", **options)
    assert "episode 0, frame 2" in str(caught.value)


@pytest.mark.parametrize(("rows", "where"), [(slice(0, 5), "episode 1, frame 2"), (slice(1, 6), "episode 0, frame 0")])
def test_values_of_other_frames_are_refused(rows: slice, where: str, output_root: str) -> None:
    dataset = publish_dataset(output_root, [3, 3])
    values = publish_values(output_root, dataset, range(5), rows=rows)
    with pytest.raises(DataError, match="its 5 frames are not the dataset's 6 frames") as caught:
        label(output_root, dataset, values=values, source="column", column="value")
    assert f"first difference at {where}" in str(caught.value)
    assert "values.parquet" in str(caught.value)


def test_values_of_a_longer_dataset_are_refused(output_root: str) -> None:
    dataset, longer = publish_dataset(output_root, [3]), publish_dataset(output_root, [3, 2])
    values = publish_values(output_root, longer, range(5))
    with pytest.raises(DataError, match="its 5 frames are not the dataset's 3 frames") as caught:
        label(output_root, dataset, values=values, source="column", column="value")
    assert "first difference at episode 1, frame 0" in str(caught.value)


def test_a_task_without_a_prompt_is_refused(output_root: str) -> None:
    dataset = publish_dataset(output_root, [3, 3], task=["fold", "stack"], tasks=["fold"])
    values = publish_values(output_root, dataset, range(6))
    with pytest.raises(DataError, match="task 'stack' has no prompt") as caught:
        label(output_root, dataset, values=values, source="column", column="value")
    assert "where: episode 1" in str(caught.value)
    assert caught.value.exit_code == 65


def test_that_nobody_is_ranked_is_told_before_what_their_numbers_are(output_root):
    dataset = publish_dataset(output_root, [3], kind="demo")
    values = publish_values(output_root, dataset, [math.nan, 0, 0])
    with pytest.raises(DataError, match="no frame belongs to the population rollout"):
        label(output_root, dataset, values=values, targets=make_targets(output_root, dataset), population="rollout")
