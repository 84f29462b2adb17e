from __future__ import annotations

from rendered_chart import of_kind


def test_off_by_default():
    assert of_kind("Deployment") == {}
    assert of_kind("Service") == {}


def test_the_service_finds_the_pods_of_the_deployment():
    deployment = of_kind("Deployment", base="none")["rel-review"]
    service = of_kind("Service", base="none")["rel-review"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert labels["app.kubernetes.io/component"] == "review"
    (port,) = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"] == "http"


def test_it_runs_the_named_module_in_the_review_image():
    pod = of_kind("Deployment", base="none")["rel-review"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "robolift-review:0.1.0"
    assert container["command"] + container["args"] == ["python", "-m", "robolift.annotators.review"]
