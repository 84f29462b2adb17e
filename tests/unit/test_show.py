# No postponed annotations in this file: KFP's artifact classes are real here.
import json
import math

import pytest
import toy_stage
from kfp import dsl

from robolift import storage
from robolift.stages.show import MAX_SCALARS, markdown, scalars, show
from robolift.stages.stage import execute


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    toy_stage.install(monkeypatch)


def made(tmp_path, **config):
    return execute("toy", config, {}, f"{tmp_path}/runs")


def damaged(manifest, name, document):
    """Put a file of our own into the output, as a stage of another kind would have written it."""
    storage.write_bytes(manifest.file(name), json.dumps(document).encode())
    return manifest


def artifacts(tmp_path, *, page=dsl.Markdown):
    classes = {"metrics": dsl.Metrics, "page": page, "outcomes": dsl.ClassificationMetrics}
    return {name: kind(name=name, uri=f"{tmp_path}/{name}", metadata={}) for name, kind in classes.items()}


def test_counts_and_finite_numbers_are_scalars_and_nothing_else(tmp_path):
    metrics = {"loss": 0.25, "nothing": None, "ok": True, "by": {"task": {"n": 3}}, "list": [1], "name": "x"}
    found = damaged(made(tmp_path, rows=2), "metrics.json", metrics)
    assert scalars(found) == {"frames": 2.0, "loss": 0.25, "by/task/n": 3.0}


def test_scalars_are_not_without_end(tmp_path):
    found = damaged(made(tmp_path), "metrics.json", {f"task {n}": n for n in range(500)})
    assert len(scalars(found)) == MAX_SCALARS == 60


def test_a_page_says_what_was_made_from_what_with_what_numbers(tmp_path):
    before = made(tmp_path, seed=1)
    found = execute("toy", {"note": "a|b", "rows": 7}, {"before": before.uri}, f"{tmp_path}/runs")
    lines = markdown(found).splitlines()
    assert lines[0] == "# toy"
    assert f"`{found.uri}`" in lines
    assert "| frames | 7 |" in lines
    assert f"| before | `{before.uri}` |" in lines
    assert r"| note | `a\|b` |" in lines  # a bar would end the cell
    assert not [line for line in lines if line.startswith("| scores")]  # what is empty says nothing


def test_kfp_s_own_artifacts_are_filled(tmp_path):
    found = made(tmp_path, rows=4)
    shown = artifacts(tmp_path)
    show(found, shown)
    assert shown["metrics"].metadata == {"frames": 4.0}
    assert (tmp_path / "page").read_text() == markdown(found)
    assert shown["outcomes"].metadata == {}


def test_a_curve_of_outcomes_is_shown_with_its_confusion(tmp_path):
    curve = {
        "categories": ["success", "failure"],
        "false_positive_rate": [0.0, 0.0, 1.0],
        "true_positive_rate": [0.0, 1.0, 1.0],
        "threshold": [1.0, 0.5, 0.25],
        "confusion": [[3, 0], [1, 2]],
    }
    shown = artifacts(tmp_path)
    show(damaged(made(tmp_path), "outcomes.json", curve), shown)
    metadata = shown["outcomes"].metadata
    points = [{"falsePositiveRate": 0.0, "recall": 1.0, "confidenceThreshold": 0.5}]
    assert metadata["confidenceMetrics"][1:2] == points
    matrix = metadata["confusionMatrix"]
    assert [row["displayName"] for row in matrix["annotationSpecs"]] == ["success", "failure"]
    assert [row["row"] for row in matrix["rows"]] == [[3, 0], [1, 2]]
    assert all(math.isfinite(point["confidenceThreshold"]) for point in metadata["confidenceMetrics"])
