"""The page model: every word and number that a picture shows, made once for all folding states.

A `Page` knows, whatever is open, the label of each box, of each tensor and of each edge, and what
each overlay says of a box. `picture.py` chooses from it what one view shows, for Graphviz and for
our own layout; `html.py` hands all of it to the script of the HTML page.
"""

from __future__ import annotations

import functools
import itertools
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .annotations import texts
from .arguments import Argument, arguments, of_call, parameter
from .kinds import fused, kind, same_name
from .lift import Lifting, given_as, signature
from .model import ACCUMULATE, RETURNED, Graph, Node, Value
from .numbers import number, products, seconds, span
from .overlays import (
    Amounts,
    Heat,
    Scale,
    Work,
    changed,
    counted,
    overlay_named,
    stands_for,
    works,
)
from .scene import Box, Link, Tree
from .turns import written
from .view import View, visible

DOT = "  \N{MIDDLE DOT}  "  # between facts
WIDTH = 38  # characters after which attributes go on in the next line
LONG = 60  # that a line of a box has at most

MARKS = {  # what the marks beside the colours mean
    "fused": "fused: several ops in one kernel",
    "folded": "that many equal ones, drawn once",
    "skip": "skips what lies between",
    "fan": "the same tensor to each of them",
    "gradient": "gradient",
    "saved": "kept for backward",
}


@dataclass
class Label:
    """The text of a box: a title, where it is, and lines under it."""

    title: str
    place: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[str]:
        """Return the lines under the title."""
        return [self.place, *self.lines] if self.place else self.lines


@dataclass
class Card:
    """All that a box says of itself."""

    id: str
    kind: str  # a key of LOOKS
    forward: Label
    brief: Label  # the same where there is no room for settings: at the level `arch`
    backward: Label | None = None  # if there is a backward pass in it
    saved: list[tuple[str, str | None]] = field(default_factory=list)  # a text, and its tensor
    fused: bool = False
    count: int = 1
    tooltip: list[str] = field(default_factory=list)


@dataclass
class EdgeLabel:
    """The text of an edge."""

    name: str  # what the code calls the tensor, or ""
    shape: str
    remark: str = ""  # "to all 6"
    backward: bool = False  # of a loop: a gradient, which goes the other way


class Page:
    """The words and numbers of a folded graph."""

    def __init__(self, graph: Graph, tree: Tree) -> None:
        self.graph = graph
        self.tree = tree
        self._cards: dict[str, Card] = {}
        self._works: dict[bool, dict[str, list[Work]]] = {}
        self._amounts: dict[tuple[str, bool], Amounts] = {}
        self._closed: dict[str, list[str]] = {}  # the closed boxes of a level

    def facts(self, backward: bool) -> str:
        """Return the line under the title: the named sizes, and what the whole costs."""
        sizes = ", ".join(f"{name}={size}" for name, size in self.graph.dims.items())
        costs = self.costs(self.tree.boxes[self.tree.root], backward)
        costs += [f"gradients of {self.graph.seed}"] if backward and self.graph.seed else []
        return DOT.join([sizes, *costs] if sizes else costs)

    @functools.cached_property
    def lifting(self) -> Lifting:
        """Return the links, lifted to the boxes that they cross."""
        return Lifting(self.tree, self.graph)

    @functools.cached_property
    def runs_backward(self) -> bool:
        """Return True if a backward pass was recorded."""
        return any(node.direction == "backward" for node in self.graph.nodes.values())

    @functools.cached_property
    def differentiated(self) -> set[str]:
        """Return the boxes that have a backward pass, or in which there is one."""
        found: set[str] = set()
        for box in self.tree.boxes.values():
            if box.backward:
                found.update([box.id], self.tree.ancestors(box.id))
        return found

    # Boxes

    def card(self, key: str) -> Card:
        """Return all that a box says."""
        if key not in self._cards:
            self._cards[key] = self._card(self.tree.boxes[key])
        return self._cards[key]

    def _card(self, box: Box) -> Card:
        node = self.graph.nodes[box.node] if box.node else None
        weights = f"{number(box.parameter_count)} parameters{' each' * (box.count > 1)}"
        own = [weights] if box.parameter_count else []
        if box.kind in ("input", "output", "source"):
            value = self.graph.values[box.value]
            own += [value.origin] if value.origin not in ("", box.label) else []
            what = f"{value.kind} " if box.kind == "source" and not value.origin else ""
            own.append(f"{what if value.kind != box.label else ''}{value.label} {value.dtype}")
        title, place = self.title(box), self.place(box)
        shown = own if box.kind != "op" or box.count > 1 else []
        remarks = ["no gradient"] if node is not None and not node.gradient else []
        if self.graph.annotations:
            remarks += texts(self.graph, stands_for(self.tree, box.id))
        held = self.scalars(box)[:1] if box.id not in self._repeated else []
        lines = [*self._settings(box, node), *shown, *remarks, *held]
        labels = Label(title, place, lines), Label(title, place, own + remarks + held)
        card = Card(box.id, kind(box, self.graph), *labels)
        card.fused, card.count = fused(box, self.graph), box.count
        card.tooltip = self._tooltip(box, node)
        card.tooltip += [line for line in dict.fromkeys([place, *lines]) if cut(line) != line]
        if box.kind == "op" and node is None:  # it ran in a backward pass alone
            card.kind, label = "backward", self._backward(box)
            card.forward = card.brief = replace(label, title=title, place=place)
        elif box.id in self.differentiated:
            card.backward = self._backward(box)
            card.saved = self._saved(box, node)
        return card

    @functools.cached_property
    def _repeated(self) -> set[str]:
        """The boxes that stand for several, or are inside one that does."""
        boxes = self.tree.boxes
        return {
            key
            for key in boxes
            if any(boxes[outer].count > 1 for outer in (key, *self.tree.ancestors(key)))
        }

    def scalars(self, box: Box) -> list[str]:
        """Return what each instance of a box made, if that is one number, and its gradient.

        "data 0.31 | grad -2"; nothing unless numbers were kept.
        """
        made = [self.graph.nodes[key].outputs for key in self.tree.nodes(box)]
        if box.kind in ("input", "output", "source"):
            made = [[box.value]]
        values = [self.graph.values[keys[0]] for keys in made if len(keys) == 1]
        if not values or len(values) < len(made) or any(v.shape or not v.data for v in values):
            return []
        return [self._scalar(value) for value in values]

    def _scalar(self, value: Value) -> str:
        assert value.data is not None
        held = f"data {_digits(value.data.array)}"
        arrived = self._arrived.get(value.id, [])
        return f"{held} | grad {_digits(sum(arrived))}" if arrived else held

    @functools.cached_property
    def _arrived(self) -> dict[str, list[Any]]:
        """The gradients of each tensor of one number: what arrived, or the pass began from."""
        found: dict[str, list[Any]] = defaultdict(list)
        begun: dict[str, list[Any]] = defaultdict(list)
        for value in self.graph.values.values():
            if value.kind == "gradient" and value.of and value.data and not value.shape:
                (found if value.producer else begun)[value.of].append(value.data.array)
        return {**begun, **found}

    def _calls(self, box: Box) -> str:
        """The words for a module called several times, and for each of its calls."""
        shared = ", weights shared" if box.parameter_count else ""
        boxes = self.tree.boxes
        around = next(
            (b for b in (box, boxes.get(box.parent or "")) if b and b.kind == "calls"), None
        )
        each = [boxes[key] for key in around.children] if around else [box]
        group = self.graph.groups.get(each[0].id)
        each = self._calls_of.get(group.path, each) if group else each
        counts = [call.count for call in each]
        if box.kind == "calls":
            count = sum(boxes[child].count for child in box.children)
            return f"{count}{f' of {sum(counts)}' * (count < sum(counts))} calls{shared}"
        if len(each) < 2 or box not in each:
            return ""
        before = sum(counts[: each.index(box)])
        which = f"s {before + 1}-{before + box.count}" if box.count > 1 else f" {before + 1}"
        return f"call{which} of {sum(counts)}{shared}"

    @functools.cached_property
    def _calls_of(self) -> dict[str, list[Box]]:
        """The calls of modules with weights, by path, wherever in one call of a module they are."""
        found: dict[str, list[Box]] = defaultdict(list)
        groups = self.graph.groups
        for key, group in groups.items():
            box = self.tree.boxes.get(key)
            if box is not None and box.parameter_count and box.parent is not None:
                found[group.path].append(box)
        return {
            path: calls
            for path, calls in found.items()
            if len({groups[box.id].parent for box in calls}) == 1
            and not any(self.tree.boxes[key].count > 1 for key in self.tree.ancestors(calls[0].id))
        }

    def loop(self, box: Box, backward: bool = True) -> list[EdgeLabel]:
        """Return the labels of what goes from turn to turn of a loop: "h, 7 times".

        With `backward`, after that, what comes back: "h.grad, 6 times".
        """
        ways = [(box.carried, box.count, False)]
        ways += [(box.returned, box.returns, True)] if backward else []
        return [
            EdgeLabel(", ".join(filter(None, (self.name(v), f"{times} times"))), v.label, "", back)
            for keys, times, back in ways
            for v in map(self.graph.values.__getitem__, keys)
        ]

    def title(self, box: Box) -> str:
        """Return the title of a box: "EncoderLayer x6"."""
        return f"{box.label} x{box.count}" if box.count > 1 else box.label

    def place(self, box: Box) -> str:
        """Return where a box is, unless those around it say so, and which of equal ones it is.

        "layers.0-5, own weights", "encoder, 2 calls, weights shared", "call 1 of 2".
        """
        path = box.path
        if box.parent is not None:
            outer, groups = self.tree.boxes[box.parent], self.graph.groups
            for known in (outer.path, groups[outer.id].path if outer.id in groups else ""):
                path = "" if path == known else path.removeprefix(f"{known}." if known else "")
        path = "" if path == box.label else path
        if box.call and box.kind == "run":  # of several ops: it opens, and its arguments stay
            path = ", ".join(self.called(box))
        return ", ".join(filter(None, (path, self._calls(box) or box.weights)))

    def arguments(self, box: Box) -> tuple[list[Argument], list[str]]:
        """Return the arguments of an op, and the ranges of what loops count in them: "t = 0-6"."""
        node, ranges = written(self.graph.nodes[box.node or ""], box.turns)
        return arguments(self.graph, node), ranges

    def settings(self, box: Box) -> list[str]:
        """Return how an op or a module is set: "heads=4"."""
        if box.call:
            return self.called(box) if box.kind == "op" else []
        if box.node is not None:
            known, ranges = self.arguments(box)
            return [*(str(argument) for argument in known if not argument.default), *ranges]
        group = self.graph.groups.get(box.id) if box.kind == "module" else None
        return [group.settings] if group and group.settings else []

    def called(self, box: Box) -> list[str]:
        """Return the arguments of a call of a public function: "bhid,bhjd->bhij"."""
        node = self.graph.nodes.get(box.node or "")
        return [str(argument) for argument in of_call(self.graph, box.call, node)]

    def _settings(self, box: Box, node: Node | None) -> list[str]:
        """The op of a module, what it is set to, and the weights of a box."""
        if node is not None and node.op == RETURNED:
            settings = self.graph.groups[node.group].settings.replace(", inplace=False", "")
            return _wrap([f"{settings}: returns its input" if settings else "returns its input"])
        ran = self.graph.calls[box.call].name if box.call else node.op if node else box.label
        lines = [ran] if not same_name(ran, box.label) else []
        lines += _wrap(self.settings(box)) + self._changed(node)
        weights = ((key.rpartition(":")[2], self.graph.values[key]) for key in box.parameters)
        inside = f"{box.path}."  # a weight of another module, shared with it, keeps its whole path
        return lines + [f"{path.removeprefix(inside)} {value.label}" for path, value in weights]

    def _changed(self, node: Node | None) -> list[str]:
        """The weight or buffer that an op changes, "-> running_mean", unless another does later."""
        values = self.graph.values
        made = node.outputs if node is not None and "param" not in node.input_names else ()
        last = [key for key in made if values[key].of and key not in self._changed_again]
        weights = {key: self.graph.weight(key) for key in last}
        return [f"-> {self.name(values[w])}" for key, w in weights.items() if w != key]

    @functools.cached_property
    def _changed_again(self) -> set[str]:
        """The values that a change in place has replaced."""
        values = self.graph.values.values()
        return {value.of for value in values if value.of and value.kind != "gradient"}

    def _backward(self, box: Box) -> Label:
        label = Label(f"{box.label} backward")
        if box.kind == "op":
            lines: dict[str, str] = {}  # by weight: a pass over a pass gives them again
            for rule in map(self.graph.nodes.__getitem__, box.backward):
                for out in rule.outputs:
                    of = self.graph.values.get(self.graph.values[out].of or "")
                    if of is not None and of.kind == "parameter":
                        terms = f", sum of {len(rule.inputs)}" * (rule.op == ACCUMULATE)
                        lines[of.id] = f"{self.name(of)}.grad {of.label}{terms}"
            label.lines += lines.values()
        elif box.parameter_count:
            label.lines.append(f"{number(box.parameter_count)} gradients of parameters")
        if box.backward_flops:
            flops = products(0, box.backward_flops, box.least[0])
            label.lines.append(flops.removesuffix(" backward"))
        return label

    def afar(self, box: Box) -> str:
        """Return the title of the backward of a box where there is little room: "d relu"."""
        return f"d {self.title(box)}"

    def _saved(self, box: Box, node: Node | None) -> list[tuple[str, str | None]]:
        if node is not None:
            node = self.graph.nodes[box.whole or node.id]
            values = [self.graph.values[key] for key in node.saved]
            return [(f"{self.kept(v, node)} {number(v.nbytes, 'B')}", v.id) for v in values]
        saved = span(box.least[1], box.saved_bytes, "B")
        return [(f"{saved} saved", None)] if box.saved_bytes else []

    def costs(self, box: Box, backward: bool = True) -> list[str]:
        """Return the costs of a box, one instance of it: parameters, FLOPs and bytes."""
        flops = products(box.flops, box.backward_flops if backward else 0, box.least[0])
        made, saved = number(box.activation_bytes, "B"), span(box.least[1], box.saved_bytes, "B")
        return [
            *([f"{number(box.parameter_count)} parameters"] if box.parameter_count else []),
            *([flops] if flops else []),
            *([f"{made} activations"] if box.activation_bytes else []),
            *([f"{saved} saved"] if box.saved_bytes else []),
        ]

    def _tooltip(self, box: Box, node: Node | None) -> list[str]:
        lines = [f"{self.title(box)} {box.path}".strip()]
        outputs = node.outputs if node else [box.id] if box.id in self.graph.values else []
        lines += [self._measures(self.graph.values[key]) for key in outputs]
        lines += self.costs(box)
        if node is not None and node.seconds is not None:
            lines.append(seconds(node.seconds))
        if node is not None and node.source:
            lines += [node.source, node.code.strip()]
        return lines

    # Tensors and edges

    def name(self, value: Value) -> str:
        """Return what the code calls a tensor; a weight goes by the last part of its path."""
        weight = self.graph.values[self.graph.weight(value.id)]
        if weight.kind in ("parameter", "buffer"):
            return weight.id.rpartition(":")[2].rpartition(".")[2]
        of = self.graph.values.get(value.of or "")
        if of is None or value.name or value.kind != "gradient":
            return value.name
        if value.id in self._seeds and self.graph.called(of.id):
            return f"d {self.graph.called(of.id)}"
        return f"{self.name(of)}.grad" if self.name(of) else ""

    @functools.cached_property
    def _seeds(self) -> set[str]:
        """The gradients that backward passes begin from."""
        passes = (node for node in self.graph.nodes.values() if node.direction == "backward")
        read = (self.graph.values[key] for node in passes if not node.inside for key in node.inputs)
        return {v.id for v in read if v.kind == "gradient" and v.producer is None}

    def kept(self, value: Value, node: Node) -> str:
        """Return what an op saves, with its shape; without a name it is what the op calls it."""
        name = self.name(value)
        if not name and value.id in node.inputs and node.input_names:
            name = node.input_names[node.inputs.index(value.id)]
        elif not name and value.id in node.outputs:
            name = "output"
        elif not name and value.kind == "gradient":
            name = "gradient"
        return f"{name} {value.label}".strip()

    def _measures(self, value: Value) -> str:
        return f"{value.label} = {value.shape} {value.dtype}, {number(value.nbytes, 'B')}"

    def tooltip(self, value: Value) -> list[str]:
        """Return all that is known of a tensor, in lines."""
        lines = [value.id, self._measures(value)]
        if len(value.names) > 1:
            lines.append("also called " + ", ".join(value.names[1:]))
        if value.stats:
            lines.append(", ".join(f"{key} {amount:.4g}" for key, amount in value.stats.items()))
        if value.grad_norm is not None:
            lines.append(f"norm of its gradient {value.grad_norm:.4g}")
        return lines

    def edge(
        self, value: Value, backward: bool, fan: str = "", terms: int = 1, tensors: int = 1
    ) -> EdgeLabel:
        """Return the label of an edge with the text of its `fan`; a gradient may sum `terms`.

        An edge may also stand for several `tensors`, the gradients on their way to an update.
        """
        if tensors > 1:
            return EdgeLabel(f"{tensors} gradients", "")
        remarks = [fan] if fan else []
        remarks += [f"sum of {terms}"] if terms > 1 else []
        return EdgeLabel(self.name(value), value.label, ", ".join(remarks))

    def fan(self, count: int, fanned: str, backward: bool) -> str:
        """Return to or from how many instances a tensor goes: "to all 6", "of all 7"."""
        if count < 2:
            return ""
        if fanned == "made":  # each makes one, and gets the gradient of its own
            return f"to each of {count}" if backward else f"of all {count}"
        way = "from" if backward else "to"
        return f"{way} each of {count}" if fanned else f"{way} all {count}"

    def signature(self, box: Box) -> list[str]:
        """Return the inputs of what a box is, in order; none for ops put together."""
        names = (name for _, name in signature(self.graph, box))
        return self.parameters(box, names)

    def ported(self, card: Card) -> bool:
        """Return True for a box that tells apart what several edges bring."""
        return card.kind not in ("elementwise", "output", "update")

    def ports(self, links: Iterable[Link], target: str) -> list[str]:
        """Return which inputs of a box links go to, by the box's names: "q", "mask"."""
        given = (given_as(self.graph, self.tree, link, target) for link in links)
        return self.parameters(self.tree.boxes[target], itertools.chain.from_iterable(given))

    def parameters(self, box: Box, names: Iterable[str]) -> list[str]:
        """Return the public words for inputs of a box that has such names for them."""
        node = self.graph.nodes.get(box.node or "")
        names = (parameter(node.op, name) for name in names) if node is not None else names
        return list(dict.fromkeys(names))

    def told_apart(self, words: Sequence[str], names: Sequence[str]) -> list[str]:
        """Return words for the inputs of a box, those that are the same replaced by own names.

        Where the tensors' names are the same as well, there is no word.
        """
        counts = Counter(words)
        words = [w if counts[w] == 1 else name for w, name in zip(words, names, strict=True)]
        counts = Counter(words)
        return [word if counts[word] == 1 else "" for word in words]

    # Overlays

    def amounts(self, key: str, backward: bool) -> Amounts:
        """Return the amounts of an overlay, with those of the backward pass or without."""
        backward = backward and self.runs_backward
        if backward not in self._works:
            self._works[backward] = works(self.graph, self.tree, backward)
        if (key, backward) not in self._amounts:
            overlay = overlay_named(key, self.graph)
            title = overlay.told(self.graph)
            known = Amounts(self.tree, overlay, self._works[backward], title)
            self._amounts[key, backward] = known
        return self._amounts[key, backward]

    def scale(self, key: str, backward: bool, base: str) -> Scale:
        """Return the ramp of an overlay at a level: it spans the boxes that the level shows.

        Besides levels, `base` may be "all" or "none": every box open, or none.
        """
        if base not in self._closed:
            boxes = self.tree.boxes.values()
            opened = {self.tree.root}
            if base == "all":
                opened |= {box.id for box in boxes if box.children}
            elif base != "none":
                opened = View(base).boxes(self.tree, self.graph).open
            shown = visible(self.tree, opened)
            self._closed[base] = [key for key in shown if key not in opened]
        return self.amounts(key, backward).scale(self._closed[base])

    def marks(self, statuses: Mapping[str, str]) -> dict[str, Heat]:
        """Return what became of each box in a comparison, if not all in it is the same."""
        inside: dict[str, list[str]] = defaultdict(list)
        for box in self.tree.boxes.values():
            if box.node is not None:
                found = [statuses[node] for node in self.tree.nodes(box) if node in statuses]
                for outer, _ in counted(self.tree, box.id):
                    inside[outer] += found
        heats = {key: changed(found) for key, found in inside.items()}
        return {key: heat for key, heat in heats.items() if heat is not None}


def _digits(x: Any) -> str:
    return f"{np.asarray(x).item():.4g}"


def cut(text: str) -> str:
    """Return a line of a box, without its end if it is very long: the tooltip has all of it."""
    return text if len(text) <= LONG else f"{text[: LONG - 1]}\N{HORIZONTAL ELLIPSIS}"


def _wrap(parts: Iterable[str]) -> list[str]:
    return textwrap.wrap(", ".join(parts), WIDTH, break_long_words=False, break_on_hyphens=False)
