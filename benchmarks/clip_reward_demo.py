"""Does clip_reward find the utility that was planted, over several seeds?

    .venv/bin/python benchmarks/clip_reward_demo.py --seeds 0 1 2

Each seed is a whole run of params/demo_clips.yaml, from raw videos to the report, about a minute on two idle cores.
Numbers come from its outputs; the pair-AUC is measured here, on answers about pairs of clips of held-out participants
that were never asked for, since few of the 500 pairs are of those. What was seen: clip_reward_demo.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from robolift import manifest, schema, storage
from robolift.manifest import Manifest
from robolift.reward_model import metrics
from robolift.reward_model.comparisons import Comparisons
from robolift.sim.annotators import SimulatedAnnotator, clip_utilities

ROOT = Path(__file__).parents[1]
FRESH = 4000


def run(seed: int, folder: Path) -> tuple[Manifest, float]:
    """Run the demo once and return its RewardValidation and the seconds that it took; finished steps are reused."""
    name = f"seed{seed}"
    command = [sys.executable, "pipeline.py", "run", "clip_reward", "--params", "params/demo_clips.yaml"]
    told = ["--name", name, "--set", f"seed={seed}", "--set", f"output_root={folder}"]
    # 65: the reward did not pass; the numbers are there all the same.
    if (code := subprocess.run([*command, *told], cwd=ROOT, check=False).returncode) not in (0, 65):
        sys.exit(code)
    timings = json.loads((folder / "logs" / name / "timings.json").read_text())
    (found,) = [stage["uri"] for stage in timings["stages"] if stage["stage"] == "validate_reward"]
    return manifest.load(found), timings["seconds"]


def pair_auc(validation: Manifest) -> dict[str, float]:
    """Return the pair-AUC of the reward and of the planted utility on the same fresh answers about held-out clips."""
    scored = validation.parent("scores")
    model, features = scored.parent("model"), scored.parent("features")
    clips = features.parent("clips")
    known = schema.read_parquet(clips.file("clips.parquet"))
    truth = clips.parent("videos").parent("recording").file("truth.parquet")
    utility = clip_utilities(schema.read_parquet(truth), known)
    table = schema.read_parquet(scored.file("scores.parquet"))
    score = dict(zip(table.column("clip_id").to_pylist(), table.column("score").to_pylist(), strict=True))
    held = set(storage.read_json(model.file("model.json"))["held_out_videos"])
    unseen = [row["clip_id"] for row in known.to_pylist() if row["video_id"] in held]
    rng = np.random.default_rng(0)
    pairs = np.array([rng.choice(len(unseen), 2, replace=False) for _ in range(FRESH)])
    judge = SimulatedAnnotator(name="fresh", beta=4.0)
    said = [judge.compare(f"p{k}", utility[unseen[a]], utility[unseen[b]]) for k, (a, b) in enumerate(pairs)]
    told = Comparisons.of(pairs[:, 0], pairs[:, 1], said)
    values = {"reward": score, "utility": utility}
    return {
        name: metrics.pair_auc(metrics.margins(np.array([of[clip] for clip in unseen]), told))
        for name, of in values.items()
    }


def measure(seed: int, folder: Path) -> dict[str, str]:
    """Return one column of the table."""
    validation, seconds = run(seed, folder)
    found: dict[str, Any] = storage.read_json(validation.file("validation.json"))
    drops = {"+".join(one["drop"]): one for one in found["ablations"]}
    auc = pair_auc(validation)
    controls = {name: between(one["rho"], one) for name, one in found["controls"].items()}
    return {
        "rho of mean score and dM": between(found["rho"]["rho"], found["rho"]),
        **{f"drop of rho without {name}": between(one["drop_in_rho"], one) for name, one in drops.items()},
        **{f"control: {name}": said for name, said in controls.items()},
        "passed": "yes" if found["passed"] else "no",
        "pair-AUC of the reward": f"{auc['reward']:.3f}",
        "pair-AUC of the planted utility": f"{auc['utility']:.3f}",
        "below it by": f"{auc['utility'] - auc['reward']:.3f}",
        "seconds, whole run": f"{seconds:.0f}",
    }


def between(value: float, found: dict[str, Any]) -> str:
    """Return a number with its interval."""
    return f"{value:.2f} ({found['lower']:.2f} to {found['upper']:.2f})"


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output-root", type=Path, default=ROOT / "runs" / "bench")
    asked = parser.parse_args()
    columns = {seed: measure(seed, asked.output_root) for seed in asked.seeds}
    print("\n| |" + "".join(f" seed {seed} |" for seed in columns))
    print("|---|" + "---|" * len(columns))
    for name in next(iter(columns.values())):
        print(f"| {name} |" + "".join(f" {column[name]} |" for column in columns.values()))


if __name__ == "__main__":
    main()
