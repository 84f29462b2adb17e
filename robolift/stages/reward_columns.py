"""The rewards table as arrays of numbers, where NaN is what null is in the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.data.same_frames import check_keys
from robolift.labeling.returns import BoolArray, Float64Array, FloatArray, IntArray
from robolift.manifest import Manifest, Output
from robolift.stages.label_sources import check_origin, strings


def source_code(name: str) -> int:
    """Return the position of a source in REWARD_SOURCES."""
    return schema.REWARD_SOURCES.index(name)


def open_rewards(made: Manifest, dataset: Dataset, imported: Manifest, name: str) -> pa.Table:
    """Read a rewards table.

    Args:
        made: The output that holds it.
        dataset: The dataset it must be about.
        imported: The manifest of that dataset.
        name: What the table is called in a complaint.

    Raises:
        DataError: If it was made from another dataset, or has other frames.
    """
    check_origin(made, imported, name)
    table = made.table("rewards")
    check_keys(table, dataset, where=made.file("rewards.parquet"))
    return table


def numbers(table: pa.Table, name: str) -> Float64Array:
    """Return a column as numbers, (F,) float64, NaN where it is null."""
    return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), dtype=np.float64)


def spoken(table: pa.Table) -> BoolArray:
    """Return the rows about which somebody said something, (F,)."""
    import pyarrow.compute as pc  # noqa: PLC0415

    return np.asarray(pc.not_equal(table.column("source"), "none").to_numpy(), dtype=np.bool_)


def write_rewards(
    output: Output, dataset: Dataset, *, source: IntArray, anchor: BoolArray, known: Mapping[str, FloatArray]
) -> None:
    """Write ``rewards.parquet``, a row for every frame.

    Args:
        output: Where to.
        dataset: Its frames give the keys.
        source: Who said each row, a position in REWARD_SOURCES, (F,).
        anchor: Rows about which somebody was really asked, (F,).
        known: The other columns that say something, (F,) each, NaN where nothing; those left out are null.
    """
    output.write_table("rewards", reward_rows(dataset.keys(0, dataset.num_frames), source, anchor, known))


def reward_rows(
    keys: Mapping[str, IntArray], source: IntArray, anchor: BoolArray, known: Mapping[str, FloatArray]
) -> dict[str, Any]:
    """Return the columns of some rows of the rewards table, (n,) each, from what :func:`write_rewards` takes."""
    columns = {**keys, "source": strings(source, schema.REWARD_SOURCES), "anchor": anchor}
    for field in schema.TABLES["rewards"]:
        if field.name not in columns:
            values = known.get(field.name, np.full(len(anchor), np.nan))
            # Arrow takes no fractions for whole numbers, so float32 is rounded to here and integers are cast.
            columns[field.name] = pa.array(values, mask=np.isnan(values)).cast(field.type, safe=False)
    return columns
