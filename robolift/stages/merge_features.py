"""Put the shards of features together: one table that shows nothing of how it was cut."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from robolift import storage
from robolift.errors import DataError
from robolift.manifest import Manifest, Output
from robolift.schema import Kind, read_parquet
from robolift.stages.shards import identity_of_set, origin, uncut
from robolift.stages.stage import Input, Inputs, StageConfig, digests

INPUTS = {"shards": Input(kind=Kind.FEATURE_SHARD, many=True), "clips": Input(kind=Kind.CLIPS)}
OUTPUT = Kind.FEATURES
FACTS_FILE = "features.json"


class Config(StageConfig):
    """Nothing to set."""


def input_identity(name: str, manifests: Sequence[Manifest]) -> Any:
    """Identify a whole set of shards by what measured them, however they were cut: the merged features are the same."""
    return identity_of_set(name, manifests, _origin) if name == "shards" else digests(name, manifests)


def _origin(shard: Manifest) -> dict[str, Any]:
    # The configuration holds addresses of models; the facts tell what lay there.
    return {**origin(shard), "facts": storage.read_json(shard.file(FACTS_FILE))}


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Check that the shards are one measurement of all clips and write them as one."""
    from robolift.clips import feature_tables  # noqa: PLC0415  (OpenCV)

    shards, clips = inputs["shards"], inputs.one("clips")
    check_origin(shards, clips)
    tables = feature_tables.merge([feature_tables.read(shard.uri) for shard in shards])
    features = tables[feature_tables.FEATURES]
    check_clips(features.column("clip_id"), read_parquet(clips.file("clips.parquet"), columns=["clip_id"])["clip_id"])
    feature_tables.write(output.path, tables)
    output.write_json(feature_tables.FACTS_FILE, storage.read_json(shards[0].file(FACTS_FILE)))
    for name in features.column_names:
        if pa.types.is_floating(features.schema.field(name).type):
            output.metrics[f"{name}_mean"] = pc.mean(features[name]).as_py()
            output.metrics[f"{name}_missing"] = features[name].null_count
    return {"clips": features.num_rows, "frames": tables[feature_tables.FRAMES].num_rows}


def check_origin(shards: Sequence[Manifest], clips: Manifest) -> None:
    """Check that the shards are of these clips, by one configuration and the same models and extractors.

    Raises:
        DataError: Naming the two shards that differ, or the shard of other clips.
    """
    first = shards[0]
    facts = storage.read_json(first.file(FACTS_FILE))
    for shard in shards:
        if shard.inputs["clips"][0].digest != clips.digest:
            raise DataError(
                "a shard was measured on other clips",
                where=shard.uri,
                expected=f"clips {clips.uri}",
                mend="measure these clips' shards again",
            )
        found = storage.read_json(shard.file(FACTS_FILE))
        for what, mine, others in (
            ("with different configurations", uncut(shard), uncut(first)),
            ("by different models or extractors", found, facts),
            ("by different code", shard.code, first.code),
        ):
            if mine != others:
                raise DataError(
                    f"shards were measured {what}",
                    where=f"{first.uri}: {others}",
                    expected=f"the same for {shard.uri}, which has {mine}",
                    mend="measure all shards alike",
                )


def check_clips(measured: pa.ChunkedArray, clips: pa.ChunkedArray) -> None:
    """Check that each clip was measured exactly once.

    Args:
        measured: Names in the merged table.
        clips: Names in the ClipSet.

    Raises:
        DataError: Naming the first clip that is missing, measured twice, or not of this set.
    """
    wanted = set(clips.to_pylist())
    found = measured.to_pylist()
    twice = sorted({name for name, after in itertools.pairwise(found) if name == after})
    for wrong, problem, mend in (
        (sorted(set(found) - wanted), "measured clips are not in the clips", "measure these clips' shards again"),
        (sorted(wanted - set(found)), "clips have no features", "give every shard, 0 to num_shards - 1"),
        (twice, "clips were measured more than once", "give each shard once, all of one num_shards"),
    ):
        if wrong:
            raise DataError(f"{len(wrong)} of {len(wanted)} {problem}", where=f"first: {wrong[0]}", mend=mend)
