"""The training state of a large network: each machine writes its own parts of the arrays while training goes on.

Orbax writes them, to a disk that all machines mount. For any other store each machine has its parts written to a disk
of its own and copies them. A state counts when ``latest.json`` names it, which is written last:

    latest.json          step, the document that was saved with the state, and a digest of the list of its files
    states/<step>/       an Orbax checkpoint: every array of the tree by its dotted path
"""

from __future__ import annotations

import contextlib
import copy
import functools
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from robolift import staging, storage
from robolift.policy import hosts
from robolift.policy.checkpoint import LATEST_FILE, damaged_state, named, refuse_others
from robolift.policy.pi05.orbax import FAILURES
from robolift.tensor_files import Spec

STATES_FOLDER = "states"
CONCURRENT_GB = 4
"""What may be read, or be under way to the disk, at once beside the arrays themselves."""
COPIED_AT_ONCE = 8
TIMEOUT_S = 21_600
"""Machines wait for one another's parts; a slow store takes its time."""


class ShardedStore:
    """The resumable state of one run; a :class:`robolift.policy.learning.Store`.

    Every process of a job makes one and calls it alike.

    Args:
        uri: Folder at any address that all machines reach.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._is_main = hosts.this_host().is_main
        self._is_copied = storage.local_path(uri) is None
        self._disk: staging.Staging | None = None
        self._checkpointer: Any = None
        self._thread = ThreadPoolExecutor(1, "training-state")
        self._finishing: Future[None] | None = None

    def tidy(self) -> None:
        """Remove what killed saves left; only for the run whose state this is."""
        if self._is_main:
            self._keep_only(self._latest().get("step"))

    def load(self, template: Any, places: Any) -> tuple[Any, dict[str, Any]] | None:
        """Return the tree of the last finished save on the devices where ``places`` wants it, and its document.

        Arrays are read into their places; those of other machines, or more than some gigabytes at once, never are.

        Returns:
            None if nothing was saved.

        Raises:
            DataError: If the state is damaged or belongs to another network.
        """
        if not (latest := self._latest()):
            return None
        step, where = latest["step"], self._address(latest["step"])
        if (listed := storage.digest_of(storage.list_files(where))) != latest["files"]:
            raise damaged_state(
                f"the list of its files has the digest {listed}, not {latest['files']}", where, self.uri
            )
        folder = self._fetch(step) if self._is_copied else self._folder(step)
        wanted = {name: ocp.ArrayRestoreArgs(sharding=place) for name, place in named(places).items()}
        arguments = ocp.args.PyTreeRestore(item=dict.fromkeys(wanted, 0), restore_args=wanted)
        try:
            found = self._orbax().metadata(folder).item_metadata.tree
            specs = {name: Spec(tuple(array.shape), np.dtype(array.dtype).name) for name, array in found.items()}
            refuse_others(template, specs, where=where)
            arrays = self._orbax().restore(folder, args=arguments)
        except FAILURES as error:
            raise damaged_state(error, where, self.uri) from error
        if self._is_copied:
            storage.remove(folder)
        leaves = [arrays[name] for name in named(template)]
        return jax.tree.unflatten(jax.tree.structure(template), leaves), latest["document"]

    def save(self, tree: Any, document: Mapping[str, Any], *, step: int) -> None:
        """Begin to write the arrays of ``tree`` after ``step``, and ``document`` (JSON); the save before is complete.

        The arrays are copied from the devices before it returns, each machine its own parts, and written afterwards.

        Raises:
            UsageError: If nothing may be written there.
        """
        self.wait()
        if jax.process_count() > 1:
            # Machines meet in a program of their own; no other may be under way, see hosts.
            jax.block_until_ready(tree)  # type: ignore[no-untyped-call]
        kept = copy.deepcopy(document)  # training goes on with it
        with storage.writable(self.uri):
            self._orbax().save(self._folder(step), args=ocp.args.PyTreeSave(named(tree)), force=True)
        self._finishing = self._thread.submit(self._finish, step, kept)

    def wait(self) -> None:
        """Wait until the last save is complete; raise what it failed with."""
        if self._finishing is not None:
            finishing, self._finishing = self._finishing, None
            with storage.writable(self.uri):
                finishing.result()

    def close(self) -> None:
        """Wait likewise, and give up what is held; a later call takes it up again."""
        try:
            self.wait()
        finally:
            if self._checkpointer is not None:
                self._checkpointer.close()
                self._checkpointer = None
            if self._disk is not None:
                self._disk.release()
                self._disk = None

    def _finish(self, step: int, document: Mapping[str, Any]) -> None:
        """Complete a save; no process goes on from it before every other sees it."""
        self._orbax().wait_until_finished()
        everyone = functools.partial(ocp.multihost.get_barrier_sync_fn(), timeout_ms=TIMEOUT_S * 1000)
        if self._is_copied:
            folder = Path(self._folder(step))
            _each(str(folder), lambda name: storage.upload(folder / name, storage.join(self._address(step), name)))
            storage.remove(str(folder))
            everyone(key=f"state {step} is copied")
        if self._is_main:
            files = storage.digest_of(storage.list_files(self._address(step)))
            latest = {"step": step, "document": document, "files": files}
            storage.write_bytes(storage.join(self.uri, LATEST_FILE), storage.to_json_bytes(latest))
            # A process of an earlier attempt that still runs must not remove what its successor just named.
            if self._latest().get("step") == step:
                self._keep_only(step)
        everyone(key=f"state {step} is saved")

    def _keep_only(self, step: int | None) -> None:
        states = storage.join(self.uri, STATES_FOLDER)
        fs, path = storage.filesystem(states)
        with contextlib.suppress(FileNotFoundError):
            for entry in fs.ls(path, detail=False):
                if (name := entry.rstrip("/").rsplit("/", 1)[-1]) != str(step):
                    storage.remove(storage.join(states, name))

    def _latest(self) -> dict[str, Any]:
        """Return what ``latest.json`` says, nothing if there is none."""
        where = storage.join(self.uri, LATEST_FILE)
        if not storage.exists(where):
            return {}
        latest = storage.read_json(where)
        if not isinstance(latest, dict) or latest.keys() != {"step", "document", "files"}:
            raise damaged_state("this is not what a network of this kind keeps", where, self.uri)
        return latest

    def _orbax(self) -> Any:
        if self._checkpointer is None:
            # Where each machine has a disk of its own, each lays out the whole folder, and their union is the state.
            machines = ocp.options.MultiprocessingOptions(primary_host=None if self._is_copied else 0)
            handler = ocp.PyTreeCheckpointHandler(
                save_concurrent_gb=CONCURRENT_GB,
                restore_concurrent_gb=CONCURRENT_GB,
                use_ocdbt=not self._is_copied,
                multiprocessing_options=machines,
            )
            # A folder that can't be made is told at once, not after Orbax's threads have waited for it.
            options = ocp.options.AsyncOptions(timeout_secs=TIMEOUT_S, create_directories_asynchronously=False)
            self._checkpointer = ocp.AsyncCheckpointer(handler, async_options=options, multiprocessing_options=machines)
        return self._checkpointer

    def _address(self, step: int) -> str:
        return storage.join(self.uri, STATES_FOLDER, str(step))

    def _folder(self, step: int) -> str:
        """Return the path at which Orbax writes a state, or reads one."""
        if not self._is_copied:
            return str(storage.local_path(self._address(step)))
        if self._disk is None:
            self._disk = staging.claim(Path(tempfile.gettempdir()), "robolift-state")
        return str(self._disk.path / str(step))

    def _fetch(self, step: int) -> str:
        """Copy a state to this machine's disk and return its folder."""
        source, target = self._address(step), Path(self._folder(step))
        fs, root = storage.filesystem(source)

        def copy_one(name: str) -> None:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(f"{root.rstrip('/')}/{name}", str(target / name))

        _each(source, copy_one)
        return str(target)


def _each(folder: str, action: Callable[[str], None]) -> None:
    """Call ``action`` with the name of each file below a folder, several at once."""
    with ThreadPoolExecutor(COPIED_AT_ONCE) as pool:
        for _ in pool.map(action, [name for name, _ in storage.list_files(folder)]):
            pass
