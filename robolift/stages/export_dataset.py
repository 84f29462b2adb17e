"""Join what was learned about the frames into a standalone LeRobot dataset that other tools train on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from robolift import schema
from robolift.data import lerobot_format as fmt
from robolift.data.export import Additions, Beside, export
from robolift.data.joined import JoinedColumns
from robolift.errors import UsageError
from robolift.manifest import Manifest, Output
from robolift.schema import Kind
from robolift.stages.export_columns import (
    Columns,
    check_outcomes,
    kai0_columns,
    kai0_names,
    pistar_columns,
    prompt_columns,
    read_prompts,
)
from robolift.stages.export_rewards import (
    RewardColumn,
    RewardColumns,
    Unlabelled,
    check_success_threshold,
    make_rabc_column,
    make_reward_columns,
    make_stage_progress_column,
    write_lerobot_rewards,
)
from robolift.stages.export_tables import Block, FrameTables
from robolift.stages.label_sources import check_lookahead
from robolift.stages.quality_gate import MEASURED, check_measured, check_passed
from robolift.stages.stage import Input, Inputs, StageConfig
from robolift.table_files import RowGroups

INPUTS = {
    "dataset": Input(kind=Kind.DATASET),
    "targets": Input(kind=Kind.TARGETS, optional=True),
    "values": Input(kind=Kind.VALUES, optional=True),
    "labels": Input(kind=Kind.LABELS, optional=True),
    "rewards": Input(kind=Kind.REWARDS, optional=True),
    "quality": Input(kind=Kind.QUALITY, optional=True),
}
OUTPUT = Kind.EXPORT
FOLDER = "dataset"
WEIGHTS_FILE = "weights.parquet"
READ: dict[str, dict[str, tuple[str, ...]]] = {
    "pistar": {"targets": ("reward", "value_target"), "labels": ("advantage_label", "slice")},
    "kai0": {"labels": ("prompt_index",)},
    "kai0_values": {"values": ("value", "relative_advantage")},
    "weights": {"labels": ("weight",)},
    "next_reward": {"targets": ("reward",)},
    "values": {"values": ("value",)},
}
"""Columns that each set is made of, by table; those of ``rewards`` are all read."""
TABLES = ("targets", "values", "labels", "rewards")
COPIED = {
    "weights": ("weight", "labels", "weight"),
    "next_reward": ("next.reward", "targets", "reward"),
    "values": ("value", "values", "value"),
}
"""Sets of one column that is taken as it is: its name, and the table and column that it comes from."""

ColumnSet = Literal[
    "pistar",
    "kai0",
    "kai0_values",
    "weights",
    "next_reward",
    "values",
    "rewards",
    "rabc_weights",
    "stage_progress",
    "lerobot_rewards",
]
NEEDS: dict[str, tuple[str, ...]] = {
    "pistar": ("targets", "labels"),
    "kai0": ("labels",),
    "kai0_values": ("values",),
    "weights": ("labels",),
    "next_reward": ("targets",),
    "values": ("values",),
    "rewards": ("rewards",),
    "rabc_weights": ("rewards",),
    "stage_progress": ("rewards",),
    "lerobot_rewards": ("rewards",),
}


class Config(StageConfig):
    """Which columns are joined, and the format written to the folder ``dataset`` of the output."""

    columns: Annotated[tuple[ColumnSet, ...], Field(min_length=1)] = ("pistar", "weights")
    """pistar: intervention, reward, reward_label, value_label, adv_ind. kai0: task_index of the prompt, and the prompts
    as tasks. kai0_values: absolute_value, absolute_advantage and, of a two-frame model, relative_advantage (float64).
    weights: weight, and weights.parquet (index, weight) beside the dataset. next_reward: next.reward, of the value
    targets. values: value. rewards: `reward_columns`, of the labelled rewards. rabc_weights: rabc_weight, what
    reward-aligned behaviour cloning makes of their progress. stage_progress: stage_progress_gt as kai0 reads it, of
    people's stages. lerobot_rewards: sarm_progress.parquet beside the dataset, which LeRobot's RA-BC reads.
    A column of the same name in the source is replaced."""
    version: Literal["source", "v2.1", "v3.0"] = "source"
    """LeRobot version written; source: that of the first source."""
    lookahead: int = Field(default=50, ge=1)
    """Frames over which `absolute_advantage` of `kai0_values` is measured, take that of the prediction; and the rise of
    progress of `rabc_weights`, take the length of the policy's action chunk."""
    kai0_folder: Annotated[str, Field(pattern=r"^(data_[A-Za-z0-9.-]+_[0-9]+)?$")] = ""
    """Folder `data_<NAME>_<step>` for `kai0_values`, such as data_KAI0_100000: a second copy of the rows beside
    `data`, which then lacks these columns. So kai0's eval.py leaves a dataset, and discretize_advantage.sh wants it.
    For version v2.1. Tools that search a whole dataset for Parquet files count such rows twice."""
    reward_columns: Annotated[tuple[RewardColumn, ...], Field(min_length=1)] = (
        "next.reward",
        "next.success",
        "progress",
    )
    """Columns of the set `rewards`. next.reward (float32), next.success (bool, true in the last frame of a success),
    progress (float32); tri (people's -1, 0, +1) and task_stage (from 0) are int64."""
    unlabelled: Unlabelled = "refuse"
    """What a frame without a label gets in the columns made of rewards. refuse: an error, as zero would be a label.
    nan: NaN, and of `rabc_weights` a weight of 1 as in LeRobot; integers and booleans can't be NaN and are refused."""
    success_threshold: float = Field(default=0.5, ge=0, le=1)
    """Success probability of an episode's last frame from which next.success is true; that of `merge_rewards`. People's
    word on how an episode ended counts, else its recorded outcome, else the model's."""
    num_task_stages: Annotated[int, Field(ge=1)] | None = None
    """Stages the task has, for `stage_progress`: an episode that failed early does not show them all."""
    quality_gate: bool = True
    """Whether rewards are refused whose labels did not pass, as the input `quality` has it."""

    @model_validator(mode="after")
    def _agree(self) -> Config:
        if {"rewards", "next_reward"} <= set(self.columns) and "next.reward" in self.reward_columns:
            raise ValueError(
                "next_reward and rewards both make next.reward; take one, or leave it out of reward_columns"
            )
        if "stage_progress" in self.columns and self.num_task_stages is None:
            raise ValueError("stage_progress needs num_task_stages, how many stages the task has")
        if self.kai0_folder and "kai0_values" not in self.columns:
            raise ValueError("kai0_folder is for the columns kai0_values; name them in columns, or leave it out")
        return self


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Write the dataset with its columns and return the counts."""
    for name in config.columns:
        missing = [needed for needed in NEEDS[name] if not inputs.get(needed)]
        if missing:
            raise UsageError(f"columns: {name} needs the input {' and '.join(missing)}; wire it or leave {name} out")
    if quality := inputs.get_one("quality"):
        check_quality(quality, inputs.get_one("rewards"), gate=config.quality_gate)
    made = {name: found for name in TABLES if (found := inputs.get_one(name))}
    columns = {name: _columns(config, name) for name in made}
    tables = FrameTables(inputs.one("dataset"), made, columns, modes="pistar" in config.columns)
    dataset = tables.dataset
    version = dataset.sources[0].version if config.version == "source" else config.version
    if config.kai0_folder and version != fmt.V21:
        raise UsageError(f"kai0_folder is laid out as {fmt.V21}, and version is {version}; set version: {fmt.V21}")
    tasks = read_prompts(tables) if "kai0" in config.columns else None
    makers = _makers(config, tables)
    predicted = _predicted(config, tables)
    if "lerobot_rewards" in config.columns:
        write_lerobot_rewards(_rewards(config, tables), output.path)
    blocks = ({name: array for make in makers for name, array in make(block).items()} for block in tables.blocks())
    with closing(JoinedColumns(blocks, output.path)) as joined:
        beside = Beside(folder=config.kai0_folder, names=predicted) if config.kai0_folder else None
        away = {"task_index", *(beside.names if beside else ())}
        names = [name for name in joined.types if name not in away]
        additions = Additions(columns=joined, names=names, tasks=tasks)
        videos = export(dataset, additions, output.path / FOLDER, version=version, beside=beside)
        if "weights" in config.columns:
            write_weights(joined, output.path / WEIGHTS_FILE)
    return {
        "episodes": dataset.num_episodes,
        "frames": dataset.num_frames,
        "columns": len(names) + (len(beside.names) if beside else 0),
        **{f"videos_{how}": count for how, count in videos.items()},
    }


def check_quality(quality: Manifest, rewards: Manifest | None, *, gate: bool) -> None:
    """Check that the quality is of the labels that the rewards were merged from and, with ``gate``, that they passed.

    Raises:
        UsageError: If there are no rewards, or they were not merged.
        DataError: If the quality is of others; or naming each measure that failed.
    """
    parents = {name: made[0].digest for name, made in rewards.inputs.items() if made} if rewards else {}
    if rewards is None or not set(MEASURED) <= set(parents):
        raise UsageError("the input quality is of merged labels; give the output of merge_rewards as rewards")
    check_measured(quality, parents, where=rewards.uri)
    if gate:
        check_passed(quality)


def _columns(config: Config, table: str) -> list[str]:
    """Return what is read of a table beside its keys."""
    used = schema.REWARDS.names if table == "rewards" else ()
    return list(dict.fromkeys([*used, *(name for of in config.columns for name in READ.get(of, {}).get(table, ()))]))


def _makers(config: Config, tables: FrameTables) -> list[Callable[[Block], Columns]]:
    """Check what the columns need and return what makes them of a block, in their order."""
    makers: list[Callable[[Block], Columns]] = []
    if "pistar" in config.columns:
        check_outcomes(tables)
        makers.append(pistar_columns)
    makers += [partial(_copied, place=place) for name, place in COPIED.items() if name in config.columns]
    if "kai0" in config.columns:
        makers.append(prompt_columns)
    if "rewards" in config.columns:
        rewards = _rewards(config, tables)
        check_success_threshold(rewards.made, config.success_threshold)
        makers.append(make_reward_columns(rewards, config.reward_columns, success_threshold=config.success_threshold))
    if "rabc_weights" in config.columns:
        makers.append(make_rabc_column(_rewards(config, tables), lookahead=config.lookahead))
    if "stage_progress" in config.columns and config.num_task_stages is not None:
        makers.append(make_stage_progress_column(_rewards(config, tables), num_task_stages=config.num_task_stages))
    if names := _predicted(config, tables):
        makers.append(partial(kai0_columns, names=names, lookahead=config.lookahead))
    return makers


def _copied(block: Block, *, place: tuple[str, str, str]) -> Columns:
    name, table, column = place
    return {name: block.array(table, column)}


def _rewards(config: Config, tables: FrameTables) -> RewardColumns:
    return RewardColumns(tables=tables, unlabelled=config.unlabelled)


def _predicted(config: Config, tables: FrameTables) -> tuple[str, ...]:
    """Return the columns of kai0_values, checked to be there."""
    if "kai0_values" not in config.columns:
        return ()
    check_lookahead(tables.made["values"], config.lookahead)
    return kai0_names(tables)


def write_weights(joined: JoinedColumns, path: Path) -> None:
    """Write the table (index, weight) that lies beside the dataset."""
    columns = pa.schema([("index", pa.int64()), ("weight", joined.types["weight"])])
    groups = RowGroups(path, columns, schema.ROW_GROUP_ROWS, **schema.parquet_options(columns))
    for block in joined.blocks(["weight"]):
        index = np.arange(groups.num_rows, groups.num_rows + len(block["weight"]))
        groups.add(pa.Table.from_arrays([pa.array(index), block["weight"]], schema=columns))
    groups.close()
