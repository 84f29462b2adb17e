"""What a model was asked, what its answers cost, and where it gave none that could be used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robolift import storage
from robolift.errors import DataError
from robolift.manifest import Manifest

PLAN_FILE = "plan.json"
ERRORS_FILE = "errors.json"
SPENT = ("requests", "input_tokens", "output_tokens")
MILLION = 1_000_000
MAX_ANSWER = 1500
"""Characters of a raw answer that are shown: a model may go on for pages."""
MAX_ANSWERS = 4


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One thing that was spent: as planned and as it came; None where it is not known."""

    name: str
    planned: float | None
    spent: float | None


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a million tokens cost, in any currency; 0 where that was not told."""

    input: float = 0.0
    output: float = 0.0

    def of(self, tokens: Mapping[str, float | None]) -> float | None:
        """Return what input and output tokens cost; None where no price was told or a priced number is not known."""
        priced = [
            (tokens.get(f"{way}_tokens"), price)
            for way, price in (("input", self.input), ("output", self.output))
            if price
        ]
        paid = [number * price for number, price in priced if number is not None]
        return sum(paid) / MILLION if priced and len(paid) == len(priced) else None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Episodes whose answers could not be used, of one class, and one of them.

    Attributes:
        name: The class.
        episodes: All of them, ascending.
        message: What was wrong with the first.
        answers: The first few raw answers about the first, as the model gave them: anything may stand in them.
        num_answers: How many there were.
    """

    name: str
    episodes: tuple[int, ...]
    message: str
    answers: tuple[str, ...]
    num_answers: int


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """The model that was asked.

    Attributes:
        settings: What identifies it, by name: protocol, model, cameras and so on.
        prompt: The text it was asked with.
        costs: Requests, tokens and, where prices were told, money.
        failures: Its errors by class, the commonest first.
        calibration: How its scores became progress: ``none`` or ``isotonic``.
    """

    settings: Mapping[str, Any]
    prompt: str
    costs: tuple[Cost, ...]
    failures: tuple[Failure, ...]
    calibration: str

    @property
    def name(self) -> str:
        """The model, as people call it."""
        return str(self.settings.get("model") or "the model").rstrip("/").rpartition("/")[2]

    @property
    def num_failed(self) -> int:
        """Episodes with an error."""
        return len({episode for failure in self.failures for episode in failure.episodes})


def read(automatic: Manifest, prices: Prices) -> Labeller | None:
    """Read who labelled, from the model's labels and what they were made from.

    Returns:
        None when no model was asked: labels may still have been imported.

    Raises:
        DataError: If plan or errors are not what their stages write.
    """
    if not automatic.inputs.get("plan"):
        return None
    plan_file = automatic.parent("plan").file(PLAN_FILE)
    plan = storage.read_json(plan_file)
    try:
        settings, prompt, totals = dict(plan["labeller"]), str(plan["prompt"]), dict(plan["totals"])
    except (KeyError, TypeError, ValueError) as error:
        raise _not_as_written(plan_file, "plan_labels", error) from error
    if settings.get("protocol") in (None, "none"):
        return None
    return Labeller(
        settings=settings,
        prompt=prompt,
        costs=_costs(totals, automatic.parents("shards"), prices),
        failures=_failures(automatic),
        calibration=str(automatic.config.get("calibration", "none")),
    )


def _costs(totals: Mapping[str, Any], shards: Sequence[Manifest], prices: Prices) -> tuple[Cost, ...]:
    costs = [
        Cost(
            name=name,
            planned=totals.get(name if name == "requests" else f"{name}_estimate"),
            spent=sum(shard.counts[name] for shard in shards) if _all_have(shards, name) else None,
        )
        for name in SPENT
    ]
    planned, spent = (prices.of({one.name: getattr(one, when) for one in costs}) for when in ("planned", "spent"))
    if planned is not None or spent is not None:
        costs.append(Cost(name="cost", planned=planned, spent=spent))
    return tuple(costs)


def _all_have(shards: Sequence[Manifest], name: str) -> bool:
    return bool(shards) and all(name in shard.counts for shard in shards)


def _failures(automatic: Manifest) -> tuple[Failure, ...]:
    where = automatic.file(ERRORS_FILE)
    listed = storage.read_json(where)
    by_class: dict[str, list[dict[str, Any]]] = {}
    try:
        for error in sorted(listed, key=lambda error: int(error["episode_index"])):
            by_class.setdefault(str(error["class"]), []).append(error)
        found = [
            Failure(
                name=name,
                episodes=tuple(sorted({int(error["episode_index"]) for error in errors})),
                message=str(errors[0]["message"]),
                answers=tuple(shorten(answer) for answer in errors[0]["answers"][:MAX_ANSWERS]),
                num_answers=len(errors[0]["answers"]),
            )
            for name, errors in by_class.items()
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise _not_as_written(where, "collect_rewards", error) from error
    return tuple(sorted(found, key=lambda failure: (-len(failure.episodes), failure.name)))


def shorten(answer: Any) -> str:
    """Return a raw answer as text of at most MAX_ANSWER characters."""
    text = answer if isinstance(answer, str) else json.dumps(answer, sort_keys=True, ensure_ascii=False)
    cut = len(text) - MAX_ANSWER
    return f"{text[:MAX_ANSWER]} … ({cut} characters more)" if cut > 0 else text


def _not_as_written(where: str, stage: str, error: Exception) -> DataError:
    return DataError(
        f"not what {stage} writes: {error!r}",
        where=where,
        expected=f"the file as {stage} writes it",
        mend=f"run {stage} again",
    )
