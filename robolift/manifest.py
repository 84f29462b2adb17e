"""What a finished output says about itself, and the folder it is published in.

An output is a folder ``<root>/<stage>/<digest>/`` with its files, ``files.json`` (their sizes and hashes) and, last,
``manifest.json``. No manifest means not finished. The digest covers configuration, inputs and code, so the same work
is never done twice, and nothing in the folder depends on when or where it was done.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robolift import schema, staging, storage
from robolift.errors import DataError, UsageError
from robolift.json_numbers import finite
from robolift.table_files import TableWriter

MANIFEST_FILE = "manifest.json"
FILES_FILE = "files.json"
METRICS_FILE = "metrics.json"
MAX_MANIFEST_BYTES = 4096
RESERVED_BYTES = 640
"""Room for what is not known before the work is done: counts and the digest of the files."""


@dataclass(frozen=True, kw_only=True)
class Parent:
    """One input of an output: where it lay and what it was."""

    uri: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The record of one finished output; at most 4 KB as JSON.

    Attributes:
        kind: What the folder holds, a value of :class:`robolift.schema.Kind`.
        stage: Stage that made it.
        uri: The folder.
        digest: Identity: hash of configuration, input digests and code.
        config: The configuration, every field resolved.
        inputs: For each input name its parents, in order.
        counts: Rows, episodes, frames and the like.
        files: ``digest`` of files.json, ``count`` and ``bytes``.
        code: Digest of the stage's source.
        image: Container image it ran in, empty outside a container.
    """

    kind: str
    stage: str
    uri: str
    digest: str
    config: dict[str, Any]
    inputs: dict[str, list[Parent]]
    counts: dict[str, int]
    files: dict[str, Any]
    code: str
    seed: int | None = None
    image: str = ""
    schema_version: str = schema.SCHEMA_VERSION

    def to_bytes(self) -> bytes:
        """Return canonical JSON.

        Raises:
            UsageError: If it is over 4 KB; a manifest travels through the pipeline's database, data does not.
        """
        packed = {name: _pack(parents) for name, parents in self.inputs.items()}
        content = storage.to_json_bytes({**asdict(self), "inputs": packed})
        if len(content) > MAX_MANIFEST_BYTES:
            raise UsageError(
                f"the manifest of {self.stage} is {len(content)} bytes, "
                f"at most {MAX_MANIFEST_BYTES} may travel; shorten its config"
            )
        return content

    def file(self, name: str) -> str:
        """Return the address of a file of this output."""
        return storage.join(self.uri, name)

    def table(self, name: str) -> pa.Table:
        """Read a table of the contract from this output."""
        return schema.read_table(self.uri, name)

    def metrics(self) -> dict[str, Any]:
        """Return what the stage measured, empty if nothing."""
        uri = self.file(METRICS_FILE)
        return dict(storage.read_json(uri)) if storage.exists(uri) else {}

    def parents(self, name: str, most: int | None = None) -> list[Manifest]:
        """Load the manifests of input ``name``, the first ``most`` of them; all by default."""
        return [self._load_parent(parent) for parent in self.inputs.get(name, [])[:most]]

    def _load_parent(self, parent: Parent) -> Manifest:
        # An output root may have been moved whole; then the parent lies beside its child, not where it was.
        beside = storage.join(self.uri.rsplit("/", 2)[0], *parent.uri.rsplit("/", 2)[1:])
        moved = beside != parent.uri and _folder_of(parent) and storage.exists(storage.join(beside, MANIFEST_FILE))
        return load(beside if moved else parent.uri)

    def parent(self, name: str) -> Manifest:
        """Load the one manifest of input ``name``.

        Raises:
            UsageError: If this output has no or several such inputs.
        """
        found = self.parents(name)
        if len(found) != 1:
            raise UsageError(f"{self.stage} at {self.uri} has {len(found)} inputs {name!r}, expected one")
        return found[0]


def _pack(parents: list[Parent]) -> list[dict[str, Any]]:
    """Write parents that lie in one folder as the folder and their digests: sixty-four shards must fit in 4 KB."""
    packed: list[dict[str, Any]] = []
    for folder, members in itertools.groupby(parents, key=_folder_of):
        found = list(members)
        if folder is None or len(found) == 1:
            packed += [asdict(parent) for parent in found]
        else:
            packed.append({"under": folder, "digests": [parent.digest for parent in found]})
    return packed


def _folder_of(parent: Parent) -> str | None:
    folder, _, name = parent.uri.rpartition("/")
    return folder if name == parent.digest else None


def _unpack(entries: list[dict[str, Any]]) -> list[Parent]:
    parents: list[Parent] = []
    for entry in entries:
        if "under" in entry:
            parents += [Parent(uri=storage.join(entry["under"], d), digest=d) for d in entry["digests"]]
        else:
            parents.append(Parent(**entry))
    return parents


def parse(content: bytes, *, where: str) -> Manifest:
    """Parse manifest JSON.

    Raises:
        DataError: If it isn't a manifest of this schema version.
    """
    try:
        document = dict(json.loads(content))
        inputs = {name: _unpack(parents) for name, parents in document.pop("inputs").items()}
        manifest = Manifest(**document, inputs=inputs)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"not a manifest: {error}", where=where, expected="manifest.json of a finished output"
        ) from error
    if manifest.schema_version.split(".")[0] != schema.SCHEMA_VERSION.split(".")[0]:
        raise DataError(
            f"schema version {manifest.schema_version}",
            where=where,
            expected=schema.SCHEMA_VERSION,
            mend="run the stage again",
        )
    return manifest


def load(uri: str) -> Manifest:
    """Load the manifest of an output folder, or of a ``manifest.json`` or KFP artifact file given directly.

    A manifest found beside its files speaks for them wherever they were copied; a KFP artifact is a manifest alone,
    so its own address counts.

    Raises:
        DataError: If there is none: the output was never finished, or lies elsewhere.
    """
    for candidate in (storage.join(uri, MANIFEST_FILE), uri):
        if (storage.info(candidate) or {}).get("type") == "file":
            found = parse(storage.read_bytes(candidate), where=candidate)
            folder, _, name = storage.normalize(candidate).rpartition("/")
            return replace(found, uri=folder) if name == MANIFEST_FILE else found
    raise DataError(
        "no manifest: this output is not finished or lies elsewhere",
        where=uri,
        expected=MANIFEST_FILE,
        mend="run the stage that makes it",
    )


def expect(manifest: Manifest, kind: schema.Kind, *, name: str) -> Manifest:
    """Return ``manifest`` if it is of ``kind``.

    Raises:
        UsageError: If another kind was wired to input ``name``.
    """
    if manifest.kind != kind:
        raise UsageError(f"input {name} is a {manifest.kind} ({manifest.uri}), expected a {kind}")
    return manifest


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An output before it is made: its identity and its place."""

    stage: str
    kind: schema.Kind
    root: str
    config: dict[str, Any]
    inputs: dict[str, list[Manifest]]
    code: str
    digest: str
    seed: int | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    """What besides configuration, inputs and code decides the result, such as digests of files from elsewhere."""

    @property
    def uri(self) -> str:
        """The folder it will be published in."""
        return storage.join(storage.normalize(self.root), self.stage, self.digest)

    @property
    def work_uri(self) -> str:
        """Where a killed run leaves what a rerun resumes from; removed once the output is published."""
        return storage.join(storage.normalize(self.root), "_work", self.stage, self.digest)

    @property
    def profile_uri(self) -> str:
        """Where a run leaves what its profiler recorded, which is no part of the output; nothing removes it."""
        return storage.join(storage.normalize(self.root), "_profiles", self.stage, self.digest)

    @property
    def staging_place(self) -> tuple[Path, str]:
        """Folder and name under which the output is written before it is published."""
        target = storage.local_path(self.uri)
        if target is None:
            return Path(tempfile.gettempdir()), f"robolift-{self.stage}-{self.digest}"
        # Same file system as the target, so that publishing is one rename.
        return target.parent, target.name

    def finished(self) -> Manifest | None:
        """Return the manifest when the same work was done before."""
        return load(self.uri) if storage.exists(storage.join(self.uri, MANIFEST_FILE)) else None

    def sweep(self) -> None:
        """Remove what killed runs of this work left: staging folders and resumable state."""
        staging.remove_leavings(*self.staging_place)
        storage.remove(self.work_uri)

    def manifest(self, *, counts: Mapping[str, int], files: Mapping[str, Any]) -> Manifest:
        """Return the manifest of this output with the given counts and facts about its files."""
        return Manifest(
            kind=str(self.kind),
            stage=self.stage,
            uri=self.uri,
            digest=self.digest,
            config=self.config,
            inputs={n: [Parent(uri=m.uri, digest=m.digest) for m in ms] for n, ms in self.inputs.items()},
            counts={name: int(count) for name, count in counts.items()},
            files=dict(files),
            code=self.code,
            seed=self.seed,
            image=os.environ.get("ROBOLIFT_IMAGE", ""),
        )

    def check_size(self) -> None:
        """Check before the work that the manifest will fit.

        Raises:
            UsageError: If configuration and inputs leave too little of the 4 KB.
        """
        size = len(storage.to_json_bytes(self.config))
        draft = self.manifest(counts={}, files={}).to_bytes()
        if len(draft) > MAX_MANIFEST_BYTES - RESERVED_BYTES:
            raise UsageError(
                f"the manifest of {self.stage} would be over {MAX_MANIFEST_BYTES} bytes: its config takes {size}; "
                "shorten the config or name fewer inputs"
            )


@dataclass
class Output:
    """A folder being written: local, private, and visible to nobody until :meth:`publish`.

    Attributes:
        plan: What is being made.
        path: Local folder; every file put below it becomes part of the output.
        metrics: Numbers measured on the way, written to metrics.json; NaN becomes null.
    """

    plan: Plan
    path: Path = field(init=False)
    _staging: staging.Staging = field(init=False, repr=False)
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with storage.writable(self.plan.uri):
            storage.probe(self.plan.work_uri)
            self._staging = staging.claim(*self.plan.staging_place)
        self.path = self._staging.path

    def write_table(self, name: str, columns: Mapping[str, Any] | pa.Table) -> None:
        """Write ``<name>.parquet``, checked against the contract."""
        schema.write_table(self.path / f"{name}.parquet", schema.as_table(name, columns))

    def open_table(self, name: str) -> TableWriter:
        """Return a writer of ``<name>.parquet`` for rows that come in pieces; use it in a ``with`` statement."""
        return TableWriter(self.path / f"{name}.parquet", name)

    def write_json(self, name: str, document: Any) -> None:
        """Write a small JSON file."""
        storage.write_bytes(str(self.path / name), storage.to_json_bytes(finite(document)))

    def discard(self) -> None:
        """Remove the unpublished files."""
        self._staging.release()

    def publish(self, counts: Mapping[str, int]) -> Manifest:
        """Make the output visible, files first and manifest last, and remove the resumable state.

        Publishing over a finished output of the same digest keeps the finished one: it has the same bytes.
        """
        if self.metrics:
            self.write_json(METRICS_FILE, self.metrics)
        files = {str(p.relative_to(self.path)): _facts(p) for p in sorted(self.path.rglob("*")) if p.is_file()}
        listing = storage.to_json_bytes(files)
        storage.write_bytes(str(self.path / FILES_FILE), listing)
        manifest = self.plan.manifest(
            counts=counts,
            files={
                "digest": storage.digest_of(files),
                "count": len(files),
                "bytes": sum(f["bytes"] for f in files.values()),
            },
        )
        self._move([*files, FILES_FILE], manifest.to_bytes())
        self.discard()
        self.plan.sweep()
        return load(self.plan.uri)

    def _move(self, names: list[str], manifest: bytes) -> None:
        uri = self.plan.uri
        target = storage.local_path(uri)
        if target is not None:
            storage.write_bytes(str(self.path / MANIFEST_FILE), manifest)
            staging.rename_into_place(self.path, target, marker=MANIFEST_FILE)
        elif not self.plan.finished():
            for name in names:
                storage.upload(self.path / name, storage.join(uri, name))
            storage.write_bytes(storage.join(uri, MANIFEST_FILE), manifest)


def _facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"bytes": path.stat().st_size, "sha256": storage.sha256_file(path)}
    if path.suffix == ".parquet":
        facts["rows"] = pq.read_metadata(path).num_rows
    return facts


def verify(manifest: Manifest) -> None:
    """Read every file of an output and compare it with what was published.

    Raises:
        DataError: Naming the first file that is missing or changed.
    """
    listing = storage.read_json(manifest.file(FILES_FILE))
    if storage.digest_of(listing) != manifest.files["digest"]:
        raise DataError(
            "the file list was changed after publishing",
            where=manifest.file(FILES_FILE),
            mend="run the stage again",
        )
    for name, facts in listing.items():
        with storage.as_local(manifest.file(name)) as path:
            if not path.is_file() or storage.sha256_file(path) != facts["sha256"]:
                raise DataError(
                    "the file was changed or lost after publishing",
                    where=manifest.file(name),
                    mend="run the stage again",
                )
