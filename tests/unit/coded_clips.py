"""Clips whose every picture says which clip and frame it is, and pairs of them, published as finished outputs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from coded_video import coded_frames

from robolift.data.video import encode_video
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind, write_table
from robolift.storage import digest_of

FPS = 15.0
SIZE = (32, 64)
NUM_FRAMES = 12
CLIPS = ("epic_07_00000030", "epic_07_00000090", "ego_3_00000000", "ego_3_00000120")
PAIRS = (("p0", 0, 1), ("p1", 2, 0), ("p2", 3, 2), ("p3", 1, 0))
"""The last is the first once more, sides exchanged."""


def code_of(clip: int) -> int:
    return 37 * (clip + 1)


def publish(
    root: str,
    stage: str,
    kind: Kind,
    files: Mapping[str, pa.Table | Path | str | Mapping[str, Any]],
    inputs: Mapping[str, list[Manifest]] | None = None,
) -> Manifest:
    """Publish tables, files, texts and JSON documents as one finished output; its name depends on all but the files."""
    said = {name: str(content) for name, content in files.items() if not isinstance(content, Path)}
    plan = Plan(
        stage=stage,
        kind=kind,
        root=root,
        config={},
        inputs=dict(inputs or {}),
        code="0" * 16,
        digest=digest_of({"stage": stage, "files": said}),
    )
    output = Output(plan)
    for name, content in files.items():
        path = output.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            write_table(path, content)
        elif isinstance(content, Path):
            shutil.copy(content, path)
        elif isinstance(content, str):
            path.write_text(content)
        else:
            output.write_json(name, content)
    return output.publish({"files": len(files)})


def clips_table(names: Sequence[str] = CLIPS, fps: Sequence[float] | None = None) -> pa.Table:
    """Return the columns that the labelling page needs, and one that it must not show."""
    return pa.table(
        {
            "clip_id": list(names),
            "video_id": [name.rpartition("_")[0] for name in names],
            "kind": ["annotated", "random"] * (len(names) // 2),
            "narration": ["secret narration"] * len(names),
            "fps": list(fps or [FPS] * len(names)),
            "num_frames": pa.array([NUM_FRAMES] * len(names), pa.int32()),
            "file": [f"clips/{name}.mp4" for name in names],
        }
    )


def publish_clips(root: Path, *, fps: Sequence[float] | None = None) -> Manifest:
    files: dict[str, Any] = {"clips.parquet": clips_table(fps=fps)}
    for number, name in enumerate(CLIPS):
        path = root / "drawn" / f"{name}.mp4"
        encode_video(path, coded_frames(code_of(number), NUM_FRAMES, SIZE), fps=FPS, size=SIZE)
        files[f"clips/{name}.mp4"] = path
    return publish(str(root / "runs"), "extract_clips", Kind.CLIPS, files)


def pairs_csv(pairs: Sequence[tuple[str, int, int]] = PAIRS) -> str:
    rows = [f"{pair_id},{CLIPS[a]},{CLIPS[b]},random" for pair_id, a, b in pairs]
    return "\n".join(["pair_id,clip_a_id,clip_b_id,reason", *rows, ""])


def publish_pairs(root: Path, clips: Manifest) -> Manifest:
    return publish(str(root / "runs"), "propose_pairs", Kind.PAIRS, {"pairs.csv": pairs_csv()}, {"clips": [clips]})
