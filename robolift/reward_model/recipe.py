"""How a reward model is built and trained: everything that can be set."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from robolift.reward_model.comparisons import Ties


class Recipe(BaseModel):
    """The model, what it sees, and how it is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: Literal["linear", "mlp"] = "linear"
    """`linear` on standardized features and the embedding's principal components: the better one below a thousand
    pairs. `mlp`: trunk 256-128 (ReLU, LayerNorm, dropout 0.1) and human head 64-1 on scalars and the whole
    embedding."""
    fields: tuple[str, ...] = ("blur", "exposure", "motion_var", "hands", "jerk")
    """Scalar features it sees, besides the embedding."""
    drop: tuple[str, ...] = ()
    """Features left out for an ablation: names of fields, `embedding`, `hands` (hands and hand_motion) or `motion`
    (motion_mean, motion_var, jerk, shake)."""
    pca: int = Field(default=16, ge=0)
    """Principal components of the embedding that `linear` sees; 0: none."""
    beta: float = Field(default=1.0, gt=0)
    """P(A > B) = sigmoid(beta (R_A - R_B))."""
    ties: Ties = "soft"
    """A tie is the target 0.5, left out, or has a probability of its own (Davidson 1970)."""
    l2: float = Field(default=0.0, ge=0)
    """Penalty of the squared weights of `linear`; 0: chosen by cross-validation inside the training pairs."""
    ensemble: int = Field(default=5, ge=1)
    """Members, each on a bootstrap sample of the pairs; their spread is the score's uncertainty."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of AdamW (`mlp`)."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Of AdamW (`mlp`)."""
    batch_size: int = Field(default=32, ge=1)
    """Pairs a step (`mlp`)."""
    epochs: int = Field(default=100, ge=1)
    """Most epochs (`mlp`)."""
    patience: int = Field(default=20, ge=1)
    """Epochs without a better loss (by 0.001) on the pairs that the member doesn't learn from after which training
    stops; the rate halves after each 10 (`mlp`). These are the pairs outside its bootstrap sample, or a fifth of all
    where `ensemble` is 1."""
    seed: int = Field(default=0, ge=0)
    """Decides the split, the bootstrap and the start."""
