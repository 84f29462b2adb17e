"""The launcher against a real API server, as the account that the chart gives it."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster_tools import Tool, wait_until
from job_operator import PLACE, Operator
from kubernetes import client, config

from robolift.errors import EXIT_DATA, UsageError
from robolift.launch import pytorchjob
from robolift.launch.cluster import WORKFLOWS, Cluster
from robolift.launch.reaper import Limits, reap
from robolift.launch.spec import JobSpec, Launch, Placement, job_labels, job_name
from robolift.launch.watch import JobFailedError, Patience, run_job

pytestmark = pytest.mark.cluster

HASTE = Patience(watch=5.0, deletion=120.0, slack=60.0, log=15.0, log_pause=0.5)


@pytest.fixture(scope="module")
def cluster(kubeconfig: str, namespace: str, release: list[str], operator: Operator | None) -> Cluster:
    """The namespace as the launcher's account sees it: the server enforces what the chart allows it."""
    api = config.new_client_from_config(kubeconfig)
    api.set_default_header("Impersonate-User", f"system:serviceaccount:{namespace}:robolift-launcher")
    return Cluster(api, namespace)


@pytest.fixture(scope="module")
def any_node(kubectl: Tool) -> Iterator[dict[str, str]]:
    """A label that the first real node carries while the module runs, as the pool of its jobs."""
    node = kubectl("get", "nodes", "-o", "name").split()[0]
    kubectl("label", node, "robolift.io/pool=robolift-e2e", "--overwrite")
    yield {"robolift.io/pool": "robolift-e2e"}
    kubectl("label", node, "robolift.io/pool-")


@pytest.fixture
def spec(namespace: str, images: dict[str, str], any_node: dict[str, str], request: Any) -> JobSpec:
    return make_spec(namespace, images["cpu"], any_node, run=request.node.name)


def make_spec(namespace: str, image: str, node_selector: dict[str, str], *, run: str, code: str = "") -> JobSpec:
    launch = Launch(
        backend="pytorchjob",
        image=image,
        placement=Placement(pool="robolift-e2e", node_selector=node_selector, tolerations=[]),
        cpu="100m",
        memory="256Mi",
        shared_memory="64Mi",
        active_deadline_s=300,
        ttl_s=3600,
        service_account="robolift-trainer",
    )
    text = code or "import os; print('rank', os.environ['PET_NODE_RANK'], 'of', os.environ['PET_NNODES'])"
    return JobSpec(
        name=job_name(run, "train_value", "0" * 16),
        namespace=namespace,
        stage="train_value",
        command=("python", "-c", text),
        nodes=2,
        gpus=0,
        launch=launch,
        labels=job_labels(stage="train_value", run_id="e2e", workflow=""),
    )


def having(spec: JobSpec, code: str, **changes: Any) -> JobSpec:
    return dataclasses.replace(spec, command=("python", "-c", code), **changes)


@pytest.fixture(autouse=True)
def clean(spec: JobSpec, delete_job: Callable[[str], None]) -> Iterator[None]:
    yield
    delete_job(spec.name)


def read(api: client.ApiClient, spec: JobSpec) -> dict[str, Any]:
    found = client.CustomObjectsApi(api).get_namespaced_custom_object(namespace=spec.namespace, name=spec.name, **PLACE)
    return dict(found)


def test_a_job_of_two_pods_runs_and_its_master_s_log_is_told(cluster: Cluster, spec: JobSpec) -> None:
    lines: list[str] = []
    run_job(cluster, spec, patience=HASTE, say=lines.append)
    assert f"[{spec.name}] rank 0 of 2" in lines
    # The master's end is the job's; the worker has nothing to wait for and follows.
    selector = pytorchjob.pods_selector(spec.name)
    both = ["Succeeded", "Succeeded"]
    wait_until(lambda: [pod["status"]["phase"] for pod in cluster.pods(selector)] == both, "the end of both pods")


def test_the_server_knows_the_schema_of_what_is_built(cluster: Cluster, spec: JobSpec) -> None:
    wrong = pytorchjob.build(spec)
    wrong["spec"]["pytorchReplicaSpecs"]["Master"]["replicas"] = "one"
    with pytest.raises(UsageError, match=r"spec\.pytorchReplicaSpecs\.Master\.replicas"):
        cluster.create(pytorchjob.RESOURCE, wrong)


def test_a_pod_s_data_error_is_the_job_s_and_its_last_lines_are_told(cluster: Cluster, spec: JobSpec) -> None:
    lines: list[str] = []
    with pytest.raises(JobFailedError, match=r"exit code 65") as failed:
        run_job(
            cluster, having(spec, "print('no such column'); raise SystemExit(65)"), patience=HASTE, say=lines.append
        )
    assert failed.value.exit_code == EXIT_DATA
    assert any("no such column" in line for line in lines)


def test_a_pod_that_was_stopped_is_made_anew(
    cluster: Cluster, spec: JobSpec, operator: Operator | None, api: Any
) -> None:
    # The first pod of each rank ends as if its node had been taken away; the next one finds the mark and succeeds.
    code = (
        "import os, socket, time\n"
        "start = float(os.environ['STARTED'])\n"
        "raise SystemExit(143 if time.time() - start < 20 else 0)"
    )
    launch = dataclasses.replace(spec.launch, env=[{"name": "STARTED", "value": str(time.time())}])
    run_job(cluster, having(spec, code, launch=launch), patience=HASTE, say=lambda _: None)
    if operator is not None:
        assert operator.restarts(spec.name) >= 2


LAUNCHER = """
import sys
from kubernetes import config
from test_jobs_on_cluster import HASTE, having, make_spec
from robolift.launch.cluster import Cluster
from robolift.launch.watch import run_job
kubeconfig, namespace, image, run, code = sys.argv[1:]
spec = having(make_spec(namespace, image, {"robolift.io/pool": "robolift-e2e"}, run=run), code)
run_job(Cluster(config.new_client_from_config(kubeconfig), namespace), spec, patience=HASTE)
"""


def test_a_launcher_that_was_killed_finds_its_job_again(
    cluster: Cluster, spec: JobSpec, kubeconfig: str, images: dict[str, str], api: Any, request: Any
) -> None:
    code = "import time; time.sleep(25); print('still here')"
    arguments = [kubeconfig, spec.namespace, images["cpu"], request.node.name, code]
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.path.join(here, "..", "..")])}
    first = subprocess.Popen([sys.executable, "-c", LAUNCHER, *arguments], env=environment)
    wait_until(lambda: cluster.get(pytorchjob.RESOURCE, spec.name), "the job is created", 60)
    before = read(api, spec)["metadata"]["uid"]
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    lines: list[str] = []
    run_job(cluster, having(spec, code), patience=HASTE, say=lines.append)
    assert read(api, spec)["metadata"]["uid"] == before
    assert f"[{spec.name}] still here" in lines
    with pytest.raises(UsageError, match="there is another job of this name"):
        run_job(cluster, having(spec, "print('something else')"), patience=HASTE)


def test_a_job_goes_with_the_run_that_owns_it(
    cluster: Cluster, spec: JobSpec, api: client.ApiClient, namespace: str
) -> None:
    objects = client.CustomObjectsApi(api)
    place = {"group": WORKFLOWS.group, "version": WORKFLOWS.version, "plural": WORKFLOWS.plural, "namespace": namespace}
    kind = f"{WORKFLOWS.group}/{WORKFLOWS.version}"
    objects.create_namespaced_custom_object(
        body={"apiVersion": kind, "kind": "Workflow", "metadata": {"name": "run-e2e"}, "spec": {}}, **place
    )
    owned = having(spec, "import time; time.sleep(600)", owner=cluster.workflow_owner("run-e2e"))
    cluster.create(pytorchjob.RESOURCE, pytorchjob.build(owned))
    pods = pytorchjob.pods_selector(spec.name)
    wait_until(lambda: cluster.pods(pods), "pods of the job")
    objects.delete_namespaced_custom_object(name="run-e2e", **place)
    wait_until(lambda: cluster.get(pytorchjob.RESOURCE, spec.name) is None, "the job is collected")


def test_the_reaper_deletes_the_job_of_a_run_that_is_gone_and_no_other(
    cluster: Cluster, spec: JobSpec, kubeconfig: str, namespace: str, delete_job: Callable[[str], None]
) -> None:
    api = config.new_client_from_config(kubeconfig)
    api.set_default_header("Impersonate-User", f"system:serviceaccount:{namespace}:robolift-reaper")
    idle = "import time; time.sleep(600)"
    orphan = having(spec, idle, labels=job_labels(stage="train_value", run_id="e2e", workflow="gone"))
    by_hand = having(
        spec, idle, name=f"{spec.name}-b", labels=job_labels(stage="train_value", run_id="e2e", workflow="")
    )
    for one in (orphan, by_hand):
        cluster.create(pytorchjob.RESOURCE, pytorchjob.build(one))
    reaper_of = client.CustomObjectsApi(api)
    assert reap(reaper_of, namespace, Limits(grace_period_s=0), dry_run=True).deleted == 1
    assert cluster.get(pytorchjob.RESOURCE, orphan.name) is not None
    assert reap(reaper_of, namespace, Limits(grace_period_s=3600)).deleted == 0
    assert reap(reaper_of, namespace, Limits(grace_period_s=0)).deleted == 1
    wait_until(lambda: cluster.get(pytorchjob.RESOURCE, orphan.name) is None, "the orphan is deleted")
    assert cluster.get(pytorchjob.RESOURCE, by_hand.name) is not None
    delete_job(by_hand.name)
