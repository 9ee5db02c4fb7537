"""Boxes in boxes, and the tensors that go between them.

A `Tree` is the whole graph folded: every box that could be shown, equal neighbours standing as one.
A `Scene` is one view of it: which boxes are open, and the edges between what is then visible.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PAGE = 15  # closed boxes that the level `arch` shows at most


@dataclass
class Box:
    """Something that can be drawn: a module, an op, an input or an output."""

    id: str  # of its (first) group or node; of an input or output, that of the value
    kind: str  # module, op, run (ops put together to save room), calls (of one module), source
    # (a constant or buffer), input, output
    label: str  # "EncoderLayer", "softmax", "src"
    parent: str | None  # the box it is in; None for the root alone
    children: list[str] = field(default_factory=list)  # in the order they ran; a leaf has none
    path: str = ""  # of the module it is, or runs in: "encoder.layers.0", "encoder.layers.0-5"
    count: int = 1  # how many equal ones it stands for
    members: list[str] = field(default_factory=list)  # their ids, itself first, if there are more
    shared: bool = False  # True if the instances share their weights
    carried: list[str] = field(default_factory=list)  # of a loop: what goes from turn to turn
    returned: list[str] = field(default_factory=list)  # the gradients of that, which go back
    returns: int = 0  # how many turns give them: the first may have none to give
    # Of an op in loops that count in its attributes, the outermost loop first: how many turns, and
    # by how much each number grows.
    turns: list[tuple[int, list[int]]] = field(default_factory=list)
    node: str | None = None  # of an op: its forward node
    whole: str | None = None  # the node whose backward it shows, if that of the first turn has less
    call: str = ""  # the call of a public function that it is, a key of `Graph.calls`
    function_call: str = ""  # the same, or the call of a function of the user's
    backward: list[str] = field(default_factory=list)  # the backward nodes that belong to it
    parameters: list[str] = field(default_factory=list)  # values: weights of the box itself
    parameter_count: int = 0  # numbers in all weights inside it, of one instance
    flops: int = 0  # of one instance: forward
    activation_bytes: int = 0  # of what its ops make: forward, one instance, views not counted
    backward_flops: int = 0  # of one instance
    saved_bytes: int = 0  # of what it keeps for backward, one instance
    least: tuple[int, int] = 0, 0  # these two of the first turn of a loop, which may have less
    height: int = 0  # 0 for a leaf, 1 more than its highest child otherwise
    opens: bool = True  # whether it opens at the levels `op` and `full`: a fused op does not

    @property
    def weights(self) -> str:
        """Return "own weights" or "shared weights" for a folded box with weights, else ""."""
        if self.count < 2 or not self.parameter_count:
            return ""
        return "shared weights" if self.shared else "own weights"

    @property
    def value(self) -> str:
        """Return the value that an input, output or source is."""
        return self.id.removeprefix("output:")


@dataclass
class Link:
    """A tensor on its way from one leaf box to another."""

    source: str
    target: str
    value: str
    direction: str = "forward"  # or "backward": from the box of an op back to those it read from;
    # "onward": a gradient that the program goes on with, from a backward to an op or an update
    port: str = ""  # the input of the target that it is: "q", "mask"
    fan: int = 1  # how many instances of a folded box read it, or give it
    fanned: str = ""  # the same to all of them; "apart": one to each; "made": each makes one


@dataclass
class Tree:
    """Every box that could be shown, and every link between leaves."""

    root: str
    boxes: dict[str, Box]
    links: list[Link]
    instances: dict[str, list[str]] = field(default_factory=dict)  # by drawn node: all alike

    _chains: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False)

    def nodes(self, box: Box) -> list[str]:
        """Return the nodes of an op that a box stands for, the drawn one first; else none."""
        return self.instances.get(box.node, [box.node]) if box.node is not None else []

    def chain(self, box: str) -> tuple[str, ...]:
        """Return the boxes around a box, from the outside in, then itself."""
        if box not in self._chains:  # once for each box: pictures ask for all of them often
            above: list[str] = []
            outer: str | None = box
            while outer is not None and outer not in self._chains:
                above.append(outer)
                outer = self.boxes[outer].parent
            known = () if outer is None else self._chains[outer]
            for key in reversed(above):
                known = self._chains[key] = (*known, key)
        return self._chains[box]

    def ancestors(self, box: str) -> tuple[str, ...]:
        """Return the boxes around a box, from the inside out."""
        return self.chain(box)[-2::-1]


@dataclass
class Edge:
    """One tensor between two visible boxes."""

    source: str
    target: str
    value: str
    direction: str = "forward"
    ports: list[str] = field(default_factory=list)  # the target's inputs it goes to
    fan: int = 1  # "to all 6"
    fanned: str = ""  # as of a link
    terms: int = 1  # of a gradient: how many add up to it
    tensors: int = 1  # of gradients on their way to an update: how many it stands for
    skip: bool = False  # a residual: it goes past what else lies between source and target

    @property
    def shared(self) -> bool:
        """Return True for one tensor that all instances of a folded box read."""
        return self.fan > 1 and not self.fanned


@dataclass
class Scene:
    """One view: which of the tree's boxes are visible, open (with boxes inside) or closed."""

    tree: Tree
    level: str  # arch, block, op, full
    open: set[str]  # also of ops put together that open without a frame, and are not visible
    visible: list[str]  # open boxes before what is in them, in the order of the tree
    edges: list[Edge]
    backward: bool = False  # draw the backward pass, and what is saved for it
    notes: list[str] = field(default_factory=list)  # what the picture does not show, and why
    marks: dict[str, str] = field(default_factory=dict)  # what became of nodes: "moved", "same"
    coarser: str = ""  # if it would have been too large for its level: what was done
