"""The watcher against an API server over HTTP, through the real kubernetes client."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time

import pytest
import structlog
from fake_kubernetes import FakeKubernetes
from job_specs import NAME, QUICK, cluster, spec

from robolift.errors import UsageError
from robolift.launch import cluster as clusters
from robolift.launch import pytorchjob
from robolift.launch.cluster import ClusterUnreachableError
from robolift.launch.watch import JobFailedError, JobLostError, run_job

JOBS = "pytorchjobs"
MASTER = {"training.kubeflow.org/job-name": NAME, "training.kubeflow.org/replica-type": "master"}
WORKER = {"training.kubeflow.org/job-name": NAME, "training.kubeflow.org/replica-type": "worker"}


@pytest.fixture
def kubernetes():
    with FakeKubernetes().serving() as fake:
        yield fake


@pytest.fixture
def said():
    return []


def plays(*states, plural=JOBS):
    """Return a controller that moves each new job through ``states``, conditions as the operator sets them.

    It goes on when a launcher has seen the state before.
    """

    def play(fake, made):
        if made["kind"] == "Service":
            return
        for state in states:
            fake.await_watch(plural, made["metadata"]["name"])
            fake.set_conditions(plural, made["metadata"]["name"], "Created", state)

    return play


def end_once_watched(fake):
    fake.await_watch(JOBS, NAME)
    fake.set_conditions(JOBS, NAME, "Succeeded")


def launch(kubernetes, said=None, patience=QUICK, **changes):
    say = (said if said is not None else []).append
    run_job(cluster(kubernetes.host), spec(**changes), patience=patience, say=say)


def wait_until(condition, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_a_job_that_waits_in_a_queue_runs_restarts_and_succeeds(kubernetes):
    kubernetes.on_create = plays("Suspended", "Running", "Restarting", "Running", "Succeeded")
    with structlog.testing.capture_logs() as logged:
        launch(kubernetes, queue="robolift")
    assert kubernetes.count("POST", JOBS) == 1
    assert kubernetes.find(JOBS)["spec"]["runPolicy"]["suspend"] is True
    states = [event["state"] for event in logged if event["event"] == "job state"]
    assert states == ["Pending", "Suspended", "Running", "Restarting", "Running", "Succeeded"]


@pytest.mark.parametrize(
    ("backend", "plural", "done"), [("trainjob", "trainjobs", "Complete"), ("job", "jobs", "Complete")]
)
def test_the_other_backends_are_watched_alike(kubernetes, backend, plural, done):
    kubernetes.on_create = plays("Suspended", done, plural=plural)
    launch(kubernetes, backend=backend)
    assert kubernetes.names(plural) == [NAME]


def test_several_pods_of_a_plain_job_get_a_service_that_goes_with_it(kubernetes):
    kubernetes.on_create = plays("Complete", plural="jobs")
    launch(kubernetes, backend="job", nodes=2)
    service = kubernetes.find("services")
    uid = kubernetes.find("jobs")["metadata"]["uid"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": uid}
    ]


def test_the_master_s_log_is_followed_over_a_lost_connection_without_a_line_twice(kubernetes, said):
    def play(fake, _):
        fake.drop_log_after = 2
        fake.add_pod(f"{NAME}-master-0", MASTER, "pytorch", {"running": {}})
        fake.add_pod(f"{NAME}-worker-0", WORKER, "pytorch", {"running": {}})
        fake.log(f"{NAME}-worker-0", "not the master")
        for number in range(5):
            fake.log(f"{NAME}-master-0", f"step {number}")
            time.sleep(0.05)
        fake.close_log(f"{NAME}-master-0")
        fake.set_conditions(JOBS, NAME, "Succeeded")

    kubernetes.on_create = play
    launch(kubernetes, said)
    assert said == [f"[{NAME}] step {number}" for number in range(5)]
    assert kubernetes.count("GET", f"pods/{NAME}-master-0/log") >= 2


def test_a_failed_job_is_a_failure_with_its_pods_last_lines_and_events(kubernetes, said):
    def play(fake, _):
        fake.add_pod(f"{NAME}-master-0", MASTER, "pytorch", {"running": {}})
        lines = [f"line {n}" for n in range(300)] + ["error: video shorter than its table"]
        fake.log(f"{NAME}-worker-0", *lines)
        ended = {"terminated": {"exitCode": 65, "reason": "Error"}}
        fake.add_pod(f"{NAME}-worker-0", WORKER, "pytorch", ended, phase="Failed")
        involved = {"involvedObject": {"name": f"{NAME}-worker-0"}}
        event = {**involved, "type": "Warning", "reason": "BackOff", "message": "restarting failed container"}
        fake.put("events", "e1", event)
        fake.set_conditions(JOBS, NAME, "Running", "Failed", message="1 Worker replica(s) failed")

    kubernetes.on_create = play
    with pytest.raises(JobFailedError) as failed:
        launch(kubernetes, said)
    assert failed.value.exit_code == 65
    assert "1 Worker replica(s) failed" in str(failed.value)
    assert f"pod {NAME}-worker-0: exit code 65 Error video shorter than its table" in str(failed.value)
    assert said[0] == f"--- pod {NAME}-worker-0 failed: exit code 65 Error; its last lines:"
    assert said[1] == "line 101"
    assert len(said) == 1 + 200 + 1
    assert said[-1] == f"--- event of {NAME}-worker-0: Warning BackOff: restarting failed container"


def test_a_defect_in_a_pod_ends_the_step_with_70(kubernetes):
    def play(fake, _):
        ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
        fake.add_pod(f"{NAME}-master-0", MASTER, "pytorch", ended, phase="Failed")
        fake.set_conditions(JOBS, NAME, "Failed")

    kubernetes.on_create = play
    with pytest.raises(JobFailedError) as failed:
        launch(kubernetes)
    assert failed.value.exit_code == 70


def test_a_running_job_of_an_earlier_attempt_is_adopted(kubernetes):
    kubernetes.put(JOBS, NAME, pytorchjob.build(spec()))
    kubernetes.set_conditions(JOBS, NAME, "Running")
    uid = kubernetes.find(JOBS)["metadata"]["uid"]
    ending = threading.Thread(target=end_once_watched, args=(kubernetes,), daemon=True)
    ending.start()
    launch(kubernetes)
    assert kubernetes.find(JOBS)["metadata"]["uid"] == uid
    assert (kubernetes.count("POST", JOBS), kubernetes.count("DELETE", JOBS)) == (1, 0)


def test_a_job_of_this_name_with_another_spec_is_an_error_that_names_it(kubernetes):
    kubernetes.put(JOBS, NAME, {"metadata": {"annotations": {"robolift.io/spec-digest": "other"}}})
    with pytest.raises(UsageError, match="another job of this name") as refused:
        launch(kubernetes)
    assert f"kubectl -n team delete pytorchjobs {NAME}" in str(refused.value)
    assert kubernetes.count("DELETE", JOBS) == 0


def test_a_failed_job_of_an_earlier_attempt_is_made_anew(kubernetes):
    kubernetes.on_create = plays("Failed")
    with pytest.raises(JobFailedError):
        launch(kubernetes)
    failed = kubernetes.find(JOBS)["metadata"]["uid"]
    kubernetes.deletion_s = 0.2
    kubernetes.on_create = plays("Running", "Succeeded")
    launch(kubernetes)
    assert kubernetes.find(JOBS)["metadata"]["uid"] != failed
    assert kubernetes.count("DELETE", JOBS) == 1
    assert [query["propagationPolicy"] for method, _, query in kubernetes.requests if method == "DELETE"] == [
        "Foreground"
    ]


def test_a_job_that_does_not_disappear_is_an_error_in_time(kubernetes):
    kubernetes.on_create = plays("Failed")
    with pytest.raises(JobFailedError):
        launch(kubernetes)
    kubernetes.deletion_s = 60
    with pytest.raises(JobLostError, match="does not disappear"):
        launch(kubernetes, patience=dataclasses.replace(QUICK, deletion=0.3))


def test_an_expired_watch_is_begun_anew(kubernetes):
    def play(fake, _):
        for _ in range(3):
            time.sleep(0.05)
            fake.expire_watches()
            fake.set_conditions(JOBS, NAME, "Running")
            fake.expire_watches()
        fake.set_conditions(JOBS, NAME, "Succeeded")

    kubernetes.on_create = play
    kubernetes.fail(410, times=2, watch=True)  # some servers say so by the status of the answer
    launch(kubernetes)
    assert kubernetes.count("POST", JOBS) == 1


@pytest.mark.parametrize("watch", [True, False])
def test_bursts_of_500_are_sat_out(kubernetes, watch):
    def play(fake, _):
        time.sleep(0.05)
        fake.fail(500, times=5, path=JOBS, watch=watch)
        fake.set_conditions(JOBS, NAME, "Running")
        time.sleep(0.1)
        fake.fail(503, times=3, path=JOBS)
        fake.set_conditions(JOBS, NAME, "Succeeded")

    kubernetes.on_create = play
    kubernetes.fail(500, times=3, method="POST")
    launch(kubernetes)
    assert kubernetes.count("POST", JOBS) == 4


def test_a_creation_whose_answer_was_lost_is_not_done_twice(kubernetes):
    kubernetes.on_create = plays("Succeeded")
    original = clusters.Cluster.create
    calls = []

    class Flaky(clusters.Cluster):
        def create(self, resource, body):
            calls.append(original(self, resource, body))
            return original(self, resource, body)  # as if the first answer had never come

    flaky = Flaky(cluster(kubernetes.host).api, "team", patience_s=2.0, first_pause_s=0.01)
    run_job(flaky, spec(), patience=QUICK)
    assert kubernetes.count("POST", JOBS) == 2
    assert kubernetes.names(JOBS) == [NAME]


def test_a_server_that_never_answers_ends_the_step_and_not_the_job(kubernetes):
    kubernetes.on_create = lambda fake, _: fake.fail(500, times=10**6)
    with pytest.raises(ClusterUnreachableError) as ended:
        run_job(cluster(kubernetes.host, patience_s=0.2), spec(), patience=QUICK)
    assert ended.value.exit_code == 143
    assert kubernetes.names(JOBS) == [NAME]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, "may not create pytorchjobs.kubeflow.org in namespace team"),
        (401, "launcher.subjects"),
        (404, "install its operator"),
        (422, "refuses to create"),
    ],
)
def test_a_refusal_says_what_to_do_and_is_not_tried_again(kubernetes, status, text):
    kubernetes.fail(status, method="POST")
    with pytest.raises(UsageError, match=text):
        launch(kubernetes)
    assert kubernetes.count("POST", JOBS) == 1


def test_a_job_past_its_deadline_is_deleted(kubernetes):
    kubernetes.on_create = plays("Running")
    with pytest.raises(JobLostError, match=r"took longer than 1 s; it was deleted"):
        launch(kubernetes, active_deadline_s=1)
    wait_until(lambda: kubernetes.names(JOBS) == [])


def test_time_in_the_queue_is_no_time(kubernetes):
    def play(fake, _):
        fake.set_conditions(JOBS, NAME, "Suspended")
        fake.await_watch(JOBS, NAME)
        time.sleep(2.5)
        fake.set_conditions(JOBS, NAME, "Succeeded")

    kubernetes.on_create = play
    launch(kubernetes, active_deadline_s=1, queue="robolift")


def test_a_job_that_someone_deletes_is_lost(kubernetes):
    def play(fake, _):
        fake.set_conditions(JOBS, NAME, "Running")
        fake.await_watch(JOBS, NAME)
        fake.remove(JOBS, NAME)

    kubernetes.on_create = play
    with pytest.raises(JobLostError, match="deleted by someone") as lost:
        launch(kubernetes)
    assert lost.value.exit_code == 143


def program(kubernetes, backend="pytorchjob"):
    """Start a launcher as a process of its own."""
    here = os.path.dirname(os.path.abspath(__file__))
    env = {**os.environ, "PYTHONPATH": here}
    return subprocess.Popen(
        [sys.executable, os.path.join(here, "job_specs.py"), kubernetes.host, backend],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_job_that_ended_by_a_user_s_error_is_not_run_again(kubernetes, said):
    def play(fake, _):
        ended = {"terminated": {"exitCode": 64, "reason": "Error"}}
        fake.add_pod(f"{NAME}-master-0", MASTER, "pytorch", ended, phase="Failed")
        fake.set_conditions(JOBS, NAME, "Failed")

    kubernetes.on_create = play
    for _ in range(2):
        with pytest.raises(JobFailedError) as failed:
            launch(kubernetes, said)
        assert failed.value.exit_code == 64
    assert kubernetes.count("DELETE", JOBS) == 0


def test_rights_that_are_missing_for_an_explanation_do_not_hide_the_failure(kubernetes, said):
    kubernetes.on_create = plays("Failed")
    kubernetes.fail(403, times=9, method="GET", path="events")
    with pytest.raises(JobFailedError, match="failed"):
        launch(kubernetes, said)
    assert any("may not list events" in line for line in said)


def test_the_service_of_a_job_that_is_gone_is_not_taken_for_the_new_one_s(kubernetes):
    stale = {
        "metadata": {
            "name": NAME,
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": "of-a-deleted-job"}],
        }
    }
    kubernetes.put("services", NAME, stale)
    kubernetes.on_create = plays("Complete", plural="jobs")
    collector = threading.Timer(0.5, lambda: kubernetes.remove("services", NAME))
    collector.start()
    launch(kubernetes, backend="job", nodes=2)
    collector.join()
    (owner,) = kubernetes.find("services")["metadata"]["ownerReferences"]
    assert owner["uid"] == kubernetes.find("jobs")["metadata"]["uid"]


def test_a_launcher_killed_and_retried_finds_its_job_again(kubernetes):
    kubernetes.on_create = plays("Running")
    process = program(kubernetes)
    wait_until(lambda: any("watch" in query for _, _, query in list(kubernetes.requests)))
    process.kill()
    process.communicate(timeout=120)
    job = kubernetes.find(JOBS)

    process = program(kubernetes)
    wait_until(lambda: kubernetes.count("POST", JOBS) == 2)
    kubernetes.set_conditions(JOBS, NAME, "Succeeded")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "job adopted" in output
    assert kubernetes.find(JOBS)["metadata"]["uid"] == job["metadata"]["uid"]
    assert kubernetes.count("DELETE", JOBS) == 0


def test_the_owner_is_the_run_s_workflow(kubernetes):
    kubernetes.put("workflows", "recap-x1", {"metadata": {"uid": "u-7"}})
    assert cluster(kubernetes.host).workflow_owner("recap-x1") == {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "name": "recap-x1",
        "uid": "u-7",
        "controller": False,
        "blockOwnerDeletion": False,
    }
    assert cluster(kubernetes.host).workflow_owner("gone") is None
