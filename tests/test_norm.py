"""Layer, RMS and batch norm, and normalize, beside PyTorch and beside their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor.autograd.gradcheck import gradcheck, gradgradcheck
from minitensor.core import Tensor, wrap
from minitensor.kernels import norm as kernel
from minitensor.ops.residual import DropoutAdd, DropoutAddLayerNorm
from minitensor.testing import Rand

F = mt.nn.functional
TOLERANCE: dict[str, Any] = {
    "float16": dict(rtol=2e-2, atol=0.2),
    "float32": dict(rtol=2e-5, atol=2e-5),
    "float64": dict(rtol=1e-10, atol=1e-10),
}


def values(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.RandomState(seed).standard_normal(shape) * 2 + 1, dtype)


def both(
    name: str, x: np.ndarray, parameters: list[np.ndarray], *args: Any, **kwargs: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Result and gradients of x and the parameters, ours with PyTorch's."""
    import torch

    ours = [wrap(a).requires_grad_() for a in (x, *parameters)]
    theirs = [torch.from_numpy(np.array(a)).requires_grad_() for a in (x, *parameters)]
    y = getattr(F, name)(ours[0], *args, *ours[1:], **kwargs)
    z = getattr(torch.nn.functional, name)(theirs[0], *args, *theirs[1:], **kwargs)
    dy = values(*x.shape, dtype=x.dtype, seed=5)
    y.backward(wrap(dy))
    z.backward(torch.from_numpy(dy))
    pairs = [(y._array, z.detach().numpy())]
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad is not None
        pairs.append((a.grad._array, b.grad.numpy()))
    return pairs


def agree(pairs: list[tuple[np.ndarray, np.ndarray]], dtype: str) -> None:
    for a, b in pairs:
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, **TOLERANCE[dtype])


SHAPES = [
    ((3, 4), 1),
    ((2, 3, 5), 2),
    ((2, 3, 5), 3),
    ((6,), 1),
    ((4, 2), 1),
    ((0, 3), 1),
    ((70, 300), 1),
    ((3, 40, 33), 1),
]


@needs_torch
@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize(("shape", "dims"), SHAPES)
def test_equals_pytorch(name: str, shape: tuple[int, ...], dims: int, dtype: str) -> None:
    last = shape[-dims:]
    count = 2 if name == "layer_norm" else 1
    parameters = [values(*last, dtype=dtype, seed=1 + i) for i in range(count)]
    agree(both(name, values(*shape, dtype=dtype), parameters, last), dtype)
    agree(both(name, values(*shape, dtype=dtype), [], last, eps=1e-3), dtype)


@needs_torch
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_any_layout(name: str) -> None:
    x, w = values(6, 5, 8), values(5, 6, seed=3).T
    for view in (x.transpose(2, 0, 1), x.transpose(1, 2, 0)[:, ::2, :], x[::2, 1:, ::3]):
        last = view.shape[-1:]
        agree(both(name, view, [w[: last[0], 0]], last), "float32")
    agree(both(name, x.transpose(2, 0, 1), [w], (6, 5)), "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layer_norm_far_from_zero(dtype: str) -> None:
    """The variance is that of the differences from the mean, not of large squares."""
    small = np.arange(16) % 4
    offset = 1e5 if dtype == "float32" else 1e12
    y = F.layer_norm(wrap((small + offset).astype(dtype)), (16,))
    exact = (small - 1.5) / np.sqrt(small.var() + 1e-5)
    np.testing.assert_allclose(y._array, exact, rtol=1e-5)


def test_constant_rows_are_zero() -> None:
    np.testing.assert_array_equal(F.layer_norm(wrap(np.full((2, 8), 3.0)), (8,))._array, 0)
    np.testing.assert_array_equal(F.rms_norm(wrap(np.zeros((2, 8))), (8,))._array, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(bad: float) -> None:
    x = values(3, 8)
    x[1, 2] = bad
    for y in (F.layer_norm(wrap(x), (8,)), F.rms_norm(wrap(x), (8,))):
        assert np.isnan(y._array[1]).any()
        assert np.isfinite(y._array[[0, 2]]).all()


def test_rms_norm_eps_is_the_machine_epsilon() -> None:
    for dtype in (np.float32, np.float64):
        x = values(3, 4, dtype=dtype) * dtype(1e-4)
        eps = np.finfo(dtype).eps
        expected = x / np.sqrt((x * x).mean(1, keepdims=True) + eps)
        np.testing.assert_allclose(F.rms_norm(wrap(x), (4,))._array, expected, rtol=1e-6)


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("shape", [(500, 64), (40, 3000), (3, 20000)])
def test_any_number_of_threads(shape: tuple[int, int], centre: bool) -> None:
    x, dy, w = values(*shape), values(*shape, seed=1), values(shape[1], seed=2)
    found = []
    before = mt.get_num_threads()
    try:
        for count in (1, before):
            mt.set_num_threads(count)
            y, _, stats = kernel.norm(centre, x, 1, w, w if centre else None, 1e-5)
            found.append((y, *kernel.norm_backward(centre, dy, x, 1, w, stats)))
    finally:
        mt.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_that_are_not_wanted() -> None:
    x, w, b = wrap(values(3, 4)), wrap(values(4)), wrap(values(4))
    F.layer_norm(x, (4,), w, b.requires_grad_()).sum().backward()
    assert b.grad is not None
    np.testing.assert_allclose(b.grad._array, 3)
    assert x.grad is None
    assert w.grad is None


def test_errors_say_what_to_do() -> None:
    x = Tensor(2, 3)
    with pytest.raises(RuntimeError, match=r"layer_norm: .*normalized_shape=\(4,\).*\(2, 3\)"):
        F.layer_norm(x, (4,))
    with pytest.raises(RuntimeError, match=r"rms_norm: weight has shape \(2,\)"):
        F.rms_norm(x, (3,), Tensor(2))
    with pytest.raises(RuntimeError, match="float32 and a parameter float64"):
        F.layer_norm(x, (3,), wrap(np.ones(3)))


# Dropout, residual sum and layer norm


def composed(
    x: Any, r: Any, width: int, w: Any, b: Any, p: float, eps: float = 1e-5, training: bool = True
) -> Any:
    return F.layer_norm(r + F.dropout(x, p, training), (width,), w, b, eps)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(2, 3, 8), (5, 33), (300, 128), (0, 4), (4,)])
def test_dropout_add_layer_norm_is_the_composition(
    shape: tuple[int, ...], p: float, dtype: str
) -> None:
    """The same elements are dropped, and the generator goes on alike."""
    width = shape[-1]
    arrays = [values(*s, dtype=dtype, seed=i) for i, s in enumerate((shape, shape, (width,)))]
    dy = wrap(values(*shape, dtype=dtype, seed=7))
    found = []
    for function in (composed, lambda x, r, n, *rest: F.dropout_add_layer_norm(x, r, (n,), *rest)):
        mt.manual_seed(3)
        x, r, w = (wrap(a.copy()).requires_grad_() for a in arrays)
        b = wrap(arrays[2] * 2).requires_grad_()
        y = function(x, r, width, w, b, p)
        y.backward(dy)
        after = mt.rand(2)
        found.append([y.detach(), *(t.grad for t in (x, r, w, b)), after])
    for mine, other in zip(*found, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine._array, other._array, **TOLERANCE[dtype])


@needs_torch
def test_dropout_add_layer_norm_as_pytorch_composes_it() -> None:
    import torch

    arrays = [values(6, 5, seed=i).astype(np.float64) for i in range(2)]
    x, r = (wrap(a).requires_grad_() for a in arrays)
    z, s = (torch.from_numpy(a.copy()).requires_grad_() for a in arrays)
    mt.random.exact_dropout()
    try:
        mt.manual_seed(1)
        torch.manual_seed(1)
        y = F.dropout_add_layer_norm(x, r, (5,), p=0.4)
        total = F.dropout_add(x, r, 0.4)
        z_total = s + torch.dropout(z, 0.4, True)
        theirs = torch.nn.functional.layer_norm(z_total, (5,))
        np.testing.assert_allclose(y.detach().numpy(), theirs.detach().numpy(), atol=1e-10)
        theirs = s + torch.dropout(z, 0.4, True)
        np.testing.assert_allclose(total.detach().numpy(), theirs.detach().numpy(), atol=1e-10)
    finally:
        mt.random.exact_dropout(False)


def test_dropout_add_layer_norm_gradients(rand: Rand) -> None:
    def function(x: Any, r: Any, w: Any, b: Any) -> Any:
        return DropoutAddLayerNorm.apply(x, r, w, b, dims=1, eps=1e-5, p=0.4, key=77)

    inputs = [rand(3, 5), rand(3, 5), rand(5), rand(5)]
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_dropout_add_gradients(rand: Rand) -> None:
    def function(x: Any, r: Any) -> Any:
        return DropoutAdd.apply(x, r, p=0.4, key=77)

    inputs = [rand(3, 5), rand(3, 5)]
    assert mt.allclose(function(*inputs), DropoutAdd.decomposition(*inputs, p=0.4, key=77))
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(2, 3, 8), (300, 128), (0, 4), ()])
def test_dropout_add_is_the_composition(shape: tuple[int, ...], p: float, dtype: str) -> None:
    for training in (True, False):
        found = []
        for function in (
            lambda x, r: r + F.dropout(x, p, training),  # noqa: B023
            lambda x, r: F.dropout_add(x, r, p, training),  # noqa: B023
        ):
            mt.manual_seed(3)
            x = wrap(values(*shape, dtype=dtype).T).requires_grad_()
            r = wrap(values(*shape[::-1], dtype=dtype, seed=1)).requires_grad_()
            y = function(x, r)
            y.backward(wrap(values(*shape[::-1], dtype=dtype, seed=2)))
            assert x.grad is not None
            assert r.grad is not None
            found.append((y._array, x.grad._array, r.grad._array, mt.rand(2)._array))
        for mine, other in zip(*found, strict=True):
            assert mine.dtype == other.dtype
            np.testing.assert_allclose(mine, other, **TOLERANCE[dtype])


def test_dropout_add_layer_norm_on_any_number_of_threads() -> None:
    x, r, dy, w = (values(500, 72, seed=i) for i in range(4))
    found = []
    before = mt.get_num_threads()
    try:
        for count in (1, before):
            mt.set_num_threads(count)
            y, total, stats = kernel.norm(True, x, 1, w[0], w[1], 1e-5, r, 0.3, 5)
            grads = kernel.norm_backward(True, dy, total, 1, w[0], stats, 0.3, 5)
            found.append((y, total, *grads))
    finally:
        mt.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_dropout_both_gradients_are_one_array_that_leaves_do_not_share() -> None:
    x, r = (wrap(values(3, 4, seed=i)).requires_grad_() for i in range(2))
    F.dropout_add_layer_norm(x, r, (4,)).square().sum().backward()
    assert x.grad is not None
    assert r.grad is not None
    np.testing.assert_array_equal(x.grad._array, r.grad._array)
    before = r.grad._array.copy()
    x.grad._array += 1
    np.testing.assert_array_equal(r.grad._array, before)


def test_residual_errors() -> None:
    x, wide = Tensor(2, 3), Tensor(2, 4)
    for function in (F.dropout_add, lambda x, r, p=0.0: F.dropout_add_layer_norm(x, r, (3,), p=p)):
        with pytest.raises(RuntimeError, match=r"\(2, 3\).*\(2, 4\)"):
            function(x, wide)
        with pytest.raises(RuntimeError, match=r"float32.*float64"):
            function(x, x.double())
        with pytest.raises(ValueError, match="between 0 and 1"):
            function(x, x, p=1.5)
        with pytest.raises(NotImplementedError, match="int64"):
            function(x.long(), x.long())
    with pytest.raises(RuntimeError, match=r"dropout_add_layer_norm: .*normalized_shape=\(4,\)"):
        F.dropout_add_layer_norm(x, x, (4,))
    with pytest.raises(RuntimeError, match=r"dropout_add_layer_norm: bias has shape \(2,\)"):
        F.dropout_add_layer_norm(x, x, (3,), None, Tensor(2))


# Batch norm


@needs_torch
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 6), (2, 3, 4, 5)])
def test_batch_norm(shape: tuple[int, ...], affine: bool, training: bool) -> None:
    import torch

    x, dy = values(*shape), values(*shape, seed=1)
    mean, var = values(3, seed=2), values(3, seed=3) ** 2
    w, b = (values(3, seed=4), values(3, seed=5)) if affine else (None, None)
    arrays = [a for a in (x, w, b) if a is not None]
    ours = [wrap(a).requires_grad_() for a in arrays]
    theirs = [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]
    running = wrap(mean.copy()), wrap(var.copy())
    running_torch = torch.from_numpy(mean.copy()), torch.from_numpy(var.copy())
    for momentum in (0.1, 0.7):
        settings: Any = dict(training=training, momentum=momentum, eps=1e-3)
        y = F.batch_norm(ours[0], *running, *ours[1:], **settings)
        z = torch.nn.functional.batch_norm(theirs[0], *running_torch, *theirs[1:], **settings)  # type: ignore[arg-type]
    y.backward(wrap(dy))
    z.backward(torch.from_numpy(dy))
    assert y.is_contiguous()
    np.testing.assert_allclose(y._array, z.detach().numpy(), **TOLERANCE["float32"])
    for p, q in zip(running, running_torch, strict=True):
        np.testing.assert_allclose(p._array, q.numpy(), rtol=1e-5)
    for p, q in zip(ours, theirs, strict=True):
        assert p.grad is not None
        np.testing.assert_allclose(p.grad._array, q.grad.numpy(), rtol=1e-4, atol=1e-4)


def test_batch_norm_of_one_value() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        F.batch_norm(Tensor(1, 3), None, None, training=True)


# Vectors


@needs_torch
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("dim", [0, 1, -1, (0, 2)])
def test_normalize(dim: Any, p: float) -> None:
    agree(both("normalize", values(3, 4, 5), [], p=p, dim=dim), "float32")


def test_normalize_of_zero() -> None:
    x = wrap(np.zeros((2, 3))).requires_grad_()
    y = F.normalize(x)
    y.sum().backward()
    np.testing.assert_array_equal(y._array, 0)
    assert x.grad is not None
    assert np.isfinite(x.grad._array).all()
