"""Labelling servers that are killed, and two of them on one folder."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from review_server import Page, Process, arguments, serving, write_tokens

LENGTHS = [6, 16, 24, 15, 9, 15, 24, 14]


@pytest.fixture
def words(dataset, tmp_path):
    return arguments(dataset.uri, str(tmp_path / "labels"), "--tokens", write_tokens(tmp_path), "--overlap", "1")


def test_killed_between_posts_the_server_has_lost_nothing_it_acknowledged(words):
    acknowledged, names = [], ("alice", "bob")
    for _ in range(2):
        server = Process(*words)
        stop = threading.Event()

        def work(name, item, base=server.base, stop=stop):
            page, stored = Page(base, name), []
            try:
                epoch = page.open().take(item)
                while not stop.is_set():
                    answer = page.send(item, epoch, page.event("paint", 1, 0, 1))
                    if answer.status_code == 200:
                        stored += answer.json()["stored"]
                        if len(stored) == 5:
                            stop.set()
            except httpx.TransportError:  # killed in the middle of an answer
                assert stop.is_set()
            page.close()
            return name, stored

        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(work, name, f"episode:{number}") for number, name in enumerate(names)]
            stop.wait(timeout=60)
            server.end()
            acknowledged += [found.result(timeout=60) for found in running]
    server = Process(*words)
    for number, name in enumerate(names):
        page = Page(server.base, name).open()
        kept = {event["ulid"] for event in page.get(f"/api/episodes/{number}/mine").json()["events"]}
        assert kept >= {ulid for who, stored in acknowledged for ulid in stored if who == name}
        page.close()
    assert sum(len(stored) for _, stored in acknowledged) >= 10
    server.end()


def test_two_servers_on_one_folder_never_grant_one_item_twice(words):
    with serving(*words) as one:
        other = Process(*words)
        try:
            pages = [Page(one, "alice").open(), Page(other.base, "bob").open()]
            with ThreadPoolExecutor(2) as pool:
                held = [list(pool.map(lambda page: page.next()["item"], pages)) for _ in range(4)]
            for item_of_alice, item_of_bob in held:
                assert item_of_alice != item_of_bob
            # What one server stored the other shows.
            item = pages[0].next()["item"]
            pages[0].complete(item, LENGTHS[int(item[8:])])
            states = {entry["item"]: entry for entry in pages[1].get("/api/items").json()}
            assert states[item]["annotators"] is None  # open to bob, who is not told
            again = Page(other.base, "alice").open()
            assert again.get(f"/api/episodes/{item[8:]}/mine").json()["state"]["complete"]
            for page in [*pages, again]:
                page.close()
        finally:
            other.end()
