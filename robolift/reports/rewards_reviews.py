"""What is known about the people who labelled: how much each did, how far they agree, what they passed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robolift import storage
from robolift.errors import DataError
from robolift.manifest import Manifest

REVIEWS_FILE = "reviews.json"
RELIABLE, TENTATIVE = 0.8, 0.667
AGREEMENTS = {
    "tri": "what is progressing (ordinal)",
    "outcome": "how episodes ended (nominal)",
    "stages": "where task stages begin (interval)",
    "preference": "which clip is better (nominal)",
}


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """One person.

    Attributes:
        done: Items completed.
        gold_accuracy: Share of gold items answered rightly; None without any.
    """

    name: str
    done: int
    gold_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Skip:
    """One item that somebody passed over, and why."""

    item: str
    annotator: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Reviews:
    """Everything that reviews.json says, ready to show.

    Attributes:
        agreement: Krippendorff's alpha by what was labelled; None where nothing was labelled twice.
        disagreement: Share of frames on which people differ, by item, largest first.
    """

    annotators: tuple[Annotator, ...]
    agreement: Mapping[str, float | None]
    skips: tuple[Skip, ...]
    disagreement: tuple[tuple[str, float], ...]


def read(reviews: Manifest) -> Reviews | None:
    """Read reviews.json.

    Returns:
        None when nobody labelled.

    Raises:
        DataError: If it is not what ``import_reviews`` writes.
    """
    where = reviews.file(REVIEWS_FILE)
    document = storage.read_json(where)
    try:
        annotators = tuple(
            Annotator(name=name, done=int(one["done"]), gold_accuracy=_number(one["gold_accuracy"]))
            for name, one in sorted(document["annotators"].items())
        )
        skips = tuple(
            Skip(item=str(one["item"]), annotator=str(one["annotator"]), reason=str(one["reason"]))
            for one in document["skips"]
        )
        agreement = {name: _number(value) for name, value in document["agreement"].items()}
        differing = {str(item): float(value) for item, value in document["disagreement"].items() if value}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"not what people did: {error!r}",
            where=where,
            expected="reviews.json as import_reviews writes it",
            mend="run import_reviews again",
        ) from error
    if not annotators:
        return None
    return Reviews(
        annotators=annotators,
        agreement=agreement,
        skips=skips,
        disagreement=tuple(sorted(differing.items(), key=lambda pair: (-pair[1], pair[0]))),
    )


def reading(alpha: float | None) -> str:
    """Return in words how strongly people agree: from 0.8 reliable, from 0.667 tentative (Krippendorff 2004)."""
    if alpha is None:
        return "not measured: nothing was labelled twice"
    if alpha >= RELIABLE:
        return "reliable"
    return "good for tentative conclusions" if alpha >= TENTATIVE else "unreliable"


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
