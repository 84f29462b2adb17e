"""What the builders make: fields against strict schemas, and the parts that decide how a job ends."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import referencing
from job_specs import NAME, SPEC, spec

from robolift.errors import UsageError
from robolift.launch import backends, job, pytorchjob, trainjob
from robolift.launch.spec import Launch, State, Status, job_labels, job_name

SCHEMAS = Path(__file__).parent / "schemas"
KUBERNETES = "1.33"
CHANGES = [
    {},
    {"nodes": 1},
    {"queue": "robolift", "workload_priority": "high"},
    {"env": [{"name": "AWS_REGION", "value": "eu-west-1"}], "socket_interface": "eth0"},
]


def validate_custom(manifest):
    """Check a custom object against our schema of the fields that we emit."""
    documents = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    registry = referencing.Registry().with_resources(
        (name, referencing.Resource.from_contents(document)) for name, document in documents.items()
    )
    schema = documents[f"{manifest['kind'].lower()}.json"]
    jsonschema.Draft202012Validator(schema, registry=registry).validate(manifest)


def validate_pod(template):
    """Check a pod template strictly, by the schema of the core kind that holds it."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", **template["metadata"]},
        "spec": template["spec"],
    }
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_every_field_that_is_emitted_exists(backend, changes):
    manifest = backends.find(backend).build(spec(backend, **changes))
    if backend == "job":
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    else:
        validate_custom(manifest)
    if backend == "pytorchjob":
        for replica in manifest["spec"]["pytorchReplicaSpecs"].values():
            validate_pod(replica["template"])
    for companion in backends.find(backend).companions(spec(backend, **changes)):
        kubernetes_validate.validate(companion, KUBERNETES, strict=True)


@pytest.mark.parametrize("path", [("spec", "runPolicy"), ("spec",), ("spec", "pytorchReplicaSpecs"), ("metadata",)])
def test_a_field_that_does_not_exist_is_seen(path):
    manifest = pytorchjob.build(spec())
    inner = manifest
    for step in path:
        inner = inner[step]
    inner["backofLimit"] = 3
    with pytest.raises(jsonschema.ValidationError):
        validate_custom(manifest)


def replicas(manifest):
    return {name: replica["replicas"] for name, replica in manifest["spec"]["pytorchReplicaSpecs"].items()}


def test_a_pytorchjob_has_one_master_and_the_rest_are_workers():
    manifest = pytorchjob.build(spec())
    assert replicas(manifest) == {"Master": 1, "Worker": 2}
    assert manifest["spec"]["nprocPerNode"] == "4"
    assert replicas(pytorchjob.build(spec(nodes=1))) == {"Master": 1}


def test_a_pytorchjob_makes_pods_anew_by_their_exit_code_and_keeps_their_logs():
    manifest = pytorchjob.build(spec())
    assert {r["restartPolicy"] for r in manifest["spec"]["pytorchReplicaSpecs"].values()} == {"ExitCode"}
    assert manifest["spec"]["runPolicy"] == {
        "cleanPodPolicy": "None",
        "activeDeadlineSeconds": 3600,
        "ttlSecondsAfterFinished": 600,
        "suspend": False,
    }


def test_a_plain_job_never_runs_a_user_s_error_or_a_defect_again():
    manifest = job.build(spec("job"))
    disrupted, failed = manifest["spec"]["podFailurePolicy"]["rules"]
    assert disrupted["action"] == "Ignore"
    assert failed["action"] == "FailJob"
    assert failed["onExitCodes"] == {"containerName": "main", "operator": "NotIn", "values": [137, 143]}
    assert manifest["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_pods_of_a_plain_job_meet_at_the_first_of_them():
    manifest = job.build(spec("job"))
    pod = manifest["spec"]["template"]["spec"]
    env = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert pod["subdomain"] == NAME
    assert (env["PET_MASTER_ADDR"], env["PET_MASTER_PORT"]) == (f"{NAME}-0.{NAME}", "23456")
    assert (env["PET_NNODES"], env["PET_NPROC_PER_NODE"]) == ("3", "4")
    (rank,) = [entry for entry in pod["containers"][0]["env"] if entry["name"] == "PET_NODE_RANK"]
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert rank["valueFrom"]["fieldRef"]["fieldPath"] == index
    (service,) = job.companions(spec("job"))
    assert service["metadata"]["name"] == NAME
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert job.companions(spec("job", nodes=1)) == []


def container(manifest):
    return manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]


def test_the_pod_may_do_nothing_but_train():
    template = pytorchjob.build(spec())["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    pod, main = template["spec"], template["spec"]["containers"][0]
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 10001,
    }
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "robolift-trainer"
    assert {v["name"]: v["emptyDir"] for v in pod["volumes"]} == {
        "dshm": {"medium": "Memory", "sizeLimit": "16Gi"},
        "tmp": {},
    }
    assert {m["mountPath"] for m in main["volumeMounts"]} == {"/dev/shm", "/tmp"}
    assert template["metadata"]["annotations"] == {
        "sidecar.istio.io/inject": "false",
        "karpenter.sh/do-not-disrupt": "true",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    }
    assert template["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"


def test_torchrun_has_less_time_to_save_than_the_pod():
    pod = pytorchjob.build(spec())["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    env = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert int(env["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < pod["terminationGracePeriodSeconds"] == 240


def test_resources_are_of_one_node_and_gpus_by_the_pool_s_name():
    assert container(pytorchjob.build(spec()))["resources"] == {
        "requests": {"cpu": "16", "memory": "128Gi", "nvidia.com/gpu": "4"},
        "limits": {"memory": "128Gi", "nvidia.com/gpu": "4"},
    }
    without = dataclasses.replace(spec(), gpus=0)
    assert "nvidia.com/gpu" not in container(pytorchjob.build(without))["resources"]["limits"]


def test_what_the_placement_file_says_reaches_the_pod():
    told = spec(
        env=[{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "AWS_REGION", "value": "eu-west-1"}],
        env_from=[{"secretRef": {"name": "store"}}],
        socket_interface="eth0",
        scheduler_name="volcano",
        priority_class="training",
    )
    manifest = pytorchjob.build(told)
    main = container(manifest)
    names = [entry["name"] for entry in main["env"]]
    env = {entry["name"]: entry["value"] for entry in main["env"]}
    assert len(names) == len(set(names))
    assert (env["NCCL_DEBUG"], env["AWS_REGION"], env["GLOO_SOCKET_IFNAME"]) == ("INFO", "eu-west-1", "eth0")
    assert main["envFrom"] == [{"secretRef": {"name": "store"}}]
    pod = manifest["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert (pod["schedulerName"], pod["priorityClassName"]) == ("volcano", "training")
    assert "NCCL_SOCKET_IFNAME" not in {entry["name"] for entry in container(pytorchjob.build(spec()))["env"]}


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_a_queued_job_waits_for_the_queue_to_start_it(backend):
    queued = backends.find(backend).build(spec(backend, queue="robolift", workload_priority="high"))
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "robolift"
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "high"
    holder = queued["spec"].get("runPolicy", queued["spec"])
    assert holder["suspend"] is True


@pytest.mark.parametrize("setting", ["env_from", "scheduler_name", "priority_class"])
def test_what_a_trainjob_cannot_say_is_refused(setting):
    value = [{"secretRef": {"name": "store"}}] if setting == "env_from" else "x"
    with pytest.raises(UsageError, match="a TrainJob has no such field"):
        trainjob.build(spec("trainjob", **{setting: value}))


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_the_digest_covers_what_is_asked_for_and_not_who_owns_it(backend):
    build = backends.find(backend).build

    def digest(told):
        return build(told)["metadata"]["annotations"]["robolift.io/spec-digest"]

    base = digest(spec(backend))
    assert digest(dataclasses.replace(spec(backend), owner=None)) == base
    assert digest(spec(backend, nodes=2)) != base
    assert digest(spec(backend, memory="64Gi")) != base
    assert build(spec(backend))["metadata"]["ownerReferences"] == [SPEC.owner]


def test_the_name_is_stable_short_and_a_dns_label():
    name = job_name("run", "train_value", "abc")
    assert name == job_name("run", "train_value", "abc")
    others = {job_name("run2", "train_value", "abc"), job_name("run", "train_value", "abd"), name}
    assert len(others) == 3
    long = job_name("r" * 80, "_A_very_long_stage_name_that_goes_on_and_on_", "f" * 16)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", long)
    assert len(long) <= 40


def test_labels_say_which_run_made_it():
    assert job_labels(stage="train_value", run_id="r", workflow="w") == {
        "app.kubernetes.io/name": "robolift",
        "app.kubernetes.io/managed-by": "robolift-launcher",
        "robolift.io/stage": "train_value",
        "robolift.io/run-id": "r",
        "robolift.io/workflow": "w",
    }
    assert "robolift.io/workflow" not in job_labels(stage="train_value", run_id="", workflow="")


@pytest.mark.parametrize(
    ("backend", "conditions", "state"),
    [
        ("pytorchjob", [], State.PENDING),
        ("pytorchjob", ["Created", "Running"], State.RUNNING),
        ("pytorchjob", ["Created", "Restarting"], State.RESTARTING),
        ("pytorchjob", ["Created", "Suspended"], State.SUSPENDED),
        ("pytorchjob", ["Running", "Succeeded"], State.SUCCEEDED),
        ("pytorchjob", ["Succeeded", "Failed"], State.FAILED),
        ("trainjob", ["Complete"], State.SUCCEEDED),
        ("trainjob", ["Failed"], State.FAILED),
        ("job", ["SuccessCriteriaMet", "Complete"], State.SUCCEEDED),
        ("job", ["FailureTarget"], State.FAILED),
        ("job", ["Suspended"], State.SUSPENDED),
    ],
)
def test_states(backend, conditions, state):
    found = [{"type": kind, "status": "True", "message": "m"} for kind in conditions]
    found.append({"type": "Failed", "status": "False"})
    expected = Status(state, "m" if conditions else "")
    assert backends.find(backend).state({"status": {"conditions": found}}) == expected


def test_a_job_without_conditions_runs_when_pods_do():
    assert job.state({"status": {"active": 2}}).state == State.RUNNING
    assert trainjob.state({"status": {"jobsStatus": [{"name": "node", "active": 1}]}}).state == State.RUNNING
    assert job.state({}).state == trainjob.state({}).state == State.PENDING


def test_an_unknown_backend_is_named():
    with pytest.raises(UsageError, match=r"no backend 'mpi'; there are: pytorchjob, trainjob, job, process"):
        backends.find("mpi")


def test_a_launch_parameter_survives_the_pipeline_s_floats():
    document = json.loads(json.dumps(dataclasses.asdict(spec().launch), default=str))
    document["active_deadline_s"] = 3600.0
    document["placement"]["gpus"] = 8.0
    assert Launch.from_dict(document) == spec().launch
    with pytest.raises(UsageError, match=r"launch.placement.pools: "):
        Launch.from_dict({**document, "placement": {**document["placement"], "pools": 1}})
