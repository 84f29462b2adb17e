"""The steps of stage_advantage that follow its plan, as a pipeline inside the pipeline."""

from typing import List

from kfp import dsl

from components import _wiring
from components._launch import launch
from components._resources import place
from components.compute_norm_stats.component import compute_norm_stats
from components.label_advantage.annotated import label_advantage as label_annotated
from components.label_advantage.predicted import label_advantage as label_predicted
from components.train_policy.normalized import train_policy as train_normalized
from components.train_value.estimator import train_value as train_estimator
from components.write_report.estimator import write_report as report_estimator


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
    packed = _wiring.frames(labelled, "train_value", **first)
    pictures = packed.outputs["frames"]
    learned = {"dataset": labelled, "frames": pictures}
    estimated = place(train_estimator(head=head, seed=seed, launch=launch("train_value"), **learned, **first))
    checkpoint = estimated.outputs["checkpoint"]
    labelled_values = _wiring.values(labelled, checkpoint, pictures, num_shards=num_shards, **first)

    dataset = _wiring.episodes(new_uri, seed=new_seed, **run).outputs["dataset"]
    packed = _wiring.frames(dataset, "train_value", after=[packed], **run)
    pictures = packed.outputs["frames"]
    values = _wiring.values(dataset, checkpoint, pictures, num_shards=num_shards, **run)
    labels = place(label_predicted(dataset=dataset, values=values, **cut, **run)).outputs["labels"]
    norm_stats = place(compute_norm_stats(dataset=dataset, **run)).outputs["norm_stats"]

    made = {"labels": labels, "values": values, "checkpoint": checkpoint}
    seen = _wiring.frames(dataset, "train_policy", after=[packed], **run).outputs["frames"]
    told = {**made, "norm_stats": norm_stats, "frames": seen, "launch": launch("train_policy")}
    _, evaluation, compared = _wiring.policies(
        train_normalized, dataset, baselines=baselines, seed=seed, told=told, **run
    )
    place(
        report_estimator(
            labelled=labelled,
            labelled_values=labelled_values,
            labelled_labels=labelled_labels,
            dataset=dataset,
            evaluation=evaluation,
            baselines=compared,
            **made,
            **run,
        )
    )
