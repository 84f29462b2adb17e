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
    "tri": "what is progressing, ordinal",
    "outcome": "how episodes ended, nominal",
    "preference": "which clip is better, nominal",
}


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """One person.

    Attributes:
        completed: Items finished.
        skipped: Items passed over.
        half_done: Items begun and left.
        gold_accuracy: Share of gold items answered rightly; None without any.
        counted: Whether the person's labels are used; not where too many gold items were wrong.
    """

    name: str
    completed: int
    skipped: int
    half_done: int
    gold_accuracy: float | None
    counted: bool


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
        used: Episodes that people's labels are taken from.
        unused: Episodes that were begun, or done by too few people.
        agreement: Krippendorff's alpha by what was labelled; None where nothing was labelled twice.
        disagreement: (episode, how far people differ on it, 0..1), largest first, agreed ones left out.
    """

    annotators: tuple[Annotator, ...]
    used: int
    unused: int
    agreement: Mapping[str, float | None]
    skips: tuple[Skip, ...]
    disagreement: tuple[tuple[int, float], ...]


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
        return _parse(document) if document["annotators"] else None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"not what people did: {error!r}",
            where=where,
            expected="reviews.json as import_reviews writes it",
            mend="run import_reviews again",
        ) from error


def _parse(document: Mapping[str, Any]) -> Reviews:
    annotators = tuple(
        Annotator(
            name=str(one["name"]),
            completed=int(one["completed"]),
            skipped=int(one["skipped"]),
            half_done=int(one["half_done"]),
            gold_accuracy=_number(one["gold_accuracy"]),
            counted=bool(one["counted"]),
        )
        for one in document["annotators"]
    )
    skips = tuple(
        Skip(item=str(one["item"]), annotator=str(one["annotator"]), reason=str(one["reason"]))
        for one in document["skips"]
    )
    episodes = document["episodes"]
    differing = [(int(one["episode_index"]), float(one["disagreement"])) for one in episodes["disagreement"]]
    return Reviews(
        annotators=annotators,
        used=int(episodes["used"]),
        unused=int(episodes["too_few_annotators"]) + int(episodes["half_done"]),
        agreement={name: _number(value) for name, value in document["agreement"].items()},
        skips=skips,
        disagreement=tuple(sorted((pair for pair in differing if pair[1] > 0), key=lambda pair: (-pair[1], pair[0]))),
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
