"""``python -m robolift plan``: what training takes before a GPU is asked for, and a pipeline on a dataset."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace

from robolift.errors import UsageError
from robolift.planner import advice, dataset_cli, plan, table
from robolift.planner.network import Network
from robolift.planner.plan import GIB, Layout

OF_TRAININGS = ("model", "nodes", "gpu_memory_gib", "fsdp", "batch_size", "steps")
"""Options that only a training has, besides those of value models."""
OF_VALUES = {"pictures": 3, "remat": "off", "freeze": "none", "accumulate": 1, "select": "last"}
"""Defaults of the options that only value models have, those of their recipe."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--preset", help="plan a training; size of the network: pi05, pi05_lora, ...")
    parser.add_argument("--model", choices=("policy", "value"), help="whose presets (default: policy)")
    where = parser.add_argument_group("on what")
    where.add_argument("--gpus", type=int, metavar="N", help="GPUs of a node (default: 1; 8 with --dataset)")
    where.add_argument("--nodes", type=int, metavar="N", help="nodes (default: 1)")
    where.add_argument("--gpu-memory-gib", type=float, metavar="GIB", help="of one GPU (default: 80)")
    where.add_argument("--fsdp", type=int, metavar="N", help="GPUs that share one copy (default: those of a node)")
    how = parser.add_argument_group("how")
    how.add_argument("--batch-size", type=int, metavar="N", help="rows of a step (default: the most that fit)")
    value = parser.add_argument_group("value models alone, as in their recipe")
    value.add_argument(
        "--pictures",
        type=int,
        metavar="N",
        help="pictures of a row, which are cameras, times two where two frames are compared (default: 3)",
    )
    value.add_argument(
        "--remat", choices=("on", "off"), help="compute layers again, checkpoint_activations (default: off)"
    )
    value.add_argument("--freeze", choices=("none", "vision", "backbones"), help="towers that stay (default: none)")
    value.add_argument("--accumulate", type=int, metavar="N", help="parts of a GPU's rows of a step (default: 1)")
    value.add_argument("--select", choices=("last", "best"), help="weights that are kept (default: last)")
    time = parser.add_argument_group("time, with all three")
    time.add_argument("--steps", type=int, metavar="N", help="steps of the run")
    time.add_argument(
        "--tflops", type=float, metavar="T", help="peak of one GPU, bfloat16 without sparsity (with --dataset: 989)"
    )
    time.add_argument(
        "--mfu", type=float, metavar="M", help="share of the peak that is reached, in (0, 1] (with --dataset: 0.35)"
    )
    dataset_cli.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON document, sizes in bytes")


def run(args: argparse.Namespace) -> Iterator[str]:
    """Plan a training, or a pipeline on a dataset.

    Yields:
        The table or the JSON document, whether it fits or not.

    Raises:
        UsageError: If an option is wrong, or training does not fit; then with what would fit.
        DataError: If there is no such dataset.
    """
    if (args.preset is None) == (args.dataset is None):
        raise UsageError("plan needs --preset, to plan a training, or --dataset, to plan a pipeline; one of them")
    _check_mode(args)
    yield from dataset_cli.run(args) if args.dataset is not None else _training(args)


def _check_mode(args: argparse.Namespace) -> None:
    """Refuse the options of the other plan, which would change nothing."""
    mode, others = "--preset", tuple(dataset_cli.DEFAULTS)
    if args.dataset is not None:
        mode, others = "--dataset", (*OF_TRAININGS, *OF_VALUES)
    if given := [f"--{name.replace('_', '-')}" for name in others if getattr(args, name) is not None]:
        other = "--preset, for one training" if mode == "--dataset" else "--dataset, for a pipeline"
        raise UsageError(f"{', '.join(given)}: no option of {mode}; leave it out, or plan with {other}")


def _training(args: argparse.Namespace) -> Iterator[str]:
    """Plan a training; as :func:`run`."""
    _fill_in(args)
    _check_counts(args)
    network, adapted = _networks(args)
    layout = _layout(args, network)
    _check_time(args)
    batch = args.batch_size if args.batch_size is not None else max(1, plan.most_rows(network, layout)) * layout.parts
    if batch < 1 or batch % layout.parts:
        parts = f" in {layout.accumulate} parts each" if layout.accumulate > 1 else ""
        raise UsageError(
            f"--batch-size {batch} cannot be shared by {layout.devices} GPUs{parts}; "
            f"expected a multiple of {layout.parts}"
        )
    seconds = None
    if args.steps is not None:
        seconds = plan.step_seconds(network, layout, batch, tflops=args.tflops, mfu=args.mfu)
    if args.json:
        from robolift import storage  # noqa: PLC0415  (--help must not import fsspec's world)

        time = {} if seconds is None else {"step_s": seconds, "run_s": seconds * args.steps}
        yield storage.to_json_bytes({**table.document(network, layout, batch), **time}).decode().rstrip()
    else:
        yield table.render(network, layout, batch)
        if seconds is not None:
            yield f"time at {args.mfu:.0%} of {args.tflops:g} TFLOP/s: {seconds:.3g} s a step, " + (
                f"{seconds * args.steps / 3600:.3g} h for {args.steps} steps"
            )
    if not plan.fits(network, layout, batch):
        raise UsageError(_refusal(network, layout, batch, adapted, gpus=args.gpus))


def _fill_in(args: argparse.Namespace) -> None:
    """Set the defaults of what wasn't given."""
    for name, always in (("model", "policy"), ("gpus", 1), ("nodes", 1), ("gpu_memory_gib", 80.0)):
        if getattr(args, name) is None:
            setattr(args, name, always)
    for name, default in OF_VALUES.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
        elif args.model == "policy":
            raise UsageError(
                f"--{name} is for --model value; a policy sees its preset's cameras, computes each layer again for the "
                "gradient, a whole batch at once, and keeps its last weights"
            )


def _networks(args: argparse.Namespace) -> tuple[Network, Network | None]:
    """Return the network, and the same with low-rank updates if there is one."""
    from robolift.planner import policy, value  # noqa: PLC0415  (--help must be quick)
    from robolift.policy.pi05 import config as policies  # noqa: PLC0415
    from robolift.value_model import presets as values  # noqa: PLC0415

    made = {name: make() for name, make in values.PRESETS.items()}
    towers = {name: config for name, config in made.items() if isinstance(config, values.TokenModelConfig)}
    model, preset = args.model, args.preset
    known = list(policies.PRESETS if model == "policy" else towers)
    if preset not in known:
        raise UsageError(
            f"--preset {preset}: no {model} of this size can be planned; there are: {', '.join(known)}. "
            "What `tiny` takes depends on the dataset, and fits any machine"
        )
    if model == "value":
        return value.network(towers[preset], pictures=args.pictures, freeze=args.freeze), None
    adapted = policies.PRESETS.get(f"{preset}_lora")
    return policy.network(policies.PRESETS[preset]()), policy.network(adapted()) if adapted else None


def _check_counts(args: argparse.Namespace) -> None:
    for option in ("gpus", "nodes", "pictures", "accumulate"):
        if getattr(args, option) < 1:
            raise UsageError(f"--{option} is {getattr(args, option)}; expected at least 1")


def _layout(args: argparse.Namespace, network: Network) -> Layout:
    layout = Layout(
        devices=args.gpus * args.nodes,
        fsdp=args.gpus if args.fsdp is None else args.fsdp,
        remat=args.model == "policy" or args.remat == "on",
        memory_gib=args.gpu_memory_gib,
        accumulate=args.accumulate,
        best=args.select == "best",
    )
    if layout.fsdp not in (parts := advice.splits(network, layout.devices)):
        if args.fsdp is None:
            return replace(layout, fsdp=layout.devices)
        raise UsageError(f"--fsdp {args.fsdp}: expected one of {', '.join(map(str, parts))} for {network.trainer}")
    return layout


def _check_time(args: argparse.Namespace) -> None:
    given = [args.steps, args.tflops, args.mfu]
    if any(value is not None for value in given) and None in given:
        raise UsageError("a time needs --steps, --tflops and --mfu together")
    if None not in given and not (args.steps > 0 and 0 < args.tflops < math.inf and 0 < args.mfu <= 1):
        raise UsageError(
            f"--steps {args.steps} --tflops {args.tflops:g} --mfu {args.mfu:g}: expected numbers above 0, mfu at most 1"
        )


def _refusal(network: Network, layout: Layout, batch: int, adapted: Network | None, *, gpus: int) -> str:
    needed = plan.memory(network, layout, rows=batch // layout.parts)
    found = advice.proposals(network, layout, batch, adapted, gpus=gpus)
    return (
        f"{network.preset} with a batch of {batch} does not fit: each of {layout.devices} GPUs needs "
        f"{needed.total / GIB:.1f} GiB, {needed.fixed / GIB:.1f} of them whatever the batch, and has "
        f"{layout.usable_bytes / GIB:.1f} to fill\n  what would fit: "
        + ("; or ".join(found) if found else f"nothing of this preset on GPUs of {layout.memory_gib:g} GiB")
    )
