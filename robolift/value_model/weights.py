"""First weights of the towers, read from files that other tools wrote; whatever does not fit is named, never skipped.

Two namings are read, told by the preset's family:

* ``gemma``: openpi's PyTorch state dict of pi0.5 (``PI0Pytorch``), of which we take PaliGemma's part with its
  projector. Its action expert and action projections are not ours. safetensors keeps one of two tied names, so the
  table of words may be there as ``lm_head`` alone.
* ``gemma3``: what ``transformers`` saves of SigLIP and of Gemma 3, both below one folder. SigLIP's text tower and
  pooling head are not ours; the projector between the towers starts from random weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch

from robolift.data.models import materialize, model_files
from robolift.errors import DataError
from robolift.training.distributed import ALONE, World, collect
from robolift.value_model.backbones.token_model import ValueTokenModel

SUFFIX = ".safetensors"
REPORTED = 10
"""Names listed of each kind of misfit; of all there is the number."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How the names of a file become those of our towers.

    Attributes:
        prefixes: What names begin with and what stands there in ours, None for weights that are not ours. The first
            that fits counts.
        fresh: Ours that the files do not hold, by what their names begin with.
        tied: A name of ours and the name it may be saved under instead.
    """

    prefixes: tuple[tuple[str, str | None], ...]
    fresh: tuple[str, ...]
    tied: tuple[str, str] | None = None


_OPENPI = "paligemma_with_expert.paligemma."
NAMINGS = {
    "gemma": Naming(
        prefixes=(
            (f"{_OPENPI}model.vision_tower.vision_model.", "vision."),
            (f"{_OPENPI}model.multi_modal_projector.linear.", "projector."),
            (f"{_OPENPI}model.language_model.", "language."),
            (f"{_OPENPI}lm_head.", None),
            ("paligemma_with_expert.gemma_expert.", None),
            *((f"{name}.", None) for name in ("action_in_proj", "action_out_proj", "time_mlp_in", "time_mlp_out")),
        ),
        fresh=("value_token", "value_head."),
        tied=("language.embed_tokens.weight", f"{_OPENPI}lm_head.weight"),
    ),
    "gemma3": Naming(
        prefixes=(
            *((f"{name}.", None) for name in ("vision_model.head", "text_model", "head", "lm_head")),
            ("logit_", None),
            ("vision_model.", "vision."),
            *((f"{name}.", f"vision.{name}.") for name in ("embeddings", "encoder", "post_layernorm")),
            ("model.", "language."),
            *((f"{name}.", f"language.{name}.") for name in ("embed_tokens", "layers", "norm")),
        ),
        fresh=("value_token", "value_head.", "projector."),
    ),
}


def load_towers(
    model: ValueTokenModel,
    uri: str,
    sha256: str = "",
    *,
    world: World = ALONE,
    device: torch.device | None = None,
) -> None:
    """Put weights into the towers of ``model``; all are checked before any is read, then they are read one by one.

    Args:
        model: On the CPU or ``meta``, its weights float32 or another type that the file's are converted to.
        uri: A safetensors file, or a folder with any number of them; hidden ones don't count.
        sha256: What robolift.data.models.model_digest must say of it; empty: anything.
        world: This process among the others, all of which have to call it: one on each machine gets the file.
        device: Where the weights go; the CPU by default.

    Raises:
        UsageError: If nothing is there.
        DataError: If it is not what ``sha256`` says, holds no safetensors, or its names or shapes are not the model's.
    """
    naming = NAMINGS[model.config.language.family]
    path = _on_this_machine(uri, sha256, world)
    with ExitStack() as stack:
        saved: dict[str, Any] = {}
        for file in _files(path, uri):
            opened = stack.enter_context(_open(file, uri))
            _add(saved, dict.fromkeys(opened.keys(), opened), uri)
        ours, unexpected = _named(saved, naming)
        _check(model, ours, unexpected, naming, uri)
        dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
        found = {
            name: opened.get_tensor(theirs).to(device or "cpu", dtypes[name], copy=True)
            for name, (theirs, opened) in ours.items()
        }
        # They become the model's own, so that no weight is ever there twice.
        model.load_state_dict(found, strict=False, assign=True)


def _on_this_machine(uri: str, sha256: str, world: World) -> Path:
    """Return the local copy that the first process of this machine makes while the others wait."""
    made = (world.node, str(materialize(uri, sha256))) if world.local_rank == 0 else None
    return Path(dict(filter(None, collect(world, made)))[world.node])


def _files(path: Path, uri: str) -> list[Path]:
    if path.is_file():
        return [path]
    files = [path / name for name in model_files(str(path)) if name.endswith(SUFFIX)]
    if not files:
        raise DataError(
            f"no {SUFFIX} file in the folder of weights",
            where=uri,
            expected="weights as openpi or transformers saves them",
        )
    return files


def _open(file: Path, uri: str) -> Any:
    try:
        return safetensors.safe_open(file, framework="pt")
    except safetensors.SafetensorError as error:
        raise DataError(
            f"not a safetensors file: {error}", where=f"{uri}, {file.name}", mend="give the weights' safetensors"
        ) from error


def _add(saved: dict[str, Any], more: Mapping[str, Any], uri: str) -> None:
    twice = sorted(saved.keys() & more.keys())
    if twice:
        raise DataError(
            f"{len(twice)} weights are in more than one file, first {twice[0]}",
            where=uri,
            expected="one copy of each, in one folder for each of the two towers",
            mend="leave one set of weights in the folder",
        )
    saved.update(more)


def _named(saved: Mapping[str, Any], naming: Naming) -> tuple[dict[str, tuple[str, Any]], list[str]]:
    """Return what is saved for each name of ours as its own name and file, and the names that nobody knows."""
    ours: dict[str, tuple[str, Any]] = {}
    unexpected = []
    for theirs, opened in saved.items():
        rule = next((rule for rule in naming.prefixes if theirs.startswith(rule[0])), None)
        if rule is None:
            unexpected.append(theirs)
        elif rule[1] is not None:
            ours[rule[1] + theirs.removeprefix(rule[0])] = (theirs, opened)
    if naming.tied and naming.tied[0] not in ours and naming.tied[1] in saved:
        ours[naming.tied[0]] = (naming.tied[1], saved[naming.tied[1]])
    return ours, unexpected


def _check(
    model: ValueTokenModel, ours: dict[str, tuple[str, Any]], unexpected: list[str], naming: Naming, uri: str
) -> None:
    """Refuse weights that are not exactly those the model has.

    Raises:
        DataError: With the first names that are missing, unexpected or of another shape, and how many there are.
    """
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    missing = [name for name in shapes if name not in ours and not name.startswith(naming.fresh)]
    unexpected = [*unexpected, *(theirs for name, (theirs, _) in ours.items() if name not in shapes)]
    wrong = []
    for name, (theirs, opened) in ours.items():
        found = tuple(opened.get_slice(theirs).get_shape())
        if name in shapes and found != shapes[name]:
            wrong.append(f"{theirs} {found} instead of {shapes[name]}")
    lines = [
        f"{len(names)} {what}: {', '.join(sorted(names)[:REPORTED])}{', ...' if len(names) > REPORTED else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of the wrong shape", wrong))
        if names
    ]
    if lines:
        raise DataError(
            f"the weights do not fit preset {model.config.preset}: {'; '.join(lines)}",
            where=uri,
            expected=f"{len(shapes)} weights less those that start at random ({', '.join(naming.fresh)})",
            mend="give the weights of this architecture, or another preset",
        )
