from __future__ import annotations

import json

import numpy as np
import pytest
from review_events import event, store

from robolift import storage
from robolift.annotators.review.job import Job, sources_of
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.stages import import_reviews
from robolift.stages.stage import execute

LENGTHS = [6, 16, 24, 15, 9, 15, 24, 14]


@pytest.fixture
def labels(dataset, tmp_path):
    """A labels folder that asks everything, with pairs and gold."""
    folder = tmp_path / "labels"
    job = Job(
        dataset=sources_of(Dataset.open(dataset)),
        ask=("segments", "frames", "outcome", "stages"),
        num_task_stages=2,
    )
    storage.write_bytes(f"{folder}/job.json", storage.to_json_bytes(job.model_dump(mode="json")))
    (folder / "pairs.csv").write_text(
        "pair_id,episode_a,start_a,stop_a,episode_b,start_b,stop_b,clip_a_id,clip_b_id\nx,0,0,5,1,0,5,left,right\n"
    )
    (folder / "gold.json").write_text(json.dumps({"episode:7": {"outcome": "success", "stages": [7]}}))
    return str(folder)


def labelled(annotator="alice", episode=0, *, tri=1, reward=0, outcome="success", boundary=3, **given):
    """Everything about one episode."""
    who = {"annotator": annotator, "item": f"episode:{episode}", **given}
    length = LENGTHS[episode]
    return [
        event("paint", tri, 0, length, **who),
        event("frame_reward", reward, 0, length, **who),
        event("outcome", outcome, length - 1, **who),
        event("boundary", True, boundary, **who),
        event("complete", **who),
    ]


def run(dataset, labels, output_root, **config):
    return execute("import_reviews", {"reviews_uri": labels, **config}, {"dataset": dataset.uri}, output_root)


def rows(manifest, episode):
    table = manifest.table("rewards").to_pylist()
    return [row for row in table if row["episode_index"] == episode]


def column(manifest, episode, name):
    return [row[name] for row in rows(manifest, episode)]


def test_nobody_labelled_yet(dataset, output_root):
    manifest = execute("import_reviews", {}, {"dataset": dataset.uri}, output_root)
    table = manifest.table("rewards")
    assert table.num_rows == 123
    assert set(table.column("source").to_pylist()) == {"none"}
    assert not any(table.column("anchor").to_pylist())
    for name in ("progress", "success_prob", "tri", "reward", "stage", "confidence"):
        assert table.column(name).null_count == 123
    header = b"pair_id,clip_a_id,clip_b_id,preference,timestamp,annotator_id\n"
    assert storage.read_bytes(manifest.file("preferences.csv")) == header
    assert manifest.counts["labelled"] == 0


def test_one_person_by_hand(dataset, labels, output_root):
    made = labelled(tri=1, reward=0, outcome="success", boundary=2)
    more = [event("paint", -1, 4, 5), event("paint", "unknown", 5, 6), event("frame_reward", 1, 5, 6)]
    store(labels, *made[:-1], *more, event("complete"))
    manifest = run(dataset, labels, output_root)
    assert column(manifest, 0, "tri") == [1, 1, 1, 1, -1, None]
    assert column(manifest, 0, "reward") == [0, 0, 0, 0, 0, 1]
    assert column(manifest, 0, "success_prob") == [1] * 6
    assert column(manifest, 0, "stage") == [0, 0, 1, 1, 1, 1]
    # Two frames of a quarter, four of an eighth.
    assert column(manifest, 0, "progress") == [0, 0.25, 0.5, 0.625, 0.75, 0.875]
    assert column(manifest, 0, "confidence") == [1] * 6
    assert column(manifest, 0, "anchor") == [True] * 6
    assert column(manifest, 0, "source") == ["human"] * 6
    assert set(column(manifest, 1, "source")) == {"none"}
    assert manifest.counts == {"episodes": 8, "frames": 123, "labelled": 1, "preferences": 0, "events": 8}


def test_stages_alone(dataset, tmp_path, output_root):
    labels = str(tmp_path / "stages")
    job = Job(dataset=sources_of(Dataset.open(dataset)), ask=("stages",), num_task_stages=3)
    storage.write_bytes(f"{labels}/job.json", storage.to_json_bytes(job.model_dump(mode="json")))
    store(labels, event("boundary", True, 3), event("boundary", True, 1), event("complete"))
    manifest = run(dataset, labels, output_root)
    assert column(manifest, 0, "progress") == pytest.approx([0, 3 / 9, 1 / 3 + 1 / 6, 6 / 9, 7 / 9, 8 / 9])
    assert column(manifest, 0, "anchor") == [False, True, False, True, False, False]
    assert column(manifest, 0, "success_prob") == [None] * 6
    assert column(manifest, 0, "confidence") == [1] * 6


def test_a_failures_last_stage_has_no_known_progress(dataset, labels, output_root):
    store(labels, *labelled(outcome="failure", boundary=2))
    manifest = run(dataset, labels, output_root)
    assert column(manifest, 0, "progress") == [0, 0.25, None, None, None, None]
    assert column(manifest, 0, "success_prob") == [0] * 6
    assert column(manifest, 0, "stage") == [0, 0, 1, 1, 1, 1]


def test_two_people(dataset, labels, output_root):
    store(
        labels,
        *labelled("alice", tri=1, outcome="success", boundary=2),
        *labelled("bob", tri=0, outcome="failure", boundary=4),
    )
    manifest = run(dataset, labels, output_root)
    assert column(manifest, 0, "tri") == [0] * 6
    assert column(manifest, 0, "success_prob") == [None] * 6
    assert column(manifest, 0, "stage") == [0, 0, 0, 1, 1, 1]
    # They are even about the outcome: whether the second stage was finished is not known.
    assert column(manifest, 0, "progress") == pytest.approx([0, 1 / 6, 2 / 6, None, None, None])
    # Agreement: tri 1/2, reward 1, outcome 0 (even), stage 1 but 1/2 in frames 2 (alice) and 3 (bob).
    sure, unsure = (0.5 + 1 + 0 + 1) / 4, (0.5 + 1 + 0 + 0.5) / 4
    assert column(manifest, 0, "confidence") == [0.5] * 6
    reviews = storage.read_json(manifest.file("reviews.json"))
    assert reviews["episodes"]["disagreement"] == [
        {"episode_index": 0, "disagreement": pytest.approx(1 - (4 * sure + 2 * unsure) / 6, abs=1e-6)}
    ]
    assert reviews["agreement"]["outcome"] == 0  # one unit, two answers: what chance gives


def test_up_and_down_is_not_standing_still(dataset, labels, output_root):
    store(labels, *labelled("alice", tri=1), *labelled("bob", tri=-1))
    manifest = run(dataset, labels, output_root)
    assert column(manifest, 0, "tri") == [None] * 6
    assert column(manifest, 0, "confidence") == [1] * 6  # of the reward and the stage, on which they agree


def test_half_done_and_skipped_episodes_are_counted_and_not_used(dataset, labels, output_root):
    store(
        labels,
        *labelled(episode=0),
        *labelled(episode=1)[:-1],
        event("skip", "too dark", item="episode:2"),
        *labelled("bob", episode=2),
        *labelled("bob", episode=0),
        *labelled("bob", episode=3),
        event("undo", "0" * 26, annotator="bob", item="episode:3"),
        event(
            "boundary", True, 5, annotator="bob", item="episode:3"
        ),  # more boundaries than stages: not whole any more
    )
    manifest = run(dataset, labels, output_root, min_annotators=2)
    reviews = storage.read_json(manifest.file("reviews.json"))
    disagreement = reviews["episodes"].pop("disagreement")
    assert reviews["episodes"] == {"total": 8, "used": 1, "too_few_annotators": 1, "half_done": 2}
    assert disagreement == [{"episode_index": 0, "disagreement": 0}]
    assert reviews["annotators"] == [
        {"name": "alice", "completed": 1, "skipped": 1, "half_done": 1, "gold_accuracy": None, "counted": True},
        {"name": "bob", "completed": 2, "skipped": 0, "half_done": 1, "gold_accuracy": None, "counted": True},
    ]
    assert reviews["skips"] == [{"item": "episode:2", "annotator": "alice", "reason": "too dark"}]
    table = manifest.table("rewards")
    human = np.array(table.column("source").to_pylist()) == "human"
    assert set(table.column("episode_index").to_numpy()[human]) == {0}


def test_who_is_wrong_about_gold_is_left_out(dataset, labels, output_root):
    store(
        labels,
        *labelled("alice", episode=7, outcome="success", boundary=7),
        *labelled("bob", episode=7, outcome="failure", boundary=8),  # the boundary is near enough
        *labelled("bob", episode=0),
        *labelled("carol", episode=1),
    )
    assert run(dataset, labels, output_root, min_gold_accuracy=0.5).counts["labelled"] == 3
    manifest = run(dataset, labels, output_root, min_gold_accuracy=0.6)
    people = {person["name"]: person for person in storage.read_json(manifest.file("reviews.json"))["annotators"]}
    assert {name: (person["gold_accuracy"], person["counted"]) for name, person in people.items()} == {
        "alice": (1.0, True),
        "bob": (0.5, False),
        "carol": (None, True),
    }
    assert manifest.counts["labelled"] == 2
    assert set(column(manifest, 0, "source")) == {"none"}
    assert column(manifest, 7, "success_prob") == [1] * 14


def test_people_are_measured_before_they_looked_at_each_other(dataset, labels, output_root):
    """Bob is wrong, looks at what alice said, reopens and says the same."""
    bob = {"annotator": "bob", "item": "episode:7"}
    store(
        labels,
        *labelled("alice", episode=7, outcome="success", boundary=7),
        *labelled("bob", episode=7, outcome="failure", boundary=7, tri=0),
        event("reopen", **bob),
        *labelled("bob", episode=7, outcome="success", boundary=7),
        *labelled("carol", episode=0),
    )
    manifest = run(dataset, labels, output_root)
    reviews = storage.read_json(manifest.file("reviews.json"))
    assert {person["name"]: person["gold_accuracy"] for person in reviews["annotators"]} == {
        "alice": 1.0,
        "bob": 0.5,
        "carol": None,
    }
    assert reviews["agreement"]["outcome"] == 0
    assert reviews["reopened"] == 1
    # The labels are what both say in the end.
    assert column(manifest, 7, "success_prob") == [1] * 14
    assert column(manifest, 7, "tri") == [1] * 14
    assert run(dataset, labels, output_root, min_gold_accuracy=0.6).counts["labelled"] == 2


def test_preferences(dataset, labels, output_root):
    who = {"annotator": "bob", "item": "pair:x"}
    store(
        labels,
        event("prefer", "A", item="pair:x", at_ms=1_700_000_000_123),
        event("complete", item="pair:x"),
        event("prefer", "A", **who),
        event("prefer", "tie", **who, at_ms=1_700_000_001_000),
        event("complete", **who),
        event("prefer", "B", annotator="carol", item="pair:x"),
    )
    text = storage.read_bytes(run(dataset, labels, output_root).file("preferences.csv")).decode()
    assert text.splitlines() == [
        "pair_id,clip_a_id,clip_b_id,preference,timestamp,annotator_id",
        "x,left,right,A,2023-11-14T22:13:20.123+00:00,alice",
        "x,left,right,tie,2023-11-14T22:13:21.000+00:00,bob",
    ]


def test_the_events_are_part_of_the_identity(dataset, labels, output_root, tmp_path):
    store(labels, *labelled())
    first = run(dataset, labels, output_root)
    assert run(dataset, labels, output_root) == first
    storage.write_bytes(f"{labels}/leases/episode-0/00000001.json", b"{}")  # who works on what is no label
    assert run(dataset, labels, output_root) == first
    store(labels, *labelled("bob", tri=-1))
    second = run(dataset, labels, output_root)
    assert second.digest != first.digest
    (tmp_path / "labels" / "gold.json").write_text("{}")
    assert run(dataset, labels, output_root).digest != second.digest


def test_the_division_into_files_changes_no_label(dataset, labels, output_root, tmp_path):
    made = [*labelled(), *labelled("bob", episode=1), *labelled("alice", episode=1, tri=0)]
    store(labels, *made)
    first = run(dataset, labels, output_root)
    storage.remove(f"{labels}/events")
    for found in reversed(made):
        store(labels, found)
    second = run(dataset, labels, str(tmp_path / "other"))
    assert second.files["digest"] == first.files["digest"]


def test_what_is_stored_while_the_stage_runs_belongs_to_the_next(dataset, labels, output_root, monkeypatch):
    store(labels, *labelled())
    before = run(dataset, labels, output_root)
    storage.remove(before.uri)
    read_job = import_reviews.read_job

    def meanwhile(uri):
        store(labels, *labelled("bob", episode=3))
        return read_job(uri)

    monkeypatch.setattr(import_reviews, "read_job", meanwhile)
    assert run(dataset, labels, output_root) == before


def test_labels_on_s3(dataset, labels, output_root, s3):
    store(labels, *labelled())
    for name, _ in storage.list_files(labels):
        storage.write_bytes(f"{s3}/labels/{name}", storage.read_bytes(f"{labels}/{name}"))
    local, remote = run(dataset, labels, output_root), run(dataset, f"{s3}/labels", output_root)
    assert remote.files["digest"] == local.files["digest"]


def test_labels_of_another_dataset_are_refused(dataset, labels, output_root):
    document = storage.read_json(f"{labels}/job.json")
    document["dataset"][0]["digest"] = "0" * 16
    storage.write_bytes(f"{labels}/job.json", storage.to_json_bytes(document))
    with pytest.raises(DataError, match="another dataset"):
        run(dataset, labels, output_root)


def test_a_folder_that_is_none_is_refused(dataset, tmp_path, output_root):
    with pytest.raises(DataError, match=r"job\.json"):
        run(dataset, str(tmp_path / "nothing"), output_root)


def test_a_damaged_event_is_named(dataset, labels, output_root):
    store(labels, *labelled())
    uri = f"{labels}/events/alice/SESSION1-000001.jsonl"
    storage.write_bytes(uri, storage.read_bytes(uri) + b'{"op": "paint"}\n')
    with pytest.raises(DataError, match=r"SESSION1-000001\.jsonl, line 6"):
        run(dataset, labels, output_root)


def test_a_pair_that_is_not_listed_any_more_is_named(dataset, labels, output_root):
    store(labels, event("prefer", "A", item="pair:y"), event("complete", item="pair:y"))
    with pytest.raises(DataError, match=r"pair y was labelled and is not in pairs\.csv"):
        run(dataset, labels, output_root)
