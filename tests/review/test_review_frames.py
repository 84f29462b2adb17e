"""Frame k shown is frame k labelled: read off the canvases, whatever keys, jumps and scrubs came before."""

from __future__ import annotations

import random

from review_job import CAMERAS, LENGTHS, READ_CODES, code_of

LENGTH = LENGTHS[0]
STEPS = (*["ArrowLeft", "ArrowRight", "Shift+ArrowLeft", "Shift+ArrowRight"] * 4, "Home", "End", " ")

STEP = f"""
(keys) => (window.running = (async () => {{ // held by the window, or the browser may collect the promise
  const read = {READ_CODES};
  const seen = [];
  for (const [count, name] of keys.entries()) {{
    const shiftKey = name.startsWith("Shift+");
    const key = name.replace("Shift+", "");
    document.body.dispatchEvent(new KeyboardEvent("keydown", {{ key, shiftKey, bubbles: true, cancelable: true }}));
    if (count % 3) await new Promise(requestAnimationFrame);
    seen.push([Number(document.querySelector("#frame-number").textContent), read()]);
  }}
  return seen;
}})())
"""
"""Presses keys and reads number and canvases after each: at once, as a wrong frame might stand for a moment only."""

WATCH_PLAYING = f"""
() => (window.running = new Promise((resolve) => {{
  const read = {READ_CODES};
  const seen = [];
  const look = () => {{
    const shown = Number(document.querySelector("#cameras").dataset.frame);
    seen.push({{ shown, codes: read() }});
    if (seen.length < 90) requestAnimationFrame(look);
    else resolve(seen);
  }};
  requestAnimationFrame(look);
}}))
"""


def wrong_codes(shown: int, codes: list[dict[str, int]], episode: int = 0) -> list[dict[str, int]]:
    return [found for camera, found in enumerate(codes) if found != {"frame": shown, "code": code_of(episode, camera)}]


def test_five_hundred_random_steps_never_show_another_frame(visit):
    page = visit("person0", "episode:0")
    draw = random.Random(7)
    box = page.page.locator("#scrubber").bounding_box()
    wrong, moved, steps = [], set(), 0
    for _ in range(50):
        page.page.mouse.click(box["x"] + draw.random() * (box["width"] - 1), box["y"] + 12)
        for said, codes in page.page.evaluate(STEP, [draw.choice(STEPS) for _ in range(10)]):
            assert len(codes) == len(CAMERAS)
            wrong += wrong_codes(said, codes)
            moved.add(said)
            steps += 1
    assert steps == 500
    assert wrong == []
    assert len(moved) > LENGTH // 4


def test_playing_keeps_all_cameras_in_step(visit):
    page = visit("person1", "episode:0")
    page.press(".", " ")
    seen = page.page.evaluate(WATCH_PLAYING)
    assert [entry for entry in seen if wrong_codes(entry["shown"], entry["codes"])] == []
    shown = [entry["shown"] for entry in seen]
    assert shown == sorted(shown)
    assert shown[-1] > shown[0] + 10  # 90 paints at double speed are about 60 frames


def test_a_frame_that_is_not_there_is_waited_for_and_no_label_goes_astray(visit, server):
    page = visit("person2", "episode:14")  # signs in; the chunk is held back before the long episode is opened
    page.forgive("ERR_FAILED")
    answer_again = page.cut_off("**/api/episodes/0/frames/**start=64**")
    page.page.evaluate("location.hash = '#episode:0'")
    page.page.wait_for_selector("#scrubber[aria-valuemax='149']")
    page.go(63).press("ArrowRight", "ArrowRight")
    page.page.wait_for_selector("#waiting:not([hidden])")
    page.reads("#waiting", "Loading frame 65, still showing 63")
    page.reads("#frame-number", "63")
    assert wrong_codes(63, page.codes()) == []
    page.press("3").saved()
    assert server.state("person2", "episode:0").tri.tolist() == [1] * 64 + [3] * (LENGTH - 64)
    answer_again()
    page.shows(65)
    assert wrong_codes(65, page.codes()) == []


def test_pairs_show_the_frames_of_their_clips(visit):
    page = visit("person3", "pair:p1")
    page.page.wait_for_selector("#clip-b[data-frame]")
    page.press(" ", "Home")
    pair = page.page.evaluate("fetch('/api/pairs/p1').then((answer) => answer.json())")
    for place in range(12):
        for side in "ab":
            clip = pair[side]
            frame = clip["start"] + min(place, clip["stop"] - clip["start"] - 1)
            page.page.wait_for_selector(f"#clip-{side}[data-frame='{frame}']")
            codes = page.page.evaluate(READ_CODES.replace("#cameras", f"#clip-{side}"))
            assert wrong_codes(frame, codes, clip["episode"]) == []
        page.press("ArrowRight")
