"""The words of a picture: headlines, settings, saved tensors, overlays, as a person reads them."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import numpy as np
import pytest
from foreign import bert, llama, nano_gpt, recurrent_loop, sampling, siamese, training_step

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import nn
from minitensor.core import OPS
from minitensor.graph import Graph, trace, write
from minitensor.graph.annotations import annotate
from minitensor.graph.fold import fold
from minitensor.graph.headlines import LONGEST, Headlines, statement
from minitensor.graph.model import Node
from minitensor.graph.page import Page
from minitensor.graph.picture import picture
from minitensor.graph.view import View, view
from minitensor.testing.samples import samples


def headline(graph: Graph) -> str:
    return Headlines(graph).of(n for n in graph.nodes.values() if n.direction == "forward")


# Headlines


def test_ops_of_one_line_are_called_as_that_line() -> None:
    def masked(tokens: mt.Tensor) -> list[mt.Tensor]:
        mask = (tokens == 0).unsqueeze(1)
        return [mask]

    assert headline(trace(masked, mt.zeros(2, 3))) == "mask = (tokens == 0).unsqueeze(1)"


def test_a_long_line_keeps_its_function_and_loses_its_arguments() -> None:
    def step(logits: mt.Tensor, targets: mt.Tensor) -> list[mt.Tensor]:
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))
        return [loss]

    graph = trace(step, mt.randn(2, 3, 5), mt.zeros(2, 3, dtype=mt.int64))
    assert headline(graph) == "loss = cross_entropy(...)"


def test_a_row_of_lines_is_called_by_three_of_its_variables_at_most() -> None:
    def gates(x: mt.Tensor) -> tuple[mt.Tensor, ...]:
        reset = x.exp()
        update = x.sin()
        candidate = x.cos()
        output = x.tanh()
        return reset, update, candidate, output

    assert headline(trace(gates, mt.randn(7))) == "reset, update, candidate, ..."

    def scored(x: mt.Tensor) -> tuple[mt.Tensor, mt.Tensor]:
        loss = x.exp().sum() / 2
        return x.argmax(-1), loss

    assert headline(trace(scored, mt.randn(7))) == "loss, argmax"


def test_ops_that_make_several_tensors_are_called_by_all_of_them() -> None:
    def angles(positions: mt.Tensor, rates: mt.Tensor) -> tuple[mt.Tensor, mt.Tensor]:
        turns = positions.unsqueeze(1) * rates
        cos = turns.cos()
        sin = turns.sin()
        return cos, sin

    assert headline(trace(angles, mt.randn(7), mt.randn(4))) == "cos, sin"


def test_ops_of_a_function_are_called_by_it() -> None:
    graph = trace(lambda x: (x * 2).tanh(), mt.randn(3))
    for node in graph.nodes.values():
        node.function = "apply_rotary"
    assert headline(graph) == "apply_rotary"


def test_no_line_is_claimed_that_did_more_or_made_something_else() -> None:
    def forward(x: mt.Tensor) -> list[mt.Tensor]:
        y = x.exp() + x.sin() * x.cos()
        return [y]

    graph = trace(forward, mt.randn(3))
    assert headline(graph) == "y = x.exp() + x.sin() * x.cos()"
    last = list(graph.nodes.values())[-2:]
    assert Headlines(graph).of(last) == "y", "the line ran other ops as well"
    assert headline(trace(lambda x: (x * 2).tanh(), mt.randn(3))) == "", "the line is this one"


def test_a_headline_is_short_or_missing_but_never_cut() -> None:
    def of(code: str, op: str = "add", *names: str) -> str:
        return statement(Node("a", op, "", [], [], code=code), names)

    assert of("return self.scale * (x - mean)") == "scale * (x - mean)"
    assert of("x += F.relu(self.weight)", "add", "x") == "x += relu(weight)"
    assert of("x = other(y)", "add", "z") == "", "the line makes another tensor"
    assert of("loss = F.cross_entropy(", "cross_entropy", "loss") == "", "a part of a line"
    assert of("return model(x)", "linear") == "", "the model ran more than this op"
    long = "x = x.view(batch, length, heads, width).transpose(1, 2).contiguous()"
    assert of(long, "transpose", "x") == "", "41 characters even without arguments"
    assert len(of("very = " + "long + " * 4 + "long", "add", "very")) <= LONGEST


@pytest.mark.parametrize(
    ("program", "label"),
    [
        (nano_gpt, "loss = cross_entropy(...)"),
        (bert, "loss = loss_fct(...)"),
        (llama, "apply_rotary_emb"),
        (recurrent_loop, "h = step(...)"),
        (siamese, "z / z.norm(dim=-1, keepdim=True)"),
        (sampling, "idx"),
    ],
)
def test_a_box_of_several_ops_has_a_headline(program: Any, label: str) -> None:
    model, inputs, _ = program.example()
    boxes = fold(trace(model, *inputs.values())).boxes.values()
    assert label in [box.label for box in boxes if box.kind == "run"]


# Saved tensors


def test_every_op_names_what_it_makes_for_its_backward_pass() -> None:
    nameless = set()
    for name, op in OPS.items():
        for args, kwargs in samples(op, np.float32):
            with contextlib.suppress(ValueError, RuntimeError):  # no tensor, nothing to save
                graph = trace(functools.partial(op.call, **kwargs), *args, backward=True)
                values = graph.values.values()
                nameless |= {name for v in values if v.kind == "saved" and not v.names}
    assert not nameless, "name these in the class attribute `saves` of the op"


# Settings


def lines(graph: Graph, op: str) -> list[str]:
    boxes = fold(graph).boxes.values()
    box = next(box for box in boxes if box.node and graph.nodes[box.node].op == op)
    return Page(graph, fold(graph)).card(box.id).forward.lines


def test_settings_have_the_words_of_pytorch_and_no_defaults() -> None:
    x, table = mt.randn(3, 7, 12), mt.randn(11, 12)
    dims = {"x": "N L E"}

    def said(program: Any, op: str, *inputs: mt.Tensor) -> list[str]:
        return lines(trace(program, x, *inputs, dims=dims), op)

    assert said(lambda x: F.layer_norm(x, (12,), eps=1e-3), "layer_norm") == [
        "normalized_shape=(E), eps=0.001"
    ]
    assert said(lambda x: F.layer_norm(x, (12,)), "layer_norm") == ["normalized_shape=(E)"]
    assert said(lambda x: x.sum(), "sum") == []
    assert said(lambda x: x.mean(1, keepdim=True), "mean") == ["dim=1, keepdim=True"]
    assert said(lambda x: F.leaky_relu(x, 0.2), "leaky_relu") == ["negative_slope=0.2"]
    assert lines(trace(lambda x: x.chunk(3, 2)[0], x), "split_with_sizes") == ["3, dim=2"]
    assert said(lambda x: x.view(len(x), -1), "view") == ["(N, -1)"]
    assert said(lambda x: x[:, 0], "getitem") == ["[:, 0]"]
    tokens = mt.zeros(3, dtype=mt.int64)
    assert said(lambda x, i: F.embedding(i, table), "embedding", tokens) == []


def test_constants_are_written_as_in_code() -> None:
    x = mt.rand(3, requires_grad=True)
    programs: dict[str, Any] = {
        "+ 1": lambda x: x + 1,
        "10 / x": lambda x: 10 / x,
        "** 2": lambda x: x**2,
        "* 0.125": lambda x: x * 0.125,
        "* -10000": lambda x: x * -10000.0,
        "== 0": lambda x: x == 0,
    }
    for text, program in programs.items():
        (node,) = (graph := trace(program, x)).nodes.values()
        assert lines(graph, node.op)[0] == text


def test_attention_says_that_it_is_causal_and_whether_it_drops() -> None:
    q = mt.randn(2, 3, 5, 8)

    def attend(q: mt.Tensor, **options: Any) -> list[str]:
        run = functools.partial(F.scaled_dot_product_attention, **options)
        return lines(trace(run, q, q, q), "scaled_dot_product_attention")

    assert attend(q) == []
    assert attend(q, is_causal=True, dropout_p=0.1) == ["causal, dropout p=0.1"]
    assert attend(q, scale=0.5) == ["scale=0.5"]


# Overlays


def test_matrix_products_are_named_wherever_flops_are() -> None:
    graph = trace(nn.Linear(4, 5), mt.randn(2, 4), backward=True)
    page = Page(graph, fold(graph))
    assert "matrix products: 80 FLOP forward, 80 FLOP backward" in page.facts(backward=True)
    assert page.amounts("flops", False).title == "matrix products"
    assert "matrix products alone" in graph.summary()
    assert "matrix products  80 FLOP forward" in str(graph)


def test_an_overlay_says_of_what_the_gradient_is_and_how_time_was_taken() -> None:
    graph = trace(
        lambda x: (x * x).sum(), mt.rand(3, requires_grad=True), backward=True, stats=True
    )
    graph.seed, graph.timed_runs = "loss", 5
    page = Page(graph, fold(graph))
    assert page.amounts("gradnorm", True).title == "gradient norm of d loss"
    assert page.amounts("time", True).title == "time, median of 5 runs after a warm-up"
    graph.seed, graph.timed_runs = "", 1
    assert Page(graph, fold(graph)).amounts("time", True).title == "time, of one run"


def layers() -> Graph:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    stack = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    return trace(stack, mt.randn(2, 3, 4))


def test_a_persons_numbers_are_an_overlay_and_texts_are_lines() -> None:
    graph = layers()
    annotate(graph, {f"layers.{at}": at - 1.5 for at in range(3)}, "slack")
    annotate(graph, {"layers.1.linear1": 7, "layers.2": "dead"}, "mine")
    graph = Graph.from_json(graph.to_json())
    page = Page(graph, fold(graph))
    slack = page.amounts("slack", False)
    assert slack.of["layers.0"] == [-1.5, -0.5, 0.5]
    assert slack.text("layers.0") == "0.5, the largest of 3"
    assert slack.scale(["layers.0"]).ends == ("-1.5", "0.5")
    assert page.amounts("mine", False).of["layers.0.linear1"] == [7]
    assert "mine of layers.2: dead" in page.card("layers.0").forward.lines
    svg = write.render(graph, "svg", View("arch", overlay="slack")).decode()
    assert "0.5, the largest of 3" in svg
    assert "known only of boxes that are open here" not in svg
    opened = write.render(graph, "svg", View("op", overlay="slack")).decode()
    assert "known only of boxes that are open here" in opened
    assert '"slack"' in write.render(graph, "html", View()).decode()


def test_annotations_of_what_is_not_there_name_what_is_near() -> None:
    graph = layers()
    with pytest.raises(ValueError, match=r"'layers\.7'; did you mean 'layers\."):
        annotate(graph, {"layers.7": 1.0}, "mine")
    with pytest.raises(ValueError, match="a name of their own, not 'flops'"):
        annotate(graph, {"layers.1": 1.0}, "flops")
    with pytest.raises(ValueError, match="give a finite number or a text"):
        annotate(graph, {"layers.1": float("nan")}, "mine")
    assert not graph.annotations


# Search


def test_search_puts_exact_names_first_then_beginnings_and_knows_patterns() -> None:
    graph = layers()
    linear = [thing.id for thing in graph.find("linear1")]
    assert linear
    assert linear[0].startswith("layers.0.linear1")
    names = [thing.op for thing in graph.find("op:lin") if isinstance(thing, Node)]
    assert names
    assert all(name.startswith("lin") for name in names)
    matched = graph.find("op:/^lay.*norm$/")
    assert {thing.op for thing in matched if isinstance(thing, Node)} == {"layer_norm"}
    with pytest.raises(ValueError, match="is no regular expression"):
        graph.find("/(/")


# Loops


def turns(steps: range, read: Any, *shape: int) -> list[str]:
    """The settings of the op that reads x at each turn of a loop over `steps`."""
    linear = nn.Linear(4, 4)

    def run(x: mt.Tensor) -> mt.Tensor:
        h = mt.zeros(4)
        for t in steps:
            h = (linear(read(x, t)) + h).tanh()
        return h

    graph = trace(run, mt.randn(*shape))
    return lines(graph, "getitem")


def test_a_loop_counts_its_turns_in_what_it_reads() -> None:
    assert turns(range(7), lambda x, t: x[:, t], 4, 7) == ["[:, t], t = 0-6"]
    assert turns(range(1, 4), lambda x, t: x[t], 5, 4) == ["[t], t = 1-3"]
    assert turns(range(6, -1, -2), lambda x, t: x[t], 8, 4) == ["[t], t = 6, 4, ..., 0"]
    assert turns(range(0, 4, 2), lambda x, t: x[t], 4, 4) == ["[t], t = 0, 2"]
    assert turns(range(3), lambda x, t: x[t, t + 2], 3, 5, 4) == ["[t, t+2], t = 0-2"]
    assert turns(range(3), lambda x, t: x[t, 2 * t + 1], 3, 6, 4) == ["[t, 2*t+1], t = 0-2"]
    assert turns(range(3), lambda x, t: x[3 * t, 2 * t], 8, 6, 4) == ["[3*t, 2*t], t = 0-2"]
    assert turns(range(3), lambda x, t: x[t, 2 - t], 3, 6, 4) == ["[t, 2-t], t = 0-2"]


def test_what_leaves_a_loop_is_of_all_turns_and_what_enters_goes_to_all() -> None:
    model, inputs, _ = recurrent_loop.example()
    graph = trace(model, *inputs.values(), backward=True)
    edges = picture(view(fold(graph), graph, "op", backward=True), graph).edges
    said = {(e.source, e.target, e.backward): e.label.remark for e in edges if e.label.remark}
    assert said["embed", "rnn/getitem", False] == "to all 7"
    assert said["rnn/tanh", "rnn/stack", False] == "of all 7"
    assert said["rnn/stack", "rnn/tanh", True] == "to each of 7"

    def split(x: mt.Tensor) -> mt.Tensor:
        h = mt.zeros(2, 4)
        for part in x.unbind(1):
            h = (h + part).tanh()
        return h

    graph = trace(split, mt.randn(2, 5, 4))
    edges = picture(view(fold(graph), graph, "op"), graph).edges
    assert [e.label.remark for e in edges if e.label.remark] == ["to each of 5"]
    assert [e.id for e in edges if e.edge.shared] == [], "no tensor goes to all of them"


def ports(graph: Graph, **how: Any) -> dict[str, list[str]]:
    """Return by title the words for the inputs of the closed boxes that have some."""
    scene = view(fold(graph), graph, **how)
    found = {f.card.forward.title: f.ports for f in picture(scene, graph).faces.values()}
    return {title: words for title, words in found.items() if words}


def test_a_function_s_box_calls_what_it_is_given_by_its_own_parameters() -> None:
    def noisy(x_start: mt.Tensor, t: mt.Tensor, noise: mt.Tensor) -> mt.Tensor:
        return mt.arange(5.0)[t][:, None] * x_start + noise * 2

    def f(clean: mt.Tensor, step: mt.Tensor, other: mt.Tensor) -> mt.Tensor:
        mixed = noisy(clean, step, other)
        pair = mt.stack((mixed, clean)).relu().sum(0)
        logits = noisy(pair, step, other)
        return F.mse_loss(logits, clean) + F.cross_entropy(logits, step)

    graph = trace(f, mt.randn(3, 4), mt.tensor([0, 2, 1]), mt.randn(3, 4))
    found = ports(graph, level="op", collapse=["noisy()", "mse_loss()"])
    assert found["noisy"] == ["x_start", "t", "noise"]
    assert found["stack"] == ["tensors[0]", "tensors[1]"]
    assert found["mse_loss"] == found["cross_entropy"] == ["input", "target"]


def test_places_for_inputs_never_say_the_same_word_twice() -> None:
    graph = trace(lambda a: a + 1, mt.ones(2))
    page = Page(graph, fold(graph))
    assert page.told_apart(["x", "x", "y"], ["a", "b", "c"]) == ["a", "b", "y"]
    assert page.told_apart(["x", "x"], ["h", "h"]) == ["", ""]


def test_gradients_on_their_way_to_one_op_are_one_edge() -> None:
    step, inputs, _ = training_step.example()
    graph = trace(step, **inputs)
    shown = picture(view(fold(graph), graph, "arch", backward=True), graph)
    clipped = [edge for edge in shown.edges if edge.target == "clip_grad_norm_"]
    assert [edge.label.name for edge in clipped] == ["6 gradients"]
