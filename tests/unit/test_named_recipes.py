from __future__ import annotations

import pytest
from dot_world import DotDataset

from robolift.errors import UsageError
from robolift.stages.stage import parse_config
from robolift.value_model import train
from robolift.value_model.named_recipes import RECIPES
from robolift.value_model.recipe import Recipe

TWO, ONE = "ADVANTAGE_TORCH_KAI0_FLATTEN_FOLD", "ADVANTAGE_TORCH_PI06_FLATTEN_FOLD"


def test_every_task_has_both_estimators_under_kai0_s_names():
    assert list(RECIPES) == [
        "ADVANTAGE_TORCH_KAI0_FLATTEN_FOLD",
        "ADVANTAGE_TORCH_KAI0_TEE_SHIRT_SORT",
        "ADVANTAGE_TORCH_KAI0_HANG_CLOTH",
        "ADVANTAGE_TORCH_PI06_FLATTEN_FOLD",
        "ADVANTAGE_TORCH_PI06_TEE_SHIRT_SORT",
        "ADVANTAGE_TORCH_PI06_HANG_CLOTH",
    ]


def test_what_kai0_published():
    two, one = Recipe(recipe=TWO), Recipe(recipe=ONE)
    assert (two.head, two.batch_size, one.head, one.batch_size) == ("relative", 128, "single", 144)
    for found in (two, one):
        assert found.cameras == [
            "observation.images.top_head",
            "observation.images.hand_left",
            "observation.images.hand_right",
        ]
        assert (found.steps, found.warmup_steps, found.seed) == (100_000, 1000, 42)
        assert (found.learning_rate, found.learning_rate * found.final_learning_rate_fraction) == (2.5e-5, 2.5e-6)
        assert (found.weight_decay, found.gradient_clip) == (1e-10, 1.0)
        assert (found.save_every, found.keep_every, found.log_every) == (10_000, 10_000, 100)
        assert (found.image_size, found.state_keys, found.action_weight) == ((224, 224), [], 0)
        assert (found.shift_px, found.brightness, found.input_noise) == (0, 0, 0)
        assert (found.preset, found.progress_column) == ("tiny", "stage_progress_gt")


def test_what_is_set_beside_the_name_wins_and_what_is_in_neither_keeps_its_default():
    found = Recipe(recipe=TWO, batch_size=16, cameras=None, steps=2000)
    assert (found.batch_size, found.cameras, found.steps, found.learning_rate) == (16, None, 2000, 2.5e-5)
    assert found.val_fraction == Recipe().val_fraction
    # As a worker or a manifest has it, with every field resolved, it is the same recipe.
    assert Recipe.model_validate(found.model_dump(mode="json")) == found


def test_the_stage_takes_the_name_and_resolves_it():
    config = parse_config("train_value", {"recipe": ONE, "device": "cuda"})
    assert (config.head, config.steps, config.device) == ("single", 100_000, "cuda")
    with pytest.raises(UsageError, match=r"no recipe 'FLATTEN_FOLD'; there are: ADVANTAGE_TORCH_KAI0_FLATTEN_FOLD, "):
        parse_config("train_value", {"recipe": "FLATTEN_FOLD"})


def test_a_recipe_given_as_a_size_is_sent_to_where_it_belongs():
    with pytest.raises(UsageError, match=r"is unknown; there are: tiny, .*; a recipe goes into recipe"):
        train.train(Recipe(preset=TWO), train.Places(dataset_uri="", targets_uri="", work_uri="", folder=""))


def test_a_recipe_trains_on_a_dataset_with_kai0_s_cameras(tmp_path):
    cameras = [f"observation.images.{name}" for name in ("hand_left", "hand_right", "other", "top_head")]
    dataset = DotDataset(cameras=cameras)
    recipe = Recipe(recipe=TWO, steps=2, warmup_steps=1, batch_size=8, image_size=(24, 24), keep_every=2)
    places = train.Places(dataset_uri="", targets_uri="", work_uri=f"{tmp_path}.work", folder=str(tmp_path))
    train.train_here(recipe, places, train.World(), dataset, train.prepare(recipe, dataset, None))
    model, found = train.checkpoints.load(str(tmp_path))
    assert found.cameras == tuple(recipe.cameras)  # in the recipe's order, and the fourth is left out
    assert (model.state, model.action_head) == (None, None)
    assert model.head.num_frames == 2


def test_a_dataset_without_the_cameras_is_refused_by_name():
    recipe = Recipe(recipe=TWO)
    with pytest.raises(
        UsageError, match=r"no observation\.images\.hand_left, .*top_head in the dataset; it has: front"
    ):
        train.prepare(recipe, DotDataset(), None)
