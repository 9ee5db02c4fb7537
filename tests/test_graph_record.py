"""Recording beyond one forward pass: passes over passes, trips, updates, names."""

from __future__ import annotations

import pytest

import minitensor as mt
from minitensor import graph
from minitensor.autograd import grad
from minitensor.graph import Graph

# Gradients of gradients


@pytest.fixture(scope="module")
def penalty() -> Graph:
    """The gradient's norm, and the backward pass of that."""

    def norm(x: mt.Tensor) -> mt.Tensor:
        y = (x**3 + x.exp() * x).sum()
        (g,) = grad(y, x, create_graph=True)
        return (g**2).sum()

    return graph.trace(norm, mt.randn(3, requires_grad=True), backward=True)


def test_every_op_of_a_pass_is_backward_and_those_of_a_rule_are_inside_its_node(
    penalty: Graph,
) -> None:
    for node in penalty.nodes.values():
        if ":backward" in node.id:
            assert node.direction == "backward"
            assert (node.inside is None) == (node.of is not None)
    assert penalty.nodes["pow:backward/mul.1:backward"].of == "pow:backward/mul.1"
    assert penalty.nodes["exp:backward.1"].of == "exp"
    assert penalty.nodes["pow.1"].direction == "forward"
    assert penalty.nodes["pow.1"].inputs == [penalty.nodes["add.2"].outputs[0]]


def test_sums_of_gradients_are_ops_of_the_pass_with_create_graph(penalty: Graph) -> None:
    total = penalty.values["add.2:0"]
    assert (total.kind, total.of, total.names) == ("gradient", "input:x", ["g"])
    assert penalty.nodes["add.2"].direction == "backward"
    assert penalty.nodes["add.2:backward"].of == "add.2"


def test_every_input_of_every_op_was_made_before_it_or_is_a_source(penalty: Graph) -> None:
    made = {v for v, value in penalty.values.items() if value.producer is None}
    for node in penalty.nodes.values():
        assert made.issuperset(v for v in node.inputs if penalty.values[v].producer != node.id)
        made.update(node.outputs)
        made.update(node.saved)
    for value in penalty.values.values():
        if value.producer is None and value.kind == "gradient":  # a seed, or a sum of those read
            assert value.id.rpartition(":")[2].startswith("in")


def test_the_last_value_inside_a_backward_node_tells_which_output_it_is(penalty: Graph) -> None:
    for node in penalty.nodes.values():
        inside = [n for n in penalty.nodes.values() if n.inside == node.id]
        if inside:
            last = {penalty.values[v].of for n in inside for v in n.outputs}
            assert last.issuperset(node.outputs)
    inner = penalty.nodes["mul:backward/mul.1:backward/mul"]
    outer = penalty.nodes["mul:backward/mul.1:backward"]
    assert set(inner.inputs) == set(outer.inputs)
