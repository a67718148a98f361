"""A workflow as a drawing: its steps, what each of them reads, and where its dataset lies.

SVG by a layout of our own, so that no program has to be installed. Steps stand in layers, each below all that
it reads. An edge that passes a layer has a place in it, so that it goes around the steps there (Sugiyama,
Tagawa and Toda, *Methods for visual understanding of hierarchical system structures*, 1981).
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from lmr.runtime.steps import Given, Step, Whole, closure
from lmr.text import printable

__all__ = ["draw_steps", "layered"]

_WIDTH, _HEIGHT, _GAP, _LANE, _LAYER = 208, 46, 20, 20, 88
_MARGIN, _SWEEPS = 24, 24

_STYLE = """
text { font: 13px system-ui, "Segoe UI", Roboto, Arial, sans-serif; fill: #23262b }
.small { font-size: 11px; fill: #5d626b } .stage { font-size: 11px; font-weight: 600; fill: #33628f }
.paper { fill: #f8f7f4 } .step { fill: #fff; stroke: #a9aeb6 } .ranked { stroke: #33628f; stroke-width: 2 }
.given { fill: #efede8; stroke: #a9aeb6; stroke-dasharray: 4 3 } .edge { fill: none; stroke: #8a9099 }
.whole { stroke-width: 2.2 } .each { stroke-width: 1.2; stroke-dasharray: 5 3 } .arrow { fill: #8a9099 }
@media (prefers-color-scheme: dark) {
  text { fill: #e5e7ea } .small { fill: #a3a9b3 } .stage { fill: #82b4e4 } .paper { fill: #141619 }
  .step { fill: #1c1f24; stroke: #5d646e } .ranked { stroke: #82b4e4 }
  .given { fill: #2a2e35; stroke: #5d646e }
}
"""


@dataclass(frozen=True)
class _Node:
    """A box: a step of one name, or what is given."""

    name: str
    folder: str
    given: bool = False


def draw_steps(targets: Iterable[Step], labels: Mapping[str, str] | None = None) -> str:
    """Draw all steps that some targets need.

    Parameters
    ----------
    targets
        The steps whose datasets are wanted.
    labels
        Name of a step to what people call its stage: it stands above the step's name.

    Returns
    -------
    svg
        The drawing as SVG, light or dark as the viewer is.
    """
    nodes, edges = _graph(targets)
    places, paths = layered(list(nodes), list(edges))
    right = max(x for x, _ in places.values()) + _WIDTH
    width = max(right, *(x for path in paths.values() for x, _ in path)) + _MARGIN
    height = max(y for _, y in places.values()) + _HEIGHT + _MARGIN + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img">',
        "<title>Steps of the workflow and their datasets</title>",
        f"<style>{_STYLE}</style>",
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'markerUnits="userSpaceOnUse" orient="auto"><path class="arrow" d="M0 0 8 4 0 8z"/></marker>',
        '<rect class="paper" width="100%" height="100%"/>',
    ]
    for edge, whole in edges.items():
        kind = "whole" if whole else "each"
        parts.append(f'<path class="edge {kind}" d="{_curve(paths[edge])}" marker-end="url(#tip)"/>')
    for name, node in nodes.items():
        parts.append(_box(node, *places[name], (labels or {}).get(name, "")))
    legend = "solid line: a shard needs all shards of what it reads · dashed: shard i needs shard i"
    parts.append(f'<text class="small" x="{_MARGIN}" y="{height - 14:.0f}">{legend}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _graph(targets: Iterable[Step]) -> tuple[dict[str, _Node], dict[tuple[str, str], bool]]:
    """Return the boxes by name, and the edges with whether all shards are needed.

    Steps of one name, the generations of a gallery, are one box.
    """
    nodes: dict[str, _Node] = {}
    edges: dict[tuple[str, str], bool] = {}
    for step in closure(targets):
        for source in step.inputs.values():
            if isinstance(source, Given):
                nodes.setdefault(source.name, _Node(source.name, source.folder, given=True))
                names = {source.name}
            else:
                names = {part.name for part in source.step.parts}
            for name in names - {step.name}:
                edges[name, step.name] = edges.get((name, step.name), False) or isinstance(
                    source, Whole | Given
                )
        nodes.setdefault(step.name, _Node(step.name, step.folder))
    return nodes, edges


def _box(node: _Node, x: float, y: float, label: str) -> str:
    kind = "given" if node.given else "step ranked" if label else "step"
    name, folder = (escape(printable(text)) for text in (node.name, f"{node.folder}/"))
    right, stage = f"{x + _WIDTH - 10:.1f}", escape(printable(label))
    said = f'<text class="stage" x="{right}" y="{y + 20:.1f}" text-anchor="end">{stage}</text>'
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>'
        f'<text x="{x + 10:.1f}" y="{y + 20:.1f}">{name}</text>'
        f'<text class="small" x="{x + 10:.1f}" y="{y + 36:.1f}">{folder}</text>{said if label else ""}'
    )


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Return a line that leaves and reaches every layer upright."""
    (x, y), *rest = points
    said = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in rest:
        middle = (y + to_y) / 2
        said.append(f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return "".join(said)


def layered(
    names: Sequence[str], edges: Sequence[tuple[str, str]]
) -> tuple[dict[str, tuple[float, float]], dict[tuple[str, str], list[tuple[float, float]]]]:
    """Place boxes in layers, each below all that point to it.

    Parameters
    ----------
    names
        The boxes, those that are pointed to behind those that point.
    edges
        Pairs of a box and one that it points to; no circle among them.

    Returns
    -------
    places
        Left upper corner of each box, in pixels.
    paths
        The points of each edge, from the foot of a box to the head of another, in pixels.
    """
    layer = dict.fromkeys(names, 0)
    for _ in names:
        for start, stop in edges:
            layer[stop] = max(layer[stop], layer[start] + 1)
    for name in names:  # what nothing points to stands right above what it points to
        below = [layer[stop] for start, stop in edges if start == name]
        if below and not any(stop == name for _, stop in edges):
            layer[name] = min(below) - 1
    chains: dict[tuple[str, str], list[str]] = {}
    rows: defaultdict[int, list[str]] = defaultdict(list)
    for name in names:
        rows[layer[name]].append(name)
    above: defaultdict[str, list[str]] = defaultdict(list)
    below_of: defaultdict[str, list[str]] = defaultdict(list)
    for start, stop in edges:
        between = range(layer[start] + 1, layer[stop])
        chain = [start, *(f"\0{start}\0{stop}\0{i}" for i in between), stop]
        for i, name in zip(between, chain[1:-1], strict=True):
            rows[i].append(name)
        for one, other in itertools.pairwise(chain):
            above[other].append(one)
            below_of[one].append(other)
        chains[start, stop] = chain
    x = _across([rows[i] for i in sorted(rows)], above, below_of)
    depth = {name: i for i, row in rows.items() for name in row}
    places = {name: (x[name], _MARGIN + _LAYER * float(depth[name])) for name in names}
    paths = {
        edge: [
            (x[chain[0]] + _WIDTH / 2, places[chain[0]][1] + _HEIGHT),
            *((x[one] + _LANE / 2, _MARGIN + _LAYER * depth[one] + _HEIGHT / 2) for one in chain[1:-1]),
            (x[chain[-1]] + _WIDTH / 2, places[chain[-1]][1]),
        ]
        for edge, chain in chains.items()
    }
    return places, paths


def _across(
    rows: Sequence[list[str]], above: Mapping[str, list[str]], below: Mapping[str, list[str]]
) -> dict[str, float]:
    """Order each layer by the middle of what its boxes are joined to, downwards and upwards by turns."""
    x: dict[str, float] = {}
    for row in rows:
        _pack(row, dict.fromkeys(row, 0.0), x)
    for sweep in range(_SWEEPS):
        joined = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = {
                name: float(np.mean([_middle(one, x) for one in joined[name]]))
                if joined.get(name)
                else _middle(name, x)
                for name in row
            }
            row.sort(key=lambda name: wanted[name])
            _pack(row, wanted, x)
    left = min(x.values())
    return {name: place - left + _MARGIN for name, place in x.items()}


def _width(name: str) -> float:
    return _LANE if name.startswith("\0") else _WIDTH


def _middle(name: str, x: Mapping[str, float]) -> float:
    return x[name] + _width(name) / 2


def _pack(row: Sequence[str], wanted: Mapping[str, float], x: dict[str, float]) -> None:
    """Place the boxes of a layer in order, as near as they can be to where they are wanted.

    Boxes that would overlap move together to the mean of their wishes, as pools of adjacent violators.
    """
    pools: list[tuple[float, list[str]]] = []
    offsets = dict(zip(row, np.cumsum([0, *(_width(name) + _GAP for name in row)]).tolist(), strict=False))
    for name in row:
        goal, pool = wanted[name] - _width(name) / 2 - offsets[name], [name]
        while pools and pools[-1][0] > goal:
            before, others = pools.pop()
            goal = (before * len(others) + goal * len(pool)) / (len(others) + len(pool))
            pool = others + pool
        pools.append((goal, pool))
    for goal, pool in pools:
        for name in pool:
            x[name] = goal + offsets[name]
