"""Shapes: which views are possible, what shares memory, what is promoted, and what errors say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor
from minitensor.core import Tensor, wrap
from minitensor.nn import functional as F
from minitensor.testing import Rand


def random_layout(noise: np.random.RandomState) -> tuple[np.ndarray, list[tuple[str, Any]]]:
    """An array and steps that make a view of it with some strides."""
    shape = tuple(int(n) for n in noise.choice([1, 2, 3, 4], noise.randint(1, 5)))
    steps: list[tuple[str, Any]] = []
    now = np.zeros(shape)
    for _ in range(noise.randint(0, 4)):
        kind = noise.choice(["transpose", "slice", "unsqueeze", "expand"])
        if kind == "transpose" and now.ndim:
            a, b = (int(d) for d in noise.randint(0, now.ndim, 2))
            steps.append(("transpose", (a, b)))
            now = now.swapaxes(a, b)
        elif kind == "slice" and now.ndim:
            dim = int(noise.randint(now.ndim))
            key = (slice(None),) * dim + (
                slice(int(noise.randint(0, 2)), None, int(noise.randint(1, 3))),
            )
            steps.append(("__getitem__", (key,)))
            now = now[key]
        elif kind == "unsqueeze":
            dim = int(noise.randint(now.ndim + 1))
            steps.append(("unsqueeze", (dim,)))
            now = np.expand_dims(now, dim)
        elif kind == "expand" and 1 in now.shape:
            size = tuple(3 if n == 1 and noise.rand() < 0.5 else n for n in now.shape)
            steps.append(("expand", (size,)))
            now = np.broadcast_to(now, size)
    return np.arange(float(np.prod(shape))).reshape(shape), steps


def random_shape_of(noise: np.random.RandomState, size: int) -> tuple[int, ...]:
    """A shape of `size` elements, or nearly."""
    shape = []
    while size > 1 and noise.rand() < 0.8:
        n = int(noise.choice([d for d in range(1, size + 1) if size % d == 0]))
        shape.append(n)
        size //= n
    shape.append(size)
    if noise.rand() < 0.3:
        shape[noise.randint(len(shape))] = -1
    if noise.rand() < 0.1:
        shape.append(2)
    return tuple(shape)


@needs_torch
@pytest.mark.parametrize("seed", range(4))
def test_view_and_reshape_share_memory_where_pytorch_does(seed: int) -> None:
    import torch

    noise = np.random.RandomState(seed)
    outcomes: set[tuple[str, Any]] = set()
    for _ in range(250):
        array, steps = random_layout(noise)
        mine, theirs = wrap(array.copy()), torch.from_numpy(array.copy())
        base, other_base = mine, theirs
        for name, args in steps:
            mine, theirs = getattr(mine, name)(*args), getattr(theirs, name)(*args)
        assert mine.is_contiguous() == theirs.is_contiguous()
        shape = random_shape_of(noise, mine.numel())
        where = f"{array.shape} {steps} {shape}"
        for name in ("view", "reshape"):
            try:
                expected = getattr(theirs, name)(*shape)
            except (RuntimeError, TypeError) as error:
                with pytest.raises(type(error)):
                    getattr(mine, name)(*shape)
                outcomes.add((name, "raises"))
                continue
            found = getattr(mine, name)(*shape)
            np.testing.assert_array_equal(found.numpy(), expected.numpy(), err_msg=where)
            shared = expected.numel() > 0 and expected._base is not None
            if found.numel():
                assert np.may_share_memory(found.numpy(), base.numpy()) == (
                    expected.data_ptr() >= other_base.data_ptr()
                    and expected.data_ptr() < other_base.data_ptr() + other_base.nbytes
                ), where
            outcomes.add((name, shared))
    assert {("view", "raises"), ("view", True), ("reshape", True), ("reshape", False)} <= outcomes


VIEWS: dict[str, Any] = {
    "view": lambda x: x.view(4, 3),
    "reshape": lambda x: x.reshape(-1),
    "transpose": lambda x: x.transpose(0, 1),
    "t": lambda x: x.t(),
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "H": lambda x: x.H,
    "permute": lambda x: x.permute(1, 0),
    "movedim": lambda x: x.movedim(0, 1),
    "squeeze": lambda x: x.squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "expand": lambda x: x[:, :1].expand(3, 5)[:, 0],
    "flatten": lambda x: x.flatten(),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "unbind": lambda x: x.unbind(1)[2],
    "split": lambda x: x.split(2, 1)[1],
    "chunk": lambda x: x.chunk(2)[0],
    "narrow": lambda x: x.narrow(1, 1, 2),
    "select": lambda x: x.select(0, 1),
    "diagonal": lambda x: x.diagonal(),
    "unfold": lambda x: x.unfold(1, 2, 2),
    "getitem": lambda x: x[1:, ::2],
    "iteration": lambda x: list(x)[1],
}


@needs_torch
@pytest.mark.parametrize("name", VIEWS)
def test_writing_to_a_view_writes_to_its_base(name: str) -> None:
    import torch

    array = np.arange(12.0).reshape(3, 4)
    mine, theirs = wrap(array.copy()), torch.from_numpy(array.copy())
    VIEWS[name](mine).mul_(10)
    VIEWS[name](theirs).mul_(10)
    np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    assert mine._version == 1


@pytest.mark.parametrize("copy", ["clone", "contiguous", "repeat", "flip", "cat", "tril"])
def test_copies_are_contiguous_and_share_nothing(copy: str, rand: Rand) -> None:
    x = rand.constant(3, 4).t()
    y = {
        "clone": lambda: x.clone(),
        "contiguous": lambda: x.contiguous(),
        "repeat": lambda: x.repeat(1, 1),
        "flip": lambda: x.flip(0),
        "cat": lambda: minitensor.cat([x]),
        "tril": lambda: x.tril(),
    }[copy]()
    assert y.is_contiguous()
    assert not np.may_share_memory(y.numpy(), x.numpy())


@needs_torch
def test_cat_and_stack_promote_types() -> None:
    import torch

    kinds = ["float16", "float32", "float64", "int32", "int64", "uint8", "bool"]
    for a in kinds:
        for b in kinds:
            x, y = wrap(np.ones(2, a)), wrap(np.zeros(2, b))
            tx, ty = torch.ones(2, dtype=getattr(torch, a)), torch.zeros(2, dtype=getattr(torch, b))
            for join in ("cat", "stack"):
                found, expected = getattr(minitensor, join)([x, y]), getattr(torch, join)([tx, ty])
                assert found.dtype.name == str(expected.dtype)[6:], f"{join} {a} {b}"
                assert found.tolist() == expected.tolist()


def test_gradients_of_promoted_parts_come_back_in_their_own_types() -> None:
    x = wrap(np.ones(2, np.float32)).requires_grad_()
    y = wrap(np.ones(3, np.float64)).requires_grad_()
    minitensor.cat([x, y]).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert (x.grad.dtype, y.grad.dtype) == (np.float32, np.float64)


def test_unused_parts_of_a_split_have_a_gradient_of_zeros() -> None:
    x = wrap(np.arange(6.0)).requires_grad_()
    first, _, third = x.split(2)
    (first * third).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [4, 5, 0, 0, 0, 1]


@needs_torch
def test_shape_arguments_in_all_their_forms() -> None:
    import torch

    for lib in (minitensor, torch):
        x = lib.ones(2, 3)
        n = lib.tensor(3)
        assert tuple(x.view(n, -1).shape) == (3, 2)
        assert tuple(x.view(np.int64(6)).shape) == (6,)
        assert tuple(x.view([3, 2]).shape) == (3, 2)
        assert tuple(x.view(size=(3, 2)).shape) == (3, 2)
        assert tuple(x.reshape(shape=(3, 2)).shape) == (3, 2)
        assert tuple(x.reshape(x.t().shape).shape) == (3, 2)
        assert tuple(x.permute(dims=(1, 0)).shape) == (3, 2)
        assert tuple(lib.permute(x, (1, 0)).shape) == (3, 2)
        assert tuple(x.expand(size=(4, 2, 3)).shape) == (4, 2, 3)
        assert tuple(x.repeat(repeats=(1, 2)).shape) == (2, 6)
        assert tuple(lib.tile(x, dims=(2,)).shape) == (2, 6)
        assert lib.flip(x, dims=[0]).tolist() == x.tolist()
        assert tuple(lib.cat((x, x), axis=1).shape) == (2, 6)
        assert tuple(lib.transpose(x, dim0=0, dim1=1).shape) == (3, 2)
        assert tuple(x.flatten(start_dim=0).shape) == (6,)
        assert tuple(lib.reshape(x, (-1,)).shape) == (6,)
        assert tuple(x.unsqueeze(dim=0).squeeze(dim=0).shape) == (2, 3)
        assert len(lib.split(x, split_size_or_sections=1, dim=1)) == 3
        assert lib.tril(x, diagonal=-1).sum() == 1
        assert lib.roll(x, shifts=1, dims=0).sum() == 6
        assert tuple(F.pad(wrap(np.ones((2, 3))), pad=(1, 1), value=2).shape) == (2, 5)


@needs_torch
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad_with_gradient(mode: str) -> None:
    import torch

    noise = np.random.RandomState(0)
    x = noise.randn(2, 3, 4, 5)
    mine, theirs = wrap(x.copy()).requires_grad_(), torch.from_numpy(x).requires_grad_()
    found = F.pad(mine, (2, 1, 0, 3 if mode != "reflect" else 1), mode)
    expected = torch.nn.functional.pad(theirs, (2, 1, 0, 3 if mode != "reflect" else 1), mode)
    np.testing.assert_array_equal(found.detach().numpy(), expected.detach().numpy())
    dy = noise.randn(*expected.shape)
    found.backward(wrap(dy))
    expected.backward(torch.from_numpy(dy))
    assert mine.grad is not None
    np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), atol=1e-12)


@needs_torch
def test_reshaping_in_place() -> None:
    import torch

    for lib in (minitensor, torch):
        x = lib.ones(2, 3)
        assert x.unsqueeze_(0).squeeze_(0).t_().transpose_(0, 1).unsqueeze_(-1) is x
        assert tuple(x.shape) == (2, 3, 1)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: x.view(5), RuntimeError, r"view: shape '\[5\]' is invalid for input of size 6"),
        (lambda x: x.t().view(6), RuntimeError, r"\(3, 2\) with strides \(1, 3\).*Use .reshape"),
        (lambda x: x.transpose(0, 2), IndexError, r"transpose: .*\[-2, 1\], but got 2.*\(2, 3\)"),
        (lambda x: x.expand(2, 4), RuntimeError, r"expanded size of the tensor \(4\) must match"),
        (lambda x: minitensor.cat([x, x[:, :2]]), RuntimeError, r"cat: .*\(2, 3\), \(2, 2\)"),
        (lambda x: minitensor.stack([x, x[0]]), RuntimeError, r"\(2, 3\) at entry 0 and \(3,\) at"),
        (lambda x: x.split([1, 1], 1), RuntimeError, r"sum exactly to 3.*\[1, 1\]"),
        (lambda x: x[None].t(), RuntimeError, r"t: .*3D: \(1, 2, 3\)"),
        (lambda x: x[0].mT, RuntimeError, "mT is only supported on matrices"),
        (lambda x: x[::-1], ValueError, "flip"),
        (lambda x: x.reshape(2.0, 3), TypeError, "expected integers"),
    ],
)
def test_errors_say_what_and_where(call: Any, error: type, words: str, rand: Rand) -> None:
    with pytest.raises(error, match=words):
        call(rand(2, 3))


def test_a_view_keeps_its_base_alive_but_a_base_not_its_views() -> None:
    import gc
    import weakref

    gc.disable()
    try:
        x = wrap(np.zeros((2, 3))).requires_grad_() * 1
        view = x[0].view(3, 1)
        watched = weakref.ref(view._array)
        del view
        assert watched() is None
        view = x[1]
        watched = weakref.ref(x)
        del x
        assert isinstance(watched(), Tensor)
        del view
        assert watched() is None
    finally:
        gc.enable()


def test_a_tensor_is_split_at_indices_from_the_end() -> None:
    x = minitensor.arange(5)
    assert [p.tolist() for p in x.tensor_split((-1,))] == [[0, 1, 2, 3], [4]]
    assert [p.tolist() for p in x.tensor_split((-9, 9))] == [[], [0, 1, 2, 3, 4], []]
    assert [len(p) for p in x.tensor_split(minitensor.tensor(2))] == [3, 2]


def test_a_scalar_rolls_to_itself() -> None:
    assert minitensor.roll(minitensor.tensor(3.0), 1).shape == ()
