"""Label tables of a small example, kept in the repository: a change of any label is a reviewed diff."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import label, make_targets, publish_dataset, publish_values

from robolift import storage
from robolift.manifest import Manifest

GOLDEN = Path(__file__).parents[1] / "golden"
REWRITE = os.environ.get("ROBOLIFT_GOLDEN") == "1"

CASES: dict[str, dict[str, Any]] = {
    "recap": {"lookahead": 4},
    "recap_exact_gae": {"source": "gae", "gae_lambda": 0.9, "tie": "exact", "group_by": "all"},
    "stage_advantage": {
        "source": "progress",
        "column": "value",
        "lookahead": 4,
        "population": "all",
        "demo": "score",
        "intervention": "score",
        "group_by": "task_stage",
        "num_task_stages": 2,
        "stage_progress_column": "value_std",
    },
    "slices_rabc": {"lookahead": 4, "scheme": "slices", "num_slices": 5, "weight": "rabc", "weight_kappa": 0.2},
}


def make_example(root: str) -> dict[str, Manifest]:
    """Six episodes of two tasks and two iterations, with corrections and a pause, and values that are roughly right."""
    lengths = [6, 9, 12, 10, 8, 7]
    kinds = ["demo", *["rollout"] * 5]
    modes = [mode for kind, num in zip(kinds, lengths, strict=True) for mode in [_mode(kind)] * num]
    corrected = lengths[0] + lengths[1] + 7  # in the third episode: a pause, then a person takes over
    modes[corrected : corrected + 5] = ["paused", *["correcting"] * 4]
    dataset = publish_dataset(
        root,
        lengths,
        kind=kinds,
        outcome=["success", "failure", "success", "success", "failure", "success"],
        task=["fold the cloth"] * 3 + ["stack the cups"] * 3,
        iteration=[1, 1, 1, 1, 2, 2],
        control_mode=modes,
    )
    targets = make_targets(root, dataset)
    # Sixty-fourths are exact in binary, so the example has the same bits on every machine.
    noise = np.random.default_rng(20).integers(-12, 13, size=sum(lengths)) / 64
    target = targets.table("targets").column("value_target").to_numpy()
    progress = np.concatenate([np.arange(length) / length for length in lengths])
    values = publish_values(root, dataset, target + noise, std=progress)
    return {"dataset": dataset, "targets": targets, "values": values}


def _mode(kind: str) -> str:
    return "demo" if kind == "demo" else "autonomous"


def describe(labels: Manifest, config: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept: a line a frame, the cuts, and the prompts."""
    rows = labels.table("labels").to_pylist()
    summary = storage.read_json(labels.file("summary.json"))
    return {
        "config": config,
        "groups": {
            name: {key: _rounded(value) for key, value in group.items() if key != "edges"}
            for name, group in summary["groups"].items()
        },
        "prompts": storage.read_json(labels.file("prompts.json"))["prompts"],
        "columns": " | ".join(rows[0]),
        "frames": [" | ".join(str(_rounded(value)) for value in row.values()) for row in rows],
    }


def _rounded(value: Any) -> Any:
    return round(value, 5) + 0.0 if isinstance(value, float) else value


@pytest.mark.parametrize("case", list(CASES))
def test_golden_label_table(case: str, output_root: str) -> None:
    labels = label(output_root, **make_example(output_root), **CASES[case])
    found = describe(labels, CASES[case])
    path = GOLDEN / f"labels_{case}.json"
    if REWRITE:
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(path.read_text(encoding="utf-8"))
