"""The difference of two graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from work import growth

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import nn
from minitensor.graph import Graph, Group, Node, Value, trace
from minitensor.graph.diff import Difference
from minitensor.graph.diff import difference as diff
from models.transformer import Transformer, TransformerConfig

pytestmark = pytest.mark.pages

DIMS = {"N": 3, "S": 7, "L": 5, "E": 16, "H": 2, "F": 32, "V": 23}


def transformer(
    norm_first: bool = False,
    decompose: bool = True,
    dims: dict[str, int] | None = None,
    **settings: Any,
) -> Graph:
    mt.manual_seed(0)
    given = {"num_encoder_layers": 6, "num_decoder_layers": 6, **settings}
    config = TransformerConfig(19, 23, 16, 2, dim_feedforward=32, norm_first=norm_first, **given)
    src, tgt = mt.zeros(3, 7, dtype=mt.int64), mt.zeros(3, 5, dtype=mt.int64)
    return trace(Transformer(config), src, tgt, dims=dims, decompose=decompose)


def counts(found: Difference) -> tuple[int, int, int, int]:
    """Return the numbers of ops that moved, changed, came and went."""
    return len(found.moved), len(found.changed), len(found.added), len(found.removed)


def chain(ops: list[str]) -> Graph:
    """A graph of ops one after the other."""
    graph = Graph("chain", inputs=["input:x"])
    graph.groups[""] = Group("", "", "chain", None)
    graph.values["input:x"] = Value("input:x", "input", (2,), "float32", 8, ("2",))
    before = "input:x"
    for number, op in enumerate(ops):
        node, made = f"{op}.{number}", f"{op}.{number}:0"
        graph.nodes[node] = Node(node, op, "", [before], [made])
        graph.values[made] = Value(made, "activation", (2,), "float32", 8, ("2",), producer=node)
        before = made
    graph.outputs = [before]
    return graph


@pytest.fixture(scope="module")
def norms() -> tuple[Graph, Graph]:
    return transformer(dims=DIMS), transformer(norm_first=True, dims=DIMS)


def test_pre_and_post_norm_differ_in_the_norms_alone(norms: tuple[Graph, Graph]) -> None:
    wanted = {f"encoder.layers.{i}.norm{j}" for i in range(6) for j in (1, 2)}
    wanted |= {f"decoder.layers.{i}.norm{j}" for i in range(6) for j in (1, 2, 3)}
    for a, b in (norms, norms[::-1]):
        found = diff(a, b)
        assert counts(found) == (30, 0, 0, 0)
        for side, graph in enumerate((a, b)):
            moved = [graph.nodes[pair[side]] for pair in found.moved]
            assert {node.group for node in moved} == wanted
            assert {node.op for node in moved} == {"layer_norm"}
        for graph, statuses in ((a, found.before), (b, found.after)):
            forward = {n.id for n in graph.nodes.values() if n.direction == "forward"}
            assert set(statuses) == forward
            marked = {key for key, status in statuses.items() if status != "same"}
            assert {statuses[key] for key in marked} == {"moved"}
            assert {graph.nodes[key].group for key in marked} == wanted


def test_the_report_says_once_what_all_layers_have(norms: tuple[Graph, Graph]) -> None:
    found = norms[0].diff(norms[1])
    assert repr(found) == str(found)
    lines = str(found).splitlines()
    assert lines[0].startswith("Transformer -> Transformer: ")
    assert lines[0].endswith("ops the same, 30 moved, 0 changed, 0 added, 0 removed")
    assert lines[1] == "moved"
    assert "  decoder.layers.*.norm3: layer_norm x6  (N, L, E)" in lines
    assert len(lines) == 7


def test_a_graph_is_the_same_as_itself(norms: tuple[Graph, Graph]) -> None:
    found = diff(norms[0], transformer(dims=DIMS))
    assert found.same
    assert all(a == b for a, b in found.same)
    assert counts(found) == (0, 0, 0, 0)
    assert set(found.after.values()) == {"same"}


class Fused(nn.Module):
    """The ends of post-norm sub-layers, each by one op; or of pre-norm ones, by two."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(6))
        self.norm_first = norm_first

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        for norm in self.norms:
            if self.norm_first:
                x = F.dropout_add(norm(x), x, 0.1)
            else:
                x = F.dropout_add_layer_norm(
                    x.tanh(), x, (4,), cast(Any, norm).weight, cast(Any, norm).bias, 0.1
                )
        return x


def test_without_references_fused_ops_come_and_go() -> None:
    post, pre = (trace(Fused(first), mt.rand(2, 4)) for first in (False, True))
    found = diff(post, pre)
    assert {found.a.nodes[a].op for a in found.removed} == {"tanh", "dropout_add_layer_norm"}
    assert {found.b.nodes[b].op for b in found.added} == {"layer_norm", "dropout_add"}
    assert {"added"} == set(found.after.values())
    assert {"removed"} == set(found.before.values())


class Up(nn.Linear):
    """A linear map and an activation, by one op."""

    def __init__(self, kind: str) -> None:
        super().__init__(4, 4)
        self.kind = kind

    def forward(self, input: mt.Tensor) -> mt.Tensor:
        return F.linear_activation(input, self.weight, self.bias, self.kind)


def test_another_attribute_is_a_change() -> None:
    graphs = (
        trace(nn.Sequential(*(Up(kind) for _ in range(6))), mt.rand(2, 4), decompose=True)
        for kind in ("relu", "gelu")
    )
    found = diff(*graphs)
    assert {found.b.nodes[b].op for _, b in found.changed} == {"linear_activation"}
    assert counts(found) == (0, 6, 0, 0)
    assert "*: linear_activation x6  kind relu -> gelu" in str(found)
    inside = [n.id for n in found.b.nodes.values() if n.inside == found.changed[0][1]]
    assert inside
    assert {found.after[key] for key in inside} == {"changed"}


def test_one_more_layer_is_added() -> None:
    found = diff(transformer(), transformer(num_encoder_layers=7))
    assert counts(found) == (0, 0, len(found.added), 0)
    assert {found.b.nodes[b].group.split(".")[2] for b in found.added} == {"6"}


def test_other_sizes_are_told() -> None:
    x = mt.zeros(2, 3)
    a = trace(nn.Linear(3, 4), x, dims={"N": 2, "D": 4})
    b = trace(nn.Linear(3, 5), x, dims={"N": 2, "D": 5})
    found = diff(a, b)
    assert len(found.same) == 1
    assert "sizes: D 4 -> 5" in str(found)
    found = diff(trace(nn.Linear(3, 4), x), trace(nn.Linear(3, 5), x))
    assert "linear" in str(found)
    assert "output (2, 4) -> (2, 5)" in str(found)


@pytest.mark.parametrize(
    ("a", "b", "moved", "added", "removed"),
    [
        ("abc", "abc", "", "", ""),
        ("abc", "axbc", "", "x", ""),
        ("axbc", "abc", "", "", "x"),
        ("abcdef", "bcdefa", "a", "", ""),
        ("abab", "aabab", "", "a", ""),
        ("and.a", "aand.a", "", "a", ""),
        ("abcd", "dxbca", "ad", "x", ""),
        ("", "ab", "", "ab", ""),
        ("ab", "", "", "", "ab"),
        ("abc", "xyz", "", "xyz", "abc"),
    ],
)
def test_chains(a: str, b: str, moved: str, added: str, removed: str) -> None:
    found = diff(chain(list(a)), chain(list(b)))
    assert sorted(found.b.nodes[key].op for _, key in found.moved) == sorted(moved)
    assert [found.b.nodes[key].op for key in found.added] == list(added)
    assert [found.a.nodes[key].op for key in found.removed] == list(removed)
    assert len(found.same) == len(a) - len(moved) - len(removed)


def test_the_work_of_a_difference_is_linear() -> None:
    """Twice as long chains are twice the work, not four times as much."""

    def pair(count: int, kind: str) -> tuple[Graph, Graph]:
        ops = ["mul", "add", "relu", "mul"] * count
        if kind == "edited":
            return chain(ops), chain(["sub", *ops[: 3 * count], "exp", *ops[3 * count + 40 :]])
        if kind == "reversed":
            return chain(ops), chain(ops[::-1])
        same = ["add"] * (4 * count)
        return chain(same), chain([*same[: 2 * count], "mul", *same[2 * count :]])

    for kind in ("edited", "reversed", "alike"):
        assert growth(lambda pair: diff(*pair), pair(100, kind), pair(200, kind)) < 2.6, kind


def test_long_chains() -> None:
    ops = ["mul", "add", "relu", "mul"] * 2500
    other = ["sub", *ops[:4000], "exp", *ops[4000:6000], *ops[6100:], "sub"]
    same = ["add"] * 10000
    for a, b in ((ops, other), (ops, ops[::-1]), (same, [*same[:5000], "mul", *same[5000:]])):
        graphs = chain(a), chain(b)
        found = diff(*graphs)
        pairs = found.same + found.moved + found.changed
        assert len(pairs) + len(found.added) == len(b)
        assert len(pairs) + len(found.removed) == len(a)
    assert len(diff(chain(ops), chain(other)).added) == 3


def test_a_difference_is_drawn(norms: tuple[Graph, Graph], tmp_path: Path) -> None:
    difference = norms[0].diff(norms[1])
    difference.save(tmp_path / "diff.svg", "block")
    picture = (tmp_path / "diff.svg").read_text()
    assert picture.count(">moved<") == 5  # the norms of one encoder and one decoder layer
    assert "30 moved, 0 changed, 0 added, 0 removed" in picture
    difference.save(tmp_path / "diff.txt")
    assert (tmp_path / "diff.txt").read_text() == f"{difference}\n"
    with pytest.raises(ValueError, match=r"can be written as html, txt, svg, .* not json"):
        difference.save(tmp_path / "diff.json")
