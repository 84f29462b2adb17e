"""Expected texts are written out by hand after the sources of openpi, kai0 and pistar."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizer import VOCABULARY

from robolift.data.tokenizer import Tokenizer
from robolift.errors import DataError, UsageError
from robolift.labeling.prompt_formats import FORMATS, LongPrompt, fit, render, state_bins
from robolift.labeling.prompts import prompt, split

STATE = [-1.0, -0.5, 0.0, 0.5, 0.999, 1.0, -1.001]
ACTING = ("openpi", "kai0", "pistar")
LONG = "fold the cloth on the table with both hands then turn the lever"


@pytest.fixture(scope="module")
def tokenizer(tokenizer_uri: str) -> Tokenizer:
    return Tokenizer.load(tokenizer_uri, vocabulary=VOCABULARY)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (-1.0, 0),  # the lower edge of the first bin
        (-1.0 + 1 / 128, 1),  # bins are 1/128 wide and hold their lower edge
        (-1e-9, 127),
        (0.0, 128),
        (0.5, 192),
        (127 / 128, 255),
        (0.999, 255),
        (1.0, 255),  # no bin of its own
        (40.0, 255),
        (-1.0 - 1e-9, -1),
        (-40.0, -1),
    ],
)
def test_bins_of_a_state(value: float, number: int) -> None:
    assert state_bins([value]).tolist() == [number]


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=8))
def test_bins_are_those_of_numpy(state: list[float]) -> None:
    row = np.array(state, np.float32)
    expected = np.digitize(row, bins=np.linspace(-1, 1, 256 + 1)[:-1]) - 1
    assert state_bins(row).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("name", "label", "state", "expected"),
    [
        # openpi, PaligemmaTokenizer.tokenize
        ("openpi", None, STATE, "Task: fold the cloth, State: 0 64 128 192 255 255 -1;\nAction: "),
        ("openpi", None, None, "fold the cloth\n"),
        # kai0 has openpi's tokenizer; discretize_advantage.py writes the tasks
        (
            "kai0",
            "positive",
            STATE,
            "Task: fold the cloth, Advantage: positive, State: 0 64 128 192 255 255 -1;\nAction: ",
        ),
        ("kai0", "negative", [0.0], "Task: fold the cloth, Advantage: negative, State: 128;\nAction: "),
        ("kai0", 3, [0.0], "Task: fold the cloth, Advantage: 3, State: 128;\nAction: "),
        ("kai0", None, [0.0], "Task: fold the cloth, State: 128;\nAction: "),
        ("kai0", "positive", None, "fold the cloth, Advantage: positive\n"),
        # pistar, PaligemmaTokenizer.tokenize with adv_ind; dropped, the clause is missing
        (
            "pistar",
            "positive",
            STATE,
            "Task: fold the cloth, State: 0 64 128 192 255 255 -1, Advantage: positive;\nAction: ",
        ),
        ("pistar", "negative", [0.0], "Task: fold the cloth, State: 128, Advantage: negative;\nAction: "),
        ("pistar", None, [0.0], "Task: fold the cloth, State: 128;\nAction: "),
        ("pistar", "positive", None, "Task: fold the cloth, Advantage: positive;\nAction: "),
        ("pistar", None, None, "Task: fold the cloth;\nAction: "),
        # pistar's value model, GemmaValueTokenizer.tokenize
        ("value", None, None, "fold the cloth\nValue:"),
    ],
)
def test_texts(name: str, label: str | int | None, state: list[float] | None, expected: str) -> None:
    assert render(name, "fold the cloth", label, state) == expected


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("openpi", None, "Task: fold the  cloth now, State: 128;\nAction: "),
        ("pistar", "positive", "Task: fold the  cloth now, State: 128, Advantage: positive;\nAction: "),
        # The original appends the label first: what the task ends with is then inside, and stays.
        ("kai0", "positive", "Task: fold the  cloth now  , Advantage: positive, State: 128;\nAction: "),
    ],
)
def test_what_is_cleaned(name: str, label: str | None, expected: str) -> None:
    assert render(name, "\n fold_the__cloth\nnow \n", label, [0.0]) == expected


def test_a_value_model_s_task_is_only_stripped_on_the_right() -> None:
    assert render("value", " fold_the cloth \n", None, None) == " fold_the cloth\nValue:"


def test_braces_in_a_task_are_text() -> None:
    assert render("kai0", "take {state} {0}", "positive", None) == "take {state} {0}, Advantage: positive\n"


def test_the_examples_of_the_page_are_what_models_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (-|\w+) \| (yes|no) \| `(.*)` \|$", page, flags=re.MULTILINE)
    assert {name for name, *_ in rows} == set(FORMATS)
    for name, label, has_state, text in rows:
        state = [0.0, 1.0] if has_state == "yes" else None
        assert render(name, "fold_the cloth", None if label == "-" else label, state) == text.replace("\\n", "\n")


def test_openpi_s_line_end_is_tokenized_apart(tokenizer: Tokenizer) -> None:
    tokens = fit("openpi", "fold the cloth", None, None, encoder=tokenizer, length=48).tokens
    assert FORMATS["openpi"].segments("fold the cloth", None, None) == ("fold the cloth", "\n")
    assert tokens == [*tokenizer.encode("fold the cloth", bos=True), *tokenizer.encode("\n", bos=False)]


def test_a_text_in_one_piece_is_tokenized_in_one(tokenizer: Tokenizer) -> None:
    fitted = fit("pistar", "fold the cloth", "positive", [0.0], encoder=tokenizer, length=48)
    assert fitted.text == "Task: fold the cloth, State: 128, Advantage: positive;\nAction: "
    assert fitted.tokens == tokenizer.encode(fitted.text, bos=True)
    assert (fitted.task, fitted.cut) == ("fold the cloth", "")


def test_the_label_none_is_never_written() -> None:
    with pytest.raises(UsageError, match="no prompt for label 'none'"):
        render("pistar", "fold", "none", [0.0])


@pytest.mark.parametrize("name", ["openpi", "value"])
def test_a_label_without_a_place_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"format {name} has no place for the label 'positive'.*kai0, pistar"):
        render(name, "fold", "positive", None)


def test_a_state_without_a_place_is_refused() -> None:
    with pytest.raises(UsageError, match="value has no place for a state"):
        render("value", "fold", None, [0.0])


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="no prompt format 'pi0'; expected one of openpi, kai0, pistar, value"):
        render("pi0", "fold", None, None)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("task", ["", " \n"])
def test_a_task_without_text_is_refused(name: str, task: str) -> None:
    with pytest.raises(DataError, match="has no text"):
        render(name, task, None, None)


def test_a_task_of_underscores_has_no_text() -> None:
    with pytest.raises(DataError, match="'__' has no text"):
        render("kai0", "__", "positive", [0.0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="not finite") as caught:
        render("openpi", "fold", None, [0.0, value])
    assert caught.value.where == "position 1 of 2"


@pytest.mark.parametrize("state", [0.0, [], [[0.0]]])
def test_a_state_that_is_no_row_is_refused(state: object) -> None:
    with pytest.raises(DataError, match="the state has the shape"):
        render("openpi", "fold", None, state)


def test_a_long_prompt_is_refused(tokenizer: Tokenizer) -> None:
    needed = len(tokenizer.encode(f"{LONG}\nValue:", bos=True))
    assert fit("value", LONG, None, None, encoder=tokenizer, length=needed).cut == ""
    with pytest.raises(DataError, match=f"the prompt has {needed} tokens") as caught:
        fit("value", LONG, None, None, encoder=tokenizer, length=needed - 1)
    assert caught.value.expected == f"at most {needed - 1}"
    assert "long_prompt: shorten" in caught.value.mend


def test_a_task_is_shortened_by_whole_words_and_no_more_than_needed(tokenizer: Tokenizer) -> None:
    shorter = "Task: fold the cloth on the table with both hands, State: 128, Advantage: positive;\nAction: "
    length = len(tokenizer.encode(shorter, bos=True))
    fitted = fit("pistar", LONG, "positive", [0.0], encoder=tokenizer, length=length, long_prompt="shorten")
    assert fitted.text == shorter
    assert fitted.cut == " then turn the lever"


def test_an_underscore_separates_words_too(tokenizer: Tokenizer) -> None:
    length = len(tokenizer.encode("Task: fold the, State: 128;\nAction: ", bos=True))
    fitted = fit("openpi", "fold_the_cloth", None, [0.0], encoder=tokenizer, length=length, long_prompt="shorten")
    assert (fitted.text, fitted.cut) == ("Task: fold the, State: 128;\nAction: ", "_cloth")


def test_the_first_word_stays(tokenizer: Tokenizer) -> None:
    length = len(tokenizer.encode("fold\nValue:", bos=True))
    fitted = fit("value", LONG, None, None, encoder=tokenizer, length=length, long_prompt="shorten")
    assert fitted.text == "fold\nValue:"
    with pytest.raises(DataError, match="too many even with the first word") as caught:
        fit("value", LONG, None, None, encoder=tokenizer, length=length - 1, long_prompt="shorten")
    assert "shorten" not in caught.value.mend


WORDS = st.lists(st.sampled_from([*LONG.split(), "schön", "日", "_", ","]), min_size=1, max_size=30)
LABELS = st.sampled_from([None, "positive", "negative", 0, 12])
STATES = st.lists(st.floats(-1.2, 1.2), min_size=1, max_size=6)


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(ACTING), WORDS, LABELS, STATES, st.integers(1, 80))
def test_shortening_keeps_the_markers_and_fits(
    tokenizer: Tokenizer, name: str, words: list[str], label: str | int | None, state: list[float], length: int
) -> None:
    task = " ".join(["push", *words])
    label = None if name == "openpi" else label

    def fitted(long_prompt: LongPrompt, most: int = length) -> object:
        return fit(name, task, label, state, encoder=tokenizer, length=most, long_prompt=long_prompt)

    full = fitted("refuse", 10_000)
    try:
        short = fitted("shorten")
    except DataError:
        least = fit(name, "push", label, state, encoder=tokenizer, length=10_000)
        assert len(least.tokens) > length
        return
    read = tokenizer.processor.decode(short.tokens)
    numbers = " ".join(str(number) for number in state_bins(state))
    advantage = "" if label is None else f", Advantage: {label}"
    end = {"pistar": f", State: {numbers}{advantage};\nAction: "}
    assert read == short.text
    assert read.startswith("Task: push")
    assert read.endswith(end.get(name, f"{advantage}, State: {numbers};\nAction: "))
    assert len(short.tokens) <= length
    assert len(short.tokens) <= len(full.tokens)
    assert short.task + short.cut == task
    assert (short.cut == "") == (len(full.tokens) <= length)


@settings(deadline=None, max_examples=60)
@given(WORDS, st.integers(1, 48))
def test_shortening_keeps_the_value_s_marker(tokenizer: Tokenizer, words: list[str], length: int) -> None:
    task = " ".join(["push", *words])
    try:
        short = fit("value", task, None, None, encoder=tokenizer, length=length, long_prompt="shorten")
    except DataError:
        assert len(tokenizer.encode("push\nValue:", bos=True)) > length
        return
    assert tokenizer.processor.decode(short.tokens).endswith("\nValue:")
    assert len(short.tokens) <= length


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fold the cloth", ("fold the cloth", None)),
        ("fold the cloth, Advantage: positive", ("fold the cloth", "positive")),
        ("fold the cloth, Advantage: negative", ("fold the cloth", "negative")),
        ("fold the cloth, Advantage: 12", ("fold the cloth", 12)),
        ("fold the cloth, Advantage: none", ("fold the cloth, Advantage: none", None)),
        ("fold the cloth, Advantage: 0.5000", ("fold the cloth, Advantage: 0.5000", None)),
        ("fold the cloth, Advantage: 012", ("fold the cloth, Advantage: 012", None)),
        ("fold, Advantage: positive, Advantage: 2", ("fold, Advantage: positive", 2)),
    ],
)
def test_a_prompt_is_split(text: str, expected: tuple[str, str | int | None]) -> None:
    assert split(text) == expected


@given(st.text(), st.sampled_from(["positive", "negative", 0, 3, 10**6]))
def test_splitting_undoes_a_labelled_prompt(task: str, label: str | int) -> None:
    assert split(prompt(task, label)) == (task, label)


@given(st.text())
def test_a_prompt_that_was_split_is_put_together_again(text: str) -> None:
    assert prompt(*split(text)) == text
