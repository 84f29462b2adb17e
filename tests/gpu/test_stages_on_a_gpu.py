"""What computes on a GPU gives the same bytes each time: training, prediction and the policy, each run twice.

Run where PyTorch and JAX see a GPU: `python -m pytest -m gpu tests/gpu`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolift.data.lerobot_writer import FeatureSpec, LeRobotWriter
from robolift.manifest import Manifest
from robolift.stages.stage import execute

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")]

DEVICE, SIDE = "cuda", 96
CAMERAS = ("head", "left")
VALUE = {
    "preset": "tiny",
    "device": DEVICE,
    "steps": 40,
    "warmup_steps": 5,
    "save_every": 10,
    "batch_size": 32,
    "image_size": [SIDE, SIDE],
    "state_keys": ["observation.state"],
}
POLICY = {
    "preset": "tiny",
    "vision": "none",
    "steps": 60,
    "batch_size": 32,
    "state_keys": ["observation.state"],
    "action_horizon": 10,
    "execute": 5,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A dataset whose pictures grow brighter, its targets and its packed frames."""
    folder, rng = tmp_path_factory.mktemp("gpu"), np.random.default_rng(0)
    numbers = FeatureSpec("float32", (3,))
    writer = LeRobotWriter(
        folder / "recording",
        fps=10,
        features={"observation.state": numbers, "action": numbers},
        cameras=dict.fromkeys(CAMERAS, (SIDE, SIDE)),
        robot_type="synthetic",
    )
    for length in range(40, 52):
        path = np.cumsum(rng.standard_normal((length, 3)), axis=0).astype(np.float32)
        shades = np.linspace(0, 255, length).astype(np.uint8)
        video = np.broadcast_to(shades[:, None, None, None], (length, SIDE, SIDE, 3)).copy()
        writer.add_episode(
            {"observation.state": path, "action": path}, videos=dict.fromkeys(CAMERAS, video), task="sort"
        )
    writer.finish()
    runs = str(folder / "runs")
    told = {"dataset_uri": str(folder / "recording"), "control_mode": "demo", "outcome": "success"}
    dataset = execute("import_dataset", told, {}, runs).uri
    packing = {"format": "raw", "size": [SIDE, SIDE], "num_workers": 1}
    return {
        "dataset": dataset,
        "targets": execute("label_returns", {}, {"dataset": dataset}, runs).uri,
        "frames": execute("pack_frames", packing, {"dataset": dataset}, runs).uri,
    }


def contents(manifest: Manifest) -> dict[str, bytes]:
    """Return every file of an output but its manifest, which names its address."""
    root = Path(manifest.uri.removeprefix("file://"))
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def predicted(root: Path, inputs: dict[str, str], **changed: Any) -> tuple[Manifest, Manifest]:
    """Return a value model and what it predicts."""
    trained = execute("train_value", {**VALUE, **changed}, inputs, str(root))
    told = {"dataset": inputs["dataset"], "frames": inputs["frames"], "checkpoint": trained.uri}
    return trained, execute("predict_values", {"device": DEVICE}, told, str(root))


@pytest.mark.parametrize("changed", [{}, {"precision": "bfloat16"}, {"fused_optimizer": True}])
def test_a_value_model_and_its_values_are_the_same_bytes_twice(
    inputs: dict[str, str], tmp_path: Path, changed: dict[str, Any]
) -> None:
    first, second = (predicted(tmp_path / name, inputs, **changed) for name in ("first", "second"))
    for one, other in zip(first, second, strict=True):
        assert contents(one) == contents(other)


def test_a_policy_is_the_same_bytes_twice(inputs: dict[str, str], tmp_path: Path) -> None:
    jax = pytest.importorskip("jax")
    assert jax.devices()[0].platform == "gpu" or DEVICE == "cpu", "JAX sees no GPU"
    runs = str(tmp_path / "runs")
    _, values = predicted(tmp_path / "runs", inputs)
    merged = execute("merge_values", {}, {"dataset": inputs["dataset"], "shards": [values.uri]}, runs)
    given = {"dataset": inputs["dataset"], "targets": inputs["targets"], "values": merged.uri}
    labels = execute("label_advantage", {"source": "nstep", "population": "all"}, given, runs)
    told = {"dataset": inputs["dataset"], "labels": labels.uri}
    first, second = (execute("train_policy", POLICY, told, str(tmp_path / name)) for name in ("first", "second"))
    assert contents(first) == contents(second)
