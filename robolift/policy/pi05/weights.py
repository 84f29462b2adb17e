"""Weights of pi0.5 in forms that other tools read: loaded strictly, never overwritten in part.

========================  ==========================================================================================
form                      what lies there
========================  ==========================================================================================
``safetensors``           one file of ours: the names of the tree, its levels joined by ``/``
``openpi_torch``          one safetensors file with the names of openpi's PyTorch model
``orbax``                 a folder: openpi's checkpoint item ``params``
========================  ==========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import jax
import numpy as np

from robolift.data.models import materialize
from robolift.errors import DataError
from robolift.policy import hosts
from robolift.policy.pi05 import orbax, torch_names
from robolift.policy.pi05.address import resolve
from robolift.policy.pi05.config import Pi05Config
from robolift.policy.pi05.freeze import UPDATES
from robolift.policy.pi05.tree import Params, flatten, names_and_shapes, unflatten
from robolift.tensor_files import CODES, Spec, TensorFile, Write, writing

Form = Literal["safetensors", "openpi_torch", "orbax"]
Leaf = np.ndarray | jax.Array
Shapes = Mapping[str, tuple[int, ...]]
SHOWN = 10


@dataclass(frozen=True)
class Difference:
    """How the weights that were found differ from those a model has.

    Attributes:
        missing: Names that aren't there, sorted.
        unexpected: Names that the model doesn't have, sorted.
        misfits: Names of another shape, or of a type that isn't a float, each with what was found and expected.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misfits: tuple[str, ...]

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return bool(self.missing or self.unexpected or self.misfits)

    def __str__(self) -> str:
        """Return the counts, and the first names of each kind."""
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape or type", self.misfits))
        lines = [", ".join(f"{len(names)} {kind}" for kind, names in kinds)]
        for kind, names in kinds:
            lines += [f"{kind}: {name}" for name in names[:SHOWN]]
            lines += [f"{kind}: {len(names) - SHOWN} more"] if len(names) > SHOWN else []
        return "\n  ".join(lines)


def compare(found: Mapping[str, Spec], expected: Shapes, *, optional: Shapes | None = None) -> Difference:
    """Return how ``found`` differs from the ``expected`` shapes; the ``optional`` ones may be there."""
    allowed = {**(optional or {}), **expected}
    return Difference(
        missing=tuple(sorted(expected.keys() - found.keys())),
        unexpected=tuple(sorted(found.keys() - allowed.keys())),
        misfits=tuple(
            f"{name} is {spec.dtype} {spec.shape}, the model's is a float {allowed[name]}"
            for name, spec in sorted(found.items())
            if name in allowed and (spec.shape != tuple(allowed[name]) or spec.dtype not in CODES)
        ),
    )


def load_params(uri: str, config: Pi05Config, *, sha256: str = "", may_lack_updates: bool = False) -> Params:
    """Return the weights at ``uri`` as arrays of the host, in the types they are kept in.

    Whatever isn't on a disk is copied first, see :func:`robolift.data.models.materialize`; what is copied already isn't
    read again where ``sha256`` is given.

    Args:
        uri: A ``params`` item, or the folder of a step with one; a safetensors file, or a folder with
            ``model.safetensors``. What is there decides.
        config: The model.
        sha256: What :func:`robolift.data.models.model_digest` must say of the file or item that is meant, see
            :func:`robolift.policy.pi05.address.resolve`; empty: anything.
        may_lack_updates: Whether weights without any low-rank update will do where ``config`` has them; the tree lacks
            them then. Weights with some must have all.

    Raises:
        UsageError: If nothing is there, or no copy can be kept.
        DataError: If the digest is another, the content is damaged, or a name or shape is not the model's.
    """
    uri = resolve(uri)
    path = materialize(uri, sha256)
    tensors = None if path.is_dir() else TensorFile(path, where=uri)
    specs = orbax.specs(path, where=uri) if tensors is None else tensors.specs
    if may_lack_updates and not any(re.fullmatch(UPDATES, name) for name in specs):
        config = without_updates(config)
    if tensors is not None and any(name.startswith(torch_names.PREFIX) for name in specs):
        return unflatten(dict(_from_torch(tensors, config, where=uri)))
    shapes = names_and_shapes(config)
    _refuse(compare(specs, shapes), config, where=uri)
    if tensors is None:
        return orbax.load(path, where=uri)
    return unflatten({name: tensors.read(name) for name in shapes})


def save_params(params: Params, uri: str, *, form: Form = "safetensors") -> None:
    """Write the weights, which appear whole or not at all. Every process of a job has to call it; the main one writes.

    Args:
        params: Arrays of the host or of devices. They are fetched one by one; for ``orbax`` all at once.
        uri: Where the file goes; for ``orbax`` a folder that is not there yet.
        form: See the head of this module. ``openpi_torch`` has zeros for the head that openpi's model never uses.

    Raises:
        UsageError: If nothing may be written there, or the form has no name for a weight.
    """
    if form == "orbax":
        on_host = hosts.to_host(params)
        if hosts.this_host().is_main:
            orbax.save(on_host, uri)
        return
    flat = flatten(params)
    if form == "openpi_torch":
        _save_torch(flat, uri)
        return
    with _writer(uri, {path: Spec.of(leaf) for path, leaf in flat.items()}) as write:
        for path, leaf in flat.items():
            write(path, hosts.to_host(leaf))


def without_updates(config: Pi05Config) -> Pi05Config:
    """Return the same model without low-rank updates."""
    return replace(config, vlm=replace(config.vlm, lora_rank=0), expert=replace(config.expert, lora_rank=0))


def _refuse(difference: Difference, config: Pi05Config, *, where: str) -> None:
    if difference:
        raise DataError(
            f"these are not the weights of this model: {difference}",
            where=where,
            expected=f"the names and shapes of preset {config.preset}",
            mend="choose the preset these weights belong to; weights without low-rank updates need lora_rank 0",
        )


def _from_torch(tensors: TensorFile, config: Pi05Config, *, where: str) -> Iterator[tuple[str, np.ndarray]]:
    """Read the arrays of the tree from openpi's PyTorch names, one after another."""
    shapes = names_and_shapes(config)
    expected = torch_names.names_and_shapes(shapes)
    optional = {torch_names.UNUSED: expected.pop(torch_names.UNUSED)}
    embedding, alias = torch_names.EMBEDDING, torch_names.TIED
    if embedding not in tensors.specs and alias in tensors.specs:
        embedding, alias = alias, embedding
    optional[alias] = expected.pop(alias)
    _refuse(compare(tensors.specs, expected, optional=optional), config, where=where)
    if alias in tensors.specs and not np.array_equal(tensors.read(alias), tensors.read(embedding)):
        raise DataError(
            f"{alias} differs from {embedding}",
            where=where,
            expected="one embedding of words, which pi0.5 reads with and could answer with",
            mend="write the file again from the model it belongs to",
        )
    for path, shape in shapes.items():
        parts = [
            piece._replace(name=embedding) if piece.name == torch_names.EMBEDDING else piece
            for piece in torch_names.pieces(path, shape)
        ]
        yield path, _assemble(tensors, parts, shape, where=where)


def _assemble(tensors: TensorFile, parts: list[torch_names.Piece], shape: tuple[int, ...], *, where: str) -> np.ndarray:
    types = {tensors.specs[part.name].dtype: part.name for part in parts}
    if len(types) > 1:
        raise DataError(
            f"the layers of a weight are of several types: {types}",
            where=where,
            expected="one type for all layers",
            mend="write the file again with one type",
        )
    array: np.ndarray | None = None
    for part in parts:
        tensor = tensors.read(part.name)
        array = np.empty(shape, tensor.dtype) if array is None else array
        part.fill(array, tensor)
    assert array is not None
    return array


def _save_torch(flat: Mapping[str, Leaf], uri: str) -> None:
    """Write openpi's PyTorch names, as ``safetensors.torch.save_model`` writes a model with tied weights."""
    specs, renamed = {}, {torch_names.EMBEDDING: torch_names.TIED}
    for path, leaf in flat.items():
        for piece in torch_names.pieces(path, leaf.shape):
            specs[renamed.get(piece.name, piece.name)] = Spec(piece.shape, leaf.dtype.name)
    shapes = torch_names.names_and_shapes({path: leaf.shape for path, leaf in flat.items()})
    specs[torch_names.UNUSED] = specs[torch_names.TIED]._replace(shape=shapes[torch_names.UNUSED])
    with _writer(uri, specs, metadata=renamed) as write:
        for path, leaf in flat.items():
            array = hosts.to_host(leaf)
            for piece in torch_names.pieces(path, leaf.shape):
                write(renamed.get(piece.name, piece.name), piece.cut(array))
            if path.endswith("/input_embedding"):
                write(torch_names.UNUSED, np.zeros(shapes[torch_names.UNUSED], array.dtype))


def _writer(
    uri: str, specs: Mapping[str, Spec], metadata: Mapping[str, str] | None = None
) -> AbstractContextManager[Write]:
    if hosts.this_host().is_main:
        return writing(uri, specs, metadata)
    return nullcontext(lambda name, tensor: None)
