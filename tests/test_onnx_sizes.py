"""Formulas of sizes, from what a program did at several sizes; without onnx."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minitensor as mt
from minitensor import Tensor
from minitensor.core import OPS, Op
from minitensor.graph.program import Program
from minitensor.onnx import export
from minitensor.onnx.axes import Axes
from minitensor.onnx.runs import run_all
from minitensor.onnx.sizes import Number, Size, Solver, Varying
from minitensor.onnx.translate import REFUSED, TRANSLATIONS
from minitensor.onnx.translate.functions import WHOLE

(RUNS, *_) = Axes({}, {"N": 2, "L": 5, "S": 7}).ways()


@pytest.mark.parametrize(
    "formula",
    [
        "N", "L", "2*N", "3*L", "N + 1", "L - 1", "2*L + 1", "N*L", "4*N*L", "L + S", "N*L*S",
        "L + S + 1", "L*L", "N + L + S", "N*L + N", "L*S + L",
    ],
)  # fmt: skip
def test_a_formula_is_found_from_its_values(formula: str) -> None:
    column = tuple(eval(formula, {}, dict(sizes)) for sizes in RUNS)
    found = Solver(RUNS).size(column)
    assert isinstance(found, Size)
    other = {"N": 31, "L": 17, "S": 23}
    assert found.at(other) == eval(formula, {}, other), str(found)
    assert eval(str(found).replace("/", "//"), {}, dict(other)) == found.at(other)


@pytest.mark.parametrize("n", [5, 16, 31])
@pytest.mark.parametrize("formula", ["(L + 1)//2", "L//2", "(L - 3)//2 + 1", "(L + 2 - 3)//3 + 1"])
def test_a_rounded_quotient_is_found_if_it_is_the_only_one(formula: str, n: int) -> None:
    (runs, *_) = Axes({}, {"L": n}).ways()
    found = Solver(runs).size(tuple(eval(formula, {}, dict(sizes)) for sizes in runs))
    if isinstance(found, Size):
        for length in range(4, 100):
            assert found.at({"L": length}) == eval(formula, {}, {"L": length}), str(found)


def test_what_no_formula_gives_is_varying_and_what_is_the_same_a_number() -> None:
    solver = Solver(RUNS)
    assert solver.size((3, 3, 3, 3)) == 3
    assert solver.size((3, 4, 3, 9)) == Varying((3, 4, 3, 9))
    assert solver.size(tuple(2 ** sizes["N"] for sizes in RUNS)) == Varying((4, 32, 128, 32768))


def test_numbers_that_follow_from_sizes() -> None:
    solver = Solver(RUNS)
    assert solver.number((0.5, 0.5, 0.5, 0.5)) == 0.5
    for power in (1.0, -1.0, 0.5, -0.5):
        found = solver.number(tuple(3.0 * sizes["L"] ** power for sizes in RUNS))
        assert isinstance(found, Number)
        assert math.isclose(found.factor * found.size.at({"L": 40}) ** found.power, 3 * 40**power)
    assert isinstance(solver.number((0.1, 0.7, 0.2, 0.4)), Varying)


def test_sizes_to_try_grow_apart_shrink_and_multiply() -> None:
    ways = Axes({}, {"N": 2, "L": 16}).ways()
    assert all(way[0] == {"N": 2, "L": 16} for way in ways)
    grown, shrunk, multiples = (way[1:] for way in ways)
    assert all(sizes["N"] > 2 and sizes["L"] > 16 for sizes in grown)
    assert all(sizes["N"] > 2 and 1 < sizes["L"] < 16 for sizes in shrunk)
    assert all(sizes["N"] % 2 == 0 and sizes["L"] % 16 == 0 for sizes in multiples)
    for way in ways:
        assert len({sizes["L"] / sizes["N"] for sizes in way}) == len(way)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8, 16, 64])
def test_every_named_size_is_another_in_every_run(n: int) -> None:
    names = dict.fromkeys("NLSTUVW", n)
    for way in Axes({}, names).ways():
        for name in names:
            assert len({sizes[name] for sizes in way}) >= 3, (name, way)
            assert all(sizes[name] > 0 for sizes in way)
        columns = [tuple(sizes[name] for sizes in way) for name in "NLSTU"]
        assert len(set(columns)) == 5, way


def test_a_program_is_recorded_with_formulas_and_its_fused_ops_opened() -> None:
    def function(x: Tensor) -> Tensor:
        y = mt.nn.functional.silu(x.reshape(x.shape[0] * x.shape[1], 3))
        return y[: x.shape[1]] + mt.arange(3)

    x = mt.randn(2, 5, 3)
    axes = Axes({"x": {0: "N", 1: "L"}}, {"N": 2, "L": 5})
    found, _ = run_all(Program(function, (x,), {}), [("x", x)], axes)
    assert [call.op for call in found.calls] == [
        *("Reshape", "Sigmoid", "Mul", "GetItem", "ToCopy", "Add")
    ]
    assert [str(n) for n in found.values[found.outputs[0]].shape] == ["L", "3"]
    assert str(found.calls[0].kwargs["shape"][0]) == "N*L"
    assert str(found.calls[3].kwargs["key"][0].stop) == "L"


def test_every_op_is_translated_opened_composed_or_refused() -> None:
    """An op of the library for which nothing is said is one that nobody thought of."""
    for name, op in OPS.items():
        if op.__module__.startswith("minitensor.") and op.forward is not Op.forward:
            known = name in TRANSLATIONS or name in REFUSED or op.decomposition is not None
            assert known, f"{name} has no translation in minitensor/onnx, and no reason for that"
    assert not TRANSLATIONS.keys() & REFUSED.keys()
    assert set(WHOLE) <= TRANSLATIONS.keys() | REFUSED.keys()


def test_without_onnx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'minitensor\[onnx\]'"):
        export(lambda x: x, mt.from_numpy(np.zeros(2)))
