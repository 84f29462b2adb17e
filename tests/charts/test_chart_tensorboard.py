from __future__ import annotations

from rendered_chart import of_kind


def test_off_by_default():
    assert of_kind("Deployment") == {}
    assert of_kind("Service") == {}


def test_the_service_finds_the_pods_of_the_deployment():
    deployment = of_kind("Deployment", base="none")["rel-tensorboard"]
    service = of_kind("Service", base="none")["rel-tensorboard"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert labels["app.kubernetes.io/component"] == "tensorboard"
    (port,) = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"] == "http"


def test_it_reads_the_named_events_as_the_reviewer_with_the_stores_environment():
    pod = of_kind("Deployment", base="none")["rel-tensorboard"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "robolift-reviewer"
    (container,) = pod["containers"]
    assert container["args"] == ["--logdir=s3://robolift/events", "--host=0.0.0.0", "--port=6006"]
    address, key = container["env"]
    assert address == {"name": "AWS_ENDPOINT_URL", "value": "http://seaweedfs.kubeflow:8333"}
    assert key["valueFrom"] == {"secretKeyRef": {"name": "object-store", "key": "AWS_SECRET_ACCESS_KEY"}}
