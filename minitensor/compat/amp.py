"""`torch.amp`: mixed precision. `autocast("cpu")` rounds products to bfloat16 where that is faster.

In its block, matrix products of float32 round their operands to bfloat16 as
`set_float32_matmul_precision("medium")` has it: on processors where that is faster, and in float32
on others. **All tensors stay float32**, while with PyTorch's autocast the results of products are
bfloat16. The backward pass of what is computed in the block rounds too, wherever it runs.

With float16, and on "cuda" with PyTorch's warning that there is no GPU, nothing changes; nor does
`GradScaler` scale, as gradients are float32.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..autograd import observe
from ..core import Node, Observer, Tensor
from ..devices import device
from ..dtype import bfloat16, float16
from ..kernels.precision import rounding, rounding_asked
from ..names import show

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]

_AWAY = "CUDA is not available or torch_xla is imported. Disabling autocast."


class autocast:  # PyTorch's name
    """A block, or a decorated function, whose products round to bfloat16 where that is faster.

    - `device_type`: "cpu"; with "cuda" and others nothing changes, and PyTorch's warning of "cuda",
      that there is no GPU, comes here too.
    - `dtype`: bfloat16, the default. float16 changes nothing, another type not either, with
      PyTorch's warning.
    - `enabled`: False for a block that changes nothing, also within another one.

    Raises RuntimeError for a device that PyTorch does not know.
    """

    def __init__(
        self,
        device_type: str,
        dtype: Any = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        if not isinstance(device_type, str):
            raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        self.device = device(device_type).type
        self.fast_dtype = bfloat16 if dtype is None else dtype
        self._on = enabled and self.device == "cpu" and self.fast_dtype == bfloat16
        self._entered: list[contextlib.AbstractContextManager[None]] = []
        if enabled and self.device == "cuda":
            warnings.warn(_AWAY, stacklevel=_level(self))
        elif enabled and self.device == "cpu" and dtype is not None and not _is_small(dtype):
            warnings.warn(
                "In CPU autocast, but the target dtype is not supported. Disabling autocast.\n"
                "CPU Autocast only supports dtypes of torch.bfloat16, torch.float16 currently.",
                stacklevel=_level(self),
            )

    def __enter__(self) -> autocast:
        self._entered.append(_block(self._on))
        self._entered[-1].__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self._entered.pop().__exit__(None, None, None)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, to be called in such a block."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _block(self._on):
                return function(*args, **kwargs)

        return wrapped


@contextlib.contextmanager
def _block(on: bool) -> Iterator[None]:
    """Round the products of this thread if `on`, and those of their backward pass."""
    with rounding(on), observe(_Autocast()) if on else contextlib.nullcontext():
        yield


class _Autocast(Observer):
    """Lets the backward rule of each op round as its forward rule did."""

    sees_whole = True

    def ran(
        self, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        if not node.recorded:
            return
        on, this = rounding_asked(), weakref.ref(node)

        def gradients(grads: list[Tensor | None]) -> tuple[Any, ...]:
            found = this()
            assert found is not None
            with rounding(on):
                return type(node).gradients(found, grads)

        node.gradients = gradients  # type: ignore[method-assign]


def _level(block: autocast) -> int:
    """Return how far above the warning the line of the caller is."""
    return 3 if type(block) is autocast else 4


def _is_small(dtype: Any) -> bool:
    return dtype == float16 or "bfloat16" in str(dtype)


class CudaAutocast(autocast):
    """`torch.cuda.amp.autocast`: `autocast("cuda")` by its older name."""

    def __init__(
        self, enabled: bool = True, dtype: Any = float16, cache_enabled: bool = True
    ) -> None:
        warnings.warn(_deprecated("autocast"), FutureWarning, stacklevel=2)
        super().__init__("cuda", dtype, enabled, cache_enabled)


def _deprecated(name: str) -> str:
    return (
        f"`torch.cuda.amp.{name}(args...)` is deprecated. "
        f"Please use `torch.amp.{name}('cuda', args...)` instead."
    )


class GradScaler:
    """Scales nothing: float32 needs no scaling of its losses. PyTorch warns of "cuda", as here."""

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if enabled and device == "cuda":
            warnings.warn(
                "torch.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling.",
                stacklevel=2 if type(self) is GradScaler else 3,
            )

    def is_enabled(self) -> bool:
        """Return False."""
        return False

    def scale(self, outputs: Any) -> Any:
        """Return the loss, or losses, as they are."""
        return outputs

    def unscale_(self, optimizer: Any) -> None:
        """Leave the gradients as they are."""

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """Return `optimizer.step(*args, **kwargs)`."""
        return optimizer.step(*args, **kwargs)

    def update(self, new_scale: Any = None) -> None:
        """Do nothing."""

    def get_scale(self) -> float:
        """Return 1.0."""
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        """Return an empty dict."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of any scaler: there is nothing to load it into."""


class CudaGradScaler(GradScaler):
    """`torch.cuda.amp.GradScaler`: `GradScaler("cuda")` by its older name."""

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        warnings.warn(_deprecated("GradScaler"), FutureWarning, stacklevel=2)
        super().__init__("cuda", enabled=enabled)


def custom_fwd(fwd: Any = None, **settings: Any) -> Any:
    """Return the `forward` of a Function as it is: a decorator with settings or without."""
    return fwd if fwd is not None else lambda function: function


def custom_bwd(bwd: Any = None, **settings: Any) -> Any:
    """Return the `backward` of a Function as it is: a decorator with settings or without."""
    return bwd if bwd is not None else lambda function: function


def is_autocast_available(device_type: str) -> bool:
    """Return True for the CPU."""
    return device(device_type).type == "cpu"


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Return True for the CPU in a block of `autocast` with bfloat16."""
    return device(device_type).type == "cpu" and rounding_asked()


def get_autocast_dtype(device_type: str) -> Any:
    """Return bfloat16 for the CPU, to which `autocast` rounds, else float16, as PyTorch does."""
    return bfloat16 if device(device_type).type == "cpu" else float16


show(__name__)
