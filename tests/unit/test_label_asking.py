"""Asking: what was answered is kept and never asked again, what can't be read is asked once more and is no label."""

from __future__ import annotations

import json
import time

import pytest
import synthetic
from interviews import Script, files, interview

from robolift.annotators.messages import Answer, Picture, TransportError
from robolift.annotators.prompts import parse_prompt
from robolift.annotators.protocols import rubric
from robolift.annotators.shard import write_shard
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.schema import read_parquet


@pytest.fixture
def opened(dataset):
    return Dataset.open(dataset)


def test_what_was_answered_is_not_asked_again(opened, tmp_path):
    first, second = Script(), Script(say="1")
    before = interview(opened, tmp_path, first).verdicts([0, 3])
    after = interview(opened, tmp_path, second).verdicts([0, 3, 5])
    assert (len(first.asked), len(second.asked)) == (2, 1)
    assert after[:2] == before
    assert [v.anchors[0].score for v in after] == [3, 3, 1]
    places = list(files(tmp_path))
    assert len(places) == 3
    assert all(p.startswith(f"answers/{p.split('/')[2][:2]}/") and len(p.split("/")[2]) == 69 for p in places)


def test_the_order_in_which_answers_arrive_does_not_matter(opened, tmp_path):
    def late_first(question):
        # The fewer pictures, the later: short episodes come in last.
        time.sleep(0.02 * (5 - sum(isinstance(part, Picture) for part in question.parts)))
        return str(1 + len(question.parts) % 5)

    found = {}
    for name, transport in (("one", Script(say=late_first, workers=1)), ("many", Script(say=late_first, workers=8))):
        verdicts = interview(opened, tmp_path / name, transport, max_frames=3).verdicts(list(range(8)))
        (tmp_path / f"out-{name}").mkdir()
        write_shard(tmp_path / f"out-{name}", verdicts)
        found[name] = (files(tmp_path / name), files(tmp_path / f"out-{name}"))
    assert found["one"] == found["many"]


def test_an_answer_that_cannot_be_read_is_asked_for_once_more(opened, tmp_path):
    transport = Script(say=lambda question: "4" if question.earlier else "good, I think")
    (verdict,) = interview(opened, tmp_path, transport).verdicts([1])
    assert [question.earlier for question in transport.asked] == [
        (),
        (
            (
                "good, I think",
                "That answer can't be used: 'good, I think' is not a number. "
                "Answer with one number from 1 to 5, and nothing else.",
            ),
        ),
    ]
    assert transport.asked[0].parts[0] == transport.asked[1].parts[0]
    assert verdict.anchors[0].score == 4
    assert verdict.parsed == [[False, True]]
    assert verdict.failures == ()


def test_what_cannot_be_read_twice_is_an_error_and_no_label(opened, tmp_path):
    transport = Script(say=lambda question: f"no idea {len(question.earlier)}")
    verdicts = interview(opened, tmp_path / "root", transport).verdicts([1, 2])
    assert len(transport.asked) == 4
    assert [v.anchors for v in verdicts] == [(), ()]
    counts = write_shard(tmp_path, verdicts)
    assert counts == {
        "episodes": 2,
        "labelled": 0,
        "errors": 2,
        "requests": 4,
        "input_tokens": 40,
        "output_tokens": 4,
    }
    assert json.loads((tmp_path / "errors.json").read_text())[0] == {
        "episode_index": 1,
        "class": "ParseError",
        "message": "question 0: 'no idea 1' is not a number",
        "answers": ["no idea 0", "no idea 1"],
    }
    assert read_parquet(str(tmp_path / "anchors.parquet")).num_rows == 0
    rows = read_parquet(str(tmp_path / "answers.parquet")).to_pylist()
    assert [(r["episode_index"], r["request"], r["attempt"], r["parsed"]) for r in rows] == [
        (1, 0, 0, False),
        (1, 0, 1, False),
        (2, 0, 0, False),
        (2, 0, 1, False),
    ]
    # It is a result: nobody is asked about it again.
    again = Script()
    assert interview(opened, tmp_path / "root", again).verdicts([1, 2]) == verdicts
    assert again.asked == []


def test_an_empty_answer_is_held_up_as_one(opened, tmp_path):
    transport = Script(say=lambda question: "4" if question.earlier else " \n")
    (verdict,) = interview(opened, tmp_path, transport).verdicts([1])
    assert transport.asked[1].earlier[0][0] == "(no answer)"
    assert "the answer is empty" in transport.asked[1].earlier[0][1]
    assert [answer.text for answer in verdict.attempts[0]] == [" \n", "4"]


def test_a_model_that_thinks_all_the_same_gives_errors_that_say_what_to_do(opened, tmp_path):
    thoughts = Answer(logprobs={"<think>": -0.001, "True": -16.8, "False": -16.8}, finish_reason="length")
    transport = Script(say=lambda _question: thoughts)
    verdicts = interview(opened, tmp_path / "root", transport, "logprob", num_prefixes=2).verdicts([0])
    assert write_shard(tmp_path, verdicts)["labelled"] == 0
    (error,) = json.loads((tmp_path / "errors.json").read_text())
    assert error["message"] == (
        "question 0: the first word is neither True nor False, but most likely '<think>' (True and False together "
        "have a probability of 1e-07, at least 0.5 is needed); if the model thinks before it answers, switch thinking "
        "off at the server, or choose protocol rubric (2 questions in all)"
    )
    assert not any("protocol" in complaint for question in transport.asked for _, complaint in question.earlier)


def test_one_bad_question_takes_the_whole_episode(opened, tmp_path):
    moments = []

    def say(question):
        moments.append(question)
        return "nonsense" if len(moments) == 2 or question.earlier else "+10"

    (verdict,) = interview(opened, tmp_path, Script(say=say, workers=1), "pairwise").verdicts([2])
    assert len(verdict.attempts) == 3
    assert [len(answers) for answers in verdict.attempts] == [1, 2, 1]
    assert verdict.anchors == ()
    assert [failure.request for failure in verdict.failures] == [1]


def test_a_mended_parser_reads_kept_answers_anew(opened, tmp_path, monkeypatch):
    said = Script(say=lambda question: "four" if not question.earlier else "IV")
    interview(opened, tmp_path, said).verdicts([0])
    number_in = rubric.number_in
    monkeypatch.setattr(rubric, "number_in", lambda text, *ends: 4.0 if text == "four" else number_in(text, *ends))
    nobody = Script()
    (verdict,) = interview(opened, tmp_path, nobody).verdicts([0])
    assert (verdict.anchors[0].score, verdict.parsed, nobody.asked) == (4, [[True, False]], [])


def test_a_parser_that_became_stricter_asks_for_what_it_no_longer_reads(opened, tmp_path, monkeypatch):
    interview(opened, tmp_path, Script(say="3")).verdicts([0])
    number_in = rubric.number_in
    monkeypatch.setattr(rubric, "number_in", lambda text, low, high: number_in(text, 4, high))
    transport = Script(say="5")
    (verdict,) = interview(opened, tmp_path, transport).verdicts([0])
    assert [question.earlier[0][0] for question in transport.asked] == ["3"]
    assert verdict.anchors[0].score == 5


def test_no_answer_leaves_the_others_kept_and_a_rerun_asks_the_missing(opened, tmp_path):
    down = {next(opened.video(episode, synthetic.TOPVIEW)).tobytes() for episode in (2, 5)}

    def say(question):
        if next(part.pixels.tobytes() for part in question.parts if isinstance(part, Picture)) in down:
            raise TransportError("the server is away")
        return "2"

    with pytest.raises(TransportError, match=r"no answer about 2 of 8 episodes[\s\S]*episode 2: the server is away"):
        interview(opened, tmp_path, Script(say=say, workers=1)).verdicts(list(range(8)))
    assert len(files(tmp_path)) == 6
    transport = Script(say="2")
    found = interview(opened, tmp_path, transport).verdicts(list(range(8)))
    assert len(transport.asked) == 2
    assert [v.episode_index for v in found] == list(range(8))


def test_answers_of_an_episode_are_kept_though_another_of_its_questions_got_none(opened, tmp_path):
    def pairs(question):  # questions of pairwise tell themselves apart by their last picture
        return [part.pixels.tobytes() for part in question.parts if isinstance(part, Picture)][-1]

    broken = Script()
    first_two = []

    def fails_at_the_third(question):
        first_two.append(pairs(question))
        if len(first_two) == 3:
            raise TransportError("the server is away")
        return "+10"

    broken.say = fails_at_the_third
    with pytest.raises(TransportError, match=r"no answer about 1 of 1 episodes; every answer so far is kept"):
        interview(opened, tmp_path, broken, "pairwise").verdicts([2])
    again = Script(say="-10")
    (verdict,) = interview(opened, tmp_path, again, "pairwise").verdicts([2])
    assert [pairs(question) for question in again.asked] == first_two[2:]
    assert [answers[0].text for answers in verdict.attempts] == ["+10", "+10", "-10"]


def test_a_server_that_is_away_is_noticed_after_a_few_episodes(opened, tmp_path):
    def say(question):
        if len(transport.asked) > 2:
            raise TransportError("the server is away")
        return "2"

    transport = Script(say=say, workers=1)
    message = (
        r"no answer about [34] of 8 episodes; 3 in a row, so the rest was not asked about; every answer so far is kept"
    )
    with pytest.raises(TransportError, match=message):
        interview(opened, tmp_path, transport).verdicts(list(range(8)))
    assert len(transport.asked) < 8
    assert len(files(tmp_path)) == 2


def test_a_server_that_answers_in_between_is_there(opened, tmp_path):
    def say(_question):
        if len(transport.asked) % 3:
            raise TransportError("the server is busy")
        return "2"

    transport = Script(say=say, workers=1)
    with pytest.raises(TransportError, match="no answer about 6 of 8 episodes; every answer"):
        interview(opened, tmp_path, transport).verdicts(list(range(8)))
    assert len(transport.asked) == 8


def test_nothing_is_decoded_for_a_server_that_is_not_there(opened, tmp_path, monkeypatch):
    from robolift.annotators import ask

    def probe():
        raise TransportError("gave no answer")

    transport = Script()
    monkeypatch.setattr(transport, "probe", probe)
    monkeypatch.setattr(ask, "read_pictures", lambda *_: pytest.fail("decoded"))
    with pytest.raises(TransportError, match="gave no answer"):
        interview(opened, tmp_path, transport).verdicts([0, 1])
    interview(opened, tmp_path, transport).verdicts([])


def test_what_no_try_can_mend_stops_at_once(opened, tmp_path):
    def say(_question):
        if len(transport.asked) > 1:  # was under way when the first failed, which takes a moment to be heard
            time.sleep(0.5)
        raise UsageError("no such model")

    transport = Script(say=say, workers=1)
    with pytest.raises(UsageError, match="no such model"):
        interview(opened, tmp_path, transport).verdicts(list(range(8)))
    assert len(transport.asked) < 8


def test_answers_of_heads_and_strange_numbers_are_the_same_kept_and_fresh(opened, tmp_path):
    heads = Answer(progress=(0.25, 0.1, 0.5, 1 / 3), success=(0.5, 0.5, 0.5, 0.125))
    transport = Script(say=lambda _question: heads)
    fresh = interview(opened, tmp_path / "a", transport, "head").verdicts([1])
    assert interview(opened, tmp_path / "a", Script(), "head").verdicts([1]) == fresh
    assert fresh[0].anchors[-1].score == 1 / 3

    odd = Answer(text="half \ud83d", logprobs={"True": -0.5, "\ud83d": -3.0, "x": -float("inf")})
    fresh = interview(opened, tmp_path / "b", Script(say=lambda _q: odd)).verdicts([1])
    assert interview(opened, tmp_path / "b", Script()).verdicts([1]) == fresh
    assert fresh[0].attempts[0][0].logprobs == {"True": -0.5, "?": -3.0}

    # A head is not asked again: it would say the same.
    broken = Script(say=lambda _question: Answer(progress=(float("nan"),) * 4))
    (verdict,) = interview(opened, tmp_path / "c", broken, "head").verdicts([1])
    assert (len(broken.asked), verdict.anchors) == (1, ())
    write_shard(tmp_path, [verdict])
    answer = read_parquet(str(tmp_path / "answers.parquet")).to_pylist()[0]["answer"]
    assert answer == '{"progress":[null,null,null,null],"success":[]}'


def test_a_broken_record_is_told(opened, tmp_path):
    interview(opened, tmp_path, Script()).verdicts([0])
    (place,) = tmp_path.glob("answers/*/*.json")
    for content in ("{", '{"questions": [[], []]}', '{"questions": [[{"text": 1, "nose": 2}]]}', "[]"):
        place.write_text(content)
        with pytest.raises(DataError, match=r"not a record of answers|not valid JSON"):
            interview(opened, tmp_path, Script()).verdicts([0])


def test_episodes_with_the_same_pictures_are_asked_about_once(tmp_path):
    from robolift.stages.stage import execute

    synthetic.write_recording(tmp_path / "recording", episodes=1, cameras=[synthetic.TOPVIEW])
    first = execute("import_dataset", {"dataset_uri": str(tmp_path / "recording")}, {}, str(tmp_path / "runs"))
    synthetic.write_recording(tmp_path / "again", episodes=1, cameras=[synthetic.TOPVIEW], omit=["is_good_gt"])
    both = execute(
        "import_dataset", {"dataset_uri": str(tmp_path / "again")}, {"previous": first.uri}, str(tmp_path / "runs")
    )
    grades = iter("15")
    transport = Script(say=lambda _question: next(grades), workers=2)
    found = interview(Dataset.open(both), tmp_path, transport).verdicts([0, 1])
    assert len(transport.asked) == 1
    assert [v.anchors[0].score for v in found] == [1, 1]


def test_a_prompt_of_ones_own_is_what_is_asked(opened, tmp_path):
    text = (
        "[system]\nBe strict with {task}.\n[opening]\nLook, {num_frames}:\n[moment]\n<{number} {camera}>\n"
        "[closing]\nSo? {task}\n[reprompt]\n{problem}"
    )
    transport = Script()
    interview(opened, tmp_path, transport, prompt=parse_prompt(text, "rubric", where="mine"), max_frames=2).verdicts(
        [0]
    )
    (question,) = transport.asked
    assert question.system == f"Be strict with {synthetic.TASK}."
    words = [part for part in question.parts if isinstance(part, str)]
    assert words == ["Look, 2:\n", "<1 topview>\n", "<2 topview>\n", f"So? {synthetic.TASK}\n"]
