from __future__ import annotations

import argparse

import helm_python
import pytest
from rendered_chart import of_kind, render

from robolift.annotators.review import cli

WHERE = {"enabled": True, "dataset": "s3://b/import_dataset/1", "labels": "s3://b/labels"}

PROXY = {"identityHeader": "X-User", "trustedProxies": ["10.8.0.0/14"]}


def pod(values=None, base="gke"):
    return of_kind("Deployment", values, base=base)["rel-review"]["spec"]["template"]["spec"]


def test_off_by_default():
    assert of_kind("Deployment") == {}
    assert of_kind("Service") == {}
    assert of_kind("NetworkPolicy", {"networkPolicy": {"enabled": True}}).keys() == {"rel-training"}


def test_the_service_finds_the_pods_of_the_deployment():
    deployment = of_kind("Deployment", base="none")["rel-review"]
    service = of_kind("Service", base="none")["rel-review"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert labels["app.kubernetes.io/component"] == "review"
    (port,) = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"] == "http"


def test_it_serves_the_named_dataset_to_people_whom_a_proxy_knows():
    (container,) = pod()["containers"]
    assert container["image"] == "robolift-review:0.1.0"
    assert container["command"] + container["args"] == [
        "python",
        "-m",
        "robolift",
        "review",
        "--host=0.0.0.0",
        "--port=8000",
        "--dataset=gs://example-bucket/runs/import_dataset/0123",
        "--labels=gs://example-bucket/labels/first",
        "--rewards=gs://example-bucket/runs/collect_rewards/4567",
        "--ask=segments,outcome",
        "--served-name",
        "rel-review",
        "rel-review.runs",
        "labels.example.com",
        "--identity-header=X-Goog-Authenticated-User-Email",
        "--trusted-proxy",
        "35.191.0.0/16",
        "130.211.0.0/22",
        "--overlap=0.2",
    ]


@pytest.mark.parametrize("base", ["gke", "none"])
def test_its_options_are_those_of_the_page(base):
    parser = argparse.ArgumentParser(exit_on_error=False)
    cli.add_arguments(parser)
    (container,) = pod(base=base)["containers"]
    told = parser.parse_args(container["args"])
    hosts = ["rel-review", "rel-review.runs", *(["labels.example.com"] if base == "gke" else [])]
    assert (told.host, told.port, told.ask, told.served_name) == ("0.0.0.0", 8000, "segments,outcome", hosts)
    assert bool(told.identity_header and told.trusted_proxy) != bool(told.tokens)


def test_it_is_ready_when_it_answers():
    (container,) = pod()["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}


def test_tokens_come_from_a_secret_as_a_file():
    spec = pod(base="none")
    (container,) = spec["containers"]
    assert "--tokens=/etc/robolift/tokens" in container["args"]
    assert {"name": "tokens", "mountPath": "/etc/robolift", "readOnly": True} in container["volumeMounts"]
    secret = {"secretName": "annotators", "items": [{"key": "tokens", "path": "tokens"}]}
    assert {"name": "tokens", "secret": secret} in spec["volumes"]
    assert "tokens" not in [volume["name"] for volume in pod()["volumes"]]


def test_it_reaches_the_store_as_the_reviewer():
    assert pod()["serviceAccountName"] == "robolift-reviewer"
    names = [entry["name"] for entry in pod(base="none")["containers"][0]["env"]]
    assert names == ["AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY"]


def test_only_the_named_namespaces_reach_it():
    spec = of_kind("NetworkPolicy", base="none")["rel-review"]["spec"]
    assert spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "review"
    proxy = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
    assert spec["ingress"] == [{"from": [proxy], "ports": [{"protocol": "TCP", "port": "http"}]}]
    nobody = of_kind("NetworkPolicy", {"review": {"allowedNamespaces": []}}, base="none")["rel-review"]["spec"]
    assert nobody["policyTypes"] == ["Ingress"]
    assert "ingress" not in nobody


@pytest.mark.parametrize(
    ("review", "said"),
    [
        ({"enabled": True, "labels": "s3://b/l"}, "review/dataset"),
        ({"enabled": True, "dataset": "s3://b/d"}, "review/labels"),
        (WHERE, "nobody says who a person is; set review.identityHeader and trustedProxies, or review.tokensSecret"),
        ({**WHERE, "identityHeader": "X-User"}, "a header from anybody proves nothing"),
        ({**WHERE, **PROXY}, "any pod may send it; set networkPolicy.enabled and review.allowedNamespaces"),
        ({**WHERE, **PROXY, "allowedNamespaces": ["ingress"]}, "any pod may send it"),
        ({**WHERE, **PROXY, "trustedProxies": ["10.8.0.0/14", "0.0.0.0/0"]}, "has 0.0.0.0/0, which is everybody"),
        ({**WHERE, **PROXY, "trustedProxies": ["::/0"]}, "has ::/0, which is everybody"),
        ({**WHERE, "identityHeader": "X-User", "tokensSecret": "t"}, "are both set; take one"),
        ({**WHERE, "ask": ["segment"]}, "review/ask/0"),
        ({**WHERE, "trustedProxies": ["10.0.0.1"]}, "review/trustedProxies/0"),
    ],
)
def test_what_can_not_work_is_refused(review, said):
    with pytest.raises((helm_python.HelmError, helm_python.HelmValuesError), match=said):
        render({"review": review})


def test_the_networks_policy_keeps_other_pods_from_saying_who_they_are():
    review = {**WHERE, **PROXY}
    with pytest.raises(helm_python.HelmError, match="any pod may send it"):
        render({"review": review, "networkPolicy": {"enabled": True}})
    review["allowedNamespaces"] = ["ingress"]
    assert "rel-review" in of_kind("NetworkPolicy", {"review": review, "networkPolicy": {"enabled": True}})
