"""Tensor's breadth: what PyTorch's users do to a tensor besides the ops, with values written in."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import numpy as np
import pytest

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
