"""Artifact classes: what may be wired to what is checked when the pipeline is compiled.

The payload of each is the manifest of a finished output (under 4 KB); the data stays where the stage published it.
Titles are in KFP's ``system`` namespace because the compiler accepts no other of ours.
"""

from kfp import dsl


class Recording(dsl.Artifact):
    """A raw LeRobot folder, as a simulator or a robot wrote it."""

    schema_title = "system.Recording"
    schema_version = "1.0.0"


class EpisodeDataset(dsl.Artifact):
    """A validated reference to LeRobot sources, with the episodes and frames tables."""

    schema_title = "system.EpisodeDataset"
    schema_version = "1.0.0"


class FrameCache(dsl.Artifact):
    """Pictures of a dataset, decoded."""

    schema_title = "system.FrameCache"
    schema_version = "1.0.0"


class ValueTargets(dsl.Artifact):
    """Value targets and rewards per frame."""

    schema_title = "system.ValueTargets"
    schema_version = "1.0.0"


class ValueCheckpoint(dsl.Artifact):
    """Weights of a value model and everything needed to use them."""

    schema_title = "system.ValueCheckpoint"
    schema_version = "1.0.0"


class ValueShard(dsl.Artifact):
    """Predicted values of some of the episodes."""

    schema_title = "system.ValueShard"
    schema_version = "1.0.0"


class ValueSet(dsl.Artifact):
    """Predicted values of every frame."""

    schema_title = "system.ValueSet"
    schema_version = "1.0.0"


class LabelSet(dsl.Artifact):
    """Advantages, labels and prompts per frame."""

    schema_title = "system.LabelSet"
    schema_version = "1.0.0"


class LabelPlan(dsl.Artifact):
    """What a labeller will be asked about each episode."""

    schema_title = "system.LabelPlan"
    schema_version = "1.0.0"


class RewardShard(dsl.Artifact):
    """A labeller's answers about some of the episodes."""

    schema_title = "system.RewardShard"
    schema_version = "1.0.0"


class RewardSet(dsl.Artifact):
    """Progress, success and reward per frame, from a model or from people."""

    schema_title = "system.RewardSet"
    schema_version = "1.0.0"


class LabelQuality(dsl.Artifact):
    """What reward labels are worth, measured before anything is trained on them."""

    schema_title = "system.LabelQuality"
    schema_version = "1.0.0"


class VideoSet(dsl.Artifact):
    """Videos where they lie, checked, and the segments that someone annotated."""

    schema_title = "system.VideoSet"
    schema_version = "1.0.0"


class ClipSet(dsl.Artifact):
    """Clips of equal length, rate and size, cut from videos."""

    schema_title = "system.ClipSet"
    schema_version = "1.0.0"


class FeatureShard(dsl.Artifact):
    """Features of some of the clips."""

    schema_title = "system.FeatureShard"
    schema_version = "1.0.0"


class FeatureSet(dsl.Artifact):
    """Features of every clip, and of its frames what a small policy learns from."""

    schema_title = "system.FeatureSet"
    schema_version = "1.0.0"


class PairSet(dsl.Artifact):
    """Pairs of clips that people are asked to compare."""

    schema_title = "system.PairSet"
    schema_version = "1.0.0"


class PreferenceSet(dsl.Artifact):
    """Which of two clips people preferred."""

    schema_title = "system.PreferenceSet"
    schema_version = "1.0.0"


class RewardModel(dsl.Artifact):
    """Weights of a preference model and everything needed to score clips with it."""

    schema_title = "system.RewardModel"
    schema_version = "1.0.0"


class ClipScores(dsl.Artifact):
    """A score for every clip."""

    schema_title = "system.ClipScores"
    schema_version = "1.0.0"


class DownstreamShard(dsl.Artifact):
    """How well policies did that were trained on subsets of the clips."""

    schema_title = "system.DownstreamShard"
    schema_version = "1.0.0"


class RewardValidation(dsl.Artifact):
    """Whether scores foretell how useful clips are to a policy."""

    schema_title = "system.RewardValidation"
    schema_version = "1.0.0"


class ExportedDataset(dsl.Artifact):
    """A LeRobot dataset that other tools train on."""

    schema_title = "system.ExportedDataset"
    schema_version = "1.0.0"


class NormStats(dsl.Artifact):
    """Mean, deviation and quantiles of a dataset's states and actions."""

    schema_title = "system.NormStats"
    schema_version = "1.0.0"


class PolicyCheckpoint(dsl.Artifact):
    """Weights of a policy and everything needed to serve them."""

    schema_title = "system.PolicyCheckpoint"
    schema_version = "1.0.0"


class Evaluation(dsl.Artifact):
    """What a policy did: closed loop, or its error on held-out episodes."""

    schema_title = "system.Evaluation"
    schema_version = "1.0.0"


class RunCard(dsl.Artifact):
    """The report of a run: one self-contained HTML page."""

    schema_title = "system.RunCard"
    schema_version = "1.0.0"
