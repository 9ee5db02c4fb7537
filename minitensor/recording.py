"""The recording of a program: the ops that ran, their arguments, and what is no op's result.

Unlike a graph of `minitensor.graph`, which is for people to look at, a recording keeps every
argument as it was, constants too. Fused ops that ONNX does not know are recorded by the ops of
their decomposition.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import numpy as np

from .array import Array
from .autograd import observe
from .autograd.grad_mode import Mode
from .autograd.views import replay
from .core import OPS, Observer, Op, Tensor, state, wrap
from .errors import is_library, running
from .memory import is_loan
from .nn.masks import is_causal_mask
from .nn.utils import rnn
from .ops.shape import View

_LEAVING = {
    getattr(Array, name).__code__: name
    for name in ("item", "tolist", "numpy", "__array__", "__bool__", "__float__", "__int__")
}
_LEAVING[Array.__index__.__code__] = "__index__"
_PACK = rnn.pack_padded_sequence.__code__
_PAD = rnn.pad_packed_sequence.__code__
_INVERT = rnn.invert_permutation.__code__
_CAUSAL = is_causal_mask.__code__
WATCHED = {*_LEAVING, _PACK, _PAD, _INVERT, _CAUSAL}  # the functions that the hook looks at


@dataclass(frozen=True)
class Ref:
    """A value of a recording, by its number."""

    number: int


@dataclass
class Value:
    """A tensor: the result of an op, or what was there before."""

    array: np.ndarray | None  # of what no op made; None for the result of an op
    shape: tuple[int, ...]
    dtype: Any
    kind: str = ""  # "input", "weight" or "constant"
    name: str = ""
    line: str = ""  # of the user's code that first read it


@dataclass
class Call:
    """A run of an op, or of a function that is recorded as a whole."""

    op: str  # the name of its class
    args: tuple[Any, ...]  # with a Ref for each tensor and array
    kwargs: dict[str, Any]
    outs: list[int]
    path: str  # of the module that ran it
    line: str  # "file:line" of the user's code


@dataclass
class Departure:
    """Numbers that left the graph: `if x.any()`, `x.item()`."""

    method: str
    value: int
    line: str


@dataclass
class Names:
    """The names of what a program has: modules, weights and other tensors in modules."""

    modules: dict[int, str]  # paths, by id()
    tensors: dict[int, str]  # names, by the id() of their arrays


class OfArrays(dict[int, tuple[weakref.ref[np.ndarray], Any]]):
    """Notes of arrays while they live, by their id(), which others may get later.

    None is kept alive, so that a recorded run needs no more memory than another.
    """

    def note(self, array: np.ndarray, what: Any = True) -> None:
        """Note something of an array."""
        self[id(array)] = weakref.ref(array), what

    def of(self, array: Any) -> Any:
        """Return what is noted of an array, None if nothing is."""
        found = self.get(id(array))
        return found[1] if found is not None and found[0]() is array else None


class Recording(Observer):
    """Records the ops that run in its `with` block. Ops of which `opens` is True are opened.

    Of the functions of the composites in `whole`, one call each is recorded, and none of their ops.
    """

    sees_writes = True

    def __init__(
        self, names: Names, opens: Callable[[Any], bool], whole: Sequence[str] = ()
    ) -> None:
        self.names, self.opens = names, opens
        self._whole = {inspect.unwrap(OPS[n].call).__code__: n for n in whole if n in OPS}
        self.values: list[Value] = []
        self.calls: list[Call] = []
        self.departures: list[Departure] = []
        self.inputs: list[int] = []
        self._known = OfArrays()  # their values, and how often their memory had been changed then
        self._views = OfArrays()  # the functions of views, and references to the arrays of bases
        self._memory = OfArrays()  # those that own the memory of results
        self._changes = OfArrays()  # how often the memory that they own was changed in place
        # Functions that run and are recorded as a whole: where their calls begin, their arguments.
        self._running: list[tuple[FrameType, int, list[Any]]] = []

    def __enter__(self) -> Recording:
        if any(observer.sees_writes for observer in state.observers):
            raise RuntimeError("export: a recording is running already; export outside of it")
        self._profile = sys.getprofile()
        self._observing = observe(self)
        self._observing.__enter__()
        sys.setprofile(self._see)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(self._profile if callable(self._profile) else None)
        self._observing.__exit__(*exception)
        del self._observing  # which has this in it, with all tensors of the run

    # Values

    def add_input(self, t: Tensor, name: str) -> None:
        """Make `t` an input of the program."""
        self.inputs.append(
            self._add(Value(t._array, t._array.shape, t._array.dtype, "input", name))
        )
        self._keep(t, self.inputs[-1])

    def number(self, x: Any) -> int:
        """Return the value that a tensor or array is, a new one if no recorded op made it."""
        array = x._array if isinstance(x, Tensor) else x
        known = self._known.of(array)
        if known is None:
            return self._leaf(x, array)
        number: int = known[0]
        if self._changed(x) != known[1]:
            view = self._view(x)
            if view is None:
                self._lost(x)
                return number
            # It is made again of what its memory is now, unseen by other observers.
            with Mode(observers=(self,)):
                number = self.number(replay(*view, relaxed=True))
            self._keep(x, number)
        return number

    def _view(self, x: Any) -> tuple[Any, Tensor] | None:
        """Return the view functions and the base of a view, also of a detached one."""
        if isinstance(x, Tensor) and x._view is not None:
            functions, base = x._view.functions, x._view.base
            if base._relaid or x._relaid:
                with Mode(grad=False, observers=()):
                    again = replay(functions, base, relaxed=True)
                if not x.is_set_to(again):
                    return None  # made before the base was laid out anew
            return None if base._array is x._array else (functions, base)
        if isinstance(x, Tensor) and x._relaid:
            return None  # not of itself as it was
        array = x._array if isinstance(x, Tensor) else x
        found = self._views.of(array)
        shown = None if found is None else found[1]()
        return None if shown is None else (found[0], wrap(shown))

    def _changed(self, x: Any) -> int:
        """Return how often the memory of a tensor or array was changed in place."""
        return self._changes.of(_owner(x._array if isinstance(x, Tensor) else x)) or 0

    def _change(self, target: Tensor) -> None:
        self._changes.note(_owner(target._array), self._changed(target) + 1)

    def _lost(self, x: Any) -> None:
        """Refuse memory that is changed in place and shown by tensors in a way nobody knows."""
        raise RuntimeError(
            f"export: at {line_of_user()}, a tensor of shape {tuple(x.shape)} shares memory with "
            "another one that is changed in place, and how they relate is lost: clone() it, or "
            "compute without the change in place"
        )

    def _knows(self, t: Tensor) -> bool:
        return self._known.of(t._array) is not None

    def _leaf(self, x: Any, array: np.ndarray) -> int:
        if self._changed(x):
            self._lost(x)
        name = self.names.tensors.get(id(array), "")
        value = Value(array, array.shape, array.dtype, "weight" if name else "constant", name)
        if not name:
            value.array, value.line = array.copy(), line_of_user()  # the program may change it
            if self._memory.of(_owner(array)):
                raise RuntimeError(
                    f"export: at {value.line}, a tensor of shape {array.shape} was made of another "
                    "one's memory outside of the ops, so the file would hold its numbers and not "
                    "how they follow from the inputs: use ops of minitensor instead of NumPy"
                )
        number = self._add(value)
        self._keep(x, number)
        return number

    def _add(self, value: Value) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def _keep(self, x: Any, number: int) -> None:
        array = x._array if isinstance(x, Tensor) else x
        self._known.note(array, (number, self._changed(x)))
        view = self._view(x) if isinstance(x, Tensor) and x._view is not None else None
        if view is not None:
            self._views.note(array, (view[0], weakref.ref(view[1]._array)))

    def _made(self, out: Tensor) -> int:
        number = self._add(Value(None, out._array.shape, out._array.dtype))
        self._keep(out, number)
        self._memory.note(_owner(out._array))
        return number

    def _argument(self, x: Any) -> Any:
        if isinstance(x, Tensor | np.ndarray):
            return Ref(self.number(x))
        if isinstance(x, tuple | list):
            given = [self._argument(each) for each in x]
            return type(x)(*given) if hasattr(x, "_fields") else tuple(given)
        return plain(x)

    # The observer

    def ran(
        self, run: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        """Record an op that has run, or the ops of its decomposition."""
        kind = type(run)
        if not isinstance(run, Op):  # a Function, whose ops have been recorded
            if all(map(self._knows, outs)):
                return
        elif self.opens(kind):
            made = kind.decomposition(*args, **kwargs)
            for out, t in zip(outs, made if isinstance(made, tuple) else (made,), strict=True):
                self._keep(out, self.number(t))
            return
        self._call(kind.__name__, args, kwargs, outs)

    def _call(
        self, op: str, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        given = tuple(map(self._argument, args))
        options = {key: self._argument(x) for key, x in kwargs.items()}
        path = self.names.modules.get(id(running.modules[-1]), "") if running.modules else ""
        made = [self._made(out) for out in outs]
        self.calls.append(Call(op, given, options, made, path, line_of_user()))

    def _overwritten(self, target: Tensor) -> None:
        """Refuse numbers that no op wrote into a tensor of the program."""
        if self._knows(target) or id(target._array) in self.names.tensors:
            raise RuntimeError(
                f"export: at {line_of_user()}, a tensor of shape {tuple(target.shape)} is changed "
                "by something else than an op (nn.init, load_state_dict, apply_, an optimizer), "
                "so the file would not say how: leave it out of what is exported"
            )

    def writing(self, target: Tensor, before: Tensor) -> None:
        """Note that `target` is about to change, and so the base that it is a view of."""
        view = self._view(target)
        self.number(target if view is None else view[1])

    def wrote(self, target: Tensor, made: Tensor | None) -> None:
        """Note that `made` was written into `target`, and so into the base that it is a view of."""
        if made is None:
            self._overwritten(target)
            return
        new, view = self.number(made), self._view(target)
        self._change(target)
        if view is not None:
            functions, base = view
            before, _ = self._known.of(base._array)
            every: Tensor = wrap(np.arange(base._array.size))
            places = View.apply(every, shape=base._array.shape)
            places = replay(functions, places, relaxed=True)
            result: Tensor = wrap(base._array.copy())
            self._call("ViewScatter", (), {}, [result])
            self.calls[-1].args = Ref(before), Ref(new), Ref(self.number(places))
            self._keep(base, self.number(result))
        self._keep(target, new)

    # The profiling hook: numbers that leave the graph, and packed sequences

    def _see(self, frame: FrameType, event: str, result: Any) -> None:
        code = frame.f_code
        if event == "call":
            if code in _LEAVING:
                self._leaves(frame)
            elif code is _PAD or code in self._whole:
                count = code.co_argcount + code.co_kwonlyargcount
                given = [frame.f_locals[name] for name in code.co_varnames[:count]]
                self._running.append((frame, len(self.calls), given))
        elif event == "return":
            if self._running and self._running[-1][0] is frame:
                _, mark, given = self._running.pop()
                if result is not None:
                    self._ran_whole(code, mark, given, result)
            elif code is _CAUSAL and result is True:
                mask = frame.f_locals["mask"]
                self.departures.append(
                    Departure("is_causal_mask", self.number(mask), line_of_user())
                )
            elif code is _INVERT and result is not None:
                self._call("InvertPermutation", (frame.f_locals["permutation"],), {}, [result])
            elif code is _PACK and result is not None:
                self._packed(frame.f_locals, result)

    def _leaves(self, frame: FrameType) -> None:
        """Note that a method gives a tensor's numbers to the user's code."""
        user, t = frame.f_back, frame.f_locals.get("self")
        if user is None or is_library(user.f_code.co_filename) or not isinstance(t, Tensor):
            return
        if self._knows(t):
            self.departures.append(
                Departure(_LEAVING[frame.f_code], self.number(t), line_of_user())
            )

    def _ran_whole(self, code: CodeType, mark: int, given: list[Any], result: Any) -> None:
        """Record a function as one call, in place of those since `mark`."""
        del self.calls[mark:]
        outs = result if isinstance(result, tuple) else (result,)
        if code is _PAD:  # (data, unsorted_indices, batch_first, padding_value, total_length)
            sequence, *rest = given
            self._call("Pad", (sequence.data, sequence.unsorted_indices, *rest), {}, outs)
        else:
            self._call(self._whole[code], given, {}, outs)

    def _packed(self, found: Mapping[str, Any], result: Any) -> None:
        """Record Pack(x, lengths, batch_first) -> the data of a packed sequence.

        It stands in the place of the choice of the rows, whose numbers depend on the lengths.
        """
        if self.calls and self.calls[-1].op == "Index":
            self.calls.pop()
        args = found["input"], found["lengths"], found["batch_first"]
        self._call("Pack", args, {}, [result.data])


def _owner(array: np.ndarray) -> np.ndarray:
    """Return the array that has the memory, for as long as it has it."""
    while isinstance(array.base, np.ndarray) and not is_loan(array):
        array = array.base
    return array


def line_of_user() -> str:
    """Return "file:line" of the innermost code outside of the library."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return ""
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"


def leaves(x: Any) -> Iterator[Any]:
    """Yield what is in tuples, lists and dictionaries."""
    if isinstance(x, dict):
        x = tuple(x.values())
    if isinstance(x, tuple | list):
        for each in x:
            yield from leaves(each)
    else:
        yield x


def mapped(x: Any, change: Callable[[Any], Any]) -> Any:
    """Return `x` with `change(each)` for each thing in its tuples, lists and dictionaries."""
    kind = type(x)
    if kind is tuple or kind is list:
        return kind([mapped(each, change) for each in x])
    if kind is dict:
        return {key: mapped(each, change) for key, each in x.items()}
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return kind(*[mapped(each, change) for each in x])
    return change(x)


def refs(x: Any) -> list[int]:
    """Return the values that an argument refers to."""
    return [each.number for each in leaves(x) if isinstance(each, Ref)]


def plain(x: Any) -> Any:
    """Return an argument with Python's numbers in place of NumPy's."""
    if isinstance(x, tuple | list):
        return tuple(plain(each) for each in x)
    return x.item() if type(x).__module__ == "numpy" and hasattr(x, "item") else x
