from __future__ import annotations

import pytest

from robolift.errors import DataError, UsageError
from robolift.labeling.prompts import PromptTable, advantage_prompts, prompt


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (None, "fold the cloth"),
        ("positive", "fold the cloth, Advantage: positive"),
        ("negative", "fold the cloth, Advantage: negative"),
        (0, "fold the cloth, Advantage: 0"),
        (9, "fold the cloth, Advantage: 9"),
    ],
)
def test_prompt_text(label: str | int | None, expected: str) -> None:
    assert prompt("fold the cloth", label) == expected


@pytest.mark.parametrize("label", ["none", "Positive", "", -1, True])
def test_a_label_without_a_prompt_is_refused(label: str | int) -> None:
    with pytest.raises(UsageError, match="no prompt for label") as caught:
        prompt("fold", label)
    assert caught.value.exit_code == 64


def test_binary_table_holds_bare_negative_positive_for_each_task_in_order() -> None:
    table = advantage_prompts(["stack", "fold"])
    assert table.prompts == (
        "stack",
        "stack, Advantage: negative",
        "stack, Advantage: positive",
        "fold",
        "fold, Advantage: negative",
        "fold, Advantage: positive",
    )
    assert len(table) == 6
    assert table[5] == "fold, Advantage: positive"
    assert [table.index(text) for text in table.prompts] == [0, 1, 2, 3, 4, 5]


def test_slice_table_counts_from_zero() -> None:
    table = advantage_prompts(["fold"], num_slices=3)
    assert table.prompts == ("fold", "fold, Advantage: 0", "fold, Advantage: 1", "fold, Advantage: 2")


def test_the_task_text_is_kept_as_it_is() -> None:
    assert advantage_prompts(["Flatten_and fold.\n"])[2] == "Flatten_and fold.\n, Advantage: positive"


def test_an_unknown_prompt_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown prompt 'fold, Advantage: 7'") as caught:
        advantage_prompts(["fold"]).index("fold, Advantage: 7")
    assert "fold, Advantage: positive" in str(caught.value)
    assert caught.value.exit_code == 64


@pytest.mark.parametrize("tasks", [["fold", ""], ["  "]])
def test_a_task_without_text_is_refused(tasks: list[str]) -> None:
    with pytest.raises(DataError, match="a task has no text"):
        advantage_prompts(tasks)


@pytest.mark.parametrize("tasks", [["fold", "fold"], ["fold", "fold, Advantage: positive"]])
def test_two_equal_prompts_are_refused(tasks: list[str]) -> None:
    with pytest.raises(DataError, match="stand twice"):
        advantage_prompts(tasks)


def test_round_trip_through_json_document() -> None:
    table = advantage_prompts(["fold", "stack"], num_slices=4)
    assert PromptTable.from_dict(table.to_dict()) == table


@pytest.mark.parametrize("document", [{}, {"prompts": "fold"}, {"prompts": [1]}])
def test_a_document_that_is_no_table_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(DataError, match="not a prompt table"):
        PromptTable.from_dict(document)
