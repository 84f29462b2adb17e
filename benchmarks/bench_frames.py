"""Random training samples: three cameras of 480x640 at 224x168, rows drawn at random.

The reference is what openpi's data loader, which kai0 trains by, does for a sample: LeRobot's pyav backend opens each
camera's file, seeks to the keyframe before the frame, decodes up to it, turns every frame on the way into an array and
the wanted one into float32; openpi makes uint8 of it and scales it with Pillow. Both end with the small uint8 pictures
that a model is trained on; ours are scaled by area while they are converted. "full size" stops before openpi, as where
a GPU scales; what ours is beside it is given, too.

Ways of ours: the frame cache as JPEG, as raw pixels, and no cache (frames decoded when asked for), each asked for 16
samples at a time. Without a cache videos stay open for the next sample, 128 of them by default, and these are 18: no
file is opened again. That is a small dataset, or one read by blocks. "no cache, opened" is the other end, a dataset of
thousands of files in random order: one video may stay open and samples come one by one, so every picture opens its file
as the reference does; its number is given, the goal is on the first. The limit is a copy out of one NumPy memory map.

Videos are AV1 as LeRobot writes it (crf 30, a keyframe every second frame, preset 12), one file a camera and episode;
content is a textured scene in motion with sensor noise, of about the bytes a frame that noisy recordings have. Each way
measures a pass over samples after a warm-up, in CPU time, from warm disks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.harness import Benchmark, Goal, Way
from robolift import manifest
from robolift.data import video_decoder
from robolift.data.dataset import Dataset
from robolift.data.frame_cache import CachedFrames, View, open_cache
from robolift.data.frames import DecodedFrames
from robolift.data.lerobot_writer import FeatureSpec, LeRobotWriter
from robolift.data.video import AV1
from robolift.stages.stage import execute

CAMERAS = tuple(f"observation.images.{name}" for name in ("head", "left", "right"))
SIZE, SMALL = (480, 640), (168, 224)
EPISODES, LENGTH, FPS = 6, 100, 30
NOISE = 4.0
BATCH = 16


def prepare(folder: Path) -> None:
    """Record episodes, import them, and pack their frames; every way must give the same pictures, JPEG nearly."""
    features = {"observation.state": FeatureSpec("float32", (1,)), "action": FeatureSpec("float32", (1,))}
    writer = LeRobotWriter(
        folder / "recording",
        fps=FPS,
        features=features,
        cameras=dict.fromkeys(CAMERAS, SIZE),
        robot_type="synthetic",
        codec=AV1,
    )
    for episode in range(EPISODES):
        numbers = np.arange(LENGTH, dtype=np.float32)[:, None]
        videos = {camera: _scene(10 * episode + place) for place, camera in enumerate(CAMERAS)}
        writer.add_episode({"observation.state": numbers, "action": numbers}, videos=videos, task="sort the parts")
    writer.finish()
    runs = str(folder / "runs")
    imported = execute("import_dataset", {"dataset_uri": str(folder / "recording"), "control_mode": "demo"}, {}, runs)
    (folder / "dataset").write_text(imported.uri)
    for coding in ("jpeg", "raw"):
        config = {"format": coding, "size": list(SMALL), "num_workers": 1}
        (folder / coding).write_text(execute("pack_frames", config, {"dataset": imported.uri}, runs).uri)
    pixels = _cache(folder, "raw")[np.arange(EPISODES * LENGTH)]
    np.save(folder / "pixels.npy", pixels)
    rows = np.arange(0, len(pixels), 37)
    assert np.array_equal(_decoded(folder)[rows], pixels[rows])
    error = np.abs(_cache(folder, "jpeg")[rows].astype(np.int16) - pixels[rows]).mean()
    assert error < 4, error


def _scene(seed: int) -> Iterator[np.ndarray]:
    """Yield frames of a textured background that drifts, an object that moves, and noise of a sensor."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    waves = zip(rng.uniform(5, 20, 12), rng.uniform(-0.3, 0.3, (12, 2)), rng.uniform(0, 6, 12), strict=True)
    texture = sum(height * np.sin(x * across + y * down + phase) for height, (across, down), phase in waves)
    scene = np.stack([120 + texture, 128 + texture, 136 + 0.8 * texture], axis=-1).astype(np.float32)
    for step in range(LENGTH):
        image = np.roll(scene, (step, 2 * step), (0, 1))
        top, left = 200 + int(120 * np.sin(step / 20)), 280 + int(200 * np.cos(step / 17))
        image[top : top + 90, left : left + 90] = (200, 60, 40)
        image += NOISE * rng.standard_normal((*SIZE, 1), dtype=np.float32)
        yield np.clip(image, 0, 255).astype(np.uint8)


def _cache(folder: Path, coding: str) -> CachedFrames:
    found = manifest.load((folder / coding).read_text())
    frames = open_cache(found, View(cameras=CAMERAS, size=SMALL, padded=False), num_frames=EPISODES * LENGTH)
    assert frames is not None
    return frames


def _decoded(folder: Path) -> DecodedFrames:
    dataset = Dataset.open(manifest.load((folder / "dataset").read_text()))
    return DecodedFrames(dataset=dataset, cameras=CAMERAS, size=SMALL)


def _samples(get: Callable[[np.ndarray], Any], count: int) -> dict[str, float]:
    """Return samples per CPU-second over ``count`` random rows, taken in batches, after one batch to warm up."""
    rows = np.random.default_rng(0).integers(0, EPISODES * LENGTH, (count + BATCH) // BATCH * BATCH).reshape(-1, BATCH)
    get(rows[0])
    begun = time.process_time()
    for batch in rows[1:]:
        get(batch)
    spent = time.process_time() - begun
    return {"cpu_s": spent, "samples_per_cpu_s": (len(rows) - 1) * BATCH / spent}


def pyav(folder: Path, *, scaled: bool) -> dict[str, float]:
    """Open, seek, decode and convert, as LeRobot's pyav backend; scale as openpi's ``ResizeImages``."""
    from PIL import Image  # noqa: PLC0415  (only here)

    def small(pixels: np.ndarray) -> np.ndarray:
        image = (255 * pixels).astype(np.uint8).transpose(1, 2, 0)
        return np.asarray(Image.fromarray(image).resize(SMALL[::-1], resample=Image.Resampling.BILINEAR))

    def sample(row: int) -> list[np.ndarray]:
        episode, frame = divmod(row, LENGTH)
        found = []
        for camera in CAMERAS:
            path = folder / f"recording/videos/chunk-000/{camera}/episode_{episode:06d}.mp4"
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                assert stream.time_base is not None
                container.seek(int(frame / FPS / stream.time_base), stream=stream, backward=True)
                for picture in container.decode(stream):
                    pixels = picture.to_ndarray(format="rgb24")
                    if picture.pts * stream.time_base >= (frame - 0.5) / FPS:
                        break
                whole = pixels.transpose(2, 0, 1).astype(np.float32) / 255
                found.append(small(whole) if scaled else whole)
        return found

    return _samples(lambda rows: [sample(int(row)) for row in rows], 64)


def jpeg(folder: Path) -> dict[str, float]:
    """Read the frame cache of JPEG; also say how many bytes it has for each of the videos'."""
    cache, recording = Path((folder / "jpeg").read_text().removeprefix("file://")), folder / "recording/videos"
    sizes = [sum(p.stat().st_size for p in place.rglob("*") if p.is_file()) for place in (cache, recording)]
    return {**_samples(_cache(folder, "jpeg").__getitem__, 2000), "bytes_of_source": sizes[0] / sizes[1]}


def raw(folder: Path) -> dict[str, float]:
    """Read the frame cache of raw pixels."""
    return _samples(_cache(folder, "raw").__getitem__, 4000)


def memmap(folder: Path) -> dict[str, float]:
    """Copy rows out of a NumPy memory map."""
    return _samples(np.load(folder / "pixels.npy", mmap_mode="r").__getitem__, 4000)


def decoded(folder: Path) -> dict[str, float]:
    """Decode when asked for."""
    return _samples(_decoded(folder).__getitem__, 160)


def opened(folder: Path) -> dict[str, float]:
    """Decode when asked for, each picture from a file that is not open."""
    video_decoder.OPEN_VIDEOS = 1  # this process is the way's own
    frames = _decoded(folder)
    return _samples(lambda rows: [frames[row] for row in rows[:, None]], 64)


BENCHMARK = Benchmark(
    name="frames",
    prepare=prepare,
    ways=(
        Way("PyAV seek", partial(pyav, scaled=True)),
        Way("PyAV seek, full size", partial(pyav, scaled=False)),
        Way("cache, JPEG", jpeg),
        Way("cache, raw", raw),
        Way("no cache", decoded),
        Way("no cache, opened", opened),
        Way("NumPy memory map", memmap),
    ),
    goals=(
        Goal(
            "samples per CPU-second, JPEG / PyAV seek", ("cache, JPEG", "PyAV seek"), "samples_per_cpu_s", at_least=40
        ),
        Goal("samples per CPU-second, raw / PyAV seek", ("cache, raw", "PyAV seek"), "samples_per_cpu_s", at_least=40),
        Goal(
            "samples per CPU-second, no cache / PyAV seek", ("no cache", "PyAV seek"), "samples_per_cpu_s", at_least=3
        ),
        Goal(
            "samples per CPU-second, no cache, opened / PyAV seek",
            ("no cache, opened", "PyAV seek"),
            "samples_per_cpu_s",
        ),
        Goal(
            "samples per CPU-second, no cache / PyAV seek, full size",
            ("no cache", "PyAV seek, full size"),
            "samples_per_cpu_s",
        ),
        Goal("samples per CPU-second, raw / memory map", ("cache, raw", "NumPy memory map"), "samples_per_cpu_s"),
        Goal("bytes, JPEG / AV1 source", ("cache, JPEG",), "bytes_of_source", at_most=1.0),
    ),
)
