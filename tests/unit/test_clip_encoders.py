"""Encoders: what they give for pictures, that batches don't matter, and which files they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest
import safetensors.numpy
import skimage.data
import torch
from clip_models import CLIP, EFFICIENTNET, model
from small_clips import coloured, grey, texture, watch

from robolift.clips.encoders import open_encoder
from robolift.clips.encoders.efficientnet import prepare
from robolift.clips.extractor import Tools
from robolift.data.models import model_digest
from robolift.errors import DataError, UsageError

CAT, CUP = range(281, 286), (504, 967, 968)  # ImageNet: tabby to Egyptian cat; coffee mug, espresso, cup
ENCODERS = ("", CLIP, EFFICIENTNET)


def address(name: str) -> str:
    return model(name) if name else ""


@pytest.fixture(scope="module")
def efficientnet():
    return open_encoder(address(EFFICIENTNET))


def square(name: str, side: int = 240, left: int | None = None) -> np.ndarray:
    picture = getattr(skimage.data, name)()
    height, width = picture.shape[:2]
    edge = min(height, width)
    x = (width - edge) // 2 if left is None else left
    return cv2.resize(picture[:edge, x : x + edge], (side, side), interpolation=cv2.INTER_AREA)


def test_pixels_are_the_means_of_fields():
    halves = np.zeros((16, 16), np.uint8)
    halves[:, 8:] = 255
    encoder = open_encoder("")
    found = encoder.encode(np.stack([coloured(halves), grey(51, 16)]))
    assert (encoder.kind, encoder.digest, encoder.width) == ("pixels", "", 192)
    assert found.dtype == np.float32
    row = [[0.0] * 3] * 4 + [[1.0] * 3] * 4
    np.testing.assert_array_equal(found[0], np.ravel([row] * 8))
    np.testing.assert_allclose(found[1], 0.2, rtol=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_picture_is_encoded_alike_in_any_batch(name):
    encoder = open_encoder(address(name))
    pictures = np.stack([square("chelsea", 64), square("coffee", 64), texture(64), grey(7)])
    together = encoder.encode(pictures)
    alone = np.concatenate([encoder.encode(picture[None]) for picture in pictures])
    assert together.shape == (4, encoder.width)
    # A batch of another shape may be summed in another order, and nothing more.
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(together, encoder.encode(pictures))
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_clip_gives_what_its_own_classes_give():
    from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

    picture = square("astronaut", 50)
    pixels = CLIPImageProcessorPil.from_pretrained(model(CLIP))([picture], return_tensors="pt")
    with torch.inference_mode():
        oracle = CLIPVisionModelWithProjection.from_pretrained(model(CLIP))(**pixels).image_embeds
    encoder = open_encoder(model(CLIP))
    np.testing.assert_allclose(encoder.encode(picture[None]), oracle.numpy(), rtol=1e-6)
    assert (encoder.kind, encoder.width, encoder.digest) == ("clip", 8, model_digest(model(CLIP)))


def test_of_a_whole_clip_the_image_tower_is_used(tmp_path):
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": 50, "projection_dim": 6, "bos_token_id": 1, "eos_token_id": 2}
    vision = {**small, "image_size": 32, "patch_size": 16, "projection_dim": 6}
    whole = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)).eval()
    whole.save_pretrained(tmp_path)
    CLIPImageProcessorPil.from_pretrained(model(CLIP)).save_pretrained(tmp_path)
    picture = square("coffee", 64)
    pixels = CLIPImageProcessorPil.from_pretrained(tmp_path)([picture], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        oracle = whole.visual_projection(whole.vision_model(pixels).pooler_output)
    encoder = open_encoder(str(tmp_path))
    assert encoder.width == 6
    np.testing.assert_allclose(encoder.encode(picture[None]), oracle.numpy(), rtol=1e-5)


@pytest.mark.parametrize(("name", "classes"), [("chelsea", CAT), ("coffee", CUP)])
def test_efficientnet_knows_a_cat_and_a_cup(efficientnet, name, classes):
    with torch.inference_mode():
        probability = efficientnet.network(prepare(square(name)[None])).softmax(-1)[0]
    assert int(probability.argmax()) in classes
    assert float(probability[list(classes)].sum()) > 0.8


def test_a_cat_is_nearer_a_cat_than_a_cup(efficientnet):
    cat, other_cat, cup = efficientnet.encode(
        np.stack([square("chelsea", left=0), square("chelsea", left=151), square("coffee")])
    )
    assert np.linalg.norm(cat - other_cat) < 0.8 * np.linalg.norm(cat - cup)
    assert efficientnet.width == len(cat) == 1280


def test_a_clip_keeps_the_encoding_of_its_sampled_frames():
    frames = [grey(level) for level in (0, 51, 102, 255)]
    found = watch("embedding", frames, tools=Tools(encoder=open_encoder("")), sampled=(0, 2, 3))
    np.testing.assert_allclose(found.tracks["embedding"], np.repeat([[0], [0.4], [1]], 192, axis=1), rtol=1e-6)


def test_weights_come_from_any_store_and_are_kept_by_content(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBOLIFT_MODEL_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(model(CLIP), "/models/clip-tiny", recursive=True)
    digest = model_digest(model(CLIP))
    picture = texture(32)[None]
    here = open_encoder(model(CLIP)).encode(picture)
    np.testing.assert_array_equal(open_encoder("memory://models/clip-tiny", expect_sha256=digest).encode(picture), here)
    memory.rm("/models/clip-tiny", recursive=True)
    np.testing.assert_array_equal(open_encoder("memory://models/clip-tiny", expect_sha256=digest).encode(picture), here)


def test_what_is_no_clip_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(DataError, match="not a CLIP: bert"):
        open_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"not a CLIP: a config\.json that can't be read"):
        open_encoder(str(tmp_path))
    (tmp_path / "config.json").rename(tmp_path / "weights")
    with pytest.raises(DataError, match=r"not a CLIP: a folder without config\.json"):
        open_encoder(str(tmp_path))


def test_a_clip_without_all_its_files_or_weights_is_refused(tmp_path):
    folder = Path(shutil.copytree(model(CLIP), tmp_path / "clip"))
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    safetensors.numpy.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"weights are missing, the first is visual_projection\.weight"):
        open_encoder(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match="CLIP can't be loaded"):
        open_encoder(str(folder))


def test_what_are_no_weights_of_efficientnet_is_refused(tmp_path):
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(DataError, match="not the weights of EfficientNet-Lite0"):
        open_encoder(str(tmp_path / "noise.pth"))
    safetensors.numpy.save_file({"_fc.bias": np.zeros(1000, np.float32)}, tmp_path / "part.safetensors")
    with pytest.raises(DataError, match="_conv_stem"):
        open_encoder(str(tmp_path / "part.safetensors"))


def test_a_pickle_that_would_run_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    torch.save({"_fc.bias": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(DataError, match="not the weights of EfficientNet-Lite0"):
        open_encoder(str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


def test_wrong_addresses_digests_and_devices_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no model at"):
        open_encoder(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="have the digest"):
        open_encoder(model(EFFICIENTNET), expect_sha256="0" * 64)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="device is cuda"):
            open_encoder(model(CLIP), device="cuda")
