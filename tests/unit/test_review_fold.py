from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from review_events import event, store, ulid

from robolift.annotators.review.events import UNKNOWN, by_annotator_and_item, list_objects, read_object
from robolift.annotators.review.fold import EMPTY, UNKNOWABLE, alive, fold, fold_item

LENGTHS = [10, 4]


def state_of(*events):
    return fold(events, LENGTHS)["alice", "episode:0"]


def test_the_last_of_overlapping_paints_wins_and_null_erases():
    state = state_of(
        event("paint", 1, 0, 6),
        event("paint", -1, 4, 8),
        event("paint", UNKNOWN, 7, 10),
        event("paint", None, 1, 3),
    )
    assert state.tri.tolist() == [1, EMPTY, EMPTY, 1, -1, -1, -1, UNKNOWABLE, UNKNOWABLE, UNKNOWABLE]
    assert state.to_json()["tri"] == [[0, 1, 1], [3, 4, 1], [4, 7, -1], [7, 10, UNKNOWN]]


def test_frame_rewards_outcome_and_boundaries():
    state = state_of(
        event("frame_reward", 0, 0, 10),
        event("frame_reward", 1, 8, 10),
        event("frame_reward", None, 0, 1),
        event("outcome", "failure", 3),
        event("outcome", "success", 9),
        event("boundary", True, 7),
        event("boundary", True, 4),
        event("boundary", True, 5),
        event("boundary", False, 5),
    )
    assert state.to_json() == {
        "tri": [],
        "frames": [[1, 8, 0], [8, 10, 1]],
        "outcome": {"value": "success", "frame": 9},
        "boundaries": [4, 7],
        "preference": None,
        "complete": False,
        "skipped": None,
    }
    assert state_of(event("outcome", "success", 9), event("outcome", None, 0)).outcome is None


def test_undo_redo_and_undo_of_an_undo():
    first, second = event("paint", 1, 0, 10), event("paint", -1, 0, 10)
    undo = event("undo", second.ulid)
    redo = event("redo", second.ulid)
    undo_redo = event("undo", redo.ulid)
    undo_undo = event("undo", undo.ulid)
    assert state_of(first, second).tri[0] == -1
    assert state_of(first, second, undo).tri[0] == 1
    assert state_of(first, second, undo, redo).tri[0] == -1
    assert state_of(first, second, undo, redo, undo_redo).tri[0] == 1
    assert state_of(first, second, undo, undo_undo).tri[0] == -1
    assert state_of(first, second, undo, event("undo", first.ulid)).tri[0] == EMPTY


def test_an_undo_speaks_of_what_came_before_it():
    paint = event("paint", 1, 0, 10, seq=1000)
    assert state_of(event("undo", paint.ulid, seq=999), paint).tri[0] == 1


def test_complete_reopen_and_skip():
    done = event("complete")
    assert state_of(done).complete
    assert not state_of(done, event("reopen")).complete
    assert state_of(done, event("reopen"), event("complete")).complete
    assert not state_of(done, event("undo", done.ulid)).complete
    skipped = state_of(done, event("skip", "camera is black"))
    assert (skipped.complete, skipped.skipped) == (False, "camera is black")
    assert state_of(event("skip", "dark"), event("complete")).skipped is None


def test_a_later_lease_comes_after_an_earlier_one_whatever_the_page_counted():
    early = event("paint", 1, 0, 10, lease=1, seq=50)
    late = event("paint", -1, 0, 10, lease=2, seq=1)
    assert state_of(late, early).tri[0] == -1


def test_of_two_copies_of_one_event_the_first_by_order_counts():
    # Its acknowledgement was lost, and it was sent again under the next lease.
    paint = event("paint", 1, 0, 10, lease=1, seq=1)
    between = event("paint", -1, 0, 10, lease=1, seq=2)
    again = event("paint", 1, 0, 10, lease=2, seq=1, ulid=paint.ulid, at_ms=99)
    assert state_of(again, between, paint).tri[0] == -1
    assert state_of(paint, between, again).tri[0] == -1


def test_people_and_items_are_kept_apart():
    states = fold(
        [event("paint", 1, 0, 4, item="episode:1"), event("paint", -1, 0, 10, annotator="bob"), event("complete")],
        LENGTHS,
    )
    assert sorted(states) == [("alice", "episode:0"), ("alice", "episode:1"), ("bob", "episode:0")]
    assert states["alice", "episode:1"].tri.tolist() == [1, 1, 1, 1]
    pair = fold([event("prefer", "tie", item="pair:p1")], LENGTHS)["alice", "pair:p1"]
    assert (pair.preference, len(pair.tri)) == ("tie", 0)


@st.composite
def actions(draw):
    """What one of two people did on one of two items, undo and redo of anything included; without its ulid."""
    item = draw(st.sampled_from(["episode:0", "episode:1"]))
    start = draw(st.integers(0, LENGTHS[int(item[-1])] - 1))
    frames = (start, draw(st.integers(start + 1, LENGTHS[int(item[-1])])))
    target = ulid(draw(st.integers(0, 14)))
    op, value, frames = draw(
        st.sampled_from(
            [
                *(("paint", value, frames) for value in (-1, 0, 1, UNKNOWN, None)),
                *(("frame_reward", value, frames) for value in (0, 1, None)),
                *(("outcome", value, (start, None)) for value in ("success", "failure", None)),
                *(("boundary", value, (start, None)) for value in (True, False)),
                *((op, target, (None, None)) for op in ("undo", "redo") for _ in range(3)),
                *((op, None, (None, None)) for op in ("complete", "reopen")),
            ]
        )
    )
    given = {
        "seq": draw(st.integers(1, 6)),
        "lease": draw(st.integers(1, 2)),
        "annotator": draw(st.sampled_from(["alice", "bob"])),
        "session": draw(st.sampled_from(["SESSION1", "SESSION2"])),
    }
    return event(op, value, *frames, item=item, **given)


def histories():
    numbered = st.lists(actions(), min_size=1, max_size=14)
    return numbered.map(lambda made: [replace(found, ulid=ulid(number)) for number, found in enumerate(made)])


def as_json(states):
    return {key: state.to_json() for key, state in states.items()}


@given(histories(), st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(events, rng: random.Random):
    shuffled = events + rng.sample(events, rng.randint(0, len(events)))
    rng.shuffle(shuffled)
    assert as_json(fold(shuffled, LENGTHS)) == as_json(fold(events, LENGTHS))


@settings(deadline=None, max_examples=25)  # each event is synced to the disk
@given(histories(), st.randoms(use_true_random=False))
def test_division_among_files_changes_nothing(tmp_path_factory, events, rng: random.Random):
    labels = str(tmp_path_factory.mktemp("labels"))
    rest = list(events)
    rng.shuffle(rest)
    while rest:
        count = rng.randint(1, len(rest))
        store(labels, *rest[:count])
        del rest[: max(1, count - 1)]  # one of them is stored again with the next
    read = [found for name in list_objects(labels) for found in read_object(f"{labels}/{name}", LENGTHS)]
    assert as_json(fold(read, LENGTHS)) == as_json(fold(events, LENGTHS))


@given(histories())
def test_what_is_undone_counts_as_absent(events):
    """Undoing an event gives what the others give, if none of them speaks of it."""
    events = [found for found in events if found.op not in ("undo", "redo")]
    for key, group in by_annotator_and_item(events).items():
        length = LENGTHS[int(key[1][-1])]
        for undone in group:
            undo = event("undo", undone.ulid, annotator=key[0], item=key[1], lease=9)
            without = fold_item([found for found in group if found is not undone], length)
            assert fold_item([*group, undo], length).to_json() == without.to_json()
            redo = event("redo", undone.ulid, annotator=key[0], item=key[1], lease=9)
            assert alive([*group, undo, redo]) == group


@pytest.mark.parametrize("count", [0, 1, 10])
def test_untouched_frames_are_empty(count):
    assert np.all(fold_item([], count).tri == EMPTY)
