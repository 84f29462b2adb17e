"""What the tests of norm statistics stand on: recordings whose every number is given, imported and measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from robolift.data.lerobot_writer import FeatureSpec, LeRobotWriter
from robolift.manifest import Manifest
from robolift.stages.stage import execute

SMALL: list[Any] = [([[-3, 7], [0, 7], [1, 7]], [4, 1, 2]), ([[-1, 7], [1, 7]], [0, 3])]


def write(path, episodes, *, version="v3.0", names=("height", "grip"), camera=None, control=None):
    """Write episodes of (state rows (T, 2), actions (T,)), all of one task."""
    features = {
        "observation.state": FeatureSpec("float32", (2,), list(names) if names else None),
        "action": FeatureSpec("float32", (1,)),
        "control_mode": FeatureSpec("string"),
    }
    cameras = {camera: (32, 32)} if camera else {}
    writer = LeRobotWriter(path, fps=10, features=features, cameras=cameras, robot_type="arm", version=version)
    for number, (state, action) in enumerate(episodes):
        columns = {
            "observation.state": np.asarray(state, np.float32),
            "action": np.asarray(action, np.float32)[:, None],
            "control_mode": (control or {}).get(number, ["autonomous"] * len(state)),
        }
        videos = {camera: [np.full((32, 32, 3), 9 * t, np.uint8) for t in range(len(state))]} if camera else {}
        writer.add_episode(columns, videos=videos, task="fold", extra={"outcome": "success", "kind": "rollout"})
    writer.finish()
    return path


def imported(path, root) -> Manifest:
    return execute("import_dataset", {"dataset_uri": str(path)}, {}, str(root))


def measured(dataset: Manifest, root, **config) -> Manifest:
    return execute("compute_norm_stats", config, {"dataset": dataset.uri}, str(root))
