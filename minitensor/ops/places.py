"""The words of `Op.cell`: letters for the axes of a result, and brackets around places."""

from __future__ import annotations

from collections.abc import Sequence

PLACE = "ijlmnorstu"  # no k, x, y or other name that ops have for their arguments


def places(ndim: int) -> list[str]:
    """Return the letters of the axes of a result: ["i", "j"]."""
    return list(PLACE[:ndim])


def at(name: str, subscripts: Sequence[str]) -> str:
    """Return a tensor with brackets: "x[i, :]"; without subscripts its name."""
    return f"{name}[{', '.join(subscripts)}]" if subscripts else name


def along(ndim: int, axes: Sequence[int], span: str = ":") -> list[str]:
    """Return the place in the result, with `span` in place of the letters of `axes`."""
    return [span if axis in axes else letter for axis, letter in enumerate(places(ndim))]


def reduced(ndim: int, axes: Sequence[int], keepdim: bool) -> list[str]:
    """Return what a cell of a reduction reads of an argument: ":" along `axes`."""
    if keepdim:
        return along(ndim, axes)
    rest = iter(PLACE)
    return [":" if axis in axes else next(rest) for axis in range(ndim)]
