"""docs/fine_tuning.md: every command is one that its parser knows, every file one that its reader takes."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml

from robolift.__main__ import _parser, apply_overrides
from robolift.policy import export_cli
from robolift.policy.pi05.config import PRESETS
from robolift.policy.server import cli as serve_cli
from robolift.stages import NAMES, preflight
from robolift.stages.stage import find, parse_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fine_tuning.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
FILES = {
    text.split("\n")[0].removeprefix("# "): yaml.safe_load(text) for language, text in BLOCKS if language == "yaml"
}
LINES = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines()]
STAGES = {"fold.yaml": "train_policy", "value.yaml": "train_value"}
ROBOLIFT = [line for line in LINES if " -m robolift " in line]


def words_of(line):
    """Return the words of a command after ``-m robolift``."""
    words = shlex.split(line, comments=True)
    return words[words.index("robolift") + 1 :]


def test_the_page_goes_from_weights_to_an_export():
    shown = list(dict.fromkeys(words_of(line)[0] for line in ROBOLIFT))
    assert shown == [
        "plan",
        "import_dataset",
        "compute_norm_stats",
        "train_policy",
        "train_value",
        "serve",
        "export-policy",
    ]
    assert list(FILES) == ["fold.yaml", "site.yaml", "params/fold.yaml", "value.yaml"]


@pytest.mark.parametrize("line", ROBOLIFT, ids=lambda line: line[:60])
def test_a_command_is_one_that_its_parser_knows(line):
    args = _parser().parse_args(words_of(line))
    if args.stage in NAMES:
        document = apply_overrides(FILES.get(args.config) or {}, args.set)
        assert document["output_root"] == "gs://runs"
        parse_config(args.stage, document["config"])
        assert set(document["inputs"]) <= set(find(args.stage).INPUTS)
        assert STAGES.get(args.config, args.stage) == args.stage


@pytest.mark.parametrize("line", [line for line in ROBOLIFT if " plan " in line])
def test_what_it_plans_fits(line):
    from robolift.planner import cli

    assert any("largest batch that fits" in text for text in cli.run(_parser().parse_args(words_of(line))))


@pytest.mark.parametrize(("name", "stage"), STAGES.items())
def test_a_file_of_a_stage_is_one(name, stage):
    document = FILES[name]
    assert set(document) == {"output_root", "inputs", "config"}
    parse_config(stage, document["config"])


def test_the_parameters_of_the_pipeline_are_ones():
    parameters = FILES["params/fold.yaml"]
    assert preflight.find_problems(parameters) == []
    placed = FILES["site.yaml"]
    gpus = {pool["name"]: pool["gpus"] for pool in placed["pools"]}
    assert parameters["stages"]["train_policy"]["num_devices"] % gpus[placed["policyTrainer"]["pool"]] == 0
    assert parameters["stages"]["train_value"]["num_processes"] % placed["trainer"]["processesPerNode"] == 0


def test_options_and_forms_that_are_named_exist():
    assert set(re.findall(r"^\| `(\w+)` \| `(?:params/|model\.safetensors)`", PAGE, re.MULTILINE)) == set(
        export_cli.FORMS
    )
    assert {"pi05", "pi05_lora"} <= PRESETS.keys()
    assert f"{serve_cli.PORT}" in (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    text = " ".join(re.findall(r"--set ([\w.]+)=", PAGE))
    known = set(find("train_policy").Config.model_fields) | {"output_root", "dataset_uri", "control_mode"}
    assert {name for name in text.split() if not name.startswith("inputs.")} <= known


def test_python_on_the_page_imports_what_there_is():
    (code,) = [text for language, text in BLOCKS if language == "python"]
    imports = [node for node in ast.parse(code).body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == 2
    for node in imports:  # not imported: Orbax takes seconds
        source = importlib.util.find_spec(node.module).loader.get_source(node.module)
        assert all(re.search(rf"^(def )?{alias.name}\b", source, re.MULTILINE) for alias in node.names)
    assert 'form="openpi_torch"' in code


def test_it_says_what_was_not_run():
    said = " ".join(PAGE.split())
    assert "no step of the full-size network was run on a GPU, and no published weights were loaded here" in said
