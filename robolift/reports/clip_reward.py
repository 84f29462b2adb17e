"""What a page on a clip reward rests on: clips, their scores, and the outputs that these were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.reports.lineage import check_origin
from robolift.schema import read_parquet

Floats = NDArray[np.float64]

CLIP_TEXTS = ("clip_id", "source", "video_id", "kind", "action", "license", "file")
CLIP_NUMBERS = ("num_frames", "fps")


@dataclass(frozen=True, kw_only=True)
class ClipSources:
    """The outputs of one reward: ``scores`` are what would be used, the others say what they are worth."""

    clips: Manifest
    scores: Manifest
    validation: Manifest | None
    model: Manifest | None
    preferences: Manifest | None
    features: Manifest | None
    pairs: Manifest | None


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip.

    Attributes:
        file: Its video, relative to the ClipSet.
        score: What the reward gives it; clips that serve as reference have mean 0 and standard deviation 1.
        spread: How far the members of the ensemble differ, None without.
        features: What was measured on it, by name; empty where no features were given.
    """

    clip_id: str
    source: str
    video_id: str
    kind: str
    action: str | None
    license: str
    file: str
    num_frames: int
    fps: float
    score: float
    spread: float | None
    features: Mapping[str, float | None]


def load(sources: ClipSources) -> tuple[Clip, ...]:
    """Read the clips with their scores and features, the best first; of equals the first by name.

    Raises:
        DataError: If the outputs were not made from one another, or a table is not as its stage writes it.
    """
    _check_origins(sources)
    clips = _rows(sources.clips, "clips.parquet", (*CLIP_TEXTS, *CLIP_NUMBERS))
    scores = _rows(sources.scores, "scores.parquet", ("clip_id", "score", "score_std"))
    features = _features(sources.features) if sources.features else {}
    if set(clips) != set(scores):
        odd = min(set(clips) ^ set(scores))
        raise DataError(
            f"clips and scores differ in {len(set(clips) ^ set(scores))} clips, such as {odd}",
            where=sources.scores.uri,
            expected=f"a score for each of {len(clips)} clips",
            mend="give the clips that were scored",
        )
    found = [
        Clip(
            **{name: row[name] for name in (*CLIP_TEXTS, *CLIP_NUMBERS)},
            score=scores[clip_id]["score"],
            spread=scores[clip_id]["score_std"],
            features=features.get(clip_id, {}),
        )
        for clip_id, row in clips.items()
    ]
    return tuple(sorted(found, key=lambda clip: (-clip.score, clip.clip_id)))


def _check_origins(sources: ClipSources) -> None:
    check_origin(sources.scores, "model", sources.model)
    check_origin(sources.scores, "features", sources.features)
    if sources.features:
        check_origin(sources.features, "clips", sources.clips)
    if sources.validation:
        check_origin(sources.validation, "scores", sources.scores)
    if sources.model:
        check_origin(sources.model, "clips", sources.clips)
        check_origin(sources.model, "preferences", sources.preferences)
    if sources.preferences:
        check_origin(sources.preferences, "pairs", sources.pairs)
        check_origin(sources.preferences, "clips", sources.clips)


def _rows(made: Manifest, file: str, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    uri = made.file(file)
    table = read_parquet(uri)
    missing = [name for name in names if name not in table.column_names]
    if missing or not table.num_rows:
        raise DataError(
            f"not a table of {made.stage}: {'no ' + ', '.join(missing) if missing else 'no row'}",
            where=uri,
            expected=f"rows with {', '.join(names)}",
            mend=f"run {made.stage} again",
        )
    return {row["clip_id"]: row for row in table.select(list(names)).to_pylist()}


def _features(made: Manifest) -> dict[str, dict[str, float | None]]:
    table = read_parquet(made.file("features.parquet"))
    scalars = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    rows = table.select(["clip_id", *scalars]).to_pylist()
    return {row["clip_id"]: {name: row[name] for name in scalars} for row in rows}
