"""Measures of labelled datasets through the stage: beside a clock, beside people, and against thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from labelled import publish_dataset
from reward_shards import publish_rewards

from robolift import storage
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.stages.show import markdown, scalars
from robolift.stages.stage import execute

GOOD = [0.0, 0.25, 0.5, 1.0]
BAD = [0.0, 0.25, 0.25, 0.25]


def quality(root: str, dataset: Manifest, automatic: Manifest, reviews: Manifest, **config: Any) -> dict[str, Any]:
    return storage.read_json(measure(root, dataset, automatic, reviews, **config).file("quality.json"))


def measure(root: str, dataset: Manifest, automatic: Manifest, reviews: Manifest, **config: Any) -> Manifest:
    given = {"dataset": dataset.uri, "automatic": automatic.uri, "reviews": reviews.uri}
    return execute("label_quality", config, given, root)


def by_model(
    root: str, dataset: Manifest, progress: Sequence[Any], asked: Sequence[bool] | None = None, **columns: Any
) -> Manifest:
    said = [value is not None for value in progress]
    source = ["vlm" if one else "none" for one in said]
    return publish_rewards(root, dataset, progress=progress, anchor=asked or said, source=source, **columns)


def nobody(root: str, dataset: Manifest, agreement: Any = None, **columns: Any) -> Manifest:
    """Publish reviews; nothing but the given columns is known."""
    rows = dataset.table("frames").num_rows
    source = ["human" if any(c[row] is not None for c in columns.values()) else "none" for row in range(rows)]
    documents = {"reviews.json": {"agreement": agreement}} if agreement is not None else {}
    return publish_rewards(root, dataset, "import_reviews", documents, source=source, **columns)


@pytest.fixture
def dataset(output_root: str) -> Manifest:
    return publish_dataset(
        output_root,
        [4, 4, 4],
        outcome=["success", "failure", "success"],
        task=["fold", "fold", "stack"],
    )


def test_measures_by_hand_beside_a_clock(output_root: str, dataset: Manifest) -> None:
    automatic = by_model(output_root, dataset, GOOD + BAD + [None] * 4)
    found = quality(output_root, dataset, automatic, nobody(output_root, dataset))
    values = {name: (one["value"], one["clock"], one["passed"]) for name, one in found["measures"].items()}
    # BAD's ranks are 1, 3, 3, 3: covariance with 1..4 is 3 of a largest sqrt(3 * 5).
    order = (1 + 3 / np.sqrt(15)) / 2
    assert values == {
        "coverage": (pytest.approx(2 / 3), pytest.approx(2 / 3), None),
        "coverage_progress": (pytest.approx(2 / 3), pytest.approx(2 / 3), True),
        "coverage_vlm": (pytest.approx(2 / 3), pytest.approx(2 / 3), None),
        "coverage_human": (0.0, 0.0, None),
        "value_order_correlation": (pytest.approx(order), 1.0, None),
        "constant_share": (0.0, 0.0, True),
        "success_auroc": (1.0, 0.5, True),
        "failure_gap": (0.75, 0.0, True),
        "calibration_error": (None, None, None),
        "disagreement": (None, None, None),
        "progress_error": (None, None, None),
        "agreement_tri": (None, None, None),
        "agreement_outcome": (None, None, None),
        "agreement_preference": (None, None, None),
    }
    assert found["passed"] is True
    assert found["alarms"] == []
    assert found["measures"]["success_auroc"]["about"].endswith("; 1 successes and 1 failures")
    assert found["per_task"]["fold"]["success_auroc"] == {"value": 1.0, "clock": 0.5}
    assert found["per_task"]["fold"]["episodes"] == 2
    assert found["per_task"]["stack"]["coverage"]["value"] == 0.0
    assert found["per_task"]["stack"]["value_order_correlation"] == {"value": None, "clock": None}


def test_a_success_alone_covers_no_progress(output_root: str, dataset: Manifest) -> None:
    said = {"success_prob": [0.5] * 12, "source": ["vlm"] * 12}
    automatic = publish_rewards(output_root, dataset, progress=GOOD + [None] * 8, **said)
    reviews = nobody(output_root, dataset, progress=[None] * 8 + [0.5] * 2 + [None] * 2)
    found = quality(output_root, dataset, automatic, reviews, min_coverage=0.9)
    assert found["measures"]["coverage"]["value"] == 1.0
    one = found["measures"]["coverage_progress"]
    assert (one["value"], one["threshold"], one["passed"]) == (0.5, 0.9, False)
    assert found["measures"]["coverage"]["threshold"] is None
    # Verdicts on the ends were never to give progress of the frames before.
    verdict = [None, None, None, 0.5]
    automatic = publish_rewards(output_root, dataset, progress=verdict * 3, **said)
    found = quality(output_root, dataset, automatic, nobody(output_root, dataset), min_coverage=0.9)
    assert (found["measures"]["coverage"]["passed"], found["measures"]["coverage_progress"]["passed"]) == (True, None)
    assert found["measures"]["coverage_progress"]["value"] == 0.25


def test_a_clock_is_found_out(output_root: str, dataset: Manifest) -> None:
    automatic = by_model(output_root, dataset, [0.25, 0.5, 0.75, 1.0] * 3)
    found = quality(output_root, dataset, automatic, nobody(output_root, dataset), min_success_auroc=0.7)
    assert found["measures"]["value_order_correlation"]["value"] == 1.0
    assert found["measures"]["success_auroc"] == {
        "value": 0.5,
        "clock": 0.5,
        "threshold": 0.7,
        "passed": False,
        "about": "probability that progress at a success's end lies above that at a failure's; "
        "2 successes and 1 failures",
    }
    assert found["passed"] is False
    assert [alarm[:33] for alarm in found["alarms"]] == ["the labels look like a clock's: t"]


def test_one_outcome_alone_tells_nothing(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4, 4], outcome=["success", "unknown"])
    automatic = by_model(output_root, dataset, GOOD + BAD)
    found = quality(output_root, dataset, automatic, nobody(output_root, dataset), min_success_auroc=0.9)
    auroc = found["measures"]["success_auroc"]
    assert (auroc["value"], auroc["passed"]) == (None, None)
    assert auroc["about"] == "needs both outcomes, found 1 successes and 0 failures with labels"
    assert found["passed"] is True
    assert "nothing tells these labels from a clock's" in found["alarms"][0]


def test_people_say_how_an_episode_ended(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4, 4], outcome=["success", "unknown"])
    automatic = by_model(output_root, dataset, BAD + GOOD)
    # They say that the recorded success was none, and judge the other.
    reviews = nobody(output_root, dataset, success_prob=[0.0] * 4 + [1.0] * 4)
    found = quality(output_root, dataset, automatic, reviews)
    assert found["measures"]["success_auroc"]["value"] == 1.0
    assert found["measures"]["failure_gap"]["value"] == 0.75
    reviews = nobody(output_root, dataset, success_prob=[None] * 4 + [0.0] * 4)
    found = quality(output_root, dataset, automatic, reviews)
    assert found["measures"]["success_auroc"]["value"] == 0.0
    assert "point the wrong way" in found["alarms"][0]


def test_progress_that_never_changes_is_an_alarm(output_root: str, dataset: Manifest) -> None:
    automatic = by_model(output_root, dataset, [0.5] * 8 + GOOD)
    found = quality(output_root, dataset, automatic, nobody(output_root, dataset))
    constant = found["measures"]["constant_share"]
    assert (constant["value"], constant["threshold"], constant["passed"]) == (pytest.approx(2 / 3), 0.5, False)
    assert found["measures"]["value_order_correlation"]["value"] == pytest.approx(1 / 3)
    assert "progress never changes in 67% of the episodes: a reward made from it is 0 there" in found["alarms"]
    assert found["passed"] is False
    assert quality(output_root, dataset, automatic, nobody(output_root, dataset), max_constant=0.7)["passed"] is True


def test_a_beginning_that_the_model_was_told_hides_no_constant_answer(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4, 4], outcome=["success", "failure"])
    # It was told that frame 0 is 0, and said 0.5 of everything it was asked about.
    automatic = by_model(output_root, dataset, [0.0, 0.5, 0.5, 0.5] * 2, asked=[False, True, True, True] * 2)
    found = quality(output_root, dataset, automatic, nobody(output_root, dataset))
    assert found["measures"]["value_order_correlation"]["value"] == 0.0
    assert found["measures"]["constant_share"]["value"] == 1.0
    assert found["passed"] is False


def test_order_counts_the_moments_that_were_asked_about(output_root: str) -> None:
    dataset = publish_dataset(output_root, [5])
    # Between the three answers 0, 1, 0.5 lie made-up numbers.
    automatic = publish_rewards(
        output_root,
        dataset,
        progress=[0.0, 0.5, 1.0, 0.75, 0.5],
        anchor=[True, False, True, False, True],
        source=["vlm"] * 5,
    )
    found = quality(output_root, dataset, automatic, nobody(output_root, dataset))
    assert found["measures"]["value_order_correlation"]["value"] == 0.5


def test_disagreement_is_over_frames_that_both_know(output_root: str, dataset: Manifest) -> None:
    automatic = by_model(output_root, dataset, GOOD + BAD + [None] * 4)
    tri = [1, 1, 1, 1] + [None, 1, 1, 0] + [1] * 4
    reviews = nobody(output_root, dataset, tri=tri, progress=[0.0, 0.5, 0.75, 1.0] + [None] * 8)
    found = quality(output_root, dataset, automatic, reviews, max_disagreement=0.3)
    # Six frames, of which the second segment's two stall; its zero is the last frame.
    one = found["measures"]["disagreement"]
    assert (one["value"], one["clock"], one["passed"]) == (pytest.approx(2 / 6), 0.0, False)
    assert found["measures"]["progress_error"]["value"] == pytest.approx(0.5 / 4)
    assert found["measures"]["coverage_human"]["value"] == pytest.approx(11 / 12)
    assert found["measures"]["coverage"]["value"] == 1.0


def test_agreement_comes_from_the_reviews(output_root: str, dataset: Manifest) -> None:
    automatic = by_model(output_root, dataset, GOOD * 3)
    reviews = nobody(output_root, dataset, {"tri": 0.4, "outcome": None})
    found = quality(output_root, dataset, automatic, reviews, min_agreement=0.5)["measures"]
    assert (found["agreement_tri"]["value"], found["agreement_tri"]["passed"]) == (0.4, False)
    assert (found["agreement_outcome"]["value"], found["agreement_outcome"]["passed"]) == (None, None)
    assert found["agreement_preference"]["about"] == "nothing was labelled by two people"


def test_success_probabilities_are_what_the_end_is_judged_by(output_root: str, dataset: Manifest) -> None:
    prob = [0.5] * 3 + [0.9] + [0.5] * 3 + [0.9] + [0.5] * 3 + [0.2]
    automatic = by_model(output_root, dataset, GOOD + BAD + GOOD, success_prob=prob)
    found = quality(output_root, dataset, automatic, nobody(output_root, dataset))["measures"]
    # A failure of 0.9 between a success of 0.9 and one of 0.2.
    assert found["success_auroc"]["value"] == 0.25
    assert found["failure_gap"]["value"] == 0.75
    # The bin of 0.9 holds 1.8 and one success, that of 0.2 holds 0.2 and one: (0.8 + 0.8) / 3.
    assert found["calibration_error"]["value"] == pytest.approx(1.6 / 3)
    assert "flatters" not in found["calibration_error"]["about"]
    calibrated = by_model(
        output_root, dataset, GOOD + BAD + GOOD, success_prob=prob, config={"calibration": "isotonic"}
    )
    found = quality(output_root, dataset, calibrated, nobody(output_root, dataset))["measures"]
    assert "flatters" in found["calibration_error"]["about"]


def test_nobody_labelled_anything(output_root: str, dataset: Manifest) -> None:
    nothing = nobody(output_root, dataset)
    found = quality(output_root, dataset, nothing, nothing)
    assert found["passed"] is True
    assert found["measures"]["coverage"]["value"] == 0.0
    assert found["alarms"] == []
    assert quality(output_root, dataset, nothing, nothing, min_coverage=0.1)["passed"] is False


def test_the_page_says_what_passed(output_root: str, dataset: Manifest) -> None:
    made = measure(output_root, dataset, by_model(output_root, dataset, BAD * 3), nobody(output_root, dataset))
    page = markdown(made)
    assert "## Labels pass\n" in page
    assert "| success_auroc | 0.500 | 0.500 | 0.000 | passed |" in page
    assert "| stack | 1 | 1.000 |" in page
    assert page.index("## Labels pass") < page.index("## Measured")
    shown = scalars(made)
    assert shown["clock/value_order_correlation"] == 1.0
    assert shown["passed"] == 1
    assert "disagreement" not in shown
    strict = measure(
        output_root, dataset, by_model(output_root, dataset, BAD * 3), nobody(output_root, dataset), min_failure_gap=0.5
    )
    assert "## Labels do not pass\n" in markdown(strict)
    assert "| failure_gap | 0.000 | 0.000 | 0.500 | FAILED |" in markdown(strict)
    assert (strict.counts["passed"], strict.counts["failed_measures"]) == (0, 1)


def test_labels_of_another_dataset_are_refused(output_root: str, dataset: Manifest) -> None:
    other = publish_dataset(output_root, [4, 4, 4], outcome="success")
    with pytest.raises(DataError, match="the reviews were made from another dataset"):
        measure(output_root, dataset, by_model(output_root, dataset, GOOD * 3), nobody(output_root, other))
    short = publish_dataset(output_root, [4, 4])
    with pytest.raises(DataError, match="the automatic were made from another dataset"):
        measure(output_root, dataset, by_model(output_root, short, GOOD * 2), nobody(output_root, dataset))
