"""What a dataset outside the product's own outputs holds, as one digest: changed data is another input."""

from __future__ import annotations

import hashlib
from typing import Any

from robolift import storage
from robolift.data.lerobot_format import INFO_FILE
from robolift.errors import DataError

FOLDERS = ("meta", "data", "videos")
CONTENT_TAGS = ("ETag", "etag", "md5Hash", "content_md5")


def content_digest(uri: str) -> str:
    """Return 16 hex digits of a LeRobot dataset's content.

    Covers the bytes of everything below ``meta`` and of every Parquet file, and of videos the size and, where the store
    keeps one, the hash it gives. Reading whole videos would cost more than importing them.

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
    fs, root = storage.filesystem(uri)
    facts: dict[str, Any] = {}
    for folder in FOLDERS:
        base = f"{root.rstrip('/')}/{folder}"
        if not fs.exists(base):
            continue
        for path, entry in sorted(fs.find(base, detail=True).items()):
            name = f"{folder}{path.removeprefix(base)}"
            if folder == "meta" or name.endswith(".parquet"):
                facts[name] = sha256(storage.join(uri, name))
            else:
                facts[name] = [int(entry["size"]), *(str(entry[tag]) for tag in CONTENT_TAGS if tag in entry)]
    return storage.digest_of(facts)


def sha256(uri: str) -> str:
    """Return the hex SHA-256 of one file at any address."""
    digest = hashlib.sha256()
    with storage.open_file(uri) as file:
        while block := file.read(storage.BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
