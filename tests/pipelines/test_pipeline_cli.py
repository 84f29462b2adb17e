"""pipeline.py: compiled bytes, parameters refused by name, the plan."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components import _parameters
from robolift.errors import UsageError

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


def _pipeline(*args, **env):
    return subprocess.run(
        [sys.executable, "pipeline.py", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    for name, seed in (("one", "1"), ("two", "2")):
        done = _pipeline("compile", "recap", "--output", str(folder / f"{name}.yaml"), PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
    return folder


def _spec(compiled):
    return next(yaml.load_all((compiled / "one.yaml").read_text(), Loader=yaml.CSafeLoader))


def test_compiled_pipeline_is_byte_identical_twice_and_golden(compiled):
    content = (compiled / "one.yaml").read_bytes()
    assert content == (compiled / "two.yaml").read_bytes()
    golden = GOLDEN / "recap.yaml"
    if os.environ.get("ROBOLIFT_GOLDEN"):
        golden.write_bytes(content)
    assert content == golden.read_bytes(), "the compiled pipeline changed: run `make golden` and read the diff"


def test_recap_has_at_most_twelve_parameters_and_long_retries(compiled):
    assert len(_spec(compiled)["root"]["inputDefinitions"]["parameters"]) == 10
    text = (compiled / "one.yaml").read_text()
    assert "backoffMaxDuration: 3600s" not in text
    assert "backoffMaxDuration: 604800s" in text


def test_no_step_uses_kfp_s_cache(compiled):
    components = _spec(compiled)["components"]
    steps = [t for c in components.values() for t in c.get("dag", {}).get("tasks", {}).values()]
    executed = [t for t in steps if "executorLabel" in components[t["componentRef"]["name"]]]
    assert len(executed) > 14
    assert not any(t["cachingOptions"].get("enableCache") for t in executed)


def test_no_library_code_travels_in_the_compiled_file(compiled):
    text = (compiled / "one.yaml").read_text()
    assert "from robolift.stages" in text
    assert "import numpy" not in text
    assert "pip install" not in text.replace("pip install --", "pip install")


def test_list_names_the_pipelines():
    done = _pipeline("list")
    assert done.returncode == 0
    assert "recap: RECAP" in done.stdout
    assert "positive_fraction: Float = 0.3" in done.stdout


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("positive_fracton=0.3", "unknown parameter 'positive_fracton'"),
        ("positive_fraction=30", "positive_fraction"),
        ("lookahead=ten", "parameter 'lookahead' is 'ten', expected a whole number"),
        ("lookahead=true", "parameter 'lookahead' is True"),
        ("lookahead=0", "lookahead: "),
        ("num_shards=0", "num_shards"),
        ("num_shards=65", "num_shards is 65, expected at most 64"),
        ("seed=10000", "seed: "),
        ("iterations=4", "iterations is 4, expected 1, 2 or 3"),
        ("baselines=[]", "baselines is empty"),
        ("baselines=[best]", "baselines: train_policy.variant"),
        ("stages.train_valu.steps=3", "stages.train_valu: no such stage"),
        ("stages.train_value.stepps=3", "stages.train_value.stepps"),
        ("stages.train_value.steps=0", "stages.train_value.steps"),
        ("stages.train_value=3", "stages.train_value is 3, expected a mapping"),
        ("stages.label_advantage.lookahead=3", "use its parameter lookahead instead"),
    ],
)
def test_a_wrong_parameter_is_named(compiled, override, message):
    with pytest.raises(UsageError) as caught:
        _parameters.check(_spec(compiled), _parameters.overlay({"output_root": "/nowhere"}, [override]))
    assert message in str(caught.value)


def test_a_stage_without_settings_is_fine(compiled):
    _parameters.check(_spec(compiled), {"output_root": "/nowhere", "stages": {"label_returns": None}})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "expected key=value"),
        ("baselines=[plain", "--set 'baselines=[plain': "),
        ("seed.x=1", "seed is 0, not a mapping"),
    ],
)
def test_a_broken_override_is_a_usage_error(override, message):
    with pytest.raises(UsageError) as caught:
        _parameters.overlay({"seed": 0}, [override])
    assert message in str(caught.value)


def test_overrides_reach_inside_and_leave_the_given_parameters_alone():
    given = {"stages": {"train_value": None}}
    assert _parameters.overlay(given, ["stages.train_value.steps=2"]) == {"stages": {"train_value": {"steps": 2}}}
    assert given == {"stages": {"train_value": None}}


def test_submit_dry_run_with_a_wrong_parameter_ends_with_64_and_writes_nothing():
    done = _pipeline("submit", "recap", "--dry-run", "--set", "output_root=/nowhere", "--set", "positive_fracton=0.3")
    assert done.returncode == 64
    assert "unknown parameter 'positive_fracton'" in done.stderr
    assert not Path("/nowhere").exists()


def test_submit_dry_run_prints_the_plan():
    done = _pipeline(
        "submit", "recap", "--dry-run", "--params", "params/recap.yaml", "--set", "output_root=s3://bucket/runs"
    )
    assert done.returncode == 0, done.stderr
    assert "output_root = 's3://bucket/runs'" in done.stdout
    assert "robolift-torch" in done.stdout


def test_missing_parameter_unknown_pipeline_and_bad_override():
    assert "missing parameter 'output_root'" in _pipeline("submit", "recap", "--dry-run").stderr
    unknown = _pipeline("compile", "recapp")
    assert unknown.returncode == 64
    assert "there are: recap" in unknown.stderr
    bad = _pipeline("submit", "recap", "--dry-run", "--set", "lookahead")
    assert bad.returncode == 64
    assert "expected key=value" in bad.stderr


def test_submit_refuses_images_without_a_digest_and_a_missing_host():
    base = ("submit", "recap", "--set", "output_root=s3://bucket/runs")
    assert "no --host" in _pipeline(*base, KFP_HOST="").stderr
    refused = _pipeline(*base, "--host", "http://127.0.0.1:9")
    assert refused.returncode == 64
    assert "images without a digest" in refused.stderr


def test_every_params_file_is_valid(compiled):
    paths = sorted((ROOT / "params").glob("*.yaml"))
    assert [path.stem for path in paths] == ["demo_pixels", "demo_state", "recap"]
    for path in paths:
        _parameters.check(_spec(compiled), {"output_root": "/nowhere", **_parameters.read(str(path))})
