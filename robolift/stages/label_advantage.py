"""Label each frame by its advantage, group by group, and give it the prompt that says so.

recap: N-step advantage of rewards and values, ranked among the autonomous frames of rollouts. kai0's stage advantage
(``preset: stage_advantage``): progress over the lookahead, of the estimator or as recorded, ranked among all frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robolift import schema
from robolift.labeling.advantage import rabc_weights
from robolift.labeling.discretize import Tie
from robolift.labeling.kai0 import EMPTY_CUT
from robolift.labeling.population import Reason, Role
from robolift.labeling.prompts import BINARY_LABELS, PromptTable, advantage_prompts, prompt
from robolift.labeling.returns import IntArray
from robolift.labeling.summary import NEGATIVE, POSITIVE, count_by, count_labels, describe_cuts, failure_tail
from robolift.logging import get_logger
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.label_config import Config, GroupBy, Weight
from robolift.stages.label_decision import Decision, decide
from robolift.stages.label_preview import describe
from robolift.stages.label_sources import Sources, codes, strings
from robolift.stages.stage import Input, Inputs

INPUTS = {
    "dataset": Input(kind=Kind.DATASET),
    "targets": Input(kind=Kind.TARGETS, optional=True),
    "values": Input(kind=Kind.VALUES, optional=True),
    "rewards": Input(kind=Kind.REWARDS, optional=True),
}
OUTPUT = Kind.LABELS


def weigh(config: Config, sources: Sources, role: IntArray) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Return the loss weight of each frame, (F,), and facts about them; a paused frame weighs 0 under ``rabc``."""
    weights, unknown = np.ones(len(role)), 0
    if config.weight == Weight.RABC:
        column, starts = sources.column(config.weight_column), sources.dataset.starts
        weights = rabc_weights(column, starts, lookahead=config.lookahead, kappa=config.weight_kappa)
        weights[role == Role.PAUSED] = 0.0
        unknown = int(np.isnan(column).sum())
    stored = weights.astype(np.float32)
    facts = {
        "scheme": config.weight,
        "mean": float(stored.mean(dtype=np.float64)),
        "zero_share": float((stored == 0).mean()),
        "unknown_progress": unknown,
    }
    return stored, facts


def choose_prompts(
    config: Config, tasks: Sequence[str], task: IntArray, decision: Decision
) -> tuple[npt.NDArray[np.int32], PromptTable]:
    """Return the prompt of each frame, a position in the table, (F,), and the table."""
    table = advantage_prompts(tasks, config.slices)
    names: Sequence[str | int] = BINARY_LABELS if config.slices is None else range(config.slices)
    rows = np.array([[table.index(prompt(text, name)) for name in (None, *names)] for text in tasks], dtype=np.int32)
    binary = np.select([decision.label == NEGATIVE, decision.label == POSITIVE], [1, 2], 0)
    return rows[task, decision.slices + 1 if config.slices else binary], table


def summarize(config: Config, sources: Sources, decision: Decision) -> dict[str, Any]:
    """Return summary.json: the cuts by group, shares by outcome, control mode, iteration and reason, and warnings."""
    dataset, label = sources.dataset, decision.label
    outcome = sources.per_frame("outcome", schema.OUTCOMES)
    mode = codes(dataset.frames.column("control_mode"), schema.CONTROL_MODES)
    iterations, iteration = np.unique(dataset.episodes.column("iteration").to_numpy(), return_inverse=True)
    tail = failure_tail(
        label,
        decision.reason == Reason.THRESHOLD,
        outcome == schema.OUTCOMES.index("failure"),
        dataset.starts,
        lookahead=config.lookahead,
        margin=config.tail_margin,
    )
    empty = EMPTY_CUT if config.tie == Tie.KAI0_LEGACY else None
    return {
        "groups": describe_cuts(decision.cuts),
        "empty_groups": dict.fromkeys(decision.empty, empty),
        "all": count_labels(label),
        "ranked": count_labels(label[decision.reason == Reason.THRESHOLD]),
        "by_outcome": count_by(outcome, schema.OUTCOMES, label),
        "by_control_mode": count_by(mode, schema.CONTROL_MODES, label),
        "by_iteration": count_by(
            np.repeat(iteration, np.diff(dataset.starts)), [str(number) for number in iterations], label
        ),
        "by_reason": count_by(decision.reason, schema.LABEL_REASONS, label),
        "failure_tail": tail,
    }


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``labels.parquet``, ``prompts.json`` and ``summary.json``."""
    sources = Sources.open(inputs, config.columns_read(predicted=bool(inputs.get("values"))))
    dataset = sources.dataset
    task, role = sources.tasks(), sources.roles()
    weights, weight_facts = weigh(config, sources, role)
    decision = decide(config, sources, task, role)
    prompts, table = choose_prompts(config, dataset.tasks, task, decision)
    columns = {
        **{key: dataset.frames.column(key).combine_chunks() for key in schema.KEYS},
        "advantage": pa.array(decision.advantage, mask=~decision.valid),
        "valid": decision.valid,
        "advantage_label": strings(decision.label, schema.ADVANTAGE_LABELS),
        "slice": pa.array(decision.slices, mask=decision.slices < 0),
        "reason": strings(decision.reason, schema.LABEL_REASONS),
        # Position -1 is the last name: empty, for frames that no cut concerns.
        "group": strings(decision.group % (len(decision.group_names) + 1), [*decision.group_names, ""]),
        "weight": weights,
        "prompt_index": prompts,
    }
    output.write_table("labels", columns)
    output.write_json("prompts.json", table.to_dict())
    summary = {**summarize(config, sources, decision), "weight": weight_facts}
    output.write_json("summary.json", summary)
    output.metrics.update({f"positive_share_{part}": summary[part]["positive_share"] for part in ("all", "ranked")})
    output.metrics["failure_tail"] = summary["failure_tail"]
    _tell(config, summary)
    counts = {name: summary["all"][name] for name in ("frames", *schema.ADVANTAGE_LABELS)}
    return {"episodes": dataset.num_episodes, **counts}


def preview(config: Config, inputs: Inputs) -> str:
    """Return what the labels would be like, for a dry run."""
    sources = Sources.open(inputs, config.columns_read(predicted=bool(inputs.get("values"))))
    decision = decide(config, sources, sources.tasks(), sources.roles())
    summary = summarize(config, sources, decision)
    _tell(config, summary)
    return describe(config, decision, summary)


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
