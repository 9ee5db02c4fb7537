"""Elementwise ops: how their operands are promoted and where results go, and tables of ops.

Such an op takes tensors of any shape (*) and numbers, and returns one of the broadcast shape (*).
Types are promoted by PyTorch's rules (`minitensor.dtype`). A simple one is a line of a table:

    unary("exp", lambda x: special.exp(x), lambda dy, y: dy * y, "y = exp(x).  dx = dy * y.")

The parameters of the derivative say what `forward` saves: x, the argument, or y, the result.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from .. import memory
from ..core import Op, Tensor, state, wrap
from ..core.node import edge_for
from ..dtype import FLOATING
from ..errors import EXPLAINED
from .checks import check_tensors
from .convert import promote
from .samples import Rand, Samples

ndarray = np.ndarray
_SMALL = memory.SMALLEST // 16  # elements; no array of fewer is as large as that
# The `out` with which a ufunc returns an array of 0 dimensions, and not a scalar, where it can.
AS_ARRAY: Any = ... if np.lib.NumpyVersion(np.__version__) >= "2.3.0" else None
_FLOATS = (float, int)  # numbers that leave a floating tensor its type


class _Zeros(dict[Any, np.ndarray]):
    """A zero of each type, made when it is first asked for."""

    def __missing__(self, dtype: Any) -> np.ndarray:
        zero = self[dtype] = np.zeros((), dtype)
        zero.flags.writeable = False
        return zero


ZERO = _Zeros()  # NumPy takes half as long with an array of its type as with a number


def promote_operands(a: Any, b: Any) -> tuple[Any, Any]:
    """Return two operands in the type of their result; numbers stay numbers."""
    if isinstance(a, Tensor):
        if isinstance(b, Tensor):
            mine, theirs = a._array.dtype, b._array.dtype
            if mine is theirs or mine == theirs:  # `is` is quicker and nearly always enough
                return a, b
        elif type(b) in _FLOATS and a._array.dtype.kind in FLOATING:
            return a, float(b)
    elif type(a) in _FLOATS and isinstance(b, Tensor) and b._array.dtype.kind in FLOATING:
        return float(a), b
    return promote(a, b)


def promote_floats(a: Any, b: Any) -> tuple[Any, Any]:
    """Return two operands in the floating type of their result."""
    if is_float(a) or is_float(b):
        return promote_operands(a, b)
    return promote(a, b, floating=True)  # at once: uint8 has no place for a negative number


def evaluate(f: Callable[..., Any], *operands: Any, dtype: Any = None) -> Any:
    """Return f of arrays and numbers, with memory from the pool for a large result.

    The result has the type of the operands unless `dtype` is given.
    """
    for x in operands:
        if type(x) is ndarray and x.size > _SMALL and x.nbytes >= memory.SMALLEST:
            return _evaluate_large(f, operands, x.dtype if dtype is None else dtype)
    return f(*operands)


def _evaluate_large(f: Callable[..., Any], operands: Sequence[Any], dtype: Any) -> Any:
    if any(type(x) is ndarray and not x.flags.c_contiguous for x in operands if np.size(x) > 1):
        return f(*operands)  # NumPy gives the result the order of its operands
    shape = np.broadcast_shapes(*(np.shape(x) for x in operands))
    return f(*operands, out=memory.empty(shape, dtype))


def is_float(x: Any) -> bool:
    """Return True if `x` is a floating tensor."""
    return isinstance(x, Tensor) and x._array.dtype.kind in FLOATING


def dtype_of(x: Any) -> Any:
    """Return the type of an operand inside `forward`, an array or a number."""
    return x.dtype if isinstance(x, np.ndarray) else np.dtype(type(x))


def zero_grad_like(dy: Tensor) -> Tensor:
    """Return zeros: the gradient of a function that is flat between its jumps."""
    return wrap(np.zeros_like(dy._array))


class Unary(Op, abstract=True):
    """y = f(x), element by element."""

    inplace = True
    out = "cast"
    floating = False  # True converts integers to floats first
    domain: ClassVar[tuple[float, float]] = (0.5, 2.0)  # of the samples

    @classmethod
    def apply(cls, x: Any, *others: Any, **settings: Any) -> Any:
        """Do what `Op.apply` does, in fewer steps for one tensor that no observer sees."""
        here = state.__dict__
        if others or settings or here["observers"] or x._array.itemsize == 2:
            return super().apply(x, *others, **settings)
        node, array = cls(), x._array
        edge = edge_for(x) if here["grad"] and cls.differentiable else None
        node.edges = (edge,)
        try:
            result = here["quietly"](node.forward, array)
        except EXPLAINED:
            return super().apply(x)  # it finds more memory, or says what went wrong
        out = wrap(result if type(result) is ndarray else node._as_array(result))
        if edge is not None:
            node._record((x,), (array,), settings, (out,))
        return out

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        apply, op_name, floating = cls.apply, cls.op_name, cls.floating

        def call(input: Tensor) -> Tensor:
            if not isinstance(input, Tensor):
                raise TypeError(f"{op_name}: expected a Tensor, got {type(input).__name__}")
            if floating and input._array.dtype.kind not in FLOATING:
                input = promote(input, floating=True)[0]
            return apply(input)

        return call

    @classmethod
    def samples(cls, rand: Rand) -> Samples:
        for shape in ((2, 3), (), (0, 3)):
            yield (rand.uniform(*cls.domain, *shape),)


class Binary(Op, abstract=True):
    """y = f(a, b), element by element, after promotion to a common type."""

    broadcasts = True
    inplace = True
    out = "cast"
    floating = False  # True converts integers to floats first
    tensors_only = False  # True if numbers are refused

    @classmethod
    def apply(cls, a: Any, b: Any, **settings: Any) -> Any:
        """Do what `Op.apply` does, in fewer steps for a run that no observer sees."""
        here = state.__dict__
        graded = here["grad"] and cls.differentiable
        x, y, to_a, to_b, half = a, b, None, None, False
        if isinstance(a, Tensor):
            x = a._array
            half = x.itemsize == 2
            if graded:
                to_a = edge_for(a)
        if isinstance(b, Tensor):
            y = b._array
            half = half or y.itemsize == 2
            if graded:
                to_b = edge_for(b)
        if half or x is y or settings or here["observers"]:
            return super().apply(a, b, **settings)
        node = cls()
        node.edges = to_a, to_b
        try:
            result = here["quietly"](node.forward, x, y)
        except EXPLAINED:
            return super().apply(a, b)  # it finds more memory, or says what went wrong
        out = wrap(result if type(result) is ndarray else node._as_array(result))
        if to_a is not None or to_b is not None:
            node._record((a, b), (x, y), settings, (out,))
        return out

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        apply, op_name = cls.apply, cls.op_name
        promoted = promote_floats if cls.floating else promote_operands

        def call(input: Any, other: Any) -> Tensor:
            a, b = promoted(input, other)
            return apply(a, b)

        def call_on_tensors(input: Tensor, other: Tensor) -> Tensor:
            if not isinstance(input, Tensor) or not isinstance(other, Tensor):
                check_tensors(op_name, input=input, other=other)
            a, b = promoted(input, other)
            return apply(a, b)

        call_on_tensors.__name__ = "call"
        return call_on_tensors if cls.tensors_only else call

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.distinct(2, 3), rand.positive(2, 3)
        yield rand.distinct(2, 3), rand.positive(3)
        yield rand.distinct(2, 1), rand.positive(1, 3)
        yield rand.distinct(3, 2), rand.positive()
        yield rand.distinct(2, 3), 1.5
        yield rand.integers(-4, 5, 2, 3), 2.5
        yield rand.constant(0, 3), rand.positive(3)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), rand(4)
        yield rand(2, 3), None
        yield rand(2, 3), [1.0, 2.0, 3.0]


# Tables


Derivative = Callable[..., Tensor] | None


def unary(
    name: str,
    f: Callable[[Any], Any],
    derivative: Derivative,
    formula: str,
    *,
    base: type[Unary] = Unary,
    dtype: Any = None,
    **attributes: Any,
) -> type[Any]:
    """Register the op y = f(x) and return its class.

    - f: a function of an array; the large results of a NumPy ufunc come from the pool.
    - derivative: dx in Tensor algebra, as a function of dy, and of x and y where it names them;
      None if there is none.
    - formula: forward and, after two spaces, the rest; the shapes are put in between. What follows
      "y = ", up to a comma, is the op's `cell` too if it is a formula and not words.
    - dtype: the type of the result, if not that of x.
    - attributes: those of `Op` and of `base`, also `samples` and `errors`. Integers are converted
      to floats first unless floating=False.
    """
    if isinstance(f, np.ufunc):
        f = pooled(f, dtype)
    saved = _names(name, derivative, "xy")
    forward: Callable[..., Any]
    if not saved:

        def forward(ctx: Op, x: np.ndarray) -> Any:
            return f(x)

    elif saved == ("x",):

        def forward(ctx: Op, x: np.ndarray) -> Any:
            ctx.save(x)
            return f(x)

    elif saved == ("y",):

        def forward(ctx: Op, x: np.ndarray) -> Any:
            y = f(x)
            ctx.save(y)
            return y

    else:

        def forward(ctx: Op, x: np.ndarray) -> Any:
            y = f(x)
            ctx.save(*(x if which == "x" else y for which in saved))
            return y

    body: dict[str, Any] = {"floating": True, "forward": forward}
    if derivative is None:
        body["differentiable"] = False
    else:
        body["derivative"] = staticmethod(derivative)
        body["backward"] = lambda ctx, dy: derivative(dy, *ctx.saved)
        body["plain"] = not derivative.__code__.co_names  # no method, and no function
    return _class(name, base, _with_shapes(formula, "(*) -> (*)", dtype), body | attributes)


def binary(
    name: str,
    f: Callable[[Any, Any], Any],
    da: Derivative,
    db: Derivative,
    formula: str,
    *,
    base: type[Binary] = Binary,
    dtype: Any = None,
    **attributes: Any,
) -> type[Any]:
    """Register the op y = f(a, b) and return its class, as `unary` does.

    - da, db: the gradients of a and b, as functions of dy, and of a and b where they name them; an
      operand that no gradient asked for needs is not saved.
    """
    if isinstance(f, np.ufunc):
        f = pooled(f, dtype)
    of_a, of_b = _names(name, da, "ab"), _names(name, db, "ab")
    body: dict[str, Any] = {}
    if not of_a and not of_b:

        def forward(ctx: Op, a: Any, b: Any) -> Any:
            return f(a, b)

        body["forward"] = forward
    else:

        def saving(ctx: Op, a: Any, b: Any) -> Any:
            to_a, to_b = ctx.edges
            wanted = (*(of_a if to_a is not None else ()), *(of_b if to_b is not None else ()))
            ctx.save(a if "a" in wanted else None, b if "b" in wanted else None)
            return f(a, b)

        body["forward"] = saving
    if da is None or db is None:
        body["differentiable"] = False
    else:

        def backward(ctx: Op, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
            saved = dict(zip("ab", ctx.saved, strict=False))
            to_a, to_b = ctx.edges
            return (
                None if to_a is None else da(dy, *(saved[which] for which in of_a)),
                None if to_b is None else db(dy, *(saved[which] for which in of_b)),
            )

        body["backward"] = backward
        body["plain"] = not (da.__code__.co_names or db.__code__.co_names)
    return _class(name, base, _with_shapes(formula, "(*), (*) -> (*)", dtype), body | attributes)


def pooled(f: np.ufunc, dtype: Any = None) -> Callable[..., Any]:
    """`evaluate` for one function, quick for small operands."""

    def of_one(x: np.ndarray) -> Any:
        return evaluate(f, x, dtype=dtype) if x.size > _SMALL else f(x, out=AS_ARRAY)

    def of_two(a: Any, b: Any) -> Any:
        if (type(a) is ndarray and a.size > _SMALL) or (type(b) is ndarray and b.size > _SMALL):
            return evaluate(f, a, b, dtype=dtype)
        return f(a, b, out=AS_ARRAY)

    return of_one if f.nin == 1 else of_two


def _names(op: str, derivative: Derivative, known: str) -> tuple[str, ...]:
    """Return the parameters of a derivative after dy: the values that it needs."""
    if derivative is None:
        return ()
    code = derivative.__code__
    names = code.co_varnames[1 : code.co_argcount]
    if not set(names) <= set(known):
        raise ValueError(f"{op}: a derivative takes dy and any of {', '.join(known)}, not {names}")
    return names


def _with_shapes(formula: str, shapes: str, dtype: Any) -> str:
    """Put the shapes, and the type if there is one for all, after the formula of forward."""
    forward, _, rest = formula.partition(".  ")
    shapes += "" if dtype is None else f", {np.dtype(dtype)}"
    return f"{forward}: {shapes}.  {rest}" if rest else f"{forward[:-1]}: {shapes}."


def _cell(doc: str) -> str | None:
    """Return the formula that a docstring begins with; None for words."""
    formula = doc.removeprefix("y = ").partition(": (*)")[0]
    formula = re.split(r", (?![^(]*\))", formula)[0]  # a comma in parentheses is its own
    try:
        compile(formula, "", "eval")
    except SyntaxError:
        return None
    return formula


def _class(name: str, base: type[Op], doc: str, body: dict[str, Any]) -> type[Any]:
    """Make the class of a line: Exp2 for "exp2", in the module of the table."""
    line = sys._getframe(2)
    while line.f_code.co_name != "<module>" and line.f_back is not None:
        line = line.f_back  # of the table, and not of a function like `comparison`
    for key in ("samples", "errors"):
        if key in body:
            body[key] = staticmethod(body[key])
    body |= {"op_name": name, "__doc__": doc, "__module__": line.f_globals["__name__"]}
    body.setdefault("cell", _cell(doc))
    body["__firstlineno__"] = line.f_lineno
    return type("".join(part.capitalize() for part in name.split("_")), (base,), body)
