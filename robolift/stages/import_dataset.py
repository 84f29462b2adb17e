"""Take in a recording or any LeRobot dataset: validate it whole, and say who did what in it and how it ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
from pydantic import Field, model_validator

from robolift import schema, storage
from robolift.data import validate
from robolift.data.columns import to_numpy
from robolift.data.content import content_digest, digest_of_content, list_content, sha256
from robolift.data.dataset import CONTENT_FILE, DATASET_FILE, Dataset, DatasetFacts, Source
from robolift.data.episode_tables import Episode, EpisodeTables
from robolift.data.episodes import AUTO, EpisodeDescriber, EpisodeRules
from robolift.data.lerobot import LeRobotReader
from robolift.data.lerobot_format import declared
from robolift.data.problems import Problems
from robolift.errors import DataError, UsageError
from robolift.logging import progress
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "recording": Input(kind=Kind.RECORDING, optional=True),
    "previous": Input(kind=Kind.DATASET, optional=True),
}
OUTPUT = Kind.DATASET
SIMULATOR = "robolift"
RULES = frozenset(EpisodeRules.__dataclass_fields__) - {"outcome_table"}


class Config(StageConfig):
    """Where the dataset lies, and the rules by which control, kind and outcome are read from it."""

    dataset_uri: str = ""
    """LeRobot v2.1 or v3.0 dataset at any address; empty when a recording is wired."""
    expect_digest: str = ""
    """Content digest the source must have, as an earlier import's dataset.json names it; empty: any."""
    iteration: int | None = Field(None, ge=0)
    """Iteration of these episodes; by default one more than the previous dataset's last, 1 without one."""
    task: str = ""
    """Task text of every episode; empty: as the dataset has it, one task an episode."""
    kind: Literal["auto", "demo", "rollout"] = "auto"
    """Kind of every episode. auto: the meta key kind, else a demo if a person controlled every frame."""
    control_mode: Literal["auto", "demo", "autonomous"] = "auto"
    """Who controlled every frame. auto: from the columns below; a dataset that does not say is refused."""
    control_mode_column: str = ""
    """Text column of control modes: demo, autonomous, correcting, paused. Empty: control_mode where there is one."""
    control_mode_values: dict[str, Literal["demo", "autonomous", "correcting", "paused"]] = Field(default_factory=dict)
    """What other spellings in that column mean, such as {policy: autonomous}; case does not matter."""
    intervention_column: str = ""
    """Column of 0 and 1, 1 where a person controlled. Empty: intervention, where there are no control modes."""
    paused_column: str = ""
    """Column of 0 and 1, 1 where the robot was held still; such frames are never learned from."""
    outcome: Literal["auto", "success", "failure"] = "auto"
    """Outcome of every episode. auto: outcome_uri, outcome_key or outcome_column where set, else detected."""
    outcome_key: str = ""
    """Key of the episodes' meta rows. Empty: outcome, success."""
    outcome_column: str = ""
    """Column whose last frame counts. Empty: next.success, success, is_episode_successful, pistar's reward."""
    outcome_uri: str = ""
    """Parquet or CSV table with the columns episode_index and outcome; it wins over what the dataset says."""
    demo_outcome: Literal["success", "failure", "unknown"] = "success"
    """Outcome of demonstrations of which nothing else is known."""
    allow_unknown_outcome: bool = False
    """Take rollouts without an outcome; they get no value target."""
    allow_nan: tuple[str, ...] = ()
    """Columns that may hold NaN because nothing is learned from them."""
    check_videos: Literal["full", "counts", "none"] = "counts"
    """counts: each video has a frame for each row, by its index; full: decode every frame; none: trust them."""

    @model_validator(mode="after")
    def _agree(self) -> Config:
        if (self.kind, self.control_mode) in (("demo", "autonomous"), ("rollout", "demo")):
            raise ValueError(f"kind {self.kind} contradicts control_mode {self.control_mode}")
        if self.control_mode != AUTO and (self.control_mode_column or self.intervention_column):
            raise ValueError("control_mode says it for all frames; name a column or say it, not both")
        if self.control_mode_column and self.intervention_column:
            raise ValueError("name control_mode_column or intervention_column, not both")
        chosen = [name for name in ("outcome_key", "outcome_column", "outcome_uri") if getattr(self, name)]
        if len(chosen) + (self.outcome != AUTO) > 1:
            raise ValueError(f"the outcome comes from one place, not from several: {', '.join(chosen)}")
        return self


def identity(config: Config) -> dict[str, Any]:
    """Return digests of what lies outside the product's outputs, so that changed data is another import."""
    found: dict[str, Any] = {}
    if config.dataset_uri:
        found["content"] = content_digest(config.dataset_uri)
    if config.outcome_uri:
        found["outcomes"] = sha256(config.outcome_uri)
    return found


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Validate the source, append it to the previous dataset and write both as one."""
    uri, digest, content = _source(config, inputs)
    before = Dataset.open(inputs.one("previous")) if inputs.get("previous") else None
    iteration = _iteration(config, before)
    reader = LeRobotReader.open(uri)
    problems = Problems(uri)
    validate.check_declarations(reader, problems)
    problems.check()
    with output.open_table("frames") as frames:
        tables = EpisodeTables(frames, before=before, iteration=iteration)
        _read(config, reader, problems, tables)
        validate.check_videos(reader, config.check_videos, problems)
        facts = _facts(reader, uri=uri, digest=digest, tasks=tables.tasks)
        if before:
            _check_joins(before.facts, facts, problems)
        problems.check()
        episodes = tables.finish()
    if before:
        facts = _join(before.facts, facts)
    output.write_table("episodes", episodes)
    output.write_json(DATASET_FILE, facts.to_dict(root=output.plan.root))
    contents = (before.content(number) for number in range(len(before.sources))) if before else ()
    for number, files in enumerate((*contents, content)):
        storage.write_bytes(str(output.path / CONTENT_FILE.format(number=number)), storage.to_json_bytes(files))
    output.metrics.update(tables.measure(episodes))
    return {
        "episodes": episodes.num_rows,
        "frames": frames.num_rows,
        "new_episodes": tables.num_added,
        "tasks": len(facts.tasks),
        "sources": len(facts.sources),
    }


def _source(config: Config, inputs: Inputs) -> tuple[str, str, dict[str, dict[str, Any]]]:
    """Return address, content digest and files of what is to be imported."""
    recording = inputs.get_one("recording")
    if bool(recording) == bool(config.dataset_uri):
        given = "both a recording and dataset_uri were given" if recording else "no recording and no dataset_uri"
        raise UsageError(f"import_dataset: {given}; give one of them")
    uri = storage.normalize(config.dataset_uri) if recording is None else recording.uri
    content = list_content(uri)
    if recording is not None:  # a store's hashes would make this output depend on where the run lies
        content = {name: {key: fact for key, fact in facts.items() if key != "tags"} for name, facts in content.items()}
    digest = digest_of_content(content) if recording is None else recording.digest
    if config.expect_digest not in ("", digest):
        raise DataError(
            f"the dataset's content digest is {digest}",
            where=uri,
            expected=config.expect_digest,
            mend="restore the dataset, or set expect_digest to the new digest if the change was meant",
        )
    return uri, digest, content


def _iteration(config: Config, before: Dataset | None) -> int:
    last = int(np.max(before.episodes.column("iteration").to_numpy())) if before else 0
    iteration = last + 1 if config.iteration is None else config.iteration
    if iteration < last:
        raise UsageError(f"iteration is {iteration}, the previous dataset already has iteration {last}")
    return iteration


def _rules(config: Config) -> EpisodeRules:
    chosen = {name: getattr(config, name) for name in RULES}
    return EpisodeRules(**chosen, outcome_table=read_outcomes(config.outcome_uri) if config.outcome_uri else None)


def read_outcomes(uri: str) -> dict[int, str]:
    """Read a table of outcomes by episode index.

    Args:
        uri: Parquet or CSV with the columns episode_index and outcome.

    Raises:
        DataError: If it is no such table, a column is missing, or an episode has no number or stands twice.
    """
    if uri.endswith(".csv"):
        with storage.open_file(uri) as file:
            try:
                table = pa.csv.read_csv(file)
            except pa.ArrowInvalid as error:
                raise DataError(
                    f"the table of outcomes is not a readable CSV file: {error}",
                    where=uri,
                    expected="a line episode_index,outcome and one line an episode",
                    mend="write the file again",
                ) from error
    else:
        table = schema.read_parquet(uri)
    missing = {"episode_index", "outcome"} - set(table.column_names)
    if missing:
        raise DataError(
            f"the table of outcomes has no column {', '.join(sorted(missing))}",
            where=uri,
            expected="columns episode_index and outcome",
        )
    indices = table.column("episode_index").to_pylist()
    blank = next((row for row, index in enumerate(indices) if not isinstance(index, int)), None)
    if blank is not None:
        raise DataError(
            f"row {blank} of the table of outcomes has the episode_index {indices[blank]!r}",
            where=uri,
            expected="the number of an episode in each row, from 0",
            mend="number the row or drop it",
        )
    if len(set(indices)) < len(indices):
        twice = next(index for index in indices if indices.count(index) > 1)
        raise DataError(f"episode {twice} stands twice in the table of outcomes", where=uri, expected="one row each")
    return dict(zip(indices, table.column("outcome").to_pylist(), strict=True))


def _read(config: Config, reader: LeRobotReader, problems: Problems, tables: EpisodeTables) -> None:
    """Check every episode and add the sound ones to the tables, until there is a problem: then none is published."""
    rules = _rules(config)
    for index in sorted(set(rules.outcome_table or ()) - {meta.index for meta in reader.episodes}):
        problems.add("the table of outcomes names an episode that is not there", where=f"episode {index}")
    keys = {key for meta in reader.episodes for key in meta.extra}
    describer = EpisodeDescriber(rules, columns=validate.table_features(reader), keys=keys, problems=problems)
    checker = validate.FrameChecker(reader, problems, nan_columns=config.allow_nan)
    for meta, table in progress(checker.episodes(), total=len(reader.episodes), what="validate", unit="episode"):
        facts = describer.describe(meta, table)
        task = config.task or validate.task_of(reader, meta, table, problems)
        if facts and task and not problems:
            times = to_numpy(table.column("timestamp"))
            tables.add(Episode(index=meta.index, task=task, facts=facts, timestamps=times))


def _facts(reader: LeRobotReader, *, uri: str, digest: str, tasks: tuple[str, ...]) -> DatasetFacts:
    source = Source(uri=uri, version=reader.version, first_episode=0, num_episodes=len(reader.episodes), digest=digest)
    simulator = reader.info.get(SIMULATOR)
    return DatasetFacts(
        sources=(source,),
        fps=reader.fps,
        robot_type=reader.robot_type or "",
        cameras=reader.cameras,
        tasks=tasks,
        features={
            name: {"dtype": feature["dtype"], "shape": list(feature["shape"]), "names": feature.get("names")}
            for name, feature in reader.features.items()
        },
        simulator=dict(simulator) if isinstance(simulator, dict) else None,
    )


def _check_joins(before: DatasetFacts, added: DatasetFacts, problems: Problems) -> None:
    validate.check_same(vars(before), vars(added), problems)
    if added.sources[0].digest in {source.digest for source in before.sources}:
        problems.add(
            "the previous dataset already holds this one",
            expected="new episodes",
            mend="leave out one of them, or record further episodes",
        )


def _join(before: DatasetFacts, added: DatasetFacts) -> DatasetFacts:
    """Return the facts of both: sources one after the other, and only what they share of the rest."""
    first = sum(source.num_episodes for source in before.sources)
    shared = None
    if before.simulator is not None and added.simulator is not None:
        # The seeds of an iteration are its own; the task and the rate are what both have.
        shared = {key: value for key, value in before.simulator.items() if added.simulator.get(key) == value}
    return replace(
        before,
        sources=(*before.sources, replace(added.sources[0], first_episode=first)),
        tasks=tuple(dict.fromkeys((*before.tasks, *added.tasks))),
        features={
            name: feature
            for name, feature in before.features.items()
            if name in added.features and declared(feature) == declared(added.features[name])
        },
        simulator=shared,
    )
