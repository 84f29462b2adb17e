"""kai0's published policy training, by the names its users know.

``pi05_<task>_awbc`` for flatten_fold and tee_shirt_sort (Agilex arms) and hang_cloth (ARX arms): kai0's
``src/openpi/training/config.py``, whose three entries differ in data and prompt alone. Chunks of 50 absolute joint
positions, batches of 256, 100,000 steps of AdamW (0.9, 0.95, decay 1e-10, clip 1) whose rate rises in 1,000 steps to
2.5e-5 and falls as a cosine to 2.5e-6, an average of the weights with decay 0.99, states and actions normalised by
their 1 % and 99 % quantiles, every frame under the prompt of its label and none under the bare task.

A recipe is data, prompts and schedule, not a size. The network is ``tiny`` (0.2 million weights over the value model's
frozen image encoder) unless ``preset`` is ``pi05`` or ``pi05_lora``. ``policy.json`` names what was trained.

Where we differ from what is published, and why: prompts come from the dataset's task text, where kai0 writes "fold the
cloth" for every task; the cosine spans the run, where theirs is flat after 30,000 of 100,000 steps
(``decay_steps: 30000`` is theirs), and warm-up is 1 % of the run, so that both fit a run of any length; normalisation
and loss know the real dimensions alone, where theirs train 18 padded ones; a tenth of the episodes is held out to
measure on; angles beyond pi are not set to 0; kernels alone decay.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

# Agilex and ARX alike.
CAMERAS = ("observation.images.top_head", "observation.images.hand_left", "observation.images.hand_right")
TASKS = ("flatten_fold", "tee_shirt_sort", "hang_cloth")

_AWBC: dict[str, Any] = {
    "preset": "tiny",
    "variant": "advantage",
    "objective": "flow",
    "cameras": list(CAMERAS),
    "state_keys": ["observation.state"],
    "action_horizon": 50,
    "normalization": "quantile",
    "steps": 100_000,
    "batch_size": 256,
    "schedule": "warmup_cosine",
    "learning_rate": 2.5e-5,
    "beta2": 0.95,
    "weight_decay": 1e-10,
    "gradient_clip": 1.0,
    "ema_decay": 0.99,
    "label_dropout": 0.0,
    "input_noise": 0.0,
    "log_every": 100,
    "save_every": 1000,
    "seed": 42,
}

RECIPES = MappingProxyType({f"pi05_{task}_awbc": _AWBC for task in TASKS})
