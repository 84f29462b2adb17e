"""LeRobot's table of progress: what is written to the letter, and what is refused when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled import publish_dataset

from robolift.data.dataset import Dataset
from robolift.data.lerobot_rewards import read_rewards, write_rewards
from robolift.errors import DataError

PROGRESS = [0.0, 0.5, 1.0, 0.25, 0.75]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """Two episodes, of three frames and of two."""
    return Dataset.open(publish_dataset(str(tmp_path_factory.mktemp("dataset")), [3, 2]))


def table(**changes: Any) -> pa.Table:
    """The file as `lerobot.rewards.robometer.compute_rabc_weights` writes it; None drops a column."""
    columns = {
        "index": np.arange(5, dtype=np.int64),
        "episode_index": np.array([0, 0, 0, 1, 1], np.int64),
        "frame_index": np.array([0, 1, 2, 0, 1], np.int64),
        "progress_sparse": np.array(PROGRESS, np.float32),
        **changes,
    }
    made = pa.table({name: values for name, values in columns.items() if values is not None})
    return made.replace_schema_metadata({b"reward_model_path": b"lerobot/Robometer-4B"})


def read(rows: pa.Table, path: Path, dataset: Dataset, **options: Any) -> list[float]:
    pq.write_table(rows, path / "rewards.parquet")
    chosen = {"head": "sparse", "allow_partial": False, **options}
    return read_rewards(str(path / "rewards.parquet"), dataset, **chosen).progress.tolist()


def test_what_is_written_to_the_letter(dataset, tmp_path):
    path = tmp_path / "folder" / "sarm_progress.parquet"
    write_rewards(path, dataset, [np.array([0.0, 0.5]), np.array([1.0, np.nan, 0.75])], metadata={"robolift": "cafe"})
    found = pq.read_table(path)
    expected = [*((name, pa.int64()) for name in ("index", "episode_index", "frame_index"))]
    assert found.schema.equals(pa.schema([*expected, ("progress_sparse", pa.float32())]))
    assert found.schema.metadata == {b"robolift": b"cafe"}
    assert found.column("index").to_pylist() == [0, 1, 2, 3, 4]
    assert found.column("episode_index").to_pylist() == [0, 0, 0, 1, 1]
    assert found.column("frame_index").to_pylist() == [0, 1, 2, 0, 1]
    # LeRobot's reader asks numpy.isnan of each row: a Parquet null would do in pandas only.
    assert found.column("progress_sparse").null_count == 0
    assert str(found.column("progress_sparse").to_pylist()) == "[0.0, 0.5, 1.0, nan, 0.75]"
    assert pq.read_metadata(path).row_group(0).column(0).compression == "SNAPPY"


def test_the_same_rewards_give_the_same_bytes(dataset, tmp_path):
    for name in ("a", "b"):
        write_rewards(tmp_path / name, dataset, [np.array(PROGRESS)], metadata={})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_written_is_read_back(dataset, tmp_path):
    path = tmp_path / "sarm_progress.parquet"
    write_rewards(path, dataset, [np.array(PROGRESS)], metadata={"robolift": "cafe"})
    found = read_rewards(str(path), dataset, head="sparse", allow_partial=False)
    assert found.progress.tolist() == PROGRESS
    assert found.progress.dtype == np.float32
    assert found.metadata == {"robolift": "cafe"}


def test_a_file_of_a_reward_model_is_read(dataset, tmp_path):
    pq.write_table(table(), tmp_path / "robometer_progress.parquet")
    found = read_rewards(str(tmp_path / "robometer_progress.parquet"), dataset, head="sparse", allow_partial=False)
    assert found.progress.tolist() == PROGRESS
    assert found.metadata == {"reward_model_path": "lerobot/Robometer-4B"}


def test_sarm_has_two_heads(dataset, tmp_path):
    rows = table(progress_dense=np.float32([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert read(rows, tmp_path, dataset) == PROGRESS
    assert read(rows, tmp_path, dataset, head="dense") == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_what_pandas_left_in_the_metadata_is_nothing_stated(dataset, tmp_path):
    rows = table().replace_schema_metadata({b"pandas": b"{}", b"vlm_name": b"Qwen/Qwen3-VL-8B-Instruct"})
    pq.write_table(rows, tmp_path / "rewards.parquet")
    found = read_rewards(str(tmp_path / "rewards.parquet"), dataset, head="sparse", allow_partial=False)
    assert found.metadata == {"vlm_name": "Qwen/Qwen3-VL-8B-Instruct"}


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_says_nothing(seed, dataset, tmp_path):
    rows = table().take(np.random.default_rng(seed).permutation(5))
    assert read(rows, tmp_path, dataset) == PROGRESS


def test_what_the_labeller_left_out_is_not_known_where_that_is_allowed(dataset, tmp_path):
    assert str(read(table().slice(0, 3), tmp_path, dataset, allow_partial=True)) == "[0.0, 0.5, 1.0, nan, nan]"
    for missing in (
        table(progress_sparse=np.float32([0, np.nan, 1, 0, 1])),
        table(progress_sparse=[0, None, 1.0, 0, 1]),
    ):
        assert str(read(missing, tmp_path, dataset, allow_partial=True)) == "[0.0, nan, 1.0, 0.0, 1.0]"


def test_a_rounding_of_float32_is_no_other_scale(dataset, tmp_path):
    rows = table(progress_sparse=np.float32([-1e-6, 0, 1, 1.000001, 0.5]))
    assert read(rows, tmp_path, dataset) == [0.0, 0.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            table(progress_sparse=None, progress_dense=np.float32(PROGRESS)),
            "no column progress_sparse .*\n(.*\n)*.*head",
        ),
        (table(index=None), "no column index in LeRobot's reward file"),
        (table(frame_index=np.float64([0, 1, 2, 0, 1])), "column frame_index is double with 0 nulls"),
        (table(episode_index=[0, 0, 0, None, 1]), "column episode_index is int64 with 1 nulls"),
        (table(progress_sparse=np.arange(5)), "column progress_sparse is int64"),
        (table().slice(0, 3), "1 of 2 episodes are missing\n.*first: episode 1\n"),
        (table().slice(0, 4), "1 episodes are shorter than in the dataset\n.*episode 1 has 1 rows\n.*its 2 frames"),
        (table(episode_index=np.array([0, 0, 0, 1, 7])), "1 rows speak of frames .*\n.*episode 7, .*no such episode"),
        (
            table(frame_index=np.array([0, 1, 2, 0, 2])),
            "1 rows speak of frames .*\n.*episode 1, frame 2, .* has 2 frames",
        ),
        (
            table(index=np.array([0, 1, 2, 0, 1])),
            "2 rows are numbered otherwise .*\n.*has index 0\n.*expected: index 3,",
        ),
        (pa.concat_tables([table(), table().slice(2, 1)]), "a frame stands twice, first index 2"),
        (
            table(progress_sparse=np.float32([0, np.nan, 1, 0, 1])),
            "progress_sparse is missing in 1 frames\n.*0, frame 1",
        ),
        (table(progress_sparse=[0, None, None, 0, 1.0]), "progress_sparse is missing in 2 frames\n.*0, frame 1"),
        (
            table(progress_sparse=np.float32([0, 0, 0, 0, -3])),
            "progress_sparse is no progress in 1 .*\n.*1, frame 1: -3",
        ),
        (table(progress_sparse=np.float32([0, 1.1, 0, 0, 0])), "is no progress in 1 frames\n.*frame 1: 1.1"),
        (table(progress_sparse=np.float32([0, np.inf, 0, 0, 0])), "is no progress in 1 frames\n.*frame 1: inf"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(rows, message, dataset, tmp_path):
    with pytest.raises(DataError, match=message):
        read(rows, tmp_path, dataset)


def test_an_episode_cut_short_is_refused_even_where_part_is_allowed(dataset, tmp_path):
    with pytest.raises(DataError, match="1 episodes are shorter than in the dataset"):
        read(table().slice(0, 4), tmp_path, dataset, allow_partial=True)


def test_what_is_no_parquet_is_refused(dataset, tmp_path):
    (tmp_path / "rewards.parquet").write_bytes(b"index,progress_sparse\n")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_rewards(str(tmp_path / "rewards.parquet"), dataset, head="sparse", allow_partial=False)
