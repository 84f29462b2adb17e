"""Take people's comparisons, from the labelling page's events or a CSV, and measure how far they can be trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from robolift import schema, storage
from robolift.annotators.agreement import krippendorff_alpha
from robolift.annotators.review.events import FOLDER, by_annotator_and_item, list_objects, read_object
from robolift.annotators.review.fold import alive, fold_item
from robolift.annotators.review.job import PAIRS_FILE
from robolift.annotators.review.pairs import ByClip, read_pairs
from robolift.clips import preferences
from robolift.clips.inputs import Clips
from robolift.clips.preferences import Answer
from robolift.errors import DataError, UsageError
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "pairs": Input(kind=Kind.PAIRS, optional=True),
    "clips": Input(kind=Kind.CLIPS),
}
OUTPUT = Kind.PREFERENCES
READERS = 16
TABLE = pa.schema([pa.field(name, pa.string(), nullable=False) for name in preferences.COLUMNS])


class Config(StageConfig):
    """Where the comparisons lie, and what counts."""

    preferences_uri: str = Field(min_length=1)
    """Folder that the labelling page wrote to (needs the input pairs), or a CSV:
    pair_id,clip_a_id,clip_b_id,preference,timestamp,annotator_id."""
    duplicates: Literal["refuse", "last"] = "last"
    """What becomes of a pair that one annotator answered twice: the `last` answer counts (repeats are pairs of their
    own). On the labelling page a person changes an answer; that is no duplicate."""
    min_annotator_consistency: float = Field(default=0.0, ge=0, le=1)
    """Annotators who agree with themselves on repeated pairs less often are left out, if they had at least five."""


# By address, the objects that the identity covers. People may go on comparing while the stage runs; what they store
# after the identity was worked out belongs to the next import.
_planned: dict[str, list[str]] = {}


def identity(config: Config) -> dict[str, Any]:
    """Return what else decides the result: the comparisons, by their bytes."""
    uri = storage.normalize(config.preferences_uri)
    _planned[uri] = list_objects(uri)
    if not _planned[uri] and (storage.info(uri) or {}).get("type") == "directory":
        raise DataError(
            "the folder holds no events of the labelling page",
            where=uri,
            expected=f"objects below {FOLDER}, or the address of a CSV",
            mend="give the folder that `robolift review --labels` names",
        )
    names = [storage.join(uri, name) for name in _planned[uri]] or [uri]
    with ThreadPoolExecutor(READERS) as pool:
        return {"preferences": list(pool.map(_sha256, names))}


def _sha256(uri: str) -> str:
    return hashlib.sha256(storage.read_bytes(uri)).hexdigest()


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``preferences.parquet`` and ``agreement.json``."""
    uri = storage.normalize(config.preferences_uri)
    clips = Clips.open(inputs.one("clips"))
    pairs = _pairs(inputs)
    if pairs is not None and _planned[uri]:
        _check_shown(uri, pairs, clips)
    answers, skipped = _events(uri, pairs) if _planned[uri] else _csv(uri)
    preferences.check_known(answers, clips.clip_id, where=uri)
    if pairs is not None:
        preferences.check_pairs(answers, pairs, where=uri)
    counted, twice = preferences.settle(answers, duplicates=config.duplicates, where=uri)
    left_out = preferences.inconsistent(counted, min_consistency=config.min_annotator_consistency)
    kept = [answer for answer in counted if answer.annotator_id not in left_out]
    if not kept:
        raise DataError("no comparison counts", where=uri, expected="at least one", mend="compare some pairs")
    columns = {name: [getattr(answer, name) for answer in kept] for name in TABLE.names}
    schema.write_table(output.path / "preferences.parquet", pa.table(columns, schema=TABLE))
    described = {
        **preferences.describe(kept),
        "alpha": alpha(kept),
        "duplicates": len(twice),
        "skipped": skipped,
        "annotators": [
            {
                "name": name,
                "counted": name not in left_out,
                **{
                    key: value
                    for key, value in preferences.describe(own).items()
                    if key in ("annotations", "ties", "repeats", "repeat_consistency", "accuracy_ceiling")
                },
            }
            for name, own in preferences.by_annotator(counted).items()
        ],
    }
    output.write_json("agreement.json", described)
    output.metrics.update({key: described[key] for key in ("alpha", "repeat_consistency", "accuracy_ceiling")})
    return {
        "annotations": len(kept),
        "pairs": described["pairs"],
        "ties": described["ties"],
        "annotators": len({answer.annotator_id for answer in kept}),
        "left_out": len(counted) - len(kept),
        "skipped": len(skipped),
    }


def _pairs(inputs: Inputs) -> dict[str, tuple[str, str]] | None:
    """Return the clips of each proposed pair, by its id."""
    manifest = inputs.get_one("pairs")
    if manifest is None:
        return None
    table = schema.read_parquet(manifest.file("pairs.parquet"))
    columns = [table.column(name).to_pylist() for name in ("pair_id", "clip_a_id", "clip_b_id")]
    return {pair_id: (a, b) for pair_id, a, b in zip(*columns, strict=True)}


def _check_shown(uri: str, pairs: Mapping[str, tuple[str, str]], clips: Clips) -> None:
    """Check that the pairs that the page showed are these: events name a pair by its id alone.

    A folder that simulated people wrote to holds no pairs.

    Raises:
        DataError: If an id stood for other clips, or a clip that was shown is not known.
    """
    kept = storage.join(uri, PAIRS_FILE)
    for pair_id, shown in read_pairs(kept, ByClip(clips.clip_id, clips.num_frames)).items():
        if pair_id in pairs and pairs[pair_id] != shown.ids:
            raise DataError(
                f"pair {pair_id} was shown as {' and '.join(shown.ids)}, and is {' and '.join(pairs[pair_id])} here",
                where=kept,
                expected="the pairs that people were shown",
                mend="give the PairSet that the page was started with",
            )


def _csv(uri: str) -> tuple[list[Answer], list[dict[str, str]]]:
    return preferences.read_csv(storage.read_bytes(uri), where=uri), []


def _events(uri: str, pairs: Mapping[str, tuple[str, str]] | None) -> tuple[list[Answer], list[dict[str, str]]]:
    """Return what people said on the labelling page about pairs they completed, and what they passed over."""
    if pairs is None:
        raise UsageError(f"import_preferences of the labelling page's events at {uri} needs the input pairs")
    events = (event for name in _planned[uri] for event in read_object(storage.join(uri, name), ()))
    answers, skipped = [], []
    for (annotator, item), found in by_annotator_and_item(events).items():
        pair_id = item.partition(":")[2]
        state = fold_item(found, 0)
        if pair_id not in pairs:
            raise DataError(
                f"{annotator} compared pair {pair_id}, which was not proposed",
                where=storage.join(uri, FOLDER),
                expected=f"one of {len(pairs)} pairs",
                mend="give the pairs that were shown",
            )
        if state.skipped is not None:
            skipped.append({"annotator": annotator, "pair_id": pair_id, "reason": state.skipped})
        if not state.complete or state.preference is None:
            continue
        said = [event for event in alive(found) if event.op == "prefer"][-1]
        moment = datetime.fromtimestamp(said.at_ms / 1000, tz=UTC).isoformat(timespec="milliseconds")
        a, b = pairs[pair_id]
        answers.append(
            Answer(
                pair_id=pair_id,
                clip_a_id=a,
                clip_b_id=b,
                preference=state.preference,
                timestamp=moment,
                annotator_id=annotator,
            )
        )
    return answers, skipped


def alpha(answers: Sequence[Answer]) -> float | None:
    """Return Krippendorff's alpha over the pairs that several people answered, A, B and tie being names.

    A repeat is a pair of its own, so that nobody counts as agreeing with himself.
    """
    names = {name: row for row, name in enumerate(sorted({answer.annotator_id for answer in answers}))}
    pairs = {pair_id: column for column, pair_id in enumerate(sorted({answer.pair_id for answer in answers}))}
    values = np.full((len(names), len(pairs)), np.nan)
    for answer in answers:
        values[names[answer.annotator_id], pairs[answer.pair_id]] = preferences.CHOICES.index(answer.preference)
    return krippendorff_alpha(values, level="nominal")
