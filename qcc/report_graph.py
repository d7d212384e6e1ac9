"""The picture of the network: boxes in layers from left to right, in rows like text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = 8
BOX, GAP = (122, 60), (28, 12)
MARGIN, ROW_GAP = 16, 34


def draw(graph: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where each value of the report's ``graph`` stands: ``boxes`` with x, y; ``edges`` as SVG paths; width and height.

    A value's layer is one more than the last of its operands' (longest path); COLUMNS layers make a row. An edge with ``skip``
    passes over layers.
    """
    layer: dict[str, int] = {}
    for entry in graph:
        layer[entry["tensor"]] = 1 + max((layer[name] for name in entry["inputs"]), default=-1)
    lanes: dict[int, int] = {}
    place: dict[str, tuple[int, int]] = {}
    for name, column in layer.items():
        place[name] = column, lanes.get(column, 0)
        lanes[column] = lanes.get(column, 0) + 1
    rows = max(layer.values(), default=-1) // COLUMNS + 1
    tops, y = [], ROW_GAP
    for row in range(rows):
        tops.append(y)
        tallest = max(lanes.get(c, 0) for c in range(row * COLUMNS, (row + 1) * COLUMNS))
        y += tallest * (BOX[1] + GAP[1]) - GAP[1] + ROW_GAP

    def corner(name: str) -> tuple[int, int]:
        column, lane = place[name]
        x = MARGIN + column % COLUMNS * (BOX[0] + GAP[0])
        return x, tops[column // COLUMNS] + lane * (BOX[1] + GAP[1])

    edges = [
        {
            "skip": layer[entry["tensor"]] > layer[name] + 1,
            "path": _path(layer, corner, name, entry["tensor"]),
        }
        for entry in graph
        for name in entry["inputs"]
    ]
    boxes = [{**entry, "x": corner(entry["tensor"])[0], "y": corner(entry["tensor"])[1]} for entry in graph]
    width = 2 * MARGIN + COLUMNS * (BOX[0] + GAP[0]) - GAP[0]
    return {"boxes": boxes, "edges": edges, "width": width, "height": y, "box": BOX}


def _path(layer: Mapping[str, int], corner: Any, start: str, end: str) -> str:
    (x0, y0), (x1, y1) = corner(start), corner(end)
    middle = BOX[1] // 2
    x_out, x_in = x0 + BOX[0], x1
    rows = layer[start] // COLUMNS, layer[end] // COLUMNS
    if rows[0] == rows[1]:
        if layer[end] == layer[start] + 1:
            return f"M{x_out} {y0 + middle} L{x_in} {y1 + middle}"
        top = min(y0, y1) - ROW_GAP // 2 - 4
        return f"M{x_out - 20} {y0} C{x_out} {top} {x_in} {top} {x_in + 20} {y1}"
    if layer[end] == layer[start] + 1:  # like a line break: through the space between the rows
        between = y1 - ROW_GAP // 2
        right, left = x_out + MARGIN // 2, x_in - MARGIN // 2
        return (
            f"M{x_out} {y0 + middle} L{right} {y0 + middle} L{right} {between} L{left} {between} "
            f"L{left} {y1 + middle} L{x_in} {y1 + middle}"
        )
    return f"M{x0 + BOX[0] // 2} {y0 + BOX[1]} L{x1 + BOX[0] // 2} {y1}"
