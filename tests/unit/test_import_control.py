"""Who controlled each frame and what kind each episode is: from columns, from the meta rows, or as told."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import synthetic
from bare_recording import add_column, import_it, kinds_and_outcomes, lengths, modes, refused, write_bare
from synthetic import change_episodes, change_info, change_rows

from robolift.__main__ import main


@pytest.fixture
def recording(tmp_path) -> Path:
    return write_bare(tmp_path / "recording")


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
