"""What an import is: its tables, its identity, its tasks, its iterations."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import synthetic
from bare_recording import import_it, kinds_and_outcomes, modes, refused, write_bare
from synthetic import change_episodes, change_info, change_rows, set_column

from robolift import manifest as manifests
from robolift import storage
from robolift.__main__ import main
from robolift.data.content import content_digest
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.stages.stage import execute, parse_config


@pytest.fixture
def recording(tmp_path) -> Path:
    return write_bare(tmp_path / "recording")


def test_a_recording_says_it_all(dataset):
    assert (
        kinds_and_outcomes(dataset)
        == [
            ("demo", "success"),
            ("rollout", "success"),
            ("rollout", "failure"),
            ("rollout", "success"),
        ]
        * 2
    )
    assert dataset.counts == {"episodes": 8, "frames": 123, "new_episodes": 8, "tasks": 1, "sources": 1}
    assert dataset.metrics() == {
        "episodes_by_kind_and_outcome": {"demo success": 2, "rollout failure": 2, "rollout success": 4},
        "episodes_by_iteration": {"1": 8},
        "frames_by_control_mode": {"autonomous": 96, "correcting": 10, "demo": 15, "paused": 2},
    }
    recorded = synthetic.make_episodes(episodes=8, frames=24, seed=0)
    assert modes(dataset, 3) == recorded[3].columns["control_mode"]
    manifests.verify(dataset)


def test_the_input_is_not_touched(recording):
    before = {p: p.read_bytes() for p in recording.rglob("*") if p.is_file()}
    import_it(recording, control_mode="autonomous", outcome="success")
    assert {p: p.read_bytes() for p in recording.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"control_mode_column": "phase"}, "control_mode_column 'phase' is not in the dataset"),
        ({"intervention_column": "human"}, "intervention_column 'human' is not in the dataset"),
        ({"control_mode": "autonomous", "paused_column": "held"}, "paused_column 'held' is not in the dataset"),
        ({"control_mode": "autonomous", "outcome_key": "result"}, "outcome_key 'result' is in no episode's meta row"),
        ({"control_mode": "autonomous", "outcome_column": "done"}, "outcome_column 'done' is not in the dataset"),
    ],
)
def test_a_named_column_that_is_not_there_is_an_error(recording, config, message):
    assert message in refused(recording, **config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "demo", "control_mode": "autonomous"}, "kind demo contradicts control_mode autonomous"),
        ({"control_mode": "demo", "intervention_column": "i"}, "name a column or say it, not both"),
        ({"control_mode_column": "c", "intervention_column": "i"}, "name control_mode_column or intervention_column"),
        ({"outcome": "success", "outcome_key": "k"}, "the outcome comes from one place"),
        ({"outcome_column": "a", "outcome_key": "k"}, "not from several: outcome_key, outcome_column"),
        ({"check_videos": "some"}, "import_dataset.check_videos"),
        ({"iteration": -1}, "greater than or equal to 0"),
    ],
)
def test_a_contradicting_configuration_is_refused(config, message):
    with pytest.raises(UsageError, match=message):
        parse_config("import_dataset", config)


def test_a_task_for_all_episodes(recording):
    assert set(import_it(recording, control_mode="demo", task="fold it").table("episodes")["task"].to_pylist()) == {
        "fold it"
    }


def test_an_episode_of_several_tasks_needs_one(recording):
    (recording / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "a"}\n{"task_index": 1, "task": "b"}\n')
    change_info(recording, lambda info: info.update(total_tasks=2))
    change_rows(recording, 1, set_column("task_index", lambda old: [1, *old[1:]]))
    change_episodes(recording, lambda row: row.update(tasks=["a"]))
    message = refused(recording, control_mode="demo")
    assert message.startswith("an episode has 2 tasks: a, b")
    assert "set task to the text that all episodes share" in message
    assert import_it(recording, control_mode="demo", task="a").counts["tasks"] == 1


def test_changed_data_is_another_import(recording):
    config = {"control_mode": "demo"}
    first = import_it(recording, **config)
    assert import_it(recording, **config) == first
    change_rows(recording, 0, set_column("progress_gt", lambda old: pa.array([0.25, *old[1:]], pa.float32())))
    second = import_it(recording, **config)
    assert second.digest != first.digest

    # Statistics are part of the meta folder; a readme is not part of the dataset.
    (recording / "README.md").write_text("hello")
    assert import_it(recording, **config) == second


def test_the_digest_of_a_dataset_can_be_expected(recording):
    digest = content_digest(str(recording))
    found = import_it(recording, control_mode="demo", expect_digest=digest)
    assert storage.read_json(found.file("dataset.json"))["sources"][0]["digest"] == digest

    message = refused(recording, control_mode="demo", expect_digest="0123456789abcdef")
    assert message.startswith(f"the dataset's content digest is {digest}")
    assert "expected: 0123456789abcdef" in message


def test_one_source_is_needed(recording, output_root):
    made = publish_recording(recording, output_root)
    with pytest.raises(UsageError, match="no recording and no dataset_uri; give one"):
        execute("import_dataset", {}, {}, output_root)
    with pytest.raises(UsageError, match="both a recording and dataset_uri were given"):
        execute("import_dataset", {"dataset_uri": str(recording)}, {"recording": made.uri}, output_root)


def publish_recording(path: Path, root: str, digest: str = "0123456789abcdef") -> Manifest:
    """Publish a LeRobot folder as the simulator does."""
    plan = Plan(
        stage="simulate_episodes",
        kind=Kind.RECORDING,
        root=root,
        config={},
        inputs={},
        code="0" * 16,
        digest=digest,
    )
    output = Output(plan)
    shutil.copytree(path, output.path, dirs_exist_ok=True)
    return output.publish({"episodes": 4})


def test_a_recording_by_wire_does_not_depend_on_where_the_run_lies(tmp_path):
    path = tmp_path / "recording"
    synthetic.write_recording(path, episodes=4, cameras=[])
    found = []
    for name in ("one", "two"):
        root = str(tmp_path / name)
        made = publish_recording(path, root)
        found.append(execute("import_dataset", {"expect_digest": made.digest}, {"recording": made.uri}, root))
    assert found[0].digest == found[1].digest
    assert found[0].files == found[1].files
    source = storage.read_json(found[0].file("dataset.json"))["sources"][0]
    assert source["uri"] == "../../simulate_episodes/0123456789abcdef"
    assert source["digest"] == "0123456789abcdef"


def test_iterations_are_appended(tmp_path):
    root = str(tmp_path / "runs")
    for number in range(3):
        synthetic.write_recording(tmp_path / f"r{number}", episodes=2, seed=number, cameras=[])
    first = execute("import_dataset", {"dataset_uri": str(tmp_path / "r0"), "iteration": 4}, {}, root)
    second = execute("import_dataset", {"dataset_uri": str(tmp_path / "r1")}, {"previous": first.uri}, root)
    third = execute("import_dataset", {"dataset_uri": str(tmp_path / "r2")}, {"previous": second.uri}, root)

    assert third.table("episodes").column("iteration").to_pylist() == [4, 4, 5, 5, 6, 6]
    assert third.counts == {"episodes": 6, "frames": 63, "new_episodes": 2, "tasks": 1, "sources": 3}
    assert third.metrics()["episodes_by_iteration"] == {"4": 2, "5": 2, "6": 2}
    # What was there stays as it was.
    np.testing.assert_array_equal(
        third.table("frames").slice(0, first.counts["frames"]).column("control_mode").to_pylist(),
        first.table("frames").column("control_mode").to_pylist(),
    )
    with pytest.raises(UsageError, match="iteration is 3, the previous dataset already has iteration 5"):
        execute("import_dataset", {"dataset_uri": str(tmp_path / "r2"), "iteration": 3}, {"previous": second.uri}, root)
    with pytest.raises(DataError, match="the previous dataset already holds this one"):
        execute("import_dataset", {"dataset_uri": str(tmp_path / "r1")}, {"previous": second.uri}, root)


def test_sources_that_differ_are_refused(tmp_path):
    root = str(tmp_path / "runs")
    synthetic.write_recording(tmp_path / "first", episodes=2, cameras=[synthetic.TOPVIEW])
    synthetic.write_recording(
        tmp_path / "other", episodes=2, cameras=[synthetic.BEHIND], fps=10, robot_type="circle", omit=[synthetic.STATE]
    )
    first = execute("import_dataset", {"dataset_uri": str(tmp_path / "first")}, {}, root)
    with pytest.raises(DataError) as caught:
        execute("import_dataset", {"dataset_uri": str(tmp_path / "other")}, {"previous": first.uri}, root)
    message = str(caught.value)
    assert "4 problems" in message
    assert "fps is 10.0, the dataset before has 20.0" in message
    assert "robot_type is circle, the dataset before has square" in message
    assert ("cameras is observation.images.behindGripper, the dataset before has observation.images.topview") in message
    assert "feature observation.state is absent, the dataset before has float32 8" in message


def test_a_dry_run_checks_the_address(tmp_path, capsys):
    arguments = ["import_dataset", "--dry-run", "--set", "output_root=runs", "--set", f"dataset_uri={tmp_path}/nothing"]
    assert main(arguments) == 65
    assert "no LeRobot dataset" in capsys.readouterr().err


def test_cameras_of_two_sizes_are_refused(tmp_path):
    root = str(tmp_path / "runs")
    synthetic.write_recording(tmp_path / "first", episodes=1, cameras=[synthetic.TOPVIEW])
    synthetic.write_recording(tmp_path / "other", episodes=1, cameras=[synthetic.TOPVIEW], size=48, seed=1)
    first = execute("import_dataset", {"dataset_uri": str(tmp_path / "first")}, {}, root)
    with pytest.raises(DataError) as caught:
        execute("import_dataset", {"dataset_uri": str(tmp_path / "other")}, {"previous": first.uri}, root)
    assert str(caught.value).startswith(
        "feature observation.images.topview is video 48 48, the dataset before has video 32 32"
    )


def test_a_camera_declared_channels_first_is_the_same_camera(tmp_path):
    root = str(tmp_path / "runs")
    for seed, name in enumerate(("first", "other")):
        synthetic.write_recording(tmp_path / name, episodes=1, cameras=[synthetic.TOPVIEW], seed=seed)
    change_info(
        tmp_path / "other",
        lambda info: info["features"][synthetic.TOPVIEW].update(
            shape=[3, 32, 32], names=["channels", "height", "width"]
        ),
    )
    first = execute("import_dataset", {"dataset_uri": str(tmp_path / "first")}, {}, root)
    both = execute("import_dataset", {"dataset_uri": str(tmp_path / "other")}, {"previous": first.uri}, root)
    facts = storage.read_json(both.file("dataset.json"))
    assert facts["features"][synthetic.TOPVIEW]["shape"] == [32, 32, 3]
