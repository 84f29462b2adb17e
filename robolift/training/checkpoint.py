"""The states of one run at any address: a folder per step, and ``latest.json``.

    latest.json                       which step to go on from, and the SHA-256 of its files
    checkpoints/<step>/
        model.safetensors             averaged weights under the model's own names, ready to load
        optimizer.safetensors         trained weights, optimizer moments and whatever else the next step needs
        metadata.json                 the step, the curves so far
        assets/                       what makes the weights usable: how the model was built and trained

Killed at any moment, a rerun finds a whole state or none. The newest state is kept, and with it those that are asked
for: they become part of the run's output.

Weights are written and read one tensor at a time: of a large model not even one copy fits beside the others.
"""

from __future__ import annotations

import errno
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robolift import staging, storage
from robolift.errors import DataError, UsageError
from robolift.tensor_files import Spec, TensorFile, writing
from robolift.training.distributed import ALONE, World
from robolift.training.sharding import Piece, full

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
        frozen: Names of the weights that training leaves as they are.
    """

    step: int
    weights: Mapping[str, torch.Tensor | Piece]
    tensors: Mapping[str, torch.Tensor | Piece]
    document: dict[str, Any]
    frozen: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """A state whose files are open for reading.

    Attributes:
        step: Optimizer steps done.
        document: Everything but tensors, as JSON.
        weights: Averaged weights by name.
        tensors: Trained weights, optimizer moments and the like by ``group.name``.
    """

    step: int
    document: dict[str, Any]
    weights: TensorFile
    tensors: TensorFile

    def weight(self, name: str) -> torch.Tensor:
        """Return one of the averaged weights."""
        return torch.from_numpy(self.weights.read(name))

    def tensor(self, group: str, name: str) -> torch.Tensor:
        """Return one of the other tensors."""
        return torch.from_numpy(self.tensors.read(f"{group}.{name}"))

    def group(self, group: str) -> list[str]:
        """Return the names in a group."""
        return [name.removeprefix(f"{group}.") for name in self.tensors.specs if name.startswith(f"{group}.")]


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

    def save(self, state: ResumeState, world: World = ALONE) -> None:
        """Write ``state``, make it the latest, then drop the one before unless it is kept.

        Rank 0 writes; every process has to call it where tensors are dealt out.
        """
        files = {WEIGHTS_FILE: state.weights, OPTIMIZER_FILE: state.tensors}
        sums = {name: write_tensors(self._file(state.step, name), of, world) for name, of in files.items()}
        if not world.is_main:
            return
        previous = self._latest()
        content = {
            METADATA_FILE: storage.to_json_bytes({**state.document, "step": state.step}),
            **{f"{ASSETS}/{name}": storage.to_json_bytes(asset) for name, asset in self.assets(state.step).items()},
        }
        for name, data in content.items():
            storage.write_bytes(self._file(state.step, name), data)
            sums[name] = hashlib.sha256(data).hexdigest()
        latest = {"step": state.step, "sha256": sums}
        storage.write_bytes(storage.join(self.uri, LATEST_FILE), storage.to_json_bytes(latest))
        if previous is not None and previous["step"] != state.step and not self.keeps(previous["step"]):
            storage.remove(self._file(previous["step"]))

    @contextmanager
    def opened(self) -> Iterator[SavedState | None]:
        """Give the latest state, None when the run has not saved one.

        Raises:
            DataError: If the state that ``latest.json`` names is damaged.
        """
        with ExitStack() as copies:
            yield self._open(copies)

    def _open(self, copies: ExitStack) -> SavedState | None:
        while (latest := self._latest()) is not None:
            try:
                return self._read(latest, copies)
            except (DataError, FileNotFoundError):
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

    def _read(self, latest: Mapping[str, Any], copies: ExitStack) -> SavedState:
        files = {}
        for name, expected in latest["sha256"].items():
            uri = self._file(latest["step"], name)
            files[name] = copies.enter_context(storage.as_local(uri))
            if not files[name].exists() or storage.sha256_file(files[name]) != expected:
                raise DataError(
                    "the saved training state is damaged",
                    where=uri,
                    expected=f"sha256 {expected}",
                    mend=f"delete {self.uri} to train from the start",
                )
        weights, tensors = (TensorFile(files[name], where=self.uri) for name in (WEIGHTS_FILE, OPTIMIZER_FILE))
        document = dict(storage.read_json(str(files[METADATA_FILE])))
        return SavedState(step=int(latest["step"]), document=document, weights=weights, tensors=tensors)

    def _latest(self) -> Mapping[str, Any] | None:
        uri = storage.join(self.uri, LATEST_FILE)
        return dict(storage.read_json(uri)) if storage.exists(uri) else None


def write_tensors(uri: str, tensors: Mapping[str, torch.Tensor | Piece], world: World) -> str:
    """Write a safetensors file, one tensor at a time in the memory of rank 0.

    Args:
        uri: Where it goes.
        tensors: By name; every process has to call it where they are dealt out.
        world: This process among the others.

    Returns:
        The file's SHA-256, nothing in other processes than rank 0.

    Raises:
        UsageError: If the disk is full, or nothing may be written there.
    """
    if not world.is_main:
        for tensor in tensors.values():
            full(tensor, world)
        return ""
    if (path := storage.local_path(uri)) is not None:
        return _write_file(path, tensors, world)
    # What a killed process left of such a folder is removed when the next is claimed.
    private = staging.claim(Path(tempfile.gettempdir()), "robolift-state")
    try:
        digest = _write_file(private.path / WEIGHTS_FILE, tensors, world)
        with storage.writable(uri):
            storage.upload(private.path / WEIGHTS_FILE, uri)
    finally:
        private.release()
    return digest


def _write_file(path: Path, tensors: Mapping[str, torch.Tensor | Piece], world: World) -> str:
    try:
        with writing(str(path), {name: _spec(tensor) for name, tensor in tensors.items()}) as write:
            for name, tensor in tensors.items():
                write(name, full(tensor, world).numpy())
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UsageError(f"no room is left for {path.name} in {path.parent}; free some, or set TMPDIR") from error
    return storage.sha256_file(path)


def _spec(tensor: torch.Tensor | Piece) -> Spec:
    return Spec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
