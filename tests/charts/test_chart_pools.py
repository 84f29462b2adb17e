from __future__ import annotations

import pytest
import yaml
from rendered_chart import CHART, VALUES_FILES, of_kind, render

from components import _resources

GPU = {"name": "gpu", "gpus": 2, "gpuResource": "nvidia.com/gpu", "accelerator": "nvidia-l4", "maxNodes": 3}
ON_GKE = {"provider": "gke", "pools": [GPU], "policyTrainer": {"pool": "gpu"}}
NODE_CLASS = {"nodeClass": {"role": "nodes", "discovery": "robots"}}
ON_EKS = {"provider": "karpenter", "pools": [{**GPU, "accelerator": "l4"}], "karpenter": NODE_CLASS}


def test_without_a_provider_nobody_makes_nodes():
    kinds = {item["kind"] for item in render()}
    assert not kinds & {"ComputeClass", "ContainerNodePool", "NodePool", "EC2NodeClass"}


@pytest.mark.parametrize("base", ["gke", "gke-node-pools"])
def test_gke_gets_a_compute_class_a_pool_that_never_moves_running_work(base):
    classes = of_kind("ComputeClass", base=base)
    assert sorted(classes) == sorted(pool["name"] for pool in VALUES_FILES[base]["pools"])
    assert all(item["spec"]["activeMigration"] == {"optimizeRulePriority": False} for item in classes.values())


def test_a_compute_class_tries_own_rules_then_machine_types_in_order():
    spec = of_kind("ComputeClass", base="gke")["gpu"]["spec"]
    assert [rule.get("reservations", {}).get("affinity") for rule in spec["priorities"]] == ["Specific", None]
    spot = of_kind("ComputeClass", base="gke")["spot"]["spec"]["priorities"]
    gpu = {"type": "nvidia-l4", "count": 1, "driverVersion": "latest"}
    assert spot == [
        {"spot": True, "machineType": "g2-standard-16", "gpu": gpu},
        {"spot": True, "machineType": "g2-standard-12", "gpu": gpu},
    ]


def test_without_machine_types_gke_chooses_by_gpu_or_family():
    assert of_kind("ComputeClass", ON_GKE)["gpu"]["spec"]["priorities"] == [
        {"spot": False, "gpu": {"type": "nvidia-l4", "count": 2, "driverVersion": "latest"}}
    ]
    cpu = of_kind("ComputeClass", base="gke")["cpu"]["spec"]["priorities"]
    assert cpu == [{"spot": False, "machineFamily": "n2"}]


def test_a_tainted_pool_of_gke_carries_our_taint_and_label():
    config = of_kind("ComputeClass", base="gke")["gpu"]["spec"]["nodePoolConfig"]
    assert config["taints"] == [{"key": "robolift.io/pool", "value": "gpu", "effect": "NoSchedule"}]
    assert config["nodeLabels"] == {"robolift.io/pool": "gpu"}
    assert "taints" not in of_kind("ComputeClass", base="gke")["cpu"]["spec"]["nodePoolConfig"]


def test_config_connector_makes_node_pools_that_outlive_the_chart():
    pool = of_kind("ContainerNodePool", base="gke-node-pools")["robolift-gpu"]
    assert pool["metadata"]["annotations"]["cnrm.cloud.google.com/deletion-policy"] == "abandon"
    spec = pool["spec"]
    assert spec["clusterRef"] == {"external": "robots"}
    assert spec["autoscaling"] == {"totalMinNodeCount": 0, "totalMaxNodeCount": 4, "locationPolicy": "ANY"}
    assert spec["nodeConfig"]["labels"] == {"cloud.google.com/compute-class": "gpu", "robolift.io/pool": "gpu"}
    assert [taint["key"] for taint in spec["nodeConfig"]["taint"]] == [
        "cloud.google.com/compute-class",
        "robolift.io/pool",
    ]
    assert spec["nodeConfig"]["guestAccelerator"][0]["count"] == 1
    compute_class = of_kind("ComputeClass", base="gke-node-pools")["gpu"]["spec"]
    assert compute_class["nodePoolAutoCreation"] == {"enabled": False}
    assert compute_class["priorities"] == [{"nodepools": ["robolift-gpu"]}]


def requirements(pool):
    return {item["key"]: item["values"] for item in pool["spec"]["template"]["spec"]["requirements"]}


def test_karpenter_gets_a_node_pool_a_pool_that_only_an_empty_node_leaves():
    pools = of_kind("NodePool", ON_EKS | {"policyTrainer": {"pool": "gpu"}})
    spec = pools["robolift-gpu"]["spec"]
    assert spec["disruption"]["consolidationPolicy"] == "WhenEmpty"
    assert spec["template"]["metadata"]["labels"] == {"robolift.io/pool": "gpu"}
    assert spec["limits"] == {"nodes": 3, "nvidia.com/gpu": 6}
    assert requirements(pools["robolift-gpu"]) == {
        "kubernetes.io/arch": ["amd64"],
        "kubernetes.io/os": ["linux"],
        "karpenter.sh/capacity-type": ["on-demand"],
        "karpenter.k8s.aws/instance-gpu-name": ["l4"],
        "karpenter.k8s.aws/instance-gpu-count": ["2"],
    }


def test_karpenter_nodes_carry_the_gpus_taint_and_ours():
    taints = of_kind("NodePool", base="eks")["robolift-gpu"]["spec"]["template"]["spec"]["taints"]
    assert taints == [
        {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"},
        {"key": "robolift.io/pool", "value": "gpu", "effect": "NoSchedule"},
    ]
    assert "taints" not in of_kind("NodePool", base="eks")["robolift-cpu"]["spec"]["template"]["spec"]


def test_spot_and_machine_types_are_requirements():
    pools = of_kind("NodePool", base="eks")
    assert requirements(pools["robolift-spot"])["karpenter.sh/capacity-type"] == ["spot"]
    assert requirements(pools["robolift-gpu"])["node.kubernetes.io/instance-type"] == ["p5.48xlarge"]
    assert requirements(pools["robolift-cpu"])["karpenter.k8s.aws/instance-category"] == ["c", "m", "r"]


def test_the_node_class_finds_subnets_and_groups_by_the_clusters_tag():
    spec = of_kind("EC2NodeClass", base="eks")["robolift"]["spec"]
    terms = [{"tags": {"karpenter.sh/discovery": "example"}}]
    assert spec["subnetSelectorTerms"] == spec["securityGroupSelectorTerms"] == terms
    assert spec["amiSelectorTerms"] == [{"alias": "al2023@v20260801"}]
    assert spec["role"] == "KarpenterNodeRole-example"


def test_a_node_class_of_somebody_else_is_named_and_not_made():
    values = {"karpenter": {"nodeClass": {"create": False, "name": "theirs", "role": "", "discovery": ""}}}
    assert of_kind("EC2NodeClass", values, base="eks") == {}
    pool = of_kind("NodePool", values, base="eks")["robolift-gpu"]
    assert pool["spec"]["template"]["spec"]["nodeClassRef"]["name"] == "theirs"


def test_what_a_pool_leaves_out_has_a_default():
    values = ON_EKS | {"pools": [{"name": "gpu", "gpus": 1}], "policyTrainer": {"pool": "gpu"}}
    pool = of_kind("NodePool", values)["robolift-gpu"]["spec"]
    assert pool["limits"] == {"nodes": 8, "nvidia.com/gpu": 8}
    assert [taint["key"] for taint in pool["template"]["spec"]["taints"]] == ["nvidia.com/gpu", "robolift.io/pool"]


def test_the_pools_that_stages_are_sized_for_exist():
    pools = {pool["name"] for pool in yaml.safe_load((CHART / "values.yaml").read_text())["pools"]}
    # A size's pool, or what it is named after until sizes name a pool.
    used = {getattr(size, "pool", name.split(".")[0]) for name, size in _resources.SIZES.items()}
    assert used <= pools


@pytest.mark.parametrize("base", VALUES_FILES)
def test_a_pod_that_a_pipeline_places_on_a_pool_fits_the_nodes_that_the_chart_makes(base, monkeypatch):
    placement = pytest.importorskip("components._pools", reason="pipelines don't place by pool yet")
    site = CHART / ("values.yaml" if base == "values" else f"ci/{base}-values.yaml")
    monkeypatch.setenv("ROBOLIFT_VALUES", str(site))
    flavors = of_kind("ResourceFlavor", {"kueue": {"enabled": True}}, base=base)
    for name in placement.pools():
        spec = flavors[f"robolift-{name}"]["spec"]
        placed = placement.placement(name)
        assert placed.node_selector == spec["nodeLabels"]
        assert placed.tolerations == spec.get("tolerations", [])
