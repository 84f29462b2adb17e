"""The graph of finished outputs that a report rests on: who was made from whom, with which settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robolift import manifest as manifests
from robolift.errors import DataError
from robolift.manifest import Manifest, Plan
from robolift.reports.numbers import count
from robolift.reports.success import variant_place
from robolift.schema import SCHEMA_VERSION

SHORT_DIGEST = 8
POLICY_INPUT = "policy"
COUNTS_SHOWN = ("episodes", "frames", "rollouts", "steps")


@dataclass(frozen=True, kw_only=True)
class Node:
    """One output, or several alike that share parents and children, such as the shards of a prediction.

    Attributes:
        key: Digest of the (first) output.
        members: Digests of all outputs it stands for.
        variant: What tells this output from others of its stage at a glance; an evaluation's is its policy's.
        inputs: For each input name the keys of its parents.
        config: Settings of the first; ``varying`` names those in which the members differ.
    """

    key: str
    stage: str
    variant: str
    members: tuple[str, ...]
    inputs: dict[str, tuple[str, ...]]
    config: dict[str, Any]
    varying: tuple[str, ...]
    counts: dict[str, int]
    code: str
    image: str
    schema_version: str
    seed: int | None

    @property
    def parents(self) -> frozenset[str]:
        """Keys of everything it was made from."""
        return frozenset(key for keys in self.inputs.values() for key in keys)

    @property
    def short(self) -> str:
        """The digest as the drawing shows it."""
        return self.key[:SHORT_DIGEST]

    @property
    def title(self) -> str:
        """The stage, and how many outputs of it there are if several."""
        return f"{self.stage} × {len(self.members)}" if len(self.members) > 1 else self.stage

    @property
    def headcount(self) -> str:
        """The count that says most about it, such as its episodes; empty without counts."""
        name = next((name for name in COUNTS_SHOWN if name in self.counts), next(iter(self.counts), None))
        return f"{count(self.counts[name])} {name.replace('_', ' ')}" if name else ""

    def setting(self, name: str) -> str:
        """Return one setting as text."""
        value = self.config[name]
        text = value if isinstance(value, str) and value else json.dumps(value, sort_keys=True, ensure_ascii=False)
        return f"{text}, and {len(self.members) - 1} more" if name in self.varying else text


def check_origin(made: Manifest, name: str, given: Manifest | None) -> None:
    """Check that an output was made from ``given``, if that is given and the output has an input of this ``name``.

    Raises:
        DataError: Naming what it was made from.
    """
    parents = [parent.digest for parent in made.inputs.get(name, [])]
    if given and parents and given.digest not in parents:
        raise DataError(
            f"the output of {made.stage} was made from another {name}",
            where=given.uri,
            expected=f"the output {', '.join(parents)}",
            mend=f"give the {name} that it was made from",
        )


def collect(plan: Plan) -> list[Node]:
    """Walk from the inputs of a report up to the first recordings.

    Args:
        plan: The report that is being written; it becomes the last node.

    Returns:
        Nodes with every parent before its children, like outputs folded into one.

    Raises:
        DataError: If the manifest of an ancestor is no longer where its child says.
    """
    found: dict[str, Node] = {}
    queue = [made for given in plan.inputs.values() for made in given]
    while queue:
        made = queue.pop()
        if made.digest in found:
            continue
        found[made.digest] = _node(made)
        parents = [parent for given in made.inputs.values() for parent in given]
        queue += [manifests.load(parent.uri) for parent in parents if parent.digest not in found]
    own = {name: tuple(made.digest for made in given) for name, given in plan.inputs.items()}
    found[plan.digest] = Node(
        key=plan.digest,
        stage=plan.stage,
        variant="",
        members=(plan.digest,),
        inputs=own,
        config=plan.config,
        varying=(),
        counts={},
        code=plan.code,
        image="",
        schema_version=SCHEMA_VERSION,
        seed=plan.seed,
    )
    return _sorted(_fold({key: _with_variant(node, found) for key, node in found.items()}))


def _node(made: Manifest) -> Node:
    return Node(
        key=made.digest,
        stage=made.stage,
        variant=str(made.config.get("variant", "")),
        members=(made.digest,),
        inputs={name: tuple(parent.digest for parent in given) for name, given in sorted(made.inputs.items())},
        config=made.config,
        varying=(),
        counts=dict(sorted(made.counts.items())),
        code=made.code,
        image=made.image,
        schema_version=made.schema_version,
        seed=made.seed,
    )


def _with_variant(node: Node, nodes: Mapping[str, Node]) -> Node:
    policies = node.inputs.get(POLICY_INPUT, ())
    return node if node.variant or len(policies) != 1 else replace(node, variant=nodes[policies[0]].variant)


def _children(nodes: Mapping[str, Node]) -> dict[str, set[str]]:
    children: dict[str, set[str]] = {key: set() for key in nodes}
    for key, node in nodes.items():
        for parent in node.parents:
            children[parent].add(key)
    return children


def _fold(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Replace outputs of one stage with the same parents and the same children by one node."""
    children = _children(nodes)
    groups: dict[tuple[Any, ...], list[Node]] = {}
    for node in nodes.values():
        alike = (node.stage, node.variant, frozenset(node.parents), frozenset(children[node.key]))
        groups.setdefault(alike, []).append(node)
    folded: dict[str, Node] = {}
    stands_for: dict[str, str] = {}
    for group in groups.values():
        ordered = sorted(group, key=lambda node: (json.dumps(node.config, sort_keys=True), node.key))
        first = ordered[0]
        varying = {name for node in ordered for name in node.config if node.config[name] != first.config.get(name)}
        counts = {name: sum(node.counts.get(name, 0) for node in ordered) for name in first.counts}
        members = tuple(node.key for node in ordered)
        folded[first.key] = replace(first, members=members, varying=tuple(sorted(varying)), counts=counts)
        stands_for.update(dict.fromkeys(members, first.key))
    return {
        key: replace(
            node,
            inputs={
                name: tuple(dict.fromkeys(stands_for[parent] for parent in given))
                for name, given in node.inputs.items()
            },
        )
        for key, node in folded.items()
    }


def _sorted(nodes: Mapping[str, Node]) -> list[Node]:
    ranks = levels(list(nodes.values()))
    return sorted(nodes.values(), key=lambda node: (ranks[node.key], node.stage, variant_place(node.variant), node.key))


def levels(nodes: Sequence[Node]) -> dict[str, int]:
    """Return for each key the length of the longest way to it from an output without parents."""
    by_key = {node.key: node for node in nodes}
    found: dict[str, int] = {}

    def level(key: str) -> int:
        if key not in found:
            found[key] = 1 + max((level(parent) for parent in by_key[key].parents), default=-1)
        return found[key]

    for node in nodes:
        level(node.key)
    return found


def direct_edges(nodes: Sequence[Node]) -> list[tuple[str, str]]:
    """Return (parent, child) pairs without those that a longer way through other outputs implies."""
    by_key = {node.key: node for node in nodes}
    above: dict[str, frozenset[str]] = {}
    for node in nodes:
        above[node.key] = node.parents.union(*(above[parent] for parent in node.parents))
    edges = []
    for node in nodes:
        implied = frozenset().union(*(above[parent] for parent in node.parents))
        edges += [(parent, node.key) for parent in sorted(node.parents - implied) if parent in by_key]
    return edges
