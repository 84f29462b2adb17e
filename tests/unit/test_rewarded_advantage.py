"""Labels from annotated progress: the rewards table as a source of label_advantage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import column, publish_dataset, publish_values
from reward_shards import publish_rewards

from robolift import storage
from robolift.data.lerobot_format import FeatureSpec
from robolift.data.lerobot_writer import LeRobotWriter
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.stages.stage import execute

RISE = [0.0, 0.125, 0.375, 1.0]
BY_PROGRESS = {"preset": "stage_advantage", "source": "progress", "column": "progress", "lookahead": 2}


def merged(root: str, dataset: Manifest, progress: Sequence[Any], **columns: Any) -> Manifest:
    return publish_rewards(root, dataset, "merge_rewards", progress=progress, source=["vlm"] * len(progress), **columns)


def label(root: str, dataset: Manifest, rewards: Manifest, values: Manifest | None = None, **config: Any) -> Manifest:
    given = {"dataset": dataset.uri, "rewards": rewards.uri} | ({"values": values.uri} if values else {})
    return execute("label_advantage", config, given, root)


def test_advantage_is_the_rise_of_annotated_progress(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4])
    made = label(output_root, dataset, merged(output_root, dataset, RISE), **BY_PROGRESS)
    # Over two frames 0.375 and 0.875; over the last one 0.625, doubled.
    assert column(made, "advantage") == [0.375, 0.875, 1.25, None]
    assert column(made, "advantage_label") == ["negative", "negative", "positive", "none"]


def test_annotated_progress_weighs_frames(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4])
    rewards = merged(output_root, dataset, [0.0, 0.5, 0.5, 0.25])
    rabc = {"weight": "rabc", "weight_column": "progress"}
    made = label(output_root, dataset, rewards, **{**BY_PROGRESS, **rabc, "lookahead": 1})
    weight = column(made, "weight")
    # Risen by 0.5: fully. Fallen by 0.25: not at all. Nothing gained lies between.
    assert (weight[0], weight[2]) == (1.0, 0.0)
    assert 0 < weight[1] < 1


def test_annotated_progress_gives_task_stages(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4])
    staged = {"group_by": "task_stage", "num_task_stages": 2, "stage_progress_column": "progress"}
    made = label(output_root, dataset, merged(output_root, dataset, RISE), **BY_PROGRESS, **staged)
    assert column(made, "group") == ["fold, stage 0"] * 3 + [""]


def test_a_frame_without_progress_is_refused(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4, 4])
    rewards = merged(output_root, dataset, [*RISE, 0.0, None, 0.5, 1.0])
    with pytest.raises(DataError, match="the advantage from progress progress is nan in 1 frames") as caught:
        label(output_root, dataset, rewards, **{**BY_PROGRESS, "lookahead": 5, "short_tail": "scale"})
    assert caught.value.where == "first at episode 1, frame 1"
    staged = {"group_by": "task_stage", "num_task_stages": 2, "stage_progress_column": "progress"}
    values = publish_values(output_root, dataset, RISE * 2)
    with pytest.raises(DataError, match="stage progress progress is nan in 1 frames"):
        label(output_root, dataset, rewards, values, preset="stage_advantage", **staged)
    rabc = {"weight": "rabc", "weight_column": "progress", "lookahead": 1}
    made = label(output_root, dataset, rewards, values, preset="stage_advantage", **rabc)
    # As SARM does, a frame whose rise is not known weighs 1.
    assert column(made, "weight")[4:6] == [1.0, 1.0]
    assert storage.read_json(made.file("summary.json"))["weight"]["unknown_progress"] == 1


def test_rewards_of_another_dataset_are_refused(output_root: str) -> None:
    dataset, other = (publish_dataset(output_root, [4], kind=kind) for kind in ("demo", "rollout"))
    with pytest.raises(DataError, match="the rewards were made from another dataset") as caught:
        label(output_root, dataset, merged(output_root, other, RISE), **BY_PROGRESS)
    assert caught.value.expected == dataset.uri


def test_a_column_that_nobody_has(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4])
    rewards = merged(output_root, dataset, RISE)
    with pytest.raises(UsageError, match=r"no column 'effort' in rewards, values \(no input values was given\)"):
        label(output_root, dataset, rewards, **{**BY_PROGRESS, "column": "effort"})
    with pytest.raises(UsageError, match=r"no column 'progress' in values \(no input values was given\)"):
        execute("label_advantage", BY_PROGRESS, {"dataset": dataset.uri}, output_root)


def test_given_rewards_stand_before_a_column_of_the_dataset(tmp_path: Path, output_root: str) -> None:
    features = {"action": FeatureSpec("float32", (2,)), "progress": FeatureSpec("float32")}
    writer = LeRobotWriter(tmp_path / "rec", fps=30, features=features, cameras={}, robot_type="arm", version="v2.1")
    columns = {"action": np.zeros((4, 2), np.float32), "progress": np.array(RISE[::-1], np.float32)}
    writer.add_episode(columns, videos={}, task="fold")
    writer.finish()
    dataset = execute("import_dataset", {"dataset_uri": str(tmp_path / "rec"), "control_mode": "demo"}, {}, output_root)
    recorded = execute("label_advantage", BY_PROGRESS, {"dataset": dataset.uri}, output_root)
    assert column(recorded, "advantage")[0] == -0.875
    made = label(output_root, dataset, merged(output_root, dataset, RISE), **BY_PROGRESS)
    assert column(made, "advantage")[0] == 0.375
    with pytest.raises(DataError, match="is nan in 3 frames"):
        label(output_root, dataset, merged(output_root, dataset, [None] * 4), **BY_PROGRESS)


def test_rewards_that_nothing_asks_for_change_no_label(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4])
    values = publish_values(output_root, dataset, RISE)
    config = {"preset": "stage_advantage", "lookahead": 2}
    given = {"dataset": dataset.uri, "values": values.uri}
    plain = execute("label_advantage", config, given, output_root)
    beside = label(output_root, dataset, merged(output_root, dataset, [None] * 4), values, **config)
    assert beside.digest != plain.digest
    assert beside.table("labels").equals(plain.table("labels"))
