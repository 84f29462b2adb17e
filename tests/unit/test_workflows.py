"""The workflows: valid, nothing a security linter objects to, and every action pinned to a commit."""

import re
import subprocess
import sys
from pathlib import Path

import image_tags
import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: (\./\S+|[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)( # .*)?$")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_fits_its_schema(path):
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_security_linter_finds_nothing():
    command = [BIN / "zizmor", "--offline", "--no-progress", ROOT / ".github" / "workflows"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_to_a_commit_with_its_version_beside_it(path):
    uses = [line.strip().removeprefix("- ") for line in path.read_text().splitlines() if "uses: " in line]
    assert uses
    assert [line for line in uses if not PINNED.match(line)] == []


def test_the_same_version_of_an_action_is_the_same_commit_everywhere():
    found = re.findall(r"uses: (\S+)@(\w+) # (\S+)", "".join(path.read_text() for path in WORKFLOWS))
    assert len({(name, version) for name, _, version in found}) == len(set(found))


def test_ci_builds_the_images_that_there_are():
    jobs = yaml.safe_load((ROOT / ".github/workflows/images.yml").read_text())["jobs"]
    assert jobs["build"]["strategy"]["matrix"]["image"] == list(image_tags.NAMES)
    bake = (ROOT / "docker-bake.hcl").read_text()
    assert f"matrix  = {{ image = {json_list(image_tags.NAMES)} }}" in bake


def json_list(names):
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_make_target_that_a_workflow_calls_is_there(path):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", path.read_text()))  # see pipeline.py
    assert called <= targets


def nightly():
    return yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())["jobs"]


def commands(job):
    return "\n".join(step.get("run", "") for step in job["steps"]).replace("\\\n", " ")


def test_what_ci_leaves_out_runs_at_night():
    ran = {job: set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", commands(facts))) for job, facts in nightly().items()}
    assert ran == {
        "slow": {"test-slow"},
        "oracle": {"oracle"},
        "chart": {"chart"},
        "containers": {"e2e-containers"},
        "cluster-suite": {"images", "e2e-cluster"},
        "cluster": {"images", "submit"},
    }


def test_every_marker_that_make_test_leaves_out_has_a_job_at_night():
    makefile = (ROOT / "Makefile").read_text()
    (left_out,) = re.findall(r'pytest -n 2 -m "(not [a-z ]+)"', makefile)
    night = "".join(commands(job) for job in nightly().values())
    for marker in re.findall(r"not ([a-z]+)", left_out):
        recipes = re.findall(
            rf"^([a-z0-9-]+):[^\n]*\n(?:\t[^\n]*\n)*?\t[^\n]*(?:-m {marker}\b|tests/{marker}\b)", makefile, re.M
        )
        assert [target for target in recipes if f"make {target}" in night], marker


def test_the_cluster_suite_gets_what_its_settings_ask_for():
    ran = commands(nightly()["cluster-suite"])
    assert 'KUBECONFIG="$HOME/.kube/config" IMAGES="cpu=robolift-cpu:$version,torch=robolift-torch:$version"' in ran
    assert "docker network inspect kind" in ran
    assert "export ROBOLIFT_E2E_HOST" in ran
    suite = (ROOT / "tests/e2e_cluster/conftest.py").read_text()
    assert 'os.environ.get("ROBOLIFT_E2E_HOST")' in suite


def test_recap_at_night_is_tried_by_helm_and_runs_as_the_charts_account():
    ran = commands(nightly()["cluster"])
    assert (
        ran.index("helm upgrade")
        < ran.index("helm test robolift --namespace kubeflow --logs")
        < ran.index("make submit")
    )
    (submit,) = re.findall(r"make submit .*", ran)
    accounts = yaml.safe_load((ROOT / "charts/robolift/values.yaml").read_text())["serviceAccounts"]
    assert f"SERVICE_ACCOUNT={accounts['launcher']['name']} " in submit
