"""People at work on the labelling server, over real HTTP."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from review_server import Page, arguments, serving, write_tokens

from robolift import storage
from robolift.annotators.review.events import UNKNOWN
from robolift.annotators.review.packs import Packs
from robolift.data.cores import num_cores

LENGTHS = [6, 16, 24, 15, 9, 15, 24, 14]


@pytest.fixture
def words(dataset, tmp_path):
    pairs = "pair_id,episode_a,start_a,stop_a,episode_b,start_b,stop_b\n"
    pairs += "".join(f"p{number},{number},0,5,{number + 1},1,6\n" for number in range(4))
    (tmp_path / "pairs.csv").write_text(pairs)
    gold = {"episode:1": {"outcome": "success", "tri": [[0, 16, 1]]}, "episode:2": {"outcome": "failure"}}
    (tmp_path / "gold.json").write_text(json.dumps(gold))
    tokens = ["--tokens", write_tokens(tmp_path), "--pairs", str(tmp_path / "pairs.csv"), "--gold"]
    return arguments(dataset.uri, str(tmp_path / "labels"), *tokens, str(tmp_path / "gold.json"), "--overlap", "1")


@pytest.fixture
def address(words):
    with serving(*words) as base:
        yield base


@pytest.fixture
def people(address):
    pages = [Page(address, name).open() for name in ("alice", "bob", "carol")]
    yield pages
    for page in pages:
        page.close()


def test_a_session_says_what_is_asked_of_what(people):
    facts = people[0].facts
    assert facts["annotator"] == "alice"
    assert facts["job"] == {
        "ask": ["segments", "outcome"],
        "num_task_stages": 1,
        "blind": True,
        "lease_s": 600,
        "overlap": 1.0,
    }
    cameras = ["observation.images.behindGripper", "observation.images.topview"]
    version = facts["dataset"].pop("version")
    assert facts["dataset"] == {
        "fps": 20.0,
        "cameras": cameras,
        "tasks": ["push the square to the goal"],
        "num_episodes": 8,
    }
    assert len(version) == 16
    assert facts["lanes"] == {"vlm_progress": False, "value": False, "advantage_label": False}
    assert facts["modes"] == ["episode", "pair"]
    assert people[0].get("/api/episodes/1").json() == {
        "item": "episode:1",
        "length": 16,
        "fps": 20.0,
        "task": "push the square to the goal",
        "outcome": None,
        "blind": True,
        "cameras": {camera: [32, 32] for camera in cameras},
    }


def test_two_people_label_every_episode_and_the_overview_adds_up(people):
    alice, bob, carol = people
    for page, tri in ((alice, 1), (bob, 1), (carol, 1)):
        seen = []
        while item := page.next()["item"]:
            number = int(item.partition(":")[2])
            length = LENGTHS[number]
            page.complete(item, length, tri=tri, outcome="failure" if page is bob and number == 2 else "success")
            seen.append(item)
        assert len(seen) == len(set(seen))
    report = alice.get("/api/progress").json()
    assert report["episodes"] == {"total": 8, "done": 8, "mine": 8, "skipped": 0, "leased": 0}
    done = {person["name"]: person for person in report["annotators"]}
    assert (done["alice"]["done"], done["bob"]["done"]) == (8, 8)
    # Two gold items: an accuracy over so few would tell which they are.
    assert (done["alice"]["gold_accuracy"], done["bob"]["gold_accuracy"]) == (None, None)
    assert report["agreement"]["tri"] is None  # everybody painted the same value everywhere
    assert report["agreement"]["outcome"] < 1
    assert alice.get("/api/disagreements").json()[0]["item"] == "episode:2"
    listed = {entry["item"]: entry for entry in alice.get("/api/items").json()}
    assert listed["episode:3"]["state"] == "mine"
    assert listed["episode:3"]["disagreement"] == 0
    assert listed["episode:2"]["disagreement"] == 0.5  # of the paint none, of the outcomes all: they are even
    assert listed["episode:2"]["annotators"] >= 2


def test_nobody_gets_what_another_holds(people):
    held = [page.next()["item"] for page in people]
    assert len(set(held)) == 3
    again = people[0].post("/api/lease", item=held[1], action="take")
    assert (again.status_code, again.json()) == (409, {"detail": "stale lease", "holder": "bob"})
    states = {entry["item"]: entry["state"] for entry in people[0].get("/api/items").json()}
    assert states[held[1]] == "leased"
    assert people[1].post("/api/lease", item=held[1], action="release", epoch=1).status_code == 200
    people[0].take(held[1])


def test_one_person_holds_no_more_than_four_unfinished_items(people):
    alice, bob, _ = people
    for number in range(4):
        alice.take(f"episode:{number}")
    answer = alice.post("/api/lease", item="episode:4", action="take")
    held = [f"episode:{number}" for number in range(4)]
    detail = "you hold 4 items already: episode:0, episode:1, episode:2, episode:3; finish or release one"
    assert (answer.status_code, answer.json()) == (409, {"detail": detail, "holder": None, "held": held})
    assert alice.next()["item"] in held
    assert alice.next("pair") == {"item": None, "reason": detail}
    bob.take("episode:4")
    alice.complete("episode:3", 15)
    alice.take("episode:5")
    assert alice.post("/api/lease", item="episode:6", action="take").status_code == 409
    alice.post("/api/lease", item="episode:5", action="release", epoch=1)
    alice.take("episode:6")


def test_after_leaves_an_item_for_later(people):
    first = people[0].next()["item"]
    people[0].post("/api/lease", item=first, action="release", epoch=1)
    assert people[0].next(after="episode:5")["item"] == "episode:6"


def test_what_was_begun_is_offered_again_and_what_was_skipped_is_not(people):
    alice = people[0]
    skipped = alice.next()["item"]
    alice.do(skipped, alice.event("skip", "the camera is covered"))
    begun = alice.next()["item"]
    assert begun != skipped
    alice.do(begun, alice.event("paint", 1, 0, 1))
    again = Page(str(alice.client.base_url).rstrip("/")).open()
    answer = again.next()
    assert (answer["item"], answer["lease"]["epoch"]) == (begun, 3)
    assert again.get(f"/api/episodes/{begun[8:]}/mine").json()["state"]["tri"] == [[0, 1, 1]]
    assert again.get("/api/progress").json()["episodes"]["skipped"] == 1
    again.close()


def test_events_under_a_stale_lease_are_refused_and_nothing_is_stored(people):
    alice, bob, _ = people
    epoch = alice.take("episode:0")
    paint = alice.event("paint", 1, 0, 6)
    assert bob.send("episode:0", epoch, bob.event("paint", -1, 0, 6)).status_code == 409
    assert alice.send("episode:0", epoch + 1, paint).status_code == 409
    assert alice.send("episode:1", epoch, alice.event("paint", 1, 0, 6)).status_code == 409
    other_tab = Page(str(alice.client.base_url).rstrip("/")).open()
    assert other_tab.send("episode:0", epoch, paint).status_code == 409
    assert other_tab.take("episode:0") == epoch + 1
    answer = alice.send("episode:0", epoch, paint)
    assert (answer.status_code, answer.json()) == (409, {"detail": "stale lease", "holder": "alice"})
    assert alice.post("/api/lease", item="episode:0", action="renew", epoch=epoch).status_code == 409
    assert alice.get("/api/episodes/0/mine").json()["events"] == []
    other_tab.close()


def test_an_expired_lease_takes_no_more_events(people, tmp_path):
    alice, bob, _ = people
    epoch = alice.take("episode:0")
    uri = f"{tmp_path}/labels/leases/episode-0/{epoch:08d}.json"
    storage.write_bytes(uri, storage.to_json_bytes({**storage.read_json(uri), "expires_ms": 1}))
    assert alice.send("episode:0", epoch, alice.event("paint", 1, 0, 6)).status_code == 409
    assert bob.take("episode:0") == epoch + 1


def test_sending_again_stores_nothing_again(people, tmp_path):
    alice = people[0]
    epoch = alice.take("episode:0")
    events = [alice.event("paint", 1, 0, 6), alice.event("outcome", "success", 5)]
    first = alice.send("episode:0", epoch, *events)
    again = alice.send("episode:0", epoch, *events)
    assert first.json() == again.json() == {"stored": [event["ulid"] for event in events]}
    more = alice.send("episode:0", epoch, *events, alice.event("complete"))
    assert more.status_code == 200
    alice.post("/api/lease", item="episode:0", action="release", epoch=epoch)
    assert alice.send("episode:0", epoch, *events).status_code == 200  # acknowledged long ago
    names = [name for name, _ in storage.list_files(f"{tmp_path}/labels/events/alice")]
    assert names == [f"{alice.facts['session']}-{number:06d}.jsonl" for number in (1, 2)]
    assert len(alice.get("/api/episodes/0/mine").json()["events"]) == 3


def test_the_server_says_who_and_when(people):
    alice = people[0]
    forged = {"annotator": "bob", "session": "SESSION9", "lease": 77, "at_ms": 5}
    alice.do("episode:0", {**alice.event("paint", 1, 0, 6), **forged})
    stored = alice.get("/api/episodes/0/mine").json()["events"][0]
    assert (stored["annotator"], stored["session"], stored["lease"]) == ("alice", alice.facts["session"], 1)
    assert stored["at_ms"] > 1_700_000_000_000
    assert people[1].get("/api/episodes/0/mine").json()["events"] == []


def test_an_item_is_complete_only_when_everything_asked_is_said(people):
    alice = people[0]
    epoch = alice.take("episode:0")
    paint, complete = alice.event("paint", 1, 0, 5), alice.event("complete")
    answer = alice.send("episode:0", epoch, paint, complete)
    assert (answer.status_code, answer.json()["field"]) == (422, "op")
    assert "frame 5 is not painted" in answer.json()["detail"]
    rest, complete = alice.event("paint", UNKNOWN, 5, 6), alice.event("complete")
    assert "outcome" in alice.send("episode:0", epoch, paint, rest, complete).json()["detail"]
    said, complete = alice.event("outcome", "failure", 2), alice.event("complete")
    alice.do("episode:0", paint, rest, said, complete, epoch=epoch)
    # What is complete is reopened before it is changed.
    assert alice.send("episode:0", epoch, alice.event("undo", rest["ulid"])).status_code == 422
    alice.do("episode:0", alice.event("reopen"), alice.event("undo", rest["ulid"]), epoch=epoch)
    state = alice.get("/api/episodes/0/mine").json()["state"]
    assert (state["complete"], state["tri"]) == (False, [[0, 5, 1]])


def test_what_is_complete_is_reopened_before_it_is_changed(people):
    alice = people[0]
    epoch = alice.take("episode:0")
    paint, said, done = alice.event("paint", 1, 0, 6), alice.event("outcome", "success", 5), alice.event("complete")
    alice.do("episode:0", paint, said, done, epoch=epoch)
    more = alice.event("outcome", "failure", 5)
    for change in (alice.event("paint", -1, 0, 2), more, alice.event("undo", said["ulid"])):
        answer = alice.send("episode:0", epoch, change)
        assert (answer.status_code, answer.json()["field"]) == (422, "op")
        assert "episode:0 is complete; reopen it first" in answer.json()["detail"]
    undone, again = alice.event("undo", done["ulid"]), alice.event("outcome", "failure", 5)
    alice.do("episode:0", undone, again, alice.event("complete"), epoch=epoch)
    alice.do("episode:0", alice.event("reopen"), alice.event("paint", -1, 0, 2), alice.event("complete"), epoch=epoch)
    state = alice.get("/api/episodes/0/mine").json()["state"]
    assert (state["complete"], state["tri"], state["outcome"]["value"]) == (True, [[0, 2, -1], [2, 6, 1]], "failure")


def test_neither_the_recorded_outcome_nor_who_looks_again_is_told_before_one_is_done(people):
    alice = people[0]

    def told():
        shown = alice.get("/api/episodes/0").json()
        listed = alice.get("/api/items").json()[0]
        return shown["outcome"] is not None, shown["blind"], listed["annotators"], listed["needed"]

    assert told() == (False, True, None, None)
    alice.complete("episode:0", 6)
    assert told() == (True, False, 1, 2)
    alice.do("episode:0", alice.event("reopen"))
    assert told() == (False, True, None, None)


def test_a_page_that_does_not_know_ones_other_page_completes_nothing(people):
    alice = people[0]
    epoch = alice.take("episode:0")
    painted = alice.do("episode:0", alice.event("paint", 1, 0, 6), epoch=epoch)[0]
    other = Page(str(alice.client.base_url).rstrip("/")).open()
    other_epoch = other.take("episode:0")
    said = other.do("episode:0", other.event("outcome", "failure", 5), epoch=other_epoch)[0]
    epoch = alice.take("episode:0")
    done = alice.event("complete")
    for unknown in (painted, None, "01ARZ3NDEKTSV4RRFFQ69G5FAV"):
        answer = alice.send("episode:0", epoch, done, seen=unknown)
        assert (answer.status_code, answer.json()) == (409, {"detail": "not what you saw"})
    mine = alice.get("/api/episodes/0/mine").json()
    assert mine["state"]["complete"] is False
    assert mine["events"][-1]["ulid"] == said
    for _ in range(2):  # sent again it is answered as before
        assert alice.send("episode:0", epoch, done, seen=said).json() == {"stored": [done["ulid"]]}
    other.close()


def test_what_one_sends_together_is_known(people):
    alice = people[0]
    epoch = alice.take("episode:0")
    events = [alice.event("paint", 1, 0, 6), alice.event("outcome", "success", 5)]
    assert alice.send("episode:0", epoch, *events[:1], seen=None).status_code == 200
    # The answer was lost, so it goes with the rest.
    assert alice.send("episode:0", epoch, *events, alice.event("complete"), seen=None).status_code == 200


def test_agreement_is_measured_before_people_looked_at_each_other(people):
    alice, bob, _ = people
    alice.complete("episode:0", 6)
    alice.post("/api/lease", item="episode:0", action="release", epoch=1)
    bob.complete("episode:0", 6, outcome="failure")
    assert bob.get("/api/episodes/0/others").status_code == 200
    bob.do("episode:0", bob.event("reopen"), bob.event("outcome", "success", 5), bob.event("complete"))
    assert bob.get("/api/disagreements").json()[0]["disagreement"] == 0
    assert bob.get("/api/progress").json()["agreement"]["outcome"] == 0


def test_a_pairs_preference_is_about_its_clips_however_it_was_shown(people):
    for page in people:
        for number in range(4):
            item = f"pair:p{number}"
            shown = page.get(f"/api/pairs/p{number}").json()
            first, second = {"episode": number, "start": 0, "stop": 5}, {"episode": number + 1, "start": 1, "stop": 6}
            assert (shown["a"], shown["b"]) == ((second, first) if shown["flipped"] else (first, second))
            prefer, done = page.event("prefer", "A"), page.event("complete")
            assert page.send(item, page.take(item), done).status_code == 422
            page.do(item, prefer, done)
            mine = page.get(f"/api/pairs/p{number}/mine").json()
            assert mine["state"]["preference"] == "A"
            assert mine["events"][0]["value"] == "A"
            page.post("/api/lease", item=item, action="release", epoch=page.take(item))
    flips = [[page.get(f"/api/pairs/p{number}").json()["flipped"] for number in range(4)] for page in people]
    assert len({tuple(row) for row in flips}) > 1
    assert people[0].next("pair")["item"] is None
    # Everybody preferred the first clip they saw, which was not the same one.
    assert people[0].get("/api/progress").json()["agreement"]["preference"] < 1


def test_a_damaged_labels_folder_is_the_operators_matter(words, tmp_path, capfd):
    with serving(*words) as base:
        page = Page(base).open()
        storage.write_bytes(f"{tmp_path}/labels/events/alice/SESSION9-000001.jsonl", b"{}\n")
        answer = page.get("/api/episodes/0/mine")
        assert (answer.status_code, answer.json()) == (500, {"detail": "the server can't do this; its log says why"})
        page.close()
    assert "SESSION9-000001.jsonl, line 1" in "".join(capfd.readouterr())


def test_events_are_stored_while_many_frames_are_waited_for(people, monkeypatch):
    alice, hold = people[0], threading.Event()
    monkeypatch.setattr(Packs, "frames", lambda *_: hold.wait(timeout=60) and b"")
    path = "/api/episodes/2/frames/observation.images.topview?start=0&stop=24"
    try:
        with ThreadPoolExecutor(60) as pool:
            base, headers = str(alice.client.base_url), dict(alice.client.headers)
            waiting = [pool.submit(httpx.get, base + path, headers=headers, timeout=60) for _ in range(60)]
            alice.do("episode:0", alice.event("paint", 1, 0, 6))
            assert not any(found.done() for found in waiting)
            hold.set()
            assert {found.result().status_code for found in waiting} == {200}
    finally:
        hold.set()


def test_what_no_browser_waits_for_any_more_is_not_decoded(people, monkeypatch):
    alice, hold, begun = people[0], threading.Event(), []

    def frames(_, episode, *rest):
        begun.append(episode)
        return b"" if hold.wait(timeout=60) else b"late"

    monkeypatch.setattr(Packs, "frames", frames)
    path = "/api/episodes/{}/frames/observation.images.topview?start=0&stop=4"
    base, headers = str(alice.client.base_url), dict(alice.client.headers)
    count = num_cores() + 10

    def ask(episode, timeout):
        try:
            return httpx.get(base + path.format(episode), headers=headers, timeout=timeout).status_code
        except httpx.TimeoutException:
            return None

    try:
        with ThreadPoolExecutor(count + 1) as pool:
            given_up = [pool.submit(ask, 1, 3) for _ in range(count)]
            assert [found.result() for found in given_up] == [None] * count
            waiting = pool.submit(ask, 2, 60)
            hold.set()
            assert waiting.result() == 200
    finally:
        hold.set()
    assert begun.count(2) == 1
    assert begun.count(1) == num_cores()
