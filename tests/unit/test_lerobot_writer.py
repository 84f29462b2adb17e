from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coded_dataset import CAMERAS, FEATURES, FPS, LENGTHS, TASKS, TOP, WRIST, columns, write_dataset
from coded_video import SIZE, coded_frames, coded_image, read_code

from robolift.data import lerobot_files
from robolift.data.lerobot import LeRobotReader
from robolift.data.lerobot_writer import FeatureSpec, LeRobotWriter
from robolift.data.statistics import QUANTILES
from robolift.data.video import AV1, H264, VideoClip
from robolift.errors import DataError, UsageError

VERSIONS = ("v2.1", "v3.0")


def files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def writer(path: Path, **options: Any) -> LeRobotWriter:
    chosen = {"fps": FPS, "features": FEATURES, "cameras": CAMERAS, "robot_type": "sawyer", **options}
    return LeRobotWriter(path, **chosen)


def videos(episode: int, length: int) -> dict[str, Any]:
    return {camera: coded_frames(episode, length, size) for camera, size in CAMERAS.items()}


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_v21_has_a_file_for_each_episode_and_camera(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d", "v2.1", chunk_size=3)
    expected = ["meta/episodes.jsonl", "meta/episodes_stats.jsonl", "meta/info.json", "meta/tasks.jsonl"]
    for episode, chunk in enumerate((0, 0, 0, 1)):
        expected.append(f"data/chunk-{chunk:03d}/episode_{episode:06d}.parquet")
        expected += [f"videos/chunk-{chunk:03d}/{camera}/episode_{episode:06d}.mp4" for camera in CAMERAS]
    assert list(files(root)) == sorted(expected)
    info = json.loads((root / "meta/info.json").read_text())
    features = info.pop("features")
    assert info == {
        "codebase_version": "v2.1",
        "robot_type": "sawyer",
        "total_episodes": 4,
        "total_frames": 43,
        "total_tasks": 2,
        "total_videos": 8,
        "total_chunks": 2,
        "chunks_size": 3,
        "fps": 20,
        "splits": {"train": "0:4"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    assert list(features) == [*FEATURES, *CAMERAS, "timestamp", "frame_index", "episode_index", "index", "task_index"]
    assert features["observation.state"] == {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    assert features["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}
    assert features[TOP] == {
        "dtype": "video",
        "shape": [32, 64, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": 32,
            "video.width": 64,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": 20,
            "video.channels": 3,
            "has_audio": False,
        },
    }
    assert jsonl(root / "meta/tasks.jsonl") == [{"task_index": i, "task": task} for i, task in enumerate(TASKS)]
    assert jsonl(root / "meta/episodes.jsonl")[1] == {
        "episode_index": 1,
        "tasks": ["open the drawer"],
        "length": 9,
        "outcome": "success",
        "seed": 101,
    }


def test_v30_packs_episodes_into_files_by_size(tmp_path: Path) -> None:
    root = write_dataset(
        tmp_path / "d", "v3.0", lengths=[10] * 7, data_file_mb=0.003, video_file_mb=0.004, chunk_size=2
    )
    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [
        (10 * i, 10 * i + 10) for i in range(7)
    ]
    for prefix in ("data", f"videos/{TOP}"):
        places = [(row[f"{prefix}/chunk_index"], row[f"{prefix}/file_index"]) for row in rows]
        used = list(dict.fromkeys(places))
        assert used == [(0, 0), (0, 1), (1, 0), (1, 1)][: len(used)]
        assert len(used) >= 3  # several files, in more than one chunk
        assert max(places.count(place) for place in used) >= 2  # several episodes in a file
        folder, suffix = (root / "data", "parquet") if prefix == "data" else (root / prefix, "mp4")
        for chunk, file in used:
            assert (folder / f"chunk-{chunk:03d}/file-{file:03d}.{suffix}").is_file()
    for row, before in zip(rows[1:], rows, strict=False):
        same = row[f"videos/{TOP}/file_index"] == before[f"videos/{TOP}/file_index"]
        start = before[f"videos/{TOP}/to_timestamp"] if same else 0.0
        assert row[f"videos/{TOP}/from_timestamp"] == start
        assert row[f"videos/{TOP}/to_timestamp"] == pytest.approx(start + 0.5)
    assert not list(root.rglob(".clips*"))
    reader = LeRobotReader.open(str(root))
    for episode in range(7):
        for camera in CAMERAS:
            found = [read_code(image) for image in reader.video(episode, camera)]
            assert found == [(episode, frame) for frame in range(10)]


def test_v30_closes_a_data_file_after_so_many_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_files, "MOST_ROW_GROUPS", 3)
    root = write_dataset(tmp_path / "d", "v3.0", lengths=[10] * 7)
    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["data/file_index"] for row in rows] == [0, 0, 0, 1, 1, 1, 2]
    assert [len(LeRobotReader.open(str(root)).table(episode)) for episode in range(7)] == [10] * 7


def test_v30_files_stay_below_their_limit(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d", "v3.0", lengths=[10] * 7, video_file_mb=0.006)
    sizes = [path.stat().st_size for path in root.rglob("*.mp4")]
    assert max(sizes) < 0.006 * 2**20
    whole = write_dataset(tmp_path / "w", "v3.0", lengths=[10] * 7)
    assert len(list(whole.rglob("*.mp4"))) == 2
    assert len(list(whole.rglob("data/**/*.parquet"))) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_rows_have_lerobots_types_and_values(tmp_path: Path, version: str) -> None:
    root = write_dataset(tmp_path / "d", version)
    path = sorted((root / "data").rglob("*.parquet"))[0]
    schema = pq.read_schema(path)
    assert schema.field("observation.state").type == pa.list_(pa.float32(), 3)
    assert schema.field("control_mode").type == pa.string()
    assert schema.field("done").type == pa.bool_()
    assert schema.field("timestamp").type == pa.float32()
    described = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    kind = "List" if version == "v3.0" else "Sequence"
    state = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 3, "_type": kind}
    assert described["observation.state"] == state
    assert described["control_mode"] == {"dtype": "string", "_type": "Value"}
    row = pq.read_table(path).slice(11, 1).to_pylist()[0]  # last frame of the first episode
    assert row == {
        "observation.state": [0.0, 11.0, pytest.approx(1.1)],
        "action": [11.0, 0.5],
        "intervention": 0,
        "control_mode": "autonomous",
        "done": True,
        "timestamp": pytest.approx(0.55),
        "frame_index": 11,
        "episode_index": 0,
        "index": 11,
        "task_index": 0,
    }


@pytest.mark.parametrize("codec", [H264, AV1])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_episodes_give_the_same_bytes(tmp_path: Path, version: str, codec: Any) -> None:
    first, second = (
        files(write_dataset(tmp_path / name, version, codec=codec, video_file_mb=0.006)) for name in ("a", "b")
    )
    assert first == second


def test_statistics_are_those_of_the_data(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d", "v3.0")
    stats = json.loads((root / "meta/stats.json").read_text())
    states = np.concatenate([columns(i, n)["observation.state"] for i, n in enumerate(LENGTHS)]).astype(np.float32)
    found = stats["observation.state"]
    np.testing.assert_allclose(found["mean"], states.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["std"], states.std(axis=0), rtol=1e-6)
    for name, q in QUANTILES.items():
        np.testing.assert_allclose(found[name], np.quantile(states.astype(float), q, axis=0), rtol=1e-6)
    assert found["count"] == [43]
    assert stats["frame_index"]["max"] == [14]
    assert "control_mode" not in stats
    images = np.stack([coded_image(i, f) for i, n in enumerate(LENGTHS) for f in range(n)]) / 255
    np.testing.assert_allclose(np.array(stats[TOP]["mean"]).ravel(), images.mean(axis=(0, 1, 2)), rtol=1e-9)
    assert np.shape(stats[TOP]["q99"]) == (3, 1, 1)
    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert rows[2]["stats/frame_index/max"] == [14]
    assert rows[2]["stats/observation.state/mean"] == pytest.approx([2, 7, 0.7])
    v21 = write_dataset(tmp_path / "e", "v2.1")
    per_episode = jsonl(v21 / "meta/episodes_stats.jsonl")
    assert per_episode[2]["episode_index"] == 2
    assert per_episode[2]["stats"]["observation.state"]["mean"] == pytest.approx([2, 7, 0.7])
    assert per_episode[2]["stats"][WRIST]["count"] == [15]


@pytest.mark.parametrize("version", VERSIONS)
def test_tasks_may_differ_by_frame_and_be_given_an_order(tmp_path: Path, version: str) -> None:
    built = writer(tmp_path / "d", version=version, tasks=["negative", "positive", "never used"], cameras={})
    per_frame = ["positive", "negative", "other", "positive"]
    built.add_episode(columns(0, 4), videos={}, task="unused", frame_tasks=per_frame)
    built.finish()
    reader = LeRobotReader.open(str(tmp_path / "d"))
    assert reader.tasks == ("negative", "positive", "never used", "other")
    assert reader.table(0, ["task_index"]).column("task_index").to_pylist() == [1, 0, 3, 1]
    assert reader.episodes[0].tasks == ("positive", "negative", "other")
    assert reader.cameras == ()
    assert json.loads((tmp_path / "d/meta/info.json").read_text())["video_path"] is None


@pytest.mark.parametrize("version", VERSIONS)
def test_extra_keys_reach_info_and_episodes(tmp_path: Path, version: str) -> None:
    root = write_dataset(tmp_path / "d", version, extra_info={"robolift": {"simulator": "metaworld", "control_hz": 40}})
    reader = LeRobotReader.open(str(root))
    assert reader.info["robolift"] == {"simulator": "metaworld", "control_hz": 40}
    assert [meta.extra for meta in reader.episodes[:2]] == [
        {"outcome": "failure", "seed": 100},
        {"outcome": "success", "seed": 101},
    ]


def test_an_extra_key_that_only_some_episodes_have_is_null_elsewhere(tmp_path: Path) -> None:
    built = writer(tmp_path / "d", version="v3.0", cameras={})
    built.add_episode(columns(0, 3), videos={}, task="t", extra={"seed": 7})
    built.add_episode(columns(1, 3), videos={}, task="t")
    built.finish()
    assert [meta.extra for meta in LeRobotReader.open(str(tmp_path / "d")).episodes] == [{"seed": 7}, {"seed": None}]


def test_clips_are_copied_without_encoding_again(tmp_path: Path) -> None:
    source = LeRobotReader.open(str(write_dataset(tmp_path / "s", "v2.1")))
    for version in VERSIONS:
        built = writer(tmp_path / version, version=version, codec=AV1)
        for episode, length in enumerate(LENGTHS):
            copied = {camera: source.clip(episode, camera) for camera in CAMERAS}
            built.add_episode(columns(episode, length), videos=copied, task="t")
        built.finish()
        reader = LeRobotReader.open(str(tmp_path / version))
        assert reader.features[TOP]["info"]["video.codec"] == "h264"  # the source's, not the writer's
        for episode in range(len(LENGTHS)):
            for camera in CAMERAS:
                before, after = (np.stack(list(r.video(episode, camera))) for r in (source, reader))
                assert np.array_equal(before, after)
    packed = LeRobotReader.open(str(tmp_path / "v3.0"))
    back = writer(tmp_path / "back", version="v2.1")
    for episode, length in enumerate(LENGTHS):
        back.add_episode(columns(episode, length), videos={c: packed.clip(episode, c) for c in CAMERAS}, task="t")
    back.finish()
    image = next(LeRobotReader.open(str(tmp_path / "back")).video(2, WRIST))
    assert np.array_equal(image, next(source.video(2, WRIST)))


def test_clips_that_begin_between_keyframes_are_encoded_again(tmp_path: Path) -> None:
    source = LeRobotReader.open(str(write_dataset(tmp_path / "s", "v2.1", lengths=[12], cameras={TOP: SIZE})))
    whole = source.clip(0, TOP)
    built = writer(tmp_path / "d", version="v3.0", cameras={TOP: SIZE})
    clip = VideoClip(whole.uri, 3 / FPS, 6, FPS)
    built.add_episode(columns(0, 6), videos={TOP: clip}, task="t")
    built.finish()
    found = [read_code(image) for image in LeRobotReader.open(str(tmp_path / "d")).video(0, TOP)]
    assert found == [(0, frame) for frame in range(3, 9)]


def test_clips_of_different_set_up_go_into_different_files(tmp_path: Path) -> None:
    h264, av1 = (
        LeRobotReader.open(str(write_dataset(tmp_path / codec.name, "v2.1", lengths=[6], codec=codec)))
        for codec in (H264, AV1)
    )
    built = writer(tmp_path / "d", version="v3.0")
    for source in (h264, h264, av1, h264):
        built.add_episode(columns(0, 6), videos={camera: source.clip(0, camera) for camera in CAMERAS}, task="t")
    built.finish()
    reader = LeRobotReader.open(str(tmp_path / "d"))
    numbers = [(meta.videos[TOP].path[-7:-4], meta.videos[TOP].start_s) for meta in reader.episodes]
    assert numbers == [("000", 0.0), ("000", 0.3), ("001", 0.0), ("002", 0.0)]
    assert [len(list(reader.video(episode, TOP))) for episode in range(4)] == [6] * 4


def test_nothing_looks_finished_before_finish(tmp_path: Path) -> None:
    built = writer(tmp_path / "d", version="v3.0")
    built.add_episode(columns(0, 3), videos=videos(0, 3), task="t")
    with pytest.raises(DataError, match=r"file not found[\s\S]*info\.json"):
        LeRobotReader.open(str(tmp_path / "d"))
    built.finish()
    assert len(LeRobotReader.open(str(tmp_path / "d")).episodes) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "v2.0"}, r"no LeRobot version 'v2\.0'; there are: v2\.1, v3\.0"),
        ({"fps": 0}, "fps is 0"),
        ({"features": {}}, "at least one column"),
        ({"features": {"timestamp": FeatureSpec("float32")}}, "makes these columns itself.*timestamp"),
        ({"features": {TOP: FeatureSpec("float32")}}, "a camera has the name"),
        ({"features": {"a/b": FeatureSpec("float32")}}, "no '/'"),
    ],
)
def test_wrong_declarations_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        writer(tmp_path / "d", **options)


def test_wrong_features_are_refused() -> None:
    for arguments, message in (
        (("float",), "no feature dtype 'float'"),
        (("float32", (2, 3)), r"feature shape \(2, 3\)"),
        (("float32", (2,), ("a",)), "1 names for a feature of width 2"),
        (("string", (2,)), "a string feature has shape"),
    ):
        with pytest.raises(UsageError, match=message):
            FeatureSpec(*arguments)


def test_a_dataset_is_never_written_over_another(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "precious").touch()
    with pytest.raises(UsageError, match="not an empty folder"):
        writer(tmp_path / "d")
    with pytest.raises(UsageError, match="no episode was written"):
        writer(tmp_path / "e").finish()


def _change(**changes: Any) -> dict[str, Any]:
    """Arguments of a good episode of four frames, with changes; None drops a column."""
    rows = {**columns(0, 4), **changes.pop("columns", {})}
    given = {"videos": videos(0, 4), "task": "t", **changes}
    return {"columns": {name: values for name, values in rows.items() if values is not None}, **given}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": {"done": None}}, r"columns differ from the declared ones in \['done'\]"),
        ({"columns": {"more": np.zeros(4)}}, r"columns differ .* \['more'\]"),
        ({"columns": {"done": np.zeros(5, bool)}}, "the same number of rows"),
        ({"columns": {"action": np.zeros((4, 3))}}, r"column action has shape \(4, 3\), expected \(4, 2\)"),
        ({"columns": {"action": np.zeros(4)}}, r"column action has shape \(4,\)"),
        ({"frame_tasks": ["a"]}, "the same number of rows"),
        ({"videos": {TOP: coded_frames(0, 4)}}, r"cameras differ .*wrist"),
        ({"extra": {"length": 3}}, "belongs to LeRobot"),
        ({"extra": {"stats/x": 3}}, "belongs to LeRobot"),
        ({"extra": {"notes": ["a"]}}, "'notes' is list"),
    ],
)
def test_wrong_episodes_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    built = writer(tmp_path / "d")
    arguments = _change(**change)
    with pytest.raises(UsageError, match=message):
        built.add_episode(arguments.pop("columns"), **arguments)


@pytest.mark.parametrize(("count", "found"), [(3, "only 3"), (5, "more than 4")])
def test_a_video_of_another_length_is_refused(tmp_path: Path, count: int, found: str) -> None:
    built = writer(tmp_path / "d")
    given = {**videos(0, 4), WRIST: coded_frames(0, count, (32, 32))}
    with pytest.raises(DataError, match=rf"a video has {found} frames[\s\S]*episode 0, camera {WRIST}"):
        built.add_episode(columns(0, 4), videos=given, task="t")


def test_a_failed_episode_leaves_no_trace_in_the_dataset(tmp_path: Path) -> None:
    built = writer(tmp_path / "d", version="v3.0")
    with pytest.raises(DataError, match="only 3"):
        built.add_episode(columns(9, 4), videos={**videos(9, 4), WRIST: coded_frames(9, 3, (32, 32))}, task="lost")
    for episode, length in enumerate(LENGTHS):
        built.add_episode(
            columns(episode, length),
            videos=videos(episode, length),
            task=TASKS[episode % 2],
            extra={"outcome": "success" if episode % 2 else "failure", "seed": 100 + episode},
        )
    built.finish()
    assert files(tmp_path / "d") == files(write_dataset(tmp_path / "clean", "v3.0"))


def test_clips_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = LeRobotReader.open(str(write_dataset(tmp_path / "s", "v2.1", lengths=[6])))
    built = writer(tmp_path / "d")
    swapped = {TOP: source.clip(0, WRIST), WRIST: source.clip(0, TOP)}
    with pytest.raises(UsageError, match="of 32x32 does not fit"):
        built.add_episode(columns(0, 6), videos=swapped, task="t")
    with pytest.raises(UsageError, match="does not fit"):
        built.add_episode(columns(0, 5), videos={c: source.clip(0, c) for c in CAMERAS}, task="t")


def test_a_column_without_any_number_is_refused(tmp_path: Path) -> None:
    built = writer(tmp_path / "d", cameras={})
    rows = {**columns(0, 4), "action": np.full((4, 2), np.nan)}
    with pytest.raises(DataError, match="episode 0, column action"):
        built.add_episode(rows, videos={}, task="t")
