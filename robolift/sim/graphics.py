"""Which OpenGL library MuJoCo draws with, chosen before it is imported, and what to say when it is not there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from robolift.errors import UsageError

LIBRARIES = ("egl", "osmesa")
PACKAGES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}


def select(library: str | None) -> None:
    """Prepare this process for drawing with ``library``, or for no drawing at all when it is None.

    Raises:
        UsageError: If MuJoCo is already imported here with another choice.
    """
    chosen = library or "disabled"
    if "mujoco" in sys.modules:
        # It reads the variable once; a later change would be ignored without a word.
        if library is not None and os.environ.get("MUJOCO_GL") != chosen:
            raise UsageError(f"MuJoCo is already loaded with MUJOCO_GL={os.environ.get('MUJOCO_GL')!r}, not {chosen!r}")
        return
    os.environ["MUJOCO_GL"] = chosen
    if library == "osmesa":
        os.environ["PYOPENGL_PLATFORM"] = "osmesa"
    # One process a core already: Mesa's own threads would only fight over them.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@contextmanager
def explained(library: str) -> Iterator[None]:
    """Turn what OpenGL raises while it starts into one clear error.

    Raises:
        UsageError: Naming the packages to install.
    """
    try:
        yield
    except ModuleNotFoundError:
        raise  # a Python package is missing, not a library
    except Exception as error:
        raise UsageError(
            f"cannot render: MUJOCO_GL={library} does not start here ({type(error).__name__}: {error})\n"
            f"  expected: a headless OpenGL library; no GPU is needed\n"
            f"  mend: apt-get install {PACKAGES[library]}, or set `gl` to another of {', '.join(LIBRARIES)}, "
            "or record without cameras"
        ) from error
