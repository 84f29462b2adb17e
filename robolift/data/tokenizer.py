"""A SentencePiece tokenizer from any store, checked against the model that reads its tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robolift.data.models import read_model
from robolift.errors import DataError, UsageError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

PADDING = 0
"""Token after a text's end. A mask hides it; openpi and RECAP's value model have the same."""


@dataclass(frozen=True)
class Tokenizer:
    """PaliGemma's or Gemma's tokenizer, or any other of SentencePiece.

    Attributes:
        digest: SHA-256 (64 hex digits) of its file: the identity that a checkpoint keeps.
        processor: SentencePiece's own object.
        content: Bytes of its file, which a checkpoint keeps too.
    """

    digest: str
    processor: SentencePieceProcessor
    content: bytes

    @classmethod
    def load(cls, uri: str, *, vocabulary: int, sha256: str = "") -> Tokenizer:
        """Read a tokenizer's ``.model`` file.

        Args:
            uri: Address of the file in any store.
            vocabulary: Rows of the model's token embedding: 257152 for PaliGemma, 262144 for Gemma 3.
            sha256: What the file's SHA-256 must be; empty: anything.

        Raises:
            UsageError: If there is no such file, or SentencePiece is not installed.
            DataError: If it is another file than expected, not a SentencePiece model, has no token that begins a
                sequence, or belongs to a model of another vocabulary.
        """
        try:
            import sentencepiece  # noqa: PLC0415  (a library of the extra `full` alone)
        except ModuleNotFoundError as error:
            raise UsageError(f"tokenizers can't be read: {error}\n  mend: pip install 'robolift[full]'") from error
        content = read_model(uri)
        digest = hashlib.sha256(content).hexdigest()
        if sha256 and digest != sha256:
            raise DataError(
                f"the tokenizer's file has the SHA-256 {digest}",
                where=uri,
                expected=sha256,
                mend="restore the tokenizer that was meant, or give the SHA-256 of this one",
            )
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise DataError(
                "not a SentencePiece model", where=uri, expected="the .model file of PaliGemma's or Gemma's tokenizer"
            ) from error
        _check(processor, vocabulary, uri)
        return cls(digest, processor, content)

    def encode(self, text: str, *, bos: bool) -> list[int]:
        """Return the tokens of a text, after the token that begins a sequence if ``bos``."""
        tokens: list[int] = self.processor.encode(text, add_bos=bos)
        return tokens

    @staticmethod
    def pad(tokens: Sequence[int], length: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Return the tokens filled up at the end, (L,) int32, and a mask that is true on the given ones, (L,) bool.

        Raises:
            DataError: If there are more than ``length``; nothing is ever cut.
        """
        if len(tokens) > length:
            raise DataError(f"{len(tokens)} tokens", expected=f"at most {length}", mend="raise max_token_len")
        mask = np.arange(length) < len(tokens)
        padded = np.full(length, PADDING, np.int32)
        padded[: len(tokens)] = tokens
        return padded, mask


def _check(processor: SentencePieceProcessor, vocabulary: int, uri: str) -> None:
    if processor.vocab_size() != vocabulary:
        raise DataError(
            f"the tokenizer has {processor.vocab_size()} pieces",
            where=uri,
            expected=f"{vocabulary}, the rows of the model's token embedding",
            mend="give the tokenizer that the weights were trained with",
        )
    if processor.bos_id() < 0:
        raise DataError(
            "the tokenizer has no token that begins a sequence", where=uri, expected="PaliGemma's or Gemma's"
        )
