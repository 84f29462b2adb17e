"""The labelling stage by blocks: the same bytes however the episodes are cut, in memory that does not follow them."""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import label, make_targets, noisy_values, publish_dataset, publish_values
from test_golden_labels import CASES, make_example

from robolift import table_files
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.stages import label_advantage, label_sources
from robolift.stages.stage import load_inputs, parse_config

FILES = ("labels.parquet", "prompts.json", "summary.json", "metrics.json")
RABC = {"weight": "rabc", "weight_column": "value_std", "lookahead": 3, "population": "rollout"}
STAGES = {"group_by": "task_stage", "num_task_stages": 3, "stage_progress_column": "value_std", "lookahead": 3}
ALL = {"population": "all", "demo": "score", "intervention": "score"}
MORE: dict[str, dict[str, Any]] = {
    "kai0": {
        **STAGES,
        **ALL,
        "source": "progress",
        "column": "value_std",
        "tie": "kai0_legacy",
        "scheme": "slices",
        "num_slices": 3,
    },
    "exact": {
        **STAGES,
        **ALL,
        "source": "progress",
        "column": "value_std",
        "tie": "exact",
        "scheme": "slices",
        "short_tail": "drop",
    },
    "rabc": {**RABC, "source": "column", "column": "value", "group_by": "all"},
    "ends": {"failure_end": "exclude", "lookahead": 3, "group_by": "all", "tie": "exact"},
}


def cut_into(monkeypatch: pytest.MonkeyPatch, max_frames: int) -> None:
    """Have labelling read at most so many frames at a time."""
    blocks = functools.partial(table_files.episode_blocks, max_frames=max_frames)
    monkeypatch.setattr(label_sources, "episode_blocks", blocks)


def dry(config: dict[str, Any], given: dict[str, Manifest]) -> str:
    inputs = load_inputs("label_advantage", {name: made.uri for name, made in given.items()})
    parsed: Any = parse_config("label_advantage", config)
    return label_advantage.preview(parsed, inputs)


@pytest.mark.parametrize("case", [*CASES, *MORE])
def test_however_episodes_are_cut_the_bytes_are_the_same(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**CASES, **MORE}[case]
    given = make_example(str(tmp_path / "runs"))
    made, shown = [], []
    for max_frames in (10**6, 1, 20):
        cut_into(monkeypatch, max_frames)
        labels = label(str(tmp_path / str(max_frames)), **given, **config)
        folder = Path(labels.uri.removeprefix("file://"))
        assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "files.json", "manifest.json"])
        made.append([(folder / name).read_bytes() for name in FILES])
        shown.append(dry(config, given))
    assert made[0] == made[1] == made[2]
    assert shown[0] == shown[1] == shown[2]


def test_faults_are_counted_over_all_blocks(output_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = publish_dataset(output_root, [3, 4, 3])
    value = np.linspace(-1, 0, 10)
    value[[5, 8]] = np.nan
    values = publish_values(output_root, dataset, value)
    cut_into(monkeypatch, 1)
    with pytest.raises(DataError, match="column value of values is nan in 2 frames") as caught:
        label(output_root, dataset, targets=make_targets(output_root, dataset), values=values)
    assert caught.value.where == "first at episode 1, frame 2"
    # The first check of a block counts before the later ones of the blocks before.
    column = {"source": "column", "column": "value", "group_by": "task_stage", "num_task_stages": 2}
    progress = publish_values(output_root, dataset, value, std=[np.nan] * 3 + [0.5] * 7)
    with pytest.raises(DataError, match="the advantage from column value is nan in 2 frames"):
        label(output_root, dataset, values=progress, stage_progress_column="value_std", **column)
    returns = publish_values(output_root, dataset, range(10), std=[-0.5] * 10)
    with pytest.raises(DataError, match="stage progress value_std lies below 0 in all 10 frames"):
        label(output_root, dataset, values=returns, stage_progress_column="value_std", **column)
    some = publish_values(output_root, dataset, range(10), std=[-0.5] * 7 + [0.6, 0.7, 0.8])
    label(output_root, dataset, values=some, stage_progress_column="value_std", positive_fraction=0.5, **column)


@pytest.mark.parametrize(("rows", "where"), [(slice(0, 8), "episode 2, frame 1"), (slice(1, 10), "episode 0, frame 0")])
def test_values_of_other_frames_are_refused_in_any_block(
    rows: slice, where: str, output_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = publish_dataset(output_root, [3, 4, 3])
    num = len(range(10)[rows])
    values = publish_values(output_root, dataset, range(num), rows=rows)
    cut_into(monkeypatch, 4)
    with pytest.raises(DataError, match=f"its {num} frames are not the dataset's 10 frames") as caught:
        label(output_root, dataset, values=values, source="column", column="value")
    assert caught.value.where.endswith(f"first difference at {where}")


def test_a_relative_advantage_that_begins_with_nulls_is_the_values_tables(
    output_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = publish_dataset(output_root, [2, 2, 2], kind=["demo", "rollout", "rollout"])
    values = publish_values(output_root, dataset, np.zeros(6), relative=[None, None, 1, 2, 3, 4])
    cut_into(monkeypatch, 2)
    made = label(output_root, dataset, values=values, source="relative_advantage", short_tail="kai0_legacy")
    assert made.table("labels").column("advantage").to_pylist() == [None, None, 1, 2, 3, 4]
    assert made.table("labels").column("advantage_label").to_pylist()[2:] == [*["negative"] * 3, "positive"]


MEMORY = """
import functools, json, sys, tracemalloc
import pyarrow as pa
from robolift import schema, table_files
from robolift.stages import label_sources
from robolift.stages.stage import execute
root, config, inputs = json.loads(sys.argv[1])
schema.ROW_GROUP_ROWS = 2000
label_sources.episode_blocks = functools.partial(table_files.episode_blocks, max_frames=2000)
execute("label_advantage", {**config, "lookahead": 7}, inputs, root)  # what is imported and kept is there then
tracemalloc.start()
execute("label_advantage", config, inputs, root)
print(tracemalloc.get_traced_memory()[1], pa.default_memory_pool().max_memory())
"""


def test_memory_does_not_follow_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files.schema, "ROW_GROUP_ROWS", 2000)
    peaks = []
    for num_episodes in (20, 200):
        root = str(tmp_path / str(num_episodes))
        dataset = publish_dataset(root, [200] * num_episodes, outcome=["success", "failure"] * (num_episodes // 2))
        targets = make_targets(root, dataset)
        given = {"dataset": dataset, "targets": targets}
        # Few different values, because counters follow those.
        value = np.round(noisy_values(dataset, targets, noise=0.1) * 64) / 64
        given["values"] = publish_values(root, dataset, value)
        uris = {name: made.uri for name, made in given.items()}
        work = json.dumps([root, {"tie": "exact", "scheme": "slices", "weight": "rabc"}, uris])
        # A process of its own: what Arrow held at most can't be asked for a part of a process's life.
        told = subprocess.run([sys.executable, "-c", MEMORY, work], capture_output=True, check=True, text=True)
        peaks.append([int(number) for number in told.stdout.split()[-2:]])
    for short, long in zip(*peaks, strict=True):
        assert long < 1.2 * short, peaks


def test_nothing_is_left_in_the_folder_for_temporary_files(
    output_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    os.mkdir(tmp_path / "temporary")
    given = make_example(output_root)
    dry(CASES["recap"], given)
    label(output_root, **given, **CASES["recap"])
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("infinite", [[math.inf], [math.inf, -math.inf]])
def test_infinite_progress_is_no_weight(
    infinite: list[float], output_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = publish_dataset(output_root, [3, 4, 3])
    progress = np.linspace(0, 1, 10)
    progress[4 : 4 + len(infinite)] = infinite
    values = publish_values(output_root, dataset, range(10), std=progress)
    cut_into(monkeypatch, 4)
    with pytest.raises(
        DataError, match=f"progress value_std that frames are weighted by is inf in {len(infinite)} frames"
    ) as caught:
        label(output_root, dataset, values=values, source="column", column="value", group_by="all", **RABC)
    assert caught.value.where == "first at episode 1, frame 1"


def test_what_the_estimator_was_is_asked_once(output_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(label_sources, "check_lookahead", lambda values, lookahead: asked.append(lookahead))
    dataset = publish_dataset(output_root, [2, 2, 2])
    values = publish_values(output_root, dataset, np.zeros(6), relative=range(6))
    cut_into(monkeypatch, 2)
    label(output_root, dataset, values=values, source="relative_advantage", short_tail="kai0_legacy", lookahead=7)
    assert asked == [7]
