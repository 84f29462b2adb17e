"""What the work was measured to cost: linear forms of counted things, from ``costs.json``.

``make bench ONLY=costs`` measures and writes the file: each stage on datasets of several sizes, in processes of their
own, and its requests against a server that speaks S3.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COSTS_FILE = Path(__file__).with_name("costs.json")
Form = Mapping[str, float]
"""Coefficients by what they multiply: ``start`` counts 1, ``frame`` the frames, and so on (COUNTED)."""
Counts = Mapping[str, float]

COUNTED = {
    "start": "a process: interpreter, imports, opening",
    "frame": "a frame of the dataset",
    "episode": "an episode",
    "data_file": "a Parquet file of the source",
    "video_file": "a video of the source",
    "clip": "an episode of one camera",
    "picture": "a frame of one camera",
    "pixel_h264": "a source pixel of H.264 decoded",
    "pixel_av1": "a source pixel of AV1 decoded",
    "byte_h264": "a byte of H.264 decoded",
    "byte_av1": "a byte of AV1 decoded",
    "root_h264": "the geometric mean of a camera's H.264 pixels and bytes: where bytes are many, each takes less",
    "root_av1": "the same of AV1",
    "video_byte": "a byte of the source's videos",
    "data_byte": "a byte of the source's Parquet files",
    "window_byte": "a byte that the store's client may fetch around a clip: at most 50 MiB of its video's file",
    "page": "a further answer of a listing, which names a thousand files",
    "packed_byte": "a byte of packed pictures that are looked at",
    "shard": "a shard that is merged",
    "step": "an optimizer step",
    "row": "a row of a training's batch",
}


def evaluate(form: Form, counts: Counts) -> float:
    """Return the sum of coefficients times counts; what is not counted here counts 0."""
    return sum(coefficient * counts.get(name, 0.0) for name, coefficient in form.items())


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What one process of a stage costs.

    Attributes:
        cpu_s: CPU seconds, user and system.
        memory_bytes: Greatest resident memory.
        written_bytes: Of its output.
        requests: Of an object store, by operation.
        read_bytes: That the store sends.
    """

    cpu_s: Form
    memory_bytes: Form
    written_bytes: Form
    requests: Mapping[str, Form]
    read_bytes: Form


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Everything that was measured.

    Attributes:
        measured: Machine, versions and date.
        decoding: CPU seconds of decoding pictures and scaling them down.
        reading: CPU seconds of reading pictures from a frame cache, in random order.
        stages: By name.
    """

    measured: Mapping[str, Any]
    decoding: Form
    reading: Form
    stages: Mapping[str, StageCost]


@functools.cache
def load(path: Path = COSTS_FILE) -> Costs:
    """Read the measured costs."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return Costs(
        measured=document["measured"],
        decoding=document["decoding"],
        reading=document["reading"],
        stages={name: StageCost(**cost) for name, cost in document["stages"].items()},
    )
