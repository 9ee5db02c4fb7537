"""Rules for rotary positions, as LLaMA and its kin write them out, and for copies.

Each pair (a, b) of numbers of x becomes (a cos - b sin, b cos + a sin). People pair neighbours or
halves, which they index, split or unbind and then stack or join again. The rules look at the
arithmetic alone, and `_turns` finds out by a trial on random numbers which pairs are turned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Tensor, wrap
from ..onnx.record import Ref
from ..ops.join import Cat, Stack
from ..ops.rotary import RotaryEmbedding
from ..ops.samples import Rand
from .graph import Graph
from .rules import Match, Rule


def _turns(match: Match) -> bool:
    """Return True if pairs of x are turned by fixed angles, and name if they are neighbours."""
    graph, refs = match.graph, [match[name] for name in "xcs"]
    if not all(isinstance(ref, Ref) for ref in refs) or not all(_fixed(graph, r) for r in refs[1:]):
        return False
    calls = [call for call in graph.calls if any(call is each for each in match.calls)]
    numbers = [ref.number for ref in refs]
    noise, values = np.random.RandomState(0), {n: graph.values[n] for n in numbers}
    given = {n: wrap(noise.standard_normal(v.shape).astype(v.dtype)) for n, v in values.items()}
    (y,) = Graph(graph.values, calls, numbers, [match["result"].number]).run(given, (), bool)
    x, cos, sin = (given[n] for n in numbers)
    for neighbours in (True, False):
        try:
            turned = RotaryEmbedding.call(x, cos, -sin if match["back"] else sin, neighbours)
        except RuntimeError:
            continue
        if turned.shape == y.shape and np.allclose(turned, y, 1e-4, 1e-5):
            return match.set(neighbours=neighbours)
    return False


def _fixed(graph: Graph, x: Any) -> bool:
    """Return True if a value requires no gradient."""
    if x.number in graph.requires:
        return False
    made = [call for call in graph.calls if x.number in call.outs]
    return all(_fixed(graph, a) for call in made for a in call.args if isinstance(a, Ref))


def _only_use(match: Match) -> bool:
    """Return True if x is the result of an op that nothing else uses."""
    number = match["x"].number
    made = any(number in call.outs for call in match.graph.calls)
    return made and match.graph.users()[number] == 1


def _rotary(rand: Rand) -> tuple[Any, ...]:
    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
        return Stack.call((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)

    return turn, rand(2, 5, 3, 8), rand.constant(5, 1, 4), rand.constant(5, 1, 4)


def _rotary_back(rand: Rand) -> tuple[Any, ...]:
    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.chunk(2, 3)
        return Cat.call((a * cos + b * sin, a * (-sin) + b * cos), 3)

    return turn, rand(2, 3, 5, 8), rand.constant(5, 4), rand.constant(5, 4)


_A, _B = (
    f"({name} := Unbind(View(x, shape=_), _)[{n}] | SplitWithSizes(x, sizes=_, dim=_)[{n}]"
    " | GetItem(x, key=_))"
    for n, name in enumerate("ab")
)
_TURNED = f"Sub(Mul({_A}, c), Mul({_B}, s)), Add(Mul(a, s), Mul(b, c))"

LLAMA = [
    Rule(
        "rotary positions",
        f"View(Stack({_TURNED}, dim=_), shape=_) | Cat({_TURNED}, dim=_)"
        f" | Add(Mul(x, c), Mul(Cat(Neg({_B}), {_A}, dim=_), s))",
        "RotaryEmbedding(x, c, s, neighbours)",
        _turns,
        _rotary,
    ),
    Rule(
        "rotary positions, turned back",
        f"Cat(Add(Mul({_A}, c), Mul({_B}, s)), Add(Mul(a, Neg(s)), Mul(b, c)), dim=_)",
        "RotaryEmbedding(x, c, Neg(s), neighbours)",
        lambda match: match.set(back=True) and _turns(match),
        _rotary_back,
    ),
    Rule(
        "view of a copy",
        "View(Clone(x), shape=shape)",
        "Reshape(x, shape=shape)",
        _only_use,
        lambda rand: (lambda x: x.exp().transpose(0, 1).contiguous().view(6), rand(2, 3)),
    ),
]
