from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizer import VOCABULARY, tiny_tokenizer

from robolift import storage
from robolift.data.tokenizer import Tokenizer
from robolift.errors import DataError, UsageError
from robolift.labeling.prompt_formats import render
from robolift.labeling.prompt_formatter import PromptFormatter
from robolift.labeling.prompts import PromptTable, advantage_prompts, prompt

LONG = "fold the cloth on the table with both hands then turn the lever"


@pytest.fixture(scope="module")
def tokenizer(tokenizer_uri: str) -> Tokenizer:
    return Tokenizer.load(tokenizer_uri, vocabulary=VOCABULARY)


def count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, bos=True))


def test_a_prompt_of_the_table_becomes_the_text_of_the_format(tokenizer: Tokenizer) -> None:
    table = advantage_prompts(["fold_the cloth"])
    texts = {name: PromptFormatter.fit(name, table, tokenizer, length=48, state_dim=2) for name in ("kai0", "pistar")}
    state = [0.0, 1.0]
    assert texts["kai0"].text("fold_the cloth, Advantage: positive", state) == (
        "Task: fold the cloth, Advantage: positive, State: 128 255;\nAction: "
    )
    assert texts["pistar"].text("fold_the cloth, Advantage: positive", state) == (
        "Task: fold the cloth, State: 128 255, Advantage: positive;\nAction: "
    )
    for formatter in texts.values():
        assert formatter.text("fold_the cloth", state) == "Task: fold the cloth, State: 128 255;\nAction: "
        assert formatter.cuts == {}


def test_the_tokens_are_those_of_the_text(tokenizer: Tokenizer) -> None:
    formatter = PromptFormatter.fit("kai0", advantage_prompts(["fold the cloth"]), tokenizer, length=48, state_dim=1)
    tokens = formatter.tokens("fold the cloth, Advantage: negative", [0.0])
    assert tokens == tokenizer.encode("Task: fold the cloth, Advantage: negative, State: 128;\nAction: ", bos=True)


def test_a_value_model_reads_the_task(tokenizer: Tokenizer) -> None:
    formatter = PromptFormatter.fit("value", PromptTable(("fold the cloth",)), tokenizer, length=48)
    assert formatter.text("fold the cloth") == "fold the cloth\nValue:"


def test_a_task_that_kai0_labelled_is_read_as_labelled(tokenizer: Tokenizer) -> None:
    table = PromptTable(("fold the cloth, Advantage: negative", "fold the cloth, Advantage: positive"))
    formatter = PromptFormatter.fit("kai0", table, tokenizer, length=48, state_dim=1)
    assert formatter.text(table[1], [0.0]) == "Task: fold the cloth, Advantage: positive, State: 128;\nAction: "
    assert formatter.tasks == {"fold the cloth": "fold the cloth"}


@pytest.mark.parametrize("name", ["openpi", "value"])
def test_a_table_with_labels_is_refused_where_they_have_no_place(tokenizer: Tokenizer, name: str) -> None:
    with pytest.raises(UsageError, match="no place for the label 'negative'"):
        PromptFormatter.fit(name, advantage_prompts(["fold"]), tokenizer, length=48)


def test_a_task_is_cut_alike_for_every_label_and_state(tokenizer: Tokenizer) -> None:
    table = advantage_prompts([LONG, "push the cup"])
    # 255 is of three tokens, a digit each; the label makes no difference with this tokenizer.
    fits = "Task: fold the cloth on the table, State: 255 255, Advantage: negative;\nAction: "
    length = count(tokenizer, fits)
    formatter = PromptFormatter.fit("pistar", table, tokenizer, length=length, state_dim=2, long_prompt="shorten")
    assert formatter.cuts == {LONG: " with both hands then turn the lever"}
    assert formatter.text(prompt(LONG, "negative"), [1.0, 1.0]) == fits
    # Here there would be room for the whole task, but a policy shall not read another task from frame to frame.
    assert formatter.text(LONG, [-1.0, -1.0]) == "Task: fold the cloth on the table, State: 0 0;\nAction: "
    assert formatter.text("push the cup", [1.0, 1.0]) == "Task: push the cup, State: 255 255;\nAction: "


def test_the_longest_label_decides(tokenizer: Tokenizer) -> None:
    table = advantage_prompts([LONG], num_slices=101)
    length = count(tokenizer, "fold the cloth, Advantage: 100\n")
    formatter = PromptFormatter.fit("kai0", table, tokenizer, length=length, long_prompt="shorten")
    assert formatter.text(prompt(LONG, 1)) == "fold the cloth, Advantage: 1\n"
    assert len(formatter.tokens(prompt(LONG, 100))) == length


def test_a_long_task_is_refused_before_any_frame_is_read(tokenizer: Tokenizer) -> None:
    length = count(tokenizer, f"Task: {LONG}, State: 255 255;\nAction: ")
    table = PromptTable((LONG,))
    assert PromptFormatter.fit("openpi", table, tokenizer, length=length, state_dim=2).cuts == {}
    with pytest.raises(DataError, match=f"the prompt has {length} tokens"):
        PromptFormatter.fit("openpi", table, tokenizer, length=length - 1, state_dim=2)


def test_tasks_that_look_the_same_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="'fold_it' and 'fold it' look the same"):
        PromptFormatter.fit("openpi", PromptTable(("fold_it", "fold it")), tokenizer, length=48, state_dim=1)


def test_tasks_that_differ_only_in_what_is_cut_are_refused(tokenizer: Tokenizer) -> None:
    table = PromptTable(("push the cup behind the red line", "push the cup into the bin"))
    length = count(tokenizer, "push the cup\nValue:")
    with pytest.raises(DataError, match="look the same"):
        PromptFormatter.fit("value", table, tokenizer, length=length, long_prompt="shorten")


def test_a_prompt_of_another_table_is_refused(tokenizer: Tokenizer) -> None:
    formatter = PromptFormatter.fit("kai0", advantage_prompts(["fold"]), tokenizer, length=48)
    with pytest.raises(UsageError, match="unknown prompt 'stack'"):
        formatter.tokens("stack")


@pytest.mark.parametrize("state", [None, [0.0], [0.0, 0.0, 0.0], [[0.0, 0.0]]])
def test_a_state_of_another_length_is_refused(tokenizer: Tokenizer, state: object) -> None:
    formatter = PromptFormatter.fit("openpi", PromptTable(("fold",)), tokenizer, length=48, state_dim=2)
    with pytest.raises(DataError, match="the state has the shape") as caught:
        formatter.tokens("fold", state)
    assert caught.value.expected == "(2,), as in training"


def test_a_state_is_refused_where_none_was_trained(tokenizer: Tokenizer) -> None:
    formatter = PromptFormatter.fit("openpi", PromptTable(("fold",)), tokenizer, length=48)
    with pytest.raises(DataError, match="the state has the shape"):
        formatter.tokens("fold", [0.0])


def test_a_state_that_is_not_finite_is_refused(tokenizer: Tokenizer) -> None:
    formatter = PromptFormatter.fit("openpi", PromptTable(("fold",)), tokenizer, length=48, state_dim=2)
    with pytest.raises(DataError, match="not finite"):
        formatter.tokens("fold", [np.nan, 0.0])


class Joining:
    """A token a word, but twenty for one pair of bins, which stand for pieces that join across a space."""

    digest = "0" * 64
    calls = 0

    def encode(self, text: str, *, bos: bool) -> list[int]:
        self.calls += 1
        return [7] * (bos + len(text.split()) + 20 * ("200 201" in text))


def test_a_state_that_makes_a_prompt_too_long_is_found_before_training() -> None:
    encoder = Joining()
    table = advantage_prompts(["fold"])
    formatter = PromptFormatter.fit("kai0", table, encoder, length=20, state_dim=3)
    states = (2 * np.array([[1, 200, 202], [9, 200, 201], [1, 200, 202]]) + 1) / 256 - 1
    encoder.calls = 0
    formatter.check_states("fold", states[[0, 2]])
    assert encoder.calls == 2  # the shortest text, to count its bytes, and that of two equal states
    with pytest.raises(DataError, match="the prompt has 28 tokens"):
        formatter.check_states("fold", states)
    roomy = PromptFormatter.fit("kai0", table, encoder, length=90, state_dim=3)
    encoder.calls = 0
    roomy.check_states("fold", states)
    assert encoder.calls == 1  # fewer bytes than 90


def test_a_state_is_filled_up_as_kai0_pads_it(tokenizer: Tokenizer) -> None:
    formatter = PromptFormatter.fit("kai0", PromptTable(("fold",)), tokenizer, length=64, state_dim=5)
    filled = formatter.filled(np.array([[0.0, 1.0]]))
    assert filled.shape == (1, 5)
    assert formatter.text("fold", filled[0]) == "Task: fold, State: 128 255 0 0 0;\nAction: "
    with pytest.raises(DataError, match="a state has 6 numbers"):
        formatter.filled(np.zeros((2, 6)))


def test_another_tokenizer_than_in_training_is_refused(tokenizer: Tokenizer) -> None:
    formatter = PromptFormatter.fit("openpi", PromptTable(("fold",)), tokenizer, length=48)
    storage.write_bytes("memory://models/other.model", tiny_tokenizer(600))
    other = Tokenizer.load("memory://models/other.model", vocabulary=600)
    with pytest.raises(DataError, match=f"the tokenizer has the digest {other.digest}"):
        PromptFormatter.from_dict(formatter.to_dict(), other)


TASKS = st.lists(st.sampled_from(LONG.split()), min_size=1, max_size=12).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["kai0", "pistar"]), TASKS, st.integers(0, 3), st.integers(0, 20), st.data())
def test_serving_reads_what_training_read(
    tokenizer: Tokenizer, name: str, task: str, state_dim: int, room: int, data: st.DataObject
) -> None:
    table = advantage_prompts([task])
    # Room for the first word, the longest label and the longest state, and for up to 20 tokens more.
    least = render(name, task.split()[0], "negative", [1.0] * state_dim if state_dim else None)
    length = count(tokenizer, least) + room
    training = PromptFormatter.fit(name, table, tokenizer, length=length, state_dim=state_dim, long_prompt="shorten")
    serving = PromptFormatter.from_dict(json.loads(json.dumps(training.to_dict())), tokenizer)
    state = data.draw(st.lists(st.floats(-2, 2), min_size=state_dim, max_size=state_dim)) if state_dim else None
    for label in (None, "negative", "positive"):
        tokens = training.tokens(prompt(task, label), state)
        assert serving.tokens(prompt(task, label), state) == tokens
        assert len(tokens) <= length
        assert tokenizer.processor.decode(tokens) == render(name, training.tasks[task], label, state)
