"""A stage small enough to reason about, for the tests of what surrounds every stage."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from robolift.errors import DataError
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

NAME = "toy"


class Nested(StageConfig):
    """Options of a part."""

    size: int = 2
    """How large."""


class Config(StageConfig):
    """Counts to a number."""

    rows: int = 3
    """How many rows to write."""
    seed: int = 0
    """Seed of the run."""
    num_workers: int = 1
    """Processes; the result is the same."""
    note: str = ""
    """Anything."""
    part: Nested = Nested()
    """Options of a part."""
    scores: tuple[float, ...] = ()
    """Numbers reported as metrics."""
    fault: str = ""
    """What to do in the middle: data, bug, interrupt, kill, term."""

    RUNTIME: ClassVar[frozenset[str]] = frozenset({"num_workers", "fault"})


INPUTS = {
    "before": Input(kind=Kind.TARGETS, optional=True),
    "others": Input(kind=Kind.TARGETS, optional=True, many=True),
}
OUTPUT = Kind.TARGETS
runs = 0


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    global runs
    runs += 1
    output.write_json("first.json", {"rows": config.rows})
    faults: dict[str, Any] = {
        "data": lambda: _raise(DataError("episode 3 has no video", where="videos/3.mp4")),
        "bug": lambda: _raise(RuntimeError("a bug")),
        "interrupt": lambda: _raise(KeyboardInterrupt()),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    }
    if config.fault:
        faults[config.fault]()
    rows = list(range(config.rows))
    reward = [0.0] * config.rows
    output.write_table(
        "targets", {"episode_index": [0] * config.rows, "frame_index": rows, "value_target": reward, "reward": reward}
    )
    if config.scores:
        output.metrics["scores"] = config.scores
    return {"frames": config.rows}


def _raise(error: BaseException) -> None:
    raise error


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the toy one of the product's stages for one test."""
    from robolift import __main__ as cli
    from robolift.stages import stage

    names = (*stage.NAMES, NAME)
    monkeypatch.setitem(sys.modules, f"robolift.stages.{NAME}", sys.modules[__name__])
    monkeypatch.setattr(stage, "NAMES", names)
    monkeypatch.setattr(cli, "NAMES", names)
    monkeypatch.setattr(sys.modules[__name__], "runs", 0)


def main() -> int:
    """Run the product's command line with the toy among its stages; for tests that need a process of their own."""
    from robolift.__main__ import main as cli_main

    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        return cli_main()


if __name__ == "__main__":
    import toy_stage  # the module under its own name, as `install` expects it

    sys.exit(toy_stage.main())


class Unseen:
    """Where the UI would be shown numbers and a page."""

    path = os.devnull

    def log_metric(self, name: str, value: float) -> None:
        assert isinstance(value, float), name


UNSEEN = {"metrics": Unseen(), "page": Unseen()}
