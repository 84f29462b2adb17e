"""Components stay thin, and say the same as the stages they call."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from robolift.schema import Kind
from robolift.stages import NAMES
from robolift.stages.preflight import HANDED
from robolift.stages.stage import find

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(p.parent.name for p in (ROOT / "components").glob("*/component.py"))
PLANNERS = {"check_run", "check_dataset", "plan_shards"}
MAX_BODY_LINES = 20


def _component(name):
    return getattr(importlib.import_module(f"components.{name}.component"), name)


def _function(name):
    tree = ast.parse((ROOT / "components" / name / "component.py").read_text())
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef))


def test_each_stage_has_a_component_of_its_name():
    assert set(FOLDERS) - PLANNERS == set(NAMES)


@pytest.mark.parametrize("name", FOLDERS)
def test_body_is_an_import_and_one_call(name):
    function = _function(name)
    statements = function.body[1:]
    assert function.body[-1].end_lineno - function.body[0].lineno < MAX_BODY_LINES
    for node in statements[:-1]:
        assert isinstance(node, (ast.ImportFrom, ast.Assign))
        if isinstance(node, ast.ImportFrom):
            assert node.module.startswith("robolift.stages")
    assert isinstance(statements[-1], ast.Return)


@pytest.mark.parametrize("name", FOLDERS)
def test_source_avoids_what_kfp_cannot_ship(name):
    source = (ROOT / "components" / name / "component.py").read_text()
    for banned in ("from __future__", "Literal[", "Optional[int]", ".uri ="):
        assert banned not in source


@pytest.mark.parametrize("name", [n for n in FOLDERS if n not in PLANNERS])
def test_parameters_are_fields_of_the_stage_and_have_no_default_of_their_own(name):
    signature = inspect.signature(_component(name).python_func)
    stage = find(name)
    plumbing = {"stages", "output_root", "source_uri", "policy_uri", "previous_uri"}
    inputs = set(stage.INPUTS) | {"evaluation", "baselines"}
    component = _component(name).component_spec
    outputs = set(component.outputs) - {"Output"}
    for key, parameter in signature.parameters.items():
        assert parameter.default is inspect.Parameter.empty, key
        if key not in plumbing | inputs | outputs:
            assert key in stage.Config.model_fields, f"{name}.{key}"


@pytest.mark.parametrize("name", NAMES)
def test_what_the_pipeline_hands_to_a_stage_is_known_to_the_first_check(name):
    call = _function(name).body[-1].value
    passed = {keyword.arg for keyword in call.keywords} - {"artifact", "output_root", "stages", "inputs"}
    assert passed == set(HANDED.get(name, {}))


@pytest.mark.parametrize("name", [n for n in FOLDERS if n not in PLANNERS])
def test_output_artifact_is_of_the_stage_s_kind(name):
    outputs = {k: v for k, v in _component(name).component_spec.outputs.items() if k != "Output"}
    ((_, spec),) = outputs.items()
    assert spec.type == f"system.{find(name).OUTPUT}@1.0.0"


def test_every_kind_has_an_artifact_class():
    artifacts = importlib.import_module("components._artifacts")
    assert {getattr(artifacts, str(kind)).schema_title for kind in Kind} == {f"system.{kind}" for kind in Kind}


def test_every_component_has_an_image_and_a_size():
    images = importlib.import_module("components._images").STAGE_IMAGES
    sizes = importlib.import_module("components._resources").STAGE_SIZES
    assert set(images) == set(sizes) == set(FOLDERS)


def test_no_image_holds_both_torch_and_jax():
    images = importlib.import_module("components._images").STAGE_IMAGES
    assert images["train_value"] == images["predict_values"] == "torch"
    assert images["train_policy"] == images["evaluate_policy"] == "jax"
