from __future__ import annotations

import fcntl
import itertools
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap

import pytest

from robolift import logging
from robolift.errors import UsageError

SCRIPT = textwrap.dedent(
    """
    import itertools, time
    from robolift import logging
    ticks = itertools.count(0, 6)
    time.monotonic = lambda: float(next(ticks))   # each look at the clock is six seconds after the last
    logging.configure()
    logging.get_logger("stage").info("started", stage="toy", frames=3)
    for _ in logging.progress(range(4), total=4, what="decoding", unit="frame"):
        pass
    try:
        1 / 0
    except ZeroDivisionError:
        logging.get_logger("main").exception("internal error")
    """
)


def run_on_a_terminal(script: str) -> str:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    child = subprocess.Popen([sys.executable, "-W", "error", "-c", script], stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            block = os.read(leader, 4096)
        except OSError:  # the other side was closed
            break
        shown += block
    os.close(leader)
    assert child.wait() == 0
    return shown.decode()


def run_into_a_pipe(script: str, **env: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **env},
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_into_a_pipe_each_line_is_one_json_object():
    lines = run_into_a_pipe(SCRIPT)

    assert [line["event"] for line in lines] == ["started", "decoding", "decoding", "internal error"]
    assert {key: lines[0][key] for key in ("logger", "level", "stage", "frames")} == {
        "logger": "stage",
        "level": "info",
        "stage": "toy",
        "frames": 3,
    }
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert "ZeroDivisionError: division by zero" in lines[3]["exception"]


def test_into_a_pipe_progress_is_a_line_every_ten_seconds():
    lines = [line for line in run_into_a_pipe(SCRIPT) if line["logger"] == "progress"]

    # The clock says 0 at the start and 6, 12, 18, 24 after each item.
    assert [(line["done"], line["total"], line["unit"]) for line in lines] == [(2, 4, "frame"), (4, 4, "frame")]
    assert [line["per_s"] for line in lines] == [0.17, 0.17]


def test_on_a_terminal_there_is_a_bar_and_readable_text():
    shown = run_on_a_terminal(SCRIPT.replace("time.monotonic", "_"))

    assert "decoding:   0%" in shown
    assert "0/4 [00:00<?, ?frame/s]" in shown
    assert "started" in shown
    assert "ZeroDivisionError" in shown
    with pytest.raises(json.JSONDecodeError):
        json.loads(shown.splitlines()[0])


def test_structlog_is_imported_at_the_first_line_and_logs_as_was_asked_before():
    script = SCRIPT.replace(
        "logging.configure()",
        "logging.configure(level='warning')\nlogging.configure()\nimport sys\nassert 'structlog' not in sys.modules",
    )
    assert script != SCRIPT
    assert [line["event"] for line in run_into_a_pipe(script)][:1] == ["started"]
    assert [line["event"] for line in run_into_a_pipe(script, ROBOLIFT_LOG_LEVEL="error")] == ["internal error"]


def test_the_level_comes_from_the_environment():
    assert [line["event"] for line in run_into_a_pipe(SCRIPT, ROBOLIFT_LOG_LEVEL="error")] == ["internal error"]


def test_an_unknown_level_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"log level 'loud'; there are: .*debug.*info"):
        logging.configure(level="loud")


def test_configuring_again_replaces_the_stream(capsys):
    for _ in range(2):
        logging.configure(json_lines=True)
    logging.get_logger("a").info("hello", n=1)

    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["n"] == 1


def test_progress_yields_every_item_in_order(capsys):
    logging.configure(json_lines=True)
    assert list(logging.progress(iter("abc"), total=None, what="reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_progress_says_how_far_it_is_where_there_is_no_terminal(capsys, monkeypatch):
    clock = itertools.count(0, 11)
    monkeypatch.setattr(logging.time, "monotonic", lambda: float(next(clock)))
    logging.configure(json_lines=True)

    assert list(logging.progress([1, 2], total=None, what="reading")) == [1, 2]

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["done"], line["total"], line["per_s"]) for line in lines] == [
        ("reading", 1, None, 0.09),
        ("reading", 2, None, 0.09),
    ]


def test_progress_is_a_bar_where_there_is_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    assert list(logging.progress("ab", total=2, what="reading", unit="letter")) == ["a", "b"]

    assert "reading:   0%|" in capsys.readouterr().err
