"""States written while training goes on: what stops it is one copy to the host's memory, at the speed of memory.

A thread writes the copy and publishes it. At most one state is under way; what a write failed with is raised at the
next save, or at the end. Killed at any moment, the last state that was published is there whole.

Pieces of tensors that are dealt out are copied by the process that has them and put together by these threads, over
connections of their own: their messages never come between those of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, cast

import torch
import torch.distributed as dist

from robolift.errors import UsageError
from robolift.logging import get_logger
from robolift.training.checkpoint import ResumeState, StateStore
from robolift.training.distributed import World, connections
from robolift.training.sharding import Piece, is_sharded, local


class StateWriter:
    """Saves the states of a run to ``store``; a context, at whose end all that was saved is written.

    Args:
        store: Where states go.
        world: This process; those that hold pieces of tensors make a writer and call it alike.
        background: Whether to write while training goes on. The host then holds a copy of all that is trained, its
            averages and moments; otherwise a save returns when the state is written, one tensor at a time.
        sharded: Whether tensors are dealt out over the processes.
    """

    def __init__(self, store: StateStore, world: World, *, background: bool, sharded: bool) -> None:
        self.store, self.world = store, world
        self._copies = HostCopies(connections() if sharded else None) if background else None
        self._thread = ThreadPoolExecutor(1, "training-state")
        self._writing: Future[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            # What ended training comes first.
            get_logger("training").warning("the last state was not written", error=str(failure))
        finally:
            self._thread.shutdown()

    def reserve(self, state: ResumeState) -> None:
        """Take the memory for states like ``state`` before training begins: then it is there, or is known to be short.

        Without this the first save takes three times as long, most of it in the kernel, which clears the pages.

        Raises:
            UsageError: If there isn't as much.
        """
        if self._copies is not None:
            self._copies.reserve(state)

    def save(self, state: ResumeState) -> None:
        """Save ``state``, whose tensors may change as soon as this returns.

        Raises:
            UsageError: If this state or the one before can't be written: a full disk, a store that refuses.
        """
        self.wait()
        if self._copies is None:
            self.store.save(state, self.world)
        else:
            self._writing = self._thread.submit(self.store.save, self._copies.of(state), self.world)

    def wait(self) -> None:
        """Wait until what was saved is written; raise what that failed with."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()


class HostCopies:
    """Copies of states in the host's memory, each in the place of the one before.

    Args:
        group: The connections over which pieces are put together, None where no tensor is dealt out.
    """

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self._group = group
        self._places: dict[tuple[str, str], torch.Tensor] = {}

    def reserve(self, state: ResumeState) -> None:
        """Take the memory for a copy of ``state`` without reading its tensors.

        Raises:
            UsageError: If there isn't as much.
        """
        for group, name, tensor, lasts in _tensors(state):
            if not lasts:
                self._place(group, name, tensor)

    def of(self, state: ResumeState) -> ResumeState:
        """Return a copy of ``state``; that of the state before is gone. What is dealt out still is."""
        found: dict[str, dict[str, torch.Tensor | Piece]] = {"weights": {}, "tensors": {}}
        for group, name, tensor, lasts in _tensors(state):
            found[group][name] = tensor if lasts else self._copy(group, name, tensor)
        return replace(state, weights=found["weights"], tensors=found["tensors"])

    def _copy(self, group: str, name: str, tensor: torch.Tensor) -> torch.Tensor | Piece:
        place = self._place(group, name, tensor)
        place.copy_(local(tensor.detach()))
        if not is_sharded(tensor):
            return place
        assert self._group is not None
        assert all(placement.is_shard(0) for placement in cast(Any, tensor).placements)
        return Piece(place, tensor.shape, self._group)

    def _place(self, group: str, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if (group, name) not in self._places:
            piece = local(tensor.detach())
            try:
                # Zeroed, because memory that was only asked for is not there yet.
                self._places[group, name] = torch.empty(piece.shape, dtype=piece.dtype).zero_()
            except RuntimeError as error:
                raise UsageError(
                    f"the host has no memory for a copy of the training state: {error}; give it more, or set "
                    "save_in_background: false"
                ) from error
        return self._places[group, name]


def _tensors(state: ResumeState) -> list[tuple[str, str, torch.Tensor, bool]]:
    """Return group, name and tensor of all that is saved, and whether training leaves it as it is.

    That is so of a frozen weight, whatever it is called: the best average holds it, too.
    """
    groups: dict[str, Mapping[str, Any]] = {"weights": state.weights, "tensors": state.tensors}
    frozen = {id(state.weights[name]) for name in state.frozen}
    return [
        (group, name, tensor, id(tensor) in frozen and not is_sharded(tensor))
        for group, found in groups.items()
        for name, tensor in found.items()
    ]
