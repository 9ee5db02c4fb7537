"""Overlays: one number for each box, as text and as a colour, and how numbers are written."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from .model import Graph, Group, Node
from .palette import HEAT
from .scene import Box, Scene

OVERLAYS = {
    "flops": "FLOPs",
    "bytes": "bytes of activations",
    "time": "time",
    "gradnorm": "norm of the gradient",
    "nan": "share of NaN",
}


@dataclass
class Heat:
    """What an overlay says of a box: a number, its step on the ramp, and those of its members."""

    text: str
    step: int
    members: list[tuple[str, int]] = field(default_factory=list)


def number(value: float, unit: str = "") -> str:
    """A number in three digits: 3152384 -> "3.15 M", with a unit "3.15 MB"."""
    prefixes = ("", "k", "M", "G", "T", "P")
    power = 0
    while abs(value) >= 999.5 and power < len(prefixes) - 1:
        value, power = value / 1000, power + 1
    digits = f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{digits} {prefixes[power]}{unit}".rstrip()


def seconds(value: float) -> str:
    """A duration in three digits: 0.00123 -> "1.23 ms"."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("\N{MICRO SIGN}s", 1e6)):
        if value * scale >= 1 or unit == "\N{MICRO SIGN}s":
            break
    return f"{value * scale:.3g} {unit}"


def heats(
    closed: list[Box], scene: Scene, graph: Graph, overlay: str
) -> tuple[dict[str, Heat], tuple[str, str, str]]:
    """What the overlay says of each box, and its ramp: what it shows, the least and the most.

    Boxes of which nothing is known are left out. ValueError for an unknown overlay, or if nothing
    is known of any box.
    """
    if overlay not in OVERLAYS:
        raise ValueError(f"overlay must be one of {', '.join(OVERLAYS)}, not {overlay!r}")
    inner = _nodes_by_group(graph)
    found: dict[str, list[float]] = {}
    for box in closed:
        amounts = []
        for member in box.members or [box.id]:
            nodes = [graph.nodes[member]] if member in graph.nodes else inner.get(member, [])
            amounts.append(_amount(nodes, graph, overlay, scene.backward))
        if any(amount is not None for amount in amounts):
            found[box.id] = [amount or 0.0 for amount in amounts]
    if not found:
        raise ValueError(
            f"the graph knows no {OVERLAYS[overlay]}: record it with trace(..., stats=True), "
            "and backward=True for gradients"
        )
    finite = [a for known in found.values() for a in known if math.isfinite(a)] or [0.0]
    low, high = min(finite), max(finite)
    if overlay == "gradnorm":  # of what is 0 there is no logarithm
        low = min((a for a in finite if a > 0), default=0.0)
    told = {}
    for key, known in found.items():
        worst = max(known, key=lambda a: (not math.isfinite(a), a))
        told[key] = Heat(_written(worst, overlay), _step(worst, low, high, overlay))
        if len(known) > 1:
            told[key].members = [
                (_written(a, overlay), _step(a, low, high, overlay)) for a in known
            ]
    return told, (OVERLAYS[overlay], _written(low, overlay), _written(high, overlay))


def marked(closed: list[Box], scene: Scene, graph: Graph) -> dict[str, Heat]:
    """What became of each box in which not all is the same as in another graph."""
    inner = _nodes_by_group(graph)
    told = {}
    for box in closed:
        ids: list[str] = []
        for member in box.members or [box.node or box.id]:
            ids += [member] if member in scene.marks else [n.id for n in inner.get(member, [])]
        found = Counter(status for key in ids if (status := scene.marks.get(key)) is not None)
        changes = [(status, count) for status, count in found.items() if status != "same"]
        if changes:
            whole = len(found) == 1
            text = ", ".join(status if whole else f"{n} {status}" for status, n in changes)
            told[box.id] = Heat(text, max(_MARKS[status] for status, _ in changes))
    return told


_MARKS = {"changed": 3, "moved": 4, "added": 5}  # steps on the ramp


def _nodes_by_group(graph: Graph) -> dict[str, list[Node]]:
    """The nodes in each group, at any depth; a fused op stands for those inside it."""
    inner: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes.values():
        if node.inside is not None:
            continue
        group: Group | None = graph.groups.get(node.group)
        while group is not None:
            inner[group.id].append(node)
            group = graph.groups.get(group.parent) if group.parent is not None else None
    return inner


def _amount(nodes: list[Node], graph: Graph, overlay: str, backward: bool) -> float | None:
    """One number for some nodes; None where there is nothing to tell."""
    nodes = [node for node in nodes if backward or node.direction == "forward"]
    made = [graph.values[key] for node in nodes for key in node.outputs]
    if overlay == "flops":
        return float(sum(node.flops for node in nodes)) if nodes else None
    if overlay == "bytes":
        return float(sum(value.nbytes for value in made if value.views is None)) if made else None
    if overlay == "time":
        known = [node.seconds for node in nodes if node.seconds is not None]
        return sum(known) if known else None
    if overlay == "gradnorm":
        return max((v.grad_norm for v in made if v.grad_norm is not None), default=None)
    return max((v.stats["nan"] for v in made if v.stats and "nan" in v.stats), default=None)


def _written(amount: float, overlay: str) -> str:
    if overlay == "flops":
        return number(amount, "FLOP")
    if overlay == "bytes":
        return number(amount, "B")
    if overlay == "time":
        return seconds(amount)
    if overlay == "nan":
        return f"{amount:.3g} NaN" if amount else "no NaN"
    return f"{amount:.3g}"


def _step(amount: float, low: float, high: float, overlay: str) -> int:
    """The step on the ramp: by size, norms by their logarithm; any NaN at all is seen."""
    last = len(HEAT) - 1
    if not math.isfinite(amount) or (overlay == "nan" and amount):
        return last
    if overlay == "gradnorm":
        if not 0 < low < high:
            return 0
        return round(last * math.log(max(amount, low) / low) / math.log(high / low))
    return round(last * amount / high) if high else 0
