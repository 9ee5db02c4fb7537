"""Indexing against PyTorch: random expressions to read and write, and what samples leave out."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor.core import Tensor, wrap
from minitensor.nn import functional as F
from minitensor.testing import Rand

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


def attempt(function: Any, *args: Any) -> tuple[Any, type | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch means to take nested lists otherwise one day
            return function(*args), None
    except Exception as error:
        return error, type(error)


@needs_torch
@pytest.mark.parametrize("seed", range(4))
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
        found, error = attempt(operator.getitem, mine, given(index, "minitensor"))
        expected, their_error = attempt(operator.getitem, theirs, given(index, "torch"))
        where = f"x{list(shape)}[{index}]: {found} and {expected}"
        if error is IndexError and their_error is None and expected.numel() == 0:
            continue  # NumPy checks the range of what picks nothing
        assert error is their_error, where
        if error is not None:
            failures += 1
            continue
        assert tuple(found.shape) == tuple(expected.shape), where
        np.testing.assert_array_equal(
            found.detach().numpy(), expected.detach().numpy(), err_msg=where
        )
        assert (found._base is mine) == (expected._base is theirs), where
        dy = noise.randn(*expected.shape)
        found.backward(wrap(np.array(dy)))
        expected.backward(torch.from_numpy(np.array(dy)))
        np.testing.assert_allclose(
            mine.grad.numpy(), theirs.grad.numpy(), atol=1e-12, err_msg=where
        )
    assert 5 < failures < 75


@needs_torch
@pytest.mark.parametrize("seed", range(4))
def test_setitem_is_pytorchs(seed: int) -> None:
    import torch

    noise = np.random.RandomState(100 + seed)
    compared = 0
    for _ in range(150):
        shape = random_shape(noise)
        index = random_index(noise, shape)
        values = noise.randn(*shape)
        hole, wrong = attempt(
            operator.getitem, torch.from_numpy(np.array(values)), given(index, "torch")
        )
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

            message, error = attempt(operator.setitem, y, given(index, library), v)
            results.append((x, v, y, message, error))
        (x, v, y, value, error), (tx, tv, ty, their_value, their_error) = results
        what = f"x{list(shape)}[{index}] = {list(part)}: {value} and {their_value}"
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
    """Return False if an index may name an element twice: then the order is not defined."""
    items = index if isinstance(index, tuple) else (index,)
    return not any(
        isinstance(i, Spec) and i.array.dtype.kind == "i" and i.array.size > 1 for i in items
    )


# Not among the samples


def test_out_of_range_says_index_bound_and_dimension(rand: Rand) -> None:
    x = rand(3, 4)
    wrong = wrap(np.array([0, 7]))
    for read in (
        lambda: x[:, 7],
        lambda: x[:, wrong],
        lambda: x[wrong[:1], wrong],
        lambda: x.index_select(1, wrong),
        lambda: F.embedding(wrong, x.t()),
    ):
        with pytest.raises(
            IndexError, match=r"index 7 is out of bounds for dimension \d with size 4"
        ):
            read()
    for read in (lambda: x.gather(1, wrong[None]), lambda: x.scatter(1, wrong[None], 1.0)):
        with pytest.raises(
            RuntimeError, match="index 7 is out of bounds for dimension 1 with size 4"
        ):
            read()


def test_a_basic_index_shares_memory_and_others_do_not() -> None:
    x = wrap(np.zeros((3, 4)))
    x[1, 1:][None] += 1
    assert x.sum().item() == 3
    x[[1]] += 0
    x[[1]].fill_(5)
    x[x == 1].zero_()
    assert x.sum().item() == 3
    assert x[1, 2].shape == ()
    assert x[1, 2]._array.base is not None


def test_indices_may_be_changed_after_use_only_without_gradient() -> None:
    x, i = wrap(np.arange(3.0)).requires_grad_(), wrap(np.array([0, 1]))
    y = x[i]
    i.fill_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_duplicates_accumulate() -> None:
    x = wrap(np.zeros(3)).requires_grad_()
    x[[0, 2, 0, 0]].backward(wrap(np.array([1.0, 2.0, 4.0, 8.0])))
    assert x.grad is not None
    assert x.grad.tolist() == [13, 0, 2]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_gradients_keep_the_type(dtype: Any) -> None:
    x = wrap(np.zeros((3, 2), dtype)).requires_grad_()
    x[[0, 0]].sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert x.grad.tolist() == [[2, 2], [0, 0], [0, 0]]


@needs_torch
@pytest.mark.parametrize("padding", [None, 0, 2, -1])
@pytest.mark.parametrize("by_frequency", [False, True])
def test_embedding_gradient(padding: int | None, by_frequency: bool) -> None:
    import torch

    noise = np.random.RandomState(0)
    index, table = noise.randint(0, 5, (4, 6)), noise.randn(5, 3)
    mine, theirs = wrap(table.copy()).requires_grad_(), torch.from_numpy(table).requires_grad_()
    dy = noise.randn(4, 6, 3)
    settings: Any = dict(padding_idx=padding, scale_grad_by_freq=by_frequency)
    F.embedding(wrap(index), mine, **settings).backward(wrap(dy))
    expected = torch.nn.functional.embedding(torch.from_numpy(index), theirs, **settings)
    expected.backward(torch.from_numpy(dy))
    assert mine.grad is not None
    np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), atol=1e-12)
    if padding is not None:
        assert not mine.grad[padding].any()


def test_embedding_of_an_empty_batch_has_a_gradient_of_zeros() -> None:
    table = wrap(np.ones((5, 3))).requires_grad_()
    F.embedding(wrap(np.zeros((0, 2), np.int64)), table).sum().backward()
    assert table.grad is not None
    assert not table.grad.any()


def test_embedding_says_what_it_cannot_do(rand: Rand) -> None:
    with pytest.raises(NotImplementedError, match="max_norm"):
        F.embedding(rand.integers(0, 3, 2), rand(3, 2), max_norm=1.0)


def test_sums_of_rows_do_not_depend_on_threads() -> None:
    from minitensor.kernels.embedding import sum_rows
    from minitensor.kernels.jit import get_num_threads, set_num_threads

    noise = np.random.RandomState(0)
    rows = noise.randint(0, 20, 500)
    values = noise.randn(500, 300).astype(np.float32)
    before, found = get_num_threads(), []
    try:
        for threads in (1, before):
            set_num_threads(threads)
            out = np.full((20, 300), np.nan, np.float32)
            sum_rows(rows, values, out)
            found.append(out)
    finally:
        set_num_threads(before)
    alone, together = found
    np.testing.assert_array_equal(alone, together)
    expected = np.zeros((20, 300))
    np.add.at(expected, rows, values)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)


@needs_torch
def test_scatter_uses_the_part_of_src_that_the_index_covers() -> None:
    import torch

    noise = np.random.RandomState(0)
    x, src = noise.randn(3, 4), noise.randn(3, 5)
    index = np.array([[0, 2], [1, 0]])
    for name in ("scatter", "scatter_add"):
        found = getattr(wrap(x), name)(0, wrap(index), wrap(src).requires_grad_())
        expected = getattr(torch.from_numpy(x), name)(
            0, torch.from_numpy(index), torch.from_numpy(src)
        )
        np.testing.assert_array_equal(found.detach().numpy(), expected.numpy())
        found.sum().backward()  # PyTorch has no gradient for this


def test_changes_in_place_by_dimension() -> None:
    x = wrap(np.zeros((2, 3)))
    x.scatter_(1, wrap(np.array([[0], [2]])), 5.0)
    x.index_fill_(1, wrap(np.array([1])), 2.0)
    x.index_add_(0, wrap(np.array([1, 1])), wrap(np.ones((2, 3))))
    x.index_copy_(1, wrap(np.array([0])), wrap(np.full((2, 1), 9.0)))
    x.scatter_add_(1, wrap(np.array([[1]])), wrap(np.ones((1, 1))))
    x.index_put_((wrap(np.array([0])), wrap(np.array([2]))), wrap(np.array(7.0)))
    assert x.tolist() == [[9, 3, 7], [9, 4, 7]]
    assert x._version == 6


def test_where_with_a_condition_alone_gives_indices() -> None:
    rows, columns = mt.where(wrap(np.array([[False, True], [True, False]])))
    assert rows.tolist() == [0, 1]
    assert columns.tolist() == [1, 0]
    assert isinstance(rows, Tensor)


INDEX_TYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
INDEXED = [
    "x[I]", "m[I]", "m[I, 0]", "m[0, I]", "m[I, I]", "m[:, I]", "m[None, I]", "m[..., I]",
    "m[I:]", "m[:I]", "x[[I]]", "m[[I, I]]", "m[(I,)]", "[1, 2, 3][I]", "list(range(I))",
    "m.narrow(0, I, 1)", "m.index_select(0, I)", "m.unbind(0)[I]", "lib.reshape(m, (I + 1, -1))",
]  # fmt: skip


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", INDEX_TYPES)
@pytest.mark.parametrize("line", INDEXED)
def test_a_tensor_of_any_type_as_an_index(line: str, dtype: str) -> None:
    """A 0-dim tensor of integers is a number; bool and uint8 are masks; as in PyTorch."""
    import torch

    def run(lib: Any, values: Any) -> Any:
        names = dict(
            lib=lib,
            x=lib.tensor([1.0, 2.0, 3.0]),
            m=lib.arange(6.0).reshape(3, 2),
            I=lib.tensor(values, dtype=getattr(lib, dtype)),
        )
        try:
            found = eval(line, names)
        except Exception as error:
            return type(error)
        return (tuple(found.shape), found.tolist()) if hasattr(found, "tolist") else found

    for values in (1, 0, [1], [0, 1], [[1, 0], [0, 1]], [1, 0, 1], []):
        assert run(mt, values) == run(torch, values), values


@needs_torch
@pytest.mark.parametrize("index", [[0, 0, 1], [2, 0, 2], [1], []])
@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_what_is_filled_twice_counts_once_in_the_gradient(
    index: list[int], shape: tuple[int, ...]
) -> None:
    import torch

    gradients = []
    for lib in (mt, torch):
        v = lib.tensor(2.0, requires_grad=True)
        x = lib.zeros(*shape, requires_grad=True)
        filled = lib.index_fill(x, 0, lib.tensor(index, dtype=lib.int64), v)
        (filled * lib.arange(1.0, 1 + filled.numel()).reshape(*shape)).sum().backward()
        gradients.append((v.grad.item(), x.grad.tolist()))
    assert gradients[0] == gradients[1]


def test_minus_three_of_three_is_the_first_place_again() -> None:
    v = mt.tensor(2.0, requires_grad=True)
    mt.index_fill(mt.zeros(3), 0, mt.tensor([0, 0, 1, -3]), v).sum().backward()
    assert v.grad.item() == 2


@needs_torch
def test_take_along_dim_counts_from_the_end_too() -> None:
    import torch

    noise = np.random.RandomState(0)
    for shape, dim in (((3, 4), 0), ((3, 4), 1), ((2, 3, 4), -2), ((5,), 0)):
        found = []
        values, size = noise.randn(*shape), shape[dim]
        index = noise.randint(-size, size, shape)
        for lib in (mt, torch):
            x = lib.tensor(values.tolist(), requires_grad=True)
            y = lib.take_along_dim(x, lib.from_numpy(index.copy()), dim)
            (y * y).sum().backward()
            found.append((y.tolist(), x.grad.tolist()))
        assert found[0][0] == found[1][0]
        np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-6)
    with pytest.raises(RuntimeError, match="out of bounds"):
        mt.take_along_dim(mt.zeros(3), mt.tensor([3]), 0)
    with pytest.raises(RuntimeError, match="out of bounds"):
        mt.take_along_dim(mt.zeros(3), mt.tensor([-4]), 0)
