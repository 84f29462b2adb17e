"""Every stage, killed with SIGKILL at several moments and run again, ends in the bytes of an undisturbed run.

Each stage runs on a copy of the finished outputs of an undisturbed chain, in a process of its own.
It is killed while it handles some file, while it trains once there is a state to go on from, and right before its
output becomes visible; among the slow tests at its first write, too. Then it is let through.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from replay_buffer import make_episode, write_buffer
from tiny_vlm import write_tiny_vlm

from robolift import manifest as manifests
from robolift import storage
from robolift.annotators.review.events import Event, append
from robolift.annotators.review.job import Job, settle, sources_of
from robolift.data.dataset import Dataset
from robolift.manifest import FILES_FILE, MANIFEST_FILE, Manifest
from robolift.stages import NAMES
from robolift.stages.stage import execute

HOOK = Path(__file__).parent / "kill_hook"
SEED = 20261121
QUICK = ("first", "random", "publish")
SLOW = ("random", "publish")


@dataclass(frozen=True)
class Step:
    """One stage of the chain: its configuration, which stages feed it, and when it is killed.

    In the configuration ``{places}`` stands for a folder with what comes from elsewhere: see :func:`lay_out`. Fields in
    ``addresses`` are told where the output of a stage lies, as people would be who come between two runs.
    """

    config: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    moments: tuple[str, ...] = QUICK
    addresses: dict[str, str] = field(default_factory=dict)


STEPS = {
    "simulate_episodes": Step(
        {
            "num_demos": 2,
            "num_autonomous": 3,
            "num_takeovers": 1,
            "cameras": ["topview"],
            "image_size": 32,
            "max_frames": 40,
            "num_workers": 1,
        },
        moments=SLOW,
    ),
    "import_replay_buffer": Step(
        {"buffer_uri": "{places}/buffer", "task": "fold the towel", "cameras": ["head"]}, moments=("first", "publish")
    ),
    "import_dataset": Step(inputs={"recording": ("simulate_episodes",)}),
    "pack_frames": Step(
        {"format": "png", "size": [16, 24], "shard_mb": 0.02, "num_workers": 2},
        {"dataset": ("import_dataset",)},
        ("resumable:1.json", "publish"),
    ),
    "label_returns": Step(inputs={"dataset": ("import_dataset",)}),
    "train_value": Step(
        {
            "steps": 6,
            "batch_size": 8,
            "image_size": [32, 32],
            "warmup_steps": 2,
            "save_every": 2,
            "eval_every": 2,
            "val_fraction": 0.34,
        },
        {"dataset": ("import_dataset",), "targets": ("label_returns",)},
        ("resumable:latest.json", "publish"),
    ),
    "predict_values": Step(
        {"num_shards": 1}, {"dataset": ("import_dataset",), "checkpoint": ("train_value",)}, ("first", "publish")
    ),
    "merge_values": Step(inputs={"dataset": ("import_dataset",), "shards": ("predict_values",)}),
    "plan_labels": Step(
        {"model": "{places}/model", "num_prefixes": 2, "max_frames": 2, "dtype": "float32"},
        {"dataset": ("import_dataset",)},
    ),
    "annotate_rewards": Step(
        inputs={"dataset": ("import_dataset",), "plan": ("plan_labels",)}, moments=("first", "publish")
    ),
    "collect_rewards": Step(
        inputs={"dataset": ("import_dataset",), "plan": ("plan_labels",), "shards": ("annotate_rewards",)}
    ),
    "import_reviews": Step({"reviews_uri": "{places}/reviews"}, {"dataset": ("import_dataset",)}),
    "import_rewards": Step({"rewards_uri": "{places}/sarm_progress.parquet"}, {"dataset": ("import_dataset",)}),
    "label_quality": Step(
        {"max_constant": 1},
        {"dataset": ("import_dataset",), "automatic": ("collect_rewards",), "reviews": ("import_reviews",)},
    ),
    "merge_rewards": Step(
        inputs={
            "dataset": ("import_dataset",),
            "automatic": ("collect_rewards",),
            "reviews": ("import_reviews",),
            "quality": ("label_quality",),
        }
    ),
    "label_advantage": Step(
        {"lookahead": 5},
        {"dataset": ("import_dataset",), "targets": ("label_returns",), "values": ("merge_values",)},
    ),
    "export_dataset": Step(
        inputs={
            "dataset": ("import_dataset",),
            "targets": ("label_returns",),
            "values": ("merge_values",),
            "labels": ("label_advantage",),
        }
    ),
    "compute_norm_stats": Step(inputs={"dataset": ("import_dataset",)}),
    "train_policy": Step(
        {"steps": 6, "batch_size": 16, "save_every": 2, "log_every": 2, "objective": "regression"},
        {
            "dataset": ("import_dataset",),
            "labels": ("label_advantage",),
            "values": ("merge_values",),
            "checkpoint": ("train_value",),
        },
        ("resumable:state.safetensors", "publish"),
    ),
    "evaluate_policy": Step(
        {"num_episodes": 2, "max_frames": 20, "num_workers": 1},
        {"policy": ("train_policy",), "dataset": ("import_dataset",)},
        ("first", "publish"),
    ),
    "simulate_videos": Step(
        {"num_videos": 4, "num_participants": 4, "seconds": 24, "height": 64, "fps": 15}, moments=("first", "publish")
    ),
    "ingest_videos": Step(inputs={"recording": ("simulate_videos",)}),
    "extract_clips": Step({"side": 64, "num_annotated": 1, "num_random": 8}, {"videos": ("ingest_videos",)}, SLOW),
    "extract_features": Step(
        {"extractors": ["blur", "exposure", "motion", "hands_colour", "embedding"], "decode_side": 64},
        {"clips": ("extract_clips",)},
        SLOW,
    ),
    "merge_features": Step(inputs={"clips": ("extract_clips",), "shards": ("extract_features",)}),
    "propose_pairs": Step({"num_pairs": 40}, {"clips": ("extract_clips",)}),
    "simulate_preferences": Step(inputs={"pairs": ("propose_pairs",), "clips": ("extract_clips",)}),
    "import_preferences": Step(
        inputs={"pairs": ("propose_pairs",), "clips": ("extract_clips",)},
        addresses={"preferences_uri": "simulate_preferences"},
    ),
    "train_reward": Step(
        {"held_out": 0.5},
        {"features": ("merge_features",), "preferences": ("import_preferences",), "clips": ("extract_clips",)},
    ),
    "score_clips": Step(inputs={"features": ("merge_features",), "model": ("train_reward",)}),
    "train_downstream": Step(
        {"num_subsets": 10, "num_random": 3, "num_seeds": 1},
        {"features": ("merge_features",), "scores": ("score_clips",), "clips": ("extract_clips",)},
    ),
    "validate_reward": Step(
        {"bootstrap": 100},
        {
            "scores": ("score_clips",),
            "downstream": ("train_downstream",),
            "features": ("merge_features",),
            "model": ("train_reward",),
        },
    ),
    "write_report": Step(
        inputs={
            "dataset": ("import_dataset",),
            "targets": ("label_returns",),
            "values": ("merge_values",),
            "labels": ("label_advantage",),
            "checkpoint": ("train_value",),
            "evaluations": ("evaluate_policy",),
        }
    ),
}


def lay_out(places: Path, dataset: Manifest | None) -> None:
    """Put down what stages take from elsewhere; what speaks of frames needs the dataset."""
    if dataset is None:
        write_buffer(places / "buffer", 30, [make_episode(number, 6, 0, size=(32, 32)) for number in (10000, 20000)])
        write_tiny_vlm(places / "model")
        return
    frames, opened = dataset.table("frames"), Dataset.open(dataset)
    keys = {name: frames.column(name) for name in ("episode_index", "frame_index")}
    rows = {"index": np.arange(frames.num_rows), **keys, "progress_sparse": np.linspace(0, 1, frames.num_rows)}
    pq.write_table(pa.table(rows), places / "sarm_progress.parquet")
    reviews = str(places / "reviews")
    settle(reviews, Job(dataset=sources_of(opened), ask=("outcome",)))
    said: list[dict[str, Any]] = [{"op": "outcome", "start": 3, "value": "success"}, {"op": "complete"}]
    events = [
        Event(ulid=f"{n:026d}", annotator="anna", session="session1", seq=n, item="episode:0", lease=1, **one)
        for n, one in enumerate(said, start=1)
    ]
    append(reviews, events, number=0)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the suite's processes share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def placed(shared: Path, tmp_path_factory: pytest.TempPathFactory):
    """Give a folder with what comes from elsewhere, of a dataset or without; the first process to be ready makes it."""

    def get(dataset: Manifest | None) -> Path:
        target = shared / ("places" if dataset is None else f"places-{dataset.digest}")
        if not target.exists():
            made = tmp_path_factory.mktemp("places")
            lay_out(made, dataset)
            with contextlib.suppress(OSError):  # another process was first, with the same bytes
                made.rename(target)
        return target

    return get


@pytest.fixture(scope="session")
def configured(placed):
    """Give the configuration of a stage, with places for what it takes from elsewhere."""

    def get(name: str, dataset: Manifest | None) -> dict[str, Any]:
        def fill(value: Any) -> Any:
            speaks_of_frames = dataset if name in ("import_reviews", "import_rewards") else None
            filled = isinstance(value, str) and "{places}" in value
            return value.format(places=placed(speaks_of_frames)) if filled else value

        return {key: fill(value) for key, value in STEPS[name].config.items()}

    return get


@pytest.fixture(scope="session")
def undisturbed(shared: Path, configured):
    """Give the finished output of a stage; the root is shared by the suite's processes, so each is made once."""
    made: dict[str, Manifest] = {}

    def get(name: str) -> Manifest:
        if name not in made:
            inputs = {key: [get(stage).uri for stage in stages] for key, stages in STEPS[name].inputs.items()}
            told = {key: get(stage).uri for key, stage in STEPS[name].addresses.items()}
            config = {**configured(name, made.get("import_dataset")), **told}
            made[name] = execute(name, config, inputs, str(shared / "undisturbed"))
        return made[name]

    return get


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder but its manifest, which says where it lies, and kept answers."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST_FILE and folder / "answers" not in path.parents
    }


def ancestors(name: str) -> set[str]:
    """Return the stages that a stage's inputs come from, however far back."""
    direct = {stage for stages in STEPS[name].inputs.values() for stage in stages}
    return direct.union(*(ancestors(stage) for stage in direct))


def run(name: str, config_file: Path, root: Path, kill_at: str = "") -> subprocess.CompletedProcess[str]:
    """Run a stage from a file in a process of its own, killed at a moment if one is given."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    if kill_at:
        path = os.pathsep.join(filter(None, [str(HOOK), os.environ.get("PYTHONPATH", "")]))
        env |= {"PYTHONPATH": path, "KILL_ROOT": str(root), "KILL_STAGE": name, "KILL_AT": kill_at}
    return subprocess.run(
        [sys.executable, "-m", "robolift", name, "--config", str(config_file)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_the_chain_has_every_stage():
    assert tuple(STEPS) == NAMES


@pytest.mark.parametrize("kills", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STEPS)
def test_a_stage_killed_at_any_moment_ends_in_the_same_bytes(name, kills, undisturbed, configured, tmp_path):
    step, expected = STEPS[name], undisturbed(name)
    root = tmp_path / "runs"
    for stage in ancestors(name):
        found = undisturbed(stage)
        shutil.copytree(storage.local_path(found.uri), root / stage / found.digest)
    before = digests(root)
    inputs = {
        key: [str(root / stage / undisturbed(stage).digest) for stage in stages] for key, stages in step.inputs.items()
    }
    config_file = tmp_path / "config.yaml"
    told = {key: undisturbed(stage).uri for key, stage in step.addresses.items()}
    config = {**configured(name, undisturbed("import_dataset")), **told}
    config_file.write_text(yaml.safe_dump({"output_root": str(root), "inputs": inputs, "config": config}))
    target = root / name / expected.digest

    chance = random.Random(f"{SEED} {name}")
    for moment in step.moments[-kills:]:
        # Each file is opened at least once: its hash is taken before it is published.
        kill_at = str(chance.randint(2, expected.files["count"] + 1)) if moment == "random" else moment
        died = run(name, config_file, root, kill_at)
        assert died.returncode == -signal.SIGKILL, f"not killed at {kill_at}: {died.stderr[-2000:]}"
        assert not (target / MANIFEST_FILE).exists()
        assert not target.exists()
    done = run(name, config_file, root)

    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip() == f"file://{target}"
    found = manifests.load(str(target))
    assert (found.digest, found.counts, found.files) == (expected.digest, expected.counts, expected.files)
    assert digests(target) == digests(storage.local_path(expected.uri))
    assert storage.read_bytes(found.file(FILES_FILE)) == storage.read_bytes(expected.file(FILES_FILE))
    manifests.verify(found)
    # The inputs are what they were, and nothing is left of the killed runs.
    shutil.rmtree(target)
    assert digests(root) == before
    assert list((root / name).iterdir()) == []
