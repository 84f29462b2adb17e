"""Checks made before a run spends anything, and the choice of where an iteration's episodes come from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from robolift import manifest, storage
from robolift.errors import DataError, UsageError
from robolift.schema import Kind
from robolift.stages.stage import parse_config

MAX_SHARDS = 64
"""Each shard is three pods on a cluster; more of them only wait for one another."""


def check_run(
    *,
    output_root: str,
    stages: Mapping[str, Any],
    iteration: int,
    source_uris: Sequence[str],
    baselines: Sequence[str],
) -> str:
    """Check every stage's configuration, the baselines and that the output root can be written.

    Args:
        output_root: Where the run's outputs go.
        stages: Stage configurations by stage name.
        iteration: Number of this iteration, from 1.
        source_uris: Datasets by iteration; a missing or empty entry means the simulator.
        baselines: Policy variants trained beside the advantage-conditioned one.

    Returns:
        The dataset of this iteration, empty when the simulator records it.

    Raises:
        UsageError: Naming the parameter that is wrong.
    """
    for name, config in stages.items():
        parse_config(name, config)
    if not baselines:
        raise UsageError("baselines is empty; a result says little without one, give at least [plain]")
    for variant in baselines:
        parse_config("train_policy", {**stages.get("train_policy", {}), "variant": variant})
    probe_writable(output_root)
    return source_uris[int(iteration) - 1] if len(source_uris) >= iteration else ""


def plan_shards(dataset_uri: str, *, num_shards: int) -> list[int]:
    """Return the shard numbers for a dataset: no more than its episodes, never none.

    Raises:
        UsageError: If ``num_shards`` is out of range.
    """
    if not 1 <= num_shards <= MAX_SHARDS:
        raise UsageError(f"num_shards is {int(num_shards)}, expected 1 to {MAX_SHARDS}")
    episodes = manifest.load(dataset_uri).counts["episodes"]
    return list(range(max(1, min(int(num_shards), episodes))))


def probe_writable(output_root: str) -> None:
    """Write, read back and delete a small file below ``output_root``.

    Raises:
        UsageError: If that fails; the message names the root and the cause.
    """
    probe = storage.join(storage.normalize(output_root), f".probe-{os.getpid()}")
    try:
        storage.write_bytes(probe, b"robolift")
        readable = storage.read_bytes(probe) == b"robolift"
        storage.remove(probe)
    except Exception as error:  # any store's own error type
        raise UsageError(f"output_root {output_root} can't be written: {error}") from error
    if not readable:
        raise UsageError(f"output_root {output_root} does not give back what was written")


def check_source(dataset_uri: str) -> str:
    """Return ``dataset_uri`` if a LeRobot dataset lies there.

    Raises:
        DataError: If there is no ``meta/info.json``.
    """
    exported = storage.join(dataset_uri, "dataset")
    if not any(storage.exists(storage.join(uri, "meta/info.json")) for uri in (dataset_uri, exported)):
        raise DataError(
            "no LeRobot dataset",
            where=dataset_uri,
            expected="meta/info.json of a v2.1 or v3.0 dataset",
            mend="check the address and the credentials for it",
        )
    return dataset_uri


def split_source(source_uri: str) -> tuple[str, str]:
    """Return (recording, dataset_uri): a simulator's output keeps its lineage, anything else is an external dataset."""
    if storage.exists(storage.join(source_uri, manifest.MANIFEST_FILE)):
        found = manifest.load(source_uri)
        if found.kind == Kind.RECORDING:
            return source_uri, ""
        if found.kind == Kind.EXPORT:
            return "", found.file("dataset")
    return "", source_uri
