"""The columns that an export takes from value targets, predicted values and labels, block by block."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from robolift import storage
from robolift.errors import DataError
from robolift.labeling.advantage import absolute_advantage
from robolift.labeling.prompts import PromptTable
from robolift.stages.export_tables import Block, FrameTables

PROMPTS_FILE = "prompts.json"

Columns = Mapping[str, pa.Array]


def check_outcomes(tables: FrameTables) -> None:
    """Check that pistar's reward can say how each episode ended.

    Raises:
        DataError: If an episode's outcome is unknown: its reward would say that it failed.
    """
    outcomes = np.array(tables.dataset.episodes.column("outcome").to_pylist(), dtype=object)
    unknown = np.flatnonzero(outcomes == "unknown")
    if len(unknown):
        raise DataError(
            f"{len(unknown)} episodes have an unknown outcome",
            where=f"first episode {int(unknown[0])}",
            expected="success or failure in every episode; pistar's reward can't say unknown",
            mend="import the dataset with outcomes, or leave pistar out of columns",
        )


def pistar_columns(block: Block) -> Columns:
    """Return the five columns that pistar trains on, (n,) each.

    ``intervention`` int64 is 1 where a person controls, in all of a demonstration; ``reward`` float32 is 1 in the last
    frame of a success; ``reward_label`` and ``value_label`` float32 are the rewards and value targets; ``adv_ind`` is
    the advantage label, or the number of the slice.
    """
    some = block.dataset.episodes.column("outcome").slice(block.episodes.start, len(block.episodes))
    outcomes = np.array(some.to_pylist(), dtype=object)
    modes = np.array(block.array("frames", "control_mode").to_pylist(), dtype=object)
    reward = np.zeros(len(modes), np.float32)
    reward[block.starts[1:][outcomes == "success"] - 1] = 1
    slices, names = (block.array("labels", column).to_pylist() for column in ("slice", "advantage_label"))
    indicator = [name if number is None else str(number) for number, name in zip(slices, names, strict=True)]
    return {
        "intervention": pa.array(np.isin(modes, ("demo", "correcting")).astype(np.int64)),
        "reward": pa.array(reward),
        "reward_label": block.array("targets", "reward"),
        "value_label": block.array("targets", "value_target"),
        "adv_ind": pa.array(indicator, pa.string()),
    }


def read_prompts(tables: FrameTables) -> tuple[str, ...]:
    """Return the texts that ``prompt_index`` of the labels counts.

    Raises:
        DataError: If it counts others too.
    """
    labels, facts = tables.made["labels"], tables.facts["labels", "prompt_index"]
    table = PromptTable.from_dict(storage.read_json(labels.file(PROMPTS_FILE)))
    if tables.dataset.num_frames and not (facts.least >= 0 and facts.most < len(table)):
        raise DataError(
            f"prompt_index {int(facts.most)} is outside the prompt table",
            where=labels.file("labels.parquet"),
            expected=f"0 to {len(table) - 1}, as in {PROMPTS_FILE}",
            mend="make the labels again",
        )
    return table.prompts


def prompt_columns(block: Block) -> Columns:
    """Return the number of each frame's prompt as its task, (n,) int64."""
    return {"task_index": pa.array(block.numbers("labels", "prompt_index").astype(np.int64))}


def kai0_names(tables: FrameTables) -> tuple[str, ...]:
    """Return the columns that kai0's ``eval.py`` adds, in its order.

    ``relative_advantage`` is left out where another than a two-frame model made the values, as kai0 does for PI06.

    Raises:
        DataError: If a value is not a finite number, or ``relative_advantage`` is known in some frames only.
    """
    count = tables.dataset.num_frames
    stated = ["value", "relative_advantage"]
    if tables.facts["values", "relative_advantage"].nulls == count:
        stated.remove("relative_advantage")
    for name in stated:
        facts = tables.facts["values", name]
        if facts.unknown:
            raise DataError(
                f"{name} is no finite number in {facts.unknown} of {count} frames",
                where=f"values, first at row {facts.first_unknown}",
                expected="a finite number in every frame, or relative_advantage in none",
                mend="predict the values again",
            )
    return (*stated[1:], "absolute_value", "absolute_advantage")


def kai0_columns(block: Block, *, names: tuple[str, ...], lookahead: int) -> Columns:
    """Return the columns of :func:`kai0_names`, (n,) float64 each.

    ``relative_advantage`` as a two-frame model predicted it; ``absolute_value`` is the value; ``absolute_advantage``
    its rise over the lookahead, clipped to [-1, 1].
    """
    value = block.numbers("values", "value").astype(np.float64)
    advantage, _ = absolute_advantage(value, block.starts, lookahead=lookahead)
    found = {"absolute_value": value, "absolute_advantage": advantage}
    if "relative_advantage" in names:
        found["relative_advantage"] = block.numbers("values", "relative_advantage").astype(np.float64)
    return {name: pa.array(found[name]) for name in names}
