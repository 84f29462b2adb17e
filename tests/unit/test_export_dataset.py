from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic
from synthetic import BEHIND, TASK, TOPVIEW, change_rows, set_column

from robolift import storage
from robolift.__main__ import main
from robolift.data.columns import to_numpy
from robolift.data.dataset import Dataset
from robolift.data.lerobot import LeRobotReader
from robolift.data.video import H264, Codec, encode_video, probe
from robolift.errors import DataError, UsageError
from robolift.labeling.prompts import advantage_prompts
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.stages.stage import execute

PISTAR = {
    "intervention": "int64",
    "reward": "float32",
    "reward_label": "float32",
    "value_label": "float32",
    "adv_ind": "string",
}
VERSIONS = ("v2.1", "v3.0")
CUTS = [("v2.1", "v2.1"), ("v2.1", "v3.0"), ("v3.0", "v2.1"), ("v3.0", "v3.0")]


def publish(
    root: str, stage: str, kind: Kind, dataset: Manifest, tables: dict, documents: dict | None = None
) -> Manifest:
    digest = storage.digest_of(
        [stage, dataset.digest, {k: {c: list(map(str, v)) for c, v in t.items()} for k, t in tables.items()}]
    )
    plan = Plan(stage=stage, kind=kind, root=root, config={}, inputs={"dataset": [dataset]}, code="c0de", digest=digest)
    output = Output(plan)
    for name, table in tables.items():
        output.write_table(name, table)
    for name, document in (documents or {}).items():
        output.write_json(name, document)
    return output.publish({"frames": 1})


def learned(root: str, dataset: Manifest, *, num_slices: int | None = None) -> dict[str, str]:
    """Publish targets, values and labels with recognisable numbers: frame n of the whole has n/1000 in them."""
    frames, tasks = dataset.table("frames"), Dataset.open(dataset).tasks
    count = frames.num_rows
    keys = {name: frames.column(name).to_numpy() for name in ("episode_index", "frame_index")}
    ramp = np.arange(count, dtype=np.float32) / 1000
    names = ["positive" if n % 3 else "negative" for n in range(count)]
    prompts = advantage_prompts(tasks, num_slices)
    labels = {
        **keys,
        "advantage": ramp,
        "valid": np.ones(count, bool),
        "advantage_label": names if num_slices is None else ["none"] * count,
        "slice": [None if num_slices is None else n % num_slices for n in range(count)],
        "reason": ["threshold"] * count,
        "group": ["all"] * count,
        "weight": ramp + 1,
        "prompt_index": [1 + n % (2 if num_slices is None else num_slices) for n in range(count)],
    }
    made = {
        "targets": publish(
            root,
            "label_returns",
            Kind.TARGETS,
            dataset,
            {"targets": {**keys, "value_target": -ramp, "reward": -ramp / 2}},
        ),
        "values": publish(
            root,
            "merge_values",
            Kind.VALUES,
            dataset,
            {"values": {**keys, "value": -ramp / 4, "value_std": ramp, "relative_advantage": [None] * count}},
        ),
        "labels": publish(
            root, "label_advantage", Kind.LABELS, dataset, {"labels": labels}, {"prompts.json": prompts.to_dict()}
        ),
    }
    return {"dataset": dataset.uri, **{name: manifest.uri for name, manifest in made.items()}}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> dict[str, Path]:
    """The same eight episodes in both versions."""
    root = tmp_path_factory.mktemp("recordings")
    for version in VERSIONS:
        synthetic.write_recording(root / version, version=version)
    return {version: root / version for version in VERSIONS}


@pytest.fixture(scope="module")
def wired(recordings, tmp_path_factory) -> dict[str, dict[str, str]]:
    """All inputs of an export, by version of the source."""
    root = str(tmp_path_factory.mktemp("learned"))
    return {
        version: learned(root, execute("import_dataset", {"dataset_uri": str(path)}, {}, root))
        for version, path in recordings.items()
    }


def run_export(inputs: dict[str, str], root: str, **config) -> Manifest:
    return execute("export_dataset", config, inputs, root)


def opened(exported: Manifest) -> LeRobotReader:
    return LeRobotReader.open(storage.join(exported.uri, "dataset"))


def folder(exported: Manifest) -> Path:
    return storage.local_path(exported.uri) / "dataset"


def info_of(path: Path) -> dict:
    return json.loads((path / "meta/info.json").read_text())


def whole(reader: LeRobotReader, name: str) -> np.ndarray:
    return np.concatenate([to_numpy(reader.table(meta.index, [name]).column(name)) for meta in reader.episodes])


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def raw_rows(path: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted((path / "data").rglob("*.parquet"))])


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


@pytest.mark.parametrize(("source", "version"), CUTS)
def test_every_picture_is_kept(source, version, recordings, wired, output_root):
    exported = run_export(wired[source], output_root, version=version, columns=["weights"])
    before, after = LeRobotReader.open(str(recordings[source])), opened(exported)

    assert after.version == version
    for camera in (TOPVIEW, BEHIND):
        for episode in range(8):
            pairs = zip(before.video(episode, camera), after.video(episode, camera), strict=True)
            assert all(np.array_equal(old, new) for old, new in pairs)
    done = {how: exported.counts[f"videos_{how}"] for how in ("copied", "cut", "encoded")}
    if source == version:
        videos = {name: content for name, content in tree(recordings[source]).items() if name.startswith("videos/")}
        assert {n: c for n, c in tree(folder(exported)).items() if n.startswith("videos/")} == videos
        assert done == {"copied": len(videos), "cut": 0, "encoded": 0}
    elif version == "v3.0":
        assert done == {"copied": 16, "cut": 0, "encoded": 0}
    else:
        assert done == {"copied": 0, "cut": 16, "encoded": 0}


def test_pistars_columns(wired, output_root):
    exported = run_export(wired["v2.1"], output_root, columns=["pistar"])
    reader, features = opened(exported), info_of(folder(exported))["features"]

    assert {name: features[name] for name in PISTAR} == {
        name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in PISTAR.items()
    }
    schema = pq.read_schema(folder(exported) / "data/chunk-000/episode_000003.parquet")
    assert {name: schema.field(name).type for name in PISTAR} == {
        name: getattr(pa, dtype)() for name, dtype in PISTAR.items()
    }
    # A demo is all a person's; the rollout of episode 3 is corrected in its last six frames; paused is nobody's.
    assert reader.table(0).column("intervention").to_pylist() == [1] * 6
    assert reader.table(1).column("intervention").to_pylist() == [0] * 16
    assert reader.table(3).column("intervention").to_pylist() == [0] * 9 + [1] * 6
    assert reader.table(3).column("control_mode").to_pylist()[8] == "paused"
    # The last frame of a success.
    assert reader.table(1).column("reward").to_pylist() == [0.0] * 15 + [1.0]
    assert reader.table(2).column("reward").to_pylist() == [0.0] * 24
    # Frame n of the whole has n / 1000; episode 1 begins at frame 6.
    np.testing.assert_array_equal(reader.table(1).column("value_label")[:2].to_numpy(), np.float32([-0.006, -0.007]))
    np.testing.assert_array_equal(reader.table(1).column("reward_label")[:2].to_numpy(), np.float32([-0.003, -0.0035]))
    assert reader.table(1).column("adv_ind").to_pylist()[:4] == ["negative", "positive", "positive", "negative"]


def test_a_slice_is_written_as_its_number(dataset, tmp_path, output_root):
    inputs = learned(str(tmp_path), dataset, num_slices=4)
    reader = opened(run_export(inputs, output_root, columns=["pistar"]))
    assert reader.table(0).column("adv_ind").to_pylist() == ["0", "1", "2", "3", "0", "1"]


def test_kai0s_task_index(wired, output_root):
    exported = run_export(wired["v2.1"], output_root, columns=["kai0"])
    reader, path = opened(exported), folder(exported)

    tasks = [json.loads(line) for line in (path / "meta/tasks.jsonl").read_text().splitlines()]
    assert tasks == [
        {"task_index": 0, "task": TASK},
        {"task_index": 1, "task": f"{TASK}, Advantage: negative"},
        {"task_index": 2, "task": f"{TASK}, Advantage: positive"},
    ]
    assert info_of(path)["total_tasks"] == 3
    assert reader.table(0).column("task_index").to_pylist() == [1, 2, 1, 2, 1, 2]
    assert reader.table(0).schema.field("task_index").type == pa.int64()
    rows = [json.loads(line) for line in (path / "meta/episodes.jsonl").read_text().splitlines()]
    assert rows[1]["tasks"] == [tasks[1]["task"], tasks[2]["task"]]
    assert exported.counts["columns"] == 0


def test_kai0s_prompts_in_v30(wired, output_root):
    exported = run_export(wired["v3.0"], output_root, columns=["kai0", "weights"])
    assert opened(exported).tasks[2] == f"{TASK}, Advantage: positive"
    assert opened(exported).episodes[0].tasks == (f"{TASK}, Advantage: negative", f"{TASK}, Advantage: positive")


def test_weights_also_stand_in_a_table_of_their_own(wired, output_root):
    exported = run_export(wired["v3.0"], output_root, columns=["weights"])
    table = pq.read_table(storage.local_path(exported.uri) / "weights.parquet")

    assert table.schema.equals(pa.schema({"index": pa.int64(), "weight": pa.float32()}))
    assert table.column("index").to_pylist() == list(range(123))
    np.testing.assert_array_equal(table.column("weight").to_numpy(), np.float32(1) + np.arange(123, dtype="f4") / 1000)
    np.testing.assert_array_equal(whole(opened(exported), "weight"), table.column("weight").to_numpy())
    # Inside the dataset there is none but its own: tools walk the folder for Parquet files and take them for rows.
    assert [str(p.relative_to(folder(exported))) for p in sorted(folder(exported).rglob("*.parquet"))] == [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/tasks.parquet",
    ]


def test_rewards_and_values_are_columns(wired, output_root):
    exported = run_export(wired["v3.0"], output_root, columns=["next_reward", "values"])
    reader = opened(exported)
    ramp = np.arange(123, dtype=np.float32) / 1000
    np.testing.assert_array_equal(whole(reader, "next.reward"), -ramp / 2)
    np.testing.assert_array_equal(whole(reader, "value"), -ramp / 4)
    assert not (storage.local_path(exported.uri) / "weights.parquet").exists()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_metadata_of_hugging_face_tells_the_new_columns(version, recordings, wired, output_root):
    exported = run_export(wired["v2.1"], output_root, version=version, columns=["pistar"])
    before = pq.read_schema(next((recordings["v2.1"] / "data").rglob("*.parquet")))
    after = pq.read_schema(next((folder(exported) / "data").rglob("*.parquet")))

    old, new = (json.loads(s.metadata[b"huggingface"])["info"]["features"] for s in (before, after))
    assert set(new) == set(old) | set(PISTAR)
    assert new["adv_ind"] == {"dtype": "string", "_type": "Value"}
    assert new["value_label"] == {"dtype": "float32", "_type": "Value"}
    assert new["action"]["_type"] == {"v2.1": "Sequence", "v3.0": "List"}[version]
    if version == "v2.1":
        assert {name: new[name] for name in old} == old


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


def test_a_linked_video_becomes_a_real_file(recordings, tmp_path, output_root):
    """limb's converter links its videos; an export must survive the deletion of what they pointed to."""
    path = Path(shutil.copytree(recordings["v2.1"], tmp_path / "recording"))
    target = path / f"videos/chunk-000/{TOPVIEW}/episode_000000.mp4"
    shutil.move(target, tmp_path / "real.mp4")
    target.symlink_to(tmp_path / "real.mp4")
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path)))
    exported = run_export(inputs, output_root)
    copy = folder(exported) / f"videos/chunk-000/{TOPVIEW}/episode_000000.mp4"
    assert not copy.is_symlink()
    assert copy.read_bytes() == (tmp_path / "real.mp4").read_bytes()


def test_the_same_export_has_the_same_bytes_anywhere(wired, tmp_path):
    exports = [run_export(wired["v3.0"], str(tmp_path / name), version="v2.1") for name in ("one", "two")]
    assert exports[0].digest == exports[1].digest
    assert exports[0].files == exports[1].files


def test_an_export_is_imported_without_being_told_anything(wired, dataset, output_root):
    exported = run_export(wired["v3.0"], output_root, version="v2.1")
    again = execute("import_dataset", {"dataset_uri": storage.join(exported.uri, "dataset")}, {}, output_root)
    assert again.table("episodes").equals(dataset.table("episodes"))
    assert again.table("frames").equals(dataset.table("frames"))


def test_a_column_of_the_same_name_gives_way(recordings, tmp_path, output_root):
    """A relabel of a dataset that was labelled before, with another type at that."""
    path = Path(shutil.copytree(recordings["v2.1"], tmp_path / "recording"))
    for episode in range(8):
        change_rows(path, episode, lambda t: t.append_column("adv_ind", pa.array([7] * t.num_rows)))
    synthetic.change_info(path, lambda i: i["features"].update(adv_ind={"dtype": "int64", "shape": [1], "names": None}))
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path)))
    exported = run_export(inputs, output_root)
    table = pq.read_table(folder(exported) / "data/chunk-000/episode_000000.parquet")
    assert Counter(table.column_names)["adv_ind"] == 1
    assert table.column("adv_ind").to_pylist()[:2] == ["negative", "positive"]
    assert info_of(folder(exported))["features"]["adv_ind"]["dtype"] == "string"


def encode_with_rare_keyframes(reader: LeRobotReader, camera: str, path: Path) -> None:
    frames = [frame for meta in reader.episodes for frame in reader.video(meta.index, camera)]
    rare = Codec("h264", "libx264", (("g", "1000"), ("sc_threshold", "0"), ("bf", "0"), ("crf", "10")))
    encode_video(path, frames, fps=20, size=(32, 32), codec=rare)


def test_clips_without_a_keyframe_are_encoded_again(recordings, tmp_path, output_root):
    path = Path(shutil.copytree(recordings["v3.0"], tmp_path / "recording"))
    video = path / f"videos/{TOPVIEW}/chunk-000/file-000.mp4"
    encode_with_rare_keyframes(LeRobotReader.open(str(recordings["v3.0"])), TOPVIEW, tmp_path / "rare.mp4")
    shutil.move(tmp_path / "rare.mp4", video)
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path)))
    exported = run_export(inputs, output_root, version="v2.1", columns=["weights"])

    assert {how: exported.counts[f"videos_{how}"] for how in ("copied", "cut", "encoded")} == {
        "copied": 0,
        "cut": 9,  # the other camera, and the first clip
        "encoded": 7,
    }
    before, after = LeRobotReader.open(str(path)), opened(exported)
    for episode in (0, 1, 7):
        pairs = list(zip(before.video(episode, TOPVIEW), after.video(episode, TOPVIEW), strict=True))
        assert np.mean([np.abs(old.astype(int) - new).mean() for old, new in pairs]) < 4
    assert info_of(folder(exported))["features"][TOPVIEW]["info"]["video.codec"] == H264.name
    assert probe(str(folder(exported) / f"videos/chunk-000/{TOPVIEW}/episode_000001.mp4")).frames == 16


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


@pytest.mark.parametrize(
    ("columns", "without", "message"),
    [
        ("pistar", ("targets",), "pistar needs the input targets"),
        ("pistar", ("targets", "labels"), "pistar needs the input targets and labels"),
        ("kai0", ("labels",), "kai0 needs the input labels"),
        ("weights", ("labels",), "weights needs the input labels"),
        ("next_reward", ("targets",), "next_reward needs the input targets"),
        ("values", ("values",), "values needs the input values"),
    ],
)
def test_columns_need_their_input(columns, without, message, wired, output_root, capsys):
    inputs = {name: uri for name, uri in wired["v3.0"].items() if name not in without}
    arguments = [f"inputs.{name}={uri}" for name, uri in inputs.items()]
    arguments += [f"output_root={output_root}", f"columns=[{columns}]"]
    assert main(["export_dataset", *(part for item in arguments for part in ("--set", item))]) == 64
    assert message in capsys.readouterr().err


def test_no_columns_is_no_export(wired, output_root):
    with pytest.raises(UsageError, match=r"export_dataset\.columns"):
        run_export(wired["v3.0"], output_root, columns=[])


def test_labels_of_another_dataset_are_refused(wired, output_root, capsys):
    inputs = {**wired["v3.0"], "labels": wired["v2.1"]["labels"]}
    arguments = [f"output_root={output_root}", *(f"inputs.{name}={uri}" for name, uri in inputs.items())]
    assert main(["export_dataset", *(part for item in arguments for part in ("--set", item))]) == 65
    message = capsys.readouterr().err
    assert "table labels (123 rows) was made from another dataset" in message
    assert "give the labels that were made from this dataset" in message


def test_labels_of_other_frames_are_refused(dataset, tmp_path, output_root):
    synthetic.write_recording(tmp_path / "other", episodes=2, cameras=[])
    other = execute("import_dataset", {"dataset_uri": str(tmp_path / "other")}, {}, output_root)
    frames = other.table("frames")
    keys = {name: frames.column(name).to_numpy() for name in ("episode_index", "frame_index")}
    rows = np.zeros(frames.num_rows)
    targets = publish(
        output_root, "label_returns", Kind.TARGETS, dataset, {"targets": {**keys, "value_target": rows, "reward": rows}}
    )
    with pytest.raises(DataError, match=r"table targets \(22 rows\) was made from another dataset"):
        run_export({"dataset": dataset.uri, "targets": targets.uri}, output_root, columns=["next_reward"])


def test_pistar_knows_no_unknown_outcome(tmp_path, output_root):
    synthetic.write_recording(tmp_path / "r", episodes=2, cameras=[], extra=False)
    config = {"dataset_uri": str(tmp_path / "r"), "allow_unknown_outcome": True}
    inputs = learned(str(tmp_path), execute("import_dataset", config, {}, str(tmp_path)))
    with pytest.raises(DataError, match="1 episodes have an unknown outcome\n  where: first episode 1"):
        run_export(inputs, output_root)
    assert run_export(inputs, output_root, columns=["weights"]).counts["episodes"] == 2


def test_a_prompt_that_is_not_in_the_table_is_refused(dataset, tmp_path, output_root):
    inputs = learned(str(tmp_path), dataset)
    path = storage.local_path(inputs["labels"]) / "prompts.json"
    path.write_text(json.dumps({"prompts": [TASK]}))
    with pytest.raises(DataError, match=r"prompt_index 2 is outside the prompt table\n.*\n  expected: 0 to 0"):
        run_export(inputs, output_root, columns=["kai0"])


def test_rows_that_changed_after_the_import_are_refused(recordings, tmp_path, output_root):
    path = Path(shutil.copytree(recordings["v2.1"], tmp_path / "recording"))
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path)))
    change_rows(path, 4, lambda table: table.slice(1))
    with pytest.raises(DataError, match="rows of episode 4 are incomplete or out of order"):
        run_export(inputs, output_root)


def test_types_that_do_not_agree_are_refused(tmp_path, output_root):
    for number in range(2):
        synthetic.write_recording(tmp_path / f"r{number}", episodes=1, cameras=[], version="v2.1", seed=number)
    first = execute("import_dataset", {"dataset_uri": str(tmp_path / "r0")}, {}, str(tmp_path))
    both = execute("import_dataset", {"dataset_uri": str(tmp_path / "r1")}, {"previous": first.uri}, str(tmp_path))
    inputs = learned(str(tmp_path), both)
    change_rows(tmp_path / "r1", 0, set_column("action", lambda old: pa.array(["x"] * len(old))))
    with pytest.raises(DataError, match="column action is string, fixed_size_list"):
        run_export(inputs, output_root)


def test_meta_keys_of_different_types_are_refused(tmp_path, output_root):
    synthetic.write_recording(tmp_path / "r", episodes=2, cameras=[], version="v2.1")
    synthetic.change_episodes(tmp_path / "r", lambda row: row.update(note="x" if row["episode_index"] else 1))
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(tmp_path / "r")}, {}, str(tmp_path)))
    with pytest.raises(DataError, match="hold values of different types under 'note'"):
        run_export(inputs, output_root, version="v3.0")
    assert run_export(inputs, output_root, version="v2.1").counts["episodes"] == 2


def test_a_video_lost_after_the_import_is_named(recordings, tmp_path, output_root):
    path = Path(shutil.copytree(recordings["v2.1"], tmp_path / "recording"))
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path)))
    (path / f"videos/chunk-000/{TOPVIEW}/episode_000005.mp4").unlink()
    with pytest.raises(DataError, match=r"video file not found\n  where: .*episode_000005.mp4"):
        run_export(inputs, output_root)


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
