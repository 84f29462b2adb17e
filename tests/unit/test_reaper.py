from __future__ import annotations

from datetime import UTC, datetime

import pytest
import reaper_api
from kubernetes.client import CustomObjectsApi

from robolift import logging
from robolift.launch import reaper
from robolift.launch.cluster import connect
from robolift.launch.reaper import Limits, Outcome, reap

NOW = datetime(2026, 1, 2, tzinfo=UTC)  # a day after what the fake server holds was made


@pytest.fixture
def fake(tmp_path, monkeypatch):
    with reaper_api.serve() as server:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("KUBECONFIG", str(server.write_kubeconfig(tmp_path / "kubeconfig")))
        logging.configure()
        yield server


@pytest.fixture
def api(fake):
    with connect() as client:
        yield CustomObjectsApi(client)


def job(fake, name, workflow, *, plural="pytorchjobs", **fields):
    labels = {"app.kubernetes.io/managed-by": "robolift-launcher", "robolift.io/workflow": workflow}
    return fake.add(plural, name, labels=labels, **fields)


def workflow(fake, name, phase):
    fake.add("workflows", name, status={"phase": phase})


@pytest.mark.parametrize("plural", ["pytorchjobs", "trainjobs", "jobs"])
@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Error"])
def test_a_job_of_a_finished_workflow_is_deleted_with_its_pods(fake, api, plural, phase):
    job(fake, "left", "done", plural=plural)
    workflow(fake, "done", phase)
    assert reap(api, "ns", Limits(), now=NOW) == Outcome(deleted=1, kept=0, errors=0)
    assert fake.names(plural) == []
    assert fake.deleted[0]["propagationPolicy"] == "Background"
    assert fake.deleted[0]["preconditions"] == {"uid": "uid-left"}


def test_a_job_whose_workflow_is_gone_is_deleted(fake, api):
    job(fake, "left", "vanished")
    assert reap(api, "ns", Limits(), now=NOW).deleted == 1


@pytest.mark.parametrize("phase", ["Running", "Pending", ""])
def test_a_job_of_a_workflow_that_goes_on_is_kept(fake, api, phase):
    job(fake, "busy", "going")
    workflow(fake, "going", phase)
    assert reap(api, "ns", Limits(), now=NOW) == Outcome(deleted=0, kept=1, errors=0)
    assert fake.names("pytorchjobs") == ["busy"]


def test_a_job_younger_than_the_grace_period_is_kept(fake, api):
    job(fake, "young", "vanished", created="2026-01-01T23:45:01Z")
    job(fake, "old", "vanished", created="2026-01-01T23:45:00Z")
    reap(api, "ns", Limits(grace_period_s=900), now=NOW)
    assert fake.names("pytorchjobs") == ["young"]


def test_jobs_of_others_are_not_touched(fake, api):
    fake.add("pytorchjobs", "somebody-elses")
    fake.add("pytorchjobs", "no-workflow", labels={"app.kubernetes.io/managed-by": "robolift-launcher"})
    fake.add("pytorchjobs", "by-hand", labels={"robolift.io/workflow": "vanished"})
    job(fake, "elsewhere", "vanished", namespace="other")
    assert reap(api, "ns", Limits(), now=NOW) == Outcome(deleted=0, kept=0, errors=0)
    assert len(fake.names("pytorchjobs")) == 4


@pytest.mark.parametrize("end", ["Succeeded", "Failed", "Complete"])
def test_an_ended_job_keeps_its_pods_and_logs_for_a_while(fake, api, end):
    for name, ended in (("recent", "2026-01-01T23:00:01Z"), ("long-ago", "2026-01-01T22:59:59Z")):
        conditions = [{"type": end, "status": "True", "lastTransitionTime": ended}]
        job(fake, name, "vanished", status={"conditions": conditions})
    reap(api, "ns", Limits(keep_finished_s=3600), now=NOW)
    assert fake.names("pytorchjobs") == ["recent"]


def test_a_condition_that_does_not_hold_is_no_end(fake, api):
    conditions = [{"type": "Failed", "status": "False", "lastTransitionTime": "2026-01-01T23:59:59Z"}]
    job(fake, "left", "vanished", status={"conditions": conditions})
    assert reap(api, "ns", Limits(), now=NOW).deleted == 1


def test_a_dry_run_says_what_would_go_and_deletes_nothing(fake, api, capsys):
    job(fake, "left", "vanished")
    assert reap(api, "ns", Limits(), now=NOW, dry_run=True).deleted == 1
    assert fake.names("pytorchjobs") == ["left"]
    assert "would delete" in capsys.readouterr().err


def test_a_question_without_an_answer_leaves_the_job(fake, api):
    job(fake, "left", "unknown")
    fake.broken["/workflows/"] = 503
    assert reap(api, "ns", Limits(), now=NOW) == Outcome(deleted=0, kept=0, errors=1)
    assert fake.names("pytorchjobs") == ["left"]


def test_a_cluster_that_serves_no_workflows_proves_nothing(fake, api):
    job(fake, "left", "unknown")
    del fake.served[("argoproj.io", "v1alpha1")]
    assert reap(api, "ns", Limits(), now=NOW).errors == 1
    assert fake.names("pytorchjobs") == ["left"]


def test_a_kind_that_the_cluster_does_not_know_has_no_jobs(fake, api):
    del fake.served[("trainer.kubeflow.org", "v1alpha1")]
    job(fake, "left", "vanished", plural="jobs")
    assert reap(api, "ns", Limits(), now=NOW) == Outcome(deleted=1, kept=0, errors=0)


def test_a_kind_that_may_not_be_listed_is_an_error_and_the_others_are_done(fake, api, capsys):
    fake.broken["/pytorchjobs"] = 403
    job(fake, "left", "vanished", plural="jobs")
    assert reap(api, "ns", Limits(), now=NOW) == Outcome(deleted=1, kept=0, errors=1)
    assert "403" in capsys.readouterr().err


def test_a_job_made_anew_under_the_same_name_survives(fake, api, monkeypatch):
    job(fake, "again", "vanished")
    original = reaper._end_of_workflow

    def remade_meanwhile(*args):
        job(fake, "again", "running", uid="another")
        return original(*args)

    monkeypatch.setattr(reaper, "_end_of_workflow", remade_meanwhile)
    assert reap(api, "ns", Limits(), now=NOW) == Outcome(deleted=0, kept=1, errors=0)
    assert fake.names("pytorchjobs") == ["again"]


def test_a_job_that_is_being_deleted_is_left_alone(fake, api):
    job(fake, "going", "vanished")["metadata"]["deletionTimestamp"] = "2026-01-01T23:00:00Z"
    assert reap(api, "ns", Limits(), now=NOW).kept == 1


def test_every_page_is_read_and_a_workflow_is_asked_once(fake, api, monkeypatch):
    monkeypatch.setattr(reaper, "PAGE", 2)
    for n in range(5):
        job(fake, f"left-{n}", "done")
    workflow(fake, "done", "Failed")
    assert reap(api, "ns", Limits(), now=NOW).deleted == 5
    paths = [path for _, path, _ in fake.requests]
    assert sum("/pytorchjobs?" in path for path in paths) == 3
    assert sum(path.endswith("/workflows/done") for path in paths) == 1


def test_the_command_deletes_and_ends_with_zero(fake):
    job(fake, "left", "vanished")
    assert reaper.main(["--namespace=ns", "--grace-period=900"]) == 0
    assert fake.names("pytorchjobs") == []
    assert {header for _, _, header in fake.requests} == {"Bearer secret-token"}


def test_the_command_ends_with_70_when_it_could_not_ask(fake):
    fake.broken["/pytorchjobs"] = 500
    assert reaper.main(["--namespace=ns"]) == 70


def test_without_a_cluster_the_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    assert reaper.main(["--namespace=ns"]) == 64
    assert "no way to the Kubernetes API" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_an_error_not_a_crash(fake, capsys, tmp_path, monkeypatch):
    fake.url = "http://127.0.0.1:9"  # the discard port: nothing listens
    monkeypatch.setenv("KUBECONFIG", str(fake.write_kubeconfig(tmp_path / "dead")))
    assert reaper.main(["--namespace=ns"]) == 70
    assert "no answer" in capsys.readouterr().err
