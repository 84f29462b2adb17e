from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from review_events import event, store, ulid

from robolift import exclusive, storage
from robolift.annotators.review import job as jobs
from robolift.annotators.review.events import append, list_objects, new_ulid, read_object
from robolift.annotators.review.fold import EMPTY, State
from robolift.annotators.review.job import (
    Job,
    SourceDigest,
    check_dataset,
    keep,
    read_gold,
    read_job,
    settle,
)
from robolift.annotators.review.pairs import ByFrames, read_pairs
from robolift.annotators.review.work import FRESH_S, Work
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError

LENGTHS = [10, 4]
HEADER = "pair_id,episode_a,start_a,stop_a,episode_b,start_b,stop_b\n"


@pytest.fixture
def opened(dataset):
    return Dataset.open(dataset)


def test_a_job_is_written_once_and_later_starts_agree(opened, tmp_path):
    labels = str(tmp_path)
    job = Job(dataset=jobs.sources_of(opened), ask=("outcome",), seed=3)
    assert settle(labels, job) == settle(labels, job) == read_job(labels) == job
    with pytest.raises(UsageError, match=r"seed is 3 there, 4 here; .*ask|ask.*; seed is 3 there, 4 here"):
        settle(labels, job.model_copy(update={"seed": 4, "ask": ("stages",)}))
    assert read_job(labels) == job


def test_stages_take_at_least_two():
    for ask in (("stages",), ("segments", "stages")):
        with pytest.raises(ValueError, match="stages are asked, which takes at least 2"):
            Job(dataset=(), ask=ask)
    assert Job(dataset=(), ask=("stages",), num_task_stages=2).num_task_stages == 2


def test_an_episode_with_fewer_frames_than_stages_is_to_be_skipped_unless_it_failed():
    job = Job(dataset=(), ask=("stages", "outcome"), num_task_stages=3)
    said = {"tri": np.full(2, EMPTY, np.int8), "frames": np.full(2, EMPTY, np.int8)}
    short = State(**said, outcome=("success", 1), boundaries=(1,))
    assert job.missing("episode:0", short) == "2 frames can't hold 3 stages; skip the episode"
    assert job.missing("episode:0", State(**said, outcome=("failure", 1), boundaries=(1,))) is None


def test_a_store_that_keeps_no_writers_apart_is_refused(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(exclusive, "create", lambda uri, content: storage.write_bytes(uri, content) or True)
    with pytest.raises(UsageError, match="this store overwrites"):
        settle(str(tmp_path), Job(dataset=jobs.sources_of(opened)))
    assert list(tmp_path.iterdir()) == []


def test_a_grown_dataset_is_the_same_jobs_and_another_is_not(opened):
    present = jobs.sources_of(opened)
    check_dataset(Job(dataset=present), opened, where="x")
    grown = SimpleNamespace(sources=(*opened.sources, replace(opened.sources[0], digest="e" * 16)))
    check_dataset(Job(dataset=present), grown, where="x")
    with pytest.raises(DataError, match="another dataset"):
        check_dataset(Job(dataset=jobs.sources_of(grown)), opened, where="x")
    for other in ((), (SourceDigest(digest="f" * 16, episodes=8),), (*present, *present)):
        with pytest.raises(DataError, match="another dataset"):
            check_dataset(Job(dataset=other), opened, where="x")


def test_a_damaged_job_is_named(tmp_path):
    (tmp_path / "job.json").write_text('{"dataset": [], "overlap": 2}')
    with pytest.raises(DataError, match="not a labelling job"):
        read_job(str(tmp_path))


def test_a_kept_file_stays_as_it_was(tmp_path):
    keep(str(tmp_path), "gold.json", b"{}")
    keep(str(tmp_path), "gold.json", b"{}")
    with pytest.raises(UsageError, match="differs"):
        keep(str(tmp_path), "gold.json", b"{ }")


def test_gold(tmp_path):
    path = tmp_path / "gold.json"
    assert read_gold(str(path), LENGTHS) == {}
    path.write_text(json.dumps({"episode:1": {"outcome": "failure", "tri": [[0, 4, -1]], "stages": [2]}}))
    found = read_gold(str(path), LENGTHS)["episode:1"]
    assert (found.outcome, found.tri, found.stages) == ("failure", ((0, 4, -1),), (2,))


@pytest.mark.parametrize(
    "gold",
    [
        [],
        {"episode:2": {}},
        {"episode:x": {}},
        {"episode:0": {"tri": [[0, 11, 1]]}},
        {"episode:0": {"tri": [[3, 3, 1]]}},
        {"episode:0": {"tri": [[0, 1, 2]]}},
        {"episode:0": {"stages": [0]}},
        {"episode:0": {"outcome": "maybe"}},
        {"episode:0": {"note": "x"}},
    ],
)
def test_wrong_gold_is_named(tmp_path, gold):
    (tmp_path / "gold.json").write_text(json.dumps(gold))
    with pytest.raises(DataError, match="gold"):
        read_gold(str(tmp_path / "gold.json"), LENGTHS)


def test_pairs(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(HEADER.rstrip() + ",clip_a_id,clip_b_id\nx,0,0,5,1,1,4,left,right\n")
    pair = read_pairs(str(path), ByFrames(LENGTHS))["x"]
    assert (pair.a.model_dump(), pair.ids) == ({"number": 0, "start": 0, "stop": 5}, ("left", "right"))
    path.write_text(HEADER + "b,0,0,5,1,1,4\na,0,0,5,1,1,4\n")
    pairs = read_pairs(str(path), ByFrames(LENGTHS))
    assert (list(pairs), pairs["a"].ids) == (["b", "a"], ("0_0_5", "1_1_4"))


@pytest.mark.parametrize(
    "text",
    [
        "pair_id,episode_a\nx,0\n",
        HEADER + "x,0,0,11,1,0,4\n",
        HEADER + "x,2,0,1,1,0,4\n",
        HEADER + "x,0,5,5,1,0,4\n",
        HEADER + "x,0,-1,5,1,0,4\n",
        HEADER + "x,0,a,5,1,0,4\n",
        HEADER + "x,0,0,5\n",
        HEADER + "../x,0,0,5,1,0,4\n",
        HEADER + ",0,0,5,1,0,4\n",
    ],
)
def test_a_wrong_pair_is_named_by_its_line(tmp_path, text):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(DataError, match=r"pairs\.csv, line 2"):
        read_pairs(str(tmp_path / "pairs.csv"), ByFrames(LENGTHS))


def test_a_pair_stands_once(tmp_path):
    (tmp_path / "pairs.csv").write_text(HEADER + "x,0,0,5,1,0,4\n" * 2)
    with pytest.raises(DataError, match=r"pair x stands twice\n  where: .*line 3"):
        read_pairs(str(tmp_path / "pairs.csv"), ByFrames(LENGTHS))


def test_what_is_stored_is_read_back(tmp_path):
    made = [event("paint", -1, 0, 3), event("outcome", "success", 9), event("skip", 'quote " and ü')]
    append(str(tmp_path), made, number=1)
    append(str(tmp_path), made[:1], number=1)  # another server has number 1
    names = list_objects(str(tmp_path))
    assert names == ["events/alice/SESSION1-000001.jsonl", "events/alice/SESSION1-000002.jsonl"]
    assert read_object(f"{tmp_path}/{names[0]}", LENGTHS) == made


def test_names_of_people_become_folders_of_their_own(tmp_path):
    for name in ("a.b@c.de", "accounts.google.com:x", "a+b", "A"):
        store(str(tmp_path), event("complete", annotator=name, ulid=new_ulid()))
    assert sorted(path.name for path in (tmp_path / "events").iterdir()) == [
        *("A", "a+b", "a.b@c.de", "accounts.google.com%3Ax")
    ]
    assert Work(str(tmp_path), LENGTHS).annotators() == ["A", "a+b", "a.b@c.de", "accounts.google.com:x"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "not an event"),
        ("{", "not an event"),
        ("[]", "expected an object"),
        (event("paint", 1, 0, 3).to_line().replace("alice", "bob"), "in the folder of another"),
        (event("paint", 1, 0, 11).to_line(), "expected a frame from 1 to 10"),
        (event("paint", 1, 0, 3, item="episode:2").to_line(), "the dataset has 2 episodes"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, problem):
    good = event("paint", 1, 0, 3)
    store(str(tmp_path), good)
    path = tmp_path / "events" / "alice" / "SESSION1-000001.jsonl"
    path.write_text(f"{good.to_line()}\n{line}\n")
    with pytest.raises(DataError, match=rf"(?s){problem}.*SESSION1-000001\.jsonl, line 2"):
        Work(str(tmp_path), LENGTHS)


def test_ulids_sort_by_time():
    assert new_ulid(1) < new_ulid(2) < new_ulid()
    assert len({new_ulid(5) for _ in range(100)}) == 100
    assert ulid(0) == "0" * 26


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests move, in place of what tells how fresh the last look is."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr("robolift.annotators.review.work.time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def test_a_persons_long_list_is_not_made_at_every_look(tmp_path, monkeypatch, clock):
    work, listed = Work(str(tmp_path), LENGTHS), []

    def slow(labels, annotator=None):
        listed.append(annotator)
        clock.s += 0.1
        return list_objects(labels, annotator)

    monkeypatch.setattr("robolift.annotators.review.work.list_objects", slow)
    for _ in range(3):
        work.refresh_one("alice")
    work.refresh_one("bob")
    assert listed == ["alice", "bob"]
    store(str(tmp_path), event("complete"))
    work.refresh_one("alice", surely=True)
    assert listed == ["alice", "bob", "alice"]
    assert work.standing("episode:0").done == {"alice"}
    clock.s += 2  # ten times what the look took, and more
    work.refresh_one("alice")
    assert listed == ["alice", "bob", "alice", "alice"]


def test_work_catches_up_with_other_servers(tmp_path, clock):
    labels = str(tmp_path)
    work = Work(labels, LENGTHS)
    assert work.standing("episode:0").done == frozenset()
    paint, done = event("paint", 1, 0, 3), event("complete")
    store(labels, paint, done)
    work.refresh()  # too soon
    assert not work.has("alice", done.ulid)
    work.refresh_one("alice", surely=True)
    assert work.standing("episode:0").done == {"alice"}
    version = work.version
    work.refresh_one("alice")
    work.add([paint])
    assert work.version == version
    store(labels, event("reopen"))
    clock.s += FRESH_S
    work.refresh()
    assert (work.standing("episode:0").done, work.standing("episode:0").started) == (frozenset(), {"alice"})
    assert storage.exists(f"{labels}/events/alice/SESSION1-000002.jsonl")
