from __future__ import annotations

import copy
import importlib.util
import json

import helm_python
import pytest
import yaml
from rendered_chart import CHART, ROOT, VALUES_FILES, key_paths, merge, notes, of_kind, render

from robolift import __version__

DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
# Whose keys are the user's or Kubernetes' own: names of pools, annotations, resources, raw rules.
FREE = {"annotations", "tags", "quotas", "hard", "requests", "limits", "priorities", "extraEgress"}


def under(document, path):
    for key in path:
        document = document[key]
    return document


def closed_paths(document):
    """Return the path of every mapping whose keys the schema names."""
    return [path for path in key_paths(document) if path[0:2] == ("kueue", "priorities") or not FREE & set(path)]


@pytest.mark.parametrize("base", VALUES_FILES)
def test_helm_lint_has_no_complaint(base):
    report = helm_python.lint(CHART, VALUES_FILES[base], strict=True)
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("base", VALUES_FILES)
def test_a_typo_is_refused_by_name_at_every_level(base):
    values = merge(DEFAULTS, VALUES_FILES[base])
    paths = closed_paths(values)
    assert len(paths) > 25
    for path in paths:
        broken = copy.deepcopy(values)
        under(broken, path)["tpyo"] = 1
        with pytest.raises(helm_python.HelmValuesError, match="tpyo"):
            render(broken)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"provider": "aks"}, "provider"),
        ({"pools": [{"name": "GPU", "gpus": 0}]}, "pools/0/name"),
        ({"pools": [{"name": "gpu"}]}, "gpus"),
        ({"pools": []}, "pools"),
        ({"trainer": {"backend": "mpijob"}}, "trainer/backend"),
        ({"trainer": {"sharedMemory": "16 GB"}}, "sharedMemory"),
        ({"trainer": {"env": [{"name": "AWS_REGION"}]}}, "trainer/env/0"),
        ({"trainer": {"envFrom": [{"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}}]}}, "envFrom/0"),
        ({"storage": {"root": "/mnt/runs"}}, "storage/root"),
        ({"quota": {"enabled": True}}, "quota/hard"),
        ({"tensorboard": {"enabled": True}}, "tensorboard/image"),
        ({"review": {"enabled": True}}, "review/dataset"),
        ({"labeller": {"size": "gpu.huge"}}, "labeller/size"),
        ({"provider": "karpenter"}, "karpenter/nodeClass/role"),
        ({"provider": "gke", "gke": {"configConnector": {"enabled": True}}}, "configConnector/cluster"),
    ],
)
def test_a_wrong_value_is_refused_by_the_schema_with_its_place(values, said):
    with pytest.raises(helm_python.HelmValuesError, match=said):
        render(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trainer": {"pool": "tpu"}}, r"trainer\.pool is tpu; pools has cpu, gpu"),
        ({"policyTrainer": {"pool": "tpu"}}, r"policyTrainer\.pool is tpu; pools has cpu, gpu"),
        ({"labeller": {"pool": "tpu"}}, r"labeller\.pool is tpu; pools has cpu, gpu"),
        ({"trainer": {"processesPerNode": 2}}, r"processesPerNode is 2; pool gpu has 1 GPUs"),
        ({"provider": "gke"}, "pools: gpu has GPUs; provider gke needs its accelerator"),
        ({"pools": [{"name": "gpu", "gpus": 0}, {"name": "gpu", "gpus": 0}]}, "the name gpu stands there twice"),
        ({"kueue": {"quotas": {"tpu": {"cpu": 1}}}}, r"kueue\.quotas names the pool tpu"),
        ({"kueue": {"enabled": True, "quotas": {"cpu": {"amd.com/gpu": 1}}}}, r"kueue\.quotas\.cpu names amd\.com/gpu"),
        ({"gke": {"priorities": {"tpu": []}}}, r"gke\.priorities names the pool tpu"),
        (
            {"gke": {"configConnector": {"enabled": True, "cluster": "c", "location": "l"}}},
            "provider is none, it goes with gke",
        ),
    ],
)
def test_values_that_contradict_one_another_stop_the_rendering_with_the_field(values, said):
    with pytest.raises(helm_python.HelmError, match=said):
        render(values)


def test_a_node_pool_of_config_connector_has_one_machine_type():
    pools = [{"name": "gpu", "gpus": 0, "machineTypes": ["a", "b"]}]
    with pytest.raises(helm_python.HelmError, match="gpu has 2 machine types"):
        render({"pools": pools}, base="gke-node-pools")


def test_every_default_is_in_the_schema_and_every_key_of_the_schema_has_a_default():
    definitions = SCHEMA["definitions"]

    def compare(node, values, path):
        node = {**definitions[node["$ref"].rsplit("/", 1)[1]], **node} if "$ref" in node else node
        optional = path[:1] in (("images",), ("sizes",)) or path[-1:] == ("resources",)
        if "properties" in node and not optional:
            assert set(node["properties"]) == set(values), path
            for key, entry in node["properties"].items():
                compare(entry, values[key], (*path, key))

    compare(SCHEMA, DEFAULTS, ())


def test_every_key_says_what_it_is_for():
    def walk(node, path):
        for key, entry in node.get("properties", {}).items():
            assert entry.get("description") or "$ref" in entry, (*path, key)
            walk(entry, (*path, key))

    walk(SCHEMA, ())


def test_the_readme_is_what_schema_and_values_say():
    spec = importlib.util.spec_from_file_location("chart_readme", ROOT / "scripts" / "chart_readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text(encoding="utf-8") == module.render(), "run `make chart-docs`"


def test_chart_and_package_have_one_version():
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


def test_the_lock_file_of_images_fits_the_values():
    lock = {name: f"registry.example/robolift-{name}@sha256:{'0' * 64}" for name in ("cpu", "torch", "jax", "review")}
    cron = of_kind("CronJob", {"images": lock})["rel-reaper"]
    container = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == lock["cpu"]


def test_each_component_has_a_test_of_its_name():
    folders = {path.name for path in (CHART / "templates").iterdir() if path.is_dir()}
    tests = {path.stem.removeprefix("test_chart_").replace("_", "-") for path in (ROOT / "tests/charts").glob("*.py")}
    assert folders <= tests


def test_the_notes_name_labels_and_taints_where_nobody_makes_nodes():
    assert "kubectl taint nodes NODE robolift.io/pool=gpu:NoSchedule" in notes()
    assert "helm test rel -n runs" in notes(base="gke")
    assert "kubectl taint" not in notes(base="gke")
    # A step needs the rights that the chart gives its own account, where it gives them to run pipelines.
    assert "VALUES=<the file given to helm> SERVICE_ACCOUNT=robolift-launcher\n" in notes()
    assert "SERVICE_ACCOUNT" not in notes({"launcher": {"runsPipelines": False}})
