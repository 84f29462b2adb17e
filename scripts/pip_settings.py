"""What pip is told on this machine, made fit for a build inside a container.

Indexes and their like go in as a secret file, because their addresses may hold a password. Wheels in a local folder
that pip searches (find-links) are linked into the build's context: a container sees no folder of the host.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

INDEX_KEYS = ("index-url", "extra-index-url", "find-links", "trusted-host", "proxy", "timeout", "retries")
LINE = re.compile(r"(:env:|\w+)\.([\w-]+)='(.*)'")
WHEEL = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-+]+)(\+[^-]+)?-.*\.whl")


def read() -> dict[str, str]:
    """Return the settings that decide where packages come from; the environment wins over files, as in pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[str, str] = {}
    for scope in ("global", "install", ":env:"):
        matches = (LINE.fullmatch(line) for line in lines)
        found.update({m[2]: m[3].replace("\\n", " ") for m in matches if m and m[1] == scope and m[2] in INDEX_KEYS})
    return found


def _is_local(location: str) -> bool:
    return location.startswith("file:") or "://" not in location


def to_pip_conf(settings: dict[str, str]) -> str:
    """Return a pip.conf with everything of ``settings`` that holds inside a container, empty if nothing does."""
    lines = []
    for key, value in sorted(settings.items()):
        kept = value.split() if key not in ("find-links", "index-url", "extra-index-url") else []
        kept = kept or [location for location in value.split() if not _is_local(location)]
        if kept:
            lines.append(f"{key} = {' '.join(kept)}")
    return "\n".join(["[global]", *lines, ""]) if lines else ""


def local_wheels(settings: dict[str, str], lock: Path) -> list[Path]:
    """Return the wheels in local find-links folders that are of a version which ``lock`` pins, sorted."""
    folders = [Path(location.removeprefix("file://")) for location in settings.get("find-links", "").split()]
    pinned = {tuple(line.split("==")) for line in lock.read_text().splitlines() if "==" in line}
    wheels = []
    for folder in (folder for folder in folders if folder.is_dir()):
        for wheel in folder.glob("*.whl"):
            found = WHEEL.fullmatch(wheel.name)
            if found and (found["name"].lower().replace("_", "-"), found["version"]) in pinned:
                wheels.append(wheel)
    return sorted(wheels)


def lay_out(wheels: list[Path], folder: Path) -> None:
    """Make ``folder`` hold exactly ``wheels``, linked where the file system allows it."""
    for old in folder.glob("*.whl"):
        old.unlink()
    for wheel in wheels:
        try:
            os.link(wheel, folder / wheel.name)
        except OSError:
            shutil.copyfile(wheel, folder / wheel.name)
