"""``python -m robolift plan --dataset URI``: what a pipeline takes on a dataset, and on more of the same."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

from robolift.errors import UsageError
from robolift.planner.steps import MOST_SHARDS, PARALLELISM, PIPELINES

HOURS = (100.0, 10_000.0, 1_000_000.0)
TFLOPS, MFU, GPUS = 989.0, 0.35, 8
SMALL = "tiny"
STEPS = {SMALL: (1500, 1000)}
BATCH = {SMALL: (48, 256)}
PUBLISHED_STEPS, PUBLISHED_BATCH = 100_000, (128, 256)
"""Of kai0's estimator and policy, on eight GPUs; of the small models the defaults of their recipes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_argument_group("with --dataset")
    what.add_argument("--dataset", metavar="URI", help="LeRobot dataset or import; only its meta folder is read")
    what.add_argument("--pipeline", choices=tuple(PIPELINES), default="recap", help="which (default: recap)")
    what.add_argument("--hours", type=float, nargs="+", metavar="H", help="of such data (default: 100 10000 1000000)")
    what.add_argument(
        "--value-preset", default="pi05", metavar="P", help="tiny or a preset with towers (default: pi05)"
    )
    what.add_argument("--policy-preset", default="pi05", metavar="P", help="tiny or a preset of pi0.5 (default: pi05)")
    for model in ("value", "policy"):
        what.add_argument(
            f"--{model}-steps", type=int, metavar="N", help="of its training (default: 100000, as kai0's)"
        )
        what.add_argument(f"--{model}-batch", type=int, metavar="N", help="rows of a step (default: kai0's)")
    what.add_argument("--gpu-encodes-per-s", type=float, metavar="R", help="of a GPU (default: FLOPs / (peak x MFU))")
    what.add_argument("--num-shards", type=int, metavar="N", help="of a prediction (default: shards of minutes)")
    what.add_argument("--shard-minutes", type=float, default=10.0, metavar="M", help="meant for one (default: 10)")
    what.add_argument("--parallelism", type=int, default=PARALLELISM, metavar="N", help="shards at a time (default: 8)")
    what.add_argument("--decoders", type=int, default=1, metavar="N", help="decoding processes of a GPU (default: 1)")
    what.add_argument("--pod-start-s", type=float, default=0.0, metavar="S", help="until a pod works (default: 0)")


def run(args: argparse.Namespace) -> Iterator[str]:
    """Plan a pipeline.

    Yields:
        What the dataset holds and what was assumed, then a table for it and for each number of hours; or one document.

    Raises:
        UsageError: If an option is wrong.
        DataError: If there is no such dataset.
    """
    _check(args)
    from robolift import storage  # noqa: PLC0415  (--help must be quick)
    from robolift.planner import costs, forecast_table, recordings  # noqa: PLC0415
    from robolift.planner.assumed import assumptions  # noqa: PLC0415
    from robolift.planner.forecast import forecast  # noqa: PLC0415

    found = recordings.read(args.dataset)
    known = costs.load()
    assumed = assumptions(args, cameras=len(found.cameras))
    sizes = [found, *(found.scaled(hours) for hours in args.hours or HOURS)]
    made = [forecast(args.pipeline, size, known, assumed) for size in sizes]
    notes = forecast_table.assumptions(assumed, len(found.cameras))
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
        "decoders",
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
    if not 0 <= args.pod_start_s < math.inf:
        raise UsageError(f"--pod-start-s is {args.pod_start_s:g}; expected seconds")
    if wrong := [hours for hours in args.hours or () if not 0 < hours < math.inf]:
        raise UsageError(f"--hours is {wrong[0]:g}; expected numbers above 0")
