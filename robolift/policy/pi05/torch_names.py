"""openpi's PyTorch state dict of pi0.5 and its JAX tree, mapped both ways: names, transposes, un-stacking. NumPy only.

Each array of the tree is cut into one or more tensors: a stack of layers into its layers, a stack of keys and values
into both; each cut has its axes put in another order and perhaps merged. So the way back exists and loses nothing.

Source: openpi, ``examples/convert_jax_model_to_pytorch.py`` and ``models_pytorch/{gemma,pi0}_pytorch.py``; the names
below ``paligemma`` and ``gemma_expert`` are those of transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from robolift.errors import UsageError

PREFIX = "paligemma_with_expert."
"""What most names of the state dict, and none of the tree, start with."""
PALIGEMMA, EXPERT = f"{PREFIX}paligemma.", f"{PREFIX}gemma_expert."
VISION, LANGUAGE = f"{PALIGEMMA}model.vision_tower.vision_model.", f"{PALIGEMMA}model.language_model."
EMBEDDING = f"{LANGUAGE}embed_tokens.weight"
TIED = f"{PALIGEMMA}lm_head.weight"
"""The same tensor as :data:`EMBEDDING`; openpi's files hold it once, under this name, which sorts first."""
UNUSED = f"{EXPERT}lm_head.weight"
"""Head of the action expert: openpi's model has and its reader demands it, but nothing reads it."""


class Rule(NamedTuple):
    """How one array of the tree becomes tensors.

    Attributes:
        axes: A letter for each axis of a tensor's part of the array.
        tensor: The same letters in the tensor's order; those of one word are merged into one axis.
        names: The tensors along the axis that is cut, one alone where none is; ``{layer}`` where layers are stacked.
    """

    axes: str
    tensor: str
    names: tuple[str, ...]


class Piece(NamedTuple):
    """A tensor as a part of an array.

    Attributes:
        name: Of the tensor.
        place: Where its part lies in the array.
        order: Axes of the part in the tensor's order.
        unmerged: Shape of the part with its axes in that order.
        shape: Of the tensor.
    """

    name: str
    place: tuple[int, ...]
    order: tuple[int, ...]
    unmerged: tuple[int, ...]
    shape: tuple[int, ...]

    def cut(self, array: np.ndarray) -> np.ndarray:
        """Return the tensor."""
        part: np.ndarray = array[self.place]
        return part.transpose(self.order).reshape(self.shape)

    def fill(self, array: np.ndarray, tensor: np.ndarray) -> None:
        """Put the tensor into its place of ``array``."""
        array[self.place] = tensor.reshape(self.unmerged).transpose(np.argsort(self.order))


def pieces(path: str, shape: tuple[int, ...]) -> list[Piece]:
    """Return the tensors that the array at ``path`` is cut into.

    Raises:
        UsageError: If openpi's PyTorch model has no such weights, as those of low-rank updates.
    """
    if path not in RULES:
        raise UsageError(
            f"{path} has no name in openpi's PyTorch model, which has no low-rank updates; "
            "use weights without them (lora_rank 0), or another form of file"
        )
    rule = RULES[path]
    outer = shape[: len(shape) - len(rule.axes)]
    size = dict(zip(rule.axes, shape[len(outer) :], strict=True))
    words = rule.tensor.split()
    letters = "".join(words)
    return [
        Piece(
            name=rule.names[index[-1] if len(rule.names) > 1 else 0].format(layer=index[0] if index else 0),
            place=index,
            order=tuple(rule.axes.index(letter) for letter in letters),
            unmerged=tuple(size[letter] for letter in letters),
            shape=tuple(math.prod(size[letter] for letter in word) for word in words),
        )
        for index in np.ndindex(outer)
    ]


def names_and_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return openpi's whole state dict for a tree of these shapes, with :data:`TIED` and :data:`UNUSED`.

    Args:
        shapes: Shape of every array of the tree by path.
    """
    found = {piece.name: piece.shape for path, shape in shapes.items() for piece in pieces(path, shape)}
    vocabulary, _ = found[TIED] = found[EMBEDDING]
    found[UNUSED] = (vocabulary, found["action_in_proj.bias"][0])
    return found


def _dense(path: str, name: str) -> dict[str, Rule]:
    return {
        f"{path}/kernel": Rule("io", "o i", (f"{name}.weight",)),
        f"{path}/bias": Rule("o", "o", (f"{name}.bias",)),
    }


def _layer_norm(path: str, name: str) -> dict[str, Rule]:
    return {f"{path}/{old}": Rule("d", "d", (f"{name}.{new}",)) for old, new in (("scale", "weight"), ("bias", "bias"))}


def _vision() -> dict[str, Rule]:
    block, layer = "Transformer/encoderblock", f"{VISION}encoder.layers.{{layer}}"
    attention, projection = f"{block}/MultiHeadDotProductAttention_0", f"{layer}.self_attn"
    rules = {
        "embedding/kernel": Rule("hwio", "o i h w", (f"{VISION}embeddings.patch_embedding.weight",)),
        "embedding/bias": Rule("o", "o", (f"{VISION}embeddings.patch_embedding.bias",)),
        "pos_embedding": Rule("btd", "bt d", (f"{VISION}embeddings.position_embedding.weight",)),
        **_layer_norm(f"{block}/LayerNorm_0", f"{layer}.layer_norm1"),
        **_layer_norm(f"{block}/LayerNorm_1", f"{layer}.layer_norm2"),
        **_dense(f"{block}/MlpBlock_0/Dense_0", f"{layer}.mlp.fc1"),
        **_dense(f"{block}/MlpBlock_0/Dense_1", f"{layer}.mlp.fc2"),
        f"{attention}/out/kernel": Rule("nhd", "d nh", (f"{projection}.out_proj.weight",)),
        f"{attention}/out/bias": Rule("d", "d", (f"{projection}.out_proj.bias",)),
        **_layer_norm("Transformer/encoder_norm", f"{VISION}post_layernorm"),
        **_dense("head", f"{PALIGEMMA}model.multi_modal_projector.linear"),
    }
    for name in ("query", "key", "value"):
        rules[f"{attention}/{name}/kernel"] = Rule("dnh", "nh d", (f"{projection}.{name[0]}_proj.weight",))
        rules[f"{attention}/{name}/bias"] = Rule("nh", "nh", (f"{projection}.{name[0]}_proj.bias",))
    return rules


def _expert(mark: str, model: str) -> dict[str, Rule]:
    layer = f"{model}layers.{{layer}}"
    attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
    return {
        f"layers/attn/q_einsum{mark}/w": Rule("ndh", "nh d", (f"{attention}.q_proj.weight",)),
        f"layers/attn/kv_einsum{mark}/w": Rule(
            "ndh", "nh d", (f"{attention}.k_proj.weight", f"{attention}.v_proj.weight")
        ),
        f"layers/attn/attn_vec_einsum{mark}/w": Rule("nhd", "d nh", (f"{attention}.o_proj.weight",)),
        f"layers/mlp{mark}/gating_einsum": Rule("io", "o i", (f"{mlp}.gate_proj.weight", f"{mlp}.up_proj.weight")),
        f"layers/mlp{mark}/linear": Rule("io", "o i", (f"{mlp}.down_proj.weight",)),
    }


def _norms(mark: str, model: str) -> dict[str, str]:
    return {
        f"layers/pre_attention_norm{mark}": f"{model}layers.{{layer}}.input_layernorm",
        f"layers/pre_ffw_norm{mark}": f"{model}layers.{{layer}}.post_attention_layernorm",
        f"final_norm{mark}": f"{model}norm",
    }


def _language() -> dict[str, Rule]:
    rules = {
        "embedder/input_embedding": Rule("vd", "v d", (EMBEDDING,)),
        **_expert("", LANGUAGE),
        **_expert("_1", f"{EXPERT}model."),
    }
    for path, name in _norms("", LANGUAGE).items():
        rules[f"{path}/scale"] = Rule("d", "d", (f"{name}.weight",))
    for path, name in _norms("_1", f"{EXPERT}model.").items():
        rules |= _dense(f"{path}/Dense_0", f"{name}.dense")
    return rules


def _rules() -> dict[str, Rule]:
    rules = {f"PaliGemma/img/{path}": rule for path, rule in _vision().items()}
    rules |= {f"PaliGemma/llm/{path}": rule for path, rule in _language().items()}
    for name in ("action_in_proj", "action_out_proj", "time_mlp_in", "time_mlp_out"):
        rules |= _dense(name, name)
    return rules


RULES = _rules()
"""By path in the tree."""
