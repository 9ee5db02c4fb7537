"""Recurrent networks: RNN, LSTM and GRU over sequences, and their cells.

Dimensions: S steps, N sequences, I width of the input, H width of the hidden state, P width of its
projection, G = 4H rows of an LSTM's weights, 3H of a GRU's, H of an RNN's; R rows of a packed
sequence: the elements of all sequences, step by step, of which step t has `sizes[t]`. The sequences
are sorted, the longest first, so `sizes` never grows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Op, Tensor
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


# One direction of a layer


class _Layer(Op, abstract=True):
    """One direction of a layer over all steps: (S, N, I), states (N, H), weights -> y, *states.

    `call` takes x, the states, w_ih, w_hh, b_ih, b_hh, and by keyword `sizes` and `reverse`.
    """

    namespaces = ""
    torch_name = None
    fused = True
    states: ClassVar[int] = 1
    gates: ClassVar[int]

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        """Return a function that checks the arguments and runs the kernel if it applies."""

        def call(
            x: Tensor, *args: Tensor | None, sizes: Sizes = None, reverse: bool = False, **how: Any
        ) -> tuple[Tensor, ...]:
            (h, *_), (w_ih, w_hh, b_ih, b_hh, *projection) = (
                args[: cls.states],
                args[cls.states :],
            )
            given = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
            named = {name: w for name, w in given.items() if w is not None}
            check_one_float_dtype(cls.op_name, input=x, h=h, **named)
            rows, width = cls.gates * w_hh._array.shape[-1], x._array.shape[-1]
            if not projection:
                _check_shape(cls.op_name, "w_hh", w_hh, (rows, h._array.shape[-1]))
                _check_shape(cls.op_name, "w_ih", w_ih, (rows, width))
            run = cls.decomposition if projection or x._array.itemsize == 2 else cls.apply
            return run(x, *args, sizes=sizes, reverse=reverse, **how)  # type: ignore[no-any-return]

        return call

    def gradients_of(
        ctx, x: np.ndarray, h: np.ndarray, y: np.ndarray, w_ih: np.ndarray, walk: kernel.Walk,
        dx_gates: np.ndarray, dh_gates: np.ndarray, dstates: Sequence[np.ndarray],
    ) -> tuple[np.ndarray | None, ...]:  # fmt: skip
        """Return the gradients of all arguments, from those of x w_ihᵀ and h w_hhᵀ (R, G)."""
        needs_x, *_, needs_ih, needs_hh, needs_b_ih, needs_b_hh = ctx.needs_input_grad
        dx, dw_ih, db_ih = linear_backward(
            dx_gates, rows_of(x) if needs_ih else None, w_ih if needs_x else None, needs_b_ih
        )
        before = walk.before(rows_of(y), h) if needs_hh else None
        shared = dx_gates is dh_gates and db_ih is not None
        _, dw_hh, db_hh = linear_backward(dh_gates, before, None, needs_b_hh and not shared)
        if needs_b_hh and shared:
            db_hh = db_ih.copy()  # type: ignore[union-attr]
        return (None if dx is None else dx.reshape(x.shape), *dstates, dw_ih, dw_hh, db_ih, db_hh)

    @classmethod
    def flops(cls, args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor]) -> int:
        """Return the FLOPs of both products."""
        rows = outs[0].numel() // outs[0].size(-1)
        return 2 * rows * sum(w.numel() for w in args[1 + cls.states : 3 + cls.states])

    @classmethod
    def backward_flops(
        cls, args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor], needs: Sequence[bool]
    ) -> int:
        """Return the FLOPs of the walk back and of the gradients of x and the weights."""
        rows = 2 * outs[0].numel() // outs[0].size(-1)
        w_ih, w_hh = (w.numel() for w in args[1 + cls.states : 3 + cls.states])
        needs_ih, needs_hh = needs[1 + cls.states : 3 + cls.states]
        return rows * (w_hh * (1 + needs_hh) + w_ih * (needs[0] + needs_ih))


def _check_shape(name: str, which: str, w: Tensor, shape: tuple[int, ...]) -> None:
    if w._array.shape != shape:
        raise RuntimeError(f"{name}: {which} must be {shape}, its shape is {tuple(w.shape)}")


def _walk(x: np.ndarray, h: np.ndarray, sizes: Sizes, reverse: bool) -> kernel.Walk:
    """Return the walk over the steps of x (S, N, I), or packed (R, I) with `sizes`."""
    return kernel.Walk((len(h),) * len(x) if sizes is None else sizes, reverse)


def _rows(dy: np.ndarray) -> np.ndarray:
    """Return dy with its leading dimensions merged, contiguous."""
    return np.ascontiguousarray(rows_of(dy))


def _summed(b_ih: np.ndarray | None, b_hh: np.ndarray | None) -> np.ndarray | None:
    if b_ih is None or b_hh is None:
        return b_hh if b_ih is None else b_ih
    return b_ih + b_hh


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
        walk = _walk(x, h, sizes, reverse)
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

    @staticmethod
    def samples(rand: Rand) -> Samples:
        for relu in (False, True):
            yield from _layer_samples(rand, 1, 1, relu=relu)


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

    def forward(
        ctx, x: np.ndarray, h: np.ndarray, c: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray,
        b_ih: np.ndarray | None, b_hh: np.ndarray | None, *, sizes: Sizes, reverse: bool,
    ) -> tuple[np.ndarray, ...]:  # fmt: skip
        walk = _walk(x, h, sizes, reverse)
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

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield from _layer_samples(rand, 4, 2)


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

    def forward(
        ctx, x: np.ndarray, h: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray,
        b_ih: np.ndarray | None, b_hh: np.ndarray | None, *, sizes: Sizes, reverse: bool,
    ) -> tuple[np.ndarray, ...]:  # fmt: skip
        walk = _walk(x, h, sizes, reverse)
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

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield from _layer_samples(rand, 3, 1)


# All layers


def _network(
    name: str,
    layer: Callable[..., tuple[Tensor, ...]],
    input: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    sizes: Sizes,
) -> tuple[Tensor, ...]:
    """Run all layers and directions, and return y and the last states (num_layers * D, N, *)."""
    check_one_float_dtype(name, input=input, **{f"hx[{i}]": s for i, s in enumerate(states)})
    directions = 2 if bidirectional else 1
    projects = len(states) == 2 and states[0].shape[-1] != states[1].shape[-1]
    each = (4 if has_biases else 2) + projects
    if len(params) != each * directions * num_layers:
        raise RuntimeError(
            f"{name}: expected {each} weights for each of {directions * num_layers} layers and "
            f"directions, got {len(params)} in all"
        )
    if sizes is None:
        if batch_first:
            input = input.transpose(0, 1)
        if input.size(0) == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    parts = [s.unbind(0) for s in states]
    ends: list[tuple[Tensor, ...]] = []
    for number in range(num_layers):
        outs = []
        for direction in range(directions):
            k = number * directions + direction
            w_ih, w_hh, *rest = params[k * each : (k + 1) * each]
            biases = rest[:2] if has_biases else (None, None)
            given = (w_ih, w_hh, *biases, *rest[-1:]) if projects else (w_ih, w_hh, *biases)
            y, *end = layer(
                input, *(part[k] for part in parts), *given, sizes=sizes, reverse=direction == 1
            )
            outs.append(y)
            ends.append(tuple(end))
        input = Cat.call(outs, -1) if bidirectional else outs[0]
        if number < num_layers - 1:
            input = Dropout.call(input, dropout, train)
    if batch_first:
        input = input.transpose(0, 1)
    return input, *(Stack.call(column, 0) for column in zip(*ends, strict=True))


def _unpacked(batch_sizes: Tensor) -> tuple[int, ...]:
    return tuple(batch_sizes.tolist())


class Lstm(Op):
    """y, h, c = an LSTM of several layers: (S, N, I), (D, N, H), (D, N, H) -> (S, N, D * H), ...

    i, f, o = sigmoid(x w_ihᵀ + b_ih + h w_hhᵀ + b_hh), g = tanh(...), c = f * c + i * g,
    h = o * tanh(c), at each step, and h = h w_hrᵀ with a projection. D is `num_layers`, twice that
    if `bidirectional`; each layer reads the outputs of the one before, after `dropout` of them in
    training. `params` holds w_ih, w_hh, b_ih, b_hh and w_hr of each layer and direction, as far as
    there are biases and a projection.

    Call it as `lstm(input, (h, c), params, has_biases, num_layers, dropout, train, bidirectional,
    batch_first)`, or with the data (R, I) and the step sizes (S) of a packed sequence as
    `lstm(data, batch_sizes, (h, c), params, has_biases, num_layers, dropout, train,
    bidirectional)`. RuntimeError for types or shapes that do not fit.

    S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", 1997; F. Gers and others, "Learning to
    Forget: Continual Prediction with LSTM", 2000.
    """

    namespaces = "torch"

    @staticmethod
    def call(input: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        sizes = None
        if isinstance(args[0], Tensor):
            sizes, args = _unpacked(args[0]), (*args[1:], False)
        hx, *rest = args
        if len(hx) != 2:
            raise RuntimeError("lstm expects two hidden states")
        return _network("lstm", LstmLayer.call, input, hx, *rest, sizes)  # type: ignore[return-value]

    @staticmethod
    def samples(rand: Rand) -> Samples:
        return _samples(rand, 4, 2)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        return _errors(rand, 4, 2)


class _Simple(Op, abstract=True):
    """A network whose only state is its output."""

    layer: Any

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        """Return the public function."""

        def call(input: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
            sizes = None
            if isinstance(args[1], Tensor):
                sizes, args = _unpacked(args[0]), (*args[1:], False)
            hx, *rest = args
            return _network(cls.op_name, cls.layer, input, (hx,), *rest, sizes)  # type: ignore[return-value]

        return call


class Gru(_Simple):
    """y, h = a GRU of several layers: (S, N, I), (D, N, H) -> (S, N, D * H), (D, N, H).

    r, z = sigmoid(x w_ihᵀ + b_ih + h w_hhᵀ + b_hh), n = tanh(x w_ihᵀ + b_ih + r * (h w_hhᵀ + b_hh))
    and h = (1 - z) * n + z * h, at each step. All else is as in `lstm`, with h in place of (h, c).

    K. Cho and others, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical
    Machine Translation", 2014.
    """

    namespaces = "torch"
    layer = staticmethod(GruLayer.call)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        return _samples(rand, 3, 1)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        return _errors(rand, 3, 1)


class RnnTanh(_Simple):
    """y, h = an Elman network of several layers: (S, N, I), (D, N, H) -> (S, N, D * H), (D, N, H).

    h = tanh(x w_ihᵀ + b_ih + h w_hhᵀ + b_hh) at each step. All else is as in `lstm`, with h in
    place of (h, c).

    J. Elman, "Finding Structure in Time", 1990.
    """

    namespaces = "torch"
    layer = staticmethod(functools.partial(RnnLayer.call, relu=False))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        return _samples(rand, 1, 1)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        return _errors(rand, 1, 1)


class RnnRelu(_Simple):
    """y, h = `rnn_tanh` with relu: h = max(0, x w_ihᵀ + b_ih + h w_hhᵀ + b_hh) at each step."""

    namespaces = "torch"
    layer = staticmethod(functools.partial(RnnLayer.call, relu=True))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        return _samples(rand, 1, 1)


# Cells


def _check_cell(
    name: str, input: Tensor, states: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor
) -> None:
    """Raise TypeError for an argument that is not a tensor, RuntimeError for shapes that differ."""
    check_tensors(name, input=input, w_ih=w_ih, w_hh=w_hh)
    if input.ndim != 2 or w_ih.ndim != 2 or w_hh.ndim != 2:
        raise IndexError(f"{name}: input and weights must be matrices, input is {input.shape}")
    if input.size(1) != w_ih.size(1):
        raise RuntimeError(
            f"{name}: input has inconsistent input_size: got {input.size(1)} "
            f"expected {w_ih.size(1)}"
        )
    for i, h in enumerate(states):
        if input.size(0) != h.size(0):
            raise RuntimeError(
                f"{name}: Input batch size {input.size(0)} doesn't match hidden{i} batch size "
                f"{h.size(0)}"
            )
        if h.size(1) != w_hh.size(1):
            raise RuntimeError(
                f"{name}: hidden{i} has inconsistent hidden_size: got {h.size(1)}, "
                f"expected {w_hh.size(1)}"
            )


class LstmCell(Op):
    """h, c = one step of `lstm`: (N, I), ((N, H), (N, H)), (4H, I), (4H, H) -> (N, H), (N, H).

    RuntimeError for types or shapes that do not fit.
    """

    namespaces = "torch"

    @staticmethod
    def call(
        input: Tensor,
        hx: Sequence[Tensor],
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        if len(hx) != 2:
            raise RuntimeError("lstm_cell expects two hidden states")
        _check_cell("lstm_cell", input, hx, w_ih, w_hh)
        weights = w_ih, w_hh, b_ih, b_hh
        _, h, c = LstmLayer.call(input.unsqueeze(0), *hx, *weights, sizes=None, reverse=False)
        return h, c

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), (rand(2, 4), rand(2, 4)), rand(16, 3), rand(16, 4), rand(16), rand(16)
        yield rand(2, 3), (rand(2, 4), rand(2, 4)), rand(16, 3), rand(16, 4)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 2), (rand(2, 4), rand(2, 4)), rand(16, 3), rand(16, 4)
        yield rand(1, 3), (rand(2, 4), rand(2, 4)), rand(16, 3), rand(16, 4)
        yield rand(2, 3), (rand(2, 4), rand(2, 5)), rand(16, 3), rand(16, 4)
        yield rand(2, 3), (rand(2, 4),), rand(16, 3), rand(16, 4)


class _SimpleCell(Op, abstract=True):
    """A cell whose only state is its output."""

    layer: Any

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        """Return the public function."""

        def call(
            input: Tensor,
            hx: Tensor,
            w_ih: Tensor,
            w_hh: Tensor,
            b_ih: Tensor | None = None,
            b_hh: Tensor | None = None,
        ) -> Tensor:
            check_tensors(cls.op_name, hx=hx)
            _check_cell(cls.op_name, input, (hx,), w_ih, w_hh)
            weights = w_ih, w_hh, b_ih, b_hh
            h: Tensor
            _, h = cls.layer(input.unsqueeze(0), hx, *weights, sizes=None, reverse=False)
            return h

        return call


class GruCell(_SimpleCell):
    """h = one step of `gru`: (N, I), (N, H), (3H, I), (3H, H) -> (N, H).

    RuntimeError for types or shapes that do not fit.
    """

    namespaces = "torch"
    layer = staticmethod(GruLayer.call)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(2, 4), rand(12, 3), rand(12, 4), rand(12), rand(12)
        yield rand(2, 3), rand(2, 4), rand(12, 3), rand(12, 4)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 2), rand(2, 4), rand(12, 3), rand(12, 4)
        yield rand(1, 3), rand(2, 4), rand(12, 3), rand(12, 4)
        yield rand(2, 3), rand(2, 5), rand(12, 3), rand(12, 4)
        yield rand(3), rand(4), rand(12, 3), rand(12, 4)


class RnnTanhCell(_SimpleCell):
    """h = one step of `rnn_tanh`: (N, I), (N, H), (H, I), (H, H) -> (N, H).

    RuntimeError for types or shapes that do not fit.
    """

    namespaces = "torch"
    layer = staticmethod(functools.partial(RnnLayer.call, relu=False))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(2, 4), rand(4, 3), rand(4, 4), rand(4), rand(4)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 2), rand(2, 4), rand(4, 3), rand(4, 4)


class RnnReluCell(_SimpleCell):
    """h = one step of `rnn_relu`: (N, I), (N, H), (H, I), (H, H) -> (N, H).

    RuntimeError for types or shapes that do not fit.
    """

    namespaces = "torch"
    layer = staticmethod(functools.partial(RnnLayer.call, relu=True))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(2, 4), rand(4, 3), rand(4, 4), rand(4), rand(4)


# Samples


def _layer_samples(rand: Rand, gates: int, states: int, **how: Any) -> Samples:
    """Yield arguments of one direction of a layer with so many gates and states."""

    def weights(width: int, biases: bool = True) -> list[Any]:
        shapes = (gates * width, 3), (gates * width, width)
        bias = [rand(gates * width) if biases else None for _ in range(2)]
        return [*(rand(*shape) for shape in shapes), *bias]

    def ends(n: int, width: int = 4) -> list[Tensor]:
        return [rand(n, width) for _ in range(states)]

    yield rand(3, 2, 3), *ends(2), *weights(4), how
    yield rand(3, 2, 3), *ends(2), *weights(4, False), {"reverse": True, **how}
    yield rand(6, 3), *ends(3), *weights(4), {"sizes": (3, 2, 1), **how}
    yield rand(6, 3), *ends(3), *weights(4), {"sizes": (3, 2, 1), "reverse": True, **how}
    yield strided(rand(1, 3, 3)), *ends(1, 5), *weights(5), how
    yield rand(2, 0, 3), *ends(0), *weights(4), how
    yield rand.constant(2, 2, 3), *(rand.constant(2, 4) for _ in range(states)), *weights(4), how


def _samples(rand: Rand, gates: int, states: int) -> Samples:
    """Yield arguments of a network with so many gates and states."""

    def sample(
        x: Tensor, n: int, biases: bool, layers: int, both: bool, first: bool, width: int = 4
    ) -> tuple[Any, ...]:
        directions = 2 if both else 1
        hx = tuple(rand(layers * directions, n, width) for _ in range(states))
        params = []
        for k in range(layers * directions):
            params.append(rand(gates * width, 3 if k < directions else width * directions))
            params.append(rand(gates * width, width))
            params += [rand(gates * width) for _ in range(2 if biases else 0)]
        how = biases, layers, 0.0, True, both
        return x, hx if states == 2 else hx[0], params, *how, first

    def packed(sizes: list[int], *how: Any) -> tuple[Any, ...]:
        made = sample(rand(sum(sizes), 3), sizes[0], *how, False)
        counts = rand.integers(0, 1, len(sizes))
        counts._array[:] = sizes
        return made[0], counts, *made[1:-1]

    yield sample(rand(5, 2, 3), 2, True, 1, False, False)
    yield sample(rand(2, 4, 3), 2, False, 2, True, True)
    yield packed([3, 3, 2, 1], True, 1, True)
    yield packed([2, 1], False, 2, False)


def _errors(rand: Rand, gates: int, states: int) -> Samples:
    def hx(n: int = 2, dtype: Any = None) -> Any:
        made = tuple(rand(1, n, 4) for _ in range(states))
        return made if states == 2 else made[0]

    params = [rand(4 * gates, 3), rand(4 * gates, 4)]
    how = False, 1, 0.0, True, False, False
    yield rand(0, 2, 3), hx(), params, *how
    yield rand(5, 2, 3), hx(), params[:1], *how
    yield rand(5, 2, 2), hx(), params, *how
    if states == 2:
        yield rand(5, 2, 3), hx()[:1], params, *how
