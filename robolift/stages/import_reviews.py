"""Take what people marked on the labelling page as rewards: their events, folded into one table."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from robolift import storage
from robolift.annotators.review.consensus import Consensus, consensus, stage_of_frames, stage_progress
from robolift.annotators.review.events import FOLDER, Event, by_annotator_and_item, list_objects, read_object
from robolift.annotators.review.fold import UNKNOWABLE, State, alive, first_pass, fold_item, item_length, reopened
from robolift.annotators.review.job import (
    GOLD_FILE,
    JOB_FILE,
    PAIRS_FILE,
    Job,
    check_dataset,
    read_gold,
    read_job,
)
from robolift.annotators.review.pairs import ByFrames, Pair, read_pairs
from robolift.annotators.review.progress import agreement, gold_accuracy
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {"dataset": Input(kind=Kind.DATASET)}
OUTPUT = Kind.REWARDS
READERS = 16
PREFERENCE_COLUMNS = ("pair_id", "clip_a_id", "clip_b_id", "preference", "timestamp", "annotator_id")

States = Mapping[tuple[str, str], State]


class Config(StageConfig):
    """Where people's events lie, and what counts."""

    reviews_uri: str = ""
    """Folder that the labelling page wrote to (`robolift review --labels`). Empty: nobody labelled yet."""
    min_annotators: int = Field(default=1, ge=1)
    """People who must have completed an episode before it counts."""
    min_gold_accuracy: float = Field(default=0.0, ge=0, le=1)
    """Annotators whose answers to gold items are right less often are left out."""


# By address, the objects that the identity covers. People may go on labelling while the stage runs; what they store
# after the identity was worked out belongs to the next import.
_planned: dict[str, list[str]] = {}


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``rewards.parquet`` (a row for every frame), ``reviews.json`` and ``preferences.csv``."""
    dataset = Dataset.open(inputs.one("dataset"))
    lengths = dataset.episodes.column("length").to_pylist()
    if not config.reviews_uri:
        output.write_table("rewards", _table(dataset, {}, Job(dataset=())))
        output.write_json("reviews.json", {"annotators": [], "episodes": {"total": len(lengths), "used": 0}})
        _write_preferences(output, [])
        return {"episodes": len(lengths), "frames": dataset.num_frames, "labelled": 0, "preferences": 0, "events": 0}

    uri = storage.normalize(config.reviews_uri)
    job = read_job(uri)
    check_dataset(job, dataset, where=storage.join(uri, JOB_FILE))
    gold = read_gold(storage.join(uri, GOLD_FILE), lengths)
    pairs = read_pairs(storage.join(uri, PAIRS_FILE), ByFrames(lengths))
    groups = _read(uri, lengths)
    states = {key: fold_item(found, item_length(key[1], lengths)) for key, found in groups.items()}
    first = {key: fold_item(first_pass(found), item_length(key[1], lengths)) for key, found in groups.items()}
    accuracy = gold_accuracy(first, gold)
    trusted = {name for name, _ in states if name not in accuracy or accuracy[name] >= config.min_gold_accuracy}
    whole = {key: state for key, state in states.items() if state.complete and not job.missing(key[1], state)}
    counted = {key: state for key, state in whole.items() if key[0] in trusted}
    common = _consensus(counted, job, min_annotators=config.min_annotators)

    output.write_table("rewards", _table(dataset, common, job))
    preferences = _preferences(counted, groups, pairs)
    _write_preferences(output, preferences)
    agreed = agreement(
        {key: state for key, state in first.items() if key[0] in trusted and not job.missing(key[1], state)}
    )
    output.write_json(
        "reviews.json",
        {
            "ask": list(job.ask),
            "annotators": _people(states, whole, accuracy, trusted),
            "episodes": _episodes(states, counted, common, total=len(lengths)),
            "agreement": agreed,
            "reopened": sum(map(reopened, groups.values())),
            "skips": [
                {"item": item, "annotator": name, "reason": state.skipped}
                for (name, item), state in sorted(states.items(), key=lambda entry: (entry[0][1], entry[0][0]))
                if state.skipped
            ],
        },
    )
    output.metrics.update(
        {"agreement": agreed, "gold_accuracy": accuracy, "left_out": len({n for n, _ in states} - trusted)}
    )
    return {
        "episodes": len(lengths),
        "frames": dataset.num_frames,
        "labelled": len(common),
        "preferences": len(preferences),
        "events": sum(map(len, groups.values())),
    }


def identity(config: Config) -> dict[str, Any]:
    """Return what else decides the result: the events, the job's rules and its gold items, by their bytes."""
    if not config.reviews_uri:
        return {}
    uri = storage.normalize(config.reviews_uri)
    _planned[uri] = list_objects(uri)
    names = [name for name in (JOB_FILE, GOLD_FILE, PAIRS_FILE) if storage.exists(storage.join(uri, name))]
    names += _planned[uri]

    def sha256(name: str) -> str:
        return hashlib.sha256(storage.read_bytes(storage.join(uri, name))).hexdigest()

    with ThreadPoolExecutor(READERS) as pool:
        return {"reviews": storage.digest_of(dict(zip(names, pool.map(sha256, names), strict=True)))}


def _read(uri: str, lengths: Sequence[int]) -> dict[tuple[str, str], list[Event]]:
    """Return everybody's events by (annotator, item)."""
    uris = [storage.join(uri, name) for name in _planned[uri]]
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda address: read_object(address, lengths), uris))
    return by_annotator_and_item(event for events in found for event in events)


def _consensus(counted: States, job: Job, *, min_annotators: int) -> dict[int, Consensus]:
    """Return the common word on each episode that enough people completed, by its number."""
    by_episode: dict[int, dict[str, State]] = {}
    for (name, item), state in counted.items():
        kind, _, number = item.partition(":")
        if kind == "episode":
            by_episode.setdefault(int(number), {})[name] = state
    return {
        number: consensus(found, ask=job.ask)
        for number, found in sorted(by_episode.items())
        if len(found) >= min_annotators
    }


def _table(dataset: Dataset, common: Mapping[int, Consensus], job: Job) -> pa.Table:
    """Return the rewards of every frame; where nobody could say anything the row is all null."""
    size = dataset.num_frames
    columns = {name: np.full(size, np.nan) for name in ("progress", "success_prob", "tri", "reward", "stage")}
    confidence, anchor = np.full(size, np.nan), np.zeros(size, bool)
    for episode, found in common.items():
        rows = slice(int(dataset.starts[episode]), int(dataset.starts[episode + 1]))
        columns["tri"][rows] = np.where(found.tri < UNKNOWABLE, found.tri, np.nan)
        columns["reward"][rows] = np.where(found.frames < UNKNOWABLE, found.frames, np.nan)
        if found.outcome is not None:
            columns["success_prob"][rows] = found.outcome == "success"
        if "stages" in job.ask and found.boundaries is not None:
            length = len(found.tri)
            columns["stage"][rows] = stage_of_frames(found.boundaries, length)
            # Where people are even about the outcome, nobody knows whether the last stage was finished.
            finished = found.outcome == "success" or "outcome" not in job.ask
            columns["progress"][rows] = stage_progress(found.boundaries, length, job.num_task_stages, finished=finished)
        confidence[rows], anchor[rows] = found.confidence, found.marked
    said = ~np.all([np.isnan(column) for column in columns.values()], axis=0)
    types = {"tri": pa.int8(), "stage": pa.int16()}
    arrays = {
        name: pa.array(column, type=pa.float64(), mask=np.isnan(column)).cast(types.get(name, pa.float32()))
        for name, column in {**columns, "confidence": np.where(said, confidence, np.nan)}.items()
    }
    return pa.table(
        {
            **dataset.keys(0, dataset.num_frames),
            **arrays,
            "anchor": anchor & said,
            "source": np.where(said, "human", "none"),
        }
    )


def _people(states: States, whole: States, accuracy: Mapping[str, float], trusted: set[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "completed": sum(person == name for person, _ in whole),
            "skipped": sum(person == name and state.skipped is not None for (person, _), state in states.items()),
            "half_done": sum(
                person == name and state.skipped is None and (person, item) not in whole
                for (person, item), state in states.items()
            ),
            "gold_accuracy": accuracy.get(name),
            "counted": name in trusted,
        }
        for name in sorted({name for name, _ in states})
    ]


def _episodes(states: States, counted: States, common: Mapping[int, Consensus], *, total: int) -> dict[str, Any]:
    def touched(keys: States) -> set[int]:
        return {int(item.partition(":")[2]) for _, item in keys if item.startswith("episode:")}

    completed = touched(counted)
    half_done = touched({key: state for key, state in states.items() if state.skipped is None}) - completed
    return {
        "total": total,
        "used": len(common),
        "too_few_annotators": len(completed - set(common)),
        "half_done": len(half_done),
        "disagreement": [
            {"episode_index": number, "disagreement": found.disagreement}
            for number, found in common.items()
            if found.disagreement is not None
        ],
    }


def _preferences(
    counted: States, groups: Mapping[tuple[str, str], list[Event]], pairs: Mapping[str, Pair]
) -> list[dict[str, str]]:
    """Return a row for each person and pair, in order."""
    rows = []
    for name, item in sorted(counted, key=lambda key: (key[1], key[0])):
        kind, _, pair_id = item.partition(":")
        if kind != "pair":
            continue
        if pair_id not in pairs:
            raise DataError(
                f"pair {pair_id} was labelled and is not in {PAIRS_FILE}",
                where=f"{FOLDER} of {name}",
                expected="the pairs that were shown",
                mend=f"restore {PAIRS_FILE} in the labels folder",
            )
        said = [event for event in alive(groups[name, item]) if event.op == "prefer"][-1]
        moment = datetime.fromtimestamp(said.at_ms / 1000, tz=UTC)
        texts = (pair_id, *pairs[pair_id].ids, said.value, moment.isoformat(timespec="milliseconds"), name)
        rows.append(dict(zip(PREFERENCE_COLUMNS, texts, strict=True)))
    return rows


def _write_preferences(output: Output, rows: Sequence[Mapping[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, PREFERENCE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    storage.write_bytes(str(output.path / "preferences.csv"), text.getvalue().encode())
