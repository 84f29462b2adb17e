"""Checks a JSON body, field by field, against the published models of the Kubeflow Pipelines API."""

from __future__ import annotations

import re
from typing import Any

import kfp_server_api

JSON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "object": (dict,),
    "datetime": (str,),
}
# protobuf's int64: the published model says text, the client sends a number, and protojson takes both.
INT64_FIELDS = frozenset({"max_concurrency"})


def problems(body: Any, model: str, where: str = "body") -> list[str]:
    """Return what in a JSON body the published model of the API does not have."""
    if found := re.fullmatch(r"list\[(.*)\]", model):
        if not isinstance(body, list):
            return [f"{where} is no list"]
        return [p for i, item in enumerate(body) for p in problems(item, found[1], f"{where}[{i}]")]
    if found := re.fullmatch(r"dict\(str, (.*)\)", model):
        if not isinstance(body, dict):
            return [f"{where} is no mapping"]
        # Parameters are of any type: protobuf's Value.
        return (
            [] if found[1] == "object" else [p for k, v in body.items() for p in problems(v, found[1], f"{where}.{k}")]
        )
    if model in JSON_TYPES:
        right = isinstance(body, JSON_TYPES[model]) and (model == "bool" or not isinstance(body, bool))
        return [] if right else [f"{where} is {body!r}, not {model}"]
    kind = getattr(kfp_server_api, model)
    if hasattr(kind, "allowable_values"):
        return [] if body in kind.allowable_values else [f"{where} is {body!r}, not one of {kind.allowable_values}"]
    if not isinstance(body, dict):
        return [f"{where} is {body!r}, not a {model}"]
    types = {key: kind.openapi_types[name] for name, key in kind.attribute_map.items()}
    found_problems = [f"{where} has no field {key!r} in {model}" for key in body if key not in types]
    for key, value in body.items():
        if key in types and not (key in INT64_FIELDS and isinstance(value, int)):
            found_problems += problems(value, types[key], f"{where}.{key}")
    return found_problems
