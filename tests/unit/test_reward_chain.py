"""From a real server's answers to advantages: the stages of reward labelling, one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from annotated import annotate, plan, say
from openai_server import OpenAIServer
from reward_shards import collect, column, publish_rewards

from robolift import storage
from robolift.errors import DataError
from robolift.stages.stage import execute


@pytest.mark.parametrize("protocol", ["logprob", "shuffled", "rubric", "pairwise"])
def test_answers_become_rewards(protocol, dataset, output_root):
    planned = plan(dataset, output_root, protocol, num_prefixes=4)
    with OpenAIServer(say=say) as server:
        shards = [annotate(dataset, planned, server, output_root, num_shards=3, shard=shard) for shard in range(3)]
    automatic = collect(output_root, dataset, planned, shards)
    progress = np.array(column(automatic, "progress"), float)
    ends = np.cumsum(dataset.table("episodes").column("length").to_numpy()) - 1
    assert not np.isnan(progress[ends]).any()
    assert (np.isnan(progress).sum() == 0) == (protocol != "rubric")

    reviews = publish_rewards(output_root, dataset, "import_reviews")
    inputs = {"dataset": dataset.uri, "automatic": automatic.uri, "reviews": reviews.uri}
    quality = execute("label_quality", {"min_success_auroc": 0.9, "min_failure_gap": 0.2}, inputs, output_root)
    found = storage.read_json(quality.file("quality.json"))
    # The model reads the progress of the scene: it is above any clock where it counts.
    assert found["passed"], found["measures"]
    assert found["measures"]["success_auroc"] | {"about": ""} == {
        "value": 1.0,
        "clock": 0.5,
        "threshold": 0.9,
        "passed": True,
        "about": "",
    }
    rewards = execute("merge_rewards", {}, {**inputs, "quality": quality.uri}, output_root)
    assert set(column(rewards, "source")) == {"vlm"}
    config = {"source": "progress", "column": "progress", "preset": "stage_advantage", "lookahead": 5}
    given = {"dataset": dataset.uri, "rewards": rewards.uri}
    if protocol == "rubric":
        with pytest.raises(DataError, match="the advantage from progress progress is nan"):
            execute("label_advantage", config, given, output_root)
    else:
        assert execute("label_advantage", config, given, output_root).counts["positive"] > 0


def test_what_could_not_be_read_is_no_label(dataset, output_root):
    planned = plan(dataset, output_root, "shuffled")
    with OpenAIServer("garbled", say=say) as server:
        shard = annotate(dataset, planned, server, output_root)
    with pytest.raises(DataError, match=r"8 of 8 episodes have no labels \(8 ParseError\)"):
        collect(output_root, dataset, planned, [shard])
    made = collect(output_root, dataset, planned, [shard], min_coverage=0)
    assert set(column(made, "progress")) == {None}
    assert set(column(made, "source")) == {"none"}
