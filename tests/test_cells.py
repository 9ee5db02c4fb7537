"""Where numbers come from: what an op tells of a cell is what it computes, and all it reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import CHECKED

import minitensor  # noqa: F401  # registers the ops
from minitensor import nn  # noqa: F401
from minitensor.core import OPS, Op, wrap
from minitensor.graph.cells import FormulaError, Made, made, parse
from minitensor.testing import leaves, samples

OWN = [name for name, op in sorted(OPS.items()) if op.forward is not Op.forward]
CELLS = 6  # tried of each result
SHIFTS = (0.37, -0.41, 40.0, -40.0)  # added to floats, one after the other


def runs(op: Any) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """The arguments with which `forward` runs for each sample of an op: arrays and settings."""
    seen: list[Any] = []
    apply = op.apply

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(([a._array if isinstance(a, minitensor.Tensor) else a for a in args], kwargs))
        return apply(*args, **kwargs)

    op.apply = spy
    try:
        for args, kwargs in samples(op):
            op.call(*args, **kwargs)
    finally:
        del op.apply
    yield from seen


def results(op: Any, args: list[Any], kwargs: dict[str, Any]) -> list[np.ndarray]:
    """The results of a run on arrays."""
    given = [wrap(a) if isinstance(a, np.ndarray) else a for a in args]
    with minitensor.no_grad():
        return [t._array for t in leaves([op.apply(*given, **kwargs)])]


def changed(x: np.ndarray, cells: Any, shift: float) -> np.ndarray:
    """A copy of `x` in which some cells have other numbers."""
    copy = np.array(x, order="C")
    flat = copy.reshape(-1)
    if x.dtype == bool:
        flat[cells] = ~flat[cells]
    elif x.dtype.kind == "f":
        flat[cells] += shift
    else:
        flat[cells] = np.where(flat[cells] > 0, flat[cells] - 1, flat[cells] + 1)
    return copy


def with_changes(
    args: list[Any], kwargs: dict[str, Any], how: Made, cells: dict[str, Any], shift: float
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments with changed cells, by the names that the formulas have for the tensors."""
    new = {id(how.tensors[name]): changed(how.tensors[name], c, shift) for name, c in cells.items()}
    return (
        [new.get(id(a), a) for a in args],
        {key: new.get(id(a), a) for key, a in kwargs.items()},
    )


@pytest.mark.parametrize("name", OWN)
def test_a_cell_comes_from_the_cells_that_its_op_names_and_from_no_others(name: str) -> None:
    op = OPS[name]
    noise = np.random.RandomState(0)
    for args, kwargs in runs(op):
        how = made(op, args, kwargs)
        if how is None:
            assert op.decomposition is not None, f"{name} does not tell where its cells come from"
            continue
        given = {id(a) for a in (*args, *kwargs.values())}
        arguments = {key: x for key, x in how.tensors.items() if id(x) in given}
        for port, out in enumerate(results(op, args, kwargs)):
            for flat in noise.permutation(out.size)[:CELLS]:
                place = np.unravel_index(flat, out.shape)
                where = f"{name}{[x.shape for x in arguments.values()]}{list(map(int, place))}"

                def again(cells: dict[str, Any], shift: float, at: Any = (port, place)) -> Any:
                    a, k = with_changes(args, kwargs, how, cells, shift)
                    return results(op, a, k)[at[0]][at[1]]

                value, reads = how.cell(port, [int(p) for p in place])
                if value is not None:
                    np.testing.assert_allclose(
                        np.float64(value), np.float64(out[place]), 1e-9, 1e-12, err_msg=where
                    )
                others = {
                    key: np.setdiff1d(np.arange(x.size), reads.get(key, []))
                    for key, x in arguments.items()
                }
                after = again(others, SHIFTS[0])
                np.testing.assert_allclose(
                    np.float64(after), np.float64(out[place]), 1e-12, err_msg=f"{where}: others"
                )
                for key, cells in reads.items():
                    for cell in cells if key in arguments else ():
                        found = (again({key: [cell]}, shift) for shift in SHIFTS)
                        same = all(
                            np.array_equal(v, out[place], v.dtype.kind == "f") for v in found
                        )
                        assert not same, f"{where}: {key} {cell} does not matter"
                        CHECKED["cells read"] += 1
                CHECKED["cells"] += 1


def test_a_formula_that_cannot_be_read_says_what_is_wrong() -> None:
    with pytest.raises(FormulaError, match="not a formula: 'exp\\("):
        parse("exp(")
    with pytest.raises(FormulaError, match="open"):
        parse("open(x)")
    with pytest.raises(FormulaError, match="names 'z'"):
        Made({"x": np.ones(2)}, ("x + z",)).cell(0, [1])
