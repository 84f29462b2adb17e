"""The columns that an export adds: pistar's, kai0's prompts, weights, rewards, values."""

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
from exported_dataset import (
    PISTAR,
    VERSIONS,
    folder,
    info_of,
    learn_from,
    learned,
    opened,
    record_both,
    run_export,
    whole,
)
from synthetic import TASK, change_rows

from robolift import storage
from robolift.stages.stage import execute


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> dict[str, Path]:
    """The same eight episodes in both versions."""
    return record_both(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def wired(recordings, tmp_path_factory) -> dict[str, dict[str, str]]:
    """All inputs of an export, by version of the source."""
    return learn_from(recordings, tmp_path_factory.mktemp("learned"))


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
