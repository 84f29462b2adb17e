"""A value model of two towers as the planner sees it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Literal

from robolift.planner.network import FLOAT_BYTES, Network, Product, Weight
from robolift.planner.stack import Keeps, Lane, Stack
from robolift.value_model.presets import LanguageConfig, TokenModelConfig, VisionConfig

BFLOAT16_BYTES = 2
RGB = 3
TOKEN_BYTES = 8

VISION_KEEPS = Keeps(norms=2, inputs=4, hidden=2, attention=False)
GEMMA_KEEPS = Keeps(norms=4, inputs=5, hidden=4, shared_keys=False, attention=False)
GEMMA3_KEEPS = Keeps(norms=8, inputs=5, hidden=4, shared_keys=False, head_norms=2, attention=False)
"""As autograd takes the layers of transformers under autocast: products cast their input each time, attention is fused
(``scaled_dot_product_attention``) with keys and values repeated for each query head."""

Shapes = Mapping[str, tuple[int, ...]]


Freeze = Literal["none", "vision", "backbones"]


def network(config: TokenModelConfig, *, pictures: int, freeze: Freeze = "none") -> Network:
    """Return what a value model of ``config`` is made of.

    Args:
        config: Architecture.
        pictures: Of one row: cameras, times two where the head compares two frames.
        freeze: Towers that stay as they are. A gradient still passes through the language tower, to the projection of
            pictures and to the value token; none reaches a frozen vision tower.
    """
    frozen = {"none": (), "vision": ("vision.",), "backbones": ("vision.", "language.")}[freeze]
    vision, language = config.vision, config.language
    patches = pictures * vision.num_patches
    sequence = Lane(
        tokens=patches + config.text_tokens + 1,
        width=language.width,
        mlp_dim=language.mlp_width,
        frozen="language." in frozen,
    )
    widths = _head_widths(config)
    return Network(
        preset=config.preset,
        trainer="torch",
        weights={name: Weight(shape, trained=not name.startswith(frozen)) for name, shape in _shapes(config)},
        compute_bytes=BFLOAT16_BYTES,
        stream_bytes=FLOAT_BYTES,
        stacks=(
            Stack(
                name="vision tower",
                depth=vision.depth,
                sequences=pictures,
                lanes=(Lane(tokens=vision.num_patches, width=vision.width, mlp_dim=vision.mlp_width, gated=False),),
                keeps=VISION_KEEPS,
                num_heads=vision.heads,
                num_kv_heads=vision.heads,
                head_dim=vision.width // vision.heads,
                has_gradient="vision." not in frozen,
            ),
            Stack(
                name="language tower",
                depth=language.depth,
                sequences=1,
                lanes=(sequence,),
                keeps=GEMMA3_KEEPS if language.family == "gemma3" else GEMMA_KEEPS,
                num_heads=language.heads,
                num_kv_heads=language.kv_heads,
                head_dim=language.head_width,
            ),
        ),
        products=(
            Product(patches, RGB * vision.patch_px**2, vision.width),
            Product(patches, vision.width, language.width),
            *(Product(1, inputs, outputs) for inputs, outputs in itertools.pairwise(widths)),
        ),
        input_bytes=pictures * vision.image_px**2 * RGB + TOKEN_BYTES * config.text_tokens,
        # Pixels and patches in float32, and the sequence that is put together of patches and words.
        outer_bytes=FLOAT_BYTES
        * (pictures * vision.image_px**2 * RGB + 2 * patches * vision.width + 2 * sequence.tokens * language.width),
    )


def _shapes(config: TokenModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield every array by its name in the model's state dict."""
    yield from _under("vision", _vision(config.vision))
    yield from _linear("projector", config.vision.width, config.language.width).items()
    yield from _under("language", _language(config.language))
    yield "value_token", (config.language.width,)
    widths = _head_widths(config)
    yield from _norm("value_head.0", widths[0]).items()
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        yield from _linear(f"value_head.{1 + 2 * index}", inputs, outputs).items()


def _head_widths(config: TokenModelConfig) -> tuple[int, ...]:
    outputs = config.atoms if config.head == "distribution" else 1
    return (config.language.width, *config.head_widths, outputs)


def _vision(config: VisionConfig) -> Shapes:
    width, shapes = config.width, dict[str, tuple[int, ...]]()
    shapes["embeddings.patch_embedding.weight"] = (width, RGB, config.patch_px, config.patch_px)
    shapes["embeddings.patch_embedding.bias"] = (width,)
    shapes["embeddings.position_embedding.weight"] = (config.num_patches, width)
    for layer in range(config.depth):
        stem = f"encoder.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{stem}self_attn.{name}", width, width)
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= _norm(f"{stem}{name}", width)
        shapes |= _linear(f"{stem}mlp.fc1", width, config.mlp_width)
        shapes |= _linear(f"{stem}mlp.fc2", config.mlp_width, width)
    return {**shapes, **_norm("post_layernorm", width)}


def _language(config: LanguageConfig) -> Shapes:
    width, hidden = config.width, config.mlp_width
    queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
    matrices = {"self_attn.q_proj": (queries, width), "self_attn.k_proj": (keys, width)}
    matrices |= {"self_attn.v_proj": (keys, width), "self_attn.o_proj": (width, queries)}
    matrices |= {"mlp.gate_proj": (hidden, width), "mlp.up_proj": (hidden, width), "mlp.down_proj": (width, hidden)}
    norms: dict[str, int] = {"input_layernorm": width, "post_attention_layernorm": width}
    if config.family == "gemma3":
        norms |= {"pre_feedforward_layernorm": width, "post_feedforward_layernorm": width}
        norms |= {"self_attn.q_norm": config.head_width, "self_attn.k_norm": config.head_width}
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (config.vocabulary, width), "norm.weight": (width,)}
    for layer in range(config.depth):
        shapes |= {f"layers.{layer}.{name}.weight": shape for name, shape in matrices.items()}
        shapes |= {f"layers.{layer}.{name}.weight": (length,) for name, length in norms.items()}
    return shapes


def _under(prefix: str, shapes: Shapes) -> Iterator[tuple[str, tuple[int, ...]]]:
    return ((f"{prefix}.{name}", shape) for name, shape in shapes.items())


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
