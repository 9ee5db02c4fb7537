"""Tensor's breadth: what PyTorch's users do to a tensor besides the ops, with values written in."""

from __future__ import annotations

import gc
import math
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
import minitensor.nn.functional as F


def bytes_of(*values: int) -> mt.Tensor:
    return mt.tensor(list(values), dtype=mt.uint8)


def test_a_tensor_is_made_of_sizes_of_values_and_over_another() -> None:
    x = mt.arange(6.0).reshape(2, 3)
    for make in (mt.Tensor, mt.FloatTensor, x.new):
        assert make(2, 3).shape == make(x.shape).shape == (2, 3)
        assert make().shape == (0,)
        assert make((2, 3)).tolist() == [2, 3]
        assert make(np.arange(2)).dtype == mt.float32
        assert make(x).data_ptr() == x.data_ptr()
        for wrong in (3.0, True, "ab"):
            with pytest.raises(TypeError, match="data must be a sequence"):
                make(wrong)
    assert mt.LongTensor([1.7, -2.2]).tolist() == [1, -2]
    with pytest.raises(TypeError, match="expected a tensor of int64"):
        mt.LongTensor(x)
    assert isinstance(x, mt.FloatTensor)
    assert not isinstance(x, mt.LongTensor)


def test_uint8_wraps_around() -> None:
    u = bytes_of(200, 3)
    assert (u + 100).tolist() == [44, 103]
    assert (u - 4).tolist() == [196, 255]
    assert (300 - u).tolist() == [100, 41]
    assert (-u).tolist() == [56, 253]
    assert (u * 1000).tolist() == [64, 184]
    assert mt.tensor([-1.0, 300.0, 1.7]).to(mt.uint8).tolist() == [255, 44, 1]
    assert bytes_of(-1).item() == mt.full((1,), -1, dtype=mt.uint8).item() == 255
    assert u.fill_(-1).tolist() == [255, 255]
    refused: list[Any] = [
        lambda: bytes_of(256),
        lambda: u.fill_(300),
        lambda: mt.full((1,), -300, dtype=mt.uint8),
        lambda: mt.tensor([-1.7], dtype=mt.uint8),
    ]
    for make in refused:
        with pytest.raises(RuntimeError):
            make()


def test_in_asks_for_an_equal_element() -> None:
    x = mt.arange(6).reshape(2, 3)
    assert 2 in x
    assert x[0, 1] in x
    assert 9 not in x
    assert mt.tensor([0, 1, 2]) in x
    with pytest.raises(RuntimeError, match="only supports Tensor or scalar"):
        "a" in x  # noqa: B015
    assert [row.tolist() for row in reversed(x)] == [[3, 4, 5], [0, 1, 2]]


def test_bits_are_shifted_by_operators_too() -> None:
    x = mt.tensor([5, -3, 7])
    assert (x << 2).tolist() == [20, -12, 28]
    assert (x >> 1).tolist() == [2, -2, 3]
    assert (2 << mt.tensor([3])).tolist() == [16]
    assert (x << 70).tolist() == [0, 0, 0]
    x <<= 1
    assert x.tolist() == [10, -6, 14]
    with pytest.raises(NotImplementedError):
        mt.ones(2) << 1


def test_the_bits_of_a_tensor_are_viewed_as_another_type() -> None:
    x = mt.tensor([[1.0, 2.0]], requires_grad=True)
    bits = x.view(mt.int32)
    assert bits.tolist() == [[0x3F800000, 0x40000000]]
    assert not bits.requires_grad
    assert x.view(dtype=mt.int16).shape == (1, 4)
    with mt.no_grad():
        bits[0, 0] = 0x40400000
    assert x[0, 0].item() == 3
    assert x._version == bits._version == 1
    for wrong in (x.detach().t(), mt.ones(3), mt.tensor(1.0)):
        with pytest.raises(RuntimeError, match="different element sizes"):
            wrong.view(mt.float64)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_negative_padding_crops_in_every_mode(mode: str) -> None:
    x = mt.arange(8.0).reshape(1, 8)
    assert F.pad(x, (-2, -1), mode).tolist() == [[2, 3, 4, 5, 6]]
    expected = {"reflect": [6, 5], "replicate": [7, 7], "circular": [2, 3]}[mode]
    assert F.pad(x, (-2, 2), mode).tolist() == [[2, 3, 4, 5, 6, 7, *expected]]


def test_running_extremes_name_the_last_of_equals_and_nan_stays() -> None:
    found = mt.cummax(mt.tensor([1, 3, 3, math.nan, 2]), 0)
    assert found.values[:3].tolist() == [1, 3, 3]
    assert found.values[3:].isnan().all()
    assert found.indices.tolist() == [0, 1, 2, 3, 3]
    values, indices = mt.tensor([3, 1, 1, 2]).cummin(0)
    assert values.tolist() == [3, 1, 1, 1]
    assert indices.tolist() == [0, 1, 2, 2]
    assert repr(found).startswith("minitensor.return_types.cummax(\nvalues=")


def test_numpy_functions_give_tensors() -> None:
    x = mt.tensor([1.0, 4.0])
    functions: list[Any] = [np.sqrt, np.transpose, np.argmax, lambda x: np.add(np.ones(2), x)]
    for function in functions:
        assert type(function(x)) is mt.Tensor
    assert np.sqrt(x).tolist() == [1, 2]
    assert np.add(np.ones(2), x).dtype == mt.float64
    assert np.greater(x, 2).dtype == mt.uint8  # as PyTorch does
    with pytest.raises(RuntimeError, match="requires grad"):
        np.exp(mt.ones(2, requires_grad=True))


def test_a_node_is_called_and_has_hooks() -> None:
    a, b = (mt.ones(*shape, requires_grad=True) for shape in ((2, 3), (3,)))
    y = a * b
    node: Any = y.grad_fn
    assert [x.shape for x in node(mt.ones(2, 3))] == [(2, 3), (2, 3)]
    doubled: Any = (a * 2).grad_fn
    assert doubled(mt.ones(2, 3))[1] is None
    summed: Any = a.sum(0).grad_fn
    assert summed(mt.ones(3)).shape == (2, 3)
    with pytest.raises(RuntimeError, match="expected 1 gradients, got 2"):
        node(mt.ones(2, 3), mt.ones(2, 3))
    seen: list[Any] = []

    def one_more(outs: Any) -> Any:
        seen.append(outs)
        return (outs[0] + 1,)

    def tenfold(ins: Any, outs: Any) -> Any:
        seen.append((ins, outs))
        return ins[0] * 10, None

    before, after = node.register_prehook(one_more), node.register_hook(tenfold)
    y.sum().backward(retain_graph=True)
    assert a.grad.unique().tolist() == [20]
    assert b.grad is None
    assert seen[0][0].unique().tolist() == [1]
    assert seen[1][0][1].tolist() == [4, 4, 4]  # summed to the shape of b
    before.remove()
    after.remove()
    y.sum().backward()
    assert a.grad.unique().tolist() == [21]
    node.metadata["note"] = 1
    assert node.metadata == {"note": 1}


def test_a_node_with_hooks_is_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        y = mt.ones(2, requires_grad=True) * 2
        made: Any = y.grad_fn
        made.register_hook(lambda ins, outs: None)
        node = weakref.ref(made)
        del y, made
        assert node() is None
    finally:
        gc.enable()


def test_the_end_of_a_graph_has_hooks_too() -> None:
    x = mt.ones(2, requires_grad=True)
    y = x * 2
    node: Any = y.grad_fn
    ((end, _), _) = node.next_functions
    assert end.variable is x
    seen: list[Any] = []
    end.register_prehook(lambda grads: (grads[0] * 3,))
    end.register_hook(lambda ins, outs: seen.append((ins, outs[0].tolist())))
    end(mt.ones(2))
    y.sum().backward()
    assert x.grad.tolist() == [7, 7]
    assert seen == [((), [6, 6])]
    assert not x.retains_grad
    assert not y.retains_grad
    y.retain_grad()
    assert y.retains_grad


def test_tensors_over_one_memory_have_one_storage() -> None:
    x = mt.arange(12.0).reshape(3, 4)
    assert x[1:].untyped_storage().data_ptr() == x.t().storage().data_ptr() == x.data_ptr()
    assert x[1, 2:].storage_offset() == 6
    assert len(x.storage()) * 4 == x.untyped_storage().nbytes() >= 48
    assert x.is_cpu
    assert not x.is_sparse
    assert x.get_device() == -1
    assert x.ndimension() == 2
    assert x.is_contiguous(memory_format=None)
    assert x.is_signed()
    assert not bytes_of(1).is_signed()
    assert mt.detach(x) is not x


def test_strides_of_ones_own_are_a_view() -> None:
    x = mt.arange(6.0)
    windows = x.as_strided((4, 3), (1, 1))
    assert windows.tolist() == x.unfold(0, 3, 1).tolist()
    windows[0, 2] = 9
    assert x[2].item() == 9
    assert x.view(2, 3)[1].as_strided((2,), (1,)).tolist() == [3, 4]
    with pytest.raises(RuntimeError, match="outside of"):
        x.as_strided((4, 3), (2, 1))


def test_a_diagonal_is_filled_in_place() -> None:
    x = mt.zeros(5, 2)
    assert x.fill_diagonal_(7).tolist() == [[7, 0], [0, 7], [0, 0], [0, 0], [0, 0]]
    assert x.fill_diagonal_(1, wrap=True)[3].tolist() == [1, 0]
    y = mt.ones(2, 2, requires_grad=True) * 2
    y.fill_diagonal_(0).sum().backward()
    with pytest.raises(RuntimeError, match="expected a matrix or a cube"):
        mt.zeros(3).fill_diagonal_(1)


def test_a_python_function_replaces_each_element() -> None:
    x = mt.tensor([[1, 2], [3, 4]])
    assert x.t().apply_(lambda n: n * n).tolist() == [[1, 9], [4, 16]]
    assert x.tolist() == [[1, 4], [9, 16]]


def test_runs_of_equal_elements_become_one() -> None:
    x = mt.tensor([1, 1, 2, 2, 2, 1])
    values, inverse, counts = mt.unique_consecutive(x, return_inverse=True, return_counts=True)
    assert values.tolist() == [1, 2, 1]
    assert inverse.tolist() == [0, 0, 1, 1, 1, 2]
    assert counts.tolist() == [2, 3, 1]
    rows = mt.tensor([[0, 1], [0, 1], [2, 1]])
    assert rows.unique_consecutive(dim=0).tolist() == [[0, 1], [2, 1]]
    assert mt.tensor([]).unique_consecutive().tolist() == []


def test_shapes_broadcast() -> None:
    assert mt.broadcast_shapes((2, 1), 3, ()) == (2, 3)
    with pytest.raises(RuntimeError, match="cannot be broadcast"):
        mt.broadcast_shapes((2,), (3,))


# Expressions that PyTorch and this library answer alike: T is either.
EXPRESSIONS = """
T.Tensor(2, 3).shape
T.Tensor([1, 2])
T.Tensor((2, 3))
T.Tensor(T.Size([2, 3])).shape
T.Tensor()
T.Tensor(3).shape
T.Tensor(3.0)
T.Tensor(True)
T.Tensor(np.int64(3)).shape
T.Tensor(np.arange(3))
T.Tensor(a).data_ptr() == a.data_ptr()
T.Tensor(i)
T.Tensor(5, "x")
T.Tensor("ab")
T.Tensor([[1, 2], [3]])
T.FloatTensor([1, 2])
T.FloatTensor(a).data_ptr() == a.data_ptr()
T.FloatTensor(i)
T.LongTensor([1.7, -2.2])
T.LongTensor(np.array([1.5, 2]))
T.LongTensor(T.Size([3])).shape
T.ByteTensor([300])
T.ByteTensor([-1])
T.BoolTensor([0, 2])
T.FloatTensor(2.5)
isinstance(a, T.FloatTensor)
isinstance(i, T.FloatTensor)
i.new([1, 2])
a.new()
2.0 in a
a[0, 1] in a
9 in a
"x" in a
[1.0] in a
T.tensor([0.0, 1.0, 2.0]) in a
reversed(T.arange(3))
u + 100
u - 4
-u
u**2
u // 7
u % 7
~u
u << 1
u >> 1
T.tensor([-1.0, 300.0, 1.7]).to(T.uint8)
T.tensor(-1, dtype=T.uint8)
T.tensor([256], dtype=T.uint8)
T.tensor([200], dtype=T.int8)
T.tensor([-1.7], dtype=T.uint8)
u.clone().fill_(-1)
u.clone().fill_(300)
u.clone().fill_(256.5)
T.full((2,), -1, dtype=T.uint8)
T.full((2,), 300, dtype=T.uint8)
u.masked_fill(u > 5, -1)
u - 300
u * 1000
u == 456
u & 511
T.arange(250, 260, dtype=T.uint8)
u.sum()
300 - u
u.clamp(-1, 300)
np.sqrt(a)
np.add(np.arange(3.0), a[0])
np.exp(g)
np.concatenate([a, a])
np.greater(a, 2)
np.multiply.reduce(a)
np.where(a > 1, a, 0)
np.clip(a, 0, 2)
np.matmul(a, a.T)
np.transpose(a)
np.reshape(a, (3, 2))
np.argmax(a)
np.cumsum(a)
np.divmod(a, 2)
np.sin(T.tensor(1.0))
np.sum(a)
np.float64(2) * a[0]
a << 1
i << 2
2 << i
2 >> i
i >> 70
i << -1
b << 1
i << 1.5
a.view(T.int32)
a.view(T.float64)
a[:, :2].view(T.float64)
T.arange(4.0).view(T.float64)
T.tensor(1.0).view(T.int16)
a.t().view(T.int32).shape
a.t().view(T.int16).shape
g.view(T.int32)
g.view(T.float32)
a.view(T.bool).shape
T.rsub(a, 1, alpha=2)
T.rsub(i, 1, alpha=2.5)
T.rsub(b, 1)
T.take(a, i)
T.take(a, T.tensor([-1]))
T.take(a, T.tensor([0], dtype=T.int32))
T.trace(b[None])
T.trace(i[None].int())
T.diff(b)
T.diff(a, n=5).shape
T.copysign(i, -1)
T.copysign(a, b)
T.cummax(T.tensor([1.0, 3, 3, float("nan"), 2, float("nan"), 1]), 0)
T.cummax(b, 0)
T.cummin(T.tensor([3, 1, 1, 2]), 0)
T.logcumsumexp(i, 0)
T.unique_consecutive(b, return_counts=True)
T.mode(T.tensor([2, 2, 1, 1]))
T.quantile(a, 0.4)
a.sum_to_size(1, 3)
T.add(a, a, out=T.empty(0))
T.zeros(3, out=T.empty(2, dtype=T.int64))
T.arange(5, out=T.empty(0))
T.max(a, 0, out=(T.empty(4), T.empty(4)))
T.linspace(0, 1, 3, out=T.empty(0, dtype=T.float64))
T.add(g, 1, out=T.empty(3))
T.add(base[:5], 1, out=base[1:6])
F.pad(base[None], (1, -7), "reflect")
F.pad(base[None], (-4, -6), "replicate")
F.pad(base[None], (-6, 2), "circular")
"""


def answer(library: Any, functional: Any, expression: str) -> Any:
    """The value of an expression as plain data, or the class of what it raises."""
    scope = dict(
        T=library,
        F=functional,
        np=np,
        a=library.arange(6.0).reshape(2, 3),
        b=library.tensor([True, False, True]),
        g=library.ones(3, requires_grad=True),
        i=library.tensor([5, -3, 7]),
        u=library.tensor([200, 3], dtype=library.uint8),
        base=library.arange(10.0),
    )

    def plain(x: Any) -> Any:
        if hasattr(x, "requires_grad"):
            return str(x.dtype).removeprefix("torch."), x.requires_grad, *plain(x.detach().numpy())
        if isinstance(x, np.ndarray):
            return x.shape, x.tolist()
        return [plain(y) for y in x] if isinstance(x, tuple) else x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return plain(eval(expression, scope))
        except Exception as error:
            return type(error)


@needs_torch
@pytest.mark.parametrize("expression", EXPRESSIONS.split("\n")[1:-1])
def test_pytorch_answers_alike(expression: str) -> None:
    import torch

    mine = answer(mt, F, expression)
    theirs = answer(torch, torch.nn.functional, expression)
    np.testing.assert_equal(repr(mine), repr(theirs))
