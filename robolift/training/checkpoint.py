"""The states of one run at any address: a folder per step, and ``latest.json``.

    latest.json                       which step to go on from, and the SHA-256 of its files
    checkpoints/<step>/
        model.safetensors             averaged weights under the model's own names, ready to load
        optimizer.safetensors         trained weights, optimizer moments and whatever else the next step needs
        metadata.json                 the step, the curves so far
        assets/                       what makes the weights usable: how the model was built and trained

Killed at any moment, a rerun finds a whole state or none. The newest state is kept, and with it those that are asked
for: they become part of the run's output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from robolift import storage
from robolift.errors import DataError

LATEST_FILE = "latest.json"
CHECKPOINTS = "checkpoints"
WEIGHTS_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
METADATA_FILE = "metadata.json"
ASSETS = "assets"


@dataclass(frozen=True, kw_only=True)
class ResumeState:
    """What a run needs to go on as if it had never stopped.

    Attributes:
        step: Optimizer steps done.
        weights: Averaged weights by name.
        tensors: Trained weights, optimizer moments and the like by name.
        document: Everything else, as JSON.
    """

    step: int
    weights: dict[str, torch.Tensor]
    tensors: dict[str, torch.Tensor]
    document: dict[str, Any]

    def groups(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return :attr:`tensors` by what stands before the first dot of their name."""
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in self.tensors.items():
            group, _, name = key.partition(".")
            groups.setdefault(group, {})[name] = tensor
        return groups


def no_assets(_: int) -> Mapping[str, Any]:
    """Return no documents."""
    return {}


@dataclass(frozen=True)
class StateStore:
    """The states of one run below ``uri``.

    Attributes:
        uri: Folder of the run's work.
        keep_every: States after a multiple of so many steps are kept; 0 keeps none but the newest.
        assets: The JSON documents by file name that are written beside the state of a step.
    """

    uri: str
    keep_every: int = 0
    assets: Callable[[int], Mapping[str, Any]] = no_assets

    def keeps(self, step: int) -> bool:
        """Tell whether the state after ``step`` is kept for the output."""
        return self.keep_every > 0 and step % self.keep_every == 0

    def save(self, state: ResumeState) -> None:
        """Write ``state``, make it the latest, then drop the one before unless it is kept."""
        previous = self._latest()
        content = {
            WEIGHTS_FILE: _pack(state.weights),
            OPTIMIZER_FILE: _pack(state.tensors),
            METADATA_FILE: storage.to_json_bytes({**state.document, "step": state.step}),
            **{f"{ASSETS}/{name}": storage.to_json_bytes(asset) for name, asset in self.assets(state.step).items()},
        }
        for name, data in content.items():
            storage.write_bytes(self._file(state.step, name), data)
        latest = {"step": state.step, "sha256": {name: _sha256(data) for name, data in content.items()}}
        storage.write_bytes(storage.join(self.uri, LATEST_FILE), storage.to_json_bytes(latest))
        if previous is not None and previous["step"] != state.step and not self.keeps(previous["step"]):
            storage.remove(self._file(previous["step"]))

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

    def copy_kept(self, folder: Path, last_step: int) -> None:
        """Copy the kept states of a run of ``last_step`` steps to ``folder``/checkpoints/<step>/."""
        if not self.keep_every:
            return
        for step in range(self.keep_every, last_step + 1, self.keep_every):
            # By name and not by listing: a process killed while it wrote may have left a half-written file beside them.
            assets = (f"{ASSETS}/{name}" for name in self.assets(step))
            for name in (WEIGHTS_FILE, OPTIMIZER_FILE, METADATA_FILE, *assets):
                with storage.as_local(self._file(step, name)) as path:
                    storage.upload(path, str(folder / CHECKPOINTS / str(step) / name))

    def _file(self, step: int, name: str = "") -> str:
        return storage.join(self.uri, CHECKPOINTS, str(step), *filter(None, [name]))

    def _read(self, latest: Mapping[str, Any]) -> ResumeState:
        content = {}
        for name, expected in latest["sha256"].items():
            uri = self._file(latest["step"], name)
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
            weights=safetensors.torch.load(content[WEIGHTS_FILE]),
            tensors=safetensors.torch.load(content[OPTIMIZER_FILE]),
            document=dict(json.loads(content[METADATA_FILE])),
        )

    def _latest(self) -> Mapping[str, Any] | None:
        uri = storage.join(self.uri, LATEST_FILE)
        return dict(storage.read_json(uri)) if storage.exists(uri) else None


def _pack(tensors: Mapping[str, torch.Tensor]) -> bytes:
    return bytes(safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
