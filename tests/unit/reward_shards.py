"""Publishes label plans, a labeller's shards, and reward tables, with what the test says they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from robolift import schema
from robolift.annotators.shard import ANCHORS, in_shard
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.stages.stage import execute
from robolift.storage import digest_of

Anchor = Mapping[str, Any]


def _output(root: str, stage: str, kind: Kind, config: Mapping[str, Any], inputs: Any, content: Any) -> Output:
    digest = digest_of([stage, dict(config), {name: [m.digest for m in ms] for name, ms in inputs.items()}, content])
    return Output(
        Plan(stage=stage, kind=kind, root=root, config=dict(config), inputs=dict(inputs), code="0" * 16, digest=digest)
    )


def publish_plan(root: str, dataset: Manifest, protocol: str = "logprob") -> Manifest:
    """Publish the plan of a labeller; ``none`` asks nobody."""
    output = _output(root, "plan_labels", Kind.LABEL_PLAN, {"protocol": protocol}, {"dataset": [dataset]}, "")
    output.write_json("plan.json", {"labeller": {"protocol": protocol}, "prompt": "", "totals": {}})
    return output.publish({"episodes": 1})


def publish_shards(
    root: str,
    dataset: Manifest,
    plan: Manifest,
    anchors: Sequence[Anchor],
    errors: Mapping[int, str] | None = None,
    *,
    num_shards: int = 1,
    config: Mapping[str, Any] | None = None,
) -> list[Manifest]:
    """Publish the shards of a labeller.

    Args:
        root: Where to.
        dataset: What is labelled.
        plan: By which plan.
        anchors: ``episode``, ``frame`` and any of score, progress, success_prob, confidence; ``asked`` else true.
        errors: Class of the error by episode.
        num_shards: How the episodes are cut.
        config: Configuration beside the cut.
    """
    return [
        _publish_shard(root, {"dataset": [dataset], "plan": [plan]}, *_of_shard(anchors, errors or {}, cut))
        for cut in ({**(config or {}), "shard": shard, "num_shards": num_shards} for shard in range(num_shards))
    ]


def _of_shard(anchors: Any, errors: Mapping[int, str], cut: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    def mine(episode: int) -> bool:
        return in_shard(episode, cut["shard"], cut["num_shards"])

    return [one for one in anchors if mine(one["episode"])], {e: name for e, name in errors.items() if mine(e)}, cut


def _publish_shard(root: str, inputs: Any, anchors: Any, errors: Any, config: Any) -> Manifest:
    rows = [
        {
            "episode_index": one["episode"],
            "frame_index": one["frame"],
            **{name: one.get(name) for name in ANCHORS.names[2:]},
            "asked": one.get("asked", True),
        }
        for one in anchors
    ]
    records = [
        {"episode_index": episode, "class": name, "message": "no number in it", "answers": ["hm"]}
        for episode, name in sorted(errors.items())
    ]
    content = [list(map(str, rows)), records]
    output = _output(root, "annotate_rewards", Kind.REWARD_SHARD, config, inputs, content)
    schema.write_table(output.path / "anchors.parquet", pa.Table.from_pylist(rows, schema=ANCHORS))
    output.write_json("errors.json", records)
    return output.publish({"requests": len(rows), "input_tokens": 100 * len(rows), "output_tokens": len(rows)})


def collect(root: str, dataset: Manifest, plan: Manifest, shards: Sequence[Manifest], **config: Any) -> Manifest:
    """Run collect_rewards."""
    inputs = {"dataset": dataset.uri, "plan": plan.uri, "shards": [shard.uri for shard in shards]}
    return execute("collect_rewards", config, inputs, root)


def publish_rewards(
    root: str,
    dataset: Manifest,
    made_by: str = "collect_rewards",
    documents: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    **columns: Sequence[Any],
) -> Manifest:
    """Publish a rewards table; columns left out are null, the anchor false and the source ``none``."""
    frames = dataset.table("frames")
    table: dict[str, Any] = {key: frames.column(key).to_pylist() for key in schema.KEYS}
    defaults = {"anchor": False, "source": "none"}
    for name in schema.TABLES["rewards"].names[2:]:
        table[name] = list(columns.get(name, [defaults.get(name)] * frames.num_rows))
    content = [{name: list(map(str, column)) for name, column in table.items()}, dict(documents or {})]
    output = _output(root, made_by, Kind.REWARDS, config or {}, {"dataset": [dataset]}, content)
    output.write_table("rewards", table)
    for name, document in (documents or {}).items():
        output.write_json(name, document)
    return output.publish({"frames": frames.num_rows})


def column(rewards: Manifest, name: str) -> list[Any]:
    """Return a column of the rewards table."""
    return list(rewards.table("rewards").column(name).to_pylist())
