"""kai0's published training of its advantage estimators, by the names its users know.

``ADVANTAGE_TORCH_<head>_<task>`` with head KAI0 (two frames) or PI06 (one frame). What is published is the pair for
FLATTEN_FOLD (``src/openpi/training/config.py``); kai0's other two tasks are recorded with the same cameras under the
same names, FLATTEN_FOLD and TEE_SHIRT_SORT on Agilex arms and HANG_CLOTH on ARX, and take the same settings.

Where we differ from the published settings, and why: the cosine spans the run, where theirs is flat after 30,000 of
100,000 steps; weights and moments are float32 and only the arithmetic is bfloat16, since a bfloat16 weight does not
feel a step of 2.5e-5; an average of the weights is kept; a tenth of the episodes is held out to measure on; one frame
is trained on its own progress rather than on a difference it can't see. Neither state nor action enters the model, as
in theirs by intent. The architecture is ``tiny``; for theirs set ``preset`` to ``pi05``, and ``tokenizer`` and
``weights``.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

# Agilex and ARX alike.
CAMERAS = ("observation.images.top_head", "observation.images.hand_left", "observation.images.hand_right")
TASKS = ("FLATTEN_FOLD", "TEE_SHIRT_SORT", "HANG_CLOTH")

_BOTH: dict[str, Any] = {
    "preset": "tiny",
    "progress_column": "stage_progress_gt",
    "cameras": list(CAMERAS),
    "image_size": (224, 224),
    "state_keys": [],
    "steps": 100_000,
    "learning_rate": 2.5e-5,
    "warmup_steps": 1000,
    "final_learning_rate_fraction": 0.1,
    "weight_decay": 1e-10,
    "gradient_clip": 1.0,
    "ema_decay": 0.99,
    "value_weight": 1.0,
    "action_weight": 0.0,
    "input_noise": 0.0,
    "shift_px": 0,
    "brightness": 0.0,
    "log_every": 100,
    "eval_every": 10_000,
    "save_every": 10_000,
    "keep_every": 10_000,
    "precision": "bfloat16",
    "seed": 42,
}
# Batch sizes as published for eight GPUs.
_HEADS = {"KAI0": {"head": "relative", "batch_size": 128}, "PI06": {"head": "single", "batch_size": 144}}

RECIPES = MappingProxyType(
    {f"ADVANTAGE_TORCH_{head}_{task}": {**_BOTH, **own} for head, own in _HEADS.items() for task in TASKS}
)
