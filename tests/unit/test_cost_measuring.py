"""How costs are measured: the fit by literal numbers, a stage in a process of its own, requests as a server counts."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import bench_costs, cost_fit, cost_jobs, cost_measure, cost_requests, cost_runs
from benchmarks.cost_chain import Chain, Taken, publish_tables, publish_values, written
from benchmarks.cost_data import Shape, write
from benchmarks.cost_passes import Pass
from benchmarks.cost_runs import Run
from robolift import manifest
from robolift.planner import costs, recordings, steps
from robolift.stages.stage import execute


def test_coefficients_are_found_again():
    counts = [{"start": 1.0, "frame": n, "episode": n / per} for n, per in ((1e5, 100), (4e5, 100), (1e5, 1000))]
    runs = [(one, 2 + 3e-6 * one["frame"] + 4e-3 * one["episode"]) for one in counts]
    found = cost_fit.coefficients(("start", "frame", "episode", "shard"), runs)
    assert found == pytest.approx({"start": 2, "frame": 3e-6, "episode": 4e-3}, rel=1e-3)


def test_no_coefficient_is_negative():
    runs = [({"start": 1.0, "frame": n}, 2.0 - n / 1e9) for n in (1.0, 1e5, 1e6)]
    assert cost_fit.coefficients(("start", "frame"), runs) == {"start": pytest.approx(2, rel=1e-2)}


def test_runs_of_equal_counts_are_one_of_their_medians():
    taken = [Taken("s", {"start": 1.0}, Run(uri=f"u{n}", cpu_s=n, peak_bytes=10 * n), 5) for n in (1.0, 9.0, 2.0)]
    (run,) = cost_fit.medians(taken)["s"]
    assert run == ({"start": 1.0}, {"cpu_s": 2.0, "memory_bytes": 20.0, "written_bytes": 5.0})


def test_passes_are_kept(tmp_path):
    ran = [
        Taken("s", {"start": 1.0}, Run(uri="u", cpu_s=number, peak_bytes=1, requests={"GET": 2.0}), 5)
        for number in (3.0, 1.0)
    ]
    passes = [Pass(ran[:1], ran), Pass(ran[1:], [])]
    for one in passes:
        one.save(tmp_path)
    assert Pass.load_all(tmp_path) == passes


def test_seconds_of_decoding_alone_are_medians_and_no_stage():
    taken = [Taken("decoding", {"clip": clips}, Run("", s)) for clips, s in ((1, 3.0), (2, 7.0), (1, 1.0), (1, 2.0))]
    assert cost_fit.seconds(taken, "decoding") == [({"clip": 1}, 2.0), ({"clip": 2}, 7.0)]
    assert cost_fit.fit(taken, {}) == {}


@pytest.mark.parametrize(("grown", "form"), [(4e6, {"start": 2.02e8}), (4e7, {"start": 2e8, "frame": 10.0})])
def test_memory_that_grows_by_noise_alone_is_flat(grown, form):
    taken = [
        Taken("label_returns", {"start": 1.0, "frame": n}, Run(uri=str(n), cpu_s=1, peak_bytes=2e8 + grown * n / 4e6))
        for n in (0.0, 4e6)
    ]
    found = cost_fit.fit(taken, {})["label_returns"]["memory_bytes"]
    assert found == pytest.approx(form, rel=1e-2)


@pytest.mark.parametrize(("stage", "frame"), [("import_dataset", 0.6027), ("label_returns", 0.5059)])
def test_written_bytes_are_fitted_by_share_or_by_bytes(stage, frame):
    sizes = {100.0: 110.0, 1000.0: 500.0}
    taken = [
        Taken(stage, {"start": 0.0, "frame": n}, Run(uri=str(n), cpu_s=1, peak_bytes=1), size)
        for n, size in sizes.items()
    ]
    assert cost_fit.fit(taken, {})[stage]["written_bytes"] == {"frame": pytest.approx(frame, abs=1e-3)}


def test_what_reads_tables_alone_is_fitted_to_tables_alone():
    def ran(frames, cpu_s, **files):
        return Taken("label_returns", {"start": 1.0, "frame": frames, **files}, Run(str(cpu_s), cpu_s, peak_bytes=1))

    taken = [ran(0, 0.25), ran(1e6, 1.25), ran(1e6, 9.0, data_file=3.0)]
    assert cost_fit.fit(taken, {})["label_returns"]["cpu_s"] == pytest.approx({"start": 0.25, "frame": 1e-6}, rel=1e-3)


def test_a_slope_is_that_of_the_line():
    assert cost_fit.slope([1, 4, 16], [5, 11, 35]) == pytest.approx(2)


def test_the_ratio_compares_slopes_and_not_what_a_start_costs():
    stage = costs.StageCost(
        cpu_s={"start": 50.0, "frame": 2e-6},
        memory_bytes={"start": 3e8},
        written_bytes={"frame": 2e-4},
        requests={},
        read_bytes={},
    )
    known = costs.Costs(measured={}, decoding={}, reading={}, stages={"label_returns": stage})
    taken = [
        Taken(
            "label_returns",
            {"start": 1.0, "frame": n, "picture": 0.0, "data_file": 0.0},
            Run(uri="", cpu_s=1 + n * 1e-6, peak_bytes=1.5e8),
            400.0,
        )
        for n in (1e6, 4e6)
    ]
    found = bench_costs.ratios(known, taken, "label_returns")
    assert found == {"slope": pytest.approx(2), "written": pytest.approx(2), "memory": pytest.approx(2)}
    with pytest.raises(RuntimeError, match="merge_values did not run"):
        bench_costs.ratios(known, taken, "merge_values")


def test_what_was_not_measured_is_refused():
    found = bench_costs.incomplete(costs.Costs(measured={}, decoding={}, reading={"picture": 1.0}, stages={}))
    assert {"decoding", "requests of train_policy", "read_bytes of label_returns", "PUT of pack_frames"} <= set(found)


def test_a_run_that_finds_its_output_is_no_measurement(tmp_path):
    chain = Chain.of(
        str(write(tmp_path, Shape(2, 6))),
        tmp_path,
        str(tmp_path / "runs"),
        runner=lambda *_, **__: Run(uri="same", cpu_s=1, peak_bytes=1),
    )
    chain.dataset()
    with pytest.raises(RuntimeError, match="import_dataset found same of an earlier run"):
        chain.dataset()


def test_memory_of_a_stage_is_that_of_its_processes_together():
    child = "import time; held = bytearray(60_000_000); print(flush=True); time.sleep(60)"
    parent = (
        "import subprocess, sys\n"
        f"found = [subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE) for _ in range(2)]\n"
        "[one.stdout.readline() for one in found]; print(flush=True); sys.stdin.readline()\n"
        "[one.kill() for one in found]"
    )
    words = [sys.executable, "-c", parent]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        members = cost_runs._family(process.pid)
        assert len(members) == 3
        assert sum(map(cost_runs._held, members)) > 120e6
        process.stdin.write(b"\n")


@pytest.mark.parametrize(
    ("method", "path", "query", "name"),
    [
        ("GET", "/costs/runs/a.json", "", "GET"),
        ("GET", "/costs", "list-type=2&prefix=runs", "LIST"),
        ("GET", "/costs/", "prefix=runs", "LIST"),
        ("HEAD", "/costs/runs/a.json", "", "HEAD"),
        ("PUT", "/costs/runs/a.json", "partNumber=2&uploadId=x", "PUT"),
        ("POST", "/costs/runs/a.json", "uploads", "PUT"),
        ("POST", "/costs", "delete", "DELETE"),
    ],
)
def test_requests_are_named_as_they_are_billed(method, path, query, name):
    assert cost_requests.operation(method, path, query) == name


def test_requests_and_the_bytes_that_are_read_are_counted():
    def application(environ, start):
        start("200 OK", [("Content-Length", "7")])
        return io.BytesIO(b"content")

    counting = cost_requests.Counting(application)
    for method in ("GET", "GET", "PUT"):
        counting({"REQUEST_METHOD": method, "PATH_INFO": "/b/key"}, lambda *_: None)
    assert counting.seen == {"GET": 2, "PUT": 1, "read_bytes": 14}


def test_a_recording_is_as_large_as_its_shape_says(tmp_path):
    shape = Shape(2, 6, "v3.0", cameras=2, size=(32, 48), codec="av1")
    found = recordings.read(str(write(tmp_path, shape)))
    assert (found.episodes, found.frames, len(found.cameras)) == (2, 12, 2)
    assert {(camera.height, camera.width, camera.codec) for camera in found.cameras} == {(32, 48, "av1")}
    assert write(tmp_path, shape) == tmp_path / shape.name  # once


def test_what_decodes_costs_decoding_and_its_own():
    decoding = {"picture": 1e-3, "byte_av1": 1e-6}
    taken = [
        Taken(
            "pack_frames",
            {"start": 1.0, "picture": n, "byte_av1": 100 * n},
            Run(uri=f"{n}", cpu_s=3 + n * (1e-3 + 1e-4 + 5e-4), peak_bytes=4e8),
            5e3,
        )
        for n in (1000.0, 9000.0)
    ]
    forms = cost_fit.fit(taken, decoding)["pack_frames"]
    assert forms["cpu_s"] == pytest.approx({"start": 3, "picture": 1.5e-3, "byte_av1": 1e-6}, rel=1e-3)
    assert forms["memory_bytes"] == pytest.approx({"start": 4e8})


def test_labels_are_measured_on_tables_whose_source_nobody_reads(tmp_path):
    dataset = manifest.load(publish_tables(str(tmp_path / "runs"), 3, 5))
    frames = dataset.table("frames")
    assert frames.column("frame_index").to_pylist() == [0, 1, 2, 3, 4] * 3
    assert dataset.table("episodes").column("outcome").to_pylist() == ["failure", "success", "failure"]
    shards = [manifest.load(uri) for uri in publish_values(str(tmp_path / "runs"), dataset, 2)]
    assert [shard.counts["frames"] for shard in shards] == [5, 10]
    merged = execute(
        "merge_values", {}, {"dataset": dataset.uri, "shards": [one.uri for one in shards]}, str(tmp_path / "runs")
    )
    assert merged.counts["frames"] == 15


def test_a_stage_is_run_and_measured_by_its_own_door(tmp_path):
    chain = Chain.of(str(write(tmp_path, Shape(2, 6))), tmp_path, str(tmp_path / "runs"))
    uri = chain.dataset()
    (one,) = chain.taken
    assert (one.stage, one.counts["frame"], one.run.uri) == ("import_dataset", 12, uri)
    assert 0.1 < one.run.cpu_s < 60
    assert one.run.peak_bytes > 50e6
    assert one.written_bytes == written(uri) > 1000


def test_what_nothing_follows_is_left_for_later_and_can_be_done_at_any_time(tmp_path):
    chain = Chain.of(str(write(tmp_path, Shape(2, 6))), tmp_path, str(tmp_path / "runs"), later=True)
    dataset = chain.dataset()
    chain.copy(dataset, chain.targets(dataset))
    assert [one.stage for one in chain.taken] == ["import_dataset", "label_returns"]
    assert [job.stage for job in cost_jobs.without_tables(chain)] == ["import_dataset", "export_dataset"]
    cost_jobs.save(tmp_path, "jobs.json", chain.jobs)
    assert cost_jobs.load(tmp_path, "jobs.json") == chain.jobs
    (one,) = cost_measure.measure(tmp_path, chain.jobs[-1])
    assert (one.stage, one.counts["frame"]) == ("export_dataset", 12)
    assert one.run.cpu_s > 0.1
    assert one.written_bytes > 1000
    assert not Path(one.run.uri).exists()


def test_a_job_is_given_what_it_was_told_though_more_is_made_later(tmp_path):
    chain = Chain.of(str(write(tmp_path, Shape(2, 6))), tmp_path, str(tmp_path / "runs"), later=True)
    made = {"dataset": "a"}
    chain.do("write_report", {}, made, last=True)
    made["labels"] = "b"
    assert chain.jobs[0].inputs == {"dataset": "a"}


def test_decoding_alone_is_a_job_of_what_there_is_to_decode(tmp_path):
    (job,) = cost_jobs.decoded(tmp_path, [Shape(2, 6, cameras=1)])
    (one,) = cost_measure.measure(tmp_path, job)
    assert (one.stage, one.counts["picture"], one.run.uri) == ("decoding", 12, "")
    assert one.run.cpu_s > 0


def test_each_stage_has_its_turn_in_a_round():
    assert set(bench_costs.ORDER) == {"decoding", *cost_fit.CPU}


def test_a_goal_stands_for_every_stage_that_is_planned():
    planned = {step.stage for found in steps.PIPELINES.values() for step in found}
    assert planned == set(cost_fit.CPU)
    wanted = {f"{name} {what}" for name in planned for what in ("slope", "written", "memory")}
    assert {goal.of for goal in bench_costs.BENCHMARK.goals} == wanted
    assert bench_costs.BENCHMARK.rounds >= 5
