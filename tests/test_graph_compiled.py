"""The graph of a compiled program, its difference to the program, and the memory of both."""

from __future__ import annotations

import inspect
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import minitensor as mt
from minitensor import nn
from minitensor.graph import Graph, trace
from minitensor.graph.view import View
from minitensor.models.gpt import example
from minitensor.nn import functional as F
from minitensor.replay import calls_of
from minitensor.replay.addresses import NotReplayable
from minitensor.tools.graph import main
from tools.usage import Usage, chart, usage

pytestmark = pytest.mark.compiled

DIMS: dict[str, int | str] = {"x": "N L E", "F": 24}


class Block(nn.Module):
    def __init__(self, width: int, hidden: int, p: float = 0.1) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.drop, self.norm = nn.Dropout(p), nn.LayerNorm(width)

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        hidden = F.relu(self.up(x))
        added = x + self.drop(self.down(hidden))
        return self.norm(added)


class Net(nn.Module):
    def __init__(self, width: int = 8, hidden: int = 24, p: float = 0.1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, hidden, p) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.out(x)


def line_of(text: str) -> str:
    lines, first = inspect.getsourcelines(Block.forward)
    return f"test_graph_compiled.py:{first + next(n for n, t in enumerate(lines) if text in t)}"


@pytest.fixture(scope="module")
def graphs() -> tuple[Graph, Graph]:
    """The graphs of a program and of the same compiled."""
    net, x = Net(), mt.randn(3, 5, 8)
    plain = trace(net, x, dims=DIMS, backward=True, decompose=True)
    return plain, trace(mt.compile(net), x, dims=DIMS, backward=True, decompose=True)


def outermost(graph: Graph, direction: str = "forward") -> list[str]:
    nodes = graph.nodes.values()
    return [n.op for n in nodes if n.direction == direction and n.inside is None]


def test_the_ops_that_run_are_drawn_in_their_modules(graphs: tuple[Graph, Graph]) -> None:
    _, graph = graphs
    one = ["linear_activation", "linear", "dropout_add_layer_norm"]
    assert outermost(graph) == [*one * 3, "linear"]
    assert sorted(outermost(graph, "backward")) == sorted(outermost(graph))
    assert graph.name == "Net compiled"
    groups = [node.group for node in graph.nodes.values() if node.direction == "forward"]
    assert {"blocks.0", "blocks.2", "blocks.1.down", "out"} <= set(groups)
    kinds = {group.path: group.kind for group in graph.groups.values()}
    assert (kinds[""], kinds["blocks.1"]) == ("Net", "Block")
    assert "Block x3" in graph.summary()  # equal ones still fold


def test_fused_ops_open_to_what_they_stand_for(graphs: tuple[Graph, Graph]) -> None:
    _, graph = graphs
    norm = graph.nodes["blocks.0/dropout_add_layer_norm"]
    inside = [n.op for n in graph.nodes.values() if n.inside == norm.id]
    assert {"dropout", "add"} <= set(inside)


def test_rules_lines_names_and_sizes_are_those_of_the_program(graphs: tuple[Graph, Graph]) -> None:
    plain, graph = graphs
    forward = [n for n in graph.nodes.values() if n.direction == "forward" and n.inside is None]
    by_op = {n.op: n for n in forward if n.group.startswith("blocks.0")}
    assert by_op["linear_activation"].rule == "linear + relu"
    assert by_op["linear_activation"].source.endswith(line_of("relu"))
    assert by_op["linear_activation"].code == "hidden = F.relu(self.up(x))"
    assert by_op["linear"].rule == ""
    made = {n.op: graph.values[n.outputs[0]] for n in forward}
    assert made["linear_activation"].label == "(N, L, F)"
    assert made["linear_activation"].name == "hidden"
    assert made["dropout_add_layer_norm"].label == "(N, L, E)"
    weights = {v.id: v.label for v in plain.values.values() if v.kind == "parameter"}
    assert weights == {v.id: v.label for v in graph.values.values() if v.kind == "parameter"}


def test_the_numbers_are_those_of_the_program() -> None:
    net, x = Net(), mt.randn(3, 5, 8)
    mt.manual_seed(1)
    plain = trace(net, x, values=True)
    after = mt.get_rng_state()
    mt.manual_seed(1)
    graph = trace(mt.compile(net), x, values=True)
    assert np.array_equal(mt.get_rng_state(), after)
    (one,), (other,) = ([g.values[key].data for key in g.outputs] for g in (plain, graph))
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one.array, other.array, rtol=1e-5, atol=1e-6)


def test_the_results_keep_their_form_and_constants_their_origin() -> None:
    def function(x: mt.Tensor) -> dict[str, mt.Tensor]:
        steps = mt.arange(4, dtype=mt.float32)
        return {"shifted": x + steps, "scaled": x * 2}

    graph = trace(mt.compile(function), mt.randn(4))
    assert [graph.values[key].name for key in graph.outputs] == ["shifted", "scaled"]
    (constant,) = [v for v in graph.values.values() if v.kind == "constant"]
    assert (constant.name, constant.origin[:9]) == ("steps", "arange(4,")


def test_what_is_not_replayed_is_drawn_as_it_is_with_the_reason() -> None:
    def function(x: mt.Tensor) -> mt.Tensor:
        return x * x.sum().item()

    graph = trace(mt.compile(function), mt.randn(3))
    assert outermost(graph)[:1] == ["sum"]
    assert graph.name == "function"
    (note,) = [note for note in graph.notes if note.startswith("compile: ")]
    assert "item() reads a tensor's numbers" in note


def test_a_program_that_settles_after_two_calls_is_drawn_and_measured() -> None:
    def program(x: mt.Tensor) -> mt.Tensor:
        if len(made) < 2:
            made.append(x)
        return x.exp() * len(made)

    made: list[mt.Tensor] = []
    graph = trace(mt.compile(program), mt.randn(4))
    assert not graph.notes
    made.clear()
    assert usage(mt.compile(program), mt.randn(4)).forward


def test_the_difference_is_what_rules_rewrote(graphs: tuple[Graph, Graph]) -> None:
    plain, graph = graphs
    found = plain.diff(graph)
    assert [graph.nodes[key].op for key in found.added].count("linear_activation") == 3
    assert {plain.nodes[key].op for key in found.removed} == {
        "linear", "relu", "dropout", "add", "layer_norm"
    }  # fmt: skip
    assert len(found.same) == 4  # down of each block, and out
    assert (found.moved, found.changed) == ([], [])
    for one, other in found.same:
        assert plain.nodes[one].group == graph.nodes[other].group
    assert set(found.after.values()) == {"same", "rewritten"}
    assert set(found.before.values()) == {"same", "replaced"}
    told = str(found)
    assert "linear_activation x3  linear + relu" in told
    assert "rewritten" in found.render("svg", View("op")).decode()
    assert "linear + relu" in found.page(View("op"))


def test_a_page_tells_the_rule(graphs: tuple[Graph, Graph], tmp_path: Path) -> None:
    _, graph = graphs
    graph.save(tmp_path / "graph.html")
    assert "made by the rule" in (tmp_path / "graph.html").read_text()


# Memory


def test_memory_counts_what_is_in_use_and_no_inputs() -> None:
    def function(x: mt.Tensor) -> mt.Tensor:
        y = x.exp()  # keeps its result for the backward pass
        z = (y * 2.0).sum()  # 2 y is freed after its sum is there
        return z + 1.0

    size, one = 4 * 1000, 4
    x = mt.randn(1000, requires_grad=True)
    state = mt.get_rng_state()
    found = usage(function, x)
    assert found.forward == [size, 2 * size, 2 * size + one, size + 2 * one]
    assert found.peak == max(found.backward) >= 2 * size
    assert len(found.backward) == 4
    assert x.grad is None
    assert np.array_equal(mt.get_rng_state(), state)


def test_memory_of_a_compiled_program_is_that_of_its_plan() -> None:
    model, inputs, _ = example()
    compiled = mt.compile(model)
    found = usage(compiled, **inputs)
    (entry,) = calls_of(compiled).entries
    ran = [call for call in entry.graph.calls if call.op is not None]
    assert len(found.forward) == len(ran)
    assert len(found.forward) < len(usage(model, **inputs).forward)
    assert 0 < found.peak <= 2 * entry.plans[0].arena.size
    assert all(p.grad is None for p in model.parameters())


def test_attention_that_is_fused_keeps_no_weights() -> None:
    def attention(q: mt.Tensor, k: mt.Tensor, v: mt.Tensor) -> mt.Tensor:
        return F.softmax(q @ k.transpose(2, 3) / 4.0, -1) @ v

    inputs = [mt.randn(2, 2, 128, 16, requires_grad=True) for _ in range(3)]
    weights = 2 * 2 * 128 * 128 * 4
    assert usage(attention, *inputs).peak > weights
    assert usage(mt.compile(attention), *inputs).peak < weights


def test_memory_of_what_is_not_replayed_has_a_reason() -> None:
    with (
        pytest.warns(UserWarning, match="runs as it is"),
        pytest.raises(NotReplayable, match="item"),
    ):
        usage(mt.compile(lambda x: x * x.sum().item()), mt.randn(3))


def test_the_chart_marks_the_peaks() -> None:
    shown = chart("a < b", {"one": Usage([100, 400], [200]), "two": Usage([100], [800, 0])})
    root = ET.fromstring(shown)
    peaks = [e for e in root.iter() if e.get("class") == "peak"]
    texts = ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("text")]
    assert "a < b" in texts
    assert "one: peak 400 B" in texts
    assert "two: peak 800 B" in texts
    (low, high) = (float(e.get("cy", "")) for e in peaks)
    assert low > high  # 400 bytes lie below 800
    middle = float(peaks[0].get("cx", "")), float(peaks[1].get("cx", ""))
    assert middle[0] < middle[1]  # forward lies at the left of backward
    assert "forward: 2 \N{RIGHTWARDS ARROW} 1 ops" in texts


# The command line


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["attention", "--compiled"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("compile: recorded 19 ops\n")
    assert "compile: replayed, forward: " in told
    assert told.splitlines()[-1] == "wrote graph.svg, graph.html, graph-memory.svg"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "graph-memory.svg", "graph.html", "graph.svg",
    ]  # fmt: skip
    assert "MultiheadAttention compiled" in (tmp_path / "graph.html").read_text()


def test_the_sizes_of_the_transformer_are_found_by_running_at_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["transformer", "--compiled"]) == 0
    page = (tmp_path / "graph.html").read_text()
    assert "(N, L, 3*E)" in page
    assert "does not run at other sizes" not in page
    assert re.search(r"\d+ ops the same, 0 moved, 0 changed, \d+ rewritten", page)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["recurrent", "--compiled"], "recurrent is not replayed: "),
        (["attention", "--compiled", "--diff", "gpt"], "no --diff"),
        (["missing.json", "--compiled"], "a target that runs"),
    ],
)
def test_what_cannot_be_drawn_compiled_is_told(
    given: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(given) == 2
    told, complaint = capsys.readouterr()
    assert not told
    assert words in complaint
    assert not list(tmp_path.iterdir())
