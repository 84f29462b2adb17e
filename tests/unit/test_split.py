"""The one rule by which episodes are held out, and how they are found again in another dataset."""

from __future__ import annotations

import numpy as np
import pytest

from robolift.data.dataset import Source
from robolift.data.split import carried_over, split_episodes
from robolift.errors import UsageError


def source(digest: str, first: int, num: int) -> Source:
    return Source(uri=f"memory://{digest}", version="v3.0", first_episode=first, num_episodes=num, digest=digest)


def test_texts_and_codes_give_the_same_episodes():
    text = np.array(["success", "failure", "failure", "success", "unknown", "success", "failure", "success"], object)
    code = np.array([{"success": 1, "failure": 0, "unknown": -1}[name] for name in text])
    for seed in range(10):
        by_text, by_code = split_episodes(text, 0.4, seed), split_episodes(code, 0.4, seed)
        assert [part.tolist() for part in by_text] == [part.tolist() for part in by_code]
        train, held_out = by_text
        assert len(held_out) == 3
        assert sorted([*train, *held_out]) == list(range(8))


def test_one_is_held_out_unless_none_is_asked_for_and_one_is_left():
    outcome = np.array(["success"] * 3, object)
    assert len(split_episodes(outcome, 0.01, 0)[1]) == 1
    assert split_episodes(outcome, 0.0, 0)[1].tolist() == []
    with pytest.raises(UsageError, match="leaves none to train on"):
        split_episodes(outcome, 0.99, 0)


def test_held_out_episodes_are_found_again_in_a_dataset_that_shares_sources():
    first = [source("a", 0, 3), source("b", 3, 4)]
    assert carried_over([1, 3, 6], first, first).tolist() == [1, 3, 6]
    grown = [*first, source("c", 7, 2)]
    assert carried_over([1, 3, 6], first, grown).tolist() == [1, 3, 6]
    assert carried_over([1, 3, 6], first, [source("c", 0, 2), source("b", 2, 4)]).tolist() == [2, 5]
    assert carried_over([1], first, [source("b", 0, 4)]).tolist() == []
    assert carried_over([1, 3, 6], first, [source("c", 0, 2)]) is None
