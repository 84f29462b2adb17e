"""An export is a whole dataset: every row, the meta folder and the statistics, from one source or several."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic
from exported_dataset import (
    CUTS,
    PISTAR,
    VERSIONS,
    folder,
    info_of,
    learn_from,
    learned,
    opened,
    raw_rows,
    record_both,
    run_export,
    tree,
    whole,
)
from synthetic import TASK, TOPVIEW, change_rows, set_column

from robolift import storage
from robolift.data.columns import to_numpy
from robolift.data.lerobot import LeRobotReader
from robolift.data.source_statistics import EpisodeStatistics
from robolift.stages.stage import execute


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> dict[str, Path]:
    """The same eight episodes in both versions."""
    return record_both(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def wired(recordings, tmp_path_factory) -> dict[str, dict[str, str]]:
    """All inputs of an export, by version of the source."""
    return learn_from(recordings, tmp_path_factory.mktemp("learned"))


@pytest.mark.parametrize(("source", "version"), CUTS)
def test_every_recorded_value_is_kept(source, version, recordings, wired, output_root):
    exported = run_export(wired[source], output_root, version=version, columns=["weights", "next_reward", "values"])
    before, after = raw_rows(recordings[source]), raw_rows(folder(exported))

    assert after.column_names == [*before.column_names, "weight", "next.reward", "value"]
    for name in before.column_names:
        assert after.column(name).type == before.column(name).type
        assert after.column(name).equals(before.column(name)), name
    assert exported.counts["columns"] == 3
    assert (exported.counts["episodes"], exported.counts["frames"]) == (8, 123)


def test_other_metadata_of_the_files_is_kept(recordings, tmp_path, output_root):
    path = Path(shutil.copytree(recordings["v2.1"], tmp_path / "recording"))
    for episode in range(8):
        change_rows(path, episode, lambda t: t.replace_schema_metadata({"station": "kitchen", "huggingface": "{}"}))
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path)))
    exported = run_export(inputs, output_root)
    schema = pq.read_schema(folder(exported) / "data/chunk-000/episode_000000.parquet")
    assert schema.metadata == {b"station": b"kitchen", b"huggingface": b"{}"}


@pytest.mark.parametrize(("source", "version"), CUTS)
def test_the_meta_folder_is_in_step(source, version, recordings, wired, output_root):
    exported = run_export(wired[source], output_root, version=version)
    info, before = info_of(folder(exported)), info_of(recordings[source])

    assert info["codebase_version"] == version
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (8, 123, 1)
    assert (info["fps"], info["robot_type"], info["splits"]) == (20, "square", {"train": "0:8"})
    assert {name: info["features"][name] for name in before["features"] if name not in PISTAR} == {
        name: feature for name, feature in before["features"].items() if name not in PISTAR
    }
    assert ("total_videos" in info) == (version == "v2.1")
    reader = opened(exported)
    reader.check_files()
    assert [meta.extra["outcome"] for meta in reader.episodes] == ["success", "success", "failure", "success"] * 2
    assert [meta.extra["seed"] for meta in reader.episodes] == list(range(8))


@pytest.mark.parametrize(("source", "version"), CUTS)
def test_statistics_are_in_step(source, version, recordings, wired, output_root):
    exported = run_export(wired[source], output_root, version=version, columns=["weights"])
    stated, before = opened(exported).statistics(), LeRobotReader.open(str(recordings[source])).statistics()

    assert set(stated) == {*before, "weight"}
    weight = np.float32(1) + np.arange(123, dtype=np.float32) / 1000
    assert stated["weight"]["min"] == pytest.approx(1.0)
    assert stated["weight"]["max"] == pytest.approx(1.122)
    assert stated["weight"]["mean"] == pytest.approx(weight.mean(dtype=np.float64), abs=1e-9)
    assert stated["weight"]["count"] == 123
    for name in ("action", "observation.state", TOPVIEW):
        for key in ("min", "max", "mean", "std", "count"):
            np.testing.assert_allclose(stated[name][key], before[name][key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("version", VERSIONS)
def test_statistics_that_the_source_lacks_are_measured(version, recordings, tmp_path, output_root):
    path = Path(shutil.copytree(recordings[version], tmp_path / "recording"))
    expected = LeRobotReader.open(str(path)).statistics()
    if version == "v2.1":
        (path / "meta/episodes_stats.jsonl").unlink()
    else:
        file = path / "meta/episodes/chunk-000/file-000.parquet"
        table = pq.read_table(file)
        pq.write_table(table.select([name for name in table.column_names if not name.startswith("stats/")]), file)
        (path / "meta/stats.json").unlink()
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path)))
    stated = opened(run_export(inputs, output_root, columns=["weights"])).statistics()
    np.testing.assert_allclose(stated["action"]["mean"], expected["action"]["mean"], atol=1e-9)
    # Of decoded pictures, where the writer measured what it was given.
    np.testing.assert_allclose(stated[TOPVIEW]["mean"], expected[TOPVIEW]["mean"], atol=0.02)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_column_without_numbers_has_no_statistics(version, recordings, tmp_path, output_root):
    path = Path(shutil.copytree(recordings["v2.1"], tmp_path / "recording"))
    change_rows(path, 0, set_column("progress_gt", pa.array([float("nan")] * 6, pa.float32())))
    (path / "meta/episodes_stats.jsonl").unlink()
    config = {"dataset_uri": str(path), "allow_nan": ["progress_gt"], "check_videos": "none"}
    inputs = learned(str(tmp_path), execute("import_dataset", config, {}, str(tmp_path)))
    exported = run_export(inputs, output_root, version=version, columns=["weights"])
    assert np.isnan(whole(opened(exported), "progress_gt")).sum() == 6
    if version == "v3.0":
        assert opened(exported).statistics()["progress_gt"]["count"] == 117
    else:
        lines = (folder(exported) / "meta/episodes_stats.jsonl").read_text().splitlines()
        assert ["progress_gt" in json.loads(line)["stats"] for line in lines] == [False] + [True] * 7


def test_nothing_given_is_changed_and_nothing_is_linked(recordings, wired, output_root):
    before = {name: tree(storage.local_path(uri)) for name, uri in wired["v3.0"].items()}
    source = tree(recordings["v3.0"])
    for version in VERSIONS:
        exported = run_export(wired["v3.0"], output_root, version=version, columns=["pistar", "kai0", "weights"])
        assert not [p for p in storage.local_path(exported.uri).rglob("*") if p.is_symlink()]
    assert {name: tree(storage.local_path(uri)) for name, uri in wired["v3.0"].items()} == before
    assert tree(recordings["v3.0"]) == source


def test_the_same_export_has_the_same_bytes_anywhere(wired, tmp_path):
    exports = [run_export(wired["v3.0"], str(tmp_path / name), version="v2.1") for name in ("one", "two")]
    assert exports[0].digest == exports[1].digest
    assert exports[0].files == exports[1].files


def test_an_export_is_imported_without_being_told_anything(wired, dataset, output_root):
    exported = run_export(wired["v3.0"], output_root, version="v2.1")
    again = execute("import_dataset", {"dataset_uri": storage.join(exported.uri, "dataset")}, {}, output_root)
    assert again.table("episodes").equals(dataset.table("episodes"))
    assert again.table("frames").equals(dataset.table("frames"))


@pytest.fixture(scope="module")
def joined(recordings, tmp_path_factory) -> dict[str, str]:
    """A v3.0 and a v2.1 source of different tasks, imported as one."""
    root = tmp_path_factory.mktemp("joined")
    synthetic.write_recording(
        root / "second", episodes=3, seed=5, version="v2.1", task="push it back", simulator={"simulator": "dots"}
    )
    # Written by pandas, which knows no lists of fixed size.
    change_rows(root / "second", 0, set_column("action", lambda old: pa.array(old, pa.list_(pa.float32()))))
    first = execute("import_dataset", {"dataset_uri": str(recordings["v3.0"])}, {}, str(root))
    both = execute("import_dataset", {"dataset_uri": str(root / "second")}, {"previous": first.uri}, str(root))
    return learned(str(root), both)


@pytest.mark.parametrize("version", VERSIONS)
def test_sources_become_one_dataset(version, joined, output_root):
    exported = run_export(joined, output_root, version=version, columns=["weights"])
    reader = opened(exported)
    second = synthetic.make_episodes(episodes=3, frames=24, seed=5)
    frames = 123 + sum(episode.length for episode in second)

    assert len(reader.episodes) == 11
    assert reader.tasks == (TASK, "push it back")
    assert [meta.tasks for meta in reader.episodes] == [(TASK,)] * 8 + [("push it back",)] * 3
    np.testing.assert_array_equal(whole(reader, "index"), np.arange(frames))
    np.testing.assert_array_equal(np.unique(whole(reader, "episode_index")), np.arange(11))
    np.testing.assert_array_equal(whole(reader, "task_index"), [0] * 123 + [1] * (frames - 123))
    np.testing.assert_array_equal(to_numpy(reader.table(8).column("action")), second[0].columns["action"])
    assert reader.table(8).schema.field("action").type == pa.list_(pa.float32(), 4)
    assert [meta.extra["iteration"] for meta in reader.episodes] == [1] * 8 + [2] * 3
    for episode in (7, 8, 10):
        assert sum(1 for _ in reader.video(episode, TOPVIEW)) == reader.episodes[episode].length
    assert reader.statistics()["index"]["max"] == frames - 1
    assert reader.statistics()["action"]["count"] == frames
    assert "robolift" not in reader.info
    again = execute("import_dataset", {"dataset_uri": storage.join(exported.uri, "dataset")}, {}, output_root)
    assert again.counts["frames"] == frames


def test_the_first_source_decides_the_version(joined, output_root):
    assert opened(run_export(joined, output_root, columns=["weights"])).version == "v3.0"


def test_the_simulator_is_kept(tmp_path, output_root):
    synthetic.write_recording(tmp_path / "r", episodes=1, cameras=[], simulator={"simulator": "dots", "seeds": [0, 1]})
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(tmp_path / "r")}, {}, str(tmp_path)))
    reader = opened(run_export(inputs, output_root))
    assert reader.info["robolift"] == {"simulator": "dots", "seeds": [0, 1]}
    assert reader.info["video_path"] is None


def test_from_and_to_an_object_store(recordings, s3):
    raw, runs = storage.join(s3, "raw"), storage.join(s3, "runs")
    for name, _ in storage.list_files(str(recordings["v3.0"])):
        storage.upload(recordings["v3.0"] / name, storage.join(raw, name))
    inputs = learned(runs, execute("import_dataset", {"dataset_uri": raw}, {}, runs))
    exported = run_export(inputs, runs)
    reader = opened(exported)
    assert reader.uri == storage.join(exported.uri, "dataset")
    assert reader.table(0).column("intervention").to_pylist() == [1] * 6
    video = f"videos/{TOPVIEW}/chunk-000/file-000.mp4"
    assert storage.read_bytes(storage.join(reader.uri, video)) == (recordings["v3.0"] / video).read_bytes()


def test_other_files_beside_the_episodes_tables_are_left_alone(recordings, tmp_path):
    path = tmp_path / "recording"
    shutil.copytree(recordings["v3.0"], path)
    (path / "meta/episodes/chunk-000/.file-000.parquet.crc").write_bytes(b"x")
    stated = EpisodeStatistics(LeRobotReader.open(str(path)), without=["action"])
    assert sorted(stated.episodes) == list(range(len(LeRobotReader.open(str(path)).episodes)))
    assert "timestamp" in stated.of(0)
    assert "action" not in stated.of(0)
