"""People's comparisons of clips, and how far they can be trusted: repeats, contradictions, circles."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from robolift.errors import DataError

COLUMNS = ("pair_id", "clip_a_id", "clip_b_id", "preference", "timestamp", "annotator_id")
CHOICES = ("A", "B", "tie")
MIN_REPEATS = 5
"""Below so many repeated pairs an annotator's consistency says too little to leave anybody out."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one person said about one pair: ``A`` (the first clip is better), ``B`` or ``tie``."""

    pair_id: str
    clip_a_id: str
    clip_b_id: str
    preference: str
    timestamp: str
    annotator_id: str

    @property
    def moment(self) -> datetime:
        """When it was given; a time without a zone is UTC. Raises ValueError if the timestamp is none."""
        found = datetime.fromisoformat(self.timestamp)
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    @property
    def clips(self) -> tuple[str, str]:
        """The two clips, whichever side they stood on."""
        return min(self.clip_a_id, self.clip_b_id), max(self.clip_a_id, self.clip_b_id)

    @property
    def sign(self) -> int:
        """1 if the first of :attr:`clips` is better, -1 if the second, 0 for a tie."""
        said = {"A": 1, "B": -1, "tie": 0}[self.preference]
        return said if self.clip_a_id < self.clip_b_id else -said


def read_csv(content: bytes, *, where: str) -> list[Answer]:
    """Read comparisons from a CSV with the columns ``COLUMNS``, in any order; further columns are ignored.

    Raises:
        DataError: Naming the line that is wrong.
    """
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")))
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"not a CSV file: {error}", where=where, mend="write the file again") from None
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"column {missing[0]} is missing", where=where, expected=",".join(COLUMNS))
    return [_answer(row, where=f"{where}, line {line}") for line, row in enumerate(rows, start=2)]


def _answer(row: Mapping[str, str | None], *, where: str) -> Answer:
    values = {name: (row[name] or "").strip() for name in COLUMNS}
    empty = [name for name in COLUMNS if not values[name] and name != "timestamp"]
    if empty:
        raise DataError(f"{empty[0]} is empty", where=where, expected="a value")
    return check_answer(Answer(**values), where=where)


def check_answer(answer: Answer, *, where: str) -> Answer:
    """Check one answer by itself and return it.

    Raises:
        DataError: If the preference is none, a clip is compared with itself, or the timestamp is no ISO 8601.
    """
    if answer.preference not in CHOICES:
        raise DataError(f"preference is {answer.preference!r}", where=where, expected=" or ".join(CHOICES))
    if answer.clip_a_id == answer.clip_b_id:
        raise DataError(
            f"clip {answer.clip_a_id} is compared with itself",
            where=where,
            expected="two clips",
            mend="take the line out",
        )
    try:
        _ = answer.timestamp and answer.moment
    except ValueError:
        raise DataError(
            f"timestamp is {answer.timestamp!r}",
            where=where,
            expected="ISO 8601, such as 2026-01-31T09:05:00+00:00, or nothing",
            mend="write the times that way, or leave them all empty: then the order of the lines counts",
        ) from None
    return answer


def settle(
    answers: Sequence[Answer], *, duplicates: Literal["refuse", "last"], where: str
) -> tuple[list[Answer], list[str]]:
    """Return the answers that count, sorted by pair and annotator, and the pairs that somebody answered twice.

    Args:
        answers: In the order in which they were given; where all have a timestamp, the latest counts.
        duplicates: What becomes of a pair that one annotator answered twice.
        where: Named in errors.

    Raises:
        DataError: If a pair was answered twice and that is refused, or one pair id stands for different clips.
    """
    timed = all(answer.timestamp for answer in answers)
    ordered = sorted(answers, key=lambda answer: answer.moment) if timed else list(answers)
    sides: dict[str, Answer] = {}
    kept: dict[tuple[str, str], Answer] = {}
    twice: list[str] = []
    for answer in ordered:
        known = sides.setdefault(answer.pair_id, answer)
        if (known.clip_a_id, known.clip_b_id) != (answer.clip_a_id, answer.clip_b_id):
            raise DataError(
                f"pair {answer.pair_id} is of {known.clip_a_id} and {known.clip_b_id}, "
                f"and of {answer.clip_a_id} and {answer.clip_b_id}",
                where=where,
                expected="the same two clips on the same sides",
                mend="give repeats ids of their own",
            )
        key = (answer.pair_id, answer.annotator_id)
        if key in kept:
            twice.append(answer.pair_id)
        kept[key] = answer
    if twice and duplicates == "refuse":
        raise DataError(
            f"{len(twice)} pairs were answered twice by one annotator",
            where=f"{where}: first pair {min(twice)}",
            expected="one answer",
            mend="take one out, or set duplicates to last",
        )
    return [kept[key] for key in sorted(kept)], sorted(twice)


def check_known(answers: Sequence[Answer], clips: Sequence[str], *, where: str) -> None:
    """Check that every answer is about clips that exist.

    Raises:
        DataError: Naming the first clip that does not.
    """
    known = set(clips)
    for answer in answers:
        for clip_id in (answer.clip_a_id, answer.clip_b_id):
            if clip_id not in known:
                raise DataError(
                    f"pair {answer.pair_id} is about clip {clip_id}, which is not known",
                    where=where,
                    expected=f"one of the {len(known)} clips",
                    mend="give the clips that were compared",
                )


def check_pairs(answers: Sequence[Answer], pairs: Mapping[str, tuple[str, str]], *, where: str) -> None:
    """Check that every answer is about a proposed pair, with its clips on their sides.

    Raises:
        DataError: Naming the first that is not.
    """
    for answer in answers:
        if pairs.get(answer.pair_id) != (answer.clip_a_id, answer.clip_b_id):
            raise DataError(
                f"pair {answer.pair_id} of {answer.clip_a_id} and {answer.clip_b_id} was not proposed",
                where=where,
                expected=f"pair {answer.pair_id} as {pairs.get(answer.pair_id, 'one of the proposed pairs')}",
                mend="give the pairs that were shown",
            )


def repeats(answers: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    """Return all two answers of one annotator about the same two clips, whichever side they stood on."""
    groups: dict[tuple[str, tuple[str, str]], list[Answer]] = {}
    for answer in answers:
        groups.setdefault((answer.annotator_id, answer.clips), []).append(answer)
    return [pair for key in sorted(groups) for pair in itertools.combinations(groups[key], 2)]


def consistency(repeated: Sequence[tuple[Answer, Answer]]) -> float | None:
    """Return the share of repeated pairs that were answered alike, a tie being an answer; None without repeats."""
    return sum(a.sign == b.sign for a, b in repeated) / len(repeated) if repeated else None


def accuracy_ceiling(repeated: float) -> float:
    """Return the accuracy that no model can be expected to exceed on single answers.

    Let an annotator give the answer that he would mostly give with probability q >= 1/2, each time anew. He repeats
    himself with c = q² + (1 - q)², so q = (1 + sqrt(2 c - 1)) / 2, and a model that knows his usual answer agrees with
    one answer with probability q. Where q differs from pair to pair, this is an upper bound on its mean (q is concave
    in c). Below c = 1/2 it is chance, 1/2. It bounds no pair-AUC: see :func:`expected_pair_auc`.

    Args:
        repeated: c, the share of repeated pairs answered alike, among those answered without a tie.
    """
    return (1 + math.sqrt(max(0.0, 2 * repeated - 1))) / 2


def expected_pair_auc(margin: np.ndarray, repeated: float) -> float | None:
    """Return the symmetrised pair-AUC that the true order is expected to reach on single answers.

    The model is Bradley and Terry's (1952): the usual answer to pair i is given with q_i = sigmoid(k |d_i|), d_i being
    the difference of rewards. The scale k is the one with which annotators repeat themselves, mean of q² + (1 - q)², as
    often as measured. By the true order a pair's margin is +|d_i| with probability q_i and else -|d_i|. Of two margins
    the larger one decides the sign of their sum, so that with |d| ascending

        AUC = sum of (2 i - 1) q_i / n²,  i = 1 ... n,

    more than the accuracy, the mean of q: clear pairs count more often. An estimate and no bound: it is as good as the
    differences' distribution and the few repeats are.

    Args:
        margin: (n,) differences of fitted rewards, of either sign and any scale.
        repeated: Share of repeated pairs answered alike, among those answered without a tie.

    Returns:
        None where all differences are 0, or there are none.
    """
    size = np.sort(np.abs(margin))
    if not len(size) or size[-1] <= 0:
        return None
    size = size / size[-1]

    def usual(log_scale: float) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-np.minimum(math.exp(log_scale) * size, 700.0))))

    low, high = -12.0, 24.0
    for _ in range(80):
        middle = (low + high) / 2
        q = usual(middle)
        low, high = (middle, high) if (q**2 + (1 - q) ** 2).mean() < repeated else (low, middle)
    weight = 2 * np.arange(len(size)) + 1
    return float((weight * usual(low)).sum() / len(size) ** 2)


def contradictions(repeated: Sequence[tuple[Answer, Answer]]) -> list[dict[str, Any]]:
    """Return the pairs of which one annotator said that A is better than B and that B is better than A."""
    return [
        {"annotator": a.annotator_id, "clips": list(a.clips), "pairs": [a.pair_id, b.pair_id]}
        for a, b in repeated
        if a.sign * b.sign < 0
    ]


def triples(answers: Sequence[Answer]) -> tuple[int, int]:
    """Return (circles, triples): of three clips that one annotator compared all with one another, how many go round.

    A pair counts by the majority of the annotator's answers; where that is a tie its triples are left out. Of random
    answers a quarter go round.
    """
    votes: Counter[tuple[str, str, str]] = Counter()
    for answer in answers:
        votes[answer.annotator_id, *answer.clips] += answer.sign
    better: dict[tuple[str, str], set[str]] = {}
    worse: dict[tuple[str, str], set[str]] = {}
    edges = []
    for (who, first, second), vote in votes.items():
        if vote:
            up, down = (first, second) if vote > 0 else (second, first)
            edges.append((who, up, down))
            better.setdefault((who, down), set()).add(up)
            worse.setdefault((who, up), set()).add(down)
    nobody: set[str] = set()
    circles = found = 0
    for who, up, down in edges:
        above, below = better.get((who, up), nobody), worse.get((who, down), nobody)
        circles += len(below & above)
        met_up = above | worse.get((who, up), nobody)
        met_down = below | better.get((who, down), nobody)
        found += len(met_up & met_down)
    return circles // 3, found // 3


def describe(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return what the answers say of themselves: counts, consistency, its ceiling, contradictions and circles."""
    repeated = repeats(answers)
    decided = [(a, b) for a, b in repeated if a.sign and b.sign]
    repeated_alike = consistency(decided)
    circles, compared = triples(answers)
    said = Counter(answer.preference for answer in answers)
    return {
        "annotations": len(answers),
        "pairs": len({answer.clips for answer in answers}),
        "preferences": {choice: said[choice] for choice in CHOICES},
        "ties": said["tie"],
        "repeats": {"pairs": len(repeated), "without_ties": len(decided)},
        "repeat_consistency": consistency(repeated),
        "repeat_consistency_decided": repeated_alike,
        "accuracy_ceiling": None if repeated_alike is None else accuracy_ceiling(repeated_alike),
        "contradictions": contradictions(repeated),
        "intransitive": {"circles": circles, "triples": compared},
    }


def by_annotator(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Return the answers of each annotator, sorted by name."""
    names = sorted({answer.annotator_id for answer in answers})
    return {name: [answer for answer in answers if answer.annotator_id == name] for name in names}


def inconsistent(answers: Sequence[Answer], *, min_consistency: float) -> list[str]:
    """Return the annotators who agree with themselves less often than asked, in at least ``MIN_REPEATS`` repeats."""
    found = []
    for name, own in by_annotator(answers).items():
        repeated = repeats(own)
        share = consistency(repeated)
        if len(repeated) >= MIN_REPEATS and share is not None and share < min_consistency:
            found.append(name)
    return found
