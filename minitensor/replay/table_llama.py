"""Rules for rotary positions, as LLaMA and its kin write them out.

In the rules of rotations, m0, m1, ... are the factors of the products, in any order: `_rotation`
finds out which of them are parts of the tensor that is turned, and which are cosines and sines.
"""

from __future__ import annotations

from typing import Any

from ..core import Tensor
from ..onnx.record import Ref
from ..ops.join import Cat, Stack
from ..ops.samples import Rand
from .graph import Call
from .rules import Match, Rule

_EVERY = slice(None)
_ROTATED = "Sub(Mul(m0, m1), Mul(m2, m3)), Add(Mul(m4, m5), Mul(m6, m7))"


# Rotary positions


def _maker(match: Match, x: Any) -> Call | None:
    """Return the call that makes a value."""
    number = x.number if isinstance(x, Ref) else -1
    return next((call for call in match.graph.calls if number in call.outs), None)


def _part(match: Match, x: Any) -> tuple[Any, int, bool] | None:
    """Return of which value x is half of the last dimension, which half, and if it is interleaved.

    Interleaved halves are the elements of even and of odd numbers.
    """
    call = _maker(match, x)
    if call is None or call.op is None or not isinstance(call.args[0], Ref):
        return None
    number, source = call.outs.index(x.number), call.args[0]
    shape = match.graph.values[source.number].shape
    last = len(shape) - 1
    if call.op.__name__ == "SplitWithSizes" and call.kwargs["dim"] in (-1, last):
        return (source, number, False) if call.kwargs["sizes"] == (shape[-1] // 2,) * 2 else None
    if call.op.__name__ == "Unbind" and call.args[1] in (-1, last) and shape[-1] == 2:
        pairs = _maker(match, source)
        if pairs is None or pairs.op is None or pairs.op.__name__ not in ("Reshape", "View"):
            return None
        whole = pairs.args[0]
        folded = (*shape[:-2], 2 * shape[-2])
        return (whole, number, True) if match.graph.values[whole.number].shape == folded else None
    if call.op.__name__ == "GetItem":
        key, half = call.kwargs["key"], shape[-1] // 2
        if len(key) != len(shape) + 1 or key[:-2] != (_EVERY,) * last or shape[-1] % 2:
            return None
        for which, (begin, end) in enumerate(((None, half), (half, None))):
            if key[-2] in (slice(begin, end), slice(begin or 0, end or 2 * half)):
                return source, which, False
            if key[-2] in (slice(which or None, None, 2), slice(which, None, 2)):
                return source, which, True
    return None


def _fixed(match: Match, x: Any) -> bool:
    """Return True if a value requires no gradient."""
    if x.number in match.graph.requires:
        return False
    call = _maker(match, x)
    return call is None or all(_fixed(match, a) for a in call.args if isinstance(a, Ref))


def _turns(match: Match, x: Any, cos: Any, sin: Any, whole: bool) -> bool:
    """Name what is turned and by which angles, if these fit: K of them if `whole`, else K / 2."""
    if not (isinstance(x, Ref) and isinstance(cos, Ref) and isinstance(sin, Ref)):
        return False
    value, *angles = (match.graph.values[ref.number] for ref in (x, cos, sin))
    *lead, width = value.shape
    for angle in angles:
        rows = zip(reversed(angle.shape[:-1]), reversed(lead), strict=False)
        fits = (
            angle.dtype == value.dtype
            and len(angle.shape) in range(1, len(value.shape) + 1)
            and angle.shape[-1] == (width if whole else width // 2)
            and all(n in (1, m) for n, m in rows)
        )
        if not fits:
            return False
    if angles[0].shape != angles[1].shape or not (_fixed(match, cos) and _fixed(match, sin)):
        return False
    return match.set(x=x, cos=cos, sin=sin)


def _rotation(interleaved: bool) -> Any:
    """Return the condition that the products m0 ... m7 are a rotation."""

    def check(match: Match) -> bool:
        found = []
        for number in range(0, 8, 2):
            factors = match[f"m{number}"], match[f"m{number + 1}"]
            parts = [_part(match, factor) for factor in factors]
            if parts[0] is None:
                factors, parts = factors[::-1], parts[::-1]
            if parts[0] is None or parts[0][2] != interleaved:
                return False
            found.append((parts[0][0], parts[0][1], factors[1]))
        (x, _, cos), (_, _, sin) = found[:2]
        if found[2][1]:  # the second part comes first in the sum
            found[2:] = found[:1:-1]
        wanted = [(x, 0, cos), (x, 1, sin), (x, 0, sin), (x, 1, cos)]
        shape = match.graph.values[x.number].shape
        axis = len(shape) - (not interleaved)  # of the new dimension, or of both halves
        same = match.graph.values[match.calls[0].outs[0]].shape == shape
        last = same and match["dim"] in (-1, axis)
        return found == wanted and last and _turns(match, x, cos, sin, False)

    return check


def _rotated_half(match: Match) -> bool:
    """Return True for x cos + (-b, a) sin with the halves a and b of x."""
    second, first = _part(match, match["m2"]), _part(match, match["m3"])
    if second is None or first is None or first[:2] != (second[0], 0):
        return False
    x = first[0]
    if second[1:] != (1, False) or first[2] or x not in (match["m0"], match["m1"]):
        return False
    rank = len(match.graph.values[x.number].shape)
    cos = match["m1"] if match["m0"] == x else match["m0"]
    return match["dim"] in (-1, rank - 1) and _turns(match, x, cos, match["m4"], True)


def _neighbours_sample(rand: Rand) -> tuple[Any, ...]:
    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
        return Stack.call((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)

    return turn, rand(2, 5, 3, 8), rand.constant(5, 1, 4), rand.constant(5, 1, 4)


def _halves_sample(rand: Rand) -> tuple[Any, ...]:
    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return Cat.call((a * cos - b * sin, b * cos + a * sin), -1)

    return turn, rand(2, 3, 5, 8), rand.constant(5, 4), rand.constant(5, 4)


def _rotated_half_sample(rand: Rand) -> tuple[Any, ...]:
    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x[..., :4], x[..., 4:]
        return x * cos + Cat.call((-b, a), -1) * sin

    return turn, rand(2, 3, 5, 8), rand.constant(2, 1, 5, 8), rand.constant(2, 1, 5, 8)


LLAMA = [
    Rule(
        "rotary positions, neighbours",
        f"View(Stack({_ROTATED}, dim=dim), shape=shape)",
        "RotaryEmbedding(x, cos, sin, True)",
        _rotation(True),
        _neighbours_sample,
    ),
    Rule(
        "rotary positions, halves",
        f"Cat({_ROTATED}, dim=dim)",
        "RotaryEmbedding(x, cos, sin, False)",
        _rotation(False),
        _halves_sample,
    ),
    Rule(
        "rotary positions, rotated half",
        "Add(Mul(m0, m1), Mul(Cat(Neg(m2), m3, dim=dim), m4))",
        "RotaryEmbedding(x, cos, sin, False)",
        _rotated_half,
        _rotated_half_sample,
    ),
]
