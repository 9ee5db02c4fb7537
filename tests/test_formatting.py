"""Printed tensors, against PyTorch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

from minitensor.core import Tensor, wrap
from minitensor.formatting import set_printoptions
from minitensor.nn.parameter import Parameter


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


ARRAYS: dict[str, Any] = {
    "scalar": np.float32(1.5),
    "whole scalar": np.float32(3),
    "nan scalar": np.float32("nan"),
    "int scalar": np.int64(3),
    "bool scalar": np.bool_(True),
    "double scalar": np.float64(0.1),
    "empty": np.zeros(0, np.float32),
    "empty 2": np.zeros((0, 3), np.float32),
    "empty long": np.zeros(0, np.int64),
    "empty bool": np.zeros((2, 0), np.bool_),
    "whole": np.asarray([1, 2, -30], np.float32),
    "whole and not finite": np.asarray([1, np.inf, -np.inf, np.nan, 200], np.float32),
    "not finite": np.asarray([np.inf, np.nan], np.float32),
    "fractions and not finite": np.asarray([1.5, np.inf, np.nan, 200], np.float32),
    "zeros": np.zeros((2, 3), np.float32),
    "negative zero": np.asarray([-0.0, 1], np.float32),
    "tiny": np.asarray([1e-5, 2e-5], np.float32),
    "far apart": np.asarray([1e-3, 2.5], np.float32),
    "whole and far apart": np.asarray([1, 20000], np.float32),
    "huge": np.asarray([1.5e8, 2e8], np.float32),
    "at the limit": np.asarray([0.0001, 0.1], np.float64),
    "subnormal": np.asarray([1e-40, 0], np.float32),
    "largest": np.asarray([3.4028235e38], np.float32),
    "largest double": np.asarray([np.finfo(np.float64).max]),
    "long line": noise(30),
    "two lines": noise(3, 20),
    "deep": noise(2, 3, 2, 2),
    "four dims": noise(2, 1, 2, 3, seed=1),
    "summary": noise(2000),
    "summary 2": noise(50, 60),
    "summary 3": noise(10, 7, 20),
    "summary long": np.arange(3000).reshape(30, 100),
    "outlier that is not shown": np.where(np.arange(2000) == 1000, 1e9, 1.5),
    "half": noise(3, 3).astype(np.float16),
    "double": noise(3, 3).astype(np.float64),
    "double, whole": np.arange(3.0),
    "int32": np.arange(-5, 5, dtype=np.int32),
    "int8": np.arange(-5, 5, dtype=np.int8).reshape(2, 5),
    "uint8": np.arange(200, 230, dtype=np.uint8),
    "int16": np.asarray([1, -1000], np.int16),
    "bool": noise(2, 6) > 0,
    "wide with suffix": noise(7).astype(np.float64),
    "wider with suffix": noise(7, seed=3).astype(np.float64) * 10,
}


def torch_repr(x: Any, **options: Any) -> str:
    import torch

    torch.set_printoptions(profile="default")
    torch.set_printoptions(**options)
    try:
        return repr(x).replace("torch.", "minitensor.")
    finally:
        torch.set_printoptions(profile="default")


def unbroken(text: str) -> str:
    """Without the line break before a suffix, which depends on the length of the package's name."""
    return re.sub(r",\n +(dtype|requires_grad)", r", \1", text)


@pytest.fixture(autouse=True)
def default_options() -> Iterator[None]:
    yield
    set_printoptions(profile="default")


@needs_torch
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", ARRAYS)
def test_repr(name: str, requires_grad: bool) -> None:
    import torch

    array = np.asarray(ARRAYS[name])
    if requires_grad and array.dtype.kind != "f":
        pytest.skip("no gradient")
    theirs = torch.from_numpy(array.copy()).requires_grad_(requires_grad)
    mine = wrap(array).requires_grad_(requires_grad)
    assert repr(mine) == str(mine)
    assert unbroken(repr(mine)) == unbroken(torch_repr(theirs))


@needs_torch
@pytest.mark.parametrize(
    "options",
    [
        dict(precision=2),
        dict(precision=8, linewidth=60),
        dict(threshold=10, edgeitems=1),
        dict(sci_mode=True),
        dict(sci_mode=False),
        dict(profile="short"),
        dict(profile="full"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["deep", "far apart", "summary 2", "whole", "int8", "tiny"])
def test_options(name: str, options: dict[str, Any]) -> None:
    import torch

    array = np.asarray(ARRAYS[name])
    set_printoptions(**options)
    assert repr(wrap(array)) == torch_repr(torch.from_numpy(array), **options)


@needs_torch
def test_grad_fn() -> None:
    import torch

    mine = wrap(noise(3)).requires_grad_()
    theirs = torch.from_numpy(noise(3)).requires_grad_()
    assert repr(mine + 1) == torch_repr(theirs + 1)
    assert "grad_fn=<AddBackward0>" in repr(mine + 1)
    assert repr((mine * 2).exp()) == torch_repr((theirs * 2).exp())


def test_a_suffix_that_does_not_fit_goes_to_a_new_line() -> None:
    x = wrap(np.full(7, 1 / 3))
    body = ", ".join(["0.3333"] * 7)
    assert repr(x) == f"tensor([{body}],\n       dtype=minitensor.float64)"
    assert max(map(len, repr(x).splitlines())) <= 80


def test_parameter() -> None:
    assert repr(Parameter(wrap(np.ones(2, np.float32)))) == (
        "Parameter containing:\ntensor([1., 1.], requires_grad=True)"
    )


def test_views_print_their_own_elements() -> None:
    x = wrap(np.arange(6).reshape(2, 3))
    assert repr(wrap(x._array.T)) == "tensor([[0, 3],\n        [1, 4],\n        [2, 5]])"


@needs_torch
def test_format() -> None:
    import torch

    loss: Tensor = wrap(np.asarray(1.23456, np.float32))
    other = torch.tensor(1.23456)
    for spec in (".3f", "", ">10.2e"):
        assert format(loss, spec) == format(other, spec)
    assert f"{wrap(np.ones(2))}" == repr(wrap(np.ones(2)))
    with pytest.raises(TypeError):
        format(wrap(np.ones(2)), ".3f")
    with pytest.raises(TypeError):
        format(torch.ones(2), ".3f")
