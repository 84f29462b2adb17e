"""The chart on a cluster: it installs, its accounts may do what they must and nothing else, and it leaves nothing."""

from __future__ import annotations

import pytest
from cluster_tools import CHART, RELEASE, Tool

pytestmark = pytest.mark.cluster

MAY = {
    "robolift-launcher": [
        "create pytorchjobs.kubeflow.org",
        "delete pytorchjobs.kubeflow.org",
        "watch pytorchjobs.kubeflow.org",
        "create jobs.batch",
        "get pods",
        "get pods/log",
        "list events",
        "get workflows.argoproj.io",
    ],
    "robolift-reaper": [
        "list pytorchjobs.kubeflow.org",
        "delete pytorchjobs.kubeflow.org",
        "get workflows.argoproj.io",
    ],
    "robolift-trainer": [],
}
MAY_NOT = {
    "robolift-launcher": [
        "delete pods",
        "create rolebindings.rbac.authorization.k8s.io",
        "delete workflows.argoproj.io",
    ],
    "robolift-reaper": ["create pytorchjobs.kubeflow.org", "get secrets", "get pods/log", "delete pods"],
    "robolift-trainer": ["get pods", "list pytorchjobs.kubeflow.org", "get secrets", "get configmaps"],
}


def can(kubectl: Tool, namespace: str, account: str, what: str) -> bool:
    verb, kind = what.split()
    kind, _, sub = kind.partition("/")
    subresource = [f"--subresource={sub}"] if sub else []
    who = f"system:serviceaccount:{namespace}:{account}"
    answer = kubectl("auth", "can-i", verb, kind, *subresource, "-n", namespace, "--as", who, check=False)
    assert answer.split()[-1] in ("yes", "no"), answer
    return answer.split()[-1] == "yes"


def test_the_release_stands(helm: Tool, release: list[str], namespace: str) -> None:
    assert "deployed" in helm("status", RELEASE, "--namespace", namespace)


@pytest.mark.parametrize("account", sorted(MAY))
def test_accounts_may_do_their_work_and_nothing_else(
    account: str, kubectl: Tool, release: list[str], namespace: str
) -> None:
    assert [what for what in MAY[account] if not can(kubectl, namespace, account, what)] == []
    assert [what for what in MAY_NOT[account] if can(kubectl, namespace, account, what)] == []


def test_no_account_may_do_anything_in_another_namespace(kubectl: Tool, release: list[str], namespace: str) -> None:
    who = f"system:serviceaccount:{namespace}:robolift-launcher"
    for kind in ("pytorchjobs.kubeflow.org", "pods"):
        answer = kubectl("auth", "can-i", "list", kind, "-n", "kube-system", "--as", who, check=False)
        assert answer.split()[-1] == "no"


def test_an_upgrade_to_the_same_values_is_accepted(helm: Tool, release: list[str], namespace: str) -> None:
    helm("upgrade", RELEASE, str(CHART), "--namespace", namespace, *release)
    assert '"revision"' not in helm("status", RELEASE, "--namespace", namespace)


def test_the_cluster_takes_what_helm_does_not_own(kubectl: Tool) -> None:
    """k8s/overlays/kind, for real where no Kubeflow is, else as far as the server goes without storing it."""
    overlay = str(CHART.parents[1] / "k8s" / "overlays" / "kind")
    if "namespace/kubeflow" in kubectl("get", "namespaces", "-o", "name").split():
        assert "configmap/kfp-launcher" in kubectl("apply", "-k", overlay, "--dry-run=server")
        return
    kubectl("apply", "-k", overlay)
    try:
        told = kubectl(
            "get", "configmap", "kfp-launcher", "-n", "kubeflow", "-o", "jsonpath={.data.defaultPipelineRoot}"
        )
        assert told == "minio://mlpipeline/v2/artifacts"
        again = kubectl("apply", "-k", overlay)
        assert "created" not in again
        assert "configured" not in again
    finally:
        kubectl("delete", "-k", overlay, "--wait=true", "--timeout=120s")
