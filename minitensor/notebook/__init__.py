"""Tensors in a notebook: a heat map of their numbers, or treescope's where that draws the cells.

A notebook asks a tensor for `_repr_html_`, and treescope, where it is installed and asked to draw
something, for `__treescope_ndarray_adapter__` and `__treescope_repr__`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import MethodType
from typing import Any

from ..core import Tensor, attach
from ..formatting import gradient_repr, shows_html, whole_repr
from .foldable import adapter, tensor_rendering
from .heatmap import element

LINES = 8  # of a text that stands below the heat map


def html(t: Tensor) -> str:
    """Return an HTML element: the tensor's type, a heat map, what is told of all numbers."""
    kind = " ".join([str(tuple(t._array.shape)), t.dtype.name])
    told = ", ".join(part for part in (kind, gradient_repr(t)) if part)
    return element(t._array, type(t).__name__, told, whole_repr(t, LINES))


def treescope_draws() -> bool:
    """Return True if treescope was made the notebook's own way to show objects."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    display = getattr(shell, "display_formatter", None)
    if display is None:
        return False
    shown_by = display.formatters["text/html"].type_printers.get(object)
    return str(getattr(shown_by, "__module__", "")).startswith("treescope.")


def repr_html(t: Tensor) -> Callable[[], str]:
    """The method that a notebook calls; AttributeError if it is to show the text, or treescope's.

    As a property, it can be absent, and treescope does not add its HTML to each tensor of a tree.
    """
    if not shows_html() or treescope_draws():
        raise AttributeError(
            "a tensor has no _repr_html_ after set_printoptions(html=False), and where treescope "
            "shows all objects of the notebook"
        )
    return MethodType(html, t)


attach("tensor", "_repr_html_", property(repr_html))
attach("tensor", "__treescope_repr__", tensor_rendering)
attach("tensor", "__treescope_ndarray_adapter__", adapter)
