"""Python frames: the user's line, and the names that variables give to tensors."""

from __future__ import annotations

import functools
import inspect
import linecache
import os
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ..core import Tensor
from ..errors import PACKAGE, is_library
from ..nn import Module
from .describe import part_of_path, readable, tensors_in
from .model import FunctionCall, Group, Node
from .values import Values

_NN = PACKAGE + "nn" + os.sep
_TRACE = str(Path(__file__).with_name("trace.py"))  # its caller is not traced
_STDLIB = sysconfig.get_path("stdlib") + os.sep
_INSTALLED = tuple(sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib"))
_DIMENSIONS = re.compile(r"_(?=\d*[A-Z])[A-Z0-9]+$")  # at the end of a name, as in scores_NHLS
CALL = Module.__call__.__code__


def first_argument(frame: FrameType) -> Any:
    """Return what a function has as its first positional argument, however it calls it."""
    code = frame.f_code
    if code.co_argcount:
        return frame.f_locals.get(code.co_varnames[0])
    packed = code.co_varnames[code.co_kwonlyargcount : code.co_kwonlyargcount + 1]
    rest = frame.f_locals.get(packed[0], ()) if code.co_flags & inspect.CO_VARARGS else ()
    return next(iter(rest), None)


def is_method(frame: FrameType) -> bool:
    """Return True if a function was defined in a class."""
    outer = frame.f_code.co_qualname.rpartition(".")[0]
    return bool(outer) and not outer.endswith("<locals>")


def forward_of(frame: FrameType) -> Module | None:
    """Return the module whose `forward` runs in `frame`, or None."""
    if frame.f_code.co_name != "forward":
        return None
    module = first_argument(frame)
    if not isinstance(module, Module):
        return None
    given = getattr(vars(module).get("forward"), "__func__", None)  # model.forward = a function
    mine = is_method(frame) or getattr(given, "__code__", None) is frame.f_code
    return module if mine else None


def named_tensors(frame: FrameType) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a function's variables with the names the graph gives them."""
    for name, value in frame.f_locals.items():
        if name.startswith(("_", ".")) or name in ("self", "args", "kwargs"):
            continue
        if isinstance(value, Tensor):
            yield _DIMENSIONS.sub("", name), value
        elif type(value) in (list, tuple) and len(value) <= 64:
            for number, element in enumerate(value):
                if isinstance(element, Tensor):
                    yield f"{_DIMENSIONS.sub('', name)}[{number}]", element


def name_of_tensor(t: Tensor, frame: FrameType) -> str:
    """Return the variable, attribute or global that a tensor is in, in functions that run."""
    found = next((name for name, value in named_tensors(frame) if value is t), "")
    for running in () if found else users(frame):
        for name, value in _variables(running):
            if value is t:
                return _DIMENSIONS.sub("", name)
            items: Iterable[tuple[Any, Any]] = ()
            if type(value) in (list, tuple):
                items = ((f"{name}[{number}]", x) for number, x in enumerate(value))
            elif type(value) is dict:
                items = value.items()
            for inner, x in items:
                if x is t:
                    return readable(str(inner))
    return found


def name_of_module(module: Module, frame: FrameType | None) -> str:
    """Return the variable, or the place in a list or dict, that a module is in, or ""."""
    for running in users(frame):
        code = running.f_code
        passing = ""  # a variable that may belong to a loop: the list is better
        for name, value in _variables(running):
            if value is module:
                if name not in code.co_varnames[code.co_argcount :]:
                    return part_of_path(name)
                passing = part_of_path(name)
            items = enumerate(value) if type(value) in (list, tuple) else ()
            for key, x in value.items() if type(value) is dict else items:
                if x is module:
                    return f"{part_of_path(name)}.{part_of_path(str(key))}"
        if passing:
            return passing
    return ""


def _variables(frame: FrameType) -> Iterator[tuple[str, Any]]:
    """Yield the variables of a function, the attributes of its object, if any, and its globals."""
    owner = first_argument(frame) if is_method(frame) else None
    for name, value in frame.f_locals.items():
        hidden = name.startswith(".") or name in ("self", "args", "kwargs")
        if not hidden and (value is not owner or owner is None):
            yield name, value
    if not isinstance(owner, Tensor):
        yield from getattr(owner, "__dict__", {}).items()
    for name in frame.f_code.co_names:
        if name in frame.f_globals:
            yield name, frame.f_globals[name]


def users(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the running functions of the user's that are traced, the innermost first."""
    while frame is not None and frame.f_code.co_filename != _TRACE:
        if is_users(frame.f_code.co_filename):
            yield frame
        frame = frame.f_back


def arguments_of(frame: FrameType) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that a function is given, by the names of its parameters."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS)
    for name in code.co_varnames[:count]:
        yield from ((name, t) for t in tensors_in(frame.f_locals.get(name)))


class Functions:
    """The functions that run, each call with a name: "rotate", and "rotate#2" later on.

    They are the user's own, and the `public` ones that these call, by their frames.
    """

    def __init__(self, values: Values) -> None:
        self.graph = values.graph
        self._values = values
        self.public: dict[FrameType, FunctionCall] = {}
        self._names: dict[FrameType, str] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def name(self, frame: FrameType | None, group: str) -> str:
        """Return the innermost function that runs in `frame`, in the module `group`, or ""."""
        chain: list[FrameType | None] = []  # from the inside out; None for a lambda
        public = None  # the outermost one since the last function of the user's
        while frame is not None and frame.f_code.co_filename != _TRACE:
            code = frame.f_code
            users_own = is_users(code.co_filename)
            if frame in self.public:
                public = frame
            elif users_own and public is not None:
                chain.append(public)
                public = None
            if code is CALL or forward_of(frame) is not None:
                break
            if users_own:
                chain.append(None if code.co_name.startswith("<") else frame)
            frame = frame.f_back
        else:  # the outermost one is where all begins
            starts = (at for at, f in enumerate(chain) if f is None or f not in self.public)
            del chain[max(starts, default=-1) :]
        name = ""
        for running in reversed(chain):
            name = name if running is None else self._name(running, group, name)
        return name

    def _name(self, frame: FrameType, group: str, outer: str) -> str:
        if frame not in self._names:
            call = self.public.get(frame)
            if call is None:
                kind, _, name = frame.f_code.co_qualname.rpartition(".")
                special = name.startswith("__") and name.endswith("__") and kind
                call = FunctionCall(kind.rpartition(".")[2] if special else name)
                self._values.given(call, arguments_of(frame))
            call.function = outer
            self._counts[group, call.name] += 1
            count = self._counts[group, call.name]
            self._names[frame] = call.name if count == 1 else f"{call.name}#{count}"
            self.graph.calls[f"{group}/{self._names[frame]}"] = call
        return self._names[frame]

    def finish(self) -> None:
        """Keep the calls in which something ran, of a public function not those of its own op."""
        ran: dict[str, list[str]] = {}  # by call: the ops in it, "" for a module
        places: list[tuple[Node | Group | FunctionCall, str]] = []
        for node in self.graph.nodes.values():
            places.append((node, node.group))
        for group in self.graph.groups.values():
            places.append((group, group.parent or ""))
        for place, where in places:
            function = place.function
            while (call := self.graph.call(where, function)) is not None:
                ran.setdefault(f"{where}/{function}", []).append(getattr(place, "op", ""))
                function = call.function
        calls, self.graph.calls = self.graph.calls, {}
        for key, call in calls.items():
            if key in ran and not (call.public and ran[key] == [call.name]):
                self.graph.calls[key] = call
            places.append((call, key.rpartition("/")[0]))
        for place, where in places:
            while place.function and f"{where}/{place.function}" not in self.graph.calls:
                place.function = calls[f"{where}/{place.function}"].function


def user_frame(frame: FrameType) -> tuple[FrameType, FrameType | None]:
    """Return the first of `frame` and its callers outside the library, and that of `nn` in it."""
    inner = None
    while frame.f_back is not None and is_library(frame.f_code.co_filename):
        if inner is None and frame.f_code.co_filename.startswith(_NN) and frame.f_code is not CALL:
            inner = frame
        frame = frame.f_back
    return frame, inner


class VariableNames:
    """Notes the names that variables of running functions give to recorded tensors."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._fields: list[tuple[str, str]] = []  # values with their fields in results of ops

    def note(self, frame: FrameType, within: str = "") -> None:
        """Note the names in one function, of values whose id begins with `within`.

        The fields of what an op returns, such as "values" and "indices", are names for want of a
        variable of the user's.
        """
        if _makes_result(frame):
            found = ((self._values.known(t), name) for name, t in named_tensors(frame))
            self._fields += [(key, name) for key, name in found if key is not None]
            return
        for name, t in named_tensors(frame):
            key = self._values.known(t)
            if key is None and id(t) in self._values.late:
                self._values.names.setdefault(id(t), name)
            elif key is not None and id(t) in self._values.tensors and key.startswith(within):
                names = self._values.graph.values[key].names
                if name not in names:
                    names.append(name)

    def note_all(self, frame: FrameType | None) -> None:
        """Note the names in all running functions, callers first."""
        for running in reversed(list(users(frame))):
            self.note(running)

    def finish(self) -> None:
        """Name what is in no variable by its field."""
        for key, name in self._fields:
            names = self._values.graph.values[key].names
            names += [name] if not names else []


def _makes_result(frame: FrameType) -> bool:
    """Return True for the function of a named tuple of the library that makes one."""
    caller = frame.f_back
    if caller is None or frame.f_code.co_filename != "<string>":
        return False
    return is_library(caller.f_code.co_filename)


@functools.cache
def is_users(file: str) -> bool:
    """Return whether a file belongs neither to this library nor to Python's."""
    python = file.startswith((_STDLIB, "<frozen")) and not file.startswith(_INSTALLED)
    return not python and not is_library(file)


def is_own(file: str) -> bool:
    """Return True for the user's own code, which is in no installed package."""
    return is_users(file) and not file.startswith(_INSTALLED)


def line_of(frame: FrameType) -> tuple[str, str]:
    """Return the line that a function is at, as "file:line", and its text."""
    file, number = frame.f_code.co_filename, frame.f_lineno
    return f"{_short(file)}:{number}", linecache.getline(file, number).strip()


@functools.cache
def _short(file: str) -> str:
    """Return a file's name from the working folder, or from where Python found it."""
    for folder in (
        os.getcwd(),
        *sorted(sys.path, key=len, reverse=True),
        str(Path(PACKAGE).parent),
    ):
        if folder and file.startswith(folder.rstrip(os.sep) + os.sep):
            return file[len(folder.rstrip(os.sep)) + 1 :].replace(os.sep, "/")
    return os.path.basename(file)
