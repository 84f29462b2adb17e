"""What the cluster suite stands on: the cluster that KUBECONFIG names, tools, and a namespace of its own.

Settings, all by environment:

* ``KUBECONFIG``: the cluster; the account must be an administrator's. Everything is made in a namespace of its own and
  deleted again, except for custom resource definitions that the cluster lacked.
* ``ROBOLIFT_E2E_IMAGES``: ``cpu=REF,torch=REF``, images that the nodes have or can pull (``make images``).
* ``ROBOLIFT_E2E_HOST``: address of this machine as the pods see it; by default that of the first node.
* ``ROBOLIFT_E2E_CRD``: file with the PyTorchJob definition, for a cluster without the training operator.
* ``HELM``, ``KUBECTL``: the programs, found on the path otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_tools import CHART, RELEASE, Tool
from job_operator import PLACE, Operator
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

NOT_FOUND = 404


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    path = os.environ.get("KUBECONFIG", "")
    if not path:
        pytest.skip("KUBECONFIG names no cluster")
    return path


@pytest.fixture(scope="session")
def kubectl(kubeconfig: str) -> Tool:
    program = os.environ.get("KUBECTL") or shutil.which("kubectl")
    assert program, "no kubectl; name it in KUBECTL"
    return Tool((program, "--kubeconfig", kubeconfig))


@pytest.fixture(scope="session")
def helm(kubeconfig: str) -> Tool:
    program = os.environ.get("HELM") or shutil.which("helm")
    assert program, "no helm; name it in HELM"
    return Tool((program, "--kubeconfig", kubeconfig))


@pytest.fixture(scope="session")
def api(kubeconfig: str) -> client.ApiClient:
    return config.new_client_from_config(kubeconfig)


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    told = os.environ.get("ROBOLIFT_E2E_IMAGES", "")
    if not told:
        pytest.skip("ROBOLIFT_E2E_IMAGES names no images: cpu=REF,torch=REF")
    return dict(entry.split("=", 1) for entry in told.split(","))


@pytest.fixture(scope="session")
def namespace(kubectl: Tool) -> Iterator[str]:
    name = f"robolift-e2e-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def definitions(kubectl: Tool) -> None:
    """Make sure the cluster knows PyTorchJobs and Workflows."""
    known = kubectl("get", "customresourcedefinitions", "-o", "name")
    if "pytorchjobs.kubeflow.org" not in known:
        path = os.environ.get("ROBOLIFT_E2E_CRD")
        assert path, (
            "the cluster has no training operator; name a file with the PyTorchJob definition in ROBOLIFT_E2E_CRD"
        )
        # Too large for client-side apply, and older servers don't know every field of newer definitions.
        kubectl("create", "--validate=false", "-f", path)
    if "workflows.argoproj.io" not in known:
        kubectl("apply", "-f", str(Path(__file__).parent / "workflow-crd.yaml"))
    kubectl(
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd/pytorchjobs.kubeflow.org",
        "crd/workflows.argoproj.io",
    )


@pytest.fixture(scope="session")
def operator(api: client.ApiClient, namespace: str, definitions: None) -> Iterator[Operator | None]:
    """A small controller in the operator's place, None where the real one runs."""
    deployments = client.AppsV1Api(api).list_deployment_for_all_namespaces().items
    if any(deployment.metadata.name.startswith("training-operator") for deployment in deployments):
        yield None
        return
    started = Operator(api, namespace)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def release(
    helm: Tool, kubectl: Tool, namespace: str, images: dict[str, str], definitions: None
) -> Iterator[list[str]]:
    """The chart, installed as a release; yields what it was installed with.

    A server before 1.21 has no CronJob of batch/v1: there the reaper's schedule is left out, and its role is applied by
    hand so that it is tried all the same.
    """
    arguments = [f"--set=images.cpu={images['cpu']}", "--set=imagePullPolicy=IfNotPresent"]
    served = {resource["kind"] for resource in json.loads(kubectl("get", "--raw", "/apis/batch/v1"))["resources"]}
    role = ""
    if "CronJob" not in served:
        shown = (f"--show-only=templates/reaper/{name}.yaml" for name in ("role", "role-binding"))
        role = helm("template", RELEASE, str(CHART), "--namespace", namespace, *arguments, *shown)
        arguments.append("--set=reaper.enabled=false")
    helm("install", RELEASE, str(CHART), "--namespace", namespace, *arguments)
    if role:
        kubectl("apply", "-n", namespace, "-f", "-", stdin=role)
    yield arguments
    if role:
        kubectl("delete", "-n", namespace, "-f", "-", stdin=role)
    helm("uninstall", RELEASE, "--namespace", namespace, "--wait")
    kinds, mine = "all,role,rolebinding,sa,pvc,quota,networkpolicy", f"app.kubernetes.io/instance={RELEASE}"
    assert kubectl("get", kinds, "-n", namespace, "-o", "name", "-l", mine).split() == []


@pytest.fixture(scope="session")
def host(api: client.ApiClient) -> str:
    """Address of this machine as pods see it."""
    if told := os.environ.get("ROBOLIFT_E2E_HOST"):
        return told
    node = client.CoreV1Api(api).list_node().items[0]
    return next(str(a.address) for a in node.status.addresses if a.type == "InternalIP")


@pytest.fixture(scope="session")
def delete_job(api: client.ApiClient, namespace: str) -> Callable[[str], None]:
    def delete(name: str) -> None:
        try:
            client.CustomObjectsApi(api).delete_namespaced_custom_object(namespace=namespace, name=name, **PLACE)
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise

    return delete
