"""The frozen image encoder of a value model and the features it gave for each frame, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from robolift import schema, storage
from robolift.data.dataset import Dataset
from robolift.data.frame_cache import CacheFacts
from robolift.data.frame_coding import Coding
from robolift.data.frames import DecodedFrames
from robolift.data.same_frames import check_keys
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.policy import encoder
from robolift.policy.checkpoint import read_tensors
from robolift.policy.encoder import EncoderSpec

CHECKPOINT_FILE = "checkpoint.json"
WEIGHTS_FILE = "model.safetensors"
FEATURES_FILE = "features.parquet"
FEATURE_TOLERANCE = 1e-3
"""Features computed on another device differ by rounding, by far less; those of other weights differ by far more."""


@dataclass(frozen=True, kw_only=True)
class FrozenEncoder:
    """An encoder and its weights.

    Attributes:
        spec: What it computes.
        weights: Tensors under their checkpoint names; they go into the policy's own file.
        held_out_episodes: Episodes of the checkpoint's dataset that it was not trained on, sorted.
    """

    spec: EncoderSpec
    weights: dict[str, np.ndarray]
    held_out_episodes: tuple[int, ...]

    @classmethod
    def load(cls, uri: str) -> FrozenEncoder:
        """Load the encoder of a value checkpoint.

        Raises:
            DataError: If the checkpoint is damaged, has towers instead of an encoder, sees no cameras or doesn't say
                what it was not trained on.
        """
        where = storage.join(uri, CHECKPOINT_FILE)
        document = storage.read_json(where)
        try:
            _refuse_towers(dict(document), where)
            facts = {"cameras": document["cameras"], "image_size": document["image_size"], **document["encoder"]}
            spec = EncoderSpec.from_dict(facts)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"not a value model's checkpoint: {error!r}", where=where, expected="what train_value writes"
            ) from error
        if not spec.cameras:
            raise DataError(
                "the value model has no cameras, so there is no encoder to take over",
                where=where,
                mend="train_value with cameras, or train_policy with vision: none",
            )
        if (held_out := document.get("held_out_episodes")) is None:
            raise DataError(
                "the value model does not say which episodes it held out, and a policy must hold out the same",
                where=where,
                expected="held_out_episodes",
                mend="run train_value again",
            )
        where = storage.join(uri, WEIGHTS_FILE)
        weights = encoder.pick_weights(read_tensors(where), spec, where=where)
        return cls(spec=spec, weights=weights, held_out_episodes=tuple(held_out))

    def encode_frame(self, dataset: Dataset, episode: int, coding: Coding | None = None) -> np.ndarray:
        """Return the (F,) features of an episode's first frame, seen as in a frame cache of ``coding``."""
        frames = DecodedFrames(dataset=dataset, cameras=self.spec.cameras, size=self.spec.image_size, coding=coding)
        pictures = frames[dataset.starts[episode : episode + 1]]
        images = [jax.numpy.asarray(pictures[:, camera]) for camera in range(len(self.spec.cameras))]
        return np.asarray(encoder.encode(encoder.by_camera(self.weights, self.spec), images, self.spec)[0])


def _refuse_towers(document: dict[str, Any], where: str) -> None:
    if "vision" in document.get("model", {}):
        raise DataError(
            f"the value model of preset {document.get('preset')} has towers, which are no encoder to take over",
            where=where,
            expected="a value model of preset tiny",
            mend="train_policy with vision: none or a preset of pi0.5, or train_value with preset: tiny",
        )


def _seen_as(values: Manifest) -> Coding | None:
    """Return the coding of the frame cache that values were predicted from, None where they saw the videos' pixels."""
    caches = [cache for shard in values.parents("shards")[:1] for cache in shard.parents("frames")]
    return CacheFacts.read(caches[0]).coding if caches else None


def read_features(values: Manifest, dataset: Dataset, frozen: FrozenEncoder) -> np.ndarray:
    """Return the (frames, F) float32 features that stand beside the values.

    The first frame is encoded again here: features of other weights, or of differently decoded images, would train a
    policy that acts blindly.

    Raises:
        DataError: If they are missing, of other frames, or not what the encoder gives.
    """
    where = values.file(FEATURES_FILE)
    if not storage.exists(where):
        raise DataError(
            "the values have no image features",
            where=where,
            expected="predict_values with save_features and a checkpoint of preset tiny with cameras",
            mend="predict again, or train with vision: none",
        )
    table = schema.read_parquet(where)
    check_keys(table, dataset, where=where)
    column = table.column("features").combine_chunks()
    features = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(table.num_rows, -1)
    expected = frozen.encode_frame(dataset, 0, _seen_as(values))
    if features.shape[1] != len(expected) or np.abs(features[0] - expected).max() > FEATURE_TOLERANCE:
        raise DataError(
            "the features are not those of this checkpoint's encoder",
            where=where,
            expected=f"{len(expected)} numbers a frame, computed by the checkpoint given",
            mend="predict values with the checkpoint that is given to train_policy",
        )
    if not np.isfinite(features).all():
        raise DataError("features are not finite", where=where, mend="predict values again")
    return features
