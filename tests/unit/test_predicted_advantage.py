"""Labels from what an estimator predicted, by our own prediction or in the columns that kai0 writes into a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import column, label, publish, publish_dataset, publish_values

from robolift.data.lerobot_format import FeatureSpec
from robolift.data.lerobot_writer import LeRobotWriter
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.schema import Kind
from robolift.stages.stage import execute

KAI0 = ("absolute_advantage", "relative_advantage", "absolute_value")


def import_columns(folder: Path, columns: Mapping[str, np.ndarray], root: str, **config: Any) -> Manifest:
    """Import one demonstration with these columns, in their own dtypes."""
    features = {
        "action": FeatureSpec("float32", (2,)),
        **{name: FeatureSpec(str(array.dtype)) for name, array in columns.items()},
    }
    frames = len(next(iter(columns.values())))
    writer = LeRobotWriter(folder, fps=30, features=features, cameras={}, robot_type="agilex", version="v2.1")
    writer.add_episode({"action": np.zeros((frames, 2), np.float32), **columns}, videos={}, task="fold")
    writer.finish()
    return execute("import_dataset", {"dataset_uri": str(folder), "control_mode": "demo", **config}, {}, root)


@pytest.fixture
def kai0_dataset(tmp_path: Path, output_root: str) -> Manifest:
    """Ten frames with kai0's three columns as its eval.py writes them."""
    return import_columns(
        tmp_path / "kai0", {name: np.arange(10) / 10 + place for place, name in enumerate(KAI0)}, output_root
    )


def test_absolute_advantage_is_the_rise_of_the_value(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4])
    values = publish_values(output_root, dataset, [0, 0.1, 0.3, 0.6], relative=[1, 2, 3, 0])
    made = label(output_root, dataset, values=values, preset="stage_advantage", lookahead=2)
    assert column(made, "advantage") == [*(pytest.approx(one, abs=1e-7) for one in (0.3, 0.5, 0.6)), None]
    assert column(made, "advantage_label") == ["negative", "negative", "positive", "none"]
    legacy = label(output_root, dataset, values=values, preset="kai0_legacy", lookahead=2)
    assert column(legacy, "advantage") == pytest.approx([0.3, 0.5, 0.6, 0.0], abs=1e-7)
    assert column(legacy, "valid") == [True] * 4


def test_absolute_advantage_is_clipped(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4])
    values = publish_values(output_root, dataset, [0.9, 0.0, 0.0, 0.2])
    made = label(output_root, dataset, values=values, preset="stage_advantage", lookahead=50)
    assert column(made, "advantage") == [-1.0, 1.0, 1.0, None]


@pytest.mark.parametrize(
    ("short_tail", "labels"),
    [("scale", ["negative", "positive", "none"]), ("drop", ["negative", "positive", "none"])],
)
def test_relative_advantage_is_the_column_of_the_values(short_tail: str, labels: list[str], output_root: str) -> None:
    dataset = publish_dataset(output_root, [3])
    values = publish_values(output_root, dataset, [9, 9, 9], relative=[0.1, 0.4, 0.0])
    made = label(
        output_root,
        dataset,
        values=values,
        preset="stage_advantage",
        source="relative_advantage",
        lookahead=1,
        positive_fraction=0.5,
        short_tail=short_tail,
    )
    assert column(made, "advantage") == [pytest.approx(0.1), pytest.approx(0.4), None]
    assert column(made, "advantage_label") == labels


def test_values_of_another_model_have_no_relative_advantage(output_root: str) -> None:
    dataset = publish_dataset(output_root, [3])
    values = publish_values(output_root, dataset, [1, 2, 3])
    with pytest.raises(DataError, match="not those of a two-frame estimator") as caught:
        label(output_root, dataset, values=values, preset="stage_advantage", source="relative_advantage")
    assert "head: relative" in str(caught.value)
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("source", KAI0[:2])
def test_columns_that_kai0_wrote_are_taken_without_values(
    source: str, kai0_dataset: Manifest, output_root: str
) -> None:
    place = KAI0.index(source)
    ours = label(output_root, kai0_dataset, preset="stage_advantage", advantage_source=source)
    assert column(ours, "advantage") == [*np.float32(np.arange(9) / 10 + place).tolist(), None]
    legacy = label(output_root, kai0_dataset, preset="kai0_legacy", advantage_source=source)
    assert column(legacy, "advantage") == np.float32(np.arange(10) / 10 + place).tolist()
    assert column(legacy, "advantage_label") == ["negative"] * 7 + ["positive"] * 3
    # And by their name, like any column.
    named = label(output_root, kai0_dataset, preset="kai0_legacy", source="column", column=source)
    assert named.table("labels").equals(legacy.table("labels"))


def test_source_column_takes_what_the_values_leave_empty_from_the_dataset(
    kai0_dataset: Manifest, output_root: str
) -> None:
    config = {"preset": "kai0_legacy", "source": "column", "column": "relative_advantage"}
    without = publish_values(output_root, kai0_dataset, np.zeros(10))
    assert column(label(output_root, kai0_dataset, values=without, **config), "advantage")[0] == 1.0
    with_own = publish_values(output_root, kai0_dataset, np.zeros(10), relative=np.arange(10))
    assert column(label(output_root, kai0_dataset, values=with_own, **config), "advantage")[0] == 0.0


@pytest.mark.parametrize("source", KAI0[:2])
def test_neither_values_nor_a_column(source: str, dataset: Manifest, output_root: str) -> None:
    with pytest.raises(UsageError, match=f"source {source} needs input values, or a dataset with a column {source}"):
        label(output_root, dataset, preset="stage_advantage", source=source)


def test_nan_in_a_predicted_value_is_refused(output_root: str) -> None:
    dataset = publish_dataset(output_root, [3])
    values = publish_values(output_root, dataset, [0.1, np.nan, 0.3])
    with pytest.raises(DataError, match="column value of values is nan in 1 frames") as caught:
        label(output_root, dataset, values=values, preset="stage_advantage")
    assert "episode 0, frame 1" in str(caught.value)


def test_one_nan_in_a_column_of_the_dataset_is_refused(tmp_path: Path, output_root: str) -> None:
    advantage = np.arange(5.0)
    advantage[3] = np.nan
    dataset = import_columns(
        tmp_path / "nan", {"absolute_advantage": advantage}, output_root, allow_nan=["absolute_advantage"]
    )
    for preset in ("stage_advantage", "kai0_legacy"):
        with pytest.raises(DataError, match="the advantage from absolute_advantage is nan in 1 frames") as caught:
            label(output_root, dataset, preset=preset)
        assert "episode 0, frame 3" in str(caught.value)


def test_a_lookahead_that_no_episode_has_leaves_nobody_to_rank(output_root: str) -> None:
    dataset = publish_dataset(output_root, [3, 1])
    values = publish_values(output_root, dataset, [0, 0.1, 0.2, 0.3])
    with pytest.raises(DataError, match="none of the 4 frames of the population all may be ranked") as caught:
        label(output_root, dataset, values=values, preset="stage_advantage", short_tail="drop", lookahead=3)
    assert "every episode ends within 3 frames" in str(caught.value)
    single = publish_dataset(output_root, [1, 1])
    values = publish_values(output_root, single, [0.1, 0.2])
    with pytest.raises(DataError, match="none of the 2 frames"):
        label(output_root, single, values=values, preset="stage_advantage")
    # kai0 ranks the zeros of single frames.
    legacy = label(output_root, single, values=values, preset="kai0_legacy")
    assert column(legacy, "advantage") == [0.0, 0.0]
    assert column(legacy, "advantage_label") == ["positive", "positive"]


STAGED = {"preset": "stage_advantage", "stage_nums": 2}


def test_rollouts_without_stage_progress(output_root: str) -> None:
    dataset = publish_dataset(output_root, [5])
    values = publish_values(output_root, dataset, [0.1, 0.4, 0.6, 0.9, 0.8])
    with pytest.raises(DataError, match="there is no column stage_progress_gt") as caught:
        label(output_root, dataset, values=values, **STAGED)
    assert "annotate the episodes" in str(caught.value)
    # The estimator's own value may stand in for it.
    made = label(output_root, dataset, values=values, stage_progress_column="value", lookahead=1, **STAGED)
    assert column(made, "group") == ["fold, stage 0"] * 2 + ["fold, stage 1"] * 2 + [""]


def test_recorded_stage_progress_is_a_fraction_and_a_predicted_one_may_stray(tmp_path: Path, output_root: str) -> None:
    columns = {"absolute_advantage": np.arange(4.0), "stage_progress_gt": np.array([0, 0.5, 1.2, 1.3])}
    dataset = import_columns(tmp_path / "percent", columns, output_root)
    with pytest.raises(DataError, match=r"stage_progress_gt is 1\.2, 2 frames lie outside \[0, 1\]") as caught:
        label(output_root, dataset, short_tail="kai0_legacy", **STAGED)
    assert "episode 0, frame 2" in str(caught.value)
    values = publish_values(output_root, dataset, [-0.1, 0.2, 0.7, 1.1])
    made = label(
        output_root, dataset, values=values, source="column", column="value", stage_progress_column="value", **STAGED
    )
    assert [name[-1] for name in column(made, "group")] == ["0", "0", "1", "1"]


def test_returns_are_no_stage_progress(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4], kind="demo")
    values = publish_values(output_root, dataset, [-0.9, -0.6, -0.3, -0.1])
    staged = {"group_by": "task_stage", "num_task_stages": 2, "stage_progress_column": "value"}
    with pytest.raises(DataError, match="stage progress value lies below 0 in all 4 frames"):
        label(output_root, dataset, values=values, preset="stage_advantage", short_tail="kai0_legacy", **staged)


def test_values_of_another_dataset_with_the_same_frames_are_refused(output_root: str) -> None:
    dataset, other = (publish_dataset(output_root, [4], kind=kind) for kind in ("demo", "rollout"))
    values = publish(
        output_root,
        "merge_values",
        Kind.VALUES,
        tables={"values": publish_values(output_root, other, [0.0, 0.1, 0.2, 0.4]).table("values")},
        inputs={"dataset": [other]},
    )
    with pytest.raises(DataError, match="the values were made from another dataset") as caught:
        label(output_root, dataset, values=values, preset="stage_advantage")
    assert caught.value.expected == dataset.uri


def test_relative_advantage_over_another_lookahead_is_refused(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4], kind="demo")
    table = publish_values(output_root, dataset, [0.0, 0.1, 0.2, 0.4], relative=[0.1, 0.2, 0.3, 0]).table("values")
    shard = publish(output_root, "predict_values", Kind.VALUE_SHARD, tables={"values": table}, config={"lookahead": 8})
    values = publish(output_root, "merge_values", Kind.VALUES, tables={"values": table}, inputs={"shards": [shard]})
    asked = {"preset": "stage_advantage", "source": "relative_advantage"}
    with pytest.raises(UsageError, match="lookahead is 20, and relative_advantage was predicted over 8 frames"):
        label(output_root, dataset, values=values, lookahead=20, **asked)
    made = label(output_root, dataset, values=values, lookahead=8, positive_fraction=0.34, **asked)
    assert column(made, "advantage_label") == ["negative", "negative", "positive", "none"]


@pytest.mark.parametrize(("dtype", "stages"), [("float32", [2, 3, 5, 6]), ("float64", [2, 2, 4, 6])])
def test_stage_edges_keep_the_precision_of_the_column(
    dtype: str, stages: list[int], tmp_path: Path, output_root: str
) -> None:
    # 0.2, 0.3, 0.5 (less a bit), 0.7: on the edges of ten stages, or just below.
    progress = np.array([0.2, 0.3, 0.5 - 1e-9, 0.7], dtype)
    columns = {"absolute_advantage": np.arange(4.0), "stage_progress_gt": progress}
    dataset = import_columns(tmp_path / dtype, columns, output_root)
    legacy = label(output_root, dataset, preset="kai0_legacy", stage_nums=10)
    assert [int(name.split()[-1]) for name in column(legacy, "group")] == stages
