from __future__ import annotations

from rendered_chart import of_kind, render
from test_chart_launcher import rights

from robolift.launch import reaper


def container(values=None, base="values"):
    cron = of_kind("CronJob", values, base=base)["rel-reaper"]
    return cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]


def test_the_reaper_may_list_and_delete_jobs_and_look_at_workflows():
    assert rights(of_kind("Role")["robolift-reaper"]) == {
        *(("kubeflow.org", "pytorchjobs", verb) for verb in ("list", "delete")),
        *(("trainer.kubeflow.org", "trainjobs", verb) for verb in ("list", "delete")),
        *(("batch", "jobs", verb) for verb in ("list", "delete")),
        ("argoproj.io", "workflows", "get"),
    }
    assert of_kind("RoleBinding")["robolift-reaper"]["subjects"] == [
        {"kind": "ServiceAccount", "name": "robolift-reaper", "namespace": "runs"}
    ]


def test_every_kind_that_the_code_looks_for_is_one_it_may_list():
    granted = rights(of_kind("Role")["robolift-reaper"])
    assert {(group, plural, "list") for group, _, plural in reaper.KINDS} <= granted


def test_the_command_is_one_that_the_module_understands():
    got = container({"reaper": {"gracePeriodSeconds": 60}, "policyTrainer": {"ttlSecondsAfterFinished": 100000}})
    assert got["command"] == ["python", "-m", "robolift.launch.reaper"]
    args = reaper._parser().parse_args(got["args"])
    assert (args.namespace, args.grace_period, args.keep_finished, args.dry_run) == ("runs", 60, 100000, False)
    assert reaper._parser().parse_args(container(base="none")["args"]).dry_run is True


def test_it_runs_every_ten_minutes_and_never_twice_at_once():
    spec = of_kind("CronJob")["rel-reaper"]["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("*/10 * * * *", "Forbid")
    assert spec["jobTemplate"]["spec"]["template"]["spec"]["serviceAccountName"] == "robolift-reaper"


def test_it_is_no_prey_of_its_own():
    # Its own Job lacks the labels that the launcher puts on jobs.
    template = of_kind("CronJob")["rel-reaper"]["spec"]["jobTemplate"]
    assert template["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert "robolift.io/workflow" not in template["metadata"]["labels"]


def test_it_can_be_left_out():
    assert "CronJob" not in {item["kind"] for item in render({"reaper": {"enabled": False}})}
    assert "robolift-reaper" not in of_kind("Role", {"reaper": {"enabled": False}})
