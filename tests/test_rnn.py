"""Recurrent layers and cells, packed sequences, and the kernels that run a layer over time."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from twins import assert_same, close, pair, same_grad, twins

import minitensor as mt
from minitensor import nn
from minitensor.core import wrap
from minitensor.kernels.jit import get_num_threads, set_num_threads
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


@needs_torch
def test_dropout_falls_on_the_outputs_of_all_layers_but_the_last() -> None:
    import torch

    mine, theirs = twins(lambda nn: nn.LSTM(5, 4, num_layers=3, dropout=0.5))
    mt.random.exact_dropout(True)
    try:
        mt.manual_seed(3)
        torch.manual_seed(3)
        assert_same(Flat(mine), Flat(theirs), values(6, 3, 5))
    finally:
        mt.random.exact_dropout(False)
    mine.eval()
    theirs.eval()
    assert_same(Flat(mine), Flat(theirs), values(6, 3, 5))


def test_dropout_of_a_single_layer_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="num_layers greater than 1") as warned:
        nn.GRU(5, 4, dropout=0.1)
    assert warned[0].filename == __file__


# Errors

BAD_SETTINGS: list[dict[str, Any]] = [
    dict(dropout=2),
    dict(dropout="a"),
    dict(dropout=True),
    dict(bias=1),
    dict(batch_first=0),
    dict(num_layers=0),
    dict(input_size=0),
    dict(input_size=3.0),
    dict(hidden_size=-1),
    dict(hidden_size=4.0),
    dict(proj_size=4),
    dict(proj_size=-1),
    dict(nonlinearity="sigmoid"),
]


@needs_torch
@pytest.mark.parametrize("settings", BAD_SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_bad_settings_raise_what_pytorch_raises(name: str, settings: dict[str, Any]) -> None:
    import torch

    if "proj_size" in settings and name != "LSTM":
        with pytest.raises(TypeError, match="unexpected keyword argument 'proj_size'"):
            getattr(nn, name)(3, 4, **settings)
        return
    given = {"input_size": 3, "hidden_size": 4, **settings}
    with pytest.raises(Exception) as expected:
        getattr(torch.nn, name)(**given)
    with pytest.raises(expected.type):
        getattr(nn, name)(**given)


def ones(*shape: int) -> Callable[[Any], Any]:
    return lambda library: library.ones(*shape)


BAD_INPUTS: list[tuple[str, Callable[[Any], Any], Any]] = [
    ("LSTM", ones(5, 2, 2), None),
    ("LSTM", ones(5), None),
    ("LSTM", ones(0, 2, 3), None),
    ("LSTM", lambda library: library.ones(5, 2, 3).double(), None),
    ("LSTM", ones(5, 3), (ones(1, 1, 4), ones(1, 1, 4))),
    ("LSTM", ones(5, 2, 3), (ones(1, 4), ones(1, 4))),
    ("LSTM", ones(5, 2, 3), (ones(1, 2, 5), ones(1, 2, 4))),
    ("LSTM", ones(5, 2, 3), (ones(1, 2, 4), ones(1, 3, 4))),
    ("LSTM", ones(5, 2, 3), ones(1, 2, 4)),
    ("GRU", ones(5, 2, 3), ones(2, 2, 4)),
    ("GRU", ones(5, 2, 3), lambda library: library.ones(1, 2, 4).double()),
    ("RNN", ones(5, 2, 3), ones(1, 1, 4)),
    ("RNN", lambda library: "text", None),
    ("LSTMCell", ones(2, 2, 3), None),
    ("LSTMCell", ones(2, 4), None),
    ("LSTMCell", ones(2, 3), (ones(1, 2, 4), ones(2, 4))),
    ("LSTMCell", ones(2, 3), (ones(3, 4), ones(3, 4))),
    ("GRUCell", ones(2, 3), ones(2, 5)),
    ("RNNCell", ones(2, 3), ones(2, 2, 4)),
]


@needs_torch
@pytest.mark.parametrize("case", range(len(BAD_INPUTS)))
def test_bad_inputs_raise_what_pytorch_raises(case: int) -> None:
    import torch

    name, x, hx = BAD_INPUTS[case]

    def run(library: Any) -> None:
        states = tuple(h(library) for h in hx) if isinstance(hx, tuple) else hx and hx(library)
        getattr(library.nn, name)(3, 4)(x(library), *([] if hx is None else [states]))

    with pytest.raises(Exception) as expected:
        run(torch)
    with pytest.raises(expected.type):
        run(mt)


@needs_torch
@pytest.mark.parametrize(
    "lengths",
    [[4, 2, 5], [5, 2, 1], [4, 2, 0], [4, 2], [[4, 2, 1]], [3, 2, 1], [4, 4, 4], "abc"],
    ids=str,
)
def test_packing_takes_and_refuses_the_lengths_that_pytorch_does(lengths: Any) -> None:
    import torch
    from torch.nn.utils import rnn as torch_packing

    x = np.arange(12.0).reshape(4, 3)
    if lengths == [5, 2, 1]:  # PyTorch reads what lies behind the input
        with pytest.raises(RuntimeError, match="a length of 5 is more than the 4 steps"):
            packing.pack_padded_sequence(wrap(x), lengths)
        return
    try:
        expected = torch_packing.pack_padded_sequence(torch.from_numpy(x), lengths)
    except Exception as error:
        with pytest.raises(type(error)):
            packing.pack_padded_sequence(wrap(x), lengths)
    else:
        found = packing.pack_padded_sequence(wrap(x), lengths)
        assert found.data.tolist() == expected.data.tolist()
        assert found.batch_sizes.tolist() == expected.batch_sizes.tolist()


# Packing


@needs_torch
@pytest.mark.parametrize("ordered", [True, False])
def test_sequences_are_packed_padded_and_unpacked_as_in_pytorch(ordered: bool) -> None:
    from torch.nn.utils import rnn as torch_packing

    lengths = sorted(LENGTHS, reverse=True) if ordered else LENGTHS
    given = [pair(values(n, 2, seed=n)) for n in lengths]
    mine = packing.pack_sequence([a for a, _ in given], ordered)
    theirs = torch_packing.pack_sequence([b for _, b in given], ordered)
    plain: list[Any] = [packing.PackedSequence(mine.data.detach(), *mine[1:])]
    plain.append(torch_packing.PackedSequence(theirs.data.detach(), *theirs[1:]))
    assert repr(plain[0]) == repr(plain[1])
    for field in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        a, b = getattr(mine, field), getattr(theirs, field)
        assert (a is None and b is None) or (a.tolist() == b.tolist() and a.dtype == mt.int64)
    for settings in ({}, dict(batch_first=True), dict(padding_value=-2.0, total_length=8)):
        a, n = packing.pad_packed_sequence(mine, **settings)
        b, m = torch_packing.pad_packed_sequence(theirs, **settings)
        close(a, b, 0)
        assert n.tolist() == m.tolist()
    with pytest.raises(ValueError, match="total_length=3"):
        packing.pad_packed_sequence(mine, total_length=3)
    for (x, _), back in zip(given, packing.unpack_sequence(mine), strict=True):
        assert back.tolist() == x.tolist()
    a.sum().backward()
    assert all(x.grad.tolist() == mt.ones_like(x).tolist() for x, _ in given)


def test_a_packed_sequence_converts_its_data_alone() -> None:
    packed = packing.pack_sequence([mt.ones(3), mt.ones(2)])
    assert packed.to("cpu") is packed
    assert packed.cpu() is packed
    for name, dtype in dict(
        double=mt.float64, float=mt.float32, half=mt.float16, long=mt.int64, int=mt.int32,
        short=mt.int16, char=mt.int8, byte=mt.uint8,
    ).items():  # fmt: skip
        made = getattr(packed, name)()
        assert isinstance(made, packing.PackedSequence)
        assert made.data.dtype == dtype
        assert made.batch_sizes is packed.batch_sizes
    assert packed.to(mt.float64).data.dtype == mt.float64
    assert not packed.is_cuda


# The kernels


def gradients(module: Any, x: np.ndarray, lengths: list[int] | None) -> list[np.ndarray]:
    """Outputs, last states, and all gradients."""
    module.zero_grad()
    leaf = wrap(x.copy()).requires_grad_()
    given = leaf if lengths is None else packing.pack_padded_sequence(leaf, lengths)
    y, *ends = Flat(module)(given)
    outs = [y if lengths is None else y.data, *ends]
    sum((out * (i + 1)).sin().sum() for i, out in enumerate(outs)).backward()  # type: ignore[union-attr]
    grads = [leaf.grad, *(p.grad for p in module.parameters())]
    return [t.detach().numpy() for t in (*outs, *grads)]


@pytest.mark.parametrize("lengths", [None, [9, 9, 8, 5, 2]])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_results_do_not_depend_on_the_number_of_threads(
    name: str, lengths: list[int] | None
) -> None:
    module = getattr(nn, name)(20, 130, bidirectional=True)
    x = values(9, 5, 20)
    before, results = get_num_threads(), []
    try:
        for count in (1, 2):
            set_num_threads(min(count, before))
            results.append(gradients(module, x, lengths))
    finally:
        set_num_threads(before)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_widths_beside_whole_vectors_and_blocks_agree_with_the_loop_over_cells(
    name: str, dtype: Any
) -> None:
    """Several blocks of rows and of depth, and a last panel that is not whole."""
    module = getattr(nn, name)(3, 270).to(dtype=wrap(np.zeros(1, dtype)).dtype)
    cell = getattr(nn, f"{name}Cell")(3, 270).to(dtype=module.weight_ih_l0.dtype)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in module.state_dict().items()})
    x = wrap(values(3, 30, 3).astype(dtype))
    y, _ = module(x)
    hx = None
    for t in range(3):
        hx = cell(x[t]) if hx is None else cell(x[t], hx)
        h = hx[0] if name == "LSTM" else hx
        np.testing.assert_allclose(y[t].detach().numpy(), h.detach().numpy(), atol=2e-6)


def test_layers_run_uncompiled() -> None:
    program = """
import minitensor as mt
from minitensor.core import OPS
from minitensor.testing import assert_close, leaves, samples

for name in ("RnnLayer", "LstmLayer", "GruLayer"):
    op = OPS[name]
    for args, how in samples(op):
        found = []
        for run in (op.apply, op.decomposition):
            outs = run(*args, **{"sizes": None, "reverse": False, **how})
            sum((y.sin() * (i + 1)).sum() for i, y in enumerate(outs)).backward()
            wanted = [t for t in leaves(args) if t.requires_grad]
            found.append([*(y.detach() for y in outs), *(t.grad for t in wanted)])
            for t in wanted:
                t.grad = None
        assert_close(*found)
"""
    root = Path(__file__).parent.parent
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_float16_is_computed_step_by_step() -> None:
    module = nn.LSTM(5, 4)
    x = mt.tensor(values(6, 3, 5))
    y, _ = module(x)
    half, _ = copy.deepcopy(module).half()(x.half())
    assert half.dtype == mt.float16
    np.testing.assert_allclose(half.float().detach().numpy(), y.detach().numpy(), atol=5e-3)


def test_a_second_pass_needs_the_graph_kept() -> None:
    y, _ = nn.GRU(3, 4)(mt.ones(5, 2, 3))
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_a_layer_can_be_traced_copied_and_loaded() -> None:
    module = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    twin = copy.deepcopy(module)
    other = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    other.load_state_dict(module.state_dict())
    x = mt.ones(5, 2, 3)
    for same in (twin, other):
        assert same(x)[0].tolist() == module(x)[0].tolist()
    graph = mt.graph.trace(module, x)
    assert sum(node.op == "lstm_layer" for node in graph.nodes.values()) == 4
    opened = mt.graph.trace(module, x, decompose=True)
    assert sum(node.op == "tanh" for node in opened.nodes.values()) == 2 * 4 * 5


def test_a_network_learns_to_remember_the_first_token() -> None:
    mt.manual_seed(0)
    embedding, network, head = nn.Embedding(4, 8), nn.GRU(8, 16), nn.Linear(16, 4)
    parameters = [*embedding.parameters(), *network.parameters(), *head.parameters()]
    optimizer = mt.optim.Adam(parameters, lr=0.02)
    for _ in range(100):
        tokens = mt.randint(0, 4, (8, 32))
        _, h = network(embedding(tokens))
        loss = nn.functional.cross_entropy(head(h[0]), tokens[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3


def test_what_does_not_fit_is_refused_and_no_memory_is_written() -> None:
    """The kernels index by these shapes and types: they would read and write beyond the arrays."""
    f = mt.float32
    w_ih, w_hh, b = mt.ones(16, 3), mt.ones(16, 4), mt.ones(16)
    x, h, c = mt.ones(2, 3), mt.ones(2, 4), mt.ones(2, 4)
    for states in ((h, c.double()), (h, c.long()), (h, c[:1]), (h[:1], c), (h, c[0])):
        with pytest.raises((RuntimeError, IndexError)):
            mt.lstm_cell(x, states, w_ih, w_hh)
    with pytest.raises(RuntimeError):
        mt.lstm_cell(x, (h, c), w_ih, w_hh, b, b[:3])
    data, how = mt.ones(9, 3), (True, 1, 0.0, False, False)
    start = mt.zeros(1, 3, 4), mt.zeros(1, 3, 4)
    weights = [w_ih, w_hh, b, b]
    y, *_ = mt.lstm(data, mt.tensor([3, 3, 2, 1]), start, weights, *how)
    assert y.dtype == f
    assert y.shape == (9, 4)
    for sizes in ([3, 3, 3, 1], [3, 2, 3, 1], [4, 3, 2], [3, 3, 2, 1, 0], [2, 2, 2, 2, 1], []):
        with pytest.raises(RuntimeError):
            mt.lstm(data, mt.tensor(sizes, dtype=mt.int64), start, weights, *how)
    for wrong in (mt.zeros(3, 4), mt.zeros(2, 3, 4), mt.zeros(1, 2, 4), mt.zeros(1, 3, 4).double()):
        with pytest.raises(RuntimeError):
            mt.lstm(mt.ones(5, 3, 3), (wrong, start[1]), weights, *how, False)
        with pytest.raises(RuntimeError):
            mt.lstm(mt.ones(5, 3, 3), (start[0], wrong), weights, *how, False)
