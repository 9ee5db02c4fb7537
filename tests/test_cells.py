"""The source of a number: what an op tells of a cell is what it computes, and all it reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import CHECKED

import minitensor  # registers the ops
from minitensor import nn  # noqa: F401
from minitensor.core import OPS, Op
from minitensor.graph.cells import FormulaError, Made, evaluate, made, parse
from minitensor.testing import check_op, leaves, samples
from minitensor.testing.cells import Run, check_cells, runs

OWN = [name for name, op in sorted(OPS.items()) if op.forward is not Op.forward]
SILENT = {"Chain", "GruLayer", "LstmLayer", "RnnLayer"}  # their decomposition shows the steps


def tensor(*shape: int) -> Any:
    return np.random.RandomState(int("".join(map(str, shape)))).randn(*shape)


def indices(high: int, *shape: int) -> Any:
    return np.random.RandomState(2).randint(0, high, shape)


# Runs with random numbers, which samples leave out, and others that they do not reach.
MASK = np.array([[0.0, -np.inf, 0.5], [0.0, 0.0, -np.inf]])
HEADS = (tensor(1, 2, 2, 2), tensor(1, 2, 3, 2), tensor(1, 2, 3, 1))
MORE: dict[str, list[Run]] = {
    "Dropout": [([tensor(3, 4), 0.4, 7], {})],
    "DropoutAdd": [([tensor(3, 4), tensor(4, 3).T], dict(p=0.4, key=7))],
    "DropoutAddLayerNorm": [
        ([tensor(2, 3), tensor(3, 2).T, tensor(3), None], dict(dims=1, eps=1e-5, p=0.4, key=7)),
        (
            [tensor(2, 2, 3), tensor(2, 2, 3) * 2, None, None],
            dict(dims=2, eps=1e-5, p=0.4, key=7),
        ),
    ],
    "EmbeddingPositions": [
        (
            [indices(5, 2, 3), tensor(5, 4), tensor(6, 4)],
            dict(scale=2.0, p=0.4, key=7, padding_idx=None),
        )
    ],
    "LinearActivation": [
        ([tensor(3, 4), tensor(5, 4), tensor(5)], dict(kind="relu", p=0.4, key=7)),
    ],
    "ScaledDotProductAttention": [
        ([*HEADS, None, False, 0.5, 0.4, 7], {}),
        ([*HEADS, MASK, False, 0.5, 0.4, 7], {}),
        ([*HEADS, MASK, False, 0.5, 0.0, None], {}),
        ([*HEADS, MASK > -1, True, 0.5, 0.4, 7], {}),
        ([*HEADS, np.where(MASK < 0, MASK, 0), True, 0.5, 0.0, None], {}),
        ([*HEADS, np.array([[True], [False]]), False, 0.5, 0.0, None], {}),
    ],
    "PackedAttention": [
        ([tensor(2, 3, 12), None, None, 2, True, 0.5, 0.4, 7], {}),
    ],
    "InProjectionPacked": [([tensor(1, 2, 2), tensor(2, 2), tensor(6, 2), tensor(6)], {})],
    "Index": [
        ([tensor(3, 4, 2), indices(3, 2), None, indices(2, 2)], {}),
        ([tensor(3, 4, 2), None, np.tri(4, 2, dtype=bool)], {}),
    ],
    "IndexSum": [
        ([tensor(2, 4, 5), None, indices(3, 4, 1), indices(2, 5)], dict(shape=(2, 3, 2))),
        ([tensor(7, 3), np.tri(4, 2, dtype=bool)], dict(shape=(4, 2, 3))),
    ],
    "IndexPut": [
        ([tensor(4, 3), tensor(2, 3, 3), indices(4, 2, 3)], {}),
        ([tensor(4, 3), tensor(2, 1, 1), indices(4, 2, 3)], {}),
        ([tensor(2, 4, 3), tensor(3, 1), None, indices(4, 3)], {}),
    ],
    "Cat": [([tensor(2, 3)] * 2, dict(dim=1))],
}


def all_runs(op: Any, more: bool = True) -> Iterator[Run]:
    """The arguments of each run of `forward` in the samples of an op, and of MORE."""
    for args, kwargs in samples(op):
        yield from runs(op, args, kwargs)
    if more:
        yield from MORE.get(op.__name__, [])


@pytest.mark.parametrize("name", [name for name in OWN if name not in SILENT])
def test_a_cell_comes_from_the_cells_that_its_op_names_and_from_no_others(name: str) -> None:
    done: Counter[str] = Counter()
    for args, kwargs in all_runs(OPS[name]):
        done += check_cells(OPS[name], args, kwargs)
    assert done["cells"], f"{name} does not tell where its cells come from"
    CHECKED.update(done)


# Gradients, from the formulas alone

MOST = 150  # derivatives of a run; larger ones are left out
STEP = 1e-5
# Rules that are no derivatives, on purpose: a row of padding gets none, repeats share one; a value
# that a later one overwrites gets one, as in PyTorch.
NOT_DERIVATIVES = ("padding_idx", "scale_grad_by_freq")
OVERWRITES = "IndexPut"


def derivative(how: Made, port: int, place: tuple[int, ...], name: str, cell: int) -> float:
    """The derivative of a result by one cell, by central differences of its formula."""
    if how.moved:
        return 1.0
    tensor = how.tensors[name].copy()
    values = []
    for step in (STEP, -STEP):
        tensor.reshape(-1)[cell] = how.tensors[name].reshape(-1)[cell] + step
        tensors = how.tensors | {name: tensor}
        values.append(evaluate(parse(how.formulas[port]), tensors, place)[0])
    up, down = map(float, values)
    return 0.0 if up == down else (up - down) / (2 * STEP)  # infinities are equal too


def by_formulas(how: Made, grads: list[np.ndarray]) -> dict[str, np.ndarray] | None:
    """The gradients of the floats among the tensors; None if they are too many."""
    found = {n: np.zeros(x.size) for n, x in how.tensors.items() if x.dtype == np.float64}
    terms = []
    for port, dy in enumerate(grads):
        for place in np.ndindex(dy.shape):
            _, reads = how.cell(port, place)
            terms += [(port, place, n, c) for n in found if n in reads for c in reads[n]]
            if len(terms) > MOST:
                return None
    for port, place, name, cell in terms:
        found[name][cell] += grads[port][place] * derivative(how, port, place, name, cell)
    return {name: dx.reshape(how.tensors[name].shape) for name, dx in found.items()}


DIFFERENTIABLE = [name for name in OWN if OPS[name].differentiable and name not in SILENT]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_gradient_is_the_sum_over_the_cells_that_read_a_cell(name: str) -> None:
    """As a page computes it: dx = the sum of dy * the derivative of the formula."""
    op = OPS[name]
    noise = np.random.RandomState(0)
    compared = 0
    for args, kwargs in all_runs(op, more=name != OVERWRITES):
        arrays = [np.array(a, order="C") if isinstance(a, np.ndarray) else a for a in args]
        how = made(op, arrays, kwargs)
        if how is None or any(kwargs.get(key) not in (None, False) for key in NOT_DERIVATIVES):
            continue
        tensors = [minitensor.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arrays]
        for t in tensors:
            if isinstance(t, minitensor.Tensor) and t.dtype == np.float64:
                t.requires_grad_()
        outs = leaves([op.apply(*tensors, **kwargs)])
        grads = [noise.randn(*t.shape) if t.requires_grad else np.zeros(t.shape) for t in outs]
        expected = by_formulas(how, [np.asarray(g) for g in grads])
        if expected is None or not any(t.requires_grad for t in outs):
            continue
        roots = [(t, g) for t, g in zip(outs, grads, strict=True) if t.requires_grad]
        minitensor.autograd.backward(
            [t for t, _ in roots], [minitensor.tensor(g, dtype=np.float64) for _, g in roots]
        )
        by_id = {id(a): t for a, t in zip(arrays, tensors, strict=True)}
        for key, dx in expected.items():
            t = by_id.get(id(how.tensors[key]))
            if t is None or t.grad is None:
                continue
            finite = np.isfinite(how.tensors[key])
            np.testing.assert_allclose(
                t.grad.numpy()[finite], dx[finite], 1e-5, 1e-7, err_msg=f"{name}: {key}, {kwargs}"
            )
            compared += int(finite.sum())
    assert compared, f"no gradient of {name} was compared"
    CHECKED["gradients by formulas"] += compared


class _Tells(Op, abstract=True):
    """An op of the tests: y = x * w of a vector and its weights."""

    namespaces = ""
    torch_name = None
    differentiable = False

    def forward(ctx: Any, x: np.ndarray, w: np.ndarray) -> Any:
        return x * w

    @staticmethod
    def samples(rand: Any) -> Iterator[Any]:
        yield rand(3), rand.positive(3)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("x + w", "the formula gives"),
        ("x * w + 0 * x[0]", "cell 0 of x does not matter"),
        ("x * z", "names 'z'"),
        ("x[i] * w[j]", "names 'j'"),
        ("x[i, i]", "2 places for 1 axes"),
    ],
)
def test_check_op_finds_a_wrong_cell(cell: str, message: str) -> None:
    op = type("Wrong", (_Tells,), {"cell": cell, "op_name": "wrong", "__doc__": "y = x * w."})
    try:
        with pytest.raises(AssertionError, match=f"wrong: cells: .*{message}"):
            check_op(op)
    finally:
        OPS.pop("Wrong", None)


def test_check_op_finds_a_cell_that_is_not_named() -> None:
    def cell(x: np.ndarray, w: np.ndarray) -> str:
        return " + ".join(f"{n} * x * (i == {number})" for number, n in enumerate(w.tolist()))

    body = {"cell": staticmethod(cell)}
    op = type("Hides", (_Tells,), {**body, "op_name": "hides", "__doc__": "y = x * w."})
    try:
        with pytest.raises(AssertionError, match=r"it changes .* with cells it does not read"):
            check_op(op)
        assert check_op(type("Silent", (_Tells,), {"__doc__": "y = x * w."}))["cells"] == 0
    finally:
        for name in ("Hides", "Silent"):
            OPS.pop(name, None)


X = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("formula", "value", "reads"),
    [
        ("x", 5.0, [5]),
        ("sum(x[i, :])", 12.0, [3, 4, 5]),
        ("x[:, :1 + 1] @ x[0, 1:]", [2.0, 11.0], [0, 1, 2, 3, 4]),
        ("x[-1, -j]", 4.0, [4]),
        ("sum(x[x[:, 0] > 1, j])", 5.0, [0, 3, 5]),
        ("sum(x[x[:, :] > 3])", 9.0, [0, 1, 2, 3, 4, 5]),
        ("sort(-x[i, :])[0]", -5.0, [3, 4, 5]),
        ("x[last(x[:, 0] < 3), 0]", 0.0, [0, 3]),
        ("sum(x[k, h] for k in range(2) for h in range(3) if h > k)", 8.0, [1, 2, 5]),
        ("mean(x[k, 0] for k in range(0))", np.nan, []),
        ("max(x, 7) - min(x[0, :]) + 2 ** i", 9.0, [0, 1, 2, 5]),
        ("x[0, 0] if i == j else x[1, 1]", 4.0, [4]),
        ("(~(x > 4)) + True", 1, [5]),
        ("pi - inf", -np.inf, []),
    ],
)
def test_a_formula_reads_the_cells_that_count(formula: str, value: Any, reads: list[int]) -> None:
    found, cells = evaluate(parse(formula), {"x": X}, (1, 2))
    np.testing.assert_allclose(found, value)
    assert [*cells.get("x", [])] == reads


def test_settings_stand_in_a_formula_as_numbers() -> None:
    clamped = made(OPS["Clamp"], [X, -1.5, 2.0], {})
    assert clamped is not None
    assert clamped.formulas == ("min(max(x, (-1.5)), 2.0)",)


def test_a_formula_that_cannot_be_read_says_what_is_wrong() -> None:
    with pytest.raises(FormulaError, match="not a formula: 'exp\\("):
        parse("exp(")
    with pytest.raises(FormulaError, match="open"):
        parse("open(x)")
    with pytest.raises(FormulaError, match="names 'z'"):
        Made({"x": np.ones(2)}, ("x + z",)).cell(0, [1])
