"""The automatic labeller, resolved: which model is asked what, with which pictures; what plan and shards share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from robolift.errors import DataError

OPENAI, HF, NOBODY = "openai", "hf", "none"
WHOLE, CAUSAL_PREFIX = "whole", "causal_prefix"


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """Everything that decides what a model is asked about an episode.

    Attributes:
        protocol: Name in :data:`robolift.annotators.protocols.PROTOCOLS`; ``none`` where nobody is asked.
        protocol_version: Version of the protocol's questions.
        transport: ``openai`` (a server), ``hf`` (a model in this process) or ``none``.
        model: Name at the server, or address of the model's folder.
        model_digest: Digest of the model's files; empty for a server's, which can't be seen.
        prompt_sha256: Digest of the prompt file.
        cameras: Cameras shown at each moment, in this order.
        sampling: ``whole`` or ``causal_prefix``.
        max_frames: Moments shown at once.
        num_prefixes: Growing parts of the episode asked about, where that is what the protocol does.
        image_side: Longest side of a picture, in pixels.
        dtype: Numbers in which the model computes; empty for a server's.
        seed: Order in which frames are shuffled.
    """

    protocol: str
    protocol_version: str
    transport: str
    model: str
    model_digest: str
    prompt_sha256: str
    cameras: tuple[str, ...]
    sampling: str
    max_frames: int
    num_prefixes: int
    image_side: int
    dtype: str
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document, as ``plan.json`` has it."""
        return {**asdict(self), "cameras": list(self.cameras)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, where: str) -> Labeller:
        """Rebuild a labeller.

        Raises:
            DataError: If ``document`` is none.
        """
        try:
            return cls(**{**document, "cameras": tuple(document["cameras"])})
        except (TypeError, KeyError) as error:
            raise DataError(f"not a labeller: {error}", where=where, mend="run plan_labels again") from error

    def who(self) -> dict[str, Any]:
        """Return what decides an answer besides words, moments and pictures, which stand for themselves.

        Where a model's folder lies does not: its digest says what it is. The seed shows in the order of the moments.
        """
        if self.transport == HF:
            model = {"model_digest": self.model_digest, "dtype": self.dtype}
        else:
            model = {"model": self.model}
        return {
            "protocol": self.protocol,
            "protocol_version": self.protocol_version,
            "transport": self.transport,
            "prompt_sha256": self.prompt_sha256,
            **model,
        }
