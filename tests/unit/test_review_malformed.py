"""Events and requests that the labelling server can't take, over real HTTP."""

from __future__ import annotations

import json

import pytest
from review_server import Page, arguments, serving, write_tokens

from robolift.annotators.review.events import UNKNOWN

MALFORMED = [
    ("paint", 2, 0, 6, "value"),
    ("paint", True, 0, 6, "value"),
    ("paint", 1.0, 0, 6, "value"),
    ("paint", "Unknown", 0, 6, "value"),
    ("paint", 1, 0, 7, "to"),
    ("paint", 1, 3, 3, "to"),
    ("paint", 1, 0, None, "to"),
    ("paint", 1, -1, 3, "from"),
    ("paint", 1, "0", 3, "from"),
    ("paint", 1, False, 3, "from"),
    ("paint", 1, 6, 7, "from"),
    ("frame_reward", -1, 0, 6, "value"),
    ("frame_reward", UNKNOWN, 0, 6, "value"),
    ("frame_reward", 1, 0, 99, "to"),
    ("outcome", "maybe", 3, None, "value"),
    ("outcome", "success", 6, None, "from"),
    ("outcome", "success", None, None, "from"),
    ("outcome", "success", 3, 4, "to"),
    ("boundary", 1, 3, None, "value"),
    ("boundary", True, 6, None, "from"),
    ("undo", None, None, None, "value"),
    ("undo", "x" * 26, None, None, "value"),
    ("undo", "01ARZ3NDEKTSV4RRFFQ69G5FAV", None, None, "value"),
    ("redo", "01ARZ3NDEKTSV4RRFFQ69G5FAV", None, None, "value"),
    ("undo", "01ARZ3NDEKTSV4RRFFQ69G5FAV", 3, None, "from"),
    ("skip", "", None, None, "value"),
    ("skip", "  ", None, None, "value"),
    ("skip", "x" * 1001, None, None, "value"),
    ("skip", "\ud800", None, None, "value"),
    ("complete", 1, None, None, "value"),
    ("complete", None, None, None, "op"),
    ("reopen", True, None, None, "value"),
    ("prefer", "A", None, None, "op"),
    ("delete", None, None, None, "op"),
    (["paint"], None, None, None, "op"),
]


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    words = arguments(dataset.uri, str(folder / "labels"), "--tokens", write_tokens(folder))
    with serving(*words) as base:
        page = Page(base).open()
        page.take("episode:0")
        yield page
        page.close()


@pytest.mark.parametrize(("op", "value", "start", "stop", "field"), MALFORMED)
def test_a_malformed_event_is_named_and_its_company_not_stored(alone, op, value, start, stop, field):
    good, bad = alone.event("paint", 1, 0, 2), alone.event(op, value, start, stop)
    answer = alone.client.post(
        "/api/events",
        content=json.dumps({"item": "episode:0", "epoch": 1, "events": [good, bad]}),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 422
    assert answer.json()["field"] in (f"events[1].{field}", field)
    assert alone.get("/api/episodes/0/mine").json()["events"] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ulid", "short"),
        ("ulid", "8" + "0" * 25),
        ("ulid", None),
        ("seq", 0),
        ("seq", -1),
        ("seq", "1"),
        ("seq", 1 << 60),
        ("client_ms", 1.5),
        ("item", "episode:1"),
        ("note", "x"),
        ("start", 0),
    ],
)
def test_a_wrong_field_of_any_event_is_named(alone, field, value):
    answer = alone.send("episode:0", 1, {**alone.event("paint", 1, 0, 2), field: value})
    assert answer.status_code == 422
    assert answer.json()["field"] == f"events[0].{field}"


@pytest.mark.parametrize(
    "body",
    [
        {"mode": "\ud800"},
        {"mode": "episode", "after": 1, "\ud800": 1},
        {"item": "\ud800", "epoch": 1, "events": [{}]},
        {"item": "episode:0", "epoch": 1, "events": [{"\ud800": 1}]},
        {"item": "episode:0", "epoch": 1, "events": [{"op": "\ud800"}]},
        {"item": "episode:0", "epoch": 1, "events": [{"op": "paint", "ulid": "\ud800"}]},
        {"item": "episode:0", "epoch": 1, "events": [{"item": "\ud800"}]},
        {"item": "\ud800", "action": "take"},
    ],
)
def test_half_a_character_is_the_senders_error(alone, body):
    path = "/api/next" if "mode" in body else "/api/lease" if "action" in body else "/api/events"
    answer = alone.client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code in (404, 422)
    assert answer.json()["detail"]
