"""Variables of steps and of the jobs they launch, from the placement file.

``storage.env`` says how the object store is reached, to every step, every job and the chart's own pods; ``trainer.env``
and ``policyTrainer.env`` lie over it where training happens.
"""

from typing import Any, Dict, List

from kfp.dsl import PipelineTask

from components import _pools
from robolift.errors import UsageError

REFERENCES = {"secretKeyRef": "use_secret_as_env", "configMapKeyRef": "use_config_map_as_env"}
"""What a step's variable may refer to, and the function of ``kfp.kubernetes`` that tells it so."""


def merged(own: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return ``storage.env`` with ``own`` laid over it, as a container's manifest has it."""
    store = (_pools.values().get("storage") or {}).get("env") or []
    return list({entry["name"]: entry for entry in [*store, *own]}.values())


def of_step(own: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return :func:`merged`, all of it something that a pipeline's step can take.

    Raises:
        UsageError: Naming the first variable that it can't.
    """
    found = merged(own)
    for entry in found:
        sources = list(entry.get("valueFrom") or {})
        if "value" not in entry and not set(sources) & set(REFERENCES):
            raise UsageError(
                f"variable {entry['name']} in {_pools.source()} comes from {', '.join(sources) or 'nothing'}; a "
                f"pipeline's step takes value, {' and '.join(f'valueFrom.{name}' for name in REFERENCES)}"
            )
    return found


def give(task: PipelineTask, own: List[Dict[str, Any]]) -> None:
    """Give a step its variables."""
    for entry in of_step(own):
        if "value" in entry:
            task.set_env_variable(entry["name"], str(entry["value"]))
            continue
        ((kind, source),) = entry["valueFrom"].items()
        from kfp import kubernetes  # the whole Kubernetes API, only where it is needed

        getattr(kubernetes, REFERENCES[kind])(task, source["name"], {source["key"]: entry["name"]})
