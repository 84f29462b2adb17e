from __future__ import annotations

import pytest
from rendered_chart import VALUES_FILES, of_kind

from robolift.launch import preflight


def arguments(values=None, base="values"):
    (container,) = of_kind("Pod", values, base=base)["rel-preflight"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "robolift.launch.preflight"]
    return preflight._parser().parse_args(container["args"])


@pytest.mark.parametrize("base", [base for base in VALUES_FILES if base != "gke-node-pools"])
def test_it_is_a_test_of_helm_alone_and_runs_as_the_launcher(base):
    pod = of_kind("Pod", base=base)["rel-preflight"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["serviceAccountName"] == "robolift-launcher"
    assert pod["spec"]["restartPolicy"] == "Never"


def test_it_asks_for_what_the_values_need():
    args = arguments(base="none")
    assert (args.namespace, args.provider, args.backend) == ("runs", "none", ["trainjob", "job"])
    assert args.kueue
    assert args.storage == "s3://robolift/runs"
    assert args.kfp_url == "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
    plain = arguments()
    assert (plain.backend, plain.kueue, plain.storage) == (["pytorchjob", "process"], False, "")


def test_it_asks_for_config_connector_where_that_makes_the_nodes():
    args = arguments({"preflight": {"enabled": True}}, base="gke-node-pools")
    assert (args.provider, args.config_connector) == ("gke", True)


def test_one_backend_for_both_is_asked_once():
    assert arguments({"policyTrainer": {"backend": "pytorchjob"}}).backend == ["pytorchjob"]


def test_it_can_be_left_out():
    assert of_kind("Pod", {"preflight": {"enabled": False}}) == {}
