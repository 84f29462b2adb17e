"""What features of clips cost on one core, extractor by extractor, and what decoding has of it.

    make test-models
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/features.py [--side 240] [--clips 4] [--repeats 5]

Clips of 3 s, 15 frames a second and 480 x 480 (H.264, CRF 23, GOP 15): a photograph that moves under a hand that waves.
CPU seconds (user + system, all threads), medians of interleaved repeats, because other work on a machine slows all
alike. CLIP is ViT-B/32 in full size with random weights: they cost what trained ones do.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "unit")]

from clip_models import EFFICIENTNET, HANDS, model  # noqa: E402
from emoji import with_hand  # noqa: E402

from robolift.clips import extractors, measuring  # noqa: E402
from robolift.clips.encoders import open_encoder  # noqa: E402
from robolift.clips.extractor import Clip, Tools  # noqa: E402
from robolift.data.video import H264, encode_video  # noqa: E402

SIDE, FPS, FRAMES = 480, 15.0, 45
GOP_15 = dataclasses.replace(H264, options=tuple((key, "15" if key == "g" else value) for key, value in H264.options))


def write_clips(folder: Path, number: int) -> list[Clip]:
    """Write the clips and return what is to be measured."""
    photographs = [skimage.data.astronaut(), skimage.data.coffee()[:, :512], skimage.data.chelsea()]
    clips = []
    for index in range(number):
        mirrored = np.pad(photographs[index % 3], ((0, SIDE), (0, SIDE), (0, 0)), mode="symmetric")
        picture = mirrored[:SIDE, :SIDE]
        frames = []
        for step in range(FRAMES):
            hand = with_hand(150 + 4 * (step % 20), 160 + index, side=SIDE, hand_px=140)
            background = np.roll(picture, 2 * step, axis=1)
            drawn = (hand != 200).any(axis=2)
            frames.append(np.where(drawn[..., None], hand, background))
        path = folder / f"{index}.mp4"
        encode_video(path, frames, fps=FPS, size=(SIDE, SIDE), codec=GOP_15)
        sampled = measuring.sample(FRAMES, 8)
        clips.append(Clip(clip_id=f"{index}", uri=str(path), fps=FPS, num_frames=FRAMES, sampled=sampled))
    return clips


def write_clip_b32(folder: Path) -> str:
    """Save a CLIP of full size with random weights."""
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection  # noqa: PLC0415

    CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32)).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return str(folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=240)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        clips = write_clips(Path(work), asked.clips)
        hand_model = Path(model(HANDS)).read_bytes()
        pixels, lite = open_encoder(""), open_encoder(model(EFFICIENTNET))
        clip_b32 = open_encoder(write_clip_b32(Path(work) / "clip"))
        cases = {
            "decoding alone": ((), pixels),
            **{name: ((name,), pixels) for name in extractors.names() if name != "embedding"},
            "embedding: pixels": (("embedding",), pixels),
            "embedding: EfficientNet-Lite0": (("embedding",), lite),
            "embedding: CLIP ViT-B/32": (("embedding",), clip_b32),
            "blur, exposure, motion, hands, CLIP": (("blur", "exposure", "motion", "hands", "embedding"), clip_b32),
        }
        taken: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(asked.repeats):
            for name, (wanted, encoder) in cases.items():
                tools = Tools(encoder=encoder, hand_model=hand_model)
                begin = time.process_time()
                for _measured in measuring.measure(clips, extractors.load(wanted), tools, side=asked.side):
                    pass
                taken[name].append((time.process_time() - begin) / len(clips))
    cost = {name: statistics.median(times) for name, times in taken.items()}
    decoding = cost["decoding alone"]
    print("| | CPU s a clip | without decoding | clips a second | decoding's share |\n|---|---|---|---|---|")
    for name, seconds in cost.items():
        print(f"| {name} | {seconds:.3f} | {seconds - decoding:.3f} | {1 / seconds:.2f} | {decoding / seconds:.0%} |")


if __name__ == "__main__":
    main()
