"""How clip_reward is wired between its checks: videos become clips and pairs, comparisons a reward that is validated.

Called while the pipeline is traced, as the functions of :mod:`components._wiring` are.
"""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import PipelineTask

from components import _wiring
from components._resources import place
from components.check_address.component import check_address
from components.extract_clips.component import extract_clips
from components.extract_features.component import extract_features
from components.import_preferences.component import import_preferences
from components.ingest_videos.component import ingest_videos
from components.merge_features.component import merge_features
from components.score_clips.component import score_clips
from components.score_clips.control import score_clips as score_control
from components.simulate_preferences.component import simulate_preferences
from components.simulate_videos.component import simulate_videos
from components.train_downstream.component import train_downstream
from components.train_reward.component import train_reward

CONTROLS = ["random", "composite", "motion"]
ABLATIONS = ["hands+motion", "hands", "motion"]
"""Features that are left out together, each set in a training of its own."""


class Reward(NamedTuple):
    """A reward: its model, the scores it gives, and those of models that lack some features."""

    model: PipelineTask
    scores: PipelineTask
    ablations: dsl.Collected


def clips_of(videos_uri, *, source, annotations_uri, seed, **run):
    """Render videos, or take those at an address, and cut clips from them; return the clips."""
    with dsl.If(videos_uri == "", name="simulate-videos"):
        simulated = place(simulate_videos(seed=seed, **run))
    with dsl.Else(name="given-videos"):
        given = place(check_address(uri=videos_uri))
    found = dsl.OneOf(simulated.outputs["Output"], given.output)
    told = {"source": source, "annotations_uri": annotations_uri, **run}
    videos = place(ingest_videos(source_uri=found, **told)).outputs["videos"]
    return place(extract_clips(videos=videos, seed=seed, **run)).outputs["clips"]


def features_of(clips, *, encoder, hand_model, num_shards, **run):
    """Measure clips in shards; return the features as one."""
    told = {"encoder": encoder, "hand_model": hand_model, "clips": clips, **run}
    shards = _wiring.in_shards(extract_features, "features", num_shards=num_shards, **told)
    return place(merge_features(clips=clips, shards=shards, **run)).outputs["features"]


def preferences_of(mode, preferences_uri, *, seed, **asked):
    """Take what people said about pairs, or let simulated annotators say it; return the preferences."""
    with dsl.If(mode == "simulate", name="simulated-people"):
        simulated = place(simulate_preferences(seed=seed, **asked))
    with dsl.Else(name="people"):
        given = place(check_address(uri=preferences_uri))
    found = dsl.OneOf(simulated.outputs["Output"], given.output)
    return place(import_preferences(preferences_uri=found, **asked)).outputs["preferences"]


def reward_of(features, *, seed, run, **taught):
    """Learn a reward and score the clips, once with all features and once without each set of them."""

    def learn(drop):
        model = place(train_reward(features=features, drop=drop, seed=seed, **taught, **run))
        scored = score_clips(features=features, model=model.outputs["model"], method="model", seed=seed, **run)
        return model, place(scored)

    model, scores = learn("")
    with dsl.ParallelFor(ABLATIONS, parallelism=_wiring.LOOP_PARALLELISM, name="ablations") as drop:
        _, ablated = learn(drop)
    return Reward(model.outputs["model"], scores.outputs["scores"], dsl.Collected(ablated.outputs["scores"]))


def controls_of(features, *, seed, **run):
    """Score the clips without learning anything; return the scores."""
    with dsl.ParallelFor(CONTROLS, parallelism=_wiring.LOOP_PARALLELISM, name="controls") as method:
        scored = place(score_control(features=features, method=method, seed=seed, **run))
    return dsl.Collected(scored.outputs["scores"])


def downstream_of(**measured):
    """Train policies on subsets of the clips in shards; return how well they did."""
    return _wiring.in_shards(train_downstream, "downstream", **measured)
