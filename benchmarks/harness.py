"""What a benchmark is: several ways of doing the same work, measured in turn, and what their numbers have to reach.

Each way of each round runs in a process of its own, the ways of a round right after one another, so that other work on
the machine slows all alike and nobody pays for the memory or the imports of another. A ratio is taken within a round,
and the median over the rounds is what counts.
"""

from __future__ import annotations

import importlib
import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Work = Callable[[Path], dict[str, float] | None]
Round = dict[str, dict[str, float]]
"""The numbers of each way that ran."""
MODULES = "bench_*.py"


@dataclass(frozen=True)
class Goal:
    """What a median has to reach.

    Attributes:
        name: What it is, with its unit.
        over: One way, whose number counts, or two, of which the first's number is divided by the second's.
        of: Which number: ``cpu_s``, ``wall_s``, ``peak_mb``, or one that the ways return.
        at_least: Least median that meets the goal.
        at_most: Greatest median that meets the goal. Without either limit the number is for information alone.
    """

    name: str
    over: tuple[str, ...]
    of: str
    at_least: float = -math.inf
    at_most: float = math.inf

    def values(self, rounds: Sequence[Round]) -> list[float]:
        """Return the value of each round in which all ways that it needs have the number."""
        return [value for one in rounds if (value := self._value(one)) is not None]

    def _value(self, one: Round) -> float | None:
        found = [one.get(way, {}).get(self.of) for way in self.over]
        numbers = [number for number in found if number is not None]
        if len(numbers) < len(found):
            return None
        return numbers[0] if len(numbers) == 1 else numbers[0] / numbers[1]

    def meets(self, value: float) -> bool:
        """Tell whether a median reaches the goal."""
        return self.at_least <= value <= self.at_most

    @property
    def limited(self) -> bool:
        """Whether anything has to be reached."""
        return self.at_least > -math.inf or self.at_most < math.inf

    def loss(self, now: float, before: float) -> float:
        """Return by what share ``now`` is worse than ``before``, 0 if it isn't.

        Where nothing says which way is better, with no limit or with two, the limits alone decide.
        """
        if (self.at_least > -math.inf) == (self.at_most < math.inf):
            return 0.0
        good, bad = (now, before) if self.at_least > -math.inf else (before, now)
        if bad <= good:
            return 0.0
        return bad / good - 1 if good > 0 else math.inf


@dataclass(frozen=True)
class Way:
    """One way of doing the work.

    Attributes:
        name: Short name.
        work: Does it; gets the folder of prepared data. What it returns is added to the measured numbers and may
            replace them, for work that measures a part of itself.
        needs: Environment variables that say where a public program or a device is, or ask for what takes long;
            without one of them the way is not run.
        threads: What OMP_NUM_THREADS is set to.
        whole_process: Whether the start of the interpreter and all imports count.
    """

    name: str
    work: Work
    needs: tuple[str, ...] = ()
    threads: int = 1
    whole_process: bool = False

    @property
    def available(self) -> bool:
        """Whether it can run here."""
        return all(os.environ.get(variable) for variable in self.needs)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Work, ways and goals.

    Attributes:
        name: Unique among all benchmarks.
        ways: In the order in which a round runs them.
        goals: What is to be reached.
        prepare: Makes what the ways work on, in the folder that they get; not measured.
        rounds: How often each way runs.
        timeout_s: How long the preparation, and each way of each round, may take before it is ended.
        publish: Puts what was measured in the folder where the program reads it; called when results are written.
    """

    name: str
    ways: tuple[Way, ...]
    goals: tuple[Goal, ...] = field(default=())
    prepare: Work | None = None
    rounds: int = 5
    timeout_s: float = 900
    publish: Callable[[Path], None] | None = None

    def way(self, name: str) -> Way:
        """Return the way of a name."""
        return next(way for way in self.ways if way.name == name)


def load(module: str) -> tuple[str, tuple[Benchmark, ...]]:
    """Return the docstring and the benchmarks of a module."""
    found: Any = importlib.import_module(module)
    return (found.__doc__ or "").strip(), getattr(found, "BENCHMARKS", None) or (found.BENCHMARK,)


def modules(names: Sequence[str] = ()) -> Iterator[str]:
    """Yield the modules of the named benchmarks, all by default; ``labels`` is ``benchmarks.bench_labels``.

    Raises:
        SystemExit: If there is no such benchmark.
    """
    known = {path.stem.removeprefix("bench_"): path.stem for path in sorted(Path(__file__).parent.glob(MODULES))}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}")
    yield from (f"{__package__}.{known[name]}" for name in names or known)


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)
