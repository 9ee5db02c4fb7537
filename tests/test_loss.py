"""Losses beside PyTorch: targets of every kind, what is ignored, large logits, wrong arguments."""

from __future__ import annotations

import importlib
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
from minitensor.kernels import cross_entropy as kernel

F = mt.nn.functional
chunked = importlib.import_module("minitensor.kernels.linear_cross_entropy")  # to change it
INF = float("inf")
TOLERANCE: dict[str, Any] = {
    "float16": dict(rtol=5e-3, atol=5e-3),
    "float32": dict(rtol=2e-5, atol=1e-6),
    "float64": dict(rtol=1e-11, atol=1e-12),
}


def values(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.RandomState(seed).standard_normal(shape) * 2, dtype)


def classes(high: int, *shape: int, ignored: int | None = -100) -> np.ndarray:
    """Class indices, about a third of them the ignored one."""
    noise = np.random.RandomState(1)
    t = np.asarray(noise.randint(0, high, shape), np.int64)
    return t if ignored is None else np.where(noise.rand(*shape) < 0.3, ignored, t)


def agree(name: str, *arrays: np.ndarray, wanted: int = 1, **kwargs: Any) -> None:
    """The loss, and the gradients of the first `wanted` arguments, are PyTorch's."""
    import torch

    ours = [wrap(np.array(a)) for a in arrays]
    theirs = [torch.from_numpy(np.array(a)) for a in arrays]
    for a, b in zip(ours[:wanted], theirs[:wanted], strict=True):
        a.requires_grad_()
        b.requires_grad_()
    other = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
    own = {k: wrap(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
    y = getattr(F, name)(*ours, **own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        z = getattr(torch.nn.functional, name)(*theirs, **other)
    tolerance = TOLERANCE[arrays[0].dtype.name]
    assert y.dtype.name == str(z.dtype).removeprefix("torch.")
    assert tuple(y.shape) == tuple(z.shape)
    np.testing.assert_allclose(y._array, z.detach().numpy(), **tolerance)
    dy = values(*y.shape, dtype=y.dtype, seed=9)
    y.backward(wrap(dy))
    z.backward(torch.from_numpy(dy))
    for a, b in zip(ours[:wanted], theirs[:wanted], strict=True):
        assert a.grad is not None
        np.testing.assert_allclose(a.grad._array, b.grad.numpy(), **tolerance)


REDUCTIONS = ["mean", "sum", "none"]


@needs_torch
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (3, 5, 4), (2, 5, 2, 3), (5,), (300, 90)])
def test_cross_entropy(
    shape: tuple[int, ...], weighted: bool, smoothing: float, reduction: str
) -> None:
    count = shape[min(len(shape), 2) - 1]
    target = classes(count, *shape[:1], *shape[2:]) if len(shape) > 1 else classes(count)
    weight = np.abs(values(count, seed=3)) if weighted else None
    setting: Any = dict(weight=weight, label_smoothing=smoothing, reduction=reduction)
    agree("cross_entropy", values(*shape), target, **setting)


@needs_torch
@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
def test_cross_entropy_types(dtype: str) -> None:
    agree("cross_entropy", values(6, 5, dtype=dtype), classes(5, 6), label_smoothing=0.1)
    bytes_ = classes(5, 6, ignored=None).astype(np.uint8)
    agree("cross_entropy", values(6, 5, dtype=dtype), bytes_, reduction="none", ignore_index=2)


@needs_torch
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_with_probabilities(weighted: bool, smoothing: float, reduction: str) -> None:
    weight = np.abs(values(5, seed=3)) if weighted else None
    setting: Any = dict(weight=weight, label_smoothing=smoothing, reduction=reduction)
    for shape in ((4, 5), (2, 5, 3), (5,)):
        target = np.random.RandomState(4).rand(*shape).astype(np.float32)
        agree("cross_entropy", values(*shape), target, wanted=2, **setting)


@needs_torch
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("rows", [None, 7, 300])
def test_linear_cross_entropy(
    monkeypatch: pytest.MonkeyPatch,
    rows: int | None,
    biased: bool,
    weighted: bool,
    smoothing: float,
    reduction: str,
) -> None:
    monkeypatch.setattr(chunked, "chunk_rows", lambda cols: 64)
    shape, dtype = (3,) if rows is None else (rows, 3), np.float64
    bias = values(9, dtype=dtype, seed=2) if biased else None
    weight = np.abs(values(9, dtype=dtype, seed=3)) if weighted else None
    setting: Any = dict(linear_bias=bias, weight=weight, reduction=reduction)
    setting |= dict(label_smoothing=smoothing)
    arrays = values(*shape, dtype=dtype), values(9, 3, dtype=dtype), classes(9, *shape[:-1])
    agree("linear_cross_entropy", *arrays, wanted=2, **setting)


@needs_torch
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_linear_cross_entropy_of_several_scores_and_of_probabilities(reduction: str) -> None:
    several = values(6, 3), values(9, 2, 4, 3), classes(9, 6, 2, 4)
    bias, weight = values(9, 2, 4), np.abs(values(9, seed=3))
    agree(
        "linear_cross_entropy", *several, wanted=2, linear_bias=bias, weight=weight,
        reduction=reduction,
    )  # fmt: skip
    soft = np.abs(values(6, 9))
    agree(
        "linear_cross_entropy", values(6, 3), values(9, 3), soft, wanted=2, reduction=reduction,
        label_smoothing=0.1,
    )  # fmt: skip
    agree("linear_cross_entropy", values(3), values(9, 3), soft[0], wanted=2, reduction=reduction)


@needs_torch
@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
def test_linear_cross_entropy_types(dtype: str) -> None:
    arrays = values(6, 3, dtype=dtype), values(5, 3, dtype=dtype)
    agree("linear_cross_entropy", *arrays, classes(5, 6), wanted=2)


def linear_loss(
    x: np.ndarray, w: np.ndarray, b: np.ndarray, target: np.ndarray, whole: bool, **setting: Any
) -> list[np.ndarray]:
    """The loss and the gradients of x, w and b, with whole scores or in chunks."""
    given = [wrap(a.copy()).requires_grad_() for a in (x, w, b)]
    if whole:
        loss = F.cross_entropy(F.linear(*given), wrap(target), **setting)
    else:
        loss = F.linear_cross_entropy(
            given[0], given[1], wrap(target), linear_bias=given[2], **setting
        )
    loss.backward(wrap(values(*loss.shape, seed=9)))
    return [loss.detach().numpy(), *(a.grad.numpy() for a in given if a.grad is not None)]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 300])
def test_a_loss_in_chunks_is_that_of_whole_scores(
    monkeypatch: pytest.MonkeyPatch, rows: int, reduction: str
) -> None:
    monkeypatch.setattr(chunked, "chunk_rows", lambda cols: 64)
    arrays = values(rows, 5), values(11, 5, seed=1), values(11, seed=2), classes(11, rows)
    setting: Any = dict(reduction=reduction, label_smoothing=0.1)
    expected = linear_loss(*arrays, whole=True, **setting)
    found = linear_loss(*arrays, whole=False, **setting)
    assert len(found) == 4
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6 * np.abs(b).max())


def test_a_loss_in_chunks_keeps_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak of the pool is the buffer of one chunk and the gradients."""
    rows, cols, width = 4096, 2048, 8
    x, w, t = mt.randn(rows, width), mt.randn(cols, width, requires_grad=True), mt.arange(rows)
    used: list[int] = []
    product = chunked.matmul

    def watched(*args: Any, **kwargs: Any) -> Any:
        used.append(mt.memory.stats().used - before)
        return product(*args, **kwargs)

    monkeypatch.setattr(chunked, "matmul", watched)
    before = mt.memory.stats().used
    F.linear_cross_entropy(x, w, t % cols).backward()
    assert chunked.chunk_rows(cols) == 1024
    assert len(used) == 2 * 4
    assert 4 * 1024 * cols <= max(used) < 1.25 * 4 * 1024 * cols


def test_gradients_made_ahead_are_given_away_and_made_again() -> None:
    x, w = (wrap(values(*shape)).requires_grad_() for shape in ((6, 3), (5, 3)))
    loss = F.linear_cross_entropy(x, w, wrap(classes(5, 6)))
    loss.backward(retain_graph=True)
    assert w.grad is not None
    first, once = w.grad, w.grad.numpy().copy()
    w.grad = None
    (2 * loss).backward(retain_graph=True)
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), 2 * once, rtol=1e-6)
    np.testing.assert_array_equal(first.numpy(), once)
    loss.backward()
    np.testing.assert_allclose(w.grad.numpy(), 3 * once, rtol=1e-6)
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


def test_an_output_layer_that_shares_the_weight_of_the_embedding_gets_both_gradients() -> None:
    table = wrap(values(7, 4)).requires_grad_()
    tokens, target = wrap(classes(7, 9, ignored=None)), wrap(classes(7, 9))

    def gradient(loss: Tensor) -> np.ndarray:
        table.grad = None
        loss.backward()
        assert table.grad is not None
        return table.grad.numpy()

    x = F.embedding(tokens, table)
    expected = gradient(F.cross_entropy(F.linear(x, table), target))
    x = F.embedding(tokens, table)
    found = gradient(F.linear_cross_entropy(x, table, target))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_a_loss_in_chunks_of_known_numbers() -> None:
    """Two classes with scores 0 and log 3: p = 1/4 and 3/4."""
    x, w = mt.tensor([[1.0], [1.0]]), mt.tensor([[0.0], [math.log(3)]], requires_grad=True)
    loss = F.linear_cross_entropy(x, w, mt.tensor([0, 1]))
    assert loss.item() == pytest.approx(math.log(4 * 4 / 3) / 2)
    loss.backward()
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), [[-0.25], [0.25]], rtol=1e-6)


@needs_torch
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "row",
    [
        [1e4, 0.0, -1e4, 1e4],
        [3e38, -3e38, 0.0, 1.0],
        [-INF, 0.0, 1.0, 2.0],
        [-INF, -INF, -INF, -INF],
        [INF, 0.0, 1.0, 2.0],
        [float("nan"), 0.0, 1.0, 2.0],
    ],
)
def test_extreme_logits(row: list[float], smoothing: float) -> None:
    x = np.array([row, [0.0, 1.0, 2.0, 3.0]], np.float32)
    for t in (0, 1, 3):
        target = np.array([t, 2])
        agree("cross_entropy", x, target, label_smoothing=smoothing, reduction="none")


def test_the_loss_of_large_logits_keeps_its_digits() -> None:
    for top in (0.0, 10.0, 1e4, 3e7):
        logits, target = mt.tensor([[top, top, top - 64]]), mt.tensor([1])
        assert F.cross_entropy(logits, target).item() == pytest.approx(np.log(2), rel=1e-6)
        eye = mt.eye(3)
        assert F.linear_cross_entropy(logits, eye, target).item() == pytest.approx(np.log(2), 1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("empty", [False, True])
def test_everything_ignored(empty: bool, smoothing: float) -> None:
    rows = 0 if empty else 3
    x = wrap(values(rows, 4)).requires_grad_()
    t = wrap(np.full(rows, -100))
    assert F.cross_entropy(x, t, reduction="sum", label_smoothing=smoothing).item() == 0
    loss = F.cross_entropy(x, t, label_smoothing=smoothing)
    assert np.isnan(loss.item())
    loss.backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad._array, 0)
    log_p = wrap(values(rows, 4))
    assert np.isnan(F.nll_loss(log_p, t).item())
    assert F.nll_loss(log_p, t, reduction="sum").item() == 0


def test_ignored_rows_may_hold_anything() -> None:
    x, t = values(4, 5), wrap(np.array([0, -100, -100, 2]))
    clean = wrap(x[[0, 3]]).requires_grad_()
    x[1], x[2, :3] = np.nan, -INF
    spoilt = wrap(x).requires_grad_()
    expected = F.cross_entropy(clean, t[[0, 3]], label_smoothing=0.1)
    found = F.cross_entropy(spoilt, t, label_smoothing=0.1)
    expected.backward()
    found.backward()
    assert clean.grad is not None
    assert spoilt.grad is not None
    assert found.item() == expected.item()
    np.testing.assert_array_equal(spoilt.grad._array[[0, 3]], clean.grad._array)
    np.testing.assert_array_equal(spoilt.grad._array[1:3], 0)


@needs_torch
def test_any_layout() -> None:
    x = values(6, 5, 8)
    agree("cross_entropy", x.transpose(2, 0, 1), classes(6, 8, 5), label_smoothing=0.1)
    agree("cross_entropy", x[::2, :, ::3][..., 0].T, classes(3, 5))
    logits = wrap(values(5, 7)).requires_grad_()
    target = wrap(np.repeat(classes(5, 7), 2)[::2])
    F.cross_entropy(logits.t(), target).backward()
    assert logits.grad is not None
    other = wrap(logits._array.T.copy()).requires_grad_()
    F.cross_entropy(other, target).backward()
    assert other.grad is not None
    np.testing.assert_array_equal(logits.grad._array.T, other.grad._array)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 6),
    cols=st.integers(1, 40),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 1000),
)
def test_the_gradient_of_a_row_sums_to_zero(
    rows: int, cols: int, smoothing: float, seed: int
) -> None:
    noise = np.random.RandomState(seed)
    x, t = noise.standard_normal((rows, cols)), noise.randint(0, cols, rows)
    loss, total, dx = kernel.cross_entropy(x, t, None, -100, smoothing, False, True)
    assert dx is not None
    assert total == rows
    assert (loss >= 0).all() or cols == 1
    np.testing.assert_allclose(dx.sum(1), 0, atol=1e-12)
    again, _, none = kernel.cross_entropy(x, t, None, -100, smoothing, False, False)
    assert none is None
    np.testing.assert_allclose(again, loss, rtol=1e-13)


@pytest.mark.parametrize("shape", [(300, 130), (3, 20000), (20000, 2)])
def test_any_number_of_threads(shape: tuple[int, int]) -> None:
    x, t = values(*shape), classes(shape[1], shape[0])
    found = []
    before = mt.get_num_threads()
    try:
        for count in (1, before):
            mt.set_num_threads(count)
            found.append(kernel.cross_entropy(x, t, None, -100, 0.1, True, True))
    finally:
        mt.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_second_backward_pass_over_a_graph() -> None:
    """The gradient is kept from the forward pass, and handed out unharmed more than once."""
    x = wrap(values(4, 5)).requires_grad_()
    loss = F.cross_entropy(x, wrap(classes(5, 4, ignored=None)))
    loss.backward(retain_graph=True)
    assert x.grad is not None
    once = x.grad._array.copy()
    loss.backward(retain_graph=True)
    np.testing.assert_allclose(x.grad._array, 2 * once, rtol=1e-6)
    x.grad.zero_()
    loss.backward(wrap(np.array(3.0, np.float32)))
    np.testing.assert_allclose(x.grad._array, 3 * once, rtol=1e-6)


def test_no_gradient_is_made_where_none_is_wanted() -> None:
    x, t = wrap(values(4, 5)), wrap(classes(5, 4))
    assert not F.cross_entropy(x, t).requires_grad
    loss = F.cross_entropy(x.requires_grad_(), t)
    with mt.no_grad():
        quiet = F.cross_entropy(x, t)
    assert quiet.item() == loss.item()


@needs_torch
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 3), (5,)])
def test_nll_loss(shape: tuple[int, ...], reduction: str) -> None:
    count = shape[min(len(shape), 2) - 1]
    target = classes(count, *shape[:1], *shape[2:]) if len(shape) > 1 else classes(count)
    x, w = values(*shape), np.abs(values(count, seed=3))
    agree("nll_loss", x, target, reduction=reduction)
    agree("nll_loss", x, target, weight=w, reduction=reduction)
    x.reshape(-1)[0] = -INF  # an impossible class does not spoil what does not ask for it
    agree("nll_loss", x, np.ones_like(target), weight=w, reduction=reduction)


@pytest.mark.parametrize("function", ["cross_entropy", "nll_loss"])
def test_errors_of_classes(function: str) -> None:
    loss = getattr(F, function)
    x = Tensor(3, 4).requires_grad_()
    with pytest.raises(IndexError, match="target 4 is out of bounds: there are 4 classes"):
        loss(x, wrap(np.array([0, 4, 1])))
    with pytest.raises(IndexError, match=r"target -1 .*ignore_index is -100"):
        loss(x, wrap(np.array([0, -1, 1])))
    with pytest.raises(RuntimeError, match=rf"{function}: .*int32.*\.long\(\)"):
        loss(x, wrap(np.zeros(3, np.int32)))
    with pytest.raises(ValueError, match=r"batch_size \(3\) to match target batch_size \(2\)"):
        loss(x, wrap(np.zeros(2, np.int64)))
    with pytest.raises(RuntimeError, match="each of the 4 classes"):
        loss(x, wrap(np.zeros(3, np.int64)), Tensor(3))
    with pytest.raises(RuntimeError, match="float32 and weight is float64"):
        loss(x, wrap(np.zeros(3, np.int64)), wrap(np.ones(4)))
    with pytest.raises(ValueError, match="not a valid value for reduction"):
        loss(x, wrap(np.zeros(3, np.int64)), reduction="max")


# The others


@needs_torch
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_distances(name: str, dtype: str, reduction: str) -> None:
    x, t = values(3, 4, dtype=dtype), values(3, 4, dtype=dtype, seed=1)
    x[0] = t[0]  # no difference
    x[1] = t[1] + 1  # the kink
    agree(name, x, t, wanted=2, reduction=reduction)
    agree(name, x.T[:2], t.T[1:3], wanted=2, reduction=reduction)
    settings_ = dict(smooth_l1_loss=[dict(beta=0.5), dict(beta=0.0)], huber_loss=[dict(delta=0.5)])
    for setting in settings_.get(name, []):
        agree(name, x, t, wanted=2, reduction=reduction, **setting)


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_broadcast_is_warned_of(name: str) -> None:
    with pytest.warns(UserWarning, match=rf"{name}: .*\(3,\).*\(2, 3\)"):
        getattr(F, name)(Tensor(2, 3).zero_(), Tensor(3).zero_())


@needs_torch
@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div(log_target: bool, reduction: str) -> None:
    x = np.log(np.random.RandomState(0).dirichlet(np.ones(5), 4))
    t = np.random.RandomState(1).dirichlet(np.ones(5), 4)
    setting: Any = dict(reduction=reduction, log_target=log_target)
    agree("kl_div", x, np.log(t) if log_target else t, wanted=2, **setting)
    if not log_target:
        t[0, :2] = 0  # contributes nothing
        agree("kl_div", x, t, **setting)


def test_kl_div_of_one_hot_targets_is_nll() -> None:
    log_p = wrap(values(6, 5)).log_softmax(1)
    t = classes(5, 6, ignored=None)
    found = F.kl_div(log_p, wrap(np.eye(5, dtype=np.float32)[t]), reduction="batchmean")
    np.testing.assert_allclose(found.item(), F.nll_loss(log_p, wrap(t)).item(), rtol=1e-6)


@needs_torch
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy(dtype: str, reduction: str) -> None:
    noise = np.random.RandomState(0)
    p, t = noise.rand(3, 4).astype(dtype), noise.rand(3, 4).astype(dtype)
    agree("binary_cross_entropy", p, t, wanted=2, reduction=reduction)
    weight = values(4, dtype=dtype)
    agree("binary_cross_entropy", p, t, wanted=2, weight=weight, reduction=reduction)
    p[0], t[0] = (0, 1, 0, 1), (0, 1, 1, 0)
    if dtype == "float32":  # the smallest divisor of the gradient is a float32 in PyTorch
        agree("binary_cross_entropy", p, t, reduction=reduction)


@needs_torch
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_with_logits(dtype: str, reduction: str) -> None:
    name = "binary_cross_entropy_with_logits"
    x, t = values(3, 4, dtype=dtype), np.random.RandomState(0).rand(3, 4).astype(dtype)
    x[0] = 0, 200, -200, 30
    weight, pos_weight = values(4, dtype=dtype, seed=1), values(3, 1, dtype=dtype, seed=2)
    agree(name, x, t, wanted=2, reduction=reduction)
    agree(name, x, t, weight=weight, pos_weight=pos_weight, reduction=reduction)


def test_errors_of_probabilities() -> None:
    half = Tensor(2, 3).fill_(0.5)
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        F.binary_cross_entropy(half + 1, half)
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        F.binary_cross_entropy(half * float("nan"), half)
    for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        with pytest.raises(ValueError, match=rf"{name}: .*\(3,\).*\(2, 3\)"):
            getattr(F, name)(half, Tensor(3))


@needs_torch
@pytest.mark.parametrize("size_average", [None, False, True])
@pytest.mark.parametrize("reduce", [None, False, True])
def test_old_spellings_of_reduction(reduce: bool | None, size_average: bool | None) -> None:
    old: Any = dict(size_average=size_average, reduce=reduce)
    x, t = values(3, 4), np.abs(values(3, 4, seed=1))
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "kl_div"):
        agree(name, x, t, **old)
    agree("nll_loss", x, classes(4, 3), **old)
    agree("cross_entropy", x, classes(4, 3), **old)
    agree("binary_cross_entropy_with_logits", x, t, **old)


def test_a_bool_target_is_a_number() -> None:
    x, t = wrap(np.ones(2)), wrap(np.array([True, False]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert F.mse_loss(x, t).item() == 0.5
        assert F.l1_loss(x, t, 0).item() == 1  # type: ignore[arg-type]  # summed, as if False
