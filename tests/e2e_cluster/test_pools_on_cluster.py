"""Pods of each pool land on nodes of that pool: the cluster's own scheduler decides, over nodes made for the test.

The nodes are records without a machine: the scheduler binds pods to them as to any other, and nothing ever starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cluster_tools import wait_until
from kubernetes import client

from components import _pools
from components._resources import STAGE_SIZES, resources

pytestmark = pytest.mark.cluster

GPUS = 2


def node_manifest(pool: _pools.Pool) -> dict[str, Any]:
    placement = _pools.placement(pool.name)
    taints = [{"key": _pools.POOL_KEY, "value": pool.name, "effect": "NoSchedule"}] if pool.taint else []
    return {
        "metadata": {"name": f"robolift-e2e-{pool.name}", "labels": placement.node_selector},
        "spec": {"taints": taints},
    }


@pytest.fixture(scope="module")
def nodes(api: client.ApiClient) -> Iterator[dict[str, str]]:
    """One node a pool, by pool."""
    core = client.CoreV1Api(api)
    made = {}
    for pool in _pools.pools().values():
        node = core.create_node(node_manifest(pool))
        capacity = {"cpu": "64", "memory": "512Gi", "pods": "20", "ephemeral-storage": "100Gi"}
        if pool.gpus:
            capacity[pool.gpu_resource] = str(GPUS)
        ready = {"type": "Ready", "status": "True", "reason": "Test", "message": "a record"}
        status = {"status": {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}}
        core.patch_node_status(node.metadata.name, status)
        core.patch_node(node.metadata.name, node_manifest(pool))  # the controller taints a node that is not ready yet
        made[pool.name] = node.metadata.name
    yield made
    for name in made.values():
        core.delete_node(name)


def pod_manifest(name: str, pool: str, gpus: int, *, tolerant: bool = True) -> dict[str, Any]:
    placement = _pools.placement(pool)
    limits = {"memory": "64Mi", **({placement.gpu_resource: str(gpus)} if gpus else {})}
    return {
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": placement.node_selector,
            "tolerations": placement.tolerations if tolerant else [],
            "containers": [{"name": "main", "image": "unused", "resources": {"limits": limits, "requests": limits}}],
        },
    }


@pytest.fixture
def scheduled(api: client.ApiClient, namespace: str, nodes: dict[str, str]) -> Iterator[Any]:
    """Create a pod and return the node it was bound to, or why it was not."""
    core = client.CoreV1Api(api)
    created = []

    def schedule(manifest: dict[str, Any]) -> str:
        name = manifest["metadata"]["name"]
        core.create_namespaced_pod(namespace, manifest)
        created.append(name)

        def verdict() -> str | None:
            pod = core.read_namespaced_pod(name, namespace)
            refused = [c for c in pod.status.conditions or [] if c.type == "PodScheduled" and c.status == "False"]
            return pod.spec.node_name or (refused[0].message if refused else None)

        return str(wait_until(verdict, f"the scheduler's verdict on {name}", 60))

    yield schedule
    for name in created:
        core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)


def test_every_stage_has_a_node_to_run_on(scheduled: Any, nodes: dict[str, str]) -> None:
    for pool, gpus in sorted({(resources(stage).pool, resources(stage).gpus) for stage in STAGE_SIZES}):
        assert scheduled(pod_manifest(f"stage-on-{pool}-{gpus}", pool, gpus)) == nodes[pool]


def test_a_pod_that_asks_for_more_gpus_than_a_node_has_waits(scheduled: Any) -> None:
    assert "Insufficient nvidia.com/gpu" in scheduled(pod_manifest("greedy", "gpu", GPUS + 1))


def test_the_gpu_pool_s_taint_keeps_others_away(scheduled: Any) -> None:
    verdict = scheduled(pod_manifest("stranger", "gpu", 1, tolerant=False))
    assert "taint" in verdict
