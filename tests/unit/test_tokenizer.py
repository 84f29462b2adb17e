from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizer import VOCABULARY, tiny_tokenizer

from robolift import storage
from robolift.data.tokenizer import Tokenizer
from robolift.errors import DataError, UsageError


@pytest.fixture(scope="module")
def tokenizer(tokenizer_uri: str) -> Tokenizer:
    return Tokenizer.load(tokenizer_uri, vocabulary=VOCABULARY)


def test_the_tokenizer_of_the_tests_is_the_same_bytes_each_time() -> None:
    assert tiny_tokenizer() == tiny_tokenizer()


def test_its_identity_is_the_sha256_of_its_file(tokenizer: Tokenizer, tokenizer_uri: str) -> None:
    assert tokenizer.digest == hashlib.sha256(storage.read_bytes(tokenizer_uri)).hexdigest()
    again = Tokenizer.load(tokenizer_uri, vocabulary=VOCABULARY, sha256=tokenizer.digest)
    assert again.encode("fold the cloth", bos=True) == tokenizer.encode("fold the cloth", bos=True)


def test_any_store_will_do(tokenizer: Tokenizer, tokenizer_uri: str) -> None:
    storage.write_bytes("memory://models/tiny.model", storage.read_bytes(tokenizer_uri))
    assert Tokenizer.load("memory://models/tiny.model", vocabulary=VOCABULARY).digest == tokenizer.digest


def test_the_beginning_of_a_sequence_is_marked_only_when_asked_for(tokenizer: Tokenizer) -> None:
    bare = tokenizer.encode("fold the cloth", bos=False)
    assert tokenizer.encode("fold the cloth", bos=True) == [2, *bare]
    assert [tokenizer.processor.id_to_piece(token) for token in bare][1:] == ["▁the", "▁cloth"]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0▁")))
def test_no_character_is_lost(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.processor.decode(tokenizer.encode(text, bos=True)) == text


def test_padding_fills_up_and_masks() -> None:
    tokens, mask = Tokenizer.pad([2, 7, 0], 5)
    assert (tokens.dtype, mask.dtype) == (np.int32, np.bool_)
    assert tokens.tolist() == [2, 7, 0, 0, 0]
    assert mask.tolist() == [True, True, True, False, False]


def test_tokens_of_just_the_length_are_not_padded() -> None:
    tokens, mask = Tokenizer.pad([2, 7], 2)
    assert tokens.tolist() == [2, 7]
    assert mask.all()


def test_padding_never_cuts() -> None:
    with pytest.raises(DataError, match="3 tokens") as caught:
        Tokenizer.pad([2, 7, 9], 2)
    assert caught.value.expected == "at most 2"


def test_a_process_that_loads_data_gets_a_copy(tokenizer: Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.digest == tokenizer.digest
    assert copy.encode("turn the lever", bos=True) == tokenizer.encode("turn the lever", bos=True)


def test_another_file_than_expected_is_refused(tokenizer: Tokenizer, tokenizer_uri: str) -> None:
    with pytest.raises(DataError, match=f"SHA-256 {tokenizer.digest}") as caught:
        Tokenizer.load(tokenizer_uri, vocabulary=VOCABULARY, sha256="0" * 64)
    assert caught.value.expected == "0" * 64
    assert caught.value.where == tokenizer_uri


def test_a_tokenizer_of_another_model_is_refused(tokenizer_uri: str) -> None:
    with pytest.raises(DataError, match="has 1024 pieces") as caught:
        Tokenizer.load(tokenizer_uri, vocabulary=257_152)
    assert "257152" in caught.value.expected


def test_a_file_of_another_kind_is_refused() -> None:
    storage.write_bytes("memory://models/tokenizer.json", b'{"model": {}}')
    with pytest.raises(DataError, match="not a SentencePiece model"):
        Tokenizer.load("memory://models/tokenizer.json", vocabulary=VOCABULARY)


def test_an_empty_file_is_refused() -> None:
    storage.write_bytes("memory://models/empty.model", b"")
    with pytest.raises(DataError, match="has 0 pieces"):
        Tokenizer.load("memory://models/empty.model", vocabulary=VOCABULARY)


def test_a_tokenizer_without_a_beginning_is_refused() -> None:
    storage.write_bytes("memory://models/no_bos.model", tiny_tokenizer(bos_id=-1))
    with pytest.raises(DataError, match="no token that begins a sequence"):
        Tokenizer.load("memory://models/no_bos.model", vocabulary=VOCABULARY)


def test_an_address_without_a_file_is_refused() -> None:
    with pytest.raises(UsageError, match="no model at"):
        Tokenizer.load("memory://models/missing.model", vocabulary=VOCABULARY)


def test_importing_the_module_loads_no_library() -> None:
    code = "import sys, robolift.data.tokenizer; sys.exit('sentencepiece' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
