"""Runs the steps of a local run, each in a fork of one process that has imported what all of them import.

A step is a process of its own, as in a pod, but doesn't start from nothing: KFP's executor, NumPy, Arrow and our own
foundation, most of what a step that finds its work done has to do, are read once a run. KFP's local runner still
decides what runs when; the command that it starts is :mod:`components._step`, which asks here, and starts KFP's own
command where nobody answers.

Once a file of our package changes, the server takes no more steps: it would run the code that it has read, and the
step would publish the result under the digest of the files as they are.

A step whose client is gone, or whose run is (its end of ``lifeline`` closes), is asked to end, and killed if it doesn't
in time; so are the processes that it leaves. Nothing of a run outlives its server.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from components import _step

PACKAGE = "robolift"
EXECUTOR = "kfp.dsl.executor_main"
IMPORTED = (
    "kfp.dsl.executor",
    "kfp.dsl.kfp_config",
    "robolift.stages.component",
    "robolift.data.dataset",
    "pyarrow.parquet",
    "pandas",  # where it is installed, Arrow imports it to ask whether an array is one of its
    "pyarrow.pandas_compat",
    "structlog",
    "fsspec.implementations.local",
    "yaml",
)
"""What most steps import. Nothing that starts threads, of which a fork has none, but Arrow's allocator, which forks."""
STEP = Path(_step.__file__)
GRACE_S = 120.0
"""How long a step that is asked to end may take, as in a pod: one that trains writes its state."""
FAILED_BY_SIGNAL = 128
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def can_serve() -> bool:
    """Tell whether steps can be forked here: on Linux; macOS forbids its libraries in a process that was forked."""
    if not sys.platform.startswith("linux") or not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # a kernel before 5.3
        return False
    return True


@contextlib.contextmanager
def serving(log: int | None = None, *, grace_s: float = GRACE_S) -> Iterator[str]:
    """Start a server for as long as the context is open and yield its address; empty where steps can't be forked.

    Args:
        log: Descriptor of where the server says what goes wrong in it, stderr by default.
        grace_s: How long a step that is asked to end may take, seconds.
    """
    if not can_serve():
        yield ""
        return
    address = f"robolift-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + address)  # no file, which a killed run would leave
        listener.listen()
        server = subprocess.Popen(
            [sys.executable, "-m", "components._step_server", str(listener.fileno()), str(grace_s)],
            stdin=subprocess.PIPE,
            stderr=log,
            pass_fds=[listener.fileno()],
            env={**os.environ, "_KFP_RUNTIME": "true"},
        )
    assert server.stdin is not None
    try:
        yield address
    finally:
        server.stdin.close()
        server.wait()


def command(given: List[str]) -> List[str]:
    """Return the command that has a step's own, ``sh -ec SCRIPT SOURCE`` as KFP compiles it, run by the server.

    KFP puts this interpreter in place of ``python3``, and looks for the name of its executor.
    """
    return ["python3", "-S", "-c", STEP.read_text(), *given]


def files() -> Dict[str, Tuple[int, ...]]:
    """Return what tells each file of our package from what it was before."""
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None
    stamps = {}
    for top in found.submodule_search_locations or ():
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in names:
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    stat = os.stat(path)
                    stamps[path] = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
    return stamps


@dataclass(eq=False)
class Process:
    """A step, or a process that one left (``client`` is None).

    Attributes:
        pid: Its number, ours to use until we have waited for it.
        client: Who waits for its exit code.
        was_interrupted: Whether it was there when Ctrl-C reached all processes of the terminal.
        kill_at: When it is killed, in time.monotonic(), None as long as nobody asked it to end.
    """

    pid: int
    client: socket.socket | None
    was_interrupted: bool = False
    kill_at: float | None = None


class Server:
    """Forks a step for each client until the lifeline closes, and sees to it that all of them end."""

    def __init__(self, listener: socket.socket, lifeline: int, folder: Path, *, grace_s: float) -> None:
        """Serve who connects to ``listener``; the steps' sources lie in ``folder``."""
        listener.set_inheritable(False)
        self.listener, self.lifeline, self.folder, self.grace_s = listener, lifeline, folder, grace_s
        self.pid = os.getpid()
        self.before = files()
        self.processes: Dict[int, Process] = {}
        self.is_open = True
        self.poll = select.poll()
        self.poll.register(listener, select.POLLIN)
        self.poll.register(lifeline, select.POLLIN)
        signal.signal(signal.SIGINT, self._interrupted)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what a step leaves becomes ours
        gc.disable()  # modules leave no garbage to look for
        for name in IMPORTED:
            with contextlib.suppress(Exception):  # the step that needs it says so itself
                importlib.import_module(name)
        gc.freeze()  # what is shared with the steps stays shared
        gc.enable()

    def serve(self) -> socket.socket | None:
        """Return None when the run is over and, in each fork, the client whose step it is to become."""
        while self.is_open or self.processes:
            due = [each.kill_at for each in self.processes.values() if each.kill_at is not None]
            timeout = max(0.0, min(due) - time.monotonic()) * 1000 + 1 if due else None
            for ready, _ in self.poll.poll(timeout)[:1]:  # the next may be of what this one closes
                if ready == self.lifeline:
                    self._close()
                elif ready == self.listener.fileno():
                    if client := self._accept():
                        return client
                elif ready in self.processes:
                    self._ended(ready)
                else:
                    self._left(ready)
            for each in self.processes.values():
                if each.kill_at is not None and each.kill_at <= time.monotonic():
                    os.kill(each.pid, signal.SIGKILL)
                    each.kill_at = time.monotonic() + self.grace_s
        return None

    def _interrupted(self, *_: Any) -> None:
        for each in self.processes.values():
            each.was_interrupted = True

    def _accept(self) -> socket.socket | None:
        client, _ = self.listener.accept()
        if _step.user(client) != os.getuid():
            client.close()
            return None
        if files() != self.before:
            client.close()
            self.poll.unregister(self.listener)
            self.listener.close()
            return None
        # Ctrl-C while it is forked waits until the child can be told and we know of it.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            pid = os.fork()
        except OSError:  # no memory for another process
            client.close()
        else:
            if not pid:
                return client
            self._watch(Process(pid, client))
            with contextlib.suppress(OSError):
                client.sendall(b"+")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return None

    def _watch(self, process: Process) -> None:
        descriptor = os.pidfd_open(process.pid)
        self.processes[descriptor] = process
        self.poll.register(descriptor, select.POLLIN)
        if process.client is not None:
            self.poll.register(process.client, 0)  # tells when the other side is gone

    def _end(self, process: Process) -> None:
        """Ask a process to end, unless it was asked."""
        if process.kill_at is None:
            process.kill_at = time.monotonic() + self.grace_s
            if not process.was_interrupted:
                os.kill(process.pid, signal.SIGTERM)

    def _left(self, client: int) -> None:
        self.poll.unregister(client)
        for each in self.processes.values():
            if each.client is not None and each.client.fileno() == client:
                self._end(each)

    def _close(self) -> None:
        self.is_open = False
        self.poll.unregister(self.lifeline)
        if self.listener.fileno() >= 0:
            self.poll.unregister(self.listener)
            self.listener.close()
        for each in self.processes.values():
            self._end(each)
        self._adopt()

    def _ended(self, descriptor: int) -> None:
        process = self.processes.pop(descriptor)
        self.poll.unregister(descriptor)
        os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
        if process.client is not None:
            shutil.rmtree(self.folder / str(process.pid), ignore_errors=True)
            with contextlib.suppress(KeyError):  # it left before
                self.poll.unregister(process.client)
            with process.client, contextlib.suppress(OSError):
                process.client.sendall(bytes([code if code >= 0 else FAILED_BY_SIGNAL - code]))
        if process.kill_at is not None:
            self._adopt()

    def _adopt(self) -> None:
        """Ask the processes to end that ended steps left; theirs become ours in turn."""
        known = {each.pid for each in self.processes.values()}
        for pid in children():
            if pid not in known:
                process = Process(pid, None)
                self._watch(process)
                self._end(process)


def children() -> List[int]:
    """Return the numbers of this process's children."""
    own = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                own.append(int(path.parent.name))
    return own


def become(client: socket.socket, server: Server) -> None:
    """Become the step in a fork: its output, environment, folder and command line, then KFP's executor."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # when the server is killed
    if os.getppid() != server.pid:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    # While we held them, the other side wouldn't see that the server is gone.
    for other in (server.listener, *(each.client for each in server.processes.values() if each.client)):
        other.close()
    with client, client.makefile("rb") as stream:
        head, descriptors, _, _ = socket.recv_fds(client, 8, 2)
        content = stream.read(int.from_bytes(head, "big"))
    if not content:  # the client was killed before it asked
        return
    request = json.loads(content)
    for own, given in enumerate([os.open(os.devnull, os.O_RDONLY), *descriptors]):
        os.dup2(given, own)
        os.close(given)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(request["environment"], _KFP_RUNTIME="true")
    os.chdir(request["folder"])
    *_, source = request["command"][:4]
    path = server.folder / str(os.getpid()) / "ephemeral_component.py"
    path.parent.mkdir()
    path.write_text(source)
    sys.argv = [EXECUTOR, "--component_module_path", str(path), *request["command"][4:]]
    runpy.run_module(EXECUTOR, run_name="__main__", alter_sys=True)


def main() -> None:
    """Serve, or become a step in a fork, which then ends as every interpreter does."""
    folder = tempfile.mkdtemp(prefix="robolift-steps-")
    owner = os.getpid()
    try:
        server = Server(socket.socket(fileno=int(sys.argv[1])), 0, Path(folder), grace_s=float(sys.argv[2]))
        client = server.serve()
        if client is not None:
            become(client, server)
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
