"""The matrix product: every size and layout against NumPy, every vector width, any thread count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor import nn
from minitensor.core import wrap
from minitensor.kernels import jit
from minitensor.kernels.gemm import KC
from minitensor.kernels.matmul import matmul
from minitensor.kernels.panels import Panels

SIZES = [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 70]
DTYPES = [np.float32, np.float64]


def close(found: np.ndarray, a: np.ndarray, b: np.ndarray, extra: Any = 0.0) -> None:
    """Within the rounding of K sums of products of numbers below 1, in the given type."""
    expected = np.matmul(a.astype(np.float64), b.astype(np.float64)) + extra
    assert found.dtype == a.dtype
    assert found.shape == expected.shape
    bound = (a.shape[-1] + 2) * np.finfo(a.dtype).eps
    assert np.abs(found - expected).max(initial=0) <= bound, (a.shape, b.shape)


def uniform(dtype: Any, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed + sum(shape)).uniform(-1, 1, shape).astype(dtype)


def layouts(x: np.ndarray) -> list[np.ndarray]:
    """`x` in rows, in columns, in every third column of a wider matrix, and backwards."""
    wide = np.full((x.shape[0] + 1, 3 * x.shape[1] + 2), np.nan, x.dtype)
    wide[1:, 2::3] = x
    return [x, np.asfortranarray(x), wide[1:, 2::3], x[::-1, ::-1].copy()[::-1, ::-1]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", SIZES)
def test_every_size(m: int, dtype: Any) -> None:
    for k in SIZES:
        a = uniform(dtype, m, k)
        for n in SIZES:
            b = uniform(dtype, k, n, seed=1)
            for x in (a, np.asfortranarray(a)):
                for y in (b, np.asfortranarray(b)):
                    close(matmul(x, y), a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [
        (5, 7, 9),
        (33, 70, 65),
        (64, 64, 64),
        (110, KC + 9, 530),
        (1, 300, 90),
        (90, 300, 1),
        (30, 1024, 100),  # rows of A share a set of the first-level cache
    ],
)
def test_every_layout(m: int, k: int, n: int, dtype: Any) -> None:
    a, b, c = uniform(dtype, m, k), uniform(dtype, k, n), uniform(dtype, m, n)
    bias = uniform(dtype, 2 * n)[::2]
    for x in layouts(a):
        for y in layouts(b):
            close(matmul(x, y), a, b)
            close(matmul(x, y, bias=bias), a, b, bias)
    for out in layouts(c):
        before = out.copy()
        assert matmul(a, b, out=out, accumulate=True) is out
        close(out, a, b, before)
        assert matmul(a, b, out=out, bias=bias) is out
        close(out, a, b, bias)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_small_product_has_the_bits_of_one_that_goes_the_long_way(dtype: Any) -> None:
    for m, k, n in [(1, 1, 2), (1, 5, 9), (4, 64, 33), (9, 7, 40), (32, 32, 32), (50, 60, 70)]:
        bias = uniform(dtype, n)
        for a in layouts(uniform(dtype, m, k)):
            for b in layouts(uniform(dtype, k, n, seed=1)):
                for added in (None, bias):
                    out = np.empty((m, n), dtype)
                    assert (matmul(a, b, bias=added) == matmul(a, b, out, added)).all()


def test_writes_nothing_beside() -> None:
    for n in (1, 5, 16, 33):
        padded = np.full((9, n + 6), 7, np.float32)
        matmul(uniform(np.float32, 7, 40), uniform(np.float32, 40, n), out=padded[1:8, 3 : n + 3])
        padded[1:8, 3 : n + 3] = 7
        assert (padded == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_sizes(dtype: Any) -> None:
    for a, b in [((0, 3), (3, 2)), ((2, 3), (3, 0)), ((4, 0, 3), (3, 2)), ((0, 2, 3), (1, 3, 2))]:
        close(matmul(np.ones(a, dtype), np.ones(b, dtype)), np.ones(a, dtype), np.ones(b, dtype))
    empty = np.ones((2, 0), dtype), np.ones((0, 3), dtype)
    assert (matmul(*empty) == 0).all()
    assert (matmul(*empty, bias=np.arange(3, dtype=dtype)) == [0, 1, 2]).all()
    assert (matmul(*empty, out=np.ones((2, 3), dtype), accumulate=True) == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_stacks(dtype: Any) -> None:
    for lead_a, lead_b in [
        ((3,), (3,)),
        ((3,), ()),
        ((), (3,)),
        ((2, 1), (1, 3)),
        ((2, 3), (3,)),
        ((1,), (4, 1, 2)),
        ((2, 3, 2), (2, 1, 2)),
        ((40,), (40,)),
    ]:
        a, b = uniform(dtype, *lead_a, 18, 20), uniform(dtype, *lead_b, 20, 35)
        close(matmul(a, b), a, b)
        columns = np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)
        close(matmul(columns, b, bias=b.flat[:35]), a, b, b.flat[:35])
    q = uniform(dtype, 2, 7, 3, 4).transpose(0, 2, 1, 3)
    k = uniform(dtype, 2, 9, 3, 4).transpose(0, 2, 3, 1)
    close(matmul(q, k), q, k)
    rows = uniform(dtype, 6, 5, 20).transpose(1, 0, 2)
    b = uniform(dtype, 20, 35)
    close(matmul(rows, b), rows, b)
    far = uniform(dtype, 4, 3, 6, 5, 8)[::2, :, ::-2]  # three dimensions that do not merge
    b = uniform(dtype, 2, 1, 3, 8, 2)
    close(matmul(far, b), far, b)
    b = uniform(dtype, 8, 2)
    close(matmul(far, b), far, b)
    expanded = np.broadcast_to(uniform(dtype, 5, 8), (4, 5, 8))  # read-only
    close(matmul(expanded, b), expanded, b)
    out = np.zeros((4, 5, 2, 3), dtype).transpose(0, 3, 1, 2)
    a = uniform(dtype, 4, 3, 5, 8)
    close(matmul(a, b, out=out), a, b)


def test_other_types_are_left_to_numpy() -> None:
    a, b = np.arange(6).reshape(2, 3), np.arange(12).reshape(3, 4)
    assert (matmul(a, b) == a @ b).all()
    half = matmul(np.full((2, 4096), 1.0, np.float16), np.full((4096, 2), 1.0, np.float16))
    assert half.dtype == np.float16
    assert (half == 4096).all()  # summed in float32: float16 stops counting at 2048


def test_infinity_and_nan_come_through() -> None:
    a = np.array([[np.inf, 1], [0, 1], [np.nan, 1]], np.float32)
    b = np.array([[1, 0], [1, 1]], np.float32)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(matmul(a, b), a @ b)


def test_refuses_what_does_not_fit() -> None:
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"inner dimensions differ: \(2, 3\) @ \(2, 3\)"):
        matmul(x, x)
    with pytest.raises(ValueError, match=r"\(2, 2\), out has \(2, 3\)"):
        matmul(x, x.T, out=x)
    whole = np.ones((2, 3), np.int64)
    with pytest.raises(ValueError, match=r"\(2, 2\), out has \(3, 2, 2\)"):  # it would broadcast
        matmul(whole, whole.T, out=np.ones((3, 2, 2), np.int64))


SHAPES = [
    ((200, 300), (300, 130)),
    ((400, 300), (300, 33)),
    ((3, 90, 90), (3, 90, 90)),
    ((64, 40, 40), (64, 40, 40)),
    ((64, 40, 130), (64, 130, 1)),
]


def products(dtype: Any) -> list[np.ndarray]:
    pairs = [(uniform(dtype, *a), uniform(dtype, *b)) for a, b in SHAPES]
    whole = [matmul(a, b, bias=uniform(dtype, b.shape[-1])) for a, b in pairs]
    a, b = uniform(dtype, 1, 1000), uniform(dtype, 1000, 2000)
    return [*whole, matmul(a, b), matmul(b.T, a.T)]


@pytest.mark.skipif(jit.get_num_threads() < 2, reason="one processor")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_on_any_number_of_threads(dtype: Any) -> None:
    count = jit.get_num_threads()
    many = products(dtype)
    jit.set_num_threads(1)
    try:
        one = products(dtype)
    finally:
        jit.set_num_threads(count)
    for x, y in zip(one, many, strict=True):
        assert x.tobytes() == y.tobytes()


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    a, b = uniform(np.float32, 100, 300), uniform(np.float32, 300, 90)
    whole = matmul(a, b)
    assert matmul(a[37:50], b).tobytes() == whole[37:50].tobytes()
    assert matmul(a, b[:, 5:33]).tobytes() == whole[:, 5:33].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_few_rows_are_the_same_as_each_alone(dtype: Any) -> None:
    a, w, bias = uniform(dtype, 8, 77), uniform(dtype, 93, 77), uniform(dtype, 93)
    rows = [matmul(row[None], w.T, bias=bias).tobytes() for row in a]
    for count in range(1, 9):
        assert matmul(a[:count], w.T, bias=bias).tobytes() == b"".join(rows[:count])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weight_packed_beforehand_gives_the_same_bits(dtype: Any) -> None:
    x, w, bias = uniform(dtype, 40, 600), uniform(dtype, 301, 600), uniform(dtype, 301)
    packed = Panels(w)
    expected = matmul(x, w.T, bias=bias)
    assert packed.product(x, bias).tobytes() == expected.tobytes()
    if jit.COMPILED:
        assert packed.product(x[3:4], bias).tobytes() == expected[3:4].tobytes()
    wide = np.zeros((40, 700), dtype)
    assert packed.product(x, bias, wide[:, 50:351]).tobytes() == expected.tobytes()
    assert not wide[:, :50].any()
    assert not wide[:, 351:].any()
    assert packed.product(x[:0], bias).shape == (0, 301)
    with pytest.raises(ValueError, match=r"\(40, 599\)"):
        packed.product(np.ascontiguousarray(x[:, 1:]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MINITENSOR_SIMD", "avx512+bf16"),
        ("MINITENSOR_SIMD", "avx2+bf16"),
        ("MINITENSOR_SIMD", "sse+bf16"),
        ("NUMBA_DISABLE_JIT", "1"),
    ],
)
def test_every_vector_width(name: str, value: str) -> None:
    features = llvmlite.binding.get_host_cpu_features()
    width = value.removesuffix("+bf16")
    if width.startswith("avx") and not features.get(width.replace("512", "512f")):
        pytest.skip(f"this processor has no {width}")
    found = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("sizes.py")), "29"],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("equal NumPy's") == (3 if value.endswith("+bf16") else 2)
    if value.endswith("+bf16"):  # the same bits in hardware and in software
        assert "checksum 2874465563" in found.stdout


def test_an_unknown_vector_width_is_refused() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import minitensor.kernels.simd"],
        env={**os.environ, "MINITENSOR_SIMD": "mmx"},
        capture_output=True,
        text=True,
    )
    assert "MINITENSOR_SIMD=mmx: choose one of avx512, avx2, sse" in found.stderr


# The ops


def test_matmul_message_says_what_to_do() -> None:
    class Model(nn.Module):
        def forward(self, x: Any) -> Any:
            return x @ self.w

    model = Model()
    model.w = mt.nn.Parameter(mt.ones(256, 512))
    with pytest.raises(RuntimeError) as error:
        model(mt.ones(2, 7, 512))
    assert str(error.value) == (
        "matmul: inner dimensions differ: (2, 7, 512) @ (256, 512) in Model. Did you mean x @ w.T?"
    )


def test_linear_message_names_the_features() -> None:
    x, w = mt.ones(2, 3), mt.ones(3, 4)
    with pytest.raises(RuntimeError, match="linear: the input has 3 features, the weight takes 4"):
        mt.nn.functional.linear(x, w)


def test_numbers_are_not_matrices() -> None:
    with pytest.raises(TypeError, match="matmul: other must be a Tensor, not int"):
        mt.ones(2, 3) @ 3
    with pytest.raises(TypeError, match="matmul: input must be a Tensor, not ndarray"):
        np.ones((2, 3), np.float32) @ mt.ones(3, 2)


def test_weight_gradient_of_a_stack_is_one_product() -> None:
    """(N, S, E) @ (E, F): no (N, E, F) on the way."""
    x = wrap(uniform(np.float64, 4, 5, 3)).requires_grad_()
    w = wrap(uniform(np.float64, 3, 2)).requires_grad_()
    (x @ w).sum().backward()
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy()[:, 0], x.detach().numpy().sum((0, 1)), atol=1e-12)


def test_addmm_ignores_what_beta_0_switches_off() -> None:
    x = wrap(np.full((2, 2), np.nan)).requires_grad_()
    y = mt.addmm(x, mt.ones(2, 3).double(), mt.ones(3, 2).double(), beta=0)
    assert (y.detach().numpy() == 3).all()
    y.sum().backward()
    assert x.grad is not None
    assert (x.grad.numpy() == 0).all()


def test_linear_saves_only_what_it_needs() -> None:
    x, w = mt.ones(2, 3), mt.ones(4, 3).requires_grad_()
    y = mt.nn.functional.linear(x, w)
    assert y.grad_fn is not None
    assert [value is None for value in y.grad_fn.saved] == [False, True]  # type: ignore[attr-defined]


@needs_torch
@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ab,bc,cd->da", [(2, 3), (3, 4), (4, 5)]),
        ("...a,...a->...", [(2, 3, 4), (3, 4)]),
        ("a...,a...", [(2, 3), (2, 3)]),
        ("...ab->...ba", [(2, 3, 4)]),
        ("aab,b->a", [(3, 3, 2), (2,)]),
        ("aaa->a", [(3, 3, 3)]),
        ("a,b,c->cab", [(2,), (3,), (4,)]),
        ("zab,zbc->ac", [(5, 2, 3), (5, 3, 4)]),
        ("ab,ab->", [(2, 3), (2, 3)]),
        ("ab,cd->", [(2, 3), (4, 5)]),
        (" a b , b -> a ", [(2, 3), (3,)]),
        (",a", [(), (3,)]),
        ("...,...->...", [(1, 3), (2, 1)]),
        ("...a->a", [(2, 3, 4)]),
        ("bnlh,bnsh->bnls", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("abc,abd->acbd", [(2, 3, 4), (2, 3, 5)]),
        ("ab,ac,ad->bcd", [(2, 3), (2, 4), (2, 5)]),
        ("ab,bc->ac", [(0, 3), (3, 2)]),
        ("ab,bc->ac", [(2, 0), (0, 3)]),
    ],
)
def test_einsum_equals_pytorch(equation: str, shapes: list[tuple[int, ...]]) -> None:
    import torch

    arrays = [uniform(np.float64, *s) for s in shapes]
    ours = [wrap(a.copy()).requires_grad_() for a in arrays]
    theirs = [torch.from_numpy(a).requires_grad_() for a in arrays]
    y, z = mt.einsum(equation, *ours), torch.einsum(equation, *theirs)
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), atol=1e-12)
    dy = uniform(np.float64, *y.shape)
    y.backward(wrap(dy))
    z.backward(torch.from_numpy(dy))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), atol=1e-12)


@needs_torch
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.float16])
def test_other_types_equal_pytorch(dtype: Any) -> None:
    import torch

    a, b = np.arange(12).reshape(3, 4).astype(dtype), np.arange(8).reshape(4, 2).astype(dtype)
    y = wrap(a) @ wrap(b)
    z = torch.from_numpy(a) @ torch.from_numpy(b)
    assert y.dtype.name == str(z.dtype).removeprefix("torch.")
    np.testing.assert_array_equal(y.numpy(), z.numpy())
