"""Everything wrong with a dataset in one error: a recording isn't mended by being told one fault a run."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from robolift.errors import DataError

MAX_PROBLEMS = 20
MAX_PLACES = 3

_Key = tuple[str, str, str]


@dataclass
class Problems:
    """Collects what is wrong at one address; the same fault in many episodes is one entry with its places.

    Attributes:
        uri: The dataset.
    """

    uri: str
    _found: dict[_Key, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __len__(self) -> int:
        return len(self._found)

    def add(self, problem: str, *, where: str = "", expected: str = "", mend: str = "") -> None:
        """Note one fault; give ``problem`` without numbers that differ between places, those belong in ``where``."""
        self._found[(problem, expected, mend)].append(where)

    def add_error(self, error: DataError) -> None:
        """Note a fault that was raised."""
        self.add(error.problem, where=error.where, expected=error.expected, mend=error.mend)

    def check(self) -> None:
        """Raise if anything was noted.

        Raises:
            DataError: With every fault, up to MAX_PROBLEMS kinds and MAX_PLACES places each.
        """
        if not self._found:
            return
        if len(self._found) == 1:
            (problem, expected, mend), places = next(iter(self._found.items()))
            where = ", ".join(filter(None, [self.uri, _summary(places)]))
            raise DataError(problem, where=where, expected=expected, mend=mend)
        lines = [f"{len(self._found)} problems in {self.uri}"]
        for number, ((problem, expected, mend), places) in enumerate(self._found.items(), start=1):
            if number > MAX_PROBLEMS:
                lines.append(f"and {len(self._found) - MAX_PROBLEMS} more")
                break
            lines.append(f"{number}. {problem}")
            parts = (("where", _summary(places)), ("expected", expected), ("mend", mend))
            lines += [f"   {label}: {text}" for label, text in parts if text]
        raise DataError("\n  ".join(lines))


def _summary(places: list[str]) -> str:
    given = [place for place in places if place]
    shown = "; ".join(given[:MAX_PLACES])
    return f"{shown}; and {len(given) - MAX_PLACES} more" if len(given) > MAX_PLACES else shown
