"""Reductions, scans and order: forms, edge values, gradients; against PyTorch."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitensor as mt
from minitensor.core import Tensor, wrap

INF, NAN = float("inf"), float("nan")


def flat(x: Any) -> list[Any]:
    """The tensors of a result."""
    return list(x) if isinstance(x, tuple) else [x]


def attempt(f: Any) -> Any:
    """The result, or the type of the exception."""
    try:
        return f()
    except Exception as error:
        return type(error)


def agree(f: Any, *arrays: Any, dtype: Any = np.float32, rtol: float = 1e-5) -> None:
    """f has the same results, the same gradients or the same exception here and in PyTorch."""
    import torch

    arrays = tuple(np.asarray(a, dtype) for a in arrays)
    mine = [wrap(a).requires_grad_(a.dtype.kind == "f") for a in arrays]
    theirs = [torch.from_numpy(a.copy()).requires_grad_(a.dtype.kind == "f") for a in arrays]
    found = attempt(lambda: f(mt, *mine))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = attempt(lambda: f(torch, *theirs))
    if isinstance(expected, type):
        assert found is expected
        return
    assert not isinstance(found, type), found
    for a, b in zip(flat(found), flat(expected), strict=True):
        assert tuple(a.shape) == tuple(b.shape)
        assert a.dtype.name == str(b.dtype).removeprefix("torch.")
        np.testing.assert_allclose(a._array, b.detach().numpy(), rtol=rtol, atol=1e-6)
        if a.requires_grad:
            dy = np.asarray(np.random.RandomState(1).standard_normal(a.shape), a.dtype)
            a.backward(wrap(dy), retain_graph=True)
            b.backward(torch.from_numpy(dy), retain_graph=True)
    for a, b in zip(mine, theirs, strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            np.testing.assert_allclose(a.grad._array, b.grad.numpy(), rtol=rtol, atol=1e-5)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape)


FUNCTIONS = ["sum", "mean", "amax", "amin", "var", "std", "any", "all", "norm", "count_nonzero"]
RUNNING = ["sort", "argsort", "cumsum", "cumprod"]
ONE_DIM = ["max", "min", "argmax", "argmin", "prod", "median", *RUNNING]
DIMS = [0, 1, -1, -3, 2, 3, -4, (0,), (0, 2), (-1, 0), [1], (0, 0), (0, 5), 0.5, None]


@needs_torch
@pytest.mark.parametrize("name", FUNCTIONS)
def test_dims(name: str) -> None:
    for dim in DIMS:
        agree(lambda m, x, d=dim: getattr(m, name)(x, dim=d), noise(2, 3, 4))
        if name != "count_nonzero":
            agree(lambda m, x, d=dim: getattr(x, name)(dim=d, keepdim=True), noise(2, 3, 4))
    for dim in (0, -1, 1, None, (0,)):
        agree(lambda m, x, d=dim: getattr(m, name)(x, dim=d), 1.5)
    agree(lambda m, x: getattr(m, name)(x), noise(2, 3, 4).transpose(2, 0, 1))


@needs_torch
@pytest.mark.parametrize("name", ONE_DIM)
def test_one_dim(name: str) -> None:
    for dim in (0, 1, -1, -3, 3, -4):
        agree(lambda m, x, d=dim: getattr(m, name)(x, dim=d), noise(2, 3, 4))
        if name not in RUNNING:
            agree(lambda m, x, d=dim: getattr(x, name)(d, True), noise(2, 3, 4))
    for dim in (0, -1, 1):
        agree(lambda m, x, d=dim: getattr(m, name)(x, dim=d), 1.5)
    agree(lambda m, x: getattr(m, name)(x, -1), noise(2, 3, 4).transpose(2, 0, 1))


@needs_torch
@pytest.mark.parametrize("name", [*FUNCTIONS, *ONE_DIM, "logsumexp"])
def test_nothing_to_reduce(name: str) -> None:
    if name in ("sort", "argsort", "median"):
        pytest.skip("PyTorch's results depend on uninitialised memory")
    for shape, args in itertools.product([(0,), (0, 3), (3, 0)], [(), (0,), (1,)]):
        if name == "norm" and args:
            continue  # PyTorch's second argument is the order
        agree(lambda m, x, a=args: getattr(m, name)(x, *a), np.zeros(shape))


@needs_torch
@pytest.mark.parametrize("name", [*FUNCTIONS, *ONE_DIM, "logsumexp", "unique"])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.bool_])
def test_integers(name: str, dtype: Any) -> None:
    if dtype == np.bool_ and name in ("argmax", "argmin", "median"):
        pytest.skip("PyTorch does not support it")
    values = np.asarray([[1, 0, 2], [200, 100, 0]]).astype(dtype)
    args = (1,) if name in (*RUNNING, "logsumexp") else ()
    agree(lambda m, x: getattr(m, name)(x, *args), values, dtype=dtype)
    if name in ("sum", "prod", "cumsum", "cumprod"):
        agree(lambda m, x: getattr(m, name)(x, 0, dtype=m.float64), values, dtype=dtype)
        agree(lambda m, x: getattr(m, name)(x, 0, dtype=m.int32), values, dtype=dtype)


@needs_torch
def test_numpy_names() -> None:
    for name in ("sum", "mean", "amax", "argmax", "max", "std", "any", "prod", "logsumexp"):
        agree(lambda m, x, n=name: getattr(m, n)(x, axis=1), noise(2, 3))
        agree(lambda m, x, n=name: getattr(m, n)(x, axis=1, keepdims=True), noise(2, 3))


@needs_torch
def test_ties_and_nan() -> None:
    rows: list[list[float]] = [
        [1, 1, 0],
        [NAN, 1, NAN],
        [INF, INF, -INF],
        [0.0, -0.0, 0.0],
        [2, 2, 2],
    ]
    for row in rows:
        finite = all(map(math.isfinite, row))
        for name in ("max", "min", "argmax", "argmin", "sort"):
            agree(lambda m, x, n=name: getattr(m, n)(x, 0), row)
        for name in ("max", "min", "amax", "amin", "median", "argmax", "argmin"):
            if finite or name not in ("max", "min", "median"):  # there NaN shares the gradient
                agree(lambda m, x, n=name: getattr(m, n)(x), row)
        agree(lambda m, x: m.logsumexp(x, 0), row)
        agree(lambda m, x: m.sort(x, descending=True, stable=True), row)
    assert math.isnan(mt.max(wrap(np.asarray(rows[1]))).item())


@needs_torch
def test_max_and_min_of_two() -> None:
    for name in ("max", "min"):
        agree(lambda m, x, y, n=name: getattr(m, n)(x, y), [1, 2, 3], [3, 2, 1])
        agree(lambda m, x, y, n=name: getattr(m, n)(x, other=y), [1, 2, 3], [[3], [2]])


# Named results


@needs_torch
def test_named_results() -> None:
    import torch

    array = noise(2, 3).astype(np.float32)
    x, y = wrap(array), torch.from_numpy(array)
    for f in (
        lambda t: t.max(1),
        lambda t: t.min(0),
        lambda t: t.sort(),
        lambda t: t.topk(2),
        lambda t: t.median(1),
        lambda t: t.aminmax(),
    ):
        mine, theirs = f(x), f(y)
        assert repr(mine) == repr(theirs).replace("torch.", "minitensor.")
        first, second = mine
        assert mine[0] is first
        assert type(mine).__name__ == type(theirs).__name__
        if hasattr(theirs, "values"):
            assert mine.values is first
            assert mine.indices is second


# Sums


@needs_torch
def test_sums_are_accurate() -> None:
    noise = np.random.RandomState(0)
    for shape, dim in (
        ((300_000,), 0),
        ((300_000, 2), 0),
        ((2, 100_000, 3), 1),
        ((100, 1000, 2), (0, 1)),
    ):
        x = noise.uniform(0, 1, shape).astype(np.float32)
        axes = dim if isinstance(dim, tuple) else (dim,)
        exact = x.astype(np.float64)
        for keepdim in (False, True):
            found = wrap(x).sum(dim, keepdim)._array
            expected = exact.sum(axes, keepdims=keepdim)
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=5e-7)
        np.testing.assert_allclose(wrap(x).mean(dim)._array, exact.mean(axes), rtol=5e-7)
        np.testing.assert_allclose(wrap(x).var(dim)._array, exact.var(axes, ddof=1), rtol=2e-6)
    whole = np.random.RandomState(0).randint(-9, 9, (1000, 3)).astype(np.int32)
    agree(lambda m, x: x.sum(0, dtype=m.int32), whole, dtype=np.int32)
    half = wrap(np.full(5000, 1.0, np.float16))
    assert half.sum().item() == 5000
    assert half.sum().dtype == np.float16
    running = wrap(np.full(1 << 20, 0.1, np.float32)).cumsum(0)
    np.testing.assert_allclose(
        running._array[-1], (1 << 20) * np.float64(np.float32(0.1)), rtol=1e-7
    )


def test_variance_far_from_zero() -> None:
    x = np.asarray([1e4, 1e4 + 1, 1e4 + 2], np.float32)
    assert wrap(x).var().item() == 1
    assert wrap(x).std(correction=0).item() == pytest.approx(math.sqrt(2 / 3), rel=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.data())
def test_sums_over_any_dims_are_numpys(shape: list[int], data: st.DataObject) -> None:
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1)))
    keepdim = data.draw(st.booleans())
    x = np.random.RandomState(0).standard_normal(shape)
    expected = x.sum(tuple(axes) or None, keepdims=keepdim)
    found = wrap(x).sum(tuple(axes), keepdim)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found._array, expected, atol=1e-12)


# Variance and norm


@needs_torch
def test_forms_of_var_and_std() -> None:
    for name in ("var", "std", "var_mean", "std_mean"):
        for args, kwargs in (
            ((), {}),
            ((False,), {}),
            ((1,), {}),
            ((1, False), {}),
            (((0, 1), True, True), {}),
            ((), dict(dim=0, unbiased=False)),
            ((), dict(dim=(0,), correction=2, keepdim=True)),
            ((None,), dict(correction=0)),
        ):
            agree(lambda m, x, n=name, a=args, k=kwargs: getattr(m, n)(x, *a, **k), noise(3, 4))
    for values in ([1.0], [1.0, 1.0, 1.0], [1.0, 3.0]):
        agree(lambda m, x: m.std(x), values)
        agree(lambda m, x: m.var(x), values)


@needs_torch
@pytest.mark.parametrize("p", [2, 1, 0, 3, 1.5, 0.5, -1, INF, -INF, "fro", None, "nuc"])
def test_norms(p: Any) -> None:
    if p == "nuc":
        with pytest.raises(NotImplementedError):
            wrap(np.ones((2, 2))).norm(p)
        return
    if p == 0:  # no gradient in PyTorch
        assert mt.norm(wrap(np.asarray([2.0, 0.0])), 0).item() == 1
        return
    for values in (noise(3, 4), [2.0, -2.0, 1.0], [2.0, -2.0, 0.0], [0.0, 0.0]):
        if p == -1 and 0.0 in np.asarray(values):
            continue  # 0 divided by 0 on different ways
        agree(lambda m, x: x.norm(p), values)
    agree(lambda m, x: m.norm(x, p, dim=1, keepdim=True), noise(3, 4))
    agree(lambda m, x: m.norm(x, p=p, dim=-1), noise(2, 3, 4))


# Products


@needs_torch
def test_products_with_zeros() -> None:
    for row in ([2, 3, 4], [0, 2, 3], [0, 2, 0], [2, 0, 3, 0, 5], [0, 0, 0]):
        agree(lambda m, x: m.prod(x), row)
        agree(lambda m, x: m.prod(x, 0, True), row)
        agree(lambda m, x: m.cumprod(x, 0), row)
    table = noise(3, 4)
    table[0, 1] = table[2, 0] = table[2, 3] = 0
    for dim in (0, 1):
        agree(lambda m, x, d=dim: m.prod(x, d), table)
        agree(lambda m, x, d=dim: m.cumprod(x, d), table)
    with pytest.raises(TypeError):
        mt.prod(wrap(table), (0, 1))  # type: ignore[arg-type]


def test_second_derivatives_of_products_with_zeros() -> None:
    x = wrap(np.asarray([0.0, 2.0, 3.0])).requires_grad_()
    (g,) = mt.autograd.grad(x.prod(), x, create_graph=True)
    assert g.tolist() == [6, 0, 0]
    (h,) = mt.autograd.grad(g[0], x)
    assert h.tolist() == [0, 3, 2]


# Order


@needs_torch
def test_topk() -> None:
    x = noise(4, 50)
    for k, dim, largest in itertools.product([0, 1, 3, 4], [0, 1, -1], [True, False]):
        agree(lambda m, x, k=k, d=dim, b=largest: m.topk(x, k, d, b), x)
    agree(lambda m, x: m.topk(x, 50), x)
    agree(lambda m, x: m.topk(x, 51), x)
    agree(lambda m, x: m.topk(x, 2), [1.0, NAN, 3.0, -INF])
    agree(lambda m, x: m.topk(x, 2, largest=False), [1.0, NAN, 3.0, -INF])
    agree(lambda m, x: x.topk(1, dim=0), 3.0)
    values = np.random.RandomState(0).randint(0, 5, 100)
    found = mt.topk(wrap(values), 30)
    assert found.values.tolist() == sorted(values.tolist(), reverse=True)[:30]
    assert values[found.indices._array].tolist() == found.values.tolist()
    assert len(set(found.indices.tolist())) == 30


@needs_torch
def test_sort_is_stable() -> None:
    values = np.random.RandomState(0).randint(0, 4, (3, 20))
    for descending in (False, True):
        agree(
            lambda m, x, d=descending: m.sort(x, dim=1, descending=d, stable=True),
            values,
            dtype=np.int64,
        )
    agree(lambda m, x: m.argsort(x, dim=0, descending=True), noise(5, 4))


@needs_torch
def test_unique() -> None:
    import torch

    values = np.asarray([[3, 1, 3], [2, 1, 1]])
    for array in (values, values.astype(np.float32)):
        for inverse, counts in itertools.product([False, True], repeat=2):
            kwargs = dict(return_inverse=inverse, return_counts=counts)
            found: Any = mt.unique(wrap(array), **kwargs)
            expected = torch.unique(torch.from_numpy(array), **kwargs)
            for a, b in zip(flat(found), flat(expected), strict=True):
                assert a.tolist() == b.tolist()
                assert a.dtype.name == str(b.dtype).removeprefix("torch.")
    rows = np.asarray([[1, 2], [0, 1], [1, 2]])
    assert wrap(rows).unique(dim=0).tolist() == [[0, 1], [1, 2]]
    found = mt.unique(wrap(rows), dim=0, return_inverse=True, return_counts=True)
    assert [t.tolist() for t in found[1:]] == [[1, 0, 1], [1, 2]]
    assert mt.unique(wrap(np.asarray([NAN, 1.0, NAN]))).shape == (3,)


@needs_torch
def test_median() -> None:
    for values in ([3.0, 1.0, 2.0], [4.0, 1.0, 2.0, 3.0], [1.0, 1.0, 2.0], [5.0]):
        agree(lambda m, x: m.median(x), values)
        agree(lambda m, x: m.median(x, 0).values, values)
    row = wrap(np.asarray([1.0, NAN, 0.0]))
    assert math.isnan(row.median().item())
    assert row.median(0).indices.item() == 1
    assert math.isnan(mt.median(wrap(np.zeros(0, np.float32))).item())


@needs_torch
def test_indices_have_no_gradient() -> None:
    x: Tensor = wrap(noise(3, 4)).requires_grad_()
    for found in (x.max(1), x.sort(), x.topk(2), x.median(0)):
        assert found.values.requires_grad
        assert not found.indices.requires_grad
        assert found.indices.dtype == np.int64
    for indices in (x.argmax(), x.argmin(1), x.argsort()):
        assert not indices.requires_grad


def test_a_sum_without_nan_of_integers_is_an_integer() -> None:
    total = mt.nansum(mt.tensor([1, 2]))
    assert (total.item(), total.dtype) == (3, mt.int64)
