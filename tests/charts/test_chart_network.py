from __future__ import annotations

from rendered_chart import of_kind

TRAINING = {"matchLabels": {"app.kubernetes.io/name": "robolift", "app.kubernetes.io/managed-by": "robolift-launcher"}}


def policy(values=None, base="gke"):
    return of_kind("NetworkPolicy", values, base=base)["rel-training"]["spec"]


def test_off_by_default():
    assert of_kind("NetworkPolicy") == {}


def test_training_pods_hear_only_each_other():
    spec = policy()
    assert spec["podSelector"] == TRAINING
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [{"from": [{"podSelector": TRAINING}]}]


def test_they_reach_each_other_dns_the_object_store_and_the_metadata_server():
    peers, dns, store, metadata = policy()["egress"]
    assert peers == {"to": [{"podSelector": TRAINING}]}
    assert dns == {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    assert store == {"ports": [{"protocol": "TCP", "port": 443}]}
    assert [block["ipBlock"]["cidr"] for block in metadata["to"]] == [
        "169.254.169.252/32",
        "169.254.169.254/32",
        "169.254.170.23/32",
    ]


def test_addresses_and_ports_of_the_store_can_be_named_and_more_allowed():
    _, _, store, more = policy(base="none")["egress"]
    assert store == {
        "ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 8333}],
        "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    }
    assert more == {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}}}]}
