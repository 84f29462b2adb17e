from __future__ import annotations

import jsonschema
import kubernetes_validate
import pytest
from rendered_chart import NAMESPACE, SCHEMAS, VALUES_FILES, pod_specs, render, validate

CLUSTER_WIDE = {
    "ClusterQueue",
    "ComputeClass",
    "EC2NodeClass",
    "NodePool",
    "PriorityClass",
    "ResourceFlavor",
    "Topology",
    "WorkloadPriorityClass",
}


@pytest.mark.parametrize("base", VALUES_FILES)
def test_every_object_passes_its_schema_strictly(base):
    documents = render(base=base)
    assert len(documents) >= 8
    for document in documents:
        validate(document)


def test_every_custom_schema_is_used_by_some_values_file():
    rendered = {item["kind"].lower() for base in VALUES_FILES for item in render(base=base)}
    assert {path.stem for path in SCHEMAS.glob("*.json")} - {"trainingruntime"} <= rendered


def test_the_schemas_would_notice_a_misspelt_field():
    for base in VALUES_FILES:
        for document in render(base=base):
            holder = document.get("spec") if isinstance(document.get("spec"), dict) else document
            holder["tpyo"] = 1
            with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
                validate(document)


@pytest.mark.parametrize("base", VALUES_FILES)
def test_an_object_is_in_the_release_s_namespace_or_belongs_to_the_cluster(base):
    for item in render(base=base):
        namespace = item["metadata"].get("namespace")
        assert namespace == (None if item["kind"] in CLUSTER_WIDE else NAMESPACE), item["metadata"]["name"]


@pytest.mark.parametrize("base", VALUES_FILES)
def test_a_second_release_makes_nothing_that_belongs_to_the_cluster(base):
    kinds = {item["kind"] for item in render({"clusterScoped": False}, base=base)}
    assert kinds & CLUSTER_WIDE == set()
    assert "ServiceAccount" in kinds


@pytest.mark.parametrize("base", VALUES_FILES)
def test_no_two_objects_have_one_name(base):
    names = [(item["kind"], item["metadata"]["name"]) for item in render(base=base)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("base", VALUES_FILES)
def test_every_object_says_whose_it_is(base):
    for item in render(base=base):
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "robolift"
        assert labels["app.kubernetes.io/instance"] == "rel"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"


@pytest.mark.parametrize("base", VALUES_FILES)
def test_every_pod_runs_without_privileges_on_a_read_only_root(base):
    for name, spec in pod_specs(render(base=base)):
        assert spec["securityContext"]["runAsUser"] == 10001, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["serviceAccountName"] != "default"
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
            assert container["resources"]["limits"]["memory"]


def test_rendering_twice_gives_the_same():
    assert render(base="gke") == render(base="gke")
