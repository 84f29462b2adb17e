"""`pipeline.py run clip_reward`: two runs around people on the labelling page, and all of it with simulated ones."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from robolift import manifest, schema, storage
from robolift.manifest import Manifest
from robolift.reward_model import metrics
from robolift.reward_model.comparisons import Comparisons
from robolift.sim.annotators import SimulatedAnnotator, clip_utilities
from robolift.stages.stage import execute

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1500)
TINY = {
    "simulate_videos": {"num_videos": 8, "num_participants": 4, "seconds": 18, "height": 64, "fps": 15},
    "extract_clips": {"side": 64, "num_annotated": 1, "num_random": 3},
    "extract_features": {
        "extractors": ["blur", "exposure", "motion", "hands_colour", "embedding"],
        "decode_side": 64,
    },
    "train_reward": {"held_out": 0.5},
    "train_downstream": {"num_subsets": 10, "num_random": 3, "num_seeds": 1},
}
PAIRS = 24


class Run:
    """One run of the pipeline as a process, and what it made."""

    def __init__(self, folder: Path, name: str, *told: str, **parameters: Any) -> None:
        params = folder / f"{name}.yaml"
        params.write_text(json.dumps({"output_root": str(folder / "runs"), **parameters}))
        given = told or ("--params", str(params))
        began = time.monotonic()
        self.done = subprocess.run(
            [sys.executable, "pipeline.py", "run", "clip_reward", *given, "--name", name],
            cwd=ROOT,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        self.seconds = time.monotonic() - began
        self.root = folder / "runs"
        self.log = self.root / "logs" / name

    def outputs(self, stage: str) -> list[Manifest]:
        return [manifest.load(str(path)) for path in sorted((self.root / stage).iterdir())]

    def output(self, stage: str) -> Manifest:
        (found,) = self.outputs(stage)
        return found


@contextlib.contextmanager
def labelling_page(clips: str, pairs: str, labels: str):
    """Serve the real page; give a client that is signed in."""
    told = ["--clips", clips, "--pairs", pairs, "--labels", labels, "--port", "0", "--overlap", "0"]
    command = [sys.executable, "-m", "robolift", "review", *told]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            link = process.stdout.readline().split()[-1].replace("YOUR_NAME", "anna")
            base = link.partition("?")[0].rstrip("/")
            with httpx.Client(base_url=base, follow_redirects=True, timeout=60) as client:
                assert client.get(link).status_code == 200
                session = client.get("/api/session").raise_for_status().json()
                client.headers.update({"X-Robolift-CSRF": session["csrf"], "Origin": base})
                yield client
        finally:
            process.terminate()


def compare_everything(client: httpx.Client) -> dict[str, str]:
    """Do an annotator's work, of whom the clip on the left is always better; return what that means for each pair."""
    sequence, answers = 0, {}
    while item := (given := client.post("/api/next", json={"mode": "pair"}).raise_for_status().json())["item"]:
        events = []
        for op, value in (("prefer", "A"), ("complete", None)):
            sequence += 1
            said = {"ulid": f"{sequence:026d}", "seq": sequence, "item": item, "client_ms": 0, "op": op, "value": value}
            events.append(said)
        body = {"item": item, "epoch": given["lease"]["epoch"], "events": events}
        stored = client.post("/api/events", json=body)
        assert stored.status_code == 200, stored.text
        pair_id = item.removeprefix("pair:")
        shown = client.get(f"/api/pairs/{pair_id}").raise_for_status().json()
        answers[pair_id] = "B" if shown["flipped"] else "A"
    return answers


def test_two_runs_around_people_end_at_the_gate_behind_the_report(tmp_path):
    given = {"num_pairs": PAIRS, "num_shards": 2, "stages": TINY}
    first = Run(tmp_path, "first", **given)
    assert first.done.returncode == 0, first.done.stdout[-4000:] + first.done.stderr[-4000:]
    assert not (first.root / "train_reward").exists()
    labels = str(tmp_path / "labels")
    with labelling_page(first.output("extract_clips").uri, first.output("propose_pairs").uri, labels) as client:
        answers = compare_everything(client)
    assert len(answers) == PAIRS

    second = Run(tmp_path, "second", **given, mode="train", preferences_uri=labels)
    said = second.done.stdout + second.done.stderr
    # Ten subsets prove nothing, whatever the reward: the run ends with an error, after its report.
    assert second.done.returncode == 65, said[-4000:]
    assert "10 subsets are fewer than 50" in said
    report = second.output("write_report")
    assert storage.local_path(report.file("report.html")).name in said
    assert re.search(r"✓ extract_clips +reused", said)
    assert re.search(r"✓ extract_features +reused", said)
    preferences = schema.read_parquet(second.output("import_preferences").file("preferences.parquet")).to_pylist()
    assert {row["pair_id"]: row["preference"] for row in preferences} == answers
    found = storage.read_json(second.output("validate_reward").file("validation.json"))
    assert [one["drop"] for one in found["ablations"]] == [["hands", "motion"], ["hands"], ["motion"]]
    assert set(found["controls"]) == {"random", "composite", "motion"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    told = ("--params", "params/demo_clips.yaml", "--set", f"output_root={folder / 'runs'}")
    run = Run(folder, "demo", *told)
    assert run.done.returncode == 0, run.done.stdout[-4000:] + run.done.stderr[-4000:]
    return run


@pytest.mark.slow
def test_the_planted_utility_is_recovered_within_ten_minutes(demo):
    found = storage.read_json(demo.output("validate_reward").file("validation.json"))
    assert found["passed"]
    assert found["rho"]["rho"] >= 0.5
    assert found["rho"]["lower"] > 0
    both = next(one for one in found["ablations"] if one["drop"] == ["hands", "motion"])
    assert both["drop_in_rho"] >= 0.1
    assert both["lower"] > 0
    assert found["controls"]["random"]["lower"] < 0 < found["controls"]["random"]["upper"]
    cores = len(os.sched_getaffinity(0))
    assert cores < 2 or demo.seconds < 600


@pytest.mark.slow
def test_held_out_clips_are_ordered_as_well_as_the_annotators_noise_allows(demo):
    """Measured on fresh answers about many pairs of clips of held-out participants; few of the 500 pairs are."""
    clips = schema.read_parquet(demo.output("extract_clips").file("clips.parquet"))
    truth = schema.read_parquet(demo.output("simulate_videos").file("truth.parquet"))
    utility = clip_utilities(truth, clips)
    scored = demo.output("validate_reward").parent("scores")
    scores = schema.read_parquet(scored.file("scores.parquet"))
    score = dict(zip(scores.column("clip_id").to_pylist(), scores.column("score").to_pylist(), strict=True))
    held = set(storage.read_json(scored.parent("model").file("model.json"))["held_out_videos"])
    unseen = [row["clip_id"] for row in clips.to_pylist() if row["video_id"] in held]
    rng = np.random.default_rng(0)
    pairs = [rng.choice(len(unseen), 2, replace=False) for _ in range(4000)]
    judge = SimulatedAnnotator(name="fresh", beta=4.0)
    answers = [
        judge.compare(f"p{number}", utility[unseen[a]], utility[unseen[b]]) for number, (a, b) in enumerate(pairs)
    ]
    told = Comparisons.of(*np.array(pairs).T, answers)
    reached, ceiling = (
        metrics.ranking(np.array([values[clip] for clip in unseen]), told, seed=0)["pair_auc"]
        for values in (score, utility)
    )
    assert reached > ceiling - 0.03


@pytest.mark.slow
def test_a_random_scorer_does_not_pass_on_subsets_of_its_own(demo, tmp_path):
    features, clips = demo.output("merge_features").uri, demo.output("extract_clips").uri
    root = str(tmp_path)
    scores = execute("score_clips", {"method": "random"}, {"features": features}, root).uri
    given = {"features": features, "scores": scores, "clips": clips}
    trained = execute("train_downstream", {}, given, root).uri
    told = {"scores": scores, "downstream": [trained], "features": features}
    found = storage.read_json(execute("validate_reward", {}, told, root).file("validation.json"))
    assert not found["passed"]
