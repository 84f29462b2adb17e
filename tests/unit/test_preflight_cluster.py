from __future__ import annotations

import re

import pytest
import reaper_api

from robolift.launch import preflight


@pytest.fixture
def fake(tmp_path, monkeypatch):
    with reaper_api.serve() as server:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("KUBECONFIG", str(server.write_kubeconfig(tmp_path / "kubeconfig")))
        yield server


def run(fake, *more, kfp_url=None):
    return preflight.main(["--namespace=ns", f"--kfp-url={kfp_url or fake.url}", *more])


def test_a_cluster_with_everything_is_ready(fake, capsys):
    assert run(fake, "--backend=pytorchjob", "--backend=process") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "ok   workflows.argoproj.io/v1alpha1 is served",
        "ok   pytorchjobs.kubeflow.org/v1 is served",
        "ok   this account may launch and watch jobs in ns",
        f"ok   {fake.url}/apis/v2beta1/healthz answers 200",
        "ready",
    ]
    assert {token for _, path, token in fake.requests if "healthz" not in path} == {"Bearer secret-token"}


def test_what_is_missing_is_named_with_its_cure_and_the_rest_is_still_checked(fake, capsys):
    del fake.served[("kubeflow.org", "v1")]
    assert run(fake, "--backend=pytorchjob", "--kueue") == 1
    out = capsys.readouterr().out
    assert (
        "FAIL pytorchjobs.kubeflow.org/v1 is not served (404 Not Found)\n     mend: install the training operator"
        in out
    )
    assert "FAIL localqueues.kueue.x-k8s.io/v1beta2 is not served" in out
    assert "healthz answers 200" in out
    assert out.endswith("not ready: 2 of the above\n")


def test_a_served_group_without_the_kind_is_not_enough(fake, capsys):
    fake.served[("kubeflow.org", "v1")] = ["notebooks"]
    assert run(fake, "--backend=pytorchjob") == 1
    assert "FAIL pytorchjobs.kubeflow.org/v1 is not served\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (["--provider=gke"], ["computeclasses.cloud.google.com/v1"]),
        (["--provider=gke", "--config-connector"], ["containernodepools.container.cnrm.cloud.google.com/v1beta1"]),
        (["--provider=karpenter"], ["nodepools.karpenter.sh/v1", "ec2nodeclasses.karpenter.k8s.aws/v1"]),
        (["--backend=trainjob"], ["trainjobs.trainer.kubeflow.org/v1alpha1"]),
        (["--backend=job"], ["jobs.batch/v1"]),
    ],
)
def test_each_setting_asks_for_what_it_needs(fake, capsys, options, kinds):
    run(fake, *options)
    out = capsys.readouterr().out
    assert all(kind in out for kind in kinds)


@pytest.mark.parametrize(
    ("denied", "said"),
    [
        (("create", "pytorchjobs"), "may not create pytorchjobs in ns"),
        (("get", "pods/log"), "may not get pods/log in ns"),
        (("get", "workflows"), "may not get workflows in ns"),
    ],
)
def test_a_missing_right_is_named(fake, capsys, denied, said):
    fake.denied.add(denied)
    assert run(fake, "--backend=pytorchjob") == 1
    out = capsys.readouterr().out
    assert said in out
    assert "launcher.subjects" in out


def test_an_api_that_refuses_the_question_is_a_failure_not_a_crash(fake, capsys):
    fake.broken["selfsubjectaccessreviews"] = 500
    assert run(fake, "--backend=pytorchjob") == 1
    assert "can't ask what this account may do (500" in capsys.readouterr().out


def test_a_login_page_is_an_answer_of_kubeflow_pipelines(fake, capsys):
    fake.broken["healthz"] = 403
    assert run(fake) == 0
    assert "answers 403: it wants a login" in capsys.readouterr().out


@pytest.mark.parametrize(("status", "said"), [(404, "answers 404"), (503, "answers 503")])
def test_kubeflow_pipelines_that_is_ill_is_a_failure(fake, capsys, status, said):
    fake.broken["healthz"] = status
    assert run(fake) == 1
    assert said in capsys.readouterr().out


def test_kubeflow_pipelines_that_is_not_there_is_a_failure(fake, capsys):
    assert run(fake, kfp_url="http://127.0.0.1:9") == 1
    assert "Connection refused" in capsys.readouterr().out


def test_a_bucket_that_takes_the_probe_is_writable_and_left_empty(fake, capsys, s3_endpoint):
    import s3fs

    store = s3fs.S3FileSystem()
    store.mkdir("preflight-bucket")
    assert run(fake, "--storage=s3://preflight-bucket/runs") == 0
    assert "ok   s3://preflight-bucket/runs can be written" in capsys.readouterr().out
    store.invalidate_cache()
    assert store.find("preflight-bucket") == []


def test_a_bucket_that_is_not_there_is_a_failure(fake, capsys, s3_endpoint):
    assert run(fake, "--storage=s3://no-such-bucket-here/runs") == 1
    out = capsys.readouterr().out
    assert re.search(r"FAIL s3://no-such-bucket-here/runs/preflight/\.probe-[0-9a-f]{16} can't be written", out)


def test_a_store_that_does_not_answer_is_a_failure_not_a_crash(fake, capsys, monkeypatch, request):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    import s3fs

    # A file system remembers its endpoint, and fsspec remembers file systems.
    s3fs.S3FileSystem.clear_instance_cache()
    request.addfinalizer(s3fs.S3FileSystem.clear_instance_cache)
    assert run(fake, "--storage=s3://preflight-nowhere/runs") == 1
    assert "FAIL s3://preflight-nowhere/runs can't be written: EndpointConnectionError" in capsys.readouterr().out


def test_an_unknown_store_is_a_failure(fake, capsys):
    assert run(fake, "--storage=warez://bucket") == 1
    assert "FAIL no store for warez://bucket" in capsys.readouterr().out


def test_without_a_cluster_nothing_is_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    assert preflight.main(["--namespace=ns", "--kfp-url=http://127.0.0.1:9"]) == 64
    assert "no way to the Kubernetes API" in capsys.readouterr().err


def test_in_a_pod_the_mounted_account_is_used(fake, tmp_path, monkeypatch):
    from kubernetes.config import incluster_config

    (tmp_path / "token").write_text("pod-token")
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", fake.url.rsplit(":", 1)[1])
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    client = preflight.connect()
    assert client.configuration.host == f"https://127.0.0.1:{fake.url.rsplit(':', 1)[1]}"
    assert client.configuration.get_api_key_with_prefix("authorization") == "bearer pod-token"
