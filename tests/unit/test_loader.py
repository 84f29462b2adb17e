"""Items made by processes of their own: the same whoever makes them, and nothing left behind however it ends."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from multiprocessing.reduction import DupFd
from pathlib import Path

import numpy as np
import pytest
from loader_items import Broken, Squares

from robolift.data.handover import Connection, Failure, Files, GoneError, packed
from robolift.data.loader import Loader
from robolift.data.loader_worker import serve
from robolift.data.lost_worker import WorkerLostError
from robolift.errors import DataError, UsageError

TABLE = np.arange(30.0).reshape(10, 3)


def wait_until(true, what):
    for _ in range(1200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within a minute: {what}")


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_the_items_do_not_depend_on_who_makes_them_nor_on_where_it_begins():
    def items(num_workers, first, count):
        with Loader(Squares(TABLE), first_step=first, num_steps=count, num_workers=num_workers) as loader:
            return list(loader)

    alone = items(0, 3, 8)
    assert [item.step for item in alone] == [3, 4, 5, 6, 7, 8, 9, 10]
    # Rows 3 to 6 of 0, 1, 2, 3, ..., squared: 9, 10, 11 of the first, and so on.
    assert alone[0].rows.tolist()[0] == [81, 100, 121]
    two, resumed = items(2, 3, 8), items(1, 7, 4)
    for made, expected in ((two, alone), (resumed, alone[4:])):
        assert [item.step for item in made] == [item.step for item in expected]
        assert all(np.array_equal(a.rows, b.rows) for a, b in zip(made, expected, strict=True))
    assert len({item.process for item in two} - {os.getpid()}) == 2
    # The caller's own: writable, whole, and made by nobody else's doing.
    assert two[0].rows.flags.writeable
    assert two[0].rows.ctypes.data % 64 == 0
    assert two[0].empty.shape == (0, 2)


def test_items_are_made_ahead_but_not_without_end(tmp_path):
    made = []
    with Loader(lambda step: made.append(step) or step, first_step=0, num_steps=50) as loader:
        wait_until(lambda: next(loader) == 3, "the fourth item")
        wait_until(lambda: 4 in made, "the item of the next step")
    assert made == [0, 1, 2, 3, 4]
    said = tmp_path / "said"
    with Loader(Squares(TABLE, slow=3, said=said), first_step=0, num_steps=9, num_workers=1, ahead=3) as loader:
        assert next(loader).step == 0  # only now is the item of step 3 asked for
        wait_until(said.exists, "the item that takes minutes")
    assert not is_alive(int(said.read_text()))


def test_an_error_comes_as_itself_and_a_defect_with_its_traceback():
    with Loader(Squares(TABLE, wrong=2, unpicklable=1), first_step=0, num_steps=9, num_workers=1) as loader:
        assert next(loader).step == 0
        with pytest.raises(Exception, match="local object") as defect:
            next(loader)
        assert "in serve" in "".join(defect.value.__notes__)


def test_an_error_of_the_data_keeps_its_exit_code():
    with Loader(Squares(TABLE, wrong=0), first_step=0, num_steps=9, num_workers=1) as loader:
        with pytest.raises(DataError, match="no such row\n  where: step 0\n  mend: add it") as found:
            next(loader)
        assert (found.value.exit_code, found.value.where) == (65, "step 0")


def test_a_killed_worker_is_told():
    with Loader(Squares(TABLE, deadly=1), first_step=0, num_steps=9, num_workers=1) as loader:
        assert next(loader).step == 0
        told = "loader worker 0 was killed by signal 9 before the item of step 1"
        with pytest.raises(WorkerLostError, match=told) as lost:
            next(loader)
        assert lost.value.exit_code == 143


PARENT = """
    import os, sys
    from pathlib import Path
    import numpy as np
    sys.path.insert(0, sys.argv[2])
    from loader_items import Squares
    from robolift.data.loader import Loader
    from robolift.__main__ import _terminate
    import signal
    signal.signal(signal.SIGTERM, _terminate)
    table = np.zeros((1000, 3))
    loader = Loader(Squares(table, slow=1, said=Path(sys.argv[1])), first_step=0, num_steps=9, num_workers=1)
    with loader:
        print(next(loader).process, flush=True)
        next(loader)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_parent_that_is_killed_leaves_no_process_and_no_shared_memory(tmp_path, number):
    shared = set(os.listdir("/dev/shm"))
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path / "said"), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        wait_until((tmp_path / "said").exists, "the item that takes minutes")
        assert is_alive(worker)
        parent.send_signal(number)
        assert parent.wait() == (143 if number == signal.SIGTERM else -9)
    wait_until(lambda: not is_alive(worker), "the end of the worker")
    assert set(os.listdir("/dev/shm")) <= shared


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(ours), Connection(theirs)


def test_a_worker_serves_until_the_other_end_is_gone(ends):
    ours, theirs = ends
    thread = threading.Thread(target=serve, args=[theirs])
    thread.start()
    ours.send(Squares(TABLE, wrong=1, unpicklable=2))
    answers = []
    for step in range(3):
        ours.send(step)
        made, answer = ours.receive()
        assert made == step
        answers.append(answer)
    ours.close()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert answers[0].rows.tolist()[1] == [9, 16, 25]
    assert isinstance(answers[1].error, DataError)
    assert "raised in another process" in answers[2].error.__notes__[0]


def test_what_does_not_arrive_whole_fails_at_the_first_item(ends):
    ours, theirs = ends
    thread = threading.Thread(target=serve, args=[theirs])
    thread.start()
    ours.send(Broken())
    ours.send(0)
    step, failure = ours.receive()
    ours.close()
    thread.join(timeout=60)
    assert step == 0
    assert isinstance(failure.error, FileNotFoundError)
    assert "the table is gone" in str(failure.error)


def test_a_memory_map_is_mapped_again_and_other_arrays_are_shared_by_all_receivers(ends, tmp_path):
    ours, theirs = ends
    np.save(tmp_path / "map.npy", TABLE)
    mapped = np.load(tmp_path / "map.npy", mmap_mode="r")
    large = np.arange(1 << 16)
    with packed({"map": mapped, "part": mapped[2:], "large": large, "again": large}) as ready:
        assert large.nbytes < os.fstat(ready.files[0]).st_size < large.nbytes + TABLE.nbytes + 2000
        for _ in range(2):
            ours.send_packed(ready)
    first, second = theirs.receive(writable=False), theirs.receive()
    assert first["map"].filename == str(tmp_path / "map.npy")
    for received in (first, second):
        assert np.array_equal(received["map"], TABLE)
        assert np.array_equal(received["part"], TABLE[2:])
        assert np.array_equal(received["large"], large)
    assert not first["large"].flags.writeable
    second["large"][0] = 7
    assert first["large"][0] == 7
    assert large[0] == 0


def test_a_file_is_used_again_once_nobody_holds_an_array_of_it(ends):
    ours, theirs = ends

    def sent(value):
        with packed({"large": np.full(1000, value), "other": [np.arange(3)]}, files) as ready:
            ours.send_packed(ready)
            return os.fstat(ready.files[0]).st_ino, theirs.receive()

    with closing(Files()) as files:
        first, kept = sent(1)
        second, other = sent(2)
        assert second != first
        small = kept.pop("other")[0]
        del kept
        third, _ = sent(3)
        assert third not in (first, second)  # a part of the first is held yet
        assert small.tolist() == [0, 1, 2]
        del small
        again, found = sent(4)
        assert again == first
        assert found["large"].tolist() == [4] * 1000
        assert other["large"].tolist() == [2] * 1000
        with packed(np.zeros(2000), files) as ready:
            assert os.fstat(ready.files[0]).st_ino not in (first, second)
            assert os.fstat(ready.files[0]).st_size > 16_000


def test_few_files_are_kept_for_the_next_object(ends):
    ours, theirs = ends
    with closing(Files()) as files:
        held = []
        for value in range(6):
            with packed(np.full(10, value), files) as ready:
                ours.send_packed(ready)
            held.append(theirs.receive())
        assert len(files._maps) == 6
        assert [array[0] for array in held] == list(range(6))
        held.clear()
        with packed(np.zeros(10), files):
            assert len(files._maps) == 2


class HeldOpen:
    """Holds a file open, which has no name any more."""

    def __init__(self, handle):
        self.handle = handle

    def __reduce__(self):
        return received, (DupFd(self.handle),)


def received(handle):
    return HeldOpen(handle.detach())


def test_files_that_an_object_holds_open_go_with_it_and_a_map_without_a_name_is_copied(ends, tmp_path):
    ours, theirs = ends
    np.save(tmp_path / "map.npy", TABLE)
    mapped = np.load(tmp_path / "map.npy", mmap_mode="r")
    with open(tmp_path / "map.npy", "rb") as file:
        (tmp_path / "map.npy").unlink()
        with packed({"held": HeldOpen(file.fileno()), "map": mapped}) as ready:
            for _ in range(2):
                ours.send_packed(ready)
    for _ in range(2):
        found = theirs.receive()
        assert np.array_equal(found["map"], TABLE)
        with os.fdopen(found["held"].handle, "rb") as file:
            file.seek(0)
            assert np.array_equal(np.load(file), TABLE)


def test_without_memory_files_a_file_without_a_name_serves(ends, monkeypatch, tmp_path):
    ours, theirs = ends
    monkeypatch.delattr(os, "memfd_create")
    ours.send(TABLE)
    assert np.array_equal(theirs.receive(), TABLE)


def test_a_connection_that_ends_is_noticed(ends):
    ours, theirs = ends
    ours._end.sendall(b"1234567")
    ours.close()
    with pytest.raises(GoneError):
        theirs.receive()
    with pytest.raises(GoneError):
        theirs.send(TABLE)


def test_an_item_that_can_not_be_made_again_here_fails_as_it_does_and_so_does_the_loader_from_then_on():
    with Loader(Squares(TABLE, broken=1), first_step=0, num_steps=3, num_workers=1) as loader:
        assert next(loader).step == 0
        (worker,) = loader._workers
        for _ in range(2):
            with pytest.raises(FileNotFoundError, match="the table is gone"):
                next(loader)
        assert worker._process.returncode == -9


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nothing_comes_after_an_error_but_the_same(num_workers):
    with Loader(Squares(TABLE, wrong=1), first_step=0, num_steps=3, num_workers=num_workers) as loader:
        assert next(loader).step == 0
        for _ in range(2):
            with pytest.raises(DataError, match="no such row"):
                next(loader)


def test_a_process_that_may_open_no_more_files_is_told_so(ends):
    ours, theirs = ends
    ours.send(TABLE)
    free = os.dup(0)
    os.close(free)
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, allowed[1]))
    try:
        with pytest.raises(UsageError, match=f"may have {free} files open, .* ulimit -n"):
            theirs.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, allowed)


def test_workers_find_modules_where_this_process_does(tmp_path, monkeypatch):
    (tmp_path / "robolift").mkdir()
    (tmp_path / "robolift/__init__.py").write_text("raise ImportError('another program of this name')")
    monkeypatch.chdir(tmp_path)
    with Loader(Squares(TABLE), first_step=0, num_steps=1, num_workers=1) as loader:
        item = next(loader)
        assert os.getsid(item.process) == item.process  # Ctrl-C is not for it


class StrangeError(Exception):
    """Has two arguments and keeps one, so it does not come back from a pickle."""

    def __init__(self, one, two):
        super().__init__(one)


def test_an_error_that_does_not_pickle_comes_as_its_text():
    failure = Failure.of(StrangeError("odd", 2))
    assert type(failure.error) is RuntimeError
    assert "StrangeError: odd" in str(failure.error)
