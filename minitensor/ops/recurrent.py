"""Recurrent networks: RNN, LSTM and GRU over sequences, and their cells.

Dimensions: S steps, N sequences, I width of the input, H width of the hidden state, P width of its
projection, G = 4H rows of an LSTM's weights, 3H of a GRU's, H of an RNN's; R rows of a packed
sequence: the elements of all sequences, step by step, of which step t has `sizes[t]`. The sequences
are sorted, the longest first, so `sizes` never grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core import Op, Tensor
from .activation import Relu, Tanh
from .checks import check_one_float_dtype, check_tensors
from .dropout import Dropout
from .join import Cat, Stack
from .linear import Linear
from .samples import Rand, Samples

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


def rnn_layer(activate: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """Return the function of one direction of an RNN layer with this activation."""

    def run(x: Tensor, h: Tensor, *weights: Tensor | None, **how: Any) -> tuple[Tensor, ...]:
        return _loop(_rnn_step(activate), x, (h,), *weights, **how)  # type: ignore[arg-type]

    return run


def lstm_layer(x: Tensor, h: Tensor, c: Tensor, *weights: Any, **how: Any) -> tuple[Tensor, ...]:
    """Run one direction of an LSTM layer: y, h, c."""
    return _loop(_lstm_step, x, (h, c), *weights, **how)


def gru_layer(x: Tensor, h: Tensor, *weights: Any, **how: Any) -> tuple[Tensor, ...]:
    """Run one direction of a GRU layer: y, h."""
    return _loop(_gru_step, x, (h,), *weights, **how)


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
        return _network("lstm", lstm_layer, input, hx, *rest, sizes)  # type: ignore[return-value]

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
    layer = staticmethod(gru_layer)

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
    layer = staticmethod(rnn_layer(Tanh.call))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        return _samples(rand, 1, 1)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        return _errors(rand, 1, 1)


class RnnRelu(_Simple):
    """y, h = `rnn_tanh` with relu: h = max(0, x w_ihᵀ + b_ih + h w_hhᵀ + b_hh) at each step."""

    namespaces = "torch"
    layer = staticmethod(rnn_layer(Relu.call))

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
        _, h, c = lstm_layer(input.unsqueeze(0), *hx, *weights, sizes=None, reverse=False)
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
    layer = staticmethod(gru_layer)

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
    layer = staticmethod(rnn_layer(Tanh.call))

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
    layer = staticmethod(rnn_layer(Relu.call))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(2, 4), rand(4, 3), rand(4, 4), rand(4), rand(4)


# Samples


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
