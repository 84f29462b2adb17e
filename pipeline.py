"""The pipelines, and the command line that compiles, runs and submits them.

Wiring only: what a step does is in ``robolift/stages``, what it asks of a node in ``components/_resources.py``. A run's
parameters are the arguments of its pipeline; everything else a stage can be told goes into ``stages``, by stage name.
"""

import os
import sys
from typing import List, NamedTuple

# The C implementation's maps iterate in an order that differs between processes, and KFP numbers the copies of a
# sub-pipeline's steps in that order: the compiled file would differ each time.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

from kfp import dsl

from components._cli import main
from components._launch import check_placement, launch
from components._resources import place

if __name__ == "__main__":
    check_placement()  # the pipelines are built while this file is read

from components import _wiring
from components.annotate_rewards.component import annotate_rewards
from components.check_labeling.component import check_labeling
from components.check_run.component import check_run
from components.collect_rewards.component import collect_rewards
from components.compute_norm_stats.component import compute_norm_stats
from components.export_dataset.component import export_dataset
from components.export_dataset.rewards import export_dataset as export_rewards
from components.import_reviews.component import import_reviews
from components.label_advantage.annotated import label_advantage as label_annotated
from components.label_advantage.component import label_advantage
from components.label_advantage.predicted import label_advantage as label_predicted
from components.label_quality.component import label_quality
from components.label_returns.component import label_returns
from components.merge_rewards.component import merge_rewards
from components.plan_labels.component import plan_labels
from components.plan_stage_advantage.component import plan_stage_advantage
from components.train_policy.component import train_policy
from components.train_policy.normalized import train_policy as train_normalized
from components.train_value.component import train_value
from components.train_value.estimator import train_value as train_estimator
from components.write_report.component import write_report
from components.write_report.estimator import write_report as report_estimator
from components.write_report.rewards import write_report as report_rewards


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
    valued = place(train_value(dataset=dataset, targets=targets, seed=seed, launch=launch("train_value"), **run))
    checkpoint = valued.outputs["checkpoint"]
    values = _wiring.values(dataset, checkpoint, num_shards=num_shards, **run)
    labelled = place(label_advantage(dataset=dataset, targets=targets, values=values, **cut, **run))
    labels = labelled.outputs["labels"]
    place(export_dataset(dataset=dataset, targets=targets, values=values, labels=labels, **run))

    told = {"labels": labels, "values": values, "checkpoint": checkpoint, "launch": launch("train_policy")}
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


@dsl.pipeline(name="recap", description="RECAP: value model, advantage, relabel, advantage-conditioned policy.")
def recap(
    output_root: str,
    dataset_uri: str = "",
    rollout_uris: List[str] = [],
    iterations: int = 1,
    lookahead: int = 50,
    positive_fraction: float = 0.3,
    num_shards: int = 2,
    baselines: List[str] = ["plain"],
    seed: int = 0,
    stages: dict = {},
):
    """RECAP on a LeRobot dataset, or on episodes of the simulator.

    Args:
        output_root: Where every stage publishes its output, any fsspec address.
        dataset_uri: LeRobot v2.1 or v3.0 dataset to start from; empty records one in the simulator.
        rollout_uris: Datasets of iterations two and three, instead of rollouts in the simulator.
        iterations: Rounds of collect, relabel, train: one to three.
        lookahead: Frames over which the advantage is measured.
        positive_fraction: Share of autonomous frames labelled positive, in (0, 1).
        num_shards: Parts that prediction is cut into, at most 64.
        baselines: Policy variants to compare with: plain, filtered, shuffled.
        seed: Seed of every stage, 0 to 9999.
        stages: Further configuration by stage name.
    """
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
    first = recap_iteration(
        iteration=1, previous_dataset_uri="", previous_policy_uri="", previous_report_uri="", **same
    )
    with dsl.If(iterations >= 2, name="later"):
        recap_later_iterations(
            iterations=iterations,
            previous_dataset_uri=first.outputs["dataset_uri"],
            previous_policy_uri=first.outputs["policy_uri"],
            previous_report_uri=first.outputs["report_uri"],
            **same,
        )


# A pipeline of its own, because the local runner hands the loop item to every input of a loop that a step made.
@dsl.pipeline(name="stage-advantage-run", description="Labelled episodes teach an estimator, which labels new ones.")
def stage_advantage_run(
    labelled_uri: str,
    new_uri: str,
    output_root: str,
    head: str,
    lookahead: int,
    positive_fraction: float,
    num_shards: int,
    baselines: List[str],
    seed: int,
    new_seed: int,
    labelled_stages: dict,
    new_stages: dict,
):
    """Label, train the estimator, predict on new episodes, label those, train, evaluate, report."""
    cut = {"lookahead": lookahead, "positive_fraction": positive_fraction}
    first = {"stages": labelled_stages, "output_root": output_root}
    run = {"stages": new_stages, "output_root": output_root}

    labelled = _wiring.episodes(labelled_uri, seed=seed, **first).outputs["dataset"]
    labelled_labels = place(label_annotated(dataset=labelled, **cut, **first)).outputs["labels"]
    estimated = place(train_estimator(dataset=labelled, head=head, seed=seed, launch=launch("train_value"), **first))
    checkpoint = estimated.outputs["checkpoint"]
    labelled_values = _wiring.values(labelled, checkpoint, num_shards=num_shards, **first)

    dataset = _wiring.episodes(new_uri, seed=new_seed, **run).outputs["dataset"]
    values = _wiring.values(dataset, checkpoint, num_shards=num_shards, **run)
    labels = place(label_predicted(dataset=dataset, values=values, **cut, **run)).outputs["labels"]
    norm_stats = place(compute_norm_stats(dataset=dataset, **run)).outputs["norm_stats"]

    made = {"labels": labels, "values": values, "checkpoint": checkpoint}
    told = {**made, "norm_stats": norm_stats, "launch": launch("train_policy")}
    _, evaluation, rest = _wiring.policies(train_normalized, dataset, baselines=baselines, seed=seed, told=told, **run)
    place(
        report_estimator(
            labelled=labelled,
            labelled_values=labelled_values,
            labelled_labels=labelled_labels,
            dataset=dataset,
            evaluation=evaluation,
            baselines=rest,
            **made,
            **run,
        )
    )


@dsl.pipeline(
    name="stage-advantage",
    description="kai0's stage advantage: progress estimator, labels for new episodes, conditioned policy (AWBC).",
)
def stage_advantage(
    output_root: str,
    labelled_uri: str = "",
    new_uri: str = "",
    head: str = "relative",
    lookahead: int = 50,
    positive_fraction: float = 0.3,
    num_task_stages: int = 1,
    num_shards: int = 2,
    baselines: List[str] = ["plain"],
    seed: int = 0,
    stages: dict = {},
    new_stages: dict = {},
):
    """Stage advantage on two LeRobot datasets, or on episodes of the simulator.

    Args:
        output_root: Where every stage publishes its output, any fsspec address.
        labelled_uri: Dataset with annotated progress, which the estimator learns; empty records one in the simulator.
        new_uri: Dataset that the estimator labels and the policy learns; empty likewise.
        head: What the estimator sees: two frames (relative), or one (single).
        lookahead: Frames over which the advantage is measured.
        positive_fraction: Share of frames labelled positive, in (0, 1).
        num_task_stages: Equal parts of progress that are cut apart; 1 cuts each task as a whole.
        num_shards: Parts that prediction is cut into, at most 64.
        baselines: Policy variants to compare with: plain, filtered, shuffled.
        seed: Seed of every stage, 0 to 9999.
        stages: Further configuration by stage name.
        new_stages: What of it differs for the new dataset and everything made from it.
    """
    same = {
        "output_root": output_root,
        "head": head,
        "lookahead": lookahead,
        "positive_fraction": positive_fraction,
        "baselines": baselines,
        "seed": seed,
    }
    planned = place(
        plan_stage_advantage(
            labelled_uri=labelled_uri,
            new_uri=new_uri,
            num_task_stages=num_task_stages,
            num_shards=num_shards,
            stages=stages,
            new_stages=new_stages,
            **same,
        )
    )
    told = {name: planned.outputs[name] for name in ("labelled_uri", "new_uri", "labelled_stages", "new_stages")}
    stage_advantage_run(num_shards=num_shards, new_seed=planned.outputs["new_seed"], **told, **same)


@dsl.pipeline(
    name="reward-labeling",
    description="A model and people say how each episode went; measured, merged, exported with a reward.",
)
def reward_labeling(
    output_root: str,
    dataset_uri: str = "",
    mode: str = "label",
    model: str = "",
    endpoint: str = "",
    protocol: str = "logprob",
    reviews_uri: str = "",
    reward: str = "difference",
    num_shards: int = 2,
    seed: int = 0,
    stages: dict = {},
):
    """Label a LeRobot dataset, or episodes of the simulator.

    Args:
        output_root: Where every stage publishes its output, any fsspec address.
        dataset_uri: LeRobot v2.1 or v3.0 dataset; empty records one in the simulator.
        mode: label asks the model; import_reviews takes people's labels too, and finds the model's answers again.
        model: Name of a model at the endpoint, or address of a folder with its weights; empty asks none.
        endpoint: Base address of an OpenAI-compatible server; empty computes in the step.
        protocol: How the model is asked: logprob, shuffled, rubric, pairwise, head.
        reviews_uri: Folder that the labelling page wrote to.
        reward: What the reward is: difference, sparse_success, level, tri, human.
        num_shards: Parts that the episodes are cut into, at most 64.
        seed: Seed of every stage, 0 to 9999.
        stages: Further configuration by stage name.
    """
    run = {"stages": stages, "output_root": output_root}
    told = {"model": model, "endpoint": endpoint, "protocol": protocol, "seed": seed}
    checked = place(
        check_labeling(
            dataset_uri=dataset_uri,
            mode=mode,
            reviews_uri=reviews_uri,
            reward=reward,
            num_shards=num_shards,
            **told,
            **run,
        )
    )
    dataset = _wiring.episodes(checked.outputs["dataset_uri"], seed=seed, **run).outputs["dataset"]

    with_defaults = {"stages": checked.outputs["stages"], "output_root": output_root}
    plan = place(plan_labels(dataset=dataset, **told, **with_defaults)).outputs["plan"]
    asked = {"dataset": dataset, "plan": plan, **run}
    shards = _wiring.in_shards(annotate_rewards, "rewards", num_shards=num_shards, endpoint=endpoint, **asked)
    automatic = place(collect_rewards(shards=shards, **asked)).outputs["rewards"]
    reviews = place(import_reviews(dataset=dataset, reviews_uri=reviews_uri, **run)).outputs["rewards"]

    said = {"dataset": dataset, "automatic": automatic, "reviews": reviews}
    quality = place(label_quality(**said, **run)).outputs["quality"]
    # Labels that don't pass need their report the most, so the export alone refuses them, and comes last.
    merged = place(merge_rewards(quality=quality, reward=reward, quality_gate=False, **said, **run))
    made = {"rewards": merged.outputs["rewards"], "quality": quality}
    report = place(report_rewards(plan=plan, **made, **said, **run))
    place(export_rewards(dataset=dataset, **made, **with_defaults)).after(report)


PIPELINES = {"recap": recap, "stage_advantage": stage_advantage, "reward_labeling": reward_labeling}

if __name__ == "__main__":
    sys.exit(main(PIPELINES))
