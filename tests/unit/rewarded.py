"""Publishes tables of rewards for tests, a column at a time; what is not given is null."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labelled import publish

from robolift import schema
from robolift.manifest import Manifest
from robolift.schema import Kind


def publish_rewards(
    root: str,
    dataset: Manifest,
    *,
    maker: str = "merge_rewards",
    config: Mapping[str, Any] | None = None,
    **columns: Any,
) -> Manifest:
    """Publish a RewardSet of a dataset; ``columns`` are lists of F values, None where not known."""
    frames = dataset.table("frames")
    count = frames.num_rows
    table = {
        **{name: frames.column(name).to_pylist() for name in schema.KEYS},
        **{field.name: [None] * count for field in schema.REWARDS if field.name not in schema.KEYS},
        "anchor": [True] * count,
        "source": ["vlm"] * count,
        **columns,
    }
    return publish(
        root, maker, Kind.REWARDS, tables={"rewards": table}, inputs={"dataset": [dataset]}, config=dict(config or {})
    )
