"""Prompt files: the product's own are sound, and each fault of a user's is told."""

from __future__ import annotations

import hashlib

import pytest

from robolift.annotators.prompts import load_prompt, parse_prompt
from robolift.annotators.protocols import PROTOCOLS
from robolift.errors import DataError, UsageError

GOOD = """[system]
Judge.

[opening]
Task: {task}

[moment]
{number} {camera}

[closing]

[reprompt]
No: {problem}
"""


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_products_own_prompts_are_sound(name):
    prompt = load_prompt(name, PROTOCOLS[name].VERSION)
    assert prompt.sha256 == hashlib.sha256(prompt.text.encode()).hexdigest()
    asked = prompt.fill("opening", task="fold {it}", num_frames=7) + prompt.fill(
        "closing", task="fold {it}", num_frames=7
    )
    assert "fold {it}" in asked
    assert ("reference" in prompt.sections) == (name == "shuffled")


def test_a_file_of_ones_own_is_read(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text(GOOD)
    prompt = load_prompt("rubric", "v1", str(file))
    assert prompt.sections == {
        "system": "Judge.",
        "opening": "Task: {task}",
        "moment": "{number} {camera}",
        "closing": "",
        "reprompt": "No: {problem}",
    }
    assert prompt.fill("moment", number=3, camera="top") == "3 top"


def test_braces_that_are_meant_are_written_twice():
    prompt = parse_prompt(GOOD.replace("Judge.", 'Say {{"score": 1}}'), "rubric", where="mine")
    assert prompt.fill("system", task="x") == 'Say {"score": 1}'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{task}", "{job}"), r"\[opening\]: unknown placeholder {job}; there are: num_frames, task"),
        (("{task}", "it"), r"\[opening\] or \[closing\] must have {task}"),
        (("{task}", "{task!r}"), "unknown placeholder {task}"),
        (("{task}", "{task.__class__}"), "unknown placeholder {task.__class__}"),
        (("{number}", "{"), r"\[moment\]: .*write a brace that is meant twice"),
        (("{number} ", ""), r"\[moment\] must have {number}"),
        (("{camera}", ""), r"\[moment\] must have {camera}"),
        (("{problem}", ""), r"\[reprompt\] must have {problem}"),
        (("No: {problem}", ""), r"section \[reprompt\] is empty"),
        (("[reprompt]", "[again]"), r"unknown section \[again\]\n.*section \[reprompt\] is missing"),
        (("[closing]", "[system]"), r"section \[system\] stands twice"),
        (("[system]", "Hello\n[system]"), "text before the first section: 'Hello'"),
    ],
)
def test_a_faulty_file_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        parse_prompt(GOOD.replace(*change), "rubric", where="mine")


def test_shuffled_must_say_how_many_percents_it_wants():
    file = GOOD + "\n[reference]\nStart {camera}\n"
    with pytest.raises(UsageError, match=r"must have {num_frames}"):
        parse_prompt(file, "shuffled", where="mine")
    assert parse_prompt(file.replace("{task}", "{task} {num_frames}"), "shuffled", where="mine").sections["reference"]


def test_no_file_and_no_text_are_told(tmp_path):
    with pytest.raises(DataError, match="file not found"):
        load_prompt("rubric", "v1", str(tmp_path / "none.txt"))
    (tmp_path / "picture.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        load_prompt("rubric", "v1", str(tmp_path / "picture.txt"))
