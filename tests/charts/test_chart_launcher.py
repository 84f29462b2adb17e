from __future__ import annotations

import pytest
from rendered_chart import VALUES_FILES, of_kind, render


def rights(role):
    """Return (group, resource, verb) of every rule of a role."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


ALL = ("create", "get", "list", "watch", "patch", "delete")
LAUNCHER = {
    *(("kubeflow.org", "pytorchjobs", verb) for verb in ALL),
    *(("trainer.kubeflow.org", "trainjobs", verb) for verb in ALL),
    *(("batch", "jobs", verb) for verb in ALL),
    *(("", "services", verb) for verb in ("create", "get", "patch", "delete")),
    *(("", resource, verb) for resource in ("pods", "pods/log", "events") for verb in ("get", "list", "watch")),
    ("argoproj.io", "workflows", "get"),
}


def test_the_launcher_may_do_this_and_nothing_else():
    assert rights(of_kind("Role")["robolift-launcher"]) == LAUNCHER


def test_what_the_preflight_asks_for_is_granted():
    from robolift.launch import preflight

    granted = {(group, resource, verb) for group, resource, verb in LAUNCHER}
    for backend in ("pytorchjob", "trainjob", "job"):
        group, _, plural = preflight.KINDS[backend]
        assert {(group, plural, verb) for verb in preflight.JOB_VERBS} <= granted


def test_a_step_of_a_pipeline_reads_one_secret_and_writes_no_pod_but_its_own_result():
    role = of_kind("Role")["robolift-launcher-steps"]
    secrets = [rule for rule in role["rules"] if rule["resources"] == ["secrets"]]
    assert [(rule["resourceNames"], rule["verbs"]) for rule in secrets] == [(["mlpipeline-minio-artifact"], ["get"])]
    assert rights(role) == {
        ("argoproj.io", "workflowtaskresults", "create"),
        ("argoproj.io", "workflowtaskresults", "patch"),
        ("", "configmaps", "get"),
        ("", "configmaps", "list"),
        ("", "configmaps", "watch"),
        ("", "secrets", "get"),
        ("", "pods", "patch"),
    }


def test_without_secrets_no_secret_may_be_read():
    role = of_kind("Role", {"kfp": {"secrets": []}})["robolift-launcher-steps"]
    assert "secrets" not in {resource for _, resource, _ in rights(role)}


def test_the_rights_of_a_step_can_be_left_out():
    assert set(of_kind("Role", base="gke-node-pools")) == {"robolift-launcher"}
    assert set(of_kind("RoleBinding", base="gke-node-pools")) == {"robolift-launcher"}


@pytest.mark.parametrize("base", VALUES_FILES)
def test_no_role_has_a_wildcard_and_none_is_for_the_cluster(base):
    assert not [item for item in render(base=base) if item["kind"].startswith("ClusterRole")]
    for role in of_kind("Role", base=base).values():
        assert not [right for right in rights(role) if "*" in right]


@pytest.mark.parametrize("base", VALUES_FILES)
def test_trainer_and_reviewer_have_no_rights(base):
    bound = {s["name"] for binding in of_kind("RoleBinding", base=base).values() for s in binding["subjects"]}
    assert not bound & {"robolift-trainer", "robolift-reviewer"}


def test_further_accounts_get_the_launchers_role():
    binding = of_kind("RoleBinding", base="none")["robolift-launcher"]
    assert [(s["name"], s["namespace"]) for s in binding["subjects"]] == [
        ("robolift-launcher", "runs"),
        ("default-editor", "kubeflow-user-example-com"),
        ("pipeline-runner", "runs"),
    ]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": "robolift-launcher",
    }
