"""Sizes of the value model: each preset is a function that returns a frozen configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A stack of convolutions, one entry a layer.

    Attributes:
        channels: Output channels; the last gives 3 features a channel.
        kernels: Odd kernel sizes; the padding is half of it.
        strides: Strides.
    """

    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def num_features(self) -> int:
        """Features of one camera: x, y and attended activation of each channel."""
        return 3 * self.channels[-1]


@dataclass(frozen=True, kw_only=True)
class ValueModelConfig:
    """Architecture of a value model, apart from what the dataset decides (cameras, state, tasks, actions).

    Attributes:
        preset: Name of the preset.
        encoder: Image encoder, one set of weights per camera.
        state_width: Width of the state's own layer.
        text_buckets: Rows of the hashed token embedding.
        text_width: Width of a token embedding.
        trunk_widths: Hidden layers that read images, state and text.
        action_widths: Hidden layers of the auxiliary action head.
        atoms: Atoms of the value distribution, evenly spaced from ``low`` to ``high``.
        low: Lowest value of the distribution.
        high: Highest value of the distribution.
        head: What the value is read from, a key of robolift.value_model.heads.HEADS; the recipe chooses it.
        padded: Images are always stretched.
    """

    preset: str
    encoder: EncoderConfig
    state_width: int
    text_buckets: int
    text_width: int
    trunk_widths: tuple[int, ...]
    action_widths: tuple[int, ...]
    atoms: int
    low: float
    high: float
    head: str = "distribution"
    padded: ClassVar[bool] = False


def tiny() -> ValueModelConfig:
    """Trains on two CPU cores in minutes: 0.4 million weights with three cameras."""
    return ValueModelConfig(
        preset="tiny",
        encoder=EncoderConfig(channels=(16, 32, 32, 32), kernels=(5, 3, 3, 3), strides=(2, 2, 1, 1)),
        state_width=64,
        text_buckets=1024,
        text_width=16,
        trunk_widths=(256, 256),
        action_widths=(256,),
        atoms=201,
        low=-1.0,
        high=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """A SigLIP vision tower without its pooling head.

    Attributes:
        width: Width of a patch.
        depth: Layers.
        heads: Attention heads.
        mlp_width: Hidden width of each layer's two linear maps.
        patch_px: Side of a patch, pixels.
        image_px: Side of the image, pixels.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch_px: int
    image_px: int

    @property
    def num_patches(self) -> int:
        """Patches of an image, each of which is a token."""
        return (self.image_px // self.patch_px) ** 2


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """A Gemma language tower without its output layer.

    Attributes:
        family: ``gemma`` (PaliGemma's) or ``gemma3``.
        vocabulary: Rows of the token embedding; the tokenizer must have as many pieces.
        width: Width of a token.
        depth: Layers.
        heads: Attention heads.
        kv_heads: Heads of keys and values.
        head_width: Width of a head.
        mlp_width: Hidden width of the gated linear maps.
    """

    family: Literal["gemma", "gemma3"]
    vocabulary: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    head_width: int
    mlp_width: int


@dataclass(frozen=True, kw_only=True)
class TokenModelConfig:
    """Architecture of a value model that reads the value from a token of a language model that sees.

    Attributes:
        preset: Name of the preset.
        vision: Tower of the images, the same weights for every camera.
        language: Tower that reads images, text and value token.
        text_tokens: Most tokens of a prompt.
        head_widths: Hidden layers between the value token and the outputs.
        padded: Whether images keep their shape and black fills the rest, as openpi's do, instead of being stretched.
        atoms: As of :class:`ValueModelConfig`; so are the next three.
        low: See above.
        high: See above.
        head: See above.
    """

    preset: str
    vision: VisionConfig
    language: LanguageConfig
    text_tokens: int
    head_widths: tuple[int, ...]
    padded: bool = False
    atoms: int = 201
    low: float = -1.0
    high: float = 0.0
    head: str = "distribution"


Config = ValueModelConfig | TokenModelConfig

SO400M = VisionConfig(width=1152, depth=27, heads=16, mlp_width=4304, patch_px=14, image_px=224)
"""SigLIP So400m/14 at 224 pixels, PaliGemma's and RECAP's."""
DUMMY_VISION = VisionConfig(width=32, depth=2, heads=2, mlp_width=48, patch_px=14, image_px=28)


def siglip_gemma() -> TokenModelConfig:
    """RECAP's value function: SigLIP So400m/14 and Gemma 3 270M, 0.68 billion weights."""
    return TokenModelConfig(
        preset="siglip_gemma",
        vision=SO400M,
        language=LanguageConfig(
            family="gemma3",
            vocabulary=262_144,
            width=640,
            depth=18,
            heads=4,
            kv_heads=1,
            head_width=256,
            mlp_width=2048,
        ),
        text_tokens=48,
        head_widths=(320,),
    )


def pi05() -> TokenModelConfig:
    """The PaliGemma 2B of pi0.5, from which kai0 starts its estimator: 2.9 billion weights."""
    return TokenModelConfig(
        preset="pi05",
        vision=SO400M,
        language=LanguageConfig(
            family="gemma",
            vocabulary=257_152,
            width=2048,
            depth=18,
            heads=8,
            kv_heads=1,
            head_width=256,
            mlp_width=16_384,
        ),
        text_tokens=200,
        head_widths=(1024, 1024),
        padded=True,
    )


def siglip_gemma_dummy() -> TokenModelConfig:
    """``siglip_gemma`` in miniature, for tests; a full and a sliding layer of Gemma 3."""
    return TokenModelConfig(
        preset="siglip_gemma_dummy",
        vision=DUMMY_VISION,
        language=LanguageConfig(
            family="gemma3", vocabulary=512, width=32, depth=6, heads=2, kv_heads=1, head_width=16, mlp_width=48
        ),
        text_tokens=48,
        head_widths=(16,),
    )


def pi05_dummy() -> TokenModelConfig:
    """``pi05`` in miniature, for tests."""
    return TokenModelConfig(
        preset="pi05_dummy",
        vision=DUMMY_VISION,
        language=LanguageConfig(
            family="gemma", vocabulary=512, width=64, depth=2, heads=4, kv_heads=1, head_width=16, mlp_width=96
        ),
        text_tokens=48,
        head_widths=(32, 32),
        padded=True,
    )


PRESETS: dict[str, Callable[[], Config]] = {
    preset.__name__: preset for preset in (tiny, siglip_gemma, pi05, siglip_gemma_dummy, pi05_dummy)
}

TOWER_PRESETS = frozenset(name for name, preset in PRESETS.items() if isinstance(preset(), TokenModelConfig))
"""Presets that read images and text with the towers of a language model."""


def parse(document: dict[str, Any]) -> Config:
    """Return the configuration that ``dataclasses.asdict`` made a document of, lists for tuples.

    Raises:
        KeyError: If a part is missing.
        TypeError: If a part is unknown.
    """
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
    if "encoder" in fields:
        encoder = {key: tuple(value) for key, value in fields.pop("encoder").items()}
        return ValueModelConfig(encoder=EncoderConfig(**encoder), **fields)
    vision, language = VisionConfig(**fields.pop("vision")), LanguageConfig(**fields.pop("language"))
    return TokenModelConfig(vision=vision, language=language, **fields)


def recipe_defaults(preset: str) -> dict[str, Any]:
    """Return the settings of a recipe that differ from its defaults for a preset with large towers.

    RECAP and kai0 fine-tune them alike: AdamW at 2.5e-5 with hardly any decay, images alone, no auxiliary action head.
    """
    config = PRESETS[preset]() if preset in PRESETS else None
    if not isinstance(config, TokenModelConfig):
        return {}
    return {
        "image_size": (config.vision.image_px, config.vision.image_px),
        "state_keys": [],
        "learning_rate": 2.5e-5,
        "final_learning_rate_fraction": 0.1,
        "weight_decay": 1e-10,
        "value_weight": 1.0,
        "action_weight": 0.0,
        # Held-out episodes of a large dataset have half a million frames, hours of work for each evaluation.
        "eval_frames": 2048,
    }
