"""Kills this process at a chosen moment of its writing; Python imports it at start when its folder is on PYTHONPATH.

``KILL_ROOT`` is the output root, ``KILL_STAGE`` the stage and ``KILL_AT`` the moment: its ``first`` write, file number
``N`` it opens, the first write once there is a file NAME to resume from (``resumable:NAME``), or the rename that would
make the output visible (``publish``). It watches the interpreter's own audit events, so that the product knows nothing
of it. Files of other stages below the root don't count.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

ROOT = os.environ.pop("KILL_ROOT", "")
MOMENT = os.environ.pop("KILL_AT", "")
STAGE = os.environ.pop("KILL_STAGE", "")
WORK = Path(ROOT, "_work")
OWNER = os.getpid()
PUBLISHED = re.compile(r".*/[a-z_]+/[0-9a-f]{16}$")
opened = 0


def watch(event: str, args: tuple) -> None:
    """Kill the process when the moment has come."""
    if event not in ("open", "os.rename") or os.getpid() != OWNER:
        return
    path = args[0] if event == "open" else args[1]
    if not isinstance(path, (str, Path)) or not str(path).startswith((f"{ROOT}/_work/", f"{ROOT}/{STAGE}/")):
        return
    if event == "open" and MOMENT != "publish":
        global opened
        opened += 1
        written = bool(args[2] & (os.O_WRONLY | os.O_RDWR))
        name = MOMENT.partition(":")[2]
        due = opened == int(MOMENT) if MOMENT.isdigit() else written and (not name or any(WORK.rglob(name)))
    else:
        due = event == "os.rename" and MOMENT == "publish" and bool(PUBLISHED.match(str(path)))
    if due:
        os.kill(os.getpid(), signal.SIGKILL)


if MOMENT:
    sys.addaudithook(watch)
