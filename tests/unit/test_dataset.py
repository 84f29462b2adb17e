from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic
from synthetic import BEHIND, ENVIRONMENT_STATE, STATE, TASK, TOPVIEW

from robolift import manifest as manifests
from robolift import storage
from robolift.data.columns import to_model, to_numpy
from robolift.data.content import content_digest
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.stages.stage import execute


@pytest.fixture(scope="module")
def episodes() -> list[synthetic.Episode]:
    """What the session's recording was made from."""
    return synthetic.make_episodes(episodes=8, frames=24, seed=0)


@pytest.fixture(scope="module")
def two_iterations(tmp_path_factory) -> Path:
    """A run's folder: a v3.0 and a v2.1 recording inside it, imported one after the other."""
    root = tmp_path_factory.mktemp("run")
    synthetic.write_recording(
        root / "raw/first", episodes=3, cameras=[TOPVIEW], simulator={"task": "push", "seeds": [0, 3]}
    )
    synthetic.write_recording(
        root / "raw/second",
        episodes=2,
        seed=7,
        version="v2.1",
        cameras=[TOPVIEW],
        task="push it back",
        obs=[STATE],
        simulator={"task": "push", "seeds": [3, 2]},
    )
    first = execute("import_dataset", {"dataset_uri": str(root / "raw/first")}, {}, str(root))
    execute("import_dataset", {"dataset_uri": str(root / "raw/second")}, {"previous": first.uri}, str(root))
    return root


def last_import(root: Path) -> manifests.Manifest:
    found = [manifests.load(str(path.parent)) for path in root.glob("import_dataset/*/manifest.json")]
    return max(found, key=lambda manifest: manifest.counts["sources"])


def test_a_dataset_has_the_facts_of_its_recording(dataset):
    opened = Dataset.open(dataset)

    assert (opened.fps, opened.robot_type, opened.simulator) == (20.0, "square", None)
    assert opened.cameras == (BEHIND, TOPVIEW)
    assert opened.tasks == (TASK,)
    assert opened.action_dim == 4
    assert (opened.num_episodes, opened.num_frames) == (8, 123)
    assert opened.starts.tolist() == [0, 6, 22, 46, 61, 70, 85, 109, 123]
    assert opened.image_size(TOPVIEW) == (32, 32)
    assert opened.episodes.slice(2, 2).to_pylist() == [
        {"episode_index": 2, "length": 24, "task": TASK, "outcome": "failure", "kind": "rollout", "iteration": 1},
        {"episode_index": 3, "length": 15, "task": TASK, "outcome": "success", "kind": "rollout", "iteration": 1},
    ]
    assert opened.frames.slice(59, 2).to_pylist() == [
        {"episode_index": 3, "frame_index": 13, "timestamp": pytest.approx(0.65), "control_mode": "correcting"},
        {"episode_index": 3, "frame_index": 14, "timestamp": pytest.approx(0.7), "control_mode": "correcting"},
    ]


def test_columns_are_the_recorded_numbers(dataset, episodes):
    opened = Dataset.open(dataset)

    for name in (STATE, ENVIRONMENT_STATE, "action", "progress_gt"):
        column = opened.column(name)
        assert column.dtype == np.float32
        np.testing.assert_array_equal(column, np.concatenate([episode.columns[name] for episode in episodes]))
    good = opened.column("is_good_gt", [5, 0])
    assert good.dtype == np.int64
    np.testing.assert_array_equal(good, [*episodes[5].columns["is_good_gt"], *episodes[0].columns["is_good_gt"]])
    assert opened.column("control_mode").tolist() == [m for e in episodes for m in e.columns["control_mode"]]
    assert opened.column("action", []).shape == (0,)


def test_a_video_is_the_recorded_pictures(dataset, episodes):
    opened = Dataset.open(dataset)
    frames = list(opened.video(3, TOPVIEW))

    assert len(frames) == episodes[3].length
    for frame, recorded in zip(frames, synthetic.frames_of(episodes[3], TOPVIEW, 32), strict=True):
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - recorded).mean() < 6
    assert next(opened.video(0, BEHIND, size=(16, 24))).shape == (16, 24, 3)


def test_sources_are_counted_through(two_iterations):
    opened = Dataset.open(last_import(two_iterations))
    second = synthetic.make_episodes(episodes=2, frames=24, seed=7)

    assert [source.version for source in opened.sources] == ["v3.0", "v2.1"]
    assert [source.first_episode for source in opened.sources] == [0, 3]
    assert opened.tasks == (TASK, "push it back")
    assert opened.episodes.column("iteration").to_pylist() == [1, 1, 1, 2, 2]
    assert opened.episodes.column("episode_index").to_pylist() == [0, 1, 2, 3, 4]
    # Only what both have.
    assert STATE in opened.features
    assert ENVIRONMENT_STATE not in opened.features
    assert opened.simulator == {"task": "push"}
    np.testing.assert_array_equal(opened.column("action", [4]), second[1].columns["action"])
    assert opened.column("episode_index", [4, 1]).tolist() == [4] * second[1].length + [1] * 16
    assert set(opened.column("task_index", [2]).tolist()) == {0}
    assert set(opened.column("task_index", [3]).tolist()) == {1}
    assert opened.column("index", [1])[:2].tolist() == [6, 7]
    assert opened.column("frame_index", [1])[:2].tolist() == [0, 1]
    assert opened.column("timestamp", [1])[:2].tolist() == pytest.approx([0.0, 0.05])
    assert opened.locate(4) == (1, 1)
    assert sum(1 for _ in opened.video(4, TOPVIEW)) == second[1].length


def test_a_moved_run_is_read_where_it_is(two_iterations, tmp_path):
    moved = Path(shutil.copytree(two_iterations, tmp_path / "elsewhere"))
    opened = Dataset.open(last_import(moved))

    assert [source.uri for source in opened.sources] == [f"file://{moved}/raw/first", f"file://{moved}/raw/second"]
    assert len(opened.column("action")) == opened.num_frames


def test_a_source_outside_the_run_is_named_in_full(dataset, recording_uri):
    assert Dataset.open(dataset).sources[0].uri == recording_uri
    assert storage.read_json(dataset.file("dataset.json"))["sources"][0]["uri"] == recording_uri


def test_wrong_questions_are_answered(dataset):
    opened = Dataset.open(dataset)

    with pytest.raises(
        DataError, match=r"no column reward in the dataset\n.*square\n  expected: action, control_mode, episode_index"
    ):
        opened.column("reward")
    with pytest.raises(DataError, match=r"no column observation\.images\.topview"):
        opened.column(TOPVIEW)
    with pytest.raises(UsageError, match="no episode 8; the dataset has 8"):
        opened.column("action", [8])
    with pytest.raises(UsageError, match="no episode -1"):
        opened.video(-1, TOPVIEW)
    with pytest.raises(UsageError, match="no camera 'front'; the dataset has: observation"):
        opened.image_size("front")
    with pytest.raises(UsageError, match="no camera"):
        opened.video(0, "front")


def test_another_kind_of_output_is_refused(dataset, output_root):
    targets = execute("label_returns", {}, {"dataset": dataset.uri}, output_root)
    with pytest.raises(UsageError, match="is a ValueTargets, expected a EpisodeDataset"):
        Dataset.open(targets)


def test_a_source_changed_after_the_import_is_refused(tmp_path):
    path = tmp_path / "recording"
    synthetic.write_recording(path, episodes=2, cameras=[])
    opened = Dataset.open(execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path / "runs")))
    shutil.rmtree(path)
    synthetic.write_recording(path, episodes=2, cameras=[], seed=1)

    with pytest.raises(DataError, match=r"changed after it was imported\n.*recording\n  expected: 2 episodes with 22"):
        opened.column("action")


def test_a_dataset_without_cameras(tmp_path):
    path = tmp_path / "recording"
    synthetic.write_recording(path, episodes=2, cameras=[])
    opened = Dataset.open(execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path / "runs")))

    assert opened.cameras == ()
    with pytest.raises(UsageError, match="the dataset has: none"):
        opened.video(0, TOPVIEW)


def test_a_dataset_on_an_object_store(tmp_path, s3):
    synthetic.write_recording(tmp_path / "recording", episodes=2, cameras=[TOPVIEW])
    uri = storage.join(s3, "raw")
    for name, _ in storage.list_files(str(tmp_path / "recording")):
        storage.upload(tmp_path / "recording" / name, storage.join(uri, name))
    manifest = execute("import_dataset", {"dataset_uri": uri}, {}, storage.join(s3, "runs"))
    opened = Dataset.open(manifest)

    assert opened.sources[0].uri == uri
    assert storage.read_json(manifest.file("dataset.json"))["sources"][0]["uri"] == f"{uri}"
    assert opened.column("action").shape == (22, 4)
    assert sum(1 for _ in opened.video(1, TOPVIEW)) == 16
    # The store's own hash of a video counts: same size, other bytes.
    before = content_digest(uri)
    video = storage.join(uri, f"videos/{TOPVIEW}/chunk-000/file-000.mp4")
    storage.write_bytes(video, storage.read_bytes(video)[::-1])
    assert content_digest(uri) != before


def test_numbers_come_as_models_take_them():
    assert to_model(np.array([0.5])).dtype == np.float32
    assert to_model(np.array([True])).dtype == np.int64
    assert to_model(np.array([1], np.uint8)).dtype == np.int64
    assert to_model(np.array(["a"])).dtype == object
    nested = pa.chunked_array([pa.array([[[1, 2]], [[3, 4]]])])
    assert to_numpy(nested).tolist() == [[1, 2], [3, 4]]
    assert to_numpy(pa.chunked_array([], pa.list_(pa.int64()))).shape == (0, 0)
    with pytest.raises(DataError, match=r"lists of different lengths in one column\n  where: column a"):
        to_numpy(pa.chunked_array([pa.array([[1, 2], [3]])]), where="column a")


@pytest.mark.parametrize("name", ["action", "index", "task_index", "episode_index", "frame_index"])
def test_a_column_of_the_recordings_reads_no_frames(dataset, name):
    opened = Dataset.open(dataset)
    column = opened.column(name, [3, 1])
    assert "frames" not in vars(opened)
    if name in opened.frames.column_names:
        whole = opened.frames.column(name).to_numpy()
        assert column.tolist() == [*whole[46:61], *whole[6:22]]


def test_another_process_reads_its_own_frames(dataset):
    opened = Dataset.open(dataset)
    frames = opened.frames
    other = pickle.loads(pickle.dumps(opened))
    assert "frames" not in vars(other)
    assert other.frames == frames == opened.frames


@pytest.mark.parametrize(("rows", "message"), [(122, "table frames has 122 rows"), (None, "frames.parquet")])
def test_a_dataset_without_its_frames_is_not_opened(dataset, tmp_path, rows, message):
    shutil.copytree(storage.local_path(dataset.uri), tmp_path / "broken")
    file = tmp_path / "broken" / "frames.parquet"
    if rows is None:
        file.unlink()
    else:
        pq.write_table(pq.read_table(file).slice(0, rows), file)
    with pytest.raises(DataError, match=message):
        Dataset.open(dataclasses.replace(dataset, uri=f"file://{tmp_path}/broken"))
