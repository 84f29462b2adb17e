"""The flags of kai0's labelling script in our words.

Six flags tell kai0's ``discretize_advantage.py``, and its forerunner ``gt_label.py``, what to do. They may be given
under those names, with ``preset: stage_advantage`` (kai0's method, corrected) or ``preset: kai0_legacy`` (the script to
the last bit).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from robolift.errors import UsageError

PRESETS: dict[str, dict[str, Any]] = {
    "recap": {},
    "stage_advantage": {
        "source": "absolute_advantage",
        "population": "all",
        "demo": "score",
        "intervention": "positive",
        "tie": "exact",
    },
    "kai0_legacy": {
        "source": "absolute_advantage",
        "population": "all",
        "demo": "score",
        "intervention": "score",
        "tie": "kai0_legacy",
        "short_tail": "kai0_legacy",
    },
}
SCHEMES = {"binary": "binary", "n_slices": "slices"}
SOURCES = ("absolute_advantage", "relative_advantage", "progress")


@dataclass(frozen=True)
class Translation:
    """What kai0's words say in ours.

    Attributes:
        config: The configuration without any of kai0's words.
        notes: One line a flag that was translated: ``threshold 30 -> positive_fraction 0.3``.
    """

    config: dict[str, Any]
    notes: tuple[str, ...]


def translate(given: Mapping[str, Any]) -> Translation:
    """Return a configuration of ``label_advantage`` with its preset and kai0's flags written out.

    A field that stands in ``given`` wins over the preset's. Flags are keys of ``given`` under their own names (``-`` or
    ``_``), or stand in one line under ``kai0``, which means preset ``stage_advantage`` where none is named.

    Args:
        given: What a person wrote.

    Raises:
        UsageError: If a flag has no preset that allows it, is unknown or has a wrong value, or contradicts another
            flag or a field.
    """
    fields = {key: value for key, value in given.items() if key != "kai0" and _flag(key) not in FLAGS}
    line = given.get("kai0") or ""
    if not isinstance(line, str):
        raise UsageError(f"kai0 is {line!r}, expected kai0's flags in one line: --threshold 30 --stage-nums 2")
    flags = parse_flags(line)
    preset = str(fields.get("preset") or ("stage_advantage" if flags else "recap"))
    for key in given:
        name = _flag(key)
        if name in FLAGS:
            if name in flags and FLAGS[name](flags[name]) != FLAGS[name](given[key]):
                raise UsageError(f"{name} is {flags[name]} in kai0 and {given[key]} beside it; give it once")
            flags[name] = given[key]
    if flags and preset == "recap":
        raise UsageError(
            f"{', '.join(flags)}: kai0's names need preset: stage_advantage (kai0's method, corrected) or "
            "preset: kai0_legacy (kai0's script to the bit)"
        )
    if preset not in PRESETS:
        return Translation(dict(fields), ())  # refused by the type of the field
    config: dict[str, Any] = {**PRESETS[preset], **fields, "preset": preset}
    notes = []
    for name, value in flags.items():
        ours = FLAGS[name](value)
        notes.append(f"{name} {value} -> {', '.join(f'{key} {said}' for key, said in ours.items())}")
        for key, said in ours.items():
            if key in fields and fields[key] != said and (name, key) != ("advantage_source", "column"):
                raise UsageError(
                    f"kai0's {name} {value} means {key} {said}, and {key} is {fields[key]}; give one of them"
                )
            config[key] = fields.get(key, said)
    return Translation(config, tuple(notes))


def parse_flags(line: str) -> dict[str, Any]:
    """Return the flags of a command line such as ``--threshold 30 --stage-nums=2``, in order, values as text.

    Raises:
        UsageError: If there is something else in it.
    """
    found: dict[str, Any] = {}
    words = shlex.split(line)
    while words:
        word, separator, value = words.pop(0).partition("=")
        name = _flag(word.removeprefix("--"))
        if not word.startswith("--"):
            raise UsageError(f"kai0: {word!r} is no flag; the dataset is the input `dataset`, made by import_dataset")
        if name == "dry_run":
            raise UsageError(
                "kai0: --dry-run belongs to the command itself: python -m robolift label_advantage --dry-run"
            )
        if name not in FLAGS:
            known = ", ".join(f"--{flag.replace('_', '-')}" for flag in FLAGS)
            raise UsageError(f"kai0: no flag {word}; there are: {known}")
        if not separator and not words:
            raise UsageError(f"kai0: {word} has no value")
        found[name] = value if separator else words.pop(0)
    return found


def _flag(key: Any) -> str:
    return str(key).replace("-", "_")


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, bool) and math.isfinite(number := float(value)):
            return number
    except (TypeError, ValueError):
        pass
    raise UsageError(f"kai0's {name} is {value!r}, expected a number")


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if number != int(number):
        raise UsageError(f"kai0's {name} is {value!r}, expected a whole number")
    return int(number)


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise UsageError(f"kai0's {name} is {value!r}, expected {', '.join(choices)}")
    return str(value)


def _threshold(value: Any) -> dict[str, Any]:
    percent = _number("threshold", value)
    if not 1 <= percent < 100:
        raise UsageError(
            f"kai0's threshold is {value}, expected the percentage of frames that become positive, from 1 to below "
            "100: 30 is the top 30 %. Write a smaller share as positive_fraction"
        )
    # 33.3 / 100 is not 0.333: a decimal number was meant.
    return {"positive_fraction": round(percent / 100, 12)}


def _chunk_size(value: Any) -> dict[str, Any]:
    return {"lookahead": _whole("chunk_size", value)}


def _discretion_type(value: Any) -> dict[str, Any]:
    return {"scheme": SCHEMES[_choice("discretion_type", value, tuple(SCHEMES))]}


def _n_slices(value: Any) -> dict[str, Any]:
    return {"num_slices": _whole("n_slices", value)}


def _advantage_source(value: Any) -> dict[str, Any]:
    source = _choice("advantage_source", value, SOURCES)
    # The forerunner reads progress from a column of that name; a `column` beside it may name another.
    return {"source": source, "column": "progress"} if source == "progress" else {"source": source}


def _stage_nums(value: Any) -> dict[str, Any]:
    num = _whole("stage_nums", value)
    return {"num_task_stages": num, "group_by": "task_stage"} if num > 1 else {"num_task_stages": num}


FLAGS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "threshold": _threshold,
    "chunk_size": _chunk_size,
    "discretion_type": _discretion_type,
    "n_slices": _n_slices,
    "advantage_source": _advantage_source,
    "stage_nums": _stage_nums,
}
