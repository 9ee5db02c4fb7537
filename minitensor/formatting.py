"""Printing a tensor: as in PyTorch, with "minitensor." before a type's name.

All elements share one format, chosen from the elements shown: whole numbers, `precision` digits
after the point, or scientific if the numbers are very large, very small or far apart. Above
`threshold` elements only the ends of each dimension are shown.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .core import Tensor, attach
from .dtype import FLOATING, bool_, get_default_dtype, int64
from .names import spelt
from .rounding import widened


@dataclasses.dataclass
class _Options:
    precision: int = 4  # digits after the point
    threshold: float = 1000  # elements, above which the middle is left out
    edgeitems: int = 3  # shown at each end then
    linewidth: int = 80
    sci_mode: bool | None = None  # None: as the numbers ask for
    html: bool = True  # a notebook shows a heat map


_PROFILES = {
    "default": _Options(),
    "short": _Options(precision=2, edgeitems=2),
    "full": _Options(threshold=math.inf),
}
_options = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
    html: bool | None = None,
) -> None:
    """Set how tensors print. None keeps a setting, but a `sci_mode` of None adapts to the numbers.

    `precision` is in digits after the point, `linewidth` in characters; above `threshold`
    elements, `edgeitems` are shown at each end of a dimension. `profile` is "default", "short" or
    "full", and sets all of these. `html=False` makes notebooks show the text instead of a heat map.
    """
    given = dict(precision=precision, threshold=threshold, edgeitems=edgeitems, linewidth=linewidth)
    for name in given:
        if profile is not None:
            setattr(_options, name, getattr(_PROFILES[profile], name))
        if given[name] is not None:
            setattr(_options, name, given[name])
    if html is not None:
        _options.html = html
    _options.sci_mode = sci_mode


def shows_html() -> bool:
    """Return True unless `set_printoptions(html=False)` asked notebooks to show text."""
    return _options.html


class Format:
    """The one format of all elements in `shown`."""

    def __init__(self, shown: np.ndarray) -> None:
        self.spec = ""
        self.point = ""  # follows a whole float
        if shown.dtype.kind not in FLOATING:
            self.width = max(len(str(x)) for x in shown.ravel().tolist())
            return
        values = shown[np.isfinite(shown) & (shown != 0)].astype(np.float64)
        whole = bool(np.all(values == np.ceil(values)))
        scientific = _options.sci_mode
        if scientific is None:
            low = float(np.abs(values).min(initial=np.inf))  # of Python's, which do not warn
            high = float(np.abs(values).max(initial=0.0))
            scientific = high > 1000 * low or high > 1e8 or (low < 1e-4 and not whole)
        if scientific and values.size:
            self.spec = f".{_options.precision}e"
        elif whole:
            self.spec, self.point = ".0f", "."
        else:
            self.spec = f".{_options.precision}f"
        widths = [len(format(x, self.spec) + self.point) for x in values.tolist()]
        self.width = max(widths, default=1)

    def __call__(self, x: Any) -> str:
        """Return the text of one element, as wide as the widest."""
        text = format(x, self.spec) if self.spec else str(x)
        if self.point and math.isfinite(x):
            text += self.point
        return text.rjust(self.width)


def _ends(length: int, shorten: bool) -> list[int | None]:
    """Return the indices to show of a dimension; None stands for those left out."""
    edge = _options.edgeitems
    if not shorten or length <= 2 * edge:
        return list(range(length))
    return [*range(edge), None, *range(length - edge, length)]


def _shown(array: np.ndarray) -> np.ndarray:
    """Return the elements that are printed when the middle is left out."""
    for axis, length in enumerate(array.shape):
        array = array.take([i for i in _ends(length, True) if i is not None], axis)
    return array


def _body(array: np.ndarray, indent: int, shorten: bool, form: Format) -> str:
    """Return the nested brackets; `indent` columns precede them."""
    if array.ndim == 0:
        return form(array.item())
    indices = _ends(array.shape[0], shorten)
    if array.ndim == 1:
        words = [" ..." if i is None else form(array[i].item()) for i in indices]
        per_line = max(1, (_options.linewidth - indent) // (form.width + 2))
        lines = [", ".join(words[i : i + per_line]) for i in range(0, len(words), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    parts = ["..." if i is None else _body(array[i], indent + 1, shorten, form) for i in indices]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def gradient_repr(t: Tensor) -> str:
    """Return the part of a tensor's text that tells where gradients go, "" if it needs none."""
    try:
        origin = None if t.grad_fn is None else t.grad_fn.name()
    except RuntimeError:  # a view whose history cannot be rebuilt, as its next use will say
        origin = "Invalid"
    if origin is not None:
        return f"grad_fn=<{origin}>"
    return "requires_grad=True" if t.requires_grad else ""


def whole_repr(t: Tensor, lines: int) -> str:
    """Return the text of a tensor if it shows all elements in so many lines, else ""."""
    if t._array.size > _options.threshold:
        return ""
    text = repr(t)
    return text if text.count("\n") < lines else ""


def tensor_repr(t: Tensor) -> str:
    """Return the text of a tensor: its values, and the properties that are not the default."""
    array = t._array
    suffixes = []
    prefix = "tensor("
    if array.size == 0:
        text = prefix + "[]"
        if array.ndim != 1:
            suffixes.append(f"size={tuple(array.shape)}")
        tells = False  # no element shows its type
    else:
        array = widened(array)
        shorten = array.size > _options.threshold
        form = Format(_shown(array) if shorten else array)
        text = prefix + _body(array, len(prefix), shorten, form)
        tells = t.dtype in (int64, bool_)
    if not tells and t.dtype != get_default_dtype():
        suffixes.append(f"dtype={spelt(t.dtype.name)}")
    if gradient := gradient_repr(t):
        suffixes.append(gradient)
    column = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if column + len(suffix) + 2 > _options.linewidth:
            text += ",\n" + " " * len(prefix) + suffix
            column = len(prefix) + len(suffix)
        else:
            text += ", " + suffix
            column += len(suffix) + 2
    return text + ")"


attach("tensor", "__repr__", tensor_repr)
