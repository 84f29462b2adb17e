"""docs/fine_tuning.md: its placement file is one that chart and pipelines read."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from rendered_chart import render

from components import _launch, _pools, _resources
from robolift.launch.spec import Launch
from robolift.stages import remote
from robolift.stages.stage import parse_config

PAGE = (Path(__file__).parents[2] / "docs" / "fine_tuning.md").read_text(encoding="utf-8")
FILES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
(SITE,) = [file for file in FILES if "pools" in file]
(PARAMS,) = [file for file in FILES if "stages" in file]


def test_the_chart_takes_the_placement():
    assert render(SITE)


def test_training_is_placed_as_the_page_says(tmp_path, monkeypatch):
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump(SITE))
    monkeypatch.setenv("ROBOLIFT_VALUES", str(site))
    assert _pools.pool("h100").gpus == 8
    launched = [_pools.trainer(key) for key in ("trainer", "policyTrainer")]
    assert [(each.backend, each.pool) for each in launched] == [("pytorchjob", "h100"), ("job", "h100")]
    assert _resources.size("gpu.large").memory == "400Gi"
    for stage in _resources.STAGE_SIZES:
        _pools.placement(_resources.resources(stage).pool)
    assert _launch.check_shapes(["train_value", "predict_values", "train_policy"], PARAMS) == []
    two = parse_config("train_policy", {**PARAMS["stages"]["train_policy"], "num_devices": 16})
    assert remote.shape("train_policy", two, Launch.from_dict(_launch.launch("train_policy"))) == (2, 8)
