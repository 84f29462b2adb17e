"""By what answers are found again, and which shard an episode belongs to."""

from __future__ import annotations

import numpy as np
import pytest
from labellers import labeller

from robolift.annotators.answers import answer_key
from robolift.annotators.protocol import Look, Scene
from robolift.annotators.shard import in_shard


def test_the_key_is_all_that_was_shown_and_told_and_nothing_else():
    look = Look(frames=(0, 2), judged=(2,))
    pixels = np.zeros((2, 3, 3), np.uint8)
    scene = Scene(task="t", cameras=("a",), pictures={(0, "a"): pixels, (2, "a"): pixels})
    other = pixels.copy()
    other[1, 2, 0] = 1

    def key(labeller_changes=None, looks=(look,), form=None, **changes):
        values = {"task": scene.task, "cameras": scene.cameras, "pictures": scene.pictures, **changes}
        return answer_key(
            labeller("rubric", **(labeller_changes or {})), Scene(**values), looks, form or {"request_version": 1}
        )

    same = key()
    assert len(same) == 64
    for unused in ({"seed": 5}, {"num_prefixes": 9}, {"image_side": 64}):
        assert key(unused) == same
    local = {"transport": "hf", "model_digest": "d", "dtype": "float32"}
    assert key({**local, "model": "/here"}) == key({**local, "model": "/there"})
    different = [
        key({"model": "other"}),
        key({"prompt_sha256": "1" * 64}),
        key({"protocol_version": "v2"}),
        key(local),
        key({**local, "dtype": "bfloat16"}),
        key({**local, "model_digest": "e"}),
        key(task="u"),
        key(pictures={(0, "a"): pixels, (2, "a"): other}),
        key(pictures={(0, "a"): pixels.reshape(3, 2, 3), (2, "a"): pixels.reshape(3, 2, 3)}),
        key(looks=(Look(frames=(2, 0), judged=(2,)),)),
        key(looks=(look, look)),
        key(form={"request_version": 2}),
        key(local, form={"device": "cpu", "batch_size": 4}),
        key(local, form={"device": "cuda", "batch_size": 4}),
        key(local, form={"device": "cpu", "batch_size": 1}),
    ]
    assert len({same, *different}) == 1 + len(different)


def test_shards_split_episodes_by_a_checksum():
    # crc32 of "0", "1", "2", "3" is f4dbdf21, 83dcefb7, 1ad5be0d, 6dd28e9b.
    assert [in_shard(i, 1, 2) for i in range(4)] == [True, True, True, True]
    assert [next(s for s in range(3) if in_shard(i, s, 3)) for i in range(4)] == [
        int(crc, 16) % 3 for crc in ("f4dbdf21", "83dcefb7", "1ad5be0d", "6dd28e9b")
    ]
    assert sum(in_shard(i, 0, 4) for i in range(10_000)) == pytest.approx(2500, rel=0.05)
