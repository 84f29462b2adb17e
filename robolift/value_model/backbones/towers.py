"""Vision and language towers: the classes of ``transformers``, built from our configuration and never from a hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import (
    Gemma3TextConfig,
    Gemma3TextModel,
    GemmaConfig,
    GemmaModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from robolift.value_model.presets import LanguageConfig, VisionConfig


def vision_tower(config: VisionConfig) -> Any:
    """Return SigLIP's encoder of patches with its last norm: (B, 3, H, W) in, ``last_hidden_state`` (B, N, W) out."""
    return SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            patch_size=config.patch_px,
            image_size=config.image_px,
            vision_use_head=False,  # pools a whole image into one vector; we keep a token a patch
        )
    )


def language_tower(config: LanguageConfig) -> Any:
    """Return Gemma's layers with embedding and last norm, without the layer that predicts words."""
    sizes: dict[str, Any] = {
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
    }
    if config.family == "gemma":
        return GemmaModel(GemmaConfig(**sizes))
    # Five layers of rotations with base 10,000 to one with 1,000,000; scores are scaled by the head's width.
    return Gemma3TextModel(Gemma3TextConfig(**sizes, query_pre_attn_scalar=config.head_width))


@contextmanager
def without_weights() -> Iterator[None]:
    """Give parameters that are made in the block a shape and no memory: nothing is drawn that a file's replace.

    Buffers are made as always, since no file holds them.
    """

    def to_meta(_module: nn.Module, _name: str, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    # PyTorch takes what a hook returns; its annotation does not say so.
    hook = register_module_parameter_registration_hook(to_meta)  # type: ignore[arg-type]
    try:
        yield
    finally:
        hook.remove()
