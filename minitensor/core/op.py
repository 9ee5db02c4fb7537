"""Op: one operation with all there is to know of it; and changes in place."""

from __future__ import annotations

import functools
import itertools
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from .. import memory
from ..dtype import can_cast
from .saved import FREED, NOTHING, SavedTensors, edge_for
from .state import enable_grad, explain, no_grad, state, user_line
from .tensor import Tensor, wrap

OPS: dict[str, type[Op]] = {}
NAMESPACES: dict[str, dict[str, Callable[..., Any]]] = {"torch": {}, "functional": {}}
clock = itertools.count()
ndarray = np.ndarray


# Operators with an augmented form, such as +=.
_AUGMENTED = {
    f"__{name}__"
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
}


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
      (`ctx.saved` gives arrays) and carries `decomposition`.
    - `decomposition(*args)`: the same function composed of other ops: its documentation, the
      oracle of its tests, its second derivative, and what the graph shows inside it.
    - `call(...)`: the public function, with PyTorch's signature, which ends in `cls.apply(...)`.
      By default it is `apply` itself.
    - `samples(rand)` yields argument tuples for `call`, keyword arguments as a dict at the end.
      `errors(rand)` yields argument tuples that must raise what PyTorch raises. `rand` is a
      `minitensor.ops.samples.Rand`: `rand(2, 3)` makes a tensor of normal numbers that requires
      grad, `rand.constant` one that does not, `rand.positive` numbers from 0.5 to 2, and
      `rand.distinct` numbers far from ties and kinks.
    """

    op_name: ClassVar[str] = ""  # the functional name; the class name in snake case by default
    aliases: ClassVar[tuple[str, ...]] = ()  # further names
    namespaces: ClassVar[str] = "torch tensor"  # where the names go: torch, tensor, functional
    operators: ClassVar[tuple[str, ...]] = ()  # such as "__add__", "__radd__"
    inplace: ClassVar[bool] = False  # whether there is a method with a trailing underscore too
    fused: ClassVar[bool] = False
    broadcasts: ClassVar[bool] = False  # gradients are summed back to the arguments' shapes
    view: ClassVar[bool] = False  # the result shows the memory of the first argument
    relaxed: ClassVar[Any] = None  # of a view that depends on the layout: the op that may copy
    fresh: ClassVar[bool] = False  # backward returns new arrays that nothing else refers to
    differentiable: ClassVar[bool] = True
    materialize: bool = True  # backward gets zeros, not None, for an output that nobody used
    torch_name: ClassVar[str | None] = ""  # PyTorch's name if another; None: has none

    # Callable as static methods, which ClassVar[Callable] would not say.
    call: ClassVar[Any]
    decomposition: ClassVar[Any] = None
    samples: ClassVar[Any]
    errors: ClassVar[Any] = None

    # of an instance
    edges: Sequence[Any] = ()  # per argument: (op, output number), a leaf tensor, or None
    sequence_nr: int = 0
    output_meta: Sequence[tuple[tuple[int, ...], Any]] = ()  # shape and dtype of each output
    line: str | None = None  # of the user's code, while anomalies are sought
    made_nan: bool = False
    _saved: Any = NOTHING  # a tuple during `forward`, then a SavedTensors
    _inputs: SavedTensors | None = None  # a fused op's arguments, for its reference
    _kwargs: dict[str, Any] | None = None
    _hooks: dict[int, dict[int, Callable[..., Any]]] | None = None  # per output
    _retain: dict[int, weakref.ref[Tensor]] | None = None

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if abstract:
            return
        cls.op_name = cls.__dict__.get("op_name") or _snake(cls.__name__)
        if "call" not in cls.__dict__:
            cls.call = staticmethod(cls.default_call())
        OPS[cls.__name__] = cls
        call = cls.call
        if call.__name__ == "call":
            call.__name__ = call.__qualname__ = cls.op_name
            call.__doc__ = cls.__doc__
        for name in (cls.op_name, *cls.aliases):
            for space in cls.namespaces.split():
                if space == "tensor":
                    setattr(Tensor, name, call)
                else:
                    NAMESPACES[space][name] = call
            if cls.inplace:
                setattr(Tensor, f"{name}_", _in_place(cls))
        for operator in cls.operators:
            reflected = operator.startswith("__r") and operator not in ("__rshift__",)
            setattr(Tensor, operator, _reflect(call) if reflected else call)
            if cls.inplace and operator in _AUGMENTED:
                setattr(Tensor, f"__i{operator[2:]}", _in_place(cls))

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        """The public function of an op that defines no `call`."""

        @functools.wraps(cls.forward)
        def call(*args: Any, **kwargs: Any) -> Any:
            return cls.apply(*args, **kwargs)

        call.__name__ = "call"
        return call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result on arrays."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, *grads: Any) -> Any:
        """The gradients of the arguments, given those of the outputs."""
        raise NotImplementedError(f"the derivative of {self.op_name} is not implemented")

    @staticmethod
    def flops(args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor]) -> int:
        """FLOPs of the matrix products of a run with the arguments of `apply`; 2 for x * y + z."""
        return 0

    @staticmethod
    def backward_flops(
        args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor], needs: Sequence[bool]
    ) -> int:
        """The same of a fused op's backward, for the gradients that `needs` says are wanted."""
        return 0

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run the op on tensors and record it if a gradient may be asked for."""
        node = cls()
        arrays: list[Any] = []
        edges: list[Any] = []
        node.edges = edges
        may_record = cls.differentiable and state.grad
        recording = False
        for a in args:
            edge = None
            if isinstance(a, Tensor):
                if may_record:
                    if a._base is not None:
                        edge = edge_for(a)
                    elif a._requires_grad:
                        edge = a._edge or a
                    recording = recording or edge is not None
                a = a._array
                # What is saved is matched to its argument by identity; two tensors may share one
                # array (x and x.detach()).
                for other in arrays:
                    if other is a:
                        a = a.view()
                        break
            arrays.append(a)
            edges.append(edge)
        try:
            try:
                result = state.quietly(node.forward, *arrays, **kwargs)
            except MemoryError:
                memory.release()  # the buffers that wait there may be what is missing
                result = state.quietly(node.forward, *arrays, **kwargs)
        except (RuntimeError, ValueError, IndexError, TypeError, MemoryError) as error:
            raise explain(cls.op_name, error, args) from error
        outs: tuple[Tensor, ...]
        if type(result) is ndarray:
            outs = (wrap(result),)
        elif type(result) is tuple:
            outs = tuple([wrap(_as_array(node, r)) for r in result])
        else:
            outs = (wrap(_as_array(node, result)),)
        if cls.view:
            _link_views(cls, args, kwargs, outs)
        if recording:
            _record(node, args, arrays, kwargs, outs)
        if state.watched:
            _tell(node, args, kwargs, outs, recording)
        return outs if type(result) is tuple else outs[0]

    # What a rule sees

    def save(self, *values: Any) -> None:
        """Keep arrays and settings for `backward`."""
        self._saved = values

    @property
    def saved(self) -> tuple[Any, ...]:
        """What `save` kept: arrays for a fused op, tensors for a primitive."""
        bag = self._bag()
        return bag.values if self.fused else bag.tensors(self)

    def _bag(self) -> SavedTensors:
        bag = self._saved.open()
        if bag is FREED:
            raise RuntimeError(
                f"Trying to backward through the graph a second time (or directly access saved "
                f"tensors after they have already been freed): {self.name()} was walked through "
                "already. Specify retain_graph=True if you need to backward through the graph a "
                "second time."
            )
        bag.check(self.name())
        return bag

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """For each positional argument, whether its gradient is wanted; known in `forward`."""
        return tuple([edge is not None for edge in self.edges])

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

    # What the engine asks of it

    def gradients(self, *grads: Any) -> Any:
        """Run the backward rule."""
        return self.backward(*grads)

    def free(self) -> None:
        """Let go of what was saved: the walk has passed."""
        if self._saved.origins is None or any(map(_is_operand, self._saved.values)):
            self._saved = FREED
        self._inputs = None


class AccumulateGrad:
    """Where the gradient of a leaf ends: shown by `next_functions`."""

    def __init__(self, variable: Tensor) -> None:
        self.variable = variable

    def name(self) -> str:
        """PyTorch's name of it."""
        return "AccumulateGrad"

    def __repr__(self) -> str:
        return "<AccumulateGrad>"


def _is_operand(x: Any) -> bool:
    return type(x) in (ndarray, float)


def _reflect(call: Callable[..., Any]) -> Callable[..., Any]:
    def reflected(self: Tensor, other: Any) -> Any:
        return call(other, self)

    return reflected


def _as_array(node: Op, result: Any) -> np.ndarray:
    """A result of `forward` as an array: NumPy gives a scalar where a tensor has a 0-dim one."""
    if type(result) is ndarray:
        return result
    array = np.asarray(result)
    if type(node._saved) is tuple:
        node._saved = tuple([array if v is result else v for v in node._saved])
    return array


def _record(
    node: Op,
    args: Sequence[Any],
    arrays: list[Any],
    kwargs: dict[str, Any],
    outs: Sequence[Tensor],
) -> None:
    """Make `node` the origin of its outputs, and settle what it keeps."""
    node.sequence_nr = next(clock)
    meta: list[Any] = []
    node.output_meta = meta
    for out in outs:
        array = out._array
        dtype = array.dtype
        if dtype.kind == "f":
            out._edge = (node, len(meta))
            out._requires_grad = True
        meta.append((array.shape, dtype))
    if node._saved is not NOTHING:
        node._saved = SavedTensors.of(node._saved, args, arrays, node.edges, outs)
    if node.fused:
        node._inputs = SavedTensors.of_arguments(args, arrays, node.edges)
        node._kwargs = kwargs


def _tell(
    node: Op, args: Sequence[Any], kwargs: dict[str, Any], outs: Sequence[Tensor], recorded: bool
) -> None:
    """Let those know of an op who watch all of them."""
    if state.inference:
        for out in outs:
            if out._base is None:
                out._version_box = None
    if recorded:
        if state.frame is not None:
            state.frame.add(node)
        if state.anomaly:
            node.line = user_line()
            node.made_nan = any(has_nan(out._array) for out in outs) and not any(
                isinstance(a, Tensor) and has_nan(a._array) for a in args
            )
    if state.recorder is not None:
        state.recorder.op(node, args, kwargs, outs)


def has_nan(a: Any) -> bool:
    """Whether `a` is a floating array with a NaN in it."""
    return type(a) is np.ndarray and a.dtype.kind == "f" and bool(np.isnan(a).any())


def _link_views(
    cls: type[Op], args: Sequence[Any], kwargs: dict[str, Any], outs: Sequence[Tensor]
) -> None:
    """Tie views to the tensor whose memory they show, with the way to make them again."""
    source: Tensor = args[0]
    array, base, box = source._array, source._base, source._version_box
    owner = array if array.base is None else array.base  # or `array` is the base of its views
    made = source._made or ("" if state.grad else "no_grad")
    for number, out in enumerate(outs):
        shown = out._array
        known = shown.base is owner or shown.base is array or shown is array
        if not known and shown.size:
            shares = np.may_share_memory(shown, array)
            if not shares:
                continue  # such a reshape has to copy
        out._base = source if base is None else base
        out._replay = (source._replay, (cls, args[1:], kwargs, number))
        out._version_box = box
        if made:
            out._made = made
        if box is not None:
            out._seen = box[0]


def _rebuild_history(self: Tensor, base: Tensor) -> None:
    """Make this view from `base` again, for the history that it now has."""
    check_view(self, "is used after its base or another view of its base was modified inplace")
    before = self._edge
    frame = state.frame  # these ops are none of a checkpoint's, which may not need them again
    state.set(frame=None)
    try:
        with enable_grad():
            view = _made_again(self, base)
    finally:
        state.set(frame=frame)
    self._seen = self._version
    self._edge, self._requires_grad = view._edge, view._requires_grad
    _move_retained(self, before)


setattr(Tensor, "_rebuild_history", _rebuild_history)


def replay(steps: tuple[Any, ...], base: Tensor, relaxed: bool = False) -> Tensor:
    """Make a view from `base` again; with `relaxed`, copies stand in where the layout forbids one.

    `steps` is `Tensor._replay`, the last step outermost.
    """
    found = []
    while steps:
        steps, step = steps
        found.append(step)
    for op, rest, kwargs, number in reversed(found):
        made = ((relaxed and op.relaxed) or op).apply(base, *rest, **kwargs)
        base = made[number] if type(made) is tuple else made
    return base


def forget_base(view: Tensor) -> Tensor:
    """Return `view`, whose base nobody else refers to, as a tensor of its own."""
    view._base, view._replay, view._made = None, (), ""
    return view


def _made_again(view: Tensor, base: Tensor) -> Tensor:
    """`view` made from its base again; RuntimeError if it would show other memory."""
    if not (base._relaid or view._relaid):
        return replay(view._replay, base)
    try:
        made = replay(view._replay, base)
    except (RuntimeError, IndexError):
        made = None
    if made is None or not view.is_set_to(made):
        raise RuntimeError(
            f"a view of shape {tuple(view.shape)} was made before its base was laid out anew in "
            "place (t_, transpose_, squeeze_, .data = ...), and changed after: its history is "
            "lost. Make the view again after such a change"
        )
    return made


# The kinds of view that have no history of their own to rebuild, by `Tensor._made`.
_UNCHANGEABLE = {
    "no_grad": "It was created in no_grad mode, so it is not known whether gradients are to flow "
    "through the change. Create the view outside of no_grad mode, or change it inside",
    "function": "It was created inside a custom Function (or because an input was returned as it "
    "is), whose backward the change would override. Clone the output of the custom Function",
}


def check_view(view: Tensor, event: str) -> None:
    """RuntimeError if `view` is of a kind for which a change with gradients is undefined."""
    if view._made:
        edge = view._edge
        what = "A view" if edge is None else f"Output {edge[1]} of {edge[0].name()}, a view"
        raise RuntimeError(
            f"{what} of shape {tuple(view.shape)}, {event}. {_UNCHANGEABLE[view._made]}."
        )


def _move_retained(t: Tensor, before: Any) -> None:
    """Let `retain_grad` of `t` follow it from the output `before` to the one it is now."""
    keepers = {} if before is None else before[0]._retain or {}
    keeper = keepers.get(before[1]) if keepers else None
    if keeper is not None and keeper() is t and t._edge is not None and t._edge != before:
        del keepers[before[1]]
        node, number = t._edge
        if node._retain is None:
            node._retain = {}
        node._retain[number] = keeper


class Alias(Op):
    """The same values in the same memory, as a tensor of its own: (*) -> (*)."""

    namespaces = ""
    torch_name = None

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        return x

    def backward(ctx, dy: Tensor) -> Tensor:
        return dy

    @staticmethod
    def samples(rand: Any) -> Iterator[tuple[Any, ...]]:
        yield (rand(2, 3),)


# Changes in place


def _in_place(cls: type[Op]) -> Callable[..., Tensor]:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return in_place(cls.op_name, self, lambda t: cls.call(t, *args, **kwargs))

    method.__name__ = f"{cls.op_name}_"
    method.__doc__ = f"`{cls.op_name}`, in place."
    method.__wrapped__ = cls.call  # type: ignore[attr-defined]  # the signature shown is its own
    return method


def in_place(name: str, target: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Replace the values of `target` by `compute(target)`, and its history by theirs.

    Raises RuntimeError on a leaf that requires grad (outside `no_grad`), when the result has
    another shape or a type of a higher category, and on an expanded target.
    """
    check_writable(name, target)
    array = target._array
    before = target
    if state.grad:  # an op may save the values that are about to be replaced
        before = wrap(array.copy())
        before._edge, before._requires_grad = target.edge(), target.requires_grad
        if before._edge is not None and before._edge[0]._hooks and target._base is not None:
            # The gradient goes to the base, and not through the view that the hooks are on.
            before._edge = _made_again(target, target._base)._edge
    if state.recorder is not None:
        state.recorder.same(before, target)
    out = compute(before)
    if state.grad and out._requires_grad:
        check_view(target, f"is being modified inplace by {name}_")
    if out._array.shape != array.shape:
        raise RuntimeError(
            f"{name}_: output with shape {tuple(array.shape)} doesn't match the broadcast shape "
            f"{tuple(out._array.shape)}"
        )
    if out._array.dtype != array.dtype:
        if not can_cast(out._array.dtype, array.dtype):
            raise RuntimeError(
                f"{name}_: result type {out._array.dtype} can't be cast to the desired output type "
                f"{array.dtype}"
            )
        out = out.to(array.dtype)
    node = None if out._edge is None else out._edge[0]
    array[...] = out._array
    target._bump()
    if node is not None and isinstance(node._saved, SavedTensors):  # it saved its output
        node._saved = _adopt(node._saved, out, target)
    rebase(target, out)
    if state.recorder is not None:
        state.recorder.assigned(target, out)
    return target


def _adopt(bag: SavedTensors, out: Tensor, target: Tensor) -> SavedTensors:
    if bag.origins is None or not any(v is out._array for v in bag.values):
        return bag
    version = target._version
    values = tuple(target._array if v is out._array else v for v in bag.values)
    origins = [
        (o[0], target._version_box, version) if v is out._array and o is not None else o
        for v, o in zip(bag.values, bag.origins, strict=True)
    ]
    return SavedTensors(values, origins)


def check_changeable(name: str, target: Tensor) -> None:
    """RuntimeError if the history of `target` does not allow a change in place."""
    if state.grad and target.requires_grad:
        check_view(target, f"is being modified inplace by {name}_")
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


def check_writable(name: str, target: Tensor) -> None:
    """RuntimeError if the values of `target` may not be changed in place."""
    check_changeable(name, target)
    array = target._array
    if array.size and any(
        s == 0 and n > 1 for s, n in zip(array.strides, array.shape, strict=True)
    ):
        raise RuntimeError(
            f"{name}_: unsupported operation: more than one element of the written-to tensor "
            "refers to a single memory location. Please clone() the tensor before performing the "
            "operation."
        )


def rebase(target: Tensor, made: Tensor) -> None:
    """Give `target`, whose memory now holds the values of `made`, the history of `made`.

    If `target` is a view, its base takes part: there the values of the view are replaced.
    """
    if not state.grad:
        return
    base = target._base
    if base is None:
        before = target._edge
        target._edge = made._edge
        target._requires_grad = made._requires_grad
        _move_retained(target, before)
        return
    if not (made._requires_grad or base._requires_grad):
        return
    if base._relaid:
        with no_grad():
            _made_again(target, base)
    before = base._edge
    node = ViewScatter()
    node.replay = target._replay
    node.layout = _axis_order(base._array)
    node.edges = (edge_for(base), made._edge)
    node.sequence_nr = next(clock)
    node.output_meta = ((base._array.shape, base._array.dtype),)
    base._edge = (node, 0)
    base._requires_grad = True
    _move_retained(base, before)


def _axis_order(array: np.ndarray) -> tuple[int, ...]:
    """The axes of `array` from the one with the largest stride to that with the smallest."""
    return tuple(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))


class ViewScatter(Op):
    """`base` with what a view shows replaced by `new`: the history of a change through a view."""

    namespaces = ""
    torch_name = None
    replay: tuple[Any, ...] = ()
    layout: tuple[int, ...] = ()  # of the base, in which the view could be made

    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        part = replay(ctx.replay, dy, relaxed=True)
        shape = dy._array.shape
        outside = wrap(
            np.empty([shape[axis] for axis in ctx.layout], dy._array.dtype).transpose(
                np.argsort(ctx.layout)
            )
        )
        outside._array[...] = 1 if state.grad else dy._array
        with no_grad():
            region = replay(ctx.replay, outside)
        region._array[...] = 0
        return dy * outside if state.grad else outside, part

    @staticmethod
    def samples(rand: Any) -> Iterator[tuple[Any, ...]]:
        return iter(())  # reached only through changes in place, and tested there
