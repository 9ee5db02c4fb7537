"""Rules for rotary positions, as LLaMA and its kin write them out.

A pair (a, b) of numbers becomes (a cos - b sin, b cos + a sin). In the rules a and b are halves of
x, x[..., :K / 2] and x[..., K / 2:], or of each pair of neighbours the first and the second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core import Tensor
from ..onnx.record import Ref
from ..ops.join import Cat, Stack
from ..ops.samples import Rand
from .rules import Match, Rule

_EVERY = slice(None)


def _halves(match: Match) -> bool:
    """Return True if a and b are the halves of x, first a."""
    *lead, width = match.shape("x")
    if match.shape("a") != (*lead, width // 2) or match.shape("b") != match.shape("a"):
        return False
    if match["first"] is None:  # split in two
        return True
    half = width // 2
    firsts = [(*[_EVERY] * len(lead), slice(begin, half)) for begin in (None, 0)]
    seconds = [(*[_EVERY] * len(lead), slice(half, end)) for end in (None, width)]
    return _full(match["first"], lead) in firsts and _full(match["second"], lead) in seconds


def _neighbours(match: Match) -> bool:
    """Return True if a has the elements of x with even numbers and b the others."""
    *lead, width = match.shape("x")
    if match.shape("a") != (*lead, width // 2) or match.shape("b") != match.shape("a"):
        return False
    if match["first"] is None:  # pairs are a dimension, and unbound
        return match["axis"] in (-1, len(lead) + 1)
    evens = [(*[_EVERY] * len(lead), slice(begin, None, 2)) for begin in (None, 0)]
    odds = (*[_EVERY] * len(lead), slice(1, None, 2))
    return _full(match["first"], lead) in evens and _full(match["second"], lead) == odds


def _full(key: tuple[Any, ...], lead: list[int]) -> tuple[Any, ...]:
    """Return the key of an index with a slice for each dimension before the last."""
    return (*[_EVERY] * len(lead), key[-1]) if key[0] is Ellipsis else key


def _fixed(match: Match, x: Any) -> bool:
    """Return True if a value requires no gradient."""
    if x.number in match.graph.requires:
        return False
    made = [call for call in match.graph.calls if x.number in call.outs]
    return all(_fixed(match, a) for call in made for a in call.args if isinstance(a, Ref))


def _turns(parts: Callable[[Match], bool], axis: int, whole: bool = False) -> Any:
    """Return the condition: a and b are `parts` of x, and the angles fit it.

    `axis`, 0 or 1: that of the result, from its end, minus that in which parts are joined. `whole`:
    there is an angle for each number, not for each pair.
    """

    def check(match: Match) -> bool:
        *lead, width = shape = match.shape("x")
        cos, sin = match.shape("c"), match.shape("s")
        fits = (
            len(shape) > 0
            and match.shape("result") == shape
            and match["dim"] in (-1, len(lead) + axis)
            and cos == sin
            and 0 < len(cos) <= len(shape)
            and cos[-1] == (width if whole else width // 2)
            and all(n in (1, m) for n, m in zip(cos[-2::-1], lead[::-1], strict=False))
            and match.dtype("c") == match.dtype("s") == match.dtype("x")
        )
        return fits and parts(match) and _fixed(match, match["c"]) and _fixed(match, match["s"])

    return check


def _turned_back(match: Match) -> bool:
    """Return True if n is -s, for a rotation by the opposite angles."""
    minus = [call for call in match.graph.calls if match["n"].number in call.outs]
    negated = minus and minus[0].op is not None and minus[0].op.__name__ == "Neg"
    return bool(negated) and minus[0].args == (match["s"],) and _turns(_halves, 0)(match)


def _sample(turn: Callable[..., Tensor], *angles: int) -> Callable[[Rand], tuple[Any, ...]]:
    return lambda rand: (
        turn, rand(2, 3, 5, 8), rand.constant(*angles), rand.constant(*angles)
    )  # fmt: skip


def _turn_neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return Stack.call((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def _turn_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return Cat.call((a * cos - b * sin, b * cos + a * sin), -1)


def _turn_halves_back(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, 3)
    return Cat.call((a * cos + b * sin, a * (-sin) + b * cos), 3)


def _add_rotated_half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return x * cos + Cat.call((-b, a), -1) * sin


_PAIR = "({} := Unbind(View(x, shape=_), axis)[{}] | GetItem(x, key={}))"
_HALF = "({} := SplitWithSizes(x, sizes=_, dim=-1)[{}] | GetItem(x, key={}))"
_PAIRS, _IN_HALVES = (
    (part.format("a", 0, "first"), part.format("b", 1, "second")) for part in (_PAIR, _HALF)
)
_TURNED = "Sub(Mul({}, c), Mul({}, s)), Add(Mul(a, s), Mul(b, c))"

LLAMA = [
    Rule(
        "rotary positions, neighbours",
        f"View(Stack({_TURNED.format(*_PAIRS)}, dim=dim), shape=_)",
        "RotaryEmbedding(x, c, s, True)",
        _turns(_neighbours, 1),
        _sample(_turn_neighbours, 5, 4),
    ),
    Rule(
        "rotary positions, halves",
        f"Cat({_TURNED.format(*_IN_HALVES)}, dim=dim)",
        "RotaryEmbedding(x, c, s, False)",
        _turns(_halves, 0),
        _sample(_turn_halves, 3, 1, 4),
    ),
    Rule(
        "rotary positions, halves turned back",
        "Cat(Add(Mul({}, c), Mul({}, s)), Add(Mul(a, n), Mul(b, c)), dim=dim)".format(*_IN_HALVES),
        "RotaryEmbedding(x, c, n, False)",
        _turned_back,
        _sample(_turn_halves_back, 5, 4),
    ),
    Rule(
        "rotary positions, rotated half",
        "Add(Mul(x, c), Mul(Cat(Neg({1}), {0}, dim=dim), s))".format(*_IN_HALVES),
        "RotaryEmbedding(x, c, s, False)",
        _turns(_halves, 0, whole=True),
        _sample(_add_rotated_half, 2, 1, 5, 8),
    ),
]
