"""Chains of elementwise ops in one pass: the bits of the ops one by one, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor.core import OPS, Tensor, wrap
from minitensor.ops.chain import STEPS, Chain, Key, Program
from minitensor.testing import assert_close

pytestmark = pytest.mark.compiled

FLOATS = (np.float32, np.float64)
# Arguments of each op's `apply` besides tensors: one is in place of each None.
SETTINGS: dict[str, list[tuple[Any, ...]]] = {
    "Pow": [(None, 2.0), (None, 3.0), (None, 0.5)],
    "Clamp": [(None, -0.5, 0.7), (None, 0.1, "no"), (None, "no", 0.2)],
    "Dropout": [(None, 0.3, Key(0)), (None, 0.6, Key(1))],
    "Gelu": [(None, "none"), (None, "tanh")],
    "Where": [("mask", None, None), ("mask", None, 0.5), ("mask", 1.0, None)],
    "MaskedFill": [(None, "mask", -1.5)],
    **{name: [(None, None), (None, 1.7), (0.3, None)] for name in ("Add", "Sub", "Mul", "Div")},
    "Maximum": [(None, None)],
    "Minimum": [(None, None)],
}
KEYS = (2**63 + 12345, 7)
POSITIVE = ("Pow", "Sqrt", "Rsqrt", "Log", "Log1p", "Reciprocal", "Div")
BY_NUMPY = ("Exp", "Expm1", "Log", "Log1p")  # in float64: other functions, within some ulp


def settings_of(name: str) -> list[tuple[Any, ...]]:
    return SETTINGS.get(name, [(None,)])


def one_step(args: tuple[Any, ...], name: str) -> tuple[Program, list[str]]:
    """Return a program of one op, and what its inputs are: numbers or a mask."""
    kinds: list[str] = []
    filled: list[Any] = []
    for a in args:
        if a is None or a == "mask":
            filled.append(len(kinds))
            kinds.append("mask" if a else "number")
        else:
            filled.append(None if a == "no" else a)
    return Program(len(kinds), [(name, *filled)], [len(kinds)]), kinds


def tensors(
    noise: np.random.RandomState, kinds: list[str], shapes: list[Any], dtype: Any, low: float
) -> list[Tensor]:
    made = []
    for kind, shape in zip(kinds, shapes, strict=True):
        if kind == "mask":
            made.append(wrap(np.asarray(noise.rand(*shape) < 0.5)))
        else:
            x = wrap(np.asarray(noise.uniform(low, 3, shape), dtype))
            made.append(x.requires_grad_())
    return made


def both(program: Program, inputs: list[Tensor]) -> tuple[list[Any], list[Any]]:
    """Return results and gradients of a chain, and of its ops one by one."""
    found = []
    for call in (Chain.apply, Chain.decomposition):
        fresh = [x.detach().requires_grad_(x.requires_grad) for x in inputs]
        outs = call(*fresh, program=program, keys=KEYS[: program.keys])
        outs = outs if isinstance(outs, tuple) else (outs,)
        noise = np.random.RandomState(5)
        dys = [wrap(np.asarray(noise.randn(*o.shape), o._array.dtype)) for o in outs]
        wanted = [x for x in fresh if x.requires_grad]
        grads = mt.autograd.grad(outs, wanted, dys, allow_unused=True)
        found.append([*outs, *grads])
    return found[0], found[1]


def same_bits(mine: Any, other: Any) -> None:
    if mine is None or other is None:
        assert mine is None
        assert other is None or not other._array.any()
        return
    assert mine._array.dtype == other._array.dtype
    np.testing.assert_array_equal(mine._array, other._array)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 7, 700, 70_000])  # small ones run in NumPy one by one
@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_single_op_has_its_own_bits(name: str, size: int, dtype: Any) -> None:
    noise = np.random.RandomState(0)
    for args in settings_of(name):
        program, kinds = one_step(args, name)
        low = 0.1 if name in POSITIVE else -3
        mine, other = both(program, tensors(noise, kinds, [(size,)] * len(kinds), dtype, low))
        for a, b in zip(mine, other, strict=True):
            if dtype == np.float64 and name in (*BY_NUMPY, "Erf"):
                assert_close(a, b, rtol=1e-14, atol=1e-15)
            else:
                same_bits(a, b)


def test_special_numbers() -> None:
    values = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1e38, -1e38, 1.0]
    x = np.array(values, np.float32)
    a, b = (wrap(v.ravel().copy()) for v in np.meshgrid(x, x))
    mask = wrap(np.isfinite(a._array))
    with np.errstate(all="ignore"):
        for name in sorted(STEPS):
            for args in settings_of(name):
                program, kinds = one_step(args, name)
                numbers = iter((a, b))
                given = [mask if kind == "mask" else next(numbers) for kind in kinds]
                mine = Chain.apply(*given, program=program, keys=KEYS[: program.keys])
                same_bits(
                    mine, Chain.decomposition(*given, program=program, keys=KEYS[: program.keys])
                )


def random_program(noise: np.random.RandomState, inputs: int, steps: int, exact: bool) -> Program:
    """Return a program of smooth ops; the last inputs are masks."""
    names = [n for n in sorted(STEPS) if n not in POSITIVE and not (exact and n in BY_NUMPY)]
    names = [n for n in names if n not in ("Erf", "Exp", "Expm1")]
    made: list[tuple[Any, ...]] = []
    for step in range(steps):
        name = names[noise.randint(len(names))]
        choices = settings_of(name)
        args = choices[noise.randint(len(choices))]
        numbers = [*range(inputs - 1), *range(inputs, inputs + step)]
        filled: list[Any] = []
        for a in args:
            recent = noise.rand() < 0.5 and step
            value = inputs + step - 1 if recent else int(noise.choice(numbers))
            filled.append(
                value if a is None else inputs - 1 if a == "mask" else None if a == "no" else a
            )
        made.append((name, *filled))
    outputs = {inputs + steps - 1} | {inputs + int(i) for i in noise.randint(0, steps, 2)}
    return Program(inputs, made, sorted(outputs))


SHAPES = [
    (3,), (1,), (0, 4), (5, 7), (2, 3, 4), (513,), (3, 1025), (33, 1000), (300, 300),
]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", FLOATS)
def test_random_programs_have_the_bits_of_their_ops(dtype: Any, threads: int) -> None:
    if threads > mt.get_num_threads():
        pytest.skip("one thread")
    before = mt.get_num_threads()
    mt.set_num_threads(threads)
    noise = np.random.RandomState(1)
    try:
        for number in range(60):
            shape = SHAPES[number % len(SHAPES)]
            program = random_program(noise, 4, 1 + number % 9, exact=True)
            kinds = ["number"] * 3 + ["mask"]
            inputs = tensors(noise, kinds, [shape] * 4, dtype, -3)
            mine, other = both(program, inputs)
            for a, b in zip(mine, other, strict=True):
                same_bits(a, b)
    finally:
        mt.set_num_threads(before)


BROADCAST = [  # shapes of the inputs
    [(5, 7), (7,), (5, 1), ()],
    [(300, 513), (513,), (300, 1), (1,)],
    [(4, 5, 6), (5, 6), (4, 1, 1), (1, 5, 1)],
    [(4, 5, 6), (4, 1, 6), (5, 1), (1, 1, 1)],  # (4, 1, 6) is expanded first
    [(7,), (5, 1), (), (5, 7)],
    [(0, 7), (7,), (0, 1), ()],
    [(1, 1), (1,), (), (1, 1)],
    [(40_000, 3), (3,), (40_000, 1), ()],
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shapes", BROADCAST)
def test_inputs_broadcast_and_their_gradients_are_summed(shapes: Any, dtype: Any) -> None:
    noise = np.random.RandomState(2)
    steps = [("Mul", 0, 1), ("Add", 4, 2), ("Sub", 5, 3), ("Tanh", 6), ("Mul", 7, 1), ("Mul", 8, 3)]
    inputs = tensors(noise, ["number"] * 4, shapes, dtype, -1)
    mine, other = both(Program(4, steps, [9]), inputs)
    same_bits(mine[0], other[0])
    for a, b in zip(mine[1:], other[1:], strict=True):
        size = max(o._array.size for o in mine)
        scale = np.sqrt(size) * (1e-6 if dtype == np.float32 else 1e-14)
        assert_close(a, b, rtol=1e-5, atol=float(scale))


def test_the_sum_of_many_gradients_keeps_its_digits() -> None:
    x = wrap(np.full((100_000, 3), 0.1, np.float32)).requires_grad_()
    c = wrap(np.zeros(3, np.float32)).requires_grad_()
    Chain.apply(x, c, program=Program(2, [("Neg", 0), ("Sub", 2, 1)], [3])).sum().backward()
    np.testing.assert_array_equal(c.grad._array, np.full(3, -100_000, np.float32))


def test_strided_inputs_and_gradients() -> None:
    noise = np.random.RandomState(3)
    x, y = tensors(noise, ["number"] * 2, [(6, 9), (9, 6)], np.float32, -1)
    program = Program(2, [("Silu", 0), ("Mul", 2, 1)], [3])
    found = []
    for call in (Chain.apply, Chain.decomposition):
        a, b = (t.detach().requires_grad_() for t in (x, y))
        out = call(a.t(), b, program=program)
        out.t().sum().backward()
        found.append((out, a.grad, b.grad))
    for mine, other in zip(*found, strict=True):
        same_bits(mine, other)


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    noise = np.random.RandomState(4)
    x, y, z = tensors(noise, ["number"] * 3, [(4, 5)] * 3, np.float64, -1)
    y.requires_grad_(False)
    steps = [("Mul", 0, 1), ("Add", 3, 2), ("Pow", 4, 2.0)]
    mine, other = both(Program(3, steps, [5, 3]), [x, y, z])
    for a, b in zip(mine, other, strict=True):
        same_bits(a, b)


@pytest.mark.parametrize(
    ("steps", "outputs", "expected"),
    [
        ([("Tanh", 0)], [2], (set(), (2,))),  # from the result alone
        ([("Silu", 0), ("Mul", 2, 1)], [3], ({0, 1}, ())),
        ([("Sigmoid", 0), ("Mul", 2, 1)], [2, 3], ({1}, (2,))),
        ([("Mul", 0, 1), ("Exp", 2)], [3], ({0, 1}, ())),  # the result would be one more
        ([("Add", 0, 1), ("Exp", 2)], [3], (set(), (3,))),
        ([("Add", 0, 1), ("Sub", 2, 0.5)], [3], (set(), ())),
    ],
)
def test_gradients_are_computed_from_few_arrays(steps: Any, outputs: Any, expected: Any) -> None:
    noise = np.random.RandomState(5)
    program = Program(2, steps, outputs)
    assert program.saved((True, True)) == expected
    x, y = tensors(noise, ["number"] * 2, [(6, 9)] * 2, np.float32, -1)
    mine, other = both(program, [x, y])
    for a, b in zip(mine, other, strict=True):
        same_bits(a, b)


def test_a_result_that_backward_needs_may_not_change() -> None:
    x = wrap(np.ones(3, np.float32)).requires_grad_()
    y = Chain.apply(x, program=Program(1, [("Tanh", 0)], [1]))
    with mt.no_grad():
        x.mul_(2)  # which it does not need
        y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_equal_results_are_not_one_array() -> None:
    x = wrap(np.arange(3.0))
    program = Program(1, [("Neg", 0), ("Neg", 0)], [1, 2])
    one, two = Chain.apply(x, program=program)
    assert not np.shares_memory(one._array, two._array)
    same_bits(one, two)


def test_programs_are_values() -> None:
    one, two, other = (Program(2, [("Add", 0, 1), ("Mul", 2, c)], [3]) for c in (0.5, 0.5, 2.0))
    assert one == two
    assert hash(one) == hash(two)
    assert one != other
    assert "Mul" in repr(one)


def test_floats_of_several_types_are_refused() -> None:
    x, y = wrap(np.zeros(3, np.float32)), wrap(np.zeros(3))
    with pytest.raises(RuntimeError, match="chain: expected floats of one type"):
        Chain.apply(x, y, program=Program(2, [("Add", 0, 1)], [2]))


def test_another_number_of_inputs_or_keys_is_refused() -> None:
    x = wrap(np.zeros(3, np.float32))
    with pytest.raises(RuntimeError, match="has 2 inputs and 0 random keys, got 1 and 0"):
        Chain.apply(x, program=Program(2, [("Add", 0, 1)], [2]))
    with pytest.raises(RuntimeError, match="has 1 inputs and 1 random keys, got 1 and 0"):
        Chain.apply(x, program=Program(1, [("Dropout", 0, 0.5, Key(0))], [1]))


def test_every_step_is_an_op() -> None:
    for name in STEPS:
        assert name in OPS
