"""What k8s/ builds to, by kubectl's own kustomize."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from rendered_chart import KUBERNETES, ROOT, of_kind, render, validate

K8S = ROOT / "k8s"
TARGETS = sorted(str(path.parent.relative_to(K8S)) for path in K8S.rglob("kustomization.yaml"))
TOOLS = Path(sys.prefix) / "tools" / "kubectl"
KUBECTL = shutil.which("kubectl") or (str(TOOLS) if TOOLS.exists() else None)


def build(target):
    if KUBECTL is None:
        pytest.skip("no kubectl on this machine; `make chart` fetches one into the environment")
    out = subprocess.run(
        [KUBECTL, "kustomize", str(K8S / target)], check=False, capture_output=True, text=True, timeout=60
    )
    assert out.returncode == 0, out.stderr
    return {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(out.stdout)}


def versions():
    lines = (K8S / "versions.env").read_text().splitlines()
    return dict(line.split("=") for line in lines if line and not line.startswith("#"))


def test_there_is_a_target_for_each_kind_of_cluster():
    assert {"base", "base/kueue", "base/training-runtime", "overlays/eks", "overlays/gke", "overlays/kind"} == set(
        TARGETS
    )


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_builds_to_valid_objects(target):
    built = build(target)
    assert built
    for item in built.values():
        validate(item)


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_comes_over_the_network(target):
    text = (K8S / target / "kustomization.yaml").read_text()
    assert "github.com" not in text
    assert "https://" not in text


@pytest.mark.parametrize(
    ("target", "root", "provider"),
    [("overlays/gke", "gs://example-bucket/kfp", "gs"), ("overlays/eks", "s3://example-bucket/kfp", "s3")],
)
def test_in_a_cloud_artifacts_go_to_its_store_by_the_accounts_identity(target, root, provider):
    data = build(target)[("ConfigMap", "kfp-launcher")]["data"]
    assert data["defaultPipelineRoot"] == root
    assert yaml.safe_load(data["providers"])[provider]["default"]["credentials"] == {"fromEnv": True}


def test_on_kind_artifacts_and_keys_are_those_of_the_store_inside():
    built = build("overlays/kind")
    assert built[("ConfigMap", "kfp-launcher")]["data"] == {"defaultPipelineRoot": "minio://mlpipeline/v2/artifacts"}
    assert sorted(built[("Secret", "object-store")]["data"]) == [
        "AWS_ACCESS_KEY_ID",
        "AWS_ENDPOINT_URL",
        "AWS_SECRET_ACCESS_KEY",
    ]


def test_kueue_looks_after_pytorchjobs_and_gives_up_half_a_gang():
    config = build("base/kueue")[("ConfigMap", "kueue-manager-config")]
    assert config["metadata"]["namespace"] == "kueue-system"
    parsed = yaml.safe_load(config["data"]["controller_manager_config.yaml"])
    assert parsed["apiVersion"] == "config.kueue.x-k8s.io/v1beta2"
    assert {"kubeflow.org/pytorchjob", "trainer.kubeflow.org/trainjob", "batch/job", "pod"} <= set(
        parsed["integrations"]["frameworks"]
    )
    assert parsed["waitForPodsReady"]["timeout"] == "20m"


def runtime_job():
    runtime = build("base/training-runtime")[("TrainingRuntime", "robolift")]
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    return runtime, node["template"]["spec"]


def test_the_job_inside_the_training_runtime_is_a_job_to_kubernetes():
    _, spec = runtime_job()
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": spec}
    for version in KUBERNETES:
        kubernetes_validate.validate(job, version, strict=True)
    broken = copy.deepcopy(job)
    broken["spec"]["template"]["spec"]["containers"][0]["tpyo"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES[-1], strict=True)


def test_only_a_pod_that_was_stopped_starts_a_trainjob_again_and_then_all_of_it():
    runtime, spec = runtime_job()
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "node", "operator": "NotIn", "values": [137, 143]},
    }
    # Kubernetes takes a podFailurePolicy only with this restart policy.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["backoffLimit"] == 0
    policy = runtime["spec"]["template"]["spec"]["failurePolicy"]
    assert policy["rules"] == [{"name": "defect", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
    assert policy["maxRestarts"] == 20


def test_the_training_runtime_runs_as_the_charts_trainer_without_privileges():
    _, spec = runtime_job()
    pod = spec["template"]["spec"]
    assert pod["serviceAccountName"] in of_kind("ServiceAccount")
    assert pod["securityContext"]["runAsUser"] == 10001
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", "/dev/shm"}
    selector = of_kind("NetworkPolicy", base="gke")["rel-training"]["spec"]["podSelector"]["matchLabels"]
    assert selector.items() <= spec["template"]["metadata"]["labels"].items()


def test_a_misspelt_field_of_the_training_runtime_is_noticed():
    runtime, _ = runtime_job()
    runtime["spec"]["mlPolicy"]["tpyo"] = 1
    with pytest.raises(jsonschema.ValidationError):
        validate(runtime)


def kind_values():
    return yaml.safe_load((K8S / "overlays/kind/values.yaml").read_text())


def test_the_values_for_kind_are_the_charts_and_render_valid_objects():
    for item in render(kind_values()):
        validate(item)


def test_kind_has_a_node_with_the_label_and_taint_of_each_pool():
    cluster = yaml.safe_load((K8S / "overlays/kind/cluster.yaml").read_text())
    nodes = {}
    for node in cluster["nodes"]:
        if node["role"] == "worker":
            patches = [yaml.safe_load(patch) for patch in node.get("kubeadmConfigPatches", [])]
            taints = [taint for patch in patches for taint in patch["nodeRegistration"]["taints"]]
            nodes[node["labels"]["robolift.io/pool"]] = taints
    pools = kind_values()["pools"]
    assert nodes == {
        pool["name"]: [{"key": "robolift.io/pool", "value": pool["name"], "effect": "NoSchedule"}] * pool["taint"]
        for pool in pools
    }


def test_the_secret_that_the_kind_values_name_is_the_overlays():
    built = build("overlays/kind")
    for entry in kind_values()["storage"]["env"]:
        source = entry["valueFrom"]["secretKeyRef"]
        assert source["key"] == entry["name"]
        assert source["key"] in built[("Secret", source["name"])]["data"]


def test_the_installed_kubeflow_is_the_one_the_client_is_made_for():
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"kfp=={versions()['KFP_VERSION']}" in pins


def test_kueue_is_older_than_the_release_that_drops_pytorchjob():
    assert tuple(map(int, versions()["KUEUE_VERSION"].split(".")[:2])) < (0, 20)
