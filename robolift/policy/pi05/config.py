"""Sizes of pi0.5: each preset is a function that returns a frozen configuration. Needs no JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

VOCABULARY = 257_152
"""PaliGemma's: Gemma's 256,000 pieces, 1,024 places, 128 segments."""
CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
"""openpi's image keys, in the order of the prefix."""


@dataclass(frozen=True, kw_only=True)
class GemmaConfig:
    """One Gemma: the vision-language model or the action expert.

    Attributes:
        width: Of a token.
        depth: Layers; both experts have the same.
        mlp_dim: Hidden width of the gated feed-forward layer.
        num_heads: Query heads.
        num_kv_heads: Key and value heads, shared by the query heads.
        head_dim: Width of a head.
        lora_rank: Rank of the low-rank updates of attention and feed-forward weights, 0 for none.
    """

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    lora_rank: int = 0


@dataclass(frozen=True, kw_only=True)
class SiglipConfig:
    """The vision tower.

    Attributes:
        width: Of a patch's token.
        depth: Layers.
        mlp_dim: Hidden width of the feed-forward layer.
        num_heads: Heads.
        patch: Side of a patch, pixels.
        image_side: Side of the square picture, pixels, a multiple of ``patch``.
    """

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    patch: int
    image_side: int

    @property
    def num_tokens(self) -> int:
        """Tokens of one picture."""
        return (self.image_side // self.patch) ** 2


@dataclass(frozen=True, kw_only=True)
class Pi05Config:
    """Architecture of a pi0.5 policy.

    Attributes:
        preset: Name of the preset.
        vision: Vision tower; its tokens are projected to the width of ``vlm``.
        vlm: Vision-language expert, which reads pictures and text.
        expert: Action expert, which reads noisy actions.
        vocabulary: Rows of the token embedding.
        cameras: Image keys, in the order of the prefix.
        action_dim: Width that actions are padded to.
        action_horizon: Actions of a chunk.
        max_token_len: Length that prompts are padded to.
        dtype: Of the computation; weights are float32.
        remat: Whether each layer is computed again for its gradient instead of kept.
        sampling_steps: Euler steps from noise to actions.
    """

    preset: str
    vision: SiglipConfig
    vlm: GemmaConfig
    expert: GemmaConfig
    vocabulary: int = VOCABULARY
    cameras: tuple[str, ...] = CAMERAS
    action_dim: int = 32
    action_horizon: int = 50
    max_token_len: int = 200
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    remat: bool = True
    sampling_steps: int = 10


def pi05() -> Pi05Config:
    """PaliGemma (SigLIP So400m/14, Gemma 2B) and a 300M action expert: 3.35 billion weights, as `pi05_base`."""
    return Pi05Config(
        preset="pi05",
        vision=SiglipConfig(width=1152, depth=27, mlp_dim=4304, num_heads=16, patch=14, image_side=224),
        vlm=GemmaConfig(width=2048, depth=18, mlp_dim=16_384, num_heads=8, num_kv_heads=1, head_dim=256),
        expert=GemmaConfig(width=1024, depth=18, mlp_dim=4096, num_heads=8, num_kv_heads=1, head_dim=256),
    )


def pi05_lora() -> Pi05Config:
    """The same with low-rank updates of both experts, for one GPU of 24 to 48 GiB; what they update is frozen."""
    full = pi05()
    return replace(
        full, preset="pi05_lora", vlm=replace(full.vlm, lora_rank=16), expert=replace(full.expert, lora_rank=32)
    )


def dummy() -> Pi05Config:
    """The shape of pi0.5 in miniature (openpi's `dummy` Gemmas), which a CPU trains in seconds."""
    return Pi05Config(
        preset="dummy",
        vision=SiglipConfig(width=32, depth=2, mlp_dim=64, num_heads=2, patch=14, image_side=28),
        vlm=GemmaConfig(width=64, depth=4, mlp_dim=128, num_heads=8, num_kv_heads=1, head_dim=16),
        expert=GemmaConfig(width=64, depth=4, mlp_dim=128, num_heads=8, num_kv_heads=1, head_dim=16),
        vocabulary=1024,
        action_dim=8,
        action_horizon=4,
        max_token_len=48,
        dtype="float32",
    )


PRESETS: dict[str, Callable[[], Pi05Config]] = {"pi05": pi05, "pi05_lora": pi05_lora, "dummy": dummy}
