from __future__ import annotations

import contextlib
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from dot_world import DotDataset

from robolift.data.decoding import Wanted
from robolift.errors import DataError, UsageError
from robolift.training import device
from robolift.value_model import predict, train
from robolift.value_model.recipe import Recipe


def model_for(dataset, **changes):
    recipe = Recipe(image_size=[24, 24], val_fraction=0, **changes)
    checkpoint = train.describe(recipe, dataset, train.prepare(recipe, dataset, dataset.targets))
    return train.initial_model(checkpoint, seed=5).eval(), checkpoint


def values_of(
    dataset, model, checkpoint, folder, *, num_shards=1, batch_size=16, lookahead=4, save_features=True, **options
):
    parts = []
    for shard in range(num_shards):
        place = folder / f"{shard}-of-{num_shards}"
        place.mkdir(parents=True)
        parts.append(
            predict.predict(
                model,
                checkpoint,
                dataset,
                episodes=predict.shard_episodes(dataset.starts, shard, num_shards),
                batch_size=batch_size,
                lookahead=lookahead,
                folder=place,
                save_features=save_features,
                **options,
            )
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.fixture(autouse=True)
def one_thread():
    with device.threads(1):
        yield


@pytest.mark.parametrize("num_shards", [1, 2, 3, 8, 11])
def test_shards_are_whole_contiguous_episodes_of_about_equal_size(num_shards):
    starts = DotDataset().starts
    shards = [predict.shard_episodes(starts, shard, num_shards) for shard in range(num_shards)]
    assert [e for shard in shards for e in shard] == list(range(8))
    sizes = [int(starts[s.stop] - starts[s.start]) for s in shards]
    assert max(sizes) <= starts[-1] / num_shards + 12


def test_one_long_episode_among_short_ones_is_never_cut():
    starts = np.array([0, 1, 101, 102])
    assert [list(predict.shard_episodes(starts, s, 4)) for s in range(4)] == [[0], [], [1], [2]]


@pytest.mark.parametrize("cameras", [["front", "side"], []])
@pytest.mark.parametrize("num_shards", [3, 5])
def test_values_and_features_do_not_depend_on_the_shards(tmp_path, num_shards, cameras):
    dataset = DotDataset()
    model, checkpoint = model_for(dataset, cameras=cameras)
    whole = values_of(dataset, model, checkpoint, tmp_path)
    parts = values_of(dataset, model, checkpoint, tmp_path, num_shards=num_shards)
    for name, column in whole.items():
        assert column.tolist() == parts[name].tolist(), name
    assert whole["value"].std() > 0
    if cameras:
        pieces = [pq.read_table(tmp_path / f"{s}-of-{num_shards}" / "features.parquet") for s in range(num_shards)]
        rows = [row for piece in pieces for row in piece.column("features").to_pylist()]
        assert rows == pq.read_table(tmp_path / "0-of-1" / "features.parquet").column("features").to_pylist()


def test_values_are_the_model_s_on_each_frame(tmp_path):
    dataset = DotDataset()
    model, checkpoint = model_for(dataset, cameras=["side"])
    found = values_of(dataset, model, checkpoint, tmp_path, batch_size=7)
    images = torch.from_numpy(dataset.all_frames(["side"], (24, 24)))
    with torch.inference_mode():
        features = model.encode(images)
        state = torch.from_numpy(checkpoint.state_norm(dataset.columns["observation.state"]))
        task = torch.from_numpy(np.repeat(np.arange(8) % 2, np.diff(dataset.starts)))
        mean, std = model.head.read(model.value_logits(features, state, task))
    assert np.abs(found["value"] - mean.numpy()).max() < 1e-5
    assert np.abs(found["value_std"] - std.numpy()).max() < 1e-5
    table = pq.read_table(tmp_path / "0-of-1" / "features.parquet")
    stored = np.stack(table.column("features").to_numpy())
    assert np.abs(stored - features.numpy()).max() < 1e-5
    assert table.column("episode_index").to_pylist() == dataset.frames.column("episode_index").to_pylist()


def test_each_frame_is_decoded_once_and_encoded_once(tmp_path):
    class Counting(DotDataset):
        decoded = 0

        def video(self, episode, camera, **options):
            for image in super().video(episode, camera, **options):
                Counting.decoded += 1
                yield image

    dataset = Counting()
    model, checkpoint = model_for(dataset)
    batches = []
    model.encoder[0].register_forward_hook(lambda _, args, __: batches.append(len(args[0])))
    values_of(dataset, model, checkpoint, tmp_path, batch_size=16)
    assert Counting.decoded == 2 * dataset.num_frames
    assert batches == [16] * 5  # 68 frames in batches of one fixed size


def test_pictures_that_are_there_already_take_the_place_of_videos(tmp_path):
    class Blind(DotDataset):
        def video(self, *_, **__):
            raise AssertionError("nothing is to be decoded")

    dataset = DotDataset()
    model, checkpoint = model_for(dataset)
    decoded = values_of(dataset, model, checkpoint, tmp_path / "decoded", num_shards=2)
    frames = dataset.all_frames(dataset.cameras, (24, 24))
    packed = values_of(Blind(), model, checkpoint, tmp_path / "packed", num_shards=2, frames=frames, decode_workers=2)
    assert packed["value"].tolist() == decoded["value"].tolist()


def test_what_makes_images_ends_with_their_use():
    dataset, before = DotDataset(), threading.active_count()
    wanted = Wanted(cameras=dataset.cameras, size=(24, 24), padded=False, episodes=range(8), batch_size=4)
    with contextlib.suppress(DataError), predict.images_of(dataset, wanted) as images:
        next(images)
        assert threading.active_count() == before + 1
        raise DataError("broken")
    assert threading.active_count() == before
    assert next(images, None) is None


def test_a_model_without_towers_is_never_rounded(tmp_path):
    dataset = DotDataset()
    model, checkpoint = model_for(dataset)
    settings = {"episodes": range(8), "batch_size": 16, "lookahead": 4, "folder": tmp_path, "save_features": False}
    with pytest.raises(UsageError, match="precision bfloat16 is for towers; set float32 for preset tiny"):
        predict.predict(model, checkpoint, dataset, **settings, precision="bfloat16")


def test_features_are_written_only_if_asked_and_there(tmp_path):
    dataset = DotDataset()
    values_of(dataset, *model_for(dataset), tmp_path / "a", save_features=False)
    values_of(dataset, *model_for(dataset, cameras=[]), tmp_path / "b")
    assert not list(tmp_path.rglob("features.parquet"))


def test_a_video_shorter_than_its_table_is_never_cut_short_quietly(tmp_path):
    class Short(DotDataset):
        def video(self, episode, camera, **options):
            images = list(super().video(episode, camera, **options))
            yield from images[:-1] if (episode, camera) == (2, "side") else images

    dataset = Short()
    with pytest.raises((ValueError, DataError)):
        values_of(dataset, *model_for(dataset), tmp_path)


def test_another_dataset_is_refused_before_any_frame_is_decoded(tmp_path):
    model, checkpoint = model_for(DotDataset())
    with pytest.raises(DataError, match="camera 'side'"):
        values_of(DotDataset(cameras=("front",)), model, checkpoint, tmp_path)
    wider = DotDataset()
    wider.columns["observation.state"] = np.zeros((wider.num_frames, 6), np.float32)
    with pytest.raises(DataError, match="size of the state"):
        values_of(wider, model, checkpoint, tmp_path / "wider")
