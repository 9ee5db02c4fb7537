"""The recording: ops, modules, lines, names, both passes, what is saved; and nothing changes."""

from __future__ import annotations

import cProfile
import gc
import json
import sys
import weakref
from typing import Any

import numpy as np
import pytest

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import graph, nn
from minitensor.autograd import Function, checkpoint
from minitensor.core import state
from minitensor.graph import Graph, write
from minitensor.graph.view import View
from models.transformer import Transformer, TransformerConfig

SIZES = dict(d_model=16, nhead=4, num_encoder_layers=2, num_decoder_layers=2, dim_feedforward=24)


def small(**changes: Any) -> tuple[Transformer, mt.Tensor, mt.Tensor, mt.Tensor]:
    mt.manual_seed(0)
    config: dict[str, Any] = {**SIZES, **changes}
    model = Transformer(TransformerConfig(13, 11, **config))
    src, tgt = mt.randint(3, 11, (2, 7)), mt.randint(3, 11, (2, 5))
    return model, src, tgt, model.generate_square_subsequent_mask(5)


@pytest.fixture(scope="module")
def both_passes() -> Graph:
    """The small model, forward and backward."""
    model, src, tgt, mask = small()
    g = graph.trace(model, src, tgt, tgt_mask=mask, backward=True)
    assert all(p.grad is None for p in model.parameters())
    return g


def test_ops_in_their_order_with_shapes_modules_and_lines() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    g = graph.trace(model, mt.rand(2, 3))
    assert [n.op for n in g.nodes.values()] == ["linear", "tanh"]
    first = g.nodes["0/linear"]
    assert first.group == "0"
    assert g.groups["0"].kind == "Linear"
    assert g.groups["0"].parent == ""
    assert first.inputs == ["input:input", "parameter:0.weight", "parameter:0.bias"]
    assert first.input_names == ["x", "w", "b"]
    assert g.values["0/linear:0"].shape == (2, 4)
    assert g.values["0/linear:0"].nbytes == 32
    assert g.values["0/linear:0"].dtype == "float32"
    assert g.inputs == ["input:input"]
    assert g.outputs == ["1/tanh:0"]
    assert "settings" in vars(g.groups["0"])
    assert "in_features=3" in g.groups["0"].settings


def test_a_function_with_attributes_names_and_its_line() -> None:
    def scores(q: mt.Tensor, k: mt.Tensor) -> mt.Tensor:
        product = q @ k.transpose(-2, -1)
        weights_NLS = product.softmax(-1)
        return weights_NLS[:, :2]

    g = graph.trace(scores, mt.rand(2, 3, 4), mt.rand(2, 3, 4))
    assert [n.op for n in g.nodes.values()] == ["transpose", "matmul", "softmax", "getitem"]
    assert g.values["softmax:0"].names == ["weights"]
    assert g.values["matmul:0"].name == "product"
    node = g.nodes["softmax"]
    assert node.code == "weights_NLS = product.softmax(-1)"
    file, _, line = node.source.rpartition(":")
    assert file.endswith("tests/test_graph_trace.py")
    assert int(line) == scores.__code__.co_firstlineno + 2
    assert node.attributes == {"dim": 2}
    assert g.nodes["getitem"].attributes == {"key": [":", ":2"]}
    assert g.values["transpose:0"].views == "input:k"


def test_modules_by_path_and_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            return self.inner(self.inner(x))

    g = graph.trace(Twice(), mt.rand(2, 3))
    assert [n.group for n in g.nodes.values()] == ["inner", "inner#2"]
    assert g.groups["inner#2"].path == "inner"
    assert g.groups["inner"].parameters == g.groups["inner#2"].parameters

    model, other = nn.Linear(3, 3), nn.Linear(3, 3)
    g = graph.trace(lambda x: other(model(x)), mt.rand(2, 3))
    assert [n.group for n in g.nodes.values()] == ["model", "other"]
    assert "parameter:other.weight" in g.values


def test_library_modules_tell_the_users_line_and_their_own() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    g = graph.trace(lambda x: layer(x), mt.rand(2, 3, 8))
    node = next(n for n in g.nodes.values() if n.op == "packed_attention")
    assert node.source.rpartition(":")[0].endswith("tests/test_graph_trace.py")
    assert node.origin.startswith("minitensor/nn/multi_head.py:")


def test_the_backward_pass_mirrors_the_forward_pass(both_passes: Graph) -> None:
    g = both_passes
    forward = [n for n in g.nodes.values() if n.direction == "forward"]
    backward = [n for n in g.nodes.values() if n.direction == "backward" and n.inside is None]
    constant = ("triu", "eq", "detach", "amax")  # and places of tables that learn nothing
    assert {n.of for n in backward} == {
        n.id for n in forward if n.op not in constant and not n.group.endswith("_positions")
    }
    for node in backward:
        ran = g.nodes[node.of or ""]
        assert node.group == ran.group
        gradients = [g.values[v] for v in node.inputs if g.values[v].kind == "gradient"]
        assert {v.of for v in gradients} <= set(ran.outputs)
        for key in node.outputs:
            value = g.values[key]
            assert value.of in ran.inputs
            assert value.shape == g.values[value.of or ""].shape
        assert [v for v in node.inputs if g.values[v].kind != "gradient"] == ran.saved
    # The decoder layers and their norms read the memory: as many gradients reach it.
    memory = g.nodes["encoder.norm/layer_norm"].outputs[0]
    reached = g.nodes["encoder.norm/layer_norm:backward"].inputs
    assert sum(g.values[v].of == memory for v in reached) == 2


def test_rules_of_primitives_are_ops_inside_the_backward_node() -> None:
    x = mt.rand(2, 3, requires_grad=True)
    g = graph.trace(lambda x: x * x.exp() + mt.rand(3), x, backward=True)
    inner = [n for n in g.nodes.values() if n.inside == "exp:backward"]
    assert [n.op for n in inner] == ["mul"]
    assert inner[0].direction == "backward"
    fitted = g.nodes["add:backward"]
    assert [g.values[v].shape for v in fitted.outputs] == [(2, 3)]
    assert sorted(g.values[v].of for v in g.nodes["exp:backward"].outputs) == ["input:x"]  # type: ignore[type-var]


def test_a_step_that_goes_backward_itself_is_recorded_and_gives_the_same_numbers() -> None:
    def step(model: Transformer, src: mt.Tensor, tgt: mt.Tensor, mask: mt.Tensor) -> mt.Tensor:
        logits = model(src, tgt, tgt_mask=mask)
        loss = F.cross_entropy(logits.flatten(0, 1), tgt.flatten())
        loss.backward()
        return loss

    def run(traced: bool) -> tuple[mt.Tensor, list[mt.Tensor | None], mt.Tensor]:
        model, *rest = small()
        mt.manual_seed(7)
        if traced:
            found = []
            g = graph.trace(
                lambda *inputs: found.append(step(model, *inputs)) or found[0],  # type: ignore[func-returns-value]
                *rest,
                decompose=True,
                stats=True,
            )
            assert any(n.direction == "backward" for n in g.nodes.values())
            loss = found[0]
        else:
            loss = step(model, *rest)
        return loss, [p.grad for p in model.parameters()], mt.rand(3)

    plain, traced = run(False), run(True)
    assert plain[0].item() == traced[0].item()
    assert mt.equal(plain[2], traced[2])
    for a, b in zip(plain[1], traced[1], strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_backward_of_a_step_that_goes_backward_itself_is_that_pass() -> None:
    model = nn.Linear(3, 1)

    def step(x: mt.Tensor) -> mt.Tensor:
        loss = (model(x) ** 2).mean()
        loss.backward()
        return loss

    g = graph.trace(step, mt.rand(2, 3), backward=True)
    assert [n.of for n in g.nodes.values() if n.of] == ["mean", "pow", "model/linear"]


def test_dims_run_again_without_touching_anything() -> None:
    model, src, tgt, mask = small()
    before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    mt.manual_seed(3)
    graph.trace(model.eval(), src, tgt, tgt_mask=mask, dims={"N": 2, "S": 7}, backward=True)
    after = mt.rand(2)
    mt.manual_seed(3)
    assert mt.equal(after, mt.rand(2))
    for k, v in model.state_dict().items():
        np.testing.assert_array_equal(before[k], v.numpy())


def test_two_traces_are_the_same_bytes_and_json_returns_the_graph() -> None:
    def one() -> Graph:
        model, src, tgt, mask = small()
        return graph.trace(
            model, src, tgt, tgt_mask=mask, dims={"N": 2, "S": 7}, backward=True, decompose=True
        )

    first = one()
    text = first.to_json()
    assert text == one().to_json()
    assert json.loads(text)["version"] == 2
    assert Graph.from_json(text) == first
    with pytest.raises(ValueError, match="version"):
        Graph.from_json('{"version": 99}')
    with pytest.raises(ValueError, match="not the JSON"):
        Graph.from_json("no")


def test_nothing_watches_before_and_after() -> None:
    seen = sys.getprofile()
    model, src, tgt, mask = small()
    result = []
    graph.trace(lambda: result.append(model(src, tgt, tgt_mask=mask)) or result[0])  # type: ignore[func-returns-value]
    assert not state.observers
    assert sys.getprofile() is seen
    with pytest.raises(ZeroDivisionError):
        graph.trace(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="matmul"):
        graph.trace(lambda x: x @ x, mt.rand(2, 3))
    assert not state.observers
    assert sys.getprofile() is seen


def test_a_trace_leaves_no_cycles() -> None:
    x = mt.rand(300, 300)  # large enough for the pool
    gc.collect()
    gc.disable()
    try:
        kept = []

        def run(x: mt.Tensor) -> mt.Tensor:
            y = x @ x
            kept.append(weakref.ref(y))
            return y.sum()

        graph.trace(run, x)
        assert kept[0]() is None
    finally:
        gc.enable()


def test_fused_ops_open_into_their_reference() -> None:
    mt.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    g = graph.trace(layer, mt.rand(2, 7, 16), decompose=True)
    inside = [n for n in g.nodes.values() if n.inside == "self_attn/packed_attention"]
    ops = [n.op for n in inside]
    assert ops.count("matmul") == 2
    assert "softmax" in ops
    softmax = next(n for n in inside if n.op == "softmax")
    assert g.values[softmax.outputs[0]].shape == (2, 4, 7, 7)
    last = g.values[inside[-1].outputs[0]]
    assert last.of == "self_attn/packed_attention:0"
    assert last.shape == (2, 7, 16)


def test_what_is_saved_is_what_the_tape_keeps() -> None:
    x = mt.rand(4, 3, requires_grad=True)
    w = mt.rand(5, 3, requires_grad=True)
    g = graph.trace(lambda x, w: F.linear(x, w).softmax(-1), x, w)
    assert g.nodes["linear"].saved == ["input:x", "input:w"]
    assert g.nodes["softmax"].saved == ["softmax:0"]
    assert g.values["softmax:0"].saved_by == ["softmax"]
    with mt.no_grad():
        assert not any(n.saved for n in graph.trace(F.linear, x, w).nodes.values())


def test_changes_in_place_are_values_of_their_own() -> None:
    def change(x: mt.Tensor) -> mt.Tensor:
        y = x.clone()
        y.add_(1)
        y[0] = 5.0
        return y * 2

    g = graph.trace(change, mt.rand(3, 2, requires_grad=True), backward=True)
    order = [n.op for n in g.nodes.values() if n.direction == "forward"]
    assert order[:2] == ["clone", "add"]
    assert order[-1] == "mul"
    assert "view_scatter" in order
    by_op = {n.op: n for n in g.nodes.values() if n.direction == "forward"}
    assert by_op["add"].inputs == ["clone:0"]
    assert by_op["view_scatter"].inputs[0] == "add:0"
    assert by_op["mul"].inputs == ["view_scatter:0"]
    assert g.nodes["view_scatter:backward"].of == "view_scatter"


def base_changed(x: Any) -> Any:
    y = x * 2
    row = y[0]
    y.add_(1)
    return row + 1


def detached_view_changed(x: Any) -> Any:
    y = x * 2
    y.view(-1).detach().add_(1)
    return y * 3


def base_of_detached_changed(x: Any) -> Any:
    y = x * 2
    row = y[0].detach()
    y.add_(1)
    return row + 1


def another_view_changed(x: Any) -> Any:
    y = x * 2
    row, flat = y[0], y.view(-1)
    row.add_(1)
    return flat + 1


def rows_changed(x: Any) -> Any:
    y = x * 2
    row = y[0]
    y[1] = 3.0
    y[0] = 2.0
    return row * 1


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("program", "way"),
    [
        (base_changed, ["mul", "add", "getitem.1", "add.1"]),
        (detached_view_changed, ["mul", "view_scatter", "mul.1"]),
        (base_of_detached_changed, ["mul", "add", "getitem.1", "detach", "add.1"]),
        (another_view_changed, ["mul", "view_scatter", "view.1", "add.1"]),
        (rows_changed, ["mul", "view_scatter", "view_scatter.1", "getitem.3", "mul.1"]),
    ],
)
def test_a_view_is_made_again_of_what_was_changed_in_place(
    program: Any, way: list[str], grad: bool
) -> None:
    g = graph.trace(program, mt.randn(2, 3, requires_grad=grad))
    found = [g.values[g.outputs[0]].producer]
    while (key := g.nodes[found[0] or ""].inputs[0]) != "input:x":
        found.insert(0, g.values[key].producer)
    assert found == way


@pytest.mark.parametrize("grad", [False, True])
def test_a_view_beside_what_was_changed_stays(grad: bool) -> None:
    def program(x: Any) -> Any:
        y = x * 2
        first, second = y[0], y[1]
        first.add_(1)
        return second * y.sum() + first

    g = graph.trace(program, mt.randn(2, 3, requires_grad=grad))
    read = {v for node in g.nodes.values() for v in node.inputs} | set(g.outputs)
    unread = {node.id for node in g.nodes.values() if not read & set(node.outputs)}
    # With gradients, their history is made again of the whole.
    assert unread == ({"getitem.1"} if grad else set())


def test_functions_of_the_user_and_checkpoints() -> None:
    class Double(Function):
        @staticmethod
        def forward(ctx: Any, x: mt.Tensor) -> mt.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, dy: mt.Tensor) -> mt.Tensor:
            return dy * 2

    x = mt.rand(3, requires_grad=True)
    g = graph.trace(lambda x: Double.apply(x).exp(), x, backward=True)
    assert g.nodes["mul"].inside == "Double"
    assert g.nodes["exp"].inputs == ["Double:0"]
    assert "Double:backward" in g.nodes

    g = graph.trace(lambda x: checkpoint(lambda x: x.exp().sin(), x), x, backward=True)
    assert not g.nodes["exp"].saved
    assert any(n.inside == "sin:backward" and n.op == "exp" for n in g.nodes.values())


def test_statistics_times_and_norms_on_request() -> None:
    x = mt.tensor([[3.0, 4.0], [float("nan"), float("inf")]], requires_grad=True)
    g = graph.trace(lambda x: (x[:1] * 2).sum(), x, backward=True, stats=True)
    assert g.values["input:x"].stats == dict(nan=0.25, inf=0.25, rms=12.5**0.5, min=3.0, max=4.0)
    assert g.values["input:x"].grad_norm == pytest.approx(8**0.5)
    assert g.values["mul:0"].grad_norm == pytest.approx(2**0.5)
    assert all(n.seconds is not None for n in g.nodes.values())
    plain = graph.trace(lambda x: x.sum(), x)
    assert all(n.seconds is None for n in plain.nodes.values())
    assert all(v.stats is None for v in plain.values.values())
    assert Graph.from_json(g.to_json()) == g


def test_of_shows_the_graph_that_hangs_on_a_tensor() -> None:
    model, src, tgt, mask = small(dropout=0.0)
    loss = F.cross_entropy(model(src, tgt, tgt_mask=mask).flatten(0, 1), tgt.flatten())
    g = graph.of(loss)
    ops = [n.op for n in g.nodes.values()]
    assert ops[-1] == "cross_entropy"
    assert "softmax" in ops
    assert g.values[g.outputs[0]].shape == ()
    assert all(v in g.values for n in g.nodes.values() for v in (*n.inputs, *n.outputs, *n.saved))
    assert sum(v.kind == "parameter" for v in g.values.values()) == len(list(model.parameters()))
    with pytest.raises(ValueError, match="no recorded op"):
        graph.of(mt.rand(3))


def test_of_names_the_inputs_of_ops_and_draws_them() -> None:
    q, k = mt.rand(2, 3, requires_grad=True), mt.rand(4, 3, requires_grad=True)
    g = graph.of(F.layer_norm(q @ k.T, (4,), mt.rand(4, requires_grad=True)).sum())
    assert g.nodes["layer_norm"].input_names == ["x", "weight"]
    for level in ("arch", "block", "op", "full"):
        source = write.render(g, "dot", View(level)).decode()
        assert '"></FONT>' not in source  # Graphviz takes no empty text


def test_finding_by_name_path_and_shape() -> None:
    model, src, tgt, mask = small()
    g = graph.trace(model.explain, src, tgt, tgt_mask=mask, dims={"nhead": 4})
    found = g.find("scores")
    assert found[0].name == "scores"
    assert found[0].dims[1] == "nhead"
    assert {n.op for n in g.find("op:softmax path:decoder")} == {"softmax"}
    assert all(n.group.startswith("decoder") for n in g.find("op:softmax path:decoder"))
    assert g.find("shape:nhead")
    assert all("nhead" in v.label for v in g.find("shape:nhead"))
    assert g.find("no_such_thing") == []
    for query in ("", "colour:red", "op:"):
        with pytest.raises(ValueError, match="find"):
            g.find(query)


@pytest.mark.parametrize("result", [None, 3, [], {"a": "b"}])
def test_a_function_that_returns_no_tensor_is_told_so(result: Any) -> None:
    with pytest.raises(ValueError, match="no tensor"):
        graph.trace(lambda x: result, mt.rand(2))


def test_backward_needs_something_to_differentiate() -> None:
    with pytest.raises(ValueError, match="requires grad"):
        graph.trace(lambda x: x * 2, mt.rand(2), backward=True)


def test_one_trace_at_a_time() -> None:
    with pytest.raises(RuntimeError, match="already"):
        graph.trace(lambda x: graph.trace(lambda y: y * 2, x), mt.rand(2))
    assert not state.observers


def test_it_can_be_profiled() -> None:
    with cProfile.Profile():
        g = graph.trace(nn.Linear(3, 4), mt.rand(2, 3))
    assert len(g.nodes) == 1
    assert not state.observers


def test_a_long_chain_is_recorded_without_recursion() -> None:
    def chain(x: mt.Tensor) -> mt.Tensor:
        for _ in range(1500):
            x = x * 2 + 1
        return x

    g = graph.trace(chain, mt.rand(2, requires_grad=True), backward=True)
    assert sum(n.direction == "forward" for n in g.nodes.values()) == 3000


def test_a_notebook_shows_it_without_graphviz(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    g = graph.trace(nn.Linear(3, 4), mt.rand(2, 3))
    shown = g._repr_mimebundle_()  # type: ignore[attr-defined]
    assert "linear" in shown["text/plain"].lower()
    assert shown["image/svg+xml"].count("<svg") == 1


def test_modules_know_what_their_call_was_given(both_passes: Graph) -> None:
    g = both_passes
    layer = g.groups["decoder.layers.0"]
    assert layer.input_names == ["tgt", "memory", "mask"]
    assert layer.inputs == ["dropout#2/dropout:0", "encoder.norm/layer_norm:0", "input:tgt_mask"]
    assert g.groups[""].inputs == g.inputs
