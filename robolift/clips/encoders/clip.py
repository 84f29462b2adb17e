"""CLIP's image tower (Radford et al. 2021) by transformers' classes, from files alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

# Read when transformers is imported. Models come from the address they are given as, never from a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import numpy as np
import torch
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection
from transformers.utils import logging as transformers_logging

from robolift.errors import DataError
from robolift.training.device import device_for, threads

MODEL_TYPES = ("clip", "clip_vision_model")


class Clip:
    """Projected image features (``image_embeds``), not normalised; 512 numbers for ViT-B/32."""

    kind = "clip"

    def __init__(self, folder: Path, *, digest: str, device: str, where: str) -> None:
        """Load the tower from a local folder.

        Args:
            folder: ``config.json``, ``preprocessor_config.json`` and weights; of a whole CLIP only the image tower is
                used.
            digest: Of the folder.
            device: ``cpu`` or ``cuda``.
            where: What an error calls the folder.

        Raises:
            UsageError: If there is no such device.
            DataError: If it isn't a CLIP, or weights are missing.
        """
        _check_type(folder, where)
        self.digest = digest
        self._device = device_for(device)
        before = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it lists the weights of the text tower as unexpected
        try:
            # With output_loading_info it returns a pair, which its annotation doesn't tell.
            loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
            )
            self._processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(
                f"CLIP can't be loaded: {error}",
                where=where,
                expected="config.json, preprocessor_config.json and model.safetensors",
                mend="save model and image processor there again",
            ) from error
        finally:
            transformers_logging.set_verbosity(before)
        model, loading = loaded
        if missing := sorted(loading["missing_keys"]):
            # transformers would fill them with random numbers.
            raise DataError(f"weights are missing, the first is {missing[0]}", where=where, mend="save the model again")
        self._model = model.eval().to(self._device)
        self.width = int(model.visual_projection.out_features)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Return (n, width) float32 of (n, H, W, 3) uint8 RGB pictures."""
        pixels = self._processor(list(images), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
        # One thread: more would add floats in another order.
        with threads(1), torch.inference_mode():
            found = self._model(pixel_values=pixels.to(self._device)).image_embeds
        return np.asarray(found.cpu().numpy(), np.float32)


def _check_type(folder: Path, where: str) -> None:
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except FileNotFoundError:
        kind = "a folder without config.json"
    except (ValueError, AttributeError):
        kind = "a config.json that can't be read"
    if kind not in MODEL_TYPES:
        raise DataError(
            f"not a CLIP: {kind}",
            where=where,
            expected="a folder as transformers saves CLIPModel or CLIPVisionModelWithProjection",
            mend="choose that folder; EfficientNet-Lite0 is given as the file of its weights",
        )
