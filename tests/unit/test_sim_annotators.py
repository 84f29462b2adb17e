"""Simulated annotators: their noise is the one they are said to have, and they use people's door."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pytest

from robolift import storage
from robolift.errors import DataError
from robolift.sim.annotators import SimulatedAnnotator, answer_pairs, clip_utilities, write_preferences

PAIRS = [f"p{k:05d}" for k in range(4000)]


def share(annotator: SimulatedAnnotator, answer: str, a: float, b: float) -> float:
    return float(np.mean([annotator.compare(pair, a, b) == answer for pair in PAIRS]))


def test_without_ties_it_is_bradley_and_terry():
    one = SimulatedAnnotator(name="ann", beta=2.0)
    # sigmoid(2 x 0.5) = 0.7311; the standard error is 0.007.
    assert share(one, "A", 1.5, 1.0) == pytest.approx(0.7311, abs=0.025)
    assert share(one, "B", 1.5, 1.0) == pytest.approx(0.2689, abs=0.025)


def test_a_tie_band_gives_the_share_of_ties_it_stands_for():
    # |logistic| < 1 has the probability 2 sigmoid(1) - 1 = 0.4621.
    assert share(SimulatedAnnotator(name="ann", tie_band=1.0), "tie", 1.0, 1.0) == pytest.approx(0.4621, abs=0.025)


def test_a_lapse_ignores_the_clips():
    # 0.4 lapse: 0.6 x 1 + 0.4 x 0.5 = 0.8 right where the difference is clear.
    assert share(SimulatedAnnotator(name="ann", beta=50, lapse=0.4), "A", 3.0, 1.0) == pytest.approx(0.8, abs=0.025)


def test_an_answer_depends_on_seed_name_and_pair_alone():
    one, other = SimulatedAnnotator(name="ann"), SimulatedAnnotator(name="bob")
    forward = [one.compare(pair, 1.0, 1.1) for pair in PAIRS[:50]]
    backward = [one.compare(pair, 1.0, 1.1) for pair in reversed(PAIRS[:50])]
    assert forward == backward[::-1]
    assert forward != [other.compare(pair, 1.0, 1.1) for pair in PAIRS[:50]]
    assert forward != [SimulatedAnnotator(name="ann", seed=1).compare(pair, 1.0, 1.1) for pair in PAIRS[:50]]


def test_a_clip_is_worth_the_mean_of_the_moments_it_shows():
    truth = pa.table(
        {"video_id": ["v"] * 4 + ["w"], "time_s": [0.0, 1.0, 2.0, 3.0, 0.0], "utility": [1.0, 2.0, 4.0, 8.0, 9.0]}
    )
    clips = pa.table({"clip_id": ["v_1", "w_0"], "video_id": ["v", "w"], "start_s": [1.0, 0.0], "duration": [2.0, 2.0]})
    assert clip_utilities(truth, clips) == {"v_1": 3.0, "w_0": 9.0}
    with pytest.raises(DataError, match="clip x_0 is of video x"):
        clip_utilities(truth, pa.table({"clip_id": ["x_0"], "video_id": ["x"], "start_s": [0.0], "duration": [2.0]}))


def test_answers_are_events_of_the_page_written_once(tmp_path):
    pairs = pa.table({"pair_id": PAIRS[:450], "clip_a_id": ["good"] * 450, "clip_b_id": ["bad"] * 450})
    sharp = SimulatedAnnotator(name="ann", beta=100)
    labels = storage.normalize(str(tmp_path / "labels"))
    assert answer_pairs(pairs, {"good": 3.0, "bad": 1.0}, [sharp], labels_uri=labels) == 450
    files = storage.list_files(labels)
    assert len(files) == 5
    assert all(re.fullmatch(r"events/ann/[0-9a-f]{16}-00000[0-4]\.jsonl", name) for name, _ in files)
    lines = [line for name, _ in files for line in storage.read_bytes(storage.join(labels, name)).splitlines()]
    events = [json.loads(line) for line in lines]
    assert len({event["ulid"] for event in events}) == 900
    assert all(re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", event["ulid"]) for event in events)
    assert [event["seq"] for event in events] == list(range(1, 901))
    assert [event["item"] for event in events[14:16]] == ["pair:p00007"] * 2
    assert [(event["op"], event["value"]) for event in events] == [("prefer", "A"), ("complete", None)] * 450
    assert {(event["annotator"], event["lease"]) for event in events} == {("ann", 1)}


def test_ties_are_written_too(tmp_path):
    labels = str(tmp_path)
    write_preferences(labels, "ann", [("p1", "tie"), ("p2", "B")])
    [(name, _)] = storage.list_files(labels)
    values = [json.loads(line)["value"] for line in storage.read_bytes(storage.join(labels, name)).splitlines()]
    assert values == ["tie", None, "B", None]
