"""Functions of Python, NumPy and this library, as they act on values that depend on settings."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import Tensor, wrap
from .expressions import Expressions, attempt
from .sized import UNKNOWN, Given, Lost, Made, lift, value_now

LIFTED = {abs, bool, divmod, float, int, max, min, pow, round, str, sum, repr, hash, complex}
EAGER = {dict, enumerate, list, set, frozenset, sorted, tuple, zip, reversed, any, all, iter}
_TENSORS_OF_NN = ("minitensor.nn.functional", "minitensor.nn.init", "minitensor.nn.multi_head")
_SAME_SHAPE = ("tril", "triu")
_NO_SHAPE = ("zeros", "ones", "empty", "full", "rand", "randn")  # their values do not matter


def _blank(*shape: Any, **options: Any) -> Tensor:
    """Return a tensor of a shape that takes no memory."""
    sizes = options.get("size", shape)
    flat = sizes[0] if sizes and isinstance(sizes[0], tuple | list) else sizes
    return wrap(np.broadcast_to(np.float32(0), tuple(n for n in flat if type(n) is int)))


def tensor_function(f: Any) -> Callable[..., Any] | None:
    """Return a function of this library or NumPy in the form in which it may run; else None."""
    name, where = getattr(f, "__name__", ""), getattr(f, "__module__", "") or ""
    if isinstance(f, np.ufunc) or where.partition(".")[0] == "numpy":
        return f if callable(f) else None
    owner = getattr(f, "__self__", None)
    if isinstance(owner, type):  # Op.call
        where = owner.__module__
    if where.partition(".")[0] != "minitensor" or isinstance(f, type):
        return None
    if where.startswith("minitensor.nn") and where not in _TENSORS_OF_NN:
        return None  # it may make modules: its code is read
    if name in _SAME_SHAPE:
        return lambda x, *_, **__: x
    if name in _NO_SHAPE:
        return _blank if name != "full" else lambda shape, *_, **__: _blank(shape)
    return f if callable(f) else None


def _range(reader: Expressions, args: list[Any], options: Any) -> Any:
    return range(*map(reader.counted, args))


def _isinstance(reader: Expressions, args: list[Any], options: Any) -> Any:
    x, kinds = args
    if isinstance(x, Made):
        return attempt(issubclass, [x.kind, kinds], {})
    if isinstance(x, Given):
        return attempt(isinstance, [x.x, kinds], {})
    now = value_now(x)
    return UNKNOWN if now is UNKNOWN else attempt(isinstance, [now, kinds], {})


def _type(reader: Expressions, args: list[Any], options: Any) -> Any:
    if len(args) == 1 and isinstance(args[0], Made):
        return args[0].kind
    if len(args) == 1 and isinstance(args[0], Given):
        return type(args[0].x)
    now = value_now(args[0]) if len(args) == 1 else UNKNOWN
    return UNKNOWN if now is UNKNOWN else type(now)


def _len(reader: Expressions, args: list[Any], options: Any) -> Any:
    items = reader.items(args[0], quietly=True)
    return lift(len, args[0]) if items is UNKNOWN else len(items)


def _getattr(reader: Expressions, args: list[Any], options: Any) -> Any:
    if not isinstance(args[1], str):
        return UNKNOWN
    found = reader.attribute(args[0], args[1])
    if found is UNKNOWN and len(args) > 2 and not isinstance(args[0], Made):
        present = isinstance(args[0], Given) and hasattr(args[0].x, args[1])
        return UNKNOWN if present or args[0] is UNKNOWN else args[2]
    return found


def _hasattr(reader: Expressions, args: list[Any], options: Any) -> Any:
    if isinstance(args[0], Given) and isinstance(args[1], str):
        return hasattr(args[0].x, args[1])
    return UNKNOWN


def _setattr(reader: Expressions, args: list[Any], options: Any) -> None:
    owner, name, value = args
    if isinstance(owner, Made):
        if not isinstance(name, str):
            raise Lost("it is not known which attribute")
        reader.attributes(owner)[name] = value


def _map(reader: Expressions, args: list[Any], options: Any) -> Any:
    columns = [reader.items(a) for a in args[1:]]
    return [reader.call(args[0], row, {}) for row in zip(*columns, strict=False)]


SPECIAL: dict[Any, Callable[[Expressions, list[Any], Any], Any]] = {
    range: _range,
    isinstance: _isinstance,
    type: _type,
    len: _len,
    getattr: _getattr,
    hasattr: _hasattr,
    setattr: _setattr,
    map: _map,
    print: lambda reader, args, options: None,
    namedtuple: lambda reader, args, options: UNKNOWN,
}


def _register(reader: Expressions, owner: Made, args: list[Any], options: dict[str, Any]) -> None:
    given = [*args, *options.values()]
    _setattr(reader, [owner, *given[:2]], {})


def _append(reader: Expressions, owner: Made, args: list[Any], options: dict[str, Any]) -> Made:
    found = reader.attributes(owner)
    for each in args:
        found[str(len(found))] = each
    return owner


def _extend(reader: Expressions, owner: Made, args: list[Any], options: dict[str, Any]) -> Made:
    return _append(reader, owner, reader.items(args[0]), {})


def _itself(reader: Expressions, owner: Made, args: list[Any], options: dict[str, Any]) -> Made:
    return owner


MODULE_METHODS: dict[str, Callable[[Expressions, Made, list[Any], dict[str, Any]], Any]] = {
    "register_parameter": _register,
    "register_buffer": _register,
    "register_module": _register,
    "add_module": _register,
    "append": _append,
    "extend": _extend,
    **dict.fromkeys(
        ("apply", "eval", "train", "to", "requires_grad_", "float", "double", "half"), _itself
    ),
}
