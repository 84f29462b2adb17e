"""The joined frames, the examples chosen from them, and how labels compare with the truth."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from robolift import schema
from robolift.errors import DataError
from robolift.reports import film, labels, training
from robolift.reports.frames import FrameFacts, codes

DEMO, AUTO, HUMAN = (schema.CONTROL_MODES.index(name) for name in ("demo", "autonomous", "correcting"))
SUCCESS, FAILURE = 0, 1


def facts(lengths: list[int], *, outcome: list[int], kind: list[str], human: tuple[int, ...] = ()) -> FrameFacts:
    """Frames of some episodes; those in ``human`` are corrected in their last frame."""
    num = sum(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    mode = np.repeat([DEMO if name == "demo" else AUTO for name in kind], lengths)
    mode[[starts[episode + 1] - 1 for episode in human]] = HUMAN
    return FrameFacts(
        starts=starts,
        episodes=pa.table({"kind": kind}),
        control_mode=mode,
        outcome=np.repeat(outcome, lengths),
        value_target=np.linspace(-1, 0, num),
        value=np.linspace(-1, 0, num),
        value_std=np.zeros(num),
        advantage=np.linspace(-1, 1, num),
        valid=np.ones(num, dtype=bool),
        label=np.ones(num, dtype=np.int64),
        slice_index=np.full(num, -1),
        reason=np.zeros(num, dtype=np.int64),
        is_good=None,
    )


def picked(frames: FrameFacts, held_out: list[int] | None = None) -> dict[str, int]:
    chosen = film.pick_examples(frames, None if held_out is None else np.array(held_out))
    return {example.kind: example.episode for example in chosen}


def test_examples_have_median_length():
    frames = facts([5, 9, 7, 7, 4], outcome=[0] * 5, kind=["rollout"] * 5)
    assert picked(frames) == {"success": 2}  # 4 5 7 7 9: the first of length 7


def test_examples_are_of_each_kind():
    frames = facts([3, 4, 5, 6], outcome=[SUCCESS, FAILURE, SUCCESS, FAILURE], kind=["rollout"] * 4, human=(2, 3))
    assert picked(frames) == {"success": 0, "failure": 1, "corrected": 2}


def test_unseen_rollouts_go_before_seen_ones_and_rollouts_before_demos():
    frames = facts([3, 3, 3], outcome=[SUCCESS] * 3, kind=["demo", "rollout", "rollout"])
    assert picked(frames) == {"success": 1}
    assert picked(frames, held_out=[2]) == {"success": 2}
    assert picked(frames, held_out=[0]) == {"success": 1}
    assert picked(facts([3], outcome=[SUCCESS], kind=["demo"])) == {"success": 0}


def test_pictures_come_from_the_middle_of_their_parts():
    video = [np.full((4, 6, 3), t, dtype=np.uint8) for t in range(8)]
    found = film.pictures(video, np.arange(8) >= 4, num_pictures=4)
    assert [(p.frame, p.is_human) for p in found] == [(1, False), (3, False), (5, True), (7, True)]
    image = Image.open(io.BytesIO(base64.b64decode(found[2].data_uri.removeprefix("data:image/jpeg;base64,"))))
    assert image.size == (6, 4)
    assert abs(int(np.asarray(image)[0, 0, 0]) - 5) <= 2


def test_a_short_video_gives_all_its_frames():
    video = [np.zeros((4, 4, 3), dtype=np.uint8)] * 3
    assert [p.frame for p in film.pictures(video, np.zeros(3, dtype=bool), num_pictures=10)] == [0, 1, 2]


def test_a_category_that_the_contract_does_not_know_is_refused():
    with pytest.raises(DataError, match="unknown values pilot"):
        codes(pa.chunked_array([["demo", "pilot"]]), schema.CONTROL_MODES)


def test_frames_of_episodes():
    frames = facts([2, 3, 1], outcome=[0, 1, 0], kind=["rollout"] * 3)
    assert frames.rows(1) == slice(2, 5)
    assert frames.mask(np.array([0, 2])).tolist() == [True, True, False, False, False, True]
    assert (frames.num_frames, frames.num_episodes) == (6, 3)


def test_truth_counts_autonomous_frames_alone():
    frames = facts([4, 2], outcome=[0, 0], kind=["rollout", "demo"])
    frames = replace(
        frames,
        advantage=np.array([0.1, 0.4, 0.3, 0.2, 9.0, 9.0]),
        label=np.array([1, 0, 0, 1, 0, 0]),
        is_good=np.array([0, 1, 0, 1, 0, 0]),
    )
    found = labels.measure_truth(frames)
    assert found is not None
    assert found.n == 4
    assert found.auc == pytest.approx(0.75)  # 0.4 and 0.2 against 0.1 and 0.3: three of four
    assert (found.base_share, found.positive_share, found.negative_share) == (0.5, 0.5, 0.5)


def test_no_truth_without_autonomous_frames_or_ground_truth():
    frames = facts([3], outcome=[0], kind=["demo"])
    assert labels.measure_truth(frames) is None
    assert labels.measure_truth(replace(frames, is_good=np.ones(3, np.int64))) is None
    policys = facts([3], outcome=[0], kind=["rollout"])
    assert labels.measure_truth(replace(policys, is_good=np.full(3, -1))) is None


def test_value_quality_looks_at_held_out_episodes_alone():
    frames = facts([2, 2, 2], outcome=[SUCCESS, FAILURE, SUCCESS], kind=["rollout"] * 3)
    frames = replace(
        frames,
        value_target=np.array([-0.5, 0.0, -1.0, -0.5, -0.5, 0.0]),
        value=np.array([-0.4, -0.1, -0.9, -0.6, 0.0, -1.0]),
    )
    held = training.value_quality(frames, np.array([0, 1]))
    assert held.held_out
    assert held.outcome_auc == 1.0
    assert held.mean_error == pytest.approx(0.1)
    everything = training.value_quality(frames, None)
    assert not everything.held_out
    assert everything.episodes.tolist() == [0, 1, 2]
    assert everything.mean_error == pytest.approx((0.4 + 0.5 + 1.0) / 6)
