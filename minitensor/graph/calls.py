"""Calls of the library's functions that are no ops: what makes tensors, and where gradients end.

`zeros(3, 4)` makes a tensor from nothing; `multinomial(p, 1)` and `x.detach()` pass data on without
a gradient. None of them runs an op, so they are seen from outside: by their code, as they return.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType, FunctionType
from typing import Any

import numpy as np

from .. import creation, sampling
from ..core import NAMESPACES, OPS, Op, Tensor
from ..dtype import dtype
from ..nn.functional import multi_head_attention_forward
from ..nn.utils import parameters_to_vector, rnn
from ..ops import assign
from .describe import note, tensors_in
from .frames import name_of_tensor
from .model import ASSIGNING, FunctionCall
from .nodes import Nodes
from .trips import RETURNING, Reached, Trips

_NUMBER = assign.number.__code__
_NOT_SHOWN = ("device", "generator", "memory_format", "requires_grad")


@dataclass
class Call:
    """A call of a public function."""

    name: str
    frame: FrameType
    arguments: dict[str, Any]  # by the names of its parameters
    defaults: dict[str, Any]
    packed: str = ""  # the parameter that takes any number of them: *args
    inputs: list[tuple[str, Tensor]] = field(default_factory=list)  # whose numbers it reads
    text: str = ""  # as a reader would write it: "arange(7)"

    def made(self, result: Any) -> list[Tensor]:
        """Return the tensors in its result that it was not given."""
        if result is None and self.name == "Tensor":
            result = self.frame.f_locals.get("self")
        given = [t for argument in self.arguments.values() for t in tensors_in(argument)]
        return [t for t in tensors_in(result) if not any(t is x for x in given)]

    def attributes(self) -> dict[str, Any]:
        """Return the arguments that are no tensors, in a form that JSON has."""
        found: dict[str, Any] = {}
        for name, x in self.arguments.items():
            if name == self.packed:  # einsum("ij,jk", a, b)
                plain = [each for each in x if next(tensors_in(each), None) is None]
                x = plain[0] if len(plain) == 1 else plain or None
            if name not in _NOT_SHOWN and x is not self.defaults[name]:
                note(found, name, x)
        return found


class Calls:
    """Follows the calls of public functions that are running."""

    def __init__(self, nodes: Nodes, trips: Trips) -> None:
        self._nodes = nodes
        self._trips = trips
        self._values = nodes.values
        self._functions = nodes.functions
        self._running: list[Call] = []
        self.numbers: dict[int, Any] = {}  # numbers that became 0-dim tensors, by id()

    def begins(self, frame: FrameType) -> None:
        """Note that a function begins: is it a public one without an op?"""
        if frame.f_code in _public():
            call = begun(frame)
            if call is not None:
                self._running.append(call)
                if not call.name.endswith("_") or call.name in ASSIGNING:
                    own = FunctionCall(call.name, public=True, attributes=call.attributes())
                    self._values.given(own, call.inputs)
                    self._functions.public[frame] = own

    def returns(self, frame: FrameType, result: Any) -> None:
        """Note that a function returns."""
        if frame.f_code is _NUMBER and isinstance(result, Tensor):
            self.numbers[id(result)] = frame.f_locals["value"]
            self._values.kept.append(result)
        if not any(call.frame is frame for call in self._running):
            return
        while (call := self._running.pop()).frame is not frame:
            self._functions.public.pop(call.frame, None)  # an error went through that one
        self._functions.public.pop(frame, None)
        made = [t for t in call.made(result) if id(t) not in self._values.tensors]
        if made:
            self._made(call, made)
        elif call.name.endswith("_") and isinstance(result, Tensor):  # empty(3).normal_()
            value = self._values.graph.values.get(self._values.known(result) or "")
            if value is not None and value.kind == "constant" and not value.origin:
                value.origin = call.text

    def _made(self, call: Call, made: list[Tensor]) -> None:
        """Note tensors that are to become values when they are used."""
        node = self._nodes.here(call.name, call.frame)
        node.gradient, node.attributes = False, call.attributes()
        inputs = [(name, t, self._values.known(t)) for name, t in call.inputs]

        back: dict[str, Reached] = {}  # what comes back from Python or NumPy
        seen: set[int] = set()
        for name, x in call.arguments.items() if call.name in RETURNING else ():
            if not isinstance(x, Tensor) and name not in ("size", "steps", "dtype", "device"):
                reached = self._trips.reach(x, call.frame.f_back)
                back[name] = {n: sure for n, sure in reached.items() if sure or n not in seen}
                seen |= set(reached)

        def passed_on(frame: FrameType | None) -> None:
            for name, t, known in inputs:
                if known is None or any(out._array is t._array for out in made):  # as it is now
                    known = self._values.of(t, frame)
                self._nodes.read(node, name, known)
            for name, reached in back.items():
                self._trips.read(node, name, reached)
            self._nodes.enter(node)
            for t in made:
                self._values.late.pop(id(t), None)
                value = self._values.graph.values[self._nodes.made(node, t)]
                name = self._values.name(t, frame)
                value.names = [name] if name else []

        text = call.text
        for t in made:
            self._values.kept.append(t)

            def new(frame: FrameType | None, t: Tensor = t) -> None:
                value = self._values.graph.values[self._values.source(t, frame, text)]
                value.group, value.function = node.group, node.function

            self._values.late[id(t)] = passed_on if inputs or any(back.values()) else new


def begun(frame: FrameType) -> Call | None:
    """Return the call that begins in `frame`, if it is one of a public function without an op."""
    for same_code, function in _public()[frame.f_code]:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        if all(frame.f_locals.get(free) is cell.cell_contents for free, cell in cells):
            name = same_code
            break
    else:
        return None
    arguments = {}
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters:
        if parameter.name in frame.f_locals:
            arguments[parameter.name] = frame.f_locals[parameter.name]
    call = Call(name, frame, arguments, {p.name: p.default for p in parameters})
    call.packed = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "")
    like = ""  # what only the shape is read of
    if name.endswith("_like") or name.startswith("new_"):
        like = parameters[0].name
    shown = dict(arguments)
    if isinstance(t := arguments.get(like), Tensor):
        shown[like] = Name((frame.f_back and name_of_tensor(t, frame.f_back)) or "...")
    call.text = f"{name}({', '.join(_written(parameters, shown))})"
    for argument, x in arguments.items():
        if argument != like:
            call.inputs += [("x" if argument == "self" else argument, t) for t in tensors_in(x)]
    return call


class Name(str):
    """The name of a tensor, which is written without quotes."""

    __slots__ = ()


def _written(parameters: list[inspect.Parameter], arguments: dict[str, Any]) -> Iterator[str]:
    """Yield arguments as one writes them: those at their default left out."""
    named = False  # once one is left out, the others need their names
    for parameter in parameters:
        x = arguments.get(parameter.name)
        if parameter.name in (*_NOT_SHOWN, "self"):
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            yield from map(_text, x or ())
        elif x is parameter.default or (type(x) is int and x == parameter.default):
            named = True
        else:
            named |= parameter.kind is parameter.KEYWORD_ONLY
            yield f"{parameter.name}={_text(x)}" if named else _text(x)


def _text(x: Any) -> str:
    if isinstance(x, np.dtype | dtype | Name):
        return str(x)
    if isinstance(x, str | slice | range) or x is None or x is Ellipsis:
        return repr(x)
    if isinstance(x, bool | int | float | np.generic):
        return f"{x.item() if isinstance(x, np.generic) else x!r}"
    flat = isinstance(x, list | tuple) and not any(isinstance(e, list | tuple) for e in x)
    if flat and len(x) <= 4:
        inner = ", ".join(map(_text, x))
        return f"[{inner}]" if isinstance(x, list) else f"({inner}{',' * (len(x) == 1)})"
    return "..."


@functools.cache
def _public() -> dict[CodeType, list[tuple[str, Callable[..., Any]]]]:
    """Return the public functions and methods that run no op of their own, by their code."""
    own = {id(inspect.unwrap(op.call)) for op in OPS.values() if op.forward is not Op.forward}
    found: dict[CodeType, list[tuple[str, Any]]] = {}
    spaces: list[dict[str, Any]] = [
        {name: getattr(creation, name) for name in creation.__all__},
        {name: getattr(sampling, name) for name in sampling.__all__},
        NAMESPACES["torch"],
        NAMESPACES["functional"],
        dict(vars(Tensor)),
        {name: getattr(rnn, name) for name in rnn.__all__},
        {f.__name__: f for f in (multi_head_attention_forward, parameters_to_vector)},
        {"Tensor": Tensor.__init__, "deepcopy": Tensor.__deepcopy__},
        {"setitem": vars(Tensor)["__setitem__"]},
    ]
    leaving = {"item", "tolist", "numpy"}
    for space in spaces:
        for name, x in space.items():
            function: Any = inspect.unwrap(getattr(x, "fget", x))
            if not isinstance(function, FunctionType) or id(function) in own:
                continue
            if name.startswith("_") or name in leaving or name == "to":
                continue
            if any(function is other for _, other in found.get(function.__code__, ())):
                continue
            found.setdefault(function.__code__, []).append((name, function))
    return found
