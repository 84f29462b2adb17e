"""A step of a local run, as KFP starts it: hands itself to the step server, and ends as the step ended there.

Run as ``python -S -c THIS EXECUTOR_MODULE SOURCE ARGUMENT...``; it imports what it needs to do that and no more. See
:mod:`components._step_server`.
"""

import json
import os
import socket
import sys

ADDRESS_VARIABLE = "ROBOLIFT_STEP_SERVER"
LOST = 70
"""How a step ends whose server is gone: an internal error."""


def main() -> int:
    """Have the step run, its output on this process's own, and return its exit code."""
    request = {"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}
    content = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ[ADDRESS_VARIABLE])
        socket.send_fds(server, [len(content).to_bytes(8, "big")], [1, 2])
        server.sendall(content)
        code = server.recv(1)
    return code[0] if code else LOST


if __name__ == "__main__":
    sys.exit(main())
