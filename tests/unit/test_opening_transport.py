"""The one door to either transport."""

import pytest
from openai_server import MODEL, OpenAIServer

from robolift.annotators.messages import Question
from robolift.annotators.transports.opening import open_transport
from robolift.errors import UsageError

WORDS = Question(parts=("How far?",), max_tokens=20)


@pytest.fixture
def server():
    with OpenAIServer() as server:
        yield server


def test_one_door(server):
    opened = open_transport(transport="openai", model=MODEL, endpoint=server.url, workers=5, timeout_s=60)
    assert opened.workers == 5
    assert opened.ask([WORDS])[0].text == "[]"
    opened.close()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": ""}, "no model is named"),
        ({"endpoint": ""}, "no endpoint to ask"),
        ({"endpoint": "vllm:8000/v1"}, "endpoint vllm:8000/v1: expected an address such as http://vllm:8000/v1"),
        ({"endpoint": "http://"}, "expected an address such as"),
        ({"transport": "grpc"}, "transport 'grpc'; there are: openai, hf"),
    ],
)
def test_what_no_transport_can_be_opened_from(changed, message):
    with pytest.raises(UsageError, match=message):
        open_transport(**{"transport": "openai", "model": MODEL, "endpoint": "http://127.0.0.1:9/v1", **changed})
