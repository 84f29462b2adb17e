"""Recurring runs: a six-field cron expression, one run at a time, no catching up, one schedule of a name."""

import re
from typing import Any, Dict, List, Mapping

from components._kubeflow import Kubeflow
from components._kubeflow_errors import ConflictError, NotFoundError, UnavailableError
from components._releases import Release
from robolift.errors import UsageError

PAGE_SIZE = 100
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
NAMES = {**{name: i + 1 for i, name in enumerate(MONTHS)}, **{name: i for i, name in enumerate(DAYS)}}
FIELDS = (("second", 0, 59), ("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))
TERM = re.compile(r"(\*|\?|(\w+)(-(\w+))?)(/(\d+))?$")


def _number(text: str, field: str) -> int:
    names = MONTHS if field == "month" else DAYS if field == "weekday" else ()
    return NAMES[text.lower()] if text.lower() in names else int(text)


def check_cron(expression: str) -> str:
    """Return a cron expression with its fields one space apart: second minute hour day month weekday, in UTC.

    Raises:
        UsageError: If it hasn't six fields, or one is out of range.
    """
    fields = expression.split()
    if len(fields) != len(FIELDS):
        more = f"; with seconds in front: '0 {' '.join(fields)}'" if len(fields) == len(FIELDS) - 1 else ""
        raise UsageError(
            f"--cron {expression!r} has {len(fields)} fields{more}\n"
            "  expected: second minute hour day month weekday, in UTC: '0 0 2 * * *' is two o'clock every night"
        )
    for text, (field, low, high) in zip(fields, FIELDS, strict=True):
        for term in text.split(","):
            found = TERM.match(term)
            try:
                if not found:
                    raise ValueError
                ends = [_number(end, field) for end in (found[2], found[4]) if end]
                if any(not low <= end <= high for end in ends) or ends != sorted(ends) or found[6] == "0":
                    raise ValueError
            except ValueError:
                expected = f"*, {low} to {high}, a range, a list or */step"
                raise UsageError(f"--cron {expression!r}: {term!r} is no {field}; expected {expected}") from None
    return " ".join(fields)


def listed(kubeflow: Kubeflow) -> List[Any]:
    """Return every schedule of the namespace."""
    found: List[Any] = []
    token = ""
    while True:
        page = kubeflow.ask(
            "listing schedules",
            kubeflow.client.list_recurring_runs,
            page_token=token,
            page_size=PAGE_SIZE,
            namespace=kubeflow.api_namespace,
        )
        found += page.recurring_runs or []
        token = page.next_page_token or ""
        if not token:
            return found


def _cron(schedule: Any) -> str:
    trigger = schedule.trigger
    return str(trigger.cron_schedule.cron) if trigger and trigger.cron_schedule else "another trigger"


def show(kubeflow: Kubeflow) -> int:
    """Print every schedule."""
    schedules = listed(kubeflow)
    for schedule in schedules:
        state = (schedule.status or "").lower()
        print(f"{schedule.display_name}  {_cron(schedule)}  {state}  {schedule.recurring_run_id}")
    if not schedules:
        print("no schedules")
    return 0


def _remove(kubeflow: Kubeflow, schedules: List[Any]) -> None:
    for schedule in schedules:
        doing = f"deleting schedule {schedule.display_name}"
        kubeflow.ask(doing, kubeflow.client.delete_recurring_run, schedule.recurring_run_id)


def delete(kubeflow: Kubeflow, name: str, *, dry_run: bool) -> int:
    """Delete the schedules of this name or id, or with ``dry_run`` show them; runs they started go on.

    Raises:
        NotFoundError: If there is none.
    """
    schedules = listed(kubeflow)
    named = [s for s in schedules if name in (s.display_name, s.recurring_run_id)]
    if not named:
        there = ", ".join(s.display_name for s in schedules) or "none"
        raise NotFoundError(f"no schedule {name!r}; there are: {there}")
    if dry_run:
        for schedule in named:
            print(f"would delete schedule {schedule.display_name} ({_cron(schedule)}, {schedule.recurring_run_id})")
        return 0
    _remove(kubeflow, named)
    print(f"deleted schedule {name}")
    return 0


def taken(kubeflow: Kubeflow, name: str, *, replace: bool) -> List[Any]:
    """Return the schedules that have this name, for :func:`create` to take the place of.

    Raises:
        ConflictError: If there is one and it isn't to be replaced.
    """
    older = [schedule for schedule in listed(kubeflow) if schedule.display_name == name]
    if older and not replace:
        raise ConflictError(
            f"there is a schedule {name!r} already ({_cron(older[0])}, {older[0].recurring_run_id})\n"
            f"  mend: --replace, another --name, or pipeline.py schedule --delete {name}"
        )
    return older


def create(
    kubeflow: Kubeflow,
    *,
    name: str,
    cron: str,
    experiment_id: str,
    parameters: Mapping[str, Any],
    release: Release,
    options: Dict[str, Any],
    older: List[Any],
) -> str:
    """Create a schedule that runs an uploaded version, and return its id.

    Args:
        kubeflow: Connection.
        name: Unique in the namespace.
        cron: Six fields, in UTC.
        experiment_id: Experiment that its runs go to.
        parameters: Checked arguments of every run.
        release: Version that every run uses, whatever is uploaded later.
        options: Further arguments of the client: service account, pipeline root.
        older: Schedules whose place it takes.
    """
    try:
        made = kubeflow.ask(
            f"creating schedule {name}",
            kubeflow.client.create_recurring_run,
            experiment_id,
            name,
            cron_expression=cron,
            max_concurrency=1,
            no_catchup=True,
            params=dict(parameters),
            pipeline_id=release.pipeline_id,
            version_id=release.version_id,
            repeat=False,
            **options,
        )
    except UnavailableError as error:
        error.args = (f"{error}\n  it may be there all the same: pipeline.py schedule --list",)
        raise
    # The old one goes last: if this fails there are two schedules, which shows, rather than none, which doesn't.
    _remove(kubeflow, older)
    return str(made.recurring_run_id)
