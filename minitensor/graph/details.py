"""The side panel of the HTML page: all that is known of a box or a tensor, and its search keys.

A panel is a list of sections `[title, kind, rows]`, of which those without rows are left out. By
its kind the page paints the rows: "facts" (a name and a text), "tensors" (a port's name and a
tensor), "boxes", "table" (a head, then rows) or "source" (lines of code).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from . import find
from .arguments import parameter
from .model import Graph, Node, Value
from .numbers import percent, products, span
from .overlays import overlays_of
from .page import Page
from .scene import Box

Section = list[Any]


class Details:
    """The panels of all boxes and tensors of a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.graph: Graph = page.graph
        self.tree = page.tree
        self.makers: dict[str, list[str]] = defaultdict(list)  # by tensor: boxes
        self.readers: dict[str, list[str]] = defaultdict(list)
        self.box_of: dict[str, str] = {}  # by node
        gradients = (v for v in reversed(self.graph.values.values()) if v.kind == "gradient")
        self.gradients = {v.of: v.id for v in gradients if v.of}
        for link in self.tree.links:
            self.makers[link.value].append(link.source)
            self.readers[link.value].append(link.target)
        for box in self.tree.boxes.values():
            if box.kind == "input":
                self.makers[box.id].append(box.id)
            for node in self._nodes(box):
                self.box_of[node.id] = box.id
                for key in node.outputs:
                    self.makers[key].append(box.id)
                for key in node.inputs:
                    self.readers[key].append(box.id)

    def _nodes(self, box: Box) -> list[Node]:
        keys = [*([box.node] if box.node else []), *box.backward]
        return [self.graph.nodes[key] for key in dict.fromkeys(keys) if key in self.graph.nodes]

    # Boxes

    def box(self, box: Box) -> list[Section]:
        """Return the panel of a box."""
        sections: list[Section] = [["", "facts", _known(self._facts(box))]]
        node = self.graph.nodes[box.node] if box.node else None
        if box.count > 1:
            sections.append(["Instances", "table", self._instances(box)])
        if node is not None:
            known, ranges = self.page.arguments(box)
            given = [[each.name, each.text] for each in known]
            sections.append(["Arguments", "facts", given + [["", text] for text in ranges]])
            sections += self._tensors("", node)
            sections.append(["Saves for backward", "tensors", [["", key] for key in node.saved]])
        else:
            own = [["", box.value]] if box.value in self.graph.values else []
            sections.append(["Tensor", "tensors", own])
            sections.append(["Weights", "tensors", [["", key] for key in box.parameters]])
            inside = self.page.lifting.inside(box.id)
            into = dict.fromkeys(e.tensor for e in inside if e.upper is None and e.forward)
            out = dict.fromkeys(e.tensor for e in inside if e.lower is None and e.forward)
            sections.append(["Reads", "tensors", [["", key] for key in into]])
            sections.append(["Gives", "tensors", [["", key] for key in out]])
        for key in box.backward:
            rule = self.graph.nodes[key]
            sections += self._tensors(f"{rule.op} backward ", rule)
        if node is not None and (node.source or node.origin):
            origin = f"called in {node.origin}" if node.origin else ""
            sections.append(["Source", "source", [node.source, node.code, origin]])
        return sections

    def _facts(self, box: Box) -> list[list[str]]:
        graph, each = self.graph, f" each, x{box.count}" if box.count > 1 else ""
        op = graph.nodes[box.node].op if box.node else ""
        equal = [f"{box.count} equal ones", box.weights] if box.count > 1 else []
        group, (least, kept) = graph.groups.get(box.id), box.least
        flops = products(box.flops, box.backward_flops, least)
        saved = span(kept, box.saved_bytes, "B")
        costs = [
            ("parameters", f"{box.parameter_count:,}" if box.parameter_count else ""),
            ("matrix products", flops.partition(": ")[2]),
            ("saved for backward", saved if box.saved_bytes else ""),
        ]
        known = [self.page.amounts(key, False) for key in overlays_of(graph) if key != "flops"]
        if least != box.backward_flops:
            known.insert(0, self.page.amounts("flops", True))
        return [
            ["path", box.path],
            ["kind", box.kind],
            ["op", op if op != box.label else ""],
            ["made by the rule", graph.nodes[box.node].rule if box.node else ""],
            ["settings", group.settings if group else ""],
            ["stands for", ", ".join(filter(None, equal))],
            *[[name, text + each if text else ""] for name, text in costs],
            *[[a.title, a.text(box.id)] for a in known if box.id in a.of],
        ]

    def _instances(self, box: Box) -> list[list[str]]:
        """A row for each equal one: its id, and what each overlay that differs says of it."""
        columns = []
        for key, overlay in overlays_of(self.graph).items():
            amounts = self.page.amounts(key, False).of.get(box.id, [])
            if (overlay.needs or not overlay.additive) and len(amounts) == len(box.members):
                columns.append([overlay.title, *map(overlay.text, amounts)])
        return [list(row) for row in zip(["", *box.members], *columns, strict=True)]

    def _tensors(self, prefix: str, node: Node) -> list[Section]:
        names = [parameter(node.op, name) for name in node.input_names]
        names += [""] * len(node.inputs)
        read = [[name, key] for name, key in zip(names, node.inputs, strict=False)]
        made = [["", key] for key in node.outputs]
        return [
            [(prefix + "reads").capitalize(), "tensors", read],
            [(prefix + "makes").capitalize(), "tensors", made],
        ]

    def box_keys(self, box: Box) -> list[list[str]]:
        """Return the names of a box in each of `find.FIELDS`."""
        if box.node is not None:
            return find.keys(self.graph, self.graph.nodes[box.node])
        shape = self.graph.values.get(box.value)
        return [
            [box.label.lower(), *([box.path.lower()] if box.path else [])],
            [],
            [box.path.lower()] if box.path else [],
            [shape.label.lower()] if shape else [],
        ]

    # Tensors

    def tensor(self, value: Value) -> list[Section]:
        """Return the panel of a tensor."""
        stats = value.stats or {}
        measured = {k: percent(v) if k in ("nan", "inf") else f"{v:.6g}" for k, v in stats.items()}
        facts = [
            ["shape", value.label],
            ["actual", f"({', '.join(map(str, value.shape))})"],
            ["dtype", value.dtype],
            ["bytes", f"{value.nbytes:,}"],
            ["kind", value.kind],
            ["also called", ", ".join(value.names[1:])],
            ["id", value.id],
            *map(list, measured.items()),
            ["gradient norm", "" if value.grad_norm is None else f"{value.grad_norm:.6g}"],
        ]
        weight = self.graph.weight(value.id)
        related = [["views", value.views]]
        if value.kind == "gradient":
            related.append(["gradient of", value.of])
        elif weight != value.id:
            related.append(["changed from", weight])
        related.append(["gradient", self.gradients.get(value.id)])
        savers = [self.box_of[node] for node in value.saved_by if node in self.box_of]
        boxes = {"Made by": self.makers, "Read by": self.readers}
        return [
            ["", "facts", _known(facts)],
            ["", "tensors", [pair for pair in related if pair[1]]],
            *[[title, "boxes", list(dict.fromkeys(by[value.id]))] for title, by in boxes.items()],
            ["Saved by", "boxes", list(dict.fromkeys(savers))],
        ]


def _known(facts: list[list[str]]) -> list[list[str]]:
    return [fact for fact in facts if fact[1]]
