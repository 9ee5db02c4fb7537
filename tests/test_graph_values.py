"""The numbers that a trace keeps: what tensors held, and where each number comes from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor import nn
from minitensor.graph import Graph, trace
from minitensor.graph.cells import Made
from minitensor.graph.data import Data, data_of, fitting, packed, unpacked
from minitensor.graph.held import held


def numbers_of(graph: Graph, key: str) -> np.ndarray:
    data = graph.values[key].data
    assert data is not None
    assert data.at is None
    return data.array


def test_what_tensors_held_is_kept_forward_backward_and_after_an_update() -> None:
    layer = nn.Linear(3, 2)
    optimizer = mt.optim.SGD(layer.parameters(), lr=0.5)
    x = mt.randn(4, 3)

    def step(x: mt.Tensor) -> mt.Tensor:
        loss = layer(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    before = layer.weight.detach().numpy().copy()
    graph = trace(step, x, values=True)
    assert layer.weight.grad is not None
    assert np.array_equal(numbers_of(graph, "input:x"), x.numpy())
    assert np.array_equal(numbers_of(graph, "parameter:layer.weight"), before)
    (update,) = [
        node
        for node in graph.nodes.values()
        if node.op == "SGD" and graph.values[node.outputs[0]].of == "parameter:layer.weight"
    ]
    param, grad = update.inputs
    assert np.array_equal(numbers_of(graph, param), before)
    assert np.array_equal(numbers_of(graph, grad), layer.weight.grad.numpy())
    assert np.array_equal(numbers_of(graph, update.outputs[0]), layer.weight.detach().numpy())


def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    graph = trace(nn.Linear(3, 2), mt.randn(4, 3))
    assert all(value.data is None for value in graph.values.values())
    assert all(node.origins is None for node in graph.nodes.values())
    assert held(graph) is None


def test_the_numbers_of_an_output_follow_from_those_that_it_was_made_of() -> None:
    """Every formula of a traced program, on the numbers that were kept, gives the kept results."""
    layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True).double()
    graph = trace(layer, mt.randn(2, 4, 6, dtype=mt.float64), decompose=True, values=True)
    checked = 0
    for node in graph.nodes.values():
        if node.origins is None:
            continue
        tensors = {name: numbers_of(graph, key) for name, key in node.origins.tensors.items()}
        how = Made(tensors, tuple(node.origins.formulas), tuple(node.origins.moved))
        for port, out in enumerate(node.outputs):
            result = numbers_of(graph, out)
            for flat in range(0, result.size, 7):
                place = [int(p) for p in np.unravel_index(flat, result.shape)]
                value, _ = how.cell(port, place)
                np.testing.assert_allclose(value, result[tuple(place)], 1e-9, err_msg=node.id)
                checked += 1
    assert checked > 80


def test_numbers_fit_the_limit_and_the_large_tensors_are_sampled() -> None:
    limit = 10_000
    graph = trace(nn.Linear(200, 100), mt.randn(30, 200), values=limit)
    kept = {key: v.data for key, v in graph.values.items() if v.data is not None}
    assert sum(data.array.nbytes for data in kept.values()) <= limit
    small, large = kept["parameter:bias"], kept["parameter:weight"]
    assert small.at is None
    assert large.at is not None
    rows, columns = large.at
    assert large.array.shape == (len(rows), len(columns))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (0, 99, 0, 199)
    assert min(len(rows), len(columns)) > 10


def test_a_sample_has_the_numbers_of_the_places_it_names() -> None:
    array = np.arange(600.0).reshape(2, 10, 30)
    data = data_of(array, limit=50 * 8)
    assert data.at is not None
    assert data.array.size <= 50
    assert np.array_equal(data.array, array[np.ix_(*data.at)])
    again = data.sampled(8)
    assert again.at is not None
    assert np.array_equal(again.array, array[np.ix_(*again.at)])


def test_facts_are_of_all_numbers_also_of_a_sample() -> None:
    array = np.array([1.0, np.nan, -3.0, np.inf, 4.0] * 100)
    data = data_of(array, limit=80)
    assert data.facts == pytest.approx({"nan": 100, "inf": 100, "min": -3, "max": 4, "mean": 2 / 3})
    assert data.counts is not None
    assert sum(data.counts) == 300
    assert (data.counts[0], data.counts[-1]) == (100, 100)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "int8", "bool"])
def test_numbers_survive_being_written(dtype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 7]]).astype(dtype)
    assert np.array_equal(unpacked(json.loads(json.dumps(packed(array)))), array)


def test_what_each_may_take_shares_what_the_small_ones_leave() -> None:
    assert fitting([10, 20, 500, 900], 1000) == 485
    assert fitting([10, 20], 1000) == 1000
    assert fitting([], 1000) == 1000


def test_a_graph_with_numbers_survives_json() -> None:
    graph = trace(lambda x: x.transpose(0, 1).reshape(-1).cos(), mt.randn(2, 3), values=True)
    text = graph.to_json()
    again = Graph.from_json(text)
    assert again.to_json() == text
    assert np.array_equal(numbers_of(again, "input:x"), numbers_of(graph, "input:x"))


def test_the_page_says_which_gradients_reached_the_op_of_a_gradient() -> None:
    graph = trace(lambda x: (x.exp() + x.exp()).sum(), mt.randn(3, requires_grad=True),
                  backward=True, values=True)  # fmt: skip
    found: Any = held(graph)
    key = "exp:backward:0"
    assert found["gradients"][key]["of"] == "input:x"
    ((out, reached),) = found["gradients"][key]["grads"].items()
    assert out == "exp:0"
    assert reached == ["add:backward:0"]
    assert found["origins"]["exp:0"]["tree"] == ["call", "exp", [["name", "x"]]]


def test_an_empty_sample_is_whole() -> None:
    assert Data(np.zeros((0, 3))).sampled(0).at is None
