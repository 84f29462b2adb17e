"""Who controlled each frame, what kind of episode it was and how it ended: read by stated rules, never guessed.

The public formats keep this in different places: pistar in an ``intervention`` column where demonstrations are all 1,
LeRobot in ``next.success``, limb in a phase, our simulator in the episodes' meta rows and a ``control_mode`` column.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from robolift import schema
from robolift.data.columns import is_list, is_text, to_numpy
from robolift.data.lerobot import EpisodeMeta
from robolift.data.problems import Problems

AUTO = "auto"
CONTROL_MODE = "control_mode"
INTERVENTION = "intervention"
KIND = "kind"
OUTCOME_KEYS = ("outcome", "success")
OUTCOME_COLUMNS = ("next.success", "success", "is_episode_successful")
# pistar's `reward` is 1 in the last frame of a success and 0 elsewhere; other projects' rewards mean other things.
PISTAR_REWARD = "reward"
PISTAR_COLUMNS = ("adv_ind", "value_label", "reward_label")
_YES = frozenset({"success", "true", "1", "1.0"})
_NO = frozenset({"failure", "false", "0", "0.0"})

NO_CONTROL = "no intervention information: nothing says which frames a policy and which a person controlled"
NO_CONTROL_MEND = (
    "name control_mode_column or intervention_column, or say it for the whole dataset: "
    "control_mode: demo (a person did everything) or control_mode: autonomous (a policy did everything)"
)
NO_OUTCOME = "a rollout has no outcome: nothing says whether it succeeded"
NO_OUTCOME_MEND = (
    "name outcome_key (of the episodes' meta rows), outcome_column (its last frame counts) or outcome_uri (a table of "
    "episode_index, outcome), say outcome: success or failure for all, or set allow_unknown_outcome: true"
)


@dataclass(frozen=True, kw_only=True)
class EpisodeRules:
    """Where to look; an empty name means: detect, in the order documented at each field.

    Attributes:
        kind: ``demo`` or ``rollout`` for all; ``auto``: the meta key ``kind``, else demo if a person controlled every
            frame.
        control_mode: ``demo`` or ``autonomous`` for all frames; ``auto``: from the columns below.
        control_mode_column: Column of control modes; detected by the name ``control_mode``.
        control_mode_values: What other spellings in it mean; case does not matter.
        intervention_column: Column that is 1 where a person controls; detected by the name ``intervention`` where
            there are no control modes.
        paused_column: Column that is 1 where the robot was held still.
        outcome: ``success`` or ``failure`` for all; ``auto``: from the fields below, a table first.
        outcome_key: Key of the episodes' meta rows; detected: OUTCOME_KEYS.
        outcome_column: Column whose last frame says it; detected: OUTCOME_COLUMNS, then pistar's ``reward``.
        outcome_table: Outcome by episode index.
        demo_outcome: Outcome of demonstrations of which nothing else is known.
        allow_unknown_outcome: Take rollouts without an outcome as ``unknown``.
    """

    kind: str = AUTO
    control_mode: str = AUTO
    control_mode_column: str = ""
    control_mode_values: Mapping[str, str] = field(default_factory=dict)
    intervention_column: str = ""
    paused_column: str = ""
    outcome: str = AUTO
    outcome_key: str = ""
    outcome_column: str = ""
    outcome_table: Mapping[int, str] | None = None
    demo_outcome: str = "success"
    allow_unknown_outcome: bool = False


@dataclass(frozen=True, kw_only=True)
class EpisodeFacts:
    """What the rules found.

    Attributes:
        kind: One of schema.EPISODE_KINDS.
        outcome: One of schema.OUTCOMES.
        control_modes: (T,) object, each one of schema.CONTROL_MODES.
    """

    kind: str
    outcome: str
    control_modes: np.ndarray[Any, Any]


class EpisodeDescriber:
    """Applies rules to the episodes of one dataset, noting what can't be answered."""

    def __init__(
        self, rules: EpisodeRules, *, columns: Collection[str], keys: Collection[str], problems: Problems
    ) -> None:
        """Resolve the rules.

        Args:
            rules: What was configured.
            columns: The dataset's columns.
            keys: Keys of its episodes' meta rows besides the standard ones.
            problems: Where faults are noted.
        """
        self._rules = rules
        self._problems = problems
        self.control_mode_column = self._named("control_mode_column", rules.control_mode_column, columns)
        self.intervention_column = self._named("intervention_column", rules.intervention_column, columns)
        self.paused_column = self._named("paused_column", rules.paused_column, columns)
        if rules.control_mode != AUTO:
            self.control_mode_column = self.intervention_column = ""
        elif not (self.control_mode_column or self.intervention_column):
            self.control_mode_column = CONTROL_MODE if CONTROL_MODE in columns else ""
            self.intervention_column = INTERVENTION if INTERVENTION in columns and not self.control_mode_column else ""
        self._outcome_of = self._resolve_outcome(columns, keys)

    def _named(self, option: str, column: str, columns: Collection[str]) -> str:
        if column and column not in columns:
            self._problems.add(f"{option} {column!r} is not in the dataset", expected=", ".join(sorted(columns)))
        return column if column in columns else ""

    def _resolve_outcome(
        self, columns: Collection[str], keys: Collection[str]
    ) -> Callable[[EpisodeMeta, pa.Table], Any]:
        rules = self._rules
        if rules.outcome != AUTO:
            return lambda meta, table: rules.outcome
        if rules.outcome_table is not None:
            found = rules.outcome_table
            return lambda meta, table: found.get(meta.index)
        if rules.outcome_key and rules.outcome_key not in keys:
            expected = ", ".join(sorted(keys)) or "the meta rows have no further keys"
            self._problems.add(f"outcome_key {rules.outcome_key!r} is in no episode's meta row", expected=expected)
        column = self._named("outcome_column", rules.outcome_column, columns)
        key = rules.outcome_key or ("" if column else next((name for name in OUTCOME_KEYS if name in keys), ""))
        if key:
            return lambda meta, table: meta.extra.get(key)
        column = column or next((name for name in OUTCOME_COLUMNS if name in columns), "")
        if column:
            return lambda meta, table: _last(table, column)
        if PISTAR_REWARD in columns and set(PISTAR_COLUMNS) & set(columns):
            return lambda meta, table: _last(table, PISTAR_REWARD) == 1
        return lambda meta, table: None

    def describe(self, meta: EpisodeMeta, table: pa.Table) -> EpisodeFacts | None:
        """Return what is known of an episode, None after noting why it can't be told."""
        where = f"episode {meta.index}"
        modes, told = self._control_modes(meta, table, where)
        kind = self._kind(meta, modes, where)
        if modes is None or kind is None:
            return None
        if not told and self._rules.control_mode == AUTO and kind != "demo":
            self._problems.add(NO_CONTROL, where=where, mend=NO_CONTROL_MEND)
            return None
        if kind == "demo" and not self.control_mode_column and self._rules.control_mode == AUTO:
            modes = np.where(modes == "paused", "paused", "demo").astype(object)
        wrong = set(modes.tolist()) - ({"demo", "paused"} if kind == "demo" else set(schema.CONTROL_MODES) - {"demo"})
        if wrong:
            self._problems.add(
                f"control mode {', '.join(sorted(wrong))} in a {kind}",
                where=where,
                expected="demo or paused in a demo; autonomous, correcting or paused in a rollout",
                mend="mend the column or the episode's kind, or map its values with control_mode_values",
            )
            return None
        outcome = self._outcome(kind, self._outcome_of(meta, table), where)
        return None if outcome is None else EpisodeFacts(kind=kind, outcome=outcome, control_modes=modes)

    def _control_modes(
        self, meta: EpisodeMeta, table: pa.Table, where: str
    ) -> tuple[np.ndarray[Any, Any] | None, bool]:
        """Return the control mode of each frame, None if it can't be read, and whether the data told it."""
        modes: np.ndarray[Any, Any] | None
        if self.control_mode_column:
            modes = self._read_modes(table, where)
        elif self.intervention_column:
            flags = self._flags(table, self.intervention_column, where)
            modes = None if flags is None else np.where(flags, "correcting", "autonomous").astype(object)
        else:
            mode = "autonomous" if self._rules.control_mode == AUTO else self._rules.control_mode
            modes = np.full(table.num_rows, mode, dtype=object)
        if modes is not None and self.paused_column:
            paused = self._flags(table, self.paused_column, where)
            modes = None if paused is None else np.where(paused, "paused", modes).astype(object)
        return modes, bool(self.control_mode_column or self.intervention_column)

    def _read_modes(self, table: pa.Table, where: str) -> np.ndarray[Any, Any] | None:
        column = table.column(self.control_mode_column)
        if not is_text(column.type):
            self._problems.add(
                f"column {self.control_mode_column} is {column.type}",
                where=where,
                expected=f"text: {', '.join(schema.CONTROL_MODES)}",
                mend="name an intervention_column instead if it holds 0 and 1",
            )
            return None
        spelled = {key.lower(): value for key, value in self._rules.control_mode_values.items()}
        names = {mode: mode for mode in schema.CONTROL_MODES} | spelled
        values = column.to_pylist()
        unknown = {str(value) for value in values if str(value).lower() not in names}
        if unknown:
            self._problems.add(
                f"unknown control mode {', '.join(sorted(unknown))} in column {self.control_mode_column}",
                where=where,
                expected=", ".join(schema.CONTROL_MODES),
                mend="say what it means: control_mode_values: {" + f"{min(unknown)}: autonomous" + "}",
            )
            return None
        return np.array([names[str(value).lower()] for value in values], dtype=object)

    def _flags(self, table: pa.Table, name: str, where: str) -> np.ndarray[Any, Any] | None:
        """Return a column of 0 and 1 as booleans; anything else is noted, because a list would pass for 0."""
        column = table.column(name)
        values: np.ndarray[Any, Any] | None = None
        if not (is_list(column.type) or is_text(column.type) or column.null_count):
            values = to_numpy(column)
        if values is None or not np.isin(values, (0, 1)).all():
            self._problems.add(
                f"column {name} holds {_sample(column)} ({column.type})",
                where=where,
                expected="one 0 or 1 in each row (int64, shape [1]), not a list and not text",
                mend=f"write {name} as plain integers",
            )
            return None
        return values.astype(bool)

    def _kind(self, meta: EpisodeMeta, modes: np.ndarray[Any, Any] | None, where: str) -> str | None:
        rules = self._rules
        if rules.kind != AUTO:
            return rules.kind
        told = meta.extra.get(KIND)
        if told is not None:
            if told not in schema.EPISODE_KINDS:
                self._problems.add(
                    f"episode kind {told!r} in the meta rows",
                    where=where,
                    expected=" or ".join(schema.EPISODE_KINDS),
                    mend="mend the meta rows or set kind",
                )
                return None
            return str(told)
        if modes is None:
            return None
        active = modes[modes != "paused"]
        whole = "demo" if self.control_mode_column or rules.control_mode != AUTO else "correcting"
        return "demo" if len(active) and (active == whole).all() else "rollout"

    def _outcome(self, kind: str, value: Any, where: str) -> str | None:
        outcome = parse_outcome(value)
        if outcome is None:
            self._problems.add(
                f"outcome {value!r}", where=where, expected=f"{', '.join(schema.OUTCOMES)}, true or false, 1 or 0"
            )
            return None
        if outcome != "unknown":
            return outcome
        if kind == "demo":
            return self._rules.demo_outcome
        if self._rules.allow_unknown_outcome:
            return outcome
        self._problems.add(NO_OUTCOME, where=where, mend=NO_OUTCOME_MEND)
        return None


def parse_outcome(value: Any) -> str | None:
    """Return success, failure or unknown for what a dataset says; None if it says neither."""
    if value is None or value != value:  # NaN
        return "unknown"
    text = str(value).strip().lower()
    if text in ("unknown", ""):
        return "unknown"
    return "success" if text in _YES else "failure" if text in _NO else None


def _last(table: pa.Table, column: str) -> Any:
    """Return the value of the last frame; a list of one counts as its value."""
    if not table.num_rows:
        return None
    value = table.column(column)[-1].as_py()
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value


def _sample(column: pa.ChunkedArray) -> str:
    seen = list(dict.fromkeys(str(value) for value in column.slice(0, 100).to_pylist()))
    return ", ".join(seen[:3]) + (", ..." if len(seen) > 3 else "")
