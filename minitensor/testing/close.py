"""`assert_close`, with PyTorch's rules and messages."""

from __future__ import annotations

import cmath
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ..core import Size, Tensor, wrap
from ..dtype import FLOATING, is_dtype, promote_types

# rtol and atol of each type; of others 0.
TOLERANCES = {
    "bfloat16": (1.6e-2, 1e-5),
    "float16": (1e-3, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
    "complex128": (1e-7, 1e-7),  # of Python's complex numbers
}
NUMBERS = {int: np.int64, float: np.float64, complex: np.complex128}


class _Differs(Exception):
    """Two things differ, or cannot be compared."""

    def __init__(self, kind: type[Exception], message: str, path: tuple[Any, ...]) -> None:
        super().__init__(message)
        self.kind, self.message, self.path = kind, message, path

    def shown(self, msg: str | Callable[[str], str] | None) -> Exception:
        """Return the exception that users see."""
        if isinstance(msg, str):
            return self.kind(msg)
        message = self.message
        if self.path:
            place = "".join(f"[{part!r}]" for part in self.path)
            message += f"\n\nThe failure occurred for item {place}"
        return self.kind(message if msg is None else msg(message))


@dataclass(frozen=True)
class _Rules:
    """The tolerances within which numbers count as close."""

    allow_subclasses: bool
    rtol: float | None
    atol: float | None
    equal_nan: bool
    check_dtype: bool
    check_stride: bool

    def tolerances(self, dtypes: Sequence[Any], path: tuple[Any, ...]) -> tuple[float, float]:
        """Return rtol and atol: the given ones, or the looser ones of two types."""
        if self.rtol is not None and self.atol is not None:
            return self.rtol, self.atol
        if self.rtol is not None or self.atol is not None:
            missing = "rtol" if self.rtol is None else "atol"
            raise _Differs(
                ValueError,
                "Both 'rtol' and 'atol' must be either specified or omitted, "
                f"but got no {missing}.",
                path,
            )
        found = [TOLERANCES.get(np.dtype(dtype).name, (0.0, 0.0)) for dtype in dtypes]
        return max(r for r, _ in found), max(a for _, a in found)


Comparison = Callable[[], str | None]  # returns the message of a difference, or None


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """Raise AssertionError unless `actual` and `expected` are close, as PyTorch's `assert_close`.

    They are tensors, arrays, numbers, booleans, None, or sequences and mappings of such, compared
    item by item. Numbers a and e are close if both are finite and |a - e| <= atol + rtol * |e|, or
    if they are equal; two NaN only with `equal_nan`. The tolerances are given both or not at all;
    by default they are those of the type, the looser of two:

        bfloat16 1.6e-2 and 1e-5; float16 1e-3 and 1e-5; float32 1.3e-6 and 1e-5;
        float64 1e-7 and 1e-7; others 0 and 0

    Shapes must agree, and types, unless `check_dtype` is False; strides with `check_stride`;
    classes exactly with `allow_subclasses=False`. There is one device and one layout, so
    `check_device` and `check_layout` have nothing to check. `msg` replaces the message; a function
    makes the new message from the one there would be.

    Raises AssertionError for a difference, which names the item, the share of elements, the
    greatest differences and where they are; TypeError for values that cannot be compared;
    ValueError for one tolerance without the other.
    """
    __tracebackhide__ = True
    rules = _Rules(allow_subclasses, rtol, atol, equal_nan, check_dtype, check_stride)
    try:
        for path, comparison in list(_pairs(actual, expected, (), rules)):
            wrong = comparison()
            if wrong is not None:
                raise _Differs(AssertionError, wrong, path)
    except _Differs as found:
        error = found.shown(msg)
    else:
        return
    raise error


def _pairs(
    actual: Any, expected: Any, path: tuple[Any, ...], rules: _Rules
) -> Iterator[tuple[tuple[Any, ...], Comparison]]:
    """Return the comparisons of all items, each with its path."""

    def stop(kind: type[Exception], message: str) -> NoReturn:
        raise _Differs(kind, message, path)

    both = (actual, expected)
    if all(isinstance(x, Sequence) and not isinstance(x, str) for x in both):
        if len(actual) != len(expected):
            stop(
                AssertionError,
                f"The length of the sequences mismatch: {len(actual)} != {len(expected)}",
            )
        for number, (a, e) in enumerate(zip(actual, expected, strict=True)):
            yield from _pairs(a, e, (*path, number), rules)
        return
    if all(isinstance(x, Mapping) for x in both):
        keys = set(actual)
        if keys != set(expected):
            stop(
                AssertionError,
                "The keys of the mappings do not match:\n"
                f"Missing keys in the actual mapping: {sorted(set(expected) - keys)}\n"
                f"Additional keys in the actual mapping: {sorted(keys - set(expected))}",
            )
        order: Any = keys
        with contextlib.suppress(TypeError):  # keys of several types have no order
            order = sorted(keys)
        for key in order:
            yield from _pairs(actual[key], expected[key], (*path, key), rules)
        return
    found = _comparison(actual, expected, path, rules)
    if found is None:
        stop(
            TypeError,
            "No comparison pair was able to handle inputs of type "
            f"{type(actual)} and {type(expected)}.",
        )
    yield path, found


def _comparison(
    actual: Any, expected: Any, path: tuple[Any, ...], rules: _Rules
) -> Comparison | None:
    """Return the comparison of two things that have no items; None if there is none for them."""
    both = (actual, expected)
    if actual is None or expected is None:
        message = f"None mismatch: {actual} is not {expected}"
        return lambda: None if actual is expected else message
    if all(isinstance(x, bool | np.bool_) for x in both):
        message = f"Booleans mismatch: {actual} is not {expected}"
        return lambda: None if bool(actual) is bool(expected) else message
    if all(isinstance(x, int | float | complex | np.number) for x in both):
        a, e = (x.item() if isinstance(x, np.number) else x for x in both)
        if type(a) in NUMBERS and type(e) in NUMBERS:
            limits = rules.tolerances([NUMBERS[type(a)], NUMBERS[type(e)]], path)
            return lambda: _numbers(a, e, *limits, rules)
    related = isinstance(actual, type(expected)) or isinstance(expected, type(actual))
    if not related or (not rules.allow_subclasses and type(actual) is not type(expected)):
        return None
    arrays = [_array(x) for x in both]
    if arrays[0] is None or arrays[1] is None:
        return None
    limits = rules.tolerances([a.dtype for a in arrays], path)
    return lambda: _tensors(arrays[0], arrays[1], *limits, rules)


def _array(x: Any) -> Any:
    """Return the array of a tensor or array; None for anything else."""
    if isinstance(x, Tensor):
        return x._array
    return x if isinstance(x, np.ndarray) and is_dtype(x.dtype) else None


def _numbers(actual: Any, expected: Any, rtol: float, atol: float, rules: _Rules) -> str | None:
    if rules.check_dtype and type(actual) is not type(expected):
        return f"The (d)types do not match: {type(actual)} != {type(expected)}."
    if actual == expected:
        return None
    if rules.equal_nan and cmath.isnan(actual) and cmath.isnan(expected):
        return None
    difference = abs(actual - expected)
    if cmath.isfinite(difference) and difference <= atol + rtol * abs(expected):
        return None
    return _scalars_differ(actual, expected, rtol, atol)


def _tensors(
    actual: np.ndarray, expected: np.ndarray, rtol: float, atol: float, rules: _Rules
) -> str | None:
    """Return the difference of two tensors: in shapes, strides, types or values."""

    def strides(x: np.ndarray) -> tuple[int, ...]:
        return tuple(s // x.itemsize for s in x.strides)

    attributes: list[tuple[str, bool, Callable[[np.ndarray], Any]]] = [
        ("shape", True, lambda x: Size(x.shape)),
        ("stride()", rules.check_stride, strides),
        ("dtype", rules.check_dtype, lambda x: x.dtype),
    ]
    for name, wanted, of in attributes:
        a, e = of(actual), of(expected)
        if wanted and a != e:
            return f"The values for attribute '{name}' do not match: {a} != {e}."
    if actual.dtype != expected.dtype:
        dtype = promote_types(actual.dtype, expected.dtype)
        actual, expected = actual.astype(dtype), expected.astype(dtype)
    # Integers also where float64 cannot tell them apart.
    if rtol == atol == 0 and actual.dtype.kind not in FLOATING:
        close = np.asarray(actual == expected)
    else:
        close = wrap(actual).isclose(wrap(expected), rtol, atol, rules.equal_nan)._array
    if close.all():
        return None
    if not actual.ndim:
        return _scalars_differ(actual.item(), expected.item(), rtol, atol)
    if actual.dtype.kind not in FLOATING:
        actual, expected = actual.astype(np.int64), expected.astype(np.int64)
    with np.errstate(all="ignore"):
        absolute = np.abs(actual - expected)
        absolute[close] = 0
        parts = [absolute, np.abs(expected)]
        if actual.dtype.kind not in FLOATING:  # a quotient of integers is float32
            parts = [part.astype(np.float32) for part in parts]
        relative = parts[0] / parts[1]
    relative[close] = 0
    count = close.size - int(close.sum())
    message = f"Mismatched elements: {count} / {close.size} ({count / close.size:.1%})"
    places = [int(x.argmax()) for x in (absolute, relative)]
    indices = [tuple(map(int, np.unravel_index(p, close.shape))) for p in places]
    greatest = [
        f"difference: {x.flat[place].item()} at index {index}"
        for x, place, index in zip((absolute, relative), places, indices, strict=True)
    ]
    return _report(
        "Tensor-likes",
        message,
        f"Greatest absolute {greatest[0]}",
        f"Greatest relative {greatest[1]}",
        rtol,
        atol,
    )


def _scalars_differ(actual: Any, expected: Any, rtol: float, atol: float) -> str:
    absolute = abs(actual - expected)
    relative = float("inf") if expected == 0 else absolute / abs(expected)
    return _report(
        "Scalars",
        f"Expected {expected} but got {actual}.",
        f"Absolute difference: {absolute}",
        f"Relative difference: {relative}",
        rtol,
        atol,
    )


def _report(
    what: str, statistics: str, absolute: str, relative: str, rtol: float, atol: float
) -> str:
    """Return the message; with zero tolerances it says "equal" instead of "close"."""
    equal = rtol == 0 and atol == 0
    ends = ["" if equal else f" (up to {limit} allowed)" for limit in (atol, rtol)]
    return (
        f"{what} are not {'equal' if equal else 'close'}!\n\n"
        f"{statistics}\n{absolute}{ends[0]}\n{relative}{ends[1]}"
    )
