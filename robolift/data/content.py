"""What a dataset outside the product's own outputs holds, by file and as one digest: changed data is another input.

An import keeps the list of its sources' files, and later stages compare each file with it before they first read it.
Of a Parquet file the bytes count, for actions overwritten in place change neither its size nor the meta folder. So a
stage pays for the files it opens, with one more pass over tables that are small beside the videos; nothing is listed,
however many episodes there are, and where the store keeps a hash of its own that one is compared and nothing is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from io import BufferedReader
from typing import Any, cast

from robolift import storage
from robolift.data.lerobot_format import INFO_FILE
from robolift.errors import DataError

FOLDERS = ("meta", "data", "videos")
HELD_BYTES = 4 << 20
CONTENT_TAGS = ("ETag", "etag", "md5Hash", "content_md5")


def list_content(uri: str) -> dict[str, dict[str, Any]]:
    """Return size, hash and the store's own hashes of every file of a LeRobot dataset.

    ``sha256`` is given for everything below ``meta`` and for every Parquet file. Videos have ``bytes`` and, where the
    store keeps them, ``tags``: reading whole videos would cost more than importing them.

    Raises:
        DataError: If no LeRobot dataset lies there.
    """
    if not storage.exists(storage.join(uri, INFO_FILE)):
        raise DataError(
            "no LeRobot dataset",
            where=uri,
            expected=f"{INFO_FILE} of a v2.1 or v3.0 dataset",
            mend="check the address and the credentials for it",
        )
    found: dict[str, dict[str, Any]] = {}
    for folder in FOLDERS:
        for path, entry in storage.list_entries(storage.join(uri, folder)).items():
            name = f"{folder}/{path}"
            found[name] = {"bytes": int(entry["size"]), **_tags(entry)}
            if folder == "meta" or name.endswith(".parquet"):
                found[name]["sha256"] = sha256(storage.join(uri, name))
    return found


def digest_of_content(content: Mapping[str, Mapping[str, Any]]) -> str:
    """Return 16 hex digits of what :func:`list_content` found."""
    return storage.digest_of(
        {name: facts.get("sha256") or [facts["bytes"], *facts.get("tags", ())] for name, facts in content.items()}
    )


def content_digest(uri: str) -> str:
    """Return 16 hex digits of a LeRobot dataset's content.

    Raises:
        DataError: If no LeRobot dataset lies there.
    """
    return digest_of_content(list_content(uri))


class ContentCheck:
    """Compares the files of a dataset with what they were when it was imported, each once."""

    def __init__(self, uri: str, content: Mapping[str, Mapping[str, Any]]) -> None:
        """Prepare to check the dataset at ``uri`` against the ``content`` it had."""
        self._uri = uri
        self._content = content
        self._checked: set[str] = set()

    def meta(self) -> None:
        """Check the meta folder.

        Raises:
            DataError: Naming the first file that was changed or is gone.
        """
        for name in self._content:
            if name.startswith("meta/"):
                self.file(name)

    def file(self, name: str) -> None:
        """Check one file, named relative to the dataset.

        Raises:
            DataError: If it was changed; a data or video file that is gone is left to who opens it.
        """
        if name in self._checked:
            return
        uri = storage.join(self._uri, name)
        entry = storage.info(uri)
        if entry is None and not name.startswith("meta/"):
            return  # whoever opens it says so, and what it holds
        if entry is None or not self._same(self._content.get(name, {}), entry, uri):
            raise _changed(uri)
        self._checked.add(name)

    def read(self, name: str) -> bytes | None:
        """Check one file and return its bytes, which nobody has to read again; None if they are too many to hold.

        Raises:
            DataError: If it was changed or is gone.
        """
        imported = self._content.get(name, {})
        if "sha256" not in imported or imported["bytes"] > HELD_BYTES:
            self.file(name)
            return None
        uri = storage.join(self._uri, name)
        with storage.open_file(uri) as file:
            if file.seek(0, os.SEEK_END) != imported["bytes"]:  # however many they are now, none is read
                raise _changed(uri)
            file.seek(0)
            content: bytes = file.read()
        if name not in self._checked and hashlib.sha256(content).hexdigest() != imported["sha256"]:
            raise _changed(uri)
        self._checked.add(name)
        return content

    def _same(self, imported: Mapping[str, Any], entry: Mapping[str, Any], uri: str) -> bool:
        if imported.get("bytes") != entry["size"]:
            return False
        stated, tags = imported.get("tags"), _tags(entry).get("tags")
        if stated and stated == tags:
            return True
        if "sha256" in imported:  # the same bytes may have been stored again, under another hash of the store's
            return bool(imported["sha256"] == sha256(uri))
        return not (stated and tags)


def _changed(uri: str) -> DataError:
    return DataError(
        "the file was changed or lost after the dataset was imported",
        where=uri,
        expected="the content it had then; a changed recording is another dataset",
        mend="restore the file, or import the dataset again",
    )


def _tags(entry: Mapping[str, Any]) -> dict[str, list[str]]:
    tags = [str(entry[tag]) for tag in CONTENT_TAGS if entry.get(tag)]
    return {"tags": tags} if tags else {}


def sha256(uri: str) -> str:
    """Return the hex SHA-256 of one file at any address."""
    with storage.open_file(uri) as file:
        return hashlib.file_digest(cast("BufferedReader", file), "sha256").hexdigest()
