"""What the command line says before anything is sent; compiling, which takes seconds, is tested by itself."""

from pathlib import Path

import pytest
import yaml

from components import _cli

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in this process, on the golden files: (exit code, stdout, stderr)."""

    def stored(name, path):
        path.write_bytes((GOLDEN / f"{name}.yaml").read_bytes())
        return next(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader))

    monkeypatch.setattr(_cli, "compile_to", stored)
    monkeypatch.setenv("KFP_HOST", "")
    monkeypatch.chdir(ROOT)

    def call(*arguments):
        code = _cli.main({name: name for name in ("recap", "clip_reward")}, arguments)
        return code, *capsys.readouterr()

    return call


def test_submit_dry_run_with_a_wrong_parameter_ends_with_64_and_writes_nothing(cli):
    wrong = ("--set", "output_root=/nowhere", "--set", "positive_fracton=0.3")
    code, _, said = cli("submit", "recap", "--dry-run", *wrong)
    assert code == 64
    assert "unknown parameter 'positive_fracton'" in said
    assert not Path("/nowhere").exists()


def test_submit_dry_run_prints_the_plan(cli):
    plan = ("submit", "recap", "--dry-run", "--params", "params/recap.yaml", "--set", "output_root=s3://bucket/runs")
    code, shown, said = cli(*plan, "--allow-tags")
    assert code == 0, said
    assert "output_root = 's3://bucket/runs'" in shown
    assert "robolift-torch" in shown


def test_missing_parameter_unknown_pipeline_and_bad_override(cli):
    assert "missing parameter 'output_root'" in cli("submit", "recap", "--dry-run")[2]
    code, _, said = cli("compile", "recapp")
    assert code == 64
    assert "there are: recap" in said
    code, _, said = cli("submit", "recap", "--dry-run", "--set", "lookahead")
    assert code == 64
    assert "expected key=value" in said


def test_submit_without_a_host_ends_with_64(cli):
    code, _, said = cli("submit", "recap", "--set", "output_root=s3://bucket/runs", "--allow-tags")
    assert code == 64
    assert "no --host" in said
