"""Questions to a real server: what it is sent, how long it is waited for, and what is never told."""

import json
import threading
import time

import numpy as np
import pytest
from loopback import free_port
from openai_server import GARBLED, MODEL, OpenAIServer

from robolift.annotators.messages import Answer, Picture, Question, TransportError
from robolift.annotators.transports.openai import OpenAITransport
from robolift.errors import UsageError

KEY = "sk-never-to-be-seen"
COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [7, 77, 177]]], np.uint8)
SMALL = COLOURS.repeat(8, 0).repeat(8, 1)  # a colour a block of JPEG
WORDS = Question(parts=("How far?",), max_tokens=20)
TRUE = Question(parts=(Picture(pixels=SMALL), "True or False?"), wants_logprobs=True)


@pytest.fixture
def server():
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def transport(server, monkeypatch):
    """A transport that notes its waits in `transport.waits` instead of waiting."""
    monkeypatch.setenv("ROBOLIFT_VLM_API_KEY", f"{KEY}\n")  # as files of secrets end
    waits = []
    made = OpenAITransport(model=MODEL, endpoint=server.url, workers=2, timeout_s=60, max_tries=4, sleep=waits.append)
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
    assert url.startswith("data:image/jpeg;base64,")
    np.testing.assert_allclose(request.pictures[0].astype(int), SMALL.astype(int), atol=3)
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
    # Kept answers belong to this form of a request: whoever changes it counts its version up.
    assert transport.form == {"request_version": 1}
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_the_first_token_is_asked_for_alone(server, transport):
    transport.ask([TRUE])
    body = server.requests[0].body
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)


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
    nothing = Picture(pixels=np.zeros((16, 16, 3), np.uint8))  # the server holds "True" for one in a thousand
    (answer,) = transport.ask([Question(parts=(nothing, "True or False?"), wants_logprobs=True)])
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
        model=MODEL, endpoint=server.url, workers=1, timeout_s=2.0, max_tries=2, sleep=transport.waits.append
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
    address = f"http://127.0.0.1:{free_port()}/v1"
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


def first_candidate(reply):
    return reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]


@pytest.mark.parametrize(
    "twist",
    [
        lambda reply: first_candidate(reply).update(logprob=None),
        lambda reply: first_candidate(reply).update(token=None),
        lambda reply: first_candidate(reply).pop("token"),
        lambda reply: reply["choices"][0]["message"].update(content=[{"type": "text"}]),
        lambda reply: reply["choices"][0]["message"].update(content=["True"]),
        lambda reply: reply["choices"][0]["message"].update(content=7),
        lambda reply: reply["choices"][0].pop("message"),
        lambda reply: reply.update(choices=[]),
        lambda reply: reply.update(choices=None),
    ],
)
def test_a_malformed_answer_is_asked_for_again(server, transport, twist):
    server.twist = twist
    server.play("twisted", "good")
    assert transport.ask([TRUE])[0].logprobs
    assert played(server) == ["twisted", "good"]
    server.play("twisted")
    with pytest.raises(TransportError, match="in 4 tries, last: what came back is no chat completion: "):
        transport.ask([TRUE])


def test_an_answer_in_parts_is_put_together(server, transport):
    parts = [{"type": "text", "text": "[1, "}, {"type": "refusal", "refusal": "no"}, {"type": "text", "text": "2]"}]
    server.twist = lambda reply: reply["choices"][0]["message"].update(content=parts)
    server.play("twisted")
    assert transport.ask([WORDS])[0].text == "[1, 2]"


@pytest.mark.parametrize(("told", "read"), [("12", 12), (12, 12), ("many", None), (None, None), (-1, None)])
def test_counts_of_tokens_are_numbers_or_not_told(server, transport, told, read):
    server.twist = lambda reply: reply["usage"].update(prompt_tokens=told)
    server.play("twisted")
    assert transport.ask([WORDS])[0].input_tokens == read
    assert len(server.requests) == 1


@pytest.mark.parametrize("question", [WORDS, TRUE])
@pytest.mark.parametrize("entry", ["filter", "filtered"])
def test_what_a_filter_withholds_is_an_answer_without_words(server, transport, question, entry):
    server.play(entry)
    (answer,) = transport.ask([question])
    assert (answer.text, answer.logprobs, answer.finish_reason) == ("", {}, "content_filter")
    assert len(server.requests) == 1


def test_a_server_that_knows_no_thinking_is_asked_without(server, transport):
    server.play("nothink")
    transport.ask([WORDS])
    transport.ask([WORDS])
    assert ["chat_template_kwargs" in request.body for request in server.requests] == [True, False, False]


def test_heads_need_the_model_itself(server, transport):
    with pytest.raises(UsageError, match="leave endpoint empty to run the model in the step"):
        transport.ask([Question(parts=("x",), wants_heads=True)])
    assert server.requests == []


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


def test_after_a_refusal_the_rest_is_not_asked(server):
    one = OpenAITransport(model=MODEL, endpoint=server.url, workers=1)
    server.play("401")
    with pytest.raises(UsageError):
        one.ask([WORDS] * 20)
    one.close()
    assert len(server.requests) <= 2


@pytest.mark.parametrize("entry", ["429:300", "slow:300"])
def test_closing_ends_the_waits(server, entry):
    waiting = OpenAITransport(model=MODEL, endpoint=server.url, workers=1)
    server.play(entry)
    failed = []

    def ask():
        try:
            waiting.ask([WORDS, WORDS])
        except TransportError as error:
            failed.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while not server.requests:
        time.sleep(0.01)
    time.sleep(0.1)
    start = time.monotonic()
    waiting.close()
    thread.join(60)
    assert time.monotonic() - start < 60
    assert "is not asked any more" in failed[0]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("question")]
    with pytest.raises(TransportError, match="is not asked any more"):
        waiting.ask([WORDS])


def test_answers_are_heard_as_they_come_and_before_a_failure(server, transport):
    server.say = lambda request: request.text
    server.play("good", "500", "500", "500", "500")
    heard = {}
    one = OpenAITransport(model=MODEL, endpoint=server.url, workers=1, max_tries=4, sleep=transport.waits.append)
    with pytest.raises(TransportError, match="no answer in 4 tries"):
        one.ask([Question(parts=(f"question {number}",)) for number in range(9)], heard.__setitem__)
    one.close()
    assert {place: answer.text for place, answer in heard.items()} == {0: "question 0"}
    assert len(server.requests) == 5


def test_what_is_under_way_at_a_failure_is_waited_for_and_heard(server):
    two = OpenAITransport(model=MODEL, endpoint=server.url, workers=2, max_tries=1)
    server.play("slow:0.5", "500")
    heard = {}
    with pytest.raises(TransportError, match="no answer in 1 tries, last: 500"):
        two.ask([WORDS] * 8, heard.__setitem__)
    two.close()
    assert [answer.text for answer in heard.values()] == ["[]"]
    assert len(server.requests) <= 3


def test_a_failure_ends_the_waits_of_questions_asked_along(server):
    two = OpenAITransport(model=MODEL, endpoint=server.url, workers=2)
    server.play("429:300", "401")
    start = time.monotonic()
    with pytest.raises(UsageError, match="401"):
        two.ask([WORDS] * 2)
    assert time.monotonic() - start < 60
    two.close()


@pytest.mark.parametrize("statuses", [[200], [404], [403], [405], [500], [503, 429, 404]])
def test_a_server_that_says_anything_of_its_models_is_there(server, transport, statuses):
    server.models = statuses
    transport.probe()
    assert server.probes == len(statuses)
    assert len(transport.waits) == len(statuses) - 1
    assert server.requests == []


def test_a_probe_tells_of_a_wrong_key_and_of_a_server_that_is_not_there(server, transport):
    server.models = [401]
    with pytest.raises(UsageError, match="valid key into the environment variable ROBOLIFT_VLM_API_KEY"):
        transport.probe()
    server.models = [503]
    with pytest.raises(TransportError, match="gave no answer in 4 tries, last: 503"):
        transport.probe()
    transport.close()
    with pytest.raises(TransportError, match="is not asked any more"):
        transport.probe()


def test_a_probe_that_finds_no_connection_is_tried_again(transport):
    port, back = free_port(), []
    address = f"http://127.0.0.1:{port}/v1"

    def sleep(_seconds):
        back.append(OpenAIServer(port=port))
        back[0].__enter__()

    late = OpenAITransport(model=MODEL, endpoint=address, workers=1, max_tries=2, sleep=sleep)
    try:
        late.probe()
    finally:
        late.close()
        back[0].__exit__()
