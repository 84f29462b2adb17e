"""The columns of labelled rewards in an export: names, types, numbers, and what a missing label means."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic
from exported_dataset import folder, info_of, opened, run_export, whole
from rewarded import publish_rewards

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.stages.stage import execute

# The recording of this module: a demonstration of six frames that succeeds, a rollout of sixteen that does too.
LENGTHS = (6, 16)
COUNT = sum(LENGTHS)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two episodes without cameras."""
    path = tmp_path_factory.mktemp("small")
    synthetic.write_recording(path / "recording", episodes=2, cameras=[])
    dataset = execute("import_dataset", {"dataset_uri": str(path / "recording")}, {}, str(path))
    assert dataset.table("episodes").column("length").to_pylist() == list(LENGTHS)
    return dataset


def clock() -> list[float]:
    """Progress t / T."""
    return [frame / length for length in LENGTHS for frame in range(length)]


def export_rewards(dataset, root, rewards, **config):
    made = publish_rewards(root, dataset, **rewards)
    return run_export({"dataset": dataset.uri, "rewards": made.uri}, root, **config)


def test_names_types_and_numbers(small, output_root):
    reward = [n / 100 for n in range(COUNT)]
    success = [0.9] * 6 + [0.2] * 16
    labels = {"reward": reward, "progress": clock(), "success_prob": success, "source": ["human"] * COUNT}
    exported = export_rewards(small, output_root, labels, columns=["rewards"])

    features = info_of(folder(exported))["features"]
    declared = {"next.reward": "float32", "next.success": "bool", "progress": "float32"}
    assert {name: features[name] for name in declared} == {
        name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in declared.items()
    }
    table = opened(exported).table(0)
    assert [table.schema.field(name).type for name in declared] == [pa.float32(), pa.bool_(), pa.float32()]
    np.testing.assert_array_equal(whole(opened(exported), "next.reward"), np.float32(reward))
    np.testing.assert_array_equal(whole(opened(exported), "progress"), np.float32(clock()))
    # True once, where the task has been solved; the second episode failed as people say, whatever was recorded.
    assert np.flatnonzero(whole(opened(exported), "next.success")).tolist() == [5]
    assert exported.counts["columns"] == 3


def test_of_an_episode_that_nobody_judged_the_recorded_outcome_counts(small, output_root):
    success = [0.9] * 5 + [0.4] + [None] * 16
    labels = {"reward": [0] * COUNT, "progress": clock(), "success_prob": success, "source": ["human"] * COUNT}
    exported = export_rewards(small, output_root, labels, columns=["rewards"], reward_columns=["next.success"])
    assert np.flatnonzero(whole(opened(exported), "next.success")).tolist() == [COUNT - 1]
    lower = {"columns": ["rewards"], "reward_columns": ["next.success"], "success_threshold": 0.4}
    exported = export_rewards(small, output_root, labels, **lower)
    assert np.flatnonzero(whole(opened(exported), "next.success")).tolist() == [5, COUNT - 1]


def test_a_recorded_outcome_counts_before_what_a_model_says(small, output_root):
    # Both were recorded as successes.
    source = ["human"] * 6 + ["vlm"] * 16
    config = {"columns": ["rewards"], "reward_columns": ["next.success"]}
    for merged, doubt, ends in (({}, 0.4, [COUNT - 1]), ({"use_outcome": False}, 0.3, [])):
        made = publish_rewards(output_root, small, config=merged, success_prob=[doubt] * COUNT, source=source)
        exported = run_export({"dataset": small.uri, "rewards": made.uri}, output_root, **config)
        assert np.flatnonzero(whole(opened(exported), "next.success")).tolist() == ends


def test_an_end_that_nobody_knows_is_not_called_a_failure(tmp_path, output_root):
    synthetic.write_recording(tmp_path / "r", episodes=2, cameras=[], extra=False)
    config = {"dataset_uri": str(tmp_path / "r"), "allow_unknown_outcome": True}
    dataset = execute("import_dataset", config, {}, str(tmp_path))
    labels = {"reward": [0] * COUNT, "progress": clock()}
    with pytest.raises(DataError, match=r"next.success is not known of 1 of 2 episodes\n.*first: episode 1"):
        export_rewards(dataset, output_root, labels, columns=["rewards"])
    names = ["next.reward", "progress"]
    exported = export_rewards(dataset, output_root, labels, columns=["rewards"], reward_columns=names)
    assert exported.counts["columns"] == 2


def test_people_s_segments_and_stages_are_whole_numbers(small, output_root):
    tri = [1, 1, 0, -1, 0, 1] + [0] * 16
    stage = [0, 0, 0, 1, 1, 1] + [0] * 16
    labels = {"tri": tri, "stage": stage}
    exported = export_rewards(small, output_root, labels, columns=["rewards"], reward_columns=["tri", "task_stage"])
    assert opened(exported).table(0).column("tri").to_pylist() == tri[:6]
    assert opened(exported).table(0).column("task_stage").to_pylist() == stage[:6]
    assert info_of(folder(exported))["features"]["tri"]["dtype"] == "int64"


def test_kai0s_stage_progress(small, output_root):
    labels = {"stage": [0, 0, 1, 1, 1, 1] + [0] * 16}
    exported = export_rewards(small, output_root, labels, columns=["stage_progress"], num_task_stages=2)
    found = opened(exported).table(0).column("stage_progress_gt")
    assert found.type == pa.float32()
    assert found.to_pylist() == [0.0, 0.25, 0.5, 0.625, 0.75, 0.875]
    assert opened(exported).table(1).column("stage_progress_gt").to_pylist()[8] == 0.25
    with pytest.raises(UsageError, match="stage_progress needs num_task_stages"):
        export_rewards(small, output_root, labels, columns=["stage_progress"])
    with pytest.raises(DataError, match=r"a frame is in task stage 1\n  where: episode 0, frame 2"):
        export_rewards(small, output_root, labels, columns=["stage_progress"], num_task_stages=1)


def test_weights_of_reward_aligned_cloning(small, output_root):
    # Of the first episode: rising by 0.2 a frame, then falling, then still. A frame ahead, the last has none before it.
    progress = [0.0, 0.2, 0.1, 0.1, 0.3, 0.3] + [0.5] * 16
    exported = export_rewards(small, output_root, {"progress": progress}, columns=["rabc_weights"], lookahead=1)
    found = opened(exported).table(0).column("rabc_weight")
    assert found.type == pa.float32()
    # The rises are 0.2, -0.1, 0, 0.2, 0, 0 and 0 sixteen times: mean 0.3 / 22, deviation 0.0624897; so a frame that
    # stands still counts (0 - (0.0136364 - 2 * 0.0624897)) / (4 * 0.0624897 + 1e-6) = 0.445444.
    assert found.to_pylist() == pytest.approx([1.0, 0.0, 0.445444, 1.0, 0.445444, 0.445444], abs=1e-5)


@pytest.mark.parametrize(
    ("columns", "part", "use"),
    [
        ("rewards", "reward", "next.reward"),
        ("rabc_weights", "progress", "rabc_weights"),
        ("lerobot_rewards", "progress", "lerobot_rewards"),
    ],
)
def test_an_unlabelled_frame_is_refused_and_never_zero(columns, part, use, small, output_root):
    labels = {"progress": clock(), "reward": [0.5] * COUNT, "success_prob": [1.0] * COUNT}
    labels[part] = [*labels[part][:7], None, None, *labels[part][9:]]
    message = rf"{part} is not known in 2 of 22 frames, and {use} needs it\n.*first: episode 1, frame 1\n"
    with pytest.raises(DataError, match=message):
        export_rewards(small, output_root, labels, columns=[columns])
    exported = export_rewards(small, output_root, labels, columns=[columns], unlabelled="nan")
    if columns == "rewards":
        found = whole(opened(exported), "next.reward")
        assert np.flatnonzero(np.isnan(found)).tolist() == [7, 8]
        assert found[9] == 0.5
    elif columns == "rabc_weights":
        assert whole(opened(exported), "rabc_weight")[[7, 8]].tolist() == [1.0, 1.0]
    else:
        found = pq.read_table(storage.local_path(exported.uri) / "sarm_progress.parquet").column("progress_sparse")
        assert found.null_count == 0
        assert np.flatnonzero(np.isnan(found.to_numpy())).tolist() == [7, 8]


def test_labels_of_nobody_are_refused_even_as_nan(small, output_root):
    with pytest.raises(DataError, match="reward is not known in 22 of 22 frames"):
        export_rewards(small, output_root, {}, columns=["rewards"], unlabelled="nan")


@pytest.mark.parametrize(("name", "part"), [("tri", "tri"), ("task_stage", "stage")])
def test_a_whole_number_can_not_be_nan(name, part, small, output_root):
    labels = {part: [None] * 2 + [0] * 20}
    config = {"columns": ["rewards"], "reward_columns": [name], "unlabelled": "nan"}
    with pytest.raises(
        DataError, match=rf"{part} is not known in 2 of 22 frames, and {name} needs it\n(.*\n)*.*rest, or"
    ):
        export_rewards(small, output_root, labels, **config)


def test_lerobots_file_lies_beside_the_dataset(small, output_root):
    exported = export_rewards(small, output_root, {"progress": clock()}, columns=["lerobot_rewards"])
    table = pq.read_table(storage.local_path(exported.uri) / "sarm_progress.parquet")
    assert table.column("index").to_pylist() == list(range(COUNT))
    np.testing.assert_array_equal(table.column("index"), whole(opened(exported), "index"))
    np.testing.assert_array_equal(table.column("progress_sparse").to_numpy(), np.float32(clock()))
    # Walking the dataset finds its own rows only.
    assert not list(folder(exported).rglob("*progress*"))


def test_success_means_what_it_meant_when_the_rewards_were_merged(small, output_root):
    labels = {"reward": [0] * COUNT, "progress": clock(), "config": {"success_threshold": 0.8}}
    with pytest.raises(UsageError, match=r"success_threshold is 0.5, and the rewards were merged with 0.8"):
        export_rewards(small, output_root, labels, columns=["rewards"])
    exported = export_rewards(small, output_root, labels, columns=["rewards"], success_threshold=0.8)
    assert exported.counts["columns"] == 3


def test_one_column_has_one_origin(small, output_root):
    with pytest.raises(UsageError, match=r"next_reward and rewards both make next\.reward"):
        export_rewards(small, output_root, {}, columns=["rewards", "next_reward"])


def test_rewards_of_another_dataset_are_refused(small, dataset, output_root):
    made = publish_rewards(output_root, dataset)
    with pytest.raises(DataError, match=r"table rewards \(123 rows\) was made from another dataset"):
        run_export({"dataset": small.uri, "rewards": made.uri}, output_root, columns=["rewards"])


@pytest.mark.parametrize("columns", ["rewards", "rabc_weights", "lerobot_rewards"])
def test_the_columns_need_the_rewards(columns, small, output_root):
    with pytest.raises(UsageError, match=f"{columns} needs the input rewards"):
        run_export({"dataset": small.uri}, output_root, columns=[columns])
