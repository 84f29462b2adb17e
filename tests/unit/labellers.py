"""A labeller for tests, and answers to hand to a protocol."""

from __future__ import annotations

from typing import Any

from robolift.annotators.labeller import Labeller


def labeller(protocol: str = "logprob", **changes: Any) -> Labeller:
    settings: dict[str, Any] = {
        "protocol": protocol,
        "protocol_version": "v1",
        "transport": "openai",
        "model": "fake-vlm",
        "model_digest": "",
        "prompt_sha256": "0" * 64,
        "cameras": ("observation.images.topview",),
        "sampling": "whole",
        "max_frames": 4,
        "num_prefixes": 5,
        "image_side": 448,
        "dtype": "",
        "seed": 0,
    }
    return Labeller(**{**settings, **changes})
