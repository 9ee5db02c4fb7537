"""Recurrent layers: RNN, LSTM and GRU over sequences, and cells that do one step of them.

Dimensions: S steps, N sequences, I `input_size`, H `hidden_size`, P `proj_size` or else H,
D = num_layers, twice that if bidirectional.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from numbers import Number
from typing import Any

from .. import ops
from ..core import Tensor
from ..creation import empty, zeros
from ..devices import DeviceLike
from ..dtype import DTypeLike
from . import init
from .module import Module
from .parameter import Parameter
from .utils.rnn import PackedSequence

_GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
_RUN: dict[str, Callable[..., Any]] = {
    "RNN_TANH": ops.recurrent.RnnTanh.call,
    "RNN_RELU": ops.recurrent.RnnRelu.call,
    "LSTM": ops.recurrent.Lstm.call,
    "GRU": ops.recurrent.Gru.call,
}


class RNNBase(Module):
    """The base class of RNN, LSTM and GRU, which says what they have in common.

    Layer l has weight_ih_l{l} (gates * H, I), weight_hh_l{l} (gates * H, P), bias_ih_l{l} and
    bias_hh_l{l} (gates * H,), and with a projection weight_hr_l{l} (P, H); those of the reverse
    direction end in "_reverse". A layer after the first reads the outputs of the one before it. All
    start uniform in +-1/sqrt(H).

    - `mode`: "RNN_TANH", "RNN_RELU", "LSTM" or "GRU".
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._check_settings(dropout)
        rows = _GATES[mode] * hidden_size
        directions = 2 if bidirectional else 1
        width = proj_size or hidden_size
        self._all_weights: list[list[str]] = []
        for layer in range(num_layers):
            for suffix in ("", "_reverse")[:directions]:
                shapes: dict[str, tuple[int, ...]] = {
                    "weight_ih": (rows, width * directions if layer else input_size),
                    "weight_hh": (rows, width),
                }
                if bias:
                    shapes.update(bias_ih=(rows,), bias_hh=(rows,))
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                names = [f"{name}_l{layer}{suffix}" for name in shapes]
                for name, shape in zip(names, shapes.values(), strict=True):
                    setattr(self, name, Parameter(empty(*shape, device=device, dtype=dtype)))
                self._all_weights.append(names)
        self.reset_parameters()

    def _check_settings(self, dropout: Any) -> None:
        """Raise ValueError or TypeError for settings that make no network."""
        if (
            not isinstance(dropout, Number)
            or isinstance(dropout, bool)
            or not 0 <= self.dropout <= 1
        ):
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an "
                "element being zeroed"
            )
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero "
                f"dropout expects num_layers greater than 1, but got dropout={dropout} and "
                "num_layers=1",
                stacklevel=4,
            )
        kinds = {"bias": bool, "batch_first": bool, "input_size": int, "hidden_size": int}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(
                    f"{name} should be of type {kind.__name__}, got: {type(value).__name__}"
                )
        for name in ("input_size", "hidden_size", "num_layers"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be greater than zero")
        if self.proj_size < 0:
            raise ValueError(
                "proj_size should be a positive integer or zero to disable projections"
            )
        if self.proj_size >= self.hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        if self.mode not in _GATES:
            raise ValueError(f"Unrecognized RNN mode: {self.mode}")

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def flatten_parameters(self) -> None:
        """Do nothing, as PyTorch does on the CPU."""

    def reset_parameters(self) -> None:
        """Draw all parameters uniformly from +-1/sqrt(hidden_size)."""
        _reset(self)

    def _run(self, input: Any, states: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Check the arguments, run the network, and return its output and its last states."""
        name = type(self).__name__
        packed = isinstance(input, PackedSequence)
        data: Tensor = input.data if packed else input
        if not packed and data.ndim not in (2, 3):
            raise ValueError(
                f"{name}: Expected input to be 2D or 3D, got {data.ndim}D tensor instead"
            )
        batch_dim = 0 if self.batch_first else 1
        batched = packed or data.ndim == 3
        if not batched:
            data = data.unsqueeze(batch_dim)
        if states is not None:
            if any(s.ndim != (3 if batched else 2) for s in states):
                raise RuntimeError(
                    f"{name}: For {'batched 3-D' if batched else 'unbatched 2-D'} input, hx "
                    f"should also be {'3-D' if batched else '2-D'} but got "
                    f"{', '.join(f'{s.ndim}-D' for s in states)}"
                )
            if not batched:
                states = tuple(s.unsqueeze(1) for s in states)
            if packed and input.sorted_indices is not None:
                states = tuple(s.index_select(1, input.sorted_indices) for s in states)
        weights = [getattr(self, name) for names in self._all_weights for name in names]
        if data.dtype != weights[0].dtype:
            raise ValueError(
                f"RNN input dtype ({data.dtype}) does not match weight dtype ({weights[0].dtype}). "
                f"Convert input: input.to({weights[0].dtype}), or convert model: "
                f"model.to({data.dtype})"
            )
        expected = 2 if packed else 3
        if data.ndim != expected:
            raise RuntimeError(f"input must have {expected} dimensions, got {data.ndim}")
        if data.size(-1) != self.input_size:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. "
                f"Expected {self.input_size}, got {data.size(-1)}"
            )
        n = int(input.batch_sizes[0].item()) if packed else data.size(batch_dim)
        count = self.num_layers * (2 if self.bidirectional else 1)
        shapes = [(count, n, self.proj_size or self.hidden_size)]
        if self.mode == "LSTM":
            shapes.append((count, n, self.hidden_size))
        if states is None:
            states = tuple(zeros(*shape, dtype=data.dtype) for shape in shapes)
        for i, (state, shape) in enumerate(zip(states, shapes, strict=True)):
            if state.shape != shape:
                which = f"hidden[{i}]" if len(shapes) > 1 else "hidden"
                raise RuntimeError(f"Expected {which} size {shape}, got {list(state.shape)}")
        given = states if self.mode == "LSTM" else states[0]
        how = self.bias, self.num_layers, self.dropout, self.training, self.bidirectional
        if packed:
            y, *ends = _RUN[self.mode](data, input.batch_sizes, given, weights, *how)
            if input.unsorted_indices is not None:
                ends = [s.index_select(1, input.unsorted_indices) for s in ends]
            return PackedSequence(y, *input[1:]), tuple(ends)
        y, *ends = _RUN[self.mode](data, given, weights, *how, self.batch_first)
        if batched:
            return y, tuple(ends)
        return y.squeeze(batch_dim), tuple(s.squeeze(1) for s in ends)

    def extra_repr(self) -> str:
        """Return the settings that differ from the defaults."""
        return _settings(
            self, proj_size=0, num_layers=1, bias=True, batch_first=False, dropout=0.0,
            bidirectional=False,
        )  # fmt: skip


def _settings(module: Module, **defaults: Any) -> str:
    """Return the sizes of a module and those of its settings that differ from their defaults."""
    more = {name: getattr(module, name) for name in defaults}
    shown = [f"{name}={value}" for name, value in more.items() if value != defaults[name]]
    return ", ".join([str(module.input_size), str(module.hidden_size), *shown])


def _reset(module: Module) -> None:
    """Draw all parameters uniformly from +-1/sqrt(hidden_size)."""
    size = float(module.hidden_size)  # type: ignore[arg-type]
    bound = 1 / math.sqrt(size) if size > 0 else 0
    for weight in module.parameters():
        init.uniform_(weight, -bound, bound)


class RNN(RNNBase):
    """Apply an Elman network of several layers to sequences.

    h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), and the output at step t is h_t.

    - `input_size`, `hidden_size`: I and H, the widths of the input and of the hidden state.
    - `num_layers`: the number of layers, each reading the outputs of the one before (default 1).
    - `nonlinearity`: "tanh" (default) or "relu" in its place.
    - `bias`: add the biases b_ih and b_hh (default True).
    - `batch_first`: input and output are (N, S, *), not (S, N, *); states are (D, N, *) always.
    - `dropout`: the probability of dropping an output of a layer, but the last, while training.
    - `bidirectional`: also run each layer from the last step to the first, with weights of its own;
      the outputs of both stand side by side.
    - `device`, `dtype`: of the parameters.

    J. Elman, "Finding Structure in Time", 1990.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(
            mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device=device, dtype=dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """Return the outputs and the last hidden states: (S, N, I) -> (S, N, 2H or H), (D, N, H).

        - `input`: (S, N, I), (N, S, I) with `batch_first`, (S, I) for one sequence, or a
          `PackedSequence`; the outputs come in the same form.
        - `hx` (D, N, H), or (D, H) for one sequence: the states to begin with, by default 0.
        """
        y, (h,) = self._run(input, None if hx is None else (hx,))
        return y, h


class GRU(RNNBase):
    """Apply gated recurrent units of several layers to sequences.

    r_t = sigmoid(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
    z_t = sigmoid(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
    n_t = tanh(W_in x_t + b_in + r_t * (W_hn h_{t-1} + b_hn))
    h_t = (1 - z_t) * n_t + z_t * h_{t-1}

    The rows of weight_ih, weight_hh and the biases are those of r, z and n, in this order. The
    output at step t is h_t.

    - `input_size`, `hidden_size`, `num_layers`, `bias`, `batch_first`, `dropout`, `bidirectional`,
      `device`, `dtype`: as those of `RNN`.

    K. Cho and others, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical
    Machine Translation", 2014.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device=device, dtype=dtype,
        )  # fmt: skip

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """Return the outputs and the last hidden states; as `RNN.forward`."""
        y, (h,) = self._run(input, None if hx is None else (hx,))
        return y, h


class LSTM(RNNBase):
    """Apply long short-term memory of several layers to sequences.

    i_t = sigmoid(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)
    f_t = sigmoid(W_if x_t + b_if + W_hf h_{t-1} + b_hf)
    g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
    o_t = sigmoid(W_io x_t + b_io + W_ho h_{t-1} + b_ho)
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t), or W_hr (o_t * tanh(c_t)) with a projection

    The rows of weight_ih, weight_hh and the biases are those of i, f, g and o, in this order. The
    output at step t is h_t.

    - `input_size`, `hidden_size`, `num_layers`, `bias`, `batch_first`, `dropout`, `bidirectional`,
      `device`, `dtype`: as those of `RNN`.
    - `proj_size`: P, the width of h after its projection; 0, the default, for none, so that it is
      H.

    S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", 1997; F. Gers and others, "Learning to
    Forget: Continual Prediction with LSTM", 2000; H. Sak and others, "Long Short-Term Memory Based
    Recurrent Neural Network Architectures for Large Vocabulary Speech Recognition", 2014 (the
    projection).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size, device=device, dtype=dtype,
        )  # fmt: skip

    def forward(
        self, input: Any, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        """Return the outputs and the last states: (S, N, I) -> (S, N, 2P or P), (h, c).

        - `input`: as that of `RNN.forward`.
        - `hx`: h (D, N, P) and c (D, N, H), or (D, P) and (D, H) for one sequence: the states to
          begin with, by default 0.
        """
        y, (h, c) = self._run(input, None if hx is None else (hx[0], hx[1]))
        return y, (h, c)


class RNNCellBase(Module):
    """The base class of RNNCell, LSTMCell and GRUCell.

    weight_ih (num_chunks * H, I), weight_hh (num_chunks * H, H), bias_ih and bias_hh
    (num_chunks * H,) start uniform in +-1/sqrt(H).

    - `num_chunks`: the number of gates.
    """

    bias_ih: Parameter  # None if there is none; typed as PyTorch's is
    bias_hh: Parameter  # None if there is none; typed as PyTorch's is

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        self.weight_ih = Parameter(empty(rows, input_size, device=device, dtype=dtype))
        self.weight_hh = Parameter(empty(rows, hidden_size, device=device, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            made = Parameter(empty(rows, device=device, dtype=dtype)) if bias else None
            self.register_parameter(name, made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters uniformly from +-1/sqrt(hidden_size)."""
        _reset(self)

    def _run(
        self, step: Callable[..., Any], input: Tensor, states: tuple[Tensor, ...] | None, count: int
    ) -> tuple[Tensor, ...]:
        """Check the arguments, run `step`, and return the new states."""
        name = type(self).__name__
        if input.ndim not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        for i, s in enumerate(states or ()):
            if s.ndim not in (1, 2):
                which = "hidden" if count == 1 else f"hx[{i}]"
                raise ValueError(f"{name}: Expected {which} to be 1D or 2D, got {s.ndim}D instead")
        batched = input.ndim == 2
        if not batched:
            input = input.unsqueeze(0)
        if states is None:
            states = (zeros(input.size(0), self.hidden_size, dtype=input.dtype),) * count
        elif not batched:
            states = tuple(s.unsqueeze(0) for s in states)
        hx = states[0] if count == 1 else states
        found = step(input, hx, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        new = (found,) if count == 1 else found
        return tuple(new) if batched else tuple(s.squeeze(0) for s in new)

    def extra_repr(self) -> str:
        """Return the settings that differ from the defaults."""
        return _settings(self, bias=True)


class RNNCell(RNNCellBase):
    """Do one step of an Elman network: h' = tanh(W_ih x + b_ih + W_hh h + b_hh).

    - `input_size`, `hidden_size`: I and H, the widths of the input and of the hidden state.
    - `bias`: add the biases (default True).
    - `nonlinearity`: "tanh" (default) or "relu" in its place.
    - `device`, `dtype`: of the parameters.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=1, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Return the next state: (N, I), (N, H) -> (N, H), or (I), (H) -> (H); hx is 0 if None."""
        steps = {
            "tanh": ops.recurrent.RnnTanhCell.call,
            "relu": ops.recurrent.RnnReluCell.call,
        }
        if self.nonlinearity not in steps:
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        step = steps[self.nonlinearity]
        return self._run(step, input, None if hx is None else (hx,), 1)[0]

    def extra_repr(self) -> str:
        """Return the settings that differ from the defaults."""
        return _settings(self, bias=True, nonlinearity="tanh")


class GRUCell(RNNCellBase):
    """Do one step of a `GRU`.

    - `input_size`, `hidden_size`: I and H, the widths of the input and of the hidden state.
    - `bias`: add the biases (default True).
    - `device`, `dtype`: of the parameters.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Return the next state: (N, I), (N, H) -> (N, H), or (I), (H) -> (H); hx is 0 if None."""
        step = ops.recurrent.GruCell.call
        return self._run(step, input, None if hx is None else (hx,), 1)[0]


class LSTMCell(RNNCellBase):
    """Do one step of an `LSTM`.

    - `input_size`, `hidden_size`: I and H, the widths of the input and of the hidden state.
    - `bias`: add the biases (default True).
    - `device`, `dtype`: of the parameters.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=4, device=device, dtype=dtype)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the next h and c: (N, I), ((N, H), (N, H)) -> (N, H), (N, H).

        Or (I), ((H), (H)) -> (H), (H). Both begin as 0 if `hx` is None.
        """
        step = ops.recurrent.LstmCell.call
        h, c = self._run(step, input, None if hx is None else tuple(hx), 2)
        return h, c
