from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from review_events import event

from robolift.annotators.review.fold import EMPTY, UNKNOWABLE, State
from robolift.annotators.review.job import Gold
from robolift.annotators.review.progress import agreement, gold_accuracy, gold_score, seconds


def state(tri=(), **given) -> State:
    given.setdefault("complete", True)
    return State(tri=np.array(tri, np.int8), frames=np.full(len(tri), EMPTY, np.int8), **given)


@pytest.mark.parametrize(
    ("gold", "score"),
    [
        (Gold(outcome="success"), 1.0),
        (Gold(outcome="failure"), 0.0),
        (Gold(tri=((0, 4, 1),)), 0.75),
        (Gold(tri=((0, 2, 1), (18, 20, -1))), 0.5),
        (Gold(stages=(11,)), 1.0),  # one frame off, which is 5 % of twenty
        (Gold(stages=(12,)), 0.0),
        (Gold(stages=(10, 15)), 0.0),
        (Gold(stages=()), 0.0),
        (Gold(outcome="failure", tri=((0, 3, 1),), stages=(10,)), 2 / 3),
        (Gold(prefer="A"), 0.0),
        (Gold(), 1.0),
    ],
)
def test_how_right_one_person_is(gold, score):
    said = state([1, 1, 1, 0] + [0] * 16, outcome=("success", 19), boundaries=(10,))
    assert gold_score(said, gold) == pytest.approx(score)


def test_accuracy_is_a_mean_over_completed_gold_items():
    gold = {"episode:0": Gold(outcome="success"), "episode:1": Gold(outcome="success")}
    right, wrong = state(outcome=("success", 0)), state(outcome=("failure", 0))
    states = {
        ("alice", "episode:0"): right,
        ("alice", "episode:1"): wrong,
        ("bob", "episode:0"): right,
        ("bob", "episode:1"): state(outcome=("failure", 0), complete=False),
        ("carol", "episode:2"): wrong,
    }
    assert gold_accuracy(states, gold) == {"alice": 0.5, "bob": 1.0}
    assert gold_accuracy(states, gold, at_least=2) == {"alice": 0.5}


def test_agreement_counts_only_items_that_several_completed():
    states = {
        ("alice", "episode:0"): state([1, 1, 0, UNKNOWABLE], outcome=("success", 0)),
        ("bob", "episode:0"): state([1, 1, 0, -1], outcome=("success", 0)),
        ("alice", "episode:1"): state([0, 0], outcome=("failure", 0)),
        ("carol", "episode:1"): state([0, 0], outcome=("failure", 0)),
        ("carol", "episode:2"): state([-1], outcome=("success", 0)),
        ("bob", "episode:2"): state([1], outcome=("failure", 0), complete=False),
        ("alice", "pair:x"): state(preference="A"),
    }
    assert agreement(states) == {"tri": 1.0, "outcome": 1.0, "preference": None}
    states["bob", "episode:0"] = state([1, 1, 0, -1], outcome=("failure", 0))
    # Outcomes (s, f) and (f, f): o_ff = 2, o_sf = 2, margins 3 and 1: alpha = 1 - 2 / 2 = 0.
    assert agreement(states)["outcome"] == pytest.approx(0)


def test_agreement_needs_no_table_of_all_people_and_frames():
    """A hundred people, two of them on each of 200 episodes of 1000 frames: 160 MB as one table."""
    states = {}
    for number in range(200):
        for person in (number % 100, (number + 1) % 100):
            states[f"person{person}", f"episode:{number}"] = state([1, -1] * 500, outcome=("success", 0))
    tracemalloc.start()
    assert agreement(states)["tri"] == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_seconds_run_from_the_first_event_to_the_first_completion():
    made = [event("paint", 1, 0, 1, at_ms=5000), event("complete", at_ms=9500), event("reopen", at_ms=20_000)]
    assert seconds([*made, event("complete", at_ms=30_000)]) == 4.5
    assert seconds(made[:1]) is None
