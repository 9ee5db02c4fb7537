"""The settings of modules, and the sizes in the modules that follow from them.

A module remembers the arguments of its constructor. The constructor does not run again to find out
what depends on them: its code is read (`constructors.py`). What was read is believed only where it
gives what the module has now.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ..core import Tensor
from ..nn import Module, ModuleList
from .constructors import Reader
from .sized import (
    UNKNOWN,
    Given,
    Made,
    Sized,
    Sizes,
    at,
    is_setting,
    is_size,
    known,
    leaves,
    settings_of,
    value_now,
)

_OWN = {"_parameters", "_buffers", "_modules", "_made_with", "_registered_hooks"}


class Settings:
    """The settings of a program: whole numbers that it and its modules were given.

    `loose` has the numbers in the modules of which it is not known whether they follow from
    settings.
    """

    def __init__(self) -> None:
        self.reader = Reader()
        self.modules: list[tuple[Module, dict[str, Any]]] = []  # with what was read of them
        self.loose: list[int] = []
        self.lists: list[ModuleList] = []
        self._seen: set[int] = set()
        self._shapes: dict[int, Any] = {}  # of tensors, by id()
        self._tensors: list[Tensor] = []

    @property
    def sizes(self) -> dict[str, int]:
        """The settings as they are now, by path."""
        return self.reader.sizes

    def add_argument(self, name: str, x: Any) -> None:
        """Make the whole numbers in an argument settings."""
        for path, leaf in leaves(x, name):
            if is_setting(leaf, path):
                self.reader.setting(path, leaf)

    def add_module(self, module: Module, where: str, read: Any = None) -> None:
        """Read how a module, and those in it, were made."""
        if id(module) in self._seen:
            return
        self._seen.add(id(module))
        made_with = module.__dict__.get("_made_with")
        reader = self.reader
        if made_with is not None and id(made_with) in reader.modules:
            made = reader.modules[id(made_with)]
        elif isinstance(read, Made) and _fits(read, module):
            made = read
        else:
            made = reader.module(module, where)
        found = reader.attributes(made)
        if isinstance(module, ModuleList) and len(module):
            self.lists.append(module)
        self.modules.append((module, found))
        for name, t in _tensors(module):
            if self._shapes.get(id(t), UNKNOWN) is UNKNOWN:
                self._shapes[id(t)] = self._shape(t, found.get(name, UNKNOWN))
                self._tensors.append(t)
        for name, x in self._others(module):
            read_value = found.get(name, UNKNOWN)
            if isinstance(read_value, Given) and read_value.x is x:
                self.add_argument(read_value.path, x)
            elif not _agree(read_value, x):
                self.loose += [n for _, n in leaves(x, name) if is_size(n)]
        for name, child in module.named_children():
            inner = f"{where}.{name}" if where else name
            self.add_module(child, inner, found.get(name, UNKNOWN))

    def _others(self, module: Module) -> Iterator[tuple[str, Any]]:
        for name, x in module.__dict__.items():
            if name not in _OWN and not isinstance(x, Tensor | Module):
                yield name, x

    def _shape(self, t: Tensor, read: Any) -> Any:
        now = value_now(read)
        same = isinstance(now, Tensor) and now._array.shape == t._array.shape
        return read if same else UNKNOWN

    def shapes(self, sizes: Sizes) -> Iterator[tuple[Tensor, tuple[int | None, ...]]]:
        """Yield the tensors of modules with their shapes at some settings, None if not known."""
        for t in self._tensors:
            shape: tuple[int | None, ...] = (None,) * t.ndim
            read = self._shapes[id(t)]
            if read is not UNKNOWN:
                try:
                    shape = at(read, sizes)._array.shape
                except Exception:  # no tensor at these sizes
                    shape = (None,) * t.ndim
            yield t, shape

    def depends(self, t: Tensor) -> frozenset[str] | None:
        """Return the settings that the shape of a tensor follows from; None if not known."""
        read = self._shapes.get(id(t), UNKNOWN)
        return None if read is UNKNOWN else settings_of(read)

    def vary(self, module: Module, found: dict[str, Any], twin: Module, sizes: Sizes) -> None:
        """Give what a copy of a module has besides tensors its values at other settings."""
        for name, x in self._others(module):
            read = found.get(name, UNKNOWN)
            if _agree(read, x) and (settings_of(read) or _has_config(read)):
                twin.__dict__[name] = at(read, sizes)

    @functools.cached_property
    def counted(self) -> frozenset[str]:
        """Return the settings that alone decide a branch or loop, such as a number of layers."""
        return self._broken(self._alone(), {path: 3 * n for path, n in self.sizes.items()})

    @functools.cached_property
    def growing(self) -> frozenset[str]:
        """Return the settings that say how many modules a list has: it can have more of them."""
        lengths = set(map(len, self.lists))
        several = {p: n + 1 for p, n in self.sizes.items() if n in lengths}
        counts = {p for p in self.counted if p in several}
        return frozenset(counts - self._broken(self._alone(), several, counts))

    def _alone(self) -> list[tuple[Sized, Any]]:
        return [(guard, now) for guard, now in self.reader.guards if len(guard.of) == 1]

    def broken(self, sizes: Sizes) -> frozenset[str]:
        """Return the settings that decide branches and loops of constructors otherwise now."""
        return self._broken(self.reader.guards, sizes, self.growing)

    def _broken(
        self,
        guards: Sequence[tuple[Sized, Any]],
        sizes: Sizes,
        growing: Collection[str] = (),
    ) -> frozenset[str]:
        found: set[str] = set()
        for guard, now in guards:
            try:
                then = guard.at(sizes)
            except Exception:  # such as a division by zero
                found |= guard.of
                continue
            path = next(iter(guard.of))
            counts = path in growing and now == self.sizes[path] and then == sizes.get(path)
            if then != now and not (counts and type(now) is int):
                found |= guard.of
        return frozenset(found)


def _tensors(module: Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters, buffers and other tensors of a module itself."""
    for name, t in (*module._parameters.items(), *module._buffers.items()):
        if t is not None:
            yield name, t
    for name, x in module.__dict__.items():
        if isinstance(x, Tensor):
            yield name, x


def _has_config(x: Any) -> bool:
    if type(x) in (tuple, list):
        return any(map(_has_config, x))
    return isinstance(x, Given)


def _agree(read: Any, x: Any) -> bool:
    """Return True if what was read is what is there now."""
    if isinstance(read, Given):
        return read.x is x
    if isinstance(read, Made):
        return isinstance(x, read.kind)
    if type(read) in (tuple, list) and type(x) is type(read):
        return len(read) == len(x) and all(map(_agree, read, x))
    if isinstance(read, dict) and isinstance(x, dict):
        return read.keys() == x.keys() and all(_agree(read[key], x[key]) for key in x)
    if not known(read):
        return False
    now = value_now(read) if isinstance(read, Sized) else read
    if isinstance(now, int | float | str) or isinstance(x, int | float | str):
        return type(now) is type(x) and now == x
    return True


def _fits(made: Made, module: Module) -> bool:
    """Return True if a module has the class and the arguments that were read."""
    if type(module) is not made.kind:
        return False
    if "_made_with" not in module.__dict__:
        return True
    args, options = module.__dict__["_made_with"]
    try:
        signature = inspect.signature(type(module).__init__)
        read = signature.bind(module, *made.args, **made.options).arguments
        now = signature.bind(module, *args, **options).arguments
    except (TypeError, ValueError):
        return False
    return read.keys() == now.keys() and all(
        _agree(read[key], now[key]) or not any(is_size(n) for _, n in leaves(now[key], key))
        for key in list(now)[1:]
    )
