"""How frames are labelled: every setting of ``label_advantage``, and the presets that set several at once."""

from __future__ import annotations

import enum
from typing import Any

from pydantic import Field, field_validator, model_validator

from robolift.errors import UsageError
from robolift.labeling.advantage import ShortTail
from robolift.labeling.cut_rule import Tie, check_positive_fraction
from robolift.labeling.kai0_flags import translate
from robolift.labeling.population import Population, Treatment
from robolift.logging import get_logger
from robolift.stages.stage import StageConfig


class Preset(enum.StrEnum):
    """Whose method the defaults are."""

    RECAP = "recap"
    STAGE_ADVANTAGE = "stage_advantage"
    KAI0_LEGACY = "kai0_legacy"


class Source(enum.StrEnum):
    """Where the advantage comes from."""

    NSTEP = "nstep"
    GAE = "gae"
    PROGRESS = "progress"
    ABSOLUTE_ADVANTAGE = "absolute_advantage"
    RELATIVE_ADVANTAGE = "relative_advantage"
    COLUMN = "column"


class GroupBy(enum.StrEnum):
    """Which frames share a cut."""

    ALL = "all"
    TASK = "task"
    TASK_STAGE = "task_stage"


class Scheme(enum.StrEnum):
    """What a label is."""

    BINARY = "binary"
    SLICES = "slices"


class Weight(enum.StrEnum):
    """What the loss weight of a frame is."""

    NONE = "none"
    RABC = "rabc"


class FailureEnd(enum.StrEnum):
    """What becomes of a failure's last frames, where the N-step advantage meets the end of the episode."""

    RANK = "rank"
    EXCLUDE = "exclude"


class Config(StageConfig):
    """Where the advantage comes from, who is ranked among whom, and what a label is."""

    preset: Preset = Preset.RECAP
    """Defaults of the fields below. `recap`: as they stand there. `stage_advantage`: kai0's method, corrected (source
    absolute_advantage, population all, demo score, tie exact). `kai0_legacy`: kai0's labelling script to the last bit
    (also intervention score, and tie and short_tail kai0_legacy). Both take kai0's flags as fields: threshold,
    chunk_size, discretion_type, n_slices, advantage_source, stage_nums."""
    kai0: str = ""
    """Those flags in one line instead, such as `--threshold 30 --stage-nums 2`; the preset is then `stage_advantage`
    unless it is named."""
    source: Source = Source.NSTEP
    """`nstep`: rewards of the next `lookahead` frames and the change of value (RECAP). `gae`: the same to the end of
    the episode, discounted by `gae_lambda`. `progress`: rise of `column` over the lookahead (kai0).
    `absolute_advantage`: the same of the predicted value, clipped to [-1, 1]. `relative_advantage`: as a two-frame
    model predicted it. Without input values these two are the dataset's columns of that name. `column`: `column` is
    the advantage."""
    column: str = ""
    """Per-frame column of the rewards table where one is given (`progress`), of the values table or the dataset, for
    `source: progress` and `source: column`."""
    lookahead: int = Field(default=50, ge=1)
    """Frames over which the advantage is measured."""
    gae_lambda: float = Field(default=0.95, gt=0, le=1)
    """Lambda of `source: gae`; 1 is the return of the whole episode."""
    short_tail: ShortTail = ShortTail.SCALE
    """Where fewer than `lookahead` frames are left, for the three sources that look at progress: `drop` leaves them
    unlabelled, `scale` scales the rise up (the last frame has none and is unlabelled), `kai0_legacy` ranks all, from
    progress with kai0's divisor."""
    positive_fraction: float = 0.3
    """Share of the population labelled positive, in (0, 1)."""
    group_by: GroupBy = GroupBy.TASK
    """Frames that share a cut: `all`, those of a `task`, or those of a `task_stage`."""
    population: Population = Population.ROLLOUT_AUTONOMOUS
    """Frames that set the cut: `rollout_autonomous`, `latest_rollout_autonomous` (newest iteration only), `rollout`
    (with corrections), `all`. Paused frames never do."""
    tie: Tie = Tie.AT_LEAST
    """`at_least`: every frame at the cut is positive. `exact`: exactly the share is; of equal frames the later ones.
    `kai0_legacy`: at_least, with cuts, slices and task stages computed as kai0's script does."""
    intervention: Treatment = Treatment.POSITIVE
    """Frames in which a person corrected: `positive` whatever their advantage, or `score` them like the rest."""
    demo: Treatment = Treatment.POSITIVE
    """Frames of demonstrations, likewise."""
    scheme: Scheme = Scheme.BINARY
    """`binary`: positive or negative. `slices`: `num_slices` bins of equal count, each with its prompt."""
    num_slices: int = Field(default=10, ge=2, le=1000)
    """Bins of `scheme: slices`."""
    num_task_stages: int = Field(default=1, ge=1)
    """Equal parts of the stage progress, for `group_by: task_stage`."""
    stage_progress_column: str = "stage_progress_gt"
    """Column with the stage progress in [0, 1], for `group_by: task_stage`; of the same tables as `column`."""
    weight: Weight = Weight.NONE
    """Loss weight: `none` is 1 everywhere; `rabc` grows with the rise of `weight_column` over the lookahead (SARM)."""
    weight_column: str = "value"
    """Progress or value for `weight: rabc`; of the same tables as `column`."""
    weight_kappa: float = Field(default=0.01, ge=0)
    """Rise above which a frame weighs fully under `weight: rabc`."""
    failure_end: FailureEnd = FailureEnd.RANK
    """`source: nstep`, last `lookahead` frames of failures: `rank` them, or `exclude` them (label none). Exclude where
    failures are episodes whose time ran out: no camera shows the clock, so to the value model the end comes as a
    relief, and frames in which nothing good happened rank high."""
    tail_margin: float = Field(default=0.2, ge=0)
    """Warn when the last `lookahead` frames of failures are more often positive than the frames before by this much."""

    @model_validator(mode="before")
    @classmethod
    def _from_kai0(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        translation = translate(given)
        for note in translation.notes:
            get_logger("label_advantage").info(f"kai0: {note}")
        return translation.config

    @field_validator("positive_fraction")
    @classmethod
    def _is_share(cls, value: float) -> float:
        try:
            check_positive_fraction(value)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _names_column(self) -> Config:
        if self.source in (Source.PROGRESS, Source.COLUMN) and not self.column:
            raise ValueError(f"source {self.source} needs `column`")
        if self.failure_end == FailureEnd.EXCLUDE and self.source != Source.NSTEP:
            raise ValueError("failure_end exclude is for source nstep")
        if self.group_by == GroupBy.TASK_STAGE and self.num_task_stages < 2:
            raise ValueError("group_by task_stage needs num_task_stages of 2 or more")
        return self

    def columns_read(self, *, predicted: bool) -> tuple[str, ...]:
        """Return the columns, of the rewards or values table or the dataset, that the labels are made from.

        Args:
            predicted: Whether values are given; an absolute advantage is then worked out from them.
        """
        used = (
            (self.column, self.source in (Source.PROGRESS, Source.COLUMN)),
            (self.source.value, self.source == Source.ABSOLUTE_ADVANTAGE and not predicted),
            (self.source.value, self.source == Source.RELATIVE_ADVANTAGE),
            (self.stage_progress_column, self.group_by == GroupBy.TASK_STAGE),
            (self.weight_column, self.weight == Weight.RABC),
        )
        return tuple(name for name, needed in used if needed)

    @property
    def signals(self) -> dict[str, tuple[str, ...]]:
        """Columns that the source needs in every frame, of the targets and the values."""
        both = self.source in (Source.NSTEP, Source.GAE)
        predicted = both or self.source == Source.ABSOLUTE_ADVANTAGE
        return {"targets": ("reward",) if both else (), "values": ("value",) if predicted else ()}

    @property
    def slices(self) -> int | None:
        """Number of slices, None under the binary scheme."""
        return self.num_slices if self.scheme == Scheme.SLICES else None
