from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import synthetic

from robolift.data.dataset import Dataset
from robolift.data.frames import DecodedFrames, pack_frames
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.stages.stage import execute


@pytest.fixture(scope="module")
def opened(dataset: Manifest) -> Dataset:
    return Dataset.open(dataset)


def test_rows_are_the_frames_in_order(opened: Dataset, tmp_path: Path) -> None:
    cameras = opened.cameras[::-1]
    packed = pack_frames(opened, cameras, size=(32, 32), folder=tmp_path)
    assert packed.shape == (opened.num_frames, 2, 32, 32, 3)
    assert isinstance(packed, np.memmap)
    assert packed.dtype == np.uint8
    assert not packed.flags.writeable
    for episode in range(opened.num_episodes):
        for position, camera in enumerate(cameras):
            rows = slice(opened.starts[episode], opened.starts[episode + 1])
            assert np.array_equal(packed[rows, position], np.stack(list(opened.video(episode, camera))))


def test_images_are_scaled_while_they_are_decoded(opened: Dataset, tmp_path: Path) -> None:
    camera = opened.cameras[0]
    packed = pack_frames(opened, [camera], size=(16, 24), folder=tmp_path)
    assert packed.shape == (opened.num_frames, 1, 16, 24, 3)
    assert np.array_equal(packed[0, 0], next(opened.video(0, camera, size=(16, 24))))


def test_workers_do_not_change_the_bytes(opened: Dataset, tmp_path: Path) -> None:
    one = pack_frames(opened, opened.cameras, size=(16, 16), folder=tmp_path / "one")
    three = pack_frames(opened, opened.cameras, size=(16, 16), folder=tmp_path / "three", num_workers=3)
    assert np.array_equal(one, three)


@pytest.mark.parametrize("padded", [True, False])
def test_frames_decoded_when_asked_for_are_the_packed_ones(opened: Dataset, tmp_path: Path, padded: bool) -> None:
    cameras, size = opened.cameras[::-1], (20, 12)
    packed = pack_frames(opened, cameras, size=size, folder=tmp_path, padded=padded)
    decoded = DecodedFrames(dataset=opened, cameras=cameras, size=size, num_workers=3, padded=padded)
    order = np.random.default_rng(0).permutation(opened.num_frames)[:40]
    for rows in (np.concatenate([order, order[:5]]), order[::-1], np.array([0]), np.array([], np.int64)):
        found = decoded[rows]
        assert found.dtype == np.uint8
        assert np.array_equal(found, packed[rows])


def test_few_videos_stay_open_however_many_sources_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robolift.data.video_decoder.OPEN_VIDEOS", 1)
    whole = None
    for seed in range(2):
        synthetic.write_recording(tmp_path / f"{seed}", episodes=1, seed=seed, cameras=[synthetic.TOPVIEW])
        inputs = {} if whole is None else {"previous": whole.uri}
        told = {"dataset_uri": str(tmp_path / f"{seed}")}
        whole = execute("import_dataset", told, inputs, str(tmp_path / "runs"))
    assert whole is not None
    dataset = pickle.loads(pickle.dumps(Dataset.open(whole)))
    here = {str(path) for path in tmp_path.rglob("*.mp4")}
    assert len(here) == 2
    for episode in range(2):
        dataset.images(episode, synthetic.TOPVIEW, np.array([1]))
    held = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _is_open(number)]
    assert len(here.intersection(held)) == 1
    pickle.dumps(dataset)


def _is_open(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def test_what_the_disk_has_no_room_for_is_refused_before_decoding(
    opened: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = opened.num_frames * 2 * 16 * 16 * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    monkeypatch.setattr(Dataset, "video", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(UsageError, match=rf"need {needed} bytes and .* has {needed - 1} free.*frame_cache: none"):
        pack_frames(opened, opened.cameras, size=(16, 16), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_packing_is_done_once(opened: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pack_frames(opened, opened.cameras, size=(16, 16), folder=tmp_path)
    monkeypatch.setattr(Dataset, "video", lambda *_, **__: pytest.fail("decoded again"))
    assert np.array_equal(pack_frames(opened, opened.cameras, size=(16, 16), folder=tmp_path), first)
    with pytest.raises(pytest.fail.Exception, match="decoded again"):
        pack_frames(opened, opened.cameras, size=(16, 18), folder=tmp_path)


def test_a_failure_leaves_nothing_that_looks_finished(
    opened: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Dataset.video

    def broken(self: Dataset, episode: int, camera: str, **options: Any) -> Any:
        frames = list(original(self, episode, camera, **options))
        return iter(frames[:-1] if episode == 2 else frames)

    monkeypatch.setattr(Dataset, "video", broken)
    with pytest.raises(DataError, match=r"has \d+ frames[\s\S]*episode 2"):
        pack_frames(opened, opened.cameras, size=(16, 16), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wrong_requests_are_refused_before_any_work(opened: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no camera observation\.images\.left[\s\S]*among observation"):
        pack_frames(opened, ["observation.images.left"], size=(16, 16), folder=tmp_path)
    camera = opened.cameras[0]
    for cameras in ([], [camera, camera]):
        with pytest.raises(UsageError, match="at least one, each once"):
            pack_frames(opened, cameras, size=(16, 16), folder=tmp_path)
    with pytest.raises(UsageError, match="0x16"):
        pack_frames(opened, [camera], size=(0, 16), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_under_the_name_is_noticed(opened: Dataset, tmp_path: Path) -> None:
    pack_frames(opened, opened.cameras, size=(16, 16), folder=tmp_path)
    (path,) = tmp_path.iterdir()
    np.save(path, np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match=r"frame cache of shape \(2, 2\)"):
        pack_frames(opened, opened.cameras, size=(16, 16), folder=tmp_path)
