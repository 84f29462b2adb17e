"""Which pairs of clips are shown: each once but for repeats, sides at random, and nothing told."""

from __future__ import annotations

import csv
import io
from collections import Counter

import clip_sets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolift import schema, storage
from robolift.annotators.review.pairs import ByClip, read_pairs
from robolift.clips.pairs import Pair, doubt, propose
from robolift.errors import UsageError
from robolift.stages.stage import execute


def _fresh(pairs: list[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.reason != "repeat"]


@settings(max_examples=40, deadline=None)
@given(num=st.integers(4, 40), share=st.sampled_from([0.0, 0.1, 0.5]), seed=st.integers(0, 5), data=st.data())
def test_no_two_clips_meet_twice_but_in_repeats(num: int, share: float, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, num * (num - 1) // 2))
    pairs = propose(["annotated", "random"] * num, count, repeat_fraction=share, seed=seed)
    fresh = _fresh(pairs)
    assert len(pairs) == count
    assert len(pairs) - len(fresh) == min(round(share * count), count // 2)
    assert all(pair.a != pair.b for pair in pairs)
    assert len({frozenset((pair.a, pair.b)) for pair in fresh}) == len(fresh)
    place = {(pair.a, pair.b): number for number, pair in enumerate(pairs) if pair.reason != "repeat"}
    for number, pair in enumerate(pairs):
        if pair.reason == "repeat":
            assert place[pair.b, pair.a] < number


def test_all_pairs_of_five_clips_are_the_ten_there_are() -> None:
    pairs = propose(["annotated"] * 5, 10, repeat_fraction=0, seed=3)
    assert {frozenset((pair.a, pair.b)) for pair in pairs} == {
        frozenset((a, b)) for a in range(5) for b in range(a + 1, 5)
    }


def test_sides_are_random() -> None:
    pairs = propose(["annotated"] * 100, 1000, repeat_fraction=0, seed=0)
    lower_first = sum(pair.a < pair.b for pair in pairs)
    assert 440 < lower_first < 560  # four standard deviations of a fair coin


def test_within_kind_pairs_are_of_one_kind() -> None:
    kinds = ["annotated"] * 6 + ["random"] * 5
    pairs = propose(kinds, 25, repeat_fraction=0, seed=0, within_kind=True)  # 15 + 10: all there are
    assert Counter(kinds[pair.a] for pair in pairs) == {"annotated": 15, "random": 10}
    assert all(kinds[pair.a] == kinds[pair.b] for pair in pairs)
    with pytest.raises(UsageError, match=r"11 clips make 25 within their kinds"):
        propose(kinds, 26, repeat_fraction=0, seed=0, within_kind=True)


def test_doubt_is_the_spread_of_the_members_probabilities() -> None:
    # Members say P(A > B) = sigmoid(2), sigmoid(-2): 0.881 and 0.119, whose standard deviation is 0.381.
    scores = np.array([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0]])
    found = doubt(scores, np.array([[0, 1], [1, 2]]))
    assert found == pytest.approx([0.38079707, 0.0], abs=1e-8)


def test_active_choice_asks_about_the_clips_that_members_disagree_about() -> None:
    rng = np.random.default_rng(0)
    scores = np.tile(np.linspace(-3, 3, 40), (5, 1))
    scores[:, :10] += rng.normal(0, 3, size=(5, 10))  # nobody knows the first ten
    active = propose(["random"] * 40, 20, repeat_fraction=0.1, seed=0, member_scores=scores)
    random = propose(["random"] * 40, 20, repeat_fraction=0.1, seed=0)
    share = [np.mean([min(pair.a, pair.b) < 10 for pair in pairs]) for pairs in (active, random)]
    assert share[0] == 1.0
    assert share[1] < 0.8
    assert {pair.reason for pair in active} == {"active", "repeat"}
    assert max(Counter(clip for pair in _fresh(active) for clip in (pair.a, pair.b)).values()) <= 4  # ceil(8 * 18 / 40)


def test_the_pages_file_tells_neither_kind_nor_reason(output_root: str) -> None:
    world = clip_sets.make_world(output_root, num_participants=2, clips=4)
    config = {"num_pairs": 20, "repeat_fraction": 0.2}
    made = execute("propose_pairs", config, {"clips": world.clips.uri}, output_root)
    assert made.counts == {"pairs": 20, "repeats": 4, "clips": 16}
    content = storage.read_bytes(made.file("pairs.csv")).decode()
    rows = list(csv.DictReader(io.StringIO(content)))
    assert set(rows[0]) == {
        *("pair_id", "episode_a", "start_a", "stop_a", "episode_b", "start_b", "stop_b", "clip_a_id", "clip_b_id")
    }
    assert not any(word in content for word in ("annotated", "random", "repeat", "active", "score"))
    naming = ByClip(sorted(world.clip_id), [45] * 16)
    shown = read_pairs(made.file("pairs.csv"), naming)  # the labelling page's own reader
    table = schema.read_parquet(made.file("pairs.parquet")).to_pylist()
    assert [pair.ids for pair in shown.values()] == [(row["clip_a_id"], row["clip_b_id"]) for row in table]
    first = shown[table[0]["pair_id"]]
    assert (first.a.start, first.a.stop) == (0, 45)
    assert sorted(world.clip_id)[first.a.number] == table[0]["clip_a_id"]


def test_active_needs_a_model(output_root: str) -> None:
    world = clip_sets.make_world(output_root, num_participants=2, clips=4)
    with pytest.raises(UsageError, match="needs the inputs model and features"):
        execute("propose_pairs", {"method": "active", "num_pairs": 5}, {"clips": world.clips.uri}, output_root)
    with pytest.raises(UsageError, match="16 clips make 120"):
        execute("propose_pairs", {"num_pairs": 500}, {"clips": world.clips.uri}, output_root)
