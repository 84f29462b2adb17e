"""A run's parameters: read, overlay, check against the compiled pipeline before anything is started."""

import importlib
import re
from typing import Any, Dict, List, Mapping, Sequence, Set

import yaml

from robolift import storage
from robolift.errors import UsageError

PYTHON_TYPES: Dict[str, Any] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}
CHECKS = {
    "recap": "robolift.stages.preflight",
    "stage-advantage": "robolift.stages.stage_advantage_plan",
    "reward-labeling": "robolift.stages.labeling_plan",
    "clip-reward": "robolift.stages.clips_plan",
}
"""The module whose ``find_problems`` knows a pipeline's parameters, imported when some are checked."""
# make splits SET at spaces, so half a value is what it then looks like.
SPACES = "  mend: with make, a value with a space goes into the --params file"
WORDS = {
    "STRING": "text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "LIST": "a list",
    "STRUCT": "a mapping",
}


def read(uri: str) -> Dict[str, Any]:
    """Read a YAML file of parameters.

    Raises:
        UsageError: If it isn't a YAML mapping.
    """
    try:
        document = yaml.safe_load(storage.read_bytes(uri))
    except yaml.YAMLError as error:
        raise UsageError(f"{uri} is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise UsageError(f"{uri}: expected a mapping of parameters")
    return document


def overlay(parameters: Mapping[str, Any], overrides: Sequence[str]) -> Dict[str, Any]:
    """Return ``parameters`` with ``key=value`` applied; ``stages.train_value.steps=200`` reaches inside.

    Raises:
        UsageError: If an override is not ``key=value``, is not YAML or reaches into something that is not a mapping.
    """
    result = dict(parameters)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UsageError(f"--set {override!r}: expected key=value\n{SPACES}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {override!r}: {error}\n{SPACES}") from None
        *path, last = key.split(".")
        target = result
        for part in path:
            inner = {} if target.get(part) is None else target[part]
            if not isinstance(inner, dict):
                raise UsageError(f"--set {override!r}: {part} is {inner!r}, not a mapping")
            target[part] = dict(inner)
            target = target[part]
        target[last] = value
    return result


def check(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Check parameters against a compiled pipeline, and every stage's configuration against the stage.

    The KFP client accepts any argument and the run fails an hour later, so it is done here.

    Raises:
        UsageError: Naming every wrong parameter.
    """
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    problems = [
        f"unknown parameter {k!r}; there are: {', '.join(sorted(declared))}" for k in parameters if k not in declared
    ]
    typed = {}
    for name, facts in declared.items():
        kind = facts["parameterType"]
        if name not in parameters:
            if not facts.get("isOptional"):
                problems.append(f"missing parameter {name!r} ({WORDS[kind]})")
            continue
        value = parameters[name]
        right = isinstance(value, PYTHON_TYPES[kind]) and (kind == "BOOLEAN" or not isinstance(value, bool))
        if right:
            typed[name] = value
        else:
            problems.append(f"parameter {name!r} is {value!r}, expected {WORDS[kind]}")
    problems += importlib.import_module(CHECKS[spec["pipelineInfo"]["name"]]).find_problems(typed)
    if typed.get("iterations", 1) not in (1, 2, 3):
        problems.append(f"iterations is {typed['iterations']!r}, expected 1, 2 or 3")
    if problems:
        raise UsageError("\n".join(["wrong parameters:", *problems]))


def stages_of(parameters: Mapping[str, Any]) -> Dict[str, Dict[str, Any]]:
    """Return a run's stage configurations, ``new_stages`` laid over ``stages`` where a pipeline has both."""
    found: Dict[str, Dict[str, Any]] = {}
    for layer in ("stages", "new_stages"):
        for name, config in (parameters.get(layer) or {}).items():
            found[name] = {**found.get(name, {}), **(config or {})}
    return found


def stages_in(spec: Mapping[str, Any]) -> Set[str]:
    """Return the stages that a compiled pipeline has steps of."""
    steps = (name.removeprefix("exec-") for name in spec["deploymentSpec"]["executors"])
    return {re.sub(r"-\d+$", "", name).replace("-", "_") for name in steps}


def plan(name: str, spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """Return what a run would do, for people: parameters, steps and their images."""
    executors = spec["deploymentSpec"]["executors"]
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    lines = [f"pipeline {name} ({len(executors)} steps in the graph)", "parameters:"]
    for key, facts in sorted(declared.items()):
        value = parameters.get(key, facts.get("defaultValue"))
        lines.append(f"  {key} = {value!r}{'' if key in parameters else '   (default)'}")
    lines.append("images:")
    images: Dict[str, List[str]] = {}
    for step, executor in executors.items():
        images.setdefault(executor["container"]["image"], []).append(step.removeprefix("exec-"))
    lines += [f"  {image}: {', '.join(sorted(steps))}" for image, steps in sorted(images.items())]
    return "\n".join(lines)
