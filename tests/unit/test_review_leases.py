from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from robolift import storage
from robolift.annotators.review.leases import Leases, StaleLeaseError
from robolift.errors import DataError

ITEM = "episode:3"
ALICE = {"annotator": "alice", "session": "S1"}
OTHER_TAB = {"annotator": "alice", "session": "S2"}
BOB = {"annotator": "bob", "session": "S9"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += int(seconds * 1000)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["disk", "s3"])
def labels(request, tmp_path):
    return str(tmp_path) if request.param == "disk" else request.getfixturevalue("s3")


@pytest.fixture
def leases(labels, clock):
    return Leases(labels, lease_s=600, now_ms=clock)


def test_an_item_is_held_by_one_until_it_expires(leases, clock, labels):
    mine = leases.take(ITEM, **ALICE)
    assert (mine.epoch, leases.expires_in_s(mine)) == (1, 600)
    with pytest.raises(StaleLeaseError) as refused:
        leases.take(ITEM, **BOB)
    assert refused.value.holder == "alice"
    clock.pass_s(599.999)
    assert leases.check(ITEM, 1, **ALICE) == mine
    clock.pass_s(0.001)
    with pytest.raises(StaleLeaseError) as expired:
        leases.check(ITEM, 1, **ALICE)
    assert expired.value.holder is None
    assert leases.take(ITEM, **BOB).epoch == 2
    with pytest.raises(StaleLeaseError) as taken:
        leases.renew(ITEM, 1, **ALICE)
    assert taken.value.holder == "bob"
    assert [name for name, _ in storage.list_files(f"{labels}/leases")] == [
        "episode-3/00000001.json",
        "episode-3/00000002.json",
    ]


def test_renewing_keeps_the_epoch(leases, clock):
    leases.take(ITEM, **ALICE)
    clock.pass_s(500)
    assert leases.renew(ITEM, 1, **ALICE).epoch == 1
    clock.pass_s(500)
    leases.check(ITEM, 1, **ALICE)


def test_a_released_item_is_free(leases):
    leases.take(ITEM, **ALICE)
    with pytest.raises(StaleLeaseError):
        leases.release(ITEM, 1, **BOB)
    leases.release(ITEM, 1, **ALICE)
    with pytest.raises(StaleLeaseError):
        leases.check(ITEM, 1, **ALICE)
    assert leases.take(ITEM, **BOB).epoch == 2


def test_ones_own_other_page_takes_over(leases):
    leases.take(ITEM, **ALICE)
    assert leases.take(ITEM, **OTHER_TAB).epoch == 2
    with pytest.raises(StaleLeaseError):
        leases.check(ITEM, 1, **ALICE)


@pytest.mark.parametrize(
    ("epoch", "who"), [(0, ALICE), (2, ALICE), (1, BOB), (1, OTHER_TAB), (1, {"annotator": "bob", "session": "S1"})]
)
def test_a_lease_is_of_one_epoch_person_and_page(leases, epoch, who):
    leases.take(ITEM, **ALICE)
    with pytest.raises(StaleLeaseError):
        leases.check(ITEM, epoch, **who)


def test_a_renewal_that_comes_too_late_does_not_take_the_item_back(leases, clock, monkeypatch):
    """Between the check and the writing of a renewal the lease ends, and somebody else takes the item."""
    leases.take(ITEM, **ALICE)
    write = leases._write

    def slow(lease) -> None:
        clock.pass_s(601)
        leases.take(ITEM, **BOB)
        write(lease)

    monkeypatch.setattr(leases, "_write", slow)
    with pytest.raises(StaleLeaseError):
        leases.renew(ITEM, 1, **ALICE)
    assert leases.current(ITEM).annotator == "bob"


def test_a_list_reads_an_object_again_only_when_it_may_have_changed(leases, clock, labels, monkeypatch):
    other = Leases(labels, lease_s=600, now_ms=clock)
    reads = []
    read = Leases._read
    monkeypatch.setattr(Leases, "_read", lambda self, item, name: reads.append(item) or read(self, item, name))

    def seen(item):
        leases._list_again_at = 0.0
        return leases.is_running(leases.seen(item))

    other.take("episode:1", **ALICE)
    other.take("episode:2", **BOB)
    for _ in range(3):
        assert seen("episode:1")
        assert seen("episode:2")
    assert reads == ["episode:1", "episode:2"]
    clock.pass_s(500)
    other.renew("episode:2", 1, **BOB)
    other.release("episode:1", 1, **ALICE)
    reads.clear()
    assert not seen("episode:1")
    assert reads == ["episode:1"]
    clock.pass_s(500)
    for _ in range(3):
        assert seen("episode:2")
        assert not seen("episode:1")
    assert reads == ["episode:1", "episode:2"]
    other.take("episode:1", **BOB)
    assert seen("episode:1")
    clock.pass_s(601)
    reads.clear()
    for _ in range(3):
        assert not seen("episode:1")
    assert reads == ["episode:1"]


def test_what_one_person_holds_is_known(leases, clock):
    leases.take("episode:1", **ALICE)
    leases.take("episode:2", **ALICE)
    leases.take("episode:3", **BOB)
    leases.take("episode:2", **OTHER_TAB)
    assert leases.held("alice") == ["episode:1", "episode:2"]
    leases.release("episode:1", 1, **ALICE)
    assert leases.held("alice") == ["episode:2"]
    clock.pass_s(600)
    assert (leases.held("alice"), leases.held("bob"), leases.held("carol")) == ([], [], [])


def test_items_dont_share_leases(leases):
    leases.take("episode:1", **ALICE)
    leases.take("episode:11", **BOB)
    leases.take("pair:1", **BOB)
    assert leases.seen("episode:1").annotator == "alice"
    assert leases.seen("episode:2") is None


def test_a_lease_that_is_none_is_named(leases, labels):
    storage.write_bytes(f"{labels}/leases/episode-3/00000001.json", b'{"x": 1}')
    with pytest.raises(DataError, match=r"episode-3/00000001\.json"):
        leases.current(ITEM)


def test_of_two_servers_in_threads_one_grants_an_item(labels):
    servers = [Leases(labels, lease_s=600) for _ in range(2)]
    barrier = threading.Barrier(2)

    def take_all(number: int) -> set[str]:
        won = set()
        for item in (f"episode:{index}" for index in range(6)):
            barrier.wait()
            try:
                servers[number].take(item, annotator=f"person{number}", session=f"S{number}")
                won.add(item)
            except StaleLeaseError:
                pass
        return won

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(take_all, range(2))
    assert not one & two
    assert len(one | two) == 6


def take_all_items(labels, number, gate, results):
    leases = Leases(labels, lease_s=600)
    gate.wait()
    won = []
    for item in range(8):
        try:
            leases.take(f"episode:{item}", annotator=f"person{number}", session=f"S{number}")
            won.append(item)
        except StaleLeaseError:
            pass
    results.put(won)


def test_of_two_servers_in_processes_one_grants_an_item(labels):
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(2), context.Queue()
    racers = [context.Process(target=take_all_items, args=(labels, number, gate, results)) for number in range(2)]
    for racer in racers:
        racer.start()
    won = results.get(timeout=200) + results.get(timeout=200)
    for racer in racers:
        racer.join(timeout=200)
    assert sorted(won) == list(range(8))
