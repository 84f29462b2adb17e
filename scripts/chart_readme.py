"""Write the README of the chart from its values and their schema: ``make chart-docs``; a test finds it stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "charts" / "robolift"
TARGET = CHART / "README.md"
HEAD = """# The robolift chart

Written by `make chart-docs` from `values.schema.json` (words) and `values.yaml` (defaults); edit those.

{description}
What it stands on is not in it: Kubernetes 1.29 or later, Kubeflow Pipelines, the training operator or Trainer, Kueue
and GPU drivers are installed before ([docs/cluster.md](../../docs/cluster.md) has every command), and `helm test` says
which of them is missing.

```bash
helm install robolift charts/robolift -n kubeflow -f site.yaml --set-json "images=$(cat images.lock.json)"
helm test robolift -n kubeflow --logs
make submit PIPELINE=recap HOST=... VALUES=site.yaml SERVICE_ACCOUNT=robolift-launcher    # the same file places pods
```

## Pools

A pool is a kind of node under a name. Sizes of stages, `trainer.pool` and others refer to it, so the same list makes
nodes and places pods. A pod of pool NAME selects `robolift.io/pool: NAME` (on GKE
`cloud.google.com/compute-class: NAME`) and tolerates what the pool's nodes are tainted with:

| taint | on |
|---|---|
| `<gpuResource>=present:NoSchedule` | nodes with GPUs; GKE adds it itself |
| `robolift.io/pool=NAME:NoSchedule` | pools with `taint: true` |
| `cloud.google.com/compute-class=NAME:NoSchedule` | every pool on GKE |

With `provider: none` nobody makes nodes; label and taint yours:

```bash
kubectl label nodes NODE robolift.io/pool=gpu
kubectl taint nodes NODE robolift.io/pool=gpu:NoSchedule
```

DaemonSets that GPU nodes need (device plugin, metrics) must tolerate these taints too.

## What it makes

| folder of `templates/` | objects | when |
|---|---|---|
| `pools` | ComputeClass, ContainerNodePool, NodePool, EC2NodeClass | by `provider`, `clusterScoped` |
| `kueue` | ResourceFlavor, ClusterQueue, LocalQueue, WorkloadPriorityClass, Topology | `kueue.enabled` |
| `accounts` | ServiceAccount | `create` |
| `launcher` | Role, RoleBinding: jobs, their pods and logs; what a step of a pipeline needs | always |
| `reaper` | CronJob, Role, RoleBinding | `reaper.enabled` |
| `limits` | ResourceQuota, PriorityClass | `quota.enabled`, `priorityClasses` |
| `network` | NetworkPolicy of training pods | `networkPolicy.enabled` |
| `model-cache` | PersistentVolumeClaim | `modelCache.enabled` |
| `review`, `serve`, `vllm` | Deployment, Service, NetworkPolicy | `enabled`, `networkPolicy.enabled` |
| `tensorboard` | Deployment, Service | `tensorboard.enabled` |
| `preflight` | a Pod, for `helm test` alone | `preflight.enabled` |

The accounts of trainer, reviewer and server have no rights in Kubernetes and no token for it.

## Values

Where several of these together can't work (a pool that is not there, a GPU pool of GKE without its GPU), rendering
stops and names the field. A key that is not in this table is refused.
"""


def render() -> str:
    """Return the whole page."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    head = HEAD.format(description=f"{chart['description']}.")
    lines = [head, "| key | type | default | |", "|---|---|---|---|"]
    lines += _rows(schema, values, schema["definitions"], prefix="")
    return "\n".join([*lines, ""])


def _rows(node: dict[str, Any], values: Any, definitions: dict[str, Any], *, prefix: str) -> list[str]:
    """Return one table row a key of an object; what is below it follows under its dotted name."""
    rows = []
    for key, entry in node.get("properties", {}).items():
        field = resolve(entry, definitions)
        default = values.get(key) if isinstance(values, dict) else None
        name = f"{prefix}{key}"
        inner = resolve(field["items"], definitions) if field.get("type") == "array" else {}
        listed = "properties" in inner and "$ref" not in entry
        nested = "properties" in field
        shown = "" if nested or default is None else f"`{json.dumps(default)}`"
        if listed and default:
            shown = ", ".join(f"`{item['name']}`" for item in default)
        cells = [f"`{name}`", "" if nested else kind_of(field, definitions), shown, field.get("description", "")]
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
        if nested:
            rows += _rows(field, default, definitions, prefix=f"{name}.")
        elif listed:
            rows += _rows(inner, None, definitions, prefix=f"{name}[].")
    return rows


def resolve(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return ``field`` with the definition it refers to below what it says itself."""
    if "$ref" not in field:
        return field
    return {**definitions[field["$ref"].rsplit("/", 1)[1]], **field}


def kind_of(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return the type of a field in a word or two."""
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return "quantity"
    if field.get("type") == "array":
        return f"list of {kind_of(resolve(field['items'], definitions), definitions)}"
    if field.get("type") == "object":
        return "map"
    return str(field["type"])


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
