"""Who is offered what next: the same answer for the same work done so far, whichever server is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far people are with an item.

    Attributes:
        done: Who completed it.
        skipped: Who passed it over.
        started: Who did something and neither.
    """

    done: frozenset[str] = frozenset()
    skipped: frozenset[str] = frozenset()
    started: frozenset[str] = frozenset()


UNTOUCHED = Standing()


def share(*parts: str | int) -> float:
    """Return a number in [0, 1) that depends on ``parts`` alone and looks drawn at random."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def needed(item: str, *, seed: int, overlap: float, annotators_per_item: int) -> int:
    """Return how many people are to complete an item: several for a share ``overlap`` of the items, else one."""
    return annotators_per_item if share(seed, "overlap", item) < overlap else 1


def flipped(pair_id: str, annotator: str, *, seed: int) -> bool:
    """Tell whether a person sees clip B of a pair first."""
    return share(seed, "flip", annotator, pair_id) < 0.5


def candidates(
    items: Sequence[str],
    standings: Mapping[str, Standing],
    annotator: str,
    *,
    needs: Mapping[str, int],
    gold: Collection[str] = (),
    gold_rate: float = 0.0,
    seed: int = 0,
    after: str | None = None,
) -> list[str]:
    """Return what a person may be offered, best first.

    What they began comes first; then, if it is time for one, a gold item; then the others in the order of ``items``.
    Nobody is offered again what they completed or skipped, nor what enough others have completed.

    Args:
        items: All items of one mode, in the order of the queue.
        standings: Of the items that anybody touched.
        annotator: Who asks.
        needs: People needed for each item.
        gold: Items with known answers; everybody may get them.
        gold_rate: Share of offers that are gold.
        seed: Of the draw.
        after: Begin the queue behind this item and come back to what is before it last.
    """
    began, open_items = [], []
    answered = 0
    for item in items:
        standing = standings.get(item, UNTOUCHED)
        if annotator in standing.done or annotator in standing.skipped:
            answered += 1
        elif annotator in standing.started:
            began.append(item)
        elif len(standing.done) < needs[item]:
            open_items.append(item)
    drawn: list[str] = []
    if gold and share(seed, "gold", annotator, answered) < gold_rate:
        mine = [item for item in items if item in gold and not _touched(standings.get(item, UNTOUCHED), annotator)]
        drawn = sorted(mine, key=lambda item: share(seed, "order", annotator, item))
    if after is not None and after in items:
        place = {item: number for number, item in enumerate(items)}
        began, open_items = (_rotate(found, place, place[after]) for found in (began, open_items))
    return list(dict.fromkeys([*began, *drawn, *open_items]))


def _touched(standing: Standing, annotator: str) -> bool:
    return annotator in standing.done | standing.skipped | standing.started


def _rotate(found: Sequence[str], place: Mapping[str, int], after: int) -> list[str]:
    return [item for item in found if place[item] > after] + [item for item in found if place[item] <= after]
