"""Indexing against PyTorch: random expressions to read and to write; and what the samples leave out."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from conftest import Rand, needs_torch

import minitensor
from minitensor.nn import functional as F
from minitensor.tensor import Tensor, wrap

MAKERS = {"tensor": wrap, "array": lambda a: a, "list": lambda a: a.tolist()}


class Spec:
    """An index item that both libraries can be given: an array and in what form."""

    def __init__(self, array: np.ndarray, form: str) -> None:
        self.array = array
        self.form = form

    def __repr__(self) -> str:
        return f"{self.form}({self.array.tolist()}, {self.array.dtype})"


def random_shape(noise: np.random.RandomState) -> tuple[int, ...]:
    lengths = noise.choice(5, p=[0.04, 0.16, 0.3, 0.3, 0.2], size=noise.randint(0, 5))
    return tuple(int(n) for n in lengths)


def random_index(noise: np.random.RandomState, shape: tuple[int, ...]) -> Any:
    """An index for `shape`, wrong now and then."""
    items: list[Any] = []
    rest = list(shape)
    ellipsis = False
    picked = tuple(noise.randint(1, 4, noise.randint(1, 3)))  # index tensors have to broadcast
    while noise.rand() < 0.85:
        kind = noise.choice(
            ["int", "slice", "none", "ellipsis", "bool", "index", "mask"],
            p=[0.17, 0.22, 0.09, 0.08, 0.03, 0.3, 0.11],
        )
        n = rest[0] if rest else noise.randint(0, 3)
        if kind == "none":
            items.append(None)
        elif kind == "bool":
            items.append(
                bool(noise.rand() < 0.5)
                if noise.rand() < 0.5
                else Spec(np.array(bool(noise.rand() < 0.5)), "tensor")
            )
        elif kind == "ellipsis":
            if ellipsis:
                continue
            ellipsis = True
            items.append(...)
            keep = noise.randint(0, len(rest) + 1)
            rest = rest[len(rest) - keep :]
        elif not rest and noise.rand() < 0.85:
            break
        elif kind == "int":
            i = int(noise.randint(-n, n)) if n and noise.rand() < 0.96 else n
            items.append(i if noise.rand() < 0.7 else Spec(np.array(i), "tensor"))
            rest = rest[1:]
        elif kind == "slice":
            a, b = (
                None if noise.rand() < 0.4 else int(noise.randint(-n - 1, n + 2)) for _ in range(2)
            )
            step = None if noise.rand() < 0.6 else int(noise.randint(1, 4))
            items.append(slice(a, b, -1 if noise.rand() < 0.02 else step))
            rest = rest[1:]
        elif kind == "index":
            own = tuple(
                1 if noise.rand() < 0.2 else m for m in picked[noise.randint(0, len(picked)) :]
            )
            if noise.rand() < 0.03:
                own = (5,)
            array = noise.randint(-n, n, own) if n and noise.rand() < 0.97 else np.full(own, n)
            dtype = np.int32 if noise.rand() < 0.1 else np.int64
            items.append(Spec(array.astype(dtype), noise.choice(["tensor", "array", "list"])))
            rest = rest[1:]
        else:
            dims = min(len(rest), noise.randint(1, 3))
            own = tuple(rest[:dims]) if noise.rand() < 0.95 else (7,)
            items.append(Spec(np.array(noise.rand(*own) < 0.6), "tensor"))
            rest = rest[dims:]
    if len(items) == 1 and noise.rand() < 0.5:
        return items[0]
    return tuple(items)


def given(index: Any, library: str) -> Any:
    import torch

    if isinstance(index, tuple):
        return tuple(given(i, library) for i in index)
    if not isinstance(index, Spec):
        return index
    if index.form == "list":
        return index.array.tolist()
    if index.form == "array":
        return index.array
    return torch.from_numpy(np.array(index.array)) if library == "torch" else wrap(index.array)


def attempt(function: Any) -> tuple[Any, type | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch means to take nested lists otherwise one day
            return function(), None
    except Exception as error:
        return error, type(error)


@needs_torch
@pytest.mark.parametrize("seed", range(8))
def test_getitem_is_pytorchs(seed: int) -> None:
    import torch

    noise = np.random.RandomState(seed)
    failures = 0
    for _ in range(150):
        shape = random_shape(noise)
        index = random_index(noise, shape)
        values = noise.randn(*shape)
        mine, theirs = (
            wrap(np.array(values)).requires_grad_(),
            torch.from_numpy(np.array(values)).requires_grad_(),
        )
        found, error = attempt(lambda: mine[given(index, "minitensor")])
        expected, their_error = attempt(lambda: theirs[given(index, "torch")])
        told = f"x{list(shape)}[{index}]: {found} and {expected}"
        if error is IndexError and their_error is None and expected.numel() == 0:
            continue  # NumPy checks the range of what picks nothing
        assert error is their_error, told
        if error is not None:
            failures += 1
            continue
        assert tuple(found.shape) == tuple(expected.shape), told
        np.testing.assert_array_equal(
            found.detach().numpy(), expected.detach().numpy(), err_msg=told
        )
        assert (found._base is mine) == (expected._base is theirs), told
        dy = noise.randn(*expected.shape)
        found.backward(wrap(np.array(dy)))
        expected.backward(torch.from_numpy(np.array(dy)))
        np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), atol=1e-12, err_msg=told)
    assert 5 < failures < 75


@needs_torch
@pytest.mark.parametrize("seed", range(8))
def test_setitem_is_pytorchs(seed: int) -> None:
    import torch

    noise = np.random.RandomState(100 + seed)
    compared = 0
    for _ in range(150):
        shape = random_shape(noise)
        index = random_index(noise, shape)
        values = noise.randn(*shape)
        hole, wrong = attempt(lambda: torch.from_numpy(np.array(values))[given(index, "torch")])
        part = (2,) if wrong is not None else tuple(hole.shape)
        if index is False or (wrong is None and hole.numel() == 0 and noise.rand() < 0.8):
            continue
        part = part[noise.randint(0, len(part) + 1) :] if noise.rand() < 0.4 else part
        part = tuple(1 if noise.rand() < 0.15 else n for n in part)
        part = (*part, 2) if noise.rand() < 0.05 else (1, *part) if noise.rand() < 0.1 else part
        new = np.full(part, noise.randn()) if distinct(index) is False else noise.randn(*part)
        new_needs_grad, old_needs_grad = noise.rand(2) < 0.7
        results = []
        for library in ("minitensor", "torch"):
            make = (
                (lambda a: torch.from_numpy(np.array(a)))
                if library == "torch"
                else lambda a: wrap(np.array(a))
            )
            x, v = make(values), make(new)
            x.requires_grad_(bool(old_needs_grad))
            v.requires_grad_(bool(new_needs_grad))
            y = x * 2

            def write(y: Any = y, v: Any = v, library: str = library) -> None:
                y[given(index, library)] = v

            _, error = attempt(write)
            results.append((x, v, y, _, error))
        (x, v, y, told, error), (tx, tv, ty, their_told, their_error) = results
        what = f"x{list(shape)}[{index}] = {list(part)}: {told} and {their_told}"
        if wrong is not None:  # and maybe the value is wrong too: which is noticed first?
            assert error is not None, what
            assert their_error is not None, what
            continue
        assert error is their_error, what
        if error is not None:
            continue
        compared += 1
        np.testing.assert_array_equal(y.detach().numpy(), ty.detach().numpy(), err_msg=what)
        assert y.requires_grad == ty.requires_grad, what
        if not y.requires_grad:
            continue
        dy = noise.randn(*shape)
        y.backward(wrap(np.array(dy)))
        ty.backward(torch.from_numpy(np.array(dy)))
        for a, b in ((x, tx), (v, tv)):
            assert (a.grad is None) == (b.grad is None), what
            if a.grad is not None:
                np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-12, err_msg=what)
    assert compared > 50


def distinct(index: Any) -> bool:
    """Whether the index surely names no element twice (where one does, the order is not defined)."""
    items = index if isinstance(index, tuple) else (index,)
    return not any(
        isinstance(i, Spec) and i.array.dtype.kind == "i" and i.array.size > 1 for i in items
    )
