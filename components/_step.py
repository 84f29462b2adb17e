"""A step of a local run, as KFP starts it: has the step server run it, and ends as the step ended there.

Run as ``python -S -c THIS COMMAND...``; it imports what it needs to do that and no more. Where no server takes the
step, this process becomes KFP's own command, a fresh interpreter. See :mod:`components._step_server`.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import sys

ADDRESS_VARIABLE = "ROBOLIFT_STEP_SERVER"
LOST = 70
"""How a step ends whose server is gone: an internal error."""


def user(peer: socket.socket) -> int:
    """Return the number of the user whose process is on the other side."""
    return struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]  # type: ignore[no-any-return]


def is_taken(server: socket.socket) -> bool:
    """Ask the server to run this process's command, its output on this process's own; tell whether it does."""
    request = {"command": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}
    content = json.dumps(request).encode()
    try:
        server.connect("\0" + os.environ[ADDRESS_VARIABLE])
        if user(server) != os.getuid():
            return False
        socket.send_fds(server, [len(content).to_bytes(8, "big")], [1, 2])
        server.sendall(content)
        return bool(server.recv(1))
    except OSError:
        return False


def main() -> int:
    """Have the step run and return its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the step, too
    code = b""
    with socket.socket(socket.AF_UNIX) as server:
        if not is_taken(server):
            os.execvp(sys.argv[1], sys.argv[1:])
        with contextlib.suppress(OSError):
            code = server.recv(1)
    if not code:
        sys.stderr.write("the process that runs this step was ended, and the step with it\n")
        return LOST
    return code[0]


if __name__ == "__main__":
    sys.exit(main())
