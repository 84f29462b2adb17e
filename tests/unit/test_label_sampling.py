"""Moments: evenly spread, first and last among them; pictures: the right frames, scaled down and never up."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from labellers import labeller

from robolift.annotators.sampling import few_moments, moments, prefixes, read_pictures, scaled
from robolift.data.dataset import Dataset
from robolift.errors import DataError


def test_moments_are_rounded_linspace():
    assert moments(10, 4) == (0, 3, 6, 9)
    assert moments(100, 8) == (0, 14, 28, 42, 57, 71, 85, 99)
    assert moments(6, 4) == (0, 2, 3, 5)  # 0, 1.67, 3.33, 5
    assert moments(3, 8) == (0, 1, 2)
    assert moments(8, 8) == tuple(range(8))
    assert moments(1, 2) == (0,)


@given(st.integers(1, 5000), st.integers(2, 128))
def test_moments_are_distinct_ascending_and_end_at_both_ends(length, count):
    found = moments(length, count)
    assert len(found) == min(length, count)
    assert found[0] == 0
    assert found[-1] == length - 1
    assert list(found) == sorted(set(found))


def test_prefixes_grow_from_the_first_frame_to_the_whole_episode():
    found = prefixes(labeller(num_prefixes=3, max_frames=3), 9)
    assert found == [(0,), (0, 2, 4), (0, 4, 8)]


def test_sizes_shrink_by_their_longest_side_and_never_grow():
    assert scaled((480, 640), 448) == (336, 448)
    assert scaled((640, 480), 448) == (448, 336)
    assert scaled((240, 320), 448) == (240, 320)
    assert scaled((448, 448), 448) == (448, 448)
    assert scaled((2, 2000), 32) == (1, 32)


def test_few_moments_with_several_cameras_are_warned_of():
    two = {"cameras": ("a", "b")}
    assert "2 moments are shown with 2 cameras" in few_moments(labeller("rubric", max_frames=2, **two))
    assert "2 moments are shown" in few_moments(labeller("pairwise", max_frames=8, **two))
    assert few_moments(labeller("rubric", max_frames=4, **two)) == ""
    assert few_moments(labeller("rubric", max_frames=2)) == ""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A dataset of two episodes with 64x64 pictures."""
    from robolift.stages.stage import execute

    path = tmp_path_factory.mktemp("large")
    synthetic.write_recording(path / "recording", episodes=2, size=64)
    made = execute("import_dataset", {"dataset_uri": str(path / "recording")}, {}, str(path / "runs"))
    return Dataset.open(made)


def test_pictures_are_the_frames_asked_for(large):
    cameras = (synthetic.BEHIND, synthetic.TOPVIEW)
    found = read_pictures(large, 1, labeller(cameras=cameras), {5, 0, 2})
    assert sorted(found) == sorted((frame, camera) for frame in (0, 2, 5) for camera in cameras)
    for camera in cameras:
        frames = list(large.video(1, camera))
        for frame in (0, 2, 5):
            np.testing.assert_array_equal(found[frame, camera], frames[frame])


def test_large_pictures_are_averaged_down(large):
    camera = synthetic.TOPVIEW
    small = read_pictures(large, 0, labeller(image_side=32), [3])[3, camera]
    whole = list(large.video(0, camera))[3].astype(float)
    assert small.shape == (32, 32, 3)
    mean = whole.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - mean).mean() < 4
    assert np.abs(small - whole[::2, ::2]).mean() > np.abs(small - mean).mean()


def test_decoding_ends_at_the_last_frame_wanted_and_reads_each_video_once(large, monkeypatch):
    seen = []
    video = Dataset.video

    def watched(self, episode, camera, *, size=None):
        for number, pixels in enumerate(video(self, episode, camera, size=size)):
            seen.append((camera, number))
            yield pixels

    monkeypatch.setattr(Dataset, "video", watched)
    read_pictures(large, 1, labeller(), [1, 3])
    assert seen == [(synthetic.TOPVIEW, number) for number in range(4)]


def test_a_video_that_ends_early_is_an_error(tmp_path):
    from robolift.stages.stage import execute

    path = tmp_path / "recording"
    synthetic.write_recording(path, episodes=2, version="v2.1", cameras=[synthetic.TOPVIEW])
    made = execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path / "runs"))
    dataset = Dataset.open(made)
    last = int(dataset.episodes.column("length")[1].as_py()) - 1
    videos = sorted(path.glob("videos/**/*.mp4"))
    videos[1].write_bytes(videos[0].read_bytes())
    with pytest.raises(DataError, match=r"changed or lost|video ends before"):
        read_pictures(dataset, 1, labeller(), [0, last])
