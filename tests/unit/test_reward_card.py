"""The page on reward labels: complete, safe, honest about what is missing, and the same bytes each time."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_page import Page, damage, page_of, summary_of, write
from report_page import small as small_run
from synthetic_rewards import HOSTILE, RewardRun, measure
from synthetic_run import GRIPPER, TOP

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.reports.ranking import auc
from robolift.stages.stage import execute

SECTIONS = ["quality", "coverage", "progress", "people", "episodes", "labeller", "data", "lineage"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RewardRun:
    """A run that a model and people labelled."""
    return RewardRun(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run: RewardRun) -> Manifest:
    return write(run)


@pytest.fixture(scope="module")
def page(report: Manifest) -> Page:
    return page_of(report)


def told(root: Path, **changes: Any) -> Page:
    """Return the page of a run without cameras: quick to write."""
    return page_of(write(RewardRun(root, cameras=(), **{"num_episodes": 8, **changes})))


def cells(page: Page, heading: str) -> list[str]:
    """Return the cells of the row that starts with ``heading``."""
    row = next(row for row in page.html.split("<tr")[1:] if f'<th scope="row">{heading}' in row)
    return [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]


def test_sections_are_there_and_reachable(page: Page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert [attributes["id"] for attributes in page.all("section")] == SECTIONS
    assert [name for name, number in Counter(ids).items() if number > 1] == []
    links = [attributes["href"] for attributes in page.all("a")]
    assert {f"#{name}" for name in SECTIONS} <= set(links)
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert page.faults == []


def test_it_is_self_contained_and_can_be_read_aloud(page: Page):
    assert "http" not in page.html
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        if attributes.get("role") == "img":
            assert attributes.get("aria-label") or set(attributes["aria-labelledby"].split()) <= ids, tag
    assert all(image["alt"] and image["src"].startswith("data:image/jpeg") for image in page.all("img"))
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    assert page.html.count("--positive:") == 2  # light and dark


def test_headline_says_whether_and_why(page: Page, report: Manifest, run: RewardRun):
    # The model gave no usable answer about one episode, so it has no reward.
    (episode,) = run.unusable
    missing = run.columns["lengths"][episode]
    title = f"These labels cannot be trained on: {missing} of {run.num_frames} frames have no reward"
    assert page.text("h1") == [title]
    assert f"{missing} frames have no reward: in 1 episode ({episode})." in page.words
    share = 1 - missing / run.num_frames
    assert f"{round(100 * share)}\u202f% of frames have a reward; the export refuses the others" in page.words
    assert summary_of(report)["reward"]["known_share"] == pytest.approx(share)
    assert report.metrics()["rewarded_share"] == pytest.approx(share)
    assert "Better than a clock: success told from failure 1.00 against 0.50" in page.words


def test_measures_stand_beside_a_clock(page: Page, run: RewardRun):
    assert cells(page, "Success told from failure") == ["1.00", "0.50", "better", "at least 0.80", "passed"]
    assert cells(page, "Order in time")[1:] == ["1.00", "a clock is perfect", "–", "nothing asked"]
    labelled = np.mean([run.tables[name]["source"] != "none" for name in ("automatic", "reviews")], axis=0) > 0
    share = f"{round(100 * labelled.mean())}\u202f%"
    assert cells(page, "Coverage<") == [share, "–", "–", "–", "nothing asked"]
    assert cells(page, "Coverage of progress<") == [share, "–", "–", "at least 85\u202f%", "passed"]
    assert f"{share} of {run.num_frames} frames in 12 episodes are labelled" in page.words


def test_coverage_is_that_of_the_tables(page: Page, run: RewardRun):
    people, model = (run.tables[name]["source"] != "none" for name in ("reviews", "automatic"))
    (bar,) = [a["aria-label"] for a in page.all("div") if a.get("class") == "bar" and "all frames" in a["aria-label"]]
    shares = {"the model": model & ~people, "people": people, "recorded outcome": ~model & ~people}
    told = [f"{name} {round(100 * frames.mean())}\u202f%" for name, frames in shares.items()]
    assert bar == f"all frames: {', '.join(told)}"


def test_reward_of_an_episode_is_what_its_progress_gains(page: Page, run: RewardRun):
    last = np.cumsum(run.columns["lengths"]) - 1
    first = np.concatenate([[0], last[:-1] + 1])
    progress = run.tables["automatic"]["progress"]
    gained = (progress[last] - progress[first])[run.columns["success"]]
    low, median, high = np.quantile(gained, [0.1, 0.5, 0.9])
    assert cells(page, "success<") == [str(len(gained)), f"{median:.2f}", f"{low:.2f} to {high:.2f}"]


def test_success_auroc_is_that_of_the_last_frames(report: Manifest, run: RewardRun):
    ends = run.tables["automatic"]["success_prob"][np.cumsum(run.columns["lengths"]) - 1]
    known = np.isfinite(ends)
    expected = auc(ends[known], run.columns["success"][known])
    assert summary_of(report)["success_auroc"] == pytest.approx(expected, abs=1e-6)
    assert report.metrics()["success_auroc"] == summary_of(report)["success_auroc"]
    curve = storage.read_json(report.file("outcomes.json"))
    assert sum(map(sum, curve["confusion"])) == known.sum()


def test_people_are_compared_by_what_they_marked(page: Page, run: RewardRun):
    marks = run.tables["reviews"]["tri"]
    compared = np.isfinite(marks) & np.isfinite(run.tables["automatic"]["progress"])
    rows = {name: [int(cell) for cell in cells(page, name)[:3]] for name in ("regressing", "stalled", "progressing")}
    assert {name: sum(row) for name, row in rows.items()} == {
        name: int((compared & (marks == mark)).sum())
        for name, mark in (("regressing", -1), ("stalled", 0), ("progressing", 1))
    }
    # A model that rises from the first frame contradicts the stalled beginning; the rest of a success it confirms.
    assert rows["stalled"][1] == 0
    assert rows["progressing"][2] > 0
    assert "good for tentative conclusions" in page.words
    assert "bob &lt;b&gt;" in page.html
    assert "arm &lt;hides&gt; it" in page.html


def test_raw_answers_are_escaped(page: Page):
    assert HOSTILE not in page.html
    assert "<script" not in page.html
    assert "onerror=alert(1)&gt;" in page.html
    assert HOSTILE in page.words
    assert cells(page, "unparsable") == ["1"]


def test_no_answer_breaks_the_page(tmp_path: Path):
    found = told(tmp_path, answer="</pre></details>" + HOSTILE + "x" * 100_000)
    assert found.faults == []
    assert len(found.html) < 200_000


def test_cost_and_what_was_asked(page: Page):
    assert cells(page, "requests") == ["72", "72"]
    assert cells(page, "input tokens") == ["64\u202f800", "63\u202f001"]
    assert "Is the task done? <answer> True or False." in page.words
    assert "an opinion of made-up-vl-8b, asked with one prompt" in page.words


def test_money_is_told_where_prices_are(run: RewardRun, page: Page):
    assert '<th scope="row">cost' not in page.html
    priced = write(run, {"input_price": 2.0, "output_price": 1000.0})
    # 64,800 and 72 tokens were planned, 63,001 and 72 spent.
    assert cells(page_of(priced), "cost") == ["0.20", "0.20"]
    assert summary_of(priced)["labeller"]["spent"]["cost"] == pytest.approx(0.126002 + 0.072)
    assert priced.metrics()["cost"] == summary_of(priced)["labeller"]["spent"]["cost"]
    half = write(run, {"output_price": 5000.0})
    assert summary_of(half)["labeller"]["spent"]["cost"] == pytest.approx(0.36)


def test_examples_are_shown_with_pictures(page: Page, run: RewardRun):
    strips = [a["aria-label"] for a in page.all("div") if a.get("class") == "strip"]
    assert len(strips) == 4
    assert f"episode {run.unusable[0]}," in strips[-1]
    assert "asked here" in page.text("text")
    assert "nothing was said of this episode" in page.text("text")
    assert {"+1", "0", "-1"} <= {text.replace("\u2212", "-") for text in page.text("text")}


def test_pictures_are_of_the_camera_that_the_model_saw(tmp_path: Path):
    # The dataset's first camera by name is the gripper's; the model was shown the other.
    run = RewardRun(tmp_path, num_episodes=6, cameras=(GRIPPER, TOP))
    assert set(page_of(write(run)).text("span")) & {TOP, GRIPPER} == {TOP}
    assert set(page_of(write(run, {"camera": GRIPPER})).text("span")) & {TOP, GRIPPER} == {GRIPPER}


def test_the_same_inputs_give_the_same_bytes(report: Manifest, tmp_path: Path):
    again = write(RewardRun(tmp_path))
    for name in ("report.html", "summary.json", "outcomes.json"):
        assert storage.read_bytes(again.file(name)) == storage.read_bytes(report.file(name)), name


def test_size(report: Manifest, run: RewardRun):
    assert len(storage.read_bytes(report.file("report.html"))) < 400_000
    with pytest.raises(DataError, match="expected: at most max_size_bytes = 100000"):
        write(run, {"max_size_bytes": 100_000, "num_pictures": 24})


def test_failed_labels_are_refused_in_words(tmp_path: Path):
    measures = {
        "success_auroc": measure(0.61, 0.5, 0.8, False),
        "disagreement": measure(0.4, 0.3, 0.25, False),
        "coverage": measure(1.0, 1.0, 0.9, True),
    }
    found = told(tmp_path, measures=measures, passed=False, alarms=["the labels look like a clock's"])
    assert found.text("h1") == ["Do not train on these labels: they miss 2 of 3 thresholds"]
    missed = (
        "Missed: success told from failure is 0.61, at least 0.80 was asked; contradicted by people is 40\u202f%, "
        "at most 25\u202f% was asked."
    )
    assert missed in found.words
    assert cells(found, "Success told from failure")[-1] == "failed"
    assert "the labels look like a clock's" in found.text("li")


def test_labels_no_better_than_a_clock_are_called_so(tmp_path: Path):
    measures = {"success_auroc": measure(0.5, 0.5, 0.0, True), "value_order_correlation": measure(1.0, 1.0, None, None)}
    assert "no better than a clock" in told(tmp_path, measures=measures, failed_episodes=[]).text("h1")[0]


def test_passing_where_nothing_was_asked_means_nothing(tmp_path: Path):
    found = told(tmp_path, measures={"success_auroc": measure(0.9, 0.5, 0.0, True)}, failed_episodes=[])
    assert found.text("h1") == ["These labels can be trained on only in that no threshold was set"]
    assert "No threshold was set for: success told from failure." in found.words


def test_without_a_model(tmp_path: Path):
    found = told(tmp_path, asked=False)
    assert "No model was asked." in found.words
    assert "There is no labeller to describe." in found.words
    assert "A success that people labelled" in found.words
    assert "success-roc" not in found.html
    assert found.faults == []


def test_without_people(tmp_path: Path):
    found = told(tmp_path, reviewed=False, calibration="isotonic")
    assert "Nobody labelled by hand." in found.words
    assert "Nobody checked the model" in found.words
    assert "was fitted on ends of these very episodes" in found.words
    assert found.faults == []


def test_without_failures(tmp_path: Path):
    found = told(tmp_path, failures=False)
    assert "There is no failure, so nothing says whether labels tell successes from failures." in found.words
    assert "The model spoke of no failures" in found.words
    assert "Success told from failure: " not in found.words
    assert found.faults == []


def test_with_nothing_labelled(tmp_path: Path):
    found = told(tmp_path, asked=False, reviewed=False)
    assert found.text("h1") == ["Nothing is labelled, so there is nothing to train on"]
    assert "100\u202f% of frames carry the recorded outcome, and nothing else." in found.words
    assert "No episode has a reward in every frame." in found.words
    assert "An episode that nobody labelled" in found.words
    assert found.faults == []


def test_labels_with_a_reward_everywhere_can_be_trained_on(tmp_path: Path):
    measures = {"success_auroc": measure(0.9, 0.5, 0.8, True)}
    found = told(tmp_path, measures=measures, failed_episodes=[])
    assert found.text("h1") == ["These labels can be trained on: they meet the one threshold"]
    assert "have no reward" not in found.words


def test_rewards_alone_are_enough(tmp_path: Path):
    run = RewardRun(tmp_path, cameras=(), num_episodes=8, failed_episodes=[])
    given = run.build()
    alone = {name: given[name] for name in ("dataset", "rewards")}
    found = page_of(execute("write_report", {}, alone, str(run.root)))
    assert found.text("h1") == ["Nobody measured whether these labels can be trained on"]
    assert "No quality measures were given to this report." in found.words
    assert found.faults == []


def test_labels_that_were_refused_can_be_told_of_unmerged(run: RewardRun):
    given = run.build()
    found = page_of(execute("write_report", {}, {**given, "rewards": given["automatic"]}, str(run.root)))
    assert found.text("h1") == ["These labels cannot be trained on: no frame has a reward"]
    assert "No frame has a reward: nobody said what it is to be made from." in found.words
    (bar,) = [a["aria-label"] for a in found.all("div") if a.get("class") == "bar" and "all frames" in a["aria-label"]]
    assert "people" not in bar


def test_inputs_of_another_labelling_are_refused(run: RewardRun, tmp_path: Path):
    other = RewardRun(tmp_path, cameras=(), failed_episodes=[]).build()
    given = run.build()
    for name in ("automatic", "quality"):
        with pytest.raises(DataError, match=f"merge_rewards was made from another {name}"):
            execute("write_report", {}, {**given, name: other[name]}, str(run.root))
    fewer = RewardRun(tmp_path / "fewer", num_episodes=8, cameras=()).build()
    with pytest.raises(DataError, match=r"frames are not the dataset's(.|\n)*rewards.parquet"):
        execute("write_report", {}, {"dataset": given["dataset"], "rewards": fewer["rewards"]}, str(run.root))


@pytest.mark.parametrize(
    ("which", "name", "document", "message"),
    [
        ("quality", "quality.json", {"measures": {"coverage": 1}}, "not the measures of labels"),
        ("reviews", "reviews.json", {"annotators": [{"name": "ada"}]}, "not what people did"),
        ("automatic", "errors.json", [{"class": "unparsable"}], "not what collect_rewards writes"),
        ("plan", "plan.json", {"prompt": ""}, "not what plan_labels writes"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, which: str, name: str, document: Any, message: str):
    run = RewardRun(tmp_path, num_episodes=6, cameras=())
    given = run.build()
    damage(given[which][0], name, document)
    with pytest.raises(DataError, match=message) as caught:
        execute("write_report", {}, given, str(run.root))
    assert f"{given[which][0]}/{name}" in str(caught.value)


def test_inputs_must_make_one_page(run: RewardRun, tmp_path: Path):
    given = run.build()
    with pytest.raises(UsageError, match=r"needs input values \(a ValueSet\), labels \(a LabelSet\); or rewards"):
        execute("write_report", {}, {"dataset": given["dataset"]}, str(tmp_path))
    with pytest.raises(UsageError, match="got automatic, quality without rewards"):
        execute("write_report", {}, {name: given[name] for name in ("dataset", "automatic", "quality")}, str(tmp_path))
    policies = small_run(tmp_path, num_episodes=8, num_rollouts=20).build()
    with pytest.raises(UsageError, match="got rewards and values; the page on reward labels takes only dataset"):
        execute("write_report", {}, {**given, "values": policies["values"]}, str(tmp_path))
