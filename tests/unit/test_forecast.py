"""What a pipeline takes at scale: the arithmetic by hand, its options, and that pages and constants agree with code."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from robolift.__main__ import main
from robolift.errors import EXIT_USAGE
from robolift.planner import assumed as assuming
from robolift.planner import costs, forecast, forecast_table, limits, plan, steps, value, workload
from robolift.planner.costs import Costs, StageCost
from robolift.planner.forecast import Assumptions, Training
from robolift.planner.recordings import Camera, Recordings
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
    stages=dict.fromkeys({step.stage for step in steps.PIPELINES["recap"]} - {"pack_frames"}, LINEAR)
    | {"train_value": replace(LINEAR, cpu_s={"start": 2.0, "row": 0.5, "picture": 1e-3})},
)
SMALL = Assumptions(value=Training(steps=10, batch=8), policy=Training(steps=10, batch=8))
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
    # 360 s in shards of a minute, each with a start of 2 s; all six at once.
    assert (found.shards, found.pods, found.cpu_s, found.wall_s) == (6, 12, 372, 62)
    assert found.requests["GET"] == 3 * 6 + 200 + 200
    assert planned(replace(SMALL, num_shards=20))[1]["predict_values"].wall_s == 3 * (2 + 18)


def test_shards_on_gpus_by_hand():
    found = planned(replace(TOWERS, num_shards=10, parallelism=10))[1]["predict_values"]
    # Two pictures of a frame at 400 a second: 1,800 s. Decoding takes 720 s + 2,160 s, so the GPU waits for it.
    assert found.cpu_s == pytest.approx(20 + 2880)
    assert (found.wall_s, found.gpu_s) == pytest.approx((290, 2900))
    spread = planned(replace(TOWERS, num_shards=10, parallelism=10, decoders=4))[1]["predict_values"]
    assert (spread.wall_s, spread.gpu_s) == pytest.approx((182, 1820))


def test_trainings_by_hand():
    found = planned()[1]["train_value"]
    assert (found.cpu_s, found.gpu_s, found.pods) == (2 + 40 + 720, 0, 3)
    assert found.scratch_bytes == 720_000 * 96 * 96 * 3
    towers = replace(TOWERS, policy=replace(TOWERS.value, batch=16))
    step_s = towers.step_s(towers.value)
    flops = plan.flops(towers.value.network, remat=True).model
    assert step_s == pytest.approx(8 * flops / (8 * 989e12 * 0.35))
    stages = planned(towers)[1]
    assert stages["train_value"].wall_s == pytest.approx(2 + 2880 + 10 * step_s)
    assert stages["train_value"].gpu_s == 8 * stages["train_value"].wall_s
    # The policy decodes two pictures for each that it looks at, beside its steps, on each of eight GPUs.
    assert stages["train_policy"].cpu_s == pytest.approx(2 + 2 * 160 * 2880 / 360_000)


def test_packed_pictures_are_not_decoded_again():
    with_cache = replace(KNOWN, stages={**KNOWN.stages, "pack_frames": LINEAR})
    stages = planned(TOWERS, known=with_cache)[1]
    assert stages["pack_frames"].cpu_s == 362
    assert (stages["train_value"].cpu_s, stages["train_value"].scratch_bytes) == (2, 0)


def test_the_dearest_stage_comes_first():
    found, _ = planned(TOWERS)
    assert [stage.step.stage for stage in found.stages[:2]] == ["train_value", "predict_values"]
    assert found.total("gpu_s") == sum(stage.gpu_s for stage in found.stages)
    assert found.requests()["PUT"] == sum(stage.requests["PUT"] for stage in found.stages)
    assert found.other_pods == 8


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
    assert "predict_values: there are at most 64 shards, so each takes 1.25e+03 h where 10 min were meant" in said
    assert "label_advantage needs 67.1 GiB in one pod that gets 2" in said
    assert "label_advantage takes 1e+04 h in one process and is ended after 24" in said
    assert "train_value decodes all pictures to 1.08e+04 TB" in said
    assert "import_dataset lists 3e+07 files in one JSON document of 4.66 GiB" in said
    assert "train_policy looks at 80 of 3.6e+10 frames" in said
    assert limits.limits(planned(recordings=TEN_HOURS.scaled(1e-3))[0], SMALL) == []


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


def test_what_was_measured_covers_the_pipelines():
    known = costs.load()
    optional = {"pack_frames"}
    for found in steps.PIPELINES.values():
        assert {step.stage for step in found} - optional <= set(known.stages)
    forms = [form for cost in known.stages.values() for form in (cost.cpu_s, cost.memory_bytes, cost.written_bytes)]
    forms += [form for cost in known.stages.values() for form in cost.requests.values()]
    assert {name for form in forms for name in form} <= set(costs.COUNTED)
    assert all(coefficient > 0 for form in forms for coefficient in form.values())
    assert set(known.decoding) <= set(costs.COUNTED)
    assert known.decoding


@pytest.mark.parametrize("pipeline", sorted(steps.PIPELINES))
def test_steps_and_sizes_are_those_of_the_pipelines(pipeline):
    pytest.importorskip("kfp")
    from components import _resources, _wiring

    compiled = (ROOT / f"tests/golden/{pipeline}.yaml").read_text()
    for step in steps.PIPELINES[pipeline]:
        if step.stage in _resources.STAGE_SIZES:
            size = _resources.SIZES[_resources.STAGE_SIZES[step.stage]]
            assert (step.memory_gib, step.stage) == (int(size.memory.removesuffix("Gi")), step.stage)
            assert step.kind == "training" or step.hours == size.hours
        if step.stage != "pack_frames":
            assert f"exec-{step.stage.replace('_', '-')}" in compiled
    for stage in steps.UNMEASURED[pipeline]:
        assert f"exec-{stage.replace('_', '-')}" in compiled
    assert steps.PARALLELISM == _wiring.LOOP_PARALLELISM


def test_files_are_cut_as_the_store_s_client_cuts_them():
    s3fs = pytest.importorskip("s3fs")
    assert s3fs.core.calculate_chunksize(1 << 30) == forecast.PART_BYTES
    assert s3fs.S3FileSystem.default_block_size == workload.WINDOW_BYTES


def test_the_page_says_what_the_command_says():
    spec = importlib.util.spec_from_file_location("generate_scaling", ROOT / "docs" / "generate_scaling.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    page = generator.TARGET.read_text(encoding="utf-8")
    assert page == generator.render(page), "run `python docs/generate_scaling.py`"
