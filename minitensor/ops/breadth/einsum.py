"""Einstein's summation, composed of permutations, sums and matrix products."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Sequence
from typing import Any

from ...autograd import forget_base
from ...core import Tensor
from ..checks import check_tensors
from ..composite import composite
from ..shape import permuted


@composite(
    namespaces="torch",
    samples=lambda rand: [
        ("ij,jk", rand(2, 3), rand(3, 4)),
        ("bqhd,bkhd->bhqk", rand(2, 3, 2, 4), rand(2, 5, 2, 4)),
        ("...ij,...jk->...ik", rand(2, 2, 3), rand(3, 4)),
        ("i...j,j...->i...", rand(2, 5, 3), rand(3, 1)),
        ("ii", rand(3, 3)),
        ("iji->j", rand(3, 2, 3)),
        ("b a", rand(2, 3)),
        ("ij->", rand(2, 3)),
        ("i,j,k->kij", rand(2), rand(3), rand(2)),
        ("ij,jk,kl->il", rand(2, 3), rand(3, 4), rand(4, 2)),
        ("ij,jk->ik", rand(2, 1), rand(3, 4)),
        ("abcd,acef->befd", rand(2, 2, 3, 2), rand(2, 3, 2, 2)),
        ("i,i->i", rand.integers(0, 5, 3), rand(3)),
        ("Ba,aB", rand(2, 3), rand(3, 2)),
        (rand(2, 3), [0, 1], rand(3, 4), [1, 2], [0, 2]),
        (rand(2, 5, 3), [..., 0], [0, ...]),
        (rand(2, 3), [0, 1], rand(3, 4), [1, 2]),
    ],
    errors=lambda rand: [
        ("ij,jk", rand(2, 3), rand(4, 4)),
        ("ij->ijk", rand(2, 3)),
        ("ij", rand(2, 3), rand(3)),
        ("ij,jk", rand(2, 3)),
        ("ijk", rand(2, 3)),
        ("i", rand(2, 3)),
        ("ij->jj", rand(2, 3)),
        ("i!", rand(2, 3)),
        ("ii->i", rand(3, 2)),
        ("ij",),
        ("ij,jk", rand(2, 3), rand.integers(0, 3, 3, 2)),
    ],
)
def einsum(*args: Any) -> Tensor:
    """Einstein's sum: the product of all operands, summed over the subscripts the output lacks.

    `einsum("bij,bjk->bik", a, b)`, or with lists, `einsum(a, [0, 1, 2], b, [0, 2, 3], [0, 1, 3])`.
    A subscript twice on one operand takes the diagonal; `...` stands for dimensions that broadcast;
    without `->` the output has the subscripts that appear once, in alphabetical order. Operands are
    multiplied from left to right. RuntimeError for an equation that does not fit the shapes.
    """
    if len(args) < 2:
        raise ValueError("einsum: give an equation and operands, or operands and subscripts")
    if isinstance(args[0], str):
        operands = args[1:]
        if len(operands) == 1 and isinstance(operands[0], list | tuple):
            operands = tuple(operands[0])
        inputs, output = _parsed(args[0])
    else:
        operands = args[0 : 2 * (len(args) // 2) : 2]
        lists = [[_letter(i) for i in subscripts] for subscripts in args[1::2]]
        inputs = lists[: len(operands)]
        output = [_letter(i) for i in args[-1]] if len(args) % 2 else None
    check_tensors("einsum", **{f"operand {i}": x for i, x in enumerate(operands)})
    if len(inputs) != len(operands):
        raise RuntimeError(
            f"einsum: the equation has {len(inputs)} operands, {len(operands)} were given"
        )
    terms = [
        _diagonals(x, _spelled(x, subscripts, number), number)
        for number, (x, subscripts) in enumerate(zip(operands, inputs, strict=True))
    ]
    wanted = _output(output, inputs, terms)
    sizes: dict[Any, int] = {}
    for number, (x, names) in enumerate(terms):
        for name, size in zip(names, x.shape, strict=True):
            if sizes.setdefault(name, size) == 1:
                sizes[name] = size
            elif size not in (1, sizes[name]):
                raise RuntimeError(
                    f"einsum: subscript {name} has size {size} on operand {number}, "
                    f"and {sizes[name]} on one before"
                )
    terms = [_without_ones(x, names, sizes) for x, names in terms]
    x, names = terms[0]
    for number, (y, other) in enumerate(terms[1:], 2):
        later = {*wanted, *(name for _, rest in terms[number:] for name in rest)}
        x, names = _contracted(x, names, y, other, later)
    x, names = _summed(x, names, set(wanted))
    x = permuted(x, [names.index(name) for name in wanted])
    if any(x._base is t or x._base is t._base for t in operands):
        return x
    return forget_base(x.contiguous())


# A term of an einsum is a tensor and the name of each of its dimensions: a letter, or, for one that
# an ellipsis stands for, its number counted from the end.
_Names = list[Any]


def _letter(subscript: Any) -> Any:
    """Return the letter for a number of the list form."""
    if subscript is Ellipsis:
        return "."
    if not 0 <= subscript < 52:
        raise RuntimeError(f"einsum: subscripts must be in the range [0, 52), got {subscript}")
    return (string.ascii_uppercase + string.ascii_lowercase)[subscript]


def _parsed(equation: str) -> tuple[list[_Names], _Names | None]:
    """Return the subscripts of each operand and of the output; "." stands for an ellipsis."""
    left, arrow, right = equation.replace(" ", "").replace("...", ".").partition("->")
    for place in (*left.split(","), right):
        wrong = set(place) - set(string.ascii_letters + ".")
        if wrong or place.count(".") > 1:
            raise RuntimeError(
                f"einsum: {equation!r}: subscripts are letters and at most one ellipsis each"
            )
    return [list(place) for place in left.split(",")], list(right) if arrow else None


def _spelled(x: Tensor, subscripts: _Names, number: int) -> _Names:
    """Return a name for each dimension of operand `number`."""
    hidden = x.ndim - len(subscripts) + subscripts.count(".")
    if hidden < 0 or (hidden and "." not in subscripts):
        raise RuntimeError(
            f"einsum: operand {number} has shape {tuple(x.shape)}, which does not match its "
            f"{len(subscripts)} subscripts"
        )
    spelled: _Names = []
    for name in subscripts:
        spelled += range(-hidden, 0) if name == "." else [name]
    return spelled


def _diagonals(x: Tensor, names: _Names, number: int) -> tuple[Tensor, _Names]:
    """Return the term with every name once: the diagonal of dimensions that share one."""
    for name in dict.fromkeys(names):
        while names.count(name) > 1:
            first = names.index(name)
            second = names.index(name, first + 1)
            if x.size(first) != x.size(second):
                raise RuntimeError(
                    f"einsum: subscript {name} is repeated for operand {number} but the sizes "
                    f"don't match, {x.size(second)} != {x.size(first)}"
                )
            x = x.diagonal(0, first, second)
            names = [*(n for i, n in enumerate(names) if i not in (first, second)), name]
    return x, names


def _output(
    subscripts: _Names | None, inputs: list[_Names], terms: list[tuple[Tensor, _Names]]
) -> _Names:
    """Return the name of each dimension of the result."""
    hidden = max((-n for _, names in terms for n in names if isinstance(n, int)), default=0)
    if subscripts is None:
        letters = [name for given in inputs for name in given if name != "."]
        subscripts = [".", *sorted(name for name in set(letters) if letters.count(name) == 1)]
    wanted: _Names = []
    for name in subscripts:
        wanted += range(-hidden, 0) if name == "." else [name]
    known = {name for _, names in terms for name in names}
    for name in wanted:
        if name not in known or wanted.count(name) > 1:
            problem = "more than once in the output" if name in known else "in no operand"
            raise RuntimeError(f"einsum: output subscript {name} appears {problem}")
    return wanted


def _without_ones(x: Tensor, names: _Names, sizes: dict[Any, int]) -> tuple[Tensor, _Names]:
    """Return the term without dimensions of length 1 that are longer in other terms."""
    dims = [i for i, name in enumerate(names) if x.size(i) == 1 != sizes[name]]
    if not dims:
        return x, names
    return x.squeeze(tuple(dims)), [name for i, name in enumerate(names) if i not in dims]


def _summed(x: Tensor, names: _Names, keep: set[Any]) -> tuple[Tensor, _Names]:
    """Return the term summed over the names not in `keep`."""
    dims = [i for i, name in enumerate(names) if name not in keep]
    if not dims:
        return x, names
    return x.sum(dims), [name for name in names if name in keep]


def _contracted(
    x: Tensor, names: _Names, y: Tensor, others: _Names, later: set[Any]
) -> tuple[Tensor, _Names]:
    """Return the product of two terms, summed over names not in `later`: a stack of matmuls."""
    x, names = _summed(x, names, later | set(others))
    y, others = _summed(y, others, later | set(names))
    stack = [n for n in names if n in others and n in later]
    inner = [n for n in names if n in others and n not in later]
    left = [n for n in names if n not in others]
    right = [n for n in others if n not in names]
    size = dict(zip([*names, *others], [*x.shape, *y.shape], strict=True))

    def arranged(t: Tensor, have: _Names, *groups: Sequence[Any]) -> Tensor:
        """Return t with the dimensions of the stack first, then one for each group."""
        order = [*stack, *itertools.chain(*groups)]
        t = permuted(t, [have.index(n) for n in order])
        if all(len(group) == 1 for group in groups):
            return t
        return t.reshape([size[n] for n in stack] + [math.prod(size[n] for n in g) for g in groups])

    if inner:
        z = arranged(x, names, left, inner) @ arranged(y, others, inner, right)
    else:
        z = arranged(x, names, left, []) * arranged(y, others, [], right)
    result = [*stack, *left, *right]
    if len(left) != 1 or len(right) != 1:
        z = z.reshape([size[n] for n in result])
    return z, result
