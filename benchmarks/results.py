"""What was measured, as JSON and as a table; both are committed, and a loss against them has to be explained."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, Goal, Round, median

FOLDER = Path(__file__).parent
JSON_FILE, TABLE_FILE = FOLDER / "results.json", FOLDER / "RESULTS.md"
PACKAGES = ("numpy", "pyarrow", "av", "torch", "jax", "kfp", "pandas", "opencv-python-headless")
LOSS = 0.2
"""Share by which a median may be worse than the committed one without a reason."""
MEASURED = ("cpu_s", "wall_s", "peak_mb")

HEAD = """# Benchmarks

`make bench` measures all of this again, `make bench ONLY="labels frames"` a part of it; it writes the numbers below,
and `results.json`. Each way of doing the work runs in a process of its own, the ways in turn; what counts is the
median over the rounds of the ratio within a round (least to greatest in brackets). CPU seconds are user + system of
all processes, a MB is 1e6 bytes of memory at the peak. What needs a public program, a GPU or a long time runs where an
environment variable says so, otherwise it is *not run*; a line without a limit is for information. Each benchmark's
file says what it compares and why that is fair. More than 20 % worse than what stands here is refused unless
`BECAUSE="..."` says why, and that line then stands below.
"""


def entry(doc: str, benchmark: Benchmark, rounds: Sequence[Round], load: float) -> dict[str, Any]:
    """Return what is kept of a benchmark: the medians of each way and of each goal, and where they come from."""
    ways: dict[str, Any] = {}
    for way in benchmark.ways:
        told = [one[way.name] for one in rounds if way.name in one]
        names = dict.fromkeys(name for numbers in told for name in numbers)
        ways[way.name] = {name: _summary([one[name] for one in told if name in one]) for name in names} or None
    goals = []
    for goal in benchmark.goals:
        values = goal.values(rounds)
        found: dict[str, Any] = {"name": goal.name, "limit": _limit(goal)}
        if values:
            found |= _summary(values) | ({"met": goal.meets(median(values))} if goal.limited else {})
        goals.append(found)
    return {
        "about": doc.split("\n\n")[0].replace("\n", " "),
        "rounds": len(rounds),
        "ways": ways,
        "goals": goals,
        "machine": machine(),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "load": round(load, 1),
    }


def losses(benchmark: Benchmark, now: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    """Return in what ``now`` is worse than what was committed by more than it may be."""
    known = {goal["name"]: goal for goal in (before or {}).get("goals", []) if "median" in goal}
    found = []
    for goal, numbers in zip(benchmark.goals, now["goals"], strict=True):
        if goal.name in known and "median" in numbers:
            was, is_now = known[goal.name]["median"], numbers["median"]
            if (loss := goal.loss(is_now, was)) > LOSS:
                found.append(f"{benchmark.name}: {goal.name} was {was:.3g} and is {is_now:.3g}, {loss:.0%} worse")
    return found


def missing(benchmark: Benchmark, now: Mapping[str, Any]) -> list[str]:
    """Return what goals have no number although all their ways ran."""
    return [
        f"{benchmark.name}: {goal.name} was not measured"
        for goal, numbers in zip(benchmark.goals, now["goals"], strict=True)
        if "median" not in numbers and all(now["ways"][way] for way in goal.over)
    ]


def read() -> dict[str, Any]:
    """Return what is committed, by benchmark."""
    return dict(json.loads(JSON_FILE.read_text())) if JSON_FILE.exists() else {}


def write(results: Mapping[str, Any]) -> None:
    """Write both files."""
    ordered = dict(sorted(results.items()))
    JSON_FILE.write_text(json.dumps(ordered, indent=1) + "\n")
    TABLE_FILE.write_text(render(ordered))


def render(results: Mapping[str, Any]) -> str:
    """Return RESULTS.md."""
    lines = [HEAD, "| benchmark | goal | measured | limit | met |", "|---|---|---|---|---|"]
    for name, found in results.items():
        for goal in found["goals"]:
            measured, met = "not run", ""
            if "median" in goal:
                measured = f"**{_short(goal['median'])}** ({_short(goal['least'])} to {_short(goal['greatest'])})"
                met = ("yes" if goal["met"] else "**no**") if "met" in goal else ""
            lines.append(f"| [{name}](#{name}) | {goal['name']} | {measured} | {goal['limit']} | {met} |")
    for name, found in results.items():
        lines += ["", *_section(name, found)]
    return "\n".join(lines) + "\n"


def _section(name: str, found: Mapping[str, Any]) -> list[str]:
    extra = sorted({key for way in found["ways"].values() for key in way or ()} - set(MEASURED))
    columns = [*MEASURED, *extra]
    lines = [f"## {name}", "", found["about"], ""]
    lines.append(f"| way | CPU s | wall s | peak MB |{''.join(f' {key} |' for key in extra)}")
    lines.append("|---" * (len(columns) + 1) + "|")
    for way, numbers in found["ways"].items():
        cells = (
            [_short(numbers[key]["median"]) if key in numbers else "" for key in columns] if numbers else ["not run"]
        )
        lines.append(f"| {way} | {' | '.join(cells)} |")
    used = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    lines += ["", f"{found['rounds']} rounds, {found['date']}, load {found['load']}, {found['machine']}; {used}."]
    return [*lines, *(["", f"Worse than before: {found['because']}"] if "because" in found else [])]


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "least": min(values), "greatest": max(values)}


def _limit(goal: Goal) -> str:
    if goal.at_least == goal.at_most:
        return f"{goal.at_least:g}"
    bounds = [f">= {goal.at_least:g}"] * (goal.at_least > -math.inf) + [f"<= {goal.at_most:g}"] * (
        goal.at_most < math.inf
    )
    return ", ".join(bounds)


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def machine() -> str:
    """Return the processor, its cores, the memory, and the GPU where there is one."""
    facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    model = {key.strip(): value.strip() for key, value in facts.items()}.get("model name", platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = f"{os.cpu_count()} x {model}, {memory:.0f} GiB"
    if asks := shutil.which("nvidia-smi"):
        told = subprocess.run([asks, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
        found = ", ".join([found, *told.stdout.split("\n")[: told.returncode == 0]])
    return found


def versions() -> dict[str, str]:
    """Return the versions of Python and of what the benchmarks use."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
