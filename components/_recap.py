"""The rounds of recap: one iteration, and those after the first, as pipelines inside the pipeline."""

from typing import List, NamedTuple

from kfp import dsl

from components import _wiring
from components._launch import launch
from components._resources import place
from components.check_run.component import check_run
from components.export_dataset.component import export_dataset
from components.label_advantage.component import label_advantage
from components.label_returns.component import label_returns
from components.train_policy.component import train_policy
from components.train_value.component import train_value
from components.write_report.component import write_report


class Iteration(NamedTuple):
    """What one iteration hands to the next: addresses of finished outputs."""

    dataset_uri: str
    policy_uri: str
    report_uri: str


@dsl.pipeline(name="recap-iteration", description="Episodes in; labels, an advantage-conditioned policy, a report out.")
def recap_iteration(
    iteration: int,
    dataset_uri: str,
    rollout_uris: List[str],
    previous_dataset_uri: str,
    previous_policy_uri: str,
    previous_report_uri: str,
    output_root: str,
    lookahead: int,
    positive_fraction: float,
    num_shards: int,
    baselines: List[str],
    seed: int,
    stages: dict,
) -> NamedTuple("Iteration", [("dataset_uri", str), ("policy_uri", str), ("report_uri", str)]):
    """One round of RECAP: collect or take episodes, value, relabel, train, evaluate, report."""
    run = {"stages": stages, "output_root": output_root}
    cut = {"lookahead": lookahead, "positive_fraction": positive_fraction}

    checked = check_run(
        iteration=iteration,
        dataset_uri=dataset_uri,
        rollout_uris=rollout_uris,
        num_shards=num_shards,
        baselines=baselines,
        seed=seed,
        **cut,
        **run,
    )
    place(checked)
    imported = _wiring.episodes(
        checked.output,
        seed=seed,
        policy_uri=previous_policy_uri,
        previous_uri=previous_dataset_uri,
        iteration=iteration,
        **run,
    )
    dataset = imported.outputs["dataset"]

    targets = place(label_returns(dataset=dataset, **run)).outputs["targets"]
    packed = _wiring.frames(dataset, "train_value", **run)
    pictures = packed.outputs["frames"]
    learned = {"dataset": dataset, "targets": targets, "frames": pictures}
    valued = place(train_value(seed=seed, launch=launch("train_value"), **learned, **run))
    checkpoint = valued.outputs["checkpoint"]
    values = _wiring.values(dataset, checkpoint, pictures, num_shards=num_shards, **run)
    labelled = place(label_advantage(dataset=dataset, targets=targets, values=values, **cut, **run))
    labels = labelled.outputs["labels"]
    place(export_dataset(dataset=dataset, targets=targets, values=values, labels=labels, **run))

    seen = _wiring.frames(dataset, "train_policy", after=[packed], **run).outputs["frames"]
    made = {"labels": labels, "values": values, "checkpoint": checkpoint, "frames": seen}
    told = {**made, "launch": launch("train_policy")}
    trained, evaluation, compared = _wiring.policies(
        train_policy, dataset, baselines=baselines, seed=seed, told=told, **run
    )
    report = place(
        write_report(
            dataset=dataset,
            targets=targets,
            checkpoint=checkpoint,
            values=values,
            labels=labels,
            evaluation=evaluation,
            baselines=compared,
            previous_uri=previous_report_uri,
            **run,
        )
    )
    return Iteration(
        dataset_uri=imported.outputs["Output"],
        policy_uri=trained.outputs["Output"],
        report_uri=report.outputs["Output"],
    )


@dsl.pipeline(name="recap-later-iterations", description="Iterations two and three, each on the policy before it.")
def recap_later_iterations(
    iterations: int,
    dataset_uri: str,
    rollout_uris: List[str],
    previous_dataset_uri: str,
    previous_policy_uri: str,
    previous_report_uri: str,
    output_root: str,
    lookahead: int,
    positive_fraction: float,
    num_shards: int,
    baselines: List[str],
    seed: int,
    stages: dict,
):
    """Collect with the policy of the iteration before, add to its dataset, relabel everything, train again."""
    same = {
        "dataset_uri": dataset_uri,
        "rollout_uris": rollout_uris,
        "output_root": output_root,
        "lookahead": lookahead,
        "positive_fraction": positive_fraction,
        "num_shards": num_shards,
        "baselines": baselines,
        "seed": seed,
        "stages": stages,
    }
    second = recap_iteration(
        iteration=2,
        previous_dataset_uri=previous_dataset_uri,
        previous_policy_uri=previous_policy_uri,
        previous_report_uri=previous_report_uri,
        **same,
    )
    with dsl.If(iterations >= 3, name="third"):
        recap_iteration(
            iteration=3,
            previous_dataset_uri=second.outputs["dataset_uri"],
            previous_policy_uri=second.outputs["policy_uri"],
            previous_report_uri=second.outputs["report_uri"],
            **same,
        )
