"""What a person does on the labelling page, in a real browser against a real server, and what is stored of it."""

from __future__ import annotations

import time

from review_job import LENGTHS

from robolift.annotators.review.leases import Leases, clock_ms


def label_twelve(page) -> None:
    """Label an episode of twelve frames with the keyboard alone, but not complete it."""
    page.go(4).press("3")  # 0-4 progressing
    page.go(6).press("b", "2")  # the second stage starts at 6; 5-6 stalled
    page.go(8).press("1")  # 7-8 regressing
    page.press("End")
    page.shows(11)
    page.press("0", "s")  # 9-11 unknown, success at 11


def test_an_episode_by_keyboard_alone(visit, server):
    page = visit("person0", "episode:1")
    label_twelve(page)
    page.press("Enter").saved()
    page.page.wait_for_selector("#notice:not([hidden])")
    said = [(e.op, e.start, e.stop, e.value) for e in server.events("person0", "episode:1")]
    assert said == [
        ("paint", 0, 5, 1),
        ("boundary", 6, None, True),
        ("paint", 5, 7, 0),
        ("paint", 7, 9, -1),
        ("paint", 9, 12, "unknown"),
        ("outcome", 11, None, "success"),
        ("complete", None, None, None),
    ]
    state = server.state("person0", "episode:1")
    assert state.tri.tolist() == [1] * 5 + [0] * 2 + [-1] * 2 + [2] * 3
    assert (state.outcome, state.boundaries, state.complete) == (("success", 11), (6,), True)
    page.press("Enter")  # on to the next
    page.left("episode:1")


def test_completing_is_refused_until_all_is_said_and_says_where(visit, server):
    page = visit("person1", "episode:2")
    page.press("Enter")
    page.reads("#live", "Not complete yet: 12 frames are not yet labelled or unknown; the first is frame 0.")
    page.go(4).press("3")
    page.go(9).press("[", "End")
    page.shows(11)
    page.press("3", "Enter")
    page.shows(5)
    page.tells("#live", "4 frames are not yet labelled or unknown; the first is frame 5")
    page.go(8).press("2", "Enter")
    page.tells("#live", "the outcome is missing")
    page.press("s", "Enter")
    page.tells("#live", "2 task stages need 1 boundaries, there are 0")
    page.press("b", "Enter").saved()
    page.page.wait_for_selector("#notice:not([hidden])")
    assert server.state("person1", "episode:2").complete


def test_marks_bound_a_segment_and_a_key_inside_one_relabels_it(visit, server):
    page = visit("person2", "episode:3")
    page.go(3).press("[").go(7).press("]", "Home")
    page.shows(0)
    page.reads("#pending-text", "Next label: frames 3–7")
    page.press("1")
    page.go(5).press("2").saved()  # no marks any more: the segment that holds frame 5
    assert server.state("person2", "episode:3").tri.tolist() == [3] * 3 + [0] * 5 + [3] * 4
    page.go(10).press("[", "Escape").press("3").saved()
    assert server.state("person2", "episode:3").tri.tolist() == [3] * 3 + [0] * 5 + [1] * 3 + [3]


def test_undo_and_redo_work_across_a_reload(visit, server):
    page = visit("person2", "episode:4")
    page.go(4).press("3").go(8).press("1", "f", "u", "u").saved()
    assert server.state("person2", "episode:4").tri.tolist() == [1] * 5 + [3] * 7
    page.page.reload()
    page.page.wait_for_selector("#cameras[data-frame]")
    page.press("Shift+U").saved()
    assert server.state("person2", "episode:4").tri.tolist() == [1] * 5 + [-1] * 4 + [3] * 3
    page.press("u", "u", "u").saved()
    page.reads("#live", "Nothing to undo.")
    assert server.state("person2", "episode:4").tri.tolist() == [3] * 12


def test_the_mouse_does_what_the_keys_do(visit, server):
    page = visit("person3", "episode:5")
    box = page.page.locator("#scrubber").bounding_box()
    page.page.mouse.click(box["x"] + box["width"] * 7.5 / 12, box["y"] + 40)
    page.shows(7)
    page.page.click('[data-command="paint:1"]')
    page.page.click('[data-command="outcome:failure"]')
    page.press(" ")  # the space bar plays; it does not press the button again
    page.shows(11)
    page.saved()
    state = server.state("person3", "episode:5")
    assert state.tri.tolist() == [1] * 8 + [3] * 4
    assert state.outcome == ("failure", 7)


def test_nothing_is_lost_while_the_server_is_away(visit, serve):
    server = serve("segments,outcome")
    page = visit("person0", "episode:1", at=server)
    page.forgive("ERR_|status of 403|status of 409")
    page.go(3).press("3").saved()
    server.kill()
    page.go(6).press("1", "End")
    page.shows(11)
    page.press("2")
    page.page.wait_for_selector("#saved[data-state='offline']")
    page.reads("#saved", "offline — 2 unsaved")
    page.press("s", "Enter")
    assert page.page.is_hidden(".compare")
    server.start()
    page.page.wait_for_selector(".compare")  # comes by itself once the server has it
    assert server.state("person0", "episode:1").complete
    assert server.state("person0", "episode:1").tri.tolist() == [1] * 4 + [-1] * 3 + [0] * 5
    answer_again = page.cut_off("**/api/events")  # the server knows of no reopening
    page.press("r")
    page.page.wait_for_selector("#notice", state="hidden")
    page.press("1")
    server.kill()
    page.page.wait_for_selector("#saved[data-state='offline']")
    server.start()
    answer_again()
    page.page.reload()  # straight away: reopening and mark are in the browser's storage only
    page.page.wait_for_selector("#cameras[data-frame]")
    page.saved()
    assert server.state("person0", "episode:1").tri.tolist() == [1] * 4 + [-1] * 8
    # The page that was left may have sent them too, at the same moment: two objects, one event each by its ulid.
    assert len({event.ulid for event in server.events("person0", "episode:1")}) == 7


def test_two_people_at_once(visit, server):
    one, two = visit("person4", "episode:6"), visit("person5", "episode:7")
    for frame in (2, 5, 9):
        one.go(frame).press("3")
        two.go(frame).press("1")
    one.saved()
    two.saved()
    assert server.state("person4", "episode:6").tri.tolist() == [1] * 10 + [3] * 2
    assert server.state("person5", "episode:7").tri.tolist() == [-1] * 10 + [3] * 2


def test_an_item_in_work_is_not_given_to_another(visit, server):
    visit("person4", "episode:8")
    other = visit("person5", "episode:8")
    other.forgive("status of 409")
    other.page.wait_for_selector("#message:not([hidden])")
    other.tells("#message", "person4 has it now")
    assert other.page.is_hidden("#episode")


def test_a_lost_lease_is_told_and_its_marks_are_kept(visit, server):
    page = visit("person6", "episode:9")
    page.forgive("status of 409")
    page.go(3).press("3").saved()
    later = Leases(server.labels, lease_s=1, now_ms=lambda: clock_ms() + 10**7)
    taken = later.take("episode:9", annotator="person7", session="0" * 26)  # as if this person had been away for hours
    page.go(6).press("1")
    page.page.wait_for_selector("#lost[open]")
    page.tells("#lost", "person7 has it now")
    page.tells("#lost", "1 mark is kept in this browser")
    page.reads("#saved", "1 not stored")
    assert server.state("person6", "episode:9").tri.tolist() == [1] * 4 + [3] * 8
    later.release("episode:9", taken.epoch, annotator="person7", session="0" * 26)
    page.page.click("#lost button[value='again']")
    page.saved()
    assert server.state("person6", "episode:9").tri.tolist() == [1] * 4 + [-1] * 3 + [3] * 5


def test_a_lease_that_merely_ran_out_is_taken_again(visit, server):
    page = visit("person6", "episode:10")
    page.forgive("status of 409")
    page.go(3).press("3").saved()
    leases = Leases(server.labels, lease_s=600)
    held = leases.current("episode:10")
    leases.release("episode:10", held.epoch, annotator="person6", session=held.session)
    page.go(6).press("1").saved()
    assert page.page.is_hidden("#lost")
    assert server.state("person6", "episode:10").tri.tolist() == [1] * 4 + [-1] * 3 + [3] * 5


def test_models_and_others_are_hidden_until_ones_own_pass(visit, server):
    first = visit("person8", "episode:11")
    label_twelve(first)
    first.press("Enter").saved()
    first.page.wait_for_selector("#notice:not([hidden])")
    page = visit("person9", "episode:11")
    page.page.wait_for_selector("[data-lane='value']")
    page.reads("[data-lane='value']", "shown after your own pass")
    assert page.page.locator("[data-lane^='other-'], [data-lane^='differs-']").count() == 0
    assert (
        page.page.locator("[data-lane='vlm_progress'], [data-lane='advantage_label']").count() == 0
    )  # no output has them
    label_twelve(page)
    page.press("Home", "ArrowRight", "ArrowRight")
    page.shows(2)
    page.press("[", "ArrowLeft", "1", "Enter")  # frames 1-2 otherwise than the first person
    page.page.wait_for_selector("[data-lane='value'] canvas")
    page.page.wait_for_selector("[data-lane='other-person8'] canvas")
    page.tells(".compare", "person8")
    page.tells(".compare", f"{round(100 * 7 / 9)} % agree")  # nine frames that both could tell, two of them otherwise
    page.press("r")
    page.page.wait_for_selector("[data-lane='value'] .withheld")
    page.saved()
    assert not server.state("person9", "episode:11").complete


def test_an_item_is_skipped_with_a_reason(visit, server):
    page = visit("person9", "episode:12")
    page.press("n")
    page.page.wait_for_selector("#skip[open]")
    page.page.keyboard.type("camera blocked")
    page.press("Enter")
    page.left("episode:12")
    assert server.state("person9", "episode:12").skipped == "camera blocked"


def test_pairs_by_keyboard(visit, server):
    page = visit("person10", "pair:p0")
    page.page.wait_for_selector("#clip-b[data-frame]")
    page.press("Enter")
    page.tells("#live", "say which clip is better")
    page.page.focus("#pair-place")  # keys count while the slider has the focus, too
    page.press("a", "t", "u").saved()
    page.page.wait_for_selector("[data-command='prefer:A'][aria-pressed='true']")
    page.press("Enter")
    page.left("pair:p0")
    state = server.state("person10", "pair:p0")
    flipped = page.page.evaluate("fetch('/api/pairs/p0').then((answer) => answer.json())")["flipped"]
    assert (state.preference, state.complete) == ("B" if flipped else "A", True)


def open_job(page) -> None:
    page.press("g")
    page.page.wait_for_selector("#job[open] table.items")


def test_the_job_lists_items_and_people(visit, server):
    page = visit("person11", "episode:13")
    label_twelve(page)
    page.press("Enter").saved()
    page.page.wait_for_selector("#notice:not([hidden])")
    open_job(page)
    page.counts("#job .items tbody tr", len(LENGTHS))
    deadline = time.monotonic() + 60
    while "person11" not in page.page.inner_text("#job table >> nth=0"):
        # The table of people is not worked out anew each time: what it says may be a while old.
        assert time.monotonic() < deadline, page.page.inner_text("#job")
        page.press("Escape")
        page.page.wait_for_selector("#job", state="hidden")
        page.page.wait_for_timeout(200)
        open_job(page)
    page.page.select_option("#state-filter", "mine")
    page.counts("#job .items tbody tr", 1)
    page.page.click("#job .items button")
    page.page.wait_for_selector("#job", state="hidden")
    page.press("d")
    page.page.wait_for_selector("#job[open]")
    page.tells("#job", "Where annotators disagree")
    page.press("Escape")


def test_arrow_keys_move_to_edges(visit):
    page = visit("person3", "episode:14")
    page.go(4).press("3").go(8).press("2", "Home")
    for edge in (5, 9, 11):
        page.press("ArrowDown")
        page.shows(edge)
        page.reads("#frame-number", str(edge))
