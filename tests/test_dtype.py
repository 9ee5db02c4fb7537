"""Types: how they meet, what they refuse, and conversions; against PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor.autograd import observe
from minitensor.core import Observer, Tensor, wrap
from minitensor.devices import device
from minitensor.dtype import TYPES, as_dtype, get_default_dtype, result_dtype, set_default_dtype
from minitensor.testing import to_torch

NAMES = [*TYPES]
NUMBERS = [True, 2, 1.5, np.float64(1.5), np.float32(1.5), np.int64(2), np.int8(2)]


def both(name: str, *shape: int, value: float = 1) -> tuple[Tensor, Any]:
    """A tensor of that type here and in PyTorch."""
    mine: Tensor = wrap(np.full(shape, value).astype(as_dtype(name)))
    return mine, to_torch(mine)


def attempt(f: Any, *args: Any) -> Any:
    """The result, or the type of the exception."""
    try:
        return f(*args)
    except Exception as error:
        return type(error)


def compare(mine: Any, theirs: Any) -> None:
    if isinstance(theirs, type):
        assert mine is theirs
        return
    assert mine.dtype.name == str(theirs.dtype).removeprefix("torch.")
    assert tuple(mine.shape) == tuple(theirs.shape)
    theirs = theirs.double() if theirs.is_floating_point() else theirs
    np.testing.assert_allclose(mine.double(), theirs.numpy(), rtol=1e-3)


FUNCTIONS = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "sub": lambda a, b: a - b,
    "div": lambda a, b: a / b,
    "floor": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "pow": lambda a, b: a**b,
    "eq": lambda a, b: a == b,
    "and": lambda a, b: a & b,
}


@needs_torch
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shapes", [((3,), (3,)), ((3,), ()), ((), (3,)), ((), ())], ids=str)
def test_types_of_tensors_meet(function: str, shapes: Any) -> None:
    f = FUNCTIONS[function]
    for first, second in itertools.product(NAMES, NAMES):
        (a, c), (b, d) = both(first, *shapes[0]), both(second, *shapes[1])
        mine, theirs = attempt(f, a, b), attempt(f, c, d)
        if theirs is NotImplementedError and not isinstance(mine, type):
            continue  # a type that PyTorch does not support there
        compare(mine, theirs)


@needs_torch
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shape", [(3,), ()], ids=str)
def test_types_of_tensors_and_numbers_meet(function: str, shape: Any) -> None:
    f = FUNCTIONS[function]
    for name, number in itertools.product(NAMES, NUMBERS):
        mine, theirs = both(name, *shape)
        for swap in (False, True):
            if swap and isinstance(number, np.generic):
                continue  # there NumPy is asked first
            args, others = (
                ((number, mine), (number, theirs)) if swap else ((mine, number), (theirs, number))
            )
            found, expected = attempt(f, *args), attempt(f, *others)
            if expected is NotImplementedError and not isinstance(found, type):
                continue
            compare(found, expected)


@needs_torch
def test_result_dtype_of_three() -> None:
    import torch

    for a, b in itertools.product(NAMES, NAMES):
        for number in (True, 3, 1.5):
            (x, u), (y, v) = both(a, 2), both(b)
            expected = torch.result_type(u, v)
            expected = torch.result_type(torch.empty(2, dtype=expected), number)
            assert result_dtype(x, y, number).name == str(expected).removeprefix("torch.")


@needs_torch
@pytest.mark.parametrize("name", ["add_", "mul_", "div_", "sub_"])
def test_in_place_keeps_the_type_or_raises(name: str) -> None:
    operands: list[Any] = [lambda n=n, s=s: both(n, *s) for n in NAMES for s in ((3,), ())]
    operands += [lambda x=x: (x, x) for x in (True, 2, 1.5)]  # type: ignore[misc]
    for target, operand in itertools.product(NAMES, operands):
        (a, c), (b, d) = both(target, 3, value=4), operand()
        mine = attempt(getattr(a, name), b)
        theirs = attempt(getattr(c, name), d)
        compare(mine, theirs)
        assert isinstance(mine, type) or mine is a


@needs_torch
def test_integers_wrap_around() -> None:
    import torch

    for name in ("uint8", "int8", "int16", "int32", "int64"):
        array = np.asarray([0, 1, 100, np.iinfo(name).max], name)
        mine, theirs = wrap(array), torch.from_numpy(array.copy())
        for f in (
            lambda x: x - 3,
            lambda x: x + 300,
            lambda x: x * -1,
            lambda x: -x,
            lambda x: x < 300,
            lambda x: x == -1,
            lambda x: 5 - x,
        ):
            assert f(mine).tolist() == f(theirs).tolist()


def test_a_number_leaves_the_type_and_costs_no_conversion() -> None:
    class Recorder(Observer):
        seen: list[Any] = []

        def ran(self, node: Any, args: Any, kwargs: Any, outs: Any) -> None:
            self.seen.append((node.op_name, args))

    x = wrap(np.ones(3, np.float32))
    with observe(Recorder()):
        for y in (x * 2.0, 2.0 - x, x / 3.0, x**2.0, x + 1, x * True, x > 0.5):
            assert y.dtype in (np.float32, np.bool_)
    assert [op_name for op_name, _ in Recorder.seen] == [
        "mul",
        "sub",
        "div",
        "pow",
        "add",
        "mul",
        "gt",
    ]
    assert all(type(args[1]) is float for op_name, args in Recorder.seen if op_name != "sub")


def test_what_is_no_operand() -> None:
    x = wrap(np.ones(3, np.float32))
    for wrong in (None, "a", [1.0, 2.0, 3.0], object()):
        with pytest.raises(TypeError):
            x + wrong
        with pytest.raises(TypeError):
            mt.eq(x, wrong)
        assert (x == wrong) is False
        assert (x != wrong) is True
    with pytest.raises(TypeError):
        mt.exp(1.0)  # type: ignore[arg-type]
    assert (x + np.ones(3)).dtype == np.float64
    assert x in [None, x]


# Conversions


@needs_torch
@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("target", NAMES)
def test_to(source: str, target: str) -> None:
    import torch

    x: Tensor = wrap(np.asarray([0, 1, 2.7, 100.9]).astype(as_dtype(source)))
    mine = x.to(TYPES[target])
    theirs = to_torch(x).to(getattr(torch, target))
    compare(mine, theirs)
    assert (mine._array is x._array) == (source == target)


@needs_torch
def test_methods_named_after_types() -> None:
    import torch

    x = np.asarray([-2.7, 0.0, 1.5, 3.99])
    for name in ("half", "float", "double", "long", "int", "short", "char", "bool"):
        compare(getattr(wrap(x), name)(), getattr(torch.from_numpy(x), name)())
    assert wrap(x).double()._array is x
    compare(wrap(x).abs().byte(), torch.from_numpy(x).abs().byte())
    compare(wrap(x).type_as(wrap(np.ones(1, np.int8))), torch.from_numpy(x).char())


def test_forms_of_to() -> None:
    x = wrap(np.ones(2, np.float32))
    for same in (x.to("cpu"), x.to(device("cpu")), x.to(np.float32), x.to(x), x.cpu(), x.to()):
        assert same is x
    assert x.to("cpu", np.float64).dtype == np.float64
    assert x.to(device="cpu", dtype=np.float64).dtype == np.float64
    assert x.to(wrap(np.ones(1, np.int64))).dtype == np.int64
    assert x.to(other=wrap(np.ones(1, np.int64))).dtype == np.int64
    assert x.to(float).dtype == np.float64
    assert x.to(None, np.int32).dtype == np.int32
    for copied in (
        x.to(np.float32, copy=True),
        x.to(np.float32, False, True),
        x.to("cpu", copy=True),
    ):
        assert copied is not x
        assert copied._array is not x._array
        assert copied.tolist() == x.tolist()


def test_there_is_only_the_cpu() -> None:
    x = wrap(np.ones(2, np.float32))
    assert x.device == device("cpu")
    assert x.device.type == "cpu"
    assert x.device.index is None
    assert not x.is_cuda
    assert repr(device("cuda:1")) == "device(type='cuda', index=1)"
    assert repr(x.device) == "device(type='cpu')"
    assert str(device("cuda", 0)) == "cuda:0"
    assert device(device("cpu", 0)) == device("cpu:0") != device("cpu")
    assert len({device("cpu"), device("cpu")}) == 1
    for wrong in ("cuda", device("cuda:0")):
        with pytest.raises(RuntimeError, match="only the CPU"):
            x.to(wrong)
    with pytest.raises(RuntimeError, match="only the CPU"):
        x.cuda()
    with pytest.raises(RuntimeError, match="Invalid device"):
        device("c p u")


@needs_torch
def test_type() -> None:
    import torch

    for name in NAMES:
        mine, theirs = both(name, 2)
        word = mine.type()
        assert word == theirs.type().replace("torch", "minitensor")
        assert wrap(np.ones(2)).type(word).dtype == name
        assert wrap(np.ones(2)).type(np.dtype(name)).dtype == name
        assert torch.ones(2).type(theirs.type()).dtype == theirs.dtype


def test_gradients_come_back_in_their_own_type() -> None:
    x = wrap(np.asarray([1.0, 2.0], np.float32)).requires_grad_()
    y = (x.double() * 3).half().float()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [3, 3]
    assert not x.long().requires_grad
    assert x.to(np.float64).grad_fn.name() == "ToCopyBackward0"


def test_as_dtype() -> None:
    assert as_dtype(float) == np.float64
    assert as_dtype(int) == np.int64
    assert as_dtype("float16") == np.float16
    for wrong in ("complex64", "nonsense", np.uint32, object()):
        with pytest.raises(TypeError):
            as_dtype(wrong)


def test_default_dtype() -> None:
    x = wrap(np.asarray([1, 2]))
    set_default_dtype(np.float64)
    try:
        assert get_default_dtype() == np.float64
        assert (x / 2).dtype == np.float64
        assert (x * 1.5).dtype == np.float64
        assert x.exp().dtype == np.float64
        with pytest.raises(TypeError):
            set_default_dtype(np.int64)
    finally:
        set_default_dtype(np.float32)
    assert (x / 2).dtype == np.float32


@needs_torch
def test_limits() -> None:
    import torch

    for name, dtype in TYPES.items():
        if name == "bool":
            continue
        theirs = getattr(torch, name)
        for mine, other, fields in (
            (mt.finfo, torch.finfo, "bits eps max min tiny smallest_normal resolution dtype"),
            (mt.iinfo, torch.iinfo, "bits max min dtype"),
        ):
            if (mine is mt.finfo) != dtype.is_floating_point:
                with pytest.raises(TypeError):
                    mine(dtype)
                continue
            for field in fields.split():
                assert getattr(mine(dtype), field) == pytest.approx(getattr(other(theirs), field))
    assert mt.finfo().dtype == "float32"
    x = wrap(np.zeros(2, np.float32)).masked_fill(wrap(np.asarray([True, False])), mt.finfo().min)
    assert x.tolist()[0] == np.finfo(np.float32).min


def test_questions() -> None:
    x = wrap(np.ones((2, 3), np.float32))
    assert mt.is_tensor(x)
    assert not mt.is_tensor(x._array)
    assert mt.is_floating_point(x)
    assert not mt.is_floating_point(x.long())
    assert not mt.is_complex(x)
    assert mt.numel(x) == 6
    assert mt.is_nonzero(x[0, 0])
    assert mt.result_type(x, 1.5) == np.float32
    assert mt.result_type(x.long(), 1.5) == np.float32
    assert mt.can_cast(mt.int64, mt.float32)
    assert not mt.can_cast(mt.float32, mt.int64)
