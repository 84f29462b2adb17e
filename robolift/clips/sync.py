"""Copies a folder of files from any store to any other: only what is missing or differs, and nothing is deleted.

A file counts as copied when size and content agree. The content is compared by MD5, because that is what stores keep:
an S3 ETag is the MD5 of an object sent in one piece, or the MD5 of its parts' MD5s; Google's is called md5Hash. Only
where a store keeps neither is the file read. An interrupted run therefore starts again where it stopped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.logging import progress

PART_BYTES = 50 << 20
"""Size of the parts that s3fs sends a large object in."""
_ETAG = re.compile(r"([0-9a-f]{32})(?:-(\d+))?")
# What a copy to a disk is called until it is whole.
_UNFINISHED = re.compile(r"(?:.*/)?\.[^/]+\.\d+")


@dataclass(frozen=True)
class Transfer:
    """One file to copy.

    Attributes:
        name: Relative to both folders.
        bytes: Its size.
        reason: ``new``, or of a file that is overwritten ``differs`` or ``forced``.
    """

    name: str
    bytes: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class SyncPlan:
    """What a copy of one folder to another comes to.

    Attributes:
        source: Folder copied from.
        target: Folder copied to.
        transfers: What has to be copied, by name.
        present: How many files are there already.
        others: How many files of the target are not in the source; they are left alone.
        skipped: Files of the source that are not copied, because they are named like a copy that is not whole yet.
    """

    source: str
    target: str
    transfers: tuple[Transfer, ...]
    present: int
    others: int
    skipped: tuple[str, ...]

    @property
    def overwritten(self) -> int:
        """How many files of the target are overwritten."""
        return sum(transfer.reason != "new" for transfer in self.transfers)

    @property
    def bytes(self) -> int:
        """How much has to be copied."""
        return sum(transfer.bytes for transfer in self.transfers)


def plan_sync(source: str, target: str, *, force: bool = False) -> SyncPlan:
    """Compare two folders.

    Args:
        source: Folder at any address.
        target: Folder at any address; it need not be there.
        force: Copy what is there already, too.

    Raises:
        UsageError: If one folder lies in the other.
        DataError: If the source holds no files.
    """
    ours, theirs = (storage.normalize(uri).rstrip("/") + "/" for uri in (source, target))
    if ours.startswith(theirs) or theirs.startswith(ours):
        raise UsageError(f"{source} and {target} lie in each other; expected two separate folders")
    listed = storage.list_entries(source)
    found = {name: facts for name, facts in listed.items() if not _UNFINISHED.fullmatch(name)}
    if not found:
        raise DataError("no files to copy", where=source, expected="a folder", mend="check the address")
    there = storage.list_entries(target) if storage.exists(target) else {}
    transfers = []
    for name, facts in progress(found.items(), total=len(found), what="compare", unit="file"):
        reason = _reason(source, target, name, facts, there.get(name), force=force)
        if reason:
            transfers.append(Transfer(name, int(facts["size"]), reason))
    return SyncPlan(
        source=source,
        target=target,
        transfers=tuple(transfers),
        present=len(found) - len(transfers),
        others=len(set(there) - set(found)),
        skipped=tuple(sorted(set(listed) - set(found))),
    )


def sync(plan: SyncPlan) -> None:
    """Copy what a plan says, one file after the other; each appears whole or not at all.

    Raises:
        DataError: If a file can't be read, or has another size after it was copied.
        UsageError: If the target can't be written.
    """
    for transfer in progress(plan.transfers, total=len(plan.transfers), what="copy", unit="file"):
        uri = storage.join(plan.target, transfer.name)
        with storage.as_local(storage.join(plan.source, transfer.name)) as path, storage.writable(uri):
            size = path.stat().st_size
            storage.upload(path, uri)
        copied = storage.info(uri)
        if copied is None or copied["size"] != size:
            raise DataError(
                f"the copy has {copied and copied['size']} bytes",
                where=uri,
                expected=f"{size} bytes, as {transfer.name} has",
                mend="copy again",
            )


def _reason(
    source: str, target: str, name: str, facts: Mapping[str, Any], there: Mapping[str, Any] | None, *, force: bool
) -> str | None:
    if there is None:
        return "new"
    return "forced" if force else _difference(source, target, name, facts, there)


def _difference(source: str, target: str, name: str, facts: Mapping[str, Any], there: Mapping[str, Any]) -> str | None:
    if int(there["size"]) != int(facts["size"]):
        return "differs"
    size = int(facts["size"])
    mine, others = _hash(facts), _hash(there)
    if mine is not None and mine == others:
        return None
    parts = next((count for _, count in filter(None, (mine, others)) if count), 0)
    if parts and parts != -(-size // PART_BYTES):  # sent by other software, in parts of unknown size
        mine, others, parts = _without_parts(mine), _without_parts(others), 0
    mine = mine if mine and mine[1] == parts else _read_hash(storage.join(source, name), parts)
    others = others if others and others[1] == parts else _read_hash(storage.join(target, name), parts)
    return None if mine == others else "differs"


_Hash = tuple[str, int]
"""MD5 and the number of parts it was taken over, 0 for the file in one piece."""


def _without_parts(stated: _Hash | None) -> _Hash | None:
    return None if stated and stated[1] else stated


def _hash(facts: Mapping[str, Any]) -> _Hash | None:
    """Return the hash that a store states, None if it states none that follows from the content alone."""
    if facts.get("md5Hash"):
        return base64.b64decode(facts["md5Hash"]).hex(), 0
    found = _ETAG.fullmatch(str(facts.get("ETag", "")).strip('"'))
    return (found[1], int(found[2] or 0)) if found else None


def _read_hash(uri: str, parts: int) -> _Hash:
    if not parts:
        digest = hashlib.md5(usedforsecurity=False)
        for block in _blocks(uri, storage.BLOCK_BYTES):
            digest.update(block)
        return digest.hexdigest(), 0
    sums = [hashlib.md5(block, usedforsecurity=False).digest() for block in _blocks(uri, PART_BYTES)]
    return hashlib.md5(b"".join(sums), usedforsecurity=False).hexdigest(), parts


def _blocks(uri: str, size: int) -> Iterator[bytes]:
    with storage.open_file(uri) as file:
        while block := file.read(size):
            yield block
