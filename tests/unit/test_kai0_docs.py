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
    # The argument parser of discretize_advantage.py at kai0 9d93078, and of its forerunner gt_label.py.
    flags = ["threshold", "chunk-size", "discretion-type", "n-slices", "advantage-source", "stage-nums", "dry-run"]
    assert {flag.replace("-", "_") for flag in flags} - {"dry_run"} == set(FLAGS)
    for flag in flags:
        assert f"| `--{flag}" in PAGE


def test_the_example_of_variants_is_a_configuration() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    document = yaml.safe_load(block)
    assert list(document["variants"]) == ["PI06_binary", "KAI0_abs_binary"]
    for variant in document["variants"].values():
        parse_config("label_advantage", {**document["config"], **variant.get("config", {})})
