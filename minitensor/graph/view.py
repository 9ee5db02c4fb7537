"""Views of a folded graph: which boxes are open, and the edges between those that are visible."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TypedDict, Unpack

from .lift import Lifting, given_as, is_to_update, tensor_of
from .model import Graph
from .scene import PAGE, Box, Edge, Link, Scene, Tree

LEVELS = ("arch", "block", "op", "full")
FEW = 40  # boxes up to which `block` opens modules of single ops, if there are no larger ones
LIMIT = 400  # boxes that any level shows at most, unless `expand` asks for more

OPENED = (
    "The backward inside an open op is that of the ops it stands for; the op runs one rule in "
    "their place, and keeps what its closed box says."
)


@dataclass(frozen=True)
class View:
    """The options of a picture: what is open, coloured and drawn.

    - `level`: "arch" opens modules, outer before inner, as long as 15 boxes are enough for what is
      in them, but none that stands for several; "block" opens those that have modules of several
      ops in them, or in a small program all that has several ops; "op" opens all but fused ops;
      "full" is "op" with the backward pass and what is saved for it.
    - `expand` and `collapse` name boxes to open, with all around them, or to close: by path, label
      or id, or by a pattern of those such as "decoder.*". What both name is closed. One of several
      equal neighbours, "layers.3", is drawn by itself, the others before and after it once.
    - `overlay` colours boxes by an amount: a key of `OVERLAYS` in `overlays.py`, such as "flops".
      Some, such as "time", need a trace with `stats`.
    - `backward` draws the backward pass, if there is one, or not, at any level; without it, "full"
      draws it, and so do all levels if the program goes on with gradients: a training step.
    - `decompose` opens fused ops at "op" and "full", forward and backward, if the trace recorded
      what is inside them.
    - `fold` draws equal neighbours once: "EncoderLayer x6".

    Raises ValueError for another level.
    """

    level: str = "block"
    expand: str | Iterable[str] = ()
    collapse: str | Iterable[str] = ()
    overlay: str | None = None
    backward: bool | None = None
    decompose: bool = False
    fold: bool = True

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, not {self.level!r}")

    @property
    def asked(self) -> list[str]:
        """Return the names of `expand`."""
        return list(_names(self.expand))

    def scene(self, tree: Tree, graph: Graph) -> Scene:
        """Return what is visible of a folded graph. Raises ValueError for a name of no box."""
        scene = self.boxes(tree, graph)
        scene.edges = _edges(tree, graph, scene.visible, scene.open, scene.backward)
        return scene

    def boxes(self, tree: Tree, graph: Graph) -> Scene:
        """Return the scene without its edges, which are most of the work of a large graph."""
        boxes, level = tree.boxes, self.level
        opened = (
            _arch(tree)
            if level == "arch"
            else {b.id for b in boxes.values() if _opens(tree, b, level, self.decompose)}
        )
        if level == "block" and boxes[tree.root].height <= 2:  # no blocks: all that is there
            more = opened | {tree.root}
            for box in boxes.values():
                function = box.kind == "run" and box.id.endswith("()")
                if _opens(tree, box, "op") and box.kind in ("module", "run") and not function:
                    more.add(box.id)
            opened = more if len(visible(tree, more)) <= FEW else opened
        opened, coarser = _within_limit(tree, opened | {tree.root}, level)
        asked: set[str] = set()
        for name in _names(self.expand):
            for box in _matching(tree, graph, name):
                opened.update(tree.ancestors(box.id), [box.id] if box.children else [])
                asked.add(box.id)
        for name in _names(self.collapse):
            opened.difference_update(box.id for box in _matching(tree, graph, name))
        opened.add(tree.root)
        shown = visible(tree, opened)
        opened.intersection_update(shown)
        if level in ("op", "full"):
            bare = {key for key in opened - asked if _is_bare(tree, boxes[key])}
            shown = [key for key in shown if key not in bare]
        directions = {link.direction for link in tree.links}
        drawn = level == "full" or "onward" in directions
        drawn = (drawn if self.backward is None else self.backward) and "backward" in directions
        if not drawn and "onward" not in directions:
            shown = [key for key in shown if not _is_rule(boxes[key])]
        read = {link.source for link in tree.links if drawn or link.direction != "backward"}
        shown = [key for key in shown if boxes[key].kind != "source" or key in read]
        notes = _unread(tree, graph)
        opened_rules = (boxes[key] for key in shown if key in opened and boxes[key].backward)
        if drawn and any(boxes[inner].backward for b in opened_rules for inner in b.children):
            notes.append(OPENED)
        return Scene(tree, level, opened, shown, [], drawn, notes, coarser=coarser)


class Options(TypedDict, total=False):
    """The options of a `View` beside its level, for type checkers; a test compares them."""

    expand: str | Iterable[str]
    collapse: str | Iterable[str]
    overlay: str | None
    backward: bool | None
    decompose: bool
    fold: bool


def view_of(level: str | View, options: Options, method: str = "save") -> View:
    """Return the view of a level with some options, or the one given, changed by them.

    Raises TypeError for an option that `method` does not have, with one of about that name.
    """
    known = Options.__annotations__
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(known)}"
            raise TypeError(f"{method} has no option {name!r}: {hint}")
    return replace(level, **options) if isinstance(level, View) else View(level, **options)


def view(tree: Tree, graph: Graph, level: str = "block", **options: Unpack[Options]) -> Scene:
    """Return the scene of a level, with the options of `View`."""
    return View(level, **options).scene(tree, graph)


def _names(names: str | Iterable[str]) -> Iterable[str]:
    return (names,) if isinstance(names, str) else names


def _unread(tree: Tree, graph: Graph) -> list[str]:
    """A note for each input that is not drawn."""
    names = [graph.values[v].name or v for v in graph.inputs if v not in tree.boxes]
    return [f"{name} is not drawn: no op reads it." for name in names]


def _is_rule(box: Box) -> bool:
    """Return True for an op that ran in a backward pass alone: a sum of gradients."""
    return box.kind == "op" and box.node is None


def _is_bare(tree: Tree, box: Box) -> bool:
    """Return True for ops put together whose frame says nothing that is not inside it."""
    if box.kind != "run" or box.count > 1 or not box.id.startswith("ops:"):
        return False
    inside = [tree.boxes[key] for key in box.children]
    labels = [child.label for child in inside if child.kind != "source"]
    names = [label.partition(" = ")[0] for label in labels]
    every = ", ".join(child.label for child in inside)
    counted = re.search(r", \d+ ops$", box.label) is not None
    listed = box.label in (*labels, every, ", ".join(labels), ", ".join(names))
    return len(labels) < 2 or listed or counted


def _opens(tree: Tree, box: Box, level: str, decompose: bool = False) -> bool:
    """Return True for a box that a level below `arch` opens."""
    if level != "block":
        return bool(box.children) and (box.opens or decompose)
    if box.kind in ("calls", "update"):
        return False
    if box.kind != "run":
        return box.height >= 2
    inputs = tree.boxes[box.children[0]].kind == "input"
    return inputs or box.height > 0 or box.parameter_count > 0


def _arch(tree: Tree) -> set[str]:
    """Outer boxes before inner ones, modules before runs, while all that are alike fit the page.

    Equal neighbours stay closed: that they are one box is what this level is for.
    """
    boxes = tree.boxes
    opened, shown = {tree.root}, len(boxes[tree.root].children)
    for kind in ("module", "run"):
        row = [boxes[tree.root]]
        while row:
            alike: dict[tuple[bool, int], list[Box]] = {}
            for box in row:
                fresh = box.id not in opened and box.kind == kind
                if fresh and box.count == 1 and _opens(tree, box, "block"):
                    inputs = boxes[box.children[0]].kind == "input"
                    alike.setdefault((inputs, box.height), []).append(box)
            for group in (alike[key] for key in sorted(alike, reverse=True)):
                more = sum(len(box.children) - 1 for box in group)
                if shown + more <= PAGE:
                    opened.update(box.id for box in group)
                    shown += more
            row = [boxes[child] for box in row if box.id in opened for child in box.children]
    return opened


def visible(tree: Tree, opened: set[str]) -> list[str]:
    """Return the root and what is in visible open boxes, in the order of the tree."""
    seen, waiting = [], [tree.root]
    while waiting:
        box = waiting.pop()
        seen.append(box)
        if box in opened:
            waiting.extend(reversed(tree.boxes[box].children))
    return seen


def _within_limit(tree: Tree, opened: set[str], level: str) -> tuple[set[str], str]:
    """Close the deepest boxes until few enough are visible; return those open, and a note."""
    count = len(visible(tree, opened))
    if count <= LIMIT:
        return opened, ""
    depths = {tree.root: 0}
    for box in tree.boxes.values():
        if box.parent is not None:
            depths[box.id] = depths[box.parent] + 1
    depth = max(depths[box] for box in opened)
    while depth and len(visible(tree, opened)) > LIMIT:
        opened = {box for box in opened if depths[box] < depth}
        depth -= 1
    return opened, (
        f"level {level} has {count} boxes, more than {LIMIT}, so those at depth {depth + 1} are "
        "drawn closed: expand opens them"
    )


def _matching(tree: Tree, graph: Graph, name: str) -> list[Box]:
    """The boxes of a name; of one that another stands for, that other one."""
    for box in tree.boxes.values():
        for member in box.members[1:]:
            if name.startswith((f"{member}.", f"{member}/")):
                name = box.id + name.removeprefix(member)
    known = {box.id: _called(box, graph) for box in tree.boxes.values()}
    found = [
        tree.boxes[box]
        for box, names in known.items()
        if any(name == each or fnmatchcase(each, name) for each in names)
    ]
    if not found:
        every = dict.fromkeys(each for names in known.values() for each in names if each)
        near = difflib.get_close_matches(name, every, 3, 0.4)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"no box is called {name!r}{hint}")
    return found


def _called(box: Box, graph: Graph) -> list[str]:
    """The names of a box. The path of an op is its name only if it is all of that module."""
    names = [box.id, box.label, *box.members]
    return [*names, box.path] if box.kind == "module" or box.id in graph.groups else names


def _edges(
    tree: Tree, graph: Graph, shown: list[str], opened: set[str], backward: bool
) -> list[Edge]:
    """The links between what is visible: each tensor once from one box to another.

    An op that reads a tensor twice has two edges. Gradients that add up to the same one are one
    edge, which shows the first.
    """
    seen_as: dict[str | None, str] = {box: box for box in shown}
    for box in tree.boxes.values():
        if box.id not in seen_as:
            seen_as[box.id] = seen_as[box.parent]
    lifting = Lifting(tree, graph)
    edges: dict[tuple[str, ...], tuple[Edge, set[str]]] = {}
    slots: Counter[tuple[str, ...]] = Counter()
    for link in tree.links:
        source, target = seen_as[link.source], seen_as[link.target]
        if source == target or (link.direction == "backward" and not backward):
            continue
        lower = source if link.direction == "backward" else target
        slot = _slot(tree.boxes[target], link, slots)
        together = is_to_update(link, tree, graph)
        tensor = "" if together else tensor_of(link, graph)
        key = source, target, tensor, link.direction, slot
        new = Edge(source, target, link.value, link.direction), set[str]()
        edge, terms = edges.setdefault(key, new)
        terms.add(link.value)
        if together:
            edge.tensors = len(terms)
        else:
            edge.terms = len(terms)
        fan = lifting.multiplicity(link, lower)
        if fan > edge.fan:
            edge.fan, edge.fanned = fan, link.fanned
        edge.skip |= lifting.skips(link, opened)
        given = given_as(graph, tree, link, target)
        edge.ports += [port for port in given if port not in edge.ports]
    return [edge for edge, _ in edges.values()]


def _slot(target: Box, link: Link, taken: Counter[tuple[str, ...]]) -> str:
    """Return what tells apart the wires of one tensor into an op: `c + c` has two of them."""
    if target.node is None or link.direction != "forward":
        return ""
    if link.target != target.id:  # inside a fused op, where several may read what came in once
        return link.port
    key = link.source, link.target, link.value
    taken[key] += 1
    return str(taken[key])
