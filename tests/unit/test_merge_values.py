"""Shards of predicted values become one table, whatever they were cut into, or the first wrong frame is named."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled import publish, publish_dataset

from robolift import schema, storage
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.schema import Kind
from robolift.stages.stage import execute

LENGTHS = [3, 2, 4]
Keys = Sequence[tuple[int, int]]
FRAMES: Keys = [(episode, frame) for episode, length in enumerate(LENGTHS) for frame in range(length)]


def shard(root: str, dataset: Manifest, keys: Keys, number: int, of: int) -> Manifest:
    """Publish a shard that predicts ``keys``, a value by the key."""
    episode, frame = (np.array([key[place] for key in keys], np.int64) for place in (0, 1))
    table = schema.as_table(
        "values",
        {
            "episode_index": episode,
            "frame_index": frame,
            "value": episode + frame / 8,
            "value_std": np.ones(len(keys)),
            "relative_advantage": pa.nulls(len(keys), pa.float32()),
        },
    )
    return publish(
        root,
        "predict_values",
        Kind.VALUE_SHARD,
        tables={"values": table},
        inputs={"dataset": [dataset], "checkpoint": [dataset]},
        config={"shard": number, "num_shards": of},
    )


def merge(root: str, cut: Sequence[Keys], lengths: Sequence[int] = LENGTHS) -> Manifest:
    dataset = publish_dataset(root, lengths)
    shards = [shard(root, dataset, keys, number, len(cut)) for number, keys in enumerate(cut)]
    inputs = {"dataset": dataset.uri, "shards": [made.uri for made in shards]}
    return execute("merge_values", {}, inputs, root)


@pytest.mark.parametrize("cut", [(0, 9), (0, 3, 9), (0, 0, 5, 9), (0, 4, 4, 9)])
def test_the_bytes_do_not_show_the_cut(tmp_path, cut):
    made = merge(str(tmp_path), [FRAMES[first:end] for first, end in pairwise(cut)])
    whole = merge(str(tmp_path / "whole"), [FRAMES])
    assert made.table("values").column("value").to_pylist() == [0, 1 / 8, 2 / 8, 1, 9 / 8, 2, 17 / 8, 18 / 8, 19 / 8]
    assert storage.read_bytes(made.file("values.parquet")) == storage.read_bytes(whole.file("values.parquet"))
    assert made.counts == {"episodes": 3, "frames": 9}


def test_rows_cross_the_edges_of_row_groups(tmp_path):
    """Shards end elsewhere than the row groups of the merged table."""
    lengths = [100_000, 40_000, 3]
    keys = [(episode, frame) for episode, length in enumerate(lengths) for frame in range(length)]
    made = merge(str(tmp_path), [keys[:100_000], keys[100_000:]], lengths)
    with storage.open_file(made.file("values.parquet")) as file:
        facts = pq.read_metadata(file)
    assert [facts.row_group(group).num_rows for group in range(facts.num_row_groups)] == [131_072, 8_931]
    values = made.table("values")
    assert list(zip(*(values.column(key).to_pylist() for key in schema.KEYS), strict=True)) == keys


@pytest.mark.parametrize(
    ("cut", "problem", "where", "mend"),
    [
        ([FRAMES[:3], FRAMES[5:]], "2 of 9 frames have no prediction", "episode 1, frame 0", "every shard"),
        ([FRAMES[:7]], "2 of 9 frames have no prediction", "episode 2, frame 2", "every shard"),
        ([[]], "9 of 9 frames have no prediction", "episode 0, frame 0", "every shard"),
        ([FRAMES, FRAMES[3:5]], "2 of 9 frames were predicted more than once", "episode 1, frame 0", "each shard once"),
        # What is missing is told before what stands twice.
        ([FRAMES[:6], FRAMES[3:8]], "1 of 9 frames have no prediction", "episode 2, frame 3", "every shard"),
        ([FRAMES[:5], [*FRAMES[5:], (2, 4)]], "1 predicted frames are not in", "episode 2, frame 4", "again"),
        ([FRAMES, [(3, 0), (4, 0)]], "2 predicted frames are not in", "episode 3, frame 0", "again"),
        ([[(-1, 0), *FRAMES]], "1 predicted frames are not in", "episode -1, frame 0", "again"),
        ([[(0, -1), *FRAMES]], "1 predicted frames are not in", "episode 0, frame -1", "again"),
        # Nine rows that would be the right ones if only their number were looked at.
        ([[(0, frame) for frame in range(9)]], "6 predicted frames are not in", "episode 0, frame 3", "again"),
    ],
)
def test_the_first_wrong_frame_is_named(tmp_path, cut, problem, where, mend):
    with pytest.raises(DataError) as caught:
        merge(str(tmp_path), cut)
    assert caught.value.problem.startswith(problem)
    assert caught.value.where == f"first: {where}"
    assert mend in caught.value.mend


def test_shards_that_lie_between_one_another_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"two shards lie between one another(.|\n)*consecutive episodes"):
        merge(str(tmp_path), [[*FRAMES[:3], *FRAMES[5:]], FRAMES[3:5]])


def test_nothing_is_left_of_a_merge_that_was_refused(tmp_path):
    with pytest.raises(DataError, match="no prediction"):
        merge(str(tmp_path), [FRAMES[:3]])
    assert [path.name for path in tmp_path.rglob("values.parquet") if "merge_values" in str(path)] == []
