"""Every answer a model ever gave, kept by what it was asked: nothing is asked twice.

``<root>/<key[:2]>/<key>.json`` holds the answers about one episode. The key is a digest of all that the model was shown
and told, so neither the dataset nor the number of the episode matters: where episodes are appended, only those are
asked about. Answers are kept as they came, parsed or not; what they mean is worked out anew each time, so a mended
parser costs nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from robolift import storage
from robolift.annotators.labeller import Labeller
from robolift.annotators.messages import Answer
from robolift.annotators.protocol import Look, Scene
from robolift.errors import DataError

FOLDER = "answers"
"""Below the output root, beside the stages' folders: it outlives every run."""

HEADS = ("progress", "success")

Attempts = list[list[Answer]]
"""For each question its answers in the order they were given; a second one where the first could not be read."""


def answer_key(labeller: Labeller, scene: Scene, looks: Sequence[Look], form: Mapping[str, str | int]) -> str:
    """Return 64 hex digits that identify all that is asked about an episode.

    Args:
        labeller: Who is asked.
        scene: Task and pictures.
        looks: The moments of each question.
        form: Of the transport.
    """
    shown = sorted({frame for look in looks for frame in look.frames})
    document = {
        **labeller.who(),
        "form": dict(form),
        "task": scene.task,
        "looks": [list(look.frames) for look in looks],
        "pictures": [[frame, camera, *_digest(scene, frame, camera)] for frame in shown for camera in scene.cameras],
    }
    return hashlib.sha256(storage.to_json_bytes(document)).hexdigest()


def _digest(scene: Scene, frame: int, camera: str) -> tuple[list[int], str]:
    pixels = scene.pictures[frame, camera]
    return list(pixels.shape), hashlib.sha256(pixels.tobytes()).hexdigest()


class AnswerStore:
    """Answers below one address; several processes may use it at the same time.

    Args:
        root: Output root of the run.
    """

    def __init__(self, root: str) -> None:
        self.uri = storage.join(storage.normalize(root), FOLDER)

    def place(self, key: str) -> str:
        """Return the address of an episode's answers."""
        return storage.join(self.uri, key[:2], f"{key}.json")

    def read(self, key: str, num_questions: int) -> Attempts:
        """Return the answers kept for each question, none where it was never asked.

        Raises:
            DataError: If what is kept can't be read.
        """
        uri = self.place(key)
        if not storage.exists(uri):
            return [[] for _ in range(num_questions)]
        document = storage.read_json(uri)
        try:
            found = [[_from_dict(answer) for answer in attempts] for attempts in document["questions"]]
            if len(found) != num_questions:
                raise ValueError(f"{len(found)} questions, expected {num_questions}")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"not a record of answers: {error!r}",
                where=uri,
                mend="delete the file; the episode is asked about again",
            ) from error
        return found

    def write(self, key: str, attempts: Attempts) -> None:
        """Keep the answers about an episode, all at once."""
        document = {"questions": [[_to_dict(answer) for answer in answers] for answers in attempts]}
        storage.write_bytes(self.place(key), storage.to_json_bytes(document))


def as_kept(answer: Answer) -> Answer:
    """Return an answer as it is read back: a fresh one must mean the same as a kept one."""
    return _from_dict(_to_dict(answer))


def _to_dict(answer: Answer) -> dict[str, Any]:
    """Return an answer as JSON; a number that is none is null, and a token that can't come is no candidate."""
    document = asdict(answer)
    document["text"] = _encodable(answer.text)
    document["logprobs"] = {_encodable(t): float(value) for t, value in answer.logprobs.items() if math.isfinite(value)}
    for name in HEADS:
        document[name] = [float(value) if math.isfinite(value) else None for value in document[name]]
    return document


def _encodable(text: str) -> str:
    # A server may escape half a character, which UTF-8 can't write.
    return text.encode("utf-8", "replace").decode()


def _from_dict(document: Mapping[str, Any]) -> Answer:
    heads = {name: tuple(math.nan if value is None else float(value) for value in document[name]) for name in HEADS}
    return Answer(**{**document, **heads})
