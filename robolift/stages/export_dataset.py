"""Join what was learned about the frames into a standalone LeRobot dataset that other tools train on."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from robolift import schema, storage
from robolift.data import lerobot_format as fmt
from robolift.data.dataset import Dataset
from robolift.data.export import Additions, Beside, export
from robolift.data.same_frames import read_frames
from robolift.errors import DataError, UsageError
from robolift.labeling.advantage import absolute_advantage
from robolift.labeling.prompts import PromptTable
from robolift.manifest import Manifest, Output
from robolift.schema import Kind
from robolift.stages.export_rewards import (
    RewardColumn,
    RewardTable,
    Unlabelled,
    check_success_threshold,
    rabc_column,
    reward_columns,
    stage_progress_column,
    write_lerobot_rewards,
)
from robolift.stages.label_sources import check_lookahead
from robolift.stages.quality_gate import MEASURED, check_measured, check_passed
from robolift.stages.stage import Input, Inputs, StageConfig
from robolift.table_files import TableReader

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
PROMPTS_FILE = "prompts.json"
READ: dict[str, dict[str, tuple[str, ...]]] = {
    "pistar": {"targets": ("reward", "value_target"), "labels": ("advantage_label", "slice")},
    "kai0": {"labels": ("prompt_index",)},
    "kai0_values": {"values": ("value", "relative_advantage")},
    "weights": {"labels": ("weight",)},
    "next_reward": {"targets": ("reward",)},
    "values": {"values": ("value",)},
}
"""Columns that each set is made of, by table; those of ``rewards`` are all read."""

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
    origin = inputs.one("dataset")
    dataset = Dataset.open(origin)
    tables = {
        name: _table(dataset, origin, found, name, _columns(config, name))
        for name in ("targets", "values", "labels", "rewards")
        if (found := inputs.get_one(name))
    }
    version = dataset.sources[0].version if config.version == "source" else config.version
    if config.kai0_folder and version != fmt.V21:
        raise UsageError(f"kai0_folder is laid out as {fmt.V21}, and version is {version}; set version: {fmt.V21}")
    additions = _additions(config, dataset, tables, inputs.get_one("labels"))
    rewards = None
    if made := inputs.get_one("rewards"):
        rewards = RewardTable(dataset=dataset, table=tables["rewards"], made=made, unlabelled=config.unlabelled)
        additions = replace(additions, columns={**additions.columns, **_rewarded(config, rewards)})
    beside = None
    if "kai0_values" in config.columns:
        check_lookahead(inputs.one("values"), config.lookahead)
        predicted = kai0_columns(dataset, tables["values"], lookahead=config.lookahead)
        if config.kai0_folder:
            beside = Beside(folder=config.kai0_folder, columns=predicted)
        else:
            additions = replace(additions, columns={**additions.columns, **predicted})
    if rewards and "lerobot_rewards" in config.columns:
        write_lerobot_rewards(rewards, output.path)
    videos = export(dataset, additions, output.path / FOLDER, version=version, beside=beside)
    if "weights" in config.columns:
        weights = pa.table({"index": pa.array(np.arange(dataset.num_frames)), "weight": additions.columns["weight"]})
        schema.write_table(output.path / WEIGHTS_FILE, weights)
    return {
        "episodes": dataset.num_episodes,
        "frames": dataset.num_frames,
        "columns": len(additions.columns) + (len(beside.columns) if beside else 0),
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


def _table(dataset: Dataset, origin: Manifest, made: Manifest, name: str, columns: list[str]) -> pa.Table:
    """Read columns of a sidecar and check, block by block, that it speaks of this dataset, frame by frame."""
    parents = made.inputs.get("dataset", [])
    with TableReader(made.uri, name, list(dict.fromkeys([*schema.KEYS, *columns]))) as reader:
        if not all(parent.digest == origin.digest for parent in parents):
            raise DataError(
                f"table {name} ({reader.num_rows} rows) was made from another dataset",
                where=made.file(f"{name}.parquet"),
                expected=f"a row for each of the {dataset.num_frames} frames of {origin.uri}",
                mend=f"give the {name} that were made from this dataset",
            )
        count, rows = dataset.num_frames, schema.ROW_GROUP_ROWS
        blocks = (read_frames(reader, dataset, first, min(first + rows, count)) for first in range(0, count, rows))
        return pa.concat_tables(block.select(columns) for block in blocks)


def _additions(config: Config, dataset: Dataset, tables: dict[str, pa.Table], labels: Manifest | None) -> Additions:
    columns: dict[str, pa.Array] = {}
    if "pistar" in config.columns:
        columns |= pistar_columns(dataset, tables["targets"], tables["labels"])
    if "weights" in config.columns:
        columns["weight"] = _array(tables["labels"], "weight")
    if "next_reward" in config.columns:
        columns["next.reward"] = _array(tables["targets"], "reward")
    if "values" in config.columns:
        columns["value"] = _array(tables["values"], "value")
    if "kai0" not in config.columns or labels is None:
        return Additions(columns=columns)
    table = PromptTable.from_dict(storage.read_json(labels.file(PROMPTS_FILE)))
    index = tables["labels"].column("prompt_index").to_numpy()
    if len(index) and not (index.min() >= 0 and index.max() < len(table)):
        raise DataError(
            f"prompt_index {int(index.max())} is outside the prompt table",
            where=labels.file("labels.parquet"),
            expected=f"0 to {len(table) - 1}, as in {PROMPTS_FILE}",
            mend="make the labels again",
        )
    return Additions(columns=columns, tasks=table.prompts, task_index=index)


def _rewarded(config: Config, rewards: RewardTable) -> dict[str, pa.Array]:
    columns: dict[str, pa.Array] = {}
    if "rewards" in config.columns:
        check_success_threshold(rewards.made, config.success_threshold)
        columns |= reward_columns(rewards, config.reward_columns, success_threshold=config.success_threshold)
    if "rabc_weights" in config.columns:
        columns |= rabc_column(rewards, lookahead=config.lookahead)
    if "stage_progress" in config.columns and config.num_task_stages is not None:
        columns |= stage_progress_column(rewards, num_task_stages=config.num_task_stages)
    return columns


def pistar_columns(dataset: Dataset, targets: pa.Table, labels: pa.Table) -> dict[str, pa.Array]:
    """Return the five columns that pistar trains on, (F,) each.

    ``intervention`` int64 is 1 where a person controls, in all of a demonstration; ``reward`` float32 is 1 in the last
    frame of a success; ``reward_label`` and ``value_label`` float32 are the rewards and value targets; ``adv_ind`` is
    the advantage label, or the number of the slice.

    Raises:
        DataError: If an episode's outcome is unknown: its reward would say that it failed.
    """
    outcomes = np.array(dataset.episodes.column("outcome").to_pylist(), dtype=object)
    unknown = np.flatnonzero(outcomes == "unknown")
    if len(unknown):
        raise DataError(
            f"{len(unknown)} episodes have an unknown outcome",
            where=f"first episode {int(unknown[0])}",
            expected="success or failure in every episode; pistar's reward can't say unknown",
            mend="import the dataset with outcomes, or leave pistar out of columns",
        )
    modes = np.array(dataset.frames.column("control_mode").to_pylist(), dtype=object)
    reward = np.zeros(dataset.num_frames, np.float32)
    reward[dataset.starts[1:][outcomes == "success"] - 1] = 1
    slices, names = labels.column("slice").to_pylist(), labels.column("advantage_label").to_pylist()
    indicator = [name if number is None else str(number) for number, name in zip(slices, names, strict=True)]
    return {
        "intervention": pa.array(np.isin(modes, ("demo", "correcting")).astype(np.int64)),
        "reward": pa.array(reward),
        "reward_label": _array(targets, "reward"),
        "value_label": _array(targets, "value_target"),
        "adv_ind": pa.array(indicator, pa.string()),
    }


def kai0_columns(dataset: Dataset, values: pa.Table, *, lookahead: int) -> dict[str, pa.Array]:
    """Return the columns that kai0's ``eval.py`` adds, (F,) float64 each, in its order.

    ``relative_advantage`` as a two-frame model predicted it, left out where another model made the values, as kai0 does
    for PI06; ``absolute_value`` is the value; ``absolute_advantage`` its rise over the lookahead, clipped to [-1, 1].

    Raises:
        DataError: If a value is not a finite number, or ``relative_advantage`` is known in some frames only.
    """
    stated = {"value": values.column("value"), "relative_advantage": values.column("relative_advantage")}
    if stated["relative_advantage"].null_count == dataset.num_frames:
        del stated["relative_advantage"]
    exact = {name: column.to_numpy().astype(np.float64) for name, column in stated.items()}
    for name, numbers in exact.items():
        wrong = np.flatnonzero(~np.isfinite(numbers))
        if len(wrong):
            raise DataError(
                f"{name} is no finite number in {len(wrong)} of {dataset.num_frames} frames",
                where=f"values, first at row {wrong[0]}",
                expected="a finite number in every frame, or relative_advantage in none",
                mend="predict the values again",
            )
    value = exact["value"]
    advantage, _ = absolute_advantage(value, dataset.starts, lookahead=lookahead)
    relative = {name: pa.array(exact[name]) for name in exact if name != "value"}
    return {**relative, "absolute_value": pa.array(value), "absolute_advantage": pa.array(advantage)}


def _array(table: pa.Table, name: str) -> Any:
    return table.column(name).combine_chunks()
