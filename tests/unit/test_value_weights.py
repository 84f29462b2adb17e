"""First weights of the towers from openpi's and transformers' files, and what is said of files that do not fit."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from robolift import storage
from robolift.data.models import model_digest
from robolift.errors import DataError, UsageError
from robolift.training import distributed
from robolift.training.distributed import World
from robolift.value_model import presets, train, weights
from robolift.value_model.build import build
from robolift.value_model.network import ModelShape
from robolift.value_model.weights import load_towers

PALIGEMMA = "paligemma_with_expert.paligemma."


def model_of(preset, seed=0, **changes):
    torch.manual_seed(seed)
    shape = ModelShape(num_cameras=1, state_dim=0, tasks=("fold",), prompts=((2, 5),))
    return build(replace(presets.PRESETS[preset](), head="relative"), shape, **changes)


def openpi_names(depth=2, vision_depth=2):
    """Names of PI0Pytorch's PaliGemma (openpi, convert_jax_model_to_pytorch.py), and ours for each."""
    names = {f"multi_modal_projector.linear.{part}": f"projector.{part}" for part in ("weight", "bias")}
    vision = ["embeddings.patch_embedding.weight", "embeddings.patch_embedding.bias"]
    vision += ["embeddings.position_embedding.weight", "post_layernorm.weight", "post_layernorm.bias"]
    for i in range(vision_depth):
        parts = ["layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"]
        parts += [f"self_attn.{x}" for x in ("k_proj", "v_proj", "q_proj", "out_proj")]
        vision += [f"encoder.layers.{i}.{part}.{kind}" for part in parts for kind in ("weight", "bias")]
    names |= {f"vision_tower.vision_model.{name}": f"vision.{name}" for name in vision}
    language = ["norm.weight", "embed_tokens.weight"]
    for i in range(depth):
        parts = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
        parts += ["input_layernorm", "post_attention_layernorm"]
        language += [f"layers.{i}.{part}.weight" for part in parts]
    names |= {f"language_model.{name}": f"language.{name}" for name in language}
    return {f"{PALIGEMMA}model.{theirs}": ours for theirs, ours in names.items()}


def openpi_file(path, model):
    """What openpi saves: one of two tied names, an action expert and projections beside PaliGemma."""
    state = model.state_dict()
    tensors = {theirs: state[ours].to(torch.bfloat16) for theirs, ours in openpi_names().items()}
    tensors[f"{PALIGEMMA}lm_head.weight"] = tensors.pop(f"{PALIGEMMA}model.language_model.embed_tokens.weight")
    tensors["paligemma_with_expert.gemma_expert.model.norm.dense.weight"] = torch.zeros(3, 2)
    for name in ("action_in_proj", "action_out_proj", "time_mlp_in", "time_mlp_out"):
        tensors |= {f"{name}.weight": torch.zeros(2, 2), f"{name}.bias": torch.zeros(2)}
    safetensors.torch.save_file(tensors, path)
    return tensors


def test_openpi_s_weights_fill_the_towers_and_leave_the_head(tmp_path):
    source, target = model_of("pi05_dummy", seed=1), model_of("pi05_dummy", seed=2)
    before = {name: weight.clone() for name, weight in target.state_dict().items()}
    openpi_file(tmp_path / "model.safetensors", source)
    load_towers(target, str(tmp_path / "model.safetensors"), model_digest(str(tmp_path / "model.safetensors")))
    for name, weight in target.state_dict().items():
        fresh = name.startswith("value_")
        expected = before[name] if fresh else source.state_dict()[name].to(torch.bfloat16).float()
        assert weight.dtype == torch.float32
        assert torch.equal(weight, expected), name


@pytest.mark.parametrize("whole", [True, False])
def test_what_transformers_saves_of_siglip_and_gemma_3_fills_the_towers(tmp_path, whole):
    target = model_of("siglip_gemma_dummy", seed=2)
    projector = target.projector.weight.clone()
    torch.manual_seed(3)
    vision = SiglipVisionConfig(**{**target.vision.config.to_dict(), "vision_use_head": True})
    text = {"hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    small = {"vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2}
    siglip = SiglipModel(SiglipConfig(vision_config=vision.to_dict(), text_config={**text, **small}))
    gemma = Gemma3ForCausalLM(Gemma3TextConfig(**target.language.config.to_dict()))
    seen = SiglipVisionModel(vision)
    (siglip if whole else seen).save_pretrained(tmp_path / "siglip")
    (gemma if whole else gemma.model).save_pretrained(tmp_path / "gemma", max_shard_size="40KB")
    assert len(list((tmp_path / "gemma").glob("*.safetensors"))) > 1
    load_towers(target, f"file://{tmp_path}", model_digest(str(tmp_path)))
    assert torch.equal(target.language.embed_tokens.weight, gemma.model.embed_tokens.weight)
    assert torch.equal(target.language.layers[5].self_attn.q_norm.weight, gemma.model.layers[5].self_attn.q_norm.weight)
    theirs = (siglip.vision_model if whole else seen).state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in target.vision.state_dict().items())
    assert torch.equal(target.projector.weight, projector)


def test_towers_without_weights_take_no_memory_and_become_the_same_model(tmp_path):
    source = model_of("pi05_dummy", seed=1)
    openpi_file(tmp_path / "model.safetensors", source)
    drawn, empty = model_of("pi05_dummy", seed=2), model_of("pi05_dummy", seed=2, empty_towers=True)
    names = {name for name, parameter in empty.named_parameters() if parameter.is_meta}
    assert names == {n for n, _ in drawn.named_parameters() if n.startswith(("vision.", "language."))}
    assert not any(buffer.is_meta for buffer in empty.buffers())
    for model in (drawn, empty):
        load_towers(model, str(tmp_path / "model.safetensors"))
    assert list(dict(empty.named_parameters())) == list(dict(drawn.named_parameters()))
    assert all(p.requires_grad and p.device.type == "cpu" for p in empty.parameters())
    for fresh in ("value_head.1.weight", "value_token"):  # drawn from the seed all the same
        assert empty.get_parameter(fresh).std() > 0
    for model in (drawn, empty):
        for name in ("value_token", *(f"value_head.{n}" for n, _ in source.value_head.named_parameters())):
            model.get_parameter(name).data.copy_(source.get_parameter(name))
    seen, task = torch.randint(0, 256, (2, 1, 28, 28, 3), dtype=torch.uint8), torch.tensor([0, 0])
    with torch.no_grad():
        one, other = (model.value_logits(model.encode(seen), torch.zeros(2, 1, 0), task) for model in (drawn, empty))
    assert torch.equal(one, other)
    # Nothing of the model hangs on the file.
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert torch.equal(empty.projector.weight, source.projector.weight.to(torch.bfloat16).float())


def test_the_first_process_of_a_machine_gets_the_weights_for_all(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(weights, "materialize", lambda uri, _: (asked.append(uri), tmp_path)[1])
    monkeypatch.setattr(weights, "collect", lambda _, mine: [(0, "/zero"), None, mine or (1, "/one"), None])
    assert weights._on_this_machine("uri", "", World(rank=2, size=4, local_rank=0, node=1)) == tmp_path
    assert weights._on_this_machine("uri", "", World(rank=3, size=4, local_rank=1, node=1)) == Path("/one")
    assert asked == ["uri"]


def test_the_digest_of_weights_is_worked_out_once_for_all_processes(tmp_path, monkeypatch):
    openpi_file(tmp_path / "model.safetensors", model_of("pi05_dummy"))
    jobs = []
    monkeypatch.setattr(train, "_open", lambda *_: (None, None, None))
    monkeypatch.setattr(
        distributed, "launch", lambda _, arguments, **__: jobs.append(json.loads(Path(arguments[0]).read_text()))
    )
    places = train.Places(dataset_uri="", targets_uri="", work_uri="", folder="")
    recipe = {"preset": "pi05_dummy", "tokenizer": "x", "weights": str(tmp_path), "num_processes": 2, "batch_size": 2}
    train.train(train.Recipe(**recipe), places)
    assert jobs[0]["recipe"]["weights_sha256"] == model_digest(str(tmp_path))


def test_hidden_files_are_no_weights(tmp_path):
    source, target = model_of("pi05_dummy", seed=1), model_of("pi05_dummy", seed=2)
    openpi_file(tmp_path / "model.safetensors", source)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "old.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
    load_towers(target, str(tmp_path), model_digest(str(tmp_path)))
    assert torch.equal(target.projector.weight, source.projector.weight.to(torch.bfloat16).float())


def test_what_to_install_is_said_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    places = train.Places(dataset_uri="memory://nothing", targets_uri="", work_uri="", folder="")
    recipe = train.Recipe(preset="pi05_dummy", tokenizer="x")
    with pytest.raises(
        UsageError, match=r"pi05_dummy needs transformers(.|\n)*mend: pip install 'robolift\[torch,full\]'"
    ):
        train.train(recipe, places)
    with pytest.raises(UsageError, match="transformers"):
        model_of("siglip_gemma_dummy")


def broken(tmp_path, change):
    tensors = openpi_file(tmp_path / "model.safetensors", model_of("pi05_dummy"))
    change(tensors)
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    target = model_of("pi05_dummy", seed=2)
    before = target.vision.post_layernorm.weight.clone(), target.projector.weight.clone()
    with pytest.raises(DataError) as refused:
        load_towers(target, str(tmp_path / "model.safetensors"))
    assert torch.equal(target.projector.weight, before[1])
    return str(refused.value)


def test_missing_unexpected_and_misshapen_weights_are_counted_and_the_first_ten_named(tmp_path):
    def change(tensors):
        for name in [n for n in tensors if "model.language_model.layers.1." in n]:
            del tensors[name]
        for name in [n for n in tensors if "vision_model.encoder.layers.0" in n]:
            del tensors[name]
        tensors["value_head.0.weight"] = torch.zeros(1)
        tensors[f"{PALIGEMMA}model.language_model.layers.7.mlp.up_proj.weight"] = torch.zeros(1)
        tensors[f"{PALIGEMMA}model.multi_modal_projector.linear.weight"] = torch.zeros(64, 31)

    text = broken(tmp_path, change)
    assert "25 missing: language.layers.1.input_layernorm.weight, " in text
    assert text.count("vision.encoder.layers.0") == 1  # the tenth; nine are of the language tower
    assert ", ...;" in text
    assert f"2 unexpected: {PALIGEMMA}model.language_model.layers.7.mlp.up_proj.weight, value_head.0.weight;" in text
    assert f"1 of the wrong shape: {PALIGEMMA}model.multi_modal_projector.linear.weight (64, 31)" in text
    assert "instead of (64, 32)" in text


def test_wrong_files_are_named(tmp_path):
    model = model_of("pi05_dummy")
    openpi_file(tmp_path / "model.safetensors", model)
    with pytest.raises(DataError, match="digest"):
        load_towers(model, str(tmp_path / "model.safetensors"), "0" * 64)
    with pytest.raises(UsageError, match="no model at"):
        load_towers(model, str(tmp_path / "nothing"))
    openpi_file(tmp_path / "again.safetensors", model)
    with pytest.raises(DataError, match="in more than one file"):
        load_towers(model, str(tmp_path))
    for name in ("model", "again"):
        (tmp_path / f"{name}.safetensors").unlink()
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no \.safetensors file"):
        load_towers(model, str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(DataError, match="not a safetensors file"):
        load_towers(model, str(tmp_path))


def test_weights_are_read_from_any_store(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBOLIFT_MODEL_CACHE", str(tmp_path / "cache"))
    source, target = model_of("pi05_dummy", seed=1), model_of("pi05_dummy", seed=2)
    openpi_file(tmp_path / "model.safetensors", source)
    storage.write_bytes("memory://weights/model.safetensors", (tmp_path / "model.safetensors").read_bytes())
    load_towers(target, "memory://weights/model.safetensors", model_digest(str(tmp_path / "model.safetensors")))
    assert torch.equal(target.projector.weight, source.projector.weight.to(torch.bfloat16).float())
