"""What asking about each episode takes, worked out from the table of episodes alone: no frame, no video is read."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robolift import schema, storage
from robolift.annotators.labeller import NOBODY, Labeller
from robolift.annotators.prompts import Prompt, parse_prompt
from robolift.annotators.protocols import PROTOCOLS
from robolift.annotators.sampling import scaled
from robolift.data.dataset import DatasetFacts
from robolift.data.lerobot_format import image_size
from robolift.errors import DataError
from robolift.manifest import Manifest

PLAN_FILE, PLAN_TABLE = "plan.json", "plan.parquet"
PLAN = pa.schema(
    [
        pa.field("episode_index", pa.int64(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("requests", pa.int32(), nullable=False),
    ]
)
BATCH_ROWS = 1 << 13
SHOWN_EPISODES = 5

PATCH = 32
"""Pixels along the side of the square that one token stands for, in the Qwen3-VL family."""
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class Load:
    """What asking about one episode takes.

    Attributes:
        requests: Questions.
        pictures: Pictures in all of them.
        output_tokens: About how long good answers are together.
    """

    requests: int
    pictures: int
    output_tokens: int


@functools.lru_cache(maxsize=1 << 14)
def load_of(labeller: Labeller, length: int) -> Load:
    """Return what asking about an episode of ``length`` frames takes."""
    if labeller.protocol == NOBODY:
        return Load(requests=0, pictures=0, output_tokens=0)
    protocol = PROTOCOLS[labeller.protocol]
    looks = protocol.looks(labeller, length)
    return Load(
        requests=len(looks),
        pictures=sum(len(look.frames) for look in looks) * len(labeller.cameras),
        output_tokens=sum(protocol.answer_tokens(look) for look in looks),
    )


def write_plan(path: Path, dataset: Manifest, labeller: Labeller) -> None:
    """Write an episode a row: its length and how many requests it takes. Memory doesn't grow with their number."""
    with pq.ParquetWriter(path, PLAN, compression="zstd") as writer:
        for batch in _batches(dataset, ["episode_index", "length"]):
            lengths = batch.column("length")
            requests = [load_of(labeller, length).requests for length in lengths.to_pylist()]
            columns = [batch.column("episode_index"), lengths, pa.array(requests, pa.int32())]
            writer.write_batch(pa.record_batch(columns, schema=PLAN))


def check_episodes(dataset: Manifest, labeller: Labeller) -> None:
    """Check that every episode can be asked about.

    Raises:
        DataError: Naming the first episodes without a task text or with too few frames.
    """
    if labeller.protocol == NOBODY:
        return
    shortest = PROTOCOLS[labeller.protocol].MIN_LENGTH
    nameless: list[int] = []
    short: list[int] = []
    for batch in _batches(dataset, ["episode_index", "length", "task"]):
        index = batch.column("episode_index").to_numpy()
        blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(batch.column("task"))), 0)
        nameless += index[blank.to_numpy(zero_copy_only=False)].tolist()
        short += index[batch.column("length").to_numpy() < shortest].tolist()
        del nameless[SHOWN_EPISODES + 1 :], short[SHOWN_EPISODES + 1 :]
    if nameless:
        raise DataError(
            "episodes have no task text, so a model can't be told what the robot should do",
            where=f"{dataset.uri}: {_episodes(nameless)}",
            expected="a task text in each row of meta/tasks",
            mend="import the dataset with `task` set, or give the episodes a task",
        )
    if short:
        raise DataError(
            f"episodes are too short for protocol {labeller.protocol}",
            where=f"{dataset.uri}: {_episodes(short)}",
            expected=f"{shortest} frames or more",
            mend="choose another protocol, or drop the episodes",
        )


def check_outcomes(dataset: Manifest, needed: int) -> None:
    """Check that so many episodes of each outcome were recorded as calibration needs.

    Raises:
        DataError: Naming how many there are.
    """
    found: Counter[str] = Counter()
    for batch in _batches(dataset, ["outcome"]):
        found.update(batch.column("outcome").to_pylist())
    if min(found["success"], found["failure"]) < needed:
        raise DataError(
            f"{found['success']} episodes were recorded as successes and {found['failure']} as failures",
            where=f"{dataset.uri}: episodes, column outcome",
            expected=f"{needed} of each (min_calibration_episodes), as calibration isotonic of collect_rewards needs",
            mend="set calibration of collect_rewards to none, record more outcomes, or lower its "
            "min_calibration_episodes",
        )


def _episodes(found: list[int]) -> str:
    more = " and more" if len(found) > SHOWN_EPISODES else ""
    return "episode " + ", ".join(str(index) for index in found[:SHOWN_EPISODES]) + more


def totals(dataset: Manifest, facts: DatasetFacts, labeller: Labeller, prompt: Prompt | None) -> dict[str, int]:
    """Return what asking about all episodes takes: counts, and estimates of tokens.

    A picture is taken to be a token for each square of 32 pixels, as the Qwen3-VL family has it, words a token for
    four characters; another model counts otherwise.
    """
    sums = dict.fromkeys(("episodes", "requests", "pictures", "output_tokens_estimate"), 0)
    characters = 0
    fixed = sum(len(prompt.sections[name]) for name in ("system", "opening", "closing")) if prompt else 0
    marker = len(prompt.sections["moment"]) if prompt else 0
    for batch in _batches(dataset, ["length", "task"]):
        loads = [load_of(labeller, length) for length in batch.column("length").to_pylist()]
        requests = np.array([load.requests for load in loads], np.int64)
        pictures = sum(load.pictures for load in loads)
        sums["episodes"] += len(loads)
        sums["requests"] += int(requests.sum())
        sums["pictures"] += pictures
        sums["output_tokens_estimate"] += sum(load.output_tokens for load in loads)
        words = pc.utf8_length(batch.column("task")).to_numpy(zero_copy_only=False)
        characters += int(((words + fixed) * requests).sum()) + marker * pictures
    return {**sums, "input_tokens_estimate": _picture_tokens(sums["pictures"], facts, labeller) + _words(characters)}


def _words(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)


def _picture_tokens(pictures: int, facts: DatasetFacts, labeller: Labeller) -> int:
    if not pictures:
        return 0
    sizes = [scaled(image_size(facts.features[camera]), labeller.image_side) for camera in labeller.cameras]
    each = [-(-height // PATCH) * -(-width // PATCH) for height, width in sizes]
    return pictures // len(each) * sum(each)


def cost(totals: Mapping[str, int], input_price: float, output_price: float) -> float:
    """Return the estimated cost, in the currency of the prices, which are for a million tokens."""
    return (totals["input_tokens_estimate"] * input_price + totals["output_tokens_estimate"] * output_price) / 1_000_000


def _batches(dataset: Manifest, columns: list[str]) -> Iterator[pa.RecordBatch]:
    uri = dataset.file("episodes.parquet")
    with schema.parquet_file(uri) as file:
        yield from file.iter_batches(batch_size=BATCH_ROWS, columns=columns)


def plan_document(labeller: Labeller, prompt: Prompt | None, totals: Mapping[str, int]) -> dict[str, Any]:
    """Return what ``plan.json`` holds."""
    return {"labeller": labeller.to_dict(), "prompt": prompt.text if prompt else "", "totals": dict(totals)}


def read_plan(plan: Manifest) -> tuple[Labeller, Prompt | None]:
    """Read the labeller and its prompt, None where nobody is asked.

    Raises:
        DataError: If the file is missing or not a plan.
    """
    where = plan.file(PLAN_FILE)
    document = storage.read_json(where)
    try:
        labeller, text = Labeller.from_dict(document["labeller"], where=where), str(document["prompt"])
    except (KeyError, TypeError) as error:
        raise DataError(f"not a label plan: {error!r}", where=where, mend="run plan_labels again") from error
    return labeller, None if labeller.protocol == NOBODY else parse_prompt(text, labeller.protocol, where=where)
