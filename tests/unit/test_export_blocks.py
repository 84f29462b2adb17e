"""An export by blocks: the same dataset however the episodes are cut, in memory that does not follow their number."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import synthetic
from exported_dataset import folder, learned, run_export, tree
from rewarded import publish_rewards

from benchmarks.cost_data import Shape, write
from robolift import manifest, table_files
from robolift.data import export_meta, fresh_columns
from robolift.data.dataset import Dataset
from robolift.data.export_meta import EpisodeRow, EpisodeRows
from robolift.data.joined import JoinedColumns
from robolift.data.statistics import column_statistics
from robolift.errors import DataError, UsageError
from robolift.stages import export_tables
from robolift.stages.stage import execute

COLUMNS = ["pistar", "kai0", "kai0_values", "weights", "values", "rewards", "rabc_weights", "stage_progress"]


def cut_into(monkeypatch: pytest.MonkeyPatch, max_frames: int) -> None:
    blocks = partial(table_files.episode_blocks, max_frames=max_frames)
    monkeypatch.setattr(fresh_columns, "episode_blocks", blocks)
    monkeypatch.setattr(export_tables, "episode_blocks", blocks)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Eight episodes, and all that an export joins."""
    root = tmp_path_factory.mktemp("recorded")
    synthetic.write_recording(root / "recording", cameras=[])
    dataset = execute("import_dataset", {"dataset_uri": str(root / "recording")}, {}, str(root))
    lengths = dataset.table("episodes").column("length").to_pylist()
    frames = [(frame, length) for length in lengths for frame in range(length)]
    rewards = publish_rewards(
        str(root),
        dataset,
        reward=[n / 100 for n in range(len(frames))],
        progress=[frame / length for frame, length in frames],
        success_prob=[0.5 + frame / length / 4 for frame, length in frames],
        source=["human"] * len(frames),
        stage=[int(2 * frame >= length) for frame, length in frames],
    )
    return {**learned(str(root), dataset), "rewards": rewards.uri}


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_however_episodes_are_cut_the_dataset_is_the_same(
    version: str, recorded: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"columns": COLUMNS, "version": version, "num_task_stages": 2}
    whole = run_export(recorded, str(tmp_path / "whole"), **config)
    for max_frames in (1, 30):
        cut_into(monkeypatch, max_frames)
        monkeypatch.setattr(export_meta, "ROWS_AT_ONCE", 3)
        cut = run_export(recorded, str(tmp_path / str(max_frames)), **config)
        assert (folder(cut).parent / "weights.parquet").read_bytes() == (
            folder(whole).parent / "weights.parquet"
        ).read_bytes()
        found, expected = tree(folder(cut)), tree(folder(whole))
        # Means are sums of the blocks' sums, and nothing else tells one cut from another.
        told, known = (json.loads(files.pop("meta/stats.json", b"{}")) for files in (found, expected))
        assert found == expected
        assert list(told) == list(known)
        for name, facts in known.items():
            for statistic, value in facts.items():
                np.testing.assert_allclose(told[name][statistic], value, rtol=1e-14, err_msg=f"{name} {statistic}")


def test_an_error_names_the_episode_of_the_whole(
    recorded: dict[str, str], output_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_into(monkeypatch, 1)
    dataset = manifest.load(recorded["dataset"])
    stages = [0] * dataset.counts["frames"]
    starts = Dataset.open(dataset).starts
    stages[int(starts[5]) + 2] = 1
    made = publish_rewards(output_root, dataset, stage=stages)
    config = {"columns": ["stage_progress"], "num_task_stages": 1}
    with pytest.raises(DataError, match=r"a frame is in task stage 1\n  where: episode 5, frame 2"):
        run_export({"dataset": dataset.uri, "rewards": made.uri}, output_root, **config)


def test_statistics_of_different_widths_are_refused(tmp_path: Path) -> None:
    rows = EpisodeRows(tmp_path, "v3.0")
    for number, width in enumerate((2, 4)):
        statistics = {"action": column_statistics(np.ones((3, width)))}
        rows.add(EpisodeRow(index=number, length=3, first_row=0, tasks=[], places={}, extra={}, statistics=statistics))
    with pytest.raises(DataError, match="statistics of different shapes can't be merged"):
        rows.finish([], {})


def test_columns_are_read_onwards(recorded: dict[str, str], tmp_path: Path) -> None:
    dataset = Dataset.open(manifest.load(recorded["dataset"]))
    with closing(JoinedColumns(iter([{"a": pa.array(np.arange(dataset.num_frames) / 2)}]), tmp_path)) as joined:
        columns = fresh_columns.FreshColumns(dataset, joined, np.arange(dataset.num_episodes) % 2)
        second = columns.of(1)
        first = int(dataset.starts[1])
        assert second["a"][0].as_py() == first / 2
        assert second["index"].to_pylist() == list(range(first, int(dataset.starts[2])))
        assert set(second["episode_index"].to_pylist()) == {1}
        assert set(second["task_index"].to_pylist()) == {1}
        assert columns.of(1) is second
        with pytest.raises(UsageError, match="episode 0 was passed"):
            columns.of(0)
        assert np.concatenate(list(columns.blocks("a"))).tolist() == (np.arange(dataset.num_frames) / 2).tolist()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 2.5], pa.float64()),
        ([None, 1, 2], pa.int64()),
        ([[1], None, [2.5]], pa.list_(pa.float64())),
        (["a", None, "b"], pa.string()),
    ],
)
def test_a_meta_key_has_one_type_in_all_rows(values: list, kind: pa.DataType, tmp_path: Path, monkeypatch) -> None:
    """Whether rows are turned into columns together or one by one."""
    found = []
    for at_once in (1, 10):
        monkeypatch.setattr(export_meta, "ROWS_AT_ONCE", at_once)
        rows = EpisodeRows(tmp_path / str(at_once), "v3.0")
        for number, value in enumerate(values):
            extra = {"note": value} if value is not None or number else {}
            rows.add(
                EpisodeRow(index=number, length=1, first_row=number, tasks=["t"], places={}, extra=extra, statistics={})
            )
        rows.finish(["t"], {})
        (path,) = (tmp_path / str(at_once) / "meta/episodes").rglob("*.parquet")
        found.append(pa.parquet.read_table(path))
    assert found[0].column("note").type == kind
    assert found[0].select(sorted(found[0].column_names)).equals(found[1].select(sorted(found[1].column_names)))


def test_meta_keys_of_different_types_are_refused_across_blocks(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(export_meta, "ROWS_AT_ONCE", 1)
    rows = EpisodeRows(tmp_path, "v3.0")
    for number, value in enumerate(["x", 1]):
        extra = {"note": value}
        rows.add(EpisodeRow(index=number, length=1, first_row=0, tasks=[], places={}, extra=extra, statistics={}))
    with pytest.raises(DataError, match="hold values of different types under 'note'"):
        rows.finish([], {})


MEMORY = """
import functools, json, sys, tracemalloc
import pyarrow as pa
from robolift import schema, table_files
from robolift.data import fresh_columns
from robolift.stages import export_tables
from robolift.stages.stage import execute
root, version, inputs = json.loads(sys.argv[1])
schema.ROW_GROUP_ROWS = 2000
for module in (fresh_columns, export_tables):
    module.episode_blocks = functools.partial(table_files.episode_blocks, max_frames=2000)
execute("export_dataset", {"columns": ["next_reward"], "lookahead": 7}, inputs, root)  # what is imported stays
tracemalloc.start()
execute("export_dataset", {"columns": ["next_reward"], "version": version}, inputs, root)
print(tracemalloc.get_traced_memory()[1], pa.default_memory_pool().max_memory())
"""


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_memory_does_not_follow_the_frames(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files.schema, "ROW_GROUP_ROWS", 2000)
    peaks = []
    for num_episodes in (4, 40):
        root = str(tmp_path / str(num_episodes))
        # A file for each episode: a data file of the source is held whole.
        config = {"dataset_uri": str(write(tmp_path, Shape(num_episodes, 20_000, "v2.1")))}
        dataset = execute("import_dataset", config, {}, root)
        targets = execute("label_returns", {}, {"dataset": dataset.uri}, root)
        work = json.dumps([root, version, {"dataset": dataset.uri, "targets": targets.uri}])
        told = subprocess.run([sys.executable, "-c", MEMORY, work], capture_output=True, check=True, text=True)
        peaks.append([int(number) for number in told.stdout.split()[-2:]])
    for short, long in zip(*peaks, strict=True):
        assert long < 1.2 * short, peaks
