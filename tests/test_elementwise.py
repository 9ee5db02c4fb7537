"""Ops on each element: edge values, gradients at them, rules and errors; against PyTorch."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitensor as mt
from minitensor import memory
from minitensor.autograd import no_grad
from minitensor.autograd.grad_mode import observe
from minitensor.core import OPS, Observer, Tensor, wrap
from minitensor.ops.elementwise import Binary, Unary
from minitensor.testing import samples

INF, NAN = float("inf"), float("nan")
EDGES = [-INF, -3.0e38, -100.0, -2.5, -2.0, -1.5, -1.0, -0.5, -1e-30, -0.0]
EDGES = [*EDGES, *(-x for x in reversed(EDGES)), NAN, 0.3]
FEW = [-INF, -2.5, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.5, INF, NAN]


def leaf(values: Any, dtype: Any = np.float32) -> Tensor:
    return wrap(np.asarray(values, dtype)).requires_grad_()


def torch_leaf(values: Any, dtype: Any = np.float32) -> Any:
    import torch

    return torch.from_numpy(np.asarray(values, dtype)).requires_grad_()


def agree(mine: Any, theirs: Any, **tolerance: float) -> None:
    """The same values, in shape and type too."""
    mine, theirs = mine.detach()._array, theirs.detach().numpy()
    assert mine.shape == theirs.shape
    assert mine.dtype == theirs.dtype
    settings: Any = dict(rtol=1e-5, atol=1e-7) | tolerance
    np.testing.assert_allclose(mine, theirs, **settings)


def agree_with_gradients(
    f: Any, *operands: Any, dtype: Any = np.float32, **tolerance: float
) -> None:
    """f has the same values and the same gradients here and in PyTorch."""
    import torch

    mine, theirs = [leaf(x, dtype) for x in operands], [torch_leaf(x, dtype) for x in operands]
    y, z = f(mt, *mine), f(torch, *theirs)
    agree(y, z, **tolerance)
    y.sum().backward()
    z.sum().backward()
    for a, b in zip(mine, theirs, strict=True):
        agree(a.grad, b.grad, **tolerance)


UNARY = [
    "abs", "neg", "square", "sign", "reciprocal", "exp", "exp2", "expm1", "log", "log2", "log10",
    "log1p", "sqrt", "rsqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "erf",
    "erfc", "erfinv", "floor", "ceil", "trunc", "round", "frac", "nan_to_num", "relu", "sigmoid",
    "tanh", "negative", "absolute", "arcsin", "arccos", "arctan", "fix",
]  # fmt: skip


@needs_torch
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", UNARY)
def test_functions_at_edge_values(name: str, dtype: Any) -> None:
    values = EDGES
    if name in ("sin", "cos", "tan"):  # of huge angles every library has its own
        values = [x for x in EDGES if not 1e3 < abs(x) < INF]
    agree_with_gradients(lambda m, x: getattr(m, name)(x), values, dtype=dtype)


@needs_torch
@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.float16])
def test_functions_of_other_types(name: str, dtype: Any) -> None:
    import torch

    array = np.asarray([0, 1, 3]).astype(dtype)
    try:
        expected = getattr(torch, name)(torch.from_numpy(array.copy()))
    except (RuntimeError, TypeError, NotImplementedError) as error:
        with pytest.raises(type(error)):
            getattr(mt, name)(wrap(array))
        return
    agree(getattr(mt, name)(wrap(array)), expected, rtol=2e-3)


BINARY = {
    "add": lambda m, a, b: a + b,
    "sub": lambda m, a, b: a - b,
    "mul": lambda m, a, b: a * b,
    "div": lambda m, a, b: a / b,
    "pow": lambda m, a, b: a**b,
    "maximum": lambda m, a, b: m.maximum(a, b),
    "minimum": lambda m, a, b: m.minimum(a, b),
    "atan2": lambda m, a, b: m.atan2(a, b),
    "logaddexp": lambda m, a, b: m.logaddexp(a, b),
    "clamp min": lambda m, a, b: m.clamp(a, min=b),
    "clamp max": lambda m, a, b: m.clamp(a, max=b),
    "lerp": lambda m, a, b: m.lerp(a, b, 0.25),
    "floor": lambda m, a, b: m.div(a, b, rounding_mode="floor"),
    "trunc": lambda m, a, b: m.div(a, b, rounding_mode="trunc"),
    "where": lambda m, a, b: m.where(a > b, a * 2, b * 3),
    "addcmul": lambda m, a, b: m.addcmul(a, b, b, value=2),
    "addcdiv": lambda m, a, b: m.addcdiv(a, a, b, value=2),
}


@needs_torch
@pytest.mark.parametrize("name", BINARY)
def test_two_operands_at_edge_values(name: str) -> None:
    pairs = list(itertools.product(FEW, FEW))
    if name == "lerp":  # inf - inf there is NaN on one way and inf on the other
        pairs = [p for p in pairs if all(map(math.isfinite, p))]
    a, b = zip(*pairs, strict=True)
    agree_with_gradients(BINARY[name], a, b)


@needs_torch
@pytest.mark.parametrize("name", ["remainder", "fmod"])
def test_remainders_at_edge_values(name: str) -> None:
    import torch

    a, b = zip(*itertools.product(FEW, FEW), strict=True)
    agree(getattr(mt, name)(leaf(a), leaf(b)), getattr(torch, name)(torch_leaf(a), torch_leaf(b)))
    agree_with_gradients(lambda m, a, b: getattr(m, name)(a, b), [5.5, -5.5, 7.0], [2.0, 2.0, -3.0])


@needs_torch
@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, 0.5, -1, -2, -0.5, 2.5, 0.0, 1.0])
def test_powers_of_edge_values(exponent: float) -> None:
    agree_with_gradients(lambda m, x: x**exponent, EDGES, rtol=1e-4)


@needs_torch
@pytest.mark.parametrize("base", [0.0, 1.0, 2.0, -2.0, 2, 0, INF])
def test_powers_of_a_number(base: float) -> None:
    agree_with_gradients(lambda m, x: base**x, [-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0], rtol=1e-4)


@needs_torch
def test_numbers_on_both_sides() -> None:
    for number in (2.5, -3.0, 2, True):
        for f in (
            lambda m, x, n=number: n + x,
            lambda m, x, n=number: n * x,
            lambda m, x, n=number: n / x,
            lambda m, x, n=number: x / n,
            lambda m, x, n=number: x % n,
            lambda m, x, n=number: m.where(x > n, x, n),
            lambda m, x, n=number: m.where(x > n, n, x),
            lambda m, x, n=number: m.add(x, n, alpha=3),
            lambda m, x, n=number: m.clamp(x, max=n),
        ):
            agree_with_gradients(f, [-4.0, -1.5, 0.7, 2.2, 6.0])
    agree_with_gradients(lambda m, x: 2.5 - x, [1.0, 2.0])
    agree_with_gradients(lambda m, x: x - 2.5, [1.0, 2.0])
    agree_with_gradients(lambda m, x: m.sub(x, 2.5, alpha=2), [1.0, 2.0])


@needs_torch
@pytest.mark.parametrize(
    "name", ["floor_divide", "remainder", "fmod", "div floor", "div trunc", "pow", "maximum"]
)
def test_integers(name: str) -> None:
    import torch

    for dtype in (np.int64, np.int8, np.uint8):
        values = np.arange(-7, 8).astype(dtype)
        a, b = (x.ravel() for x in np.meshgrid(values, values[values != 0]))
        word, _, mode = name.partition(" ")
        kwargs = dict(rounding_mode=mode) if mode else {}
        if name == "pow":
            b = np.abs(b.astype(np.int64)).astype(dtype) % 5
        agree(
            getattr(mt, word)(wrap(a), wrap(b), **kwargs),
            getattr(torch, word)(torch.from_numpy(a), torch.from_numpy(b), **kwargs),
        )


@needs_torch
def test_integers_to_negative_powers() -> None:
    import torch

    a, b = np.asarray([-2, -1, -1, 0, 1, 2, 3]), np.asarray([-1, -1, -2, 2, -1, -3, 2])
    agree(wrap(a) ** wrap(b), torch.from_numpy(a) ** torch.from_numpy(b))
    with pytest.raises(RuntimeError, match="negative integer powers"):
        wrap(a) ** -1


def test_integer_division_by_zero() -> None:
    x = wrap(np.asarray([1, 2]))
    for f in (lambda: x // 0, lambda: x % 0, lambda: mt.fmod(x, 0)):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            f()
    assert (x / 0).tolist() == [INF, INF]


def test_bools_cannot_be_subtracted_or_negated() -> None:
    x, y = wrap(np.asarray([True, False])), wrap(np.asarray([1.0, 2.0]))
    assert +y is y
    for f in (lambda: x - x, lambda: 1 - x, lambda: x - 1, lambda: y - x, lambda: -x, lambda: +x):
        with pytest.raises(RuntimeError, match="bool"):
            f()
    assert (x + x).tolist() == [True, False]
    assert (~x).tolist() == [False, True]


def test_alpha_of_integers_is_an_integer() -> None:
    x = wrap(np.asarray([1, 2]))
    assert mt.add(x, x, alpha=2).tolist() == [3, 6]
    with pytest.raises(RuntimeError, match="alpha"):
        mt.add(x, x, alpha=1.5)


# Broadcasting, layout and memory


def test_the_factor_may_come_first_as_in_older_code() -> None:
    """Optimisers of old have exp_avg.mul_(beta).add_(1 - beta, grad)."""
    x: Any = mt.tensor([1.0, 2.0])
    y: Any = mt.tensor([3.0, 5.0])
    assert x.clone().add_(2, y).tolist() == mt.add(x, 2, y).tolist() == [7.0, 12.0]
    assert x.clone().sub_(2, y).tolist() == x.sub(2, y).tolist() == [-5.0, -8.0]
    assert x.clone().addcmul_(0.5, y, y).tolist() == [5.5, 14.5]
    assert x.clone().addcdiv_(-1, y, y).tolist() == [0.0, 1.0]
    for call in (
        lambda: x.add(y, 2),
        lambda: x.add(2, 3),
        lambda: x.add(2, y, y),
        lambda: x.addcmul(2, y, y, y),
    ):
        with pytest.raises(TypeError):
            call()


def test_shapes_that_do_not_fit() -> None:
    a, b = leaf(np.ones((2, 3))), leaf(np.ones((4,)))
    for f in (mt.add, mt.mul, mt.lt, mt.maximum, mt.atan2):
        with pytest.raises(RuntimeError, match=r"\(2, ?3\)"):
            f(a, b)


@needs_torch
@pytest.mark.parametrize(
    "shapes", [((2, 3), (3,)), ((), (2, 2)), ((2, 1, 3), (4, 1)), ((0, 3), (1,))]
)
def test_broadcast_gradients(shapes: Any) -> None:
    noise = np.random.RandomState(0)
    a, b = (noise.uniform(0.5, 2, s) for s in shapes)
    for name in ("add", "mul", "div", "pow", "sub", "atan2"):
        agree_with_gradients(BINARY[name], a, b)


def test_a_transposed_operand_keeps_its_order_in_memory() -> None:
    x = wrap(np.arange(6, dtype=np.float32).reshape(2, 3).T)
    for y in (x * 2.0, x + x, x.exp(), -x, x > 1):
        assert y.stride() == (1, 3)
        assert y.shape == (3, 2)


@pytest.mark.parametrize("name", ["add", "mul", "div", "exp", "gt", "maximum", "pow", "clamp"])
def test_large_results_are_right_and_come_from_the_pool(name: str) -> None:
    noise = np.random.RandomState(0)
    a = noise.uniform(0.5, 2, (40, 50, 60)).astype(np.float32)
    b = noise.uniform(0.5, 2, (50, 1)).astype(np.float32)
    assert a.nbytes >= memory.SMALLEST
    functions: dict[str, Any] = {
        "add": (lambda x, y: x + y, np.add),
        "mul": (lambda x, y: x * y, np.multiply),
        "div": (lambda x, y: x / y, np.true_divide),
        "exp": (lambda x, y: x.exp(), lambda p, q: np.exp(p)),
        "gt": (lambda x, y: x > y, np.greater),
        "maximum": (lambda x, y: mt.maximum(x, y), np.maximum),
        "pow": (lambda x, y: x**3, lambda p, q: p * p * p),
        "clamp": (lambda x, y: x.clamp(0.7, 1.2), lambda p, q: p.clip(0.7, 1.2)),
    }
    mine, theirs = functions[name]
    for p, q in ((a, b), (a.transpose(2, 1, 0), b), (a, a)):
        expected = theirs(p, q)
        found = mine(wrap(p), wrap(q))._array
        assert found.dtype == expected.dtype
        tolerance = 5e-7 if name == "exp" else 0  # NumPy's exp is less exact
        np.testing.assert_allclose(found, expected, rtol=tolerance)
        if p.flags.c_contiguous and found.nbytes >= memory.SMALLEST:
            assert found.base is not None


# In place


@needs_torch
def test_in_place_operators() -> None:
    import torch

    for f in (
        "x += y", "x -= y", "x *= y", "x /= y", "x %= 0.7", "x **= 2",
        "x.add_(y, alpha=2)", "x.exp_()", "x.sqrt_()", "x.clamp_(0.6, 1.1)", "x.neg_()", "x.abs_()",
        "x.lerp_(y, 0.3)", "x.addcmul_(y, y, value=2)", "x.addcdiv_(y, y)", "x.round_()",
        "x.masked_fill_(x > 1, 0.5)", "x.div_(y, rounding_mode='floor')", "x.pow_(y)",
        "x.reciprocal_()", "x.log_()", "x.clamp_min_(1)", "x.nan_to_num_()", "x.cumsum_(0)",
    ):  # fmt: skip
        results = []
        for space, make in ((mt, leaf), (torch, torch_leaf)):
            base, y = make([0.5, 0.9, 1.3, 2.0]), make([1.1, 0.4, 0.8, 1.5])
            x = base * 1
            names = {"x": x, "y": y, "m": space}
            exec(f, names)
            assert names["x"] is x
            if x.requires_grad:
                x.sum().backward()
            results.append((x, base.grad, y.grad))
        (x, *mine), (z, *theirs) = results
        agree(x, z)
        for a, b in zip(mine, theirs, strict=True):
            assert (a is None) == (b is None), f
            if a is not None:
                agree(a, b, atol=1e-6)


def test_in_place_on_a_leaf() -> None:
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match="leaf"):
        x += 1
    with no_grad():
        x += 1
        x.mul_(2)
    assert x.tolist() == [4, 6]
    assert x.grad_fn is None


def test_in_place_of_the_wrong_shape_or_type() -> None:
    x = wrap(np.ones(3, np.float32))
    with pytest.raises(RuntimeError, match="broadcast"):
        x += wrap(np.ones((2, 3), np.float32))
    i = wrap(np.ones(3, np.int64))
    for f in (lambda: i.add_(1.5), lambda: i.div_(2), lambda: i.exp_()):
        with pytest.raises(RuntimeError, match="can't be cast"):
            f()
    b = wrap(np.asarray([True, False]))
    b &= wrap(np.asarray([True, True]))
    b |= False
    b ^= True
    assert b.tolist() == [False, True]


def test_a_saved_operand_changed_since() -> None:
    x = leaf([1.0, 2.0])
    y = x * 2
    z = y * y
    y += 1
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        z.sum().backward()


# Choosing


@needs_torch
def test_masked_fill() -> None:
    import torch

    mask = np.asarray([[True, False, True], [False, False, True]])
    for value in (0.0, -INF, 3, True):
        agree_with_gradients(
            lambda m, x, v=value: x.masked_fill(
                wrap(mask) if m is mt else torch.from_numpy(mask), v
            ),
            np.arange(6.0).reshape(2, 3),
        )
    x, v = leaf([[1.0, 2.0, 3.0]]), leaf(5.0)
    y = x.masked_fill(wrap(mask), v)
    assert y.tolist() == [[5, 2, 5], [1, 2, 5]]
    y.sum().backward()
    assert x.grad is not None
    assert v.grad is not None
    assert x.grad.tolist() == [[1, 2, 0]]
    assert v.grad.item() == 3
    with no_grad(), pytest.raises(RuntimeError, match="shape"):
        x.masked_fill_(wrap(mask), 0.0)
    i = wrap(np.asarray([1, 2]))
    two = wrap(np.asarray([True, False]))
    assert i.masked_fill(two, 2.9).tolist() == [2, 2]
    for wrong, error in ((-INF, RuntimeError), (NAN, RuntimeError), (2.0**70, RuntimeError)):
        with pytest.raises(error, match="overflow"):
            i.masked_fill(two, wrong)
    with pytest.raises(RuntimeError, match="overflow"):
        i.half().masked_fill(two, 1e9)
    assert i.half().masked_fill(two, -INF).tolist() == [-INF, 2]
    with pytest.raises(RuntimeError, match="boolean"):
        x.masked_fill(wrap(mask.astype(np.uint8)), 0.0)
    with pytest.raises(RuntimeError, match="0-dim"):
        x.masked_fill(wrap(mask), wrap(np.ones(1)))
    with pytest.raises(TypeError):
        x.masked_fill(wrap(mask), None)
    with pytest.raises(TypeError):
        x.masked_fill(mask, 1.0)  # type: ignore[arg-type]


@needs_torch
def test_where_forms() -> None:
    import torch

    c = np.asarray([True, False])
    mine, theirs = wrap(c), torch.from_numpy(c)
    f32, f64 = np.ones(2, np.float32), np.ones(2)
    i64, zero = np.ones(2, np.int64), np.float64(1)
    for a, b in itertools.product([f32, f64, i64, zero, c, 1, 2.5, True], repeat=2):
        x, y = (
            wrap(np.asarray(v)) if isinstance(v, np.ndarray | np.generic) else v for v in (a, b)
        )
        u, v = (
            torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray | np.generic) else v
            for v in (a, b)
        )
        agree(mt.where(mine, x, y), torch.where(theirs, u, v))  # type: ignore[call-overload]
    agree(wrap(f32).where(mine, 0), torch.from_numpy(f32).where(theirs, 0))
    assert [t.tolist() for t in mt.where(mine)] == [[0]]
    with pytest.raises(RuntimeError, match="bool"):
        mt.where(wrap(i64), 1, 2)


def test_where_leaks_nan_of_the_other_branch() -> None:
    x = leaf([0.0, 4.0])
    mt.where(x > 0, x.sqrt(), 0.0).sum().backward()
    assert x.grad is not None
    assert math.isnan(x.grad._array[0])
    assert x.grad._array[1] == 0.25


@needs_torch
def test_clamp() -> None:
    agree_with_gradients(lambda m, x: x.clamp(-1, 1), EDGES)
    agree_with_gradients(lambda m, x: x.clamp(2, 1), FEW)
    agree_with_gradients(lambda m, x: x.clip(min=0.5), FEW)
    a, b, c = zip(
        *itertools.product([-1.0, 0.0, 2.0, NAN], [-1.0, 0.0, 1.0], [-1.0, 1.0]), strict=True
    )
    agree_with_gradients(lambda m, x, low, high: m.clamp(x, low, high), a, b, c)
    agree_with_gradients(lambda m, x: m.clamp_min(x, 0.0) + m.clamp_max(x, 1.0), FEW)


@needs_torch
def test_closeness() -> None:
    import torch

    a = np.asarray([1.0, 1.0, INF, -INF, NAN, 0.0, 1e10])
    b = np.asarray([1.0 + 1e-6, 1.1, INF, INF, NAN, 1e-9, 1.00001e10])
    for kwargs in ({}, dict(rtol=0.2), dict(atol=1.0, rtol=0.0), dict(equal_nan=True)):
        found = mt.isclose(wrap(a), wrap(b), **kwargs)
        expected = torch.isclose(torch.from_numpy(a), torch.from_numpy(b), **kwargs)
        assert found.tolist() == expected.tolist()
    assert mt.allclose(wrap(a[:1]), wrap(b[:1]))
    assert wrap(a).allclose(wrap(b)) is False
    assert mt.equal(wrap(a[:4]), wrap(a[:4].copy())) is True
    assert mt.equal(wrap(a), wrap(a)) is False  # NaN
    assert mt.equal(wrap(np.ones(2)), wrap(np.ones(3))) is False
    assert wrap(np.ones(2)).equal(wrap(np.ones(2, np.int64))) is True
    with pytest.raises(RuntimeError):
        mt.allclose(wrap(np.ones(2)), wrap(np.ones(3)))


def test_comparisons_have_no_gradient() -> None:
    x = leaf([1.0, 2.0])
    for y in (x > 1, x == x, x.isnan(), mt.logical_and(x, x), x.bool()):
        assert not y.requires_grad
        assert y.dtype == np.bool_


def test_tensors_can_be_keys_and_compared() -> None:
    x = leaf([1.0, 2.0])
    assert {x: 1}[x] == 1
    assert (x == x).all()
    assert x.not_equal(2).tolist() == [True, False]


# Accuracy, and silence


def test_erf_is_accurate() -> None:
    x = np.concatenate([np.linspace(-6, 6, 4001), np.logspace(-30, 1, 500)])
    for f, exact in ((mt.erf, math.erf), (mt.erfc, math.erfc)):
        expected = np.asarray([exact(v) for v in x])
        np.testing.assert_allclose(f(wrap(x))._array, expected, rtol=1e-14)
        single = x.astype(np.float32)
        expected = np.asarray([exact(v) for v in single.astype(np.float64)])
        np.testing.assert_allclose(f(wrap(single))._array, expected, rtol=3e-7, atol=1e-38)
    assert mt.erf(wrap(np.zeros((2, 0, 3)))).shape == (2, 0, 3)
    assert mt.erf(wrap(np.asarray(0.5))).shape == ()


@needs_torch
def test_erfinv_is_accurate() -> None:
    import torch

    small = np.logspace(-300, -0.001, 2000)
    x = np.concatenate([small, -small, 1 - np.logspace(-15.5, -0.5, 500), [0, 1, -1, 1.5, NAN]])
    expected = torch.erfinv(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(mt.erfinv(wrap(x))._array, expected, rtol=2e-14)


def test_no_warnings() -> None:
    x = leaf([0.0, -1.0, 1e30])
    y = (x.log() + x / 0 + x.sqrt() + x * 1e30 + x**-1 + x.exp() + (x * INF - x * INF)).sum()
    y.backward()
    assert math.isnan(y.item())
    x.long()
    leaf([NAN, INF]).int()


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
    st.floats(-1e3, 1e3, width=32).filter(lambda x: abs(x) > 1e-3),
)
def test_floor_division_and_remainder_belong_together(values: list[float], divisor: float) -> None:
    x = wrap(np.asarray(values, np.float64))
    quotient, rest = x // divisor, x % divisor
    np.testing.assert_allclose((quotient * divisor + rest)._array, x._array, rtol=1e-9, atol=1e-6)
    assert np.all(rest._array * np.sign(divisor) >= 0)
    assert np.all(np.abs(rest._array) <= abs(divisor))


def test_a_small_unsigned_type_divides_by_a_negative_number() -> None:
    """Both become floats first: -2 has no place in uint8."""
    x = mt.tensor([1, 2], dtype=mt.uint8)
    assert (x / -2).tolist() == [-0.5, -1.0]
    assert mt.atan2(x, mt.tensor(-1)).tolist() == mt.atan2(x.float(), mt.tensor(-1.0)).tolist()


def test_a_mask_may_be_of_the_type_that_masks_had() -> None:
    mask = mt.tensor([1, 0], dtype=mt.uint8)
    assert mt.where(mask, 1.0, 2.0).tolist() == [1, 2]


def test_random_numbers_like_a_transposed_tensor_lie_in_its_order_of_memory() -> None:
    mt.manual_seed(0)
    x = mt.rand_like(mt.ones(2, 3).t())
    mt.manual_seed(0)
    assert (x.t() == mt.rand(2, 3)).all()
    assert x.stride() == (1, 3)


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "erf", "expm1", "log1p"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_element_is_computed_alike_in_a_small_and_in_a_large_tensor(
    name: str, dtype: Any
) -> None:
    x = np.linspace(0.01, 3, 5003).astype(dtype)  # more than a chunk
    function = getattr(mt, name)
    large, small = function(mt.tensor(x)), function(mt.tensor(x[:7]))
    # Not the same bits: a loop's last elements may be computed by other instructions.
    np.testing.assert_allclose(small._array, large._array[:7], rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("size", [1, 3, 1 << 17])
def test_gradients_are_the_same_whether_they_are_recorded_or_not(size: int) -> None:
    def gradients(create_graph: bool) -> tuple[mt.Tensor, ...]:
        x = mt.linspace(0.5, 2, size).requires_grad_()
        y = mt.tensor(1.5, requires_grad=True)
        z = ((x * y - y / x) ** 3 - x.exp() * y.tanh() + x.sigmoid().sqrt() - 2 / y).relu()
        return mt.autograd.grad(z.sum(), [x, y], create_graph=create_graph)

    for plain, recorded in zip(gradients(False), gradients(True), strict=True):
        assert not plain.requires_grad
        assert recorded.requires_grad
        assert plain.shape == recorded.shape
        np.testing.assert_allclose(plain._array, recorded.detach()._array, rtol=1e-5)


def test_a_small_gradient_notices_a_change_in_place() -> None:
    x, y = mt.ones(3, requires_grad=True), mt.ones(3)
    z = (x * y).sum()
    y += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_a_tensor_and_its_detached_twin_get_gradients_of_their_own() -> None:
    x = mt.tensor([2.0, 3.0], requires_grad=True)
    (g,) = mt.autograd.grad((x * x.detach()).sum(), [x], create_graph=True)
    assert g.tolist() == [2.0, 3.0]
    assert not g.requires_grad


def test_erfinv_of_known_values() -> None:
    x = [0.0, 1e-10, 0.25, 0.5, -0.5, 0.9, 0.999999, 1.0, -1.0, 1.5]
    y = [
        0.0,
        8.862269254527581e-11,
        0.22531205501217808,
        0.4769362762044699,
        -0.4769362762044699,
        1.1630871536766743,
        3.4589107372795,
        np.inf,
        -np.inf,
        np.nan,
    ]
    np.testing.assert_allclose(mt.tensor(x, dtype=mt.float64).erfinv()._array, y, rtol=1e-11)


def test_cross_broadcasts_its_operands() -> None:
    a, b = mt.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), mt.tensor([[0.0, 0.0, 1.0]])
    assert a.cross(b, 1).tolist() == [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]


ELEMENTWISE = sorted(name for name in OPS if issubclass(OPS[name], Unary | Binary))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_short_way_to_run_an_op_leaves_the_same_node_as_the_long_one(name: str) -> None:
    class Nobody(Observer):
        """Sees the ops, which makes them run the long way."""

    op = OPS[name]
    for args, kwargs in samples(op, np.float32):
        short = op.call(*args, **kwargs)
        with observe(Nobody()):
            long = op.call(*args, **kwargs)
        assert np.array_equal(short._array, long._array, equal_nan=True)
        assert (short._array.dtype, short.requires_grad) == (long._array.dtype, long.requires_grad)
        assert (short.grad_fn is None) == (long.grad_fn is None)
        if short.grad_fn is not None:
            a, b = short.grad_fn, long.grad_fn
            assert type(a) is type(b)
            assert list(map(type, a.edges)) == list(map(type, b.edges))
            pairs = zip(a.edges, b.edges, strict=True)
            assert all(e is f for e, f in pairs if isinstance(e, Tensor))
            assert list(a.output_meta) == list(b.output_meta)
            assert list(map(type, a._saved.values)) == list(map(type, b._saved.values))
            assert [o and o[1:] for o in a._saved.origins] == [
                o and o[1:] for o in b._saved.origins
            ]


def test_an_op_run_the_short_way_says_where_it_failed() -> None:
    with pytest.raises(RuntimeError, match=r"add: .*\(2,\).*\(3,\)"):
        mt.ones(2) + mt.ones(3)
