"""Where steps and jobs may run: the pools, and what the placement file says of those that train and label.

The file is the chart's ``values.yaml``, so node pools that exist and node pools that are asked for can't differ.
Another file, named by ``ROBOLIFT_VALUES``, lies over it as Helm would lay it: maps are merged, lists replaced, null
removes. Placement never changes a result; that is why it may come from the environment.
"""

import functools
import os
from pathlib import Path
from typing import Any, Dict, List, Literal, Mapping

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from robolift.errors import UsageError
from robolift.launch.spec import Placement

VALUES_FILE = Path(__file__).parent.parent / "charts" / "robolift" / "values.yaml"
VALUES_VARIABLE = "ROBOLIFT_VALUES"
POOL_KEY, GKE_KEY = "robolift.io/pool", "cloud.google.com/compute-class"


class _Part(BaseModel):
    """A part of the placement file, its keys in Helm's spelling."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


class Pool(_Part):
    """Nodes of one kind.

    Attributes:
        name: A DNS label.
        gpus: GPUs of one node.
        gpu_resource: Name under which a node offers them.
        taint: Whether the nodes keep other pods away.
    """

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    gpus: int = Field(0, ge=0)
    gpu_resource: str = "nvidia.com/gpu"
    taint: bool = True
    # What follows makes the nodes and is the chart's alone.
    accelerator: str = ""
    machine_types: List[str] = []
    spot: bool = False
    max_nodes: int = 8


class Trainer(_Part):
    """How a stage that trains is run, ``trainer`` or ``policyTrainer``."""

    backend: Literal["pytorchjob", "trainjob", "job", "process"]
    pool: str
    processes_per_node: int = Field(1, ge=1)
    shared_memory: str
    active_deadline_seconds: int = Field(ge=1)
    ttl_seconds_after_finished: int = Field(ge=0)
    socket_interface: str = ""
    scheduler_name: str = ""
    priority_class: str = ""
    env: List[Dict[str, Any]] = []
    env_from: List[Dict[str, Any]] = []


class StepPlace(_Part):
    """Where steps run that may hold a model: ``labeller`` of annotate_rewards, ``encoder`` of extract_features.

    Attributes:
        size: Named size of its steps; empty: that of a step without a model on a GPU.
        pool: Pool of its steps; empty: the size's.
        env: Variables of its steps, such as the key of the endpoint from a Secret.
    """

    size: str = ""
    pool: str = ""
    env: List[Dict[str, Any]] = []


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Dict[str, Any]:
    """Return ``above`` laid over ``below``: maps are merged, anything else is replaced, null removes."""
    merged = dict(below)
    for key, value in above.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def values() -> Dict[str, Any]:
    """Return the placement file's content, with the site's own laid over it.

    Raises:
        UsageError: If the site's file is missing or isn't a YAML mapping.
    """
    return _read(os.environ.get(VALUES_VARIABLE, ""))


@functools.lru_cache(maxsize=8)
def _read(site: str) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for path in (VALUES_FILE, Path(site)) if site else (VALUES_FILE,):
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"placement file {path}: {error.strerror}; {VALUES_VARIABLE} names it") from None
        except yaml.YAMLError as error:
            raise UsageError(f"placement file {path} is not YAML: {error}") from None
        if not isinstance(document, dict):
            raise UsageError(f"placement file {path} holds {type(document).__name__}, expected a mapping")
        found = merge(found, document)
    return found


def source() -> str:
    """Return which files say it, for messages."""
    site = os.environ.get(VALUES_VARIABLE, "")
    return f"{VALUES_FILE.relative_to(VALUES_FILE.parents[2])}{f' and {site}' if site else ''}"


def pools() -> Dict[str, Pool]:
    """Return the pools by name.

    Raises:
        UsageError: If one is wrong or named twice.
    """
    found = _parse(List[Pool], values().get("pools", []), "pools")
    by_name = {pool.name: pool for pool in found}
    if len(by_name) < len(found):
        raise UsageError(f"pools: a name stands twice in {source()}")
    return by_name


def pool(name: str) -> Pool:
    """Return the pool called ``name``.

    Raises:
        UsageError: If there is none; the message names it and those there are.
    """
    found = pools()
    if name not in found:
        there_are = ", ".join(found) or "none"
        raise UsageError(
            f"no node pool {name!r} in {source()}; there are: {there_are}; add it to pools, or name another"
        )
    return found[name]


def trainer(key: str) -> Trainer:
    """Return ``trainer`` or ``policyTrainer``.

    Raises:
        UsageError: Naming what is wrong.
    """
    found: Trainer = _parse(Trainer, values().get(key), key)
    return found


def step_place(key: str) -> StepPlace:
    """Return ``labeller`` or ``encoder``.

    Raises:
        UsageError: Naming what is wrong.
    """
    found: StepPlace = _parse(StepPlace, values().get(key) or {}, key)
    return found


def placement(name: str) -> Placement:
    """Return where pods of a pool run, in Kubernetes' terms.

    Raises:
        UsageError: If there is no such pool.
    """
    found = pool(name)
    on_gke = values().get("provider") == "gke"
    tolerations = []
    if found.gpus:
        tolerations.append({"key": found.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
    if found.taint:
        tolerations.append({"key": POOL_KEY, "operator": "Equal", "value": name, "effect": "NoSchedule"})
    if on_gke:
        tolerations.append({"key": GKE_KEY, "operator": "Equal", "value": name, "effect": "NoSchedule"})
    kueue = values().get("kueue") or {}
    return Placement(
        pool=name,
        node_selector={GKE_KEY if on_gke else POOL_KEY: name},
        tolerations=tolerations,
        gpu_resource=found.gpu_resource if found.gpus else "",
        gpus=found.gpus,
        queue=str(kueue["queue"]) if kueue.get("enabled") else "",
    )


_adapter = functools.cache(TypeAdapter)


def _parse(kind: Any, document: Any, where: str) -> Any:
    try:
        return _adapter(kind).validate_python(document)
    except ValidationError as error:
        lines = [
            f"{'.'.join([where, *map(str, p['loc'])])}: {p['msg']} (got {p.get('input')!r})" for p in error.errors()
        ]
        raise UsageError("\n  ".join([f"wrong placement in {source()}:", *lines])) from None
