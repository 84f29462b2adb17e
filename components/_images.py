"""Which image each stage runs in. The one place that says so.

Digests come from ``images.lock.json`` (written when images are built). Without it the compiled pipeline names
``robolift-<image>:<version>``: good for reading and for running on this machine, refused by a real submission,
because a tag can be moved, and the steps of one run would then be of different code.
"""

import json
from pathlib import Path

from robolift import __version__

LOCK_FILE = Path(__file__).parent.parent / "images.lock.json"

STAGE_IMAGES = {
    "check_run": "cpu",
    "check_dataset": "cpu",
    "plan_shards": "cpu",
    "plan_stage_advantage": "cpu",
    "check_labeling": "cpu",
    "check_clips": "cpu",
    "check_address": "cpu",
    "check_reward": "cpu",
    "simulate_episodes": "jax",  # acts with the previous policy from the second iteration on
    "import_replay_buffer": "cpu",
    "import_dataset": "cpu",
    "pack_frames": "cpu",
    "label_returns": "cpu",
    "train_value": "torch",
    "predict_values": "torch",
    "merge_values": "cpu",
    "plan_labels": "cpu",
    "annotate_rewards": "torch",  # it may hold the model itself
    "collect_rewards": "cpu",
    "import_reviews": "cpu",
    "import_rewards": "cpu",
    "label_quality": "cpu",
    "merge_rewards": "cpu",
    "label_advantage": "cpu",
    "export_dataset": "cpu",
    "compute_norm_stats": "cpu",
    "train_policy": "jax",
    "evaluate_policy": "jax",
    "simulate_videos": "cpu",
    "ingest_videos": "cpu",
    "extract_clips": "cpu",
    "extract_features": "torch",  # OpenCV, MediaPipe and the encoder
    "merge_features": "cpu",
    "propose_pairs": "cpu",
    "simulate_preferences": "cpu",
    "import_preferences": "cpu",
    "train_reward": "torch",
    "score_clips": "torch",  # a model may be the `mlp`
    "train_downstream": "cpu",
    "validate_reward": "cpu",
    "write_report": "cpu",
}


def image(stage: str) -> str:
    """Return the image reference of ``stage``."""
    return image_named(STAGE_IMAGES[stage])


def image_named(name: str) -> str:
    """Return the reference of one of the images: cpu, torch, jax, review."""
    if LOCK_FILE.exists():
        return str(json.loads(LOCK_FILE.read_text())[name])
    return f"robolift-{name}:{__version__}"
