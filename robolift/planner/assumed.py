"""From the options of ``plan --dataset`` to what a forecast assumes: which networks, how many FLOPs a frame costs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace

from robolift.errors import UsageError
from robolift.planner import dataset_cli, plan, policy, value
from robolift.planner.forecast import Assumptions, Training
from robolift.planner.network import Network
from robolift.policy.pi05.config import PRESETS as POLICIES
from robolift.value_model.presets import PRESETS as VALUES
from robolift.value_model.presets import TokenModelConfig

COMPARED = 2
"""Frames that the estimator of stage_advantage sees at a time, and readings of it for each frame: the progress since
the first frame, and over the lookahead."""


def assumptions(args: argparse.Namespace, *, cameras: int) -> Assumptions:
    """Return what the options say.

    Raises:
        UsageError: If there is no such preset.
    """
    compared = COMPARED if args.pipeline == "stage_advantage" else 1
    made = {name: make() for name, make in VALUES.items()}
    towers = {name: config for name, config in made.items() if isinstance(config, TokenModelConfig)}
    _check("--value-preset", args.value_preset, towers)
    _check("--policy-preset", args.policy_preset, POLICIES)
    config = towers.get(args.value_preset)
    valued = value.network(config, pictures=max(1, cameras) * compared) if config else None
    policied = None
    if args.policy_preset in POLICIES:
        policied = policy.network(POLICIES[args.policy_preset]())
    return Assumptions(
        value=replace(
            _training(args, "value", valued, config.vision.image_px if config else 96),
            padded=config is not None and config.padded,
            looks=compared,
        ),
        # The small policy sees what the value model's encoder made of pictures.
        policy=replace(_training(args, "policy", policied, 224), padded=True, looks=int(policied is not None)),
        frame_flops=frame_flops(config, cameras, compared) if config else 0.0,
        encodes_per_s=args.gpu_encodes_per_s,
        gpus=args.gpus or dataset_cli.GPUS,
        tflops=args.tflops or dataset_cli.TFLOPS,
        mfu=args.mfu or dataset_cli.MFU,
        num_shards=args.num_shards,
        shard_minutes=args.shard_minutes,
        parallelism=args.parallelism,
        readers=args.readers,
        pod_start_s=args.pod_start_s,
        baselines=args.baselines,
        frame_format=args.frame_format,
    )


def _check(option: str, preset: str, known: Iterable[str]) -> None:
    names = [dataset_cli.SMALL, *known]
    if preset not in names:
        raise UsageError(f"{option} {preset}: there are: {', '.join(names)}")


def _training(args: argparse.Namespace, model: str, network: Network | None, image_side: int) -> Training:
    at = ("value", "policy").index(model)
    steps, batch = dataset_cli.PUBLISHED_STEPS, dataset_cli.PUBLISHED_BATCH[at]
    if network is None:
        steps, batch = dataset_cli.STEPS[dataset_cli.SMALL][at], dataset_cli.BATCH[dataset_cli.SMALL][at]
    return Training(
        steps=getattr(args, f"{model}_steps") or steps,
        batch=getattr(args, f"{model}_batch") or batch,
        network=network,
        image_side=image_side,
    )


def frame_flops(config: TokenModelConfig, cameras: int, compared: int) -> float:
    """Return the forward FLOPs of one frame's prediction.

    Each picture goes through the vision tower once; what ``compared`` frames give goes through the language tower as
    often as frames are compared.
    """
    once = value.network(config, pictures=cameras)
    together = value.network(config, pictures=cameras * compared)
    return _seen(once) + compared * (plan.flops(together, remat=False).forward - _seen(together))


def _seen(network: Network) -> float:
    """Return the FLOPs of the vision tower and of what makes patches of pictures, and tokens of patches."""
    vision, patches, tokens = network.stacks[0], *network.products[:2]
    return vision.product_flops() + vision.attention_flops() + patches.flops + tokens.flops
