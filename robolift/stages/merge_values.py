"""Put the shards of predicted values together: one table that shows nothing of how it was cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from robolift import schema, storage
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.manifest import Manifest, Output
from robolift.memory import keep_freed_blocks
from robolift.schema import Kind
from robolift.stages.shards import input_identity as input_identity
from robolift.stages.shards import uncut
from robolift.stages.stage import Input, Inputs, StageConfig
from robolift.table_files import TableReader
from robolift.value_model import features

INPUTS = {"shards": Input(kind=Kind.VALUE_SHARD, many=True), "dataset": Input(kind=Kind.DATASET)}
OUTPUT = Kind.VALUES


class Config(StageConfig):
    """Nothing to set."""


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Check that the shards are one prediction of the whole dataset and write them as one."""
    keep_freed_blocks()
    shards = inputs["shards"]
    dataset = Dataset.open(inputs.one("dataset"))
    check_origin(shards, inputs.one("dataset"))
    ordered = in_order(shards)
    row = 0
    with output.open_table("values") as merged:
        for shard in ordered:
            with TableReader(shard.uri, "values") as values:
                for _, rows in values.blocks():
                    if not _follow(rows, dataset, row):
                        raise _difference(ordered, dataset)
                    merged.add(rows)
                    row += rows.num_rows
    if row < dataset.num_frames:
        raise _difference(ordered, dataset)
    # One checkpoint and one configuration: either every shard has features or none has.
    with_features = [shard.file(features.FEATURES_FILE) for shard in ordered]
    if with_features and storage.exists(with_features[0]):
        features.merge(with_features, output.path / features.FEATURES_FILE)
    return {"episodes": dataset.num_episodes, "frames": dataset.num_frames}


def in_order(shards: Sequence[Manifest]) -> list[Manifest]:
    """Return the shards by their first frame; one without episodes has none, and no rows to place either."""
    found = []
    for shard in shards:
        with TableReader(shard.uri, "values", schema.KEYS) as values:
            if values.num_rows:
                key = values.read(0, 1)
                found.append((tuple(key.column(name)[0].as_py() for name in schema.KEYS), shard))
    return [shard for _, shard in sorted(found, key=lambda pair: pair[0])]


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


def _follow(values: pa.Table, dataset: Dataset, row: int) -> bool:
    """Tell whether the rows are those of the dataset from ``row`` on."""
    end = row + values.num_rows
    if end > dataset.num_frames:
        return False
    keys = dataset.keys(row, end)
    return all(np.array_equal(values.column(name).to_numpy(), keys[name]) for name in schema.KEYS)


def _difference(shards: Sequence[Manifest], dataset: Dataset) -> DataError:
    """Return what is wrong with shards that are not the frames of the dataset in order, after reading their keys."""
    count = np.zeros(dataset.num_frames, np.uint8)
    foreign = 0
    first: list[int] = []
    for shard in shards:
        with TableReader(shard.uri, "values", schema.KEYS) as values:
            for _, keys in values.blocks():
                episode, frame = (keys.column(name).to_numpy() for name in schema.KEYS)
                inside = (episode >= 0) & (episode < dataset.num_episodes) & (frame >= 0)
                row = dataset.starts[episode * inside] + frame
                inside &= row < dataset.starts[episode * inside + 1]
                if not foreign and not inside.all():
                    first = [int(key[~inside][0]) for key in (episode, frame)]
                foreign += int((~inside).sum())
                count[row[inside]] += 1
    if foreign:
        return DataError(
            f"{foreign} predicted frames are not in the dataset",
            where=f"first: episode {first[0]}, frame {first[1]}",
            mend="predict this dataset's shards again",
        )
    for wrong, problem, mend in (
        (count == 0, "frames have no prediction", "give every shard, 0 to num_shards - 1"),
        (count > 1, "frames were predicted more than once", "give each shard once, all of one num_shards"),
    ):
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            owner = int(np.searchsorted(dataset.starts, at, side="right")) - 1
            return DataError(
                f"{int(wrong.sum())} of {dataset.num_frames} {problem}",
                where=f"first: episode {owner}, frame {at - int(dataset.starts[owner])}",
                mend=mend,
            )
    return DataError(
        "the episodes of two shards lie between one another",
        where=", ".join(shard.uri for shard in shards),
        expected="consecutive episodes in each shard",
        mend="predict the shards again",
    )
