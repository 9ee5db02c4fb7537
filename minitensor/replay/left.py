"""The search for ops that could be one and are not, with the reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from ..core import OPS
from ..graph.kinds import family
from .graph import Call, Graph

_ONE_PASS = {"elementwise", "activation", "random"}  # kinds of ops that could run in one pass
Ways = Callable[[Call], Iterator[tuple[int, Call]]]  # the calls before or after one, with values


def left(graph: Graph) -> dict[tuple[str, str], list[str]]:
    """Return neighbours that run in one pass each, and attention: by ops and reason, the lines."""
    made = {n: call for call in graph.calls if call.op is not None for n in call.outs}
    users: defaultdict[int, list[Call]] = defaultdict(list)
    for call in graph.calls:
        for n in call.reads:
            users[n].append(call)
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def before(call: Call) -> Iterator[tuple[int, Call]]:
        yield from ((n, made[n]) for n in call.reads if n in made)

    def after(call: Call) -> Iterator[tuple[int, Call]]:
        yield from ((n, user) for n in call.outs for user in users[n] if user.op is not None)

    def used(*values: int) -> str:
        if any(n in graph.outputs for n in values):
            return "what lies between is returned"
        most = max(len(users[n]) for n in values)
        return f"what lies between is used {most} times" if most > 1 else ""

    for call in graph.calls:
        if call.op is not None and call.op.op_name == "softmax":
            above, below = _to_product(call, before), _to_product(call, after)
            if above and below:
                why = used(*above, *below) or "no rule has this form of attention"
                found["matmul, softmax, matmul", why].append(call.line)
        for n, maker in before(call) if _in_one_pass(call) else ():
            if _in_one_pass(maker):
                shape, out = (tuple(graph.values[v].shape) for v in (n, call.outs[0]))
                cast = f"shape {shape} is broadcast to {out}" if shape != out else ""
                why = used(n) or cast or "no rule has them"
                found[f"{name_of(maker)}, {name_of(call)}", why].append(call.line)
    return found


def name_of(call: Call) -> str:
    """Return the name of the op; of a chain of one op that one's."""
    if call.op is None:
        return "detach"
    steps: tuple[Any, ...] = call.kwargs["program"].steps if call.op.op_name == "chain" else ()
    name: str = OPS[steps[0][0]].op_name if len(steps) == 1 else call.op.op_name
    return name


def _to_product(call: Call, ways: Ways) -> list[int] | None:
    """Return the values between a call and a matrix product, through ops that run in one pass."""
    for n, other in ways(call):
        way: list[int] | None = [] if other.op.op_name == "matmul" else None
        if way is None and _in_one_pass(other):
            way = _to_product(other, ways)
        if way is not None:
            return [n, *way]
    return None


def _in_one_pass(call: Call) -> bool:
    if call.op is None or call.op.op_name == "softmax":
        return False
    return call.op.op_name == "chain" or family(call.op) in _ONE_PASS
