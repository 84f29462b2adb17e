from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic
from synthetic import change_episodes, change_info, change_rows, set_column

from robolift import manifest as manifests
from robolift import storage
from robolift.__main__ import main
from robolift.data.content import content_digest
from robolift.data.episodes import parse_outcome
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.stages.import_dataset import read_outcomes
from robolift.stages.stage import execute, parse_config

CONTROL = ("control_mode", "intervention")


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """A v2.1 recording that says nothing of control, kind and outcome."""
    path = tmp_path_factory.mktemp("bare") / "bare"
    synthetic.write_recording(path, episodes=4, version="v2.1", cameras=[], omit=CONTROL, extra=False)
    return path


@pytest.fixture
def recording(bare, tmp_path) -> Path:
    return Path(shutil.copytree(bare, tmp_path / "recording"))


def add_column(path: Path, name: str, values: dict[int, list], dtype: str = "int64") -> None:
    """Give each episode a column: values by episode, or zeros."""
    kind = {"string": pa.string(), "bool": pa.bool_()}.get(dtype) or getattr(pa, dtype)()
    for episode in range(4):
        change_rows(
            path,
            episode,
            lambda table, e=episode: table.append_column(name, pa.array(values.get(e, [0] * table.num_rows), kind)),
        )
    change_info(path, lambda info: info["features"].update({name: {"dtype": dtype, "shape": [1], "names": None}}))


def lengths(path: Path) -> list[int]:
    rows = (path / "meta/episodes.jsonl").read_text().splitlines()
    return [json.loads(row)["length"] for row in rows]


def import_it(path: Path, **config) -> Manifest:
    return execute("import_dataset", {"dataset_uri": str(path), **config}, {}, str(path.parent / "runs"))


def refused(path: Path, **config) -> str:
    with pytest.raises(DataError) as caught:
        import_it(path, **config)
    return str(caught.value)


def kinds_and_outcomes(found: Manifest) -> list[tuple[str, str]]:
    table = found.table("episodes")
    return list(zip(table.column("kind").to_pylist(), table.column("outcome").to_pylist(), strict=True))


def modes(found: Manifest, episode: int) -> list[str]:
    table = found.table("frames")
    return table.filter(pa.compute.equal(table.column("episode_index"), episode)).column("control_mode").to_pylist()


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


def test_missing_intervention_information_is_an_error(recording, capsys):
    root = recording.parent / "runs"
    code = main(["import_dataset", "--set", f"dataset_uri={recording}", "--set", f"output_root={root}"])

    assert code == 65
    message = capsys.readouterr().err
    assert "no intervention information" in message
    assert "name control_mode_column or intervention_column" in message
    assert "control_mode: demo (a person did everything) or control_mode: autonomous" in message
    assert not list(root.rglob("manifest.json"))


@pytest.mark.parametrize(
    ("config", "expected", "mode"),
    [
        ({"control_mode": "demo"}, ("demo", "success"), "demo"),
        ({"kind": "demo"}, ("demo", "success"), "demo"),
        ({"control_mode": "demo", "demo_outcome": "unknown"}, ("demo", "unknown"), "demo"),
        ({"control_mode": "autonomous", "outcome": "failure"}, ("rollout", "failure"), "autonomous"),
        ({"control_mode": "autonomous", "allow_unknown_outcome": True}, ("rollout", "unknown"), "autonomous"),
    ],
)
def test_control_can_be_said_for_the_whole_dataset(recording, config, expected, mode):
    found = import_it(recording, **config)
    assert kinds_and_outcomes(found) == [expected] * 4
    assert set(modes(found, 1)) == {mode}


def test_a_rollout_without_an_outcome_is_an_error(recording):
    message = refused(recording, control_mode="autonomous")
    assert message.startswith("a rollout has no outcome: nothing says whether it succeeded")
    assert "episode 0; episode 1; episode 2; and 1 more" in message
    assert "outcome_key" in message
    assert "allow_unknown_outcome: true" in message


def test_pistars_columns(recording):
    """All 1 is a demonstration, a last reward of 1 a success; the columns' names tell that it is pistar's reward."""
    counts = lengths(recording)
    add_column(
        recording,
        "intervention",
        {0: [1] * counts[0], 3: [0] * (counts[3] - 5) + [1] * 5},
    )
    add_column(recording, "reward", {e: [0.0] * (counts[e] - 1) + [float(e != 2)] for e in range(4)}, "float32")
    add_column(recording, "adv_ind", {e: ["none"] * counts[e] for e in range(4)}, "string")
    found = import_it(recording)

    assert kinds_and_outcomes(found) == [
        ("demo", "success"),
        ("rollout", "success"),
        ("rollout", "failure"),
        ("rollout", "success"),
    ]
    assert set(modes(found, 0)) == {"demo"}
    assert modes(found, 3) == ["autonomous"] * (counts[3] - 5) + ["correcting"] * 5


def test_a_reward_alone_is_no_outcome(recording):
    counts = lengths(recording)
    add_column(recording, "reward", {e: [1.0] * counts[e] for e in range(4)}, "float32")
    assert refused(recording, control_mode="autonomous").startswith("a rollout has no outcome")
    found = import_it(recording, control_mode="autonomous", outcome_column="reward")
    assert kinds_and_outcomes(found) == [("rollout", "success")] * 4


@pytest.mark.parametrize("column", ["next.success", "success", "is_episode_successful"])
def test_the_last_frame_says_the_outcome(recording, column):
    counts = lengths(recording)
    add_column(recording, column, {e: [False] * (counts[e] - 1) + [e == 1] for e in range(4)}, "bool")
    found = import_it(recording, control_mode="autonomous")
    assert [outcome for _, outcome in kinds_and_outcomes(found)] == ["failure", "success", "failure", "failure"]


def test_meta_rows_say_the_outcome(recording):
    change_episodes(recording, lambda row: row.update(success=row["episode_index"] % 2 == 0))
    found = import_it(recording, control_mode="autonomous")
    assert [outcome for _, outcome in kinds_and_outcomes(found)] == ["success", "failure", "success", "failure"]

    change_episodes(recording, lambda row: row.update(score=str(row["episode_index"] // 2)))
    found = import_it(recording, control_mode="autonomous", outcome_key="score")
    assert [outcome for _, outcome in kinds_and_outcomes(found)] == ["failure", "failure", "success", "success"]

    change_episodes(recording, lambda row: row.update(success="perhaps"))
    message = refused(recording, control_mode="autonomous")
    assert message.startswith("outcome 'perhaps'")
    assert "expected: success, failure, unknown, true or false, 1 or 0" in message


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_says_the_outcome(recording, suffix):
    table = pa.table({"episode_index": [3, 2, 1, 0], "outcome": ["success", "failure", "failure", "success"]})
    path = recording.parent / f"outcomes.{suffix}"
    if suffix == "csv":
        path.write_text(
            "episode_index,outcome\n" + "".join(f"{a},{b}\n" for a, b in zip(*table.to_pydict().values(), strict=True))
        )
    else:
        pq.write_table(table, path)
    config = {"control_mode": "autonomous", "outcome_uri": str(path)}
    found = import_it(recording, **config)
    assert [outcome for _, outcome in kinds_and_outcomes(found)] == ["success", "failure", "failure", "success"]

    # A changed table is another import.
    pq.write_table(table.set_column(1, "outcome", pa.array(["success"] * 4)), path.with_suffix(".parquet"))
    again = import_it(recording, **{**config, "outcome_uri": str(path.with_suffix(".parquet"))})
    assert [outcome for _, outcome in kinds_and_outcomes(again)] == ["success"] * 4
    assert again.digest != found.digest


def test_a_table_of_outcomes_is_checked(recording, tmp_path):
    table = tmp_path / "outcomes.csv"
    table.write_text("episode_index,result\n0,success\n")
    with pytest.raises(DataError, match=r"has no column outcome\n  where: .*outcomes.csv"):
        read_outcomes(str(table))
    table.write_text("episode_index,outcome\n0,success\n1,failure\n0,failure\n")
    with pytest.raises(DataError, match="episode 0 stands twice"):
        read_outcomes(str(table))
    table.write_text("episode_index,outcome\n0,success\n1,failure\n7,failure\n")
    message = refused(recording, control_mode="autonomous", outcome_uri=str(table))
    assert "the table of outcomes names an episode that is not there" in message
    assert "episode 7" in message
    assert "a rollout has no outcome" in message
    assert "episode 2; episode 3" in message


def test_control_modes_of_another_spelling(recording):
    counts = lengths(recording)
    words = ["Policy", "HOLD", "human"]
    add_column(recording, "phase", {e: [words[t % 3] for t in range(counts[e])] for e in range(4)}, "string")
    config = {"control_mode_column": "phase", "outcome": "success"}
    message = refused(recording, **config)
    assert "unknown control mode HOLD, Policy, human in column phase" in message
    assert "control_mode_values: {HOLD: autonomous}" in message

    meaning = {"policy": "autonomous", "hold": "paused", "human": "correcting"}
    found = import_it(recording, **config, control_mode_values=meaning)
    assert modes(found, 1)[:4] == ["autonomous", "paused", "correcting", "autonomous"]
    assert kinds_and_outcomes(found) == [("rollout", "success")] * 4


def test_paused_frames_from_a_column_of_their_own(recording):
    counts = lengths(recording)
    add_column(recording, "intervention", {0: [1] * counts[0]})
    add_column(recording, "held", {0: [1] + [0] * (counts[0] - 1), 1: [0] * (counts[1] - 2) + [1, 1]})
    found = import_it(recording, paused_column="held", outcome="success")
    # Held still by a person all the same: still a demonstration.
    assert modes(found, 0) == ["paused"] + ["demo"] * (counts[0] - 1)
    assert modes(found, 1) == ["autonomous"] * (counts[1] - 2) + ["paused"] * 2
    assert kinds_and_outcomes(found)[0] == ("demo", "success")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (lambda n: pa.array([[0]] * n), "column intervention holds [0] (list<"),
        (lambda n: pa.array([2] * n), "column intervention holds 2 (int64)"),
        (lambda n: pa.array([0.5] * n), "column intervention holds 0.5 (double)"),
        (lambda n: pa.array(["yes"] * n), "column intervention holds yes (string)"),
    ],
)
def test_an_intervention_that_is_not_0_or_1_is_an_error(recording, values, shown):
    """A list of one 0 is true to many a reader, and a list of one 1 is false to pistar's."""
    kind = str(values(1).type.value_type) if pa.types.is_list(values(1).type) else str(values(1).type)
    dtype = {"double": "float64"}.get(kind, kind)
    for episode in range(4):
        change_rows(recording, episode, lambda table: table.append_column("intervention", values(table.num_rows)))
    change_info(recording, lambda i: i["features"].update(intervention={"dtype": dtype, "shape": [1], "names": None}))
    message = refused(recording, outcome="success")
    assert shown in message
    assert "expected: one 0 or 1 in each row (int64, shape [1]), not a list and not text" in message


def test_a_control_mode_that_is_a_number_is_an_error(recording):
    add_column(recording, "control_mode", {})
    message = refused(recording, outcome="success")
    assert message.startswith("column control_mode is int64")
    assert "name an intervention_column instead" in message


def test_a_kind_that_contradicts_the_frames_is_an_error(recording):
    counts = lengths(recording)
    add_column(recording, "control_mode", {e: ["autonomous"] * counts[e] for e in range(4)}, "string")
    change_episodes(recording, lambda row: row.update(kind="demo" if row["episode_index"] == 2 else "rollout"))
    message = refused(recording, outcome="success")
    assert message.startswith("control mode autonomous in a demo\n  where: ")
    assert "episode 2" in message

    change_episodes(recording, lambda row: row.update(kind="play"))
    assert refused(recording, outcome="success").startswith("episode kind 'play' in the meta rows")


def test_an_episode_half_demonstrated_is_an_error(recording):
    counts = lengths(recording)
    add_column(recording, "control_mode", {e: ["demo"] + ["autonomous"] * (counts[e] - 1) for e in range(4)}, "string")
    assert refused(recording, outcome="success").startswith("control mode demo in a rollout")


def test_all_controlled_by_a_person_is_a_demo_unless_said_otherwise(recording):
    counts = lengths(recording)
    add_column(recording, "intervention", {e: [1] * counts[e] for e in range(4)})
    assert kinds_and_outcomes(import_it(recording)) == [("demo", "success")] * 4
    found = import_it(recording, kind="rollout", outcome="failure")
    assert kinds_and_outcomes(found) == [("rollout", "failure")] * 4
    assert set(modes(found, 0)) == {"correcting"}


def test_the_episodes_kind_counts_where_the_column_does_not_mark_demos(tmp_path):
    """Our own recordings: ``intervention`` is 1 only where a rollout was corrected."""
    path = tmp_path / "recording"
    synthetic.write_recording(path, episodes=4, version="v2.1", cameras=[], omit=["control_mode"])
    found = import_it(path)
    assert kinds_and_outcomes(found)[0] == ("demo", "success")
    assert set(modes(found, 0)) == {"demo"}
    assert set(modes(found, 3)) == {"autonomous", "correcting"}


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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, "success"),
        (1, "success"),
        (1.0, "success"),
        (np.float32(1), "success"),
        ("SUCCESS", "success"),
        (False, "failure"),
        (0.0, "failure"),
        ("failure", "failure"),
        (None, "unknown"),
        (float("nan"), "unknown"),
        ("", "unknown"),
        ("unknown", "unknown"),
        (0.5, None),
        ("failed?", None),
    ],
)
def test_outcomes_are_read_in_every_spelling(value, expected):
    assert parse_outcome(value) == expected
