"""How each episode ended: from its last frame, its meta row, a table, or as told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bare_recording import add_column, import_it, kinds_and_outcomes, lengths, modes, refused, write_bare
from synthetic import change_episodes

from robolift.data.episodes import parse_outcome
from robolift.errors import DataError
from robolift.stages.import_dataset import read_outcomes


@pytest.fixture
def recording(tmp_path) -> Path:
    return write_bare(tmp_path / "recording")


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a readable CSV file"),
        ("episode_index,outcome\n0,success\n1\n", "not a readable CSV file"),
        ("episode_index,outcome\n0,success\n,failure\n", "row 1 of the table of outcomes has the episode_index None"),
        ("episode_index,outcome\nfirst,success\n", "row 0 of the table of outcomes has the episode_index 'first'"),
    ],
)
def test_a_garbled_table_of_outcomes_is_a_data_error(tmp_path, content, message):
    table = tmp_path / "outcomes.csv"
    table.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_outcomes(str(table))
    assert caught.value.where == str(table)
