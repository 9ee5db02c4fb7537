"""The source of a number: the formula of one cell of a result, and the cells that it reads.

An op tells the formula in its class (`Op.cell`), in the grammar of Python:

    exp(x)                                        the cell of x at the same place, broadcast
    sum(a[i, :] * b[:, j])                        i, j: the place in the result; ":" is all
    exp(x[i, j]) / sum(exp(x[i, :]))
    weight[input[i, j], l]                        a cell whose place another tensor tells

`parse` makes plain data of it, which the page evaluates by the same rules as `evaluate` here:

- The letters of `PLACE` are the axes of the result in order.
- A tensor without brackets is its cell at that place, broadcast to the result.
- In brackets each axis has a number, a slice or a vector. Vectors of numbers go side by side, as
  in NumPy, and one of truths selects where it is true; a matrix of truths takes two axes. A letter
  on an axis of length 1 reads 0. A negative number counts from the end.
- `a if b else c` evaluates, and so reads, only the one that counts.
- `a @ b` is the product of vectors, or of a matrix and a vector.
- `sum`, `mean`, `var`, `prod`, `any`, `all`, `argmax`, `argmin` reduce all that they are given to a
  number, and so do `max` and `min` of one argument; of several they choose, cell by cell. `sort`
  and `argsort` are of all too, `last` is the place of the last truth.
- `sum(x[k, i] for k in range(3) if k > i)` is the sum over k; a second `for` is inside the first.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from statistics import NormalDist
from typing import Any

import numpy as np

from ..core import Op
from ..dtype import FLOATING
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
    ast.MatMult: "@",
}
_COMPUTE: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "//": np.floor_divide,
    "%": np.mod,
    "**": np.float_power,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
    "&": np.bitwise_and,
    "|": np.bitwise_or,
    "^": np.bitwise_xor,
    "@": np.matmul,
}
_NUMBERS = {"inf": math.inf, "nan": math.nan, "pi": math.pi}
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _softmax(x: Any) -> Any:
    e = np.exp(x - np.max(x, initial=-math.inf))
    return e / np.sum(e)


def _logsumexp(x: Any) -> Any:
    top = np.max(x)
    return top + np.log(np.sum(np.exp(x - top)))


def _mean(x: Any) -> Any:
    return np.sum(x) / np.float64(np.size(x))


def _var(x: Any) -> Any:
    return _mean((x - _mean(x)) ** 2)


def _sort(x: Any) -> Any:
    return np.sort(np.ravel(x))


def _argsort(x: Any) -> Any:
    return np.argsort(np.ravel(x), kind="stable")


def _last(x: Any) -> Any:
    return np.flatnonzero(x)[-1]


def _erfinv(y: float) -> float:
    return NormalDist().inv_cdf((y + 1) / 2) / math.sqrt(2)


def _max(x: Any, *others: Any) -> Any:
    return reduce(np.maximum, others, x) if others else np.max(x)


def _min(x: Any, *others: Any) -> Any:
    return reduce(np.minimum, others, x) if others else np.min(x)


def _gelu(x: Any) -> Any:
    return x * (1 + _erf(x / math.sqrt(2))) / 2


def _silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


# fmt: off
_OF_NUMPY = (
    "exp", "log", "log2", "log10", "sqrt", "abs", "sign", "floor", "ceil", "trunc", "round",
    "sin", "cos", "tan", "tanh", "arcsin", "arccos", "arctan", "arctan2",
    "isnan", "isinf", "isfinite", "sum", "prod", "any", "all", "argmax", "argmin",
)
# fmt: on
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in _OF_NUMPY},
    "ln": np.log,
    "erf": _erf,
    "erfinv": _erfinv,
    "gelu": _gelu,
    "silu": _silu,
    "max": _max,
    "min": _min,
    "mean": _mean,
    "var": _var,
    "softmax": _softmax,
    "logsumexp": _logsumexp,
    "sort": _sort,
    "argsort": _argsort,
    "last": _last,
}


class FormulaError(ValueError):
    """A formula that cannot be read."""


@lru_cache(maxsize=4096)
def parse(formula: str) -> Tree:
    """Return a formula as plain data.

    - ["number", 2.0], ["name", "x"], ["at", "x", [subscript, ...]], with ["slice", from, to] (each
      a tree or None) among the subscripts; ["take", tree, subscripts] picks from a vector.
    - ["+", a, b] and so on; ["neg", a], ["invert", a]; ["if", condition, a, b];
      ["call", "exp", [a, ...]]; ["each", [[name, count], ...], condition or None, a] is a vector.

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
        case ast.Name(id=name) if name in _NUMBERS:
            return ["number", _NUMBERS[name]]
        case ast.Name(id=name):
            return ["name", name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return ["number", -value]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return ["neg", _tree(operand)]
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return ["invert", _tree(operand)]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return [_BINARY[type(op)], _tree(left), _tree(right)]
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
            return [_BINARY[type(op)], _tree(left), _tree(right)]
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return ["if", _tree(test), _tree(body), _tree(orelse)]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return ["call", name, [_tree(arg) for arg in args]]
        case ast.GeneratorExp(elt=elt, generators=loops):
            conditions = [_tree(c) for loop in loops for c in loop.ifs]
            if len(conditions) <= 1:
                condition = conditions[0] if conditions else None
                return ["each", [_loop(loop) for loop in loops], condition, _tree(elt)]
        case ast.Subscript(value=value, slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            subscripts = [_subscript(part) for part in parts]
            if isinstance(value, ast.Name):
                return ["at", value.id, subscripts]
            return ["take", _tree(value), subscripts]
    raise FormulaError(f"not part of a formula: {ast.unparse(node)!r}")


def _loop(loop: ast.comprehension) -> Tree:
    match loop:
        case ast.comprehension(
            target=ast.Name(id=name),
            iter=ast.Call(func=ast.Name(id="range"), args=[count], keywords=[]),
        ):
            return [name, _tree(count)]
    raise FormulaError(f"a formula loops over range(n): {ast.unparse(loop)!r}")


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
            return np.negative(_number(self.value(parts[0])))
        if kind == "invert":
            return np.invert(self.value(parts[0]))
        if kind == "if":
            return self.value(parts[1] if self.value(parts[0]) else parts[2])
        if kind == "call":
            return FUNCTIONS[parts[0]](*[_number(self.value(part)) for part in parts[1]])
        if kind == "each":
            return np.array([*self._each(*parts)])
        a, b = (self.value(part) for part in parts)
        return _COMPUTE[kind](a, b) if kind in "&|^" else _COMPUTE[kind](_number(a), _number(b))

    def _each(self, loops: Sequence[Tree], condition: Tree | None, body: Tree) -> Iterator[Any]:
        """Yield the body for each value of the names that loop."""
        if not loops:
            if condition is None or self.value(condition):
                yield self.value(body)
            return
        (name, count), *inner = loops
        for number in range(int(self.value(count))):
            self.letters[name] = number
            yield from self._each(inner, condition, body)
        self.letters.pop(name, None)

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
        found, axis = [self.subscript(tree) for tree in subscripts], 0
        for number, tree in enumerate(subscripts):
            if tree[0] == "name" and tree[1] in self.letters and tensor.shape[axis:][:1] == (1,):
                found[number] = 0
            axis += _axes(found[number])
        return self._read(name, _numbers(tensor.shape, found))

    def _read(self, name: str, cells: np.ndarray) -> Any:
        self.reads.setdefault(name, []).append(cells.ravel())
        found = self.tensors[name].ravel()[cells]
        kind = found.dtype.kind
        return found if kind == "b" else found.astype(np.float64 if kind in FLOATING else np.int64)


def _number(value: Any) -> Any:
    """Return truths as 0 and 1."""
    return np.multiply(value, 1) if isinstance(value, bool | np.bool_ | np.ndarray) else value


def _flat(at: Sequence[Any], shape: Sequence[int]) -> Any:
    """Return the flat number of a cell, or of many: 5 of (1, 2) in (2, 3)."""
    flat: Any = 0
    for where, n in zip(at, shape, strict=True):
        flat = flat * n + where
    return flat


def _selects(found: Any) -> bool:
    return isinstance(found, np.ndarray) and found.dtype == np.bool_ and found.ndim > 0


def _axes(found: Any) -> int:
    """Return how many axes a subscript takes."""
    return found.ndim if _selects(found) else 1


def _numbers(shape: Sequence[int], subscripts: Sequence[Any]) -> np.ndarray:
    """Return the flat numbers of the cells that subscripts select, in the shape of the selection.

    Vectors share one axis of it, where the first of them stands; a slice has its own.
    """
    spans: list[Any] = []
    for found in subscripts:
        if isinstance(found, slice):
            spans.append(("slice", np.arange(shape[len(spans)])[found]))
        else:
            found = np.asarray(found)
            vectors = found.nonzero() if _selects(found) else (found,)
            spans += [("vector", vector.astype(np.int64)) for vector in vectors]
    if len(spans) != len(shape):
        raise FormulaError(f"a formula has {len(spans)} places for {len(shape)} axes")
    first = next((a for a, (kind, v) in enumerate(spans) if kind == "vector" and v.ndim), None)
    axes = [a for a, (kind, _) in enumerate(spans) if kind == "slice" or a == first]
    flat = np.asarray(_flat([0] * len(shape), shape))
    for a, (kind, v) in enumerate(spans):
        if kind == "vector":
            if np.any((v < -shape[a]) | (v >= shape[a])):
                raise FormulaError(f"a formula reads place {v} on an axis of length {shape[a]}")
            v = np.where(v < 0, v + shape[a], v)
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
    """The way a run of an op makes its results, and the tensors it makes them from."""

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

    The numbers among the settings stand in the formulas in place of their names. None if the op
    does not tell where its cells come from.
    """
    named = _named(op, args, kwargs)
    tensors = {name: x for name, x in named.items() if isinstance(x, np.ndarray)}
    if op.moves:
        moving = {name: x for name, x in tensors.items() if name.rstrip("0123456789") in op.moves}
        return Made(moving, moved=_moved(op, named, len(args), moving))
    formula = op.cell if op.cell is None or isinstance(op.cell, str) else op.cell(*args, **kwargs)
    if formula is None:
        return None
    if op.hidden is not None:
        tensors |= op.hidden(*args, **kwargs)
    formulas = (formula,) if isinstance(formula, str) else tuple(formula)
    settings = {name: _shown(x) for name, x in named.items() if isinstance(x, int | float)}
    if settings:
        names = re.compile(rf"\b({'|'.join(settings)})\b(?!\()")  # `max(` is a function
        formulas = tuple(names.sub(lambda found: settings[found[0]], f) for f in formulas)
    return Made(tensors, formulas)


def _shown(number: float) -> str:
    return f"({number})" if number < 0 else f"{number}"


def _named(op: type[Op], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments by their names, "x0", "x1", ... for those of *x; `args` come first."""
    found: dict[str, Any] = {}
    rest = list(args)
    for name, parameter in [*inspect.signature(op.forward).parameters.items()][1:]:  # after ctx
        if parameter.kind is parameter.VAR_POSITIONAL:
            found |= {f"{name}{number}": x for number, x in enumerate(rest)}
        elif parameter.kind is not parameter.KEYWORD_ONLY and rest:
            found[name] = rest.pop(0)
    return found | dict(kwargs)


def _moved(
    op: type[Op], named: Mapping[str, Any], count: int, moving: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Run `op` on numbers that stand for the cells of `moving`; return those of each result."""
    given = dict(named)
    first = _FIRST
    for name, x in moving.items():
        given[name] = (first + np.arange(x.size, dtype=np.float64)).reshape(x.shape)
        first += x.size
    args, kwargs = [*given.values()][:count], dict([*given.items()][count:])
    run = op()
    run.edges = [None] * count
    found = run.forward(*args, **kwargs)
    results = found if isinstance(found, tuple) else (found,)
    return tuple(
        np.where(np.asarray(r) >= _FIRST, np.asarray(r) - _FIRST, -1).astype(np.int64)
        for r in results
    )
