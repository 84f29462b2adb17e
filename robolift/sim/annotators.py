"""Simulated annotators: they compare clips by a planted utility with a known noise, through the door people use.

The noise is Bradley and Terry's (1952): P(A > B) = sigmoid(beta (U_A - U_B)). A pair shown again is a pair of its own
and draws its own noise, so an annotator contradicts itself as often as the noise says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from robolift import storage
from robolift.errors import DataError

Preference = Literal["A", "B", "tie"]
EVENTS_AN_OBJECT = 200
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ACTION_MS = 2000


@dataclass(frozen=True, kw_only=True)
class SimulatedAnnotator:
    """One annotator of known noise.

    Attributes:
        name: Annotator id.
        beta: Sharpness of the judgement, per unit of utility.
        tie_band: Says tie where the noisy difference, in units of the logistic noise, is smaller than this.
        lapse: Share of pairs answered A or B without looking.
        seed: Decides the noise, together with the name and each pair's id.
    """

    name: str
    beta: float = 2.0
    tie_band: float = 0.0
    lapse: float = 0.0
    seed: int = 0

    def compare(self, pair_id: str, utility_a: float, utility_b: float) -> Preference:
        """Answer one pair; the same pair gets the same answer, whatever else was asked before."""
        rng = np.random.default_rng(_number(f"{self.seed}/{self.name}/{pair_id}") >> 64)
        lapsed, guess, noise = rng.random() < self.lapse, rng.random() < 0.5, rng.logistic()
        if lapsed:
            return "A" if guess else "B"
        difference = self.beta * (utility_a - utility_b) + noise
        if abs(difference) < self.tie_band:
            return "tie"
        return "A" if difference > 0 else "B"


def clip_utilities(truth: pa.Table, clips: pa.Table) -> dict[str, float]:
    """Return the planted utility of each clip: the mean over the moments it shows.

    Args:
        truth: ``truth.parquet`` of simulated videos.
        clips: ``clips.parquet`` cut from them.

    Raises:
        DataError: If a clip is of no simulated video.
    """
    videos = truth.column("video_id").to_numpy(zero_copy_only=False)
    times, utility = truth.column("time_s").to_numpy(), truth.column("utility").to_numpy()
    rows = {video: np.flatnonzero(videos == video) for video in np.unique(videos).tolist()}
    found = {}
    for clip in clips.select(["clip_id", "video_id", "start_s", "duration"]).to_pylist():
        if clip["video_id"] not in rows:
            raise DataError(
                f"clip {clip['clip_id']} is of video {clip['video_id']}, of which no truth is known",
                expected="clips of the simulated videos",
            )
        own = rows[clip["video_id"]]
        start = clip["start_s"] - 1e-6
        shown = (times[own] >= start) & (times[own] < start + clip["duration"])
        found[clip["clip_id"]] = float(utility[own][shown].mean())
    return found


def answer_pairs(
    pairs: pa.Table, utilities: Mapping[str, float], annotators: Sequence[SimulatedAnnotator], *, labels_uri: str
) -> int:
    """Let annotators answer every pair and write their events as the labelling page does.

    Args:
        pairs: Columns ``pair_id``, ``clip_a_id``, ``clip_b_id``.
        utilities: Planted utility by clip id.
        annotators: Who answers.
        labels_uri: Folder of the labels, at any address.

    Returns:
        How many answers were written.
    """
    rows = pairs.select(["pair_id", "clip_a_id", "clip_b_id"]).to_pylist()
    for annotator in annotators:
        answers = [
            (
                row["pair_id"],
                annotator.compare(row["pair_id"], utilities[row["clip_a_id"]], utilities[row["clip_b_id"]]),
            )
            for row in rows
        ]
        write_preferences(labels_uri, annotator.name, answers)
    return len(rows) * len(annotators)


def write_preferences(labels_uri: str, annotator: str, answers: Iterable[tuple[str, Preference]]) -> None:
    """Write (pair id, preference) as events of one session, in the format of the labelling page.

    As on the page, an answer is two actions: what is preferred, and that the pair is complete. The clock starts at 0
    and runs two seconds an action, so that the same answers are the same bytes.
    """
    session = hashlib.sha256(annotator.encode()).hexdigest()[:16]
    actions = [
        (pair_id, op, value)
        for pair_id, preference in answers
        for op, value in (("prefer", preference), ("complete", None))
    ]
    events = [
        _event(annotator, session, seq, pair_id, op, value) for seq, (pair_id, op, value) in enumerate(actions, start=1)
    ]
    for number, first in enumerate(range(0, len(events), EVENTS_AN_OBJECT)):
        lines = [
            json.dumps(event, sort_keys=True, separators=(",", ":"))
            for event in events[first : first + EVENTS_AN_OBJECT]
        ]
        name = f"{session}-{number:06d}.jsonl"
        storage.write_bytes(storage.join(labels_uri, "events", annotator, name), ("\n".join(lines) + "\n").encode())


def _event(annotator: str, session: str, seq: int, pair_id: str, op: str, value: str | None) -> dict[str, Any]:
    at_ms = seq * _ACTION_MS
    # A ULID is 48 bits of milliseconds and 80 that are random; here they follow from who and which.
    number = at_ms << 80 | _number(f"{annotator}/{seq}/{pair_id}") >> 176
    return {
        "ulid": "".join(_CROCKFORD[number >> 5 * place & 31] for place in reversed(range(26))),
        "annotator": annotator,
        "session": session,
        "seq": seq,
        "item": f"pair:{pair_id}",
        "lease": 1,
        "op": op,
        "from": None,
        "to": None,
        "value": value,
        "client_ms": at_ms,
        "at_ms": at_ms,
    }


def _number(text: str) -> int:
    """Return 256 bits that follow from a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
