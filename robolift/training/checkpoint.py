"""Resumable training state at any address: a folder per step, then ``latest.json``.

Killed at any moment, a rerun finds a whole state or none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch

from robolift import storage
from robolift.errors import DataError

LATEST_FILE = "latest.json"
TENSORS_FILE = "state.safetensors"
DOCUMENT_FILE = "state.json"


@dataclass(frozen=True, kw_only=True)
class ResumeState:
    """What a run needs to go on as if it had never stopped.

    Attributes:
        step: Optimizer steps done.
        tensors: Weights, averages and optimizer moments by name.
        document: Everything else, as JSON.
    """

    step: int
    tensors: dict[str, torch.Tensor]
    document: dict[str, Any]


@dataclass(frozen=True)
class StateStore:
    """The states of one run below ``uri``; the newest is kept, older ones are removed."""

    uri: str

    def save(self, state: ResumeState) -> None:
        """Write ``state``, make it the latest, then drop the one before."""
        previous = self._latest()
        folder = f"step-{state.step:08d}"
        content = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in state.tensors.items()})
        document = storage.to_json_bytes(state.document)
        storage.write_bytes(storage.join(self.uri, folder, TENSORS_FILE), content)
        storage.write_bytes(storage.join(self.uri, folder, DOCUMENT_FILE), document)
        latest = {
            "step": state.step,
            "folder": folder,
            "sha256": {TENSORS_FILE: _sha256(content), DOCUMENT_FILE: _sha256(document)},
        }
        storage.write_bytes(storage.join(self.uri, LATEST_FILE), storage.to_json_bytes(latest))
        if previous is not None and previous["folder"] != folder:
            storage.remove(storage.join(self.uri, previous["folder"]))

    def load(self) -> ResumeState | None:
        """Return the latest state, None when the run has not saved one.

        Raises:
            DataError: If the state that ``latest.json`` names is damaged.
        """
        while (latest := self._latest()) is not None:
            try:
                return self._read(latest)
            except DataError:
                # A dying process of an earlier attempt may have replaced the state while it was read.
                if self._latest() == latest:
                    raise
        return None

    def _read(self, latest: Mapping[str, Any]) -> ResumeState:
        content = {}
        for name, expected in latest["sha256"].items():
            uri = storage.join(self.uri, latest["folder"], name)
            content[name] = storage.read_bytes(uri)
            if _sha256(content[name]) != expected:
                raise DataError(
                    "the saved training state is damaged",
                    where=uri,
                    expected=f"sha256 {expected}",
                    mend=f"delete {self.uri} to train from the start",
                )
        return ResumeState(
            step=int(latest["step"]),
            tensors=safetensors.torch.load(content[TENSORS_FILE]),
            document=dict(json.loads(content[DOCUMENT_FILE])),
        )

    def _latest(self) -> Mapping[str, Any] | None:
        uri = storage.join(self.uri, LATEST_FILE)
        return dict(storage.read_json(uri)) if storage.exists(uri) else None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
