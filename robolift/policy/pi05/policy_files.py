"""A trained pi0.5 policy as files: openpi's weights by name, and everything else that acting needs.

``model.safetensors`` holds all weights, ``policy.json`` the specification, ``tokenizer.model`` the tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolift import storage
from robolift.data.tokenizer import Tokenizer
from robolift.labeling.prompt_formatter import PromptFormatter
from robolift.manifest import FILES_FILE
from robolift.policy import hosts
from robolift.policy.checkpoint import SPEC_FILE, WEIGHTS_FILE, TaughtSpec, read_spec
from robolift.policy.normalize import Normalizer
from robolift.policy.pi05.config import GemmaConfig, Pi05Config, SiglipConfig
from robolift.policy.pi05.tree import Params
from robolift.policy.pi05.weights import load_params, save_params

TOKENIZER_FILE = "tokenizer.model"


@dataclass(frozen=True, kw_only=True)
class Pi05Spec(TaughtSpec):
    """Everything needed to act besides weights and tokenizer; ``policy.json``.

    Attributes:
        config: Architecture; its cameras are the image keys that the policy looks through, in their order.
        camera_keys: The dataset's camera for each of these image keys.
        state: Normaliser of the states, joined.
        formatter: What :meth:`PromptFormatter.to_dict` gave.
    """

    config: Pi05Config
    camera_keys: Mapping[str, str]
    state: Normalizer
    formatter: Mapping[str, Any]

    @property
    def preset(self) -> str:
        """Name of its network's size."""
        return self.config.preset

    @property
    def cameras(self) -> tuple[str, ...]:
        """Dataset's cameras in the order of the network's image keys."""
        return tuple(self.camera_keys[key] for key in self.config.cameras)

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            **self.taught(),
            "objective": "flow",
            "preset": self.config.preset,
            "architecture": asdict(self.config),
            "cameras": list(self.cameras),
            "camera_keys": dict(self.camera_keys),
            "image_size": None,
            "state": self.state.to_dict(),
            "prompt_format": dict(self.formatter),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Pi05Spec:
        """Return what :meth:`to_dict` wrote."""
        sizes = dict(document["architecture"])
        sizes |= {name: GemmaConfig(**sizes[name]) for name in ("vlm", "expert")}
        sizes |= {"vision": SiglipConfig(**sizes["vision"]), "cameras": tuple(sizes["cameras"])}
        return cls(
            **cls.read_taught(document),
            config=Pi05Config(**sizes),
            camera_keys=document["camera_keys"],
            state=Normalizer.from_dict(document["state"]),
            formatter=document["prompt_format"],
        )


def save(folder: Path, spec: Pi05Spec, params: Params, tokenizer: bytes) -> None:
    """Write a policy that acts by itself. Every process of the job has to call it; the main one writes."""
    save_params(params, str(folder / WEIGHTS_FILE))
    if hosts.this_host().is_main:
        storage.write_bytes(str(folder / TOKENIZER_FILE), tokenizer)
        storage.write_bytes(str(folder / SPEC_FILE), storage.to_json_bytes(spec.to_dict()))


def load(uri: str) -> tuple[Pi05Spec, dict[str, np.ndarray], PromptFormatter]:
    """Load a policy folder from any store: specification, tree of weights on the host, and formatter of prompts.

    Raises:
        UsageError: If SentencePiece is not installed, or no copy can be kept.
        DataError: If a file is missing, damaged or does not fit the others.
    """
    spec = read_spec(uri, Pi05Spec.from_dict)
    params = load_weights(uri, spec.config)
    tokenizer = Tokenizer.load(storage.join(uri, TOKENIZER_FILE), vocabulary=spec.config.vocabulary)
    return spec, params, PromptFormatter.from_dict(spec.formatter, tokenizer)


def load_weights(uri: str, config: Pi05Config) -> Params:
    """Return the weights of a policy folder, on the host.

    Those of a published policy are copied from a store once: the next load finds the copy.

    Raises:
        UsageError: If no copy can be kept.
        DataError: If they are missing, damaged or another network's.
    """
    return load_params(storage.join(uri, WEIGHTS_FILE), config, sha256=_published_sha256(uri))


def _published_sha256(uri: str) -> str:
    """Return the digest of the weights, by which a copy is found again; empty where none is made or none is known."""
    listing = storage.join(uri, FILES_FILE)
    if storage.local_path(uri) is not None or not storage.exists(listing):
        return ""
    return str(storage.read_json(listing).get(WEIGHTS_FILE, {}).get("sha256", ""))
