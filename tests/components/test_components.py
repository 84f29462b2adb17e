"""Components stay thin, and say the same as the stages they call."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from robolift.schema import Kind
from robolift.stages import NAMES, clips_plan, labeling_plan, stage_advantage_plan
from robolift.stages.preflight import RECAP
from robolift.stages.stage import find

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(p.parent.name for p in (ROOT / "components").glob("*/component.py"))
OTHER_DOORS = sorted(
    (path.parent.name, path.stem)
    for path in (ROOT / "components").glob("*/*.py")
    if path.stem not in ("component", "__init__")
)
"""(stage, file) of components that call a stage with other inputs than its usual one."""
SOURCES = [*((name, "component") for name in FOLDERS), *OTHER_DOORS]
PLANNERS = {
    *("check_run", "check_dataset", "check_labeling", "check_clips", "check_address", "check_reward"),
    *("plan_shards", "plan_stage_advantage"),
}
MAX_BODY_LINES = 20


def _component(name, file="component"):
    return getattr(importlib.import_module(f"components.{name}.{file}"), name)


def _function(name, file):
    tree = ast.parse((ROOT / "components" / name / f"{file}.py").read_text())
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef))


def test_each_stage_has_a_component_of_its_name():
    assert set(FOLDERS) - PLANNERS == set(NAMES)


def test_stages_that_have_another_door():
    assert OTHER_DOORS == [
        ("export_dataset", "rewards"),
        ("label_advantage", "annotated"),
        ("label_advantage", "predicted"),
        ("score_clips", "control"),
        ("train_policy", "normalized"),
        ("train_value", "estimator"),
        ("write_report", "clips"),
        ("write_report", "estimator"),
        ("write_report", "rewards"),
    ]


@pytest.mark.parametrize(("name", "file"), SOURCES)
def test_body_is_an_import_and_one_call(name, file):
    function = _function(name, file)
    statements = function.body[1:]
    assert function.body[-1].end_lineno - function.body[0].lineno < MAX_BODY_LINES
    for node in statements[:-1]:
        assert isinstance(node, (ast.ImportFrom, ast.Assign))
        if isinstance(node, ast.ImportFrom):
            assert node.module.startswith("robolift.stages")
    assert isinstance(statements[-1], ast.Return)


@pytest.mark.parametrize(("name", "file"), SOURCES)
def test_source_avoids_what_kfp_cannot_ship(name, file):
    source = (ROOT / "components" / name / f"{file}.py").read_text()
    for banned in ("from __future__", "Literal[", "Optional[int]", ".uri ="):
        assert banned not in source


@pytest.mark.parametrize(("name", "file"), [(n, f) for n, f in SOURCES if n not in PLANNERS])
def test_parameters_are_fields_of_the_stage_and_have_no_default_of_their_own(name, file):
    signature = inspect.signature(_component(name, file).python_func)
    stage = find(name)
    plumbing = {"stages", "launch", "output_root", "source_uri", "policy_uri", "previous_uri"}
    plumbing |= {"consumer"}
    inputs = set(stage.INPUTS) | {"evaluation", "baselines"}
    component = _component(name, file).component_spec
    outputs = set(component.outputs) - {"Output"}
    for key, parameter in signature.parameters.items():
        assert parameter.default is inspect.Parameter.empty, key
        if key not in plumbing | inputs | outputs:
            assert key in stage.Config.model_fields, f"{name}.{key}"


@pytest.mark.parametrize(("name", "file"), [(n, f) for n, f in SOURCES if n not in PLANNERS])
def test_what_a_pipeline_hands_to_a_stage_is_known_to_the_first_check(name, file):
    call = _function(name, file).body[-1].value
    plumbing = {"artifact", "shown", "output_root", "stages", "inputs", "launch"}
    passed = {keyword.arg for keyword in call.keywords} - plumbing
    for wiring in _wirings(name, file):
        assert passed == set(wiring.handed.get(name, {}))


def _wirings(name, file):
    """Return the wirings of the pipelines that use this door: those that take another one of the stage do not."""
    others = {"rewards": [labeling_plan.WIRING], "clips": [clips_plan.WIRING], "control": [clips_plan.WIRING]}
    if file != "component":
        return others.get(file, [stage_advantage_plan.WIRING])
    elsewhere = [wiring for stage, door in OTHER_DOORS if stage == name for wiring in _wirings(stage, door)]
    every = (RECAP, stage_advantage_plan.WIRING, labeling_plan.WIRING, clips_plan.WIRING)
    return [wiring for wiring in every if name in wiring.stages and wiring not in elsewhere]


@pytest.mark.parametrize(("name", "file"), [(n, f) for n, f in SOURCES if n not in PLANNERS])
def test_output_artifact_is_of_the_stage_s_kind(name, file):
    outputs = {k: v.type for k, v in _component(name, file).component_spec.outputs.items() if k != "Output"}
    ((_, kind),) = ((k, v) for k, v in outputs.items() if k not in SHOWN)
    assert kind == f"system.{find(name).OUTPUT}@1.0.0"


SHOWN = ("metrics", "page", "outcomes")


@pytest.mark.parametrize(("name", "file"), [(n, f) for n, f in SOURCES if n not in PLANNERS])
def test_every_stage_shows_numbers_and_a_page_in_the_ui(name, file):
    shown = {k: v.type for k, v in _component(name, file).component_spec.outputs.items() if k in SHOWN}
    expected = {"metrics": "system.Metrics@0.0.1", "page": "system.Markdown@0.0.1"}
    if name == "write_report":
        expected |= {"page": "system.HTML@0.0.1", "outcomes": "system.ClassificationMetrics@0.0.1"}
    assert shown == expected
    (given,) = (k.value for k in _function(name, file).body[-1].value.keywords if k.arg == "shown")
    assert {key.value for key in given.keys} == set(expected)


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
