"""A reward model as files, ``model.json`` and ``model.safetensors``, and the scores that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from robolift import storage
from robolift.errors import DataError
from robolift.reward_model.design import EMBEDDING, Design

HANDS = "hands"
"""The extractor whose numbers come from a model of its own, the origin's ``hand_model``."""
WEIGHTS_FILE = "model.safetensors"
MODEL_FILE = "model.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class RewardModel:
    """An ensemble of rewards on one design.

    Attributes:
        design: What it sees of a clip.
        members: Weights of each member: ``weights`` (columns,) of a linear one, the state of a network otherwise.
        facts: The document of model.json; ``reference`` holds each member's mean and the ensemble's spread over the
            reference clips.
    """

    design: Design
    members: tuple[dict[str, np.ndarray], ...]
    facts: Mapping[str, Any]

    def member_rewards(self, design: np.ndarray) -> np.ndarray:
        """Return each member's raw reward, (members, n), of clips as the design gives them."""
        if self.facts["kind"] == "linear":
            return np.stack([design @ member["weights"] for member in self.members])
        from robolift.reward_model.neural import rewards  # noqa: PLC0415  (a linear model needs no torch)

        return np.stack([rewards(member, design) for member in self.members])

    def member_scores(
        self, columns: Mapping[str, np.ndarray], embedding: np.ndarray, origin: Mapping[str, Any]
    ) -> np.ndarray:
        """Return each member's score, (members, n), on the scale of the reference clips.

        A score is (R - the member's mean) / the ensemble's standard deviation over the reference clips, so that the
        mean of the members has mean 0 and standard deviation 1 there.

        Args:
            columns: Features by name, each (n,).
            embedding: (n, width).
            origin: How they were measured, features.json.

        Raises:
            DataError: If they were measured otherwise than those the model was trained on.
        """
        self._check_origin(origin)
        reference = self.facts["reference"]
        raw = self.member_rewards(self.design.apply(columns, embedding))
        return np.asarray((raw - np.array(reference["mean"])[:, None]) / reference["std"])

    def _check_origin(self, origin: Mapping[str, Any]) -> None:
        for name, expected in self._measured(self.facts["features"]).items():
            found = self._measured(origin)[name]
            if found != expected:
                raise DataError(
                    f"the features' {name} is not the one that the reward model was trained with",
                    where=f"features.json: {found}",
                    expected=str(expected),
                    mend="extract features as for training, or train a reward model on these",
                )

    def _measured(self, origin: Mapping[str, Any]) -> dict[str, Any]:
        """Return how what the model sees was measured: nothing that it doesn't see counts."""
        extractors, sources = origin.get("extractors", {}), origin.get("fields", {})
        found = {"decode": origin.get("decode")}
        for field in self.design.fields:
            source = sources.get(field)
            model = origin.get("hand_model") if source == HANDS else None
            found[field] = {"extractor": source, "version": extractors.get(source), "model": model}
        if len(self.design.centre):
            found["encoder"] = origin.get("encoder")
            found["embedding"] = {"version": extractors.get(EMBEDDING)}
        return found


def save(folder: Path, model: RewardModel) -> None:
    """Write the two files into ``folder``."""
    tensors = model.design.tensors()
    for number, member in enumerate(model.members):
        tensors |= {f"member.{number}.{name}": value for name, value in member.items()}
    content = safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
    storage.write_bytes(str(folder / WEIGHTS_FILE), content)
    storage.write_bytes(str(folder / MODEL_FILE), storage.to_json_bytes(dict(model.facts)))


def load(uri: str) -> RewardModel:
    """Load a reward model from the output folder of train_reward.

    Raises:
        DataError: If a file is missing or not as train_reward writes it.
    """
    where = storage.join(uri, MODEL_FILE)
    facts = storage.read_json(where)
    tensors = safetensors.numpy.load(storage.read_bytes(storage.join(uri, WEIGHTS_FILE)))
    try:
        design = Design.load(facts["fields"], tensors)
        members = tuple(
            {
                name.removeprefix(f"member.{number}."): value
                for name, value in tensors.items()
                if name.startswith(f"member.{number}.")
            }
            for number in range(facts["ensemble"])
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"not a reward model: {error!r}", where=where, expected="what train_reward writes") from error
    return RewardModel(design=design, members=members, facts=facts)
