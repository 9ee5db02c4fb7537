"""Initial values of parameters: each function fills a tensor in place and returns it.

Numbers are drawn from the default generator, or from `generator`, in PyTorch's order: the same seed
gives the same weights. For a weight (out, in, *window), fan_in is in * (size of the window), and
fan_out is out * (size of the window).
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from .. import sampling
from ..autograd import no_grad
from ..autograd.inplace import overwritten
from ..core import Tensor
from ..random import Generator, default_generator

__all__ = [
    "calculate_gain",
    "constant_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

Nonlinearity = Literal[
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "selu",
]
_GAINS: dict[Nonlinearity, float] = {
    "linear": 1,
    "conv1d": 1,
    "conv2d": 1,
    "conv3d": 1,
    "conv_transpose1d": 1,
    "conv_transpose2d": 1,
    "conv_transpose3d": 1,
    "sigmoid": 1,
    "tanh": 5 / 3,
    "relu": math.sqrt(2.0),
    "selu": 3 / 4,
}


def calculate_gain(nonlinearity: Nonlinearity, param: float | None = None) -> float:
    """Return the factor for weights that keeps the variance through a nonlinearity.

    - `nonlinearity`: a function ("relu", "leaky_relu", "tanh", "sigmoid", "selu") or a linear layer
      ("linear", "conv1d", ...).
    - `param`: the negative slope of "leaky_relu" (default 0.01).

    Raises ValueError for an unknown name, and for a slope that is not a number.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, int | float):
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    return _GAINS[nonlinearity]


def _set(tensor: Tensor, values: Any) -> Tensor:
    """Overwrite the values of a tensor, also of a leaf that requires grad."""
    tensor._array[...] = values
    overwritten(tensor)
    return tensor


class _Local(threading.local):
    skips = False  # draw nothing: the values will be replaced


_local = _Local()


@contextlib.contextmanager
def skipping() -> Iterator[None]:
    """Let `uniform_` and `normal_`, and what calls them, do nothing within the block."""
    before, _local.skips = _local.skips, True
    try:
        yield
    finally:
        _local.skips = before


def uniform_(
    tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with numbers from the uniform distribution over [a, b)."""
    if _local.skips:
        return tensor
    with no_grad():
        return sampling.uniform_(tensor, a, b, generator=generator)


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with numbers from the normal distribution N(mean, std^2)."""
    if _local.skips:
        return tensor
    with no_grad():
        return sampling.normal_(tensor, mean, std, generator=generator)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Fill with numbers from N(mean, std^2), drawing those outside [a, b] again."""
    source = default_generator if generator is None else generator
    drawn = source.trunc_normal(tensor.numel(), tensor.dtype, mean, std, a, b)
    return _set(tensor, drawn.reshape(tensor.shape))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with the number `val`."""
    return _set(tensor, val)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return _set(tensor, 1)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return _set(tensor, 0)


def eye_(tensor: Tensor) -> Tensor:
    """Fill with the identity matrix; ValueError unless the tensor has two dimensions."""
    if tensor.dim() != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    return _set(tensor, np.eye(*tensor.shape))


def _fans(tensor: Tensor) -> tuple[int, int]:
    """Return fan_in and fan_out; ValueError for fewer than two dimensions."""
    if tensor.dim() < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions"
        )
    window = tensor.shape[2:].numel()
    return tensor.shape[1] * window, tensor.shape[0] * window


def xavier_uniform_(
    tensor: Tensor, gain: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill uniformly from +-gain * sqrt(6 / (fan_in + fan_out)).

    Raises ValueError for fewer than two dimensions.

    X. Glorot, Y. Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural
    Networks", 2010.
    """
    bound = math.sqrt(3.0) * gain * math.sqrt(2.0 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill from N(0, std^2) with std = gain * sqrt(2 / (fan_in + fan_out)).

    Errors and source as for `xavier_uniform_`.
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_fans(tensor))), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: Nonlinearity) -> float:
    """Return gain / sqrt(fan), or 0 for a fan of 0."""
    if mode.lower() not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    fan = _fans(tensor)[mode.lower() == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill uniformly from +-gain * sqrt(3 / fan), gain = calculate_gain(nonlinearity, a).

    - `a`: the negative slope, for "leaky_relu".
    - `mode`: "fan_in" keeps the variance in the forward pass, "fan_out" in the backward pass.
    - `nonlinearity`: the function that follows the layer.

    Raises ValueError for fewer than two dimensions and for an unknown mode or nonlinearity.

    K. He et al., "Delving Deep into Rectifiers", 2015.
    """
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill from N(0, std^2) with std = gain / sqrt(fan), gain = calculate_gain(nonlinearity, a).

    Arguments, errors and source as for `kaiming_uniform_`.
    """
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """Fill with orthonormal rows (or columns, if there are fewer), times `gain`.

    Dimensions after the first are treated as one. Raises ValueError for fewer than two dimensions.

    A. M. Saxe et al., "Exact Solutions to the Nonlinear Dynamics of Learning in Deep Linear Neural
    Networks", 2013.
    """
    if tensor.dim() < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return tensor
    rows, columns = tensor.shape[0], tensor.shape[1:].numel()
    source = default_generator if generator is None else generator
    noise = source.normal(rows * columns, tensor.dtype).reshape(rows, columns)
    q, r = np.linalg.qr(noise.T if rows < columns else noise)
    q *= np.sign(np.diagonal(r))  # makes the decomposition unique, and so q uniform
    return _set(tensor, (gain * (q.T if rows < columns else q)).reshape(tensor.shape))
