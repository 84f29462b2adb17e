"""Values of heads that learn progress: since the first frame, or of the frame itself, and what is seen to come."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from dot_world import DotDataset
from test_value_predict import values_of

from robolift.training import device
from robolift.value_model import train
from robolift.value_model.recipe import Recipe
from robolift.value_model.streaming import over_lookahead

LENGTHS = (7, 1, 5, 12, 2, 6, 10, 11)


@pytest.fixture(autouse=True)
def one_thread():
    with device.threads(1):
        yield


def model_for(dataset, head, **changes):
    recipe = Recipe(image_size=[24, 24], val_fraction=0, head=head, **changes)
    checkpoint = train.describe(recipe, dataset, train.prepare(recipe, dataset, None))
    return train.initial_model(checkpoint, seed=5).eval(), checkpoint


def unlabelled(**changes):
    """A dataset nobody annotated."""
    dataset = DotDataset(LENGTHS, **changes)
    del dataset.columns["stage_progress_gt"], dataset.features["stage_progress_gt"]
    return dataset


def judge(model, checkpoint, dataset, frames):
    """Return what the model says of (B, P) rows of the dataset, each frame encoded by itself."""
    with torch.inference_mode():
        features = torch.zeros(dataset.num_frames, 0)
        if checkpoint.cameras:
            features = model.encode(torch.from_numpy(dataset.all_frames(checkpoint.cameras, (24, 24))))
        state = torch.from_numpy(checkpoint.state_norm(dataset.columns["observation.state"]))
        task = torch.from_numpy(np.repeat(np.arange(len(LENGTHS)) % 2, LENGTHS)[frames[:, -1]])
        return model.head.read(model.value_logits(features[frames], state[frames], task))[0].numpy()


def test_the_vector_of_kai0():
    value = np.array([0, 0.1, 0.3, 0.6])
    frame = np.arange(4)
    later = np.minimum(frame + 2, 3)
    found = over_lookahead(value[later] - value[frame], later - frame, 2)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([0.3, 0.5, 0.6, 0])


def test_what_is_made_in_a_short_gap_is_scaled_and_then_clipped():
    made, gap = np.array([0.9, -0.5, -0.5, 0.4]), np.array([50, 25, 1, 0])
    assert over_lookahead(made, gap, 50).tolist() == pytest.approx([0.9, -1, -1, 0])


@pytest.mark.parametrize("cameras", [["front", "side"], []])
def test_two_frames_give_the_progress_since_the_first_and_what_is_to_come(tmp_path, cameras):
    dataset = unlabelled()
    model, checkpoint = model_for(DotDataset(LENGTHS), "relative", cameras=cameras)
    found = values_of(dataset, model, checkpoint, tmp_path, batch_size=8, lookahead=4)
    first = np.repeat(dataset.starts[:-1], LENGTHS)
    rows = np.arange(dataset.num_frames)
    last = np.repeat(dataset.starts[1:] - 1, LENGTHS)
    expected = judge(model, checkpoint, dataset, np.stack([first, rows], axis=1))
    assert np.abs(np.where(rows == first, 0, expected) - found["value"]).max() < 1e-6
    assert (found["value"][dataset.starts[:-1]] == 0).all()
    assert np.abs(expected[dataset.starts[:-1]]).min() > 0  # the model itself would not say 0
    assert not found["value_std"].any()
    later = np.minimum(rows + 4, last)
    made = judge(model, checkpoint, dataset, np.stack([rows, later], axis=1))
    expected = np.where(rows == last, 0, np.clip(made * 4 / np.maximum(later - rows, 1), -1, 1))
    assert np.abs(expected - found["relative_advantage"].astype(float)).max() < 1e-5


def test_one_frame_gives_its_own_progress_its_first_too(tmp_path):
    dataset = unlabelled()
    model, checkpoint = model_for(DotDataset(LENGTHS), "single")
    found = values_of(dataset, model, checkpoint, tmp_path)
    expected = judge(model, checkpoint, dataset, np.arange(dataset.num_frames)[:, None])
    assert np.abs(found["value"] - expected).max() < 1e-6
    assert (found["value"][dataset.starts[:-1]] > 0).all()
    assert not found["value_std"].any()
    assert found["relative_advantage"].tolist() == [None] * dataset.num_frames


def test_an_episode_of_one_frame_has_made_nothing(tmp_path):
    dataset = unlabelled()
    found = values_of(dataset, *model_for(DotDataset(LENGTHS), "relative"), tmp_path, lookahead=50)
    row = int(dataset.starts[1])
    assert (found["value"][row], found["relative_advantage"][row]) == (0, 0)


def test_an_episode_shorter_than_the_lookahead_is_compared_with_its_last_frame(tmp_path):
    dataset = unlabelled(cameras=())
    model, checkpoint = model_for(DotDataset(LENGTHS, cameras=()), "relative")
    found = values_of(dataset, model, checkpoint, tmp_path, lookahead=50)
    rows = np.arange(dataset.starts[2], dataset.starts[3])  # five frames
    made = judge(model, checkpoint, dataset, np.stack([rows, np.full(5, rows[-1])], axis=1))
    expected = [*np.clip(made[:4] * 50 / np.array([4, 3, 2, 1]), -1, 1), 0]
    assert found["relative_advantage"][rows].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("head", ["relative", "single"])
@pytest.mark.parametrize("num_shards", [3, 5, 11])
def test_nothing_depends_on_the_shards(tmp_path, num_shards, head):
    dataset = unlabelled()
    model, checkpoint = model_for(DotDataset(LENGTHS), head)
    whole = values_of(dataset, model, checkpoint, tmp_path)
    parts = values_of(dataset, model, checkpoint, tmp_path, num_shards=num_shards)
    for name, column in whole.items():
        assert column.tolist() == parts[name].tolist(), name
    pieces = [tmp_path / f"{s}-of-{num_shards}" / "features.parquet" for s in range(num_shards)]
    rows = [row for piece in pieces if piece.exists() for row in pq.read_table(piece).column("features").to_pylist()]
    assert rows == pq.read_table(tmp_path / "0-of-1" / "features.parquet").column("features").to_pylist()


@pytest.mark.parametrize("batch_size", [1, 16, 100])
def test_each_frame_is_decoded_once_and_encoded_once_though_read_in_pairs(tmp_path, batch_size):
    decoded, encoded = [], []

    class Counting(DotDataset):
        def video(self, episode, camera, **options):
            for image in super().video(episode, camera, **options):
                decoded.append((episode, camera))
                yield image

    dataset = Counting(LENGTHS)
    model, checkpoint = model_for(dataset, "relative")
    model.encoder[0].register_forward_hook(lambda _, args, __: encoded.append(len(args[0])))
    values_of(dataset, model, checkpoint, tmp_path, batch_size=batch_size)
    assert len(decoded) == 2 * dataset.num_frames
    assert encoded == [batch_size] * -(-dataset.num_frames // batch_size)


def test_a_broken_video_is_reported_and_not_cut_short(tmp_path):
    class Short(DotDataset):
        def video(self, episode, camera, **options):
            images = list(super().video(episode, camera, **options))
            yield from images[:-1] if (episode, camera) == (2, "side") else images

    dataset = Short(LENGTHS)
    with pytest.raises(ValueError, match="shorter"):
        values_of(dataset, *model_for(dataset, "relative"), tmp_path)
