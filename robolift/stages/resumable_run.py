"""Going on from the training state of another run, which had another number of devices.

The number of devices changes the last bits of a result, so it is a part of its identity, and runs that differ in it
keep their states apart. A run that begins with the state of another says so in its identity: the other run and the step
it had come to. Equal inputs then still give equal bytes.
"""

from __future__ import annotations

from typing import Any

from robolift import storage
from robolift.errors import UsageError
from robolift.manifest import Plan

RUN_FILE = "run.json"
"""Lies beside a training state and says whose it is."""
LATEST_FILE = "latest.json"
"""Says of which step a training state is."""
DEVICES = frozenset({"config.num_devices", "config.fsdp_devices", "identity.resume_from"})
"""What two runs may differ in."""


def description(plan: Plan) -> dict[str, Any]:
    """Return what decides the result of a run, by dotted name, ready for JSON."""
    return {
        "code": plan.code,
        **{f"config.{name}": value for name, value in plan.config.items()},
        **{f"inputs.{name}": [given.digest for given in found] for name, found in plan.inputs.items()},
        **{f"identity.{name}": value for name, value in plan.identity.items()},
    }


def stopped_run(uri: str) -> dict[str, Any]:
    """Return whose training state lies at ``uri``, and the step it is of.

    Raises:
        UsageError: If there is none.
    """
    run_uri, latest_uri = storage.join(uri, RUN_FILE), storage.join(uri, LATEST_FILE)
    if not (storage.exists(run_uri) and storage.exists(latest_uri)):
        raise UsageError(
            f"no training state at {uri}: resume_from is the folder of a run that was stopped after it had saved one, "
            "<output_root>/_work/<stage>/<digest>"
        )
    return {"run": storage.read_json(run_uri), "step": storage.read_json(latest_uri)["step"]}


def check_resumable(stopped: dict[str, Any], this_run: dict[str, Any], *, where: str) -> None:
    """Check that two runs differ in nothing but their devices.

    Args:
        stopped: What :func:`stopped_run` gave.
        this_run: What :func:`description` gave.
        where: Address of the stopped run's state.

    Raises:
        UsageError: Naming what differs.
    """
    other = stopped["run"]
    names = (other.keys() | this_run.keys()) - DEVICES
    if differing := sorted(name for name in names if other.get(name) != this_run.get(name)):
        name = differing[0]
        raise UsageError(
            f"resume_from is the state of another run: its {name} is {other.get(name)!r}, here {this_run.get(name)!r} "
            f"({len(differing)} differ, {where}); only num_devices and fsdp_devices may be others"
        )
