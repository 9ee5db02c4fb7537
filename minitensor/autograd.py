"""Reverse-mode differentiation: the ops as they run, and the walk back through them.

Running an op leaves an instance of its class behind: a node of the graph, which holds what its
backward rule needs and the edges to the ops that made its inputs. Tensors point at nodes, nodes at
earlier nodes, never the other way, so a graph is freed by reference counts as soon as its last
tensor dies. Every node is younger than all it depends on: visiting nodes youngest first is a
topological order, and that is the whole backward walk.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import re
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .tensor import Edge, Tensor, wrap

_PACKAGE = str(Path(__file__).parent)


class _State(threading.local):
    """What each thread decides for itself."""

    grad = True  # record ops for the backward pass
    inference = False
    anomaly = False
    frame: _Frame | None = None  # the checkpoint whose ops are running
    recorder: Any = None  # sees every op as it runs
    modules: tuple[Any, ...] = ()  # the modules whose forward is running, outermost first


state = _State()


# Gradient modes


class _Mode(contextlib.ContextDecorator):
    """A block, or a decorated function, in which some of `state` has other values."""

    def __init__(self, **values: bool) -> None:
        self._values = values
        self._before: list[dict[str, bool]] = []

    def _recreate_cm(self) -> _Mode:
        return self

    def __enter__(self) -> _Mode:
        self._before.append({key: getattr(state, key) for key in self._values})
        for key, value in self._values.items():
            setattr(state, key, value)
        return self

    def __exit__(self, *exception: object) -> None:
        for key, value in self._before.pop().items():
            setattr(state, key, value)


class no_grad(_Mode):
    """Do not record ops: results need no gradient."""

    def __init__(self) -> None:
        super().__init__(grad=False)


class enable_grad(_Mode):
    """Record ops, also inside `no_grad`."""

    def __init__(self) -> None:
        super().__init__(grad=True)


class set_grad_enabled(_Mode):
    """Record ops or not, from here on or for a `with` block."""

    def __init__(self, mode: bool) -> None:
        before = state.grad
        super().__init__(grad=bool(mode))
        state.grad = bool(mode)
        self._outer = before

    def __enter__(self) -> set_grad_enabled:
        self._before.append({"grad": self._outer})
        state.grad = self._values["grad"]
        return self


class inference_mode(_Mode):
    """Like `no_grad`, and what is made inside can never become part of a graph."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(**({"grad": False, "inference": True} if mode else {"inference": False}))


class detect_anomaly(_Mode):
    """Find the op that made the first NaN: `backward` then raises, naming the op and its source line."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(anomaly=mode)


def is_grad_enabled() -> bool:
    """Whether ops are being recorded."""
    return state.grad


def is_inference_mode_enabled() -> bool:
    """Whether `inference_mode` is on."""
    return state.inference


# Where we are, for messages


def module_path() -> str:
    """The path of the running module from the outermost one, such as "decoder.layers.0.linear1"."""
    names = []
    modules = state.modules
    for parent, child in itertools.pairwise(modules):
        path = next((name for name, module in parent.named_modules() if module is child), None)
        names.append(type(child).__name__ if path is None else path)
    return ".".join(names) if names else (type(modules[0]).__name__ if modules else "")


def user_line() -> str:
    """The innermost running line outside this package, as "file:line: source"."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    found = traceback.extract_stack(frame, limit=1)[0]
    return f"{found.filename}:{found.lineno}: {found.line}"


def _explain(op: str, error: Exception, args: Sequence[Any]) -> Exception:
    """The same error, saying which op, which shapes and which module."""
    message = str(error)
    if getattr(error, "_explained", False):
        return error
    if not message.startswith(f"{op}: "):
        message = f"{op}: {message}"
    shapes = [tuple(a._array.shape) for a in args if isinstance(a, Tensor)]
    if shapes and not any(str(shape) in message for shape in shapes):
        message += f" (shapes {', '.join(map(str, shapes))})"
    if path := module_path():
        message += f" in {path}"
    kind = RuntimeError if type(error) in (ValueError, MemoryError) else type(error)
    try:
        explained = kind(message)
    except Exception:
        return error
    explained._explained = True  # type: ignore[attr-defined]
    return explained


# Values kept for the backward pass


class _Bag:
    """Arrays kept for the backward pass, each with where it came from and the version it had.

    An origin is (edge or output number or None, version box, version); None for what is private to
    the op. An output is named by its number, because an edge to its own node would be a cycle.
    """

    __slots__ = ("origins", "values")

    def __init__(self, values: tuple[Any, ...], origins: list[Any] | None) -> None:
        self.values = values
        self.origins = origins

    @classmethod
    def of(cls, values: tuple[Any, ...], args: Sequence[Any], outs: Sequence[Tensor]) -> _Bag:
        origins: list[Any] = []
        for value in values:
            origin = None
            if type(value) is np.ndarray:
                for a in args:
                    if isinstance(a, Tensor) and a._array is value:
                        origin = (_edge_for(a), _box(a), a._version_box[0] if a._version_box else 0)
                        break
                else:
                    for number, out in enumerate(outs):
                        if out._array is value:
                            origin = (number, out._version_box, 0)
            origins.append(origin)
        return cls(values, origins)

    def check(self, op: Op) -> None:
        """RuntimeError if a saved tensor was changed in place since."""
        if self.origins is None:
            return
        for value, origin in zip(self.values, self.origins, strict=True):
            if origin is None or origin[1] is None or origin[1][0] == origin[2]:
                continue
            whose = origin[0]
            if isinstance(whose, tuple):
                whose = f", which is output {whose[1]} of {whose[0].name()},"
            elif isinstance(whose, int):
                whose = f", which is output {whose} of {op.name()},"
            else:
                whose = ""
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: the {value.dtype} tensor of shape {tuple(value.shape)}{whose} "
                f"saved by {op.name()} is at version {origin[1][0]}; expected version {origin[2]} "
                "instead. Clone it before changing it, or change it out of place."
            )

    def tensors(self, op: Op) -> tuple[Any, ...]:
        """The values, arrays as tensors; while recording, tied to the graph they came from."""
        if not state.grad or self.origins is None:
            return tuple(wrap(v) if type(v) is np.ndarray else v for v in self.values)
        found: list[Any] = []
        for value, origin in zip(self.values, self.origins, strict=True):
            if type(value) is not np.ndarray:
                found.append(value)
                continue
            source = None if origin is None else origin[0]
            if isinstance(source, Tensor):
                found.append(source)
                continue
            t = wrap(value)
            if source is not None:
                t._edge = (op, source) if isinstance(source, int) else source
                t._requires_grad = True
                t._version_box = origin[1]
            found.append(t)
        return tuple(found)


def _box(t: Tensor) -> list[int]:
    if t._version_box is None:
        raise RuntimeError(
            "Inference tensors cannot be saved for backward. To work around you can make a clone "
            "to get a normal tensor and use it in autograd."
        )
    return t._version_box


def _edge_for(t: Tensor) -> Any:
    """Where the gradient of `t` goes: an op's output, the leaf itself, or nowhere (None)."""
    if not t.requires_grad:
        return None
    edge = t.edge()
    return t if edge is None else edge


_FREED = _Bag((), None)
_NOTHING = _Bag((), [])


# Ops


OPS: dict[str, type[Op]] = {}
SPACES: dict[str, dict[str, Callable[..., Any]]] = {"torch": {}, "functional": {}}
_clock = itertools.count()


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


class Op:
    """One operation: how to compute it, how to differentiate it, and samples to try it on.

    The class says all there is to know of an op; an instance is one run of it, a node of the graph.

    - `forward(ctx, *args)` gets the arguments of the call with arrays in place of tensors and
      returns an array or a tuple of arrays. It must not depend on anything else (random numbers
      come in as a key). `ctx.save(...)` keeps what `backward` needs. Without a `forward`, the op is
      a composition: `call` says what of.
    - `backward(ctx, *grads)` gets the gradient of each output and returns the gradient of each
      positional argument, in order; None for what needs none, and the tail may be left out.
      A *primitive* computes it in Tensor algebra, on tensors (`ctx.saved` gives tensors), so that
      every order of derivative follows. A *fused* op (`fused = True`) computes on arrays
      (`ctx.saved` gives arrays) and carries `reference`.
    - `reference(*args)`: the same function composed of other ops on tensors: its documentation, the
      oracle of its tests, its second derivative, and what the graph shows inside it.
    - `call(...)`: the public function, with PyTorch's signature, which ends in `cls.apply(...)`.
      By default it is `apply` itself.
    - `samples(rand)` yields argument tuples for `call`, keyword arguments as a dict at the end.
      `errors(rand)` yields argument tuples that must raise what PyTorch raises.
    """

    title: ClassVar[str] = ""  # the functional name; the class name in snake case by default
    aliases: ClassVar[tuple[str, ...]] = ()  # further names
    spaces: ClassVar[str] = "torch tensor"  # where the names go: torch, tensor, functional
    operators: ClassVar[tuple[str, ...]] = ()  # such as "__add__", "__radd__"
    inplace: ClassVar[bool] = False  # whether there is a method with a trailing underscore too
    fused: ClassVar[bool] = False
    broadcasts: ClassVar[bool] = False  # gradients are summed back to the arguments' shapes
    view: ClassVar[bool] = False  # the result shows the memory of the first argument
    differentiable: ClassVar[bool] = True
    oracle: ClassVar[str | None] = ""  # PyTorch's function if named otherwise; None if it has none

    call: ClassVar[Callable[..., Any]]
    reference: ClassVar[Callable[..., Any] | None] = None
    samples: ClassVar[Callable[[Any], Iterable[tuple[Any, ...]]]]
    errors: ClassVar[Callable[[Any], Iterable[tuple[Any, ...]]] | None] = None

    # of an instance
    edges: tuple[Any, ...] = ()  # per argument: (op, output number), a leaf tensor, or None
    order: int = 0
    metas: tuple[tuple[tuple[int, ...], Any], ...] = ()  # shape and dtype of each output
    line: str | None = None  # of the user's code, while anomalies are sought
    made_nan: bool = False
    _saved: _Bag = _NOTHING
    _inputs: _Bag | None = None  # a fused op's arguments, for its reference
    _kwargs: dict[str, Any] | None = None
    _hooks: dict[int, dict[int, Callable[..., Any]]] | None = None  # per output
    _retain: dict[int, weakref.ref[Tensor]] | None = None

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if abstract:
            return
        cls.title = cls.__dict__.get("title") or _snake(cls.__name__)
        if "call" not in cls.__dict__:
            cls.call = staticmethod(cls.front())
        OPS[cls.__name__] = cls
        call = cls.call
        for name in (cls.title, *cls.aliases):
            for space in cls.spaces.split():
                if space == "tensor":
                    setattr(Tensor, name, call)
                else:
                    SPACES[space][name] = call
            if cls.inplace:
                setattr(Tensor, f"{name}_", _in_place(cls))
        for operator in cls.operators:
            reflected = operator.startswith("__r") and operator not in ("__rshift__",)
            setattr(Tensor, operator, _reflect(call) if reflected else call)
            if cls.inplace and not reflected:
                setattr(Tensor, f"__i{operator[2:]}", _in_place(cls))

    @classmethod
    def front(cls) -> Callable[..., Any]:
        """The public function of an op that defines no `call`."""

        @functools.wraps(cls.forward)
        def call(*args: Any, **kwargs: Any) -> Any:
            return cls.apply(*args, **kwargs)

        call.__name__ = call.__qualname__ = cls.title
        call.__doc__ = cls.__doc__
        return call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result on arrays."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, *grads: Any) -> Any:
        """The gradients of the arguments, given those of the outputs."""
        raise NotImplementedError(f"the derivative of {self.title} is not implemented")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run the op on tensors and record it if a gradient may be asked for."""
        node = cls()
        arrays = [a._array if isinstance(a, Tensor) else a for a in args]
        recording = state.grad and cls.differentiable
        if recording:
            recording = False
            for a in args:
                if isinstance(a, Tensor) and a.requires_grad:
                    recording = True
                    node.edges = tuple(
                        _edge_for(b) if isinstance(b, Tensor) else None for b in args
                    )
                    break
        if not recording:
            node.edges = (None,) * len(args)
        try:
            result = node.forward(*arrays, **kwargs)
        except (RuntimeError, ValueError, IndexError, TypeError, MemoryError) as error:
            raise _explain(cls.title, error, args) from error
        single = type(result) is not tuple
        results = (result,) if single else result
        outs = [wrap(r if type(r) is np.ndarray else np.asarray(r)) for r in results]
        if cls.view and isinstance(args[0], Tensor):
            _link_views(cls, args, kwargs, outs)
        elif state.inference:
            for out in outs:
                out._version_box = None
        if recording:
            _record(node, args, arrays, kwargs, results, outs)
        if state.recorder is not None:
            state.recorder.op(node, args, kwargs, outs)
        return outs[0] if single else tuple(outs)

    # What a rule sees

    def save(self, *values: Any) -> None:
        """Keep arrays and settings for `backward`."""
        self._saved = values  # type: ignore[assignment]  # a _Bag once `forward` is done

    @property
    def saved(self) -> tuple[Any, ...]:
        """What `save` kept: arrays for a fused op, tensors for a primitive."""
        bag = self._bag()
        return bag.values if self.fused else bag.tensors(self)

    def _bag(self) -> _Bag:
        bag = self._saved
        if isinstance(bag, _Packed):
            bag = bag.open()[0]
        if bag is _FREED:
            raise RuntimeError(
                f"Trying to backward through the graph a second time (or directly access saved "
                f"tensors after they have already been freed): {self.name()} was walked through "
                "already. Specify retain_graph=True if you need to backward through the graph a "
                "second time."
            )
        bag.check(self)
        return bag

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """For each positional argument, whether its gradient is wanted; known in `forward` already."""
        return tuple(edge is not None for edge in self.edges)

    # What PyTorch shows of a grad_fn

    def name(self) -> str:
        """PyTorch's name of the node, such as "SoftmaxBackward0"."""
        return f"{type(self).__name__}Backward0"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The nodes that the gradient goes to, each with the output number."""
        return tuple(
            (AccumulateGrad(e), 0) if isinstance(e, Tensor) else (None, 0) if e is None else e
            for e in self.edges
        )

    def __repr__(self) -> str:
        return f"<{self.name()}>"

    # What the engine does with it

    def _run_backward(self, grads: list[Tensor | None]) -> tuple[Any, ...]:
        """The gradients of the arguments as tensors."""
        full = [
            wrap(np.zeros(*meta)) if g is None else g
            for g, meta in zip(grads, self.metas, strict=True)
        ]
        if not self.fused:
            found = self.backward(*full)
            return found if type(found) is tuple else (found,)
        if state.grad:
            return self._differentiate_reference(full)
        arrays = self.backward(*(g._array for g in full))
        if type(arrays) is not tuple:
            arrays = (arrays,)
        return tuple(None if a is None else wrap(np.asarray(a)) for a in arrays)

    def _differentiate_reference(self, grads: list[Tensor]) -> tuple[Any, ...]:
        """The gradients as functions that can be differentiated again, through `reference`."""
        self._bag()  # freed?
        bag = self._inputs
        if isinstance(self._saved, _Packed):
            bag = self._saved.open()[1]
        if bag is None or type(self).reference is None:
            raise RuntimeError(f"{self.title} has no second derivative")
        bag.check(self)
        # Fresh aliases: one argument may have been computed from another.
        args = [Alias.apply(a) if isinstance(a, Tensor) else a for a in bag.tensors(self)]
        outs = type(self).reference(*args, **(self._kwargs or {}))
        outs = outs if isinstance(outs, tuple) else (outs,)
        pairs = [(o, g) for o, g in zip(outs, grads, strict=True) if o.requires_grad]
        wanted = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
        found = iter(
            grad(
                [o for o, _ in pairs],
                wanted,
                [g for _, g in pairs],
                create_graph=True,
                allow_unused=True,
            )
            if wanted
            else ()
        )
        return tuple(next(found) if isinstance(a, Tensor) and a.requires_grad else None for a in args)

    def _free(self) -> None:
        if self._saved is not _NOTHING:
            self._saved = _FREED
        self._inputs = None


def _reflect(call: Callable[..., Any]) -> Callable[..., Any]:
    def reflected(self: Tensor, other: Any) -> Any:
        return call(other, self)

    return reflected


def _record(
    node: Op,
    args: Sequence[Any],
    arrays: list[Any],
    kwargs: dict[str, Any],
    results: Sequence[Any],
    outs: list[Tensor],
) -> None:
    """Make `node` the origin of its outputs, and settle what it keeps."""
    node.order = next(_clock)
    node.metas = tuple((out._array.shape, out._array.dtype) for out in outs)
    for number, out in enumerate(outs):
        if out._array.dtype.kind == "f":
            out._edge = (node, number)
            out._requires_grad = True
    values = node._saved
    if type(values) is tuple:
        for r, out in zip(results, outs, strict=True):
            if type(r) is not np.ndarray:  # NumPy gives a scalar where the tensor has a 0-dim array
                values = tuple(out._array if v is r else v for v in values)
        node._saved = _Bag.of(values, args, outs)
    if node.fused:
        node._inputs = _Bag.of(tuple(arrays), args, ())
        node._kwargs = kwargs
    if state.frame is not None:
        state.frame.add(node)
    if state.anomaly:
        node.line = user_line()
        node.made_nan = any(_has_nan(out._array) for out in outs) and not any(
            _has_nan(a) for a in arrays
        )


def _has_nan(a: Any) -> bool:
    return type(a) is np.ndarray and a.dtype.kind == "f" and bool(np.isnan(a).any())


def _link_views(cls: type[Op], args: Sequence[Any], kwargs: dict[str, Any], outs: list[Tensor]) -> None:
    """Tie views to the tensor whose memory they show, with the way to make them again."""
    source: Tensor = args[0]
    base = source if source._base is None else source._base
    rest = args[1:]
    single = len(outs) == 1
    for number, out in enumerate(outs):
        if out._array is not source._array and not np.may_share_memory(out._array, source._array):
            continue

        def step(t: Tensor, number: int = number) -> Tensor:
            made = cls.apply(t, *rest, **kwargs)
            return made if single and not isinstance(made, tuple) else made[number]

        out._base = base
        out._replay = (*source._replay, step)
        out._version_box = source._version_box
        out._seen = source._version_box[0] if source._version_box is not None else 0


class Alias(Op):
    """The same values in the same memory, as a tensor of its own: (*) -> (*)."""

    spaces = ""
    oracle = None

    def forward(ctx, x: np.ndarray) -> np.ndarray:  # noqa: N805
        return x

    def backward(ctx, dy: Tensor) -> Tensor:  # noqa: N805
        return dy

    @staticmethod
    def samples(rand: Any) -> Iterator[tuple[Any, ...]]:
        yield (rand(2, 3),)


# Changes in place


def _in_place(cls: type[Op]) -> Callable[..., Tensor]:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return in_place(cls.title, self, lambda t: cls.call(t, *args, **kwargs))

    method.__name__ = f"{cls.title}_"
    method.__doc__ = f"`{cls.title}`, in place."
    return method


def in_place(name: str, target: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Replace the values of `target` by `compute(target)`, and its history by theirs.

    Raises RuntimeError on a leaf that requires grad (outside `no_grad`), when the result has another
    shape or a type of a higher category, and on an expanded target.
    """
    check_writable(name, target)
    out = compute(target)
    array = target._array
    if out._array.shape != array.shape:
        raise RuntimeError(
            f"{name}_: output with shape {tuple(array.shape)} doesn't match the broadcast shape "
            f"{tuple(out._array.shape)}"
        )
    if out._array.dtype != array.dtype:
        if "biuf".index(out._array.dtype.kind.replace("u", "i")) > "biuf".index(
            array.dtype.kind.replace("u", "i")
        ):
            raise RuntimeError(
                f"{name}_: result type {out._array.dtype} can't be cast to the desired output type "
                f"{array.dtype}"
            )
        out = out.to(array.dtype)
    node = None if out._edge is None else out._edge[0]
    array[...] = out._array
    target._bump()
    if node is not None and isinstance(node._saved, _Bag):  # it kept its output: that is us now
        node._saved = _adopt(node._saved, out, target)
    rebase(target, out)
    return target


def _adopt(bag: _Bag, out: Tensor, target: Tensor) -> _Bag:
    if bag.origins is None or not any(v is out._array for v in bag.values):
        return bag
    version = target._version
    values = tuple(target._array if v is out._array else v for v in bag.values)
    origins = [
        (o[0], target._version_box, version) if v is out._array and o is not None else o
        for v, o in zip(bag.values, bag.origins, strict=True)
    ]
    return _Bag(values, origins)


def check_writable(name: str, target: Tensor) -> None:
    """RuntimeError if `target` may not be changed in place."""
    if state.grad and target.requires_grad:
        root = target if target._base is None else target._base
        if root.is_leaf:
            what = "a leaf Variable" if root is target else "a view of a leaf Variable"
            raise RuntimeError(
                f"{name}_: {what} that requires grad is being used in an in-place operation. "
                "Use no_grad() to change a parameter by hand."
            )
    if target._version_box is None and not state.inference:
        raise RuntimeError(
            f"{name}_: Inplace update to inference tensor outside InferenceMode is not allowed. "
            "You can make a clone to get a normal tensor before doing inplace update."
        )
    array = target._array
    if array.size and any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape, strict=True)):
        raise RuntimeError(
            f"{name}_: unsupported operation: more than one element of the written-to tensor refers "
            "to a single memory location. Please clone() the tensor before performing the operation."
        )


def rebase(target: Tensor, made: Tensor) -> None:
    """Give `target`, whose memory now holds the values of `made`, the history of `made`.

    If `target` is a view, its base takes part: there the values of the view are replaced.
    """
    if not state.grad:
        return
    base = target._base
    if base is None:
        target._edge = made._edge
        target._requires_grad = made._requires_grad
        return
    if not (made._requires_grad or base._requires_grad):
        return
    node = ViewScatter()
    node.replay = target._replay
    node.edges = (_edge_for(base), made._edge)
    node.order = next(_clock)
    node.metas = ((base._array.shape, base._array.dtype),)
    base._edge = (node, 0)
    base._requires_grad = True


class ViewScatter(Op):
    """`base` with the part that a view shows replaced by `new`: the history of a view's change in place."""

    spaces = ""
    oracle = None
    replay: tuple[Callable[[Tensor], Tensor], ...] = ()

    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N805
        shape, dtype = ctx.metas[0]
        outside = wrap(np.ones(shape, dtype))
        part, region = dy, outside
        with no_grad():
            for step in ctx.replay:
                region = step(region)
        region._array[...] = 0
        for step in ctx.replay:
            part = step(part)
        return dy * outside, part

    @staticmethod
    def samples(rand: Any) -> Iterator[tuple[Any, ...]]:
        return iter(())  # reached only through changes in place, and tested there


# The backward walk


class AccumulateGrad:
    """Where the gradient of a leaf ends: shown by `next_functions`."""

    def __init__(self, variable: Tensor) -> None:
        self.variable = variable

    def name(self) -> str:
        """PyTorch's name of it."""
        return "AccumulateGrad"

    def __repr__(self) -> str:
        return "<AccumulateGrad>"


class _Sum:
    """The gradients that reached one place, added up; the first is borrowed until a second comes."""

    __slots__ = ("owned", "value")

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self.owned = False

    def add(self, other: Tensor) -> None:
        if state.grad:
            self.value = self.value + other
        elif self.owned:
            self.value._array += other._array
        else:
            self.value = wrap(np.asarray(self.value._array + other._array))
            self.owned = True


def _fit(g: Tensor, meta: tuple[tuple[int, ...], Any], op: Op, number: int) -> Tensor:
    """The gradient `g` in the shape and type of what it belongs to; RuntimeError if it cannot be."""
    shape, dtype = meta
    have = g._array.shape
    if have != shape:
        extra = len(have) - len(shape)
        if not op.broadcasts or extra < 0:
            raise RuntimeError(
                f"{op.name()} returned an invalid gradient at index {number}: got shape {have} but "
                f"expected shape {tuple(shape)}"
            )
        dims = tuple(range(extra)) + tuple(
            i + extra for i, n in enumerate(shape) if n == 1 and have[i + extra] != 1
        )
        if state.grad:
            g = g.sum(dims).reshape(shape)
        else:
            g = wrap(np.asarray(g._array.sum(dims)).reshape(shape))
        if g._array.shape != shape:
            raise RuntimeError(f"{op.name()}: gradient of shape {have} does not fit {shape}")
    if g._array.dtype != dtype:
        g = g.to(dtype) if state.grad else wrap(g._array.astype(dtype))
    return g


def _walk(
    roots: list[tuple[Any, Tensor]],
    keep: bool,
    wanted: dict[Any, int] | None = None,
) -> dict[int, Tensor]:
    """Carry the gradients of `roots` back. Without `wanted`, leaves accumulate them; with it, only
    the way to those places is walked, and what arrives there is returned by its number."""
    sums: dict[Any, list[_Sum | None]] = {}  # per op, the gradient of each output
    leaves: dict[Tensor, _Sum] = {}
    queue: list[tuple[int, Op]] = []
    useful = None if wanted is None else _leading_to(wanted, [edge for edge, _ in roots])
    found: dict[int, Tensor] = {}

    def deliver(edge: Any, g: Tensor) -> None:
        if isinstance(edge, Tensor):
            if wanted is None or edge in wanted:
                if edge in leaves:
                    leaves[edge].add(g)
                else:
                    leaves[edge] = _Sum(g)
            return
        node, number = edge
        if useful is not None and node not in useful:
            return
        slots = sums.get(node)
        if slots is None:
            slots = sums[node] = [None] * len(node.metas)
            heapq.heappush(queue, (-node.order, node))
        slot = slots[number]
        if slot is None:
            slots[number] = _Sum(g)
        else:
            slot.add(g)

    for edge, g in roots:
        deliver(edge, g)
    while queue:
        node = heapq.heappop(queue)[1]
        grads = [None if s is None else s.value for s in sums.pop(node)]
        if node._hooks or node._retain:
            _run_hooks(node, grads)
        if wanted is not None:
            for number, g in enumerate(grads):
                if g is not None and (node, number) in wanted:
                    found[wanted[node, number]] = g
            if useful is not None and not useful[node]:
                continue
        if state.anomaly:
            dins = _watched_backward(node, grads)
        else:
            dins = node._run_backward(grads)
        if not keep:
            node._free()
        del grads
        edges = node.edges
        if len(dins) > len(edges):
            if any(d is not None for d in dins[len(edges) :]):
                raise RuntimeError(
                    f"function {node.name()} returned an incorrect number of gradients "
                    f"(expected {len(edges)}, got {len(dins)})"
                )
        for number, (edge, d) in enumerate(zip(edges, dins, strict=False)):
            if edge is None or d is None:
                continue
            if isinstance(edge, Tensor):
                meta = (edge._array.shape, edge._array.dtype)
            else:
                meta = edge[0].metas[edge[1]]
            if d._array.shape != meta[0] or d._array.dtype != meta[1]:
                d = _fit(d, meta, node, number)
            deliver(edge, d)
        del dins
    for leaf, total in leaves.items():
        g = total.value
        for hook in list((leaf._hooks or {}).values()):
            changed = hook(g)
            g = g if changed is None else changed
        if wanted is not None:
            found[wanted[leaf]] = g
        else:
            _accumulate(leaf, g, total.owned)
            total.value = g = None  # type: ignore[assignment]
            for hook in list((leaf._post_hooks or {}).values()):
                hook(leaf)
    return found


def _leading_to(wanted: dict[Any, int], roots: list[Any]) -> dict[Op, bool]:
    """The ops on the way to `wanted`; True where something earlier than the op is wanted."""
    seen: set[Op] = set()
    stack = [edge[0] for edge in roots if not isinstance(edge, Tensor)]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += [e[0] for e in node.edges if type(e) is tuple and e[0] not in seen]
    targets = {place[0] for place in wanted if not isinstance(place, Tensor)}
    useful: dict[Op, bool] = {}
    for node in sorted(seen, key=lambda n: n.order):
        passes = any(
            (e in wanted) if isinstance(e, Tensor) else (e is not None and e[0] in useful)
            for e in node.edges
        )
        if passes or node in targets:
            useful[node] = passes
    return useful


def _run_hooks(node: Op, grads: list[Tensor | None]) -> None:
    for number, g in enumerate(grads):
        if g is None:
            continue
        for hook in list((node._hooks or {}).get(number, {}).values()):
            changed = hook(g)
            g = g if changed is None else changed
        grads[number] = g
        keeper = (node._retain or {}).get(number)
        tensor = None if keeper is None else keeper()
        if tensor is not None:
            _accumulate(tensor, g, False)


def _accumulate(leaf: Tensor, g: Tensor, owned: bool) -> None:
    """Add `g` to `leaf.grad`; the first one is taken over if nothing else can hold it."""
    before = leaf._grad
    if state.grad:
        leaf._grad = g if before is None else before + g
    elif before is None:
        array = g._array
        # Held by the tensor and these two names alone, and owning its memory: nobody will notice.
        if leaf._hooks or (not owned and (array.base is not None or sys.getrefcount(array) > 3)):
            array = array.copy()
        leaf._grad = wrap(array)
    else:
        before._array += g._array
        before._bump()


def _watched_backward(node: Op, grads: list[Tensor | None]) -> tuple[Any, ...]:
    """Run a backward rule; RuntimeError that names the forward op's line if it makes a NaN."""
    dins = node._run_backward(grads)
    for number, d in enumerate(dins):
        if d is None or number >= len(node.edges) or node.edges[number] is None:
            continue
        if _has_nan(d._array):
            first = _first_nan(node)
            told = (
                ""
                if first is None
                else f" The first NaN was made going forward, by {first.title} at {first.line}."
            )
            raise RuntimeError(
                f"Function '{node.name()}' returned nan values in its {number}th output. The "
                f"forward op is {node.title}, called at {node.line or 'a line not recorded: enter detect_anomaly before the forward pass'}.{told}"
            )
    return dins


def _first_nan(node: Op) -> Op | None:
    """The earliest op before `node` that turned numbers into NaN going forward."""
    first, seen, stack = None, {node}, [node]
    while stack:
        here = stack.pop()
        if here.made_nan and (first is None or here.order < first.order):
            first = here
        for edge in here.edges:
            if type(edge) is tuple and edge[0] not in seen:
                seen.add(edge[0])
                stack.append(edge[0])
    return first


def _roots(outputs: Sequence[Tensor], grads: Sequence[Tensor | None]) -> list[tuple[Any, Tensor]]:
    roots = []
    for number, (out, g) in enumerate(zip(outputs, grads, strict=True)):
        if not out.requires_grad:
            raise RuntimeError(
                f"element {number} of tensors does not require grad and does not have a grad_fn"
            )
        if g is None:
            if out.numel() != 1:
                raise RuntimeError(
                    "grad can be implicitly created only for scalar outputs; this one has shape "
                    f"{tuple(out.shape)}: pass its gradient, or sum it first"
                )
            g = wrap(np.ones_like(out._array))
        elif g._array.shape != out._array.shape:
            raise RuntimeError(
                f"Mismatch in shape: grad_output[{number}] has a shape of {tuple(g.shape)} and "
                f"output[{number}] has a shape of {tuple(out.shape)}."
            )
        elif g._array.dtype != out._array.dtype:
            g = g.to(out._array.dtype)
        else:
            g = wrap(g._array.view()) if not state.grad else g  # the caller's own: a leaf may not take it over
        roots.append((_edge_for(out), g))
    return roots


def _listed(x: Any) -> list[Any]:
    return [x] if isinstance(x, Tensor) or x is None else list(x)


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate the gradients of `tensors` in the `grad` of the leaves they depend on.

    Raises RuntimeError for a tensor that needs no gradient, and for one that is no scalar without
    its gradient; for a graph walked before without `retain_graph`; for a saved tensor changed since.
    """
    outputs = _listed(tensors)
    grads = [None] * len(outputs) if grad_tensors is None else _listed(grad_tensors)
    keep = create_graph if retain_graph is None else retain_graph
    if inputs is not None:
        places = _listed(inputs)
        found = grad(outputs, places, grads, keep, create_graph, allow_unused=True)
        for place, g in zip(places, found, strict=True):
            if g is not None:
                with set_grad_enabled(create_graph):
                    _accumulate(place, g, False)
        return
    with _Mode(grad=create_graph):
        _walk(_roots(outputs, grads), keep)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `outputs` with respect to `inputs`; no `grad` is touched.

    Raises RuntimeError for an input that `outputs` do not depend on, unless `allow_unused` (then
    its gradient is None) or `materialize_grads` (then it is zeros).
    """
    if is_grads_batched:
        raise NotImplementedError("is_grads_batched: call grad once for each gradient instead")
    outs, ins = _listed(outputs), _listed(inputs)
    grads = [None] * len(outs) if grad_outputs is None else _listed(grad_outputs)
    keep = create_graph if retain_graph is None else retain_graph
    wanted: dict[Any, int] = {}
    for number, t in enumerate(ins):
        if not t.requires_grad:
            raise RuntimeError(f"One of the differentiated Tensors (number {number}) does not require grad")
        wanted.setdefault(_edge_for(t), number)
    with _Mode(grad=create_graph):
        found = _walk(_roots(outs, grads), keep, wanted)
    result = []
    for number, t in enumerate(ins):
        g = found.get(wanted[_edge_for(t)])
        if g is None:
            if materialize_grads:
                g = wrap(np.zeros_like(t._array))
            elif not allow_unused:
                raise RuntimeError(
                    f"One of the differentiated Tensors (number {number}, shape {tuple(t.shape)}) "
                    "appears to not have been used in the graph. Set allow_unused=True if this is "
                    "the desired behavior."
                )
        result.append(g)
    return tuple(result)


# What tensors get from here


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    setattr(Tensor, function.__name__.strip("0"), function)
    return function


def _tensor_backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate the gradient of this tensor in the `grad` of the leaves it depends on."""
    backward(self, gradient, retain_graph, create_graph, inputs)


Tensor.backward = _tensor_backward  # type: ignore[attr-defined]


class RemovableHandle:
    """Removes a hook: by `remove()`, or at the end of a `with` block."""

    def __init__(self, hooks: dict[int, Callable[..., Any]], hook: Callable[..., Any]) -> None:
        self.id = next(_clock)
        self._hooks = hooks
        hooks[self.id] = hook

    def remove(self) -> None:
        """Take the hook out; nothing happens the second time."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


@_method
def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `hook(grad)` when the gradient of this tensor is known; what it returns replaces it."""
    if not self.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    edge = self.edge()
    if edge is None:
        if self._hooks is None:
            self._hooks = {}
        return RemovableHandle(self._hooks, hook)
    node, number = edge
    if node._hooks is None:
        node._hooks = {}
    return RemovableHandle(node._hooks.setdefault(number, {}), hook)


@_method
def register_post_accumulate_grad_hook(
    self: Tensor, hook: Callable[[Tensor], None]
) -> RemovableHandle:
    """Call `hook(tensor)` after the gradient of this leaf was accumulated."""
    if not self.requires_grad or not self.is_leaf:
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    if self._post_hooks is None:
        self._post_hooks = {}
    return RemovableHandle(self._post_hooks, hook)


@_method
def retain_grad(self: Tensor) -> None:
    """Keep the gradient of this non-leaf tensor in its `grad` too."""
    if not self.requires_grad:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    edge = self.edge()
    if edge is not None:
        node, number = edge
        if node._retain is None:
            node._retain = {}
        node._retain[number] = weakref.ref(self)


# The user's own ops


class Function(Op, abstract=True):
    """An op of your own: static `forward(ctx, *args)` and `backward(ctx, *grads)`, as in PyTorch.

    `forward` gets and returns tensors and is not recorded. With a static
    `setup_context(ctx, inputs, output)`, `forward` takes no ctx. Call it by `apply`.
    """

    materialize: bool = True
    _outs: Sequence[Tensor] = ()
    _dirty: tuple[Tensor, ...] = ()
    _constant: tuple[Tensor, ...] = ()

    def __init_subclass__(cls, abstract: bool = False) -> None:
        cls.title = cls.__name__
        cls.view = cls.fused = False

    def name(self) -> str:
        """PyTorch's name of the node."""
        return f"{type(self).__name__}Backward"

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `backward`, where `ctx.saved_tensors` gives them back."""
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` kept."""
        return self._bag().tensors(self)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say which arguments `forward` changed in place and returns."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say which outputs have no gradient."""
        self._constant = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether `backward` gets zeros (the default) or None for an output nobody used."""
        self.materialize = value

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` and record it if a gradient may be asked for."""
        node = cls()
        node._to_save = ()
        recording = state.grad and any(isinstance(a, Tensor) and a.requires_grad for a in args)
        if recording:
            node.edges = tuple(_edge_for(a) if isinstance(a, Tensor) else None for a in args)
        with no_grad():
            if hasattr(cls, "setup_context"):
                result = cls.forward(*args, **kwargs)
                cls.setup_context(node, args, result)
            else:
                result = cls.forward(node, *args, **kwargs)
        single = not isinstance(result, tuple)
        outs = []
        for r in (result,) if single else result:
            if isinstance(r, Tensor) and any(r is d for d in node._dirty):
                check_writable(cls.title, r)
                r._bump()
            elif isinstance(r, Tensor) and (r._edge is not None or any(r is a for a in args)):
                r = wrap(r._array)
            outs.append(r)
        tensors = [o for o in outs if isinstance(o, Tensor)]
        if recording:
            node.order = next(_clock)
            node.metas = tuple(
                (o._array.shape, o._array.dtype) if isinstance(o, Tensor) else ((), None)
                for o in outs
            )
            constant = [c._array for c in node._constant]
            for number, out in enumerate(outs):
                if not isinstance(out, Tensor) or any(out._array is c for c in constant):
                    continue
                if out._array.dtype.kind == "f":
                    out._edge = (node, number)
                    out._requires_grad = True
            values = tuple(t._array if isinstance(t, Tensor) else t for t in node._to_save)
            node._saved = _Bag.of(values, args, tensors) if values else _NOTHING
            if state.frame is not None:
                state.frame.add(node)
            if state.anomaly:
                node.line = user_line()
        del node._to_save, node._dirty, node._constant
        if state.recorder is not None:
            state.recorder.op(node, args, kwargs, tensors)
        return outs[0] if single else tuple(outs)

    def _run_backward(self, grads: list[Tensor | None]) -> tuple[Any, ...]:
        full = [
            wrap(np.zeros(*meta)) if g is None and self.materialize and meta[1] is not None else g
            for g, meta in zip(grads, self.metas, strict=True)
        ]
        found = type(self).backward(self, *full)
        found = found if isinstance(found, tuple) else (found,)
        if len(found) < len(self.edges):
            raise RuntimeError(
                f"function {self.name()} returned an incorrect number of gradients "
                f"(expected {len(self.edges)}, got {len(found)})"
            )
        return found


def once_differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a Function's `backward` that cannot be differentiated itself."""

    @functools.wraps(function)
    def backward(ctx: Any, *grads: Any) -> Any:
        wanted = state.grad and any(isinstance(g, Tensor) and g.requires_grad for g in grads)
        with no_grad():
            found = function(ctx, *grads)
        if wanted:
            raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")
        return found

    return backward


# Checkpoints: save nothing, compute it again


class _Frame:
    """The ops of one checkpointed call: their saved values are thrown away and made again on demand."""

    def __init__(self, again: Callable[[], Any]) -> None:
        self.again = again
        self.count = 0
        self.made: list[tuple[Any, Any]] | None = None
        self.collecting = False

    def add(self, node: Op) -> None:
        if self.collecting:
            assert self.made is not None
            self.made.append((node._saved, node._inputs))
            return
        if node._saved is not _NOTHING or node._inputs is not None:
            node._saved = _Packed(self, self.count)  # type: ignore[assignment]
            node._inputs = None
        self.count += 1

    def open(self, number: int) -> tuple[Any, Any]:
        if self.made is None:
            self.made = []
            self.collecting = True
            before, state.frame = state.frame, self
            try:
                with enable_grad():
                    self.again()
            finally:
                state.frame, self.collecting = before, False
            if len(self.made) != self.count:
                raise RuntimeError(
                    "checkpoint: a different number of ops ran when the function was computed again "
                    f"({len(self.made)} instead of {self.count}); it must do the same both times"
                )
        return self.made[number]


class _Packed:
    """Stands for the saved values of op `number` of a checkpoint."""

    __slots__ = ("frame", "number")

    def __init__(self, frame: _Frame, number: int) -> None:
        self.frame = frame
        self.number = number

    def open(self) -> tuple[Any, Any]:
        return self.frame.open(self.number)


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool = False,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """Call `function` without keeping what its backward needs; that is computed again when asked for.

    Saves memory for the price of a second forward pass, with the same random numbers unless
    `preserve_rng_state` is False. `use_reentrant` is accepted and makes no difference.
    """
    from .random import default_generator

    start = default_generator.get_state() if preserve_rng_state else None

    def again() -> None:
        if start is None:
            function(*args, **kwargs)
            return
        now = default_generator.get_state()
        default_generator.set_state(start)
        try:
            function(*args, **kwargs)
        finally:
            default_generator.set_state(now)

    before, state.frame = state.frame, _Frame(again)
    try:
        return function(*args, **kwargs)
    finally:
        state.frame = before

