"""``python -m robolift plan --dataset URI``: what a pipeline takes on a dataset, and on more of the same."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

from robolift.errors import UsageError
from robolift.planner.steps import FORMATS, MOST_SHARDS, PARALLELISM, PIPELINES

HOURS = (100.0, 10_000.0, 1_000_000.0)
TFLOPS, MFU, GPUS = 989.0, 0.35, 8
SMALL = "tiny"
STEPS = {SMALL: (1500, 1000)}
BATCH = {SMALL: (48, 256)}
PUBLISHED_STEPS, PUBLISHED_BATCH = 100_000, (128, 256)
"""Of kai0's estimator and policy, on eight GPUs; of the small models the defaults of their recipes."""
DEFAULTS = {
    "pipeline": "recap",
    "hours": HOURS,
    "value_preset": "pi05",
    "policy_preset": "pi05",
    "value_steps": None,
    "value_batch": None,
    "policy_steps": None,
    "policy_batch": None,
    "gpu_encodes_per_s": None,
    "num_shards": None,
    "shard_minutes": 10.0,
    "parallelism": PARALLELISM,
    "readers": 1,
    "pod_start_s": 0.0,
    "baselines": 1,
    "frame_format": "raw",
}
"""Of the options that only a dataset's plan has; None stands for what depends on others."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; what isn't given is None, until :func:`fill_in`."""
    what = parser.add_argument_group("with --dataset")
    what.add_argument("--dataset", metavar="URI", help="LeRobot dataset or import; only its meta folder is read")
    what.add_argument("--pipeline", choices=tuple(PIPELINES), help="which (default: recap)")
    what.add_argument("--hours", type=float, nargs="+", metavar="H", help="of such data (default: 100 10000 1000000)")
    what.add_argument("--value-preset", metavar="P", help="tiny or a preset with towers (default: pi05)")
    what.add_argument("--policy-preset", metavar="P", help="tiny or a preset of pi0.5 (default: pi05)")
    for model in ("value", "policy"):
        what.add_argument(
            f"--{model}-steps", type=int, metavar="N", help="of its training (default: 100000, as kai0's)"
        )
        what.add_argument(f"--{model}-batch", type=int, metavar="N", help="rows of a step (default: kai0's)")
    what.add_argument("--gpu-encodes-per-s", type=float, metavar="R", help="of a GPU (default: FLOPs / (peak x MFU))")
    what.add_argument("--num-shards", type=int, metavar="N", help="of a prediction (default: shards of minutes)")
    what.add_argument("--shard-minutes", type=float, metavar="M", help="meant for one (default: 10)")
    what.add_argument("--parallelism", type=int, metavar="N", help="shards at a time (default: 8)")
    what.add_argument("--readers", type=int, metavar="N", help="processes of a GPU that read pictures (default: 1)")
    what.add_argument("--pod-start-s", type=float, metavar="S", help="until a pod works (default: 0)")
    what.add_argument("--baselines", type=int, metavar="N", help="policies to compare with, each trained (default: 1)")
    what.add_argument("--frame-format", choices=tuple(FORMATS), help="of packed pictures (default: raw)")


def fill_in(args: argparse.Namespace) -> None:
    """Set the defaults of what wasn't given."""
    for name, default in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, default)


def run(args: argparse.Namespace) -> Iterator[str]:
    """Plan a pipeline.

    Yields:
        What the dataset holds and what was assumed, then a table for it and for each number of hours; or one document.

    Raises:
        UsageError: If an option is wrong.
        DataError: If there is no such dataset.
    """
    fill_in(args)
    _check(args)
    from robolift import storage  # noqa: PLC0415  (--help must be quick)
    from robolift.planner import costs, forecast_table, recordings  # noqa: PLC0415
    from robolift.planner.assumed import assumptions  # noqa: PLC0415
    from robolift.planner.forecast import forecast  # noqa: PLC0415

    found = recordings.read(args.dataset)
    known = costs.load()
    assumed = assumptions(args, cameras=len(found.cameras))
    sizes = [found, *(found.scaled(hours) for hours in args.hours)]
    made = [forecast(args.pipeline, size, known, assumed) for size in sizes]
    notes = forecast_table.assumptions(args.pipeline, found, assumed)
    if args.json:
        yield (
            storage.to_json_bytes(
                {
                    "dataset": args.dataset,
                    "pipeline": args.pipeline,
                    "measured": known.measured,
                    "assumed": notes,
                    "forecasts": [forecast_table.document(one, assumed) for one in made],
                }
            )
            .decode()
            .rstrip()
        )
        return
    measured = known.measured
    yield "\n".join(
        [
            f"{args.pipeline} on {args.dataset}",
            f"costs as measured on {measured['cpu']}, {measured['date']}; not measured but assumed:",
            *(f"  {note}" for note in notes),
        ]
    )
    for one in made:
        yield f"\n{forecast_table.render(one, assumed)}"


def _check(args: argparse.Namespace) -> None:
    whole = (
        "num_shards",
        "parallelism",
        "readers",
        "gpus",
        "value_steps",
        "value_batch",
        "policy_steps",
        "policy_batch",
    )
    for name in (*whole, "gpu_encodes_per_s", "shard_minutes", "tflops"):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name.replace('_', '-')} is {value:g}; expected a number above 0")
    if args.num_shards is not None and args.num_shards > MOST_SHARDS:
        raise UsageError(f"--num-shards is {args.num_shards}; expected at most {MOST_SHARDS}")
    if args.mfu is not None and not 0 < args.mfu <= 1:
        raise UsageError(f"--mfu is {args.mfu:g}; expected a share in (0, 1]")
    if args.baselines < 0:
        raise UsageError(f"--baselines is {args.baselines}; expected at least 0")
    if not 0 <= args.pod_start_s < math.inf:
        raise UsageError(f"--pod-start-s is {args.pod_start_s:g}; expected seconds")
    if wrong := [hours for hours in args.hours if not 0 < hours < math.inf]:
        raise UsageError(f"--hours is {wrong[0]:g}; expected numbers above 0")
