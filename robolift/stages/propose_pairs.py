"""Choose pairs of clips for people to compare: at random, again to measure consistency, or where a model is unsure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from robolift import schema, storage
from robolift.clips.inputs import Clips, Features
from robolift.clips.pairs import page_csv, pair_ids, propose
from robolift.errors import UsageError
from robolift.manifest import Output
from robolift.reward_model.checkpoint import load
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "clips": Input(kind=Kind.CLIPS),
    "features": Input(kind=Kind.FEATURES, optional=True),
    "model": Input(kind=Kind.REWARD_MODEL, optional=True),
}
OUTPUT = Kind.PAIRS


class Config(StageConfig):
    """How many pairs, and of which kind."""

    num_pairs: int = Field(default=300, ge=1)
    """Pairs, repeats among them. Which of them several people see is the labelling page's matter (`--overlap`)."""
    method: Literal["random", "active"] = "random"
    """`active`: those whose order the ensemble of a model disagrees about most; needs the inputs model and features."""
    repeat_fraction: float = Field(default=0.05, ge=0, le=0.5)
    """Share of pairs that stand twice, sides exchanged, to measure how consistent people are."""
    within_kind: bool = False
    """Whether both clips of a pair are of one kind (annotated, random)."""
    seed: int = Field(default=0, ge=0)
    """Decides pairs and sides."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``pairs.parquet`` and ``pairs.csv``, which the labelling page reads."""
    scores = _member_scores(inputs) if config.method == "active" else None
    clips = Clips.open(inputs.one("clips"))
    if scores is not None:
        Features.open(inputs.one("features")).check_clips(clips)
    pairs = propose(
        clips.kind,
        config.num_pairs,
        repeat_fraction=config.repeat_fraction,
        seed=config.seed,
        within_kind=config.within_kind,
        member_scores=scores,
    )
    columns = {
        "pair_id": pair_ids(len(pairs)),
        "clip_a_id": [clips.clip_id[pair.a] for pair in pairs],
        "clip_b_id": [clips.clip_id[pair.b] for pair in pairs],
        "reason": [pair.reason for pair in pairs],
    }
    schema.write_table(output.path / "pairs.parquet", pa.table(columns))
    storage.write_bytes(str(output.path / "pairs.csv"), page_csv(pairs, clips))
    return {"pairs": len(pairs), "repeats": columns["reason"].count("repeat"), "clips": len(clips.clip_id)}


def _member_scores(inputs: Inputs) -> np.ndarray:
    """Return the scores of the ensemble's members, (members, clips)."""
    model, features = inputs.get_one("model"), inputs.get_one("features")
    if model is None or features is None:
        raise UsageError("propose_pairs with method active needs the inputs model and features")
    reward, found = load(model.uri), Features.open(features)
    return reward.member_scores(found.columns(reward.design.fields), found.embedding, found.origin)
