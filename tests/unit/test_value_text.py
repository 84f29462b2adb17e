from __future__ import annotations

import pytest

from robolift.errors import DataError
from robolift.value_model.text import PADDING, token_table, tokenize


def test_tokens_are_words_and_pairs_and_never_change():
    # crc32 of "fold", "the", "cloth", "fold the", "the cloth", modulo 1024: stored weights depend on them.
    assert tokenize("Fold the cloth.", 1024) == [564, 486, 958, 831, 942]


def test_word_order_matters_and_case_does_not():
    assert sorted(tokenize("put a on b", 1024)) != sorted(tokenize("put b on a", 1024))
    assert tokenize("Put A on B!", 1024) == tokenize("put a on b", 1024)


def test_the_table_is_filled_up():
    table = token_table(["fold", "fold the cloth"], 1024)
    assert table.shape == (2, 5)
    assert table[0].tolist() == [564, *[PADDING] * 4]


def test_tasks_that_look_the_same_are_refused_and_both_named():
    with pytest.raises(DataError, match=r"'fold it'.*'Fold it!'"):
        token_table(["fold it", "Fold it!"], 1024)


def test_a_task_without_words_is_refused():
    with pytest.raises(DataError, match=r"'\?\?' has no word"):
        token_table(["??"], 1024)
