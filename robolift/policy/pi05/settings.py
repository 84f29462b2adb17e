"""Settings of a policy's training that the presets of pi0.5 alone have. Needs no JAX."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from robolift.policy.pi05.config import CAMERAS, PRESETS


class Pi05Settings(BaseModel):
    """Weights to begin with, what stays frozen, and how pictures and prompts reach the network."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weights: str = ""
    """pi0.5 presets: weights to begin with, at any address: openpi's checkpoint (its `params`), openpi's PyTorch file
    or a policy of ours. Every name and shape must fit; low-rank updates may be missing and then begin at nothing.
    Empty: random weights."""
    weights_sha256: str = ""
    """Digest that `weights` must have; empty: any. Of a file its SHA-256; of openpi's checkpoint that of the names and
    contents of the files in its folder `params`, whichever folder above it `weights` names. An error says what was
    found."""
    frozen: list[str] = []
    """pi0.5 presets: weights that keep their values, as regular expressions of whole names such as `PaliGemma/img/.*`.
    With low-rank updates what they update is frozen besides."""
    camera_keys: dict[str, str] | None = None
    """pi0.5 presets: the dataset's camera for `base_0_rgb`, `left_wrist_0_rgb` and `right_wrist_0_rgb`; one left out is
    not there for the network, as if it were masked. null: `cameras` in this order."""
    prompt_format: Literal["openpi", "kai0", "pistar"] = "kai0"
    """pi0.5 presets: the text around task, label and state. `openpi` has no place for a label."""
    tokenizer: str = ""
    """pi0.5 presets: address of PaliGemma's SentencePiece model; it becomes a part of the policy."""
    tokenizer_sha256: str = ""
    """SHA-256 that the tokenizer's file must have; empty: any."""
    max_token_len: int | None = Field(None, ge=1)
    """pi0.5 presets: tokens that prompts are padded to; the preset's when null."""
    long_prompt: Literal["refuse", "shorten"] = "refuse"
    """pi0.5 presets: a prompt of more tokens is refused, or words are taken from the end of its task; never its label
    or the state."""
    state_width: int | None = Field(None, ge=1)
    """pi0.5 presets: numbers of the state in a prompt; null: the state's own. More are filled up with 0 as it is before
    it is normalised, by a range from 0 to 0, so that the text says bin 0: kai0's weights expect 32."""
    frame_cache: Literal["packed", "none"] = "packed"
    """pi0.5 presets: `packed` decodes all frames once before the first step, to the folder of temporary files; `none`
    decodes each batch while the step before it is computed, for recordings that no disk holds. The result is the same.
    """
    decode_workers: int = Field(4, ge=1)
    """pi0.5 presets: videos decoded side by side. The result is the same."""


def defaults(preset: str) -> dict[str, Any]:
    """Return what a preset of pi0.5 sets where nothing else does: openpi's optimizer, and its ways of seeing.

    States are read as bins over [-1, 1], so they are normalised by quantiles.
    """
    return {
        "vision": "own",
        "action_horizon": PRESETS[preset]().action_horizon,
        "normalization": "quantile",
        "schedule": "warmup_cosine",
        "learning_rate": 2.5e-5,
        "beta2": 0.95,
        "weight_decay": 1e-10,
        "batch_size": 32,
    }


def check(settings: dict[str, Any]) -> None:
    """Check the settings of a run with a preset of pi0.5.

    Raises:
        ValueError: Saying what does not fit.
    """
    for name, wanted, why in (
        ("vision", "own", "the network has a vision tower"),
        ("objective", "flow", "pi0.5 is a flow"),
        ("input_noise", 0, "a state is text"),
    ):
        if settings[name] != wanted:
            raise ValueError(
                f"{name} is {settings[name]!r}, expected {wanted!r} with preset {settings['preset']}: {why}"
            )
    if settings["state_keys"] and settings["normalization"] != "quantile":
        raise ValueError(
            "normalization is mean_std, expected quantile: pi0.5 reads a state as bins over [-1, 1], and all beyond "
            "looks alike"
        )
    if settings["state_width"] and not settings["state_keys"]:
        raise ValueError("state_width is given, but state_keys is empty: there is no state to fill up")
    if not settings["tokenizer"]:
        raise ValueError(f"preset {settings['preset']} needs tokenizer, the address of a SentencePiece model")
    if settings["weights_sha256"] and not settings["weights"]:
        raise ValueError("weights_sha256 is given, but weights is empty: the weights would be random")
    keys = cameras_by_key(settings)
    if unknown := sorted(keys.keys() - set(CAMERAS)):
        raise ValueError(f"camera_keys has {', '.join(unknown)}; the network's image keys are {', '.join(CAMERAS)}")
    if not keys or len(set(keys.values())) < len(keys):
        raise ValueError(
            f"camera_keys is {keys}, expected at least one of {', '.join(CAMERAS)}, each with its own camera"
        )


def cameras_by_key(settings: dict[str, Any]) -> dict[str, str]:
    """Return the dataset's camera for each image key of the network that has one, in the network's order."""
    named, listed = settings["camera_keys"], settings["cameras"] or []
    if named is None:
        if len(listed) > len(CAMERAS):
            raise ValueError(
                f"cameras has {len(listed)}, the network has {len(CAMERAS)} places: name them in camera_keys"
            )
        return dict(zip(CAMERAS, listed, strict=False))
    if listed and sorted(listed) != sorted(named.values()):
        raise ValueError(f"cameras and camera_keys name different cameras: {listed} and {list(named.values())}")
    return {key: named[key] for key in sorted(named, key=lambda key: (key not in CAMERAS, [*CAMERAS, key].index(key)))}
