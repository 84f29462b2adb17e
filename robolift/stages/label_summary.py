"""What summary.json tells of the labels, counted block by block."""

from __future__ import annotations

from typing import Any

import numpy as np

from robolift import schema
from robolift.labeling.cut_rule import Tie
from robolift.labeling.kai0 import EMPTY_CUT
from robolift.labeling.population import Reason
from robolift.labeling.summary import FailureTail, LabelCounts, describe_cuts
from robolift.stages.label_config import Config
from robolift.stages.label_decision import Decided, Decision
from robolift.stages.label_sources import Sources

FAILURE = schema.OUTCOMES.index("failure")


class Summary:
    """Counts labels: shares by outcome, control mode, iteration and reason, and the tails of failures."""

    def __init__(self, config: Config, sources: Sources) -> None:
        """Start with no frames."""
        self._config, self._outcome = config, sources.outcome
        iterations, self._iteration = np.unique(sources.iteration, return_inverse=True)
        self._by_outcome = LabelCounts(schema.OUTCOMES)
        self._by_mode = LabelCounts(schema.CONTROL_MODES)
        self._by_iteration = LabelCounts([str(number) for number in iterations])
        self._by_reason = LabelCounts(schema.LABEL_REASONS)
        self._tail = FailureTail(lookahead=config.lookahead, margin=config.tail_margin)

    def add(self, block: Decided) -> None:
        """Count the frames of a block."""
        episodes, lengths = slice(block.episodes.start, block.episodes.stop), np.diff(block.starts)
        outcome = np.repeat(self._outcome[episodes], lengths)
        self._by_outcome.add(outcome, block.label)
        self._by_mode.add(block.mode, block.label)
        self._by_iteration.add(np.repeat(self._iteration[episodes], lengths), block.label)
        self._by_reason.add(block.reason, block.label)
        self._tail.add(block.label, block.reason == Reason.THRESHOLD, outcome == FAILURE, block.starts)

    def describe(self, decision: Decision) -> dict[str, Any]:
        """Return the cuts by group, the shares and the check of failures, once all blocks are counted."""
        cuts = decision.cuts()
        present = {cut.group for cut in cuts}
        empty = EMPTY_CUT if self._config.tie == Tie.KAI0_LEGACY else None
        return {
            "groups": describe_cuts(cuts),
            "empty_groups": {name: empty for name in decision.group_names if name not in present},
            "all": self._by_reason.total(),
            "ranked": self._by_reason.of(Reason.THRESHOLD),
            "by_outcome": self._by_outcome.describe(),
            "by_control_mode": self._by_mode.describe(),
            "by_iteration": self._by_iteration.describe(),
            "by_reason": self._by_reason.describe(),
            "failure_tail": self._tail.describe(),
        }
