"""One YAML file, several runs of one stage: what differs stands under ``variants``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from labelled import column, publish_dataset, publish_values

from robolift import manifest
from robolift.__main__ import expand_variants, main


@pytest.fixture
def both(output_root: str) -> dict[str, Any]:
    """kai0's two variants: a single-frame estimator without stages, a two-frame one with two."""
    dataset = publish_dataset(output_root, [10], kind="demo")
    single = publish_values(output_root, dataset, range(1, 11), std=np.arange(10) / 10)
    double = publish_values(output_root, dataset, range(10, 0, -1), std=np.arange(10) / 10, relative=range(10))
    return {
        "output_root": output_root,
        "inputs": {"dataset": dataset.uri},
        "config": {"preset": "stage_advantage", "threshold": 30, "source": "column", "column": "value"},
        "variants": {
            "PI06_binary": {"inputs": {"values": single.uri}},
            "KAI0_abs_binary": {
                "inputs": {"values": double.uri},
                "config": {"stage_nums": 2, "stage_progress_column": "value_std"},
            },
        },
    }


def call(tmp_path: Path, document: dict[str, Any], *words: str) -> int:
    path = tmp_path / "variants.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return main(["label_advantage", "--config", str(path), *words])


def test_each_variant_is_an_output_of_its_own(
    both: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path, both) == 0
    shown = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert list(shown) == ["PI06_binary", "KAI0_abs_binary"]
    made = {name: manifest.load(uri) for name, uri in shown.items()}
    positive = {
        name: [int(label == "positive") for label in column(found, "advantage_label")] for name, found in made.items()
    }
    assert positive == {"PI06_binary": [0] * 7 + [1] * 3, "KAI0_abs_binary": [1, 1, 0, 0, 0, 1, 1, 0, 0, 0]}
    # The same work alone is the same output.
    alone = {key: value for key, value in both.items() if key != "variants"}
    alone["inputs"] = {**both["inputs"], **both["variants"]["PI06_binary"]["inputs"]}
    assert call(tmp_path, alone) == 0
    assert capsys.readouterr().out.strip() == shown["PI06_binary"]


def test_a_dry_run_shows_all_of_them(both: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path, both, "--dry-run", "--set", "positive_fraction=0.3") == 0
    shown = capsys.readouterr().out
    plan, _ = json.JSONDecoder().raw_decode(shown)
    assert plan["variant"] == "PI06_binary"
    assert '"variant": "KAI0_abs_binary"' in shown
    assert shown.count("fold, stage 1: advantage of 5 frames") == 1


def test_all_are_checked_before_any_work(
    both: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both["variants"]["KAI0_abs_binary"]["config"]["positive_fraction"] = 0.4
    before = sorted(tmp_path.rglob("*/manifest.json"))
    assert call(tmp_path, both) == 64
    assert "threshold 30 means positive_fraction 0.3, and positive_fraction is 0.4" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*/manifest.json")) == before


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ([1], "variants is [1]; expected a mapping"),
        ({"a": 5}, "variant a is 5; expected a mapping with inputs or config"),
        ({"a": {"output_root": "x"}}, "variant a: unknown keys output_root; expected inputs, config"),
        ({"a": {"config": [1]}}, "variant a: config is [1]; expected a mapping"),
    ],
)
def test_a_wrong_variant_is_a_wrong_call(
    variants: object, message: str, both: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path, {**both, "variants": variants}) == 64
    assert message in capsys.readouterr().err


def test_without_variants_it_is_one_run() -> None:
    assert expand_variants({"output_root": "x", "config": {"a": 1}}) == {
        "": {"output_root": "x", "inputs": {}, "config": {"a": 1}}
    }
