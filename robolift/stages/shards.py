"""What the shards of one work have in common, whatever they were cut into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robolift import storage
from robolift.manifest import Manifest
from robolift.stages.stage import digests

CUT = frozenset({"shard", "num_shards"})


def input_identity(name: str, manifests: Sequence[Manifest]) -> Any:
    """Identify a whole set of ``shards`` by what made them, however they were cut: what they hold together is the same.

    For a stage that takes such a set, under the name this module gives it.
    """
    return identity_of_set(name, manifests, origin) if name == "shards" else digests(name, manifests)


def identity_of_set(name: str, shards: Sequence[Manifest], made_by: Callable[[Manifest], Mapping[str, Any]]) -> Any:
    """Identify shards by what made them, which ``made_by`` tells, if they are one whole set; else by each digest."""
    origins = {storage.digest_of(made_by(shard)) for shard in shards}
    return origins.pop() if len(origins) == 1 and not missing_shards(shards) else digests(name, shards)


def origin(shard: Manifest) -> dict[str, Any]:
    """Return what made a shard, but for the cut."""
    return {
        "inputs": {name: [parent.digest for parent in parents] for name, parents in shard.inputs.items()},
        "config": uncut(shard),
        "code": shard.code,
        "schema": shard.schema_version,
    }


def uncut(shard: Manifest) -> dict[str, object]:
    """Return the configuration that all shards of one work share."""
    return {key: value for key, value in shard.config.items() if key not in CUT}


def missing_shards(shards: Sequence[Manifest]) -> str:
    """Return what keeps these shards from being each of one cut, once; empty if they are."""
    num_shards = int(shards[0].config["num_shards"])
    cuts = sorted((int(shard.config["num_shards"]), int(shard.config["shard"])) for shard in shards)
    whole = [(num_shards, shard) for shard in range(num_shards)]
    if cuts == whole:
        return ""
    lacking = [str(shard) for number, shard in whole if (number, shard) not in cuts]
    found = ", ".join(f"{shard} of {number}" for number, shard in cuts)
    return f"given are {found}" + (f"; missing: {', '.join(lacking)}" if lacking else "")
