"""The placement file: what it says reaches every step and job, and what is wrong in it is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components import _launch, _pools, _resources
from components._pod import Pod
from robolift.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Lay a site's values over those of the chart."""

    def lay(document):
        path = tmp_path / f"site-{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        monkeypatch.setenv("ROBOLIFT_VALUES", str(path))
        return path

    monkeypatch.delenv("ROBOLIFT_VALUES", raising=False)
    return lay


RECAP = {"train_value", "train_policy", "predict_values", "label_advantage"}
LABELING = {"plan_labels", "annotate_rewards", "merge_rewards"}
POOLS = [{"name": "cpu", "taint": False}, {"name": "gpu", "gpus": 8, "gpuResource": "amd.com/gpu"}]


def compiled(tmp_path, pipeline="recap", **environ):
    """Compile a pipeline in a process of its own; return how it ended, and the platform part by step."""
    path = tmp_path / f"{pipeline}.yaml"
    done = subprocess.run(
        [sys.executable, "pipeline.py", "compile", pipeline, "--output", str(path)],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return done, {}, {}
    spec, platform = yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader)
    return done, spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_a_pod_is_what_kfp_would_write_of_it():
    from types import SimpleNamespace

    from kfp import kubernetes

    pod = Pod(
        node_selector={"robolift.io/pool": "gpu"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        labels={"a": "1", "b": "2"},
        annotations={"c": "3"},
        user=10001,
        group=0,
        shared_memory="16Gi",
        field_paths={"RUN": "metadata.labels['run']"},
        deadline_s=7200,
    )
    task = SimpleNamespace(platform_config={})
    kubernetes.add_node_selector(task, "robolift.io/pool", "gpu")
    kubernetes.add_toleration(task, **pod.tolerations[0])
    for key, value in pod.labels.items():
        kubernetes.add_pod_label(task, key, value)
    kubernetes.add_pod_annotation(task, "c", "3")
    kubernetes.empty_dir_mount(task, "dshm", "/dev/shm", medium="Memory", size_limit="16Gi")
    kubernetes.set_security_context(task, run_as_user=10001, run_as_group=0, run_as_non_root=True)
    kubernetes.use_field_path_as_env(task, "RUN", "metadata.labels['run']")
    kubernetes.set_timeout(task, 7200)
    assert pod.config() == task.platform_config["kubernetes"]


@pytest.mark.parametrize(("key", "value"), [("cpu", "many"), ("cpu", "4Gi"), ("memory", "2GB"), ("memory", "1.5Gi")])
def test_a_size_that_is_no_quantity_is_named(site, key, value):
    site({"sizes": {"cpu.small": {key: value}}})
    with pytest.raises(UsageError, match=rf"sizes\.cpu\.small\.{key} in .* is '{value}'; expected a quantity"):
        _resources.size("cpu.small")


@pytest.mark.parametrize("document", [{"trainer": {"pool": "a100"}}, {"pools": [{"name": "cpu"}]}])
def test_a_pipeline_with_a_pool_that_is_not_defined_does_not_compile(site, tmp_path, document):
    done, _, _ = compiled(tmp_path, ROBOLIFT_VALUES=str(site(document)))
    missing = "a100" if "trainer" in document else "gpu"
    assert done.returncode == 64
    assert f"error: no node pool {missing!r} in charts/robolift/values.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "recap.yaml").exists()


def test_every_stage_has_a_pool_that_the_chart_defines(site):
    for stage in _resources.STAGE_SIZES:
        assert _resources.resources(stage).pool in _pools.pools()


def test_every_step_is_placed(site, tmp_path):
    # One document says where the nodes are, and every pod of a run follows it.
    path = site({"provider": "gke", "pools": POOLS, "kueue": {"enabled": True, "queue": "team-queue"}})
    done, spec, steps = compiled(tmp_path, ROBOLIFT_VALUES=str(path))
    assert done.returncode == 0, done.stderr
    assert set(steps) == set(spec["deploymentSpec"]["executors"])
    for name, step in steps.items():
        gpu = name.startswith(("exec-predict-values", "exec-train-policy"))
        pool = "gpu" if gpu else "cpu"
        assert step["nodeSelector"]["labels"] == {"cloud.google.com/compute-class": pool}
        class_taint = {"key": "cloud.google.com/compute-class", "operator": "Equal", "value": pool}
        tolerations = [{**class_taint, "effect": "NoSchedule"}]
        if gpu:
            pool_taint = {"key": "robolift.io/pool", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
            tolerations = [
                {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                pool_taint,
                *tolerations,
            ]
        assert step["tolerations"] == tolerations
        assert step["podMetadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-queue"
        assert step["podMetadata"]["labels"]["app.kubernetes.io/name"] == "robolift"
        assert step["securityContext"] == {"runAsUser": "10001", "runAsGroup": "0", "runAsNonRoot": True}
    containers = {name: e["container"] for name, e in spec["deploymentSpec"]["executors"].items()}
    assert containers["exec-predict-values"]["resources"]["accelerator"]["resourceCount"] == "1"
    assert containers["exec-train-policy"]["resources"]["accelerator"]["resourceCount"] == "8"
    assert containers["exec-train-policy"]["resources"]["accelerator"]["resourceType"] == "amd.com/gpu"
    assert "accelerator" not in containers["exec-train-value"]["resources"]
    assert steps["exec-predict-values"]["emptyDirMounts"][0]["mountPath"] == "/dev/shm"


def test_a_step_that_launches_knows_its_run_and_has_no_deadline_of_its_own(site, tmp_path):
    _, spec, steps = compiled(tmp_path)
    told = {field["name"]: field["fieldPath"] for field in steps["exec-train-value"]["fieldPathAsEnv"]}
    assert told == {
        "ROBOLIFT_RUN_ID": "metadata.labels['pipeline/runid']",
        "ROBOLIFT_WORKFLOW": "metadata.labels['workflows.argoproj.io/workflow']",
        "ROBOLIFT_NAMESPACE": "metadata.namespace",
    }
    assert "activeDeadlineSeconds" not in steps["exec-train-value"]
    assert steps["exec-train-policy"]["activeDeadlineSeconds"] == "604800"
    assert "fieldPathAsEnv" not in steps["exec-train-policy"]
    images = {name: e["container"]["image"] for name, e in spec["deploymentSpec"]["executors"].items()}
    assert images["exec-train-value"] == images["exec-label-returns"]  # the launcher needs no torch
    assert images["exec-train-policy"] != images["exec-label-returns"]


def test_the_launch_parameter_says_what_the_placement_file_says(site):
    trainer = {
        "backend": "trainjob",
        "processesPerNode": 8,
        "socketInterface": "eth0",
        "env": [{"name": "AWS_REGION", "value": "eu-west-1"}],
        "envFrom": [{"secretRef": {"name": "store"}}],
        "priorityClass": "training",
    }
    site({"pools": POOLS, "trainer": trainer, "sizes": {"gpu.large": {"cpu": 2, "memory": "4Gi"}}})
    told = _launch.launch("train_value")
    assert told["backend"] == "trainjob"
    assert told["placement"]["node_selector"] == {"robolift.io/pool": "gpu"}
    assert (told["placement"]["gpu_resource"], told["placement"]["gpus"]) == ("amd.com/gpu", 8)
    assert (told["cpu"], told["memory"], told["shared_memory"]) == ("2", "4Gi", "16Gi")
    assert (told["processes_per_node"], told["socket_interface"], told["priority_class"]) == (8, "eth0", "training")
    assert told["env"] == trainer["env"]
    assert told["env_from"] == trainer["envFrom"]
    assert told["service_account"] == "robolift-trainer"
    assert "torch" in told["image"]
    assert _launch.launch("train_policy") == {}


def secret(name, key):
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "store", "key": key}}}


def test_the_store_s_variables_reach_every_step_and_every_job(site, tmp_path):
    store = [{"name": "AWS_ENDPOINT_URL", "value": "http://store:9000"}, secret("AWS_SECRET_ACCESS_KEY", "key")]
    own = [{"name": "AWS_ENDPOINT_URL", "value": "http://near:9000"}]
    path = site({"storage": {"env": store}, "trainer": {"env": own}})
    assert _launch.launch("train_value")["env"] == [*own, store[1]]  # the trainer's own wins
    done, spec, steps = compiled(tmp_path, ROBOLIFT_VALUES=str(path))
    assert done.returncode == 0, done.stderr
    executors = spec["deploymentSpec"]["executors"]
    assert {name for name, e in executors.items() if store[0] in e["container"].get("env", [])} == set(executors)
    for name in executors:
        (told,) = steps[name]["secretAsEnv"]
        assert told["keyToEnv"] == [{"secretKey": "key", "envVar": "AWS_SECRET_ACCESS_KEY"}]


def test_a_variable_that_a_step_can_not_take_is_named(site, tmp_path):
    memory = {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}
    done, _, _ = compiled(tmp_path, ROBOLIFT_VALUES=str(site({"storage": {"env": [memory]}})))
    assert done.returncode == 64
    assert "variable LIMIT in" in done.stderr
    assert "comes from resourceFieldRef; a pipeline's step takes value, valueFrom.secretKeyRef" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("backend", ["job", "pytorchjob", "trainjob"])
def test_a_policy_may_train_in_a_job_too(site, backend):
    site({"policyTrainer": {"backend": backend}})
    told = _launch.launch("train_policy")
    assert (told["backend"], told["processes_per_node"]) == (backend, 1)
    assert "jax" in told["image"]
    assert "cpu" in _launch.step_image("train_policy")


def test_a_priority_that_kueue_knows_is_a_workload_s(site):
    site({"trainer": {"priorityClass": "high"}, "kueue": {"priorities": [{"name": "high", "value": 1000}]}})
    told = _launch.launch("train_value")
    assert (told["priority_class"], told["workload_priority"]) == ("", "high")


def test_a_value_model_that_trains_in_its_step_gets_the_trainer_s_gpus(site):
    site({"pools": POOLS, "trainer": {"backend": "process", "processesPerNode": 4, "activeDeadlineSeconds": 7200}})
    asked = _resources.resources("train_value")
    assert (asked.pool, asked.gpus, asked.cpu, asked.hours, asked.shared_memory) == ("gpu", 4, "16", 2, "16Gi")
    assert _launch.launch("train_value") == {}
    assert "torch" in _launch.step_image("train_value")


def test_a_policy_that_trains_in_its_step_gets_its_variables_there(site, tmp_path):
    told = {"env": [{"name": "AWS_REGION", "value": "eu-west-1"}]}
    done, spec, _ = compiled(tmp_path, ROBOLIFT_VALUES=str(site({"policyTrainer": told})))
    assert done.returncode == 0, done.stderr
    step = spec["deploymentSpec"]["executors"]["exec-train-policy"]["container"]
    assert step["env"] == [{"name": "AWS_REGION", "value": "eu-west-1"}]
    told = {"envFrom": [{"secretRef": {"name": "store"}}]}
    done, _, _ = compiled(tmp_path, ROBOLIFT_VALUES=str(site({"policyTrainer": told})))
    assert done.returncode == 64
    assert "policyTrainer.envFrom in" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pool_without_gpus_is_asked_for_none(site):
    site({"pools": [{"name": "cpu"}, {"name": "gpu"}], "trainer": {"backend": "process"}})
    assert {stage: _resources.resources(stage).gpus for stage in ("train_value", "train_policy", "predict_values")} == {
        "train_value": 0,
        "train_policy": 0,
        "predict_values": 0,
    }
    assert _pools.placement("gpu").gpu_resource == ""


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"trainer": {"backend": "mpi"}}, "trainer.backend"),
        ({"trainer": {"bakend": "job"}}, "trainer.bakend"),
        ({"trainer": {"activeDeadlineSeconds": 0}}, "trainer.activeDeadlineSeconds"),
        ({"pools": [{"name": "GPU"}]}, "pools.0.name"),
        ({"pools": [{"name": "cpu"}, {"name": "cpu"}]}, "a name stands twice"),
        ({"trainer": {"backend": "process", "processesPerNode": 2}}, "asks for 2 GPUs, a node of pool gpu has 1"),
        ({"trainer": {"processesPerNode": 2}}, "processesPerNode is 2"),
        ({"sizes": {"gpu.huge": {"cpu": "1"}}}, "sizes.gpu.huge"),
        ({"sizes": {"gpu.large": {"gpus": 2}}}, "expected cpu or memory"),
        ({"labeller": {"size": "gpu.huge"}}, "labeller.size in .* is gpu.huge; there are: cpu.small"),
        ({"labeller": {"pool": "tpu"}}, "no node pool 'tpu'"),
        ({"labeller": {"gpus": 1}}, "labeller.gpus"),
        ({"encoder": {"size": "gpu.huge"}}, "encoder.size in .* is gpu.huge; there are: cpu.small"),
        ("- a list", "holds list, expected a mapping"),
        ("{", "is not YAML"),
    ],
)
def test_what_is_wrong_in_the_placement_file_is_named(site, document, text):
    path = site(document)
    with pytest.raises(UsageError, match=text) as refused:
        [_resources.resources(stage) for stage in _resources.STAGE_SIZES] + [_launch.launch("train_value")]
    assert path.name in str(refused.value)


def test_a_missing_site_file_is_named(site, monkeypatch):
    monkeypatch.setenv("ROBOLIFT_VALUES", "/nowhere/site.yaml")
    with pytest.raises(UsageError, match=r"placement file /nowhere/site.yaml: No such file"):
        _pools.values()


def test_values_are_laid_over_one_another_by_helm_s_rule():
    below = {"a": {"b": 1, "c": {"d": 2}}, "list": [1, 2], "gone": {"x": 1}}
    above = {"a": {"c": {"e": 3}}, "list": [3], "gone": None}
    assert _pools.merge(below, above) == {"a": {"b": 1, "c": {"d": 2, "e": 3}}, "list": [3]}
    assert below["a"] == {"b": 1, "c": {"d": 2}}


def test_a_job_that_would_not_fit_is_refused_before_anything_is_started(site):
    eight = {"pools": [{"name": "cpu"}, {"name": "gpu", "gpus": 8}], "trainer": {"processesPerNode": 8}}
    site(eight)
    with pytest.raises(UsageError, match=r"num_processes is 1, expected a multiple of trainer.processesPerNode \(8\)"):
        _launch.check_shapes(RECAP, {})
    fits = {"train_value": {"num_processes": 16, "device": "cuda", "batch_size": 48}}
    doubts = _launch.check_shapes(RECAP, {"stages": {**fits, "predict_values": {"device": "cuda"}}})
    assert doubts == []
    (doubt,) = _launch.check_shapes(RECAP, {"stages": fits})
    assert doubt == "stages.predict_values.device is cpu, and pool gpu has GPUs that would idle; set it to cuda"


def test_a_pipeline_without_a_stage_raises_no_doubt_about_it(site):
    site({"pools": POOLS})
    assert _launch.check_shapes({"label_returns", "write_report"}, {}) == []


IN_STEP = {"model": "s3://models/cosmos"}
ON_GPU = {"stages": {"annotate_rewards": {"device": "cuda"}}}


def test_a_labeller_asks_for_the_nodes_that_the_placement_file_names(site):
    site({"pools": POOLS})
    asked = _resources.resources("annotate_rewards")
    assert (asked.pool, asked.gpus, asked.cpu) == ("cpu", 0, "1")
    site({"pools": [*POOLS, {"name": "l4", "gpus": 1}], "labeller": {"size": "gpu.small", "pool": "l4"}})
    asked = _resources.resources("annotate_rewards")
    assert (asked.pool, asked.gpus, asked.cpu, asked.shared_memory) == ("l4", 1, "8", "16Gi")


def test_a_model_in_the_step_is_not_sent_to_a_node_without_a_gpu(site):
    site({"pools": POOLS})
    with pytest.raises(
        UsageError, match=r"annotate_rewards.device is cuda, and its step gets no GPU; set labeller.size"
    ):
        _launch.check_shapes(LABELING, {**IN_STEP, **ON_GPU})
    assert _launch.check_shapes(LABELING, {**IN_STEP, **ON_GPU, "endpoint": "http://vllm/v1"}) == []
    assert _launch.check_shapes(LABELING, {}) == []
    (doubt,) = _launch.check_shapes(LABELING, IN_STEP)
    assert doubt == "a model in the step computes with 1 CPUs and 2Gi; labeller.size says so"


def test_gpus_of_a_labeller_that_would_idle_are_doubted(site):
    site({"pools": POOLS, "labeller": {"size": "gpu.small"}})
    assert _launch.check_shapes(LABELING, {**IN_STEP, **ON_GPU}) == []
    (doubt,) = _launch.check_shapes(LABELING, IN_STEP)
    assert doubt == "stages.annotate_rewards.device is cpu, and its step gets GPUs that would idle; set it to cuda"
    (doubt,) = _launch.check_shapes(LABELING, {"model": "cosmos", "endpoint": "http://vllm/v1"})
    assert doubt.startswith("no model runs in the step, and 1 GPUs of labeller.size would idle")


def test_features_are_measured_where_the_placement_file_says(site):
    site({"pools": POOLS})
    asked = _resources.resources("extract_features")
    assert (asked.pool, asked.gpus, asked.cpu) == ("cpu", 0, "8")
    on_gpu = {"stages": {"extract_features": {"device": "cuda"}}}
    with pytest.raises(
        UsageError, match=r"extract_features.device is cuda, and its step gets no GPU; set encoder.size"
    ):
        _launch.check_shapes({"extract_features"}, on_gpu)
    site({"pools": POOLS, "encoder": {"size": "gpu.small"}})
    assert _resources.resources("extract_features").gpus == 1
    assert _launch.check_shapes({"extract_features"}, on_gpu) == []
    (doubt,) = _launch.check_shapes({"extract_features"}, {})
    assert doubt.startswith("stages.extract_features.device is cpu, and its step gets GPUs that would idle")


def test_the_key_of_an_endpoint_comes_from_a_secret_to_the_labeller_alone(site, tmp_path):
    key = {"name": "ROBOLIFT_VLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "vlm", "key": "token"}}}
    done, spec, steps = compiled(tmp_path, "reward_labeling", ROBOLIFT_VALUES=str(site({"labeller": {"env": [key]}})))
    assert done.returncode == 0, done.stderr
    with_secret = {name for name, step in steps.items() if step.get("secretAsEnv")}
    assert with_secret == {"exec-annotate-rewards"}
    (told,) = steps["exec-annotate-rewards"]["secretAsEnv"]
    assert told["keyToEnv"] == [{"secretKey": "token", "envVar": "ROBOLIFT_VLM_API_KEY"}]
    assert "torch" in spec["deploymentSpec"]["executors"]["exec-annotate-rewards"]["container"]["image"]


def test_pools_without_gpus_raise_no_doubt(site):
    site({"pools": [{"name": "cpu"}, {"name": "gpu", "gpus": 0}]})
    assert _launch.check_shapes(RECAP, {}) == []


def test_a_submission_says_so_even_in_a_dry_run(site, tmp_path):
    eight = {"pools": [{"name": "cpu"}, {"name": "gpu", "gpus": 8}], "trainer": {"processesPerNode": 8}}
    told = ["--set", "output_root=s3://bucket/runs", "--allow-tags", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "pipeline.py", "submit", "recap", *told],
        cwd=ROOT,
        env={**os.environ, "ROBOLIFT_VALUES": str(site(eight))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 64
    assert "train_value.num_processes is 1, expected a multiple of trainer.processesPerNode (8)" in done.stderr
    assert "Traceback" not in done.stderr
