from __future__ import annotations

from rendered_chart import of_kind


def test_off_by_default():
    assert of_kind("PersistentVolumeClaim") == {}


def test_the_volume_stays_when_the_chart_goes():
    claim = of_kind("PersistentVolumeClaim", base="none")["robolift-model-cache"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}


def test_a_storage_class_is_named_only_when_given():
    values = {"modelCache": {"enabled": True, "storageClassName": "filestore"}}
    assert of_kind("PersistentVolumeClaim", values)["robolift-model-cache"]["spec"]["storageClassName"] == "filestore"
