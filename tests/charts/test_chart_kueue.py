from __future__ import annotations

from rendered_chart import of_kind, render

ON = {"kueue": {"enabled": True}}


def quotas(queue):
    (group,) = queue["spec"]["resourceGroups"]
    return {f["name"]: {r["name"]: r["nominalQuota"] for r in f["resources"]} for f in group["flavors"]}


def test_off_by_default():
    assert not [item for item in render() if item["apiVersion"].startswith("kueue")]


def test_a_flavor_a_pool_with_the_label_taints_and_tolerations_of_its_nodes():
    flavors = of_kind("ResourceFlavor", ON)
    assert sorted(flavors) == ["robolift-cpu", "robolift-gpu"]
    assert flavors["robolift-cpu"]["spec"] == {"nodeLabels": {"robolift.io/pool": "cpu"}}
    assert flavors["robolift-gpu"]["spec"] == {
        "nodeLabels": {"robolift.io/pool": "gpu"},
        "nodeTaints": [
            {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"},
            {"key": "robolift.io/pool", "value": "gpu", "effect": "NoSchedule"},
        ],
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "robolift.io/pool", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
        ],
    }


def test_on_gke_a_flavor_selects_by_compute_class():
    spec = of_kind("ResourceFlavor", base="gke")["robolift-gpu"]["spec"]
    assert spec["nodeLabels"] == {"cloud.google.com/compute-class": "gpu"}
    assert spec["tolerations"][-1] == {
        "key": "cloud.google.com/compute-class",
        "operator": "Equal",
        "value": "gpu",
        "effect": "NoSchedule",
    }


def test_the_gpu_quota_is_what_the_pools_nodes_have():
    assert quotas(of_kind("ClusterQueue", base="gke")["robolift"]) == {
        "robolift-cpu": {"cpu": "100k", "memory": "1Pi", "nvidia.com/gpu": "0"},
        "robolift-gpu": {"cpu": "100k", "memory": "1Pi", "nvidia.com/gpu": "32"},
        "robolift-spot": {"cpu": "100k", "memory": "1Pi", "nvidia.com/gpu": "8"},
    }


def test_a_quota_that_is_given_wins():
    assert quotas(of_kind("ClusterQueue", base="none")["robolift"])["robolift-cpu"] == {"cpu": "16", "memory": "64Gi"}


def test_a_quota_of_0_is_a_quota():
    given = {"gpu": {"nvidia.com/gpu": 0, "cpu": "0"}, "cpu": {"memory": 0}}
    assert quotas(of_kind("ClusterQueue", {"kueue": {"enabled": True, "quotas": given}})["robolift"]) == {
        "robolift-cpu": {"cpu": "100k", "memory": "0", "nvidia.com/gpu": "0"},
        "robolift-gpu": {"cpu": "0", "memory": "1Pi", "nvidia.com/gpu": "0"},
    }


def test_two_gpu_resources_are_both_covered_and_belong_to_their_pools():
    pools = [
        {"name": "cpu", "gpus": 0},
        {"name": "gpu", "gpus": 8, "gpuResource": "nvidia.com/gpu", "maxNodes": 2},
        {"name": "slice", "gpus": 7, "gpuResource": "nvidia.com/mig-1g.10gb", "maxNodes": 1},
    ]
    queue = of_kind("ClusterQueue", ON | {"pools": pools})["robolift"]
    assert queue["spec"]["resourceGroups"][0]["coveredResources"] == [
        "cpu",
        "memory",
        "nvidia.com/gpu",
        "nvidia.com/mig-1g.10gb",
    ]
    assert quotas(queue)["robolift-slice"]["nvidia.com/mig-1g.10gb"] == "7"
    assert quotas(queue)["robolift-slice"]["nvidia.com/gpu"] == "0"
    assert quotas(queue)["robolift-gpu"]["nvidia.com/gpu"] == "16"


def test_every_flavor_has_the_covered_resources_in_their_order():
    # Kueue refuses a queue whose flavors list them otherwise.
    for base in ("gke", "none"):
        (group,) = of_kind("ClusterQueue", base=base)["robolift"]["spec"]["resourceGroups"]
        for flavor in group["flavors"]:
            assert [resource["name"] for resource in flavor["resources"]] == group["coveredResources"]


def test_the_local_queue_leads_to_the_cluster_queue_which_lets_these_namespaces_in():
    assert of_kind("LocalQueue", base="none")["robolift"]["spec"] == {"clusterQueue": "robolift"}
    selector = of_kind("ClusterQueue", base="none")["robolift"]["spec"]["namespaceSelector"]
    assert selector["matchExpressions"][0]["values"] == ["runs", "kubeflow-user-example-com"]


def test_topology_is_for_pools_with_gpus():
    levels = of_kind("Topology", base="gke")["robolift"]["spec"]["levels"]
    assert levels[-1] == {"nodeLabel": "kubernetes.io/hostname"}
    flavors = of_kind("ResourceFlavor", base="gke")
    assert flavors["robolift-gpu"]["spec"]["topologyName"] == "robolift"
    assert "topologyName" not in flavors["robolift-cpu"]["spec"]
    assert of_kind("Topology", ON) == {}


def test_priorities_are_classes():
    classes = of_kind("WorkloadPriorityClass", base="gke")
    assert {name: item["value"] for name, item in classes.items()} == {"robolift-urgent": 1000, "robolift-sweep": 10}
    assert classes["robolift-urgent"]["description"] == "Somebody waits for it"


def test_nothing_that_runs_is_pushed_out_unless_it_is_asked_for():
    # A step's pod that Kueue deletes is an Error to Argo, which Kubeflow Pipelines' retries leave out.
    queue = of_kind("ClusterQueue", ON)["robolift"]["spec"]
    assert queue["preemption"] == {"withinClusterQueue": "Never"}
    asked = {"kueue": {"enabled": True, "preemption": "LowerPriority"}}
    assert of_kind("ClusterQueue", asked)["robolift"]["spec"]["preemption"] == {"withinClusterQueue": "LowerPriority"}
