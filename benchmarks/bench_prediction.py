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

*prediction_images*: images that are encoded and pictures that are resized, counted, for one labelled frame of a
two-frame model. The public pattern encodes frames n and n + 50 for f(n, m) and frames 0 and n for f(0, n), and resizes
each frame as n and as n + 50. Its values are checked to be ours to 1e-5 before anything is counted. The frames are two
whole batches: places that the last batch of a shard leaves empty are encoded too, and would count.
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
FRAMES, SHORT, LONG, COUNTED = 320, 500, 2000, 128
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
    """Write frames with far keyframes: two batches of the public method."""
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


def prepare_counted(folder: Path) -> None:
    """Write two batches of frames, and check that both patterns give the same values."""
    from robolift.data.video import H264  # noqa: PLC0415

    import_episode(folder, COUNTED, replace(H264, options=QUICK))
    ours, public = _count_ours(folder)[1], _count_public(folder)[1]
    worst = max(float(np.abs(ours[name].astype(float) - public[name]).max()) for name in public)
    if worst > 1e-5:
        raise SystemExit(f"the values differ by {worst}")


def counted_ours(folder: Path) -> dict[str, float]:
    """Count what predict() does."""
    return _count_ours(folder)[0]


def counted_public(folder: Path) -> dict[str, float]:
    """Count what the public pattern does."""
    return _count_public(folder)[0]


def _model(dataset: Any) -> tuple[Any, Any, dict[str, float]]:
    """Return a two-frame model, what it says of itself, and the counter of the images that it encodes."""
    from robolift.value_model import train  # noqa: PLC0415
    from robolift.value_model.recipe import Recipe  # noqa: PLC0415

    recipe = Recipe(head="relative", val_fraction=0)
    checkpoint = train.describe(recipe, dataset, train.prepare(recipe, dataset, None))
    model = train.initial_model(checkpoint, seed=1).eval()
    count = {"encodes": 0.0, "resizes": 0.0}

    def seen(_: Any, given: tuple[Any, ...], __: Any) -> None:
        count["encodes"] += len(given[0]) / COUNTED

    for encoder in model.encoder:
        encoder.register_forward_hook(seen)
    return model, checkpoint, count


def _count_ours(folder: Path) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    from robolift.data import video_decoder  # noqa: PLC0415
    from robolift.value_model.predict import predict  # noqa: PLC0415

    dataset = opened(folder)
    model, checkpoint, count = _model(dataset)

    class Counting:
        def __init__(self) -> None:
            self._reformatter = plain()

        def reformat(self, *args: Any, **options: Any) -> Any:
            count["resizes"] += 1 / COUNTED
            return self._reformatter.reformat(*args, **options)

    plain = video_decoder.VideoReformatter
    video_decoder.VideoReformatter = Counting  # type: ignore[misc, assignment]
    try:
        found = predict(
            model,
            checkpoint,
            dataset,
            episodes=range(1),
            batch_size=BATCH,
            lookahead=LOOKAHEAD,
            folder=folder,
            save_features=False,
        )
    finally:
        video_decoder.VideoReformatter = plain  # type: ignore[misc]
    return {name: round(number, 9) for name, number in count.items()}, found


def _count_public(folder: Path) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    import av  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from av.video.reformatter import Interpolation, VideoReformatter  # noqa: PLC0415

    dataset = opened(folder)
    model, checkpoint, count = _model(dataset)
    episode = []
    for path in videos(folder):
        with av.open(str(path)) as container:
            episode.append(list(container.decode(video=0)))
    scaler, (height, width) = VideoReformatter(), checkpoint.image_size

    def resized(frame: int) -> torch.Tensor:
        images = []
        for frames in episode:
            count["resizes"] += 1 / COUNTED
            image = scaler.reformat(frames[frame], width, height, "rgb24", interpolation=Interpolation.AREA, threads=1)
            images.append(image.to_ndarray().copy())
        return torch.from_numpy(np.stack(images))

    state = torch.from_numpy(checkpoint.state_norm(dataset.column("observation.state")))
    last = COUNTED - 1
    later = np.minimum(np.arange(COUNTED) + LOOKAHEAD, last)
    zero = resized(0)
    count["resizes"] = 0.0
    relative, value = np.zeros(COUNTED), np.zeros(COUNTED)
    with torch.inference_mode():

        def judge(a: int, b: int, images: list[torch.Tensor]) -> float:
            features = torch.cat([model.encode(image[None]) for image in images])
            logits = model.value_logits(features[None], state[[a, b]][None], torch.zeros(1, dtype=torch.int64))
            return float(model.head.read(logits)[0])

        for frame, future in enumerate(later.tolist()):
            base, ahead = resized(frame), resized(future)
            gap = future - frame
            made = judge(frame, future, [base, ahead]) * LOOKAHEAD / max(gap, 1)
            relative[frame] = np.clip(made, -1, 1) if gap else 0
            value[frame] = judge(0, frame, [zero, base]) if frame else judge(0, 0, [zero, base]) * 0
    found = {"relative_advantage": relative, "value": value}
    return {name: round(number, 9) for name, number in count.items()}, found


def _images(way: str, encodes: float, resizes: float) -> tuple[Goal, ...]:
    return tuple(
        Goal(f"{what} per labelled frame, {way}", over=(way,), of=what, at_least=number, at_most=number)
        for what, number in (("encodes", encodes), ("resizes", resizes))
    )


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
    Benchmark(
        name="prediction_images",
        prepare=prepare_counted,
        ways=(Way("ours", counted_ours), Way("public pattern", counted_public)),
        goals=(*_images("ours", 3, 3), *_images("public pattern", 12, 6)),
    ),
)
