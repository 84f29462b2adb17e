"""The page for users of kai0 names flags and fields that exist."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from robolift.labeling.kai0_flags import FLAGS
from robolift.stages import NAMES
from robolift.stages.stage import find, parse_config

PAGE = (Path(__file__).parents[2] / "docs" / "kai0.md").read_text(encoding="utf-8")


def test_every_field_that_is_named_exists() -> None:
    named = [(stage, field) for stage, field in re.findall(r"`(\w+)\.(\w+)`", PAGE) if stage in NAMES]
    assert len(named) > 50
    unknown = [f"{stage}.{field}" for stage, field in named if field not in find(stage).Config.model_fields]
    assert unknown == []


def test_every_flag_of_kai0s_script_is_there() -> None:
    for flag in FLAGS:
        assert f"| `--{flag.replace('_', '-')}" in PAGE


def test_the_example_of_variants_is_a_configuration() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    document = yaml.safe_load(block)
    assert list(document["variants"]) == ["PI06_binary", "KAI0_abs_binary"]
    for variant in document["variants"].values():
        parse_config("label_advantage", {**document["config"], **variant.get("config", {})})
