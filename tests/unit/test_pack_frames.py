"""The stage, and what training and prediction make of its output."""

from __future__ import annotations

import logging
import shutil
from typing import Any

import numpy as np
import pytest
import synthetic

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.data.frame_cache import SHARDS, View, open_cache
from robolift.data.frame_packing import Kept
from robolift.data.frames import PackedFrames, open_frames, pack_frames
from robolift.errors import DataError, UsageError
from robolift.stages.frame_views import view_of
from robolift.stages.frames_input import input_identity
from robolift.stages.preflight import find_problems
from robolift.stages.stage import execute, load_inputs, parse_config, plan
from robolift.value_model import checkpoint, train

QUICK = {"image_size": [32, 32], "steps": 4, "batch_size": 8, "warmup_steps": 1, "val_fraction": 0.25}
SEEN = {"size": [32, 32], "num_workers": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def pack(dataset, root):
    """Pack the frames of the dataset; equal calls give one output."""
    return lambda **config: execute("pack_frames", {**SEEN, **config}, {"dataset": dataset.uri}, root)


@pytest.fixture(scope="module")
def targets(dataset, root):
    return execute("label_returns", {}, {"dataset": dataset.uri}, root)


def test_what_a_cache_says_of_itself(dataset, pack):
    opened = Dataset.open(dataset)
    raw = pack(format="raw")
    pixels = opened.num_frames * 2 * 32 * 32 * 3
    assert raw.counts == {"frames": opened.num_frames, "cameras": 2, "shards": 1, "bytes": pixels}
    assert {name.partition("/")[0] for name in storage.read_json(raw.file("files.json"))} == {
        *("frames.json", "index.npy", "shards")
    }
    small = pack(format="jpeg")
    assert pack(format="jpeg", num_workers=2).digest == small.digest
    assert small.counts["bytes"] < pixels / 4
    view = View(cameras=opened.cameras, size=(32, 32), padded=False)
    assert open_cache(small, view, num_frames=opened.num_frames) is not None


def test_without_cameras_there_is_nothing_to_pack(dataset, pack):
    nothing = pack(cameras=[])
    assert nothing.counts == {"frames": dataset.counts["frames"], "cameras": 0, "shards": 0, "bytes": 0}
    view = View(cameras=(synthetic.TOPVIEW,), size=(32, 32), padded=False)
    assert open_cache(nothing, view, num_frames=dataset.counts["frames"]) is None


def test_wrong_requests_are_refused(pack):
    with pytest.raises(DataError, match=r"no camera observation\.images\.left"):
        pack(cameras=["observation.images.left"])
    with pytest.raises(UsageError, match="each once"):
        pack(cameras=[synthetic.TOPVIEW, synthetic.TOPVIEW])
    for wrong, told in (
        ({"size": [0, 32]}, r"pack_frames\.size\.0"),
        ({"format": "webp"}, r"pack_frames\.format"),
        ({"shard_mb": 1e-7}, r"pack_frames\.shard_mb"),
        ({"quantizer": 5}, "quantizer is 5, and format raw has none; set format: jpeg"),
    ):
        with pytest.raises(UsageError, match=told):
            pack(**wrong)


def test_a_run_can_leave_the_cache_out(dataset, targets, pack, root, tmp_path):
    nothing = pack(format="none", cameras=["no/such"], quantizer=5)
    assert nothing.counts == {"frames": dataset.counts["frames"], "cameras": 0, "shards": 0, "bytes": 0}
    assert input_identity("frames", [nothing]) is None
    inputs = {"dataset": dataset.uri, "targets": targets.uri}
    bare = execute("train_value", QUICK, inputs, root)
    given = execute("train_value", QUICK, {**inputs, "frames": nothing.uri}, str(tmp_path))
    assert (given.digest, given.files) == (bare.digest, bare.files)


def test_what_the_disk_has_no_room_for_is_refused_before_anything_is_decoded(dataset, pack, tmp_path, monkeypatch):
    work = {**SEEN, "shard_mb": 0.1}, {"dataset": dataset.uri}, str(tmp_path)
    frames, expected = dataset.counts["frames"], pack(shard_mb=0.1)
    needed, usage = frames * 2 * 32 * 32 * 3, shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with monkeypatch.context() as patched:
        patched.setattr(Dataset, "video", lambda *_, **__: pytest.fail("decoded"))
        told = rf"packing {frames} frames [\s\S]*format: jpeg, [\s\S]*or none[\s\S]*TMPDIR"
        with pytest.raises(UsageError, match=told):
            execute("pack_frames", *work)
    with monkeypatch.context() as patched:  # a run that is stopped when it has kept a part
        add = Kept.add
        patched.setattr(Kept, "add", lambda *part: (add(*part), pytest.fail("stopped")))
        patched.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(pytest.fail.Exception, match="stopped"):
            execute("pack_frames", *work)
    assert execute("pack_frames", *work).files == expected.files


@pytest.mark.parametrize("place", ["disk", "store"])
def test_who_is_done_first_takes_nothing_from_another_who_packs_the_same(
    dataset, pack, tmp_path, monkeypatch, request, place
):
    root = request.getfixturevalue("s3") if place == "store" else str(tmp_path)
    small = {**SEEN, "shard_mb": 0.1}
    work = {"config": small, "inputs": {"dataset": dataset.uri}, "output_root": root}
    others: list[Any] = []
    add = Kept.add

    def slow(self: Kept, number: int, *part: Any) -> None:
        """Let another do everything before a part is kept, and a third find it done when it is."""
        if others:
            add(self, number, *part)
            return
        others.append("begun")
        others.append(execute("pack_frames", **work))
        add(self, number, *part)
        others.append(execute("pack_frames", **work))

    monkeypatch.setattr(Kept, "add", slow)
    outer = execute("pack_frames", **work)
    expected = pack(shard_mb=0.1)
    assert expected.counts["shards"] > 2
    for found in (outer, *others[1:]):
        assert (found.digest, found.files) == (expected.digest, expected.files)
    assert storage.list_files(storage.join(root, "_work")) == []


def test_a_place_that_goes_while_a_part_is_kept_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "cache" / SHARDS).mkdir(parents=True)
    (tmp_path / "cache" / SHARDS / "name").write_bytes(b"pictures")
    kept = Kept(work_uri=str(tmp_path / "work"), folder=tmp_path / "cache")

    def swept(*_: Any, **__: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    for place in ("tempfile.mkstemp", "os.replace", "shutil.copyfile"):
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        with monkeypatch.context() as patched:
            patched.setattr(place, swept)
            if place == "shutil.copyfile":
                patched.setattr("os.link", swept)
            kept.add(0, [("name", 8)], b"index")
        assert kept.take(0) is None
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="Not a directory"):
        Kept(work_uri=str(tmp_path / "file"), folder=tmp_path / "cache").add(0, [("name", 8)], b"index")
    kept.add(0, [], b"index")
    assert kept.take(0) == ([], b"index")


def test_training_and_prediction_from_lossless_frames_are_the_work_without_them(
    dataset, targets, pack, root, tmp_path, monkeypatch
):
    inputs = {"dataset": dataset.uri, "targets": targets.uri}
    trained = execute("train_value", QUICK, inputs, root)
    predicted = execute("predict_values", {}, {"dataset": dataset.uri, "checkpoint": trained.uri}, root)
    png = pack(format="png")

    monkeypatch.setattr(Dataset, "video", lambda *_, **__: pytest.fail("decoded"))
    again = execute("train_value", QUICK, {**inputs, "frames": png.uri}, str(tmp_path))
    frames = {"dataset": dataset.uri, "checkpoint": trained.uri, "frames": png.uri}
    values = execute("predict_values", {}, frames, str(tmp_path))
    for with_frames, without in ((again, trained), (values, predicted)):
        assert (with_frames.digest, with_frames.files) == (without.digest, without.files)
        assert "frames" not in with_frames.inputs


def test_frames_of_jpeg_are_another_training(dataset, targets, pack, root, monkeypatch):
    small = pack(format="jpeg")
    monkeypatch.setattr(Dataset, "video", lambda *_, **__: pytest.fail("decoded"))
    inputs = {"dataset": dataset.uri, "targets": targets.uri}
    trained = execute("train_value", QUICK, {**inputs, "frames": small.uri}, root)
    assert [parent.digest for parent in trained.inputs["frames"]] == [small.digest]
    bare = plan("train_value", parse_config("train_value", QUICK), load_inputs("train_value", inputs), root)
    assert trained.digest != bare.digest
    frames = {"dataset": dataset.uri, "checkpoint": trained.uri, "frames": small.uri}
    values = execute("predict_values", {"num_shards": 2, "shard": 1}, frames, root)
    assert values.counts["frames"] > 0


def test_what_identifies_an_input_of_frames(dataset, pack):
    small, raw = pack(format="jpeg"), pack(format="raw")
    assert input_identity("frames", [raw]) is None
    assert input_identity("frames", [pack(cameras=[])]) is None
    assert input_identity("frames", [small]) == [small.digest]
    assert input_identity("dataset", [dataset]) == [dataset.digest]


def test_a_cache_that_lacks_what_is_wanted(dataset, pack, tmp_path, caplog):
    opened = Dataset.open(dataset)
    wanted = {"cameras": opened.cameras, "size": (20, 24), "padded": True, "num_workers": 1}
    array = pack_frames(opened, opened.cameras, size=(20, 24), folder=tmp_path, padded=True)
    rows = np.arange(0, opened.num_frames, 5)
    with caplog.at_level(logging.INFO):
        for folder in (None, tmp_path):
            found = open_frames(opened, cache=pack(format="raw"), folder=folder, **wanted)
            assert isinstance(found, PackedFrames) == (folder is not None)
            assert np.array_equal(found[rows], array[rows])
    told = r"holds .*topview.* at 32x32, stretched as JPEG, and wanted are .* at 20x24, padded with black: decoded"
    with pytest.raises(UsageError, match=told):
        open_frames(opened, cache=pack(format="jpeg"), folder=None, **wanted)
    one = pack(format="jpeg", cameras=[synthetic.TOPVIEW])
    with pytest.raises(DataError, match=r"has \d+ frames[\s\S]*those of the dataset"):
        open_cache(one, View(cameras=(), size=(32, 32), padded=False), num_frames=3)


def test_a_cache_that_lacks_what_is_wanted_is_refused_before_a_model_is_built(
    dataset, targets, pack, root, monkeypatch
):
    one = pack(format="jpeg", cameras=[synthetic.TOPVIEW])
    given = {"dataset": dataset.uri, "targets": targets.uri}
    trained = execute("train_value", QUICK, given, root)
    monkeypatch.setattr(train, "initial_model", lambda *_, **__: pytest.fail("built"))
    monkeypatch.setattr(checkpoint, "_unfilled", lambda *_: pytest.fail("built"))
    told = r"holds observation\.images\.topview at 32x32"
    with pytest.raises(UsageError, match=told):
        execute("train_value", QUICK, {**given, "frames": one.uri}, root)
    inputs = {"dataset": dataset.uri, "checkpoint": trained.uri, "frames": one.uri}
    with pytest.raises(UsageError, match=told):
        execute("predict_values", {}, inputs, root)


def test_the_cache_of_another_dataset_is_refused(dataset, recording_uri, targets, pack, root):
    other = execute("import_dataset", {"dataset_uri": recording_uri, "iteration": 2}, {}, root)
    cache = execute("pack_frames", {**SEEN, "format": "jpeg"}, {"dataset": other.uri}, root)
    trained = execute("train_value", QUICK, {"dataset": dataset.uri, "targets": targets.uri}, root)
    for stage, config, given in (
        ("train_value", QUICK, {"targets": targets.uri}),
        ("predict_values", {"batch_size": 8}, {"checkpoint": trained.uri}),
        ("train_policy", {"variant": "plain", "vision": "none"}, {}),
    ):
        with pytest.raises(UsageError, match="input frames was made from another dataset"):
            execute(stage, config, {"dataset": dataset.uri, "frames": cache.uri, **given}, root)


PI05 = {"preset": "dummy", "tokenizer": "some/file.model", "camera_keys": {"base_0_rgb": "front"}}


@pytest.mark.parametrize(
    ("consumer", "stages", "view"),
    [
        ("train_value", {}, (None, (96, 96), False)),
        ("train_value", {"train_value": {"cameras": ["a"], "image_size": [64, 80]}}, (["a"], (64, 80), False)),
        ("train_value", {"train_value": {"preset": "pi05", "tokenizer": "t.model"}}, (None, (224, 224), True)),
        ("train_value", {"train_value": {"preset": "siglip_gemma", "tokenizer": "t"}}, (None, (224, 224), False)),
        ("train_policy", {}, ([], (224, 224), False)),
        ("train_policy", {"train_policy": None}, ([], (224, 224), False)),
        ("train_policy", {"train_policy": PI05}, (["front"], (28, 28), True)),
        # One cache serves both where the value model sees the same pictures.
        (
            "train_policy",
            {"train_policy": PI05, "train_value": {"preset": "pi05_dummy", "tokenizer": "t"}},
            (None, (28, 28), True),
        ),
        (
            "train_policy",
            {"train_policy": PI05, "train_value": {"preset": "pi05_dummy", "tokenizer": "t", "cameras": ["side"]}},
            (["front"], (28, 28), True),
        ),
    ],
)
def test_what_a_run_packs_follows_from_its_stages(consumer, stages, view):
    found = view_of(consumer, stages)
    assert (found.cameras, found.size, found.padded) == view


def test_a_run_can_choose_the_format_but_not_what_is_looked_at():
    assert find_problems({"stages": {"pack_frames": {"format": "raw", "shard_mb": 10}}}) == []
    told = find_problems({"stages": {"pack_frames": {"size": [64, 64], "padded": True}}})
    assert told == [f"stages.pack_frames.{name}: the pipeline sets it" for name in ("size", "padded")]


def test_who_looks_at_no_cache_has_no_view():
    with pytest.raises(UsageError, match="no stage 'label_returns' looks at a frame cache"):
        view_of("label_returns", {})
