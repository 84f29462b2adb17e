"""What an image is made of, and the tag that says so: the same content has the same tag on every machine.

Usage: ``python scripts/image_tags.py [--base-image REFERENCE] [--accelerator cpu|cuda] [--json]``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("cpu", "torch", "jax", "review")
ACCELERATORS = ("cpu", "cuda")
DEFAULT_BASE_IMAGE = "python:3.11-slim"
SHARED_FILES = ("images/requirements-kfp.txt", "images/requirements-build.txt", "images/trim.sh")
WHEEL_SOURCES = ("pyproject.toml", "LICENSE", "components/*.py", "robolift/**/*")
TAG_LENGTH = 12


def lock_file(name: str, accelerator: str) -> str:
    """Return the path of the image's locked dependency set, from the root of the repository."""
    general = f"images/{name}/requirements.txt"
    return general if (ROOT / general).exists() else f"images/{name}/requirements-{accelerator}.txt"


def depends_on_accelerator(name: str) -> bool:
    """Tell whether the image exists for CPUs and for CUDA."""
    return not (ROOT / "images" / name / "requirements.txt").exists()


def content_files(name: str, accelerator: str) -> list[str]:
    """Return every file that goes into the image, sorted, from the root of the repository."""
    found = {f"images/{name}/Dockerfile", lock_file(name, accelerator), *SHARED_FILES}
    for pattern in WHEEL_SOURCES:
        found |= {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(path for path in found if "__pycache__" not in path)


def content_tag(name: str, *, base_image: str = DEFAULT_BASE_IMAGE, accelerator: str = "cpu") -> str:
    """Return the image's tag: its accelerator, if it has one, and 12 hex digits of the SHA-256 of what goes in.

    That is: its Dockerfile, its locked packages, the sources of our wheel, the reference of its base image.
    """
    digest = hashlib.sha256(f"base {base_image}\0".encode())
    for path in content_files(name, accelerator):
        digest.update(path.encode() + b"\0" + hashlib.sha256((ROOT / path).read_bytes()).digest())
    short = digest.hexdigest()[:TAG_LENGTH]
    return f"{accelerator}-{short}" if depends_on_accelerator(name) else short


def main() -> int:
    """Print ``name tag`` of every image, or a JSON object."""
    parser = argparse.ArgumentParser(description="Print the content tag of every image.")
    parser.add_argument("--base-image", default=DEFAULT_BASE_IMAGE)
    parser.add_argument("--accelerator", default="cpu", choices=ACCELERATORS)
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    args = parser.parse_args()
    tags = {name: content_tag(name, base_image=args.base_image, accelerator=args.accelerator) for name in NAMES}
    lines = [json.dumps(tags)] if args.json else [f"{name} {tag}" for name, tag in tags.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
