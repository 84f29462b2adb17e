"""A run's parameters: read, overlay, check against the compiled pipeline before anything is started."""

from typing import Any, Dict, List, Mapping, Sequence

import yaml

from robolift import storage
from robolift.errors import UsageError
from robolift.stages import NAMES
from robolift.stages.stage import parse_config

PYTHON_TYPES: Dict[str, Any] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}
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
        UsageError: If an override is not ``key=value``.
    """
    result = dict(parameters)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UsageError(f"--set {override!r}: expected key=value")
        *path, last = key.split(".")
        target = result
        for part in path:
            target[part] = dict(target.get(part) or {})
            target = target[part]
        target[last] = yaml.safe_load(text)
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
    for name, facts in declared.items():
        kind = facts["parameterType"]
        if name not in parameters:
            if not facts.get("isOptional"):
                problems.append(f"missing parameter {name!r} ({WORDS[kind]})")
            continue
        value = parameters[name]
        right = isinstance(value, PYTHON_TYPES[kind]) and (kind == "BOOLEAN" or not isinstance(value, bool))
        if not right:
            problems.append(f"parameter {name!r} is {value!r}, expected {WORDS[kind]}")
    problems += _check_stages(parameters.get("stages") or {})
    problems += _check_values(parameters)
    if problems:
        raise UsageError("\n".join(["wrong parameters:", *problems]))


def _check_stages(stages: Any) -> List[str]:
    if not isinstance(stages, dict):
        return []
    problems = [f"stages.{name}: no such stage; there are: {', '.join(NAMES)}" for name in stages if name not in NAMES]
    for name in stages:
        if name in NAMES:
            try:
                parse_config(name, stages[name] or {})
            except UsageError as error:
                problems += [f"stages.{line}" for line in str(error).splitlines()[1:]]
    return problems


def _check_values(parameters: Mapping[str, Any]) -> List[str]:
    """Check what a pipeline hands to a stage by the stage's own rules, so that each rule stands once."""
    handed = {
        "lookahead": "label_advantage",
        "positive_fraction": "label_advantage",
        "seed": "train_policy",
        "num_shards": "predict_values",
    }
    problems = []
    for name, stage in handed.items():
        if name in parameters:
            try:
                parse_config(stage, {name: parameters[name]})
            except UsageError as error:
                problems += [line.removeprefix(f"{stage}.") for line in str(error).splitlines()[1:]]
    for variant in parameters.get("baselines") or []:
        try:
            parse_config("train_policy", {"variant": variant})
        except UsageError as error:
            problems += [f"baselines: {line}" for line in str(error).splitlines()[1:]]
    if "baselines" in parameters and not parameters["baselines"]:
        problems.append("baselines is empty, expected at least [plain]")
    if "iterations" in parameters and parameters["iterations"] not in (1, 2, 3):
        problems.append(f"iterations is {parameters['iterations']!r}, expected 1, 2 or 3")
    return problems


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
