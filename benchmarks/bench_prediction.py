"""From video to values: what a CPU does for each labelled frame, and what memory it takes.

A labelled frame is one frame of an episode with three cameras of 480x640, brought to 224x224 with black around as the
public predictor (kai0's evaluator) does. Videos are a moving scene with sensor noise, about as many bytes a frame as
LeRobot's: H.264 with a keyframe every 250 frames, and AV1 with LeRobot's own settings.

*prediction_h264*: ours goes from the imported dataset to the batches that a model is given, on the clock from the open
dataset on. "public method" is our re-implementation of the public predictor's data side: OpenCV decodes whole videos
into memory at full size, and every frame is converted to float32 and resized by torch twice, as the frame looked from
and as the one looked at, in its 64 threads and batches of 160. "decode" only decodes, with PyAV: the limit of whoever
needs every frame. "ours, 3 workers" has `decode_workers: 3`: the CPU time is that of all processes, with what starting
them and handing pictures over costs. Rates are labelled frames per CPU-second; that of ours is the r of the rule in
docs/prediction.md. The pictures of ours are uint8, scaled by area while they are converted; the public method's are
float32 and bilinear: as many, of the same size, but not the same numbers, so nothing compares them.

*prediction_av1*: the same. OpenCV from PyPI reads no frame of AV1, so there is no public method to compare with.

*prediction_memory*: the stage predict_values with the tiny preset on one episode of 500 and one of 2,000 frames, all
that the process holds at its peak, PyTorch included; without pandas, which no image of ours has.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Benchmark, Goal, Way
from benchmarks.taken import cpu_s

CAMERAS = ("observation.images.hand_left", "observation.images.hand_right", "observation.images.top_head")
FPS, HEIGHT, WIDTH = 30, 480, 640
SIDE, BATCH, LOOKAHEAD = 224, 64, 50
FRAMES, SHORT, LONG = 640, 500, 2000
CYCLE = 50
"""Frames after which the scene begins again."""
PUBLIC_THREADS, PUBLIC_BATCH = 64, 160
LONG_GROUPS = (("crf", "23"), ("g", "250"))
QUICK = (("preset", "veryfast"), *LONG_GROUPS)
PROGRESS = "stage_progress_gt"
RATE = "labelled_per_cpu_s"


def scene(camera: int) -> Iterator[np.ndarray]:
    """Yield (480, 640, 3) uint8 frames for ever: a textured room, two things that move, noise."""
    rng = np.random.default_rng(camera)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    room = np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, (x + 2 * y) % 256], axis=-1)
    room = room + rng.normal(0, 20, (HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 0).repeat(8, 1)
    cycle = []
    for frame in range(CYCLE):
        turn = 2 * np.pi * frame / CYCLE
        down, right = int(240 + 120 * np.cos(turn + camera)), int(320 + 200 * np.sin(turn + camera))
        image = room.copy()
        image[down - 40 : down + 40, right - 60 : right + 60] = (200, 80 + 30 * camera, 60)
        image[down // 2 : down // 2 + 30, right : right + 90] = (60, 60, 200)
        cycle.append(np.clip(image + rng.normal(0, 3, (HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8))
    while True:
        yield from cycle


def import_episode(folder: Path, num_frames: int, codec: Any) -> None:
    """Write one episode as a LeRobot dataset and import it; ``dataset`` in the folder says where."""
    import itertools  # noqa: PLC0415

    from robolift.data.lerobot_writer import FeatureSpec, LeRobotWriter  # noqa: PLC0415
    from robolift.stages.stage import execute  # noqa: PLC0415

    features = {
        "observation.state": FeatureSpec("float32", (14,)),
        "action": FeatureSpec("float32", (14,)),
        PROGRESS: FeatureSpec("float32"),
    }
    cameras = dict.fromkeys(CAMERAS, (HEIGHT, WIDTH))
    writer = LeRobotWriter(
        folder / "source", fps=FPS, features=features, cameras=cameras, robot_type="arx", codec=codec
    )
    writer.add_episode(
        {
            "observation.state": np.zeros((num_frames, 14), np.float32),
            "action": np.zeros((num_frames, 14), np.float32),
            PROGRESS: np.linspace(0, 1, num_frames, dtype=np.float32),
        },
        videos={name: itertools.islice(scene(k), num_frames) for k, name in enumerate(CAMERAS)},
        task="fold the cloth",
    )
    writer.finish()
    rules = {"dataset_uri": str(folder / "source"), "control_mode": "demo"}
    found = execute("import_dataset", rules, {}, str(folder / "runs"))
    (folder / "dataset").write_text(found.uri)


def opened(folder: Path) -> Any:
    """Return the imported dataset."""
    from robolift import manifest  # noqa: PLC0415
    from robolift.data.dataset import Dataset  # noqa: PLC0415

    return Dataset.open(manifest.load((folder / "dataset").read_text()))


def videos(folder: Path) -> list[Path]:
    """Return the video of each camera."""
    return sorted((folder / "source").rglob("*.mp4"))


def prepare_h264(folder: Path) -> None:
    """Write frames with far keyframes: four batches of the public method."""
    from robolift.data.video import H264  # noqa: PLC0415

    import_episode(folder, FRAMES, replace(H264, options=LONG_GROUPS))


def prepare_av1(folder: Path) -> None:
    """Write 200 frames as LeRobot does."""
    from robolift.data.video import AV1  # noqa: PLC0415

    import_episode(folder, 200, AV1)


def rate(num_frames: int, started: float) -> dict[str, float]:
    """Return labelled frames per CPU-second of this process since ``started``."""
    return {RATE: num_frames / (time.process_time() - started)}


def batches(folder: Path, workers: int = 0) -> dict[str, float]:
    """Make the batches that a model would be given."""
    from robolift.data.decoding import Wanted  # noqa: PLC0415
    from robolift.value_model.predict import images_of  # noqa: PLC0415

    dataset = opened(folder)
    dataset.reader(0)
    wanted = Wanted(cameras=CAMERAS, size=(SIDE, SIDE), padded=True, episodes=range(1), batch_size=BATCH)
    started = cpu_s()
    with images_of(dataset, wanted, workers) as images:
        for _ in images:
            pass
    return {RATE: dataset.num_frames / (cpu_s() - started)}


def public_method(folder: Path) -> dict[str, float]:
    """Make images as the public predictor does: its sizes and type, its threads, its batches, one of them ahead."""
    import cv2  # noqa: PLC0415
    import torch  # noqa: PLC0415

    def load(path: Path) -> list[np.ndarray]:
        capture, frames = cv2.VideoCapture(str(path)), []
        while (read := capture.read())[0]:
            frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
        return frames

    def resized(image: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(image).float() / 255.0
        pixels = (pixels * 2.0 - 1.0)[None].permute(0, 3, 1, 2)
        inner = HEIGHT * SIDE // WIDTH
        small = torch.nn.functional.interpolate(pixels, size=(inner, SIDE), mode="bilinear", align_corners=False)
        edge = (SIDE - inner) // 2
        return torch.nn.functional.pad(small.clamp(-1, 1), (0, 0, edge, SIDE - inner - edge), value=-1)[0]

    started = time.process_time()
    with ThreadPoolExecutor(PUBLIC_THREADS) as pool, ThreadPoolExecutor(1) as ahead:
        episode = list(zip(*pool.map(load, videos(folder)), strict=True))
        last = len(episode) - 1

        def prepare(first: int) -> torch.Tensor:
            frames = range(first, min(first + PUBLIC_BATCH, last + 1))
            shown = [*frames, *(min(frame + LOOKAHEAD, last) for frame in frames)]
            return torch.stack(list(pool.map(resized, (image for frame in shown for image in episode[frame]))))

        coming = ahead.submit(prepare, 0)
        for first in range(PUBLIC_BATCH, last + 1, PUBLIC_BATCH):
            ready, coming = coming, ahead.submit(prepare, first)
            ready.result()
        coming.result()
    return rate(last + 1, started)


def decode(folder: Path) -> dict[str, float]:
    """Decode every frame and look at none."""
    import av  # noqa: PLC0415

    started = time.process_time()
    count = 0
    for path in videos(folder):
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            count += sum(1 for _ in container.decode(video=0))
    return rate(count // len(CAMERAS), started)


def prepare_memory(folder: Path) -> None:
    """Import a short and a long episode, and train one step of a model on the short one."""
    from robolift.data.video import H264  # noqa: PLC0415
    from robolift.stages.stage import execute  # noqa: PLC0415

    for name, length in (("short", SHORT), ("long", LONG)):
        import_episode(folder / name, length, replace(H264, options=QUICK))
    settings = {"head": "relative", "steps": 1, "val_fraction": 0, "batch_size": 2, "warmup_steps": 0}
    inputs = {"dataset": (folder / "short/dataset").read_text()}
    (folder / "checkpoint").write_text(execute("train_value", settings, inputs, str(folder / "runs")).uri)


def predict_short(folder: Path) -> None:
    """Predict the short episode."""
    _predict(folder, "short")


def predict_long(folder: Path) -> None:
    """Predict the long episode."""
    _predict(folder, "long")


class WithoutPandas(MetaPathFinder):
    """Hides pandas, which Arrow imports where it is installed: for other benchmarks it is, in no image of ours."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Find nothing.

        Raises:
            ModuleNotFoundError: If pandas is asked for.
        """
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def _predict(folder: Path, name: str) -> None:
    from robolift.stages.stage import execute  # noqa: PLC0415

    sys.meta_path.insert(0, WithoutPandas())
    inputs = {"dataset": (folder / name / "dataset").read_text(), "checkpoint": (folder / "checkpoint").read_text()}
    with tempfile.TemporaryDirectory() as root:
        execute("predict_values", {}, inputs, root)


WORKERS = Way("ours, 3 workers", partial(batches, workers=3))
RATES = tuple(Goal(f"labelled frames per CPU-second of {way}", (way,), RATE) for way in ("ours", WORKERS.name))
BENCHMARKS = (
    Benchmark(
        name="prediction_h264",
        prepare=prepare_h264,
        ways=(Way("ours", batches), Way("public method", public_method), Way("decode", decode), WORKERS),
        goals=(
            Goal("labelled frames per CPU-second of ours / public method", ("ours", "public method"), RATE, at_least=8),
            Goal("labelled frames per CPU-second of ours / decode", ("ours", "decode"), RATE, at_least=0.5),
            *RATES,
        ),
    ),
    Benchmark(
        name="prediction_av1",
        prepare=prepare_av1,
        ways=(Way("ours", batches), Way("decode", decode), WORKERS),
        goals=(
            Goal("labelled frames per CPU-second of ours / decode", ("ours", "decode"), RATE, at_least=0.7),
            *RATES,
        ),
    ),
    Benchmark(
        name="prediction_memory",
        prepare=prepare_memory,
        ways=(Way("500 frames", predict_short), Way("2000 frames", predict_long)),
        goals=(
            Goal("peak memory at 2,000 frames / at 500", ("2000 frames", "500 frames"), "peak_mb", at_most=1.05),
            Goal("peak memory at 2,000 frames, MB", ("2000 frames",), "peak_mb", at_most=400),
        ),
    ),
)
