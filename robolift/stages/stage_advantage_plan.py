"""Checks made before a stage_advantage run spends anything, and what each of its two datasets is told.

The labelled episodes have annotated progress and teach the estimator; the new ones get their advantage from it. Both go
through the same stages, so each stage has two configurations: the run's, and for new episodes the run's with what
differs there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from robolift.errors import UsageError
from robolift.stages import preflight
from robolift.stages.label_config import Config as LabelConfig
from robolift.stages.label_config import Source
from robolift.stages.preflight import HANDED, Wiring, check_source, probe_writable
from robolift.stages.stage import parse_config
from robolift.value_model.named_recipes import RECIPES

Stages = Mapping[str, Mapping[str, Any] | None]

WIRING = Wiring(
    stages=(
        "simulate_episodes",
        "import_dataset",
        "pack_frames",
        "train_value",
        "predict_values",
        "merge_values",
        "label_advantage",
        "compute_norm_stats",
        "train_policy",
        "evaluate_policy",
        "write_report",
    ),
    handed={
        **HANDED,
        "import_dataset": {"dataset_uri": "labelled_uri or new_uri", "iteration": ""},
        "train_value": {"head": "head", "seed": "seed"},
    },
    offered={
        "label_advantage": {"num_task_stages": "num_task_stages"},
        "write_report": {"num_task_stages": "num_task_stages"},
    },
    defaults={"label_advantage": {"preset": "stage_advantage"}},
    layers=("stages", "new_stages"),
)
DEFAULT_COLUMN = "stage_progress_gt"
SEED_STEP, NUM_SEEDS = 5_000, 10_000
PREDICTED = (Source.ABSOLUTE_ADVANTAGE, Source.RELATIVE_ADVANTAGE, Source.PROGRESS, Source.COLUMN)


class RunPlan(NamedTuple):
    """What the steps of a run are told.

    Attributes:
        labelled_uri: Annotated dataset, empty to record one in the simulator.
        new_uri: Dataset to be labelled by the estimator, empty likewise.
        labelled_stages: Stage configurations of the labelled episodes and of the estimator.
        new_stages: Those of the new episodes and of everything after them.
        new_seed: Seed of the simulator for new episodes, which shares no scene with the run's.
    """

    labelled_uri: str
    new_uri: str
    labelled_stages: dict[str, Any]
    new_stages: dict[str, Any]
    new_seed: int


def find_problems(parameters: Mapping[str, Any]) -> list[str]:
    """Check a run's parameters by the rules of the stages and of this pipeline.

    Args:
        parameters: The run's parameters by name, each of the declared type; those left out are not checked.

    Returns:
        A line for each wrong one, naming it; none if all is well.
    """
    problems = preflight.find_problems(parameters, WIRING)
    if parameters.get("head") == "distribution":
        problems.append("head is distribution, which learns returns; stage_advantage takes relative or single")
    if bool(labelled_uri := parameters.get("labelled_uri")) != bool(parameters.get("new_uri")):
        given, missing = ("labelled_uri", "new_uri") if labelled_uri else ("new_uri", "labelled_uri")
        problems.append(
            f"{given} is given and {missing} is empty; give both, or neither to record both in the simulator. "
            "They may be the same address"
        )
    problems += _told_twice(parameters)
    if not problems:
        try:
            _labelling(parameters)
        except UsageError as error:
            problems.append(" ".join(str(error).splitlines()))
    return problems


def _told_twice(parameters: Mapping[str, Any]) -> list[str]:
    """Return a line for each stage setting that says something else than a parameter of the run."""
    found = []
    head, lookahead = parameters.get("head", "relative"), parameters.get("lookahead")
    for layer in WIRING.layers:
        stages = parameters.get(layer) or {}
        recipe = (stages.get("train_value") or {}).get("recipe", "")
        wanted = RECIPES.get(recipe, {}).get("head", head)
        if wanted != head:
            found.append(
                f"{layer}.train_value.recipe: {recipe} has head {wanted}, and head is {head}; set head: {wanted}"
            )
        told = (stages.get("predict_values") or {}).get("lookahead", lookahead)
        if told != lookahead and lookahead is not None:
            found.append(f"{layer}.predict_values.lookahead is {told}, and lookahead is {lookahead}; leave it out")
    return found


def plan(
    *,
    output_root: str,
    labelled_uri: str,
    new_uri: str,
    head: str,
    lookahead: int,
    positive_fraction: float,
    num_task_stages: int,
    num_shards: int,
    baselines: list[str],
    seed: int,
    stages: Stages,
    new_stages: Stages,
) -> RunPlan:
    """Check a run's parameters and work out the configuration of each stage for either dataset.

    Args:
        output_root: Where the run's outputs go.
        labelled_uri: Annotated dataset, or empty.
        new_uri: Dataset to be labelled by the estimator, or empty.
        head: Head of the estimator.
        lookahead: Frames over which the advantage is measured.
        positive_fraction: Share of frames labelled positive.
        num_task_stages: Equal parts of progress with a cut of their own; 1: one cut a task.
        num_shards: Parts that prediction is cut into.
        baselines: Policy variants trained beside the advantage-conditioned one.
        seed: The run's seed.
        stages: Configuration by stage name.
        new_stages: What differs for new episodes and everything made from them, by stage name.

    Raises:
        UsageError: Naming each parameter that is wrong.
        DataError: If an address holds no dataset.
    """
    parameters = {
        "labelled_uri": labelled_uri,
        "new_uri": new_uri,
        "head": head,
        "lookahead": lookahead,
        "positive_fraction": positive_fraction,
        "num_task_stages": num_task_stages,
        "num_shards": num_shards,
        "baselines": baselines,
        "seed": seed,
        "stages": stages,
        "new_stages": new_stages,
    }
    if problems := find_problems(parameters):
        raise UsageError("\n  ".join(["wrong parameters:", *problems]))
    probe_writable(output_root)
    for uri in filter(None, (labelled_uri, new_uri)):
        check_source(uri)
    labelled_labels, new_labels = _labelling(parameters)
    # There is one value model, and it looks at new episodes as it was told to look at labelled ones.
    new = {**_merge(stages, new_stages), "train_value": dict(stages.get("train_value") or {})}
    policy = parse_config("train_policy", new.get("train_policy", {}))
    predict = {"lookahead": int(lookahead)}
    report = {"num_task_stages": new_labels.num_task_stages}
    measure = {"state_keys": policy.model_dump(mode="json")["state_keys"]}
    return RunPlan(
        labelled_uri=labelled_uri,
        new_uri=new_uri,
        labelled_stages=_merge(
            {"predict_values": predict}, stages, {"label_advantage": _without_handed(labelled_labels)}
        ),
        new_stages=_merge(
            {"predict_values": predict, "write_report": report, "compute_norm_stats": measure},
            new,
            {"label_advantage": _without_handed(new_labels)},
        ),
        new_seed=(int(seed) + SEED_STEP) % NUM_SEEDS,
    )


def _merge(*layers: Stages) -> dict[str, dict[str, Any]]:
    """Return the configurations by stage name, a field of a later layer over that of an earlier one."""
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for name, config in layer.items():
            merged[name] = {**merged.get(name, {}), **(config or {})}
    return merged


def _labelling(parameters: Mapping[str, Any]) -> tuple[LabelConfig, LabelConfig]:
    """Return how the labelled and how the new frames are labelled.

    Raises:
        UsageError: If configuration and parameters contradict each other, or new frames would need value targets.
    """
    stages, new_stages = (parameters.get(name) or {} for name in WIRING.layers)
    labelled = _merge(WIRING.defaults, stages)
    given = {name: parameters[name] for name in WIRING.handed["label_advantage"] if name in parameters}
    num_task_stages = int(parameters.get("num_task_stages", 1))
    by_stage = {"group_by": "task_stage", "num_task_stages": num_task_stages} if num_task_stages > 1 else {}
    column = str(labelled.get("train_value", {}).get("progress_column", DEFAULT_COLUMN))
    own = _label_config({**by_stage, "stage_progress_column": column, **labelled["label_advantage"], **given})
    # Of new episodes only the estimator's progress is known, whatever the annotated dataset calls its own.
    told = {
        **labelled["label_advantage"],
        "stage_progress_column": "value",
        **(new_stages.get("label_advantage") or {}),
    }
    new = _label_config({**by_stage, **told, **given})
    if new.source not in PREDICTED:
        raise UsageError(
            f"label_advantage.source is {new.source}, which needs value targets; in stage_advantage the new "
            f"episodes are labelled from {', '.join(PREDICTED)}"
        )
    if new.source == Source.RELATIVE_ADVANTAGE and parameters.get("head") == "single":
        raise UsageError(
            "label_advantage.source is relative_advantage, which a single-frame estimator does not predict; "
            "set head: relative, or source: absolute_advantage"
        )
    return _label_config({**own.model_dump(mode="json"), "source": Source.PROGRESS, "column": column}), new


def _label_config(config: Mapping[str, Any]) -> LabelConfig:
    parsed = parse_config("label_advantage", config)
    assert isinstance(parsed, LabelConfig)
    return parsed


def _without_handed(config: LabelConfig) -> dict[str, Any]:
    """Return the configuration less the fields that the pipeline sets itself."""
    return config.model_dump(mode="json", exclude=set(WIRING.handed["label_advantage"]))
