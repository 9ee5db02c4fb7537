"""The words of `Op.cell`: letters for the axes of a result, and brackets around places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

PLACE = "ijlmnorstu"  # no k, x, y or other name that ops have for their arguments
LOOPS = "khgf"  # names that formulas loop over


def places(ndim: int) -> list[str]:
    """Return the letters of the axes of a result: ["i", "j"]."""
    return list(PLACE[:ndim])


def at(name: str, subscripts: Sequence[str]) -> str:
    """Return a tensor with brackets: "x[i, :]"; without subscripts its name."""
    return f"{name}[{', '.join(subscripts)}]" if subscripts else name


def along(ndim: int, axes: Iterable[int], span: str = ":") -> list[str]:
    """Return the place in the result, with `span` in place of the letters of `axes`."""
    letters = places(ndim)
    for axis in axes if ndim else ():
        letters[axis] = span
    return letters


def reduced(name: str, ndim: int, axes: Iterable[int], keepdim: bool = False) -> str:
    """Return what a cell of a reduction over `axes` reads: "x[i, :]"."""
    over = {axis % ndim for axis in axes} if ndim else set()
    letters = iter(PLACE)
    place = []
    for axis in range(ndim):
        letter = next(letters) if keepdim or axis not in over else ""
        place.append(":" if axis in over else letter)
    return at(name, place)


def row(name: str, ndim: int, dims: int) -> str:
    """Return a tensor's cells along the last `dims` axes, at the place in the others."""
    return at(name, along(ndim, range(-dims, 0)))


def unraveled(flat: str, shape: Sequence[int]) -> list[str]:
    """Return the place along each axis of the element that has the number `flat` in order."""
    found = [flat] if shape else []
    for n in reversed(shape[1:]):
        found[:1] = [f"{found[0]} // {n}", f"{found[0]} % {n}"]
    return found


def number(x: float) -> str:
    """Return a number in a formula, with parentheses if it is negative."""
    return f"({x})" if x < 0 else f"{x}"


def times(factor: float, text: str) -> str:
    """Return a multiple of a product; the text alone for 1."""
    return text if factor == 1 else f"{number(factor)} * {text}"
