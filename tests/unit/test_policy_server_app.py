"""The server's talk with clients: openpi's own, and ones that mean no good."""

from __future__ import annotations

import socket
import struct
import threading
import time

import numpy as np
import pytest
import robot_client
from policy_server import MIB, Echo, serving
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect

from robolift.policy.server import app, wire

pytestmark = pytest.mark.filterwarnings(robot_client.QUIET)
STATE = {"state": np.array([1, 2], np.float32)}


@pytest.fixture
def told():
    """Return what the server logs, whatever form logs have in this process."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def running():
    with serving(Echo()) as found:
        yield found


@pytest.fixture
def client(running):
    found = robot_client.connect(running.address)
    yield found
    found._ws.close()


def raw(running, **options):
    return connect(running.address, compression=None, legacy=True, **options)


def test_openpis_client_gets_metadata_and_then_answers_with_their_timing(client, running):
    assert client.get_server_metadata() == {"cameras": [], "action_dim": 2}
    first, second = client.infer(STATE), client.infer({"state": np.array([3.0, 4.0])})
    assert first["actions"].tolist() == [[2, 4]]
    assert second["actions"].tolist() == [[6, 8]]
    assert list(first["server_timing"]) == ["infer_ms"]
    assert list(second["server_timing"]) == ["infer_ms", "prev_total_ms"]
    assert second["server_timing"]["prev_total_ms"] >= first["server_timing"]["infer_ms"] > 0
    found = running.await_stats(answers=2, clients=1, refusals=0, failures=0)
    assert 0 < found["infer_ms"]["p50"] <= found["answer_ms"]["p95"]


def test_openpis_broker_executes_a_chunk_action_by_action(running):
    robot_client.importable()
    from openpi_client.action_chunk_broker import ActionChunkBroker

    class Counting(Echo):
        def infer(self, observation):
            return {"actions": np.arange(3, dtype=np.float32)[:, None] + observation["state"][0]}

    with serving(Counting()) as server:
        client = robot_client.connect(server.address)
        broker = ActionChunkBroker(client, action_horizon=2)
        done = [broker.infer({"state": np.array([10.0 * turn])})["actions"].tolist() for turn in range(5)]
        assert done == [[0], [1], [20], [21], [40]]
        client._ws.close()


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"\xc1garbage", "unreadable message"),
        (b"", "unreadable message: Unpack failed: incomplete input"),
        (wire.pack(STATE)[:-1], "unreadable message: Unpack failed: incomplete input"),
        ("text", "a text message"),
        (b"\x93\1\2\3", "the message is a list"),
        (b"\xc0", "the message is a NoneType"),
        (wire.pack({"a": STATE["state"]}).replace(b"<f4", b"|O4"), "unreadable message: '|O4' is no type of plain"),
    ],
)
def test_a_message_that_is_no_observation_is_answered_with_text_and_the_next_one_as_ever(
    client, running, message, problem
):
    client._ws.send(message)
    said = client._ws.recv()
    assert isinstance(said, str)
    assert said.startswith(problem)
    assert client.infer(STATE)["actions"].tolist() == [[2, 4]]
    running.await_stats(answers=1, refusals=1, failures=0)


def test_openpis_client_raises_what_was_refused_and_what_failed(client, running, told):
    for bad, said in (
        ({"state": [[1], [2, 3]]}, "internal error.*ValueError"),
        ({"fail": 1}, "internal error, the server's log"),
    ):
        with pytest.raises(RuntimeError, match=f"Error in inference server:\n{said}") as refused:
            client.infer(bad)
        assert "secret" not in str(refused.value)
    assert client.infer(STATE)["actions"].tolist() == [[2, 4]]
    running.await_stats(answers=1, failures=2)
    failures = [entry for entry in told if entry["event"] == "internal error: please report this"]
    assert [type(entry["exc_info"]) for entry in failures] == [ValueError, ZeroDivisionError]


def test_a_frame_that_is_too_long_ends_its_connection_alone_and_says_why(client, running):
    with pytest.raises(ConnectionClosedError, match=r"1009 .message too big.*frame"):
        robot_client.connect(running.address).infer({"state": np.zeros(MIB)})
    assert client.infer(STATE)["actions"].tolist() == [[2, 4]]
    running.await_stats(answers=1, refusals=1, clients=1)


def test_a_client_that_sends_nothing_but_garbage_does_not_fill_the_log(running, told):
    client = raw(running)
    client.recv()
    for _ in range(30):
        client.send(b"\xc1")
        client.recv()
    client.close()
    running.await_stats(clients=0, refusals=30)
    refused = [entry["event"] for entry in told if "unreadable message" in str(entry)]
    assert len(refused) == app.LOGGED_PROBLEMS
    assert [entry["refused"] for entry in told if entry["event"] == "client gone"] == [30]


def test_what_fails_again_and_again_does_not_fill_the_log(client, running, told):
    for _ in range(app.LOGGED_PROBLEMS + 5):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            client.infer({"fail": 1})
    client._ws.close()
    running.await_stats(clients=0, failures=app.LOGGED_PROBLEMS + 5)
    assert len([entry for entry in told if "exc_info" in entry]) == app.LOGGED_PROBLEMS
    assert [entry["failed"] for entry in told if entry["event"] == "client gone"] == [app.LOGGED_PROBLEMS + 5]


def test_one_client_too_many_is_told_so_until_another_goes():
    with serving(Echo(), max_clients=2) as running:
        first, second = raw(running), raw(running)
        running.await_stats(clients=2)
        with pytest.raises(InvalidStatus, match="HTTP 503") as refused:
            raw(running)
        assert refused.value.response.body == b"2 clients are connected, and no more may be\n"
        assert running.get("/healthz").status_code == running.get("/livez").status_code == 200
        first.close()
        running.await_stats(clients=1)
        robot_client.connect(running.address)._ws.close()
        second.close()


def test_clients_that_die_while_their_messages_wait_do_not_make_room_for_more_messages():
    served = Echo()
    with serving(served, max_clients=2) as running:
        deadline = time.monotonic() + 20
        for count in (1, 2):
            client = raw(running)
            client.recv()
            client.send(wire.pack({**STATE, "wait": True}))
            while len(running.server._answering) < count:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.close()
        with pytest.raises(InvalidStatus, match="HTTP 503"):
            raw(running)
        served.go.set()
        running.await_stats(clients=0)
        robot_client.connect(running.address)._ws.close()


def test_of_a_client_that_sends_ahead_one_message_waits_and_no_more_is_read():
    served = Echo()
    message = wire.pack({**STATE, "wait": True, "image": np.zeros(MIB - 300, np.uint8)})
    with serving(served) as running, raw(running) as client:
        client.recv()
        ahead = threading.Thread(target=lambda: [client.send(message) for _ in range(12)])
        ahead.start()
        assert served.entered.wait(20)
        (connection,) = running.server._talking
        deadline = time.monotonic() + 20
        while not connection.recv_messages.paused:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(connection.recv_messages.frames) == 1
        served.go.set()
        assert [type(client.recv()) for _ in range(12)] == [bytes] * 12
        ahead.join(20)


def test_a_policy_that_hangs_is_not_alive_but_the_server_still_talks():
    served = Echo()
    with serving(served, hung_after_s=0.05) as running, raw(running) as client:
        client.recv()
        client.send(wire.pack({**STATE, "wait": True}))
        assert served.entered.wait(20)
        while (answer := running.get("/livez")).status_code == 200:
            time.sleep(0.02)
        assert (answer.status_code, answer.text) == (503, "an answer takes longer than 0.05 s: the policy hangs\n")
        assert running.get("/healthz").status_code == 200
        served.go.set()
        client.recv()
        assert running.get("/livez").status_code == 200


def test_the_longest_frame_that_is_allowed_is_answered(client):
    answer = client.infer({**STATE, "image": np.zeros(MIB - 200, np.uint8)})
    assert answer["actions"].tolist() == [[2, 4]]


def test_clients_that_die_at_any_point_leave_the_others_alone(client, running):
    before = raw(running)
    linger = struct.pack("ii", 1, 0)  # close with a reset, as a killed process behind a full buffer does
    before.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    before.socket.close()
    waiting = raw(running)
    waiting.recv()
    waiting.send(wire.pack({**STATE, "wait": True}))
    assert running.server._served.entered.wait(20)
    waiting.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    waiting.socket.close()
    half = socket.create_connection(("127.0.0.1", running.port))
    half.sendall(b"GET / HTT")
    half.close()
    running.server._served.go.set()
    assert client.infer(STATE)["actions"].tolist() == [[2, 4]]
    running.await_stats(clients=1)


def test_while_one_client_waits_for_the_policy_the_server_hears_the_others(running):
    served, answers = running.server._served, {}

    def ask(name, **more):
        client = robot_client.connect(running.address)
        answers[name] = client.infer({"state": np.array([len(name)]), **more})["actions"].tolist()
        client._ws.close()

    slow = threading.Thread(target=ask, args=("slow",), kwargs={"wait": True})
    slow.start()
    assert served.entered.wait(20)
    others = [threading.Thread(target=ask, args=(name,)) for name in ("a", "ab", "abc")]
    for thread in others:
        thread.start()
    running.await_stats(clients=4, answers=0)
    assert running.get("/healthz").text == "OK\n"
    served.go.set()
    for thread in (slow, *others):
        thread.join(20)
    assert answers == {"slow": [[8]], "a": [[2]], "ab": [[4]], "abc": [[6]]}


def test_what_is_asked_over_http(running):
    assert (running.get("/healthz").status_code, running.get("/healthz").text) == (200, "OK\n")
    answer = running.get("/stats?pretty=1")
    assert answer.headers["content-type"] == "application/json"
    nothing = {"p50": None, "p95": None}
    assert answer.json() == {
        "clients": 0,
        "answers": 0,
        "refusals": 0,
        "failures": 0,
        "infer_ms": nothing,
        "answer_ms": nothing,
    }
    assert running.get("/livez").text == "OK\n"
    assert running.get("/").status_code == 426
    with socket.create_connection(("127.0.0.1", running.port)) as stranger:
        stranger.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")  # the begin of TLS
        stranger.recv(1000)
    assert running.get("/healthz").status_code == 200


def test_a_web_page_from_elsewhere_is_not_let_in(running):
    with pytest.raises(InvalidStatus, match="HTTP 403"):
        raw(running, origin="http://evil.example")


def test_told_to_stop_it_sends_the_answer_under_way_and_says_goodbye():
    served = Echo()
    with serving(served) as running:
        idle, busy = raw(running), raw(running)
        idle.recv(), busy.recv()
        busy.send(wire.pack({**STATE, "wait": True}))
        assert served.entered.wait(20)
        running.tell()
        while (answer := running.get("/healthz")).status_code == 200:
            time.sleep(0.02)
        assert (answer.status_code, answer.text) == (503, "stopping\n")
        with pytest.raises(InvalidStatus, match="HTTP 503"):
            raw(running)
        idle.send(wire.pack(STATE))
        with pytest.raises(ConnectionClosedOK, match="1001"):
            idle.recv()
        served.go.set()
        assert wire.unpack(busy.recv())["actions"].tolist() == [[2, 4]]
        with pytest.raises(ConnectionClosedOK, match="1001"):
            busy.recv()
        running.join()


def test_an_answer_that_takes_too_long_does_not_keep_the_server_from_stopping(monkeypatch):
    monkeypatch.setattr(app, "FINISH_S", 0.1)
    served = Echo()
    with serving(served) as running:
        client = raw(running)
        client.recv()
        client.send(wire.pack({**STATE, "wait": True}))
        assert served.entered.wait(20)
        running.tell()
        with pytest.raises(ConnectionClosedOK, match="1001"):
            client.recv()
        running.join()
        served.go.set()
