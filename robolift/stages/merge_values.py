"""Put the shards of predicted values together: one table that shows nothing of how it was cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from robolift import schema, storage
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.manifest import Manifest, Output
from robolift.schema import Kind
from robolift.stages.shards import input_identity as input_identity
from robolift.stages.shards import uncut
from robolift.stages.stage import Input, Inputs, StageConfig
from robolift.value_model import features

INPUTS = {"shards": Input(kind=Kind.VALUE_SHARD, many=True), "dataset": Input(kind=Kind.DATASET)}
OUTPUT = Kind.VALUES


class Config(StageConfig):
    """Nothing to set."""


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Check that the shards are one prediction of the whole dataset and write them as one."""
    shards = inputs["shards"]
    dataset = Dataset.open(inputs.one("dataset"))
    check_origin(shards, inputs.one("dataset"))
    tables = [(shard, shard.table("values")) for shard in shards]
    # A shard without episodes has no first key; it has no rows to place either.
    found = sorted(
        ((shard, table) for shard, table in tables if table.num_rows),
        key=lambda pair: tuple(pair[1].column(key)[0].as_py() for key in schema.KEYS),
    )
    values = pa.concat_tables([table for _, table in found] or [schema.TABLES["values"].empty_table()])
    check_keys(values, dataset)
    output.write_table("values", values.combine_chunks())
    # One checkpoint and one configuration: either every shard has features or none has.
    with_features = [shard.file(features.FEATURES_FILE) for shard, _ in found]
    if with_features and storage.exists(with_features[0]):
        features.merge(with_features, output.path / features.FEATURES_FILE)
    return {"episodes": dataset.num_episodes, "frames": values.num_rows}


def check_origin(shards: Sequence[Manifest], dataset: Manifest) -> None:
    """Check that the shards are of this dataset, by one checkpoint and one configuration.

    Raises:
        DataError: Naming the two shards that differ, or the shard of another dataset.
    """
    first = shards[0]
    for shard in shards:
        if shard.inputs["dataset"][0].digest != dataset.digest:
            raise DataError(
                "a shard was predicted from another dataset",
                where=shard.uri,
                expected=f"dataset {dataset.uri}",
                mend="predict this dataset's shards again",
            )
        if shard.inputs["checkpoint"][0].digest != first.inputs["checkpoint"][0].digest:
            raise DataError(
                "shards were predicted by different checkpoints",
                where=f"{first.uri} by {first.inputs['checkpoint'][0].uri}",
                expected=f"the same for {shard.uri}, which is by {shard.inputs['checkpoint'][0].uri}",
                mend="predict all shards with one checkpoint",
            )
        if uncut(shard) != uncut(first):
            raise DataError(
                "shards were predicted with different configurations",
                where=f"{first.uri}: {uncut(first)}",
                expected=f"the same for {shard.uri}, which has {uncut(shard)}",
                mend="predict all shards with one configuration",
            )


def check_keys(values: pa.Table, dataset: Dataset) -> None:
    """Check that the rows are exactly the frames of the dataset.

    Raises:
        DataError: Naming the first frame that is missing, predicted twice, or not of this dataset.
    """
    episode = values.column("episode_index").to_numpy()
    inside = (episode >= 0) & (episode < dataset.num_episodes)
    row = np.full(len(episode), -1, np.int64)
    row[inside] = dataset.starts[episode[inside]] + values.column("frame_index").to_numpy()[inside]
    foreign = ~inside | (row >= dataset.starts[np.minimum(np.maximum(episode, 0), dataset.num_episodes - 1) + 1])
    if foreign.any():
        at = int(np.flatnonzero(foreign)[0])
        raise DataError(
            f"{int(foreign.sum())} predicted frames are not in the dataset",
            where=f"first: episode {episode[at]}, frame {values.column('frame_index')[at].as_py()}",
            mend="predict this dataset's shards again",
        )
    count = np.bincount(row, minlength=dataset.num_frames)
    for wrong, problem, mend in (
        (count == 0, "frames have no prediction", "give every shard, 0 to num_shards - 1"),
        (count > 1, "frames were predicted more than once", "give each shard once, all of one num_shards"),
    ):
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            owner = int(np.searchsorted(dataset.starts, at, side="right")) - 1
            raise DataError(
                f"{int(wrong.sum())} of {dataset.num_frames} {problem}",
                where=f"first: episode {owner}, frame {at - int(dataset.starts[owner])}",
                mend=mend,
            )
