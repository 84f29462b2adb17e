"""A reward model of LeRobot's as a labeller: its file becomes a table of rewards, and goes back unchanged."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported_dataset import run_export

from robolift import storage
from robolift.errors import DataError
from robolift.stages.stage import execute


def write(path, dataset, progress, **metadata):
    frames = dataset.table("frames")
    keys = {name: frames.column(name) for name in ("episode_index", "frame_index")}
    rows = pa.table({"index": np.arange(frames.num_rows), **keys, "progress_sparse": np.float32(progress)})
    pq.write_table(rows.replace_schema_metadata(metadata), path)
    return str(path)


def run(dataset, uri, root, **config):
    return execute("import_rewards", {"rewards_uri": uri, **config}, {"dataset": dataset.uri}, root)


def clock(dataset):
    frame = dataset.table("frames").column("frame_index").to_numpy()
    return frame / 100


def test_a_row_for_every_frame(dataset, tmp_path, output_root):
    uri = write(tmp_path / "sarm_progress.parquet", dataset, clock(dataset), reward_model_path="org/sarm")
    made = run(dataset, uri, output_root)
    rewards, frames = made.table("rewards"), dataset.table("frames")
    for key in ("episode_index", "frame_index"):
        assert rewards.column(key).equals(frames.column(key))
    np.testing.assert_array_equal(rewards.column("progress"), np.float32(clock(dataset)))
    assert set(rewards.column("source").to_pylist()) == {"vlm"}
    assert set(rewards.column("anchor").to_pylist()) == {True}
    for name in ("success_prob", "tri", "reward", "stage", "confidence"):
        assert rewards.column(name).null_count == 123
    assert made.counts == {"episodes": 8, "frames": 123, "labelled": 8, "labelled_frames": 123}
    assert storage.read_json(made.file("labeller.json")) == {
        "protocol": "lerobot",
        "head": "sparse",
        "stated": {"reward_model_path": "org/sarm"},
    }


def test_what_was_not_labelled_is_null_and_nobodys(dataset, tmp_path, output_root):
    progress = clock(dataset)
    progress[2] = np.nan
    progress[6:22] = np.nan
    uri = write(tmp_path / "sarm_progress.parquet", dataset, progress)
    with pytest.raises(DataError, match=r"progress_sparse is missing in 17 frames\n.*first: episode 0, frame 2"):
        run(dataset, uri, output_root)
    made = run(dataset, uri, output_root, allow_partial=True)
    rewards = made.table("rewards").slice(0, 8)
    assert rewards.column("progress").is_null().to_pylist() == [False, False, True, False, False, False, True, True]
    assert rewards.column("source").to_pylist() == ["vlm", "vlm", "none", "vlm", "vlm", "vlm", "none", "none"]
    assert rewards.column("anchor").to_pylist() == [True, True, False, True, True, True, False, False]
    assert made.counts == {"episodes": 8, "frames": 123, "labelled": 7, "labelled_frames": 106}


def test_a_file_without_any_number_is_refused(dataset, tmp_path, output_root):
    uri = write(tmp_path / "sarm_progress.parquet", dataset, np.full(123, np.nan))
    with pytest.raises(DataError, match="progress_sparse is missing in all frames"):
        run(dataset, uri, output_root, allow_partial=True)


def test_labels_flow_both_ways(dataset, tmp_path, output_root):
    uri = write(tmp_path / "sarm_progress.parquet", dataset, clock(dataset))
    made = run(dataset, uri, output_root)
    inputs = {"dataset": dataset.uri, "rewards": made.uri}
    exported = run_export(inputs, output_root, columns=["lerobot_rewards", "rabc_weights"])
    back = pq.read_table(storage.local_path(exported.uri) / "sarm_progress.parquet")
    assert back.equals(pq.read_table(uri))


def test_another_content_is_another_output(dataset, tmp_path, output_root):
    first = run(dataset, write(tmp_path / "sarm_progress.parquet", dataset, clock(dataset)), output_root)
    again = run(dataset, write(tmp_path / "sarm_progress.parquet", dataset, clock(dataset)), output_root)
    other = run(dataset, write(tmp_path / "sarm_progress.parquet", dataset, clock(dataset) / 2), output_root)
    assert (first.digest == again.digest, first.digest == other.digest) == (True, False)


def test_a_file_that_is_not_there(dataset, tmp_path, output_root):
    with pytest.raises(DataError, match=r"missing\.parquet"):
        run(dataset, str(tmp_path / "missing.parquet"), output_root)


def test_a_file_in_an_object_store(dataset, output_root):
    frames = dataset.table("frames")
    keys = {name: frames.column(name) for name in ("episode_index", "frame_index")}
    rows = pa.table({"index": np.arange(123), **keys, "progress_sparse": np.float32(clock(dataset))})
    with storage.open_file("memory://labels/sarm_progress.parquet", "wb") as file:
        pq.write_table(rows, file)
    assert run(dataset, "memory://labels/sarm_progress.parquet", output_root).counts["labelled"] == 8
