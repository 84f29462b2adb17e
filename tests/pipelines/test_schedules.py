"""Recurring runs: the cron expression, what is sent, one schedule of a name, list and delete."""

import pytest
from kfp_models import problems
from kfp_server import Fault

from components import _schedules
from robolift.errors import UsageError

NIGHTLY = ("schedule", "recap", "--cron", "0 0 2 * * *", "--set", "output_root=s3://bucket/runs")


@pytest.mark.parametrize(
    "expression",
    ["0 0 2 * * *", "*/30 * * * * *", "0 15,45 8-18/2 ? jan-mar MON-FRI", "0 0 0 1 1 0", "59 59 23 31 12 6"],
)
def test_a_cron_expression_of_six_fields_is_kept(expression):
    assert _schedules.check_cron(f" {expression.replace(' ', '  ')} ") == expression


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("0 2 * * *", "has 5 fields; with seconds in front: '0 0 2 * * *'"),
        ("0 0 0 2 * * *", "has 7 fields\n  expected: second minute hour day month weekday, in UTC"),
        ("60 0 2 * * *", "'60' is no second; expected *, 0 to 59"),
        ("0 0 24 * * *", "'24' is no hour"),
        ("0 0 2 0 * *", "'0' is no day; expected *, 1 to 31"),
        ("0 0 2 * 13 *", "'13' is no month"),
        ("0 0 2 * * 7", "'7' is no weekday; expected *, 0 to 6"),
        ("0 0 5-2 * * *", "'5-2' is no hour"),
        ("0 */0 2 * * *", "'*/0' is no minute"),
        ("0 0 mon * * *", "'mon' is no hour"),
        ("0 0 2 * mon *", "'mon' is no month"),
        ("0 0 2, * * *", "'' is no hour"),
        ("@daily", "has 1 fields"),
    ],
)
def test_another_cron_expression_is_refused(expression, message):
    with pytest.raises(UsageError) as caught:
        _schedules.check_cron(expression)
    assert message in str(caught.value)


def test_a_schedule_is_sent_as_the_published_models_have_it(kfp, command):
    done = command(*NIGHTLY, "--service-account", "robolift-launcher")
    assert done.code == 0, done.err
    (sent,) = kfp.state.sent("POST", "/recurringruns")
    assert problems(sent.body, "V2beta1RecurringRun") == []
    (version,) = kfp.state.versions.values()
    assert sent.body == {
        "display_name": "recap",
        "experiment_id": next(iter(kfp.state.experiments)),
        "pipeline_version_reference": {
            "pipeline_id": version["pipeline_id"],
            "pipeline_version_id": version["pipeline_version_id"],
        },
        "runtime_config": {"parameters": {"output_root": "s3://bucket/runs"}},
        "service_account": "robolift-launcher",
        "max_concurrency": 1,
        "no_catchup": True,
        "mode": "ENABLE",
        "trigger": {"cron_schedule": {"cron": "0 0 2 * * *"}},
    }
    (made,) = kfp.state.recurring
    assert f"page:       {kfp.url}/#/recurringrun/details/{made}\n" in done.out
    assert not kfp.state.runs


def test_a_taken_name_is_refused_before_anything_is_made(kfp, command):
    command(*NIGHTLY)
    before = len(kfp.state.sent("POST"))
    done = command(*NIGHTLY)
    assert done.code == 64
    assert "there is a schedule 'recap' already (0 0 2 * * *, " in done.err
    assert "--replace, another --name, or pipeline.py schedule --delete recap" in done.err
    assert len(kfp.state.sent("POST")) == before
    assert command(*NIGHTLY, "--name", "another").code == 0
    assert [r["display_name"] for r in kfp.state.recurring.values()] == ["recap", "another"]


def test_a_replaced_schedule_goes_after_the_new_one_is_there(kfp, command):
    command(*NIGHTLY)
    (old,) = kfp.state.recurring
    assert command(*NIGHTLY, "--replace").code == 0
    (new,) = kfp.state.recurring
    assert new != old
    assert [r.method for r in kfp.state.requests][-2:] == ["POST", "DELETE"]


def test_the_old_schedule_stays_when_the_new_one_is_refused(kfp, command):
    command(*NIGHTLY)
    kfp.state.faults = [Fault("POST", "/recurringruns$", 400, '{"message": "Invalid cron"}')]
    done = command(*NIGHTLY, "--replace")
    assert done.code == 64
    assert "creating schedule recap: " in done.err
    assert len(kfp.state.recurring) == 1
    assert not kfp.state.sent("DELETE")


def test_schedules_are_listed_over_several_pages_and_deleted_by_name_or_id(kfp, command, monkeypatch):
    monkeypatch.setattr(_schedules, "PAGE_SIZE", 2)
    assert command("schedule", "--list").out == "no schedules\n"
    for name in ("one", "two", "three"):
        command(*NIGHTLY, "--name", name)
    listed = command("schedule", "--list").out.splitlines()
    assert [line.split("  ")[:3] for line in listed] == [
        [name, "0 0 2 * * *", "enabled"] for name in ("one", "two", "three")
    ]
    assert command("schedule", "--delete", "two").out == "deleted schedule two\n"
    assert command("schedule", "--delete", listed[2].split("  ")[3]).code == 0
    assert [r["display_name"] for r in kfp.state.recurring.values()] == ["one"]
    missing = command("schedule", "--delete", "two")
    assert missing.code == 64
    assert "no schedule 'two'; there are: one" in missing.err


def test_a_dry_run_of_a_deletion_shows_what_would_go_and_deletes_nothing(kfp, command):
    for name in ("one", "two"):
        command(*NIGHTLY, "--name", name)
    (one, _) = kfp.state.recurring
    done = command("schedule", "--delete", "one", "--dry-run")
    assert (done.code, done.out) == (0, f"would delete schedule one (0 0 2 * * *, {one})\n")
    assert kfp.state.sent("DELETE") == []
    assert len(kfp.state.recurring) == 2
    assert command("schedule", "--delete", "three", "--dry-run").code == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("schedule",), "schedule takes one of: PIPELINE --cron"),
        (("schedule", "recap"), "schedule takes one of: PIPELINE --cron"),
        (("schedule", "--list", "--delete", "x"), "schedule takes one of: PIPELINE --cron"),
        (("schedule", "--cron", "0 0 2 * * *"), "schedule --cron needs a PIPELINE"),
        (("schedule", "recap", "--cron", "0 2 * * *"), "has 5 fields"),
        (("schedule", "recap", "--cron", "0 0 2 * * *"), "missing parameter 'output_root'"),
    ],
)
def test_an_incomplete_schedule_is_refused_before_anything_is_sent(kfp, command, arguments, message):
    done = command(*arguments)
    assert done.code == 64
    assert message in done.err
    assert kfp.state.requests == []


def test_a_schedule_that_may_be_there_is_not_created_twice(kfp, command):
    kfp.state.faults = [Fault("POST", "/recurringruns$", 502, "bad gateway", times=9, after=True)]
    done = command(*NIGHTLY)
    assert done.code == 69
    assert "it may be there all the same: pipeline.py schedule --list" in done.err
    assert len(kfp.state.recurring) == 1
