"""How often a frame is encoded and resized while two-frame values are predicted, counted.

Images that are encoded and pictures that are resized, for one labelled frame of three cameras. The public predictor
(kai0's evaluator) encodes frames n and n + 50 for f(n, m) and frames 0 and n for f(0, n), and resizes each frame as n
and as n + 50: its pattern is run here with our model. Its values are checked to be ours to 1e-5 before anything is
counted. The frames are two whole batches: places that the last batch of a shard leaves empty are encoded too, and
would count.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_prediction import BATCH, LOOKAHEAD, QUICK, import_episode, opened, videos
from benchmarks.harness import Benchmark, Goal, Way

COUNTED = 2 * BATCH


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


BENCHMARK = Benchmark(
    name="encodes",
    prepare=prepare_counted,
    ways=(Way("ours", counted_ours), Way("public pattern", counted_public)),
    goals=(*_images("ours", 3, 3), *_images("public pattern", 12, 6)),
)
