from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import synthetic

from robolift import manifest, schema, storage
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.stages import merge_values
from robolift.stages.stage import execute
from robolift.value_model import checkpoint as checkpoints

QUICK = {"image_size": [32, 32], "steps": 4, "batch_size": 8, "warmup_steps": 1, "val_fraction": 0.25}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def checkpoint(dataset, root):
    targets = execute("label_returns", {}, {"dataset": dataset.uri}, root)
    return execute("train_value", QUICK, {"dataset": dataset.uri, "targets": targets.uri}, root)


def shards(dataset, checkpoint, root, num_shards, **config):
    inputs = {"dataset": dataset.uri, "checkpoint": checkpoint.uri}
    return [
        execute("predict_values", {"shard": shard, "num_shards": num_shards, **config}, inputs, root)
        for shard in range(num_shards)
    ]


def merge(dataset, found, root):
    return execute("merge_values", {}, {"dataset": dataset.uri, "shards": [shard.uri for shard in found]}, root)


@pytest.fixture(scope="module")
def one(dataset, checkpoint, root):
    return shards(dataset, checkpoint, root, 1)


@pytest.fixture(scope="module")
def three(dataset, checkpoint, root):
    return shards(dataset, checkpoint, root, 3)


def test_merged_values_are_the_same_bytes_however_they_were_cut(dataset, checkpoint, root, one, three):
    merged = [
        merge(dataset, found, root)
        for found in (one, three, three[::-1], shards(dataset, checkpoint, root, 11))  # more shards than episodes
    ]
    for name in ("values.parquet", "features.parquet"):
        contents = {storage.read_bytes(found.file(name)) for found in merged}
        assert len(contents) == 1, name
    assert merged[0].counts == {"episodes": 8, "frames": Dataset.open(dataset).num_frames}
    assert sum(shard.counts["frames"] for shard in three) == merged[0].counts["frames"]
    assert all(shard.counts["frames"] > 0 for shard in three)
    manifest.verify(merged[1])


def test_a_shard_reads_no_table_of_all_frames(dataset, checkpoint, tmp_path, three, monkeypatch):
    def whole(_):
        raise AssertionError("table frames is as long as the dataset")

    monkeypatch.setattr(Dataset, "frames", property(whole))
    inputs = {"dataset": dataset.uri, "checkpoint": checkpoint.uri}
    found = execute("predict_values", {"shard": 1, "num_shards": 3}, inputs, str(tmp_path))
    assert found.files == three[1].files


def test_decode_processes_change_neither_the_bytes_nor_the_identity(dataset, checkpoint, tmp_path, one):
    (found,) = shards(dataset, checkpoint, str(tmp_path), 1, decode_workers=2)
    assert found.digest == one[0].digest
    assert found.files == one[0].files


def test_values_cover_every_frame_and_leave_relative_advantage_unknown(dataset, root, one):
    values = merge(dataset, one, root).table("values")
    frames = Dataset.open(dataset).frames
    for key in schema.KEYS:
        assert values.column(key).equals(frames.column(key))
    assert values.column("relative_advantage").null_count == values.num_rows
    value, spread = (values.column(name).to_numpy() for name in ("value", "value_std"))
    assert -1 <= value.min() <= value.max() <= 0
    assert (spread > 0).all()


def test_features_are_what_the_head_gave_the_values_from(dataset, checkpoint, root, one):
    merged = merge(dataset, one, root)
    with storage.open_file(merged.file("features.parquet")) as file:
        table = pq.read_table(file)
    assert table.schema.field("features").type.list_size == 192
    features = np.stack(table.column("features").to_numpy())
    torch = pytest.importorskip("torch")
    model, facts = checkpoints.load(checkpoint.uri)
    state = facts.state_norm(Dataset.open(dataset).column("observation.state"))
    task = torch.zeros(len(state), dtype=torch.int64)
    logits = model.value_logits(torch.from_numpy(features), torch.from_numpy(state), task)
    value = model.head.read(logits)[0].numpy()
    assert np.abs(value - merged.table("values").column("value").to_numpy()).max() < 1e-6


def test_without_cameras_or_when_not_asked_no_features_are_written(dataset, checkpoint, root):
    targets = execute("label_returns", {}, {"dataset": dataset.uri}, root)
    blind = execute("train_value", {**QUICK, "cameras": []}, {"dataset": dataset.uri, "targets": targets.uri}, root)
    for found in (shards(dataset, blind, root, 2), shards(dataset, checkpoint, root, 2, save_features=False)):
        merged = merge(dataset, found, root)
        assert not storage.exists(merged.file("features.parquet"))
        assert merged.counts["frames"] == Dataset.open(dataset).num_frames


def test_a_missing_shard_is_named_by_its_first_frame(dataset, root, three):
    first = three[1].table("values").column("episode_index")[0].as_py()
    with pytest.raises(DataError, match=rf"have no prediction(.|\n)*episode {first}, frame 0(.|\n)*every shard"):
        merge(dataset, [three[0], three[2]], root)


def test_shards_of_two_cuts_do_not_mix(dataset, root, one, three):
    with pytest.raises(DataError, match=r"predicted more than once(.|\n)*episode 0, frame 0"):
        merge(dataset, [*one, three[0]], root)


def test_shards_of_two_checkpoints_do_not_mix(dataset, checkpoint, root, three):
    targets = checkpoint.parent("targets")
    other = execute("train_value", {**QUICK, "seed": 1}, {"dataset": dataset.uri, "targets": targets.uri}, root)
    foreign = shards(dataset, other, root, 3)[2]
    with pytest.raises(DataError, match=f"different checkpoints(.|\n)*{other.digest}"):
        merge(dataset, [three[0], three[1], foreign], root)


def test_shards_of_two_configurations_do_not_mix(dataset, checkpoint, root, three):
    foreign = shards(dataset, checkpoint, root, 3, batch_size=32)[2]
    with pytest.raises(DataError, match=r"different configurations(.|\n)*'batch_size': 32"):
        merge(dataset, [three[0], three[1], foreign], root)


@pytest.fixture(scope="module")
def other_dataset(tmp_path_factory, root):
    path = tmp_path_factory.mktemp("other") / "recording"
    synthetic.write_recording(path, episodes=4, cameras=(synthetic.TOPVIEW,))
    return execute("import_dataset", {"dataset_uri": str(path)}, {}, root)


def test_shards_of_another_dataset_are_refused(other_dataset, root, three):
    with pytest.raises(DataError, match=f"another dataset(.|\n)*{other_dataset.digest}"):
        merge(other_dataset, three, root)


def test_a_dataset_with_other_cameras_than_the_checkpoint_is_refused(other_dataset, checkpoint, root):
    with pytest.raises(DataError, match=r"differ in camera 'observation\.images\.behindGripper'(.|\n)*train a value"):
        shards(other_dataset, checkpoint, root, 1)


def test_a_shard_that_lost_its_features_is_not_merged_without_them(dataset, checkpoint, tmp_path, root):
    found = shards(dataset, checkpoint, str(tmp_path / "shards"), 2)
    storage.remove(found[1].file("features.parquet"))
    with pytest.raises(DataError, match=r"file not found(.|\n)*features\.parquet"):
        merge(dataset, found, str(tmp_path / "merged"))


def test_a_shard_beyond_the_last_is_a_usage_error(dataset, checkpoint, root):
    inputs = {"dataset": dataset.uri, "checkpoint": checkpoint.uri}
    with pytest.raises(UsageError, match="shards count from 0"):
        execute("predict_values", {"shard": 2, "num_shards": 2}, inputs, root)


def test_shards_in_object_storage_merge_alike(dataset, checkpoint, root, one, tmp_path):
    remote = "memory://merge-values"
    merged = merge(dataset, shards(dataset, checkpoint, remote, 2), remote)
    local = merge(dataset, one, root)
    assert storage.read_bytes(merged.file("features.parquet")) == storage.read_bytes(local.file("features.parquet"))
    storage.remove(remote)


def test_the_cut_is_no_part_of_the_merged_values_identity(dataset, checkpoint, tmp_path, root):
    cuts = {num: shards(dataset, checkpoint, root, num) for num in (2, 4)}
    merged = [merge(dataset, found, str(tmp_path / str(num))) for num, found in cuts.items()]
    assert merged[0].digest == merged[1].digest
    assert merged[0].files == merged[1].files

    def identity(found):
        return merge_values.input_identity("shards", found)

    # Anything but one whole prediction is told apart, so that its error is not hidden by what was merged before.
    others = [cuts[2][:1], cuts[4][1:], [*cuts[2], cuts[4][0]], shards(dataset, checkpoint, root, 2, batch_size=32)]
    assert identity(cuts[2]) == identity(cuts[4][::-1])
    assert identity(cuts[2]) not in [identity(found) for found in others]
    assert merge_values.input_identity("dataset", [dataset]) == [dataset.digest]
