"""Learn a reward from preferences: a Bradley-Terry model on features, an ensemble of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "features": Input(kind=Kind.FEATURES),
    "preferences": Input(kind=Kind.PREFERENCES),
    "clips": Input(kind=Kind.CLIPS),
}
OUTPUT = Kind.REWARD_MODEL


class Config(StageConfig):
    """The model, what it sees, and how it is trained."""

    model: Literal["linear", "mlp"] = "linear"
    """`linear` on standardized features and the embedding's principal components: the better one below a thousand
    pairs. `mlp`: trunk 256-128 (ReLU, LayerNorm, dropout 0.1) and human head 64-1 on scalars and the whole
    embedding."""
    fields: tuple[str, ...] = ("blur", "exposure", "motion_var", "hands", "jerk")
    """Scalar features it sees, besides the embedding."""
    drop: tuple[str, ...] = ()
    """Features left out for an ablation: names of fields, `embedding`, `hands` (hands and hand_motion) or `motion`
    (motion_mean, motion_var, jerk)."""
    pca: int = Field(default=16, ge=0)
    """Principal components of the embedding that `linear` sees; 0: none."""
    beta: float = Field(default=1.0, gt=0)
    """P(A > B) = sigmoid(beta (R_A - R_B))."""
    ties: Literal["soft", "drop", "davidson"] = "soft"
    """A tie is the target 0.5, left out, or has a probability of its own (Davidson 1970)."""
    ensemble: int = Field(default=5, ge=1)
    """Members, each on a bootstrap sample of the pairs; their spread is the score's uncertainty."""
    split_by: Literal["participant", "video"] = "participant"
    """What training and held-out pairs never share."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of participants or videos held out."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of Adam (`mlp`)."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """L2 penalty; for `linear` it is chosen by cross-validation inside the training pairs where 0."""
    batch_size: int = Field(default=32, ge=1)
    """Pairs a step (`mlp`)."""
    epochs: int = Field(default=100, ge=1)
    """Most epochs (`mlp`)."""
    patience: int = Field(default=20, ge=1)
    """Epochs without a better held-out loss (by 0.001) after which training stops; the rate halves after 10 (`mlp`)."""
    seed: int = Field(default=0, ge=0)
    """Decides the split, the bootstrap and the start."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``model.safetensors``, ``model.json``, ``curves.json`` and ``tensorboard/``."""
    raise NotImplementedError
