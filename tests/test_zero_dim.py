"""0-dim tensors in every function that has a `dim`, against PyTorch: values, gradients, errors.

A 0-dim tensor counts as one of one element in one dimension, which is 0 or -1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor
from minitensor import nn

# x, y: 0-dim; v: three elements; i, i1, i2: the index 0, [0] and [0, 0]; D: the dimension.
EXPRESSIONS = """
x.sum(D)
x.mean(D)
x.prod(D)
x.amax(D)
x.amin(D)
x.max(D)
x.min(D)
x.argmax(D)
x.argmin(D)
x.std(D)
x.var(D)
lib.std_mean(x, D)
lib.var_mean(x, D)
x.all(D)
x.any(D)
x.sum(D, keepdim=True)
x.max(D, keepdim=True)
x.argmax(D, keepdim=True)
x.median(D)
x.logsumexp(D)
x.norm(dim=D)
lib.norm(x, 2, D)
lib.count_nonzero(x, D)
x.cumsum(D)
x.cumprod(D)
x.sort(D)
x.sort(dim=D, descending=True)
x.argsort(D)
x.topk(1, D)
x.topk(0, D)
x.topk(2, D)
x.softmax(D)
x.log_softmax(D)
F.softmin(x, D)
F.normalize(x, dim=D)
F.glu(x, D)
x.flip(D)
x.flip((D,))
x.roll(1, D)
x.unbind(D)
x.select(D, 0)
x.narrow(D, 0, 1)
x.split(1, D)
x.split([1], D)
x.chunk(1, D)
x.unsqueeze(D)
x.squeeze(D)
x.squeeze((D,))
x.transpose(D, D)
x.transpose(0, D)
x.permute(D)
x.movedim(D, D)
x.swapaxes(D, D)
x.flatten(D, D)
x.flatten()
x.unflatten(D, (1,))
x.size(D)
x.stride(D)
x.repeat_interleave(2, D)
x.repeat_interleave(2)
x.unfold(D, 1, 1)
x.unfold(D, 0, 1)
x.unfold(D, 2, 1)
x.unfold(D, 1, 3)
x.unique(dim=D)
x.diagonal(0, D, D)
lib.cat([x, x], D)
lib.cat([x.reshape(1), x.reshape(1)], D)
lib.stack([x, x], D)
x.index_select(D, i)
x.index_select(D, i1)
x.index_select(D, i2)
x.index_select(D, bad)
x.index_select(D, empty)
x.index_fill(D, i, 2.0)
x.index_fill(D, i1, 2.0)
x.index_fill(D, i2, 2.0)
x.index_fill(D, bad, 2.0)
x.index_fill(D, empty, 2.0)
x.index_fill(D, i1, y)
x.index_fill(D, i2, y)
x.index_fill(D, i1, y1)
x.index_copy(D, i, y)
x.index_copy(D, i1, y)
x.index_copy(D, i1, y1)
x.index_copy(D, i, y1)
x.index_copy(D, i2, y)
x.index_copy(D, bad, y)
x.index_copy(D, empty, y)
x.index_add(D, i, y)
x.index_add(D, i1, y)
x.index_add(D, i1, y1)
x.index_add(D, i, y1)
x.index_add(D, i2, y2)
x.index_add(D, i2, y)
x.index_add(D, i1, y, alpha=3)
x.index_add(D, bad, y)
x.index_add(D, empty, y0)
v.index_copy(D, i, y)
v.index_copy(D, i1, y)
v.index_add(D, i, y)
v.index_add(D, i1, y)
v.index_add(D, i, y1)
v.index_add(D, i2, y)
v.index_fill(D, i, y)
v.index_select(D, i)
x.gather(D, i)
x.gather(D, i1)
x.gather(D, i2)
x.gather(D, bad)
x.gather(D, empty)
v.gather(D, i)
v.gather(D, bad)
x.scatter(D, i, y)
x.scatter(D, i1, y1)
x.scatter(D, i1, y)
x.scatter(D, i2, y2)
x.scatter(D, i, 2.0)
x.scatter(D, i1, 2.0)
x.scatter(D, bad, 2.0)
x.scatter(D, i, value=2.0)
v.scatter(D, i, y)
v.scatter(D, i, 2.0)
x.scatter_add(D, i, y)
x.scatter_add(D, i1, y1)
x.scatter_add(D, i2, y2)
x.scatter_add(D, bad, y)
v.scatter_add(D, i, y)
lib.take_along_dim(x, i, D)
lib.take_along_dim(x, i1, D)
lib.take_along_dim(v, i, D)
lib.take_along_dim(x, i)
lib.take_along_dim(x, i1)
lib.take_along_dim(x, i2)
x.masked_fill(x > 0, 1.0)
x.masked_select(x > 0)
x.expand(1)
x.tile(2)
x.repeat(2)
x.view(1)
x.tril()
x.triu()
x.t()
x.T
x.dot(x)
x.outer(x)
lib.hstack([x, x])
lib.vstack([x, x])
lib.diag(x)
lib.logsumexp(x, D)
F.layer_norm(x, ())
F.kl_div(x, y, reduction="batchmean")
F.kl_div(x, y, reduction="mean")
F.kl_div(x, y, reduction="sum")
F.mse_loss(x, y)
F.dropout(x, 0.0)
F.one_hot(i, 3)
F.embedding(i, m)
x[()]
x[...]
x[None]
x[True]
x[False]
x[0]
x[i]
x[x > 0]
x[:, None]
lib.nonzero(x)
lib.argwhere(x)
lib.where(x > 0)
lib.where(x > 0, x, y)
x.cumsum(D).sum(D)
x.std()
x.var(unbiased=False)
x.median()
x.sort()
x.topk(1)
x.argsort()
x.softmax(-1)
x.tolist()
F.pad(x, (1, 1))
F.pad(x, ())
x.index_fill_(D, i1, 2.0)
x.clone().index_fill_(D, i1, 2.0)
x.clone().index_add_(D, i1, y)
x.clone().index_copy_(D, i1, y)
x.clone().scatter_(D, i, y)
x.clone().scatter_add_(D, i, y)
lib.meshgrid(x, x)
lib.broadcast_to(x, (2,))
lib.squeeze(x)
lib.amax(x, ())
lib.sum(x, ())
""".strip().splitlines()

CASES = [
    line.replace("D", dim)
    for line in EXPRESSIONS
    for dim in (("0", "-1", "1", "-2") if "D" in line else ("",))
]


def tensors(library: Any) -> dict[str, Any]:
    def leaf(values: Any) -> Any:
        return library.tensor(values, dtype=library.float64, requires_grad=True)

    return dict(
        x=leaf(1.5), y=leaf(2.5), y0=leaf([]), y1=leaf([2.5]), y2=leaf([2.5, 3.5]),
        v=leaf([1.0, 2.0, 3.0]), m=leaf([[1.0, 2.0], [3.0, 4.0]]),
    )  # fmt: skip


def flat(x: Any) -> list[Any]:
    if not hasattr(x, "detach") and isinstance(x, list | tuple):
        return [z for y in x for z in flat(y)]
    return [x]


def plain(x: Any) -> Any:
    """A tensor as (type, shape, values); anything else as it is."""
    if not hasattr(x, "detach"):
        return tuple(x) if isinstance(x, tuple) else x
    array = np.asarray(x.detach().numpy())
    values = array if array.dtype.kind == "b" else array.round(9)
    return str(array.dtype), array.shape, values.tolist(), x.requires_grad


def outcome(library: Any, functional: Any, line: str) -> Any:
    """Return the value of an expression and the gradients of its sum, or the class of its error."""
    leaves = tensors(library)
    names = dict(
        lib=library, F=functional, i=library.tensor(0), i1=library.tensor([0]),
        i2=library.tensor([0, 0]), bad=library.tensor([1]),
        empty=library.tensor([], dtype=library.int64), **leaves,
    )  # fmt: skip
    try:
        outs = flat(eval(line, names))
    except Exception as error:
        return type(error)
    for out in outs:
        if hasattr(out, "detach") and out.requires_grad:
            out.sum().backward(retain_graph=True)
    return [plain(out) for out in outs], {
        name: None if leaf.grad is None else plain(leaf.grad) for name, leaf in leaves.items()
    }


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", CASES)
def test_as_pytorch(line: str) -> None:
    import torch

    expected = outcome(torch, torch.nn.functional, line)
    assert repr(outcome(minitensor, nn.functional, line)) == repr(expected)
