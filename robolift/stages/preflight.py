"""Checks made before a run spends anything, and the choice of where an iteration's episodes come from."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robolift import manifest, storage
from robolift.errors import DataError, UsageError
from robolift.planner.steps import MOST_SHARDS
from robolift.schema import Kind
from robolift.stages.stage import find, parse_config
from robolift.value_model.presets import TOWER_PRESETS

HANDED: Mapping[str, Mapping[str, str]] = {
    "simulate_episodes": {"seed": "seed"},
    "import_dataset": {"dataset_uri": "dataset_uri", "iteration": "iterations"},
    "pack_frames": {"cameras": "", "size": "", "padded": ""},
    "train_value": {"seed": "seed"},
    "predict_values": {"shard": "num_shards", "num_shards": "num_shards"},
    "label_advantage": {"lookahead": "lookahead", "positive_fraction": "positive_fraction"},
    "train_policy": {"variant": "baselines", "seed": "seed"},
    "evaluate_policy": {"seed": "seed"},
}
"""The fields of each stage that the pipeline sets, and the run's parameter that decides each."""


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What a pipeline tells its stages.

    Attributes:
        stages: The stages that it has, which a run may configure.
        handed: The fields of each stage that the pipeline sets, and the run's parameter that decides each, maybe none.
        offered: Fields that a parameter decides where the run's stage configurations don't.
        defaults: What the run's stage configurations start from.
        layers: The parameters that hold stage configurations, each laid over those before it.
    """

    stages: tuple[str, ...]
    handed: Mapping[str, Mapping[str, str]]
    offered: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layers: tuple[str, ...] = ("stages",)


RECAP = Wiring(
    stages=(
        "simulate_episodes",
        "import_dataset",
        "label_returns",
        "pack_frames",
        "train_value",
        "predict_values",
        "merge_values",
        "label_advantage",
        "export_dataset",
        "train_policy",
        "evaluate_policy",
        "write_report",
    ),
    handed=HANDED,
)


def find_problems(parameters: Mapping[str, Any], wiring: Wiring = RECAP) -> list[str]:
    """Check a run's parameters by the rules of the stages they are handed to, so that each rule stands once.

    Args:
        parameters: The run's parameters by name, each of the declared type; those left out are not checked.
        wiring: What the pipeline does with them.

    Returns:
        A line for each wrong one, naming it; none if all is well.
    """
    problems = []
    configs = dict(wiring.defaults)
    told: set[str] = set()  # of the layers below
    value_model: Mapping[str, Any] = {}
    for layer in wiring.layers:
        stages = parameters.get(layer) or {}
        problems += [
            f"{layer}.{name}: no such stage; there are: {', '.join(wiring.stages)}"
            for name in stages
            if name not in wiring.stages
        ]
        for name in wiring.stages:
            own = {} if stages.get(name) is None else stages[name]
            if not isinstance(own, Mapping):
                problems.append(f"{layer}.{name} is {own!r}, expected a mapping")
                continue
            configs[name] = {**configs.get(name, {}), **own}
            problems += find_overridden(name, own, wiring.handed.get(name, {}), wiring=wiring, layer=layer)
            found = [line for line in _stage_problems(name, configs[name], parameters, wiring) if line not in told]
            told.update(found)
            problems += [f"{layer}.{line}" if line.startswith((f"{name}.", f"{name}:")) else line for line in found]
        # There is one value model, and it is told what the first layer says.
        value_model = value_model or _resolved("train_value", configs, parameters, wiring)
        problems += _precision_problems(value_model, _resolved("predict_values", configs, parameters, wiring))
    problems += _vision_problems(value_model, _resolved("train_policy", configs, parameters, wiring))
    for name, fields in wiring.offered.items():
        given = _given(parameters, fields)
        lines = _config_problems(name, {**wiring.defaults.get(name, {}), **given})
        problems += [line.removeprefix(f"{name}.") for line in lines]
    if "baselines" in parameters and not parameters["baselines"]:
        problems.append("baselines is empty, expected at least [plain]: a result says little without one")
    if parameters.get("num_shards", 1) > MOST_SHARDS:
        problems.append(f"num_shards is {parameters['num_shards']}, expected at most {MOST_SHARDS}")
    return list(dict.fromkeys(problems))  # a seed is checked by each stage that takes it


def _resolved(
    name: str, configs: Mapping[str, Mapping[str, Any]], parameters: Mapping[str, Any], wiring: Wiring
) -> dict[str, Any]:
    """Return the whole configuration of a stage, empty if something is wrong with it."""
    given = _given(parameters, wiring.handed.get(name, {}))
    try:
        return parse_config(name, {**_offered(name, parameters, wiring), **configs.get(name, {}), **given}).model_dump()
    except UsageError:
        return {}


def _vision_problems(value_model: Mapping[str, Any], policy: Mapping[str, Any]) -> list[str]:
    """Return a line if the policy wants an encoder of a value model that has none to give."""
    preset = value_model.get("preset")
    if policy.get("vision") != "frozen" or preset not in TOWER_PRESETS:
        return []
    return [
        f"train_policy.vision is frozen, but the towers of train_value.preset {preset} are no encoder that a policy "
        f"takes over; set train_policy.vision: none, a train_policy.preset of pi0.5, or train_value.preset: tiny"
    ]


def _precision_problems(value_model: Mapping[str, Any], prediction: Mapping[str, Any]) -> list[str]:
    """Return a line if a value model without towers is to predict in another precision than float32."""
    preset, precision = value_model.get("preset"), prediction.get("precision", "float32")
    if precision == "float32" or preset is None or preset in TOWER_PRESETS:
        return []
    return [f"predict_values.precision is {precision}, train_value.preset {preset} predicts in float32 alone"]


def _given(parameters: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """Return those of the fields that a parameter of the same name decides."""
    return {name: parameters[name] for name, source in fields.items() if name == source in parameters}


def _offered(name: str, parameters: Mapping[str, Any], wiring: Wiring) -> dict[str, Any]:
    """Return what parameters say of a stage's fields, where that is something else than their defaults."""
    given = _given(parameters, wiring.offered.get(name, {}))
    return {key: value for key, value in given.items() if value != find(name).Config.model_fields[key].default}


def _stage_problems(name: str, config: Mapping[str, Any], parameters: Mapping[str, Any], wiring: Wiring) -> list[str]:
    """Return a line for each wrong field of a stage; it starts with the stage's name unless a parameter decides it."""
    given = _given(parameters, wiring.handed.get(name, {}))
    config = {**_offered(name, parameters, wiring), **config}
    found = _config_problems(name, {**config, **given})
    lines = [short if (short := line.removeprefix(f"{name}.")).partition(":")[0] in given else line for line in found]
    if name == "train_policy":
        for variant in parameters.get("baselines") or []:
            tried = _config_problems(name, {**config, **given, "variant": variant})
            lines += [f"baselines: {line}" for line in tried if line not in found]
    return lines


def find_overridden(
    name: str, own: Mapping[str, Any], fields: Iterable[str], *, wiring: Wiring = RECAP, layer: str = "stages"
) -> list[str]:
    """Return a line for each of ``fields``, which the pipeline sets, that the run's ``stages`` set as well."""
    sources = wiring.handed.get(name, {})
    return [
        f"{layer}.{name}.{key}: the pipeline sets it"
        + (f"; use its parameter {source} instead" if (source := sources.get(key, key)) else "")
        for key in fields
        if key in own
    ]


def _config_problems(name: str, config: Mapping[str, Any]) -> list[str]:
    try:
        parse_config(name, config)
    except UsageError as error:
        heading, *lines = str(error).splitlines()
        # What a stage refuses before it looks at single fields comes without that heading.
        return lines if heading == "wrong configuration:" else [f"{name}: {' '.join([heading, *lines])}"]
    return []


def check_run(*, output_root: str, iteration: int, source_uris: Sequence[str], **parameters: Any) -> str:
    """Check a run's parameters, that its output root can be written and, at first, that its datasets are there.

    Args:
        output_root: Where the run's outputs go.
        iteration: Number of this iteration, from 1.
        source_uris: Datasets by iteration; a missing or empty entry means the simulator.
        parameters: The run's other parameters, as in :func:`find_problems`.

    Returns:
        The dataset of this iteration, empty when the simulator records it.

    Raises:
        UsageError: Naming each parameter that is wrong.
        DataError: If an address holds no dataset, in whichever iteration it is to be used.
    """
    if problems := find_problems(parameters):
        raise UsageError("\n  ".join(["wrong parameters:", *problems]))
    probe_writable(output_root)
    if iteration == 1:
        for uri in filter(None, source_uris):
            check_source(uri)
    return source_uris[int(iteration) - 1] if len(source_uris) >= iteration else ""


def plan_shards(num_shards: int) -> list[int]:
    """Return the shard numbers; a shard without episodes is as good as any other.

    Raises:
        UsageError: If ``num_shards`` is out of range.
    """
    if not 1 <= num_shards <= MOST_SHARDS:
        raise UsageError(f"num_shards is {int(num_shards)}, expected 1 to {MOST_SHARDS}")
    return list(range(int(num_shards)))


def probe_writable(output_root: str) -> None:
    """Write, read back and delete a small file below ``output_root``.

    Raises:
        UsageError: If that fails; the message names the root and the cause.
    """
    probe = storage.join(storage.normalize(output_root), f".probe-{secrets.token_hex(8)}")  # pods share process ids
    try:
        storage.write_bytes(probe, b"robolift")
        readable = storage.read_bytes(probe) == b"robolift"
        storage.remove(probe)
    except Exception as error:  # any store's own error type
        raise UsageError(f"output_root {output_root} can't be written: {error}") from error
    if not readable:
        raise UsageError(f"output_root {output_root} does not give back what was written")


def check_address(uri: str, *, expected: str = "a file or a folder") -> str:
    """Return ``uri`` if something lies there.

    Raises:
        DataError: If nothing does.
    """
    if storage.info(uri) is None:
        raise DataError(
            "nothing is there", where=uri, expected=expected, mend="check the address and the credentials for it"
        )
    return uri


def check_source(dataset_uri: str) -> str:
    """Return ``dataset_uri`` if a LeRobot dataset lies there.

    Raises:
        DataError: If there is no ``meta/info.json``.
    """
    exported = storage.join(dataset_uri, "dataset")
    if not any(storage.exists(storage.join(uri, "meta/info.json")) for uri in (dataset_uri, exported)):
        raise DataError(
            "no LeRobot dataset",
            where=dataset_uri,
            expected="meta/info.json of a v2.1 or v3.0 dataset",
            mend="check the address and the credentials for it",
        )
    return dataset_uri


def split_source(source_uri: str) -> tuple[str, str]:
    """Return (recording, dataset_uri): a simulator's output keeps its lineage, anything else is an external dataset."""
    if storage.exists(storage.join(source_uri, manifest.MANIFEST_FILE)):
        found = manifest.load(source_uri)
        if found.kind == Kind.RECORDING:
            return source_uri, ""
        if found.kind == Kind.EXPORT:
            return "", found.file("dataset")
    return "", source_uri
