"""`torch.utils`, whose `data` and `checkpoint` are minitensor's; `torch.types`, `overrides`."""

from __future__ import annotations

import builtins
import typing
from typing import Any

from ..core import Size, Tensor
from ..devices import DeviceLike, device
from ..dtype import dtype
from ..names import show
from .answers import answer, namespace

__all__: list[str] = []

types = namespace(
    f"{__name__}.types",
    "`torch.types`: names for annotations.",
    Device=DeviceLike,
    Number=int | float | bool,
    Tensor=Tensor,
    _TensorOrTensors=Tensor | typing.Sequence[Tensor],
    _size=Size | list[int] | tuple[int, ...],
    _int=builtins.int,
    _float=builtins.float,
    _bool=builtins.bool,
    _dtype=dtype,
    _device=device,
)


def _is_tensor_like(inp: Any) -> bool:
    """Return True for a tensor."""
    return isinstance(inp, Tensor)


overrides = namespace(
    f"{__name__}.overrides",
    "`torch.overrides`: functions are not overridden.",
    **dict.fromkeys(
        ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"),
        answer(False),
    ),
    is_tensor_like=_is_tensor_like,
)

show(__name__)
