"""Simulated annotators compare simulated clips through people's door, and refuse clips of which they know nothing."""

from __future__ import annotations

import pytest

from robolift import schema, storage
from robolift.errors import UsageError
from robolift.manifest import Manifest
from robolift.sim.annotators import clip_utilities
from robolift.stages.stage import execute

PAIRS = 30


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("simulated") / "runs")


@pytest.fixture(scope="module")
def recording(root) -> Manifest:
    config = {"num_videos": 2, "num_participants": 2, "seconds": 9, "height": 64, "fps": 15}
    return execute("simulate_videos", config, {}, root)


def clips_of(videos: Manifest, root: str) -> dict[str, str]:
    clips = execute("extract_clips", {"side": 64, "num_random": 3}, {"videos": videos.uri}, root)
    pairs = execute("propose_pairs", {"num_pairs": PAIRS, "repeat_fraction": 0.5}, {"clips": clips.uri}, root)
    return {"clips": clips.uri, "pairs": pairs.uri}


def test_sure_annotators_prefer_the_better_clip(recording, root):
    given = clips_of(execute("ingest_videos", {}, {"recording": recording.uri}, root), root)
    said = execute("simulate_preferences", {"beta": 1e6, "num_annotators": 2}, given, root)
    assert said.counts == {"answers": 2 * PAIRS, "annotators": 2}
    taken = execute("import_preferences", {"preferences_uri": said.uri}, given, root)
    truth = schema.read_parquet(recording.file("truth.parquet"))
    clips = schema.read_parquet(storage.join(given["clips"], "clips.parquet"))
    utility = clip_utilities(truth, clips)
    rows = schema.read_parquet(taken.file("preferences.parquet")).to_pylist()
    assert len(rows) == 2 * PAIRS
    assert {row["annotator_id"] for row in rows} == {"simulated01", "simulated02"}
    for row in rows:
        better = "A" if utility[row["clip_a_id"]] > utility[row["clip_b_id"]] else "B"
        assert row["preference"] == better


def test_clips_whose_quality_nobody_planted_are_refused(recording, root):
    videos = execute("ingest_videos", {"videos_uri": storage.join(recording.uri, "videos")}, {}, root)
    with pytest.raises(UsageError, match="simulated annotators know only the planted quality"):
        execute("simulate_preferences", {}, clips_of(videos, root), root)
