"""Planning: what is asked and what it takes is known before, faults are told before, and its size costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic

from robolift import storage
from robolift.__main__ import main
from robolift.errors import DataError, UsageError
from robolift.manifest import verify
from robolift.schema import EPISODES, read_parquet
from robolift.stages.show import markdown
from robolift.stages.stage import execute

SERVER = {"model": "fake-vlm", "endpoint": "http://127.0.0.1:9/v1"}


def plan(dataset, root, **config):
    return execute("plan_labels", {**SERVER, **config}, {"dataset": dataset.uri}, root)


def document(made):
    return storage.read_json(made.file("plan.json"))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """Looks like a model from outside."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return str(folder)


@pytest.fixture
def with_episodes(dataset, tmp_path):
    """Make an imported dataset with other episodes in its table; frames and videos are none."""

    def make(lengths, tasks, outcome=None):
        folder = tmp_path / f"dataset-{len(lengths)}"
        folder.mkdir()
        count = len(lengths)
        columns = {
            "episode_index": np.arange(count),
            "length": lengths,
            "task": tasks,
            "outcome": outcome or ["unknown"] * count,
            "kind": ["rollout"] * count,
            "iteration": np.ones(count, np.int32),
        }
        pq.write_table(pa.table(columns, schema=EPISODES), folder / "episodes.parquet", row_group_size=1 << 17)
        facts = storage.read_json(dataset.file("dataset.json"))
        (folder / "dataset.json").write_text(json.dumps(facts))
        made = replace(dataset, uri=storage.normalize(str(folder)), digest=f"{count:016x}")
        (folder / "manifest.json").write_bytes(made.to_bytes())
        return made

    return make


@pytest.mark.parametrize(
    ("protocol", "requests", "pictures"),
    [
        # Episodes of 1, 3 and 9 frames, two cameras, at most 4 moments at once, 5 growing parts.
        ("logprob", [1, 3, 5], [1, 1 + 2 + 3, 1 + 3 + 4 + 4 + 4]),
        ("rubric", [1, 1, 1], [1, 3, 4]),
        ("head", [1, 1, 1], [1, 3, 4]),
    ],
)
def test_a_plan_counts_what_is_asked(protocol, requests, pictures, with_episodes, model_folder, output_root):
    dataset = with_episodes([1, 3, 9], ["a", "b", "c"])
    config = {"protocol": protocol, "max_frames": 4, "num_prefixes": 5}
    if protocol == "head":
        config |= {"model": model_folder, "endpoint": ""}
    made = plan(dataset, output_root, **config)
    rows = read_parquet(made.file("plan.parquet"))
    assert rows.schema.names == ["episode_index", "length", "requests"]
    assert rows.column("requests").to_pylist() == requests
    totals = document(made)["totals"]
    assert (totals["episodes"], totals["requests"], totals["pictures"]) == (3, sum(requests), 2 * sum(pictures))
    assert made.counts == totals
    verify(made)


def test_two_moment_protocols_count_too(with_episodes, output_root):
    dataset = with_episodes([2, 9], ["a", "b"])
    made = plan(dataset, output_root, protocol="pairwise", max_frames=4, cameras=[synthetic.TOPVIEW])
    assert read_parquet(made.file("plan.parquet")).column("requests").to_pylist() == [1, 3]
    assert document(made)["totals"]["pictures"] == 8
    made = plan(dataset, output_root, protocol="shuffled", sampling="causal_prefix", max_frames=4, num_prefixes=3)
    # Parts that end at frames 4 and 8 (the first frame alone asks nothing); of two frames: at frame 1.
    assert read_parquet(made.file("plan.parquet")).column("requests").to_pylist() == [1, 2]
    assert document(made)["totals"]["pictures"] == 2 * (2 + 4 + 4)


def test_nobody_is_asked_where_calibration_would_lack_outcomes(with_episodes, output_root):
    dataset = with_episodes([5, 5], ["a", "b"], outcome=["success", "unknown"])
    with pytest.raises(DataError, match="1 episodes were recorded as successes and 0 as failures") as caught:
        plan(dataset, output_root, min_calibration_episodes=1)
    assert "set calibration of collect_rewards to none" in caught.value.mend
    unchecked = plan(dataset, output_root)
    both = with_episodes([5, 5, 5], ["a", "b", "c"], outcome=["success", "failure", "success"])
    assert plan(both, output_root, min_calibration_episodes=1).digest == plan(both, output_root).digest
    with pytest.raises(DataError, match="2 episodes were recorded as successes and 1 as failures"):
        plan(both, output_root, min_calibration_episodes=2, num_prefixes=3)
    assert unchecked.counts["episodes"] == 2


def test_tokens_are_estimated(with_episodes, output_root, tmp_path):
    prompt = "[system]\n1234\n[opening]\n{task}\n[moment]\n{number} {camera}\n[closing]\n12345\n[reprompt]\n{problem}"
    (tmp_path / "mine.txt").write_text(prompt)
    dataset = with_episodes([5], ["fold it"])
    made = plan(dataset, output_root, protocol="rubric", prompt=str(tmp_path / "mine.txt"), max_frames=4)
    totals = document(made)["totals"]
    # 8 pictures of 32x32 pixels are a token each; words: 4 + 6 + 5 of the file, 7 of the task, 17 a picture.
    assert totals["input_tokens_estimate"] == 8 + -(-(4 + 6 + 5 + 7 + 8 * 17) // 4)
    assert totals["output_tokens_estimate"] == 2


def test_the_page_of_the_step_says_how_much_will_be_asked(with_episodes, output_root):
    made = plan(with_episodes([9, 9], ["a", "b"]), output_root, num_prefixes=3, cameras=[synthetic.TOPVIEW])
    page, totals = markdown(made), document(made)["totals"]
    assert "logprob v1, causal_prefix: fake-vlm (at a server) sees up to 8 moments of " in page
    assert "| requests | 6 |  |" in page
    assert f"| tokens in | {totals['input_tokens_estimate']:,} | estimate |" in page
    assert page.index("tokens in") < page.index("## Measured")
    nobody = plan(with_episodes([9], ["a"]), output_root, model="", endpoint="")
    assert "## No model is asked" in markdown(nobody)


def test_the_labeller_is_recorded_resolved(dataset, output_root, model_folder):
    made = document(plan(dataset, output_root))
    assert made["labeller"] == {
        "protocol": "logprob",
        "protocol_version": "v1",
        "transport": "openai",
        "model": "fake-vlm",
        "model_digest": "",
        "prompt_sha256": made["labeller"]["prompt_sha256"],
        "cameras": [synthetic.BEHIND, synthetic.TOPVIEW],
        "sampling": "causal_prefix",
        "max_frames": 8,
        "num_prefixes": 15,
        "image_side": 448,
        "dtype": "",
        "seed": 0,
    }
    assert "True or False" in made["prompt"]
    chosen = {"protocol": "rubric", "cameras": [synthetic.TOPVIEW], "dtype": "float32"}
    local = document(plan(dataset, output_root, model=model_folder, endpoint="", **chosen))["labeller"]
    assert (local["transport"], local["dtype"], local["sampling"]) == ("hf", "float32", "whole")
    assert (local["cameras"], len(local["model_digest"])) == ([synthetic.TOPVIEW], 64)


def test_nobody_is_asked_without_a_model(dataset, output_root):
    made = plan(dataset, output_root, model="", endpoint="")
    assert document(made)["labeller"]["protocol"] == "none"
    assert document(made)["labeller"]["transport"] == "none"
    assert document(made)["totals"] == {
        "episodes": 8,
        "requests": 0,
        "pictures": 0,
        "input_tokens_estimate": 0,
        "output_tokens_estimate": 0,
    }
    assert set(read_parquet(made.file("plan.parquet")).column("requests").to_pylist()) == {0}


def test_where_the_server_is_and_what_it_costs_is_not_what_is_asked(dataset, output_root, tmp_path, model_folder):
    one = plan(dataset, output_root)
    moved = plan(dataset, str(tmp_path / "b"), endpoint="http://127.0.0.1:10/v1", input_price=3.0)
    assert (moved.digest, moved.files) == (one.digest, one.files)
    prompt = tmp_path / "mine.txt"
    prompt.write_text(document(one)["prompt"])
    mine = plan(dataset, output_root, prompt=str(prompt))
    prompt.write_text(document(one)["prompt"].replace("Judge only", "Judge"))
    changed = plan(dataset, output_root, prompt=str(prompt))
    local = plan(dataset, output_root, model=model_folder, endpoint="")
    assert len({one.digest, mine.digest, changed.digest, local.digest}) == 4


def test_another_content_of_the_model_is_another_plan(dataset, output_root, model_folder, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in (("config.json", b"{}"), ("model.safetensors", b"weights")):
        (folder / name).write_bytes(content)
    local = {"model": str(folder), "endpoint": ""}
    before = plan(dataset, output_root, **local)
    digest = document(before)["labeller"]["model_digest"]
    assert plan(dataset, output_root, **local, model_sha256=digest).counts == before.counts
    (folder / "model.safetensors").write_bytes(b"weightz")
    assert plan(dataset, output_root, **local).digest != before.digest
    with pytest.raises(DataError, match="the model's files have the digest"):
        plan(dataset, output_root, **local, model_sha256=digest)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (
            {"cameras": ["observation.images.nose"]},
            UsageError,
            r"no camera observation.images.nose; the dataset has: obs",
        ),
        ({"cameras": [synthetic.TOPVIEW] * 2}, UsageError, "cameras names one twice"),
        ({"model": ""}, UsageError, "endpoint is given and model is empty"),
        ({"protocol": "head"}, UsageError, "no server gives out"),
        ({"protocol": "pairwise", "sampling": "causal_prefix"}, UsageError, "set sampling: whole"),
        ({"model_sha256": "abc"}, UsageError, "the files of a server's model can't be seen"),
        ({"model": "/nowhere/model", "endpoint": ""}, UsageError, "no files in the model's folder"),
        ({"prompt": "/nowhere/prompt.txt"}, DataError, "file not found"),
        ({"max_frames": 1}, UsageError, "greater than or equal to 2"),
    ],
)
def test_what_does_not_fit_is_refused(config, error, message, dataset, output_root):
    with pytest.raises(error, match=message):
        plan(dataset, output_root, **config)
    assert storage.list_files(f"{output_root}/plan_labels") == []


def test_a_faulty_prompt_is_refused(dataset, output_root, tmp_path):
    (tmp_path / "mine.txt").write_text("Is it done?")
    with pytest.raises(UsageError, match=r"is not a prompt of logprob:[\s\S]*section \[moment\] is missing"):
        plan(dataset, output_root, prompt=str(tmp_path / "mine.txt"))


def test_episodes_that_nothing_can_be_asked_about_are_refused(with_episodes, output_root):
    dataset = with_episodes([4] * 9, ["fold", *[" \n"] * 7, "wipe"])
    with pytest.raises(DataError, match=r"no task text[\s\S]*episode 1, 2, 3, 4, 5 and more"):
        plan(dataset, output_root)
    assert plan(dataset, output_root, model="", endpoint="").counts["episodes"] == 9
    short = with_episodes([2, 1, 5], ["fold"] * 3)
    with pytest.raises(DataError, match=r"too short for protocol shuffled[\s\S]*episode 1\n[\s\S]*2 frames or more"):
        plan(short, output_root, protocol="shuffled")
    assert plan(short, output_root, protocol="logprob").counts["episodes"] == 3


def test_a_dataset_without_cameras_is_refused(output_root, tmp_path):
    synthetic.write_recording(tmp_path / "recording", episodes=1, cameras=[])
    blind = execute("import_dataset", {"dataset_uri": str(tmp_path / "recording")}, {}, output_root)
    with pytest.raises(UsageError, match="the dataset has no camera"):
        plan(blind, output_root)
    assert plan(blind, output_root, model="", endpoint="").counts["episodes"] == 1


def test_a_dry_run_says_what_will_be_asked_and_writes_nothing(dataset, output_root, capsys, tmp_path):
    sets = [f"output_root={output_root}", f"inputs.dataset={dataset.uri}", "protocol=rubric", "max_frames=2"]
    sets += ["input_price=2000", "output_price=1000", *(f"{key}={value}" for key, value in SERVER.items())]
    assert main(["plan_labels", "--dry-run", *(arg for each in sets for arg in ("--set", each))]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert "rubric v1, whole: fake-vlm (at a server) sees up to 2 moments of" in told.out
    assert [line.split()[:2] for line in lines if line.startswith(("episodes", "requests", "pictures"))] == [
        ["episodes", "8"],
        ["requests", "8"],
        ["pictures", "32"],
    ]
    tokens = [int(line.split()[2].replace(",", "")) for line in lines if line.startswith("tokens")]
    (cost,) = [float(line.split()[1].replace(",", "")) for line in lines if line.startswith("cost")]
    assert cost == pytest.approx((2000 * tokens[0] + 1000 * tokens[1]) / 1e6, abs=0.006)
    assert "  Answer with the grade alone: one number from 1 to 5." in lines
    assert "2 moments are shown with 2 cameras" in told.err
    assert not storage.exists(output_root)
    assert main(["plan_labels", "--dry-run", *(arg for each in sets[:2] for arg in ("--set", each))]) == 0
    assert "no model is asked about the 8 episodes" in capsys.readouterr().out


# What the kernel tells with getrusage starts at the parent's peak.
MEASURE = """
import resource, sys
from robolift.__main__ import main
code = main(sys.argv[1:])
status = dict(line.split(":") for line in open("/proc/self/status"))
print(status["VmHWM"].split()[0], resource.getrusage(resource.RUSAGE_SELF).ru_utime)
sys.exit(code)
"""


def test_half_a_million_episodes_are_planned_in_seconds_and_in_constant_memory(with_episodes, tmp_path):
    rng = np.random.default_rng(0)
    peak_kb, seconds = {}, {}
    for count in (20_000, 500_000):
        tasks = [f"task number {i % 1000}: fold the towel and put it into the basket" for i in range(count)]
        dataset = with_episodes(rng.integers(2, 3000, count), tasks)
        sets = [f"output_root={tmp_path}/runs", f"inputs.dataset={dataset.uri}"]
        sets += [f"{key}={value}" for key, value in SERVER.items()]
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, "plan_labels", *(arg for each in sets for arg in ("--set", each))],
            capture_output=True,
            text=True,
            check=True,
        )
        kilobytes, used = done.stdout.split()[-2:]
        peak_kb[count], seconds[count] = int(kilobytes), float(used)
    assert seconds[500_000] < 60
    # Their rows alone would take over 150 MB as objects; the allocator's moods are some 20 MB.
    assert peak_kb[500_000] - peak_kb[20_000] < 50_000
