"""``python -m robolift export-policy``: a trained policy in a form that other programs load."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from robolift.errors import UsageError

FORMS = ("orbax", "openpi_torch", "safetensors")
ASSET_ID = "robolift"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--checkpoint", required=True, metavar="URI", help="policy: a finished output of train_policy")
    parser.add_argument(
        "--form",
        required=True,
        choices=FORMS,
        help="orbax: openpi's JAX checkpoint; openpi_torch: openpi's PyTorch model; "
        "safetensors: one file with the names of openpi's JAX tree",
    )
    parser.add_argument("--output", required=True, metavar="URI", help="folder to write, not there yet; any address")
    parser.add_argument(
        "--asset-id",
        default=ASSET_ID,
        metavar="NAME",
        help=f"openpi's name for what the policy was trained on, the folder of norm_stats.json ({ASSET_ID})",
    )


def run(args: argparse.Namespace) -> Iterator[str]:
    """Write the export; what is there already stays.

    Yields:
        Its address.

    Raises:
        UsageError: If something else lies there, or the policy has no such form.
        DataError: If the policy is missing or damaged.
    """
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", args.asset_id):
        raise UsageError(f"--asset-id is {args.asset_id!r}, expected names of letters, digits, . _ - with / in between")
    from robolift import manifest, storage  # noqa: PLC0415  (--help must not import JAX)
    from robolift.schema import Kind  # noqa: PLC0415

    policy = manifest.expect(manifest.load(args.checkpoint), Kind.POLICY, name="checkpoint")
    try:
        from robolift.policy.pi05.export import Export  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UsageError(f"JAX is not installed: {error}\n  mend: pip install 'robolift[jax]'") from error
    uri = storage.normalize(args.output)
    Export(policy=policy, uri=uri, form=args.form, asset_id=args.asset_id).run()
    yield uri
