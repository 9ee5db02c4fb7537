"""Recurrent networks: RNN, LSTM and GRU over sequences, and their cells.

Dimensions: S steps, N sequences, I width of the input, H width of the hidden state, P width of its
projection, G = 4H rows of an LSTM's weights, 3H of a GRU's, H of an RNN's; R rows of a packed
sequence: the elements of all sequences, step by step, of which step t has `sizes[t]`. The sequences
are sorted, the longest first, so `sizes` never grows.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Op, Tensor, wrap
from ..kernels import recurrent as kernel
from .activation import Relu, Tanh
from .checks import check_one_float_dtype, check_tensors
from .dropout import Dropout
from .join import Cat, Stack
from .linear import Linear, linear_backward
from .matmul import rows_of
from .samples import Rand, Samples, strided

Sizes = tuple[int, ...] | None  # rows of each step of a packed sequence; None if none is packed
States = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM


# One step


def _rnn_step(activate: Callable[[Tensor], Tensor]) -> Callable[..., States]:
    def step(gates_x: Tensor, h: Tensor, w_hh: Tensor, b_hh: Tensor | None) -> States:
        return (activate(gates_x + Linear.call(h, w_hh, b_hh)),)

    return step


def _lstm_step(
    gates_x: Tensor,
    h: Tensor,
    c: Tensor,
    w_hh: Tensor,
    b_hh: Tensor | None,
    w_hr: Tensor | None = None,
) -> States:
    i, f, g, o = (gates_x + Linear.call(h, w_hh, b_hh)).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return h if w_hr is None else Linear.call(h, w_hr), c


def _gru_step(gates_x: Tensor, h: Tensor, w_hh: Tensor, b_hh: Tensor | None) -> States:
    r_x, z_x, n_x = gates_x.chunk(3, -1)
    r_h, z_h, n_h = Linear.call(h, w_hh, b_hh).chunk(3, -1)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    n = (n_x + r * n_h).tanh()
    return ((1 - z) * n + z * h,)


def _loop(
    step: Callable[..., States],
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    *more: Tensor | None,
    sizes: Sizes,
    reverse: bool,
) -> tuple[Tensor, ...]:
    """Run one direction of a layer step by step: (S, N, I) or packed (R, I) -> y, *states.

    A sequence that has ended keeps its state; in reverse it begins with it at its last element.
    """
    gates = Linear.call(x, w_ih, b_ih)
    steps = gates.unbind(0) if sizes is None else gates.split(sizes, 0)
    ys: list[Any] = [None] * len(steps)
    for t in range(len(steps))[:: -1 if reverse else 1]:
        rows = steps[t].size(0)
        found = step(steps[t], *[s[:rows] for s in states], w_hh, b_hh, *more)
        ys[t] = found[0]
        states = tuple(
            new if rows == old.size(0) else Cat.call([new, old[rows:]], 0)
            for new, old in zip(found, states, strict=True)
        )
    return Stack.call(ys, 0) if sizes is None else Cat.call(ys, 0), *states


def _check_rows(
    name: str, x: Tensor, states: States, biases: Sequence[Any], sizes: Sizes, rows: int
) -> None:
    """Raise RuntimeError for states, biases or step sizes that do not fit x: kernels rely on it."""
    shape = x._array.shape
    if len(shape) != 3 - (sizes is not None):
        raise RuntimeError(f"{name}: x has {x.ndim} dimensions, its shape is {tuple(x.shape)}")
    if sizes is not None and (
        sum(sizes) != shape[0]
        or min(sizes, default=0) < 1
        or any(a < b for a, b in itertools.pairwise(sizes))
    ):
        raise RuntimeError(
            f"{name}: batch_sizes must be positive, never rise and sum to {x.size(0)}, the number "
            f"of rows, got {list(sizes)}"
        )
    n = shape[1] if sizes is None else sizes[0]
    for h in states:
        if h._array.ndim != 2 or h._array.shape[0] != n:
            raise RuntimeError(
                f"{name}: expected {n} states, one for each sequence, got shape {tuple(h.shape)}"
            )
    for bias in biases:
        if bias is not None and bias._array.shape != (rows,):
            raise RuntimeError(
                f"{name}: a bias must have {rows} elements, its shape is {tuple(bias.shape)}"
            )


# One direction of a layer


class _Layer(Op, abstract=True):
    """One direction of a layer over all steps: (S, N, I) or packed (R, I), states, weights.

    `call` takes x, the states (N, H), w_ih, w_hh, b_ih and b_hh, and by keyword `sizes`, `reverse`
    and the settings of its own; it returns y (S, N, H) or (R, H) and the last states.
    """

    namespaces = ""
    torch_name = None
    fused = True
    gates: ClassVar[int]
    states: ClassVar[int] = 1

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        """Return a function that checks the arguments and runs the kernel if it applies."""

        def call(
            x: Tensor, *args: Any, sizes: Sizes = None, reverse: bool = False, **more: Any
        ) -> tuple[Tensor, ...]:
            h, (w_ih, w_hh, *rest) = args[0], args[cls.states :]
            biases = {f"b_{i}": b for i, b in enumerate(rest) if b is not None}
            states = dict(zip(("h", "c"), args[: cls.states], strict=False))
            check_one_float_dtype(cls.op_name, x=x, **states, w_ih=w_ih, w_hh=w_hh, **biases)
            rows, inside = cls.gates * args[cls.states - 1]._array.shape[-1], h._array.shape[-1]
            widths = ("w_ih", w_ih, x._array.shape[-1]), ("w_hh", w_hh, inside)
            for name, w, width in widths:
                if w._array.shape != (rows, width):
                    raise RuntimeError(
                        f"{cls.op_name}: {name} must be {(rows, width)}, "
                        f"its shape is {tuple(w.shape)}"
                    )
            _check_rows(cls.op_name, x, args[: cls.states], rest[:2], sizes, rows)
            # No projection; half precision is rounded at each step, as in PyTorch.
            can_fuse = len(rest) == 2 and x._array.itemsize > 2
            run = cls.apply if can_fuse else cls.decomposition
            made: tuple[Tensor, ...] = run(x, *args, sizes=sizes, reverse=reverse, **more)
            return made

        return call

    def gradients_of(
        ctx, x: np.ndarray, h: np.ndarray, y: np.ndarray, w_ih: np.ndarray, walk: kernel.Walk,
        dx_gates: np.ndarray, dh_gates: np.ndarray, dstates: Sequence[np.ndarray],
    ) -> tuple[np.ndarray | None, ...]:  # fmt: skip
        """Return the gradients of all arguments, from those of x w_ihᵀ and h w_hhᵀ (R, G)."""
        needs_x, *_, needs_ih, needs_hh, needs_b_ih, needs_b_hh = ctx.needs_input_grad
        dx, dw_ih, db_ih = linear_backward(
            dx_gates, rows_of(x) if needs_ih else None, w_ih if needs_x else None, needs_b_ih, {}
        )
        before = walk.before(rows_of(y), h) if needs_hh else None
        shared = dx_gates is dh_gates and db_ih is not None
        _, dw_hh, db_hh = linear_backward(dh_gates, before, None, needs_b_hh and not shared, {})
        if needs_b_hh and shared and db_ih is not None:
            db_hh = db_ih.copy()
        return (None if dx is None else dx.reshape(x.shape), *dstates, dw_ih, dw_hh, db_ih, db_hh)

    @classmethod
    def flops(cls, args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor]) -> int:
        """Return the FLOPs of both products."""
        rows = outs[0].numel() // outs[0].size(-1)
        return 2 * rows * sum(int(w.numel()) for w in args[1 + cls.states : 3 + cls.states])

    @classmethod
    def backward_flops(
        cls, args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor], needs: Sequence[bool]
    ) -> int:
        """Return the FLOPs of the walk back and of the gradients of x and the weights."""
        rows = 2 * outs[0].numel() // outs[0].size(-1)
        w_ih, w_hh = (int(w.numel()) for w in args[1 + cls.states : 3 + cls.states])
        needs_ih, needs_hh = needs[1 + cls.states : 3 + cls.states]
        return rows * (w_hh * (1 + needs_hh) + w_ih * (needs[0] + needs_ih))

    @classmethod
    def samples(cls, rand: Rand, **how: Any) -> Samples:
        """Yield arguments of `call`: in both directions, packed, strided, and an empty batch."""

        def weights(width: int, biases: bool = True) -> list[Any]:
            rows = cls.gates * width
            bias = [rand(rows) if biases else None for _ in range(2)]
            return [rand(rows, 3), rand(rows, width), *bias]

        def ends(n: int, width: int = 4) -> list[Tensor]:
            return [rand(n, width) for _ in range(cls.states)]

        yield rand(3, 2, 3), *ends(2), *weights(4), how
        yield rand(3, 2, 3), *ends(2), *weights(4, False), {"reverse": True, **how}
        yield rand(6, 3), *ends(3), *weights(4), {"sizes": (3, 2, 1), **how}
        yield rand(6, 3), *ends(3), *weights(4), {"sizes": (3, 2, 1), "reverse": True, **how}
        yield strided(rand(1, 3, 3)), *ends(1, 5), *weights(5), how
        yield rand(2, 0, 3), *ends(0), *weights(4), how
        yield rand.constant(2, 2, 3), *ends(2), *weights(4), how


def _rows(dy: np.ndarray) -> np.ndarray:
    """Return dy with its leading dimensions merged, contiguous."""
    return np.ascontiguousarray(rows_of(dy))


def _summed(b_ih: np.ndarray | None, b_hh: np.ndarray | None) -> np.ndarray | None:
    """Return the sum of the biases that there are, or None."""
    given: list[np.ndarray] = [b for b in (b_ih, b_hh) if b is not None]
    return sum(given[1:], given[0]) if given else None


class RnnLayer(_Layer):
    """y, h = one direction of an RNN layer: (S, N, I), (N, H), (H, I), (H, H) -> (S, N, H), (N, H).

    h = f(x w_ihᵀ + b_ih + h w_hhᵀ + b_hh) at each step, f one of tanh and relu; y holds all h.
    dz = (dy + dh) * f'(z) and dh = dz w_hh, from the last step to the first; then, over all steps,
    dx = dz w_ih, dw_ih = dzᵀ x, dw_hh = dzᵀ h of the step before, db = the sum of dz.
    """

    gates = 1

    def forward(
        ctx, x: np.ndarray, h: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray,
        b_ih: np.ndarray | None, b_hh: np.ndarray | None,
        *, sizes: Sizes, reverse: bool, relu: bool,
    ) -> tuple[np.ndarray, ...]:  # fmt: skip
        walk = kernel.walk_of((len(h),) * len(x) if sizes is None else sizes, reverse)
        y, end = kernel.rnn(rows_of(x), h, w_ih, w_hh, _summed(b_ih, b_hh), walk, relu)
        y = y.reshape(*x.shape[:-1], h.shape[1])
        ctx.save(x, h, w_ih, w_hh, y, walk, relu)
        return y, end

    def backward(ctx, dy: np.ndarray, dh: np.ndarray) -> tuple[np.ndarray | None, ...]:
        x, h, w_ih, w_hh, y, walk, relu = ctx.saved
        dz, dh0 = kernel.rnn_backward(_rows(dy), dh, rows_of(y), w_hh, walk, relu)
        return ctx.gradients_of(x, h, y, w_ih, walk, dz, dz, (dh0,))

    @staticmethod
    def decomposition(
        x: Tensor, h: Tensor, *weights: Any, relu: bool, **how: Any
    ) -> tuple[Tensor, ...]:
        step = _rnn_step(Relu.call if relu else Tanh.call)
        return _loop(step, x, (h,), *weights, **how)

    @classmethod
    def samples(cls, rand: Rand, **how: Any) -> Samples:
        """Yield those of `_Layer` with each activation."""
        for relu in (False, True):
            yield from super().samples(rand, relu=relu)


class LstmLayer(_Layer):
    """y, h, c = one direction of an LSTM layer.

    (S, N, I), (N, H), (N, H), (4H, I), (4H, H) -> (S, N, H), (N, H), (N, H).

    (i, f, g, o) = x w_ihᵀ + b_ih + h w_hhᵀ + b_hh, c = sigmoid(f) * c + sigmoid(i) * tanh(g) and
    h = sigmoid(o) * tanh(c) at each step; y (S, N, H) holds all h, and h and c (N, H) are the last.
    From the last step to the first, with t = tanh(c) and i, f, g, o after their activations:
    dh += dy, dc += dh * o * (1 - t^2), di = dc * g * i * (1 - i), df = dc * c' * f * (1 - f),
    dg = dc * i * (1 - g^2), do = dh * t * o * (1 - o), dc = dc * f, dh = (di, df, dg, do) w_hh,
    c' of the step before; then the gradients of x, weights and biases as in `rnn_layer`.
    """

    states = 2
    gates = 4
    saves = ("x", "h", "c", "w_ih", "w_hh", "y", "gates of every step", "cells of every step")

    def forward(
        ctx, x: np.ndarray, h: np.ndarray, c: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray,
        b_ih: np.ndarray | None, b_hh: np.ndarray | None, *, sizes: Sizes, reverse: bool,
    ) -> tuple[np.ndarray, ...]:  # fmt: skip
        walk = kernel.walk_of((len(h),) * len(x) if sizes is None else sizes, reverse)
        bias = _summed(b_ih, b_hh)
        y, *ends, gates, cells = kernel.lstm(rows_of(x), h, c, w_ih, w_hh, bias, walk)
        y = y.reshape(*x.shape[:-1], h.shape[1])
        ctx.save(x, h, c, w_ih, w_hh, y, gates, cells, walk)
        return (y, *ends)

    def backward(
        ctx, dy: np.ndarray, dh: np.ndarray, dc: np.ndarray
    ) -> tuple[np.ndarray | None, ...]:
        x, h, c, w_ih, w_hh, y, gates, cells, walk = ctx.saved
        dz, *dstates = kernel.lstm_backward(
            _rows(dy), dh, dc, rows_of(y), gates, cells, np.ascontiguousarray(c), w_hh, walk
        )
        return ctx.gradients_of(x, h, y, w_ih, walk, dz, dz, dstates)

    @staticmethod
    def decomposition(
        x: Tensor, h: Tensor, c: Tensor, *weights: Any, **how: Any
    ) -> tuple[Tensor, ...]:
        return _loop(_lstm_step, x, (h, c), *weights, **how)


class GruLayer(_Layer):
    """y, h = one direction of a GRU layer: (S, N, I), (N, H), (3H, I), (3H, H) -> (S, N, H), ...

    With (r, z, n) = x w_ihᵀ + b_ih and (r', z', n') = h w_hhᵀ + b_hh, r and z become
    sigmoid(r + r') and sigmoid(z + z'), n becomes tanh(n + r * n') and h = (1 - z) * n + z * h at
    each step; y holds all h. From the last step to the first, dh += dy,
    dn = dh * (1 - z) * (1 - n^2), dz = dh * (h - n) * z * (1 - z), dn' = dn * r,
    dr = dn' * n' * (1 - r), dh = dh * z + (dr, dz, dn') w_hh, h of the step before; then the
    gradients of x, weights and biases as in `rnn_layer`, those of w_hh and b_hh from (dr, dz, dn').
    """

    gates = 3
    saves = ("x", "h", "w_ih", "w_hh", "y", "gates of every step", "h part of n of every step")

    def forward(
        ctx, x: np.ndarray, h: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray,
        b_ih: np.ndarray | None, b_hh: np.ndarray | None, *, sizes: Sizes, reverse: bool,
    ) -> tuple[np.ndarray, ...]:  # fmt: skip
        walk = kernel.walk_of((len(h),) * len(x) if sizes is None else sizes, reverse)
        y, end, gates, products = kernel.gru(rows_of(x), h, w_ih, w_hh, b_ih, b_hh, walk)
        y = y.reshape(*x.shape[:-1], h.shape[1])
        ctx.save(x, h, w_ih, w_hh, y, gates, products, walk)
        return y, end

    def backward(ctx, dy: np.ndarray, dh: np.ndarray) -> tuple[np.ndarray | None, ...]:
        x, h, w_ih, w_hh, y, gates, products, walk = ctx.saved
        dx_gates, dh_gates, dh0 = kernel.gru_backward(
            _rows(dy), dh, rows_of(y), gates, products, np.ascontiguousarray(h), w_hh, walk
        )
        return ctx.gradients_of(x, h, y, w_ih, walk, dx_gates, dh_gates, (dh0,))

    @staticmethod
    def decomposition(x: Tensor, h: Tensor, *weights: Any, **how: Any) -> tuple[Tensor, ...]:
        return _loop(_gru_step, x, (h,), *weights, **how)


# All layers


class _Network(Op, abstract=True):
    """A network of several layers.

    Call it as `f(input, hx, params, has_biases, num_layers, dropout, train, bidirectional,
    batch_first)`, or with the data (R, I) and the step sizes (S) of a packed sequence as
    `f(data, batch_sizes, hx, params, has_biases, num_layers, dropout, train, bidirectional)`.
    """

    namespaces = "torch"
    layer: ClassVar[Any]
    gates: ClassVar[int]
    states: ClassVar[int] = 1  # 2 if hx is a pair

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        """Return the public function."""

        def call(input: Tensor, *args: Any) -> tuple[Tensor, ...]:
            sizes = None
            if isinstance(args[cls.states % 2], Tensor):  # where params or (h, c) would be
                sizes, args = tuple(args[0].tolist()), (*args[1:], False)
            hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first = args
            states = hx if cls.states == 2 else (hx,)
            if len(states) != cls.states:
                raise RuntimeError(f"{cls.op_name} expects two hidden states")
            x = input.transpose(0, 1) if batch_first else input
            if x.size(0) == 0:
                raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
            y, *ends = _layers(
                cls, x, states, params, has_biases, num_layers,
                dropout if train else 0.0, bidirectional, sizes,
            )  # fmt: skip
            return y.transpose(0, 1) if batch_first else y, *ends

        return call

    @classmethod
    def samples(cls, rand: Rand) -> Samples:
        """Yield arguments of `call`."""
        yield cls._sample(rand, rand(5, 2, 3), 2, True, 1, False, False)
        yield cls._sample(rand, rand(2, 4, 3), 2, False, 2, True, True)
        for sizes, layers, both in (((3, 3, 2, 1), 1, True), ((2, 1), 2, False)):
            x = rand(sum(sizes), 3)
            x, *args, _ = cls._sample(rand, x, sizes[0], both, layers, both, False)
            counts: Tensor = wrap(np.array(sizes))
            yield x, counts, *args

    @classmethod
    def errors(cls, rand: Rand) -> Samples:
        """Yield arguments that do not fit: no step, too few weights, weights of other widths."""
        how = True, 1, False, False
        yield cls._sample(rand, rand(0, 2, 3), 2, *how)
        yield cls._sample(rand, rand(5, 2, 2), 2, *how)
        x, hx, params, *rest = cls._sample(rand, rand(5, 2, 3), 2, *how)
        yield x, hx, params[:1], *rest
        if cls.states == 2:
            yield x, hx[:1], params, *rest

    @classmethod
    def _sample(
        cls, rand: Rand, x: Tensor, n: int, biases: bool, layers: int, both: bool, first: bool
    ) -> tuple[Any, ...]:
        """Return arguments for x with n sequences; I is 3 and H is 4."""
        directions = 2 if both else 1
        hx = tuple(rand(layers * directions, n, 4) for _ in range(cls.states))
        params = []
        for k in range(layers * directions):
            params.append(rand(cls.gates * 4, 3 if k < directions else 4 * directions))
            params.append(rand(cls.gates * 4, 4))
            params += [rand(cls.gates * 4) for _ in range(2 if biases else 0)]
        how = biases, layers, 0.0, True, both, first
        return x, hx if cls.states == 2 else hx[0], params, *how


def _layers(
    network: type[_Network],
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    bidirectional: bool,
    sizes: Sizes,
) -> tuple[Tensor, ...]:
    """Run all layers and directions, and return y and the last states (D, N, *)."""
    name = network.op_name
    check_one_float_dtype(name, input=x, **{f"hx[{i}]": s for i, s in enumerate(states)})
    directions = 2 if bidirectional else 1
    for s in states:
        if s.ndim != 3 or s.size(0) != directions * num_layers:
            raise RuntimeError(
                f"{name}: expected hidden states ({directions * num_layers}, N, H), got "
                f"{tuple(s.shape)}"
            )
    projects = network.states == 2 and states[0].size(-1) != states[1].size(-1)
    each = (4 if has_biases else 2) + projects
    if len(params) != each * directions * num_layers:
        raise RuntimeError(
            f"{name}: expected {each} weights for each of {directions * num_layers} layers and "
            f"directions, got {len(params)} in all"
        )
    starts = list(zip(*(s.unbind(0) for s in states), strict=True))
    ends: list[list[Tensor]] = []
    for number in range(num_layers):
        outs = []
        for direction in range(directions):
            k = len(ends)
            w_ih, w_hh, *rest = params[k * each : (k + 1) * each]
            biases = [] if has_biases else [None, None]
            weights = w_ih, w_hh, *biases, *rest
            y, *end = network.layer(x, *starts[k], *weights, sizes=sizes, reverse=direction == 1)
            outs.append(y)
            ends.append(end)
        x = Cat.call(outs, -1) if bidirectional else outs[0]
        if number < num_layers - 1:
            x = Dropout.call(x, dropout)
    return x, *(Stack.call(column, 0) for column in zip(*ends, strict=True))


class Lstm(_Network):
    """y, h, c = an LSTM of several layers: (S, N, I), ((D, N, H), (D, N, H)) -> (S, N, H), ...

    i, f, o = sigmoid(x w_ihᵀ + b_ih + h w_hhᵀ + b_hh), g = tanh(...), c = f * c + i * g,
    h = o * tanh(c), at each step, and h = h w_hrᵀ with a projection. D is `num_layers`, twice that
    if `bidirectional`, when y is (S, N, 2H); each layer reads the outputs of the one before, after
    `dropout` of them in training. `params` holds w_ih, w_hh, b_ih, b_hh and w_hr of each layer and
    direction, as far as there are biases and a projection.

    Call it as `lstm(input, (h, c), params, has_biases, num_layers, dropout, train, bidirectional,
    batch_first)`, or with the data (R, I) and the step sizes (S) of a packed sequence as
    `lstm(data, batch_sizes, (h, c), params, has_biases, num_layers, dropout, train,
    bidirectional)`. RuntimeError for types or shapes that do not fit.

    S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", 1997; F. Gers and others, "Learning to
    Forget: Continual Prediction with LSTM", 2000.
    """

    layer = staticmethod(LstmLayer.call)
    gates, states = 4, 2


class Gru(_Network):
    """y, h = a GRU of several layers: (S, N, I), (D, N, H) -> (S, N, H), (D, N, H).

    r, z = sigmoid(x w_ihᵀ + b_ih + h w_hhᵀ + b_hh), n = tanh(x w_ihᵀ + b_ih + r * (h w_hhᵀ + b_hh))
    and h = (1 - z) * n + z * h, at each step. All else is as in `lstm`, with h in place of (h, c).

    K. Cho and others, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical
    Machine Translation", 2014.
    """

    layer = staticmethod(GruLayer.call)
    gates = 3


class RnnTanh(_Network):
    """y, h = an Elman network of several layers: (S, N, I), (D, N, H) -> (S, N, H), (D, N, H).

    h = tanh(x w_ihᵀ + b_ih + h w_hhᵀ + b_hh) at each step. All else is as in `lstm`, with h in
    place of (h, c).

    J. Elman, "Finding Structure in Time", 1990.
    """

    layer = staticmethod(functools.partial(RnnLayer.call, relu=False))
    gates = 1


class RnnRelu(_Network):
    """y, h = `rnn_tanh` with relu: h = max(0, x w_ihᵀ + b_ih + h w_hhᵀ + b_hh) at each step."""

    layer = staticmethod(functools.partial(RnnLayer.call, relu=True))
    gates = 1


# Cells


class _Cell(Op, abstract=True):
    """One step of a network of one layer: (N, I), hx, (G, I), (G, H), biases (G) -> the new hx."""

    namespaces = "torch"
    network: ClassVar[type[_Network]]

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        """Return the public function."""
        name, pair = cls.op_name, cls.network.states == 2

        def call(
            input: Tensor,
            hx: Any,
            w_ih: Tensor,
            w_hh: Tensor,
            b_ih: Tensor | None = None,
            b_hh: Tensor | None = None,
        ) -> Any:
            states = hx if pair else (hx,)
            if len(states) != cls.network.states:
                raise RuntimeError(f"{name} expects two hidden states")
            _check_cell(name, input, states, w_ih, w_hh)
            x = input.unsqueeze(0)
            _, *new = cls.network.layer(x, *states, w_ih, w_hh, b_ih, b_hh)
            return tuple(new) if pair else new[0]

        return call

    @classmethod
    def samples(cls, rand: Rand) -> Samples:
        """Yield arguments of `call`, with biases and without."""
        rows = cls.network.gates * 4
        yield *cls._sample(rand), rand(rows), rand(rows)
        yield cls._sample(rand)

    @classmethod
    def errors(cls, rand: Rand) -> Samples:
        """Yield inputs and states of other sizes."""
        yield cls._sample(rand, (2, 2))
        yield cls._sample(rand, (1, 3))
        yield cls._sample(rand, (3,))
        yield cls._sample(rand, (2, 3), 5)

    @classmethod
    def _sample(cls, rand: Rand, shape: tuple[int, ...] = (2, 3), width: int = 4) -> Any:
        hx = tuple(rand(2, width) for _ in range(cls.network.states))
        rows = cls.network.gates * 4
        return rand(*shape), hx if len(hx) == 2 else hx[0], rand(rows, 3), rand(rows, 4)


def _check_cell(
    name: str, input: Tensor, states: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor
) -> None:
    """Raise TypeError for what is not a tensor, IndexError or RuntimeError for other shapes."""
    check_tensors(name, input=input, hx=states[0], w_ih=w_ih, w_hh=w_hh)
    x, ih, hh, *hidden = (t._array.shape for t in (input, w_ih, w_hh, *states))
    if min(map(len, (x, ih, hh, *hidden))) < 2:
        raise IndexError(
            f"{name}: input, states and weights must be matrices, the input is {input.shape}"
        )
    if x[1] != ih[1]:
        raise RuntimeError(
            f"{name}: input has inconsistent input_size: got {x[1]} expected {ih[1]}"
        )
    for i, h in enumerate(hidden):
        if x[0] != h[0]:
            raise RuntimeError(
                f"{name}: Input batch size {x[0]} doesn't match hidden{i} batch size {h[0]}"
            )
        if h[1] != hh[1]:
            raise RuntimeError(
                f"{name}: hidden{i} has inconsistent hidden_size: got {h[1]}, expected {hh[1]}"
            )


class LstmCell(_Cell):
    """h, c = one step of `lstm`: (N, I), ((N, H), (N, H)), (4H, I), (4H, H) -> (N, H), (N, H).

    RuntimeError or IndexError for shapes that do not fit.
    """

    network = Lstm


class GruCell(_Cell):
    """h = one step of `gru`: (N, I), (N, H), (3H, I), (3H, H) -> (N, H).

    RuntimeError or IndexError for shapes that do not fit.
    """

    network = Gru


class RnnTanhCell(_Cell):
    """h = one step of `rnn_tanh`: (N, I), (N, H), (H, I), (H, H) -> (N, H).

    RuntimeError or IndexError for shapes that do not fit.
    """

    network = RnnTanh


class RnnReluCell(_Cell):
    """h = one step of `rnn_relu`: (N, I), (N, H), (H, I), (H, H) -> (N, H).

    RuntimeError or IndexError for shapes that do not fit.
    """

    network = RnnRelu
