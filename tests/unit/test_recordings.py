"""What is read of a dataset before it is planned for: its meta folder, a few files' sizes, no video."""

from __future__ import annotations

import json
import shutil
import tracemalloc

import coded_dataset
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coded_dataset import TOP, WRIST

from robolift import storage
from robolift.data import dataset, lerobot_format
from robolift.errors import DataError
from robolift.planner import recordings
from robolift.stages.stage import execute


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """One dataset of four episodes, 43 frames in all, in each version."""
    return coded_dataset.write_packed(tmp_path_factory.mktemp("recordings"))


def sizes(root, folder):
    return [path.stat().st_size for path in (root / folder).rglob("*") if path.is_file()]


def test_separate_files_are_counted_by_the_meta_folder_alone(packed):
    found = recordings.read(str(packed["v2.1"]))
    assert (found.episodes, found.frames, found.fps, found.tasks) == (4, 43, 20.0, 2)
    assert (found.data_files, found.video_files) == (4, 8)
    assert found.data_bytes == sum(sizes(packed["v2.1"], "data"))
    assert found.video_bytes == sum(sizes(packed["v2.1"], "videos"))
    assert [(camera.name, camera.codec) for camera in found.cameras] == [(TOP, "h264"), (WRIST, "h264")]
    assert (found.cameras[1].height, found.cameras[1].width) == (32, 32)
    assert found.pictures == 86


def test_packed_files_are_counted_by_the_episodes_table(packed):
    found = recordings.read(str(packed["v3.0"]))
    data, videos = sizes(packed["v3.0"], "data"), sizes(packed["v3.0"], "videos")
    assert (found.data_files, found.video_files) == (len(data), len(videos))
    assert min(found.data_files, found.video_files) > 1
    assert (found.data_bytes, found.video_bytes) == (sum(data), sum(videos))


def test_an_import_is_all_of_its_sources(packed, tmp_path):
    root, rules = str(tmp_path / "runs"), {"outcome_key": "outcome"}
    first = execute("import_dataset", {"dataset_uri": str(packed["v2.1"]), **rules}, {}, root)
    other = coded_dataset.write_dataset(tmp_path / "more", "v3.0", lengths=(11,))
    both = execute("import_dataset", {"dataset_uri": str(other), **rules}, {"previous": first.uri}, root)
    found = recordings.read(both.uri)
    assert (found.episodes, found.frames, found.data_files, found.video_files) == (5, 54, 5, 10)


def test_a_source_below_the_root_is_found_beside_the_import(packed, tmp_path):
    source = tmp_path / "record" / "abc"
    source.parent.mkdir()
    source.symlink_to(packed["v2.1"])
    folder = tmp_path / "import_dataset" / "def"
    folder.mkdir(parents=True)
    document = {"sources": [{"uri": "../../record/abc"}], "tasks": ["a"], "cameras": [TOP]}
    (folder / "dataset.json").write_text(json.dumps(document))
    found = recordings.read(str(folder))
    assert (found.frames, found.tasks, [camera.name for camera in found.cameras]) == (43, 1, [TOP])


def test_more_of_the_same_grows_alike(packed):
    found = recordings.read(str(packed["v2.1"]))
    grown = found.scaled(found.hours * 10)
    assert grown.hours == pytest.approx(found.hours * 10)
    assert (grown.frames, grown.episodes, grown.video_files) == pytest.approx((430, 40, 80))
    assert (grown.cameras, grown.tasks, grown.fps) == (found.cameras, 2, 20.0)


def test_a_hundred_thousand_episodes_take_no_more_memory(tmp_path):
    count, camera = 100_000, "observation.images.top"
    places = {
        f"{kind}/{key}": pa.array([number // per % 1000 if key == "file_index" else 0 for number in range(count)])
        for kind, per in (("data", 1000), (f"videos/{camera}", 500))
        for key in ("chunk_index", "file_index")
    }
    (tmp_path / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table(places), tmp_path / "meta/episodes/chunk-000/file-000.parquet")
    picture = {"dtype": "video", "shape": [3, 480, 640], "names": ["channels", "height", "width"]}
    info = {
        "codebase_version": "v3.0",
        "fps": 30,
        "total_episodes": count,
        "total_frames": 90_000_000,
        "total_tasks": 3,
        "features": {camera: picture},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    for folder, files in (("data", 100), (f"videos/{camera}", 200)):
        (tmp_path / folder / "chunk-000").mkdir(parents=True)
        for number in range(files):
            (tmp_path / folder / f"chunk-000/file-{number:03d}.{'mp4' if camera in folder else 'parquet'}").touch()
    tracemalloc.start()
    found = recordings.read(str(tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.data_files, found.video_files, found.video_bytes) == (100, 200, 0.0)
    assert (found.cameras[0].height, found.cameras[0].width, found.cameras[0].codec) == (480, 640, "")
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"codebase_version": "v1.6"}, "version v1.6"),
        ({"total_frames": 0}, "0 frames"),
        ({"total_episodes": None}, "how much there is"),
        ({"fps": 0}, "0.0 frames a second"),
        ({"features": {TOP: {"dtype": "video", "shape": [3]}}}, "how much there is"),
        ({"data_path": None}, "how much there is"),
    ],
)
def test_a_meta_folder_that_does_not_say_is_refused(packed, tmp_path, change, said):
    info = json.loads((packed["v3.0"] / "meta/info.json").read_text())
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text(json.dumps({**info, **change}))
    with pytest.raises(DataError, match=said):
        recordings.read(str(tmp_path))


def test_a_broken_episodes_table_is_refused(packed, tmp_path):
    target = tmp_path / "meta/episodes/chunk-000"
    target.mkdir(parents=True)
    (tmp_path / "meta/info.json").write_bytes((packed["v3.0"] / "meta/info.json").read_bytes())
    (target / "file-000.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(DataError, match="not readable as Parquet"):
        recordings.read(str(tmp_path))


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(DataError, match="no dataset"):
        recordings.read(storage.normalize(str(tmp_path)))


def test_a_file_that_is_not_there_is_told(packed, tmp_path):
    shutil.copytree(packed["v2.1"], tmp_path / "copy")
    next((tmp_path / "copy").rglob("*.mp4")).unlink()
    with pytest.raises(DataError, match="a file of the dataset is not there"):
        recordings.read(str(tmp_path / "copy"))


def test_names_are_those_of_the_reader_which_the_planner_does_not_import():
    names = ("INFO_FILE", "EPISODES_FOLDER", "V21", "V30")
    assert all(getattr(recordings, name) == getattr(lerobot_format, name) for name in names)
    assert recordings.DATASET_FILE == dataset.DATASET_FILE
