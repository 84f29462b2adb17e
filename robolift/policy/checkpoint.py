"""Policies as files: the trained policy that is served, and the state from which a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import safetensors
import safetensors.numpy
from safetensors import SafetensorError

from robolift import storage
from robolift.errors import DataError
from robolift.labeling.prompts import PromptTable
from robolift.policy import encoder, hosts, model
from robolift.policy.encoder import EncoderSpec
from robolift.policy.model import Objective, Params, PolicyShape
from robolift.policy.normalize import Normalizer
from robolift.policy.presets import PolicyConfig
from robolift.tensor_files import Spec, TensorFile, remove_leavings, writing

WEIGHTS_FILE = "model.safetensors"
SPEC_FILE = "policy.json"
LATEST_FILE = "latest.json"
STATE_FILE = "state.safetensors"
POLICY_PREFIX = "policy."
SpecT = TypeVar("SpecT")


@dataclass(frozen=True, kw_only=True)
class TaughtSpec:
    """What every policy says about itself besides its network.

    Attributes:
        variant: What it was trained on, see ``train_policy``.
        prompts: The whole prompt table, whatever the variant.
        bare_prompts: For each prompt the row of its task without a label.
        trained_prompts: Rows of the table that occurred in training; only these may be asked for.
        held_out_episodes: Episodes of the dataset that neither it nor its encoder was trained on, sorted; None where
            an older policy does not say.
        state_keys: Dataset columns of the state, in order.
        state_dims: Their lengths.
        action: Normaliser of actions.
        action_horizon: Actions of a chunk.
        execute: Actions of a chunk to carry out before asking again.
        fps: Rate of the actions, Hz.
        steps: Optimizer steps it was trained.
    """

    variant: str
    prompts: PromptTable
    bare_prompts: tuple[int, ...]
    trained_prompts: tuple[int, ...]
    held_out_episodes: tuple[int, ...] | None
    state_keys: tuple[str, ...]
    state_dims: tuple[int, ...]
    action: Normalizer
    action_horizon: int
    execute: int
    fps: float
    steps: int

    @property
    def preset(self) -> str:
        """Name of its network's size."""
        raise NotImplementedError

    def taught(self) -> dict[str, Any]:
        """Return the above ready for JSON."""
        plain = ("variant", "action_horizon", "execute", "fps", "steps")
        return {
            **{name: getattr(self, name) for name in plain},
            "action_dim": len(self.action.offset),
            "prompts": self.prompts.to_dict(),
            "bare_prompts": list(self.bare_prompts),
            "trained_prompts": list(self.trained_prompts),
            "held_out_episodes": self.held_out_episodes,
            "state_keys": list(self.state_keys),
            "state_dims": list(self.state_dims),
            "action": self.action.to_dict(),
        }

    @staticmethod
    def read_taught(document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that :meth:`taught` wrote."""
        held_out = document.get("held_out_episodes")
        return {
            **{name: document[name] for name in ("variant", "action_horizon", "execute", "fps", "steps")},
            "prompts": PromptTable.from_dict(document["prompts"]),
            "held_out_episodes": None if held_out is None else tuple(held_out),
            "action": Normalizer.from_dict(document["action"]),
            **{name: tuple(document[name]) for name in ("bare_prompts", "trained_prompts", "state_keys", "state_dims")},
        }


@dataclass(frozen=True, kw_only=True)
class PolicySpec(TaughtSpec):
    """Everything needed to act besides the weights, for the network of :mod:`robolift.policy.model`; ``policy.json``.

    Attributes:
        architecture: Sizes of the network.
        objective: ``flow`` or ``regression``.
        encoder: The image encoder, None without cameras.
        observation: Normaliser of states, then features.
    """

    architecture: PolicyConfig
    objective: Objective
    encoder: EncoderSpec | None
    observation: Normalizer

    @property
    def preset(self) -> str:
        """Name of its network's size."""
        return self.architecture.preset

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras the policy looks through."""
        return self.encoder.cameras if self.encoder else ()

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of its images, None without cameras."""
        return self.encoder.image_size if self.encoder else None

    @property
    def shape(self) -> PolicyShape:
        """Shape of the network."""
        return PolicyShape(
            observation_dim=len(self.observation.offset),
            num_prompts=len(self.prompts),
            action_horizon=self.action_horizon,
            action_dim=len(self.action.offset),
            objective=self.objective,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            **self.taught(),
            "objective": self.objective,
            "preset": self.architecture.preset,
            "architecture": asdict(self.architecture),
            "cameras": list(self.cameras),
            "image_size": list(self.encoder.image_size) if self.encoder else None,
            "encoder": self.encoder.to_dict() if self.encoder else None,
            "observation": self.observation.to_dict(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> PolicySpec:
        """Return what :meth:`to_dict` wrote."""
        architecture = dict(document["architecture"])
        architecture["hidden_widths"] = tuple(architecture["hidden_widths"])
        return cls(
            **cls.read_taught(document),
            architecture=PolicyConfig(**architecture),
            objective=document["objective"],
            encoder=EncoderSpec.from_dict(document["encoder"]) if document["encoder"] else None,
            observation=Normalizer.from_dict(document["observation"]),
        )


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a tree by dotted path, on the host; every process of the job has to call it."""
    return {name: hosts.to_host(leaf) for name, leaf in named(tree).items()}


def named(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by dotted path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _forget(_name: str, _tensor: np.ndarray) -> None:
    """Write nothing: what every process fetches, the main one writes."""


def unflatten(template: Any, tensors: Mapping[str, np.ndarray], *, where: str) -> Any:
    """Return ``tensors`` in the form of ``template``.

    Raises:
        DataError: If names, shapes or types differ from the template's.
    """
    refuse_others(template, {name: Spec.of(tensor) for name, tensor in tensors.items()}, where=where)
    return jax.tree.unflatten(jax.tree.structure(template), [tensors[name] for name in named(template)])


def refuse_others(template: Any, found: Mapping[str, Spec], *, where: str) -> None:
    """Check that what was found, by dotted path, is what ``template`` has.

    Raises:
        DataError: If a name, shape or type differs.
    """
    expected = {name: Spec.of(leaf) for name, leaf in named(template).items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise DataError(
            f"weight {wrong[0]} is {found.get(wrong[0], 'missing')}",
            where=where,
            expected=str(expected.get(wrong[0], "no such weight")),
            mend="run train_policy again",
        )


def save_policy(folder: Path, spec: PolicySpec, params: Params, encoder_weights: Mapping[str, np.ndarray]) -> None:
    """Write a policy that acts by itself: nothing of the value model's checkpoint is needed any more."""
    tensors = {f"{POLICY_PREFIX}{name}": tensor for name, tensor in flatten(params).items()}
    content = safetensors.numpy.save({**tensors, **encoder_weights})
    storage.write_bytes(str(folder / WEIGHTS_FILE), content)
    storage.write_bytes(str(folder / SPEC_FILE), storage.to_json_bytes(spec.to_dict()))


def read_spec(uri: str, parse: Callable[[Mapping[str, Any]], SpecT]) -> SpecT:
    """Return what a policy folder's ``policy.json`` says, in the form that ``parse`` makes of it.

    Raises:
        DataError: If it is missing or damaged.
    """
    where = storage.join(uri, SPEC_FILE)
    try:
        return parse(storage.read_json(where))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not a policy: {error!r}", where=where, expected=SPEC_FILE, mend="run train_policy again"
        ) from error


def load_policy(uri: str) -> tuple[PolicySpec, Params, encoder.Weights]:
    """Load a policy folder from any store.

    Raises:
        DataError: If a file is missing, damaged or does not fit the other.
    """
    spec = read_spec(uri, PolicySpec.from_dict)
    where = storage.join(uri, WEIGHTS_FILE)
    tensors = read_tensors(where)
    own = {n.removeprefix(POLICY_PREFIX): t for n, t in tensors.items() if n.startswith(POLICY_PREFIX)}
    template = jax.eval_shape(lambda: model.init(jax.random.key(0), spec.architecture, spec.shape))
    params = jax.tree.map(jax.numpy.asarray, unflatten(template, own, where=where))
    if spec.encoder is None:
        return spec, params, []
    return spec, params, encoder.by_camera(encoder.pick_weights(tensors, spec.encoder, where=where), spec.encoder)


def read_tensors(uri: str) -> dict[str, np.ndarray]:
    """Read a safetensors file.

    Raises:
        DataError: If it is missing or damaged.
    """
    try:
        return safetensors.numpy.load(storage.read_bytes(uri))
    except SafetensorError as error:
        raise DataError(f"not readable as safetensors: {error}", where=uri, mend="write the file again") from error


@dataclass(frozen=True)
class StateStore:
    """The resumable state of one run: a single file, so that a reader sees the old state or the new one whole.

    For networks whose state one machine holds without notice; larger ones have
    :class:`robolift.policy.pi05.state_store.ShardedStore`. ``latest.json`` beside it says of which step it is, for
    those who only want to know how far the run has come.

    Attributes:
        uri: Folder of the file.
    """

    uri: str

    @property
    def file(self) -> str:
        """Address of the state."""
        return storage.join(self.uri, STATE_FILE)

    def tidy(self) -> None:
        """Remove what killed saves left; only for the run whose state this is."""
        remove_leavings(self.file)

    def save(self, tree: Any, document: Mapping[str, Any], *, step: int) -> None:
        """Write the arrays of ``tree`` after ``step``, and ``document`` (JSON) as the file's metadata.

        Every process of the job has to call it; the main one writes.
        """
        leaves = named(tree)
        is_main = hosts.this_host().is_main
        specs = {name: Spec.of(leaf) for name, leaf in leaves.items()}
        opened = writing(self.file, specs, {"document": json.dumps(document)}) if is_main else nullcontext(_forget)
        with opened as write:
            for name, leaf in leaves.items():
                write(name, hosts.to_host(leaf))
        if is_main:
            storage.write_bytes(storage.join(self.uri, LATEST_FILE), storage.to_json_bytes({"step": step}))

    def load(self, template: Any, places: Any) -> tuple[Any, dict[str, Any]] | None:
        """Return the tree in the form of ``template``, on the devices where ``places`` wants it, and the document.

        Returns:
            None if none was saved.

        Raises:
            DataError: If the state is damaged or belongs to another run.
        """
        if not storage.exists(self.file):
            return None
        with storage.as_local(self.file) as path:
            try:
                file = TensorFile(path, where=self.file)
            except DataError as error:
                raise damaged_state(error, self.file, self.uri) from error
            refuse_others(template, file.specs, where=self.file)
            # One array at a time, so that no second state is ever held.
            leaves = [hosts.put(file.read(name), place) for name, place in named(places).items()]
        return jax.tree.unflatten(jax.tree.structure(template), leaves), json.loads(file.metadata["document"])

    def wait(self) -> None:
        """Do nothing: a save is complete when it returns."""

    def close(self) -> None:
        """Do nothing: nothing is held."""


def damaged_state(error: Exception | str, where: str, uri: str) -> DataError:
    """Return the error of a run whose state, kept at ``uri``, can't be read."""
    return DataError(
        f"the saved training state is damaged: {error}", where=where, mend=f"delete {uri} to train from the start"
    )
