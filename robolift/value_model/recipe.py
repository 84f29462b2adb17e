"""Every setting of a value model's training, with its one default."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from robolift.value_model.named_recipes import RECIPES


class Recipe(BaseModel):
    """How a value model is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    recipe: str = ""
    """Named settings (kai0): `ADVANTAGE_TORCH_KAI0_TASK` or `ADVANTAGE_TORCH_PI06_TASK`, TASK being `FLATTEN_FOLD`,
    `TEE_SHIRT_SORT` or `HANG_CLOTH`. They replace the defaults below; what is set beside the name wins over them."""
    head: Literal["distribution", "relative", "single"] = "distribution"
    """What is learned. `distribution`: the returns of `targets` as 201 atoms. `relative`: the progress made between two
    frames of an episode (kai0's KAI0). `single`: the progress of one frame (kai0's PI06). The last two take no targets.
    """
    progress_column: str = "stage_progress_gt"
    """Column with the fraction of the task done, in [0, 1] in every frame, which `relative` and `single` learn."""
    preset: str = "tiny"
    """Size of the model, a key of robolift.value_model.presets.PRESETS."""
    cameras: list[str] | None = None
    """Cameras to look through, in this order; all of the dataset's by default, an empty list for state alone."""
    image_size: tuple[int, int] = (96, 96)
    """Height and width in pixels that frames are scaled to while they are decoded."""
    state_keys: list[str] = ["observation.state"]
    """State columns, joined in this order."""
    steps: int = Field(1500, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(48, ge=1)
    """Frames of one step over all processes."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak of the learning rate."""
    warmup_steps: int = Field(100, ge=0)
    """Steps in which the learning rate rises to its peak; a cosine follows to the end of the run."""
    final_learning_rate_fraction: float = Field(0.02, ge=0, le=1)
    """Learning rate of the last step as a share of the peak."""
    weight_decay: float = Field(1e-4, ge=0)
    """AdamW's weight decay, on matrices and kernels."""
    gradient_clip: float = Field(1.0, gt=0)
    """Largest global norm of the gradient."""
    ema_decay: float = Field(0.99, ge=0, lt=1)
    """Decay of the moving average of weights, which is what the checkpoint holds."""
    value_weight: float = Field(0.3, gt=0)
    """Weight of the value's cross-entropy, or of the square error of progress, in the loss."""
    action_weight: float = Field(1.0, ge=0)
    """Weight of the auxiliary action error, which shapes the image features; without cameras there is no such head."""
    action_horizon: int = Field(6, ge=1)
    """Actions that the auxiliary head predicts, in frames from the current one; of a pair, the second frame."""
    input_noise: float = Field(0.05, ge=0)
    """Standard deviation of the noise on the state, in standard deviations of each of its dimensions."""
    shift_px: int = Field(4, ge=0)
    """Largest random shift of a training image, in pixels; the border is repeated."""
    brightness: float = Field(0.15, ge=0, lt=1)
    """Largest relative random change of a training image's brightness."""
    val_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the episodes held out, at least one, each outcome in proportion; 0 for none."""
    select: Literal["last", "best"] = "last"
    """Weights to keep: the last, or those with the lowest held-out loss (early stopping)."""
    log_every: int = Field(50, ge=1)
    """Steps between two points of the training curve."""
    eval_every: int = Field(250, ge=1)
    """Steps between two evaluations on the held-out episodes."""
    save_every: int = Field(250, ge=1)
    """Steps between two resumable states; a killed run loses at most these."""
    keep_every: int = Field(0, ge=0)
    """Steps between two states that stay in the output as checkpoints/STEP: weights, optimizer, curves; 0 for none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the convolutions while training; weights, losses and predictions are float32 in any case."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute."""
    seed: int = Field(0, ge=0)
    """Seed of weights, order, split and augmentation."""
    threads: int = Field(1, ge=1)
    """Threads of each process; more change the order of additions, and with it the last bits."""
    num_processes: int = Field(1, ge=1)
    """Processes that share each batch. They are started on this machine, unless torchrun or a PyTorchJob has done so.

    Part of the identity: the same rows and the same noise are used for any number, but added in another order.
    """

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        name = given.get("recipe") if isinstance(given, dict) else ""
        if not name:
            return given
        if name not in RECIPES:
            raise ValueError(f"no recipe {name!r}; there are: {', '.join(RECIPES)}")
        return {**RECIPES[name], **given}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch_size % self.num_processes:
            raise ValueError(f"batch_size {self.batch_size} can't be shared by num_processes {self.num_processes}")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below steps {self.steps}")
        if self.select == "best" and self.val_fraction == 0:
            raise ValueError("select: best needs a val_fraction above 0")
        if not self.state_keys and self.cameras == []:
            raise ValueError("the model needs a camera or a state key")
        return self
