"""Op: an operation as a rule, and its run.

An op is a class that holds everything about an operation. Running it makes an instance, a node of
the graph: the `self` of `forward` and `backward`, which call it `ctx`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from time import perf_counter
from typing import Any, ClassVar

import numpy as np

from .. import memory, rounding
from ..dtype import FLOATING
from ..errors import EXPLAINED, explain
from ..registry import Registered
from .backward import run_backward
from .node import Node, clock, edge_for
from .observe import state
from .saved import NOTHING, SavedTensors
from .tensor import Tensor, wrap

ndarray, asarray = np.ndarray, np.asarray


class Op(Node, Registered, abstract=True):
    """One operation: how to compute it, how to differentiate it, and samples to try it on.

    A subclass registers itself: `class Cube(Op)` gives `minitensor.cube(x)` and `x.cube()`.

        class Cube(Op):
            \"\"\"y = x ** 3: (*) -> (*).  dx = 3 * x ** 2 * dy.\"\"\"
            def forward(ctx, x):
                ctx.save(x)
                return x**3
            def backward(ctx, dy):
                (x,) = ctx.saved
                return 3 * x * x * dy

    - `forward(ctx, *args)` gets the arguments with arrays in place of tensors and returns an array
      or a tuple of arrays that depend on nothing else (random numbers come in as a key).
      `ctx.save(...)` keeps what `backward` needs. Without a `forward`, `call` composes other ops.
    - `backward(ctx, *grads)` gets the gradient of each output and returns that of each positional
      argument, in order; None where none is needed, trailing ones may be left out. In a *primitive*
      `grads` and `ctx.saved` are tensors and the rule is written with ops, so that it can be
      differentiated again. In a *fused* op (`fused = True`) they are arrays, for kernels; and so
      they are in a primitive whose rule suits both (`plain = True`), if small and not recorded.
    - `decomposition(*args)`: the same function composed of other ops. It documents the op, is the
      reference in its tests, gives its second derivative, and is drawn inside it in a graph.
    - `cell`: where a number of the result comes from: a formula in cells of the arguments, "exp(x)"
      (see `minitensor.graph.cells`), or a static method of forward's arguments that returns it; for
      several outputs a tuple. `hidden(*args)` gives arrays that it names besides, by their names.
      An op that only moves numbers has `moves` instead, the names of the arguments they are from.
    - `call(...)`: the public function, with PyTorch's signature; by default `apply`, where it ends.
    - `samples(rand)` yields argument tuples for `call`, keyword arguments as a dict at the end.
      `errors(rand)` yields argument tuples that must raise what PyTorch raises.
      `rand`, a `minitensor.ops.samples.Rand`, makes tensors: `rand(2, 3)` normal ones that require
      grad, `rand.constant` without, `rand.positive` in 0.5 to 2, `rand.distinct` far from kinks.
    """

    fused: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    view: ClassVar[bool] = False  # the result shows the memory of the first argument
    native: ClassVar[bool] = False  # kernels do all: their calls can be replayed in its place
    relaxed: ClassVar[Any] = None  # of a view that depends on the layout: the op that may copy
    decomposition: ClassVar[Any] = None
    cell: ClassVar[Any] = None
    moves: ClassVar[tuple[str, ...]] = ()  # arguments whose numbers the result has unchanged
    hidden: ClassVar[Any] = None
    # Does forward get half precision as it is? None: if the op moves numbers. See `rounding`.
    takes_half: ClassVar[bool | None] = None
    one_type: ClassVar[bool] = False  # forward refuses floats of several types
    half: Any = None  # the type of a run in half precision
    plain: bool = False  # the backward rule is arithmetic, which arrays have as tensors do
    on_arrays: bool = False  # the backward rule of this run gets arrays
    link_views: ClassVar[Any]  # autograd.views: ties the outputs of a view op to their base
    _kwargs: Mapping[str, Any] | None = None  # of a fused op's run

    def __init_subclass__(cls, abstract: bool = False) -> None:
        super().__init_subclass__(abstract)
        run = cls()  # Python keeps fast room for the attributes that the first instances have
        run.edges, run.sequence_nr, run.output_meta, run._saved = (), 0, (), NOTHING
        run.on_arrays, run._inputs, run._kwargs = False, None, None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result on arrays."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, *grads: Any) -> Any:
        """Compute the gradients of the arguments, given those of the outputs."""
        raise NotImplementedError(f"the derivative of {self.op_name} is not implemented")

    def save(self, *values: Any) -> None:
        """Keep arrays and settings for `backward`."""
        self._saved = values

    @property
    def saved(self) -> tuple[Any, ...]:
        """The values that `save` kept: arrays become tensors, except in a fused op."""
        saved = self._unpack()
        values = saved.values if self.on_arrays else saved.tensors(self)
        return values if self.half is None else rounding.widen(values)

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run the op on tensors, and record the run if a gradient may be asked for."""
        here = state.__dict__  # one look at thread-local storage, not three
        node = cls()
        arrays: list[Any] = []
        edges: list[Any] = []
        node.edges = edges
        recording, graded, half = False, here["grad"] and cls.differentiable, None
        for a in args:
            edge: Any = None
            if isinstance(a, Tensor):
                if graded:
                    if a._view is not None:
                        edge = edge_for(a)
                        recording = recording or edge is not None
                    elif a._requires_grad:
                        edge = a._edge or a
                        recording = True
                a = a._array
                if a.itemsize == 2:
                    half = a.dtype
            arrays.append(a)
            edges.append(edge)
        # Saved arrays are matched to their arguments by identity, but two tensors may share one
        # array (x and x.detach()).
        if recording and len(arrays) > 1 and (len(arrays) > 2 or arrays[0] is arrays[1]):
            for number, a in enumerate(arrays):
                if type(a) is ndarray and id(a) in map(id, arrays[:number]):
                    arrays[number] = a.view()
        forward: Any = node.forward
        if half is not None and rounding.applies(cls, half):
            forward = partial(rounding.run, node, half)
        quietly, observers = here["quietly"], here["observers"]
        start = perf_counter() if observers else 0.0
        try:
            try:
                result = quietly(forward, *arrays, **kwargs)
            except MemoryError:
                memory.release()  # the pool's free buffers may be enough
                result = quietly(forward, *arrays, **kwargs)
        except EXPLAINED as error:
            raise explain(cls.op_name, error, args) from error
        if observers:
            node.seconds = perf_counter() - start
        if type(result) is tuple:
            outs = tuple([wrap(node._as_array(r)) for r in result])
        else:
            outs = (wrap(result if type(result) is ndarray else node._as_array(result)),)
        if cls.view:
            cls.link_views(args, kwargs, outs)
        if recording:
            node._record(args, arrays, kwargs, outs)
        for observer in observers:
            observer.ran(node, args, kwargs, outs)
        return outs if type(result) is tuple else outs[0]

    def _as_array(self, result: Any) -> np.ndarray:
        """Return a result of `forward` as an array: a 0-dim one where NumPy gives a scalar."""
        array = asarray(result)
        if type(self._saved) is tuple:
            self._saved = tuple([array if v is result else v for v in self._saved])
        return array

    def _record(self, args: Any, arrays: Any, kwargs: Any, outs: tuple[Tensor, ...]) -> None:
        """Enter this run in the graph: link its outputs to it, and pack its saved tensors."""
        self.sequence_nr = next(clock)
        meta: list[Any] = []
        self.output_meta = meta
        for out in outs:
            shape, dtype = out._array.shape, out._array.dtype
            if dtype.kind in FLOATING:
                out._edge, out._requires_grad = (self, len(meta)), True
            meta.append((shape, dtype))
        if self._saved is not NOTHING:
            self._saved = SavedTensors.of_rule(self._saved, args, arrays, self.edges, outs)
        if self.fused and state.twice:
            self._inputs = SavedTensors.of_rule(tuple(arrays), args, arrays, self.edges, ())
            self._kwargs = kwargs

    # Running backward

    def gradients(self, grads: list[Any]) -> tuple[Any, ...]:
        """Run the backward rule: on tensors, or for a fused op on arrays."""
        here = state.__dict__
        if len(grads) > 1 and self.materialize:
            grads = self._materialized(grads)
        if self.fused and here["grad"]:
            return self._differentiate_decomposition(grads)
        self.on_arrays = self.fused
        if self.half is not None:
            grads = list(rounding.widen(grads))
        elif self.plain and not (here["grad"] or here["observers"]):
            self.on_arrays = grads[0]._array.nbytes < memory.SMALLEST
        if not self.on_arrays:
            found = self.backward(*grads)
            return found if type(found) is tuple else (found,)
        self._saved.unpack()  # a checkpoint runs ops here, which they may not inside `quietly`
        dropped = self.materialize  # those of outputs that are no floats
        given = [None if g is None else g._array for g in grads if g is not None or not dropped]
        try:
            made = here["quietly"](self.backward, *given)
        except MemoryError as error:
            raise explain(f"{self.op_name} (backward)", error, grads) from error
        made = made if type(made) is tuple else (made,)
        return tuple([None if a is None else wrap(asarray(a)) for a in made])

    def _differentiate_decomposition(self, grads: list[Any]) -> tuple[Any, ...]:
        """Return gradients that can be differentiated again, by the ops of the decomposition."""
        decomposition = type(self).decomposition
        if decomposition is None or self._inputs is None:
            raise RuntimeError(f"{self.op_name} has no second derivative: it has no decomposition")
        inputs = self._inputs.unpack()
        inputs.check(self)
        # Fresh aliases, because one argument may have been computed from another.
        args = [Alias.apply(a) if isinstance(a, Tensor) else a for a in inputs.tensors(self)]
        outs = decomposition(*args, **(self._kwargs or {}))
        outs = outs if isinstance(outs, tuple) else (outs,)
        pairs = zip(outs, grads, strict=True)
        roots = [(edge_for(o), g) for o, g in pairs if o.requires_grad and g is not None]
        wanted = {edge_for(a): i for i, a in enumerate(args) if getattr(a, "requires_grad", False)}
        found = run_backward(roots, True, wanted) if wanted else {}
        return tuple([found.get(i) for i in range(len(args))])


class Alias(Op):
    """The same values in the same memory, as a tensor of its own: (*) -> (*).  dx = dy."""

    namespaces = ""
    torch_name = None
    moves = ("x",)

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        return x

    def backward(ctx, dy: Tensor) -> Tensor:
        return dy

    @staticmethod
    def samples(rand: Any) -> Iterator[tuple[Any, ...]]:
        yield (rand(2, 3),)
