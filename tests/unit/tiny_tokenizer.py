"""A small SentencePiece tokenizer, made like PaliGemma's: no text is normalized, digits and line ends stand alone."""

from __future__ import annotations

import io
import itertools

VERBS = ("fold", "stack", "push", "open", "close", "hang", "sort", "insert", "flatten", "lift", "press", "turn")
NOUNS = ("cloth", "block", "drawer", "door", "shirt", "plug", "cup", "button", "lever", "window", "towel", "box")
PLACES = ("on the table", "into the bin", "with both hands", "behind the red line", "carefully and slowly")
NUM_TEXT_PIECES = 512
"""Bytes and what is learned from the corpus."""
VOCABULARY = 1024
"""That of the policy preset `dummy`."""


def corpus() -> list[str]:
    """Sentences of robot tasks, each in the formats that models read."""
    tasks = [f"{verb} the {noun} {place}" for verb, noun, place in itertools.product(VERBS, NOUNS, PLACES)]
    labels = ("positive", "negative")
    lines = [f"Task: {task}, State: 1 2, Advantage: {labels[i % 2]};" for i, task in enumerate(tasks)]
    return [*lines, *(f"{task}, Advantage: {labels[i % 2]}" for i, task in enumerate(tasks)), "Action: ", "Value:"]


def tiny_tokenizer(vocabulary: int = VOCABULARY, *, bos_id: int = 2) -> bytes:
    """Train one and return its file: the same bytes each time, in a fraction of a second.

    Args:
        vocabulary: Pieces, at least 512; as PaliGemma's, it is filled up with names of places in a picture.
        bos_id: Token that begins a sequence, -1 for none.
    """
    import sentencepiece

    places = [f"<loc{i:04d}>" for i in range(vocabulary - NUM_TEXT_PIECES)]
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=file,
        model_type="bpe",
        vocab_size=vocabulary,
        pad_id=0,
        eos_id=1,
        bos_id=bos_id,
        unk_id=3,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=True,
        byte_fallback=True,
        user_defined_symbols=["\n", *places],
        num_threads=1,
        minloglevel=2,
    )
    return file.getvalue()
