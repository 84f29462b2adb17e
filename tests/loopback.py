"""Ports of this machine for a process that binds its own some time after it was told which."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from pathlib import Path

KERNELS_OWN = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a port that nobody has, and that nobody is given meanwhile.

    The kernel serves whoever asks for any port, and every connection, from a range of its own: a port from there may
    be gone by the time a process has started and binds it.
    """
    first, last = map(int, KERNELS_OWN.read_text().split())
    others = [port for port in range(10_000, 65_536) if not first <= port <= last]
    while True:
        port = secrets.choice(others)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
