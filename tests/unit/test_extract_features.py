"""extract_features and merge_features on real small videos: tables, shards, errors."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from clip_models import EFFICIENTNET, HANDS, model
from emoji import with_hand
from small_clips import grey, publish_clips, shifted, texture

from robolift import provenance, schema, storage
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.stages import merge_features
from robolift.stages.stage import execute, load_inputs, parse_config, plan

QUICK = {"extractors": ["blur", "exposure", "motion", "hands_colour", "embedding"], "decode_side": 64}
HAND = {"extractors": ["blur", "hands"], "hand_model": model(HANDS), "embedding_frames": 2}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    pictures = {
        "kitchen_00000000": shifted(texture(64), [0, 1, 2, 3, 4, 5]),
        "kitchen_00000300": [grey(level) for level in (40, 40, 200, 200)],
        "garage_00000090": shifted(texture(64, seed=1), [0, 2, 4, 6]),
        "garage_00000450": [texture(64, seed=2)],
        "hall_00000000": [texture(64, seed=seed) for seed in range(3)],
    }
    return publish_clips(str(tmp_path_factory.mktemp("clips")), pictures)


def measure(root: str, clips: Manifest, *, num_shards: int = 1, **config: object) -> list[Manifest]:
    return [
        execute(
            "extract_features",
            {**QUICK, **config, "shard": shard, "num_shards": num_shards},
            {"clips": clips.uri},
            root,
        )
        for shard in range(num_shards)
    ]


def merge(root: str, clips: Manifest, shards: list[Manifest]) -> Manifest:
    return execute("merge_features", {}, {"clips": clips.uri, "shards": [shard.uri for shard in shards]}, root)


def rows(manifest: Manifest, name: str) -> list[dict]:
    return schema.read_parquet(manifest.file(f"{name}.parquet")).to_pylist()


@pytest.fixture(scope="module")
def features(clips: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = str(tmp_path_factory.mktemp("features"))
    return merge(root, clips, measure(root, clips))


def test_there_is_a_row_for_each_clip_and_each_sampled_frame(features):
    found = rows(features, "features")
    assert [row["clip_id"] for row in found] == [
        "garage_00000090",
        "garage_00000450",
        "hall_00000000",
        "kitchen_00000000",
        "kitchen_00000300",
    ]
    assert list(found[0]) == [
        *("clip_id", "blur", "exposure", "motion_mean", "motion_var", "jerk", "hands", "hand_motion", "embedding")
    ]
    frames = rows(features, "frames")
    assert list(frames[0]) == ["clip_id", "frame", "time_s", "embedding", "hand_x", "hand_y", "flow_x", "flow_y"]
    assert [(row["clip_id"], row["frame"]) for row in frames if row["clip_id"] < "kitchen_00000300"] == [
        *(("garage_00000090", frame) for frame in range(4)),
        ("garage_00000450", 0),
        *(("hall_00000000", frame) for frame in range(3)),
        *(("kitchen_00000000", frame) for frame in range(6)),
    ]
    assert frames[3]["time_s"] == 3 / 15
    assert features.counts == {"clips": 5, "frames": 18}


def test_numbers_are_those_of_the_pictures(features):
    found = {row["clip_id"]: row for row in rows(features, "features")}
    assert found["kitchen_00000000"]["motion_mean"] == pytest.approx(1, rel=0.1)
    assert found["garage_00000090"]["motion_mean"] == pytest.approx(2, rel=0.1)
    uniform = found["kitchen_00000300"]
    assert uniform["exposure"] == 0
    assert uniform["hands"] == 0
    # Half the frames at 40 and half at 200 of 255, but for the last bit that the encoding cost.
    np.testing.assert_allclose(uniform["embedding"], 120 / 255, atol=2 / 255)
    frames = [row for row in rows(features, "frames") if row["clip_id"] == "kitchen_00000300"]
    np.testing.assert_allclose(np.mean([row["embedding"] for row in frames], axis=0), uniform["embedding"], rtol=1e-6)
    moving = [row for row in rows(features, "frames") if row["clip_id"] == "garage_00000090"]
    np.testing.assert_allclose([row["flow_x"] for row in moving[:3]], 2 / 64 * 15, rtol=0.1)
    assert moving[3]["flow_x"] is None
    assert {row["hand_x"] for row in moving} == {None}


def test_what_is_not_known_is_null_and_says_why(features):
    still = {row["clip_id"]: row for row in rows(features, "features")}["garage_00000450"]
    assert [still[name] for name in ("motion_mean", "motion_var", "jerk", "hand_motion")] == [None] * 4
    assert [row for row in rows(features, "missing") if row["clip_id"] == "garage_00000450"] == [
        {
            "clip_id": "garage_00000450",
            "feature": "hand_motion",
            "reason": "no two neighbouring frames with a hand",
        },
        *(
            {"clip_id": "garage_00000450", "feature": name, "reason": "a clip of one frame"}
            for name in ("jerk", "motion_mean", "motion_var")
        ),
    ]
    assert features.metrics()["motion_mean_missing"] == 1


def test_facts_tell_how_it_was_measured(features):
    assert storage.read_json(features.file("features.json")) == {
        "extractors": {"blur": 1, "embedding": 1, "exposure": 1, "hands_colour": 1, "motion": 1},
        "fields": {
            "blur": "blur",
            "exposure": "exposure",
            "motion_mean": "motion",
            "motion_var": "motion",
            "jerk": "motion",
            "hands": "hands_colour",
            "hand_motion": "hands_colour",
        },
        "encoder": {"kind": "pixels", "digest": "", "width": 192},
        "hand_model": None,
        "decode": {"side": 64, "fps": 15.0, "fit": "letterbox"},
    }


def test_any_number_of_shards_leaves_one_output(features, clips, tmp_path):
    root = str(tmp_path / "other")
    shards = measure(root, clips, num_shards=3)
    assert sum(shard.counts["clips"] for shard in shards) == 5
    merged = merge(root, clips, shards[::-1])
    assert merged.digest == features.digest
    assert merged.files == features.files
    for name in ("features", "frames", "missing"):
        assert storage.read_bytes(merged.file(f"{name}.parquet")) == storage.read_bytes(
            features.file(f"{name}.parquet")
        )


def test_an_empty_shard_does_no_harm(features, clips, tmp_path):
    root = str(tmp_path / "other")
    shards = measure(root, clips, num_shards=16)
    assert 0 in {shard.counts["clips"] for shard in shards}
    assert merge(root, clips, shards).files == features.files


def test_a_clip_is_measured_alike_whatever_clips_are_beside_it(tmp_path):
    hand = [with_hand(60 + 4 * step, 80) for step in range(3)]
    others = {"a": [with_hand(110, 30)] * 3, "b": [grey(90, 240)] * 3}
    found = []
    for number, pictures in enumerate(({**others, "c": hand}, {"c": hand})):
        clips = publish_clips(str(tmp_path / f"{number}"), pictures)
        shard = execute("extract_features", HAND, {"clips": clips.uri}, str(tmp_path / f"{number}"))
        found.append([row for name in ("features", "frames") for row in rows(shard, name) if row["clip_id"] == "c"])
    assert found[0] == found[1]
    assert found[0][0]["hands"] == 1
    assert found[0][0]["embedding"] is None
    assert [row["embedding"] for row in found[0][1:]] == [None, None]


def test_bars_of_a_letterbox_count_for_nothing(tmp_path):
    white = np.zeros((64, 64, 3), np.uint8)
    white[8:56] = 230  # a video of 4:3
    config = {"extractors": ["blur", "exposure"], "decode_side": 64}
    found = {}
    for fit in ("letterbox", "stretch"):
        clips = publish_clips(str(tmp_path), {"a": [white] * 2}, size=(640, 480), fit=fit)
        shard = execute("extract_features", config, {"clips": clips.uri}, str(tmp_path))
        found[fit] = rows(shard, "features")[0]
    # But for the last bit that the encoding cost in some pixels.
    assert found["letterbox"]["blur"] < 0.1
    assert found["letterbox"]["exposure"] < 0.3
    # Nobody said that these are bars: two edges, each a row of about +230 and one of -230.
    assert found["stretch"]["blur"] == pytest.approx(4 / 64 * 230**2, rel=0.1)
    assert found["stretch"]["exposure"] > 0.8


def test_clips_and_outputs_may_lie_in_a_store(clips, features, s3):
    remote = f"{s3}/clips"
    for name, _ in storage.list_files(clips.uri):
        storage.write_bytes(storage.join(remote, name), storage.read_bytes(clips.file(name)))
    shard = execute("extract_features", QUICK, {"clips": remote}, f"{s3}/runs")
    merged = execute("merge_features", {}, {"clips": remote, "shards": [shard.uri]}, f"{s3}/runs")
    assert merged.files == features.files


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"shard": 2, "num_shards": 2}, "shard 2 of num_shards 2: shards count from 0"),
        ({"extractors": ["blur", "blur"]}, "an extractor stands twice"),
        ({"extractors": ["sharpness"]}, "no extractor sharpness; there are: blur, embedding"),
        ({"extractors": ["hands"]}, "extractor hands needs hand_model"),
        ({"encoder_sha256": "0" * 64}, "encoder_sha256 is given without encoder"),
    ],
)
def test_wrong_configurations_are_refused(config, problem):
    with pytest.raises(UsageError, match=problem):
        parse_config("extract_features", {**QUICK, **config})


def test_models_are_part_of_the_identity(clips, tmp_path):
    weights = shutil.copy(model(EFFICIENTNET), tmp_path / "weights.pth")

    def digest(**config: object) -> str:
        parsed = parse_config("extract_features", {**QUICK, "encoder": str(weights), **config})
        return plan("extract_features", parsed, load_inputs("extract_features", {"clips": clips.uri}), "").digest

    before, without = digest(), digest(extractors=["blur"])
    Path(weights).write_bytes(b"others")
    assert digest() != before
    assert digest(extractors=["blur"]) == without  # nobody looks at them


def test_every_extractor_belongs_to_the_code_of_the_stage():
    closure = provenance.import_closure("robolift.stages.extract_features")
    assert {"robolift.clips.extractors.motion", "robolift.clips.encoders.efficientnet"} <= set(closure)


def damaged(clips: Manifest, folder: Path, **columns: pa.Array) -> str:
    """Copy a ClipSet with other columns in its table, as a hand at the files could leave it."""
    copy = Path(shutil.copytree(storage.local_path(clips.uri) or "", folder / "copy"))
    table = schema.read_parquet(str(copy / "clips.parquet"))
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    schema.write_table(copy / "clips.parquet", table)
    return str(copy)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"clip_id": ["a", "b", "b", "c", "d"]}, r"clip \['b'\] stands twice"),
        ({"num_frames": [1, 0, 1, 1, 1]}, r"clip \['garage_00000450'\] has no frames"),
        ({"fps": [15.0, 15.0, 30.0, 15.0, 15.0]}, r"clips of several rates: \[15.0, 30.0\]"),
        ({"num_frames": [9, 1, 1, 1, 1]}, "the video ends before"),
        ({"file": ["clips/none.mp4"] * 5}, "none.mp4"),
    ],
)
def test_clips_that_are_not_as_their_table_says_are_refused(clips, tmp_path, columns, problem):
    uri = damaged(clips, tmp_path, **{name: pa.array(column) for name, column in columns.items()})
    with pytest.raises(DataError, match=problem):
        execute("extract_features", QUICK, {"clips": uri}, str(tmp_path / "runs"))


def test_no_clips_are_refused(tmp_path, clips):
    empty = damaged(clips, tmp_path)
    schema.write_table(Path(empty) / "clips.parquet", schema.read_parquet(f"{empty}/clips.parquet").slice(0, 0))
    with pytest.raises(DataError, match="no clips"):
        execute("extract_features", QUICK, {"clips": empty}, str(tmp_path / "runs"))


def test_shards_that_do_not_belong_together_are_refused(clips, tmp_path):
    root = str(tmp_path / "runs")
    whole, halves = measure(root, clips), measure(root, clips, num_shards=2)
    with pytest.raises(DataError, match="1 of 5 clips have no features"):
        merge(root, clips, halves[:1])
    with pytest.raises(DataError, match="clips were measured more than once"):
        merge(root, clips, [*whole, halves[0]])
    with pytest.raises(DataError, match="with different configurations"):
        merge(root, clips, [halves[0], measure(root, clips, num_shards=2, decode_side=32)[1]])
    with pytest.raises(DataError, match="by different code"):
        merge_features.check_origin([halves[0], replace(halves[1], code="1" * 16)], clips)
    others = publish_clips(root, {"other": [grey(1)]})
    with pytest.raises(DataError, match="measured on other clips"):
        merge(root, others, whole)


def test_shards_by_different_models_at_one_address_are_refused(clips, tmp_path):
    root, bundle = str(tmp_path / "runs"), tmp_path / "hands.task"
    config = {"extractors": ["blur", "hands"], "hand_model": str(bundle), "decode_side": 64, "num_shards": 2}
    shutil.copy(model(HANDS), bundle)
    first = execute("extract_features", {**config, "shard": 0}, {"clips": clips.uri}, root)
    # A zip may have a comment at its end: the same networks in other bytes.
    with bundle.open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"\x01\x00x")
    second = execute("extract_features", {**config, "shard": 1}, {"clips": clips.uri}, root)
    with pytest.raises(DataError, match="by different models or extractors"):
        merge(root, clips, [first, second])


def test_clips_that_were_not_asked_for_are_refused(clips):
    table = pa.chunked_array([["a", "b"]])
    with pytest.raises(DataError, match=r"measured clips are not in the clips"):
        merge_features.check_clips(table, pa.chunked_array([["a"]]))


def test_only_a_whole_set_of_shards_has_the_identity_of_its_origin(clips, tmp_path):
    root = str(tmp_path / "runs")
    halves, other = measure(root, clips, num_shards=2), measure(root, clips, decode_side=32)
    whole = merge_features.input_identity("shards", halves)
    assert isinstance(whole, str)
    assert merge_features.input_identity("shards", measure(root, clips)) == whole
    assert merge_features.input_identity("shards", other) not in ([other[0].digest], whole)
    assert merge_features.input_identity("shards", halves[:1]) == [halves[0].digest]
    assert merge_features.input_identity("clips", [clips]) == [clips.digest]
