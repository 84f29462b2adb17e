"""The towers of the value model with openpi's weights: what its network computes, and the names of its checkpoint."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pi05_case
import torch

from robolift.policy.pi05 import gemma, network, tree
from robolift.policy.pi05 import weights as policy_weights
from robolift.policy.pi05.config import dummy
from robolift.value_model import presets, weights
from robolift.value_model.backbones.token_model import ValueTokenModel
from robolift.value_model.network import ModelShape
from robolift.value_model.presets import LanguageConfig, VisionConfig

STATE_DICT = Path(__file__).parents[1] / "fixtures/pi05_openpi/state_dict.txt"
CONFIG = dummy()
PROMPTS = ((2, 40, 41, 7), (2, 50, 7, 9, 10, 11))


def model_of_the_dummy():
    """The value model whose towers have the sizes of the policy's preset ``dummy``."""
    vision, vlm = CONFIG.vision, CONFIG.vlm
    config = replace(
        presets.pi05_dummy(),
        vision=VisionConfig(
            width=vision.width,
            depth=vision.depth,
            heads=vision.num_heads,
            mlp_width=vision.mlp_dim,
            patch_px=vision.patch,
            image_px=vision.image_side,
        ),
        language=LanguageConfig(
            family="gemma",
            vocabulary=CONFIG.vocabulary,
            width=vlm.width,
            depth=vlm.depth,
            heads=vlm.num_heads,
            kv_heads=vlm.num_kv_heads,
            head_width=vlm.head_dim,
            mlp_width=vlm.mlp_dim,
        ),
    )
    return ValueTokenModel(config, ModelShape(num_cameras=3, state_dim=0, tasks=("a", "b"), prompts=PROMPTS)).eval()


def prefix_of_the_policy(params, inputs):
    """The policy's last hidden states of pictures and prompt, and which of them count.

    Its velocity, loss and actions, which these states lead to, are openpi's recorded ones in test_pi05_network.py.
    """
    prefix, mask = network._embed_prefix(params, CONFIG, inputs)
    positions, sees = mask.cumsum(axis=1) - 1, mask[:, None, :] & mask[:, :, None]
    llm = params["PaliGemma"]["llm"]
    (last,), _ = gemma.forward(llm, [prefix], positions=positions, mask=sees, remat=False)
    return gemma.norm(llm["final_norm"], last, None)[0], mask


def test_the_towers_compute_what_the_policy_s_do_from_the_same_file(tmp_path):
    params = tree.unflatten(pi05_case.weights(CONFIG))
    policy_weights.save_params(params, str(tmp_path / "model.safetensors"), form="openpi_torch")
    model = model_of_the_dummy()
    weights.load_towers(model, str(tmp_path))
    side = CONFIG.vision.image_side
    images = np.random.default_rng(0).integers(0, 256, (2, 3, side, side, 3), dtype=np.uint8)
    tokens, token_mask = np.zeros((2, 6), np.int32), np.zeros((2, 6), bool)
    for row, prompt in enumerate(PROMPTS):
        tokens[row, : len(prompt)], token_mask[row, : len(prompt)] = prompt, True
    inputs = network.Inputs(images.astype(np.float32) / 255 * 2 - 1, np.ones((2, 3), bool), tokens, token_mask)
    quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    expected, counts = map(np.asarray, quick(prefix_of_the_policy)(params, inputs))
    with torch.no_grad():
        found = model.hidden(model.encode(torch.from_numpy(images)), torch.tensor([0, 1])).numpy()
    assert counts.sum(1).tolist() == [12 + 4, 12 + 6]
    difference = np.abs(found[:, :-1] - expected)[counts].max()
    assert difference < 1e-5 * np.abs(expected[counts]).max()


def test_the_full_size_takes_every_name_of_openpi_s_state_dict():
    lines = (line.split() for line in STATE_DICT.read_text().splitlines())
    shapes = {name: tuple(map(int, size.split("x"))) for name, size in lines}

    class Shape:
        def __init__(self, name):
            self.name = name

        def get_shape(self):
            return list(shapes[self.name])

    class File:
        get_slice = staticmethod(Shape)

    config = replace(presets.pi05(), head="relative")
    with torch.device("meta"):
        model = ValueTokenModel(config, ModelShape(num_cameras=3, state_dim=0, tasks=("a",), prompts=((2, 5),)))
    naming = weights.NAMINGS["gemma"]
    ours, unexpected = weights._named(dict.fromkeys(shapes, File()), naming)
    assert unexpected == []
    weights._check(model, ours, unexpected, naming, "openpi")
    fresh = {name for name, _ in model.named_parameters()} - ours.keys()
    assert {name.split(".")[0] for name in fresh} == {"value_token", "value_head"}
