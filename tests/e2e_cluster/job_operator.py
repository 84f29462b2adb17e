"""A small controller that plays the Kubeflow training operator where none runs: PyTorchJobs become pods.

It does what the launcher relies on (training operator 1.9): pods named and labelled alike, PET_* variables, restart
policy ExitCode (128 and above is made anew, anything else fails the job), suspension, conditions in the status. What it
lacks: services (workers are told the master's address), gang scheduling, elastic jobs, back-off.
"""

from __future__ import annotations

import threading
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from robolift.launch import pytorchjob

PAUSE_S = 0.5
FIRST_RETRIED_CODE = 128
PLACE = {"group": "kubeflow.org", "version": "v1", "plural": "pytorchjobs"}


class Operator:
    """Runs the PyTorchJobs of one namespace until :meth:`stop`."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        """Start in a thread."""
        self.namespace = namespace
        self._objects, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        self._restarts: dict[str, int] = {}
        self._stop = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="operator", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and raise what went wrong meanwhile."""
        self._stop.set()
        self._thread.join(30)
        if self.error:
            raise self.error

    def restarts(self, job: str) -> int:
        """Return how many pods of a job were made anew."""
        return self._restarts.get(job, 0)

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_S):
            try:
                for job in self._objects.list_namespaced_custom_object(namespace=self.namespace, **PLACE)["items"]:
                    self._reconcile(job)
            except ApiException as error:
                if error.status not in (404, 409):  # it was deleted, or changed, in between
                    self.error = error
                    return

    def _reconcile(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        done = {"Succeeded", "Failed"} & set(conditions(job))
        if done or "deletionTimestamp" in job["metadata"]:
            return
        if job["spec"]["runPolicy"].get("suspend"):
            self._tell(job, "Suspended")
            return
        pods = {pod.metadata.name: pod for pod in self._pods(name)}
        for rank, (replica, number) in enumerate(wanted(job)):
            pod = pods.get(f"{name}-{replica.lower()}-{number}")
            if pod is None:
                if not self._create(job, replica, number, rank, pods):
                    return
            elif pod.status.phase == "Failed" and not self._failed(job, pod):
                return
        master = pods.get(f"{name}-master-0")
        if master is not None and master.status.phase == "Succeeded":
            self._tell(job, "Succeeded")
        elif master is not None and master.status.phase == "Running":
            self._tell(job, "Running")

    def _failed(self, job: dict[str, Any], pod: Any) -> bool:
        """Make a pod anew and return True, or fail the job and return False."""
        name = job["metadata"]["name"]
        statuses = pod.status.container_statuses or []
        code = next((s.state.terminated.exit_code for s in statuses if s.state.terminated), FIRST_RETRIED_CODE)
        if code < FIRST_RETRIED_CODE:
            self._tell(job, "Failed", f"{pod.metadata.name} ended with {code}")
            return False
        if pod.metadata.deletion_timestamp is None:
            self._restarts[name] = self.restarts(name) + 1
            self._core.delete_namespaced_pod(pod.metadata.name, self.namespace, grace_period_seconds=0)
            self._tell(job, "Restarting", f"{pod.metadata.name} ended with {code}")
        return True

    def _create(self, job: dict[str, Any], replica: str, number: int, rank: int, pods: dict[str, Any]) -> bool:
        """Create a pod; return False if it must wait for the master's address."""
        name, spec = job["metadata"]["name"], job["spec"]
        address: dict[str, Any] = {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        if rank:
            master = pods.get(f"{name}-master-0")
            if master is None or master.status.pod_ip is None:
                return False
            address = {"value": master.status.pod_ip}
        template = spec["pytorchReplicaSpecs"][replica]["template"]
        labels = {
            **template["metadata"]["labels"],
            "training.kubeflow.org/job-name": name,
            "training.kubeflow.org/replica-type": replica.lower(),
            "training.kubeflow.org/replica-index": str(number),
        }
        owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": name, "uid": job["metadata"]["uid"]}
        metadata = {
            "name": f"{name}-{replica.lower()}-{number}",
            "labels": labels,
            "annotations": template["metadata"].get("annotations", {}),
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        }
        container = template["spec"]["containers"][0]
        told = {
            "PET_NNODES": str(len(wanted(job))),
            "PET_NPROC_PER_NODE": spec["nprocPerNode"],
            "PET_NODE_RANK": str(rank),
            "PET_MASTER_PORT": str(pytorchjob.PORT),
        }
        variables = [{"name": key, "value": value} for key, value in told.items()]
        env = [*container["env"], *variables, {"name": "PET_MASTER_ADDR", **address}]
        pod = {
            "metadata": metadata,
            "spec": {**template["spec"], "restartPolicy": "Never", "containers": [{**container, "env": env}]},
        }
        self._core.create_namespaced_pod(self.namespace, pod)
        return True

    def _pods(self, name: str) -> list[Any]:
        return list(self._core.list_namespaced_pod(self.namespace, label_selector=pytorchjob.pods_selector(name)).items)

    def _tell(self, job: dict[str, Any], condition: str, message: str = "") -> None:
        if conditions(job) == [condition]:
            return
        # A message of some sort: servers before 1.21 take an empty one for null.
        told = {"type": condition, "status": "True", "reason": condition, "message": message or condition.lower()}
        status = {"conditions": [told]}
        self._objects.patch_namespaced_custom_object_status(
            namespace=self.namespace, name=job["metadata"]["name"], body={"status": status}, **PLACE
        )


def conditions(job: dict[str, Any]) -> list[str]:
    """Return the conditions that hold."""
    found = (job.get("status") or {}).get("conditions") or []
    return [condition["type"] for condition in found if condition["status"] == "True"]


def wanted(job: dict[str, Any]) -> list[tuple[str, int]]:
    """Return each pod's replica and number, by rank."""
    replicas = job["spec"]["pytorchReplicaSpecs"]
    return [
        (replica, number)
        for replica in ("Master", "Worker")
        for number in range(replicas.get(replica, {}).get("replicas", 0))
    ]
