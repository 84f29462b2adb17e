"""Slips of hands, windows and storage: what was not on the screen is not completed, and nothing is done twice."""

from __future__ import annotations

from robolift.annotators.review.leases import Leases, clock_ms

SCRUB = """
(jpeg) => (window.running = (async () => {
  const { Clip } = await import("/static/frames.js");
  const bytes = Uint8Array.from(atob(jpeg), (letter) => letter.charCodeAt(0));
  const asked = [];
  let [open, most] = [0, 0];
  const frames = (_, camera, start, stop, signal) => {
    asked.push(start);
    most = Math.max(most, (open += 1));
    return new Promise((resolve, reject) => {
      const done = setTimeout(() => { open -= 1; resolve(Array.from({ length: stop - start }, () => bytes)); }, 300);
      signal.addEventListener("abort", () => { clearTimeout(done); open -= 1; reject(signal.reason); });
    });
  };
  const facts = { episode: 0, footage: "episodes/0", cameras: ["top"], length: 5000 };
  const clip = new Clip({ frames }, { ...facts, budget: 8 * 4 * 64 * 128 });
  const passed = [];
  const began = performance.now();
  for (let k = 0; k < 5000; k += 50) {
    clip.load(k).catch((error) => passed.push(error.name));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const from = performance.now();
  await clip.load(4999);
  const waited = performance.now() - from;
  const dragged = from - began;
  for (let k = 4970; k < 5000; k += 1) await clip.load(k);
  const held = Array.from({ length: 5000 }, (_, k) => k).filter((k) => clip.get(k)).length;
  return { asked, most, dragged, waited, names: [...new Set(passed)], held };
})())
"""
"""Drags from the first to the last of 5,000 frames on a server that takes 300 ms, then shows thirty frames."""

FILL_STORAGE = """
() => {
  let text = "x".repeat(2 ** 20);
  for (let count = 0; text; count += 1) {
    try { localStorage.setItem(`filler${count}`, text); } catch { text = text.slice(0, text.length >> 1); }
  }
}
"""


def hold(page, key: str, times: int = 5) -> None:
    """Hold a key until the keyboard has repeated it."""
    for _ in range(times):
        page.page.keyboard.down(key)
        page.page.wait_for_timeout(20)
    page.page.keyboard.up(key)


def test_only_labels_that_were_on_the_screen_are_completed(visit, server):
    one = visit("person5", "episode:2")
    one.forgive("status of 409")
    one.go(6).press("b", "End")
    one.shows(11)
    one.press("3").saved()
    other = visit("person5", "episode:2")  # another window of the same person
    other.forgive("status of 409")
    other.press("1").saved()
    other.page.goto("about:blank")
    one.press("s", "Enter")
    one.page.wait_for_selector("#news[open]")
    one.tells("#news", "1 mark on episode 2 came from another window")
    one.tells("#news", "not complete")
    one.saved()
    state = server.state("person5", "episode:2")
    assert (state.complete, state.outcome) == (False, ("success", 11))
    one.press("Enter")  # looked at
    one.page.wait_for_selector("#news", state="hidden")
    assert not server.state("person5", "episode:2").complete
    one.press("Enter").saved()
    one.page.wait_for_selector("#notice:not([hidden])")
    state = server.state("person5", "episode:2")
    assert (state.complete, state.tri.tolist()) == (True, [-1] * 12)


def test_a_held_key_acts_once_unless_it_moves(visit, server):
    page = visit("person6", "pair:p2")
    page.page.wait_for_selector("#clip-b[data-frame]")
    hold(page, "a")
    page.saved()
    assert [event.op for event in server.events("person6", "pair:p2")] == ["prefer"]
    page.press("a")  # a second press completes
    page.left("pair:p2")
    assert server.state("person6", "pair:p2").complete
    page = visit("person6", "episode:3")
    hold(page, "ArrowRight", 6)
    page.shows(6)
    hold(page, "b")
    hold(page, "s")
    page.press("End")
    page.shows(11)
    page.press("3")
    hold(page, "Enter")
    page.saved()
    page.page.wait_for_selector("#notice:not([hidden])")
    assert page.page.url.endswith("#episode:3")  # it did not go on to the next
    said = [event.op for event in server.events("person6", "episode:3")]
    assert said == ["boundary", "outcome", "paint", "complete"]


def test_single_frames_as_the_job_asks_and_none_is_passed_while_it_loads(visit, serve):
    server = serve("frames")
    page = visit("person0", "episode:1", at=server)
    page.forgive("ERR_FAILED")
    for frame, key in enumerate("001101"):
        page.press(key)
        page.shows(frame + 1)
    page.press("[", "End")
    page.shows(11)
    page.press("1", "Enter").saved()
    page.page.wait_for_selector("#notice:not([hidden])")
    state = server.state("person0", "episode:1")
    assert state.frames.tolist() == [0, 0, 1, 1, 0, 1] + [1] * 6
    assert (state.tri == 3).all()
    answer_again = page.cut_off("**/api/episodes/0/frames/**start=64**")
    page.page.evaluate("location.hash = '#episode:0'")
    page.page.wait_for_selector("#scrubber[aria-valuemax='149']")
    page.go(62).press("1").shows(63)
    page.press("1", "0", "0")  # the last two come while frame 64 is not there
    page.hears("Frame 64 is still loading: nothing was labelled.")  # then that it is tried again
    answer_again()
    page.shows(64)
    page.press("0").shows(65)
    page.saved()
    assert server.state("person0", "episode:0").frames.tolist()[61:66] == [3, 1, 1, 0, 3]


def test_full_storage_loses_no_mark_and_is_told(visit, server):
    page = visit("person7", "episode:4")
    page.page.evaluate(FILL_STORAGE)
    page.go(8)  # frame 8 opens another chunk, and none can be asked for from here on
    page.context.set_offline(True)
    page.forgive("ERR_")
    page.go(4).press("3").go(8).press("1")
    page.page.wait_for_selector("#saved[data-state='offline']")
    page.reads("#saved", "offline — 2 unsaved, not kept through a reload")
    page.context.set_offline(False)
    page.saved()
    page.reads("#saved", "saved")
    assert server.state("person7", "episode:4").tri.tolist() == [1] * 5 + [-1] * 4 + [3] * 3
    page.page.evaluate("localStorage.clear()")


def test_scrubbing_asks_for_what_is_wanted_last_and_holds_few_bitmaps(visit):
    page = visit("person7", "episode:6")
    jpeg = page.page.evaluate(
        "fetch('/api/episodes/6/frames/observation.images.top?start=0&stop=1').then((answer) => answer.arrayBuffer())"
        ".then((pack) => btoa(String.fromCharCode(...new Uint8Array(pack).slice(16))))"
    )
    found = page.page.evaluate(SCRUB, jpeg)
    assert found["most"] <= 2
    # Of 79 chunks: two at a time, and 120 ms later the next; however long this machine takes to drag.
    assert len(found["asked"]) < 8 + 2 * found["dragged"] / 120
    assert found["waited"] < 6000  # 79 chunks, two at a time, would take twice as long
    assert found["names"] == ["AbortError"]
    assert found["held"] == 8


def test_escape_answers_no_question_about_a_lost_lease(visit, server):
    page = visit("person8", "episode:7")
    page.forgive("status of 409")
    later = Leases(server.labels, lease_s=600, now_ms=lambda: clock_ms() + 10**7)
    taken = later.take("episode:7", annotator="person9", session="0" * 26)
    page.go(3).press("3")
    page.page.wait_for_selector("#lost[open]")
    page.press("Escape")
    page.page.wait_for_timeout(300)
    assert page.page.is_visible("#lost")
    assert page.page.url.endswith("#episode:7")
    later.release("episode:7", taken.epoch, annotator="person9", session="0" * 26)
    page.page.click("#lost button[value='again']")
    page.saved()
    assert server.state("person8", "episode:7").tri.tolist() == [1] * 4 + [3] * 8
