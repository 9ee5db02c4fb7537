"""Chains: elementwise ops that follow each other, as one op that runs in one pass.

A `Program` lists the ops. It is translated to instructions of the machine in `kernels.chain` by the
table STEPS, which says of each op how its result is computed, and its derivatives, in the algebra
of `Value`; those of an op made by a table (`unary`) are its own. The backward rule is a program of
the same kind, which computes again what the derivatives need.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import OPS, Op, Tensor
from ..kernels import chain as kernel
from ..kernels import special
from .checks import check_floating
from .samples import Rand, Samples

# Instructions and their algebra


class Tape:
    """The instructions of a chain, each once: the nodes of `kernels.chain.assemble`."""

    def __init__(self) -> None:
        self.nodes: list[tuple[Any, ...]] = []
        self._known: dict[tuple[Any, ...], Value] = {}

    def value(self, *node: Any) -> Value:
        """Return the value of a node, which is added if it is new."""
        found = self._known.get(node)
        if found is None:
            found = self._known[node] = self.new(*node)
        return found

    def new(self, *node: Any) -> Value:
        """Add a node and return its value."""
        self.nodes.append(node)
        return Value(self, len(self.nodes) - 1)

    def add(self, name: str, *operands: Any) -> Value:
        """Return the result of an instruction on values and numbers."""
        values = [x if isinstance(x, Value) else self.value("constant", float(x)) for x in operands]
        return self.value(name, *[x.number for x in values])


class Value:
    """A number for each element: arithmetic with it, and its methods, record instructions."""

    def __init__(self, tape: Tape, number: int) -> None:
        self.tape, self.number = tape, number

    def __getattr__(self, name: str) -> Callable[..., Value]:
        if name not in kernel.NAMES:
            raise AttributeError(f"{name} is no instruction of kernels.chain")
        return lambda *others: self.tape.add(name, self, *others)

    def __pow__(self, exponent: Any) -> Value:
        return _power(self, exponent)

    def __neg__(self) -> Value:
        return self.tape.add("neg", self)

    def __add__(self, other: Any) -> Value:
        return self.tape.add("add", self, other)

    def __radd__(self, other: Any) -> Value:
        return self.tape.add("add", other, self)

    def __sub__(self, other: Any) -> Value:
        return self.tape.add("sub", self, other)

    def __rsub__(self, other: Any) -> Value:
        return self.tape.add("sub", other, self)

    def __mul__(self, other: Any) -> Value:
        return self.tape.add("mul", self, other)

    def __rmul__(self, other: Any) -> Value:
        return self.tape.add("mul", other, self)

    def __truediv__(self, other: Any) -> Value:
        return self.tape.add("div", self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return self.tape.add("div", other, self)


def _power(a: Any, b: Any) -> Any:
    """Return a ** b as `Pow` computes it; NotImplementedError unless b is 2, 3 or 0.5."""
    if isinstance(b, Value) or b not in (2, 3, 0.5):
        raise NotImplementedError(f"pow: no instruction of kernels.chain for the exponent {b}")
    return a.sqrt() if b == 0.5 else a * a if b == 2 else a * a * a


# The ops of chains


class Key(NamedTuple):
    """A random key in a program: its number among those that the chain is run with."""

    number: int


class Step:
    """The instructions of an op.

    - forward: its result, a function of the arguments of `Op.apply`: values and settings.
    - derivatives: for each argument dx, a function of dy and of the parameters of `forward`, or y,
      the result, that it names; None for an argument without one. If there are none, the derivative
      of an op that is made by `elementwise.unary` is used.
    """

    def __init__(
        self, forward: Callable[..., Any], *derivatives: Callable[..., Any] | None
    ) -> None:
        self.forward, self._derivatives = forward, derivatives

    def gradient(self, op: str, which: int, dy: Value, y: Value, args: Sequence[Any]) -> Any:
        """Return the gradient of argument `which`, or None."""
        rule = self._derivatives[which] if self._derivatives else OPS[op].derivative
        if rule is None:
            return None
        known = dict(zip(_parameters(self.forward), args, strict=True)) | {"y": y}
        return rule(dy, *[known[name] for name in _parameters(rule)[1:]])


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return function.__code__.co_varnames[: function.__code__.co_argcount]


def _unless(loses: Value, dy: Value, tie: Value) -> Value:
    """dy unless an operand loses, half where there is a tie; NaN does not lose."""
    return loses.where(0.0, tie.where(dy * 0.5, dy))


def _bounded(x: Value, low: Any, high: Any) -> Value:
    x = x if low is None else x.maximum(low)
    return x if high is None else x.minimum(high)


def _inside(dy: Value, x: Value, low: Any, high: Any) -> Value:
    """dy where low <= x <= high, else 0."""
    if low is not None:
        dy = x.tape.add("le", low, x).where(dy, 0.0)
    return dy if high is None else x.le(high).where(dy, 0.0)


def _drop(x: Value, p: float, key: Key) -> Value:
    return x.tape.value("dropout", x.number, (p, key.number))


def _slope(a: Any, b: Any) -> Any:
    """Return the derivative of a ** b, as `Pow` computes it."""
    return (a if b == 2 else a * a if b == 3 else a.sqrt().reciprocal()) * b


# fmt: off
STEPS = {
    "Add": Step(lambda a, b: a + b, lambda dy: dy, lambda dy: dy),
    "Sub": Step(lambda a, b: a - b, lambda dy: dy, lambda dy: -dy),
    "Mul": Step(lambda a, b: a * b, lambda dy, b: dy * b, lambda dy, a: dy * a),
    "Div": Step(lambda a, b: a / b, lambda dy, b: dy / b, lambda dy, a, b: -(dy / b * (a / b))),
    "Pow": Step(_power, lambda dy, a, b: dy * _slope(a, b), None),
    "Maximum": Step(lambda a, b: a.maximum(b),
                    lambda dy, a, b: _unless(a.lt(b), dy, a.eq(b)),
                    lambda dy, a, b: _unless(b.lt(a), dy, a.eq(b))),
    "Minimum": Step(lambda a, b: a.minimum(b),
                    lambda dy, a, b: _unless(b.lt(a), dy, a.eq(b)),
                    lambda dy, a, b: _unless(a.lt(b), dy, a.eq(b))),
    "Clamp": Step(lambda x, low, high: _bounded(x, low, high), _inside, None, None),
    "Where": Step(lambda c, a, b: c.where(a, b), None,
                  lambda dy, c: c.where(dy, 0.0), lambda dy, c: c.where(0.0, dy)),
    "MaskedFill": Step(lambda x, c, value: c.where(value, x), lambda dy, c: c.where(0.0, dy), None,
                       lambda dy, c: c.where(dy, 0.0)),
    "Dropout": Step(_drop, _drop, None, None),
    "Neg": Step(lambda x: -x),
    "Abs": Step(lambda x: x.abs()),
    "Square": Step(lambda x: x * x),
    "Sqrt": Step(lambda x: x.sqrt()),
    "Rsqrt": Step(lambda x: x.sqrt().reciprocal()),
    "Reciprocal": Step(lambda x: x.reciprocal()),
    "Exp": Step(lambda x: x.exp()),
    "Expm1": Step(lambda x: x.expm1()),
    "Log": Step(lambda x: x.log()),
    "Log1p": Step(lambda x: x.log1p()),
    "Erf": Step(lambda x: x.erf()),
    "Relu": Step(lambda x: x.relu(), lambda dy, y: dy.relu_backward(y)),
    "Sigmoid": Step(lambda x: x.sigmoid(), lambda dy, y: dy.sigmoid_backward(y)),
    "Tanh": Step(lambda x: x.tanh(), lambda dy, y: dy.tanh_backward(y)),
    "Silu": Step(lambda x: x.silu(), lambda dy, x: dy.silu_backward(x)),
    "Gelu": Step(lambda x, kind: x.gelu_tanh() if kind == "tanh" else x.gelu(),
                 lambda dy, x, kind: dy.gelu_tanh_backward(x) if kind == "tanh"
                 else dy.gelu_backward(x), None),
}
# fmt: on


def is_step(op: str, args: Sequence[Any], dtype: np.dtype[Any]) -> bool:
    """Return True if a chain of this type has the op with its own bits, its derivatives too.

    args: those of the op's `apply`, an int for each tensor.
    """
    step, tape = STEPS.get(op), Tape()
    if step is None or dtype.char not in "fd":
        return False
    if op == "Clamp" and any(type(a) is int for a in args[1:]):
        return False  # bounds that are tensors have gradients
    values = [tape.value("input", n) if type(a) is int else a for n, a in enumerate(args)]
    try:
        y = step.forward(*values)
        for which, a in enumerate(args):
            if type(a) is int:
                step.gradient(op, which, y, y, values)
    except NotImplementedError:
        return False
    return dtype.char == "f" or not any(node[0] in special.IN_NUMPY for node in tape.nodes)


# Programs


class Plan(NamedTuple):
    """A program for arrays of certain shapes: what to run, and which of its results is which.

    `expands` is True if an input has to be broadcast before; `shapes` are those of the results.
    `returned` has, for each array to return, the number of the result, the number of an input that
    it is, below 0 (-1 for the first), or None for none.
    """

    code: kernel.Code | None
    expands: bool
    shapes: list[tuple[int, ...]]
    returned: list[int | None]


class Saved(NamedTuple):
    """The numbers of the inputs and results that the gradients of a chain are computed from."""

    inputs: set[int]
    outputs: tuple[int, ...]


class Program:
    """Elementwise ops in order.

    - inputs: the number of tensors they begin with.
    - steps: for each op the name of its class and the arguments of its `apply`. An int stands for a
      tensor: an input, or after those the result of an earlier step. The rest are numbers (floats),
      settings and for a random key a Key.
    - outputs: the numbers of the results that are returned.

    `keys` is the number of random keys.
    """

    def __init__(
        self, inputs: int, steps: Sequence[tuple[Any, ...]], outputs: Sequence[int]
    ) -> None:
        self.inputs, self.steps, self.outputs = inputs, tuple(steps), tuple(outputs)
        keys = [a.number for step in steps for a in step if isinstance(a, Key)]
        self.keys = max(keys, default=-1) + 1
        self._plans: dict[Any, Plan] = {}
        self._saved: dict[tuple[bool, ...], Saved] = {}

    def _key(self) -> Any:
        return self.inputs, self.steps, self.outputs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Program({self.inputs}, {self.steps}, {self.outputs})"

    def run(
        self,
        arrays: Sequence[np.ndarray],
        keys: Sequence[int] = (),
        needs: tuple[bool, ...] | None = None,
        given: tuple[bool, ...] = (),
    ) -> list[Any]:
        """Return the results for the inputs.

        With `needs`, the gradients of the inputs, None where they need none or get none; then
        arrays are the inputs, the gradients of those outputs that are `given` one, and the outputs
        that `saved` names.
        """
        key = needs, given, *[(x.shape, x.dtype.char) for x in arrays]
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._plan(arrays, needs, given)
        code, expands, shapes, returned = plan
        made: list[np.ndarray] = []
        if code is not None:
            if expands:
                arrays = _expanded(arrays)
            made = kernel.run(code, arrays, shapes, keys)
        return [None if i is None else made[i] if i >= 0 else arrays[-1 - i] for i in returned]

    def _plan(
        self,
        arrays: Sequence[np.ndarray],
        needs: tuple[bool, ...] | None,
        given: tuple[bool, ...],
    ) -> Plan:
        shape = np.broadcast_shapes(*[x.shape for x in arrays])
        known = () if needs is None else self.saved(needs).outputs
        tape, values = self.trace(known, sum(given))
        layouts = [kernel.layout_of(x.shape, shape) for x in arrays]
        results: list[tuple[int, kernel.Layout | None]] = []  # nodes, and what they are summed to
        returned: list[int | None] = []
        shapes = []
        if needs is None:
            for number in self.outputs:
                value = values[number]
                if (value.number, None) in results:  # no two results share memory
                    value = tape.new("copy", value.number)
                returned.append(len(results))
                results.append((value.number, None))
                shapes.append(shape)
        else:
            grads = self._differentiate(tape, values, needs, given)
            for g, x in zip(grads, arrays, strict=False):
                # Sums are added in float64; those of float64 pairwise, after this, by the engine.
                summed = x.shape != shape and x.itemsize < 8
                layout = kernel.layout_of(x.shape, shape) if summed else None
                if g is None:
                    returned.append(None)
                elif tape.nodes[g.number][0] == "input" and layout is None:
                    returned.append(-1 - tape.nodes[g.number][1])
                else:
                    if (g.number, layout) not in results:
                        results.append((g.number, layout))
                        shapes.append(shape if layout is None else x.shape)
                    returned.append(results.index((g.number, layout)))
        code = None
        if results:
            dtype = next(x.dtype for x in arrays if x.dtype.kind == "f")
            code = kernel.assemble(
                tape.nodes,
                [number for number, _ in results],
                dtype,
                math.prod(shape),
                [layout or (1, math.prod(shape)) for layout in layouts],
                [x.dtype.kind == "b" for x in arrays],
                [layout for _, layout in results],
            )
        return Plan(code, None in layouts, shapes, returned)

    def trace(self, known: Sequence[int] = (), grads: int = 0) -> tuple[Tape, list[Value]]:
        """Return the instructions, and the values of inputs and steps.

        - known: the results that are not computed, but are inputs after so many `grads` of outputs.
        """
        tape = Tape()
        values = [tape.value("input", number) for number in range(self.inputs)]
        first = self.inputs + grads
        for number, (name, *args) in enumerate(self.steps, self.inputs):
            if number in known:
                values.append(tape.value("input", first + known.index(number)))
            else:
                values.append(STEPS[name].forward(*_filled(args, values)))
        return tape, values

    def saved(self, needs: tuple[bool, ...]) -> Saved:
        """Return what gradients are computed from: inputs, and outputs where these suffice."""
        found = self._saved.get(needs)
        if found is None:
            found = Saved(self._reads(needs, ()), ())
            known = tuple(dict.fromkeys(self.outputs))
            first = self.inputs + len(self.outputs)
            reads = self._reads(needs, known)
            if len(reads) <= len(found.inputs):
                outputs = [n for place, n in enumerate(known) if first + place in reads]
                found = Saved({n for n in reads if n < first}, tuple(outputs))
            self._saved[needs] = found
        return found

    def _reads(self, needs: tuple[bool, ...], known: Sequence[int]) -> set[int]:
        """Return the inputs whose numbers the gradients depend on, if results are `known`."""
        every = (True,) * len(self.outputs)
        tape, values = self.trace(known, len(every))
        left = [g.number for g in self._differentiate(tape, values, needs, every) if g is not None]
        found = set()
        for number in left:
            name, *operands = tape.nodes[number]
            if name == "input":
                found.add(operands[0])
            elif name != "constant":
                left += [n for n in operands if type(n) is int and n not in left]
        grads = range(self.inputs, self.inputs + len(self.outputs))
        return found.difference(grads)

    def _differentiate(
        self,
        tape: Tape,
        values: list[Value],
        needs: tuple[bool, ...],
        given: tuple[bool, ...],
    ) -> list[Value | None]:
        """Return the gradients of inputs; those of the `given` outputs are further inputs."""
        needed = list(needs)
        for _, *args in self.steps:
            needed.append(any(needed[a] for a in args if type(a) is int))
        grads: list[Value | None] = [None] * len(values)

        def send(number: int, g: Value) -> None:
            have = grads[number]
            grads[number] = g if have is None else have + g

        for place, number in enumerate(itertools.compress(self.outputs, given)):
            send(number, tape.value("input", self.inputs + place))
        for number in range(len(values) - 1, self.inputs - 1, -1):
            name, *args = self.steps[number - self.inputs]
            dy = grads[number]
            if dy is None:
                continue
            filled = _filled(args, values)
            for which, a in enumerate(args):
                if type(a) is int and needed[a]:
                    g = STEPS[name].gradient(name, which, dy, values[number], filled)
                    if g is not None:
                        send(a, g)
        return [g if need else None for g, need in zip(grads, needs, strict=False)]


def _expanded(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return arrays of one shape in place of those that the machine cannot broadcast."""
    shape = np.broadcast_shapes(*[x.shape for x in arrays])
    return [
        x if kernel.layout_of(x.shape, shape) else np.ascontiguousarray(np.broadcast_to(x, shape))
        for x in arrays
    ]


def _unread(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array without memory, whose numbers nobody reads."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _filled(args: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Return the arguments of a step with values in place of their numbers."""
    return [values[a] if type(a) is int else a for a in args]


class Chain(Op):
    """y = the results of a `program` of elementwise ops: (*), (*), ... -> (*) of one shape.

    Inputs broadcast. Floats have one type, the others are masks. dx is computed in one pass too,
    from the inputs, or from results that suffice in their place. RuntimeError for floats of several
    types, or another number of inputs or random keys than the program's.
    """

    namespaces = ""
    torch_name = None
    fused = True
    broadcasts = True
    one_type = True
    native = True
    materialize = False

    @staticmethod
    def call(*inputs: Tensor, program: Program, keys: tuple[int, ...] = ()) -> Any:
        for x in inputs:
            if x._array.dtype.kind != "b":
                check_floating("chain", x)
        return Chain.apply(*inputs, program=program, keys=keys)

    def forward(ctx, *arrays: np.ndarray, program: Program, keys: tuple[int, ...] = ()) -> Any:
        if len(arrays) != program.inputs or len(keys) != program.keys:
            raise RuntimeError(
                f"chain: the program has {program.inputs} inputs and {program.keys} random keys, "
                f"got {len(arrays)} and {len(keys)}"
            )
        if len({x.dtype for x in arrays if x.dtype.kind == "f"}) != 1:
            raise RuntimeError(
                f"chain: expected floats of one type, got {[x.dtype.name for x in arrays]}"
            )
        saved = program.saved(ctx.needs_input_grad)
        # Of an array whose numbers backward does not read only the shape and type count.
        kept = [x if n in saved.inputs else (x.shape, x.dtype) for n, x in enumerate(arrays)]
        made = program.run(arrays, keys)
        ctx.save(program, keys, *kept, *[made[program.outputs.index(n)] for n in saved.outputs])
        return made[0] if len(made) == 1 else tuple(made)

    def backward(ctx, *grads: np.ndarray | None) -> tuple[Any, ...]:
        program, keys, *kept = ctx.saved
        arrays = [_unread(*x) if type(x) is tuple else x for x in kept]
        count, there = program.inputs, [g for g in grads if g is not None]
        given = tuple([g is not None for g in grads])
        arrays[count:count] = there
        return tuple(program.run(arrays, keys, ctx.needs_input_grad, given))

    @staticmethod
    def decomposition(*inputs: Tensor, program: Program, keys: tuple[int, ...] = ()) -> Any:
        values = list(inputs)
        for name, *args in program.steps:
            filled = [keys[a.number] if isinstance(a, Key) else a for a in _filled(args, values)]
            values.append(OPS[name].apply(*filled))
        outs = tuple([values[number] for number in program.outputs])
        return outs[0] if len(outs) == 1 else outs

    @staticmethod
    def samples(rand: Rand) -> Samples:
        gated = Program(3, [("Silu", 0), ("Mul", 3, 1), ("Add", 4, 2)], [5])
        yield rand(2, 3), rand(2, 3), rand(3), dict(program=gated)
        yield rand(2, 3), rand(2, 1), rand(), dict(program=gated)
        yield rand(0, 3), rand(3), rand(0, 1), dict(program=gated)
        yield rand(2, 1, 3), rand(4, 1), rand(2, 4, 3), dict(program=gated)
        shared = [("Tanh", 0), ("Mul", 2, 2), ("Sub", 1.0, 3), ("Div", 4, 1), ("Exp", 4)]
        yield rand(3, 4), rand.positive(3, 4), dict(program=Program(2, shared, [5, 6, 3]))
        masked = [("MaskedFill", 0, 1, -1.5), ("Where", 1, 2, 0), ("Maximum", 3, 4)]
        program = Program(3, masked, [5])
        yield rand.distinct(2, 3), rand.bools(3), rand.positive(2, 3), dict(program=program)
