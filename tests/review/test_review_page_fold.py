"""The page folds events as the server does: random histories through both."""

from __future__ import annotations

import random

from robolift.annotators.review.events import new_ulid, parse
from robolift.annotators.review.fold import EMPTY, UNKNOWABLE, fold_item

LENGTH = 12
NAMES = {EMPTY: None, UNKNOWABLE: "unknown"}

FOLD = """
(histories) => (window.running = (async () => {
  const { fold } = await import("/static/labels.js");
  return histories.map((events) => {
    const { tri, frames, outcome, boundaries, complete, skipped } = fold(events, 12);
    return { tri, frames, outcome, boundaries, complete, skipped };
  });
})())
"""


def random_history(draw: random.Random) -> list[dict]:
    events: list[dict] = []
    for seq in range(1, draw.randint(2, 30)):
        op = draw.choice(
            ["paint"] * 4
            + ["frame_reward", "outcome", "boundary", "undo", "undo", "redo", "complete", "reopen", "skip"]
        )
        start = draw.randrange(LENGTH)
        marks = [event["ulid"] for event in events if event["op"] not in ("undo", "redo")]
        if op in ("undo", "redo") and not marks:
            continue
        values = {
            "paint": [-1, 0, 1, "unknown", None],
            "frame_reward": [0, 1, None],
            "outcome": ["success", "failure", None],
            "boundary": [True, False],
            "undo": marks,
            "redo": marks,
            "skip": ["camera blocked"],
        }
        events.append(
            {
                "ulid": new_ulid(),
                "annotator": "anna",
                "session": "0" * 26,
                "seq": seq,
                "item": "episode:0",
                "lease": 1,
                "op": op,
                "from": start if op in ("paint", "frame_reward", "outcome", "boundary") else None,
                "to": draw.randint(start + 1, LENGTH) if op in ("paint", "frame_reward") else None,
                "value": draw.choice(values.get(op, [None])),
            }
        )
    return events


def by_server(history: list[dict]) -> dict:
    state = fold_item([parse(event, length=LENGTH) for event in history], LENGTH)
    return {
        "tri": [NAMES.get(value, value) for value in state.tri.tolist()],
        "frames": [NAMES.get(value, value) for value in state.frames.tolist()],
        "outcome": None if state.outcome is None else {"value": state.outcome[0], "frame": state.outcome[1]},
        "boundaries": list(state.boundaries),
        "complete": state.complete,
        "skipped": state.skipped,
    }


def test_page_and_server_fold_alike(visit):
    page = visit("person0", "episode:24")
    draw = random.Random(3)
    histories = [random_history(draw) for _ in range(300)]
    folded = page.page.evaluate(FOLD, histories)
    assert folded == [by_server(history) for history in histories]
    assert sum(state["complete"] for state in folded) > 20
    assert sum(bool(state["boundaries"]) for state in folded) > 20
