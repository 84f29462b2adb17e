"""Where to draw the outputs of a run: a layered graph from top to bottom, its lines led around the boxes.

After Sugiyama, Tagawa and Toda (1981): layers by longest path, dummy points where a line passes a layer, order by
barycentres, then places as close to the neighbours as the boxes allow.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from robolift.reports.lineage import Node, direct_edges, levels

BOX_WIDTH = 168
FITTING = 19
"""Characters of a title that a box of that width has room for."""
CHARACTER_WIDTH = 8
BOX_HEIGHT = 52
GAP_X = 20
GAP_Y = 28
DUMMY_WIDTH = 12
MARGIN = 4
SWEEPS = 12


@dataclass(frozen=True, kw_only=True)
class Box:
    """One output as drawn; ``x`` and ``y`` are its top left corner."""

    node: Node
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Boxes, SVG paths of the lines between them, and the size of it all in CSS pixels."""

    boxes: tuple[Box, ...]
    lines: tuple[str, ...]
    width: float
    height: float
    box_width: int
    box_height: int = BOX_HEIGHT


@dataclass
class _Point:
    """A box or a dummy point of a line, while the places are being found."""

    layer: int
    width: int
    x: float = 0.0


class _Layers:
    def __init__(self, nodes: Sequence[Node], box_width: int) -> None:
        rank = levels(nodes)
        self.points: dict[str, _Point] = {n.key: _Point(rank[n.key], box_width) for n in nodes}
        self.routes: list[list[str]] = []
        for parent, child in direct_edges(nodes):
            between = [f"{parent}>{child}@{layer}" for layer in range(rank[parent] + 1, rank[child])]
            for step, key in enumerate(between):
                self.points[key] = _Point(rank[parent] + 1 + step, DUMMY_WIDTH)
            self.routes.append([parent, *between, child])
        self.above: dict[str, list[str]] = {key: [] for key in self.points}
        self.below: dict[str, list[str]] = {key: [] for key in self.points}
        for route in self.routes:
            for upper, lower in itertools.pairwise(route):
                self.above[lower].append(upper)
                self.below[upper].append(lower)
        self.order: list[list[str]] = [[] for _ in range(1 + max(p.layer for p in self.points.values()))]
        for key, point in self.points.items():
            self.order[point.layer].append(key)

    def arrange(self) -> None:
        """Order each layer by the barycentres of its neighbours, then settle the places."""
        for layer in self.order:
            self._pack(layer)
        for sweep in range(SWEEPS):
            down = sweep % 2 == 0
            neighbours = self.above if down else self.below
            for layer in self.order if down else reversed(self.order):
                if sweep < SWEEPS // 2:
                    layer.sort(key=lambda key: self._barycentre(key, neighbours))
                self._settle(layer, neighbours)

    def _barycentre(self, key: str, neighbours: dict[str, list[str]]) -> float:
        near = neighbours[key]
        return sum(self.points[other].x for other in near) / len(near) if near else self.points[key].x

    def _pack(self, layer: list[str]) -> None:
        x = 0.0
        for key in layer:
            self.points[key].x = x + self.points[key].width / 2
            x += self.points[key].width + GAP_X
        for key in layer:
            self.points[key].x -= (x - GAP_X) / 2

    def _settle(self, layer: list[str], neighbours: dict[str, list[str]]) -> None:
        """Put each point at its barycentre; points that would overlap become a block that moves as one."""
        blocks: list[tuple[float, list[tuple[str, float]]]] = []  # sum of wishes, (key, offset in the block)
        for key in layer:
            wish, members = self._barycentre(key, neighbours), [(key, 0.0)]
            total = wish
            while blocks:
                before_total, before = blocks[-1]
                last, offset = before[-1]
                step = offset + (self.points[last].width + self.points[members[0][0]].width) / 2 + GAP_X
                if before_total / len(before) + step <= total / len(members):
                    break
                blocks.pop()
                total = before_total + total - step * len(members)
                members = before + [(other, place + step) for other, place in members]
            blocks.append((total, members))
        for total, members in blocks:
            for key, offset in members:
                self.points[key].x = total / len(members) + offset


def draw(nodes: Sequence[Node]) -> Drawing:
    """Find the places of all outputs; ``nodes`` as :func:`robolift.reports.lineage.collect` returns them."""
    longest = max(len(node.title) for node in nodes)
    box_width = BOX_WIDTH + CHARACTER_WIDTH * max(longest - FITTING, 0)
    layers = _Layers(nodes, box_width)
    layers.arrange()
    points = layers.points
    left = min(point.x - point.width / 2 for point in points.values()) - MARGIN
    right = max(point.x + point.width / 2 for point in points.values()) + MARGIN

    def centre(key: str) -> float:
        return round(points[key].x - left, 1)

    def top(key: str) -> float:
        return MARGIN + points[key].layer * (BOX_HEIGHT + GAP_Y)

    lines = []
    for route in layers.routes:
        path = [f"M{centre(route[0])} {top(route[0]) + BOX_HEIGHT}"]
        for upper, lower in itertools.pairwise(route):
            start, end = top(upper) + BOX_HEIGHT, top(lower)
            middle = (start + end) / 2
            path.append(f"C{centre(upper)} {middle} {centre(lower)} {middle} {centre(lower)} {end}")
            if lower != route[-1]:
                path.append(f"V{end + BOX_HEIGHT}")
        lines.append(" ".join(path))
    boxes = tuple(Box(node=n, x=round(centre(n.key) - box_width / 2, 1), y=top(n.key)) for n in nodes)
    height = 2 * MARGIN + len(layers.order) * (BOX_HEIGHT + GAP_Y) - GAP_Y
    width = round(right - left, 1)
    return Drawing(boxes=boxes, lines=tuple(lines), width=width, height=height, box_width=box_width)
