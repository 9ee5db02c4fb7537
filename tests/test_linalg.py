"""Norms of `linalg`: values, gradients and errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor.autograd import gradcheck

X = np.random.RandomState(0).standard_normal((2, 3, 4))

CALLS: list[Callable[[Any, Any], Any]] = [
    *(lambda la, x, p=p: la.vector_norm(x, p) for p in (0, 0.5, 1, 2, 3, -1, math.inf, -math.inf)),
    lambda la, x: la.vector_norm(x, 2, [0, -1], True),
    lambda la, x: la.vector_norm(x, dim=1),
    lambda la, x: la.vector_norm(x[:0], 1),
    *(lambda la, x, p=p: la.matrix_norm(x, p) for p in ("fro", 1, -1, math.inf, -math.inf)),
    lambda la, x: la.matrix_norm(x, 1, (2, 0), True),
    lambda la, x: la.matrix_norm(x, math.inf, (0, 1)),
    lambda la, x: la.norm(x),
    lambda la, x: la.norm(x, dim=-1, keepdim=True),
    lambda la, x: la.norm(x, dim=(0, 1)),
    lambda la, x: la.norm(x, 3, -1),
    lambda la, x: la.norm(x, 1, (1, 2)),
    lambda la, x: la.norm(x[0], "fro"),
    lambda la, x: la.norm(x[0, 0], 1),
    lambda la, x: la.norm(x[0, 0, 0]),
]
REFUSED: list[tuple[type[Exception], Callable[[Any, Any], Any]]] = [
    (TypeError, lambda la, x: la.vector_norm(x, "fro")),
    (TypeError, lambda la, x: la.vector_norm(x, None)),
    (RuntimeError, lambda la, x: la.vector_norm(x.long())),
    (RuntimeError, lambda la, x: la.vector_norm(x, dtype=x.float().dtype)),
    (RuntimeError, lambda la, x: la.vector_norm(x[:0], math.inf)),
    (RuntimeError, lambda la, x: la.matrix_norm(x, 3)),
    (RuntimeError, lambda la, x: la.matrix_norm(x, "foo")),
    (RuntimeError, lambda la, x: la.matrix_norm(x[0, 0])),
    (RuntimeError, lambda la, x: la.matrix_norm(x, "fro", (0, 0))),
    (RuntimeError, lambda la, x: la.matrix_norm(x.long(), 1)),
    (RuntimeError, lambda la, x: la.norm(x, 2)),
    (RuntimeError, lambda la, x: la.norm(x, 2, (0, 1, 2))),
    (RuntimeError, lambda la, x: la.norm(x, None, (0, 1, 2))),
    (RuntimeError, lambda la, x: la.norm(x, "fro", 0)),
    (RuntimeError, lambda la, x: la.norm(x.long())),
]


@needs_torch
@pytest.mark.parametrize("number", range(len(CALLS)))
def test_norms_equal_pytorchs(number: int) -> None:
    import torch

    x, t = mt.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
    y, u = CALLS[number](mt.linalg, x), CALLS[number](torch.linalg, t)
    assert tuple(y.shape) == tuple(u.shape)
    np.testing.assert_allclose(y.detach().numpy(), u.detach().numpy(), 1e-12)
    (y * y).sum().backward()
    (u * u).sum().backward()
    theirs = 0 if t.grad is None else t.grad.numpy()  # the number of elements has no gradient
    np.testing.assert_allclose(x.grad.numpy(), theirs, 1e-10, 1e-12)


@needs_torch
@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_pytorch_refuses_the_same(number: int) -> None:
    import torch

    error, call = REFUSED[number]
    with pytest.raises(error):
        call(torch.linalg, torch.tensor(X))


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_is_no_norm_is_refused(number: int) -> None:
    error, call = REFUSED[number]
    with pytest.raises(error):
        call(mt.linalg, mt.tensor(X))


def test_norms_of_a_matrix_by_hand() -> None:
    a = mt.tensor([[1.0, -2.0], [3.0, 4.0]])
    norm = mt.linalg.norm
    assert norm(a).item() == pytest.approx(math.sqrt(30))
    assert [norm(a, p).item() for p in (1, -1, math.inf, -math.inf)] == [6, 4, 7, 3]
    assert norm(a, 1, dim=1).tolist() == [3, 7]
    with pytest.raises(NotImplementedError, match="singular values"):
        norm(a, 2)


def test_gradients_of_norms() -> None:
    x = mt.tensor(X, requires_grad=True)
    assert gradcheck(lambda x: mt.linalg.matrix_norm(x, 1), (x,))
    assert gradcheck(lambda x: mt.linalg.vector_norm(x, 3, (0, 2)), (x,))
