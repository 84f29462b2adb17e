"""A trained value model as files: ``model.safetensors`` and ``checkpoint.json``, and the check that data fits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.training.checkpoint import ASSETS, CHECKPOINTS, WEIGHTS_FILE, write_tensors
from robolift.training.distributed import ALONE, World
from robolift.value_model.build import build
from robolift.value_model.data import Normalizer
from robolift.value_model.network import ModelShape, ValueNetwork
from robolift.value_model.presets import Config, TokenModelConfig, parse

CHECKPOINT_FILE = "checkpoint.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a value model was trained on and for; all a user of its weights must know.

    Attributes:
        config: Architecture.
        cameras: Cameras in the order of the encoders.
        image_size: Height and width the images must have.
        state_keys: State columns, joined in this order.
        state_dims: Dimensions of each.
        state_norm: How the joined state is normalised.
        tasks: Task texts it knows, by task index.
        action_horizon: Actions of the auxiliary head, 0 without one.
        action_norm: How actions were normalised; no dimensions without an action head.
        held_out_episodes: Episodes of the dataset that it was not trained on, sorted; None where an older checkpoint
            does not say.
        step: Optimizer steps after which the weights were taken.
        prompts: Token ids of each task's prompt, so that predicting needs no tokenizer; none without towers.
        tokenizer_sha256: Of the tokenizer that made them, empty without towers.
        weights_sha256: Of the weights that the towers began with, as robolift.data.models.model_digest says it; empty
            if those were random.
    """

    config: Config
    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    state_keys: tuple[str, ...]
    state_dims: tuple[int, ...]
    state_norm: Normalizer
    tasks: tuple[str, ...]
    action_horizon: int
    action_norm: Normalizer
    held_out_episodes: tuple[int, ...] | None
    step: int
    prompts: tuple[tuple[int, ...], ...] = ()
    tokenizer_sha256: str = ""
    weights_sha256: str = ""

    @property
    def padded(self) -> bool:
        """Whether images keep their shape and black fills the rest, instead of being stretched."""
        return self.config.padded

    @property
    def shape(self) -> ModelShape:
        """The model's shape."""
        return ModelShape(
            num_cameras=len(self.cameras),
            state_dim=sum(self.state_dims),
            tasks=self.tasks,
            action_dim=len(self.action_norm.mean),
            action_horizon=self.action_horizon,
            prompts=self.prompts,
        )

    def at_step(self, step: int) -> Checkpoint:
        """Return the same description for weights taken after ``step``."""
        return replace(self, step=step)

    def to_dict(self) -> dict[str, Any]:
        """Return the document of ``checkpoint.json``."""
        config = self.config
        return {
            "preset": config.preset,
            "cameras": list(self.cameras),
            "image_size": list(self.image_size),
            "state_keys": list(self.state_keys),
            "state_dims": list(self.state_dims),
            "state_mean": self.state_norm.mean.tolist(),
            "state_std": self.state_norm.std.tolist(),
            "tasks": list(self.tasks),
            "head": config.head,
            **(
                {"value_head": {"atoms": config.atoms, "low": config.low, "high": config.high}}
                if config.head == "distribution"
                else {}
            ),
            **(self._towers() if isinstance(config, TokenModelConfig) else {"encoder": asdict(config.encoder)}),
            "action_horizon": self.action_horizon,
            "action_mean": self.action_norm.mean.tolist(),
            "action_std": self.action_norm.std.tolist(),
            "model": asdict(config),
            "held_out_episodes": self.held_out_episodes,
            "step": self.step,
        }

    def _towers(self) -> dict[str, Any]:
        return {
            "prompts": [list(prompt) for prompt in self.prompts],
            "tokenizer_sha256": self.tokenizer_sha256,
            "weights_sha256": self.weights_sha256,
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Checkpoint:
        """Parse the document of ``checkpoint.json``; raises KeyError or TypeError if it isn't one."""
        height, width = document["image_size"]
        held_out = document.get("held_out_episodes")
        return cls(
            config=parse(document["model"]),
            cameras=tuple(document["cameras"]),
            image_size=(height, width),
            state_keys=tuple(document["state_keys"]),
            state_dims=tuple(document["state_dims"]),
            state_norm=_normalizer(document, "state"),
            tasks=tuple(document["tasks"]),
            action_horizon=document["action_horizon"],
            action_norm=_normalizer(document, "action"),
            held_out_episodes=None if held_out is None else tuple(held_out),
            step=document["step"],
            prompts=tuple(tuple(prompt) for prompt in document.get("prompts", ())),
            tokenizer_sha256=document.get("tokenizer_sha256", ""),
            weights_sha256=document.get("weights_sha256", ""),
        )

    def check_dataset(self, dataset: Dataset) -> None:
        """Refuse a dataset that the model was not trained for.

        A camera the model doesn't look through is no obstacle: it is never decoded.

        Raises:
            DataError: If a camera or a task of one is missing in the other; both are named. State columns are checked
                when they are read, by :meth:`check_state`.
        """
        for what, missing, theirs, ours in (
            ("camera", set(self.cameras) - set(dataset.cameras), dataset.cameras, self.cameras),
            ("task", set(dataset.tasks) - set(self.tasks), dataset.tasks, self.tasks),
        ):
            if missing:
                raise DataError(
                    f"the checkpoint and the dataset differ in {what} {', '.join(map(repr, sorted(missing)))}",
                    where=f"dataset has {what}s {list(theirs)}",
                    expected=f"the checkpoint's {what}s {list(ours)}",
                    mend="train a value model on this dataset",
                )

    def check_state(self, dims: tuple[int, ...]) -> None:
        """Refuse state columns of other dimensions than the model was trained on.

        Raises:
            DataError: Naming both.
        """
        if dims != self.state_dims:
            raise DataError(
                "the checkpoint and the dataset differ in the size of the state",
                where=f"dataset has {dict(zip(self.state_keys, dims, strict=True))}",
                expected=f"the checkpoint's {dict(zip(self.state_keys, self.state_dims, strict=True))}",
                mend="train a value model on this dataset",
            )


def _normalizer(document: dict[str, Any], name: str) -> Normalizer:
    return Normalizer(
        mean=np.array(document[f"{name}_mean"], dtype=np.float32),
        std=np.array(document[f"{name}_std"], dtype=np.float32),
    )


def save(folder: Path, checkpoint: Checkpoint, weights: Mapping[str, torch.Tensor], world: World = ALONE) -> None:
    """Write the two files into ``folder``, from rank 0; every process has to call it where weights are dealt out."""
    write_tensors(str(folder / WEIGHTS_FILE), weights, world)
    if world.is_main:
        storage.write_bytes(str(folder / CHECKPOINT_FILE), storage.to_json_bytes(checkpoint.to_dict()))


def read(uri: str, step: int | None = None) -> Checkpoint:
    """Return a value model's description without its weights; arguments and errors as of :func:`load`."""
    where = storage.join(uri, CHECKPOINT_FILE)
    if step is not None:
        where = storage.join(kept_state(uri, step), ASSETS, CHECKPOINT_FILE)
    try:
        return Checkpoint.from_dict(storage.read_json(where))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not a value model's checkpoint: {error!r}", where=where, expected="what train_value writes"
        ) from error


def load(uri: str, step: int | None = None) -> tuple[ValueNetwork, Checkpoint]:
    """Load a value model, ready to predict.

    Args:
        uri: Output folder of train_value.
        step: One of the states it kept; None for the weights that training ended with.

    Raises:
        DataError: If a file is missing, or names other weights than the architecture has.
        UsageError: If no state of ``step`` was kept.
    """
    checkpoint = read(uri, step)
    model = _unfilled(checkpoint)
    where = storage.join(uri if step is None else kept_state(uri, step), WEIGHTS_FILE)
    try:
        with storage.as_local(where) as file:
            # Its tensors become the model's, so that no weight is ever there twice.
            model.load_state_dict(safetensors.torch.load_file(file), assign=True)
    except (OSError, safetensors.SafetensorError) as error:
        raise DataError(f"the weights can't be read: {error}", where=where, mend="copy the checkpoint again") from error
    except RuntimeError as error:
        raise DataError(f"the weights do not fit the architecture: {error}", where=where) from error
    return model.eval().requires_grad_(requires_grad=False), checkpoint


def _unfilled(checkpoint: Checkpoint) -> ValueNetwork:
    """Return the network before it has its weights; drawing billions of them first would take minutes."""
    if not isinstance(checkpoint.config, TokenModelConfig):
        return build(checkpoint.config, checkpoint.shape)
    from transformers.initialization import no_init_weights  # noqa: PLC0415  (transformers takes seconds)

    with no_init_weights():
        return build(checkpoint.config, checkpoint.shape)


def kept_state(uri: str, step: int) -> str:
    """Return the folder of a state that train_value kept.

    Raises:
        UsageError: Naming the steps that it did keep.
    """
    folder = storage.join(uri, CHECKPOINTS)
    kept = {int(name.partition("/")[0]) for name, _ in storage.list_files(folder)} if storage.exists(folder) else set()
    if step not in kept:
        listed = ", ".join(map(str, sorted(kept))) or "none; train_value's keep_every is 0"
        raise UsageError(f"no checkpoint of step {step} was kept in {uri}; there are: {listed}")
    return storage.join(folder, str(step))
