"""Clips compared in a browser: what a person sees as A and B, and what is stored about the pair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from coded_clips import CLIPS, NUM_FRAMES, PAIRS, code_of, publish_clips, publish_pairs
from review_job import READ_CODES, Server, Watched

READ_PAIR = READ_CODES.replace("#cameras canvas", "#pair canvas")


@pytest.fixture(scope="module")
def clips_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("clips")
    clips = publish_clips(folder)
    pairs = publish_pairs(folder, clips)
    served = Server(folder, ["--clips", clips.uri, "--pairs", pairs.uri, "--overlap", "1"], ("ann", "ben")).start()
    yield served
    served.kill()


@pytest.fixture
def page(browser: Any, clips_server: Server, request: pytest.FixtureRequest) -> Iterator[Watched]:
    annotator, item = request.param
    for pair_id, *_ in PAIRS:
        clips_server.free(f"pair:{pair_id}", keep=())
    opened = Watched(browser, clips_server, annotator, reduced_motion="reduce").open(item)
    yield opened
    opened.close()


def shown(page: Watched, frame: int) -> dict[str, int]:
    """Return the numbers of the clips that stand as A and B, once both show a frame."""
    for side in "ab":
        page.page.wait_for_selector(f"#clip-{side}[data-frame='{frame}']")
    found = page.page.evaluate(READ_PAIR)
    assert [read["frame"] for read in found] == [frame, frame]
    codes = {code_of(number): number for number in range(len(CLIPS))}
    return {side: codes[read["code"]] for side, read in zip("AB", found, strict=True)}


@pytest.mark.parametrize("page", [("ann", ""), ("ben", "")], ids=["ann", "ben"], indirect=True)
def test_three_pairs_by_keyboard_are_about_the_clips_that_were_seen(page, clips_server):
    pairs = {f"pair:{pair_id}": dict(zip("AB", sides, strict=True)) for pair_id, *sides in PAIRS}
    name = page.page.inner_text("#subtitle").rpartition(" · ")[2]
    for key in "abt":
        page.page.wait_for_selector("#clip-b[data-frame='0']")
        item = page.page.evaluate("decodeURIComponent(location.hash.slice(1))")
        seen = shown(page, 0)
        page.press("ArrowRight", "ArrowRight")
        assert shown(page, 2) == seen
        assert set(seen.values()) == set(pairs[item].values())
        page.press(key, "Enter")
        page.left(item)
        page.saved()
        state = clips_server.state(name, item, [])
        assert state.complete
        if key == "t":
            assert state.preference == "tie"
        else:
            assert pairs[item][state.preference] == seen[key.upper()]


@pytest.mark.parametrize("page", [("ben", "pair:p0")], ids=["ben"], indirect=True)
def test_the_page_tells_nothing_of_a_clip_and_shows_it_whole(page):
    page.page.wait_for_selector("#clip-b[data-frame='0']")
    text = page.page.content()
    for secret in (*CLIPS, "epic", "ego_3", "annotated", "narration"):
        assert secret not in text
    assert page.page.is_hidden("#mode-button")
    page.press("End")
    shown(page, NUM_FRAMES - 1)
    page.press("Space")  # from the last frame it goes on with the first
    page.page.wait_for_selector(f"#clip-a[data-frame]:not([data-frame='{NUM_FRAMES - 1}'])")
