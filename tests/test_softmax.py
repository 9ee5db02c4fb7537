"""softmax and log_softmax: rows of every kind, any dimension, layout and number of threads."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitensor as mt
from minitensor.core import Tensor, wrap
from minitensor.kernels import softmax as kernel

F = mt.nn.functional
INF = float("inf")
TOLERANCE: dict[str, Any] = {
    "float16": dict(rtol=4e-3, atol=1e-2),
    "float32": dict(rtol=3e-5, atol=1e-5),
    "float64": dict(rtol=1e-12, atol=1e-12),
}


def values(*shape: int, dtype: Any = np.float32, scale: float = 3.0) -> np.ndarray:
    return np.asarray(np.random.RandomState(0).standard_normal(shape) * scale, dtype)


def both(x: np.ndarray, dim: int, log: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The result and the gradient, ours and PyTorch's."""
    import torch

    dy = np.asarray(np.random.RandomState(1).standard_normal(x.shape), x.dtype)
    name = "log_softmax" if log else "softmax"
    ours, theirs = wrap(x).requires_grad_(), torch.from_numpy(x.copy()).requires_grad_()
    y, z = getattr(ours, name)(dim), getattr(theirs, name)(dim)
    y.backward(wrap(dy))
    z.backward(torch.from_numpy(dy))
    assert ours.grad is not None
    assert theirs.grad is not None
    return [y._array, ours.grad._array], [z.detach().numpy(), theirs.grad.numpy()]


@needs_torch
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@pytest.mark.parametrize(
    ("shape", "dim"),
    [
        ((3, 4), -1),
        ((2, 3, 5), 1),
        ((2, 3, 5), -3),
        ((7,), 0),
        ((), -1),
        ((5, 1), 1),
        ((0, 3), 1),
        ((3, 0), 1),
        ((3, 0), 0),
        ((30, 700), -1),
        ((700, 30), 0),
        ((9000, 3), 1),
    ],
)
def test_equals_pytorch(shape: tuple[int, ...], dim: int, dtype: str, log: bool) -> None:
    ours, theirs = both(values(*shape, dtype=dtype), dim, log)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.flags.c_contiguous
        np.testing.assert_allclose(a, b, **TOLERANCE[dtype])


@needs_torch
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_any_layout(dim: int, log: bool) -> None:
    x = values(6, 5, 8)
    for view in (x.transpose(2, 0, 1), x[::2, 1:, ::3], np.broadcast_to(x[:1], (4, 5, 8))):
        import torch

        ours = kernel.softmax(view, dim, log)
        name = torch.log_softmax if log else torch.softmax
        np.testing.assert_allclose(
            ours, name(torch.tensor(np.array(view)), dim).numpy(), rtol=1e-5, atol=1e-6
        )


ROWS = [
    [-INF, -INF, -INF, -INF],
    [-INF, 0.0, 1.0, -INF],
    [INF, 0.0, 0.0, 0.0],
    [INF, INF, -INF, 0.0],
    [float("nan"), 0.0, 1.0, 2.0],
    [-float("nan"), 0.0, 1.0, 2.0],
    [1e30, -1e30, 0.0, 1e30],
    [-3e38, -3e38, -3.1e38, -INF],
    [3e38, -3e38, 0.0, 3.3e38],
    [0.0, -0.0, 0.0, -90.0],
    [-87.0, -88.0, -103.0, -104.0],
    [1e4, 1e4 + 1, 1e4 + 2, 1e4 + 3],
]


@needs_torch
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", ROWS)
def test_extreme_rows(row: list[float], dtype: str, log: bool) -> None:
    import torch

    x = np.array([row, [0.0, 1.0, 2.0, 3.0]], dtype)
    theirs = (torch.log_softmax if log else torch.softmax)(torch.from_numpy(x), -1).numpy()
    np.testing.assert_allclose(kernel.softmax(x, -1, log), theirs, rtol=1e-6, atol=1e-37)


@settings(deadline=None, max_examples=50)
@given(
    rows=st.integers(1, 5),
    cols=st.integers(1, 70),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 50.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_a_row_is_a_distribution(rows: int, cols: int, scale: float, seed: int) -> None:
    x = np.random.RandomState(seed).standard_normal((rows, cols)).astype(np.float32)
    x *= np.float32(scale)
    y, log_y = kernel.softmax(x), kernel.softmax(x, log=True)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_y.astype(np.float64)), y, rtol=1e-4, atol=1e-30)
    exact = np.exp((x - x.max(1, keepdims=True)).astype(np.float64))
    np.testing.assert_allclose(y, exact / exact.sum(1, keepdims=True), rtol=2e-6, atol=1e-37)
    dx = kernel.softmax_backward(y, x)  # softmax does not see a shift: its gradient sums to 0
    np.testing.assert_allclose(dx.sum(1), 0, atol=1e-5 * max(scale, 1))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("shape", [(300, 130), (3, 20000), (20000, 2)])
def test_any_number_of_threads(shape: tuple[int, int], log: bool) -> None:
    x, dy = values(*shape), values(*shape, scale=1.0)
    found = []
    before = mt.get_num_threads()
    try:
        for count in (1, before):
            mt.set_num_threads(count)
            y = kernel.softmax(x, -1, log)
            found.append((y, kernel.softmax_backward(y, dy, -1, log)))
    finally:
        mt.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_the_input_is_not_kept(name: str) -> None:
    x = wrap(values(3, 4)).requires_grad_() * 2.0
    array = weakref.ref(x._array)
    y = getattr(x, name)(-1)
    del x
    assert array() is None
    y.sum().backward()


def test_a_changed_result_is_noticed() -> None:
    y = F.softmax(wrap(values(3, 4)).requires_grad_(), -1)
    y.mul_(2.0)
    z = y.detach()
    z.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_dtype_converts_first() -> None:
    x = wrap(np.arange(4))
    y = F.softmax(x, dim=0, dtype=mt.float64)
    assert y.dtype == np.float64
    assert mt.log_softmax(x, 0, dtype=mt.float32).dtype == np.float32
    np.testing.assert_allclose(F.softmin(x, 0, dtype=mt.float64)._array, y._array[::-1])
    half = wrap(values(3, dtype=np.float16)).requires_grad_()
    F.softmax(half, 0, dtype=mt.float32).sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == np.float16


@pytest.mark.parametrize(("shape", "dim"), [((4,), 0), ((3, 4), 1), ((2, 3, 4), 0), ((1,) * 4, 1)])
def test_without_dim(shape: tuple[int, ...], dim: int) -> None:
    x = wrap(values(*shape))
    with pytest.warns(UserWarning, match=f"dim={dim}"):
        y = F.softmax(x)
    np.testing.assert_array_equal(y._array, F.softmax(x, dim)._array)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(NotImplementedError, match=r"softmax: .*int64.*dtype=float32"):
        F.softmax(wrap(np.arange(3)), 0)
    with pytest.raises(IndexError, match=r"log_softmax: .*\(3, 4\)"):
        Tensor(3, 4).log_softmax(2)
