"""The graph of outputs: walked to its roots, shards folded, implied lines left out, boxes that never overlap."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from synthetic_run import SyntheticRun

from robolift.errors import DataError
from robolift.manifest import Manifest, Plan
from robolift.reports import graph, lineage
from robolift.schema import Kind


def report(root: Path, **inputs: list[Manifest]) -> Plan:
    return Plan(
        stage="write_report", kind=Kind.REPORT, root=str(root), config={}, inputs=inputs, code="c0de", digest="f" * 16
    )


@pytest.fixture
def run(tmp_path: Path) -> SyntheticRun:
    return SyntheticRun(tmp_path)


def diamond(run: SyntheticRun, num_shards: int = 3) -> Plan:
    recording = run.publish("record", Kind.RECORDING, counts={"episodes": 4})
    data = run.publish("import", Kind.DATASET, inputs={"recording": [recording]}, counts={"frames": 1200})
    shards = [
        run.publish("predict", Kind.VALUE_SHARD, inputs={"dataset": [data]}, config={"shard": i, "of": num_shards},
                    counts={"frames": 400})
        for i in range(num_shards)
    ]  # fmt: skip
    values = run.publish("merge", Kind.VALUES, inputs={"shards": shards, "dataset": [data]})
    return report(run.root, values=[values], dataset=[data])


def test_every_ancestor_is_found_parents_first(run):
    nodes = lineage.collect(diamond(run))
    assert [node.stage for node in nodes] == ["record", "import", "predict", "merge", "write_report"]


def test_alike_outputs_are_folded(run):
    shards = next(node for node in lineage.collect(diamond(run)) if node.stage == "predict")
    assert len(shards.members) == 3
    assert shards.varying == ("shard",)
    assert shards.counts == {"frames": 1200}
    assert shards.headcount == "1\u202f200 frames"
    assert shards.setting("shard") == "0, and 2 more"
    assert shards.setting("of") == "3"


def test_outputs_with_other_children_stay_apart(run):
    policies = [run.publish("train_policy", Kind.POLICY, config={"variant": v}) for v in ("plain", "advantage")]
    found = [run.publish("evaluate_policy", Kind.EVALUATION, inputs={"policy": [policy]}) for policy in policies]
    nodes = lineage.collect(report(run.root, evaluations=found))
    assert [(n.stage, n.variant) for n in nodes] == [
        ("train_policy", "plain"), ("train_policy", "advantage"),
        ("evaluate_policy", "plain"), ("evaluate_policy", "advantage"), ("write_report", ""),
    ]  # fmt: skip


def test_lines_that_a_longer_way_implies_are_left_out(run):
    nodes = lineage.collect(diamond(run))
    name = {node.key: node.stage for node in nodes}
    assert [(name[a], name[b]) for a, b in lineage.direct_edges(nodes)] == [
        ("record", "import"), ("import", "predict"), ("predict", "merge"), ("merge", "write_report"),
    ]  # fmt: skip


def test_a_lost_ancestor_is_an_error(run):
    plan = diamond(run)
    (run.root / "record").rename(run.root / "lost")
    with pytest.raises(DataError, match="no manifest"):
        lineage.collect(plan)


def test_a_node_without_counts_says_nothing(run):
    node = lineage.collect(report(run.root))[0]
    assert node.headcount == ""


def wide(run: SyntheticRun) -> list[lineage.Node]:
    data = run.publish("import", Kind.DATASET)
    labels = run.publish("label", Kind.LABELS, inputs={"dataset": [data]})
    policies = [run.publish("train_policy", Kind.POLICY, inputs={"labels": [labels]}, config={"variant": f"v{i}"})
                for i in range(5)]  # fmt: skip
    found = [run.publish("evaluate_policy", Kind.EVALUATION, inputs={"policy": [policy]}) for policy in policies[:4]]
    other = run.publish("other", Kind.RECORDING)
    # `policies[4]` and `other` reach the report over several layers, so their lines need room beside the boxes.
    return lineage.collect(report(run.root, evaluations=[*found, policies[4]], recording=[other]))


def test_boxes_do_not_overlap_and_lie_inside(run):
    drawing = graph.draw(wide(run))
    for one, other in itertools.combinations(drawing.boxes, 2):
        assert abs(one.y - other.y) >= graph.BOX_HEIGHT or abs(one.x - other.x) >= graph.BOX_WIDTH
    for box in drawing.boxes:
        assert 0 <= box.x <= drawing.width - graph.BOX_WIDTH
        assert 0 <= box.y <= drawing.height - graph.BOX_HEIGHT


def test_a_long_title_gets_a_wider_box(run):
    assert graph.draw(wide(run)).box_width == 168
    shards = [run.publish("annotate_rewards", Kind.REWARD_SHARD, config={"shard": shard}) for shard in range(2)]
    drawing = graph.draw(lineage.collect(report(run.root, shards=shards)))
    titles = [box.node.title for box in drawing.boxes]
    assert titles == ["annotate_rewards × 2", "write_report"]
    assert drawing.box_width == 176
    assert all(0 <= box.x <= drawing.width - 176 for box in drawing.boxes)


def test_children_lie_below_their_parents(run):
    nodes = wide(run)
    place = {box.node.key: box.y for box in graph.draw(nodes).boxes}
    for node in nodes:
        assert all(place[parent] < place[node.key] for parent in node.parents)


def test_lines_pass_beside_the_boxes(run):
    drawing = graph.draw(wide(run))
    straight = [(float(x), float(y)) for line in drawing.lines for x, y in re.findall(r"([\d.]+) ([\d.]+) V", line)]
    assert straight
    for (x, y), box in itertools.product(straight, drawing.boxes):
        assert not (box.y <= y < box.y + graph.BOX_HEIGHT and box.x < x < box.x + graph.BOX_WIDTH)


def test_a_chain_is_drawn_straight(run):
    drawing = graph.draw(lineage.collect(diamond(run)))
    assert len({box.x for box in drawing.boxes}) == 1
    assert len(drawing.lines) == 4


def test_drawing_is_the_same_each_time(run):
    assert graph.draw(wide(run)) == graph.draw(wide(run))
