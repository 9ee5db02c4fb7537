"""The recording of a call: which ops ran, on what, and what Python did that ops do not show.

A call can be repeated without its Python code only if that code would do the same again. So its
functions are noted, for `guards` to watch what they read, and so is what no guard can watch: random
numbers and clocks, numbers that Python read from a tensor, tensors that no op made.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np

from .. import creation, random
from ..autograd import grad_fn, hooks
from ..core import OPS, Op, Tensor, state, wrap
from ..errors import is_library, running
from ..kernels.objectcode import native
from ..nn import masks
from ..recording import WATCHED, Call, Names, Recording, Ref, Value, line_of_user, refs
from .plan import NotReplayable

_MADE = {  # functions whose tensors depend on their arguments alone
    inspect.unwrap(getattr(creation, name)).__code__
    for name in ("arange", "empty", "eye", "full", "linspace", "ones", "tensor", "zeros")
} | {masks.causal_mask.__code__}
_REFUSED = {
    f.__code__
    for f in (
        *(hooks.register_hook, hooks.register_post_accumulate_grad_hook, hooks.retain_grad),
        *(grad_fn.register_hook, grad_fn.register_prehook, random.manual_seed),
        *(Tensor.requires_grad_, Tensor.requires_grad.fset),  # type: ignore[attr-defined]
    )
}
_IMPURE = {"time", "_random", "random", "posix", "_io", "_socket", "secrets"}
_PRINTS = {"print", "input", "open", "exec", "eval", "globals", "setattr", "delattr"}
_NATIVE = native.__code__
_NUMPY = str(Path(np.__file__).parent)
_PYTHON = str(Path(contextlib.__file__).parent)


def _is_below(frame: FrameType | None) -> bool:
    """Return True for code that no user's code called but through this library or NumPy."""
    while frame is not None:
        file = frame.f_code.co_filename
        if is_library(file) or file.startswith(_NUMPY):
            return True
        if "site-packages" in file or not file.startswith((_PYTHON, "<frozen")):
            return False
        frame = frame.f_back
    return True


_KINDS: dict[CodeType, str] = {}


def _kind(code: CodeType) -> str:
    """Return what has to be seen of a function: nothing of most of the library's own."""
    if code is _NATIVE or code.co_filename.startswith("<frozen importlib"):
        return "away"
    if code in WATCHED or code in _REFUSED or code in _MADE:
        return "watched"
    return "below" if is_library(code.co_filename) else "any"


def _has_array(x: Any) -> bool:
    if isinstance(x, list | tuple):
        return any(map(_has_array, x))
    return isinstance(x, Tensor | np.ndarray)


class CallRecording(Recording):
    """Records a call of user code.

    - leaves: by id(), the arrays of tensors that guards watch: parameters, buffers, globals.
    - functions: the user's functions that ran, each with its globals.
    """

    def __init__(self, leaves: Mapping[int, str]) -> None:
        super().__init__(Names({}, dict(leaves)), lambda op: False)
        self.problem = ""  # the first reason why the call cannot be repeated
        self.functions: dict[CodeType, dict[str, Any]] = {}
        # Of each call: did it record for a backward pass, and which modules were running?
        self.ran_in: list[tuple[bool, tuple[Any, ...]]] = []
        self.tensors: dict[int, Tensor] = {}  # the first tensor seen of each leaf
        self.requires: set[int] = set()  # the values that require a gradient
        self.keys: list[int] = []
        self.key_sizes: list[int] = []  # the number of elements each is for
        self.updates: dict[int, int] = {}  # of leaves and arguments: the value they are set to
        self.origins: dict[int, int] = {}  # of such values: the leaf or argument
        self._before: dict[int, int] = {}
        self._away = 0  # the number of imports, and of kernels that are made, that run
        self.numbers: set[int] = set()  # the values that are numbers, as arrays of 0 dimensions
        self.read: list[Tensor] = []  # leaves whose numbers the library looked at
        self._constant: set[int] = set()

    def __enter__(self) -> CallRecording:
        self._generator = random.default_generator
        self._state = self._generator.get_state()
        self._key = self._generator.key

        def key(size: int = 0) -> int:
            self.key_sizes.append(size)
            self.keys.append(self._key(size))
            return self.keys[-1]

        self._generator.key = key  # type: ignore[method-assign]
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
        if t.requires_grad:
            self.requires.add(self.inputs[-1])

    def _leaf(self, x: Any, array: np.ndarray) -> int:
        name = self.names.tensors.get(id(array), "")
        if not isinstance(x, Tensor):
            if array.ndim:
                self.refuse("it computes with a NumPy array")
            self.numbers.add(len(self.values))
        elif not name and id(array) not in self._constant:
            self.refuse(
                f"a tensor of shape {tuple(array.shape)} was not made by an op, "
                "so its numbers may differ next time"
            )
        then = array if name else array.copy()  # which the call may change
        kind = "leaf" if name else "constant"
        number = self._add(Value(then, array.shape, array.dtype, kind, name, line_of_user()))
        if isinstance(x, Tensor):
            self.tensors[number] = x if name else wrap(then)
            if x.requires_grad:
                self.requires.add(number)
        self._keep(x, number)
        return number

    def refuse(self, why: str) -> None:
        """Note why the call cannot be repeated, and where, unless there is a reason already."""
        self.problem = self.problem or f"{line_of_user()}: {why}"

    def output(self, t: Tensor) -> int:
        """Return the value that is returned; NotReplayable if the call did not make it."""
        number: int = self._argument(t).number
        if self.values[number].kind == "constant":
            raise NotReplayable("it returns a tensor that no op made")
        return number

    def _argument(self, x: Any) -> Any:
        found = super()._argument(x)
        if isinstance(x, Tensor) and state.grad and found.number in self.requires:
            if not x.requires_grad:  # detached: the same memory, but no gradient
                made = self._add(Value(None, x._array.shape, x._array.dtype))
                self.calls.append(Call("Detach", (found,), {}, [made], "", line_of_user()))
                self.ran_in.append((True, running.modules))
                return Ref(made)
        elif isinstance(x, Tensor) and x.requires_grad and state.grad:
            self.refuse("a result is made to require grad")
        return found

    def ran(
        self, run: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        """Record an op that has run."""
        if not isinstance(run, Op):
            self.refuse(f"{run.name()} is the user's own autograd.Function")
        if len(state.observers) > 1:
            self.refuse(f"{type(state.observers[0]).__name__} watches the ops, as it is in a block")
        super().ran(run, args, kwargs, outs)
        for out in outs:
            number = self.number(out)
            if out.requires_grad:
                self.requires.add(number)

    def _call(self, op: str, args: Any, kwargs: Any, outs: Any) -> None:
        super()._call(op, args, kwargs, outs)
        self.ran_in.append((state.grad, running.modules))
        if op not in OPS:
            self.refuse(f"{op} is computed outside of the ops")

    def wrote(self, target: Tensor, made: Tensor) -> None:
        """Note a change in place: it makes a new value, also of a leaf or an argument."""
        before = self._before.pop(id(target._array))
        kind, new = self.values[before].kind, self.number(made)
        whole = target._view is None and not self.is_viewed(target)
        lost = target.requires_grad and not made.requires_grad  # in no_grad: its history stays
        if not whole or lost or (kind and target.requires_grad):
            self.refuse(f"a tensor of shape {tuple(target.shape)} is changed in place")
        origin = self.origins.get(before, before if kind in ("leaf", "input") else None)
        if origin is not None:
            self.updates[origin] = new
            self.origins[new] = origin
        self._keep(target, new)
        if target.requires_grad:
            self.requires.add(new)

    def writing(self, target: Tensor, before: Tensor) -> None:
        """Note that `target` is about to change; `before` has the values it had."""
        number = self._before[id(target._array)] = self.number(target)
        if before is not target:
            self._keep(before, number)

    def is_viewed(self, target: Tensor) -> bool:
        """Return True if a view of a tensor was made, which a change in place would show in."""
        return any(
            t._view is not None and t._view.base is target
            for t, _ in self._kept
            if isinstance(t, Tensor)
        )

    def backward_begins(self, node: Any, grads: Any) -> None:
        """Note that the call runs a backward pass."""
        self.refuse("it runs a backward pass")

    # The profiling hook

    def _see(self, frame: FrameType, event: str, result: Any) -> None:
        code = frame.f_code
        kind = _KINDS.get(code)
        if kind is None:
            kind = _KINDS[code] = _kind(code)
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
                self.functions[code] = frame.f_globals
            elif code in _REFUSED:
                self.refuse(f"it calls {code.co_name}")
            elif code in _MADE and _has_array(list(frame.f_locals.values())):
                self.refuse(f"{code.co_name}() reads a tensor's numbers")
            elif code.co_filename.startswith(_NUMPY) and not _is_below(frame.f_back):
                self.refuse("it computes with NumPy")
        elif event == "return" and code in _MADE and isinstance(result, Tensor):
            self._constant.add(id(result._array))
            self._kept.append((result, result._array))
        elif event == "return" and code is masks.is_causal_mask.__code__ and result is not None:
            self._asked(frame)
        super()._see(frame, event, result)

    def _asked(self, frame: FrameType) -> None:
        """Note that the library looked at the numbers of a mask."""
        mask = frame.f_locals.get("mask")
        if isinstance(mask, Tensor) and mask.dim() == 2 and not self.problem:
            if id(mask._array) in self.names.tensors:
                self.read.append(mask)
                return
            known = self._known.get(id(mask._array))
            if known is None and id(mask._array) in self._constant:
                return
            if known is not None and self._is_constant(known[0]):
                return
            self.refuse("it compares a mask with the causal mask; say is_causal")

    def _is_constant(self, number: int) -> bool:
        """Return True if a value depends on constants alone."""
        value = self.values[number]
        if value.kind:
            return value.kind == "constant"
        made = next((call for call in self.calls if number in call.outs), None)
        return made is not None and all(map(self._is_constant, refs(made.args)))

    def _see_builtin(self, frame: FrameType, function: Any) -> None:
        if self.problem or _is_below(frame):
            return
        module, name = getattr(function, "__module__", None), getattr(function, "__name__", "")
        owner = type(getattr(function, "__self__", None)).__module__
        if module in _IMPURE or owner in _IMPURE or owner.startswith("numpy.random"):
            self.refuse(f"it calls {name}, which differs each time")
        elif module == "builtins" and name in _PRINTS:
            self.refuse(f"it calls {name}")
        elif (module or "").startswith("numpy") or isinstance(function, np.ufunc):
            self.refuse("it computes with NumPy")
