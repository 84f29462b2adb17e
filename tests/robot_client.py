"""openpi's own client from PyPI, put into ``tests/.openpi-client`` by ``make openpi-client``.

Without its dependencies: it asks for a NumPy below 2, which it runs well without, and which we can't have. The rest of
them is installed anyhow, but for dm-tree, which only its tests of chunks need.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / ".openpi-client"
QUIET = "ignore:connect.. must be used as a context manager:DeprecationWarning"
"""Of websockets about how the client connects, from its version 17.1 on; a mark of tests that use the client."""
PACKAGES = ("openpi-client==0.1.2", "dm-tree==0.1.9")


def importable() -> None:
    """Let ``openpi_client`` be imported.

    Raises:
        FileNotFoundError: If it was not put there; a test that needs it fails.
    """
    if not FOLDER.exists():
        raise FileNotFoundError(f"{FOLDER} is not there: run `make openpi-client`")
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))


def connect(address: str) -> Any:
    """Return openpi's client of the server at ``ws://host:port``."""
    importable()
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    return WebsocketClientPolicy(address)


def main() -> None:
    """Install what is not there yet; the folder appears whole or not at all."""
    if FOLDER.exists():
        return
    with tempfile.TemporaryDirectory(dir=FOLDER.parent, prefix=".openpi-") as work:
        target = Path(work) / "packages"
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", str(target), *PACKAGES], check=True)
        target.rename(FOLDER)


if __name__ == "__main__":
    main()
