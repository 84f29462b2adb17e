from __future__ import annotations

import argparse

import helm_python
import pytest
from rendered_chart import of_kind, render

from robolift.data.models import CACHE_VARIABLE
from robolift.policy.server import cli

MADE = {"enabled": True, "checkpoint": "s3://b/runs/train_policy/1"}


def deployment(values=None, base="gke"):
    return of_kind("Deployment", values, base=base)["rel-serve"]


def pod(values=None, base="gke"):
    return deployment(values, base)["spec"]["template"]["spec"]


def test_off_by_default():
    assert not [item for item in render() if item["metadata"]["name"].endswith("-serve")]


def test_the_service_finds_the_pods_of_the_deployment():
    service, labels = (
        of_kind("Service", base="none")["rel-serve"],
        deployment(base="none")["spec"]["template"]["metadata"]["labels"],
    )
    assert service["spec"]["selector"] == labels == deployment(base="none")["spec"]["selector"]["matchLabels"]
    assert labels["app.kubernetes.io/component"] == "serve"
    assert service["spec"]["ports"] == [{"name": "http", "port": 8000, "targetPort": "http"}]
    (container,) = pod(base="none")["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": 8000}]


def test_it_serves_the_named_policy_on_the_gpu_of_its_pool():
    spec = pod()
    (container,) = spec["containers"]
    assert container["image"] == "robolift-jax:0.1.0"
    assert container["command"] + container["args"] == [
        "python",
        "-m",
        "robolift",
        "serve",
        "--host=0.0.0.0",
        "--port=8000",
        "--checkpoint=gs://example-bucket/runs/train_policy/0123",
        "--prompt-label=as_sent",
        "--guidance=1.5",
        "--max-clients=16",
        "--hung-after-s=60",
        "--max-message-mib=16",
    ]
    assert spec["nodeSelector"] == {"cloud.google.com/compute-class": "spot"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert container["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": 1}
    assert deployment()["spec"]["strategy"] == {"type": "Recreate"}


def test_without_gpus_it_acts_on_a_cpu_and_the_new_pod_is_warm_before_the_old_one_goes():
    spec = pod(base="none")
    assert spec["nodeSelector"] == {"robolift.io/pool": "cpu"}
    assert "tolerations" not in spec
    assert spec["containers"][0]["resources"]["limits"] == {"memory": "4Gi"}
    assert deployment({"serve": MADE}, base="values")["spec"]["strategy"] == {"type": "RollingUpdate"}
    assert deployment({"modelCache": {"accessModes": ["ReadWriteMany"]}}, base="none")["spec"]["strategy"] == {
        "type": "RollingUpdate"
    }


def test_a_volume_that_one_node_alone_may_mount_is_left_by_the_old_pod_first():
    assert deployment(base="none")["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("base", ["gke", "none"])
def test_its_options_are_those_of_the_command(base):
    parser = argparse.ArgumentParser(exit_on_error=False)
    cli.add_arguments(parser)
    (container,) = pod(base=base)["containers"]
    told = parser.parse_args(container["args"])
    wanted = ("as_sent", 1.5) if base == "gke" else ("positive", 1.0)
    assert (told.host, told.port, told.prompt_label, told.guidance) == ("0.0.0.0", 8000, *wanted)


def test_it_is_ready_when_the_policy_is_warm_and_gets_the_time_for_it():
    (container,) = pod({"serve": {"startupSeconds": 605}})["containers"]
    asked = {"path": "/healthz", "port": "http"}
    assert container["startupProbe"] == {"httpGet": asked, "periodSeconds": 10, "failureThreshold": 61}
    assert container["readinessProbe"] == {"httpGet": asked, "periodSeconds": 10}


def test_a_policy_that_hangs_is_restarted():
    (container,) = pod({"serve": {"hungAfterSeconds": 30}})["containers"]
    assert "--hung-after-s=30" in container["args"]
    assert container["livenessProbe"] == {
        "httpGet": {"path": "/livez", "port": "http"},
        "periodSeconds": 20,
        "timeoutSeconds": 10,
        "failureThreshold": 3,
    }


def test_weights_stay_on_the_model_cache_or_in_a_bounded_tmp():
    spec = pod()
    (container,) = spec["containers"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "robolift-model-cache"}
    assert volumes["tmp"]["emptyDir"] == {"sizeLimit": "20Gi"}
    assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]} == {
        "tmp": "/tmp",
        "models": "/models",
    }
    assert {"name": CACHE_VARIABLE, "value": "/models"} in container["env"]
    without = pod({"serve": {**MADE, "scratchSize": "30Gi"}}, base="values")
    assert without["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": "30Gi"}}]
    assert "env" not in without["containers"][0]


@pytest.mark.parametrize(
    ("modes", "vllm", "cached"),
    [
        (["ReadWriteMany"], True, True),
        (["ReadWriteOnce"], True, False),
        (["ReadWriteOnce"], False, True),
        (["ReadOnlyMany"], False, False),
    ],
)
def test_a_cache_that_another_pod_may_hold_is_not_waited_for(modes, vllm, cached):
    changes = {"serve": MADE, "modelCache": {"enabled": True, "accessModes": modes}, "vllm": {"enabled": vllm}}
    names = [volume["name"] for volume in pod(changes)["volumes"]]
    assert ("models" in names) == cached


def test_it_reads_the_store_as_the_server():
    assert pod()["serviceAccountName"] == "robolift-server"
    names = [entry["name"] for entry in pod(base="none")["containers"][0]["env"]]
    assert names == [CACHE_VARIABLE, "AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY"]


def test_only_the_named_namespaces_and_addresses_reach_it():
    spec = of_kind("NetworkPolicy", base="none")["rel-serve"]["spec"]
    assert spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "serve"
    robots = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "robots"}}},
        {"ipBlock": {"cidr": "192.168.7.0/24"}},
    ]
    assert spec["ingress"] == [{"from": robots, "ports": [{"protocol": "TCP", "port": "http"}]}]
    nobody = of_kind("NetworkPolicy", {"serve": MADE, "networkPolicy": {"enabled": True}})["rel-serve"]["spec"]
    assert nobody["policyTypes"] == ["Ingress"]
    assert "ingress" not in nobody
    assert "rel-serve" not in of_kind("NetworkPolicy", {"serve": MADE})


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        ({"enabled": True}, "serve/checkpoint"),
        ({**MADE, "promptLabel": "best"}, "serve/promptLabel"),
        ({**MADE, "guidance": -1}, "serve/guidance"),
        ({**MADE, "maxClients": 0}, "serve/maxClients"),
        ({**MADE, "scratchSize": "much"}, "serve/scratchSize"),
        ({**MADE, "allowedCidrs": ["10.0.0.1"]}, "serve/allowedCidrs/0"),
        ({**MADE, "pool": "tpu"}, r"serve\.pool is tpu; pools has cpu, gpu"),
        ({**MADE, "gpus": 1}, r"serve\.gpus is 1; pool cpu has 0 GPUs on a node"),
    ],
)
def test_what_can_not_work_is_refused(serve, said):
    with pytest.raises((helm_python.HelmError, helm_python.HelmValuesError), match=said):
        render({"serve": serve})
