"""Runs the steps of a local run, each in a fork of one process that has imported what all of them import.

A step is a process of its own, as in a pod, but doesn't start from nothing: KFP's executor, NumPy, Arrow and our own
foundation, most of what a step that finds its work done has to do, are read once a run. KFP's local runner still
decides what runs when; the command that it starts is :mod:`components._step`, which asks here.

The server ends with the process that started it, whose death closes ``lifeline``, and lets running steps finish.
"""

import atexit
import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
from multiprocessing import connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Dict, Iterator, List

EXECUTOR = "kfp.dsl.executor_main"
IMPORTED = (
    EXECUTOR,
    "robolift.stages.component",
    "robolift.data.dataset",
    "pyarrow.parquet",
    "structlog",
    "fsspec.implementations.local",
    "yaml",
)
"""What most steps import. Nothing that starts threads, of which a fork has none, but Arrow's allocator, which forks."""
STEP = Path(__file__).with_name("_step.py")
"""What KFP starts in place of a step: read, not imported, because this package imports KFP."""
MAX_ADDRESS = 100
"""Longest path of a socket that every system takes."""
FAILED_BY_SIGNAL = 128


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Start a server for as long as the context is open and yield its address; empty where steps can't be forked."""
    with tempfile.TemporaryDirectory(prefix="robolift-") as folder:
        address = os.path.join(folder, "steps")
        # macOS forbids its libraries in a process that was forked.
        if not sys.platform.startswith("linux") or len(address) > MAX_ADDRESS:
            yield ""
            return
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            command = [sys.executable, "-m", "components._step_server", str(listener.fileno())]
            environment = {**os.environ, "_KFP_RUNTIME": "true"}
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()], env=environment
            ) as server:
                listener.close()  # so that a step whose server is gone is refused
                yield address
                assert server.stdin is not None
                server.stdin.close()


def serve(listener: socket.socket, lifeline: Any) -> None:
    """Run each step that is asked for until ``lifeline``, a pipe's end, is closed on the other side."""
    listener.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the steps, and for who started this
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # what is shared with the steps stays shared
    running: Dict[Any, tuple[ForkProcess, socket.socket]] = {}
    while True:
        for ready in connection.wait([listener, lifeline, *running]):
            if ready is lifeline:
                return
            if ready is listener:
                client, _ = listener.accept()
                process = _start(client, listener)
                running[process.sentinel] = process, client
            else:
                process, client = running.pop(ready)
                process.join()
                _answer(client, process.exitcode or 0)


def _start(client: socket.socket, listener: socket.socket) -> ForkProcess:
    head, descriptors, _, _ = socket.recv_fds(client, 8, 2)
    with client.makefile("rb") as stream:
        request = json.loads(stream.read(int.from_bytes(head, "big")))
    process = multiprocessing.get_context("fork").Process(target=_run, args=(request, descriptors, listener))
    process.start()
    for descriptor in descriptors:
        os.close(descriptor)
    return process


def _answer(client: socket.socket, code: int) -> None:
    with client, contextlib.suppress(OSError):  # it may have been killed meanwhile
        client.sendall(bytes([code if code >= 0 else FAILED_BY_SIGNAL - code]))


def _run(request: Dict[str, Any], descriptors: List[int], listener: socket.socket) -> None:
    """Become the step: its output, environment, folder and command line, then KFP's executor."""
    listener.close()
    for own, given in enumerate([os.open(os.devnull, os.O_RDONLY), *descriptors]):
        os.dup2(given, own)
        os.close(given)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"], _KFP_RUNTIME="true")
    os.chdir(request["folder"])
    module, source, *arguments = request["arguments"]
    with tempfile.TemporaryDirectory(prefix="robolift-step-") as folder:
        path = Path(folder, "ephemeral_component.py")
        path.write_text(source)
        sys.argv = [module, "--component_module_path", str(path), *arguments]
        try:
            importlib.import_module(module).executor_main()
        finally:
            atexit._run_exitfuncs()  # a process that multiprocessing forked leaves them out


def command(source: str) -> List[str]:
    """Return the command of a step that is run here, given its source.

    KFP puts this interpreter in place of ``python3``, and looks for the name of its executor.
    """
    return ["python3", "-S", "-c", STEP.read_text(), EXECUTOR, source]


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.stdin)
