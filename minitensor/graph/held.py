"""The numbers of a page as JSON: what tensors held, and where each number comes from.

- `labels`: names for places along an axis, by the name of its size.
- `data`, by the ids of values: the `dtype`, `shape` and `base64` of what is kept; `dims`, the names
  of its sizes; of a sample `at`, its places along each axis, and `size`, the whole shape; `facts`
  and `counts` of all numbers. Without `base64`, the numbers are those of the tensors that they were
  moved from.
- `origins`, by the ids of values that ops made: `tensors`, the ids of values by their names in the
  formula; `tree`, the formula as `cells.parse` gives it, with "inf" for infinity; or `moved`, of
  which cell in all `tensors`, one after the other, each is a copy.
- `gradients`, by the ids of gradients: the value they are the gradient `of`, and in `grads`, for
  each output of its op, the id of that output and those of the gradients whose sum reached it.
- `opened`, by the ids of what an op made that was opened: the id of the equal value inside it.
- `updates`, by the ids of weights after a step of an optimizer: its name as `op`, and the ids of
  the weight before and of its gradient, as `param` and `grad`.
"""

from __future__ import annotations

import math
from typing import Any

from .cells import parse
from .data import Data, packed
from .model import Graph, Node


def held(graph: Graph) -> dict[str, Any] | None:
    """Return the numbers of a graph, None if none were kept."""
    if all(value.data is None for value in graph.values.values()):
        return None
    origins: dict[str, Any] = {}
    gradients: dict[str, Any] = {}
    opened: dict[str, str] = {}
    updates: dict[str, Any] = {}
    for node in graph.nodes.values():
        if node.origins is not None:
            for port, out in enumerate(node.outputs):
                found: dict[str, Any] = {"op": node.op, "tensors": node.origins.tensors}
                if node.origins.formulas:
                    found["tree"] = finite(parse(node.origins.formulas[port]))
                else:
                    found["moved"] = packed(node.origins.moved[port])
                origins[out] = found
        if node.direction == "backward" and node.of is not None and node.inside is None:
            for out in node.outputs:
                gradients[out] = {"of": graph.values[out].of, "grads": _reached(graph, node)}
        if node.direction == "update":
            given = dict(zip(node.input_names, node.inputs, strict=False))
            updates |= {out: {"op": node.op, **given} for out in node.outputs}
        if node.inside is not None:
            around = graph.nodes[node.inside].outputs
            opened |= {of: out for out in node.outputs if (of := graph.values[out].of) in around}
    data = {
        key: _data(graph, key, value.data)
        for key, value in graph.values.items()
        if value.data is not None
    }
    return {
        "labels": graph.labels,
        "data": data,
        "origins": origins,
        "gradients": gradients,
        "opened": opened,
        "updates": updates,
    }


def finite(tree: Any) -> Any:
    """Return a formula in which numbers that JSON has not are texts: "inf", "-inf", "nan"."""
    if isinstance(tree, list):
        return [finite(part) for part in tree]
    return str(tree) if isinstance(tree, float) and not math.isfinite(tree) else tree


def _reached(graph: Graph, node: Node) -> dict[str, list[str]]:
    """Return the gradients that reached a backward node, by the outputs that they are of."""
    found: dict[str, list[str]] = {}
    for name, key in zip(node.input_names, node.inputs, strict=True):
        of = graph.values[key].of
        if name == "grad" and of is not None:
            found.setdefault(of, []).append(key)
    return found


def _data(graph: Graph, key: str, data: Data) -> dict[str, Any]:
    """Return what is kept of a value, without its numbers if they are copies of others."""
    plain = {name: part for name, part in data.to_plain().items() if part is not None}
    value = graph.values[key]
    plain["dims"] = value.dims
    if data.facts is not None:  # to nine digits, which tell all numbers of float32 apart
        plain["facts"] = {name: float(f"{fact:.9g}") for name, fact in data.facts.items()}
    if data.at is not None:
        plain["size"] = value.shape
    maker = graph.nodes[value.producer] if value.producer else None
    origins = maker.origins if maker is not None and key in maker.outputs else None
    if origins is not None and origins.moved and maker is not None:
        sources = [graph.values[source].data for source in origins.tensors.values()]
        moved = origins.moved[maker.outputs.index(key)]
        if all(s is not None and s.at is None for s in sources) and (moved >= 0).all():
            del plain["base64"]
    return plain
