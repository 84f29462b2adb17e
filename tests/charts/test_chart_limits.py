from __future__ import annotations

from rendered_chart import of_kind


def test_the_quota_has_the_given_limits_as_text():
    assert of_kind("ResourceQuota") == {}
    quota = of_kind("ResourceQuota", {"quota": {"enabled": True, "hard": {"requests.nvidia.com/gpu": 16}}})
    assert quota["rel"]["spec"]["hard"] == {"requests.nvidia.com/gpu": "16"}


def test_priority_classes_are_made_as_listed():
    assert of_kind("PriorityClass") == {}
    made = of_kind("PriorityClass", base="gke")["robolift-training"]
    assert (made["value"], made["preemptionPolicy"]) == (100000, "Never")
    default = of_kind("PriorityClass", {"priorityClasses": [{"name": "p", "value": 5}]})["p"]
    assert default["preemptionPolicy"] == "PreemptLowerPriority"
