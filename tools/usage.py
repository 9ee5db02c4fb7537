"""The memory that a program has in use after each op, forward and backward, and a chart of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from minitensor.autograd import observe
from minitensor.autograd.grad_mode import Mode
from minitensor.core import Node, Observer, Tensor, wrap
from minitensor.core.backward import run_backward
from minitensor.core.node import edge_for
from minitensor.graph.describe import tensors_in
from minitensor.graph.numbers import number
from minitensor.graph.palette import FONT, FRAME, INK, LOOKS, PAPER, QUIET
from minitensor.graph.svg import SVG, style
from minitensor.graph.trace import leaves
from minitensor.random import default_generator
from minitensor.replay.addresses import NotReplayable
from minitensor.replay.compiled import Compiled
from minitensor.replay.replayed import CompiledNode, Plan, Room
from minitensor.replay.values import arguments


@dataclass
class Usage:
    """Bytes in use after each op: results, what is saved for the backward pass, and gradients."""

    forward: list[int] = field(default_factory=list)
    backward: list[int] = field(default_factory=list)

    @property
    def peak(self) -> int:
        """The most bytes in use."""
        return max([0, *self.forward, *self.backward])


def usage(function: Callable[..., Any], /, *inputs: Any, **options: Any) -> Usage:
    """Run `function(*inputs, **options)` and a backward pass from its results; return the memory.

    No `grad` is touched. Of a function or module that `minitensor.compile` returned, its plan is
    made and measured. The program's inputs and weights do not count. NotReplayable, with the
    reason, if it is not replayed.
    """
    start = default_generator.get_state()
    meter = _Meter()
    try:
        calls = getattr(function, "__dict__", {}).get("_calls")
        if not isinstance(calls, Compiled):
            with observe(meter):
                _differentiate(function(*inputs, **options))
        else:
            plan, tensors = _plan(calls, inputs, options)
            with observe(meter):
                _differentiate(plan(tensors))
    finally:
        default_generator.set_state(start)
    return meter.usage


class _Meter(Observer):
    """Notes the memory in use after each op, and after the ops that a backward rule runs."""

    def __init__(self) -> None:
        self.usage = Usage()
        self._live = 0  # bytes
        self._known: set[int] = set()  # by id(), arrays that have memory which counts
        self._rules = 0  # backward rules that run
        self._most = 0  # bytes in use while the last one ran

    def add(self, arrays: Iterable[Any], count: bool = True) -> None:
        """Count the memory of arrays, once, for as long as it is in use; without `count`, never."""
        for array in arrays:
            owner = array
            while type(owner) is np.ndarray and isinstance(owner.base, np.ndarray):
                array, owner = owner, owner.base
            if isinstance(owner, np.ndarray) and id(owner) not in self._known:
                # A loan of the pool is larger than what lies in it.
                size = (owner if type(owner) is np.ndarray else array).nbytes if count else 0
                self._live += size
                self._known.add(id(owner))
                weakref.finalize(owner, self._free, id(owner), size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size

    def ran(self, run: Any, args: Any, kwargs: Any, outs: Sequence[Tensor]) -> None:
        """Note an op that ran; what it was given and no op had made does not count."""
        given = tensors_in([*args, *kwargs.values()])
        self.add((t._array for t in given), count=False)
        self.add(t._array for t in outs)
        self.add(run._saved.values if run.recorded else ())
        if self._rules:
            self._most = max(self._most, self._live)
        else:
            self.usage.forward.append(self._live)

    def backward_begins(self, node: Node, grads: Sequence[Tensor | None]) -> None:
        """Note that a backward rule begins."""
        self._rules += 1
        self._most = 0

    def backward_ended(self, node: Node, grads: Sequence[Tensor | None]) -> None:
        """Note a backward rule that ran."""
        self._rules -= 1
        self.add(g._array for g in grads if g is not None)
        if not isinstance(node, CompiledNode):  # which stands for the whole pass
            self.usage.backward.append(max(self._most, self._live))


def _plan(calls: Compiled, inputs: Any, options: Any) -> tuple[Plan, list[Tensor]]:
    """Return the plan of a compiled function's call, and the tensors that it is to be given."""
    calls.kinds.clear()
    calls.function(*inputs, **options)  # which may make what it keeps, such as a table of positions
    entry = calls.recorded(inputs, options)
    if entry.reason:
        raise NotReplayable(entry.reason)
    _, tensors = arguments(inputs, options)
    _differentiate(Plan(entry.graph, entry.form, Room())(tensors))  # which makes workspaces grow
    entry.plans = [Plan(entry.graph, entry.form, Room())]
    return entry.plans[0], tensors


def _differentiate(result: Any) -> None:
    """Run a backward pass from all results, with gradients of one."""
    outs = [t for _, t in leaves("", result) if t.requires_grad]
    roots = [(edge_for(t), wrap(np.ones_like(t._array))) for t in outs]
    wanted: dict[Any, int] = {}
    stack = [t.grad_fn for t in outs if t.grad_fn is not None]
    seen = set(stack)
    while stack:
        for edge in stack.pop().edges:
            if isinstance(edge, Tensor):
                wanted.setdefault(edge, len(wanted))
            elif type(edge) is tuple and edge[0] not in seen:
                seen.add(edge[0])
                stack.append(edge[0])
    with Mode(grad=False):
        run_backward(roots, False, wanted)


# The chart

WIDE, HIGH, LEFT, TOP, EDGE = 760.0, 240.0, 84.0, 92.0, 24.0


def chart(title: str, measured: Mapping[str, Usage]) -> bytes:
    """Return an SVG of the memory of several forms of a program, in the style of the graphs.

    The forward pass is at the left, the backward pass at the right; each form has the whole width
    for its ops, however many they are. The peak of each is marked.
    """
    most = max([1, *(each.peak for each in measured.values())])
    wide, high = LEFT + WIDE + 4 * EDGE, TOP + HIGH + 3 * EDGE
    colours = [LOOKS["backward"].line, LOOKS["product"].line]
    parts = [
        f'<svg xmlns="{SVG}" width="{wide:.0f}" height="{high:.0f}" '
        f'viewBox="0 0 {wide:.0f} {high:.0f}" font-family="{FONT}" font-size="10">',
        f"<style>{style()}</style>",
        f'<rect width="100%" height="100%" fill="{PAPER}"/>',
        _text(EDGE, 36, title, 16, weight="bold"),
    ]
    for step in range(5):
        y = TOP + HIGH * (1 - step / 4)
        parts.append(f'<path d="M{LEFT},{y:.1f}h{WIDE}" stroke="{FRAME}" stroke-width="0.4"/>')
        parts.append(_text(LEFT - 8, y + 3, number(most * step / 4, "B"), 10, QUIET, "end"))
    parts.append(f'<path d="M{LEFT + WIDE / 2},{TOP}v{HIGH + 8}" stroke="{FRAME}"/>')
    for part, name in enumerate(("forward", "backward")):
        x = LEFT + WIDE * (0.25 + 0.5 * part)
        counts = [str(len(getattr(each, name))) for each in measured.values()]
        shown = " \N{RIGHTWARDS ARROW} ".join(counts)
        parts.append(_text(x, TOP + HIGH + 20, f"{name}: {shown} ops", 11, INK, "middle"))
    for place, (name, each) in enumerate(measured.items()):
        colour, dashes = colours[place % 2], ' stroke-dasharray="5 3"' if place == 0 else ""
        points = [*_points(each.forward, 0, most), *_points(each.backward, 1, most)]
        line = "".join(f"{'L' if n else 'M'}{x:.1f},{y:.1f}" for n, (x, y) in enumerate(points))
        parts.append(f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="1.6"{dashes}/>')
        x, y = min(points, key=lambda point: point[1], default=(LEFT, TOP + HIGH))
        parts.append(f'<circle class="peak" cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        at = EDGE + 260 * place
        parts.append(
            f'<path d="M{at},56h28" stroke="{colour}" stroke-width="1.6" fill="none"{dashes}/>'
            f'<circle cx="{at + 14}" cy="56" r="4" fill="{colour}"/>'
        )
        parts.append(_text(at + 36, 60, f"{name}: peak {number(each.peak, 'B')}", 12))
    parts.append(
        _text(EDGE, 78, "bytes in use after each op, without inputs and weights", 10, QUIET)
    )
    return "\n".join([*parts, "</svg>", ""]).encode()


def _points(bytes_in_use: Sequence[int], part: int, most: int) -> list[tuple[float, float]]:
    """Return the points of a line, in the left or right half of the chart."""
    wide = WIDE / 2 / max(len(bytes_in_use), 1)
    start = LEFT + part * WIDE / 2
    return [
        (start + (n + 0.5) * wide, TOP + HIGH * (1 - count / most))
        for n, count in enumerate(bytes_in_use)
    ]


def _text(
    x: float,
    y: float,
    text: str,
    size: int,
    colour: str = INK,
    anchor: str = "start",
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}" fill="{colour}">{escape(text)}</text>'
    )
