"""Which pairs of clips people compare: any two, those a model is unsure about, and some a second time."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robolift.clips.inputs import Clips
from robolift.errors import UsageError

COLUMNS = ("pair_id", "clip_a_id", "clip_b_id", "reason")
PAGE_COLUMNS = (
    *(f"{name}_{side}" for side in "ab" for name in ("episode", "start", "stop")),
    "clip_a_id",
    "clip_b_id",
)
CANDIDATES = 50
"""Pairs that are weighed for each one that is chosen, in active choice."""
CROWDING = 4
"""A clip stands in at most so many times the pairs that it would stand in by an even choice."""


@dataclass(frozen=True)
class Pair:
    """Two clips to compare, by their rows, the left one first.

    Attributes:
        reason: ``random``, ``active`` or ``repeat``; for the records, never shown to who compares.
    """

    a: int
    b: int
    reason: str


def propose(
    kinds: Sequence[str],
    num_pairs: int,
    *,
    repeat_fraction: float,
    seed: int,
    within_kind: bool = False,
    member_scores: np.ndarray | None = None,
) -> list[Pair]:
    """Choose pairs in the order in which they are to be shown.

    No two clips stand together twice, except in repeats: those come later than the pair they repeat, at a random
    place, with sides exchanged, so that a habit of preferring one side shows as inconsistency.

    Args:
        kinds: (n,) kind of each clip.
        num_pairs: Pairs, repeats among them.
        repeat_fraction: Share of repeats.
        seed: Decides pairs, sides and order.
        within_kind: Whether both clips are of one kind.
        member_scores: (members, n) scores by the members of an ensemble, for active choice; None: at random.

    Raises:
        UsageError: If the clips don't make so many pairs.
    """
    rng = np.random.default_rng([seed, len(kinds), num_pairs])
    num_repeats = min(round(repeat_fraction * num_pairs), num_pairs // 2)
    num_fresh = num_pairs - num_repeats
    names = sorted(set(kinds)) if within_kind else [""]
    groups = [np.array([row for row, kind in enumerate(kinds) if name in ("", kind)], np.int64) for name in names]
    possible = sum(len(group) * (len(group) - 1) // 2 for group in groups)
    if possible < num_fresh:
        raise UsageError(
            f"num_pairs {num_pairs} asks for {num_fresh} different pairs; {len(kinds)} clips make {possible}"
            f"{' within their kinds' if within_kind else ''}: ask for fewer, or extract more clips"
        )
    if member_scores is None:
        chosen, reason = _draw(groups, num_fresh, rng), "random"
    else:
        candidates = _draw(groups, min(possible, CANDIDATES * num_fresh), rng)
        chosen, reason = _most_doubtful(candidates, member_scores, num_fresh), "active"
        chosen = chosen[rng.permutation(num_fresh)]
    swapped = rng.random(num_fresh) < 0.5
    chosen[swapped] = chosen[swapped][:, ::-1]
    fresh = [Pair(int(a), int(b), reason) for a, b in chosen]
    repeated = np.sort(rng.permutation(num_fresh)[:num_repeats])
    places = repeated + 1 + rng.random(num_repeats) * (num_fresh - repeated)
    shown = [(float(place), pair) for place, pair in enumerate(fresh)]
    shown += [
        (float(place), Pair(fresh[row].b, fresh[row].a, "repeat")) for place, row in zip(places, repeated, strict=True)
    ]
    return [pair for _, pair in sorted(shown, key=lambda entry: entry[0])]


def _draw(groups: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``count`` different pairs within the groups, (count, 2), in random order."""
    sizes = np.array([len(group) * (len(group) - 1) // 2 for group in groups])
    ends = np.cumsum(sizes)
    codes = rng.choice(int(ends[-1]), size=count, replace=False)
    owner = np.searchsorted(ends, codes, side="right")
    local = codes - (ends - sizes)[owner]
    # Pair number c of a group is (c - j (j - 1) / 2, j), with j the largest number whose pairs before it are at most c.
    second = ((1 + np.sqrt(1 + 8 * local)) // 2).astype(np.int64)
    first = local - second * (second - 1) // 2
    return np.array([(groups[o][i], groups[o][j]) for o, i, j in zip(owner, first, second, strict=True)], np.int64)


def doubt(member_scores: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return how much an ensemble disagrees about the order of each pair, (pairs,) in [0, 0.5].

    It is the standard deviation over members of P(A > B) = sigmoid(R_A - R_B) (query by committee; Christiano et al.
    2017, section 2.2.4). Members who all find two clips alike agree, whatever the pair's probability is.

    Args:
        member_scores: (members, clips).
        pairs: (pairs, 2) rows of the clips.
    """
    difference = member_scores[:, pairs[:, 0]] - member_scores[:, pairs[:, 1]]
    return np.asarray((0.5 * (1 + np.tanh(difference / 2))).std(axis=0))


def _most_doubtful(candidates: np.ndarray, member_scores: np.ndarray, count: int) -> np.ndarray:
    """Return the ``count`` candidates of most doubt, where no clip crowds out the others."""
    order = np.argsort(-doubt(member_scores, candidates), kind="stable")
    num_clips = member_scores.shape[1]
    most = max(1, -(-CROWDING * 2 * count // num_clips))
    uses = np.zeros(num_clips, np.int64)
    taken: list[int] = []
    passed_over: list[int] = []
    for row in order.tolist():
        a, b = candidates[row]
        if len(taken) < count and uses[a] < most and uses[b] < most:
            taken.append(row)
            uses[[a, b]] += 1
        else:
            passed_over.append(row)
    return candidates[[*taken, *passed_over][:count]]


def pair_ids(count: int) -> list[str]:
    """Return ids that tell nothing but the order."""
    return [f"pair-{number:06d}" for number in range(count)]


def page_csv(pairs: Sequence[Pair], clips: Clips) -> bytes:
    """Return the file that the labelling page reads: a clip is an "episode", numbered in the order of the clips' ids.

    It says neither the kind of a clip, nor a score, nor why a pair was chosen.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("pair_id", *PAGE_COLUMNS))
    for pair_id, pair in zip(pair_ids(len(pairs)), pairs, strict=True):
        a, b = pair.a, pair.b
        spans = (a, 0, clips.num_frames[a], b, 0, clips.num_frames[b])
        writer.writerow((pair_id, *spans, clips.clip_id[a], clips.clip_id[b]))
    return text.getvalue().encode()
