"""The planner's arithmetic of value models beside torch's own: weights, their pieces, what autograd keeps."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from robolift.__main__ import main
from robolift.planner import activations, plan, value
from robolift.planner.cli import OF_VALUES
from robolift.planner.placement import cut_first_axis
from robolift.training.distributed import World
from robolift.value_model import presets
from robolift.value_model.assemble import trainable
from robolift.value_model.backbones import towers
from robolift.value_model.backbones.token_model import ValueTokenModel
from robolift.value_model.build import build
from robolift.value_model.network import ModelShape
from robolift.value_model.recipe import Recipe

FULL = (presets.siglip_gemma, presets.pi05)


@pytest.mark.parametrize("preset", [*FULL, presets.siglip_gemma_dummy, presets.pi05_dummy])
@pytest.mark.parametrize("head", ["distribution", "relative"])
def test_weights_are_those_of_the_model(preset, head):
    config = replace(preset(), head=head)
    with torch.device("meta"):
        model = ValueTokenModel(config, ModelShape(num_cameras=3, state_dim=0, tasks=("fold",), prompts=((2, 3),)))
    planned = value.network(config, pictures=3)
    assert {name: w.shape for name, w in planned.weights.items()} == {
        name: tuple(parameter.shape) for name, parameter in model.named_parameters()
    }


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_pieces_are_those_of_torch(parts):
    for shape in ((10, 3), (3, 5), (16,), (1, 7)):
        assert cut_first_axis(shape, 4, parts) == torch.empty(shape).chunk(parts)[0].numel()


def test_processes_that_hold_everything_average_gradients_in_one_more_buffer():
    network = value.network(presets.siglip_gemma(), pictures=3)
    alone, together, shared = (
        plan.memory(
            network,
            plan.Layout(devices=devices, fsdp=fsdp, remat=True, memory_gib=80),
            rows=1,
        )
        for devices, fsdp in ((1, 1), (8, 1), (8, 8))
    )
    assert (alone.exchange, together.exchange, shared.exchange) == (0, alone.gradients, 0)
    assert shared.parameters == pytest.approx(alone.parameters / 8, rel=0.01)
    # Embeddings lie outside of the layers: they and their gradient are whole on each GPU for a moment.
    assert shared.layer - alone.layer > 2 * 4 * 262_144 * 640


def kept(run, parameters):
    """Bytes that autograd keeps under autocast as training sets it, weights apart."""
    own = {p.untyped_storage().data_ptr() for p in parameters}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, cache_enabled=False),
    ):
        output = run()
    assert output.requires_grad
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("preset", [presets.siglip_gemma, presets.pi05])
def test_kept_activations_of_a_language_layer_are_autograds(preset):
    config = preset()
    sizes = {"vocabulary": 64, "width": 64, "heads": 4, "kv_heads": 1, "head_width": 16, "mlp_width": 192}
    length, found = 200, []
    for depth in (1, 2):
        tower = towers.language_tower(replace(config.language, depth=depth, **sizes))
        rows = torch.randn(1, length, 64, requires_grad=True)
        mask = torch.ones(1, 1, length, length, dtype=torch.bool)
        by_kind = {"full_attention": mask, "sliding_attention": mask}
        found.append(
            kept(
                lambda tower=tower, rows=rows, by_kind=by_kind: (
                    tower(
                        inputs_embeds=rows,
                        attention_mask=by_kind if config.language.family == "gemma3" else by_kind["full_attention"],
                        position_ids=torch.arange(length)[None],
                        use_cache=False,
                    ).last_hidden_state
                ),
                tower.parameters(),
            )
        )
    small = replace(config, language=replace(config.language, depth=1, **sizes), text_tokens=length - 1)
    stack = value.network(small, pictures=0).stacks[1]
    # Autograd keeps the cast weights too, which the plan counts apart, and the mask, (1, 1, N, N) in bfloat16.
    planned = activations.layer_bytes(stack, 2) + 2 * stack.layer_weights() + 2 * length**2
    assert found[1] - found[0] == pytest.approx(planned, rel=0.02)


def test_kept_activations_of_a_vision_layer_are_autograds():
    config = replace(
        presets.siglip_gemma_dummy(),
        vision=presets.VisionConfig(width=64, depth=1, heads=4, mlp_width=192, patch_px=14, image_px=140),
    )
    found = []
    for depth in (1, 2):
        tower = towers.vision_tower(replace(config.vision, depth=depth))
        views = torch.rand(1, 3, 140, 140)
        found.append(
            kept(lambda tower=tower, views=views: tower(pixel_values=views).last_hidden_state, tower.parameters())
        )
    stack = value.network(config, pictures=1).stacks[0]
    planned = activations.layer_bytes(stack, 2) + 2 * stack.layer_weights()
    assert found[1] - found[0] == pytest.approx(planned, rel=0.02)


def test_a_plan_of_an_estimator(capsys):
    options = [
        "--model",
        "value",
        "--preset",
        "pi05",
        "--gpus",
        "8",
        "--pictures",
        "6",
        "--batch-size",
        "128",
        "--remat",
        "on",
        "--json",
    ]
    assert main(["plan", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["trainer"], found["layout"]["remat"]) == ("torch", True)
    assert found["fits"] is True
    assert found["serving_bytes"] is None


def test_a_copy_on_some_gpus_is_refused_where_torch_shares_all_or_none(capsys):
    assert main(["plan", "--model", "value", "--preset", "pi05", "--gpus", "8", "--fsdp", "2"]) == 64
    assert "--fsdp 2: expected one of 1, 8 for torch" in capsys.readouterr().err


def test_the_options_are_the_recipes(capsys):
    """Their names, choices and defaults, so that what is planned can be trained."""
    fields = Recipe.model_fields
    assert OF_VALUES["remat"] == ("on" if fields["checkpoint_activations"].default else "off")
    for name in ("freeze", "accumulate", "select"):
        assert fields[name].default == OF_VALUES[name]
    common = ["plan", "--model", "value", "--preset", "pi05", "--gpus", "8", "--batch-size", "256", "--json"]

    def planned(*options):
        main([*common, *options])
        return json.loads(capsys.readouterr().out)

    plain, parts, best = planned(), planned("--accumulate", "8"), planned("--select", "best")
    assert parts["memory_bytes"]["kept"] * 8 == plain["memory_bytes"]["kept"]
    assert best["memory_bytes"]["best"] == best["memory_bytes"]["average"] > plain["memory_bytes"]["best"] == 0
    vision, both = planned("--freeze", "vision"), planned("--freeze", "backbones")
    assert plain["trained_weights"] > vision["trained_weights"] > both["trained_weights"] > 0
    assert plain["memory_bytes"]["total"] > vision["memory_bytes"]["total"] > both["memory_bytes"]["total"]


@pytest.mark.parametrize("freeze", ["vision", "backbones"])
def test_frozen_towers_are_those_of_the_trainer(freeze):
    config = presets.pi05_dummy()
    model = build(config, ModelShape(num_cameras=1, state_dim=0, tasks=("fold",), prompts=((2, 3),)))
    recipe = Recipe(preset="pi05_dummy", tokenizer="unused", freeze=freeze)
    trained = {
        name for name, p in trainable(model, recipe, World(), torch.device("cpu")).named_parameters() if p.requires_grad
    }
    planned = value.network(config, pictures=1, freeze=freeze)
    assert {name for name, weight in planned.weights.items() if weight.trained} == trained


def test_what_does_not_fit_is_pointed_to_what_the_recipe_has(capsys):
    assert main(["plan", "--model", "value", "--preset", "pi05", "--gpus", "8", "--batch-size", "256"]) == 64
    said = capsys.readouterr().err
    assert "--remat on" in said
    assert "--accumulate " in said
