"""The costs that a graph tells: FLOPs of matrix products, bytes of activations, bytes saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from large import irregular
from work import growth

import minitensor as mt
from minitensor import nn
from minitensor.core import Tensor
from minitensor.graph import Graph, lift, trace
from minitensor.graph.describe import saved_arrays
from minitensor.graph.fold import fold
from minitensor.graph.html import page_model
from minitensor.graph.scene import Box, Tree
from minitensor.graph.text import summary
from minitensor.graph.view import View
from minitensor.models.transformer import Transformer, TransformerConfig
from minitensor.nn import functional as F

N, S, L, E, H, FF, V = 3, 7, 5, 16, 2, 32, 23
DIMS = {"N": N, "S": S, "L": L, "E": E, "H": H, "F": FF, "V": V}


def flops(graph: Graph) -> tuple[int, int]:
    """Forward and backward, each op counted once."""
    totals = {"forward": 0, "backward": 0}
    for node in graph.nodes.values():
        if node.inside is None:
            totals[node.direction] += node.flops
    return totals["forward"], totals["backward"]


def traced(function: Callable[..., Any], *shapes: tuple[int, ...], frozen: int = 0) -> Graph:
    """The graph of a function of tensors of given shapes; the first `frozen` need no gradient."""
    inputs = [mt.randn(*s).requires_grad_(i >= frozen) for i, s in enumerate(shapes)]
    return trace(function, *inputs, backward=True)


def attend(q: Any, k: Any, v: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v)


CASES: list[tuple[Callable[..., Any], list[tuple[int, ...]], int, int]] = [
    (mt.matmul, [(2, 3), (3, 4)], 48, 96),
    (mt.matmul, [(3,), (3,)], 6, 12),
    (mt.matmul, [(3,), (3, 4)], 24, 48),
    (mt.matmul, [(2, 3), (3,)], 12, 24),
    (mt.matmul, [(5, 2, 3), (3, 4)], 240, 480),
    (mt.matmul, [(5, 2, 3), (5, 3, 4)], 240, 480),
    (mt.matmul, [(2, 1, 2, 3), (3, 3, 4)], 288, 576),
    (mt.matmul, [(2, 0), (0, 3)], 0, 0),
    (mt.mm, [(2, 3), (3, 4)], 48, 96),
    (mt.bmm, [(5, 2, 3), (5, 3, 4)], 240, 480),
    (mt.addmm, [(4,), (2, 3), (3, 4)], 48, 96),
    (mt.baddbmm, [(5, 2, 4), (5, 2, 3), (5, 3, 4)], 240, 480),
    (lambda a, b: mt.einsum("nik,nkj->nij", a, b), [(5, 2, 3), (5, 3, 4)], 240, 480),
    (F.linear, [(2, 5, 3), (4, 3), (4,)], 240, 480),
    (F.linear, [(3,), (4, 3)], 24, 48),
    (F.linear_activation, [(2, 5, 3), (4, 3), (4,)], 240, 480),
    (attend, [(2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 7)], 288 * 12, 288 * 29),
    (mt.add, [(2, 3), (2, 3)], 0, 0),
    (lambda x: x.softmax(-1), [(2, 3)], 0, 0),
]


@pytest.mark.parametrize(("function", "shapes", "forward", "backward"), CASES)
def test_flops_are_those_of_the_formula(
    function: Any, shapes: list[tuple[int, ...]], forward: int, backward: int
) -> None:
    assert flops(traced(function, *shapes)) == (forward, backward)


def test_only_the_wanted_gradients_cost() -> None:
    assert flops(traced(F.linear, (2, 5, 3), (4, 3), (4,), frozen=1)) == (240, 240)
    assert flops(traced(F.linear, (2, 5, 3), (4, 3), (4,), frozen=2)) == (240, 0)
    assert flops(traced(mt.matmul, (2, 3), (3, 4), frozen=1)) == (48, 48)


def project(query: Any, memory: Any, weight: Any, bias: Any) -> Any:
    return F.in_projection_packed(query, memory, weight, bias)


@pytest.mark.parametrize("frozen", range(4))
def test_packed_projection_is_three_products(frozen: int) -> None:
    q, kv = 2 * N * L * E * E, 2 * N * S * E * 2 * E
    graph = traced(project, (N, L, E), (N, S, E), (3 * E, E), (3 * E,), frozen=frozen)
    wanted = (q + kv) * (frozen < 3) + q * (frozen < 1) + kv * (frozen < 2)
    assert flops(graph) == (q + kv, wanted)


def test_packed_attention_is_attention() -> None:
    def packed(qkv: Any) -> Any:
        return F.packed_attention(qkv, H)

    def memory(q: Any, kv: Any) -> Any:
        return F.packed_attention(q, H, kv=kv)

    assert flops(traced(packed, (N, L, 3 * E))) == (4 * N * L * L * E, 10 * N * L * L * E)
    graph = traced(memory, (N, L, E), (N, S, 2 * E))
    assert flops(graph) == (4 * N * L * S * E, 10 * N * L * S * E)


def test_the_reference_costs_what_the_fused_op_costs() -> None:
    model, src, tgt = transformer()
    graph = trace(model, src, tgt, decompose=True)
    inside: dict[str, int] = {}
    for node in graph.nodes.values():
        if node.inside is not None:
            inside[node.inside] = inside.get(node.inside, 0) + node.flops
    assert len(inside) > 50
    assert all(graph.nodes[key].flops == count for key, count in inside.items())


# PyTorch


def torch_flops(function: Callable[..., Any], inputs: list[Any]) -> tuple[int, int]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as forward:
        out = function(*inputs)
    with FlopCounterMode(display=False) as backward:
        out.backward(torch.ones_like(out))
    return forward.get_total_flops(), backward.get_total_flops()


@needs_torch
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("matmul", [(2, 3), (3, 4)]),
        ("matmul", [(5, 2, 3), (3, 4)]),
        ("matmul", [(6, 5, 2, 3), (6, 5, 3, 4)]),
        ("bmm", [(5, 2, 3), (5, 3, 4)]),
        ("addmm", [(4,), (2, 3), (3, 4)]),
        ("baddbmm", [(5, 2, 4), (5, 2, 3), (5, 3, 4)]),
        ("nn.functional.linear", [(2, 5, 3), (4, 3), (4,)]),
        ("nn.functional.linear", [(2, 3), (4, 3)]),
    ],
)
def test_flops_are_those_of_pytorch(name: str, shapes: list[tuple[int, ...]]) -> None:
    import torch

    mine, theirs = mt, torch
    for part in name.split("."):
        mine, theirs = getattr(mine, part), getattr(theirs, part)
    inputs = [torch.randn(*shape, requires_grad=True) for shape in shapes]
    assert flops(traced(mine, *shapes)) == torch_flops(theirs, inputs)  # type: ignore[arg-type]


@needs_torch
def test_flops_of_attention_are_those_of_pytorch() -> None:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    shapes = [(2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 6, 8)]
    inputs = [torch.randn(*shape, requires_grad=True) for shape in shapes]
    with sdpa_kernel(SDPBackend.MATH):
        forward, backward = torch_flops(torch.nn.functional.scaled_dot_product_attention, inputs)
    again = 2 * 2 * 3 * 4 * 6 * 8  # a fused kernel computes the scores a second time
    assert flops(traced(attend, *shapes)) == (forward, backward + again)


@needs_torch
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm_first", [False, True])
def test_flops_of_a_transformer_are_those_of_pytorch(norm_first: bool) -> None:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def make(nn: Any) -> Any:
        return nn.Transformer(E, H, 2, 3, FF, batch_first=True, norm_first=norm_first)

    src, tgt = mt.randn(N, S, E), mt.randn(N, L, E)
    mine = flops(trace(make(nn), src, tgt, backward=True))
    with sdpa_kernel(SDPBackend.MATH):
        forward, backward = torch_flops(
            make(torch.nn), [torch.from_numpy(t.numpy()) for t in (src, tgt)]
        )
    again = 2 * N * E * (2 * S * S + 3 * (L * L + L * S))
    assert mine == (forward, backward + again)


# The whole Transformer


def transformer(layers: int = 6, norm_first: bool = False) -> tuple[Transformer, Tensor, Tensor]:
    mt.manual_seed(0)
    config = TransformerConfig(19, V, E, H, layers, layers, FF, norm_first=norm_first)
    src, tgt = mt.randint(0, 19, (N, S)), mt.randint(0, V, (N, L))
    return Transformer(config), src, tgt


@pytest.mark.parametrize("norm_first", [False, True])
def test_flops_of_the_transformer(norm_first: bool) -> None:
    """Projections 4 E², scores and mixtures 2 S E, feed-forward 2 E F, per token; the output."""
    encoder = 6 * S * (4 * E * E + 2 * S * E + 2 * E * FF)
    attention = 4 * E * E + 2 * L * E  # to itself
    memory = 2 * E * E + 2 * S * E  # queries, the sum of heads, and the products with memory
    decoder = 6 * (L * (attention + memory + 2 * E * FF) + S * 2 * E * E)  # keys and values
    output = L * E * V
    model, src, tgt = transformer(norm_first=norm_first)
    graph = trace(model, src, tgt, backward=True)
    products = 2 * N * (encoder + decoder + output)
    assert flops(graph) == (products, 2 * products)
    root = fold(graph).boxes[""]
    assert (root.flops, root.backward_flops) == flops(graph)
    assert root.parameter_count == sum(p.numel() for p in model.parameters())


def storage(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@pytest.mark.parametrize("norm_first", [False, True])
def test_saved_bytes_are_those_on_the_tape(norm_first: bool) -> None:
    model, src, tgt = transformer(norm_first=norm_first)
    apart = {id(storage(t._array)) for t in (*model.parameters(), *model.buffers(), src, tgt)}
    out = model(src, tgt)
    kept: dict[int, np.ndarray] = {}
    seen, waiting = {out.grad_fn}, [out.grad_fn]
    while waiting:
        run: Any = waiting.pop()
        for array in saved_arrays(run):
            if id(storage(array)) not in apart:
                kept[id(storage(array))] = storage(array)
        for following, _ in run.next_functions:
            if hasattr(following, "edges") and following not in seen:
                seen.add(following)
                waiting.append(following)
    graph = trace(model, src, tgt, backward=True)
    bases = set()
    for value in graph.values.values():
        if value.saved_by:
            while value.views is not None:
                value = graph.values[value.views]
            if value.kind not in ("parameter", "buffer", "input"):
                bases.add(value.id)
    total = sum(a.nbytes for a in kept.values())
    assert sum(graph.values[b].nbytes for b in bases) == total > 100_000
    assert fold(graph).boxes[""].saved_bytes == total + src._array.nbytes + tgt._array.nbytes


# The summary


def test_summary_shows_every_shape_and_folds() -> None:
    model, src, tgt = transformer()
    graph = trace(model, src, tgt, dims=DIMS, backward=True)
    text = summary(graph, fold(graph))
    lines = text.splitlines()
    rule = lines[1]
    notes = lines[len(lines) - lines[::-1].index(rule) :]
    lines = lines[: len(lines) - len(notes) - 1]
    assert notes[0].startswith("FLOPs are those of matrix products alone")
    assert lines[0] == "Transformer: N = 3, S = 7, L = 5, E = 16, H = 2, F = 32, V = 23"
    row = next(line for line in lines if "EncoderLayer" in line)
    assert "layers.0-5: EncoderLayer x6 (own weights)" in row
    assert "(N, S, E)" in row
    row = next(line for line in lines if "linear" in line and "(N, S, 2*E)" in line)
    assert "21.5 k" in row  # the keys and values of the memory
    total = next(n for n, line in enumerate(lines) if line.startswith("total"))  # then notes
    assert "(N, L, V)" in lines[total - 2]
    parameters = sum(p.numel() for p in model.parameters())
    assert f"{parameters / 1000:.3g} k" in lines[total]
    assert f"{flops(graph)[0] / 1e6:.3g} M" in lines[total]
    assert max(map(len, lines[: total + 1])) == len(lines[1])
    assert "..." not in "\n".join(lines[: total + 1])
    assert len(lines) < 120
    short = summary(graph, fold(graph), depth=1)
    assert "EncoderLayer" not in short
    assert "encoder: Encoder" in short
    assert lines[-1].split() in [line.split() for line in short.splitlines()]


def test_gradients_are_no_output_of_a_module_in_the_summary() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    optimizer = mt.optim.SGD(model.parameters(), lr=0.1)

    def step(x: mt.Tensor) -> mt.Tensor:
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    lines = trace(step, mt.ones(5, 4)).summary().splitlines()
    shapes = {line.split("  ")[0]: line.split("  ")[1:] for line in lines}
    assert next(text.strip() for text in shapes["model: Sequential"] if text) == "(5, 1)"


def test_summary_leaves_out_columns_without_numbers() -> None:
    text = trace(lambda x: x.exp().sum(), mt.zeros(2, 3)).summary()
    assert "FLOPs" not in text
    assert "saved" not in text
    assert "exp" in text
    assert "24 B" in text


def test_units() -> None:
    def product(x: Any, y: Any) -> Any:
        return x @ y

    lines = trace(product, mt.zeros(64, 100), mt.zeros(100, 128)).summary().splitlines()
    line = next(line for line in lines if line.startswith("total"))
    assert line.split() == ["total", "1.64", "M", "32.8", "kB"]


def test_a_graph_prints_in_ten_lines() -> None:
    model, src, tgt = transformer()
    graph = trace(model, src, tgt, dims=DIMS, backward=True)
    lines = str(graph).splitlines()
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 100
    assert repr(graph) == str(graph)
    assert lines[0] == "Graph of Transformer"
    ops = [node for node in graph.nodes.values() if node.direction == "forward"]
    for said in (
        "src (N, S) int64, tgt (N, L) int64",
        "(N, L, V) float32",
        f"{len(ops)} forward",
        f"{fold(graph).boxes[''].parameter_count / 1000:.3g} k",
        f"{flops(graph)[0] / 1e6:.3g} MFLOP forward",
        ".summary()",
    ):
        assert said in str(graph)
    assert len(str(trace(lambda x: x.exp(), mt.zeros(2, 3))).splitlines()) < 8


# The work of a page


@pytest.mark.parametrize("nested", [True, False])
def test_a_page_of_twice_the_ops_is_twice_the_work(nested: bool) -> None:
    def write(ops: int) -> None:
        page_model(graphs[ops], trees[ops], View())

    graphs = {ops: irregular(ops, nested=nested) for ops in (250, 500)}
    trees = {ops: fold(graph) for ops, graph in graphs.items()}
    assert growth(write, 250, 500) < 2.6


def test_the_boxes_around_all_boxes_are_found_in_one_walk() -> None:
    def deep(boxes: int) -> Tree:
        keys = [str(at) for at in range(boxes)]
        parents = [None, *keys]
        found = {k: Box(k, "module", k, p) for k, p in zip(keys, parents, strict=False)}
        return Tree("0", found, [])

    def walk(tree: Tree) -> None:
        for key in reversed(tree.boxes):
            tree.ancestors(key)

    assert deep(4).ancestors("3") == ("2", "1", "0")
    assert deep(4).ancestors("0") == ()
    assert growth(walk, deep(200), deep(400)) < 2.6


def test_a_page_lifts_its_links_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lifted = []
    once = lift.Lifting._lift

    def counted(self: lift.Lifting, link: Any) -> Any:
        lifted.append(id(link))
        return once(self, link)

    monkeypatch.setattr(lift.Lifting, "_lift", counted)
    graph = irregular(60)
    tree = fold(graph)
    page_model(graph, tree, View())
    assert len(lifted) == len(set(lifted)) == len(tree.links) > 60
