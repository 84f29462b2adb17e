"""The pipelines, and the command line that compiles, runs and submits them.

Wiring only: what a step does is in ``robolift/stages``, what it asks of a node in ``components/_resources.py``. A run's
parameters are the arguments of its pipeline; everything else a stage can be told goes into ``stages``, by stage name.
"""

import gc
import sys
from typing import List

gc.disable()  # what is built while this file is read stays; to look for garbage in it costs a quarter of the time

import components  # noqa: F401  (imports KFP without its client)

# isort: split

from kfp import dsl

from components._cli import main
from components._launch import check_placement
from components._resources import place

if __name__ == "__main__":
    check_placement()  # the pipelines are built while this file is read

from components import _clips, _wiring
from components._recap import recap_iteration, recap_later_iterations
from components._stage_advantage import stage_advantage_run
from components.annotate_rewards.component import annotate_rewards
from components.check_clips.component import check_clips
from components.check_labeling.component import check_labeling
from components.check_reward.component import check_reward
from components.collect_rewards.component import collect_rewards
from components.export_dataset.rewards import export_dataset as export_rewards
from components.import_reviews.component import import_reviews
from components.label_quality.component import label_quality
from components.merge_rewards.component import merge_rewards
from components.plan_labels.component import plan_labels
from components.plan_stage_advantage.component import plan_stage_advantage
from components.propose_pairs.component import propose_pairs
from components.validate_reward.component import validate_reward
from components.write_report.clips import write_report as report_clips
from components.write_report.rewards import write_report as report_rewards


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


@dsl.pipeline(
    name="clip-reward",
    description="Egocentric videos, and which clips people prefer, become a validated reward model.",
)
def clip_reward(
    output_root: str,
    videos_uri: str = "",
    source: str = "folder",
    annotations_uri: str = "",
    mode: str = "prepare",
    preferences_uri: str = "",
    encoder: str = "",
    hand_model: str = "",
    num_pairs: int = 300,
    num_shards: int = 2,
    seed: int = 0,
    stages: dict = {},
):
    """Cut clips and choose pairs of them; from what people preferred, learn a reward, score, validate and report.

    Args:
        output_root: Where every stage publishes its output, any fsspec address.
        videos_uri: Folder of videos; empty renders some of known quality.
        source: What the folder is: folder (any videos), epic (EPIC-KITCHENS-100), ego4d.
        annotations_uri: Annotated segments of the videos; empty: clips at random places only.
        mode: prepare ends with pairs for people; train goes on from what they said; simulate has simulated people.
        preferences_uri: Folder that the labelling page wrote to, or a CSV; of mode train.
        encoder: Weights of an image encoder; empty takes the picture itself, tiny.
        hand_model: MediaPipe's hand_landmarker.task; needed to find hands in real videos.
        num_pairs: Pairs of clips to be compared.
        num_shards: Parts that features and trainings are cut into, at most 64.
        seed: Seed of every stage, 0 to 9999.
        stages: Further configuration by stage name.
    """
    run = {"stages": stages, "output_root": output_root}
    videos = {"source": source, "annotations_uri": annotations_uri}
    models = {"encoder": encoder, "hand_model": hand_model}
    asked = {"mode": mode, "preferences_uri": preferences_uri}
    same = {"num_shards": num_shards, **run}
    checked = place(
        check_clips(videos_uri=videos_uri, num_pairs=num_pairs, seed=seed, **videos, **models, **asked, **same)
    )
    clips = _clips.clips_of(checked.output, seed=seed, **videos, **run)
    features = _clips.features_of(clips, **models, **same)
    pairs = place(propose_pairs(clips=clips, num_pairs=num_pairs, seed=seed, **run)).outputs["pairs"]

    with dsl.If(mode != "prepare", name="train"):
        preferences = _clips.preferences_of(**asked, pairs=pairs, clips=clips, seed=seed, **run)
        reward = _clips.reward_of(features, preferences=preferences, clips=clips, seed=seed, run=run)
        made = {"features": features, "model": reward.model, "scores": reward.scores}
        measured = {"features": features, "scores": reward.scores, "clips": clips, "seed": seed}
        validation = place(
            validate_reward(
                downstream=_clips.downstream_of(**measured, **same),
                controls=_clips.controls_of(features, seed=seed, **run),
                ablations=reward.ablations,
                seed=seed,
                **made,
                **run,
            )
        ).outputs["validation"]
        told = {"clips": clips, "pairs": pairs, "preferences": preferences, "validation": validation}
        report = place(report_clips(**told, **made, **run)).outputs["report"]
        place(check_reward(validation=validation, report=report))


PIPELINES = {
    "recap": recap,
    "stage_advantage": stage_advantage,
    "reward_labeling": reward_labeling,
    "clip_reward": clip_reward,
}
gc.freeze()
gc.enable()

if __name__ == "__main__":
    sys.exit(main(PIPELINES))
