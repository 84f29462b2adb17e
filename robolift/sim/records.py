"""What comes back from a simulator process; needs no simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robolift.sim.plans import EpisodePlan

Observation = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """A finished episode of T frames.

    Attributes:
        plan: What was asked for.
        success: Whether the task was solved.
        length: Actions until it was solved, or until the end.
        columns: For each feature its T rows: states, action, control_mode, intervention, progress_gt,
            stage_progress_gt, is_good_gt (1, 0, or -1 for not known). Row t is what was seen before action t.
        images: For each camera feature (T, H, W, 3) uint8, empty unless the plan keeps images.
    """

    plan: EpisodePlan
    success: bool
    length: int
    columns: dict[str, Any]
    images: dict[str, np.ndarray]
