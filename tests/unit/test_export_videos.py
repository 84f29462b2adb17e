"""The videos of an export: copied where that will do, cut or encoded again where it will not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from exported_dataset import (
    CUTS,
    folder,
    info_of,
    learn_from,
    learned,
    opened,
    record_both,
    run_export,
    tree,
)
from synthetic import BEHIND, TOPVIEW

from robolift.data.lerobot import LeRobotReader
from robolift.data.video import H264, Codec, encode_video, probe
from robolift.errors import DataError
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


def test_a_video_lost_after_the_import_is_named(recordings, tmp_path, output_root):
    path = Path(shutil.copytree(recordings["v2.1"], tmp_path / "recording"))
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path)))
    (path / f"videos/chunk-000/{TOPVIEW}/episode_000005.mp4").unlink()
    with pytest.raises(DataError, match=r"video file not found\n  where: .*episode_000005.mp4"):
        run_export(inputs, output_root)
