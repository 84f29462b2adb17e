"""`pipeline.py run reward_labeling`: a model in the step, people's labels over it, and a server amid a kill."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import synthetic
from openai_server import MODEL, OpenAIServer
from tiny_vlm import write_tiny_vlm

from robolift import manifest, storage
from robolift.data.dataset import Dataset
from robolift.stages.stage import execute

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)  # fifteen processes a run
PREFIXES = 3
EPISODES = 8
STAGES = {
    "plan_labels": {"num_prefixes": PREFIXES, "max_frames": 2, "dtype": "float32"},
    "label_quality": {"max_constant": 1},
}


class Run:
    """One run of the pipeline: its parameters in a file, then as a process."""

    def __init__(self, folder: Path, name: str, **parameters: Any) -> None:
        self.folder, self.name = folder, name
        self.params = folder / f"{name}.yaml"
        self.params.write_text(json.dumps({"output_root": str(folder / "runs"), "stages": STAGES, **parameters}))

    def start(self) -> subprocess.Popen[str]:
        told = ["--params", str(self.params), "--name", self.name]
        return subprocess.Popen(
            [sys.executable, "pipeline.py", "run", "reward_labeling", *told],
            cwd=ROOT,
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, code: int = 0) -> str:
        """Run to the end, with this exit code; return what was printed."""
        with self.start() as process:
            said, _ = process.communicate(timeout=300)
        assert process.returncode == code, said[-4000:]
        return said

    def made(self) -> dict[str, list[dict[str, Any]]]:
        """Return what each stage made: address, and whether it was there."""
        stages = json.loads((self.folder / "runs" / "logs" / self.name / "timings.json").read_text())["stages"]
        return {name: [s for s in stages if s["stage"] == name] for name in sorted({s["stage"] for s in stages})}

    def output(self, stage: str) -> manifest.Manifest:
        ((found),) = self.made()[stage]
        return manifest.load(found["uri"])


def exported(run: Run, folder: Path) -> Dataset:
    """Read the exported dataset as any other."""
    uri = storage.join(run.output("export_dataset").uri, "dataset")
    return Dataset.open(execute("import_dataset", {"dataset_uri": uri}, {}, str(folder / "exported" / run.name)))


@contextlib.contextmanager
def labelling_page(dataset: str, labels: str):
    """Serve the real page; give a client that is signed in."""
    told = ["--dataset", dataset, "--labels", labels, "--port", "0", "--overlap", "0"]
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


def label_everything(client: httpx.Client, outcomes: dict[int, str]) -> None:
    """Do an annotator's work: the first half of every episode moves on, the rest stalls, and how it ended."""
    sequence = 0
    while item := (given := client.post("/api/next", json={"mode": "episode"}).raise_for_status().json())["item"]:
        index = int(item.removeprefix("episode:"))
        length = client.get(f"/api/episodes/{index}").raise_for_status().json()["length"]
        actions: list[dict[str, Any]] = [
            {"op": "paint", "from": 0, "to": length // 2, "value": 1},
            {"op": "paint", "from": length // 2, "to": length, "value": 0},
            {"op": "outcome", "from": length - 1, "value": outcomes[index]},
            {"op": "complete", "value": None},
        ]
        events = []
        for action in actions:
            sequence += 1
            events.append({"ulid": f"{sequence:026d}", "seq": sequence, "item": item, "client_ms": 0, **action})
        body = {"item": item, "epoch": given["lease"]["epoch"], "events": events}
        stored = client.post("/api/events", json=body)
        assert stored.status_code == 200, stored.text
    assert sequence == 4 * len(outcomes)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    synthetic.write_recording(folder / "square", episodes=EPISODES, frames=16, cameras=(synthetic.TOPVIEW,))
    return str(folder / "square")


@pytest.fixture(scope="module")
def labelled(recorded, tmp_path_factory):
    """A run with a model in the step, and after people's work a second one."""
    folder = tmp_path_factory.mktemp("labelled")
    asked = {"dataset_uri": recorded, "model": str(write_tiny_vlm(folder / "model")), "num_shards": 1}
    first = Run(folder, "first", mode="label", **asked)
    first.finish()
    labels = str(folder / "labels")
    dataset = Dataset.open(first.output("import_dataset"))
    with labelling_page(first.output("import_dataset").uri, labels) as client:
        label_everything(client, dict(enumerate(dataset.episodes.column("outcome").to_pylist())))
    second = Run(folder, "second", mode="import_reviews", reviews_uri=labels, reward="tri", **asked)
    return first, second, second.finish()


def test_a_model_in_the_step_labels_every_frame(labelled, tmp_path):
    first, _, _ = labelled
    table = first.output("merge_rewards").table("rewards")
    assert set(table.column("source").to_pylist()) == {"vlm"}
    progress = table.column("progress").to_numpy()
    assert ((progress >= 0) & (progress <= 1)).all()
    shards = [manifest.load(made["uri"]) for made in first.made()["annotate_rewards"]]
    assert sum(shard.counts["requests"] for shard in shards) == EPISODES * PREFIXES
    read = exported(first, tmp_path)
    assert read.num_frames == table.num_rows
    assert read.column("next.reward").tolist() == pytest.approx(table.column("reward").to_pylist())


def test_the_second_run_asks_nothing_and_takes_people_s_labels(labelled, tmp_path):
    first, second, said = labelled
    made = second.made()
    reused = {name for name, outputs in made.items() if all(output["reused"] for output in outputs)}
    assert reused == {"import_dataset", "plan_labels", "annotate_rewards", "collect_rewards"}
    table = second.output("merge_rewards").table("rewards")
    assert set(table.column("source").to_pylist()) == {"human"}
    dataset = Dataset.open(second.output("import_dataset"))
    for start, stop in zip(dataset.starts[:-1], dataset.starts[1:], strict=True):
        half = (stop - start) // 2
        tri = table.column("tri").to_pylist()[start:stop]
        assert tri == [1] * half + [0] * (stop - start - half)
    assert table.column("reward").to_pylist() == table.column("tri").to_pylist()
    assert exported(second, tmp_path).column("next.reward").tolist() == table.column("tri").to_pylist()
    assert exported(second, tmp_path).column("next.success").sum() == 6
    summary = storage.read_json(storage.join(second.output("write_report").uri, "summary.json"))
    assert summary["headline"] in said
    assert "measure                      value    clock   verdict" in said
    assert first.output("write_report").uri != second.output("write_report").uri


def test_labels_that_do_not_pass_get_their_report_and_no_export(labelled, recorded):
    first, _, _ = labelled
    stages = {**STAGES, "label_quality": {"min_failure_gap": 1.0, "max_constant": 1}}
    asked = {"dataset_uri": recorded, "model": str(first.folder / "model"), "num_shards": 1}
    said = Run(first.folder, "strict", mode="label", stages=stages, **asked).finish(code=65)
    assert "the labels did not pass label_quality: failure_gap is" in said
    report = Path(next(line.split("report: ")[1] for line in said.splitlines() if "report: " in line))
    assert report.is_file()
    summary = json.loads(report.with_name("summary.json").read_text())
    assert summary["passed"] is False
    assert "▸ export_dataset" in said.split("✓ write_report")[1]


def answers(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "runs" / "answers").rglob("*.json")}


def answered(record: bytes) -> list[list[dict[str, Any]]]:
    """Return the answers kept about each question of an episode."""
    return json.loads(record)["questions"]


def test_a_killed_run_asks_a_server_only_about_what_was_not_answered(recorded, tmp_path):
    # Two whole episodes are answered and the first question of a third; the next is under way.
    with OpenAIServer(*["good"] * (2 * PREFIXES + 1), "hold") as server:
        asked = {"dataset_uri": recorded, "model": MODEL, "endpoint": server.url, "num_shards": 1}
        run = Run(tmp_path, "server", stages={**STAGES, "annotate_rewards": {"max_in_flight": 1}}, **asked)
        with run.start() as killed:
            deadline = time.monotonic() + 200
            while len(answers(tmp_path)) < 3 or len(server.requests) < 2 * PREFIXES + 2:
                assert killed.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.killpg(killed.pid, signal.SIGKILL)
        server.release()
        server.await_silence()
        before = answers(tmp_path)
        assert len(before) == 3
        kept = sum(map(len, (question for record in before.values() for question in answered(record))))
        assert kept == 2 * PREFIXES + 1
        server.play("good")
        run.finish()
    assert len(server.requests) == EPISODES * PREFIXES - kept
    assert max(Counter(request.raw for request in server.requests).values()) == 1
    after = answers(tmp_path)
    assert len(after) == EPISODES
    for name, record in before.items():
        for was, now in zip(answered(record), answered(after[name]), strict=True):
            assert was in ([], now)
    # It answered rightly, as far as it could see: each episode has its own way, and it took the longest for all. Labels
    # and measures must show that; detours and failures are no steady rise.
    rewards = run.output("merge_rewards").table("rewards")
    asked_about = rewards.column("anchor").to_numpy()
    truth = Dataset.open(run.output("import_dataset")).column("progress_gt")
    assert np.corrcoef(rewards.column("progress").to_numpy()[asked_about], truth[asked_about])[0, 1] > 0.9
    quality = storage.read_json(run.output("label_quality").file("quality.json"))
    assert quality["passed"] is True
    assert quality["measures"]["success_auroc"]["value"] == 1.0
    assert quality["measures"]["value_order_correlation"]["value"] > 0.5
