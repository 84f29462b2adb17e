"""Checks made before a clip_reward run spends anything, and the one after its report: whether the reward passed.

A run either prepares (``mode: prepare``: clips, their features, and pairs for people to compare) or goes on from what
people said since (``mode: train``: what was prepared is found again). Nobody waits for people inside a run. On
simulated videos ``mode: simulate`` does both at once, with simulated annotators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robolift import manifest, storage
from robolift.errors import DataError, UsageError
from robolift.schema import Kind
from robolift.stages import preflight
from robolift.stages.preflight import Wiring, check_address, probe_writable

MODES = ("prepare", "train", "simulate")
WIRING = Wiring(
    stages=(
        "simulate_videos",
        "ingest_videos",
        "extract_clips",
        "extract_features",
        "merge_features",
        "propose_pairs",
        "simulate_preferences",
        "import_preferences",
        "train_reward",
        "score_clips",
        "train_downstream",
        "validate_reward",
        "write_report",
    ),
    handed={
        "simulate_videos": {"seed": "seed"},
        "ingest_videos": {"videos_uri": "videos_uri", "source": "source", "annotations_uri": "annotations_uri"},
        "extract_clips": {"seed": "seed"},
        "extract_features": {
            "encoder": "encoder",
            "hand_model": "hand_model",
            "shard": "num_shards",
            "num_shards": "num_shards",
        },
        "propose_pairs": {"num_pairs": "num_pairs", "seed": "seed"},
        "simulate_preferences": {"seed": "seed"},
        "import_preferences": {"preferences_uri": "preferences_uri"},
        "train_reward": {"drop": "", "seed": "seed"},
        "score_clips": {"method": "", "seed": "seed"},
        "train_downstream": {"shard": "num_shards", "num_shards": "num_shards", "seed": "seed"},
        "validate_reward": {"seed": "seed"},
    },
)
ADDRESSES = {
    "videos_uri": "a folder of videos",
    "annotations_uri": "a file of annotated segments",
    "preferences_uri": "the folder that `robolift review --labels` wrote to, or a CSV of comparisons",
    "encoder": "an image encoder's folder or file of weights",
    "hand_model": "MediaPipe's hand_landmarker.task",
}


def find_problems(parameters: Mapping[str, Any]) -> list[str]:
    """Check a run's parameters by the rules of the stages and of this pipeline.

    Args:
        parameters: The run's parameters by name, each of the declared type; those left out have their defaults.

    Returns:
        A line for each wrong one, naming it; none if all is well.
    """
    mode = str(parameters.get("mode", MODES[0]))
    videos_uri, preferences_uri = (str(parameters.get(name, "")) for name in ("videos_uri", "preferences_uri"))
    # Where people are not asked yet, or are simulated, the stage's own rule has nothing to look at.
    asked = mode == "train" and preferences_uri
    problems = preflight.find_problems({**parameters, "preferences_uri": preferences_uri if asked else "none"}, WIRING)
    if mode not in MODES:
        problems.append(f"mode is {mode}, expected one of: {', '.join(MODES)}")
    if mode == "train" and not preferences_uri:
        problems.append("preferences_uri is empty; give the folder that the labelling page wrote to, or a CSV")
    if mode in ("prepare", "simulate") and preferences_uri:
        problems.append(f"preferences_uri is given, and mode {mode} imports none; set mode: train to use it")
    if mode == "simulate" and videos_uri:
        problems.append(
            "videos_uri is given, and simulated annotators know only simulated videos; leave it empty, or let people "
            "compare and set mode: train"
        )
    return problems


def check(
    *,
    output_root: str,
    videos_uri: str,
    source: str,
    annotations_uri: str,
    mode: str,
    preferences_uri: str,
    encoder: str,
    hand_model: str,
    num_pairs: int,
    num_shards: int,
    seed: int,
    stages: Mapping[str, Mapping[str, Any] | None],
) -> str:
    """Check a run's parameters, and that what they name is there.

    Args:
        output_root: Where the run's outputs go.
        videos_uri: Folder of videos, or empty to simulate them.
        source: What the folder is: folder, epic, ego4d.
        annotations_uri: Annotated segments, or empty.
        mode: One of MODES.
        preferences_uri: What people said; needed by ``train`` and taken by it alone.
        encoder: Weights of an image encoder, or empty.
        hand_model: MediaPipe's bundle, or empty.
        num_pairs: Pairs to be compared.
        num_shards: Parts into which clips and trainings are cut.
        seed: The run's seed.
        stages: Configuration by stage name.

    Returns:
        ``videos_uri``.

    Raises:
        UsageError: Naming each parameter that is wrong.
        DataError: If nothing is at an address that was given.
    """
    addresses = {
        "videos_uri": videos_uri,
        "annotations_uri": annotations_uri,
        "preferences_uri": preferences_uri,
        "encoder": encoder,
        "hand_model": hand_model,
    }
    others = {
        "source": source,
        "mode": mode,
        "num_pairs": num_pairs,
        "num_shards": num_shards,
        "seed": seed,
        "stages": stages,
    }
    if problems := find_problems({**addresses, **others}):
        raise UsageError("\n  ".join(["wrong parameters:", *problems]))
    probe_writable(output_root)
    for name, uri in addresses.items():
        if uri:
            check_address(uri, expected=ADDRESSES[name])
    return videos_uri


def check_passed(validation_uri: str, report_uri: str) -> bool:
    """Check that a reward passed its validation, where that is asked for; this comes after the report.

    Args:
        validation_uri: A RewardValidation.
        report_uri: The report on it, which the error names.

    Returns:
        Whether it passed.

    Raises:
        DataError: If it did not and ``validate_reward.gate`` is on.
    """
    validation = manifest.expect(manifest.load(validation_uri), Kind.VALIDATION, name="validation")
    found = storage.read_json(validation.file("validation.json"))
    if found["gate"] and not found["passed"]:
        raise DataError(
            f"the reward did not pass: {'; '.join(found['reasons'])}",
            where=validation.uri,
            expected=f"rho of at least {found['rho_min']} with an interval above 0",
            mend=f"read {manifest.load(report_uri).file('report.html')}; compare more pairs, or do not use this reward "
            "(stages.validate_reward.gate: false lets such a run succeed)",
        )
    return bool(found["passed"])
