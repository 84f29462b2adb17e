"""Values read in one pass are, to the bit, those read from whole episodes held in memory."""

from __future__ import annotations

import gc
import types

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from dot_world import DotDataset
from test_predict_progress import model_for
from test_value_predict import values_of

from robolift.data.decoding import cut
from robolift.training import device
from robolift.value_model.heads import ProgressHead
from robolift.value_model.network import ValueNetwork
from robolift.value_model.streaming import ValueReader, over_lookahead

LOOKAHEAD = 8
LENGTHS = (1, 7, 8, 9, 10, 30, 2, 1, 17)


@pytest.fixture(autouse=True)
def one_thread():
    with device.threads(1):
        yield


def read_whole(judge, starts, pairs, batch_size):
    """Return what ``judge`` says of (N, P) rows, each episode by itself: its rows at their places, nothing beside."""
    found = np.empty(len(pairs), np.float32)
    for first, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        for batch in cut(first, end, batch_size):
            placed = np.full((batch_size, pairs.shape[1]), -1)
            placed[batch.places] = pairs[batch.rows]
            found[batch.rows] = judge(placed)[batch.places]
    return found


def judge_of(model, features, states, tasks):
    """Return a function of (B, P) rows, -1 for a place that is empty."""
    columns = [torch.cat([column, torch.zeros_like(column[:1])]) for column in (features, states, tasks)]

    def judge(rows):
        feature, state, task = (column[index] for column, index in zip(columns, (rows, rows, rows[:, -1]), strict=True))
        with torch.inference_mode():
            return model.head.read(model.value_logits(feature, state, task))[0].numpy()

    return judge


@pytest.mark.parametrize("batch_size", [1, 5, 8, 64, 200])
@pytest.mark.parametrize(("head", "num_shards"), [("relative", 1), ("relative", 4), ("single", 3)])
def test_one_pass_gives_the_bits_of_whole_episodes(tmp_path, batch_size, head, num_shards):
    dataset = DotDataset(LENGTHS, cameras=("front",))
    model, checkpoint = model_for(dataset, head)
    found = values_of(
        dataset, model, checkpoint, tmp_path, batch_size=batch_size, lookahead=LOOKAHEAD, num_shards=num_shards
    )
    parts = [pq.read_table(part) for part in sorted(tmp_path.rglob("features.parquet"))]
    features = torch.from_numpy(np.array([row for part in parts for row in part.column("features").to_pylist()], "f4"))
    states = torch.from_numpy(checkpoint.state_norm(dataset.columns["observation.state"]))
    judge = judge_of(model, features, states, torch.from_numpy(np.repeat(np.arange(len(LENGTHS)) % 2, LENGTHS)))
    rows, first, end = (
        np.arange(len(features)),
        *(np.repeat(side, LENGTHS) for side in (dataset.starts[:-1], dataset.starts[1:])),
    )
    if head == "single":
        assert found["value"].tolist() == read_whole(judge, dataset.starts, rows[:, None], batch_size).tolist()
        return
    value = read_whole(judge, dataset.starts, np.stack([first, rows], axis=1), batch_size)
    assert found["value"].tolist() == np.where(rows == first, 0, value).tolist()
    later = np.minimum(rows + LOOKAHEAD, end - 1)
    made = read_whole(judge, dataset.starts, np.stack([rows, later], axis=1), batch_size)
    assert found["relative_advantage"].tolist() == over_lookahead(made, later - rows, LOOKAHEAD).tolist()


class Difference(ValueNetwork):
    """f(a, b) is the first feature at b less that at a; features are wide, as patches are."""

    compact = False

    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features
        self.head = ProgressHead(2, lambda logits: logits, uniform_error=1 / 6)
        self.register_buffer("tokens", torch.zeros(1, 1, dtype=torch.int64))

    def value_logits(self, features, state, task):
        return (features[:, 1, :1] - features[:, 0, :1]) * 1.0


@pytest.mark.parametrize(("batch_size", "lookahead"), [(4, 10), (16, 3), (8, 8)])
def test_memory_holds_a_window_however_long_an_episode_is(batch_size, lookahead):
    width, length = 5_000, 600
    starts = np.array([3, 3 + length, 3 + length + 5])
    reader = ValueReader(
        Difference(width),
        starts=starts,
        states=np.zeros((length + 5, 0), np.float32),
        tasks=np.zeros(length + 5, np.int64),
        batch_size=batch_size,
        lookahead=lookahead,
        precision="float32",
    )
    window = held_bytes(reader)
    for batch in cut(3, 3 + length + 5, batch_size):
        features = torch.zeros(batch_size, width)
        features[batch.places, 0] = torch.arange(batch.rows.start, batch.rows.stop).float() ** 2 / 1e6
        reader.add(batch, features)
        del features
        assert held_bytes(reader) <= window
    assert width * 4 < window <= (lookahead + 2 * batch_size) * width * 4 + 1e4
    frame, last = np.arange(length), length - 1
    later = np.minimum(frame + lookahead, last)
    made = ((3.0 + later) ** 2 - (3.0 + frame) ** 2) / 1e6
    assert np.abs(reader.relative[:length] - over_lookahead(made, later - frame, lookahead)).max() < 1e-6
    assert np.abs(reader.value[:length] - ((3.0 + frame) ** 2 - 9) / 1e6).max() < 1e-6
    assert reader.value[length] == 0


def held_bytes(reader):
    """Return what all tensors that a reader holds take, a storage counted once."""
    seen, waiting, storages = set(), [vars(reader)], {}
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (type, types.ModuleType, types.FunctionType)):
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            storages[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        else:
            waiting += gc.get_referents(one)
    return sum(storages.values())
