"""The page on a clip reward: complete, safe, honest about what is missing, and the same bytes each time."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_page import Page, damage, page_of, summary_of
from synthetic_clips import HOSTILE, ClipRun, correlation, ranking

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.reports.clip_licenses import Terms
from robolift.reports.clip_validation import fit_line
from robolift.stages.stage import execute

SECTIONS = ["usefulness", "ablations", "scores", "clips", "people", "data", "lineage"]


def write(run: ClipRun, leave_out: tuple[str, ...] = (), **config: Any) -> Manifest:
    given = {name: uris for name, uris in run.build().items() if name not in leave_out}
    return execute("write_report", config, given, str(run.root))


def told(root: Path, leave_out: tuple[str, ...] = (), **changes: Any) -> Page:
    return page_of(write(ClipRun(root, **{"num_clips": 6, **changes}), leave_out))


def cells(page: Page, heading: str) -> list[str]:
    """Return the cells of the row that starts with ``heading``."""
    row = next(row for row in page.html.split("<tr")[1:] if f'<th scope="row">{heading}' in row)
    return [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]


def described(page: Page, name: str) -> str:
    return re.search(f'<desc id="{name}-desc">(.*?)</desc>', page.html).group(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ClipRun:
    return ClipRun(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run: ClipRun) -> Manifest:
    return write(run)


@pytest.fixture(scope="module")
def page(report: Manifest) -> Page:
    return page_of(report)


def test_sections_are_there_and_reachable(page: Page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert [attributes["id"] for attributes in page.all("section")] == SECTIONS
    assert [name for name, number in Counter(ids).items() if number > 1] == []
    links = [attributes["href"] for attributes in page.all("a")]
    assert {f"#{name}" for name in SECTIONS} <= set(links)
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert page.faults == []


def test_it_is_self_contained_safe_and_can_be_read_aloud(page: Page):
    assert "http" not in page.html
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert HOSTILE not in page.html
    assert HOSTILE in page.words
    assert "bob &lt;b&gt;" in page.html
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        if attributes.get("role") == "img":
            assert attributes.get("aria-label") or set(attributes["aria-labelledby"].split()) <= ids, tag
    assert all(image["alt"] and image["src"].startswith("data:image/") for image in page.all("img"))
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    assert page.html.count("--positive:") == 2  # light and dark


def test_headline_says_whether_by_how_much_and_against_what(page: Page):
    title = "This reward foretells how useful clips are: ρ = 0.74 (0.62 to 0.83), against 0.31 of motion alone"
    assert page.text("h1") == [title]
    assert "at least 0.50 was asked" in page.words
    assert "composite 0.12, motion 0.31, random 0.02" in page.words
    assert "with AUC 0.81 (0.75 to 0.87); the true order is expected to reach about 0.96." in page.words


def test_figures_say_their_numbers(page: Page):
    assert described(page, "rho").startswith("this reward 0.74, 0.62 to 0.83; composite 0.12, 0.02 to 0.22;")
    assert described(page, "rho").endswith(" 0 at 0.00. asked at 0.50. shuffled at 0.27.")
    assert described(page, "pair-auc").endswith("chance at 0.50. true order at 0.96.")
    loss = "without hands 0.24, 0.11 to 0.36; without motion 0.04, \u22120.05 to 0.13. none at 0.00."
    assert described(page, "ablations") == loss
    assert described(page, "usefulness").startswith("60 subsets; rho 0.74, 0.62 to 0.83; the line rises.")
    assert described(page, "scores").startswith("Histogram of 24 scores from \u22121.80 to 1.80")
    # Five members, of weights 0.2 below to 0.2 above; the embedding's come after the fields and are not shown.
    weights = "blur 0.80, 0.61 to 0.99; hands 0.50, 0.31 to 0.69; motion mean \u22120.05, \u22120.24 to 0.14."
    assert described(page, "weights") == f"{weights} nothing at 0.00."


def test_clips_are_the_extremes_in_order_and_move(page: Page, report: Manifest, run: ClipRun):
    order = [run.clip_ids[row] for row in np.argsort(-run.scores)]
    assert summary_of(report)["best"] == order[:10]
    assert summary_of(report)["worst"] == order[::-1][:10]
    shown = [text for text in page.text("code") if text in run.clip_ids]
    assert shown[:20] == order[:10] + order[::-1][:10]
    pictures = page.all("img")
    assert [attributes["class"] for attributes in pictures] == ["still", "moving"] * 20
    best = run.clip_ids.index(order[0])
    assert pictures[0]["alt"] == f"open {HOSTILE} of video v{best % 3}, score 1.80"
    moving = Image.open(io.BytesIO(base64.b64decode(pictures[1]["src"].partition(",")[2])))
    assert (moving.format, moving.n_frames, moving.size, moving.info["loop"]) == ("WEBP", 10, (160, 160), 0)
    moving.load()
    assert moving.info["duration"] == 100  # ten pictures of one second
    colour = np.asarray(moving.convert("RGB"))[80, 20]
    assert np.abs(colour.astype(int) - (10 * best % 256, 80, 160)).max() < 30  # the first frame's square is at the left


def test_who_wants_no_motion_gets_none(page: Page):
    sheet = page.text("style")[0]
    still, moving = sheet.split("@media screen and (prefers-reduced-motion: no-preference)")
    assert ".films .moving { display: none; }" in still
    assert "#clips:has(#moves:checked) .moving { display: block; }" in moving
    assert [one for one in page.all("input") if one["id"] == "moves"]


def test_people_licences_and_limits(page: Page, report: Manifest):
    assert cells(page, "Agreement between people")[0] == "0.71"
    assert cells(page, "Same answer again") == ["75\u202f%", "accuracy that this allows: about 0.93"]
    assert cells(page, "ada") == ["18", "2", "75\u202f%", "yes"]
    assert cells(page, "epic") == ["CC-BY-NC-4.0", "8", "1", "no commercial use"]
    assert "8 clips of epic: CC-BY-NC-4.0" in page.text("li")
    limits = summary_of(report)["limits"]
    assert "The licence of 8 clips forbids commercial use, perhaps of what is trained on them too." in limits
    assert "The licence of 8 clips is not known." in limits
    assert "Whether a feature matters is open where the interval of its loss holds 0: without motion." in limits
    assert any("dealt out among the clips at random, reach up to 0.27." in limit for limit in limits)
    assert "18 of 20 proposed pairs are answered; nothing was learned of the others." in limits
    assert any("sees 2 numbers of the pictures' embedding" in limit for limit in limits)
    assert set(limits) <= set(page.text("li"))


@pytest.mark.parametrize(
    ("license", "kind"),
    [
        ("CC-BY-NC-4.0", "no commercial use"),
        ("CC BY-NC-SA 4.0", "no commercial use"),
        ("Non-Commercial Research", "no commercial use"),
        ("Ego4D License Agreement", "no commercial use"),
        ("CC0-1.0", "not restricted by name"),
        ("Vancouver", "not restricted by name"),
        ("unstated", "not known"),
        ("", "not known"),
    ],
)
def test_a_licence_is_read_by_its_name(license: str, kind: str):
    assert Terms(source="x", license=license, clips=1, videos=1).kind == kind


def test_the_line_is_that_of_least_squares():
    # y = 1 + 2 x with errors -1, 2, -1 (sum 0, at right angles to x): s² = 6 / 1, and at the mean the height is y's.
    line = fit_line(np.array([0.0, 1, 2]), np.array([0.0, 5, 4]), num=3)
    assert line.slope == pytest.approx(2)
    assert line.y == pytest.approx([1, 3, 5])
    half = 1.959964 * 6**0.5 * np.sqrt([1 / 3 + 1 / 2, 1 / 3, 1 / 3 + 1 / 2])
    assert line.high - line.y == pytest.approx(half, abs=1e-5)
    assert line.y - line.low == pytest.approx(half, abs=1e-5)
    assert fit_line(np.zeros(5), np.arange(5.0)) is None
    assert fit_line(np.arange(2.0), np.arange(2.0)) is None


def test_metrics_and_counts(report: Manifest):
    assert report.counts == {"clips": 24, "subsets": 60}
    assert report.metrics() == {
        "rho": 0.74,
        "passed": 1.0,
        "rho/random": 0.02,
        "rho/motion": 0.31,
        "rho/composite": 0.12,
        "pair_auc": 0.81,
        "expected_pair_auc": 0.96,
        "agreement": 0.71,
        "accuracy_ceiling": 0.93,
    }


def test_the_same_inputs_give_the_same_bytes(report: Manifest, tmp_path: Path):
    again = write(ClipRun(tmp_path))
    for name in ("report.html", "summary.json"):
        assert storage.read_bytes(again.file(name)) == storage.read_bytes(report.file(name)), name


def test_size(report: Manifest, run: ClipRun):
    assert len(storage.read_bytes(report.file("report.html"))) < 500_000
    with pytest.raises(DataError, match="expected: at most max_size_bytes = 100000"):
        write(run, max_size_bytes=100_000, num_pictures=24)


def test_a_reward_that_fails_is_called_so(tmp_path: Path):
    reasons = ("rho 0.310 is below 0.5", "20 subsets are fewer than 50")
    found = told(tmp_path, rho=correlation(0.31, 0.4, 20), passed=False, reasons=reasons)
    (title,) = found.text("h1")
    assert title.startswith("Do not use this reward: with ρ = 0.31 (\u22120.09 to 0.71) it is not shown")
    assert "Rho 0.310 is below 0.5. 20 subsets are fewer than 50." in found.words
    assert found.text("span").count("Failed") == 1


def test_a_reward_no_better_than_a_control_is_called_so(tmp_path: Path):
    found = told(tmp_path, controls={"composite_prototype": 0.8, "random": 0.0})
    says = "but composite prototype alone foretells usefulness as well: 0.80"
    assert found.text("h1")[0].endswith(says)


def test_scores_alone_are_enough(tmp_path: Path):
    left_out = ("validation", "model", "preferences", "features", "pairs")
    found = told(tmp_path, left_out)
    assert found.text("h1") == ["Nobody measured whether this reward foretells how useful clips are"]
    assert "No comparisons were given to this report." in found.words
    assert "nothing says what the scores are good for" in found.words
    assert found.faults == []


def test_a_network_has_no_weights_and_may_lack_held_out_pairs(tmp_path: Path):
    unmeasured = {**ranking(0.5, pairs=0), "pair_auc": None, "pair_auc_low": None, "pair_auc_high": None}
    found = told(tmp_path, kind="mlp", held_out=unmeasured)
    assert 'id="weights-title"' not in found.html
    assert 'id="pair-auc-title"' not in found.html
    assert "No decided pair lies within held-out videos" in found.words
    assert found.faults == []


def test_one_person_and_no_repeats_are_told(tmp_path: Path):
    found = told(tmp_path, annotators=("ada",), alpha=None, ceiling=None)
    assert "One person compared the clips: the reward is that person's taste." in found.words
    assert "No pair was answered by two people" in found.words
    assert "No pair was shown twice" in found.words
    assert "true order" not in described(found, "pair-auc")


@pytest.mark.parametrize("name", ["model", "features", "validation", "preferences", "pairs"])
def test_outputs_of_another_reward_are_refused(run: ClipRun, tmp_path: Path, name: str):
    other = ClipRun(tmp_path, num_clips=6, alpha=0.1, held_out=ranking(0.6), rho=correlation(0.6)).build()
    with pytest.raises(DataError, match=r"was made from another (model|features|scores|preferences|pairs|clips)"):
        execute("write_report", {}, {**run.build(), name: other[name]}, str(run.root))


def test_scores_of_other_clips_are_refused(run: ClipRun, tmp_path: Path):
    fewer = ClipRun(tmp_path, num_clips=6).build()
    given = {"clips": run.build()["clips"], "scores": fewer["scores"]}
    with pytest.raises(DataError, match="clips and scores differ in 18 clips"):
        execute("write_report", {}, given, str(run.root))


@pytest.mark.parametrize(
    ("which", "name", "document", "message"),
    [
        ("validation", "validation.json", {"rho": {"spearman": 1}}, "not the validation of a reward"),
        ("model", "model.json", {"kind": "linear"}, "not a reward model"),
        ("preferences", "agreement.json", {"annotators": []}, "not what people compared"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, which: str, name: str, document: Any, message: str):
    run = ClipRun(tmp_path, num_clips=6)
    given = run.build()
    damage(given[which][0], name, document)
    with pytest.raises(DataError, match=message) as caught:
        execute("write_report", {}, given, str(run.root))
    assert f"{given[which][0]}/{name}" in str(caught.value)


def test_inputs_must_make_one_page(run: ClipRun):
    given = run.build()
    with pytest.raises(UsageError, match="needs clips and scores"):
        execute("write_report", {}, {"clips": given["clips"]}, str(run.root))
    with pytest.raises(UsageError, match="needs clips and scores"):
        execute("write_report", {}, {"validation": given["validation"]}, str(run.root))
    with pytest.raises(UsageError, match=r"needs input dataset \(a .*or clips \(a ClipSet\) and scores"):
        execute("write_report", {}, {}, str(run.root))
