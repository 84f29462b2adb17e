"""What each protocol asks and how it reads an answer; numbers worked out by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labellers import labeller

from robolift.annotators.messages import Answer, Picture
from robolift.annotators.prompts import load_prompt
from robolift.annotators.protocol import Anchor, Look, ParseError, Scene, spoken
from robolift.annotators.protocols import PROTOCOLS, head, logprob, pairwise, rubric, shuffled

CAMERAS = ("observation.images.top", "observation.images.wrist")


def scene(frames, cameras=CAMERAS[:1]):
    """Pictures whose red channel is the frame number and whose green one is the camera's."""
    pictures = {
        (frame, camera): np.full((2, 2, 3), (frame, number, 0), np.uint8)
        for frame in frames
        for number, camera in enumerate(cameras)
    }
    return Scene(task="fold the towel", cameras=cameras, pictures=pictures)


def ask(name, look, cameras=CAMERAS[:1]):
    return PROTOCOLS[name].question(load_prompt(name, "v1"), scene(look.frames, cameras), look)


def shown(question):
    """Return (frame, camera number) of each picture and the words before it."""
    found = []
    for before, part in zip(question.parts, question.parts[1:], strict=False):
        if isinstance(part, Picture):
            found.append((int(part.pixels[0, 0, 0]), int(part.pixels[0, 0, 1]), before))
    return found


@pytest.mark.parametrize("name", PROTOCOLS)
def test_pictures_stand_by_moment_then_by_camera_each_with_its_name(name):
    look = PROTOCOLS[name].looks(labeller(name, cameras=CAMERAS), 2)[-1]
    question = ask(name, look, CAMERAS)
    assert [(frame, camera) for frame, camera, _ in shown(question)] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    words = [before for *_, before in shown(question)]
    assert ["top" in text for text in words] == [True, False, True, False]
    assert ["wrist" in text for text in words] == [False, True, False, True]
    assert "fold the towel" in " ".join(part for part in question.parts if isinstance(part, str))
    assert "1" in words[-1] or "2" in words[-1]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_words_end_with_a_line_and_fit_one_moment_as_well_as_many(name):
    shortest = PROTOCOLS[name].looks(labeller(name), PROTOCOLS[name].MIN_LENGTH)[0]
    words = [part for part in ask(name, shortest).parts if isinstance(part, str)]
    assert all(part.endswith("\n") and part.strip() for part in words)
    # As a chat template puts them together that has nothing between parts.
    text = "".join(words)
    assert not re.search(r"\b1 (numbered )?(moments|frames|numbers|percents)\b|\b(\w+ 1) to \3\b", text)


def test_logprob_asks_for_one_token_after_each_growing_part():
    looks = logprob.looks(labeller(num_prefixes=3, max_frames=2), 7)
    assert looks == [
        Look(frames=(0,), judged=(0,)),
        Look(frames=(0, 3), judged=(3,)),
        Look(frames=(0, 6), judged=(6,)),
    ]
    question = ask("logprob", looks[-1])
    assert (question.max_tokens, question.wants_logprobs, question.wants_heads) == (1, True, False)


def of(probabilities):
    return Answer(logprobs={token: math.log(p) for token, p in probabilities.items()})


def test_logprob_adds_the_spellings_of_a_word():
    answer = of({"True": 0.3, " true": 0.2, "▁False": 0.1, "Maybe": 0.05})
    (anchor,) = logprob.parse(answer, Look(frames=(0, 9), judged=(9,)))
    assert anchor.frame_index == 9
    assert anchor.score == pytest.approx(math.log(0.5))
    assert anchor.progress == pytest.approx(0.5 / 0.6)
    assert anchor.confidence == pytest.approx(0.6)
    assert anchor.success_prob is None


def test_logprob_bounds_a_word_that_is_not_listed():
    look = Look(frames=(0,), judged=(0,))
    # Least probable candidate 0.02; what the candidates leave over is 0.08.
    (anchor,) = logprob.parse(of({"False": 0.9, "The": 0.02}), look)
    assert anchor.score == pytest.approx(math.log(0.02))
    assert anchor.progress == pytest.approx(0.02 / 0.92)
    # What the candidates leave over is less than any of them.
    (anchor,) = logprob.parse(of({"True": 0.99, "The": 0.009}), look)
    assert anchor.score == pytest.approx(math.log(0.99))
    assert anchor.progress == pytest.approx(0.99 / 0.991)
    # Nothing is left over: as little as single precision can tell from nothing.
    (anchor,) = logprob.parse(Answer(logprobs={"false": 0.0}), look)
    assert anchor.score == pytest.approx(math.log(logprob.SMALLEST))


@pytest.mark.parametrize(
    "logprobs", [{}, {"Yes": -0.1, "No": -3.0}, {"True": math.nan}, {"True": 0.7, "False": -1.0}, {"Truest": -0.1}]
)
def test_logprob_without_the_words_is_no_answer(logprobs):
    with pytest.raises(ParseError):
        logprob.parse(Answer(text="True", logprobs=logprobs), Look(frames=(0,), judged=(0,)))


@pytest.mark.parametrize(
    ("logprobs", "likeliest", "together"),
    [
        ({"I": -0.001, "Sorry": -7.0, " False": -14.0}, "'I'", "8.3e-07"),
        ({"<think>": math.log(0.999), "True": math.log(5e-8), "False": math.log(5e-8)}, "'<think>'", "1e-07"),
        ({"The": math.log(0.505), "True": math.log(0.3), "False": math.log(0.19)}, "'The'", "0.49"),
    ],
)
def test_logprob_of_a_model_that_is_about_to_say_something_else_is_no_answer(logprobs, likeliest, together):
    message = f"most likely {likeliest} .*probability of {together}, at least 0.5 is needed"
    with pytest.raises(ParseError, match=message) as caught:
        logprob.parse(Answer(logprobs=logprobs), Look(frames=(0,), judged=(0,)))
    assert "switch thinking off at the server, or choose protocol rubric" in caught.value.mend
    assert "thinking" not in str(caught.value)  # this is what the model is told


def test_logprob_at_the_floor_is_an_answer():
    (anchor,) = logprob.parse(of({"The": 0.49, "True": 0.25, "False": 0.2500001}), Look(frames=(0,), judged=(0,)))
    assert anchor.progress == pytest.approx(0.5)


def test_logprob_says_of_the_whole_episode_whether_it_succeeded():
    readings = [(Anchor(frame_index=frame, score=-1.0, progress=p),) for frame, p in ((0, 0.1), (5, 0.7))]
    assert [anchor.success_prob for anchor in logprob.anchors(readings)] == [None, 0.7]


def test_shuffled_gives_the_first_frame_and_shows_the_others_out_of_order():
    seeds = [shuffled.looks(labeller("shuffled", max_frames=8, seed=seed), 100)[0] for seed in range(20)]
    for look in seeds:
        assert look.frames[0] == 0
        assert sorted(look.frames) == [0, 14, 28, 42, 57, 71, 85, 99]
        assert look.judged == (14, 28, 42, 57, 71, 85, 99)
    assert len({look.frames for look in seeds}) > 10
    assert seeds[3] == shuffled.looks(labeller("shuffled", max_frames=8, seed=3), 100)[0]
    question = ask("shuffled", seeds[0])
    assert [frame for frame, *_ in shown(question)] == list(seeds[0].frames)
    assert "0 percent" in shown(question)[0][2]
    assert [before.split(",")[0] for *_, before in shown(question)[1:]] == [f"Frame {n}" for n in range(1, 8)]
    assert "one for each numbered frame (7 in all)" in question.parts[-1]


SHUFFLED = Look(frames=(0, 6, 2, 4), judged=(2, 4, 6))


@pytest.mark.parametrize(
    "text",
    [
        "[90, 20.5, 40]",
        " [90,20.5,40] ",
        "```json\n[90, 20.5, 40]\n```",
        "<think>[1, 2, 3]</think>[90, 20.5, 40]",
        "so [1]</think>\n[90, 20.5, 40]",
        "Frame 1: 90%\nFrame 2: 20.5%\nFrame 3: 40%",
        "1. 90\n2. 20.5\n\n3. 40",
    ],
)
def test_percents_are_put_back_into_order(text):
    found = shuffled.parse(Answer(text=text), SHUFFLED)
    assert [(a.frame_index, a.score, a.progress) for a in found] == [(2, 20.5, 0.205), (4, 40, 0.4), (6, 90, 0.9)]
    assert shuffled.anchors([found])[0] == Anchor(frame_index=0, score=0.0, progress=0.0, asked=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[90, 20]", "percents given: 2, numbered frames: 3"),
        ("[90, 20, 40, 50]", "percents given: 4, numbered frames: 3"),
        ("[90, 20, 101]", "101 is not between 0 and 100"),
        ("[90, 20, -1]", "-1 is not between 0 and 100"),
        ("[90, 20, NaN]", "nan is not between 0 and 100"),
        ("[90, 20, 1e999]", "inf is not between 0 and 100"),
        ('[90, 20, "40"]', "'40' is not a number"),
        ("[90, 20, true]", "'True' is not a number"),
        ("[90, 20, null]", "'None' is not a number"),
        ("[[90], 20, 40]", "not a number"),
        ("[90, 20, 40", "not a JSON list"),
        ("[" * 100_000, "not a JSON list"),
        (f"[{'9' * 400}, 20, 40]", "not between 0 and 100"),
        ("It is going well.", "neither a JSON list nor the percent of Frame 1"),
        ("Sure! [90, 20, 40]", "neither a JSON list"),
        ('{"percents": [90, 20, 40]}', "neither a JSON list"),
        ("Frame 1: 90\nFrame 3: 20\nFrame 2: 40", "percent of Frame 2"),
        ("Frame 1: 90\nFrame 2: 20\nFrame 3: 400", "400 is not between 0 and 100"),
        ("<think>[90, 20, 40]", "the answer is empty"),
        ("", "the answer is empty"),
    ],
)
def test_percents_that_are_not_as_asked_for_are_no_answer(text, message):
    with pytest.raises(ParseError, match=message):
        shuffled.parse(Answer(text=text), SHUFFLED)


def test_shuffled_causal_judges_the_last_frame_of_each_part():
    looks = shuffled.looks(labeller("shuffled", sampling="causal_prefix", num_prefixes=3, max_frames=3), 9)
    assert [(look.frames[0], sorted(look.frames), look.judged) for look in looks] == [
        (0, [0, 2, 4], (4,)),
        (0, [0, 4, 8], (8,)),
    ]
    look = Look(frames=(0, 8, 4), judged=(8,))
    assert shuffled.parse(Answer(text="[70, 30]"), look) == (Anchor(frame_index=8, score=70.0, progress=0.7),)


@pytest.mark.parametrize(("text", "grade", "progress"), [("1", 1, 0.0), ("3.", 3, 0.5), ("4", 4, 0.75), (" 5\n", 5, 1)])
def test_rubric_maps_a_grade_to_progress_of_the_last_frame(text, grade, progress):
    (look,) = rubric.looks(labeller("rubric"), 10)
    assert look == Look(frames=(0, 3, 6, 9), judged=(9,))
    found = rubric.anchors([rubric.parse(Answer(text=text), look)])
    assert found == [Anchor(frame_index=9, score=grade, progress=progress, success_prob=progress)]


@pytest.mark.parametrize("text", ["0", "6", "3.5", "four", "4 or 5", "4/5", "Grade: 4", "-3", "", "٣", "nan"])
def test_anything_but_a_grade_is_no_answer(text):
    with pytest.raises(ParseError):
        rubric.parse(Answer(text=text), Look(frames=(9,), judged=(9,)))


def test_rubric_causal_judges_each_part():
    looks = rubric.looks(labeller("rubric", sampling="causal_prefix", num_prefixes=3), 5)
    assert [look.judged for look in looks] == [(0,), (2,), (4,)]
    readings = [rubric.parse(Answer(text=text), look) for text, look in zip("135", looks, strict=True)]
    found = rubric.anchors(readings)
    assert [(a.progress, a.success_prob) for a in found] == [(0, None), (0.5, None), (1, 1)]


def test_pairwise_adds_signed_changes_up_and_clips():
    looks = pairwise.looks(labeller("pairwise", max_frames=5), 41)
    assert [look.frames for look in looks] == [(0, 10), (10, 20), (20, 30), (30, 40)]
    texts = ("-20", "+70%", "60", "-30.5")
    found = pairwise.anchors([pairwise.parse(Answer(text=t), look) for t, look in zip(texts, looks, strict=True)])
    assert [a.frame_index for a in found] == [0, 10, 20, 30, 40]
    assert [a.score for a in found] == [0, -20, 70, 60, -30.5]
    # The sums are 0, -0.2, 0.5, 1.1 and 0.795.
    assert [a.progress for a in found] == pytest.approx([0, 0, 0.5, 1, 0.795])
    assert [a.asked for a in found] == [False, True, True, True, True]
    assert {a.success_prob for a in found} == {None}


@pytest.mark.parametrize("text", ["101", "-100.1", "up 5", "5 %%", "+-5", "1e2", "", "closer"])
def test_anything_but_a_signed_percent_is_no_answer(text):
    with pytest.raises(ParseError):
        pairwise.parse(Answer(text=text), Look(frames=(0, 9), judged=(9,)))


def test_heads_are_read_behind_the_last_camera_of_a_moment():
    (look,) = head.looks(labeller("head", cameras=CAMERAS, max_frames=2), 9)
    question = ask("head", look, CAMERAS)
    assert question.wants_heads
    answer = Answer(progress=(0.1, 0.2, 0.8, 0.9), success=(0.3, 0.4, 0.5, 0.6))
    assert head.anchors([head.parse(answer, look)]) == [
        Anchor(frame_index=0, score=0.2, progress=0.2, success_prob=0.4),
        Anchor(frame_index=8, score=0.9, progress=0.9, success_prob=0.6),
    ]
    assert [a.success_prob for a in head.parse(Answer(progress=(0, 0, 1, 1)), look)] == [None, None]


@pytest.mark.parametrize("values", [(), (0.1,), (0.1, 0.2, 0.3), (0.1, 1.2), (math.nan, 0.1), (-0.1, 0.2)])
def test_heads_of_the_wrong_number_or_range_are_no_answer(values):
    look = Look(frames=(0, 8), judged=(0, 8))
    with pytest.raises(ParseError):
        head.parse(Answer(progress=values), look)
    if values:
        with pytest.raises(ParseError):
            head.parse(Answer(progress=(0.1, 0.2), success=values), look)


def test_head_causal_keeps_the_last_moment_of_each_part():
    looks = head.looks(labeller("head", sampling="causal_prefix", num_prefixes=2), 9)
    assert [look.judged for look in looks] == [(0,), (8,)]
    found = head.parse(Answer(progress=(0.1, 0.2, 0.3, 0.4), success=(0, 0, 0, 1)), looks[1])
    assert found == (Anchor(frame_index=8, score=0.4, progress=0.4, success_prob=1),)


def test_an_answer_that_was_cut_off_is_none():
    with pytest.raises(ParseError, match="cut off"):
        spoken(Answer(text="4", finish_reason="length"))
    assert spoken(Answer(text="4", finish_reason="stop")) == "4"
    assert spoken(Answer(text="4")) == "4"
    with pytest.raises(ParseError, match="but to 'tool_calls'"):
        spoken(Answer(text="4", finish_reason="tool_calls"))


@pytest.mark.parametrize("name", ["logprob", "shuffled", "rubric", "pairwise"])
def test_an_answer_that_was_withheld_is_none(name):
    look = Look(frames=(0, 9), judged=(9,))
    withheld = Answer(text="4", logprobs={"True": -0.1}, finish_reason="content_filter")
    with pytest.raises(ParseError, match="withheld by a content filter"):
        PROTOCOLS[name].parse(withheld, look)


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("sampling", ["whole", "causal_prefix"])
@given(length=st.integers(2, 400), frames=st.integers(2, 12), parts=st.integers(2, 12))
def test_every_look_is_inside_the_episode_and_judges_what_it_shows(name, sampling, length, frames, parts):
    if sampling == "causal_prefix" and not PROTOCOLS[name].CAUSAL:
        return
    asked = labeller(name, sampling=sampling, max_frames=frames, num_prefixes=parts)
    looks = PROTOCOLS[name].looks(asked, length)
    judged = [frame for look in looks for frame in look.judged]
    assert judged == sorted(set(judged))
    assert judged[-1] == length - 1
    for look in looks:
        assert set(look.judged) <= set(look.frames) <= set(range(length))
        assert 1 <= len(look.frames) <= frames
        if sampling == "causal_prefix":
            assert max(look.frames) == look.judged[-1]
