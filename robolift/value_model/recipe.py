"""Every setting of a value model's training, with its one default."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from robolift.value_model.named_recipes import RECIPES
from robolift.value_model.presets import PRESETS, TokenModelConfig, recipe_defaults

RUNTIME = frozenset({"save_every", "save_in_background", "loader_workers"})
"""Settings that change how the work is done and never its result."""


class Recipe(BaseModel):
    """How a value model is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
    """Size of the model. `tiny` trains on a laptop. `siglip_gemma` is RECAP's (SigLIP So400m/14, Gemma 3 270M), `pi05`
    the PaliGemma 2B that kai0's estimator starts from; both read images and task alone, and replace the defaults of
    `image_size`, `state_keys`, `learning_rate`, `final_learning_rate_fraction`, `weight_decay`, `value_weight` and
    `action_weight` by RECAP's, that of `eval_frames` by 2048. `siglip_gemma_dummy` and `pi05_dummy` are the same code
    in miniature, for tests."""
    weights: str = ""
    """Address of the towers' first weights, a safetensors file or a folder of them: for `pi05` openpi's PyTorch weights
    of pi05_base, for `siglip_gemma` SigLIP's and Gemma 3's as transformers saves them. Empty: random weights."""
    weights_sha256: str = ""
    """SHA-256 that the weights must have: of a file its own, of a folder that of its files' names and contents."""
    tokenizer: str = ""
    """Address of the SentencePiece model with which the towers' weights were trained; `tiny` needs none."""
    tokenizer_sha256: str = ""
    """SHA-256 that the tokenizer's file must have."""
    long_prompt: Literal["refuse", "shorten"] = "refuse"
    """What becomes of a task whose prompt has more tokens than the preset reads: an error, or it loses words."""
    freeze: Literal["none", "vision", "backbones"] = "none"
    """Towers whose weights stay as they are: none, the one of images, or both, so that only the projector between them,
    the value token and the head are trained."""
    checkpoint_activations: bool = False
    """Whether a layer's inner numbers are computed again for the gradient rather than kept: a third more work, far less
    memory."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """How processes share the work: each with all weights, or with a part of weights, gradients and moments (FSDP2),
    which takes `num_processes` above 1."""
    cameras: list[str] | None = None
    """Cameras to look through, in this order; all of the dataset's by default, an empty list for state alone."""
    image_size: tuple[int, int] = (96, 96)
    """Height and width in pixels that frames are scaled to while they are decoded: stretched, but for preset `pi05`,
    which sees them as openpi does, in their own shape with black around."""
    state_keys: list[str] = ["observation.state"]
    """State columns, joined in this order."""
    steps: int = Field(1500, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(48, ge=1)
    """Frames of one step over all processes."""
    shuffle_block: int = Field(0, ge=0)
    """Neighbouring frames that an epoch takes together, its blocks in random order; 0 draws every frame by itself from
    all of them. Blocks keep the number of videos or shards small that are read at a time."""
    shuffle_window: int = Field(64, ge=1)
    """Blocks whose frames are mixed at a time; without effect where `shuffle_block` is 0."""
    loader_workers: int = Field(0, ge=0)
    """Processes that make the batches of coming steps, for each training process; 0: a thread of it makes the next one,
    which is enough for packed frames and a model that takes longer than they do. The result is the same."""
    accumulate: int = Field(1, ge=1)
    """Parts that each process's frames of a step are computed in, one after the other: less memory, the same step."""
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
    eval_frames: int = Field(0, ge=0)
    """Held-out frames that are measured, spread evenly over the held-out episodes and the same each time; 0 for all."""
    save_every: int = Field(250, ge=1)
    """Steps between two resumable states; a killed run loses at most these."""
    save_in_background: bool = True
    """Whether states are written while training goes on, from a copy of weights, averages and moments in the host's
    memory (16 bytes a trained weight over all processes). `false` saves that memory; training then waits for each
    write."""
    keep_every: int = Field(0, ge=0)
    """Steps between two states that stay in the output as checkpoints/STEP: weights, optimizer, curves; 0 for none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of convolutions and towers while training, and of towers on held-out frames; weights, moments, heads
    and losses are float32 in any case."""
    compile: bool = False
    """Whether the network is compiled for training (`torch.compile`), which takes a minute or two and a compiler, C on
    a GPU and C++ on a CPU: for a GPU, since on a CPU it saves next to nothing. Last bits differ; so they do by the
    next."""
    fused_optimizer: bool = False
    """Whether AdamW is one kernel: a fifth of its time, and no scratch memory of a weight's size."""
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
        if not isinstance(given, dict):
            return given
        name = given.get("recipe")
        if name and name not in RECIPES:
            raise ValueError(f"no recipe {name!r}; there are: {', '.join(RECIPES)}")
        named = {**RECIPES[name], **given} if name else given
        return {**recipe_defaults(str(named.get("preset"))), **named}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch_size % (self.num_processes * self.accumulate):
            parts = f" in accumulate {self.accumulate} parts" if self.accumulate > 1 else ""
            raise ValueError(
                f"batch_size {self.batch_size} can't be shared by num_processes {self.num_processes}{parts}"
            )
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below steps {self.steps}")
        if self.compile and self.sharding == "fsdp":
            raise ValueError(
                "compile is for sharding ddp: weights that are put together layer by layer aren't compiled"
            )
        if self.sharding == "fsdp" and self.num_processes == 1:
            raise ValueError("sharding fsdp needs num_processes above 1: one process has nobody to share weights with")
        if self.select == "best" and self.val_fraction == 0:
            raise ValueError("select: best needs a val_fraction above 0")
        if not self.state_keys and self.cameras == []:
            raise ValueError("the model needs a camera or a state key")
        return self

    @model_validator(mode="after")
    def _fits_preset(self) -> Self:
        config = PRESETS[self.preset]() if self.preset in PRESETS else None
        if isinstance(config, TokenModelConfig):
            side = config.vision.image_px
            misfits = {
                f"image_size ({side}, {side})": self.image_size != (side, side),
                "state_keys [], since it reads no state": bool(self.state_keys),
                "action_weight 0, since it guesses no actions": self.action_weight > 0,
                "a camera": self.cameras == [],
                "a tokenizer, the address of a SentencePiece model": not self.tokenizer,
            }
        else:
            towers = {"weights", "weights_sha256", "tokenizer", "tokenizer_sha256", "checkpoint_activations"}
            misfits = {f"no {name}, since it has no towers": bool(getattr(self, name)) for name in sorted(towers)}
            misfits["freeze none, since it has no towers"] = self.freeze != "none"
            misfits["sharding ddp, since it is small"] = self.sharding != "ddp"
        wanted = [what for what, misfit in misfits.items() if misfit]
        if config is not None and wanted:
            raise ValueError(f"preset {self.preset} needs {'; '.join(wanted)}")
        return self
