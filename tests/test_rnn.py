"""Recurrent layers and cells, packed sequences, and the kernels that run a layer over time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from twins import assert_same, same_grad, twins

from minitensor.nn.utils import rnn as packing

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")  # of PyTorch

LAYERS = [
    ("RNN", {}),
    ("RNN", dict(num_layers=2, nonlinearity="relu", bias=False)),
    ("RNN", dict(num_layers=2, batch_first=True, bidirectional=True)),
    ("LSTM", {}),
    ("LSTM", dict(num_layers=2, bidirectional=True, batch_first=True)),
    ("LSTM", dict(num_layers=2, bias=False)),
    ("LSTM", dict(num_layers=2, proj_size=3, bidirectional=True)),
    ("LSTM", dict(proj_size=2, bias=False)),
    ("GRU", {}),
    ("GRU", dict(num_layers=3, bidirectional=True)),
    ("GRU", dict(bias=False, batch_first=True)),
]
LENGTHS = [3, 6, 1, 6, 4]


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def states(module: Any, *batch: int) -> Any:
    """Values of the states to begin with."""
    count = module.num_layers * (2 if module.bidirectional else 1)
    h = values(count, *batch, module.proj_size or module.hidden_size, seed=1)
    return (h, values(count, *batch, module.hidden_size, seed=2)) if module.mode == "LSTM" else h


class Flat:
    """A layer whose outputs are one flat tuple, and whose states are given one by one."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, x: Any, *hx: Any) -> tuple[Any, ...]:
        given = () if not hx else (tuple(hx),) if len(hx) > 1 else hx
        y, end = self.module(x, *given)
        return (y, *end) if isinstance(end, tuple) else (y, end)


def same_parameter_gradients(mine: Any, theirs: Any) -> None:
    for (name, a), (_, b) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        same_grad(a, b, 1e-4, name)


@needs_torch
@pytest.mark.parametrize(("name", "settings"), LAYERS)
def test_layers_begin_with_and_compute_what_pytorchs_do(name: str, settings: Any) -> None:
    mine, theirs = twins(lambda nn: getattr(nn, name)(5, 4, **settings))
    shape = (3, 6, 5) if mine.batch_first else (6, 3, 5)
    hx = states(mine, 3)
    hx = hx if isinstance(hx, tuple) else (hx,)
    assert_same(Flat(mine), Flat(theirs), values(*shape))
    assert_same(Flat(mine), Flat(theirs), values(*shape), *hx)
    same_parameter_gradients(mine, theirs)


@needs_torch
@pytest.mark.parametrize(("name", "settings"), LAYERS)
def test_one_sequence_needs_no_batch_dimension(name: str, settings: Any) -> None:
    mine, theirs = twins(lambda nn: getattr(nn, name)(5, 4, **settings))
    hx = states(mine)
    hx = hx if isinstance(hx, tuple) else (hx,)
    assert_same(Flat(mine), Flat(theirs), values(6, 5))
    assert_same(Flat(mine), Flat(theirs), values(6, 5), *hx)


@needs_torch
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(("name", "settings"), LAYERS)
def test_packed_sequences_give_what_pytorch_gives(name: str, settings: Any, ordered: bool) -> None:
    from torch.nn.utils import rnn as torch_packing

    mine, theirs = twins(lambda nn: getattr(nn, name)(5, 4, **settings))
    lengths = sorted(LENGTHS, reverse=True) if ordered else LENGTHS

    def run(module: Any, tools: Any) -> Any:
        def call(x: Any, *hx: Any) -> tuple[Any, ...]:
            packed = tools.pack_padded_sequence(
                x, lengths, batch_first=module.batch_first, enforce_sorted=ordered
            )
            y, *end = Flat(module)(packed, *hx)
            padded, _ = tools.pad_packed_sequence(y, module.batch_first, -1.5, 7)
            return (padded, *end)

        return call

    shape = (5, 6, 5) if mine.batch_first else (6, 5, 5)
    hx = states(mine, 5)
    hx = hx if isinstance(hx, tuple) else (hx,)
    both = run(mine, packing), run(theirs, torch_packing)
    assert_same(*both, values(*shape))
    assert_same(*both, values(*shape), *hx)
    same_parameter_gradients(mine, theirs)


@needs_torch
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_begin_with_and_compute_what_pytorchs_do(name: str, bias: bool) -> None:
    mine, theirs = twins(lambda nn: getattr(nn, name)(5, 4, bias=bias))

    def run(module: Any) -> Any:
        return lambda x, *hx: module(x, *((hx,) if len(hx) > 1 else hx))

    count = 2 if name == "LSTMCell" else 1
    for batch in ((3,), ()):
        hx = [values(*batch, 4, seed=i) for i in range(count)]
        assert_same(run(mine), run(theirs), values(*batch, 5))
        assert_same(run(mine), run(theirs), values(*batch, 5), *hx)
    same_parameter_gradients(mine, theirs)
