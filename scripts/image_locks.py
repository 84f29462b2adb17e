"""Write each image's locked dependency set from pyproject.toml's extras, at the versions of constraints.txt.

Usage: ``python scripts/image_locks.py [--check]``. Sets with ``cpu`` and ``cuda`` differ only in CUDA's own libraries.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
EXTRAS = {
    "cpu/requirements.txt": ("report", "launch"),
    "torch/requirements-cuda.txt": ("torch", "vlm", "clips", "full"),
    "jax/requirements-cpu.txt": ("jax", "sim", "serve", "tokenizer"),
    "jax/requirements-cuda.txt": ("jax-cuda", "sim", "serve", "tokenizer"),
    "review/requirements.txt": ("review",),
}
# What torch's CUDA build depends on and its CPU build doesn't; both are the same version of torch.
CUDA_ONLY = re.compile(r"(nvidia-|cuda-|triton==)")
# Locks of one or two packages, taken from constraints.txt as they are.
PINS = {"requirements-kfp.txt": ("kfp",), "requirements-build.txt": ("setuptools",)}


def pins(path: Path) -> dict[str, str]:
    """Return the pinned version of each package that ``path`` names."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return dict(line.split("==", 1) for line in lines if line)


def resolve(extras: tuple[str, ...]) -> list[str]:
    """Return the pins that the base set and ``extras`` need on Linux with Python 3.11, sorted.

    Raises:
        SystemExit: If they don't resolve; uv's reason is on the standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "requirements.txt"
        command = ["uv", "pip", "compile", "-q", "pyproject.toml", "-c", str(CONSTRAINTS), "-o", str(target)]
        command += ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
        command += ["--no-header", "--no-annotate", *(part for extra in extras for part in ("--extra", extra))]
        # Without this machine's own wheels: the lock says the same wherever it is made.
        environment = {key: value for key, value in os.environ.items() if key != "UV_FIND_LINKS"}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
        return target.read_text().splitlines()


def locks() -> dict[str, list[str]]:
    """Return every lock's lines by its path below images/."""
    found = {path: resolve(extras) for path, extras in EXTRAS.items()}
    found["torch/requirements-cpu.txt"] = [
        line for line in found["torch/requirements-cuda.txt"] if not CUDA_ONLY.match(line)
    ]
    versions = pins(CONSTRAINTS)
    return {**found, **{path: [f"{name}=={versions[name]}" for name in names] for path, names in PINS.items()}}


def main() -> int:
    """Write the locks; with ``--check`` only tell which are out of date, exit code 1."""
    parser = argparse.ArgumentParser(description="Write images/*/requirements*.txt from pyproject.toml.")
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if a lock is out of date")
    args = parser.parse_args()
    stale = []
    for path, lines in locks().items():
        target, text = ROOT / "images" / path, "\n".join(lines) + "\n"
        if not target.exists() or target.read_text() != text:
            stale.append(path)
            if not args.check:
                target.write_text(text)
    sys.stdout.write("".join(f"{'out of date' if args.check else 'written'}: images/{path}\n" for path in stale))
    return int(args.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
