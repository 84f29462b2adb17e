"""The page as a whole: complete, self-contained, accessible, the same bytes each time; and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_page import Page, damage, page_of, small, summary_of, write
from synthetic_run import GRIPPER, RATES, TOP, SyntheticRun

from robolift import manifest, storage
from robolift.errors import DataError
from robolift.manifest import Manifest, Output
from robolift.schema import Kind
from robolift.stages.stage import execute

SECTIONS = ["success", "episodes", "labels", "training", "data", "lineage"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The report of a full run with films."""
    return write(SyntheticRun(tmp_path_factory.mktemp("run"), num_films=2, cameras=(TOP, GRIPPER)))


@pytest.fixture(scope="module")
def page(report: Manifest) -> Page:
    return page_of(report)


def test_headline_comes_from_the_evaluations(page: Page):
    assert page.text("h1") == ["Advantage conditioning: 82\u202f% success against 14\u202f% for plain cloning"]
    assert page.text("title")[0] == page.text("h1")[0]
    assert "+68 points (95\u202f% interval +" in page.words
    assert "OBS=state" in page.words


def test_all_sections_are_there_and_reachable(page: Page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert [attributes["id"] for attributes in page.all("section")] == SECTIONS
    assert [name for name, number in Counter(ids).items() if number > 1] == []
    links = [attributes["href"] for attributes in page.all("a")]
    assert {f"#{name}" for name in SECTIONS} <= set(links)
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_nothing_is_loaded_from_elsewhere(page: Page):
    assert "http" not in page.html
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]+)\)", page.html))
    assert "@import" not in page.html


def test_markup_is_balanced(page: Page):
    assert page.html.startswith("<!doctype html>")
    assert page.faults == []


def test_everything_can_be_read_aloud(page: Page):
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.all("img"))
    for tag, attributes in page.tags:
        if attributes.get("role") == "img":
            assert attributes.get("aria-label") or set(attributes["aria-labelledby"].split()) <= ids, tag
    captioned = [part for part in page.html.split("<table")[1:] if "<caption>" in part or 'class="stage"' not in part]
    assert len(captioned) >= 5
    assert len(page.text("h1")) == 1
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))


def test_success_table_has_every_row_with_its_interval(page: Page):
    tracks = [a["aria-label"] for a in page.all("div") if a.get("class") == "track"]
    assert len(tracks) == len(RATES)
    assert "plain cloning: 14\u202f%, 95 % interval 9 to 22\u202f%" in tracks
    assert "advantage conditioning: 82\u202f%, 95 % interval 73 to 88\u202f%" in tracks
    assert "the same starts for every policy (paired)" in page.words
    signed = [a["aria-label"] for a in page.all("div") if a.get("class") == "track signed"]
    assert len(signed) == len(RATES) - 1


def test_two_policies_are_shown_from_the_same_start(page: Page):
    strips = [a["aria-label"] for a in page.all("div") if a.get("class") == "strip"]
    assert len(strips) == 5  # two evaluations, three recorded episodes
    assert strips[0].startswith("10 pictures of plain cloning")
    assert strips[1].startswith("10 pictures of advantage conditioning")


def test_film_strip_stands_over_its_episode(page: Page):
    strips = [a for a in page.all("div") if a.get("class") == "strip" and "style" in a]
    assert len(strips) == 3
    left, right = (float(x) for x in re.findall(r"([\d.]+)%", strips[0]["style"]))
    assert left == pytest.approx(100 * 52 / 940, abs=1e-3)
    assert right == pytest.approx(100 * 8 / 940, abs=1e-3)
    frames = [int(x) for x in re.findall(r"\d+", strips[1]["aria-label"].split("at frames")[1])]
    assert frames == [3, 11, 18, 26, 33, 41, 48, 56, 63, 71]  # the middle of each tenth of 75 frames


def test_a_corrected_episode_is_marked(page: Page):
    marked = [a for a in page.all("figure") if a.get("class") == "human"]
    assert 4 <= len(marked) <= 6  # the second half of ten pictures
    assert "person corrects" in page.text("text")


def test_labels_are_counted(page: Page):
    bars = [a["aria-label"] for a in page.all("div") if a.get("class") == "bar"]
    assert any(label.startswith("correcting: positive 100\u202f%") for label in bars)
    assert any(label.startswith("autonomous: positive 30\u202f%, negative 70\u202f%") for label in bars)
    assert "its advantage, against the cut of its group" in page.words
    assert any(text.startswith("cut ") for text in page.text("text"))


def test_every_setting_is_listed(page: Page):
    code = page.text("code")
    assert {"positive_fraction", "learning_rate", "num_pictures", "lookahead"} <= set(code)
    assert "0, and 1 more" in code  # the two shards of the prediction
    assert page.text("b").count("train_policy") == 4


def test_light_dark_and_print(page: Page):
    assert "prefers-color-scheme: dark" in page.html
    assert "@media print" in page.html
    assert page.html.count("--positive:") == 2


def test_page_is_small(report: Manifest):
    assert len(storage.read_bytes(report.file("report.html"))) < 500_000


def test_summary_is_what_the_benchmarks_read(report: Manifest):
    summary = summary_of(report)
    assert [row["name"] for row in summary["success"]] == [
        "plain", "shuffled/positive", "filtered", "advantage/negative", "advantage/positive",
    ]  # fmt: skip
    assert summary["success"][-1]["success_rate"] == 0.82
    assert summary["gain_over_plain"]["difference"] == pytest.approx(0.68)
    assert summary["gain_over_plain"]["paired"] is True
    assert summary["iterations"][0]["iteration"] == 1
    assert 0.5 < summary["labels"]["auc_against_truth"] < 1
    assert summary["value"]["held_out"] is True
    assert summary["observations"] == "state"
    assert report.metrics()["success_rate/advantage/positive"] == 0.82
    assert report.counts["policies"] == 5


def test_no_build_time_or_place_is_written(report: Manifest):
    text = storage.read_bytes(report.file("report.html")).decode() + json.dumps(summary_of(report))
    assert str(storage.local_path(report.uri)) not in text
    assert "/tmp/" not in text
    assert not re.search(r"20\d\d-\d\d-\d\d", text)


def test_the_same_inputs_give_the_same_bytes_wherever_they_lie(tmp_path: Path):
    one, other = (write(small(tmp_path / name)) for name in ("one", "other"))
    assert one.digest == other.digest
    for name in ("report.html", "summary.json", "metrics.json"):
        assert storage.read_bytes(one.file(name)) == storage.read_bytes(other.file(name)), name


def test_only_what_is_required(tmp_path: Path):
    run = small(tmp_path, cameras=(), has_truth=False)
    found = page_of(write(run, evaluations=[], checkpoint=[]))
    assert found.text("h1") == [f"{run.num_frames} frames labelled by their advantage"]
    assert found.all("img") == []
    assert "The dataset has no camera" in found.words
    assert "No evaluation was given" in found.words
    assert "No training curves were recorded" in found.words
    assert "Which episodes were held out is not known" in found.words
    assert "Labels against the truth" not in found.words
    assert found.faults == []


def test_values_without_targets(tmp_path: Path):
    made = write(small(tmp_path), targets=[])
    found = page_of(made)
    assert found.faults == []
    assert "Value against its target" not in found.words
    assert "value target" not in found.text("text")
    assert summary_of(made)["value"]["spearman"] is None
    assert "value_spearman" not in made.metrics()


def test_pixels_are_not_called_state(tmp_path: Path):
    words = page_of(write(small(tmp_path, sees_state=False))).words
    assert "policies see camera pixels" in words
    assert "OBS=state" not in words


def test_slices(tmp_path: Path):
    rates = {("plain", "none"): 0.2, ("advantage", "4"): 0.9, ("advantage", "0"): 0.1}
    found = page_of(write(small(tmp_path, num_slices=5, rates=rates)))
    assert found.text("h1")[0].startswith("Advantage conditioning: 90")
    assert "asked for slice 4" in found.words
    assert "slice 4" in found.text("text")
    assert "color-mix(in oklab, var(--positive) 25%, var(--negative))" in found.html
    assert "divided into slices" in found.words
    assert found.faults == []


def test_unpaired_seeds_and_unequal_settings_are_told(tmp_path: Path):
    run = small(tmp_path, first_seed={"plain": 8000}, policy_settings={"plain": {"steps": 5}})
    words = page_of(write(run)).words
    assert "Not all policies were evaluated on the same seeds" in words
    assert "(paired)" not in words
    assert "The policies differ in more than their variant: steps." in words
    assert "All policies were trained with the same settings" not in words


def test_training_seeds(tmp_path: Path):
    rates = {("plain", "none"): 0.2, ("advantage", "positive"): 0.8}
    found = page_of(write(small(tmp_path, training_seeds=(0, 1), rates=rates)))
    assert "By training seed: 80\u202f%, 80\u202f%." in found.words
    assert "advantage conditioning, seed 1" in found.text("text")
    assert "over the same 20 starts, with 2 trainings" in found.words
    assert "Intervals pool the training seeds" in found.words


@pytest.mark.parametrize("suspicious", [True, False])
def test_a_suspicious_tail_is_shown(tmp_path: Path, suspicious: bool):
    run = small(tmp_path)
    inputs = run.build()
    summary = storage.read_json(f"{inputs['labels'][0]}/summary.json")
    summary["failure_tail"]["suspicious"] = suspicious
    damage(inputs["labels"][0], "summary.json", summary)
    found = page_of(execute("write_report", {}, inputs, str(run.root)))
    assert ("The ends of failures look too good" in found.words) is suspicious


def test_offline_evaluations(tmp_path: Path):
    run = small(tmp_path)
    inputs = run.build()
    policy = manifest.load(inputs["evaluations"][0]).parent("policy")
    numbers = {"action_mse": 0.412, "ci_low": 0.35, "ci_high": 0.48, "human_action_mse": None, "episodes": 3, "n": 90}

    def offline(conditions: dict[str, Any]) -> Manifest:
        def record(output: Output) -> None:
            pq.write_table(pa.table({"action_mse": [0.412]}), output.path / "offline.parquet")
            output.metrics["conditions"] = conditions

        return run.publish(
            "evaluate_policy", Kind.EVALUATION, inputs={"policy": [policy]}, config={"said": conditions}, write=record
        )

    made = execute("write_report", {}, {**inputs, "evaluations": [offline({"none": numbers}).uri]}, str(run.root))
    found = page_of(made)
    assert "Action error on held-out episodes" in found.words
    assert found.text("td")[:5] == ["0.412", "0.350 to 0.480", "–", "3", "90"]
    assert "No evaluation was given" not in found.words
    assert summary_of(made)["offline"][0]["action_mse"] == 0.412
    alone = offline({"none": {**numbers, "ci_low": None, "ci_high": None, "episodes": 1}})
    made = execute("write_report", {}, {**inputs, "evaluations": [alone.uri]}, str(run.root))
    assert page_of(made).text("td")[:4] == ["0.412", "–", "–", "1"]
    broken = offline({"none": {}, "other": {}})
    with pytest.raises(DataError, match="not an offline evaluation"):
        execute("write_report", {}, {**inputs, "evaluations": [broken.uri]}, str(run.root))


def test_iterations_are_told_from_the_first(tmp_path: Path):
    rates = {("plain", "none"): 0.2, ("advantage", "positive"): 0.5}
    first = write(small(tmp_path / "first", rates=rates))
    second = write(small(tmp_path / "second"), previous=[first.uri])
    rows = [step["success"][-1]["success_rate"] for step in summary_of(second)["iterations"]]
    assert rows == [0.5, 0.8]
    found = page_of(second)
    assert "iterations" in [attributes.get("id") for attributes in found.all("section")]
    assert "Success by iteration" in found.words
    assert found.faults == []


def test_another_camera(tmp_path: Path):
    run = small(tmp_path, cameras=(TOP, GRIPPER))
    inputs = {"evaluations": []}
    assert GRIPPER in page_of(write(run, {"camera": GRIPPER}, **inputs)).words
    assert GRIPPER in page_of(write(run, **inputs)).words  # the first by name
    assert TOP in page_of(write(run, {"camera": TOP}, **inputs)).words


def test_curves_without_a_number_are_left_out(tmp_path: Path):
    run = small(tmp_path)
    inputs = run.build()
    damage(inputs["checkpoint"][0], "curves.json", {"train": [{"step": 1, "loss": None}], "validation": []})
    made = execute("write_report", {}, inputs, str(run.root))
    assert "value-curves" not in storage.read_bytes(made.file("report.html")).decode()


def test_value_loss_is_what_is_drawn(tmp_path: Path):
    from robolift.reports.training import value_curves

    run = small(tmp_path)
    checkpoint = run.build()["checkpoint"][0]
    rows = {
        "train": [{"step": 10, "loss": 9.0, "value_loss": 2.0}],
        "validation": [
            {"step": 10, "loss": 3.0, "spearman": 0.4},
            {"step": 1500, "loss": 2.5, "spearman": 0.7, "outcome_auc": None},
            {"step": 2000, "loss": 2.7, "spearman": 0.6},
        ],
    }
    damage(checkpoint, "curves.json", rows)
    curves = value_curves(manifest.load(checkpoint))
    assert curves is not None
    assert curves.series["train"][1].tolist() == [2.0]
    assert curves.last("validation") == 2.7
    assert curves.held_out == {"step": 1500.0, "loss": 2.5, "spearman": 0.7}  # weights were taken after step 1500


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it(report: Manifest, tmp_path: Path, scheme: str):
    from PIL import Image

    shot = tmp_path / "shot.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,3000"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}"]
    if scheme == "dark":
        flags.append("--blink-settings=preferredColorScheme=0")
    subprocess.run([str(CHROMIUM), *flags, report.file("report.html")], check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(shot).convert("RGB"), dtype=np.int64)
    background = {"light": (0xF5, 0xF6, 0xF8), "dark": (0x0E, 0x12, 0x17)}[scheme]
    assert tuple(pixels[2, 2]) == background
    # Text, cards and film strips: a page that failed to draw is one flat colour.
    assert (np.abs(pixels - background).sum(axis=-1) > 24).mean() > 0.05


def test_the_look_of_the_page_is_no_part_of_an_evaluation():
    from robolift.provenance import import_closure

    assert "robolift.reports.page.run_card" in import_closure("robolift.stages.write_report")
    assert not [name for name in import_closure("robolift.stages.evaluate_policy") if "reports.page" in name]


def test_describing_the_stage_needs_no_plotting():
    code = "import sys, robolift.stages.write_report; sys.exit(bool({'matplotlib', 'jinja2'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
