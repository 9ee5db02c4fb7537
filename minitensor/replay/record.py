"""The recording of a call: which ops ran, on what, and what Python did that ops do not show.

A call can be repeated without its Python code only if that code would do the same again. So its
functions are noted, for `guards` to watch what they read, and so is what no guard can watch: random
numbers and clocks, numbers that Python read from a tensor, tensors that no op made.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np

from .. import creation, random
from ..autograd import grad_fn, hooks
from ..autograd.gradients import clear_gradients
from ..autograd.views import replay
from ..core import OPS, Op, Tensor, state, wrap
from ..dtype import set_default_dtype
from ..errors import is_library, running
from ..kernels.jit import set_num_threads
from ..kernels.objectcode import native
from ..kernels.precision import set_float32_matmul_precision
from ..nn import masks
from ..ops.breadth import bins, compare, index, order
from ..ops.convert import is_nonzero
from ..optim.lr_scheduler import LRScheduler
from ..recording import WATCHED, Names, OfArrays, Recording, Ref, Value, leaves, line_of_user
from .addresses import NotReplayable
from .graph import Call, Graph, Returned
from .plan import Key

_MADE = {  # functions whose tensors depend on their arguments alone
    inspect.unwrap(getattr(creation, name)).__code__
    for name in ("arange", "empty", "eye", "full", "linspace", "ones", "tensor", "zeros")
} | {masks.causal_mask.__code__}
_REFUSED = {
    inspect.unwrap(function).__code__: f"calls {function.__name__}"
    for function in (
        *(hooks.register_hook, hooks.register_post_accumulate_grad_hook, hooks.retain_grad),
        *(grad_fn.register_hook, grad_fn.register_prehook, Tensor.requires_grad_, clear_gradients),
        *(random.manual_seed, set_num_threads, set_default_dtype, set_float32_matmul_precision),
        LRScheduler.step,
        # They read numbers beside the ops: what they say, or the size they give, may differ.
        *(compare.allclose, compare.equal, is_nonzero, Tensor.__contains__, Tensor.__repr__),
        *(index.nonzero, index.argwhere, order.unique, bins.unique_consecutive),
    )
} | {
    getattr(Tensor, name).fset.__code__: f"sets {name}"
    for name in ("requires_grad", "data", "grad")
}
# What the user's code may read of a tensor, and no plan depends on
_READ = {
    getattr(Tensor, name).fget.__code__: name
    for name in ("grad", "is_leaf", "grad_fn", "_version", "_base")
}
# Methods that give a tensor another shape, memory or history, and not only numbers
_RELAYS = {
    getattr(Tensor, name).__code__: name
    for name in ("squeeze_", "unsqueeze_", "transpose_", "t_", "resize_", "resize_as_", "detach_")
}
_IMPURE = {"time", "_random", "random", "posix", "_io", "_socket", "secrets"}
_IMPURE |= {"_contextvars", "_warnings"}
_PRINTS = {"print", "input", "open", "exec", "eval", "globals", "setattr", "delattr"}
_NATIVE = native.__code__
_NUMPY = str(Path(np.__file__).parent)
_BELOW = tuple(str(Path(_NUMPY).parent / name) for name in ("numpy", "numba", "llvmlite"))
_PYTHON = str(Path(contextlib.__file__).parent)


def _is_below(frame: FrameType | None) -> bool:
    """Return True for code that no user's code called but through this library or what it uses."""
    while frame is not None:
        file = frame.f_code.co_filename
        if is_library(file) or file.startswith(_BELOW):
            return True
        if "site-packages" in file or not file.startswith((_PYTHON, "<frozen")):
            return False
        frame = frame.f_back
    return True


@functools.cache
def _kind(code: CodeType) -> str:
    """Return what has to be seen of a function: nothing of most of the library's own."""
    if code is _NATIVE or code.co_filename.startswith("<frozen importlib"):
        return "away"
    if any(code in codes for codes in (WATCHED, _REFUSED, _READ, _RELAYS, _MADE)):
        return "watched"
    return "below" if is_library(code.co_filename) else "any"


class CallRecording(Recording):
    """Records a call of user code.

    - found: by the id() of their arrays, names and tensors that guards watch: parameters, buffers,
      globals.
    - functions: the user's functions that ran, each with its globals and variables of others.
    """

    calls: list[Call]  # type: ignore[assignment]  # with what a graph knows of each

    def __init__(self, found: Mapping[int, tuple[str, Tensor]]) -> None:
        names = {key: name for key, (name, _) in found.items()}
        super().__init__(Names({}, names), lambda op: False)
        self._found = found
        self.problem = ""  # the first reason why the call cannot be repeated
        self.functions: dict[CodeType, tuple[dict[str, Any], tuple[Any, ...]]] = {}
        self.tensors: dict[int, Tensor] = {}  # of leaves and arguments
        self.histories: dict[int, Any] = {}  # of the values that require a gradient
        self.keys: dict[int, Key] = {}  # the random keys that were drawn
        self.key_sizes: list[int] = []  # the number of elements each is for
        self.updates: dict[int, int] = {}  # of leaves and arguments: the value they are set to
        self.origins: dict[int, int] = {}  # of such values: the leaf or argument
        self.writes: Counter[int] = Counter()  # how often those were changed in place
        self._before: dict[int, int] = {}
        self._away = 0  # the number of imports, and of kernels that are made, that run
        self.asked: list[tuple[int, str]] = []  # masks that the library looked at, and lines
        self._constant = OfArrays()  # those of tensors that depend on arguments alone
        self._viewed = OfArrays()  # what views were made of

    def __enter__(self) -> CallRecording:
        self._generator = random.default_generator
        self._state = self._generator.get_state()
        self._key = self._generator.key

        def key(size: int = 0) -> int:
            made: int = self._key(size)
            self.keys[made] = Key(len(self.keys))
            self.key_sizes.append(size)
            return made

        self._generator.key = key  # type: ignore[method-assign]
        self._outside = state.observers
        self._collects = gc.isenabled()
        gc.disable()  # which may run anybody's code
        super().__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        if self._collects:
            gc.enable()
        del self._generator.key
        after = self._generator.get_state()
        other = random.Generator()
        other.set_state(self._state)
        for _ in self.keys:
            other.key()
        self.draws = not np.array_equal(other.get_state(), after)

    # Values

    def add_input(self, t: Tensor, name: str) -> None:
        """Make `t` an argument of the call."""
        super().add_input(t, name)
        self.values[self.inputs[-1]].array = None  # which is another one in each call
        self.tensors[self.inputs[-1]] = t
        if t.requires_grad:
            self.histories[self.inputs[-1]] = _history(t)

    def _leaf(self, x: Any, array: np.ndarray) -> int:
        if self._changed(x):
            self._lost(x)
        name = self.names.tensors.get(id(array), "")
        if not name and not self._constant.of(array):
            self.refuse(
                f"a tensor of shape {tuple(array.shape)} was not made by an op, "
                "so its numbers may differ next time"
            )
        then = array if name else array.copy()  # which the call may change
        kind = "leaf" if name else "constant"
        number = self._add(Value(then, array.shape, array.dtype, kind, name, line_of_user()))
        t = self.tensors[number] = self._found[id(array)][1] if name else wrap(then)
        if t.requires_grad:
            self.histories[number] = _history(t)
        self._keep(x, number)
        return number

    def _keep(self, x: Any, number: int) -> None:
        super()._keep(x, number)
        if isinstance(x, Tensor) and x._view is not None:
            self._viewed.note(x._view.base._array)

    def _lost(self, x: Any) -> None:
        self.refuse(f"a tensor of shape {tuple(x.shape)} shares memory with one that is changed")

    def refuse(self, why: str) -> None:
        """Note why the call cannot be repeated, and where, unless there is a reason already."""
        self.problem = self.problem or f"{line_of_user()}: {why}"

    def graph(self, outputs: Sequence[Tensor]) -> Graph:
        """Return the graph of a call that returned these; NotReplayable if there is none."""
        found, returned = self._results([*outputs, *_shared_bases(outputs)])
        if any(self.values[number].kind == "constant" for number in found):
            raise NotReplayable("it returns a tensor that no op made")
        graph = Graph(
            self.values,
            self.calls,
            self.inputs,
            [*found, *(self.updates[n] for n in self.writes)],
            {n: t for n, t in self.tensors.items() if n not in self.inputs},
            self.key_sizes,
            set(self.histories),
            updates=dict(self.writes),
            returned=returned,
        )
        for number, line in self.asked:
            if graph.constant(number, graph.read) is None:
                raise NotReplayable(
                    f"{line}: it compares a mask with the causal mask; say is_causal"
                )
        return graph.without_unused()

    def _results(self, outputs: Sequence[Tensor]) -> tuple[list[int], list[Returned]]:
        """Return the values of results, and how these lie to each other and to what was there."""
        found: list[int] = []
        returned: list[Returned] = []
        seen: dict[int, int] = {}  # by the id() of results, their first places
        first: dict[int, Tensor] = {}  # of ops' results, by their values
        for t in outputs:
            place = seen.setdefault(id(t), len(found))
            if place < len(found):  # the same once more
                found.append(found[place])
                returned.append(returned[place])
                continue
            number, each = self._result(t)
            if each.source is None:
                one = first.setdefault(number, t)
                each.make = None if one is t else _alias(t, one)
                each.version = t._version if t._version_box else 0
                base = t._base
                at = next((k for k, other in enumerate(outputs) if other is base), None)
                if at is not None and t._view is not None:
                    each.base = at, t._view.functions, t._view.creation
            found.append(number)
            returned.append(each)
        return found, returned

    def _result(self, t: Tensor) -> tuple[int, Returned]:
        """Return the value of a result, and its relation to what was there before the call."""
        number = self.number(t)
        source, make = self._source(t, number)
        view = self._view(t) if source is None else None
        if view is not None:
            functions, base = view
            source, alias = self._source(base, self.number(base))
            if source is not None:  # a view of it, changed or not
                number = self.number(base)
                detached = _alias(t, self.tensors[source]) if t._view is None else None
                make = partial(_view_of, functions, alias, detached)
        if source is None:
            number = self._argument(t).number
        return number, Returned(source, make)

    def _source(self, t: Tensor, number: int) -> tuple[int | None, Any]:
        """Return the input or leaf whose memory a tensor shows as a whole, and how it is made."""
        source = self.origins.get(number, number)
        one = self.tensors.get(source)
        if one is None or one._array is not t._array:
            return None, None
        return source, None if one is t else _alias(t, one)

    def _argument(self, x: Any) -> Any:
        if isinstance(x, np.ndarray):
            if x.ndim:
                self.refuse("it computes with a NumPy array")
            return x.copy()
        found = super()._argument(x)
        if type(found) is int:
            return self.keys.get(found, found)
        if isinstance(x, Tensor) and state.grad:
            if x.requires_grad and not _same(_history(x), self.histories.get(found.number)):
                self.refuse("a result is made to require grad, or has another history")
            if found.number in self.histories and not x.requires_grad:
                made = self._add(Value(None, x._array.shape, x._array.dtype))
                self._note(None, (found,), {}, [made])  # the same memory, but no gradient
                return Ref(made)
        return found

    def ran(
        self, run: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        """Record an op that has run."""
        if not isinstance(run, Op):
            self.refuse(f"{run.name()} is the user's own autograd.Function")
        for observer in state.observers:
            if observer is not self and observer not in self._outside:
                self.refuse(f"{type(observer).__name__} watches a block in it")
        super().ran(run, args, kwargs, outs)
        for out in outs:
            number = self.number(out)
            if out.requires_grad:
                self.histories[number] = _history(out)

    def _call(self, op: str, args: Any, kwargs: Any, outs: Any) -> None:
        if op not in OPS:
            self.refuse(f"{op} is computed outside of the ops")
        elif any(isinstance(x, Tensor) for x in _settings(OPS[op], args, kwargs)):
            self.refuse(f"a tensor is a setting of {OPS[op].op_name}")
        given = tuple(map(self._argument, args))
        options = {key: self._argument(x) for key, x in kwargs.items()}
        self._note(OPS.get(op), given, options, map(self._made, outs))

    def _note(self, op: Any, args: Any, kwargs: Any, outs: Iterable[int]) -> None:
        line, modules = line_of_user(), running.modules
        self.calls.append(Call(op, args, kwargs, tuple(outs), state.grad, line, modules))

    def wrote(self, target: Tensor, made: Tensor | None) -> None:
        """Note a change in place: it makes a new value, also of a leaf or an argument."""
        if made is None:
            self._overwritten(target)
            return
        before = self._before.pop(id(target._array))
        kind, new = self.values[before].kind, self.number(made)
        origin = self.origins.get(before, before if kind in ("leaf", "input") else None)
        # a view of it would show the change
        whole = self._view(target) is None and not self._viewed.of(target._array)
        lost = target.requires_grad and not made.requires_grad  # in no_grad: its history stays
        there = origin is not None or kind  # before the call, or made without an op
        if not whole or lost or (there and target.requires_grad):
            self._refuse_change(target)
        if origin is not None:
            self.updates[origin] = new
            self.origins[new] = origin
            # An alias by `.data` counts its changes itself.
            self.writes[origin] += target._version_box is self.tensors[origin]._version_box
        self._change(target)
        self._keep(target, new)
        if target.requires_grad:
            self.histories[new] = _history(target)

    def _overwritten(self, target: Tensor) -> None:
        if self._constant.pop(id(target._array), None) is None:
            self._refuse_change(target)  # one that was there before the call

    def _relays(self, target: Tensor) -> None:
        """Note that a tensor gets another shape, memory or history in place."""
        if not self._constant.of(target._array):
            number = self.number(target)
            if self.values[number].kind or number in self.origins:
                self._refuse_change(target)

    def _refuse_change(self, target: Tensor) -> None:
        self.refuse(f"a tensor of shape {tuple(target.shape)} is changed in place")

    def writing(self, target: Tensor, before: Tensor) -> None:
        """Note that `target` is about to change; `before` has the values it had."""
        super().writing(target, before)
        number = self._before[id(target._array)] = self.number(target)
        if before is not target:
            self._keep(before, number)

    def _leaves(self, frame: FrameType) -> None:
        """Note that a tensor's numbers are read, by the library too: as an index, a size."""
        super()._leaves(frame)
        t = frame.f_locals.get("self")
        if isinstance(t, Tensor) and self._knows(t) and not self._constant.of(t._array):
            self.refuse("numbers of a tensor are read as a setting, an index or a size")

    def backward_begins(self, node: Any, grads: Any) -> None:
        """Note that the call runs a backward pass."""
        self.refuse("it runs a backward pass")

    # The profiling hook

    def _see(self, frame: FrameType, event: str, result: Any) -> None:
        code = frame.f_code
        kind = _kind(code)
        if kind == "below":  # nearly always
            return
        if kind == "away":
            self._away += (event == "call") - (event == "return")
        if self._away:
            return
        if event == "c_call":
            self._see_builtin(frame, result)
            return
        if event == "call":
            if code not in self.functions and not _is_below(frame):
                free = tuple([frame.f_locals.get(name) for name in code.co_freevars])
                self.functions[code] = frame.f_globals, free
            elif code in _REFUSED:
                self.refuse(f"it {_REFUSED[code]}")
            elif code in _READ and frame.f_back and not is_library(frame.f_back.f_code.co_filename):
                self.refuse(f"it reads {_READ[code]} of a tensor")
            elif code in _RELAYS:
                self._relays(frame.f_locals["self"])
            elif code in _MADE and any(
                isinstance(x, Tensor | np.ndarray) for x in leaves(tuple(frame.f_locals.values()))
            ):
                self.refuse(f"{code.co_name}() reads a tensor's numbers")
            elif code.co_filename.startswith(_NUMPY) and not _is_below(frame.f_back):
                self.refuse("it computes with NumPy")
        elif event == "return" and code in _MADE and isinstance(result, Tensor):
            self._constant.note(result._array)
        elif event == "return" and code is masks.is_causal_mask.__code__ and result is not None:
            mask = frame.f_locals.get("mask")
            if isinstance(mask, Tensor) and mask.dim() == 2:
                self.asked.append((self.number(mask), line_of_user()))
        super()._see(frame, event, result)

    def _see_builtin(self, frame: FrameType, function: Any) -> None:
        if self.problem or _is_below(frame):
            return
        module, name = getattr(function, "__module__", None), getattr(function, "__name__", "")
        owner = type(getattr(function, "__self__", None)).__module__
        clock = getattr(getattr(function, "__self__", None), "__module__", "") == "datetime"
        if clock or module in _IMPURE or owner in _IMPURE or owner.startswith("numpy.random"):
            self.refuse(f"it calls {name}, which differs each time")
        elif module == "builtins" and name in _PRINTS:
            self.refuse(f"it calls {name}")
        elif (module or "").startswith("numpy") or isinstance(function, np.ufunc):
            self.refuse("it computes with NumPy")


def _settings(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """Yield those arguments of an op that should be numbers."""
    code, kinds = op.forward.__code__, op.forward.__annotations__
    names = code.co_varnames[1 : code.co_argcount]
    for name, x in (*zip(names, args, strict=False), *kwargs.items()):
        kind = str(kinds.get(name, "Any"))
        if "ndarray" not in kind and "Any" not in kind and "tuple" not in kind:
            yield x


def _history(t: Tensor) -> Any:
    """Return where a tensor's gradient goes: a node and the number of its result, or itself."""
    return t._edge or t


def _same(one: Any, other: Any) -> bool:
    """Return True for the same history."""
    return one is other or (type(one) is type(other) is tuple and one == other)


def _alias(t: Tensor, one: Tensor) -> Any:
    """Return the function that makes `t` of another tensor over its memory."""
    same = t._version_box is one._version_box
    return Tensor.detach if same else Tensor.data.fget  # type: ignore[attr-defined]


def _view_of(functions: Any, alias: Any, detached: Any, source: Tensor) -> Tensor:
    """Return a view of a tensor, or of an alias of it, detached if it was."""
    view = replay(functions, source if alias is None else alias(source))
    return view if detached is None else detached(view)


def _shared_bases(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the bases that several results are views of, and that are no results."""
    known = set(map(id, outputs))
    bases = {id(t._base): t._base for t in outputs if t._base is not None}
    shared = Counter(id(t._base) for t in {id(t): t for t in outputs}.values())
    return [base for key, base in bases.items() if shared[key] > 1 and key not in known]
