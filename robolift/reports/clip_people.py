"""Who compared clips, how well they agree, and how often they contradict themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robolift import storage
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.schema import read_parquet

AGREEMENT_FILE = "agreement.json"


@dataclass(frozen=True, kw_only=True)
class Person:
    """One annotator.

    Attributes:
        consistency: Share of repeated pairs answered alike, None where none was repeated.
        counted: Whether the answers count.
    """

    name: str
    answers: int
    ties: int
    consistency: float | None
    counted: bool


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """One annotator who chose one clip of two, and then the other."""

    annotator: str
    clips: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class People:
    """What ``import_preferences`` says.

    Attributes:
        alpha: Krippendorff's, None where no pair was answered by two.
        ceiling: Accuracy that no model can be expected to exceed on single answers.
        circles: Of three clips compared with one another, how many went round, and how many such three there are.
        pairs: Different pairs of clips that were compared.
        num_proposed: Those that were to be compared, None where that is not known.
    """

    persons: tuple[Person, ...]
    answers: int
    pairs: int
    ties: int
    alpha: float | None
    consistency: float | None
    ceiling: float | None
    contradictions: tuple[Contradiction, ...]
    circles: tuple[int, int]
    skipped: int
    num_proposed: int | None


def read(made: Manifest, proposed: Manifest | None) -> People:
    """Read agreement.json.

    Raises:
        DataError: If it is not what ``import_preferences`` writes.
    """
    where = made.file(AGREEMENT_FILE)
    document = storage.read_json(where)
    try:
        return _parse(document, _count_proposed(proposed) if proposed else None)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"not what people compared: {error!r}",
            where=where,
            expected="agreement.json as import_preferences writes it",
            mend="run import_preferences again",
        ) from error


def _count_proposed(made: Manifest) -> int:
    """Return how many different pairs of clips were proposed; a repeat is the same pair."""
    table = read_parquet(made.file("pairs.parquet"), ["clip_a_id", "clip_b_id"])
    return len({frozenset(row.values()) for row in table.to_pylist()})


def _parse(document: Mapping[str, Any], num_proposed: int | None) -> People:
    persons = tuple(
        Person(
            name=str(one["name"]),
            answers=int(one["annotations"]),
            ties=int(one["ties"]),
            consistency=_number(one["repeat_consistency"]),
            counted=bool(one["counted"]),
        )
        for one in document["annotators"]
    )
    contradictions = tuple(
        Contradiction(annotator=str(one["annotator"]), clips=tuple(str(clip) for clip in one["clips"]))
        for one in document["contradictions"]
    )
    circles = document["intransitive"]
    return People(
        persons=persons,
        answers=int(document["annotations"]),
        pairs=int(document["pairs"]),
        ties=int(document["ties"]),
        alpha=_number(document["alpha"]),
        consistency=_number(document["repeat_consistency"]),
        ceiling=_number(document["accuracy_ceiling"]),
        contradictions=contradictions,
        circles=(int(circles["circles"]), int(circles["triples"])),
        skipped=len(document["skipped"]),
        num_proposed=num_proposed,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
