"""Calls that PyTorch refuses are refused, with its class."""

from __future__ import annotations

from typing import Any

import pytest
import refusals
from conftest import needs_torch

import minitensor as mt
from minitensor import nn

F = nn.functional
x, i, m = mt.ones(2, 3), mt.ones(2, 3, dtype=mt.int64), mt.ones(3, 3, dtype=mt.bool)
q, q4 = mt.ones(2, 3, 4), mt.ones(1, 2, 3, 4)

REFUSED: list[tuple[str, type[Exception]]] = [
    *((f"mt.{name}(2, 1)", TypeError) for name in ("eq", "ne", "lt", "le", "gt", "ge")),
    *((f"mt.{name}(2, x)", TypeError) for name in ("eq", "ne", "lt", "le", "gt", "ge")),
    *((f"mt.bitwise_{name}(2, 1)", TypeError) for name in ("and", "or", "xor")),
    *((f"mt.logical_{name}(m, True)", TypeError) for name in ("and", "or", "xor")),
    *((f"mt.{name}(x, 2)", TypeError) for name in ("atan2", "logaddexp")),
    *(
        (f"mt.{name}([1.0, 2.0])", TypeError)
        for name in ("sum", "mean", "var", "std", "max", "argmin", "sort", "t", "clone", "flatten")
    ),
    *((f"mt.{name}(2, 0)", TypeError) for name in ("softmax", "unbind", "cumsum", "squeeze")),
    ("mt.hstack([])", RuntimeError),
    ("mt.vstack([])", RuntimeError),
    ("mt.isin(2, 1)", TypeError),
    ("mt.roll(2, 1)", TypeError),
    ("mt.addcmul(2, x, x)", TypeError),
    ("mt.addcdiv(2, x, x)", TypeError),
    ("mt.meshgrid(x[0], i[0], indexing='ij')", RuntimeError),
    ("mt.tril_indices(-1, 3)", RuntimeError),
    ("mt.triu_indices(3, -1)", RuntimeError),
    ("mt.topk(x, 1.5)", TypeError),
    *((f"mt.{name}(x, 1.5)", TypeError) for name in ("tril", "triu", "roll", "kthvalue")),
    ("F.one_hot(i, 2.5)", TypeError),
    ("mt.randint(1.5, 5, (2,))", TypeError),
    ("mt.full((2,), None)", TypeError),
    ("mt.full_like(x, None)", TypeError),
    ("mt.scatter(x, 0, i)", TypeError),
    ("mt.index_select(x, 0, [1])", TypeError),
    ("mt.masked_select(x, True)", TypeError),
    ("mt.dropout(2, 0.5, False)", TypeError),
    ("F.scaled_dot_product_attention(q, q, q, m, 0.0, True)", RuntimeError),
    ("F.scaled_dot_product_attention(q, q, q, True)", TypeError),
    ("F.cross_entropy(x, 2)", TypeError),
    ("F.cross_entropy(x, i[0, 0])", ValueError),
    ("F.cross_entropy(x, x, x[0, 0])", RuntimeError),
    ("F.nll_loss(x, i[:, 0], ignore_index='x')", TypeError),
    ("F.embedding(i, x, 1.5)", TypeError),
    ("F.batch_norm(x, None, None, i[0], None, True)", RuntimeError),
    ("F.batch_norm(x.double(), None, None, x[0], x[0], True)", RuntimeError),
    ("F.layer_norm(x, (3,), [1.0, 2.0])", TypeError),
    ("F.prelu(x, 0.5)", TypeError),
    ("F.kl_div(2, x)", TypeError),
    ("F.embedding(i, [1.0])", TypeError),
    ("nn.PReLU(3)([1.0])", TypeError),
]


@pytest.mark.parametrize(("call", "expected"), REFUSED)
def test_what_pytorch_refuses_is_refused(call: str, expected: type[Exception]) -> None:
    with pytest.raises(expected) as found:
        eval(call)
    assert found.type is expected


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("call", "expected"), REFUSED)
def test_pytorch_refuses_it(call: str, expected: type[Exception]) -> None:
    import torch

    tensors = {
        name: torch.from_numpy(value.numpy())
        for name, value in globals().items()
        if isinstance(value, mt.Tensor)
    }
    with pytest.raises((expected, AttributeError)):  # where it looks for attributes, see refusals
        eval(call, {**tensors, "mt": torch, "nn": torch.nn, "F": torch.nn.functional})


def test_a_mask_and_is_causal_both_apply_in_four_dimensions() -> None:
    y = F.scaled_dot_product_attention(q4, q4, q4, m.triu(), 0.0, True)
    assert y.tolist() == q4.tolist()


@needs_torch
@pytest.mark.filterwarnings("ignore")
def test_spoilt_calls_are_refused_as_pytorch_refuses_them() -> None:
    """Of all calls generated, all but one in twenty; `refusals.purpose` lists intended ones."""
    made = sum(1 for _ in refusals.calls())
    found: list[Any] = list(refusals.differences())
    assert made > 30_000
    assert len(found) < made / 20
    accepted = [call for call, ours, _ in found if ours == "fine"]
    assert len(accepted) < made / 60
