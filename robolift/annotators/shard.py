"""The files of one shard of episodes: what a model's answers say, every answer, and the episodes without a label."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from robolift import schema, storage
from robolift.annotators.ask import Verdict
from robolift.annotators.messages import Answer
from robolift.annotators.protocol import ParseError
from robolift.json_numbers import finite

ANCHORS_FILE, ANSWERS_FILE, ERRORS_FILE = "anchors.parquet", "answers.parquet", "errors.json"
ANCHORS = pa.schema(
    [
        pa.field("episode_index", pa.int64(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("progress", pa.float32()),
        pa.field("success_prob", pa.float32()),
        pa.field("confidence", pa.float32()),
        pa.field("asked", pa.bool_(), nullable=False),
    ]
)
ANSWERS = pa.schema(
    [
        pa.field("episode_index", pa.int64(), nullable=False),
        pa.field("request", pa.int32(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("logprobs", pa.string(), nullable=False),
        pa.field("input_tokens", pa.int64()),
        pa.field("output_tokens", pa.int64()),
        pa.field("parsed", pa.bool_(), nullable=False),
    ]
)


def in_shard(episode_index: int, shard: int, num_shards: int) -> bool:
    """Tell whether an episode belongs to a shard: by a checksum of its number, so that long episodes spread evenly."""
    return zlib.crc32(str(episode_index).encode()) % num_shards == shard


def write_shard(folder: Path, verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Write ``anchors.parquet``, ``answers.parquet`` and ``errors.json``, and return what they hold.

    Args:
        folder: Where to.
        verdicts: By ascending episode.

    Returns:
        ``episodes``, those ``labelled``, those with ``errors``, ``requests`` (tries after a lost connection don't
        count), and the tokens that the transport told of.
    """
    anchors = [
        {"episode_index": verdict.episode_index, **vars(anchor)} for verdict in verdicts for anchor in verdict.anchors
    ]
    answers = [row for verdict in verdicts for row in _answer_rows(verdict)]
    errors = [_error(verdict) for verdict in verdicts if verdict.failures]
    schema.write_table(folder / ANCHORS_FILE, pa.Table.from_pylist(anchors, schema=ANCHORS))
    schema.write_table(folder / ANSWERS_FILE, pa.Table.from_pylist(answers, schema=ANSWERS))
    storage.write_bytes(str(folder / ERRORS_FILE), storage.to_json_bytes(errors))
    return {
        "episodes": len(verdicts),
        "labelled": sum(bool(verdict.anchors) for verdict in verdicts),
        "errors": len(errors),
        "requests": len(answers),
        "input_tokens": sum(row["input_tokens"] or 0 for row in answers),
        "output_tokens": sum(row["output_tokens"] or 0 for row in answers),
    }


def _answer_rows(verdict: Verdict) -> Iterator[dict[str, Any]]:
    for request, (answers, parsed) in enumerate(zip(verdict.attempts, verdict.parsed, strict=True)):
        for attempt, (answer, readable) in enumerate(zip(answers, parsed, strict=True)):
            yield {
                "episode_index": verdict.episode_index,
                "request": request,
                "attempt": attempt,
                "answer": said(answer),
                "logprobs": _json(dict(answer.logprobs)),
                "input_tokens": answer.input_tokens,
                "output_tokens": answer.output_tokens,
                "parsed": readable,
            }


def said(answer: Answer) -> str:
    """Return an answer's text, or its heads' values as JSON."""
    if not answer.progress:
        return answer.text
    return _json(finite({"progress": answer.progress, "success": answer.success}))


def _json(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _error(verdict: Verdict) -> dict[str, Any]:
    first = verdict.failures[0]
    more = f" ({len(verdict.failures)} questions in all)" if len(verdict.failures) > 1 else ""
    return {
        "episode_index": verdict.episode_index,
        "class": ParseError.__name__,
        "message": f"question {first.request}: {first.message}{more}",
        "answers": [said(answer) for answer in verdict.attempts[first.request]],
    }
