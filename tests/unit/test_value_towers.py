"""The value models with transformers' towers: sizes, what the towers compute, and what the value token sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Gemma3TextConfig, Gemma3TextModel, PaliGemmaConfig, PaliGemmaModel

from robolift.value_model import presets
from robolift.value_model.backbones.token_model import attention_mask
from robolift.value_model.build import build
from robolift.value_model.network import ModelShape

DUMMIES = ("pi05_dummy", "siglip_gemma_dummy")
PROMPTS = ((2, 40, 41, 7), (2, 50, 7), (2, 60, 61, 62, 63, 7))


def model_of(preset, *, num_cameras=2, prompts=PROMPTS, **changes):
    torch.manual_seed(0)
    shape = ModelShape(num_cameras=num_cameras, state_dim=0, tasks=tuple(map(str, prompts)), prompts=prompts)
    return build(replace(presets.PRESETS[preset](), **changes), shape)


def images(count, num_cameras=2):
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.integers(0, 256, (count, num_cameras, 28, 28, 3), dtype=np.uint8))


NO_STATE = torch.zeros(3, 1, 0)

# SigLIP So400m/14: 4 projections of 1152 with bias, 2 linear maps, 2 norms a layer; patches; 256 places; last norm.
VISION = 27 * (4 * (1152**2 + 1152) + 2 * 1152 * 4304 + 4304 + 1152 + 4 * 1152) + (14 * 14 * 3 + 1 + 256 + 2) * 1152
# Gemma 2B: 8 heads of queries, 1 of keys and values, 256 wide; 3 linear maps; 2 norms a layer.
GEMMA = 257_152 * 2048 + 18 * (2048 * 256 * (8 + 1 + 1 + 8) + 3 * 2048 * 16_384 + 2 * 2048) + 2048
# Gemma 3 270M: 4 heads of queries; norms of queries and keys; 4 norms a layer.
GEMMA3 = 262_144 * 640 + 18 * (640 * 256 * (4 + 1 + 1 + 4) + 2 * 256 + 3 * 640 * 2048 + 4 * 640) + 640


@pytest.mark.parametrize(
    ("preset", "head", "expected"),
    [
        ("pi05", "relative", 2048 + 1152 * 2048 + 2048 + 2 * 2048 + (2048 + 1) * 1024 + (1024 + 1) * 1024 + 1024 + 1),
        ("siglip_gemma", "distribution", 640 + 1152 * 640 + 640 + 2 * 640 + (640 + 1) * 320 + (320 + 1) * 201),
    ],
)
def test_full_sizes_by_hand(preset, head, expected):
    with torch.device("meta"):
        model = model_of(preset, num_cameras=3, head=head)
    assert sum(p.numel() for p in model.vision.parameters()) == VISION == 412_442_352
    assert (
        sum(p.numel() for p in model.language.parameters())
        == {
            "pi05": GEMMA,
            "siglip_gemma": GEMMA3,
        }[preset]
    )
    assert (GEMMA, GEMMA3) == (2_508_531_712, 268_098_176)
    own = [p.numel() for n, p in model.named_parameters() if not n.startswith(("vision.", "language."))]
    assert sum(own) == expected
    assert model.num_features == 3 * 256 * 1152


def test_pi05_s_towers_compute_what_paligemma_does():
    model = model_of("pi05_dummy").eval()
    vision, language = model.config.vision, model.config.language
    oracle = PaliGemmaModel(
        PaliGemmaConfig(
            vision_config={**model.vision.config.to_dict(), "model_type": "siglip_vision_model"},
            text_config={**model.language.config.to_dict(), "model_type": "gemma", "use_bidirectional_attention": True},
            projection_dim=language.width,
            image_token_index=language.vocabulary - 1,
        )
    ).eval()
    ours = model.state_dict()
    theirs = {
        name: ours[
            name.replace("vision_tower.", "vision.")
            .replace("multi_modal_projector.linear.", "projector.")
            .replace("language_model.", "language.")
        ]
        for name in oracle.state_dict()
    }
    oracle.load_state_dict(theirs)
    seen = images(1)
    tokens = torch.tensor([[language.vocabulary - 1] * (2 * vision.num_patches) + list(PROMPTS[0])])
    pixels = seen[0].permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        features = model.encode(seen)
        expected = oracle(input_ids=tokens, pixel_values=pixels, token_type_ids=torch.zeros_like(tokens))
        found = model.hidden(features, torch.tensor([0]))
        patches = oracle.vision_tower(pixels).last_hidden_state
    assert (features.view(2, vision.num_patches, vision.width) - patches).abs().max() < 1e-5
    # Two of our prompts are longer: padding stands between this one and the value token.
    assert (found[:, : tokens.shape[1]] - expected.last_hidden_state).abs().max() < 1e-4


def test_siglip_gemma_s_towers_compute_what_gemma_3_does():
    model = model_of("siglip_gemma_dummy").eval()
    config = {**model.language.config.to_dict(), "use_bidirectional_attention": True}
    oracle = Gemma3TextModel(Gemma3TextConfig(**{k: v for k, v in config.items() if k != "model_type"})).eval()
    oracle.load_state_dict(model.language.state_dict())
    assert {"sliding_attention", "full_attention"} == set(oracle.config.layer_types)
    with torch.no_grad():
        features = model.encode(images(1))
        patches = model.projector(features.view(1, -1, model.config.vision.width))
        sequence = torch.cat([patches, model.language.embed_tokens(torch.tensor([PROMPTS[2]]))], dim=1)
        expected = oracle(inputs_embeds=sequence).last_hidden_state
        found = model.hidden(features, torch.tensor([2]))[:, :-1]
    assert (found - expected).abs().max() < 1e-4


def test_only_the_value_token_sees_the_value_token_and_nobody_sees_padding():
    real = torch.tensor([[True, True, False, True]])
    assert attention_mask(real)[0, 0].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1]]


@pytest.mark.parametrize("preset", DUMMIES)
def test_a_value_depends_on_every_image_and_the_task_and_not_on_padding_or_state(preset):
    model = model_of(preset).eval()
    seen, task = images(3), torch.tensor([0, 1, 2])
    with torch.no_grad():
        value = model.value_logits(model.encode(seen), NO_STATE, task)
        assert value.shape == (3, 201)
        assert torch.equal(value, model.value_logits(model.encode(seen), torch.ones(3, 1, 4), task))
        for camera in range(2):
            other = seen.clone()
            other[:, camera] = 255 - other[:, camera]
            assert (model.value_logits(model.encode(other), NO_STATE, task) - value).abs().amax(1).min() > 1e-4
        assert (model.value_logits(model.encode(seen), NO_STATE, task.flip(0)) - value)[[0, 2]].abs().max() > 1e-4
        model.tokens = torch.nn.functional.pad(model.tokens, (0, 3), value=-1)
        assert (model.value_logits(model.encode(seen), NO_STATE, task) - value).abs().max() < 1e-5


@pytest.mark.parametrize("preset", DUMMIES)
def test_a_pair_of_frames_is_read_in_its_order_and_each_is_encoded_once(preset):
    model = model_of(preset, head="relative").eval()
    seen, task = images(4), torch.tensor([0, 1])
    with torch.no_grad():
        once = model.encode(seen)
        pair = torch.stack([once[:2], once[2:]], dim=1)
        value = model.head.read(model.value_logits(pair, NO_STATE, task))[0]
        swapped = model.head.read(model.value_logits(pair.flip(1), NO_STATE, task))[0]
    assert value.shape == (2,)
    assert (value - swapped).abs().min() > 1e-6
    assert model.hidden(pair, task).shape[1] == 2 * 2 * 4 + 6 + 1  # frames, cameras, patches; prompt; value token


def test_brightness_saturates_before_the_tower():
    model = model_of("pi05_dummy")
    grey = torch.full((1, 2, 28, 28, 3), 250, dtype=torch.uint8)
    white = torch.full_like(grey, 255)
    assert torch.equal(model.encode(grey, torch.full((1, 2), 1.2)), model.encode(white))
