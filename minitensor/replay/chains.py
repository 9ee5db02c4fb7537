"""Chains: elementwise ops that follow each other become one op, `ops.chain.Chain`, of one pass.

    h = silu(a);  m = h * b;  y = m + c      ->      y = chain(a, b, c)

A result that only the chain uses is never stored, and not saved for the backward pass, which
computes it again. A group begins with its last op, and takes in, going backwards, each op of its
shape and type whose result it uses, and others only later: then it is a result of the chain too.
An op that NumPy computes is a chain alone too, which threads share and which is replayed without
Python.

Results keep their bits. A gradient may differ in the last digit where a value is used several times
in a chain and elsewhere, as its parts are added in another order, or in float32 where it is summed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..kernels.chain import layout_of
from ..ops import chain
from ..ops.chain import Chain, Program, is_step
from ..recording import Ref, refs
from .graph import Call, Graph
from .plan import Key

MOST = 64  # ops of a chain


def fuse_chains(graph: Graph) -> Graph:
    """Return the graph with a `Chain` in place of each group of elementwise ops."""
    users: dict[int, list[int]] = {}
    for at, call in enumerate(graph.calls):
        for number in call.reads:
            users.setdefault(number, []).append(at)
    group_of: dict[int, int] = {}  # of a call: its group's last call
    members: dict[int, list[int]] = {}  # of a group, in reverse
    for at in range(len(graph.calls) - 1, -1, -1):
        call = graph.calls[at]
        if not _is_elementwise(call, graph):
            continue
        (out,) = call.outs
        groups = [group_of[user] for user in users.get(out, []) if user in group_of]
        last = min(groups, default=at)
        early = any(user < last and group_of.get(user) != last for user in users.get(out, []))
        if (
            early
            or len(members.get(last, [])) == MOST
            or not _alike(call, graph.calls[last], graph)
        ):
            last = at
        group_of[at] = last
        members.setdefault(last, []).append(at)
    counts = graph.users()
    calls = []
    for at, call in enumerate(graph.calls):
        group = members.get(group_of.get(at, -1), [])
        if not group or (len(group) == 1 and not _is_better_alone(call, graph)):
            calls.append(call)
        elif at == group[0]:
            calls.append(_chain([graph.calls[n] for n in reversed(group)], counts))
    graph.calls = calls
    return graph


def _is_elementwise(call: Call, graph: Graph) -> bool:
    """Return True for an op that can be a step: its operands are of its type, and broadcast."""
    result = graph.values[call.outs[0]]
    if call.op is None or result.dtype is None or any(x is not None for x in call.kwargs.values()):
        return False
    if not is_step(call.op.__name__, [_argument(a, {}) for a in call.args], result.dtype):
        return False
    operands = [graph.values[number] for number in refs(call.args)]
    return all(
        x.dtype in (result.dtype, np.bool_) and layout_of(x.shape, result.shape) for x in operands
    )


def _is_better_alone(call: Call, graph: Graph) -> bool:
    """Return True for an op that NumPy computes, if its gradients keep their bits.

    They do unless a chain adds them up: those of an operand that is broadcast, or comes twice.
    """
    shape, operands = graph.values[call.outs[0]].shape, refs(call.args)
    added = any(graph.values[n].shape != shape or operands.count(n) > 1 for n in operands)
    return not (call.op.native or (added and graph.requires.intersection(operands)))


def _alike(one: Call, other: Call, graph: Graph) -> bool:
    """Return True if two ops may be steps of one chain."""
    a, b = graph.values[one.outs[0]], graph.values[other.outs[0]]
    graded = (one.outs[0] in graph.requires) == (other.outs[0] in graph.requires)
    return a.shape == b.shape and a.dtype == b.dtype and one.grad == other.grad and graded


def _argument(a: Any, known: Mapping[Any, Any]) -> Any:
    """Return an argument of an op as a program has it."""
    if isinstance(a, Ref):
        return known.get(a, 0)
    if isinstance(a, Key):
        return known.get(a, chain.Key(0))
    return float(a) if isinstance(a, int | float | np.ndarray | np.generic) else a


def _chain(group: list[Call], users: Counter[int]) -> Call:
    """Return the call in place of a group."""
    made = [Ref(call.outs[0]) for call in group]
    uses = [a for call in group for a in call.args if isinstance(a, Ref | Key)]
    inputs = [a for a in dict.fromkeys(uses) if isinstance(a, Ref) and a not in made]
    keys = [a for a in dict.fromkeys(uses) if isinstance(a, Key)]
    known: dict[Any, Any] = {a: number for number, a in enumerate([*inputs, *made])}
    known |= {key: chain.Key(number) for number, key in enumerate(keys)}
    steps = [(call.op.__name__, *[_argument(a, known) for a in call.args]) for call in group]
    outs = [a for a in made if users[a.number] > uses.count(a) or a == made[-1]]
    program = Program(len(inputs), steps, [known[a] for a in outs])
    settings = {"program": program, "keys": tuple(keys)}
    numbers = tuple([a.number for a in outs])
    return replace(
        group[-1], op=Chain, args=tuple(inputs), kwargs=settings, outs=numbers, rule="chain"
    )
