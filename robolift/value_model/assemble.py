"""A network made ready to train: its first weights, which of them are frozen, and where they lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from robolift.logging import get_logger
from robolift.training.distributed import World
from robolift.training.sharding import shard
from robolift.value_model.network import ValueNetwork
from robolift.value_model.recipe import Recipe


def trainable(model: ValueNetwork, recipe: Recipe, world: World, device: torch.device) -> ValueNetwork:
    """Return ``model``, just initialised on the CPU, as training starts from it: on ``device``.

    Weights go from their file to ``device`` tensor by tensor; where they are dealt out, each process has all of them
    for as long as that takes. Every process of ``world`` has to call it.

    Raises:
        UsageError: If there are no weights where the recipe says.
        DataError: If they are others than expected, or do not fit the preset.
    """
    if not model.compact:
        _prepare_towers(model, recipe, world, device)
    model = model.to(device)
    if recipe.sharding == "fsdp":
        shard(model, _shards(model), ("encode", "value_logits"), world, device)
    if recipe.compile:
        compile_methods(model)
    return model


def compile_methods(model: ValueNetwork) -> None:
    """Have ``model`` compute compiled where gradients are asked for, in place.

    A step always has the same shapes. Held-out frames come in many, each of which would be compiled anew.
    """
    for name in ("encode", "value_logits", "actions"):
        setattr(model, name, _while_learning(getattr(model, name)))


def _while_learning(method: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    compiled = torch.compile(method, dynamic=False)

    def call(*inputs: Any) -> torch.Tensor:
        return (compiled if torch.is_grad_enabled() else method)(*inputs)

    return call


def _prepare_towers(model: nn.Module, recipe: Recipe, world: World, device: torch.device) -> None:
    from robolift.value_model.backbones.token_model import ValueTokenModel  # noqa: PLC0415  (transformers: seconds)
    from robolift.value_model.weights import load_towers  # noqa: PLC0415

    assert isinstance(model, ValueTokenModel)
    if recipe.weights:
        load_towers(model, recipe.weights, recipe.weights_sha256, world=world, device=device)
    else:
        get_logger("training").warning("towers start from random weights", preset=recipe.preset)
    frozen = {"none": (), "vision": (model.vision,), "backbones": (model.vision, model.language)}[recipe.freeze]
    for tower in frozen:
        tower.requires_grad_(requires_grad=False)
    if recipe.checkpoint_activations:
        for tower in (model.vision, model.language):
            tower.activation_checkpointing_enable({"use_reentrant": False})


def _shards(model: nn.Module) -> list[nn.Module]:
    """Return the parts of a model of towers that are put together one at a time: layers, and the table of words."""
    from robolift.value_model.backbones.token_model import ValueTokenModel  # noqa: PLC0415

    assert isinstance(model, ValueTokenModel)
    return [*model.vision.encoder.layers, *model.language.layers, model.language.embed_tokens]
