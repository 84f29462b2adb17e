"""Settings of a policy with a preset of pi0.5: its defaults, and what does not fit."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from robolift.policy.pi05.settings import cameras_by_key
from robolift.policy.recipe import Recipe

DUMMY = {"preset": "dummy", "tokenizer": "gs://bucket/tokenizer.model", "cameras": ["top"]}


def test_a_preset_brings_openpi_s_defaults_and_what_is_set_wins():
    recipe = Recipe(**{**DUMMY, "preset": "pi05", "batch_size": 8})
    assert (recipe.vision, recipe.normalization, recipe.action_horizon) == ("own", "quantile", 50)
    assert (recipe.schedule, recipe.learning_rate, recipe.beta2) == ("warmup_cosine", 2.5e-5, 0.95)
    assert (recipe.weight_decay, recipe.batch_size) == (1e-10, 8)
    tiny = Recipe()
    assert (tiny.vision, tiny.normalization, tiny.action_horizon, tiny.batch_size) == ("frozen", "mean_std", 8, 256)


def test_a_named_recipe_takes_a_preset_of_pi05():
    recipe = Recipe(recipe="pi05_flatten_fold_awbc", preset="pi05_lora", tokenizer="t")
    assert (recipe.batch_size, recipe.steps, recipe.vision) == (256, 100_000, "own")
    assert cameras_by_key(recipe.__dict__) == {
        "base_0_rgb": "observation.images.top_head",
        "left_wrist_0_rgb": "observation.images.hand_left",
        "right_wrist_0_rgb": "observation.images.hand_right",
    }


def test_cameras_by_key_follow_the_network_s_order():
    given = {"right_wrist_0_rgb": "r", "base_0_rgb": "b"}
    recipe = Recipe(**{**DUMMY, "cameras": None, "camera_keys": given})
    assert list(cameras_by_key(recipe.__dict__).items()) == [("base_0_rgb", "b"), ("right_wrist_0_rgb", "r")]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"vision": "frozen"}, "vision is 'frozen', expected 'own'"),
        ({"objective": "regression"}, "objective is 'regression', expected 'flow'"),
        ({"input_noise": 0.1}, "input_noise is 0.1, expected 0"),
        ({"normalization": "mean_std"}, "normalization is mean_std, expected quantile"),
        ({"tokenizer": ""}, "preset dummy needs tokenizer"),
        ({"cameras": None}, "expected at least one of base_0_rgb"),
        ({"cameras": ["a", "b", "c", "d"]}, "cameras has 4, the network has 3 places"),
        ({"camera_keys": {"top": "top"}}, "camera_keys has top; the network's image keys are base_0_rgb"),
        ({"camera_keys": {"base_0_rgb": "side"}}, "cameras and camera_keys name different cameras"),
        ({"cameras": ["a", "a"]}, "each with its own camera"),
        ({"preset": "tiny", "cameras": None}, "tokenizer is for presets of pi0.5, but preset is tiny"),
        ({"preset": "tiny", "cameras": None, "tokenizer": "", "vision": "own"}, "preset tiny has no vision tower"),
    ],
)
def test_what_does_not_fit_is_refused(changes, text):
    with pytest.raises(ValidationError) as refused:
        Recipe(**{**DUMMY, **changes})
    assert text in str(refused.value)
