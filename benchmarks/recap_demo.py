"""The demo's claim over several seeds: does advantage conditioning beat plain and filtered cloning, from what it sees?

    .venv/bin/python benchmarks/recap_demo.py --obs state pixels --seeds 0 1 2

Every number comes from the runs' own ``summary.json``. Runs are reused when finished, so a killed benchmark goes on.
A seed takes about five minutes from state and eleven from pixels on two idle cores. What was seen: recap_demo.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COLUMNS = ("plain", "filtered", "advantage/positive", "advantage/negative", "shuffled/positive")


def run(obs: str, seed: int, output_root: Path) -> dict:
    """Run the demo once and return its summary."""
    name = f"bench-{obs}-{seed}"
    command = [
        sys.executable, "pipeline.py", "run", "recap", "--params", f"params/demo_{obs}.yaml", "--name", name,
        "--set", f"seed={seed}", "--set", f"output_root={output_root}",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True)
    timings = json.loads((output_root / "logs" / name / "timings.json").read_text())
    report = next(stage["uri"] for stage in timings["stages"] if stage["stage"] == "write_report")
    summary = json.loads(Path(report.removeprefix("file://"), "summary.json").read_text())
    return {**summary, "seconds": timings["seconds"]}


def table(obs: str, summaries: dict[int, dict]) -> list[str]:
    """Return the markdown table of one kind of observation."""
    lines = [f"\n## {obs}\n", "| seed | " + " | ".join(COLUMNS) + " | advantage - plain (95 %) | s |"]
    lines.append("|" + "---|" * (len(COLUMNS) + 3))
    for seed, summary in summaries.items():
        rates = {row["name"]: row for row in summary["success"]}
        cells = [f"{100 * rates[c]['success_rate']:.0f}" if c in rates else "-" for c in COLUMNS]
        gain = summary["gain_over_plain"]
        interval = f"+{100 * gain['difference']:.0f} ({100 * gain['ci_low']:+.0f} to {100 * gain['ci_high']:+.0f})"
        lines.append(f"| {seed} | " + " | ".join(cells) + f" | {interval} | {summary['seconds']:.0f} |")
    return lines


def main() -> None:
    """Run all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--obs", nargs="+", default=["state", "pixels"], choices=["state", "pixels"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output-root", type=Path, default=ROOT / "runs" / "bench")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "recap_demo.md")
    args = parser.parse_args()
    lines = [
        "# The demo over seeds",
        "",
        "Success in per cent of closed-loop episodes on fresh seeds, pick-place-v3; all with the same architecture",
        "and steps. Command:",
        f"`python benchmarks/recap_demo.py --obs {' '.join(args.obs)} --seeds {' '.join(map(str, args.seeds))}`;",
        f"{platform.machine()}, 2 cores, no GPU, Python {platform.python_version()}.",
        "`s` is the wall time of the whole run, 0 to 60 where finished stages were reused.",
    ]
    for obs in args.obs:
        lines += table(obs, {seed: run(obs, seed, args.output_root) for seed in args.seeds})
    args.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
