"""Names of `torch.nn` beyond `minitensor.nn`: `DataParallel`, `nn.modules`, choices of a kernel."""

from __future__ import annotations

import contextlib
import copy
import enum
import itertools
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from .. import nn
from ..nn import loss, norm
from ..nn.parallel import DataParallel
from .answers import namespace

__all__ = ["DataParallel", "LinearCrossEntropyOptions"]


class SDPBackend(enum.IntEnum):
    """PyTorch's kernels of attention; here there is one."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextlib.contextmanager
def sdpa_kernel(backends: Any, set_priority: bool = False) -> Iterator[None]:
    """A block in which PyTorch would choose a kernel of attention; the one there is runs."""
    yield


class LinearCrossEntropyOptions(SimpleNamespace):
    """PyTorch's choices for a loss in chunks; here chunks follow from the sizes."""


attention = namespace(
    f"{__name__}.attention", "`torch.nn.attention`.", SDPBackend=SDPBackend, sdpa_kernel=sdpa_kernel
)


def _repeat(count: int) -> Callable[[Any], tuple[Any, ...]]:
    def repeated(x: Any) -> tuple[Any, ...]:
        return tuple(x) if isinstance(x, Iterable) else tuple(itertools.repeat(x, count))

    return repeated


def _get_clones(module: nn.Module, count: int) -> nn.ModuleList:
    """Return copies of a module."""
    return nn.ModuleList([copy.deepcopy(module) for _ in range(count)])


def _get_activation_fn(activation: str) -> Callable[..., Any]:
    """Return the function of the name "relu" or "gelu"."""
    if activation not in ("relu", "gelu"):
        raise RuntimeError(f"activation should be relu/gelu, not {activation}")
    return getattr(nn.functional, activation)


def _calculate_correct_fan(tensor: Any, mode: str) -> int:
    """Return the "fan_in" or "fan_out" of a weight."""
    fan_in, fan_out = nn.init._fans(tensor)
    return fan_in if mode.lower() == "fan_in" else fan_out


def _older(name: str) -> Callable[..., Any]:
    """Return the function `name_` by its older name, which warns as PyTorch's does."""
    function: Callable[..., Any] = getattr(nn.init, f"{name}_", None) or getattr(
        nn.utils, f"{name}_"
    )
    module = function.__module__.split(".")[2]

    def older(*args: Any, **kwargs: Any) -> Any:
        message = f"`nn.{module}.{name}` is now deprecated in favor of `nn.{module}.{name}_`."
        warnings.warn(message, FutureWarning, stacklevel=2)
        return function(*args, **kwargs)

    return older


_FILLS = ("uniform", "normal", "constant", "xavier_uniform", "xavier_normal", "kaiming_uniform")
init = namespace(
    f"{__name__}.init",
    "`torch.nn.init`: older names of its functions, and helpers that layers of people's own call.",
    **{name: _older(name) for name in (*_FILLS, "kaiming_normal", "orthogonal", "eye")},
    _calculate_fan_in_and_fan_out=nn.init._fans,
    _calculate_correct_fan=_calculate_correct_fan,
    _no_grad_uniform_=nn.init.uniform_,
    _no_grad_normal_=nn.init.normal_,
    _no_grad_fill_=nn.init.constant_,
    _no_grad_zero_=nn.init.zeros_,
)
utils = namespace(
    f"{__name__}.utils",
    "`torch.nn.utils`: the older name of a function.",
    clip_grad_norm=_older("clip_grad_norm"),
)

modules = namespace(
    f"{__name__}.modules",
    "`torch.nn.modules`, and each module within it: all that `torch.nn` has.",
    **{n: getattr(nn, n) for n in nn.__all__ if isinstance(getattr(nn, n), type)},
    _single=_repeat(1),
    _pair=_repeat(2),
    _triple=_repeat(3),
    _quadruple=_repeat(4),
    _get_clones=_get_clones,
    _get_activation_fn=_get_activation_fn,
    _Loss=loss._Loss,
    _WeightedLoss=loss._WeightedLoss,
    _BatchNorm=norm.BatchNorm1d,
    _IncompatibleKeys=namedtuple("IncompatibleKeys", ("missing_keys", "unexpected_keys")),
    NonDynamicallyQuantizableLinear=nn.Linear,
)
