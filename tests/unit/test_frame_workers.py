from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
from frame_jobs import act

from robolift.data.frame_workers import each
from robolift.data.lost_worker import WorkerLostError
from robolift.errors import DataError


def test_a_single_worker_is_this_process():
    assert list(each(lambda job: (os.getpid(), job), {3: "a", 5: "b"}, num_workers=1)) == [
        (3, (os.getpid(), "a")),
        (5, (os.getpid(), "b")),
    ]
    assert list(each(act, {}, num_workers=4)) == []


def test_what_a_job_raised_comes_as_itself_and_a_lost_process_is_told():
    assert dict(each(act, {0: "a", 1: "b", 2: "c"}, num_workers=2)) == {0: "A", 1: "B", 2: "C"}
    with pytest.raises(DataError, match=r"broken\s+where: here"):
        list(each(act, {0: "data", 1: "a"}, num_workers=2))
    with pytest.raises(RuntimeError, match=r"job 1 failed:[\s\S]*ValueError: a slip"):
        list(each(act, {0: "a", 1: "bug"}, num_workers=2))
    told = r"worker of job 0 ended with 9 before job 0 was done; .* fewer num_workers"
    with pytest.raises(WorkerLostError, match=told) as found:
        list(each(act, {0: "die", 1: "a"}, num_workers=2))
    assert found.value.exit_code == 143


def test_what_a_job_warns_of_goes_where_the_log_goes(capfd):
    assert dict(each(act, {0: "warn", 1: "a"}, num_workers=2)) == {0: "WARN", 1: "A"}
    out, log = capfd.readouterr()
    assert out == ""
    assert "a warning" in log


def test_where_a_process_can_not_be_started_those_that_were_are_stopped(monkeypatch):
    started, start = [], SpawnProcess.start

    def refused(process):
        if started:
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        started.append(process)
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", refused)
    with pytest.raises(BlockingIOError) as found:
        list(each(act, {0: "a", 1: "b"}, num_workers=2))
    assert found.value.errno == errno.EAGAIN
    assert [process.exitcode for process in started] == [-signal.SIGTERM]


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_end_with_the_one_that_started_them(tmp_path):
    code = f"""if __name__ == "__main__":
    from frame_jobs import linger
    from robolift.data.frame_workers import each
    list(each(linger, {{0: {str(tmp_path / "0")!r}, 1: {str(tmp_path / "1")!r}}}, num_workers=2))
"""
    (tmp_path / "parent.py").write_text(code)
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], env={**os.environ, "PYTHONPATH": path})
    try:
        until = time.monotonic() + 120
        while not all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "01"):
            assert time.monotonic() < until
            assert parent.poll() is None
            time.sleep(0.05)
        children = [int((tmp_path / name).read_text()) for name in "01"]
        assert all(map(_is_alive, children))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        while any(map(_is_alive, children)):
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
