"""Build the images, push them if asked, and write images.lock.json: what ``make images`` runs.

An image that exists under its content tag is not built again. Without a registry the images are for this machine, as
``robolift-<name>:<version>``, which is what a compiled pipeline names when there is no images.lock.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import image_tags  # noqa: E402  (the scripts are no package)
import pip_settings  # noqa: E402
from image_engines import Build, Engine, EngineError, find_engine, remote_digest  # noqa: E402

from robolift import __version__  # noqa: E402

LOCK_FILE = ROOT / "images.lock.json"
WHEELS = ROOT / "images" / "wheels"
EXIT_USAGE = 64


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Build robolift's images.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(image_tags.NAMES)}; default: all")
    parser.add_argument("--registry", default="", help="such as registry.example.org/robots; empty: this machine only")
    parser.add_argument("--push", action="store_true", help="push, and write images.lock.json")
    parser.add_argument("--accelerator", default="", help="cpu or cuda; default: cuda with a registry, else cpu")
    parser.add_argument("--base-image", default=image_tags.DEFAULT_BASE_IMAGE)
    parser.add_argument("--engine", default="", help="buildah or docker; default: whichever is there")
    return parser


def _check(args: argparse.Namespace) -> None:
    unknown = sorted(set(args.names) - set(image_tags.NAMES))
    if unknown:
        raise EngineError(f"no image {', '.join(unknown)}; there are: {', '.join(image_tags.NAMES)}")
    if args.accelerator not in ("", *image_tags.ACCELERATORS):
        raise EngineError(f"accelerator is {args.accelerator!r}, expected one of {', '.join(image_tags.ACCELERATORS)}")
    if args.engine not in ("", "buildah", "docker"):
        raise EngineError(f"engine is {args.engine!r}, expected buildah or docker")
    if args.push and not args.registry:
        raise EngineError("where should the images be pushed to? Give REGISTRY, such as registry.example.org/robots")
    if args.push and args.names:
        raise EngineError("images.lock.json names all images together: push without naming some of them")


def _revision() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _build(engine: Engine, name: str, reference: str, tag: str, args: argparse.Namespace) -> None:
    settings = pip_settings.read()
    lock = ROOT / image_tags.lock_file(name, args.accelerator)
    # A CUDA image takes torch from the index: a local folder is there because it holds another build of it.
    wheels = pip_settings.local_wheels(settings, lock) if args.accelerator == "cpu" else []
    pip_settings.lay_out(wheels, WHEELS)
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "pip.conf"
        conf.write_text(pip_settings.to_pip_conf(settings))
        arguments = {"BASE_IMAGE": args.base_image, "CONTENT_TAG": tag, "REVISION": _revision()}
        if image_tags.depends_on_accelerator(name):
            arguments["ACCELERATOR"] = args.accelerator
        engine.build(
            Build(
                dockerfile=f"images/{name}/Dockerfile",
                references=[reference],
                arguments=arguments,
                pip_conf=conf if conf.stat().st_size else None,
            )
        )
    pip_settings.lay_out([], WHEELS)


def _make(engine: Engine, name: str, args: argparse.Namespace) -> str:
    """Build and push one image unless it exists; return ``repository@digest`` when pushed, else its reference."""
    tag = image_tags.content_tag(name, base_image=args.base_image, accelerator=args.accelerator)
    repository = f"{args.registry}/robolift-{name}" if args.registry else f"{engine.local_prefix}robolift-{name}"
    reference = f"{repository}:{tag}"
    if args.push and (digest := remote_digest(reference)):
        print(f"{reference} is in the registry", flush=True)
        return f"{repository}@{digest}"
    began = time.monotonic()
    if engine.has(reference):
        print(f"{reference} is there", flush=True)
    else:
        print(f"building {reference} with {engine.name}", flush=True)
        _build(engine, name, reference, tag, args)
        print(f"built {reference} in {time.monotonic() - began:.0f} s", flush=True)
    if not args.registry:
        engine.tag(reference, f"{repository}:{__version__}")
    return f"{repository}@{engine.push(reference)}" if args.push else reference


def main() -> int:
    """Build and return the exit code: 0, 64 for a wrong argument or a builder that refused."""
    args = _parser().parse_args()
    try:
        _check(args)
        args.accelerator = args.accelerator or ("cuda" if args.registry else "cpu")
        engine = find_engine(args.engine)
        made = {name: _make(engine, name, args) for name in args.names or image_tags.NAMES}
    except EngineError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_USAGE
    if args.push:
        LOCK_FILE.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
        print(f"wrote {LOCK_FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
