"""`out=`: results written into tensors that are there already, as in PyTorch."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor.core import NAMESPACES, OPS, Op, wrap
from minitensor.testing import leaves, samples, to_torch

# What PyTorch converts depends on the other arguments; it warns of a shape that it chose itself.
VARYING, QUIETER = {"Clamp", "ClampMin", "ClampMax", "Lerp", "Diff", "Inner"}, {"Matmul"}
TAKING = sorted(name for name, op in OPS.items() if op.out and "torch" in op.namespaces.split())


def constants(x: Any) -> Any:
    """The same arguments, which require no gradient."""
    for leaf in leaves([x]):
        leaf._requires_grad = False
    return x


def results(x: Any) -> list[mt.Tensor]:
    return list(x) if isinstance(x, tuple) else [x]


@pytest.mark.parametrize("name", TAKING)
def test_the_result_is_written_into_out_which_is_returned(name: str) -> None:
    op = OPS[name]
    function = NAMESPACES["torch"][op.op_name]
    assert "out" in inspect.signature(function).parameters
    for args, kwargs in samples(op):
        args, kwargs = constants((args, kwargs))
        expected = op.call(*args, **kwargs)
        outs = tuple(mt.empty(0, dtype=y.dtype) for y in results(expected))
        found = function(*args, **kwargs, out=outs if isinstance(expected, tuple) else outs[0])
        for a, b, y in zip(results(found), outs, results(expected), strict=True):
            assert a is b
            assert b.shape == y.shape
            np.testing.assert_array_equal(b._array, y._array)


def test_out_may_be_an_argument_and_a_view() -> None:
    x = mt.arange(4.0)
    assert mt.mul(x, 2, out=x) is x
    assert x.tolist() == [0, 2, 4, 6]
    table = mt.zeros(2, 4)
    mt.add(x, 1, out=table[1])
    assert table.tolist() == [[0, 0, 0, 0], [1, 3, 5, 7]]
    assert mt.matmul(mt.eye(4), x, out=x).tolist() == [0, 2, 4, 6]


def test_another_shape_is_changed_with_a_warning_unless_it_is_empty() -> None:
    x, out = mt.ones(2, 2), mt.zeros(3)
    with pytest.warns(UserWarning, match="was resized since it had shape"):
        mt.add(x, x, out=out)
    assert out.tolist() == [[2, 2], [2, 2]]
    out = mt.empty(0)
    mt.add(x, x, out=out)
    assert out.shape == (2, 2)


def test_the_type_of_out_is_kept_where_the_result_fits() -> None:
    x = mt.tensor([0.1, 1.7])
    assert mt.add(x, x, out=mt.empty(2, dtype=mt.float16)).dtype == mt.float16
    assert mt.sum(x, 0, out=mt.empty((), dtype=mt.int64)).item() == 1  # of 0 and 1
    assert mt.zeros(2, out=mt.ones(2, dtype=mt.int32)).dtype == mt.int32
    with pytest.raises(RuntimeError, match="result type float32 can't be cast to"):
        mt.add(x, x, out=mt.empty(2, dtype=mt.int64))
    with pytest.raises(RuntimeError, match="Expected out tensor to have dtype float32"):
        mt.softmax(x, 0, out=mt.empty(2, dtype=mt.float64))
    with pytest.raises(RuntimeError, match="does not match dtype of out"):
        mt.zeros(2, dtype=mt.float64, out=x)


def test_nothing_is_written_while_gradients_are_recorded() -> None:
    x = mt.ones(2, requires_grad=True)
    for arguments in (dict(input=x, out=mt.empty(2)), dict(input=mt.ones(2), out=x)):
        with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
            mt.exp(**arguments)
    with mt.no_grad():
        mt.exp(x, out=x)
    assert x.requires_grad
    assert x[0].item() == np.float32(np.e)
    assert mt.eq(x, 1, out=mt.empty(2, dtype=mt.bool)).tolist() == [False, False]


def test_what_cannot_be_written_into_is_refused() -> None:
    x = mt.arange(6.0)
    with pytest.raises(RuntimeError, match="refer to a single memory location"):
        mt.add(x[:5], 1, out=x[1:])
    with pytest.raises(RuntimeError, match="single memory location"):
        mt.add(x, x, out=mt.empty(1).expand(6))
    with pytest.raises(TypeError, match="tuple of 2 tensors"):
        mt.max(x, 0, out=(x,))
    with pytest.raises(TypeError):
        x.add(x, out=x)  # type: ignore[call-arg]


def test_a_change_of_a_saved_tensor_by_out_is_noticed() -> None:
    x = mt.ones(2, requires_grad=True)
    y = x * 2
    loss = (y * y).sum()
    with mt.no_grad():
        mt.add(y, 1, out=y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_resize_keeps_the_elements_in_order() -> None:
    x = mt.arange(6.0).reshape(2, 3)
    assert x.resize_(4).tolist() == [0, 1, 2, 3]
    assert x.resize_(2, 3).flatten()[:4].tolist() == [0, 1, 2, 3]
    assert x.resize_as_(mt.zeros(1, 2)).tolist() == [[0, 1]]
    with pytest.raises(RuntimeError, match="require grad"):
        mt.ones(2, requires_grad=True).resize_(1)


def outcome(call: Any, *args: Any, **kwargs: Any) -> Any:
    """The results of a call, or the class of what it raised, and if it warned."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found: Any = [np.asarray(y) for y in results(call(*args, **kwargs))]
        except Exception as error:
            found = type(error)
    return found, any("was resized" in str(w.message) for w in caught)


@needs_torch
@pytest.mark.parametrize("name", TAKING)
def test_shapes_and_types_of_out_are_treated_as_by_pytorch(name: str) -> None:
    import torch

    op: type[Op] = OPS[name]
    function, theirs = NAMESPACES["torch"][op.op_name], getattr(torch, op.op_name)
    for args, kwargs in samples(op):
        args, kwargs = constants((args, kwargs))
        expected = op.call(*args, **kwargs)
        if isinstance(expected, tuple):
            continue
        kinds = [expected.dtype, np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.int64)]
        for shape, kind in [(expected.shape, k) for k in kinds] + [((7,), kinds[0])]:
            out = wrap(np.zeros(shape, kind))
            other = torch.zeros(shape, dtype=getattr(torch, kind.name))
            wanted = outcome(theirs, *to_torch(args), **to_torch(kwargs), out=other)
            if wanted[0] is TypeError:  # its overload without `dim` has no out
                continue
            found = outcome(function, *args, **kwargs, out=out)
            told = f"{name}{args}{kwargs} into {shape} {kind}"
            if name in VARYING and (found[0] is RuntimeError or wanted[0] is RuntimeError):
                continue
            if isinstance(wanted[0], type):
                assert found[0] is wanted[0], told
                continue
            assert found[1] == wanted[1] or name in QUIETER, told
            assert not isinstance(found[0], type), told
            for a, b in zip(found[0], wanted[0], strict=True):
                assert a.dtype == b.dtype, told
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=told)
