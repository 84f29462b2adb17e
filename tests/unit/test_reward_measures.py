"""What the page on reward labels measures itself, against numbers worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from robolift.labeling.label_quality import disagreement
from robolift.reports.rewards import RewardColumns, RewardFacts, judged_outcome
from robolift.reports.rewards_examples import pick
from robolift.reports.rewards_labeller import Failure, Labeller, shorten
from robolift.reports.rewards_measures import bands, coverage, end_scores, ends, reward_sums, unrewarded
from robolift.reports.rewards_people import compare, direction
from robolift.reports.rewards_quality import Measure
from robolift.reports.rewards_reviews import reading

SUCCESS, FAILURE, UNKNOWN = 0, 1, 2
VLM, HUMAN, HEURISTIC, NOBODY = 0, 1, 2, 3
NAN = float("nan")


def columns(num: int, **given: Any) -> RewardColumns:
    empty = np.full(num, NAN)
    floats = dict.fromkeys(("progress", "success_prob", "tri", "reward"), empty)
    arrays = {**floats, "anchor": np.zeros(num, bool), "source": np.full(num, NOBODY)}
    return RewardColumns(**{**arrays, **{name: np.asarray(values) for name, values in given.items()}})


def facts(lengths: list[int], outcome: list[int], **given: Any) -> RewardFacts:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tasks = given.pop("tasks", ["fold"] * len(lengths))
    dataset: Any = SimpleNamespace(episodes=pa.table({"task": tasks}), cameras=())
    parts = {"merged": columns(int(starts[-1])), "model": None, "people": None, **given}
    return RewardFacts(
        dataset=dataset,
        starts=starts,
        outcome=np.asarray(outcome),
        recorded=np.asarray(outcome),
        is_correcting=np.zeros(int(starts[-1]), bool),
        **parts,
    )


def test_direction_of_segments():
    # Of six frames: +0.2 over the first three (a tenth of a clock's pace is 0.05), -0.1 over the next two, and a last
    # frame after which nothing comes.
    progress = np.array([0.0, 0.1, 0.2, 0.2, 0.2, 0.1])
    tri = np.array([1.0, 1.0, 1.0, 0.0, 0.0, -1.0])
    found = direction(progress, tri, np.array([0, 6]))
    assert found.tolist()[:5] == [1, 1, 1, -1, -1]
    assert np.isnan(found[5])


def test_slow_progress_stands_still():
    # Ten frames marked alike: a clock gains 0.9 in them, so less than 0.09 is nothing.
    starts = np.array([0, 10])
    for gain, expected in ((0.08, 0.0), (0.10, 1.0), (-0.10, -1.0)):
        assert direction(np.linspace(0, gain, 10), np.ones(10), starts)[0] == expected


def test_contradictions_are_those_that_label_quality_counts():
    rng = np.random.default_rng(0)
    starts = np.array([0, 1, 8, 40, 41, 100])
    for _ in range(20):
        tri = rng.choice([-1.0, 0.0, 1.0, NAN], size=100).repeat(3)[:100]
        progress = np.where(rng.random(100) < 0.1, NAN, np.cumsum(rng.normal(0, 0.02, 100)))
        found = direction(progress, tri, starts)
        wrong, both = disagreement(progress, tri, starts)
        assert np.array_equal(np.isfinite(found), both)
        assert np.array_equal(both & (found != tri), wrong)


def test_segments_do_not_cross_episodes_and_unknown_stays_unknown():
    progress = np.array([0.9, 0.9, 0.1, 0.1, NAN, 0.5])
    found = direction(progress, np.array([1.0, 1.0, 1.0, 1.0, 1.0, NAN]), np.array([0, 2, 4, 6]))
    assert found.tolist()[:4] == [0, 0, 0, 0]
    assert np.isnan(found[4:]).all()


def test_model_against_people():
    model = columns(6, progress=[0.0, 0.5, 1.0, 0.0, 0.5, 1.0], success_prob=[0.2] * 3 + [0.7] * 3, source=[VLM] * 6)
    people = columns(6, tri=[1.0, 1.0, 1.0, -1.0, -1.0, -1.0], success_prob=[1.0] * 3 + [0.0] * 3, source=[HUMAN] * 6)
    found = compare(facts([3, 3], [SUCCESS, FAILURE], model=model, people=people))
    assert found is not None
    assert found.confusion.tolist() == [[0, 0, 3], [0, 0, 0], [0, 0, 3]]
    assert (found.frames, found.share, found.num_compared) == (6, 0.5, 2)
    assert [(one.episode, one.share) for one in found.episodes] == [(1, 1.0)]
    # People say success, the model says 0.2; people say failure, the model says 0.7.
    assert found.outcomes is not None
    assert found.outcomes.tolist() == [[0, 1], [1, 0]]


def test_nothing_to_compare():
    model = columns(2, progress=[0.0, 1.0], source=[VLM] * 2)
    people = columns(2, success_prob=[1.0, 1.0], source=[HUMAN] * 2)
    assert compare(facts([2], [SUCCESS], model=model)) is None
    found = compare(facts([2], [SUCCESS], model=model, people=people))
    assert found is not None
    assert (found.frames, found.share, found.episodes, found.outcomes) == (0, None, (), None)


def test_coverage_by_source_and_task():
    merged = columns(8, source=[VLM] * 4 + [HUMAN, HUMAN, HEURISTIC, NOBODY])
    overall, by_task = coverage(facts([4, 4], [SUCCESS] * 2, merged=merged, tasks=["sort", "fold"]))
    assert [(part.name, part.count, part.share) for part in overall.segments] == [
        ("the model", 4, 0.5), ("people", 2, 0.25), ("recorded outcome", 1, 0.125), ("nobody", 1, 0.125),
    ]  # fmt: skip
    assert [(bar.name, [part.name for part in bar.segments]) for bar in by_task] == [
        ("fold", ["people", "recorded outcome", "nobody"]),
        ("sort", ["the model"]),
    ]


def test_success_is_told_from_failure_by_last_frames():
    # Ends of successes 0.9, 0.4; of failures 0.4, 0.1; the fifth episode's outcome is unknown. Pairs: 0.9 beats both,
    # 0.4 ties with one and beats the other: (2 + 0.5 + 1) / 4.
    success = [0.0, 0.9, 0.0, 0.4, 0.0, 0.4, 0.0, 0.1, 0.0, 1.0]
    model = columns(10, success_prob=success, progress=[0.5] * 10, source=[VLM] * 10)
    found = ends(facts([2] * 5, [SUCCESS, SUCCESS, FAILURE, FAILURE, UNKNOWN], model=model))
    assert found is not None
    assert found.name == "success probability"
    assert found.auroc == pytest.approx(3.5 / 4)
    assert {name: scores.tolist() for name, scores in found.scores.items()} == {
        "success": [0.9, 0.4],
        "failure": [0.4, 0.1],
    }
    assert found.curve is not None
    assert found.curve.cut == 0.9
    assert found.curve.confusion == [[1, 1], [0, 2]]


def test_progress_stands_in_for_success_where_there_is_none():
    assert end_scores(columns(2, progress=[0.1, 0.8]), np.array([0, 2]))[0] == "progress"
    assert ends(facts([2], [SUCCESS])) is None


def test_bands_stretch_episodes_to_one_time():
    # Two successes, of 3 and of 5 frames: half way through one is at 0.5, the other at 0.25; a partly known one is out.
    progress = [0.0, 0.5, 1.0, 0.0, 0.1, 0.25, 0.4, 0.5, NAN, 0.7]
    model = columns(10, progress=progress, source=[VLM] * 10)
    (band,) = bands(facts([3, 5, 2], [SUCCESS, SUCCESS, FAILURE], model=model))
    assert (band.outcome, band.n) == ("success", 2)
    assert band.median[25] == pytest.approx(0.375)
    assert band.low[25] == pytest.approx(0.25 + 0.1 * 0.25)
    assert band.median[-1] == pytest.approx(0.75)


def test_rewards_are_summed_over_whole_episodes():
    merged = columns(7, reward=[0.25, 0.5, 0.0, 0.5, NAN, -0.25, 0.0], source=[VLM] * 7)
    success, failure = reward_sums(facts([3, 2, 2], [SUCCESS, SUCCESS, FAILURE], merged=merged))
    assert (success.outcome, success.n, success.median) == ("success", 1, 0.75)
    assert (failure.outcome, failure.n, failure.median) == ("failure", 1, -0.25)


def test_where_no_reward_is():
    merged = columns(7, reward=[0.25, 0.5, 0.0, 0.5, NAN, NAN, NAN], source=[VLM] * 7)
    found = unrewarded(facts([3, 2, 2], [SUCCESS] * 3, merged=merged))
    assert (found.frames, found.episodes) == (3, (1, 2))


def test_what_people_say_of_the_end():
    people = columns(6, success_prob=[NAN, 1.0, 1.0, 0.0, 1.0, NAN])
    assert judged_outcome(people, np.array([0, 2, 4, 6])).tolist() == [SUCCESS, FAILURE, UNKNOWN]


def labeller(*failures: Failure) -> Labeller:
    return Labeller(settings={"model": "s3://models/qwen/"}, prompt="", costs=(), failures=failures, calibration="none")


def test_examples_are_chosen_by_rule_and_once():
    said = [0.1, 0.6, 0.0, 0.9, 0.0, 0.7, 0.0, 0.2, NAN, NAN]
    model = columns(10, success_prob=said, progress=said, source=[VLM] * 8 + [NOBODY] * 2)
    people = columns(10, tri=[1.0, 1.0, *[NAN] * 2, -1.0, -1.0, *[NAN] * 4], source=[HUMAN] * 10)
    all_of_it = facts([2] * 5, [SUCCESS, SUCCESS, FAILURE, FAILURE, FAILURE], merged=model, model=model, people=people)
    failed = Failure(name="unparsable", episodes=(4,), message="no number", answers=("?",), num_answers=1)
    found = pick(all_of_it, compare(all_of_it), labeller(failed))
    assert [(one.kind, one.episode) for one in found] == [("success", 1), ("failure", 2), ("failed", 4)]
    assert found[1].why == "success probability 0.70 in its last frame"
    # Episode 2 is the only contradicted one and is shown already; without errors an empty episode is shown instead.
    assert pick(all_of_it, None, labeller())[-1].kind == "unlabelled"


def test_without_a_model_episodes_of_people_are_shown():
    # What carries only a recorded outcome is no episode that anybody labelled.
    merged = columns(6, success_prob=[1.0] * 6, source=[HEURISTIC] * 2 + [HUMAN] * 2 + [NOBODY] * 2)
    found = pick(facts([2, 2, 2], [SUCCESS, SUCCESS, FAILURE], merged=merged), None, None)
    assert [(one.title, one.episode) for one in found] == [
        ("A success that people labelled", 1),
        ("An episode that nobody labelled", 0),
    ]


def test_a_long_answer_is_cut_and_says_so():
    assert shorten("a" * 1503).endswith("a … (3 characters more)")
    assert shorten({"b": 1, "a": "ü"}) == '{"a": "ü", "b": 1}'
    assert labeller().name == "qwen"


def measured(name: str, value: float | None, clock: float | None, threshold: float | None, passed: Any) -> Measure:
    return Measure(name=name, value=value, clock=clock, threshold=threshold, passed=passed, about="")


@pytest.mark.parametrize(
    ("one", "against", "asked", "verdict"),
    [
        (measured("success_auroc", 0.9, 0.5, 0.8, True), "better", "at least 0.80", "passed"),
        (measured("success_auroc", 0.5, 0.5, 0.8, False), "no better", "at least 0.80", "failed"),
        (measured("disagreement", 0.2, 0.4, 0.3, True), "better", "at most 30\u202f%", "passed"),
        (measured("disagreement", 0.5, 0.4, 1.0, True), "no better", "–", "nothing asked"),
        (measured("value_order_correlation", 0.9, 1.0, None, None), "a clock is perfect", "–", "nothing asked"),
        (measured("constant_share", 0.1, 0.0, 0.5, True), "a clock is perfect", "at most 50\u202f%", "passed"),
        (measured("agreement_tri", None, None, -1.0, None), "–", "–", "not measured"),
        (measured("failure_gap", 0.0, 0.0, -1.0, True), "no better", "–", "nothing asked"),
        (measured("failure_gap", 0.1, 0.0, 0.0, True), "better", "at least 0.00", "passed"),
    ],
)
def test_a_measure_in_words(one: Measure, against: str, asked: str, verdict: str):
    assert (one.against_clock, one.asked, one.verdict) == (against, asked, verdict)


def test_a_near_miss_is_not_written_like_what_was_asked():
    share = measured("coverage", 0.8996, None, 0.9, False)
    assert (share.text(share.value), share.asked) == ("89.96\u202f%", "at least 90.00\u202f%")
    number = measured("success_auroc", 0.5004, 0.5, 0.8, False)
    assert (number.text(number.value), number.text(number.clock)) == ("0.5004", "0.5000")
    same = measured("coverage", 0.9, 0.9, 0.9, True)
    assert (same.text(same.value), same.asked) == ("90\u202f%", "at least 90\u202f%")


def test_agreement_is_read_as_krippendorff_reads_it():
    assert [reading(alpha) for alpha in (0.8, 0.667, 0.66)] == [
        "reliable", "good for tentative conclusions", "unreliable",
    ]  # fmt: skip
    assert reading(None).startswith("not measured")
