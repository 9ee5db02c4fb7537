"""Creation functions: each line is run with both libraries and must do the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor
from minitensor.core import Tensor
from minitensor.devices import device

VALUES = """
t.tensor(1.0)
t.tensor(3)
t.tensor(True)
t.tensor(float("nan"))
t.tensor([])
t.tensor([[]])
t.tensor([1, 2.5, True])
t.tensor([True, 1])
t.tensor(((1, 2), (3, 4)))
t.tensor(range(3))
t.tensor([1.5, -2.5], dtype=t.int64)
t.tensor([1, 0, 3], dtype=t.bool)
t.tensor([1, 2], dtype=t.float64, requires_grad=True)
t.tensor(3, dtype=int)
t.tensor(3, dtype=bool)
t.tensor(np.float64(1))
t.tensor(np.int32(1))
t.tensor([np.float64(1)])
t.tensor([np.float32(1), np.float32(2)])
t.tensor([np.int32(1)])
t.tensor(np.arange(6.0).reshape(2, 3))
t.tensor(np.arange(6, dtype=np.uint8)[::2])
t.tensor(np.arange(6.0).reshape(2, 3).T)
t.tensor([t.tensor(1.0), 2])
t.tensor([[t.tensor(1), 2], [3, t.tensor([4])]])
t.tensor([t.tensor(1.0, dtype=t.float64)])
t.as_tensor(3)
t.as_tensor([1.0, 2.0], dtype=t.int32)
t.as_tensor(np.ones(3), dtype=t.float32)
t.as_tensor(t.ones(2), dtype=t.float64)
t.from_numpy(np.arange(3, dtype=np.int16))
t.scalar_tensor(3)
t.zeros(2, 3)
t.zeros((2, 3), dtype=t.int64)
t.zeros([2, 3], device="cpu")
t.zeros(size=(2,))
t.zeros(t.Size([2, 0]))
t.zeros(t.tensor(3), 2)
t.zeros(())
t.ones(2, requires_grad=True)
t.ones(3, dtype=t.bool)
t.full((2, 3), 1)
t.full((2,), 1.5)
t.full((2,), True)
t.full([2], float("-inf"))
t.full((), 2, dtype=t.float64)
t.full((2,), t.tensor(3))
t.eye(3)
t.eye(2, 4, dtype=t.int64)
t.eye(2, dtype=t.bool)
t.arange(5)
t.arange(5.0)
t.arange(2, 9, 3)
t.arange(10, 0, -3)
t.arange(1, 2.5)
t.arange(0, 1, 0.1)
t.arange(0, 512, 2).float()
t.arange(-1, 1, 0.013, dtype=t.float64)
t.arange(3, dtype=t.float32, requires_grad=True)
t.arange(t.tensor(4))
t.arange(np.int64(3))
t.arange(0)
t.linspace(0, 1, 0)
t.linspace(2, 1, 1)
t.linspace(-1, 1, 7)
t.linspace(0, 0.1, 100, dtype=t.float64)
t.linspace(0, 10, 5, dtype=t.int64)
t.tril_indices(3, 3)
t.tril_indices(3, 4, -1)
t.triu_indices(2, 4, 1)
t.zeros_like(t.ones(2, 3, requires_grad=True))
t.ones_like(t.zeros(2, dtype=t.int64))
t.ones_like(t.zeros(2), dtype=t.bool)
t.full_like(t.ones(2), 3)
t.full_like(t.ones(2, dtype=t.int64), 3.5)
t.empty(2, 0)
t.empty_like(t.ones(0, 3, dtype=t.int32))
t.ones(2, dtype=t.float64).new_zeros(2, 3)
t.ones(2, dtype=t.float64).new_ones((2, 3), requires_grad=True)
t.ones(2, dtype=t.float64).new_zeros((2, 3), dtype=t.int64)
t.ones(2).new_full((2,), 3)
t.ones(2, dtype=t.int64).new_full((2,), 3.5)
t.ones(2).new_tensor([1, 2])
t.ones(2).new_empty(0)
t.FloatTensor([1, 2])
t.FloatTensor(np.ones(2))
t.FloatTensor([[1, 2], [3, 4]])
t.LongTensor([1.5, 2])
t.ByteTensor([1, 0])
t.BoolTensor([1, 0])
t.DoubleTensor([1])
t.IntTensor([1])
t.FloatTensor()
t.LongTensor(0, 3)
""".strip().splitlines()

RANDOM = """
t.rand(2, 3)
t.rand((2, 3), dtype=t.float64, requires_grad=True)
t.rand(size=(4,))
t.randn(3, 3)
t.randn(5, 5)
t.randn((), dtype=t.float64)
t.randint(10, (2, 3))
t.randint(-3, 4, (20,))
t.randint(high=5, size=(2,))
t.randint(0, 3, (2,), dtype=t.float32)
t.randperm(10)
t.randperm(4, dtype=t.int32)
t.rand_like(t.ones(2, 2, dtype=t.float64))
t.randn_like(t.ones(20), dtype=t.float64)
t.randint_like(t.ones(3), 5)
t.randint_like(t.ones(3, dtype=t.int64), 5, 9)
t.normal(1.0, 2.0, (20,))
t.normal(t.arange(20.0), 2.0)
t.normal(1.0, t.arange(20.0))
t.normal(t.zeros(3, 1), t.ones(4))
t.normal(t.arange(3.0))
t.bernoulli(t.full((20,), 0.3))
t.bernoulli(t.full((4, 5), 0.3, dtype=t.float64))
t.full((20,), 0.5).bernoulli(0.9)
t.multinomial(t.arange(9.0), 3)
t.multinomial(t.ones(2, 5), 7, True)
t.multinomial(t.arange(9.0), num_samples=20, replacement=True)
t.ones(4, 3).multinomial(1)
t.empty(20).normal_(1, 2)
t.empty(20).normal_(mean=1, std=2)
t.empty(20).uniform_()
t.empty(20).uniform_(-0.1, 0.1)
t.empty(20).uniform_(to=3)
t.empty(20).exponential_(2)
t.empty(20).bernoulli_(0.3)
t.empty(20, dtype=t.int64).bernoulli_()
t.empty(4, 5).bernoulli_(t.arange(5.0) / 5)
t.empty(20, dtype=t.int64).random_()
t.empty(20).random_(7)
t.empty(20, dtype=t.int32).random_(-3, 7)
t.empty(3, 7).t().normal_()
t.empty(3, 7).t().uniform_()
t.empty(7, 3).t().bernoulli_(t.arange(7.0) / 7)
t.empty(4, 2, 3).transpose(0, 2).bernoulli_(t.rand(3, 2, 4))
t.rand(3, generator=t.Generator().manual_seed(3))
t.empty(3).normal_(generator=t.Generator())
""".strip().splitlines()

ERRORS = """
t.tensor([[1, 2], [3]])
t.tensor("a")
t.tensor(["a"])
t.tensor(b"ab")
t.tensor(None)
t.tensor([1, None])
t.tensor({1: 2})
t.tensor(2**63)
t.tensor([2**63])
t.tensor([t.ones(2), t.ones(2)])
t.tensor([300], dtype=t.uint8)
t.tensor(np.ones(3)[::-1])
t.tensor(np.array("a"))
t.tensor([1, 2], requires_grad=True)
t.tensor(1.0, dtype="nonsense")
t.from_numpy([1])
t.from_numpy(np.ones(3)[::-1])
t.zeros(-1)
t.zeros(2, 3.5)
t.zeros("a")
t.zeros(2, dtype=t.int32, requires_grad=True)
t.zeros(2, device="nonsense")
t.ones()
t.full(2, 1)
t.eye(-1)
t.arange(0, 10, -1)
t.arange(0, 1, 0)
t.arange(5, requires_grad=True)
t.linspace(0, 1, -1)
t.rand(2, dtype=t.int64)
t.randn(2, dtype=t.int64)
t.randint(3, 3, (2,))
t.randperm(-1)
t.rand_like(t.ones(2, dtype=t.int64))
t.bernoulli(t.tensor([2.0]))
t.bernoulli(t.tensor([1]))
t.multinomial(t.ones(3), 4)
t.multinomial(t.ones(3), 0)
t.multinomial(t.ones(2, 2, 2), 1)
t.multinomial(t.ones(3, dtype=t.int64), 1)
t.multinomial(t.zeros(3), 1)
t.multinomial(t.tensor([1.0, -1]), 1)
t.normal(0.0, -1.0, (2,))
t.normal(t.zeros(2), -1.0)
t.normal(t.zeros(2), t.ones(3))
t.empty(2).normal_(0, -1)
t.empty(2).uniform_(1, 0)
t.empty(2).exponential_(-1)
t.empty(2).bernoulli_(2)
t.empty(2, dtype=t.int64).normal_()
t.empty(2, dtype=t.int64).uniform_()
t.empty(2, dtype=t.int64).random_(5, 2)
t.empty(3, requires_grad=True).normal_()
t.empty(3, requires_grad=True)[1:].uniform_()
t.empty(1, 1).expand(2, 2).normal_()
""".strip().splitlines()


def run(line: str, library: Any) -> Any:
    return eval(line, {"t": library, "np": np})


def compare(mine: Tensor, theirs: Any, tolerance: float) -> None:
    assert tuple(mine.shape) == tuple(theirs.shape)
    assert mine.dtype.name == str(theirs.dtype).removeprefix("torch.")
    assert mine.requires_grad == theirs.requires_grad
    assert mine.is_leaf == theirs.is_leaf
    np.testing.assert_allclose(
        mine.detach().numpy(), theirs.detach().numpy(), rtol=tolerance, atol=tolerance
    )


@needs_torch
@pytest.mark.parametrize("line", VALUES)
def test_values(line: str) -> None:
    import torch

    compare(run(line, minitensor), run(line, torch), 1e-7)


@needs_torch
@pytest.mark.parametrize("line", RANDOM)
def test_random_values(line: str) -> None:
    import torch

    minitensor.manual_seed(4)
    torch.manual_seed(4)
    compare(run(line, minitensor), run(line, torch), 2e-6)
    assert minitensor.rand(()).item() == torch.rand(()).item()


@needs_torch
@pytest.mark.parametrize("line", ERRORS)
def test_errors(line: str) -> None:
    import torch

    with pytest.raises(Exception) as expected:
        run(line, torch)
    with pytest.raises(expected.type):
        run(line, minitensor)


def test_what_shares_memory() -> None:
    array = np.zeros(3, np.float32)
    for make, shared in (
        (minitensor.from_numpy, True),
        (minitensor.as_tensor, True),
        (minitensor.tensor, False),
        (minitensor.FloatTensor, False),
        (lambda a: minitensor.as_tensor(a, dtype=minitensor.float64), False),
    ):
        array[:] = 0
        made = make(array)
        array[0] = 1
        assert made.tolist()[0] == float(shared)
    x = minitensor.ones(2)
    assert minitensor.as_tensor(x) is x
    assert not np.shares_memory(minitensor.tensor(x).numpy(), x.numpy())


def test_default_dtype() -> None:
    minitensor.set_default_dtype(minitensor.float64)
    try:
        for made in (
            minitensor.tensor(1.0),
            minitensor.tensor([1.0]),
            minitensor.zeros(2),
            minitensor.rand(2),
            minitensor.randn(2),
            minitensor.arange(2.0),
            minitensor.full((1,), 0.5),
        ):
            assert made.dtype == minitensor.float64
    finally:
        minitensor.set_default_dtype(minitensor.float32)


def test_only_the_cpu() -> None:
    assert minitensor.zeros(2, device=device("cpu")).device.type == "cpu"
    with pytest.raises(RuntimeError, match="CPU"):
        minitensor.zeros(2, device="cuda")


def test_inference_mode() -> None:
    with minitensor.inference_mode():
        assert minitensor.zeros(2).is_inference()
        assert minitensor.randn(2).is_inference()
    assert not minitensor.zeros(2).is_inference()


def test_in_place_is_noticed() -> None:
    x = minitensor.ones(3, requires_grad=True)
    y = x * 2
    y.normal_()
    (y * x).sum().backward()  # what was drawn does not depend on x
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    z = minitensor.ones(3)
    version = z._version
    z.uniform_()
    assert z._version == version + 1


def test_in_place_on_a_strided_view() -> None:
    base = minitensor.zeros(4, 4)
    base[:, 1].normal_()
    columns = np.abs(base.numpy()).sum(0)
    assert columns[1] > 0
    np.testing.assert_array_equal(columns[[0, 2, 3]], 0)


@needs_torch
@pytest.mark.parametrize(
    "dtype",
    [None, "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"],
)
def test_random_ranges(dtype: str | None) -> None:
    """As many numbers as PyTorch's, the same integers, the same class of error."""
    import torch

    noise = np.random.RandomState(0)

    def number() -> float:
        whole, fraction = int(noise.randint(-20, 20)), float(noise.uniform(-20, 20))
        return [whole, round(fraction, 1), whole + 0.5, fraction][noise.randint(4)]

    steps = [1, 2, -1, 0.5, 0.1, -0.3, 1.7, 0, 3]
    near = {"float16": (2e-3, 2e-2), "float32": (3e-7, 3e-6), "float64": (1e-15, 1e-14)}
    for _ in range(150):
        args = [number() for _ in range(noise.randint(1, 3))]
        if len(args) == 2 and noise.rand() < 0.6:
            args.append(steps[noise.randint(len(steps))])
        found: list[Any] = []
        for lib in (minitensor, torch):
            options = {} if dtype is None else dict(dtype=getattr(lib, dtype))
            try:
                found.append(lib.arange(*args, **options).numpy())
            except Exception as error:
                found.append(type(error))
        mine, theirs = found
        if isinstance(theirs, type):
            assert mine is theirs, args
            continue
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape, args
        rtol, atol = near.get(mine.dtype.name, (0, 0))
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=atol, err_msg=str(args))


def test_a_range_of_integers_between_fractions() -> None:
    assert minitensor.arange(-0.5, 2.5, dtype=minitensor.int64).tolist() == [0, 1]
