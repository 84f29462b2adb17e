from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolift.annotators.review.consensus import consensus, stage_of_frames, stage_progress
from robolift.annotators.review.fold import EMPTY, UNKNOWABLE, State

U, E = UNKNOWABLE, EMPTY


def state(tri=None, *, frames=None, length=None, **given) -> State:
    length = length or len(tri if tri is not None else frames)
    empty = [E] * length
    return State(
        tri=np.array(empty if tri is None else tri, np.int8),
        frames=np.array(empty if frames is None else frames, np.int8),
        complete=True,
        **given,
    )


def people(*states):
    return {f"person{number}": found for number, found in enumerate(states)}


def test_one_persons_word_is_the_consensus():
    found = consensus(people(state([1, 0, U, E], outcome=("success", 3))), ask=("segments", "outcome"))
    assert found.tri.tolist() == [1, 0, U, E]
    assert found.outcome == "success"
    np.testing.assert_array_equal(found.confidence, [1, 1, np.nan, np.nan])
    assert found.marked.tolist() == [True, True, True, True]
    assert found.disagreement is None


def test_the_median_of_two_is_the_one_nearer_to_nothing_happening():
    first = state([-1, -1, -1, 0, 1, 1, U, U])
    second = state([-1, 0, 1, 1, 1, U, U, E])
    assert consensus(people(first, second), ask=("segments",)).tri.tolist() == [-1, 0, U, 0, 1, 1, U, U]


def test_a_value_that_nobody_said_is_no_consensus():
    found = consensus(people(state([-1, -1, -1, 0]), state([1, 1, 1, 1])), ask=("segments",))
    assert found.tri.tolist() == [U, U, U, 0]
    # Of a value that is not there nobody can be sure.
    np.testing.assert_array_equal(found.confidence, [np.nan, np.nan, np.nan, 0.5])
    assert found.disagreement == pytest.approx(1 - (0 + 0 + 0 + 0.5) / 4)
    four = consensus(people(state([-1]), state([-1]), state([1]), state([1])), ask=("segments",))
    assert four.tri.tolist() == [U]
    assert consensus(people(state([-1]), state([0]), state([1])), ask=("segments",)).tri.tolist() == [0]


def test_the_median_of_three():
    found = consensus(people(state([1, 1, -1, U]), state([1, 0, 1, U]), state([-1, -1, 1, 1])), ask=("segments",))
    assert found.tri.tolist() == [1, 0, 1, 1]
    # Shares who agree: 2/3, 1/3, 2/3, and of the last frame one of three.
    assert found.confidence == pytest.approx([2 / 3, 1 / 3, 2 / 3, 1 / 3])
    assert found.disagreement == pytest.approx(1 - (2 + 1 + 2 + 1) / 12, abs=1e-6)


def test_frame_rewards_are_one_from_a_mean_of_one_half_on():
    found = consensus(people(state(frames=[0, 0, 1, E]), state(frames=[0, 1, 1, E])), ask=("frames",))
    assert found.frames.tolist() == [0, 1, 1, E]
    assert found.confidence[:3].tolist() == [1, 0.5, 1]
    assert np.isnan(found.confidence[3])


def test_the_outcome_is_what_most_say_and_unknown_when_even():
    success, failure = state(length=2, outcome=("success", 1)), state(length=2, outcome=("failure", 0))
    two = consensus(people(success, failure), ask=("outcome",))
    assert (two.outcome, two.disagreement) == (None, 1.0)
    assert two.confidence.tolist() == [0, 0]
    three = consensus(people(success, failure, success), ask=("outcome",))
    assert three.outcome == "success"
    assert three.confidence == pytest.approx([2 / 3, 2 / 3])
    assert three.marked.tolist() == [True, True]


def test_boundaries_are_medians_if_all_count_the_same_stages():
    def at(*boundaries):
        return state(length=10, boundaries=boundaries)

    assert consensus(people(at(3, 7), at(4, 8)), ask=("stages",)).boundaries == (3, 7)
    assert consensus(people(at(3, 7), at(4, 8), at(6, 7)), ask=("stages",)).boundaries == (4, 7)
    unlike = consensus(people(at(3), at(3, 7)), ask=("stages",))
    assert unlike.boundaries is None
    assert np.isnan(unlike.confidence).all()
    assert unlike.disagreement == 1
    found = consensus(people(at(4), at(6)), ask=("stages",))
    # The median is 5: one of two agrees with frame 4, the other with frame 5.
    assert found.confidence.tolist() == [1, 1, 1, 1, 0.5, 0.5, 1, 1, 1, 1]
    assert np.flatnonzero(found.marked).tolist() == [4, 6]


def test_confidence_is_about_the_frame_and_as_small_as_about_its_least_sure_value():
    one = state([1, 1], frames=[1, 1], outcome=("success", 1))
    two = state([1, 0], frames=[0, 1], outcome=("failure", 1))
    found = consensus(people(one, one, one, two), ask=("segments", "frames", "outcome"))
    assert found.confidence.tolist() == [0.75, 0.75]  # of the reward, of the segment
    assert consensus(people(one, one, one, two), ask=("segments", "outcome")).confidence.tolist() == [1, 0.75]
    # All that was said: segments 1 and 3/4, rewards 3/4 and 1, the outcome 3/4 twice.
    assert found.disagreement == pytest.approx(1 - 5 / 6, abs=1e-6)


def test_preferences():
    found = consensus(people(*(state(length=0, tri=[], preference=p) for p in ("A", "B", "A"))), ask=())
    assert found.preference == "A"
    assert found.disagreement == pytest.approx(1 / 3, abs=1e-6)
    assert consensus(people(*(state(tri=[], preference=p) for p in ("A", "B"))), ask=()).preference is None


def test_stage_progress_as_kai0_defines_it():
    # T = 10, S = 2, the second stage from frame 4: four frames of an eighth, six of a twelfth.
    progress = stage_progress([4], 10, 2, finished=True)
    assert progress == pytest.approx([0, 1 / 8, 2 / 8, 3 / 8, 6 / 12, 7 / 12, 8 / 12, 9 / 12, 10 / 12, 11 / 12])
    assert stage_of_frames([4], 10).tolist() == [0] * 4 + [1] * 6


def test_progress_in_a_stage_that_was_never_finished_is_not_known():
    progress = stage_progress([2], 4, 3, finished=False)
    assert progress[:2] == pytest.approx([0, 1 / 6])
    assert np.isnan(progress[2:]).all()


@given(
    st.lists(st.lists(st.sampled_from([-1, 0, 1, U, E]), min_size=3, max_size=3), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_it_does_not_matter_who_is_who(rows, rng):
    shuffled = list(rows)
    rng.shuffle(shuffled)
    one, two = (consensus(people(*map(state, found)), ask=("segments",)) for found in (rows, shuffled))
    assert one.tri.tolist() == two.tri.tolist()
    np.testing.assert_array_equal(one.confidence, two.confidence)
    said = [[row[frame] for row in rows if row[frame] in (-1, 0, 1)] for frame in range(3)]
    for frame, values in enumerate(said):
        if values:
            median = int(np.trunc(np.median(values)))
            assert one.tri[frame] == (median if median in values else U)
