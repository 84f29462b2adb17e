"""The benchmark runner: rounds of processes in turn, ratios within a round, and no silent loss."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import __main__ as runner
from benchmarks import results
from benchmarks.harness import Benchmark, Goal, Way, load, modules
from benchmarks.measure import Measured, finish, measure
from benchmarks.taken import peak_bytes, timed

TOY = '''"""What a toy costs.

Details.
"""
import os
from benchmarks.harness import Benchmark, Goal, Way

def prepare(folder):
    (folder / "data").write_text("3")

def ours(folder):
    return {"units": float((folder / "data").read_text()), "pid": os.getpid()}

def theirs(folder):
    held = bytearray(64 << 20)
    return {"units": 12.0, "pid": os.getpid(), "held": len(held)}

BENCHMARK = Benchmark(
    name="toy",
    prepare=prepare,
    ways=(
        Way("theirs", theirs),
        Way("ours", ours, whole_process=True),
        Way("public", ours, needs=("HOME", "NO_SUCH_PROGRAM")),
    ),
    goals=(
        Goal(name="units", over=("theirs", "ours"), of="units", at_least=4),
        Goal(name="memory", over=("theirs", "ours"), of="peak_mb", at_least=1.5),
        Goal(name="known", over=("ours",), of="units"),
        Goal(name="public", over=("public", "ours"), of="cpu_s", at_least=1),
    ),
)
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "toy_benchmark.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "toy_benchmark", raising=False)
    return "toy_benchmark"


def test_every_way_of_every_round_is_a_process_of_its_own(toy: str) -> None:
    doc, (benchmark,) = load(toy)
    measured = measure(toy, benchmark, rounds=2)
    rounds = measured.rounds
    assert measured.failures == []
    assert [list(one) for one in rounds] == [["theirs", "ours"]] * 2
    assert len({numbers["pid"] for one in rounds for numbers in one.values()}) == 4
    entry = results.entry(doc, benchmark, rounds, load=0.5)
    units, memory, known, public = entry["goals"]
    assert (units["median"], units["met"], units["limit"]) == (4.0, True, ">= 4")
    # 64 MB held beside an interpreter of some twenty.
    assert memory["median"] > 1.5
    assert "median" not in public
    assert "met" not in known
    # A whole process includes the start of the interpreter.
    assert rounds[0]["ours"]["wall_s"] > rounds[0]["theirs"]["wall_s"] / 100
    page = results.render({"toy": entry})
    assert "| [toy](#toy) | units | **4** (4 to 4) | >= 4 | yes |" in page
    assert "| [toy](#toy) | known | **3** (3 to 3) |  |  |" in page
    assert "| [toy](#toy) | public | not run | >= 1 |  |" in page
    assert "What a toy costs." in page
    assert "Details" not in page


FAILING = '''"""What fails."""
from benchmarks.harness import Benchmark, Goal, Way

def fails(folder):
    raise SystemExit(3)

def works(folder):
    return {"units": 1.0}

BENCHMARKS = (
    Benchmark(
        name="ways",
        ways=(Way("fails", fails), Way("works", works)),
        goals=(Goal("units", ("works",), "units"), Goal("others", ("works",), "others")),
    ),
    Benchmark(name="data", prepare=fails, ways=(Way("works", works),)),
    Benchmark(name="device", prepare=fails, ways=(Way("works", works, needs=("NO_SUCH_DEVICE",)),)),
    Benchmark(name="after", ways=(Way("works", works),)),
)
'''


def test_what_fails_or_hangs_ends_nothing_else(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "failing_benchmark.py").write_text(FAILING)
    monkeypatch.setattr(results, "JSON_FILE", tmp_path / "results.json")
    monkeypatch.setattr(results, "TABLE_FILE", tmp_path / "RESULTS.md")
    monkeypatch.setattr(runner, "modules", lambda names: ["no_such_module", "failing_benchmark", toy])
    monkeypatch.setattr(sys, "argv", ["bench", "--rounds", "2"])
    assert runner.main() == 1
    told = capsys.readouterr().err
    for line in (
        "no_such_module: No module named",
        "ways: fails ended with exit code 3",
        "ways: others was not measured",
        "data: the preparation ended with exit code 3",
    ):
        assert told.count(line) == 1, line
    assert "device:" not in told
    # Nothing is written of what failed.
    assert sorted(json.loads((tmp_path / "results.json").read_text())) == ["after", "device", "toy"]


def test_what_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    command = ["sh", "-c", f"sleep 600 & echo $! > {pid_file}; wait"]
    assert finish(command, {**os.environ}, 1.5) == "took more than 1.5 s"
    while alive(int(pid_file.read_text())):
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_megabyte_is_a_million_bytes_and_memory_is_the_greatest_of_a_process() -> None:
    grown = "x = bytearray(300_000_000); x[:] = b'a' * len(x)"
    took = timed(lambda: subprocess.run([sys.executable, "-c", grown], check=True))
    assert peak_bytes() > 300_000_000
    assert took["cpu_s"] > 0
    assert took["wall_s"] > 0


@pytest.mark.parametrize("told", [True, False])
def test_what_was_measured_is_published_if_results_are_written(toy: str, tmp_path: Path, told: bool) -> None:
    kept = tmp_path / "kept"
    benchmark = replace(load(toy)[1][0], publish=lambda folder: kept.write_text((folder / "data").read_text()))
    measure(toy, benchmark, rounds=1, publish=told)
    assert kept.exists() == told


def test_a_ratio_is_taken_within_a_round() -> None:
    goal = Goal(name="ratio", over=("a", "b"), of="cpu_s", at_least=2)
    rounds = [
        {"a": {"cpu_s": 2.0}, "b": {"cpu_s": 1.0}},
        {"a": {"cpu_s": 9.0}, "b": {"cpu_s": 3.0}},
        {"a": {}, "b": {}},
    ]
    assert goal.values(rounds) == [2.0, 3.0]
    assert goal.meets(2.0)
    assert not goal.meets(1.9)


@pytest.mark.parametrize(
    ("limits", "now", "before", "loss"),
    [
        ({"at_least": 9}, 10.0, 12.0, 0.2),
        ({"at_least": 9}, 12.0, 10.0, 0.0),
        ({"at_most": 0.2}, 0.15, 0.1, 0.5),
        ({"at_most": 0.2}, 0.1, 0.15, 0.0),
        ({"at_most": 0.2}, 0.1, 0.0, math.inf),
        ({"at_least": 9}, 0.0, 0.0, 0.0),
        ({"at_least": 0.9, "at_most": 1.1}, 1.09, 0.91, 0.0),
        ({}, 5.0, 1.0, 0.0),
    ],
)
def test_a_loss_is_a_share_whichever_way_is_better(
    limits: dict[str, float], now: float, before: float, loss: float
) -> None:
    goal = Goal(name="g", over=("a",), of="cpu_s", **limits)
    assert goal.loss(now, before) == pytest.approx(loss)


def test_a_loss_is_refused_without_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "JSON_FILE", tmp_path / "results.json")
    monkeypatch.setattr(results, "TABLE_FILE", tmp_path / "RESULTS.md")
    speed = iter([10.0, 5.0, 5.0, 5.0])
    benchmark = Benchmark(
        name="toy",
        ways=(Way("ours", lambda folder: None),),
        goals=(Goal(name="speed", over=("ours",), of="speed", at_least=1),),
    )
    monkeypatch.setattr(runner, "modules", lambda names: ["toy"])
    monkeypatch.setattr(runner, "load", lambda module: ("A toy.", (benchmark,)))
    monkeypatch.setattr(runner, "measure", lambda *_, **__: Measured([{"ours": {"speed": next(speed)}}]))

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["bench", *words])
        return runner.main()

    assert run() == 0
    assert run() == 1
    assert "toy: speed was 10 and is 5, 100% worse; say why" in capsys.readouterr().err
    assert json.loads((tmp_path / "results.json").read_text())["toy"]["goals"][0]["median"] == 10.0
    assert run("--because", "more pixels") == 0
    assert "Worse than before: more pixels (toy: speed was 10" in (tmp_path / "RESULTS.md").read_text()
    # The new number is the one to keep up with.
    assert run() == 0


def test_the_committed_table_is_that_of_the_committed_numbers() -> None:
    if results.JSON_FILE.exists():
        assert results.TABLE_FILE.read_text() == results.render(results.read())


def test_every_benchmark_can_be_loaded_and_says_what_it_is() -> None:
    names = []
    for module in modules():
        doc, benchmarks = load(module)
        assert len(doc.splitlines()) > 2, module
        for benchmark in benchmarks:
            assert re.fullmatch(r"[a-z0-9_]+", benchmark.name), "RESULTS.md links to it"
            names.append(benchmark.name)
            ways = {way.name for way in benchmark.ways}
            assert all(set(goal.over) <= ways for goal in benchmark.goals), benchmark.name
    assert len(names) == len(set(names))
    with pytest.raises(SystemExit, match="no benchmark nonsense"):
        list(modules(["nonsense"]))


def test_a_gpu_that_is_not_there_is_refused_and_without_a_wish_nothing_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import bench_gpu

    monkeypatch.delenv("ROBOLIFT_GPU", raising=False)
    assert not any(way.available for benchmark in bench_gpu.BENCHMARKS for way in benchmark.ways)
    monkeypatch.setenv("ROBOLIFT_GPU", "gpu0")
    for benchmark in bench_gpu.BENCHMARKS:
        assert benchmark.prepare is not None
        with pytest.raises(SystemExit, match="ROBOLIFT_GPU=gpu0: PyTorch sees"):
            benchmark.prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []
