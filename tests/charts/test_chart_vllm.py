from __future__ import annotations

import helm_python
import pytest
from rendered_chart import of_kind, render

MADE = {"enabled": True, "image": "registry.example/vllm:1", "model": "nvidia/Cosmos-Reason2-8B"}


def deployment(values=None, base="gke"):
    return of_kind("Deployment", values, base=base)["rel-vllm"]["spec"]["template"]


def test_off_by_default():
    assert not [item for item in render() if "vllm" in item["metadata"]["name"]]


def test_the_service_finds_the_pods_of_the_deployment():
    service, labels = of_kind("Service", base="gke")["rel-vllm"], deployment()["metadata"]["labels"]
    assert service["spec"]["selector"] == labels
    assert labels["app.kubernetes.io/component"] == "vllm"
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    (port,) = deployment()["spec"]["containers"][0]["ports"]
    assert port == {"name": "http", "containerPort": 8000}


def test_it_serves_the_model_under_its_name_on_the_gpus_of_its_pool():
    spec = deployment()["spec"]
    (container,) = spec["containers"]
    assert container["command"] + container["args"] == [
        "vllm",
        "serve",
        "nvidia/Cosmos-Reason2-8B",
        "--host=0.0.0.0",
        "--port=8000",
        "--served-model-name=cosmos-reason2-8b",
        "--tensor-parallel-size=1",
        "--max-model-len=32768",
        '--limit-mm-per-prompt={"image": 64}',
    ]
    assert container["image"] == "registry.example/vllm-openai:0.14.0"
    assert spec["nodeSelector"] == {"cloud.google.com/compute-class": "spot"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert container["resources"] == {
        "requests": {"cpu": "4", "memory": "32Gi"},
        "limits": {"memory": "64Gi", "nvidia.com/gpu": 1},
    }
    assert spec["serviceAccountName"] == "robolift-server"


def test_it_is_ready_when_the_model_is_loaded_and_gets_the_time_for_it():
    (container,) = deployment({"vllm": {"startupSeconds": 605}})["spec"]["containers"]
    asked = {"path": "/health", "port": "http"}
    assert container["startupProbe"] == {"httpGet": asked, "periodSeconds": 10, "failureThreshold": 61}
    assert container["readinessProbe"] == {"httpGet": asked, "periodSeconds": 10}


def test_it_is_started_anew_when_it_gave_no_sign_of_life_for_five_minutes():
    (container,) = deployment()["spec"]["containers"]
    assert container["livenessProbe"] == {
        "httpGet": {"path": "/health", "port": "http"},
        "periodSeconds": 30,
        "timeoutSeconds": 10,
        "failureThreshold": 10,
    }


def test_the_token_comes_from_a_secret_and_the_weights_stay_on_the_model_cache():
    spec = deployment()["spec"]
    (container,) = spec["containers"]
    env = {entry["name"]: entry for entry in container["env"]}
    assert env["VLLM_API_KEY"]["valueFrom"] == {"secretKeyRef": {"name": "robolift-vllm", "key": "token"}}
    assert env["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert env["HF_HOME"]["value"] == "/models"
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "robolift-model-cache"}
    assert volumes["dshm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"tmp": "/tmp", "models": "/models", "dshm": "/dev/shm"}


def test_without_token_and_cache_it_has_neither():
    spec = deployment({"vllm": MADE}, base="values")["spec"]
    assert "VLLM_API_KEY" not in [entry["name"] for entry in spec["containers"][0]["env"]]
    assert {"name": "models", "emptyDir": {}} in spec["volumes"]
    assert "--served-model-name=nvidia/Cosmos-Reason2-8B" in spec["containers"][0]["args"]


def test_only_steps_reach_it_here_and_in_the_namespaces_that_are_named():
    policy = of_kind("NetworkPolicy", base="gke")["rel-vllm"]["spec"]
    assert policy["podSelector"]["matchLabels"] == deployment()["metadata"]["labels"]
    assert policy["policyTypes"] == ["Ingress"]
    steps = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "robolift"}}}
    team = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "team-a"}}}
    assert policy["ingress"] == [{"from": [steps, {**team, **steps}], "ports": [{"protocol": "TCP", "port": "http"}]}]
    without = {"networkPolicy": {"enabled": False}, "review": {"enabled": False}}
    assert "rel-vllm" not in of_kind("NetworkPolicy", without, base="gke")


@pytest.mark.parametrize(
    ("vllm", "said"),
    [
        ({"enabled": True, "model": "m"}, "vllm/image"),
        ({"enabled": True, "image": "i"}, "vllm/model"),
        ({**MADE, "pool": "tpu"}, r"vllm\.pool is tpu; pools has cpu, gpu"),
        ({**MADE, "pool": "cpu"}, r"vllm\.gpus is 1; pool cpu has 0 GPUs on a node"),
        ({**MADE, "gpus": 2}, r"vllm\.gpus is 2; pool gpu has 1 GPUs on a node"),
        ({**MADE, "token": "secret"}, "token"),
    ],
)
def test_what_can_not_work_is_refused(vllm, said):
    with pytest.raises((helm_python.HelmError, helm_python.HelmValuesError), match=said):
        render({"vllm": vllm})
