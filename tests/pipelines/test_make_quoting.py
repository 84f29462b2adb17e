"""make hands each value to pipeline.py as it was given, and the release workflow's upload reaches pipeline.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RECORDER = """#!/bin/sh
printf '%s\\n' "values=$ROBOLIFT_VALUES" "host=$KFP_HOST" "namespace=$KFP_NAMESPACE" "--" "$@" >>"$RECORD"
"""


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Run a command where ``make`` finds a python that records; return its exit code and one list of lines a call."""
    for name in ("KFP_HOST", "KFP_NAMESPACE", "ROBOLIFT_VALUES", "NAMESPACE", "TOKEN_FILE", "MAKEFLAGS", "MAKELEVEL"):
        monkeypatch.delenv(name, raising=False)
    record, bin_folder, path = tmp_path / "record", tmp_path / "bin", tmp_path / "path"
    monkeypatch.setenv("RECORD", str(record))
    make = shutil.which("make")
    for script, text in (
        (bin_folder / "python", RECORDER),
        # -o: the environment is there already, and it is no part of this.
        (path / "make", f'#!/bin/sh\nexec {make} -s -o install "BIN={bin_folder}" "$@"\n'),
    ):
        script.parent.mkdir()
        script.write_text(text)
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")

    def run(*command):
        record.unlink(missing_ok=True)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        calls = [] if not record.exists() else record.read_text().split("values=")[1:]
        return done.returncode, [f"values={call}".splitlines() for call in calls], done.stderr

    return run


@pytest.fixture
def no_scripts(recorded, tmp_path):
    """`bash scripts/...` does nothing: `make images` installs Debian packages first. make's own shell has a path."""
    script = tmp_path / "path" / "bash"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)


def _arguments(call):
    assert call[3] == "--"
    return call[4:]


ADDRESS = "https://kubeflow.example/_/pipeline/?ns=team&x=1#/runs"
AWKWARD = ["it's; exit 3", 'say "hi" `id` > file', "a && b | c", "{a,b}*?~", "back\\slash"]


@pytest.mark.parametrize("value", [ADDRESS, *AWKWARD])
@pytest.mark.parametrize(
    ("target", "variable", "option"),
    [
        ("submit", "HOST", "--host"),
        ("submit", "RUN", "--run"),
        ("submit", "PARAMS", "--params"),
        ("run", "PARAMS", "--params"),
        ("upload", "TOKEN_FILE", "--token-file"),
        ("schedule", "DELETE", "--delete"),
        ("logs", "STEP", "--step"),
        ("images", "REGISTRY", "--registry"),
    ],
)
def test_a_value_arrives_as_it_was_given(recorded, no_scripts, target, variable, option, value):
    code, calls, errors = recorded("make", target, f"{variable}={value}")
    assert code == 0, errors
    arguments = _arguments(calls[-1])
    assert arguments[arguments.index(option) + 1] == value
    assert len(calls) == 1


@pytest.mark.parametrize("target", ["status", "logs", "cancel"])
def test_the_address_of_a_run_s_page_arrives_whole(recorded, target):
    code, calls, _ = recorded("make", target, f"RUN={ADDRESS}")
    assert (code, _arguments(calls[0])) == (0, ["pipeline.py", target, ADDRESS])


@pytest.mark.parametrize("target", ["run", "submit", "demo"])
def test_a_parameter_keeps_its_braces_and_quotes(recorded, target):
    given = ["stages={a:1,b:2}", 'baselines=["plain","filtered"]', "name='x'", "glob=*.md"]
    code, calls, errors = recorded("make", target, "SET=" + " ".join(given))
    assert code == 0, errors
    arguments = _arguments(calls[0])
    assert [arguments[i + 1] for i, word in enumerate(arguments) if word == "--set"] == given


def test_a_cron_a_name_and_a_values_file_keep_their_spaces(recorded):
    code, calls, _ = recorded("make", "schedule", "CRON=0 0 2 * * *", "NAME=dana's night", "VALUES=my site.yaml")
    assert code == 0
    assert calls[0][0] == "values=my site.yaml"
    assert _arguments(calls[0])[-4:] == ["--cron", "0 0 2 * * *", "--name", "dana's night"]


def test_a_dry_run_reaches_the_deletion_of_a_schedule(recorded):
    _, calls, _ = recorded("make", "schedule", "DELETE=nightly", "DRY_RUN=1")
    assert _arguments(calls[0]) == ["pipeline.py", "schedule", "--delete", "nightly", "--dry-run"]


def test_images_stay_a_list(recorded, no_scripts):
    _, calls, _ = recorded("make", "images", "IMAGES=cpu torch")
    assert _arguments(calls[0]) == ["scripts/build_images.py", "cpu", "torch"]


@pytest.mark.parametrize("text", ['baselines=["plain", "filtered"]', 'prompt="two words"', "stages={a: 1}"])
def test_a_value_torn_at_a_space_is_refused(command, text):
    torn = [part for word in text.split() for part in ("--set", word)]
    done = command("submit", "recap", *torn, "--dry-run")
    assert done.code == 64
    assert done.err.startswith("error: --set ")
    assert "a value with a space goes into the --params file" in done.err


def test_the_release_uploads_each_pipeline_to_the_server_that_the_repository_names(recorded, monkeypatch, tmp_path):
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    (step,) = [step for step in jobs["pipelines"]["steps"] if step.get("name") == "Upload to Kubeflow Pipelines"]
    values = {
        "${{ vars.KFP_HOST }}": "https://kubeflow.example/pipeline",
        "${{ vars.KFP_NAMESPACE }}": "team",
        "${{ secrets.KFP_TOKEN }}": "a secret",
    }
    for name, text in step["env"].items():
        monkeypatch.setenv(name, values[text])
    monkeypatch.setenv("RUNNER_TEMP", str(tmp_path))
    code, calls, errors = recorded("bash", "-e", "-c", step["run"])
    assert code == 0, errors
    token = ["--token-file", f"{tmp_path}/token"]
    for call, pipeline in zip(calls, ("recap", "stage_advantage"), strict=True):
        assert call[1:3] == ["host=https://kubeflow.example/pipeline", "namespace=team"]
        assert _arguments(call) == ["pipeline.py", "upload", pipeline, *token]
    assert (tmp_path / "token").read_text() == "a secret"
    # The recorder shows what was in the environment; that pipeline.py reads these names is what it is for.
    program = "from components import _arguments, _kubeflow as k; print(k.default_host(), "
    program += "_arguments.parser().parse_args(['upload', 'recap']).namespace)"
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "https://kubeflow.example/pipeline team\n"
