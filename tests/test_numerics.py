"""Errors of float32 results, in units in the last place (ulp) of the exact ones.

    python tests/test_numerics.py                 the table: function, our largest error, PyTorch's
    python tests/test_numerics.py --all exp log   over all 2^32 numbers, by default the four
    python tests/test_numerics.py --stride 7      over every seventh

The exact values are float64's, whose own error is some 1e-9 of a float32 ulp; mpmath checks them.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minitensor as mt
import minitensor.nn.functional as F
from minitensor.core import Tensor, wrap
from minitensor.kernels import special
from minitensor.kernels.jit import COMPILED

Exact = Callable[[np.ndarray], np.ndarray]  # float64 -> float64
LEAST, MOST = 2.0**-149, float(np.finfo(np.float32).max)


# The exact values


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return x * _sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))


class Function:
    """A function of each element: ours, PyTorch's, in float64 and of a number of mpmath.

    `bound` is the largest error allowed, in ulp; beyond `least` for what ends in a tail that the
    argument's own rounding blurs.
    """

    def __init__(self, exact: Exact, mp: str, bound: float, least: float = -math.inf) -> None:
        self.exact, self.mp, self.bound, self.least = exact, mp, bound, least


FUNCTIONS = {
    "exp": Function(np.exp, "exp(x)", 1),
    "log": Function(np.log, "log(x)", 0.9),
    "tanh": Function(np.tanh, "tanh(x)", 0.95),
    "erf": Function(special.erf, "erf(x)", 1),
    "sigmoid": Function(_sigmoid, "1 / (1 + exp(-x))", 2.25),
    "silu": Function(lambda x: x * _sigmoid(x), "x / (1 + exp(-x))", 2.3),
    "gelu": Function(
        lambda x: x * special.erfc(-x * math.sqrt(0.5)) / 2,
        "x * erfc(-x / sqrt(2)) / 2",
        7.5,
        -2,
    ),
    "gelu_tanh": Function(
        _gelu_tanh,
        "x / (1 + exp(-sqrt(8 / pi) * (x + 0.044715 * x**3)))",
        7,
        -2,
    ),
    "softplus": Function(_softplus, "log1p(exp(x))", 1.65),
    "logsigmoid": Function(lambda x: -_softplus(-x), "-log1p(exp(-x))", 1.65),
    "log1p": Function(np.log1p, "log1p(x)", 1.45),
    "expm1": Function(np.expm1, "expm1(x)", 1.5),
    "erfc": Function(special.erfc, "erfc(x)", 0.501),
    "rsqrt": Function(lambda x: 1 / np.sqrt(x), "1 / sqrt(x)", 1.5),
    "sqrt": Function(np.sqrt, "sqrt(x)", 0.501),
}
FOUR = ("exp", "log", "tanh", "erf")
MP_NAMES = ("exp", "log", "tanh", "erf", "erfc", "sqrt", "log1p", "expm1", "pi")
INSIDE = ("silu", "gelu", "gelu_tanh", "softplus", "logsigmoid")  # nn.functional


def library(torch: bool) -> tuple[Any, Any, Callable[[np.ndarray], Any]]:
    """A library, its nn.functional, and what makes an array a tensor of it."""
    if not torch:
        return mt, F, wrap
    import torch as lib

    return lib, lib.nn.functional, lib.from_numpy


def evaluate(name: str, x: np.ndarray, torch: bool = False) -> np.ndarray:
    """A function of FUNCTIONS on an array."""
    lib, functional, tensor = library(torch)
    if name == "gelu_tanh":
        y = functional.gelu(tensor(x), approximate="tanh")
    else:
        y = getattr(functional if name in INSIDE else lib, name)(tensor(x))
    return np.asarray(y.numpy())


def ulps(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|y - exact| in float32 units in the last place of `exact`; inf for a NaN or inf amiss."""
    with np.errstate(all="ignore"):
        size = np.abs(exact)
        unit = np.ldexp(1.0, np.maximum(np.frexp(size)[1] - 24, -149))
        error = np.abs(y.astype(np.float64) - exact) / unit
        error = np.where(y == exact, 0, error)  # infinities
        over = size > MOST * (1 + 2.0**-25)  # rounds to inf
        error = np.where(over, np.where(y == np.sign(exact) * np.inf, 0, np.inf), error)
        error = np.where(np.isnan(exact), np.where(np.isnan(y), 0, np.inf), error)
    return np.where(np.isnan(error), np.inf, error)


def every(stride: int, start: int = 0) -> np.ndarray:
    """Every `stride`-th float32 by its bits: subnormal, infinite and NaN ones too."""
    return np.arange(start, 2**32, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)


def hard_points() -> np.ndarray:
    """Return points around changes of method, limits, signed zeros, and 1e-45 to 1e38."""
    powers = 10.0 ** np.arange(-45, 39)
    places = [0.5, 0.9, 1, math.sqrt(2), 0.9 * math.sqrt(2), 1.5, 3.92, 3.95, 10, 16.6, 17, 20, 40]
    places += [
        87.1,
        87.34,
        88.72,
        88.7228394,
        88.73,
        89,
        103.27,
        103.97,
        104,
        110,
        176.2,
        2.0**-126,
    ]
    around = np.concatenate([np.array(places) * (1 + k * 2.0**-24) for k in range(-8, 9)])
    x = np.concatenate([[0, np.inf, MOST, LEAST], powers, around, math.log(2) / 2 * np.arange(300)])
    x = x.astype(np.float32)
    return np.concatenate([x, -x, np.array([np.nan], np.float32)])


def largest_error(
    name: str, x: np.ndarray, torch: bool = False, all_of_it: bool = False
) -> tuple[float, float]:
    """The largest error in ulp, and where it is."""
    function = FUNCTIONS[name]
    if not all_of_it:
        x = x[~(x < function.least)]
    with np.errstate(all="ignore"):  # NaN that signals too
        error = ulps(evaluate(name, x, torch), function.exact(x.astype(np.float64)))
    worst = int(error.argmax())
    return float(error[worst]), float(x[worst])


SAMPLE = np.concatenate([every(40009 if COMPILED else 4000037), hard_points()])
BUSY = np.random.RandomState(0).uniform(-20, 20, 200_000 if COMPILED else 2000).astype(np.float32)
needs_compiled = pytest.mark.skipif(not COMPILED, reason="NumPy's functions: nothing is compiled")
HAS_TORCH = importlib.util.find_spec("torch") is not None


# Functions


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_largest_error_is_bounded(name: str) -> None:
    """`pytest -s` prints it beside PyTorch's."""
    x = np.concatenate([SAMPLE, BUSY])
    error, where = largest_error(name, x)
    reported = f"{largest_error(name, x, True)[0]:.3g}" if HAS_TORCH else "not installed"
    print(f"\n{name}: {error:.3g} ulp at {where:.9g}, PyTorch {reported}", end="")
    assert error <= (FUNCTIONS[name].bound if COMPILED else 60), where


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_exact_values_are_those_of_mpmath(name: str) -> None:
    mp = pytest.importorskip("mpmath")
    function = FUNCTIONS[name]
    some = np.random.RandomState(1).permutation(SAMPLE)[:300]
    x = np.concatenate([some, BUSY[:100], hard_points()[::5]])
    x = x[np.isfinite(x)].astype(np.float64)
    x = x[np.abs(x) < 1e6]
    with np.errstate(all="ignore"):
        y = function.exact(x)
    names = {n: getattr(mp, n) for n in MP_NAMES}
    with mp.workdps(60):
        for value, found in zip(x[np.isfinite(y)], y[np.isfinite(y)], strict=True):
            expected = eval(function.mp, {"x": mp.mpf(float(value)), **names})
            unit = max(abs(expected) * mp.mpf(2) ** -24, mp.mpf(LEAST))
            assert abs(expected - mp.mpf(float(found))) < 1e-4 * unit, value


@needs_compiled
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh"])
def test_the_negative_tail_of_gelu_keeps_its_digits(name: str) -> None:
    """Only the rounding of x^2 in the exponent costs accuracy: at most about x^2 ulp."""
    x = np.linspace(-13, -1, 100_001, dtype=np.float32)
    error = ulps(evaluate(name, x), FUNCTIONS[name].exact(x.astype(np.float64)))
    cube = np.abs(x) ** 3 if name == "gelu_tanh" else 0
    normal = np.abs(evaluate(name, x)) > 2.0**-120
    assert (error[normal] < (6 + x * x + 0.3 * cube)[normal]).all()


ODD: tuple[str, ...] = (
    "tanh",
    "erf",
    "sin",
    "sinh",
    "asin",
    "atan",
    "tan",
    "expm1",
    "log1p",
    "erfinv",
)
ODD += ("sqrt", "round", "floor", "ceil", "trunc", "relu", "gelu", "silu", "gelu_tanh")
ODD_IN_NN = ("elu", "celu", "selu", "leaky_relu", "hardtanh", "relu6", "mish")


@pytest.mark.parametrize("size", [1, 7, 3000])
@pytest.mark.parametrize("name", ODD + ODD_IN_NN)
def test_the_sign_of_zero_is_kept(name: str, size: int) -> None:
    for dtype in (np.float32, np.float64):
        for zero in (0.0, -0.0):
            x = np.full(size, zero, dtype)
            if name in ODD_IN_NN:
                y = getattr(F, name)(wrap(x)).numpy()
            else:
                y = evaluate(name, x)
            assert (y == 0).all()
            assert (np.signbit(y) == np.signbit(x)).all()


def test_tails_are_kept() -> None:
    """Numbers below the normal ones are as PyTorch's or nearer; it ends some of them sooner."""
    x = np.array([-87.1, -88, -90, -100, -103], np.float32)
    exact = np.exp(x.astype(np.float64))
    tolerance: Any = dict(rtol=5e-7, atol=0.75 * LEAST)
    np.testing.assert_allclose(evaluate("exp", x), exact, **tolerance)
    np.testing.assert_allclose(evaluate("sigmoid", x), exact, **tolerance)
    np.testing.assert_allclose(
        evaluate("silu", x), x * exact, **tolerance if COMPILED else dict(rtol=0.3)
    )
    rows = np.stack([np.zeros_like(x), x], 1)
    np.testing.assert_allclose(F.softmax(wrap(rows), 1).numpy()[:, 1], exact, **tolerance)


@pytest.mark.parametrize(
    "name", ["exp", "expm1", "log", "log1p", "erf", "erfc", "tanh", "silu", "logsigmoid"]
)
def test_any_number_of_threads_and_any_place_gives_the_same(name: str) -> None:
    x = BUSY
    before = mt.get_num_threads()
    whole = evaluate(name, x)
    try:
        mt.set_num_threads(1)
        np.testing.assert_array_equal(evaluate(name, x), whole)
    finally:
        mt.set_num_threads(before)
    np.testing.assert_array_equal(evaluate(name, np.array(x[0])), whole[0])
    for i in (0, 5, len(x) - 1):
        np.testing.assert_array_equal(evaluate(name, x[i : i + 1]), whole[i : i + 1])
    np.testing.assert_array_equal(evaluate(name, x[::-2]), whole[::-2])


# Rows


def rows() -> dict[str, np.ndarray]:
    """Rows of all kinds, narrow and wide."""
    rand = np.random.RandomState(2)
    found: dict[str, np.ndarray] = {}
    for cols in (5, 200):
        x = rand.standard_normal((64, cols)).astype(np.float32)
        found[f"normal {cols}"] = x
        found[f"spread {cols}"] = x * 30
        found[f"constant {cols}"] = np.broadcast_to(x[:, :1] * 50, x.shape).copy()
        found[f"large {cols}"] = np.float32(3e38) * np.sign(x)
        masked = np.where(x > 0, -np.inf, x).astype(np.float32)
        masked[:, 0] = 0
        found[f"masked {cols}"] = masked
        found[f"masked by a number {cols}"] = np.where(x > 0, np.float32(-1e9), x)
        found[f"subnormal {cols}"] = x * np.float32(1e-40)
    return found


def softmax_error(x: np.ndarray, log: bool, torch: bool = False) -> float:
    """The largest error along rows, in ulp.

    It is of the differences x - max(x) as they round in float32.
    """
    _, functional, tensor = library(torch)
    y = (functional.log_softmax if log else functional.softmax)(tensor(x), 1).numpy()
    with np.errstate(over="ignore"):
        e = (x - x.max(1, keepdims=True)).astype(np.float64)
    total = np.exp(e).sum(1, keepdims=True)
    exact = e - np.log(total) if log else np.exp(e) / total
    if log:  # a difference of e and log(total): in ulp of 1 where it is less
        size = np.maximum(np.where(np.isinf(e), 1, np.abs(exact)), 1).astype(np.float32)
        with np.errstate(invalid="ignore"):
            return float((np.where(y == exact, 0, np.abs(y - exact)) / np.spacing(size)).max())
    return float(ulps(y, exact).max())


ROW_BOUNDS = {False: 2, True: 1.2}  # PyTorch: 3.5, 1.4


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("kind", rows())
def test_rows_of_softmax(kind: str, log: bool) -> None:
    with np.errstate(all="ignore"):
        assert softmax_error(rows()[kind], log) <= ROW_BOUNDS[log] + (0 if COMPILED else 3)


@pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
def test_rows_without_a_finite_maximum_are_nan(function: Any) -> None:
    for bad in ([-np.inf] * 3, [0, np.inf, 1], [0, np.nan, 1]):
        assert np.isnan(function(mt.tensor([bad, [1.0, 2.0, 3.0]]), 1).numpy()).tolist() == [
            [True] * 3,
            [False] * 3,
        ]


@pytest.mark.parametrize("scale", [1e-38, 1.0, 1e15])
def test_rows_of_attention(scale: float) -> None:
    """Weights of scores that are tiny, common and huge; a row without keys is 0."""
    rand = np.random.RandomState(3)
    q, k, v = (rand.standard_normal((1, 2, 6, 8)).astype(np.float32) for _ in range(3))
    q *= np.float32(scale)
    mask = rand.random_sample((6, 6)) > 0.3
    mask[2] = False
    y = F.scaled_dot_product_attention(wrap(q), wrap(k), wrap(v), attn_mask=wrap(mask)).numpy()
    t = (q.astype(np.float64) @ k.astype(np.float64).swapaxes(2, 3)) / math.sqrt(8)
    t = np.where(mask, t, -np.inf)
    with np.errstate(invalid="ignore"):
        e = np.nan_to_num(np.exp(t - t.max(3, keepdims=True)))
    p = e / np.maximum(e.sum(3, keepdims=True), 1e-300)
    np.testing.assert_allclose(y, p @ v, rtol=1e-5, atol=2e-6)
    assert (y[:, :, 2] == 0).all()


# Norms

SCALES = {
    "float32": [1e38, 1e30, 1e20, 1.0, 1e-20, 1e-30, 1e-42],
    "float64": [1e307, 1e-200, 1e-310],
}
CASES = [(d, s) for d, scales in SCALES.items() for s in scales]


@pytest.mark.parametrize("eps", [1e-5, 0.0])
@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize(("dtype", "scale"), CASES)
def test_norms_neither_overflow_nor_underflow(
    dtype: str, scale: float, centre: bool, eps: float
) -> None:
    """Forward and backward, against long double."""
    rand = np.random.RandomState(4)
    x = (rand.uniform(-1, 1, (3, 7)) * scale).astype(dtype)
    dy = rand.standard_normal((3, 7)).astype(dtype)
    w = rand.standard_normal(7).astype(dtype)
    wide, g = x.astype(np.longdouble), (dy * w).astype(np.longdouble)
    deviation = wide - wide.mean(1, keepdims=True) if centre else wide
    rstd = 1 / np.sqrt((deviation * deviation).mean(1, keepdims=True) + np.longdouble(eps))
    n = deviation * rstd
    dx = g - (g.mean(1, keepdims=True) if centre else 0) - n * (g * n).mean(1, keepdims=True)
    dx *= rstd

    a, b = wrap(x).requires_grad_(), wrap(w).requires_grad_()
    if centre:
        y = F.layer_norm(a, (7,), b, eps=eps)
    else:
        y = F.rms_norm(a, (7,), b, eps=eps)
    y.backward(wrap(dy))
    unit = float(np.finfo(dtype).eps)
    tiny = float(np.finfo(dtype).smallest_subnormal)

    def close(found: Any, exact: np.ndarray, factor: float) -> None:
        with np.errstate(over="ignore"):
            rounded = exact.astype(dtype)
        size = float(min(np.abs(exact).max(), np.finfo(dtype).max))
        tolerance = factor * unit * size + 8 * tiny * abs(1 if size < 1 else size)
        np.testing.assert_allclose(found, rounded, rtol=0, atol=tolerance)

    blur = (
        1000 if scale < float(np.finfo(dtype).tiny) else 1
    )  # x has lost digits in long double too
    close(y.detach().numpy(), n * w, 12 * blur)
    close(a.grad.numpy(), dx, 16 * blur)
    close(b.grad.numpy(), (dy * n).sum(0), 16 * blur)


@pytest.mark.parametrize("value", [0.1, 1.0, -3e38, 1e20, 1e-30, 0.0])
def test_a_constant_row_is_normal(value: float) -> None:
    x = mt.full((2, 7), value, requires_grad=True)
    y = F.layer_norm(x, (7,))
    assert np.abs(y.detach().numpy()).max() < 1e-5
    y.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()
    z = F.rms_norm(mt.full((2, 7), value), (7,), eps=1e-38 if abs(value) < 1e-10 else None)
    expected = 0 if value == 0 else math.copysign(1, value)
    np.testing.assert_allclose(
        z.numpy(), expected, rtol=1e-5 if value != 1e-30 else 1
    )  # eps has its part


def test_rms_norm_of_large_numbers_is_one() -> None:
    assert (F.rms_norm(mt.full((2, 4), 1e20), (4,)).numpy() == 1).all()


@pytest.mark.parametrize("scale", [1e38, 1e30, 1e-30, 1e-42])
def test_std_and_clipping_of_large_and_small_numbers(scale: float) -> None:
    x = np.array([1, 2, 3, -0.5], np.float32) * np.float32(scale)
    exact = x.astype(np.float64).std(ddof=1)
    np.testing.assert_allclose(wrap(x).std().item(), exact, rtol=1e-6, atol=LEAST)
    p = mt.zeros(4, requires_grad=True)
    p.grad = wrap(x / 4)
    norm = mt.nn.utils.clip_grad_norm_([p], 1e30)
    np.testing.assert_allclose(norm.item(), np.linalg.norm((x / 4).astype(float)), 1e-6, LEAST)


# Gradients

SLOPES = {
    "sigmoid": "exp(-abs(x)) / (1 + exp(-abs(x)))**2",
    "tanh": "4 * exp(-2 * abs(x)) / (1 + exp(-2 * abs(x)))**2",
    "erf": "2 / sqrt(pi) * exp(-x * x)",
    "exp": "exp(x)",
    "log": "1 / x",
    "silu": "(1 + exp(-x) + x * exp(-x)) / (1 + exp(-x))**2",
    "gelu": "erfc(-x / sqrt(2)) / 2 + x * exp(-x * x / 2) / sqrt(2 * pi)",
    "gelu_tanh": "1 / (1 + exp(-w)) + x * exp(-w) / (1 + exp(-w))**2 * sqrt(8 / pi) "
    "* (1 + 0.134145 * x * x)",
    "softplus": "1 / (1 + exp(-x))",
    "logsigmoid": "1 / (1 + exp(x))",
}


@pytest.mark.parametrize("name", SLOPES)
def test_gradients_at_extremes_are_finite_and_right(name: str) -> None:
    mp = pytest.importorskip("mpmath")
    x = np.array(
        [0, -0.0, 1e-45, 1e-30, 0.3, 1, 3, 6, 9, 12, 15, 20, 50, 87, 89, 95, 1e3, 1e9], np.float32
    )
    x = np.concatenate([x, -x, np.array([1e20, -1e20, 1e37, -1e37], np.float32)])
    if name == "log":
        x = x[x > 1e-37]
    if name == "exp":
        x = x[x < 88]
    a = wrap(x).requires_grad_()
    lib = F if name in INSIDE else mt
    if name == "gelu_tanh":
        y = F.gelu(a, approximate="tanh")
    else:
        y = getattr(lib, name)(a)
    y.sum().backward()
    found = a.grad.numpy()
    names = {n: getattr(mp, n) for n in MP_NAMES}
    with mp.workdps(60):
        for value, slope in zip(x.tolist(), found.tolist(), strict=True):
            v = mp.mpf(value)
            w = mp.sqrt(8 / mp.pi) * (v + mp.mpf("0.044715") * v**3)
            expected = float(eval(SLOPES[name], {"x": v, "w": w, "abs": abs, **names}))
            size = abs(expected) if name in ("exp", "log", "erf") else max(1.0, abs(expected))
            tolerance = (3e-5 if name == "erf" else 5e-7) * size + 2 * LEAST
            assert abs(slope - expected) <= tolerance, value


def test_the_tails_of_gradients_keep_their_digits() -> None:
    """A gradient that is not a difference of larger numbers is right to a few ulp."""
    x = np.array([-10, -50, -80, -87], np.float32)
    for name in ("sigmoid", "silu", "softplus"):
        a = wrap(x).requires_grad_()
        getattr(F if name in INSIDE else mt, name)(a).sum().backward()
        e = np.exp(x.astype(np.float64))
        factor = (1 + e + x * 1.0) / (1 + e) ** 2 if name == "silu" else 1 / (1 + e)
        factor = factor / (1 + e) if name == "sigmoid" else factor
        np.testing.assert_allclose(a.grad.numpy(), e * factor, rtol=1e-6)


@pytest.mark.parametrize("log", [False, True])
def test_gradients_of_softmax_at_extremes(log: bool) -> None:
    x = np.array(
        [[0, -80, -95, -200], [3e38, -3e38, 0, 1], [5, 5, 5, 5], [0, -np.inf, 1, 2]], np.float32
    )
    dy = np.array([[1, 2, 3, 4]] * 4, np.float32)
    a = wrap(x).requires_grad_()
    (F.log_softmax if log else F.softmax)(a, 1).backward(wrap(dy))
    wide = x.astype(np.float64)
    e = np.exp(wide - wide.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    d = dy.astype(np.float64)
    exact = d - p * d.sum(1, keepdims=True) if log else p * (d - (d * p).sum(1, keepdims=True))
    np.testing.assert_allclose(a.grad.numpy(), exact, rtol=1e-5, atol=2e-6 if log else 4 * LEAST)


# Python numbers

INDEX = mt.tensor([0, 1])
WITH_A_NUMBER: dict[str, Callable[[Tensor, float], Tensor]] = {
    "index_fill": lambda x, v: mt.index_fill(x, 0, INDEX, v),
    "index_fill_": lambda x, v: x.clone().index_fill_(0, INDEX, v),
    "fill_": lambda x, v: x.clone().fill_(v),
    "full": lambda x, v: mt.full((2,), v, dtype=mt.float64),
    "full_like": mt.full_like,
    "new_full": lambda x, v: x.new_full((2,), v),
    "masked_fill": lambda x, v: x.masked_fill(x > 0, v),
    "where": lambda x, v: mt.where(x > 9, x, v),
    "clamp": lambda x, v: (x * math.inf).clamp(None, v),
    "pad": lambda x, v: F.pad(x, (0, 2), value=v)[2:],
    "scatter": lambda x, v: mt.scatter(x, 0, INDEX, v),
    "add": lambda x, v: x * 0 + v,
    "add alpha": lambda x, v: mt.add(x * 0, x, alpha=v),
    "sub alpha": lambda x, v: -mt.sub(x * 0, x, alpha=v),
    "mul": lambda x, v: x * v,
    "lerp": lambda x, v: mt.lerp(x * 0, x, v),
    "addcmul": lambda x, v: mt.addcmul(x * 0, x, x, value=v),
    "addcdiv": lambda x, v: mt.addcdiv(x * 0, x, x, value=v),
    "index_add": lambda x, v: mt.index_add(x * 0, 0, INDEX, x, alpha=v),
    "addmm": lambda x, v: mt.addmm(x[:, None] * 0, x[:, None], x[:1, None], alpha=v)[:, 0],
    "nan_to_num": lambda x, v: mt.nan_to_num(x * math.nan, nan=v),
    "constant_": lambda x, v: mt.nn.init.constant_(x.clone(), v),
    "leaky_relu": lambda x, v: -F.leaky_relu(-x, v),
    "tensor": lambda x, v: mt.tensor([v, v], dtype=mt.float64),
}


@pytest.mark.parametrize("value", [0.2, 1 / 3, 1e300, 1e-310])
@pytest.mark.parametrize("name", WITH_A_NUMBER)
def test_a_python_number_meets_float64_as_it_is(name: str, value: float) -> None:
    x = mt.ones(2, dtype=mt.float64)
    assert WITH_A_NUMBER[name](x, value).tolist() == [value, value]


def test_assigning_a_python_number_to_float64_keeps_it() -> None:
    for key in (0, slice(None), [0, 1], mt.tensor([True, True])):
        x = mt.ones(2, dtype=mt.float64)
        x[key] = 1e300
        assert x[0].item() == 1e300


# The table


def _row(name: str, ours: tuple[float, float], theirs: tuple[float, float] | None) -> None:
    reported = "not installed" if theirs is None else f"{theirs[0]:<10.4g} at {theirs[1]:.9g}"
    print(f"{name:24} {ours[0]:<10.4g} at {ours[1]:<18.9g} {reported}", flush=True)


def _sweep(name: str, stride: int, torch: bool) -> tuple[float, float]:
    """The largest error over every `stride`-th number."""
    worst = (0.0, 0.0)
    for part in range(64):
        bits = np.arange(part << 26, (part + 1) << 26, stride, dtype=np.uint64)
        worst = max(
            worst, largest_error(name, bits.astype(np.uint32).view(np.float32), torch, True)
        )
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description="The largest errors, in ulp, beside PyTorch's.")
    parser.add_argument("--all", action="store_true", help="over all 2^32 numbers: minutes each")
    parser.add_argument("--stride", type=int, default=0, help="over every STRIDE-th number")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FUNCTIONS)}")
    args = parser.parse_args()
    print(f"{'function':24} {'our largest error, ulp':32} PyTorch's")
    if args.all or args.stride:
        for name in args.names or FOUR:
            ours = _sweep(name, args.stride or 1, False)
            _row(name, ours, _sweep(name, args.stride or 1, True) if HAS_TORCH else None)
        return
    x = np.concatenate([every(4001), hard_points(), BUSY])
    for name in args.names or FUNCTIONS:
        _row(name, largest_error(name, x), largest_error(name, x, True) if HAS_TORCH else None)
    for kind, x in rows().items() if not args.names else ():
        for log in (False, True):
            theirs = (softmax_error(x, log, True), math.nan) if HAS_TORCH else None
            title = f"{'log_' if log else ''}softmax, {kind}"
            _row(title, (softmax_error(x, log), math.nan), theirs)


if __name__ == "__main__":
    main()
