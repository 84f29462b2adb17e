"""docs/rewards_cluster.md: its commands walked through, its values rendered, its submissions checked."""

from __future__ import annotations

import ast
import json
import re
import subprocess

import guide_programs
import pytest
import yaml
from rendered_chart import CHART, ROOT, merge, render, validate

GUIDE = (ROOT / "docs" / "rewards_cluster.md").read_text()
COMMANDS = re.findall(r"```bash\n(.*?)```", GUIDE, flags=re.DOTALL)
VALUES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)]
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> guide_programs.Walk:
    """The guide from its first command to the last, with all of its values in one file."""
    folder = tmp_path_factory.mktemp("rewards")
    guide_programs.workplace(folder)
    (folder / "images.lock.json").write_text(json.dumps(guide_programs.LOCK))
    site: dict = {}
    for values in VALUES:
        site = merge(site, values)
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    return guide_programs.walk(folder, "\n".join(["VLM_API_KEY=key HF_TOKEN=token", *COMMANDS]))


def submitted(said: str) -> dict[str, object]:
    found = re.findall(r"^  (\w+) = (.*?)(?:   \(default\))?$", said, flags=re.MULTILINE)
    return {name: ast.literal_eval(value) for name, value in found}


def test_the_chart_renders_with_the_guides_values(walked):
    for call in walked.of("helm upgrade"):
        objects = render(walked.chart_values(call))
        for item in objects:
            validate(item)
        names = {item["metadata"]["name"] for item in objects if item["kind"] == "Deployment"}
        assert names >= {"rel-vllm", "rel-review"}


def test_each_submission_is_one_that_the_pipeline_takes(walked):
    first, in_step, second = (submitted(call.said) for call in walked.of("make submit"))
    assert (first["mode"], first["model"], first["reviews_uri"]) == ("label", "cosmos-reason2-8b", "")
    assert in_step["endpoint"] == ""
    assert in_step["stages"]["annotate_rewards"]["device"] == "cuda"
    # The second run finds the first one's answers: it differs in what it takes, not in what it asks.
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"mode", "reviews_uri"}
    assert second["reviews_uri"] == VALUES[-1]["review"]["labels"]


def test_the_endpoint_is_the_service_that_the_chart_makes(walked):
    (first, *_) = walked.of("make submit")
    service, namespace = re.fullmatch(r"http://([\w-]+)\.([\w-]+)/v1", submitted(first.said)["endpoint"]).groups()
    (chart, *_) = walked.of("helm upgrade")
    assert service == f"{chart.args[2]}-vllm"
    assert namespace == chart.value("-n")
    assert submitted(first.said)["model"] == VALUES[0]["vllm"]["servedName"]


def test_the_key_that_the_server_asks_for_is_the_one_that_the_steps_carry():
    (entry,) = VALUES[0]["labeller"]["env"]
    assert entry["valueFrom"]["secretKeyRef"] == {"name": VALUES[0]["vllm"]["tokenSecret"], "key": "token"}


@pytest.mark.parametrize("block", COMMANDS)
def test_the_guides_commands_are_shell(block):
    subprocess.run(["bash", "-n"], input=block, text=True, check=True, capture_output=True)


@pytest.mark.parametrize("values", VALUES)
def test_each_block_of_values_is_taken_by_the_chart_alone(values):
    for item in render(values):
        validate(item)


def test_every_file_that_the_guide_names_is_there():
    paths = set(re.findall(r"(?<![\w./])(?:k8s|charts|params|components)/[\w./-]+", GUIDE))
    links = {f"docs/{name}" for name in re.findall(r"\]\(([\w./-]+\.md)\)", GUIDE)}
    assert [path for path in paths | links if not (ROOT / path).exists()] == []
