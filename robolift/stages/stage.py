"""What a stage is, and the one way to run it, whichever door it came through.

A stage module holds

* ``INPUTS``: for each input name an :class:`Input`,
* ``OUTPUT``: the :class:`~robolift.schema.Kind` it makes,
* ``Config``: a :class:`StageConfig`,
* ``run(config, inputs, output) -> counts``: does the work, writing files below ``output.path``.

It may hold ``identity(config) -> dict`` when something besides configuration, inputs and code decides the result, such
as the content of an external dataset; and ``preview(config, inputs) -> str``, what can be told about the result without
writing anything, which ``--dry-run`` prints after the plan.

It may hold ``input_identity(name, manifests)`` when something simpler than their digests says what the manifests of
input ``name`` are: the JSON it returns stands for them, so that a difference that can't show leads to one output. What
gives another result must be told apart. None says that leaving the input out would not show either: then the manifest
doesn't name it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from robolift import manifest as manifests
from robolift import provenance, storage
from robolift.errors import UsageError
from robolift.logging import get_logger
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import SCHEMA_VERSION, Kind
from robolift.stages import NAMES


class StageConfig(BaseModel):
    """Base of every stage's configuration: frozen, typed, unknown keys refused, each field described below itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    RUNTIME: ClassVar[frozenset[str]] = frozenset()
    """Fields that change how fast the work is done and never its result; they stay out of the output's identity."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input of a stage."""

    kind: Kind
    optional: bool = False
    many: bool = False


class Inputs(dict[str, list[Manifest]]):
    """The manifests a stage was given, by input name."""

    def one(self, name: str) -> Manifest:
        """Return the single manifest of a required input."""
        return self[name][0]

    def get_one(self, name: str) -> Manifest | None:
        """Return the single manifest of an optional input, None if it was not given."""
        found = self.get(name) or []
        return found[0] if found else None


class Stage(Protocol):
    """A stage module, as a type checker sees it."""

    INPUTS: Mapping[str, Input]
    OUTPUT: Kind
    Config: type[StageConfig]

    def run(self, config: Any, inputs: Inputs, output: Output) -> Mapping[str, int]:
        """Do the work and return counts for the manifest."""


def find(name: str) -> Stage:
    """Import the stage ``name``.

    Raises:
        UsageError: If there is none; the message lists them.
    """
    if name not in NAMES:
        raise UsageError(f"no stage {name!r}; there are: {', '.join(NAMES)}")
    return cast("Stage", importlib.import_module(f"robolift.stages.{name}"))


def parse_config(name: str, values: Mapping[str, Any]) -> StageConfig:
    """Validate a stage's configuration.

    Raises:
        UsageError: Naming each wrong field, what it was and what was expected.
    """
    try:
        return find(name).Config.model_validate(dict(values))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]) or "config"
            lines.append(f"{name}.{where}: {problem['msg']} (got {problem.get('input')!r})")
        raise UsageError("\n".join(["wrong configuration:", *lines])) from None


def load_inputs(name: str, uris: Mapping[str, str | Sequence[str]]) -> Inputs:
    """Load and check the manifests of a stage's inputs.

    Raises:
        UsageError: If an input is unknown, missing, of the wrong kind, or given several times where one is expected.
        DataError: If a manifest is not there.
    """
    declared = find(name).INPUTS
    unknown = set(uris) - set(declared)
    if unknown:
        raise UsageError(f"{name} has no input {', '.join(sorted(unknown))}; it has: {', '.join(declared) or 'none'}")
    inputs = Inputs()
    for key, spec in declared.items():
        given = uris.get(key) or ()
        addresses = [given] if isinstance(given, str) else given
        if not isinstance(addresses, (list, tuple)) or not all(isinstance(address, str) for address in addresses):
            raise UsageError(f"{name}: input {key} is {given!r}, expected an address or a list of them")
        addresses = [address for address in addresses if address]
        if not addresses and not spec.optional:
            raise UsageError(f"{name} needs input {key} (a {spec.kind})")
        if len(addresses) > 1 and not spec.many:
            raise UsageError(f"{name} takes one {key}, got {len(addresses)}")
        if addresses:
            inputs[key] = [manifests.expect(manifests.load(a), spec.kind, name=key) for a in addresses]
    return inputs


def digests(_name: str, manifests: Sequence[Manifest]) -> list[str]:
    """Return what identifies an input unless its stage says otherwise: its manifests, in order."""
    return [manifest.digest for manifest in manifests]


def plan(name: str, config: StageConfig, inputs: Inputs, output_root: str) -> Plan:
    """Work out the identity and the place of an output without doing the work.

    Raises:
        UsageError: If what identifies it doesn't fit in a manifest.
    """
    stage = find(name)
    resolved = config.model_dump(mode="json")
    lasting = {key: value for key, value in resolved.items() if key not in config.RUNTIME}
    code = provenance.code_digest(f"robolift.stages.{name}")
    identity = getattr(stage, "identity", None)
    extra: dict[str, Any] = identity(config) if identity else {}
    input_identity = getattr(stage, "input_identity", digests)
    identified = {key: stated for key, found in inputs.items() if (stated := input_identity(key, found)) is not None}
    digest = storage.digest_of(
        {
            "stage": name,
            "schema": SCHEMA_VERSION,
            "code": code,
            "config": lasting,
            "inputs": identified,
            "identity": extra,
        }
    )
    planned = Plan(
        stage=name,
        kind=stage.OUTPUT,
        root=output_root,
        config=lasting,
        inputs={key: found for key, found in inputs.items() if key in identified},
        code=code,
        digest=digest,
        seed=lasting.get("seed"),
        identity=extra,
    )
    planned.check_size()
    return planned


def execute(
    name: str,
    config: Mapping[str, Any] | StageConfig,
    inputs: Mapping[str, str | Sequence[str]],
    output_root: str,
) -> Manifest:
    """Run a stage, or find that the same work is already done.

    Args:
        name: The stage.
        config: Its configuration; fields left out take their defaults.
        inputs: For each input name the address of an output folder, or several where the stage takes many.
        output_root: Where outputs are published: ``<root>/<stage>/<digest>/``.

    Returns:
        The manifest of the finished output.
    """
    log = get_logger("stage").bind(stage=name)
    parsed = config if isinstance(config, StageConfig) else parse_config(name, config)
    loaded = load_inputs(name, inputs)
    planned = plan(name, parsed, loaded, output_root)
    if done := planned.finished():
        planned.sweep()
        log.info("reused", uri=done.uri)
        return done
    log.info("started", uri=planned.uri)
    output = Output(planned)
    try:
        finished = output.publish(find(name).run(parsed, loaded, output))
    except BaseException:
        output.discard()
        raise
    log.info("finished", uri=finished.uri, **finished.counts)
    return finished
