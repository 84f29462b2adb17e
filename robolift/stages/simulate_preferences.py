"""Let simulated annotators compare clips of simulated videos, through the door that people use: events of the page."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from robolift import schema
from robolift.errors import UsageError
from robolift.manifest import Manifest, Output
from robolift.schema import Kind
from robolift.sim.annotators import SimulatedAnnotator, answer_pairs, clip_utilities
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "pairs": Input(kind=Kind.PAIRS),
    "clips": Input(kind=Kind.CLIPS),
}
OUTPUT = Kind.RECORDING


class Config(StageConfig):
    """How many annotators, and how sure they are."""

    num_annotators: int = Field(default=1, ge=1, le=99)
    """Annotators; each answers every pair."""
    beta: float = Field(default=4.0, gt=0)
    """P(A > B) = sigmoid(beta (U_A - U_B)), U the planted utility; smaller: more noise."""
    tie_band: float = Field(default=0.0, ge=0)
    """They say tie where the noisy difference, in units of the logistic noise, is smaller than this."""
    lapse: float = Field(default=0.0, ge=0, le=1)
    """Share of pairs that they answer without looking."""
    seed: int = Field(default=0, ge=0)
    """Decides the noise."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``events/<annotator>/*.jsonl``, the folder that ``import_preferences`` takes as ``preferences_uri``."""
    clips, pairs = inputs.one("clips"), inputs.one("pairs")
    truth = schema.read_parquet(_recording(clips).file("truth.parquet"))
    utilities = clip_utilities(truth, schema.read_parquet(clips.file("clips.parquet")))
    annotators = [
        SimulatedAnnotator(
            name=f"simulated{number:02d}",
            beta=config.beta,
            tie_band=config.tie_band,
            lapse=config.lapse,
            seed=config.seed,
        )
        for number in range(1, config.num_annotators + 1)
    ]
    proposed = schema.read_parquet(pairs.file("pairs.parquet"))
    answers = answer_pairs(proposed, utilities, annotators, labels_uri=str(output.path))
    return {"answers": answers, "annotators": len(annotators)}


def _recording(clips: Manifest) -> Manifest:
    """Return the simulated videos that clips were cut from.

    Raises:
        UsageError: If they were cut from others, whose quality nobody planted.
    """
    videos = clips.parent("videos")
    if not videos.inputs.get("recording"):
        raise UsageError(
            f"simulate_preferences got clips of {videos.config['videos_uri']}; simulated annotators know only the "
            "planted quality of simulated videos, so let people compare these"
        )
    return videos.parent("recording")
