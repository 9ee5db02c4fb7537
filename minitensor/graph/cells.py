"""Where a number comes from: the formula of one cell of a result, and the cells that it reads.

An op tells the formula in its class (`Op.cell`), in the grammar of Python:

    exp(x)                                        the cell of x at the same place, broadcast
    sum(a[i, :] * b[:, j])                        i, j: the place in the result; ":" is all
    exp(x[i, j]) / sum(exp(x[i, :]))
    weight[input[i, j], l]                        a cell whose place another tensor tells

`parse` makes plain data of it, which the page evaluates by the same rules as `evaluate` here:

- The letters of `PLACE` are the axes of the result in order.
- A tensor without brackets is its cell at that place, broadcast to the result.
- In brackets each axis has a number, a slice or a vector. Vectors of numbers go side by side, as
  in NumPy, and one of truths selects where it is true. A letter on an axis of length 1 reads 0.
- `a if b else c` evaluates, and so reads, only the one that counts.
- Functions are NumPy's; `sum`, `mean`, `max`, ... reduce all of a vector, or one axis of it.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..core import Op
from ..ops.places import PLACE

Tree = list[Any]  # [kind, ...]

_BINARY: dict[type[Any], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
}
_COMPUTE: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "//": np.floor_divide,
    "%": np.mod,
    "**": np.power,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
    "&": np.bitwise_and,
    "|": np.bitwise_or,
    "^": np.bitwise_xor,
}
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _softmax(x: Any) -> Any:
    e = np.exp(x - np.max(x))
    return e / np.sum(e)


def _logsumexp(x: Any, axis: int | None = None) -> Any:
    top = np.max(x, axis)
    return top + np.log(np.sum(np.exp(x - np.max(x, axis, keepdims=True)), axis))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in "exp log sqrt sin cos tan sinh cosh tanh abs".split()},
    **{name: getattr(np, name) for name in "arcsin arccos arctan arctan2 floor ceil trunc".split()},
    **{name: getattr(np, name) for name in "sign round maximum minimum where isnan isinf".split()},
    **{name: getattr(np, name) for name in "sum mean prod max min argmax argmin var sort".split()},
    **{name: getattr(np, name) for name in "median any all logical_not expm1 log1p fmod".split()},
    "erf": _erf,
    "softmax": _softmax,
    "logsumexp": _logsumexp,
}


class FormulaError(ValueError):
    """A formula that cannot be read."""


@lru_cache(maxsize=4096)
def parse(formula: str) -> Tree:
    """Return a formula as plain data.

    - ["number", 2.0], ["name", "x"], ["at", "x", [subscript, ...]], with ["slice", from, to] (each
      a tree or None) among the subscripts; ["take", tree, subscripts] picks from a vector.
    - ["+", a, b] and so on; ["neg", a]; ["if", condition, a, b]; ["call", "exp", [a, ...]].

    Raises FormulaError for anything else.
    """
    try:
        return _tree(ast.parse(formula, mode="eval").body)
    except SyntaxError as error:
        raise FormulaError(f"not a formula: {formula!r}: {error.msg}") from error


def _tree(node: ast.AST) -> Tree:
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return ["number", value]
        case ast.Name(id="inf" | "nan" as name):
            return ["number", float(name)]
        case ast.Name(id=name):
            return ["name", name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return ["number", -value]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return ["neg", _tree(operand)]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ["call", "logical_not", [_tree(operand)]]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return [_BINARY[type(op)], _tree(left), _tree(right)]
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
            return [_BINARY[type(op)], _tree(left), _tree(right)]
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return ["if", _tree(test), _tree(body), _tree(orelse)]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return ["call", name, [_tree(arg) for arg in args]]
        case ast.Subscript(value=value, slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            subscripts = [_subscript(part) for part in parts]
            if isinstance(value, ast.Name):
                return ["at", value.id, subscripts]
            return ["take", _tree(value), subscripts]
    raise FormulaError(f"not part of a formula: {ast.unparse(node)!r}")


def _subscript(node: ast.AST) -> Tree:
    if isinstance(node, ast.Slice):
        if node.step is not None:
            raise FormulaError(f"a slice of a formula has no step: {ast.unparse(node)!r}")
        return ["slice", *(None if end is None else _tree(end) for end in (node.lower, node.upper))]
    return _tree(node)


def evaluate(
    tree: Tree, tensors: Mapping[str, np.ndarray], place: Sequence[int]
) -> tuple[Any, dict[str, np.ndarray]]:
    """Return the cell at `place` of a result, and the cells that it read.

    `tensors` are the arguments by the names that the formula has for them. The cells are flat
    numbers in the order of C, each once, by the name of the tensor.

    Raises FormulaError for a name that is no tensor.
    """
    cell = _Cell(tensors, tuple(place))
    with np.errstate(all="ignore"):
        value = cell.value(tree)
    return value, {name: np.unique(np.concatenate(found)) for name, found in cell.reads.items()}


class _Cell:
    """One evaluation of a formula, which notes what it reads."""

    def __init__(self, tensors: Mapping[str, np.ndarray], place: tuple[int, ...]) -> None:
        self.tensors, self.place = tensors, place
        self.letters = dict(zip(PLACE, place, strict=False))
        self.reads: dict[str, list[np.ndarray]] = {}

    def value(self, tree: Tree) -> Any:
        kind, *parts = tree
        if kind == "number":
            return parts[0]
        if kind == "name":
            return self._name(parts[0])
        if kind == "at":
            return self._at(*parts)
        if kind == "take":
            return _taken(np.asarray(self.value(parts[0])), [self.subscript(s) for s in parts[1]])
        if kind == "neg":
            return -self.value(parts[0])
        if kind == "if":
            return self.value(parts[1] if self.value(parts[0]) else parts[2])
        if kind == "call":
            return FUNCTIONS[parts[0]](*[self.value(part) for part in parts[1]])
        return _COMPUTE[kind](*[self.value(part) for part in parts])

    def subscript(self, tree: Tree) -> Any:
        if tree[0] == "slice":
            return slice(*(None if end is None else int(self.value(end)) for end in tree[1:]))
        return self.value(tree)

    def _name(self, name: str) -> Any:
        tensor = self.tensors.get(name)
        if tensor is None:
            if name in self.letters:
                return self.letters[name]
            raise FormulaError(f"the formula names {name!r}, which is no tensor of the op")
        own = self.place[len(self.place) - tensor.ndim :] if tensor.ndim else ()
        at = [0 if n == 1 else p for n, p in zip(tensor.shape, own, strict=True)]
        return self._read(name, np.asarray(_flat(at, tensor.shape)))

    def _at(self, name: str, subscripts: Sequence[Tree]) -> Any:
        if name not in self.tensors:
            raise FormulaError(f"the formula names {name!r}, which is no tensor of the op")
        tensor = self.tensors[name]
        found = [self.subscript(tree) for tree in subscripts]
        for axis, tree in enumerate(subscripts):
            if tree[0] == "name" and tree[1] in self.letters and tensor.shape[axis] == 1:
                found[axis] = 0
        return self._read(name, _numbers(tensor.shape, found))

    def _read(self, name: str, cells: np.ndarray) -> Any:
        self.reads.setdefault(name, []).append(cells.ravel())
        found = self.tensors[name].ravel()[cells]
        return found.astype(np.float64) if found.dtype.kind == "f" else found


def _flat(at: Sequence[Any], shape: Sequence[int]) -> Any:
    """Return the flat number of a cell, or of many: 5 of (1, 2) in (2, 3)."""
    flat: Any = 0
    for where, n in zip(at, shape, strict=True):
        flat = flat * n + where
    return flat


def _numbers(shape: Sequence[int], subscripts: Sequence[Any]) -> np.ndarray:
    """Return the flat numbers of the cells that subscripts select, in the shape of the selection.

    Vectors share one axis of it, where the first of them stands; a slice has its own.
    """
    spans: list[Any] = []
    for n, found in zip(shape, subscripts, strict=True):
        if isinstance(found, slice):
            spans.append(("slice", np.arange(n)[found]))
        else:
            found = np.asarray(found)
            vector = np.flatnonzero(found) if found.dtype == bool and found.ndim else found
            spans.append(("vector", vector.astype(np.int64)))
    first = next((a for a, (kind, v) in enumerate(spans) if kind == "vector" and v.ndim), None)
    axes = [a for a, (kind, _) in enumerate(spans) if kind == "slice" or a == first]
    flat = np.asarray(_flat([0] * len(shape), shape))
    for a, (kind, v) in enumerate(spans):
        if kind == "vector" and np.any((v < 0) | (v >= shape[a])):
            raise FormulaError(f"a formula reads place {v} on an axis of length {shape[a]}")
        own = first if kind == "vector" else a
        if v.ndim:
            v = v.reshape([-1 if axis == own else 1 for axis in axes])
        flat = flat + v * math.prod(shape[a + 1 :])
    return flat


def _taken(array: np.ndarray, subscripts: Sequence[Any]) -> Any:
    return array.ravel()[_numbers(array.shape, subscripts)]


# Of a run of an op

_FIRST = 1 << 40  # of the numbers that stand for cells; what is below is a constant


@dataclass
class Made:
    """How a run of an op makes its results, and from which tensors."""

    tensors: dict[str, np.ndarray]  # by the names in the formulas; also hidden arrays
    formulas: tuple[str, ...] = ()  # one for each result, unless the op moves numbers
    moved: tuple[np.ndarray, ...] = ()  # for each cell of a result, of which cell it is a copy:
    # its number in all `tensors`, one after the other, flat; -1 for a constant

    def cell(self, port: int, place: Sequence[int]) -> tuple[Any, dict[str, np.ndarray]]:
        """Return a cell of a result, computed again, and the cells that it reads, as `evaluate`.

        A constant that an op writes itself, such as padding, is None.
        """
        if self.formulas:
            return evaluate(parse(self.formulas[port]), self.tensors, place)
        number = int(self.moved[port][tuple(place)])
        if number < 0:
            return None, {}
        for name, tensor in self.tensors.items():
            if number < tensor.size:
                return tensor.ravel()[number], {name: np.array([number])}
            number -= tensor.size
        raise AssertionError("a number beyond all tensors")


def made(op: type[Op], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Made | None:
    """Return how `op` makes its results from arguments of `forward`, arrays and settings.

    None if the op does not tell it.
    """
    named = _named(op, args, kwargs)
    if op.moves:
        moving = {name: x for name, x in named.items() if name.rstrip("0123456789") in op.moves}
        return Made(moving, moved=_moved(op, args, kwargs, moving))
    formula = op.cell if op.cell is None or isinstance(op.cell, str) else op.cell(*args, **kwargs)
    if formula is None:
        return None
    named |= op.hidden(*args, **kwargs) if op.hidden is not None else {}
    return Made(named, (formula,) if isinstance(formula, str) else tuple(formula))


def _named(op: type[Op], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays among the arguments by their names, "x0", "x1", ... for those of *x."""
    found: dict[str, Any] = {}
    rest = list(args)
    for name, parameter in [*inspect.signature(op.forward).parameters.items()][1:]:  # after ctx
        if parameter.kind is parameter.VAR_POSITIONAL:
            found |= {f"{name}{number}": x for number, x in enumerate(rest)}
        elif parameter.kind is not parameter.KEYWORD_ONLY and rest:
            found[name] = rest.pop(0)
    found |= kwargs
    return {name: x for name, x in found.items() if isinstance(x, np.ndarray)}


def _moved(
    op: type[Op], args: Sequence[Any], kwargs: Mapping[str, Any], moving: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Run `op` on numbers that stand for the cells of `moving`; return those of each result."""
    numbers: dict[int, np.ndarray] = {}
    first = _FIRST
    for x in moving.values():
        numbers[id(x)] = (first + np.arange(x.size, dtype=np.float64)).reshape(x.shape)
        first += x.size
    given = [numbers.get(id(a), a) for a in args]
    run = op()
    run.edges = [None] * len(given)
    found = run.forward(*given, **kwargs)
    results = found if isinstance(found, tuple) else (found,)
    return tuple(
        np.where(np.asarray(r) >= _FIRST, np.asarray(r) - _FIRST, -1).astype(np.int64)
        for r in results
    )
