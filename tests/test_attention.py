"""Attention: every kind of mask, layout and length, against PyTorch and against the composition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor.autograd.gradcheck import gradcheck
from minitensor.core import Tensor, wrap
from minitensor.kernels import attention as kernel
from minitensor.kernels.jit import get_num_threads, set_num_threads
from minitensor.ops.attention import PackedAttention, ScaledDotProductAttention

F = mt.nn.functional
TOLERANCE: dict[str, Any] = {
    "float32": dict(rtol=2e-5, atol=1e-5),
    "float64": dict(rtol=1e-10, atol=1e-12),
}


def normal(*shape: int, dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(dtype)


def heads_beside(n: int, h: int, length: int, width: int, dtype: Any, seed: int) -> np.ndarray:
    """(n, h, length, width) as a view of (n, length, h, width), as a projection leaves it."""
    return normal(n, length, h, width, dtype=dtype, seed=seed).transpose(0, 2, 1, 3)


def forward(q: np.ndarray, k: np.ndarray, v: np.ndarray, *settings: Any) -> np.ndarray:
    """The kernel's result."""
    out = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    kernel.attention(out, (q, k, v), *settings)
    return out


def backward(dy: np.ndarray, *args: Any) -> list[np.ndarray]:
    """The kernel's gradients."""
    out = np.empty_like(dy)
    statistics = kernel.attention(out, args[:3], *args[3:])
    grads = [np.empty_like(x) for x in args[:3]]
    kernel.attention_backward(grads, dy, out, statistics, args[:3], *args[3:])
    return grads


def run(
    function: Callable[..., Any], arrays: Any, dy: np.ndarray, to: Any, *args: Any, **kwargs: Any
) -> list[np.ndarray]:
    """The result and the gradients of `arrays`, with `to` making a tensor of an array."""
    tensors = [to(a).requires_grad_() for a in arrays]
    y = function(*tensors, *args, **kwargs)
    y.backward(to(dy))
    return [y.detach().numpy(), *(t.grad.numpy() for t in tensors)]


def check(arrays: Any, mask: np.ndarray | None = None, **kwargs: Any) -> None:
    """Ours equals PyTorch's, forward and backward."""
    import torch

    q, _, v = arrays
    dy = normal(*q.shape[:-1], v.shape[-1], dtype=q.dtype, seed=9)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    given = None if mask is None else wrap(mask)
    own = run(F.scaled_dot_product_attention, arrays, dy, wrap, given, **kwargs)
    if mask is not None and kwargs.pop("is_causal", False):  # both: PyTorch does not always take it
        past = np.tri(q.shape[-2], arrays[1].shape[-2], dtype=np.bool_)
        mask = mask & past if mask.dtype == np.bool_ else np.where(past, mask, -np.inf)
    given = (
        None
        if mask is None
        else torch.from_numpy(mask.astype(bool if mask.dtype == np.bool_ else q.dtype))
    )
    other = run(sdpa, arrays, dy, torch.from_numpy, given, **kwargs)
    for mine, theirs in zip(own, other, strict=True):
        np.testing.assert_allclose(mine, theirs, **TOLERANCE[q.dtype.name])


# Lengths around the widths of vectors, tiles and blocks; more than one block of rows; widths that
# fill no vector.
SHAPES = [
    (1, 1, 1, 1, 1, 1),
    (2, 3, 5, 7, 4, 6),
    (1, 2, 16, 32, 16, 16),
    (2, 2, 17, 33, 31, 20),
    (1, 2, 150, 40, 8, 8),
    (1, 1, 40, 150, 8, 33),
    (1, 2, 300, 300, 16, 16),
]


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_pytorch(shape: tuple[int, ...], causal: bool, dtype: str) -> None:
    n, h, rows, cols, width, value_width = shape
    q = normal(n, h, rows, width, dtype=dtype, seed=1)
    k = normal(n, h, cols, width, dtype=dtype, seed=2)
    v = normal(n, h, cols, value_width, dtype=dtype, seed=3)
    check((q, k, v), is_causal=causal)


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["bool", "number", "infinite"])
@pytest.mark.parametrize(
    "shape",
    [(20, 30), (1, 30), (20, 1), (3, 20, 30), (2, 1, 1, 30), (1, 3, 20, 30), (2, 3, 20, 30)],
)
def test_masks(shape: tuple[int, ...], kind: str, causal: bool, dtype: str) -> None:
    noise = np.random.RandomState(4)
    allowed = noise.rand(*shape) < 0.7
    allowed[..., 0] = True
    if kind == "bool":
        mask = allowed
    else:
        numbers = noise.standard_normal(shape).astype(dtype)
        mask = numbers if kind == "number" else np.where(allowed, numbers, -np.inf).astype(dtype)
    arrays = [normal(2, 3, length, 8, dtype=dtype, seed=length) for length in (20, 30, 30)]
    check(arrays, mask, is_causal=causal)


@needs_torch
def test_an_expanded_mask_and_a_turned_one() -> None:
    arrays = [normal(2, 3, length, 8, seed=length) for length in (20, 30, 30)]
    allowed = np.random.RandomState(4).rand(30, 20) < 0.7
    check(arrays, allowed.T)
    full = np.broadcast_to(allowed.T, (2, 3, 20, 30))
    dy = normal(2, 3, 20, 8, seed=9)
    expected = run(F.scaled_dot_product_attention, arrays, dy, wrap, wrap(full.copy()))
    found = run(F.scaled_dot_product_attention, arrays, dy, wrap, wrap(full))
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("infinite", [False, True])
def test_rows_without_anything_to_attend(infinite: bool, causal: bool) -> None:
    allowed = np.random.RandomState(0).rand(2, 1, 9, 11) < 0.6
    allowed[0, 0, 3] = allowed[1, 0, 8] = False
    allowed[:, :, 0, 0] = False  # all that a causal first row could see
    mask = np.where(allowed, 0.0, -np.inf) if infinite else allowed
    arrays = [normal(2, 3, length, 8, seed=length) for length in (9, 11, 11)]
    dy = normal(2, 3, 9, 8, seed=9)
    found = run(F.scaled_dot_product_attention, arrays, dy, wrap, wrap(mask), is_causal=causal)
    assert all(np.isfinite(a).all() for a in found)
    y, dq = found[:2]
    rows = [(0, 3), (1, 8)] + ([(0, 0), (1, 0)] if causal else [])
    for n, row in rows:
        assert (y[n, :, row] == 0).all()
        assert (dq[n, :, row] == 0).all()
    assert (y[0, :, 4] != 0).all()


@needs_torch
def test_pytorch_gives_zeros_there_too() -> None:
    mask = np.random.RandomState(0).rand(2, 1, 9, 11) < 0.6
    mask[0, 0, 3] = False
    check([normal(2, 3, length, 8, seed=length) for length in (9, 11, 11)], mask)


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_views_need_no_copies(dtype: str) -> None:
    """Heads beside each other in memory come out beside each other, gradients too."""
    q, k, v = (heads_beside(2, 3, length, 8, dtype, length) for length in (10, 12, 12))
    check((q, k, v))
    tensors = [wrap(a).requires_grad_() for a in (q, k, v)]
    y = F.scaled_dot_product_attention(*tensors)
    assert y.transpose(1, 2).is_contiguous()
    assert F.scaled_dot_product_attention(*(wrap(a.copy()) for a in (q, k, v))).is_contiguous()
    grads = y.grad_fn.backward(np.ones(y.shape, dtype))  # type: ignore[union-attr]
    assert all(dx.transpose(0, 2, 1, 3).flags.c_contiguous for dx in grads)


@needs_torch
def test_any_strides() -> None:
    """Packed projections, a last dimension that is not contiguous, an expanded gradient."""
    packed = normal(2, 10, 3, 3, 8).transpose(2, 0, 3, 1, 4)  # (3, N, H, L, K)
    check(packed)
    check([normal(2, 3, 8, length, seed=length).swapaxes(2, 3) for length in (10, 12, 12)])
    tensors = [wrap(a.copy()).requires_grad_() for a in packed]
    F.scaled_dot_product_attention(*tensors).sum().backward()
    expected = run(F.scaled_dot_product_attention, packed, np.ones((2, 3, 10, 8)), wrap)
    for t, theirs in zip(tensors, expected[1:], strict=True):
        assert t.grad is not None
        np.testing.assert_allclose(t.grad.numpy(), theirs, rtol=1e-12)


@needs_torch
@pytest.mark.parametrize(
    ("q", "k", "v"),
    [
        ((4, 5), (6, 5), (6, 3)),
        ((2, 4, 5), (2, 6, 5), (2, 6, 3)),
        ((2, 1, 3, 4, 5), (2, 1, 3, 6, 5), (2, 1, 3, 6, 3)),
        ((2, 3, 4, 5), (3, 6, 5), (1, 1, 6, 3)),
        ((2, 3, 4, 5), (2, 3, 0, 5), (2, 3, 0, 3)),
        ((2, 3, 0, 5), (2, 3, 6, 5), (2, 3, 6, 3)),
        ((0, 3, 4, 5), (0, 3, 6, 5), (0, 3, 6, 3)),
        ((2, 3, 4, 0), (2, 3, 6, 0), (2, 3, 6, 3)),
        ((2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 0)),
    ],
)
def test_numbers_of_dimensions_and_zero_lengths(
    q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]
) -> None:
    check([normal(*shape, seed=i) for i, shape in enumerate((q, k, v))])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rows", [1, 9, 260])
def test_grouped_heads_are_read_where_they_are(rows: int, causal: bool) -> None:
    """Forward and backward equal those of repeated heads, and dropout drops the same."""
    q, k, v = normal(2, 6, rows, 5), normal(2, 2, 70, 5, seed=1), normal(2, 2, 70, 8, seed=2)
    dy, settings = normal(2, 6, rows, 8, seed=3), (None, causal, 0.7, 0.2, 5)
    repeated = k.repeat(3, 1), v.repeat(3, 1)
    np.testing.assert_array_equal(forward(q, k, v, *settings), forward(q, *repeated, *settings))
    dq, *of_groups = backward(dy, q, k, v, *settings)
    expected, *of_heads = backward(dy, q, *repeated, *settings)
    np.testing.assert_array_equal(dq, expected)
    for mine, theirs in zip(of_groups, of_heads, strict=True):
        np.testing.assert_allclose(mine, theirs.reshape(2, 2, 3, 70, -1).sum(2), atol=1e-12)


@needs_torch
def test_scale_and_grouped_heads() -> None:
    q, k, v = normal(2, 6, 4, 5), normal(2, 3, 7, 5, seed=1), normal(2, 3, 7, 8, seed=2)
    check((q, k, v), scale=0.7, enable_gqa=True)
    check((q, q, q), scale=0.0)
    check((q, q, q), scale=-1.0)


@needs_torch
def test_a_mask_that_wants_its_gradient() -> None:
    import torch

    arrays = [normal(2, 3, length, 8, seed=length) for length in (4, 6, 6)]
    bias = normal(3, 1, 6, seed=7)
    mine, theirs = wrap(bias).requires_grad_(), torch.from_numpy(bias.copy()).requires_grad_()
    dy = normal(2, 3, 4, 8, seed=9)
    ours = [wrap(a) for a in arrays]
    F.scaled_dot_product_attention(ours[0], ours[1], ours[2], mine).backward(wrap(dy))
    q, k, v = map(torch.from_numpy, arrays)
    other = torch.nn.functional.scaled_dot_product_attention(q, k, v, theirs)
    other.backward(torch.from_numpy(dy))
    assert mine.grad is not None
    np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), rtol=1e-9, atol=1e-12)


@needs_torch
def test_half_precision() -> None:
    import torch

    arrays = [normal(2, 3, 9, 8, dtype=np.float16, seed=i) for i in range(3)]
    mask = np.tri(9, dtype=np.bool_)
    dy = normal(2, 3, 9, 8, dtype=np.float16, seed=9)
    own = run(F.scaled_dot_product_attention, arrays, dy, wrap, wrap(mask))
    sdpa = torch.nn.functional.scaled_dot_product_attention
    other = run(sdpa, arrays, dy, torch.from_numpy, torch.from_numpy(mask))
    for mine, theirs in zip(own, other, strict=True):
        assert mine.dtype == np.float16
        np.testing.assert_allclose(mine, theirs, rtol=1e-2, atol=1e-2)


def test_a_result_changed_in_place_is_noticed() -> None:
    """Backward needs the result as it was."""
    for shape in ((4, 6), (2, 4, 6), (2, 1, 4, 6), (1, 2, 1, 4, 6)):
        q = wrap(normal(*shape)).requires_grad_()
        y = F.scaled_dot_product_attention(q, q, q)
        with mt.no_grad():
            y += 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
    qkv = wrap(normal(2, 4, 6)).requires_grad_()
    y = F.packed_attention(qkv, 2)
    with mt.no_grad():
        y += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# Straight from the projections


PACKED_MASKS: dict[str, Any] = {
    "none": None,
    "bool": np.random.RandomState(1).rand(20, 30) < 0.7,
    "padding": np.arange(30) < np.array([30, 23])[:, None, None, None],
    "heads": np.random.RandomState(2).rand(2, 3, 20, 30) < 0.7,
    "numbers": normal(2, 3, 20, 30, seed=3),
    "infinite": np.where(np.random.RandomState(2).rand(2, 1, 20, 30) < 0.7, 0.0, -np.inf),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", PACKED_MASKS)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("sequence_first", [False, True])
def test_packed_equals_the_reference(
    mask: str, causal: bool, dtype: str, dropout: float, sequence_first: bool
) -> None:
    """Of one array and of two, in both orders of N and L; the gradients lie as their inputs do."""
    given = PACKED_MASKS[mask]
    if given is not None and given.dtype != np.bool_:
        given = given.astype(dtype)
    for rows, widths in ((30, (36,)), (20, (12, 24))):
        lengths = (rows, 30)
        arrays = [
            normal(length, 2, width, dtype=dtype, seed=width).swapaxes(0, 1)
            if sequence_first
            else normal(2, length, width, dtype=dtype, seed=width)
            for length, width in zip(lengths, widths, strict=False)
        ]
        fits = given if given is None or given.shape[-2] in (1, rows) else given[..., :1, :]
        settings = (3, causal, 0.3, dropout, 12345 if dropout else None)
        dy = normal(2, rows, 12, dtype=dtype, seed=9)

        def function(op: Any, *xs: Tensor, fits: Any = fits, settings: Any = settings) -> Tensor:
            kv = xs[1] if len(xs) > 1 else None
            return op(xs[0], kv, None if fits is None else wrap(fits), *settings)

        found, expected = (
            run(lambda *xs, op=op: function(op, *xs), arrays, dy, wrap)
            for op in (PackedAttention.apply, PackedAttention.decomposition)
        )
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, **TOLERANCE[dtype])
        y = function(PackedAttention.apply, *(wrap(a).requires_grad_() for a in arrays))
        for x in (y._array, *y.grad_fn.backward(dy)):  # type: ignore[union-attr]
            assert (x.swapaxes(0, 1) if sequence_first else x).flags.c_contiguous


def test_packed_rows_without_anything_to_attend() -> None:
    """A padded first key leaves nothing to a causal first query."""
    mask = np.ones((2, 1, 1, 5), np.bool_)
    mask[0, ..., 0] = False
    qkv = wrap(normal(2, 5, 12)).requires_grad_()
    y = F.packed_attention(qkv, 2, wrap(mask), is_causal=True)
    assert (y[0, 0] == 0).all()
    assert (y[1, 0] != 0).all()
    y.sum().backward()
    assert qkv.grad is not None
    assert np.isfinite(qkv.grad.numpy()).all()
    assert (qkv.grad[0, 0] == 0).all()


def test_packed_in_half_precision() -> None:
    q, kv = normal(2, 4, 6, dtype=np.float16), normal(2, 5, 12, dtype=np.float16)
    dy = normal(2, 4, 6, dtype=np.float16)
    half = run(lambda q, kv: F.packed_attention(q, 2, kv=kv), (q, kv), dy, wrap)
    wide = [a.astype(np.float32) for a in (q, kv)]
    full = run(lambda q, kv: F.packed_attention(q, 2, kv=kv), wide, dy.astype(np.float32), wrap)
    for mine, theirs in zip(half, full, strict=True):
        assert mine.dtype == np.float16
        np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-3)


def test_packed_with_a_mask_that_wants_its_gradient() -> None:
    bias = wrap(normal(4, 4)).requires_grad_()
    F.packed_attention(wrap(normal(2, 4, 6)), 1, bias).sum().backward()
    assert bias.grad is not None
    assert bias.grad.abs().sum() > 0


def test_packed_dropout_follows_the_generator() -> None:
    qkv = wrap(normal(2, 9, 12))
    mt.manual_seed(3)
    first = F.packed_attention(qkv, 2, dropout_p=0.5)
    assert (first != F.packed_attention(qkv, 2, dropout_p=0.5)).any()
    mt.manual_seed(3)
    assert (first == F.packed_attention(qkv, 2, dropout_p=0.5)).all()
    assert (F.packed_attention(qkv, 2, dropout_p=1.0) == 0).all()


@pytest.mark.parametrize(
    ("args", "settings", "message"),
    [
        ((4, 18), {}, r"expected qkv \(N, L, 3E\).*got \(4, 18\)"),
        ((2, 4, 16), {}, r"width 16 of qkv is no multiple of 3 \* num_heads = 6"),
        ((2, 4, 6), dict(kv=(2, 5, 18)), r"\(2, 4, 6\) and \(2, 5, 18\)"),
        ((2, 4, 6), dict(kv=(3, 5, 12)), r"\(2, 4, 6\) and \(3, 5, 12\)"),
        ((2, 4, 7), dict(kv=(2, 5, 14)), "no multiple of num_heads = 2"),
        ((2, 4, 6), dict(attn_mask=(5, 5)), r"\(5, 5\) does not broadcast to .*\(2, 2, 4, 4\)"),
        ((2, 4, 6), dict(dropout_p=1.5), "between 0 and 1"),
    ],
)
def test_packed_messages(args: Any, settings: dict[str, Any], message: str) -> None:
    given: Any = {k: mt.ones(*x) if isinstance(x, tuple) else x for k, x in settings.items()}
    with pytest.raises(RuntimeError, match=message):
        F.packed_attention(mt.ones(*args), 2, **given)


def test_packed_takes_floats_of_one_type() -> None:
    x = mt.ones(2, 4, 6)
    with pytest.raises(RuntimeError, match="one type for all, got float32, float64"):
        F.packed_attention(x, 2, kv=mt.ones(2, 4, 12, dtype=mt.float64))
    with pytest.raises(RuntimeError, match="expected floats, got int64"):
        F.packed_attention(mt.ones(2, 4, 6, dtype=mt.int64), 2)
    with pytest.raises(TypeError, match="qkv must be a Tensor"):
        F.packed_attention(None, 2)  # type: ignore[arg-type]


def test_the_projections_of_a_memory_in_one() -> None:
    """Equal to two linear layers, with the gradients of the weight and the bias in one piece."""
    arrays = [normal(2, 4, 8), normal(2, 5, 8, seed=1), normal(24, 8, seed=2), normal(24, seed=3)]
    weight = arrays[2]

    def apart(query: Tensor, source: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        q = F.linear(query, weight[:8], bias[:8])
        return mt.cat([q.flatten(), F.linear(source, weight[8:], bias[8:]).flatten()])

    def packed(*tensors: Any) -> Tensor:
        return mt.cat([x.flatten() for x in F.in_projection_packed(*tensors)])

    dy = normal(2 * 4 * 8 + 2 * 5 * 16, seed=5)
    found, expected = (run(function, arrays, dy, wrap) for function in (packed, apart))
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)
    q, _ = F.in_projection_packed(*(wrap(a).requires_grad_() for a in arrays[:2]), wrap(weight))  # type: ignore[call-arg]
    q.sum().backward()  # the other output is not used


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 4, 8), (2, 5, 7), (24, 8)),
        ((2, 4, 7), (2, 5, 8), (24, 8)),
        ((2, 4, 8), (2, 5, 8), (23, 8)),
        ((2, 4, 8), (2, 5, 8), (24, 8), (8,)),
        ((8,), (2, 5, 8), (24, 8)),
    ],
)
def test_projections_that_do_not_fit(shapes: Any) -> None:
    with pytest.raises(RuntimeError, match=r"expected query .* got \("):
        F.in_projection_packed(*(mt.ones(*shape) for shape in shapes))


# Dropout


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rows", [13, 150])
def test_dropout_equals_the_reference(rows: int, causal: bool, dtype: str) -> None:
    """With the same key the kernel drops what the composition drops."""
    arrays = [normal(2, 3, length, 8, dtype=dtype, seed=length) for length in (rows, 19, 19)]
    dy = normal(2, 3, rows, 8, dtype=dtype, seed=9)
    mask = wrap(np.random.RandomState(0).rand(rows, 19) < 0.7)
    found = [
        run(function, arrays, dy, wrap, mask, causal, 0.3, 0.4, 12345)
        for function in (ScaledDotProductAttention.apply, ScaledDotProductAttention.decomposition)
    ]
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, **TOLERANCE[dtype])


def test_dropout_drops() -> None:
    """With values of 1 a row's result is the sum of its weights, whose mean is 1."""
    q = wrap(normal(8, 4, 40, 8, dtype=np.float32))
    ones = mt.ones(8, 4, 40, 8)
    mt.manual_seed(0)
    y = F.scaled_dot_product_attention(q, q, ones, dropout_p=0.25)
    assert y.std() > 0.01
    assert abs(y.mean() - 1) < 0.05
    assert (y != F.scaled_dot_product_attention(q, q, ones, dropout_p=0.25)).any()
    mt.manual_seed(0)
    assert (y == F.scaled_dot_product_attention(q, q, ones, dropout_p=0.25)).all()
    assert (F.scaled_dot_product_attention(q, q, ones, dropout_p=1.0) == 0).all()


def test_gradient_with_dropout() -> None:
    def function(*tensors: Tensor) -> Tensor:
        return ScaledDotProductAttention.apply(*tensors, None, True, 0.5, 0.3, 99)

    inputs = [wrap(normal(2, 2, length, 3, seed=length)).requires_grad_() for length in (4, 5, 5)]
    assert gradcheck(function, inputs)


# The kernel


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rows", [40, 200])
def test_same_on_any_number_of_threads(causal: bool, rows: int) -> None:
    q, k, v = (normal(3, 3, length, 16, dtype=np.float32, seed=length) for length in (rows, 90, 90))
    dy = normal(3, 3, rows, 16, dtype=np.float32, seed=9)

    def results() -> tuple[np.ndarray, ...]:
        settings = (None, causal, 0.25, 0.1, 5)
        return forward(q, k, v, *settings), *backward(dy, q, k, v, *settings)

    before = get_num_threads()
    try:
        set_num_threads(1)
        one = results()
    finally:
        set_num_threads(before)
    for a, b in zip(one, results(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("rows", "cols"),
    [(1, 1), (1, 15), (1, 5000), (2, 16), (15, 17), (16, 33), (31, 1), (33, 32), (127, 700),
     (128, 8), (129, 530), (257, 300)],
)  # fmt: skip
def test_lengths_around_vectors_and_tiles(
    rows: int, cols: int, causal: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward, with a bias of each kind and dropout, for several tiles of keys."""
    monkeypatch.setattr(kernel, "_TILE", 1 << 14)
    monkeypatch.setattr(kernel, "_layouts", {})
    arrays = [normal(1, 2, n, 9, dtype=dtype, seed=n) for n in (rows, cols, cols)]
    dy = normal(1, 2, rows, 9, dtype=dtype, seed=9)
    for mask in (None, normal(cols, dtype=dtype)[None], normal(2, rows, cols, dtype=dtype)):
        bias = None if mask is None else wrap(mask)
        found = [
            run(function, arrays, dy, wrap, bias, causal, 0.3, 0.1, 77)
            for function in (
                ScaledDotProductAttention.apply,
                ScaledDotProductAttention.decomposition,
            )
        ]
        for mine, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(mine, theirs, **TOLERANCE[dtype])


@pytest.mark.parametrize("causal", [False, True])
def test_few_heads_are_shared_in_parts_of_their_keys(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their gradients are those of one part, and the same on any number of threads."""
    q, dy = normal(1, 1, 70, 8), normal(1, 1, 70, 8, seed=1)
    k, v = normal(1, 1, 130, 8, seed=2), normal(1, 1, 130, 8, seed=3)
    settings = (None, causal, 0.3, 0.1, 5)
    whole = backward(dy, q, k, v, *settings)
    monkeypatch.setattr(kernel, "_SPLIT_KEYS", 32)
    monkeypatch.setattr(kernel, "_TILE", 1 << 14)
    monkeypatch.setattr(kernel, "_layouts", {})
    parts = backward(dy, q, k, v, *settings)
    for mine, theirs in zip(parts, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    before = get_num_threads()
    try:
        set_num_threads(1)
        for mine, theirs in zip(backward(dy, q, k, v, *settings), parts, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    finally:
        set_num_threads(before)


def test_large_scores() -> None:
    """Scores in the thousands, positive and negative, do not overflow."""
    q, k = normal(1, 1, 20, 8) * 100, normal(1, 1, 30, 8, seed=1) * 100
    v, dy = normal(1, 1, 30, 8, seed=2), normal(1, 1, 20, 8, seed=3)
    settings = (None, False, 1.0, 0.0, 0)
    for dtype in (np.float32, np.float64):
        arrays = [a.astype(dtype) for a in (q, k, v)]
        out = forward(*arrays, *settings)
        grads = backward(dy.astype(dtype), *arrays, *settings)
        assert all(np.isfinite(a).all() for a in (out, *grads))
        score = arrays[0].astype(np.float64) @ arrays[1].astype(np.float64).swapaxes(2, 3)
        weight = np.exp(score - score.max(-1, keepdims=True))
        expected = weight / weight.sum(-1, keepdims=True) @ v
        np.testing.assert_allclose(out, expected, rtol=1e-2, atol=1e-2)


def test_nan_stays_in_its_row() -> None:
    q, k = normal(1, 1, 5, 8), normal(1, 1, 6, 8, seed=1)
    q[0, 0, 2, 3] = np.nan
    out = forward(q, k, k, None, False, 1.0, 0.0, 0)
    assert np.isnan(out[0, 0, 2]).all()
    assert np.isfinite(np.delete(out, 2, 2)).all()


def test_messages() -> None:
    q = mt.ones(2, 3, 4, 5)
    with pytest.raises(
        RuntimeError, match=r"attn_mask \(4, 7\) does not broadcast to .*\(2, 3, 4, 4\)"
    ):
        F.scaled_dot_product_attention(q, q, q, mt.ones(4, 7))
    with pytest.raises(RuntimeError, match="key and value differ in length"):
        F.scaled_dot_product_attention(q, q, mt.ones(2, 3, 6, 5))
    with pytest.raises(RuntimeError, match="2 heads of key and value do not divide the 3 of query"):
        F.scaled_dot_product_attention(q, q[:, :2], q[:, :2], enable_gqa=True)


def test_a_leaf_takes_over_its_gradient() -> None:
    """But each of two leaves, or two uses of one leaf, has a gradient of its own."""
    x = mt.ones(1, 2, 3, 4, requires_grad=True)
    y, z = mt.ones(1, 2, 3, 4, requires_grad=True), mt.ones(1, 2, 3, 4, requires_grad=True)
    F.scaled_dot_product_attention(x, x, y).sum().backward()
    F.scaled_dot_product_attention(z, x, y).sum().backward()
    assert not any(
        np.shares_memory(a._array, b._array)
        for a, b in ((x.grad, y.grad), (x.grad, z.grad), (y.grad, z.grad))
    )
    np.testing.assert_allclose(y.grad.numpy(), 2, rtol=1e-6)
