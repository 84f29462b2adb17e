"""What the stages that look at pictures share: the optional input of a frame cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robolift.errors import UsageError
from robolift.manifest import Manifest
from robolift.stages.stage import Inputs, digests


def input_identity(name: str, manifests: Sequence[Manifest]) -> Any:
    """Identify input ``frames``: by nothing where its pixels are those of the videos, which are read without it."""
    if name == "frames" and all(_is_lossless(cache) for cache in manifests):
        return None
    return digests(name, manifests)


def _is_lossless(cache: Manifest) -> bool:
    return cache.config["format"] != "jpeg" or not cache.counts["cameras"]


def given_frames(inputs: Inputs) -> Manifest | None:
    """Return the frame cache that a stage was given, None if none was.

    Raises:
        UsageError: If it is of another dataset than the stage's.
    """
    cache = inputs.get_one("frames")
    if cache is not None:
        check_origin(cache, inputs.one("dataset"), "frames")
    return cache


def check_origin(given: Manifest, dataset: Manifest, name: str) -> None:
    """Refuse an input that was made from another dataset than the stage's.

    Raises:
        UsageError: Naming the input and both datasets.
    """
    for parent in given.inputs.get("dataset", []):
        if parent.digest != dataset.digest:
            raise UsageError(
                f"input {name} was made from another dataset ({parent.uri}), expected {dataset.uri}; make it again"
            )
