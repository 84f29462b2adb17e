"""A step that hands its stage to a job: over HTTP to an API server, whose operator is played by running the pods."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import job_specs
import pytest
import toy_stage
import training_operator
from fake_kubernetes import FakeKubernetes

from robolift import manifest as manifests
from robolift import storage
from robolift.errors import UsageError
from robolift.launch import cluster as clusters
from robolift.launch import watch
from robolift.launch.cluster import own_namespace
from robolift.launch.spec import Launch
from robolift.stages import remote
from robolift.stages.component import run_component
from robolift.stages.stage import execute, parse_config

JOBS = "pytorchjobs"
QUICK = {"cameras": [], "steps": 2, "batch_size": 8, "warmup_steps": 1, "eval_every": 2}


def launch(**changes):
    """Return the constant that a compiled pipeline carries, for pods without GPUs."""
    placement = dataclasses.replace(job_specs.GPU_POOL, gpu_resource="", gpus=0)
    found = dataclasses.replace(job_specs.LAUNCH, placement=placement, processes_per_node=1, **changes)
    return dataclasses.asdict(found)


@pytest.fixture
def kubernetes(monkeypatch):
    """An API server, and the environment of a step's pod that talks to it."""
    with FakeKubernetes().serving() as fake:
        fake.put("workflows", "recap-x1", {"metadata": {"uid": "u-7"}})
        told = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "ROBOLIFT_RUN_ID": "run-1",
            "ROBOLIFT_WORKFLOW": "recap-x1",
            "ROBOLIFT_NAMESPACE": "team",
        }
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(clusters, "connect", lambda: job_specs.cluster(fake.host).api)
        monkeypatch.setattr(watch, "Patience", lambda: job_specs.QUICK)
        yield fake


def runs_pods(fake, made):
    """Play the operator: run the command of every pod of a new job and set the job's condition by how they end."""
    name = made["metadata"]["name"]
    fake.set_conditions(JOBS, name, "Created", "Running")
    env = {key: value for key, value in os.environ.items() if not key.startswith(("ROBOLIFT_", "KUBERNETES_"))}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    codes = []
    for pod in training_operator.pods(made):
        pod_env = {**env, **pod.env, "PET_MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(pod.container["command"], env=pod_env, capture_output=True, text=True, check=False)
        ended = {
            "terminated": {"exitCode": done.returncode, "reason": "Completed" if done.returncode == 0 else "Error"}
        }
        phase = "Succeeded" if done.returncode == 0 else "Failed"
        fake.log(pod.name, *f"{done.stdout}{done.stderr}".splitlines())
        fake.close_log(pod.name)
        fake.add_pod(pod.name, pod.labels, "pytorch", ended, phase=phase)
        codes.append(done.returncode)
    fake.set_conditions(JOBS, name, "Created", "Succeeded" if not any(codes) else "Failed", message=f"codes {codes}")


def artifact(folder, name="checkpoint"):
    return SimpleNamespace(path=str(folder / name), uri=f"minio://mlpipeline/{name}", metadata={})


@pytest.fixture
def step(dataset, tmp_path):
    """Run the component's body on the value model of a small dataset."""
    targets = execute("label_returns", {}, {"dataset": dataset.uri}, str(tmp_path / "inputs"))

    def run(root, config=QUICK, **changes):
        made = artifact(tmp_path)
        given = {"dataset": dataset.uri, "targets": targets.uri}
        stages = {"train_value": config}
        uri = run_component(
            "train_value",
            artifact=made,
            output_root=root,
            stages=stages,
            launch=launch(**changes),
            inputs=given,
            seed=3,
        )
        return uri, made

    return run


def test_a_step_launches_the_stage_and_hands_on_what_the_job_published(kubernetes, step, s3, capsys):
    kubernetes.on_create = runs_pods
    uri, made = step(f"{s3}/runs")

    found = manifests.load(uri)
    assert storage.read_bytes(f"{uri}/manifest.json") == Path(made.path).read_bytes()
    assert (found.stage, found.counts["steps"], found.seed) == ("train_value", 2, 3)
    assert found.image == job_specs.LAUNCH.image
    job = kubernetes.find(JOBS)
    assert job["metadata"]["labels"]["robolift.io/workflow"] == "recap-x1"
    assert job["metadata"]["ownerReferences"][0]["uid"] == "u-7"
    assert f"[{job['metadata']['name']}] {uri}" in capsys.readouterr().out  # the pod's own last line
    manifests.verify(found)

    kubernetes.requests.clear()
    assert step(f"{s3}/runs")[0] == uri  # found again without asking the cluster
    assert kubernetes.requests == []


def test_a_user_s_error_in_the_pods_ends_the_step_with_its_code(kubernetes, step, s3, capsys):
    kubernetes.on_create = runs_pods
    with pytest.raises(SystemExit) as stopped:
        step(f"{s3}/runs", {**QUICK, "state_keys": ["observation.nothing"]})
    assert stopped.value.code in (64, 65)
    shown = capsys.readouterr().err
    assert f"exit code {stopped.value.code} Error" in shown
    assert "observation.nothing" in shown


def test_a_job_that_succeeds_without_the_expected_output_is_an_error(kubernetes, step, s3, capsys):
    kubernetes.on_create = lambda fake, made: fake.set_conditions(JOBS, made["metadata"]["name"], "Succeeded")
    with pytest.raises(SystemExit) as stopped:
        step(f"{s3}/runs")
    assert stopped.value.code == 65
    assert "images of one build" in capsys.readouterr().err


def test_the_job_reads_its_inputs_where_they_were_published(kubernetes, step, s3, dataset):
    kubernetes.on_create = lambda fake, made: fake.set_conditions(JOBS, made["metadata"]["name"], "Failed")
    with pytest.raises(SystemExit):
        step(f"{s3}/runs")
    command = kubernetes.find(JOBS)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    assert command["command"][:5] == ["python", "-m", "robolift.launch.entry", "train_value", "--config"]
    job = storage.read_json(command["command"][5])
    assert job["output_root"] == f"{s3}/runs"
    assert job["inputs"]["dataset"] == [dataset.uri]
    assert job["config"] == {**QUICK, "seed": 3}


def test_a_folder_of_the_pod_is_no_place_for_a_job_s_output(kubernetes, step, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        step(str(tmp_path / "runs"))
    assert stopped.value.code == 64
    assert "a folder of this pod; expected a store" in capsys.readouterr().err
    assert kubernetes.requests == []


@pytest.mark.parametrize("told", [{}, {"backend": "process"}])
def test_a_step_without_a_backend_does_the_work_itself(monkeypatch, tmp_path, told):
    toy_stage.install(monkeypatch)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    run_component("toy", artifact=artifact(tmp_path), output_root=str(tmp_path), stages={}, launch=told)
    assert toy_stage.runs == 1


def test_outside_a_cluster_a_step_does_the_work_itself(monkeypatch, tmp_path):
    toy_stage.install(monkeypatch)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    run_component("toy", artifact=artifact(tmp_path), output_root=str(tmp_path), stages={}, launch=launch())
    assert toy_stage.runs == 1


def shape(name, config, **changes):
    told = Launch.from_dict({**launch(), **changes})
    return remote.shape(name, parse_config(name, config), told)


GPUS = {"pool": "gpu", "node_selector": {}, "tolerations": [], "gpu_resource": "nvidia.com/gpu", "gpus": 4}


def test_pods_and_gpus_follow_from_the_number_of_processes_or_devices():
    assert shape("train_value", {"num_processes": 3}) == (3, 0)
    many = {"processes_per_node": 4, "placement": GPUS}
    assert shape("train_value", {"num_processes": 8, "batch_size": 48}, **many) == (2, 4)
    assert shape("train_policy", {"num_devices": 2, "batch_size": 8}, placement=GPUS) == (1, 2)
    assert shape("train_policy", {"num_devices": 8, "batch_size": 8}, placement=GPUS) == (2, 4)
    assert shape("train_policy", {"num_devices": 2, "batch_size": 8}) == (1, 0)


@pytest.mark.parametrize(
    ("name", "config", "changes", "text"),
    [
        ("train_value", {"num_processes": 3}, {"processes_per_node": 2}, "a multiple of trainer.processesPerNode"),
        ("train_value", {"device": "cuda"}, {}, "device is cuda, and pool gpu has no GPUs"),
        ("train_policy", {"num_devices": 6, "batch_size": 6}, {"placement": GPUS}, "a multiple of the 4 GPUs"),
        ("label_returns", {}, {}, "label_returns can't run as a job of its own"),
    ],
)
def test_a_configuration_that_does_not_fit_the_pool_is_refused(name, config, changes, text):
    with pytest.raises(UsageError, match=text):
        shape(name, config, **changes)


def test_the_namespace_is_told_by_the_pipeline_or_the_pod(tmp_path, monkeypatch):
    assert own_namespace({"ROBOLIFT_NAMESPACE": "team"}) == "team"
    monkeypatch.setattr(clusters, "NAMESPACE_FILE", tmp_path / "namespace")
    with pytest.raises(UsageError, match="ROBOLIFT_NAMESPACE"):
        own_namespace({})
    (tmp_path / "namespace").write_text("mine\n")
    assert own_namespace({}) == "mine"


def test_the_way_to_the_api_server_is_the_pod_s_or_the_kubeconfig_s(tmp_path, monkeypatch):
    from kubernetes.config import incluster_config

    token, certificate, kubeconfig = (tmp_path / name for name in ("token", "ca.crt", "kubeconfig"))
    token.write_text("t0ken")
    certificate.write_text("any")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(certificate))
    told = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    for name, value in told.items():
        monkeypatch.setitem(os.environ, name, value)
    loader = incluster_config.InClusterConfigLoader
    monkeypatch.setattr(loader, "_load_config", _without_certificate(loader))
    assert clusters.connect(told).configuration.host == "https://10.0.0.1:443"

    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        "contexts: [{name: c, context: {cluster: k, user: u}}]\n"
        "clusters: [{name: k, cluster: {server: 'http://127.0.0.1:9'}}]\nusers: [{name: u, user: {token: t}}]\n"
    )
    assert clusters.connect({"KUBECONFIG": str(kubeconfig)}).configuration.host == "http://127.0.0.1:9"
    with pytest.raises(UsageError, match="no way to the Kubernetes API"):
        clusters.connect({"KUBECONFIG": str(tmp_path / "none")})


def _without_certificate(loader):
    """Load all but the certificate, whose content the client would want to be one."""
    original = loader._load_config

    def load(self):
        original(self)
        self.ssl_ca_cert = None

    return load


def test_an_error_of_a_launch_names_what_is_wrong():
    with pytest.raises(UsageError, match=r"launch.cpu"):
        Launch.from_dict({key: value for key, value in launch().items() if key != "cpu"})
