"""What a pipeline takes at scale: the arithmetic by hand, its options, and that pages and constants agree with code."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import bench_costs
from robolift.__main__ import main
from robolift.errors import EXIT_USAGE
from robolift.planner import assumed as assuming
from robolift.planner import costs, forecast, forecast_table, limits, plan, steps, value, workload
from robolift.planner.costs import Costs, StageCost
from robolift.planner.forecast import Assumptions, Training
from robolift.planner.recordings import Camera, Recordings
from robolift.stages import pack_frames
from robolift.value_model.presets import PRESETS

ROOT = Path(__file__).parents[2]
TWO = tuple(Camera(name=name, height=10, width=20, codec=codec) for name, codec in (("a", "h264"), ("b", "hevc")))
TEN_HOURS = Recordings(
    episodes=100,
    frames=360_000,
    fps=10.0,
    tasks=1,
    cameras=TWO,
    data_files=100,
    video_files=200,
    data_bytes=1e6,
    video_bytes=1e9,
)
LINEAR = StageCost(
    cpu_s={"start": 2.0, "frame": 1e-3},
    memory_bytes={"start": 100.0, "frame": 2.0},
    written_bytes={"frame": 1000.0},
    requests={"GET": {"start": 3.0, "data_file": 2.0, "clip": 1.0}, "PUT": {"start": 4.0}},
    read_bytes={"start": 1000.0, "window_byte": 2.0},
)
KNOWN = Costs(
    measured={"cpu": "a machine", "date": "2026-11-27"},
    decoding={"picture": 1e-3, "pixel_h264": 1e-5, "pixel_av1": 2e-5},
    reading={"picture": 1e-4},
    stages=dict.fromkeys({step.stage for found in steps.PIPELINES.values() for step in found}, LINEAR)
    | {
        "train_value": replace(LINEAR, cpu_s={"start": 2.0, "row": 0.5}),
        "pack_frames": replace(LINEAR, cpu_s={"start": 2.0, "picture": 1e-3, "pixel_h264": 1e-5, "pixel_av1": 2e-5}),
    },
)
SMALL = Assumptions(value=Training(steps=10, batch=8), policy=Training(steps=10, batch=8, looks=0))
TOWERS = replace(
    SMALL,
    value=Training(steps=10, batch=8, network=value.network(PRESETS["pi05"](), pictures=2), image_side=224),
    encodes_per_s=400.0,
)


def planned(assumed=SMALL, recordings=TEN_HOURS, known=KNOWN, pipeline="recap"):
    found = forecast.forecast(pipeline, recordings, known, assumed)
    return found, {stage.step.stage: stage for stage in found.stages}


def test_counts_by_hand():
    counts = workload.counted(TEN_HOURS, step=7)
    assert (counts["picture"], counts["clip"], counts["step"], counts["start"]) == (720_000, 200, 7, 1)
    # 200 pixels of a picture; what is no codec that was measured counts as the dearer one.
    assert counts["pixel_h264"] == counts["pixel_av1"] == 72_000_000
    assert counts["byte_h264"] == counts["byte_av1"] == 5e8
    assert counts["root_h264"] == pytest.approx(1.897367e8)  # of 72e6 pixels and 5e8 bytes
    assert costs.evaluate({"start": 2, "step": 3, "shard": 5}, counts) == 2 + 21


def test_a_stage_of_one_process_by_hand():
    _, stages = planned(replace(SMALL, pod_start_s=20))
    found = stages["label_advantage"]
    assert (found.cpu_s, found.wall_s, found.gpu_s, found.pods, found.shards) == (362, 382, 0, 2, 1)
    assert (found.memory_bytes, found.written_bytes) == (720_100, 360e6)
    # Uploads of 360 MB are 6 whole parts of 50 MiB and a rest.
    assert found.requests == {"GET": 3 + 200 + 200, "PUT": 4 + 6}
    # 200 clips in files of 5 MB, each of which is read from twice.
    assert found.read_bytes == 1000 + 2 * 200 * 5e6


def test_shards_on_a_cpu_by_hand():
    found = planned(replace(SMALL, shard_minutes=1))[1]["predict_values"]
    # 360 s in shards of a minute, each with a start of 2 s; all six at once. A shard is a graph, a driver, a process.
    assert (found.shards, found.pods, found.cpu_s, found.wall_s) == (6, 18, 372, 62)
    assert found.requests["GET"] == 3 * 6 + 200 + 200
    assert planned(replace(SMALL, num_shards=20))[1]["predict_values"].wall_s == 3 * (2 + 18)


def test_shards_on_gpus_by_hand():
    spread = replace(TOWERS, num_shards=10, parallelism=10)
    found = planned(spread)[1]["predict_values"]
    # Two pictures of a frame at 400 a second: 1,800 s. Reading 720,000 packed pictures takes 72 s beside it.
    assert found.cpu_s == pytest.approx(20 + 72)
    assert (found.wall_s, found.gpu_s) == pytest.approx((182, 1820))
    # With nothing packed, decoding takes 720 s + 2,160 s, so the GPU waits for it.
    spread = replace(spread, frame_format="none")
    alone = planned(spread)[1]["predict_values"]
    assert alone.cpu_s == pytest.approx(20 + 2880)
    assert (alone.wall_s, alone.gpu_s) == pytest.approx((290, 2900))
    assert planned(replace(spread, readers=4))[1]["predict_values"].gpu_s == pytest.approx(1820)


def test_trainings_by_hand():
    found = planned()[1]["train_value"]
    assert (found.cpu_s, found.gpu_s, found.pods, found.scratch_bytes) == (2 + 40, 0, 3, 0)
    towers = replace(TOWERS, policy=replace(TOWERS.value, batch=16, padded=True))
    step_s = towers.step_s(towers.value)
    flops = plan.flops(towers.value.network, remat=True).model
    assert step_s == pytest.approx(8 * flops / (8 * 989e12 * 0.35))
    alone = planned(replace(towers, frame_format="none"))[1]
    # Every picture is decoded before the first step, and read in each.
    assert alone["train_value"].cpu_s == pytest.approx(2 + 2880 + 80 * 2 * 1e-4)
    assert alone["train_value"].wall_s == pytest.approx(2 + 2880 + 10 * step_s)
    assert alone["train_value"].gpu_s == 8 * alone["train_value"].wall_s
    assert alone["train_value"].scratch_bytes == 720_000 * 224 * 224 * 3
    # Two policies each decode two pictures for each that they look at, beside their steps, on each of eight GPUs.
    assert alone["train_policy"].cpu_s == pytest.approx(2 * (2 + 2 * 160 * 2880 / 360_000))
    assert (alone["train_policy"].runs, alone["train_policy"].pods) == (2, 6)
    assert planned(replace(towers, baselines=0))[1]["train_policy"].runs == 1


def test_packed_pictures_are_not_decoded_again():
    towers = replace(TOWERS, policy=replace(TOWERS.value, batch=16, padded=True), num_shards=10)
    stages = planned(towers)[1]
    # Once for the value model and, of another shape, once for the policy: each on eight cores.
    assert stages["pack_frames"].cpu_s == pytest.approx(2 * (2 + 2880))
    assert stages["pack_frames"].wall_s == pytest.approx(2 * (2 + 360))
    assert stages["pack_frames"].scratch_bytes == 720_000 * 224 * 224 * 3
    assert stages["pack_frames"].written_bytes == 2 * 720_000 * 224 * 224 * 3
    cpu_s = {name: stages[name].cpu_s for name in ("train_value", "predict_values", "train_policy")}
    assert cpu_s == pytest.approx(
        {"train_value": 2 + 160e-4, "predict_values": 20 + 72, "train_policy": 2 * (2 + 320e-4)}
    )
    assert all(stages[name].scratch_bytes == 0 for name in cpu_s)
    jpeg = planned(replace(towers, frame_format="jpeg"))[1]["pack_frames"]
    assert jpeg.scratch_bytes == pytest.approx(720_000 * 224 * 224 * 3 / 12)


def test_a_policy_that_looks_alike_or_not_at_all_packs_nothing_more():
    # A second packing starts, and finds the first, or nothing to do.
    for policy in (TOWERS.value, SMALL.policy):
        found = planned(replace(TOWERS, policy=policy))[1]["pack_frames"]
        assert (found.runs, found.pods, found.cpu_s) == (2, 4, pytest.approx(2 + 2880 + 2))
    none = planned(replace(TOWERS, frame_format="none"))[1]["pack_frames"]
    assert (none.cpu_s, none.written_bytes, none.scratch_bytes) == (4, 0, 0)


def test_two_datasets_are_imported_packed_and_predicted():
    stages = planned(pipeline="stage_advantage")[1]
    runs = {name: stage.runs for name, stage in stages.items()}
    assert runs == {
        "import_dataset": 2,
        "pack_frames": 3,
        "train_value": 1,
        "predict_values": 2,
        "merge_values": 2,
        "label_advantage": 2,
        "compute_norm_stats": 1,
        "train_policy": 2,
        "write_report": 1,
    }
    once = planned()[1]
    assert stages["label_advantage"].cpu_s == 2 * once["label_advantage"].cpu_s
    assert stages["label_advantage"].requests["GET"] == 2 * once["label_advantage"].requests["GET"]
    assert stages["label_advantage"].memory_bytes == once["label_advantage"].memory_bytes


def test_what_was_not_measured_is_named():
    known = replace(KNOWN, stages={name: cost for name, cost in KNOWN.stages.items() if name != "pack_frames"})
    found, stages = planned(TOWERS, known=known)
    assert "pack_frames not measured: left out" in forecast_table.remarks(found, TOWERS)
    assert stages["train_value"].scratch_bytes > 0  # then the stages are taken to decode


def test_the_dearest_stage_comes_first():
    found, _ = planned(TOWERS)
    assert [stage.step.stage for stage in found.stages[:3]] == ["predict_values", "train_value", "pack_frames"]
    assert found.total("gpu_s") == sum(stage.gpu_s for stage in found.stages)
    assert found.requests()["PUT"] == sum(stage.requests["PUT"] for stage in found.stages)
    # Four steps, a baseline's graph and evaluation, and eight graphs.
    assert found.other_pods == 8 + 3 + 8


def test_flops_of_a_frame_are_those_of_a_row_where_one_frame_is_seen():
    config = PRESETS["pi05"]()
    alone = assuming.frame_flops(config, 3, 1)
    assert alone == plan.flops(value.network(config, pictures=3), remat=False).forward
    pair = plan.flops(value.network(config, pictures=6), remat=False).forward
    # Six pictures a row, two rows a frame: encoded once, it is three pictures in place of twelve.
    vision = assuming._seen(value.network(config, pictures=1))
    assert assuming.frame_flops(config, 3, 2) == pytest.approx(2 * pair - 9 * vision)


def test_limits_name_what_is_too_much():
    large = TEN_HOURS.scaled(1_000_000)
    told = KNOWN.stages["import_dataset"]
    listed = replace(told, written_bytes={"data_file": 100.0, "video_file": 200.0})
    known = replace(KNOWN, stages={**KNOWN.stages, "import_dataset": listed})
    found, _ = planned(TOWERS, large, known)
    said = "\n".join(limits.limits(found, TOWERS))
    assert "predict_values: there are at most 64 shards, so each takes 781 h where 10 min were meant" in said
    assert "label_advantage needs 67.1 GiB in one pod that gets 2" in said
    assert "label_advantage takes 1e+04 h in one pod and is ended after 24" in said
    assert "pack_frames keeps 1.08e+04 TB of pictures on its pod's disk" in said
    assert "import_dataset lists 3e+07 files in one JSON document of 4.66 GiB" in said
    assert "train_policy looks at 80 of 3.6e+10 frames" in said
    assert limits.limits(planned(recordings=TEN_HOURS.scaled(1e-3))[0], SMALL) == []
    alone = replace(TOWERS, frame_format="none")
    said = "\n".join(limits.limits(planned(alone, large, known)[0], alone))
    assert "train_value decodes all pictures to 1.08e+04 TB of its pod's disk before it trains" in said
    assert "pack_frames keeps" not in said


def test_too_few_shards_are_told_how_many_would_do():
    few = replace(SMALL, num_shards=2, shard_minutes=1)
    said = limits.limits(planned(few)[0], few)
    # Each takes 182 s.
    assert any("each of 2 shards takes 0.0506 h where 1 min were meant" in line for line in said)
    assert any("set num_shards to 7" in line for line in said)


def test_cameras_that_are_counted_as_another_codec_are_named():
    said = forecast_table.assumptions("recap", TEN_HOURS, SMALL)
    assert "decoding is counted as that of AV1 for b (hevc)" in said
    known = replace(TEN_HOURS, cameras=TWO[:1])
    assert not any("AV1" in line for line in forecast_table.assumptions("recap", known, SMALL))


def test_videos_in_large_files_are_fetched_again_and_again():
    packed = replace(TEN_HOURS.scaled(10_000), video_files=5000.0)
    found, stages = planned(recordings=packed)
    # 200,000 clips, and 50 MiB around each, twice; of 1 TB of videos.
    assert stages["write_report"].read_bytes == pytest.approx(1000 + 2 * 200_000 * 50 * 2**20)
    # Whatever was counted on small files, a read brings no more than a window.
    few = replace(KNOWN, stages=KNOWN.stages | {"write_report": replace(LINEAR, requests={"GET": {"start": 3.0}})})
    assert planned(recordings=packed, known=few)[1]["write_report"].requests["GET"] == pytest.approx(400_000)
    assert "write_report fetches 21 TB of 1 TB that were recorded" in "\n".join(limits.limits(found, SMALL))


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0"), (0.01234, "0.0123"), (999.6, "1k"), (1234, "1.23k"), (1.08e9, "1.08G"), (4.2e13, "42T")],
)
def test_numbers_are_short(size, shown):
    assert forecast_table.number(size) == shown


@pytest.fixture
def plan_of(capsys):
    def run(*options):
        code = main(["plan", *options])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_a_dataset_is_planned_for_itself_and_for_more(plan_of, recording_uri):
    code, out, err = plan_of("--dataset", recording_uri, "--hours", "50", "--value-preset", "siglip_gemma")
    assert (code, err) == (0, "")
    assert "siglip_gemma on 8 GPUs" in out
    assert out.count("predict_values") == out.count("\nsum") == 2
    assert "\n50 h: 3.6M frames at 20/s" in out


def test_the_document_says_what_the_table_says(plan_of, dataset):
    small = ("--value-preset", "tiny", "--policy-preset", "tiny", "--value-steps", "7", "--policy-batch", "9")
    code, out, _ = plan_of(
        "--dataset", dataset.uri, "--hours", "100", "--pipeline", "stage_advantage", "--json", *small
    )
    document = json.loads(out)
    here, more = document["forecasts"]
    assert code == 0
    assert here["recordings"]["episodes"] == dataset.counts["episodes"]
    assert more["recordings"]["hours"] == pytest.approx(100)
    assert more["total"]["cpu_s"] == pytest.approx(sum(stage["cpu_s"] for stage in more["stages"]))
    assert more["total"]["gpu_s"] == 0
    assert {"compute_norm_stats", "predict_values"} <= {stage["stage"] for stage in more["stages"]}
    assert "value model: 7 steps of 48 rows, the small network, on a CPU" in document["assumed"]
    assert "policy: 1000 steps of 9 rows, the small network, on a CPU" in document["assumed"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "plan needs --preset, to plan a training, or --dataset, to plan a pipeline; one of them"),
        (["--preset", "pi05", "--dataset", "x"], "one of them"),
        (["--dataset", "x", "--hours", "0"], "--hours is 0; expected numbers above 0"),
        (["--dataset", "x", "--num-shards", "65"], "--num-shards is 65; expected at most 64"),
        (["--dataset", "x", "--gpu-encodes-per-s", "nan"], "--gpu-encodes-per-s is nan; expected a number above 0"),
        (["--dataset", "x", "--mfu", "1.5"], "--mfu is 1.5; expected a share in (0, 1]"),
        (["--dataset", "x", "--pod-start-s", "-1"], "--pod-start-s is -1; expected seconds"),
        (["--dataset", "x", "--baselines", "-1"], "--baselines is -1; expected at least 0"),
        (
            ["--dataset", "x", "--batch-size", "3", "--freeze", "vision"],
            "--batch-size, --freeze: no option of --dataset",
        ),
        (["--preset", "pi05", "--num-shards", "9", "--hours", "3"], "--hours, --num-shards: no option of --preset"),
    ],
)
def test_wrong_options_are_refused(plan_of, options, said):
    code, out, err = plan_of(*options)
    assert (code, out) == (EXIT_USAGE, "")
    assert said in err


def test_unknown_presets_are_refused(plan_of, recording_uri):
    code, _, err = plan_of("--dataset", recording_uri, "--value-preset", "huge")
    assert code == EXIT_USAGE
    assert "--value-preset huge: there are: tiny, siglip_gemma, pi05" in err


def test_what_was_measured_is_what_is_counted():
    known = costs.load()
    forms = [form for cost in known.stages.values() for form in (cost.cpu_s, cost.memory_bytes, cost.written_bytes)]
    forms += [form for cost in known.stages.values() for form in cost.requests.values()]
    assert {name for form in forms for name in form} <= set(costs.COUNTED)
    assert all(coefficient > 0 for form in forms for coefficient in form.values())
    assert set(known.decoding) <= set(costs.COUNTED)
    assert known.decoding


def test_what_was_measured_covers_the_pipelines():
    assert bench_costs.incomplete(costs.load()) == []
    assert {step.stage for found in steps.PIPELINES.values() for step in found} <= set(costs.load().stages)


def graphs_and_tasks(spec, dag):
    """The graphs below one, and how often each step runs in an iteration without baselines."""
    graphs, tasks = [], Counter()
    for name, task in dag["tasks"].items():
        component = spec["components"][task["componentRef"]["name"]]
        if "dag" not in component:
            tasks[name.rstrip("-0123456789").replace("-", "_")] += 1
            continue
        graphs.append(name)
        condition = task.get("triggerPolicy", {}).get("condition", "")
        if "iterations" in condition or condition.endswith("== ''") or "train-policy-2" in component["dag"]["tasks"]:
            continue  # a later iteration; episodes are given; baselines
        below, more = graphs_and_tasks(spec, component["dag"])
        graphs, tasks = graphs + below, tasks + more
    return graphs, tasks


@pytest.mark.parametrize("pipeline", sorted(steps.PIPELINES))
def test_steps_graphs_and_sizes_are_those_of_the_pipelines(pipeline):
    pytest.importorskip("kfp")
    from components import _resources, _wiring

    compiled = next(yaml.safe_load_all((ROOT / f"tests/golden/{pipeline}.yaml").read_text()))
    graphs, tasks = graphs_and_tasks(compiled, compiled["root"]["dag"])
    planned_steps = {step.stage: steps.runs(pipeline, step, 0) for step in steps.PIPELINES[pipeline]}
    assert {**planned_steps, **steps.UNMEASURED[pipeline]} == tasks
    assert 1 + len(graphs) == steps.GRAPHS[pipeline]
    for step in steps.PIPELINES[pipeline]:
        if step.stage in _resources.STAGE_SIZES:
            size = _resources.SIZES[_resources.STAGE_SIZES[step.stage]]
            assert (step.memory_gib, step.stage) == (int(size.memory.removesuffix("Gi")), step.stage)
            assert step.kind == "training" or step.hours == size.hours
            assert step.kind != "packing" or step.cores == int(size.cpu)
    assert steps.PARALLELISM == _wiring.LOOP_PARALLELISM
    assert compiled["root"]["inputDefinitions"]["parameters"]["num_shards"]["defaultValue"] == steps.DEFAULT_SHARDS
    assert compiled["root"]["inputDefinitions"]["parameters"]["baselines"]["defaultValue"] == ["plain"]


def test_files_are_cut_as_the_store_s_client_cuts_them():
    s3fs = pytest.importorskip("s3fs")
    assert s3fs.core.calculate_chunksize(1 << 30) == forecast.PART_BYTES
    assert s3fs.S3FileSystem.default_block_size == workload.WINDOW_BYTES


def test_formats_are_those_of_the_stage():
    told = set(get_args(pack_frames.Config.model_fields["format"].annotation))
    assert told <= set(steps.FORMATS)
    assert set(steps.FORMATS) <= told | {"none"}


def test_the_page_says_what_the_command_says():
    spec = importlib.util.spec_from_file_location("generate_scaling", ROOT / "docs" / "generate_scaling.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    page = generator.TARGET.read_text(encoding="utf-8")
    assert page == generator.render(page), "run `python docs/generate_scaling.py`"
