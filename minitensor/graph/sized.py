"""Values that follow from settings, and the containers that settings come in.

A `Sized` is a value that can be asked for at other settings. It is made from arguments, `Given` and
the whole numbers in them, by arithmetic; what cannot be computed so is `UNKNOWN`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any

from ..core import Tensor
from ..nn import Module

Sizes = Mapping[str, int]  # of settings, by path; those not in it keep theirs


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"

    def __deepcopy__(self, memo: Any) -> _Unknown:
        return self


UNKNOWN: Any = _Unknown()


class Lost(Exception):
    """The rest of a function cannot be followed."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sized:
    """A value that may depend on settings: `at(sizes)`, and with `at({})` what it is now."""

    at: Callable[[Sizes], Any]
    of: frozenset[str]  # the settings that it may depend on


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """An argument with fields, such as a config; `path` leads to it: "config"."""

    x: Any
    path: str


class Readable:
    """Base of functions whose code is read."""


@dataclasses.dataclass(eq=False)
class Made:
    """An object that a constructor makes: its class, its arguments, and then its attributes."""

    kind: type
    args: Sequence[Any]
    options: Mapping[str, Any]
    attributes: dict[str, Any] | None = None  # None until its constructor was read


class AllUnknown(dict[str, Any]):
    """The attributes of an object that may have been changed."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return UNKNOWN."""
        return UNKNOWN

    def __contains__(self, key: object) -> bool:
        return False

    def values(self) -> Any:
        """Raise Lost."""
        raise Lost("it may have been changed")


def is_size(x: Any) -> bool:
    """Return True for a whole number above 1."""
    return isinstance(x, int) and not isinstance(x, bool) and x > 1


def is_setting(x: Any, path: str) -> bool:
    """Return True for an argument that may be a size: a whole number above 1, and no token."""
    return is_size(x) and not last(path).endswith(("_id", "_ids", "_idx", "_index", "seed"))


def is_config(x: Any) -> bool:
    """Return True for an object whose fields are settings: no module, tensor or function."""
    kind = type(x)
    return (
        hasattr(x, "__dict__")
        and not isinstance(x, Module | Tensor | type | ModuleType)
        and not callable(x)
        and (dataclasses.is_dataclass(x) or isinstance(kind.__init__, FunctionType))
        and kind.__module__.partition(".")[0] not in ("logging", "threading", "numpy")
    )


# Values that depend on settings


def settings_of(x: Any) -> frozenset[str]:
    """Return the settings that a value, or what is in it, may depend on."""
    if isinstance(x, Sized):
        return x.of
    if type(x) in (tuple, list):
        return frozenset[str]().union(*map(settings_of, x))
    if isinstance(x, dict):
        return settings_of(list(x.values()))
    if isinstance(x, slice):
        return settings_of([x.start, x.stop, x.step])
    return frozenset()


def known(x: Any) -> bool:
    """Return True if a value, with all that is in it, can be computed at other settings."""
    if type(x) in (tuple, list):
        return all(map(known, x))
    if isinstance(x, dict):
        return all(map(known, x.values()))
    return x is not UNKNOWN and not isinstance(x, Made | Readable)


def at(x: Any, sizes: Sizes) -> Any:
    """Return a value, with all that is in it, at some settings."""
    if isinstance(x, Sized):
        return x.at(sizes)
    if type(x) in (tuple, list):
        return type(x)(at(each, sizes) for each in x)
    if isinstance(x, dict):
        return {key: at(each, sizes) for key, each in x.items()}
    if isinstance(x, slice):
        return slice(at(x.start, sizes), at(x.stop, sizes), at(x.step, sizes))
    if isinstance(x, Given):
        return rebuilt(
            x.x, x.path, lambda leaf, path: sizes.get(path, leaf) if is_size(leaf) else leaf
        )
    return x


def lift(f: Callable[..., Any], *args: Any, lazy: bool = False, **options: Any) -> Any:
    """Return `f(*args, **options)`, as a `Sized` if an argument is one, or if `lazy`."""
    if not known(args) or not known(options):
        return UNKNOWN
    of = settings_of(args) | settings_of(options)

    def compute(sizes: Sizes) -> Any:
        return f(*at(args, sizes), **at(options, sizes))

    if of or lazy or has_sized([args, options]):
        return Sized(compute, of)
    try:
        return compute({})
    except Exception as error:  # the constructor would have failed: this was misread
        raise Lost(str(error)) from error


def has_sized(x: Any) -> bool:
    """Return True if a value, or what is in it, is a `Sized`."""
    if type(x) in (tuple, list):
        return any(map(has_sized, x))
    if isinstance(x, dict):
        return any(map(has_sized, x.values()))
    return isinstance(x, Sized)


def value_now(x: Any) -> Any:
    """Return the value of `x` now; UNKNOWN if it cannot be computed."""
    if not known(x):
        return UNKNOWN
    try:
        return at(x, {})
    except Exception:
        return UNKNOWN


# Nested containers


def last(path: str) -> str:
    """Return the last name of a path."""
    return path.rpartition(".")[2]


def _inside(x: Any, where: str) -> list[tuple[Any, str, Any]] | None:
    """Return keys, paths and values of a container or config; None for anything else."""
    if type(x) in (dict, OrderedDict):
        return [(key, f"{where}.{key}", value) for key, value in x.items()]
    if type(x) in (tuple, list):
        return [(i, f"{where}[{i}]", value) for i, value in enumerate(x)]
    if is_config(x):
        return [(name, f"{where}.{name}", value) for name, value in vars(x).items()]
    return None


def leaves(x: Any, where: str, deepest: int = 4) -> Iterator[tuple[str, Any]]:
    """Yield what is in nested containers, with paths such as "config.nhead"."""
    inside = _inside(x, where) if deepest else None
    if inside is None:
        yield where, x
    for _, path, value in inside or ():
        yield from leaves(value, path, deepest - 1)


def rebuilt(x: Any, where: str, leaf: Callable[[Any, str], Any], deepest: int = 4) -> Any:
    """Return a copy of nested containers with `leaf(x, path)` in place of what is in them."""
    inside = _inside(x, where) if deepest else None
    if inside is None:
        return leaf(x, where)
    made = [(key, rebuilt(value, path, leaf, deepest - 1)) for key, path, value in inside]
    if isinstance(x, dict):
        return type(x)(made)
    if isinstance(x, tuple | list):
        return type(x)(value for _, value in made)
    twin = copy.copy(x)
    for name, value in made:
        object.__setattr__(twin, name, value)  # also of a frozen one
    return twin
