"""Overlays: one amount for each box, as text and as a step on the colour ramp.

An overlay is one class with `@register` above it. Every picture, the page's menu and the command
line read `OVERLAYS`, so that nothing else changes for a new one:

    @register
    class Elements(Overlay):
        # The number of elements that ops make.
        key, title = "elements", "elements of activations"

        def amount(self, work):
            return sum(math.prod(value.shape) for value in work.made) or None
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from .model import Graph, Node, Value
from .numbers import number, percent, seconds
from .palette import RAMP
from .scene import Tree

BARS = 12  # values of a strip at most; of more instances, each shows the largest of several


@dataclass
class Work:
    """One run of an op: its nodes, and the tensors that it read and made."""

    forward: Node | None
    backward: list[Node]  # empty if the backward pass is not drawn
    made: list[Value]  # by the forward node and the backward ones; views show other memory
    weights: list[Value]

    @property
    def nodes(self) -> list[Node]:
        """Return the forward node and the backward ones."""
        return [self.forward, *self.backward] if self.forward else self.backward


class Overlay:
    """An amount for each op, and how those of the ops in a box are joined and written."""

    key = ""  # its name in `save(overlay=...)` and on the command line
    title = ""  # in the legend: "bytes of activations"
    unit = ""  # written after the number
    additive = True  # a box has the sum of its ops' amounts; False: the largest of them
    empty: float | None = 0.0  # of an instance of which nothing is known; None: it is left out
    logarithmic = False  # the colour goes by the logarithm of the amount
    needs: tuple[str, ...] = ()  # options of `trace` without which nothing is known
    given: Mapping[str, float] = {}  # amounts of boxes as a whole, by ids that they stand for

    def amount(self, work: Work) -> float | None:
        """Return the amount of one run of an op, or None if there is nothing to tell."""
        raise NotImplementedError

    def text(self, amount: float) -> str:
        """Write an amount in three digits, with the unit."""
        return number(amount, self.unit)

    def told(self, graph: Graph) -> str:
        """Return the title for a graph, which may know more: of what a gradient is, ..."""
        return self.title

    def start(self, low: float) -> float:
        """Return the amount at which the ramp begins, `low` being the least in the picture."""
        return low if self.logarithmic else 0.0

    def share(self, amount: float, low: float, high: float) -> float:
        """Return where an amount lies between the least, 0, and the largest, 1."""
        if not self.logarithmic:
            return amount / high if high else 0.0
        if not 0 < low < high:
            return 0.0
        return math.log(max(amount, low) / low) / math.log(high / low)

    @property
    def missing(self) -> str:
        """Return the message for a graph that has no such amounts, with the remedy."""
        if not self.needs:
            return f"the graph knows no {self.title}"
        options = ", ".join(f"{name}=True" for name in self.needs)
        return f"the graph knows no {self.title}: record it with trace(..., {options})"


OVERLAYS: dict[str, Overlay] = {}


def register(kind: type[Overlay]) -> type[Overlay]:
    """Make an overlay known. Raises ValueError if another class has its key."""
    other = type(OVERLAYS.get(kind.key))
    again = (other.__module__, other.__qualname__) == (kind.__module__, kind.__qualname__)
    if not kind.key or (kind.key in OVERLAYS and not again):  # a notebook's cell may run twice
        raise ValueError(f"an overlay must have a key of its own, not {kind.key!r}")
    OVERLAYS[kind.key] = kind()
    return kind


def overlays_of(graph: Graph) -> dict[str, Overlay]:
    """Return the overlays of a graph: the registered ones, and its annotations with numbers."""
    found, own = {**OVERLAYS}, {}
    for name, notes in graph.annotations.items():
        numbers = {key: note for key, note in notes.items() if not isinstance(note, str)}
        if numbers:
            own[name] = Annotated(name, numbers)
    return found | own


def overlay_named(key: str, graph: Graph) -> Overlay:
    """Return an overlay of a graph. Raises ValueError, naming all, for another key."""
    known = overlays_of(graph)
    if key not in known:
        raise ValueError(f"overlay must be one of {', '.join(known)}, not {key!r}")
    return known[key]


class Annotated(Overlay):
    """The numbers that a person gave to boxes, ops or tensors of a graph."""

    additive, empty = False, None

    def __init__(self, name: str, numbers: Mapping[str, float]) -> None:
        self.key = self.title = name
        self.given = numbers

    def amount(self, work: Work) -> float | None:
        """Return the largest number of the op's nodes and of the tensors that they make."""
        keys = [*(node.id for node in work.nodes), *(value.id for value in work.made)]
        known = [self.given[key] for key in keys if key in self.given]
        return max(known, key=_badness, default=None)

    def start(self, low: float) -> float:
        """Return the least number in the picture, which may be negative."""
        return low

    def share(self, amount: float, low: float, high: float) -> float:
        """Return where an amount lies between the least and the largest."""
        return (amount - low) / (high - low) if high > low else 1.0


@register
class Flops(Overlay):
    """Floating-point operations of matrix products: 2 for a multiplication and an addition."""

    key, title, unit = "flops", "matrix products", "FLOP"

    def amount(self, work: Work) -> float | None:
        """Return the FLOPs of the nodes."""
        return sum(node.flops for node in work.nodes) or None


@register
class Bytes(Overlay):
    """Bytes of the tensors that the ops make."""

    key, title, unit = "bytes", "bytes of activations", "B"

    def amount(self, work: Work) -> float | None:
        """Return the bytes of the tensors made, without views of others."""
        return sum(value.nbytes for value in work.made if value.views is None) or None


@register
class Time(Overlay):
    """Measured time."""

    key, title, logarithmic, needs = "time", "time", True, ("stats",)
    text = staticmethod(seconds)

    def told(self, graph: Graph) -> str:
        """Return how often the time was taken, too."""
        runs = graph.timed_runs
        how = f"median of {runs} runs after a warm-up" if runs > 1 else "of one run"
        return f"{self.title}, {how}"

    def amount(self, work: Work) -> float | None:
        """Return the seconds that the nodes took."""
        known = [node.seconds for node in work.nodes if node.seconds is not None]
        return sum(known) if known else None


@register
class GradNorm(Overlay):
    """The largest 2-norm of the gradients of tensors and weights."""

    key, title, logarithmic, needs = "gradnorm", "gradient norm", True, ("stats", "backward")
    additive = False
    text = staticmethod("{:.3g}".format)

    def told(self, graph: Graph) -> str:
        """Return of what the gradients are, too: "gradient norm of d loss"."""
        return f"{self.title} of d {graph.seed}" if graph.seed else self.title

    def amount(self, work: Work) -> float | None:
        """Return the largest norm of a gradient."""
        known = [value.grad_norm for value in (*work.made, *work.weights)]
        return max((norm for norm in known if norm is not None), key=_badness, default=None)


@register
class NotANumber(Overlay):
    """The largest share of NaN in a tensor."""

    key, title, needs = "nan", "share of NaN", ("stats",)
    additive = False
    text = staticmethod(percent)

    def amount(self, work: Work) -> float | None:
        """Return the largest share of NaN in what was made or read."""
        known = [value.stats for value in (*work.made, *work.weights) if value.stats]
        return max((stats["nan"] for stats in known if "nan" in stats), default=None)

    def share(self, amount: float, low: float, high: float) -> float:
        """Return 1 for any NaN at all, so that it is seen."""
        return 1.0 if amount else 0.0


def _badness(amount: float) -> tuple[bool, float]:
    """Order amounts with infinity and NaN as the largest."""
    return not math.isfinite(amount), amount


@dataclass
class Scale:
    """The ramp of an overlay at a level: its ends, as texts too."""

    overlay: Overlay
    title: str  # of the overlay, for the graph
    low: float
    high: float

    def step(self, amount: float) -> int:
        """Return the step of the ramp for an amount; the last for infinity, NaN and more."""
        last = len(RAMP) - 1
        if not math.isfinite(amount):
            return last
        return max(0, min(last, round(last * self.overlay.share(amount, self.low, self.high))))

    @property
    def ends(self) -> tuple[str, str]:
        """Return the least and the largest amount, written."""
        text = self.overlay.text
        return text(self.overlay.start(self.low)), text(self.high)


@dataclass
class Heat:
    """A text and a step on the ramp, for a box, from an overlay or a comparison."""

    text: str
    step: int
    instances: list[tuple[str, int]] = field(default_factory=list)  # the same of each it stands for


class Amounts:
    """The amounts of one overlay: for each box, those of all instances that it stands for."""

    def __init__(
        self, tree: Tree, overlay: Overlay, works: dict[str, list[Work]], title: str = ""
    ) -> None:
        self.tree = tree
        self.overlay = overlay
        self.title = title or overlay.title
        self.of: dict[str, list[float]] = {}
        parts: dict[str, list[list[float]]] = {}
        given = {key: [overlay.amount(run) for run in runs] for key, runs in works.items()}
        for key in tree.boxes if overlay.given else ():
            own = [overlay.given.get(each) for each in stands_for(tree, key)]
            if any(amount is not None for amount in own):
                given[key] = own
        for key, amounts in given.items():
            if all(amount is None for amount in amounts):
                continue
            for box, instances in counted(tree, key):
                if len(amounts) % instances or (box in given and box != key):
                    continue
                size = len(amounts) // instances
                found = parts.setdefault(box, [[] for _ in range(instances)])
                for at, amount in enumerate(amounts):
                    if amount is not None:
                        found[at // size].append(amount)
        for box, found in parts.items():
            known = [self._joined(part) if part else overlay.empty for part in found]
            self.of[box] = [amount for amount in known if amount is not None]

    def _joined(self, amounts: list[float]) -> float:
        return sum(amounts) if self.overlay.additive else max(amounts, key=_badness)

    def total(self, box: str) -> float:
        """Return the amount of a box, of all instances together."""
        return self._joined(self.of[box])

    def scale(self, boxes: Iterable[str]) -> Scale:
        """Return the ramp for some boxes: their totals and their instances."""
        known = [self._shown(box) for box in boxes if box in self.of]
        finite = [amount for shown in known for amount in shown if math.isfinite(amount)]
        if self.overlay.logarithmic:
            finite = [amount for amount in finite if amount > 0]
        low, high = min(finite, default=0.0), max(finite, default=0.0)
        return Scale(self.overlay, self.title, low, high)

    def _shown(self, box: str) -> list[float]:
        return [self.total(box), *self.of[box]]

    def text(self, box: str) -> str:
        """Write the amount of a box: "3.52 MFLOP = 6 x 587 kFLOP"."""
        instances, total = self.of[box], self.overlay.text(self.total(box))
        count = len(instances)
        if count == 1:
            return total
        if not self.overlay.additive:
            return f"{total}, the largest of {count}"
        each = {self.overlay.text(amount) for amount in instances}
        return f"{total} = {count} x {each.pop()}" if len(each) == 1 else f"{total} in {count}"

    def bars(self, box: str) -> list[float]:
        """Return the amounts of the instances, none if they are alike and inside one fold."""
        instances = self.of[box]
        alike = len(set(map(self.overlay.text, instances))) == 1
        if len(instances) == 1 or (alike and self.tree.boxes[box].count == 1):
            return []
        count = min(len(instances), BARS)
        cuts = [len(instances) * at // count for at in range(count + 1)]
        return [max(instances[start:end], key=_badness) for start, end in pairwise(cuts)]

    def heat(self, box: str, scale: Scale) -> Heat | None:
        """Return what the overlay says of a box, None if it knows nothing."""
        if box not in self.of:
            return None
        bars = [(self.overlay.text(amount), scale.step(amount)) for amount in self.bars(box)]
        return Heat(self.text(box), scale.step(self.total(box)), bars)


def works(graph: Graph, tree: Tree, backward: bool) -> dict[str, list[Work]]:
    """Return, for each box of an op, every run that it stands for, in the order they ran."""
    rules: dict[str | None, list[Node]] = defaultdict(list)
    for node in graph.nodes.values():
        own = node.inside is None or node.of is not None  # else the rule of another runs it
        if node.direction == "backward" and backward and own:
            rules[differentiated(graph, node)].append(node)
    found = {}
    for box in tree.boxes.values():
        if box.node is not None:
            nodes = tree.nodes(box)
            found[box.id] = [_work(graph, graph.nodes[name], rules[name]) for name in nodes]
        elif box.backward and backward:
            found[box.id] = [_work(graph, None, [graph.nodes[name] for name in box.backward])]
    return found


def differentiated(graph: Graph, node: Node) -> str:
    """Return the op that a backward node belongs to, also one of a pass over a pass."""
    while node.direction == "backward" and (outer := node.of or node.inside) in graph.nodes:
        node = graph.nodes[outer or ""]
    return node.id


def _work(graph: Graph, forward: Node | None, backward: list[Node]) -> Work:
    values = graph.values
    nodes = [forward, *backward] if forward else backward
    weights = [values[key] for key in forward.inputs] if forward else []
    return Work(
        forward,
        backward,
        [values[key] for node in nodes for key in node.outputs],
        [value for value in weights if value.kind == "parameter"],
    )


def stands_for(tree: Tree, key: str) -> list[str]:
    """Return the ids of all that a box stands for, by its own fold and those around it."""
    found = tree.boxes[key].members or [key]
    for outer in map(tree.boxes.__getitem__, tree.ancestors(key)):
        if outer.members:
            found = [m + each.removeprefix(outer.id) for m in outer.members for each in found]
    return found


def counted(tree: Tree, key: str) -> list[tuple[str, int]]:
    """Return the boxes in which an op counts, each with its number of instances.

    An op inside a fused one counts for itself and not around it: the fused op has counted there.
    """
    found: list[tuple[str, int]] = []
    instances = 1
    for box in map(tree.boxes.__getitem__, tree.chain(key)):
        instances *= box.count
        found.append((box.id, instances))
        if box.node is not None and box.id != key:
            found = []
    return found


def changed(statuses: Iterable[str]) -> Heat | None:
    """Return what became of nodes in a comparison, None if all of them are the same."""
    counts = Counter(statuses)
    changes = [(status, count) for status, count in counts.items() if status != "same"]
    if not changes:
        return None
    whole = len(counts) == 1
    text = ", ".join(status if whole else f"{n} {status}" for status, n in changes)
    return Heat(text, max(CHANGES[status] for status, _ in changes))


CHANGES = {  # steps on the ramp
    "changed": 3,
    "moved": 4,
    "added": 5,
    "rewritten": 5,
    "removed": 6,
    "replaced": 6,
}
