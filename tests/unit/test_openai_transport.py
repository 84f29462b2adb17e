"""Questions to a real server: what it is sent, how long it is waited for, and what is never told."""

import json
import logging
import threading
import time

import numpy as np
import pytest
from openai_server import GARBLED, MODEL, OpenAIServer

from robolift.annotators.messages import Answer, Picture, Question, TransportError
from robolift.annotators.transports.openai import OpenAITransport
from robolift.annotators.transports.opening import open_transport
from robolift.errors import UsageError

KEY = "sk-never-to-be-seen"
SMALL = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [7, 77, 177]]], np.uint8)
WORDS = Question(parts=("How far?",), max_tokens=20)
TRUE = Question(parts=(Picture(pixels=SMALL), "True or False?"), wants_logprobs=True)


@pytest.fixture
def server():
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def transport(server, monkeypatch):
    """A transport that notes its waits in `transport.waits` instead of waiting."""
    monkeypatch.setenv("ROBOLIFT_VLM_API_KEY", KEY)
    waits = []
    made = OpenAITransport(model=MODEL, endpoint=server.url, workers=2, timeout_s=10, max_tries=4, sleep=waits.append)
    made.waits = waits
    yield made
    made.close()


def played(server):
    return [request.played for request in server.requests]


def test_the_request_is_this_json(server, transport):
    question = Question(
        system="Judge.",
        parts=("First: ", Picture(pixels=SMALL), "How far?"),
        max_tokens=64,
        earlier=(("perhaps", "Answer with a number."),),
    )
    transport.ask([question])
    (request,) = server.requests
    body = json.loads(request.raw)
    url = body["messages"][1]["content"][1]["image_url"].pop("url")
    assert url.startswith("data:image/png;base64,")
    np.testing.assert_array_equal(request.pictures[0], SMALL)
    assert body == {
        "model": "fake-vlm",
        "messages": [
            {"role": "system", "content": "Judge."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "First: "},
                    {"type": "image_url", "image_url": {}},
                    {"type": "text", "text": "How far?"},
                ],
            },
            {"role": "assistant", "content": "perhaps"},
            {"role": "user", "content": [{"type": "text", "text": "Answer with a number."}]},
        ],
        "temperature": 0,
        "seed": 0,
        "max_tokens": 64,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_the_first_token_is_asked_for_alone(server, transport):
    transport.ask([TRUE])
    body = server.requests[0].body
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)


def test_nothing_tells_of_this_machine_or_account(server, transport, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")
    other = OpenAITransport(model=MODEL, endpoint=server.url, workers=1)
    other.ask([WORDS])
    other.close()
    names = set(server.requests[0].headers)
    assert names == {
        *("host", "accept", "accept-encoding", "connection", "user-agent"),
        *("authorization", "content-type", "content-length"),
    }


def test_same_question_same_bytes(server, transport):
    transport.ask([TRUE])
    transport.ask([TRUE])
    assert server.requests[0].raw == server.requests[1].raw


def test_answers_come_in_the_order_of_questions(server, transport):
    server.say = lambda request: request.text
    server.play("slow:0.1", "good")
    questions = [Question(parts=(f"question {number}",)) for number in range(6)]
    assert [answer.text for answer in transport.ask(questions)] == [f"question {number}" for number in range(6)]


def test_an_answer_is_read_whole(server, transport):
    server.say = lambda _: "42 percent"
    assert transport.ask([WORDS]) == [Answer(text="42 percent", input_tokens=2, output_tokens=2, finish_reason="stop")]


def test_candidates_of_the_first_token(server, transport):
    (answer,) = transport.ask([TRUE])  # no goal is to be seen, so the server holds "True" for one in a thousand
    assert answer.text == "False"
    assert answer.logprobs == pytest.approx({"True": np.log(0.001), "False": np.log(0.994), "The": np.log(0.005)})


@pytest.mark.parametrize("entry", ["think", "say:thoughts before</think> \n7", "say:<think>endless"])
def test_thoughts_are_no_answer(server, transport, entry):
    server.say = lambda _: "7"
    server.play(entry)
    assert transport.ask([WORDS])[0].text == ("" if "endless" in entry else "7")


def test_words_that_mean_nothing_are_an_answer_too(server, transport):
    server.play("garbled")
    assert transport.ask([WORDS])[0].text == GARBLED
    assert len(server.requests) == 1


@pytest.mark.parametrize("trouble", ["429", "500", "503", "408", "cut", "half", "html"])
def test_trouble_that_passes_is_waited_out(server, transport, trouble):
    server.play(trouble, trouble, "good")
    assert transport.ask([WORDS])[0].text == "[]"
    assert played(server) == [trouble, trouble, "good"]
    first, second = transport.waits
    assert 0.5 < first <= 1
    assert 1 < second <= 2


def test_a_slow_answer_is_asked_for_again(server, transport):
    impatient = OpenAITransport(
        model=MODEL, endpoint=server.url, workers=1, timeout_s=0.3, max_tries=2, sleep=transport.waits.append
    )
    server.play("slow:20", "good")
    assert impatient.ask([WORDS])[0].text == "[]"
    impatient.close()
    assert played(server) == ["slow:20", "good"]


def test_retry_after_is_kept_to(server, transport):
    server.play("429:7", "503:0.25", "good")
    transport.ask([WORDS])
    assert transport.waits == [7.0, 0.25]


def test_waits_belong_to_the_question(server, transport):
    server.play("500", "500", "good")
    transport.ask([WORDS])
    server.play("500", "500", "good")
    transport.ask([WORDS])
    server.play("500", "500", "good")
    transport.ask([Question(parts=("Another?",))])
    waits = transport.waits
    assert waits[:2] == waits[2:4]
    assert waits[:2] != waits[4:]


def test_it_gives_up_after_all_tries(server, transport):
    server.play("500")
    with pytest.raises(TransportError, match=r"gave no answer in 4 tries, last: 500 scripted 500.*run this again"):
        transport.ask([WORDS])
    assert len(server.requests) == 4
    assert len(transport.waits) == 3


def test_it_does_not_wait_for_hours(server, transport):
    server.play("429:3600")
    with pytest.raises(TransportError, match="come back in 3600 seconds"):
        transport.ask([WORDS])
    assert transport.waits == []


def test_no_server_is_no_answer(transport):
    with OpenAIServer() as gone:
        address = gone.url
    lost = OpenAITransport(model=MODEL, endpoint=address, workers=1, max_tries=2, sleep=transport.waits.append)
    with pytest.raises(TransportError, match=r"in 2 tries, last: no connection: .*Connection refused"):
        lost.ask([WORDS])
    lost.close()


@pytest.mark.parametrize(
    ("entry", "mend"),
    [
        ("400", "make the pictures fewer or smaller"),
        ("401", "valid key into the environment variable ROBOLIFT_VLM_API_KEY"),
        ("403", "access to the model"),
        ("404", "check endpoint .* and model"),
        ("413", "raise the server's limit"),
        ("418", "see the server's log"),
        ("quota", "raise the account's quota"),
    ],
)
def test_a_refusal_is_not_tried_again(server, transport, entry, mend):
    server.play(entry)
    with pytest.raises(UsageError, match=rf"refuses model fake-vlm: .*; .*{mend}"):
        transport.ask([WORDS])
    assert len(server.requests) == 1
    assert transport.waits == []


def test_a_server_without_logprobs_is_told_from_the_protocol(server, transport):
    server.play("nologprobs")
    with pytest.raises(UsageError, match="gives no log-probabilities for fake-vlm; choose another protocol"):
        transport.ask([TRUE])


def test_a_server_that_knows_no_thinking_is_asked_without(server, transport):
    server.play("nothink")
    transport.ask([WORDS])
    transport.ask([WORDS])
    assert ["chat_template_kwargs" in request.body for request in server.requests] == [True, False, False]


def test_heads_need_the_model_itself(server, transport):
    with pytest.raises(UsageError, match="leave endpoint empty to run the model in the step"):
        transport.ask([Question(parts=("x",), wants_heads=True)])
    assert server.requests == []


def test_the_key_is_in_no_log_and_no_error(server, transport, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    server.play("500", "429:1", "401")  # each repeats the key in its message
    with pytest.raises(UsageError) as error:
        transport.ask([WORDS])
    told = capsys.readouterr()
    assert "asked again later" in told.out + told.err
    for text in (str(error.value), repr(error.value.__cause__), told.out, told.err, caplog.text, repr(transport)):
        assert KEY not in text


def test_without_a_key_a_placeholder_goes_out(server, monkeypatch):
    monkeypatch.delenv("ROBOLIFT_VLM_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # meant for others
    plain = OpenAITransport(model=MODEL, endpoint=server.url, workers=1)
    plain.ask([WORDS])
    plain.close()
    assert server.requests[0].headers["authorization"] == "Bearer none"


def test_an_address_with_a_password_is_shown_without(server):
    address = server.url.replace("127.0.0.1", f"me:{KEY}@127.0.0.1")
    asked = OpenAITransport(model=MODEL, endpoint=address, workers=1)
    server.play("404")
    with pytest.raises(UsageError) as error:
        asked.ask([WORDS])
    asked.close()
    assert KEY not in str(error.value)


def test_a_proxy_of_the_environment_sees_nothing(server, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    direct = OpenAITransport(model=MODEL, endpoint=server.url, workers=1, max_tries=1)
    assert direct.ask([WORDS])[0].text == "[]"
    direct.close()


def test_no_more_than_workers_are_under_way(server):
    busy = OpenAITransport(model=MODEL, endpoint=server.url, workers=3)
    server.play("slow:0.1")
    threads = [threading.Thread(target=busy.ask, args=([WORDS] * 4,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    busy.close()
    assert len(server.requests) == 12
    assert server.most_at_once == 3


def test_questions_go_out_at_the_asked_rate(server):
    slow = OpenAITransport(model=MODEL, endpoint=server.url, workers=4, requests_per_minute=1200)
    server.play("500:0", "good")  # tries again count
    start = time.monotonic()
    slow.ask([WORDS] * 4)
    slow.close()
    assert len(server.requests) == 5
    assert server.requests[-1].at_s - start > 0.19  # four gaps of 50 ms


def test_after_a_refusal_the_rest_is_not_asked(server):
    one = OpenAITransport(model=MODEL, endpoint=server.url, workers=1)
    server.play("401")
    with pytest.raises(UsageError):
        one.ask([WORDS] * 20)
    one.close()
    assert len(server.requests) <= 2


def test_closing_ends_the_waits(server):
    waiting = OpenAITransport(model=MODEL, endpoint=server.url, workers=1)
    server.play("429:300")
    failed = []

    def ask():
        try:
            waiting.ask([WORDS])
        except TransportError as error:
            failed.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while not server.requests:
        time.sleep(0.01)
    time.sleep(0.1)
    waiting.close()
    thread.join(5)
    assert "is not asked any more" in failed[0]


def test_one_door(server):
    opened = open_transport(transport="openai", model=MODEL, endpoint=server.url, workers=5, timeout_s=3)
    assert opened.workers == 5
    assert opened.ask([WORDS])[0].text == "[]"
    opened.close()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": ""}, "no model is named"),
        ({"endpoint": ""}, "no endpoint to ask"),
        ({"transport": "grpc"}, "transport 'grpc'; there are: openai, hf"),
    ],
)
def test_what_no_transport_can_be_opened_from(changed, message):
    with pytest.raises(UsageError, match=message):
        open_transport(**{"transport": "openai", "model": MODEL, "endpoint": "http://127.0.0.1:9/v1", **changed})
