"""Names of openpi's PyTorch model of pi0.5, at full size and moved there and back at dummy size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pi05_weights import counted

from robolift.errors import UsageError
from robolift.policy.pi05 import torch_names
from robolift.policy.pi05.config import Pi05Config, dummy, pi05
from robolift.policy.pi05.tree import flatten, names_and_shapes

STATE_DICT = Path(__file__).parents[1] / "fixtures/pi05_openpi/state_dict.txt"


def test_full_size_equals_openpis_state_dict() -> None:
    """813 tensors of openpi's PI0Pytorch, listed from PyTorch's meta device."""
    lines = [line.split() for line in STATE_DICT.read_text().splitlines()]
    openpis = {name: tuple(map(int, shape.split("x"))) for name, shape in lines}
    assert len(openpis) == 813
    assert torch_names.names_and_shapes(names_and_shapes(pi05())) == openpis


def moved(config: Pi05Config) -> dict[str, np.ndarray]:
    found = {}
    for path, array in flatten(counted(config)).items():
        for piece in torch_names.pieces(path, array.shape):
            assert piece.name not in found
            found[piece.name] = piece.cut(array)
            assert found[piece.name].shape == piece.shape
    return found


def test_there_and_back_at_dummy_size() -> None:
    tensors = moved(dummy())
    for path, array in flatten(counted(dummy())).items():
        back = np.full_like(array, np.nan)
        for piece in torch_names.pieces(path, array.shape):
            piece.fill(back, tensors.pop(piece.name))
        np.testing.assert_array_equal(back, array)
    assert not tensors


def test_values_of_keys_and_values() -> None:
    # One layer, keys and values, 2 heads, tokens of width 3, heads of width 2. Rows are all heads' widths.
    array = np.arange(24.0).reshape(1, 2, 2, 3, 2)
    keys, values = torch_names.pieces("PaliGemma/llm/layers/attn/kv_einsum/w", array.shape)
    assert keys.name.endswith("language_model.layers.0.self_attn.k_proj.weight")
    np.testing.assert_array_equal(keys.cut(array), [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]])
    assert values.name.endswith("language_model.layers.0.self_attn.v_proj.weight")
    np.testing.assert_array_equal(values.cut(array)[0], [12, 14, 16])


def test_a_name_that_openpi_does_not_have() -> None:
    with pytest.raises(UsageError, match="attn/q_einsum/lora_a has no name"):
        torch_names.pieces("PaliGemma/llm/layers/attn/q_einsum/lora_a", (2, 4, 16, 2))
