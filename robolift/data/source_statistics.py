"""What a LeRobot dataset states about its features: of each episode, and over all."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from robolift import schema, storage
from robolift.data import lerobot_format as fmt
from robolift.data.lerobot import LeRobotReader
from robolift.data.lerobot_meta import lines
from robolift.data.statistics import Statistics, from_json, is_finite

STATS_PREFIX = "stats/"
AT_ONCE = 64
"""Rows of a table that become Python objects together: neighbours are asked for one after the other."""

Features = dict[str, dict[str, Any]]


class EpisodeStatistics:
    """What a dataset states about each episode's features; held as it is stored, and parsed when it is asked for.

    Attributes:
        episodes: Those of which something is stated.
    """

    def __init__(self, reader: LeRobotReader, *, without: Collection[str]) -> None:
        """Read what there is.

        Args:
            reader: The dataset.
            without: Features that are not asked for; nor are those that are not finite.

        Raises:
            DataError: If a file of it is broken.
        """
        self._without = frozenset(without)
        self._stated: _Lines | _Tables = (_Lines if reader.version == fmt.V21 else _Tables)(reader.uri)
        self.episodes = frozenset(self._stated.places)
        self._last: tuple[int, dict[str, Statistics]] = (-1, {})

    def of(self, episode: int) -> dict[str, Statistics]:
        """Return the statistics of an episode by feature, empty where nothing is stated."""
        if self._last[0] != episode:
            features = self._stated.features(episode) if episode in self.episodes else {}
            found = {name: from_json(facts) for name, facts in features.items() if name not in self._without}
            self._last = episode, {name: facts for name, facts in found.items() if is_finite(facts)}
        return self._last[1]


def read_statistics(uri: str) -> dict[str, Statistics]:
    """Return what a dataset's stats.json states."""
    stated = storage.read_json(storage.join(uri, fmt.STATS_FILE))
    return {name: from_json(facts) for name, facts in stated.items()}


class _Lines:
    """v2.1: a line of JSON for each episode."""

    def __init__(self, uri: str) -> None:
        path = storage.join(uri, fmt.EPISODES_STATS_JSONL)
        found = lines(path) if storage.exists(path) else ()
        self.places = {row["episode_index"]: line for line, row in found}

    def features(self, episode: int) -> Features:
        features: Features = json.loads(self.places[episode])["stats"]
        return features


class _Tables:
    """v3.0: columns of the tables of episodes."""

    def __init__(self, uri: str) -> None:
        self.places: dict[int, tuple[int, int]] = {}
        self._tables: list[pa.Table] = []
        self._last: tuple[int, int] = (-1, -1)
        self._rows: list[dict[str, Any]] = []
        folder = storage.join(uri, fmt.EPISODES_FOLDER)
        for name in (name for name, _ in storage.list_files(folder) if name.endswith(".parquet")):
            table = schema.read_parquet(storage.join(folder, name))
            columns = [key for key in table.column_names if key.startswith(STATS_PREFIX)]
            episodes = table.column(schema.EPISODE_INDEX).to_pylist() if columns else []
            self.places |= {episode: (len(self._tables), row) for row, episode in enumerate(episodes)}
            self._tables.append(table.select(columns))

    def features(self, episode: int) -> Features:
        number, row = self.places[episode]
        if self._last != (number, row // AT_ONCE):
            self._last = number, row // AT_ONCE
            self._rows = self._tables[number].slice(row - row % AT_ONCE, AT_ONCE).to_pylist()
        features: Features = {}
        for key, value in self._rows[row % AT_ONCE].items():
            if value is not None:
                feature, _, statistic = key.removeprefix(STATS_PREFIX).rpartition("/")
                features.setdefault(feature, {})[statistic] = value
        return features
