"""Label each frame by its advantage, group by group, and give it the prompt that says so.

recap: N-step advantage of rewards and values, ranked among the autonomous frames of rollouts. kai0's stage advantage
(``preset: stage_advantage``): progress over the lookahead, of the estimator or as recorded, ranked among all frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robolift import schema
from robolift.labeling.cut_rule import Tie
from robolift.labeling.prompts import BINARY_LABELS, advantage_prompts, prompt
from robolift.labeling.summary import NEGATIVE, POSITIVE
from robolift.logging import get_logger
from robolift.manifest import Output
from robolift.memory import keep_freed_blocks
from robolift.schema import Kind
from robolift.stages.label_config import Config, GroupBy
from robolift.stages.label_decision import Decided, Decision
from robolift.stages.label_preview import Shown
from robolift.stages.label_sources import Sources, strings
from robolift.stages.label_summary import Summary
from robolift.stages.stage import Input, Inputs

INPUTS = {
    "dataset": Input(kind=Kind.DATASET),
    "targets": Input(kind=Kind.TARGETS, optional=True),
    "values": Input(kind=Kind.VALUES, optional=True),
    "rewards": Input(kind=Kind.REWARDS, optional=True),
}
OUTPUT = Kind.LABELS
PAUSED = schema.CONTROL_MODES.index("paused")


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``labels.parquet``, ``prompts.json`` and ``summary.json``."""
    keep_freed_blocks()
    sources = open_sources(config, inputs)
    prompts = Prompts(config, sources)
    summary = Summary(config, sources)
    with closing(Decision(config, sources, output.path)) as decision, output.open_table("labels") as table:
        decision.rank()
        for block in decision.blocks():
            weights = decision.weights.weigh(block.mode == PAUSED)
            table.add(label_columns(sources, decision, block, weights, prompts.choose(block)))
            summary.add(block)
        found = {**summary.describe(decision), "weight": decision.weights.facts()}
    output.write_json("prompts.json", prompts.table.to_dict())
    output.write_json("summary.json", found)
    output.metrics.update({f"positive_share_{part}": found[part]["positive_share"] for part in ("all", "ranked")})
    output.metrics["failure_tail"] = found["failure_tail"]
    _tell(config, found)
    counts = {name: found["all"][name] for name in ("frames", *schema.ADVANTAGE_LABELS)}
    return {"episodes": sources.dataset.num_episodes, **counts}


def open_sources(config: Config, inputs: Inputs) -> Sources:
    """Open what the labels are made from."""
    return Sources(inputs, config.columns_read(predicted=bool(inputs.get("values"))), config.signals)


class Prompts:
    """The prompts of a dataset's labels.

    Attributes:
        table: All of them.
    """

    def __init__(self, config: Config, sources: Sources) -> None:
        """Make the table.

        Raises:
            DataError: If the task of an episode has no prompt, or two prompts are equal.
        """
        tasks, self._slices, self._task = sources.dataset.tasks, config.slices, sources.task
        self.table = advantage_prompts(tasks, config.slices)
        names: Sequence[str | int] = BINARY_LABELS if config.slices is None else range(config.slices)
        rows = [[self.table.index(prompt(text, name)) for name in (None, *names)] for text in tasks]
        self._rows = np.array(rows, dtype=np.int32)

    def choose(self, block: Decided) -> npt.NDArray[np.int32]:
        """Return the prompt of each frame, a position in the table, (n,)."""
        task = np.repeat(self._task[block.episodes.start : block.episodes.stop], np.diff(block.starts))
        if self._slices:
            return self._rows[task, block.slices + 1]
        column = np.zeros(3, np.intp)
        column[[NEGATIVE, POSITIVE]] = 1, 2
        return self._rows[task, column[block.label]]


def label_columns(
    sources: Sources,
    decision: Decision,
    block: Decided,
    weights: npt.NDArray[np.float32],
    prompts: npt.NDArray[np.int32],
) -> dict[str, Any]:
    """Return the rows of the labels table for the frames of a block."""
    first, end = (int(sources.dataset.starts[episode]) for episode in (block.episodes.start, block.episodes.stop))
    return {
        **sources.dataset.keys(first, end),
        "advantage": pa.array(block.advantage, mask=~block.valid),
        "valid": block.valid,
        "advantage_label": strings(block.label, schema.ADVANTAGE_LABELS),
        "slice": pa.array(block.slices, mask=block.slices < 0),
        "reason": strings(block.reason, schema.LABEL_REASONS),
        # Position -1 is the last name: empty, for frames that no cut concerns.
        "group": strings(block.group % (len(decision.group_names) + 1), [*decision.group_names, ""]),
        "weight": weights,
        "prompt_index": prompts,
    }


def preview(config: Config, inputs: Inputs) -> str:
    """Return what the labels would be like, for a dry run."""
    sources = open_sources(config, inputs)
    with closing(Decision(config, sources)) as decision:
        decision.rank()
        summary, shown = Summary(config, sources), Shown(config, decision)
        for block in decision.blocks():
            summary.add(block)
            shown.add(block)
        found = summary.describe(decision)
        _tell(config, found)
        return shown.describe(found)


def _tell(config: Config, summary: Mapping[str, Any]) -> None:
    log = get_logger("label_advantage")
    for name, group in summary["groups"].items():
        log.info("cut", group=name, **{key: group[key] for key in ("n", "cut", "ties", "achieved_share")})
        if config.tie != Tie.EXACT and group["ties"] > 1 and group["achieved_share"] > 1.5 * group["requested_share"]:
            log.warning(
                "many frames have the advantage of the cut and all are positive: tie exact keeps the share",
                group=name,
                **{key: group[key] for key in ("ties", "requested_share", "achieved_share")},
            )
        if group["positives"] == 0:
            log.warning("too few frames for one of them to be positive", group=name, frames=group["n"])
    if config.group_by == GroupBy.TASK_STAGE and summary["empty_groups"]:
        log.warning("no frame to rank in these task stages", groups=list(summary["empty_groups"]))
    if summary["failure_tail"]["suspicious"]:
        log.warning(
            "the ends of failed episodes are labelled positive far more often than the rest of them: "
            "check that rewards and value targets agree, and that the value model knows failures",
            **summary["failure_tail"],
        )
