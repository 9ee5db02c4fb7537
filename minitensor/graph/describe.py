"""Descriptions of tensors and of the arguments of ops."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..core import OPS, Node, Tensor
from ..dtype import FLOATING, dtype
from ..ops.chain import Program
from .model import Value

_RANDOM = ("key", "keys", "seed")  # arguments that say which numbers are dropped, no more


def describe(key: str, kind: str, shape: Iterable[int], dtype: np.dtype) -> Value:
    """Return the value for an array of this shape, whose sizes have no names yet."""
    shape = tuple(map(int, shape))
    nbytes = math.prod(shape) * dtype.itemsize
    return Value(key, kind, shape, str(dtype), nbytes, tuple(map(str, shape)))


def readable(text: str) -> str:
    """Return a name of the user's with escapes in place of control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def part_of_path(name: str) -> str:
    """Return a name as it stands in a path: in quotes if it could be taken for something else."""
    return repr(name) if not name or set(name) & set(".#/:'\"") else readable(name)


def ranges(paths: Iterable[str]) -> str:
    """Return paths in few words: "drop, h.0-5.drop" for those of six layers."""
    found: dict[str, list[list[int]]] = {}
    for path in paths:
        numbers = [int(number) for number in re.findall(r"(?<!\w)\d+(?!\w)", path)]
        escaped = path.replace("{", "{{").replace("}", "}}")
        found.setdefault(re.sub(r"(?<!\w)\d+(?!\w)", "{}", escaped), []).append(numbers)
    shown: list[str] = []
    for form, rows in found.items():
        axes = [sorted(set(axis)) for axis in zip(*rows, strict=True)]
        whole = math.prod(map(len, axes)) == len(rows)
        parts = [
            [f"{axis[0]}-{axis[-1]}"]
            if len(axis) > 1 and axis[-1] - axis[0] == len(axis) - 1
            else list(map(str, axis))
            for axis in axes
        ]
        chosen = itertools.product(*parts) if whole else rows
        shown += [form.format(*row) for row in chosen]
    return ", ".join(shown)


def saved_arrays(node: Node) -> Iterator[np.ndarray]:
    """Yield the arrays that `node` keeps for the backward pass; a checkpoint keeps none."""
    values = [*node._saved.values, *(node._inputs.values if node._inputs else ())]
    while values:
        value = values.pop(0)
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, tuple | list):
            values[:0] = value


def memory_of(array: np.ndarray) -> np.ndarray:
    """Return the array that owns the memory of `array`."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def tensors_in(argument: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples and lists."""
    if isinstance(argument, Tensor):
        yield argument
    elif isinstance(argument, tuple | list):
        for a in argument:
            yield from tensors_in(a)


def measure(array: np.ndarray) -> dict[str, float] | None:
    """Return rms, min and max of the finite numbers, and the shares that are NaN and infinite."""
    if array.dtype.kind not in FLOATING or not array.size:
        return None
    bad = np.isnan(array)
    good = array[np.isfinite(array)].astype(np.float64)
    found = {"nan": float(bad.mean()), "inf": float(np.isinf(array).mean())}
    if good.size:
        found.update(
            rms=float(np.sqrt(np.mean(good * good))), min=float(good.min()), max=float(good.max())
        )
    return found


def norm(array: np.ndarray) -> float:
    """Return the 2-norm."""
    return float(np.sqrt(np.sum(np.square(array.astype(np.float64)))))


@functools.cache
def argument_names(forward: Any) -> tuple[str, ...]:
    """Return an op's names for its positional arguments; the last stands for all that follow."""
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    return tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)


def note(attributes: dict[str, Any], name: str, argument: Any) -> None:
    """Note an argument without tensors, in a form that JSON has."""
    random = name == "keys" or (name in _RANDOM and isinstance(argument, int))
    if argument is not None and not random and next(tensors_in(argument), None) is None:
        attributes[name] = _plain(argument)


def _plain(argument: Any) -> Any:
    if isinstance(argument, float) and not math.isfinite(argument):
        return str(argument)
    if isinstance(argument, bool | int | float | str):
        return argument
    if isinstance(argument, np.bool_ | np.number):
        return _plain(argument.item())
    if isinstance(argument, slice):
        ends = ("" if end is None else str(end) for end in (argument.start, argument.stop))
        return ":".join(ends) + ("" if argument.step is None else f":{argument.step}")
    if isinstance(argument, tuple | list):
        end = -1 if argument and argument[-1] is Ellipsis else None  # x[0, ...] is x[0]
        return [_plain(a) for a in argument[:end]]
    if argument is Ellipsis:
        return "..."
    if argument is None or isinstance(argument, np.dtype | dtype):
        return str(argument)
    if isinstance(argument, Program):
        return ", ".join(OPS[step].op_name for step, *_ in argument.steps)
    if isinstance(argument, np.ndarray) and not argument.ndim:
        return _plain(argument.item())
    if isinstance(argument, np.ndarray):
        return f"{argument.dtype} {tuple(argument.shape)}"
    return type(argument).__name__
