from __future__ import annotations

from rendered_chart import of_kind


def test_there_are_five_accounts():
    assert sorted(of_kind("ServiceAccount")) == [
        "robolift-launcher",
        "robolift-reaper",
        "robolift-reviewer",
        "robolift-server",
        "robolift-trainer",
    ]


def test_only_who_talks_to_kubernetes_gets_a_token():
    tokens = {name: item["automountServiceAccountToken"] for name, item in of_kind("ServiceAccount").items()}
    assert tokens == {
        "robolift-launcher": True,
        "robolift-reaper": True,
        "robolift-reviewer": False,
        "robolift-server": False,
        "robolift-trainer": False,
    }


def test_workload_identity_is_an_annotation():
    gke, eks = (of_kind("ServiceAccount", base=base)["robolift-trainer"]["metadata"] for base in ("gke", "eks"))
    assert gke["annotations"] == {
        "iam.gke.io/gcp-service-account": "robolift-trainer@example-project.iam.gserviceaccount.com"
    }
    assert eks["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/robolift-trainer"}


def test_an_account_of_somebody_else_is_used_and_not_made():
    values = {"serviceAccounts": {"launcher": {"name": "default-editor", "create": False}}}
    assert "default-editor" not in of_kind("ServiceAccount", values)
    assert of_kind("Pod", values)["rel-preflight"]["spec"]["serviceAccountName"] == "default-editor"
    assert of_kind("RoleBinding", values)["default-editor"]["subjects"][0]["name"] == "default-editor"


def test_pull_secrets_are_on_every_account_and_pod():
    accounts = of_kind("ServiceAccount", base="eks").values()
    assert all(item["imagePullSecrets"] == [{"name": "registry"}] for item in accounts)
    assert of_kind("Pod", base="eks")["rel-preflight"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]
