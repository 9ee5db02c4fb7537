"""Names of `torch` beyond minitensor: settings that change nothing, `compile`, `autocast`."""

from __future__ import annotations

from typing import Any

from ..devices import CPU, DeviceLike, check_device, device
from ..dtype import float16, float32, float64, set_default_dtype
from .amp import autocast, get_autocast_dtype, is_autocast_enabled
from .compilers import compile

__all__ = [
    "are_deterministic_algorithms_enabled",
    "autocast",
    "channels_last",
    "channels_last_3d",
    "compile",
    "contiguous_format",
    "get_autocast_dtype",
    "get_default_device",
    "get_deterministic_debug_mode",
    "get_num_interop_threads",
    "is_autocast_cache_enabled",
    "is_autocast_enabled",
    "is_deterministic_algorithms_warn_only_enabled",
    "layout",
    "memory_format",
    "preserve_format",
    "set_default_device",
    "set_default_tensor_type",
    "set_deterministic_debug_mode",
    "set_flush_denormal",
    "set_num_interop_threads",
    "strided",
    "use_deterministic_algorithms",
]


def _assert(condition: Any, message: str) -> None:
    """Raise AssertionError with a message if a condition is False."""
    assert condition, message


def is_autocast_cache_enabled() -> bool:
    """Return True, PyTorch's default."""
    return True


def set_flush_denormal(mode: bool) -> bool:
    """Return False, as PyTorch does where a machine cannot: subnormal numbers stay."""
    return False


class _Named:
    """A constant with a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"


class memory_format(_Named):  # PyTorch's name
    """An order of the elements in memory; arguments of it are taken and change nothing."""


class layout(_Named):  # PyTorch's name
    """A kind of storage: all tensors are strided."""


contiguous_format, preserve_format = (
    memory_format("contiguous_format"),
    memory_format("preserve_format"),
)
channels_last, channels_last_3d = memory_format("channels_last"), memory_format("channels_last_3d")
strided = layout("strided")

_settings: dict[str, Any] = {"deterministic": (False, False), "interop": 1}


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Take the setting: the same program gives the same numbers in any case."""
    _settings["deterministic"] = bool(mode), bool(warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """Return what was set."""
    return _settings["deterministic"][0]


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Return what was set."""
    return _settings["deterministic"][1]


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """Take "default", "warn" or "error", or 0, 1 or 2."""
    modes = ["default", "warn", "error"]
    number = modes.index(debug_mode) if isinstance(debug_mode, str) else debug_mode
    use_deterministic_algorithms(number > 0, warn_only=number == 1)


def get_deterministic_debug_mode() -> int:
    """Return 0, 1 or 2, by what was set."""
    mode, warn_only = _settings["deterministic"]
    return (2 - warn_only) * mode


def get_num_interop_threads() -> int:
    """Return what was set; ops run one after the other."""
    return _settings["interop"]


def set_num_interop_threads(num: int) -> None:
    """Take the setting."""
    _settings["interop"] = num


def get_default_device() -> device:
    """Return the CPU."""
    return CPU


def set_default_device(device: DeviceLike) -> None:
    """Take the CPU or None. Raises an error for another device."""
    check_device(device)


_TYPES = {"Float": float32, "Double": float64, "Half": float16}


def set_default_tensor_type(t: Any) -> None:
    """Make `FloatTensor`, `DoubleTensor` or `HalfTensor`, by name too, the type of new tensors."""
    name = t if isinstance(t, str) else getattr(t, "__name__", repr(t))
    kind = name.removeprefix("torch.").removesuffix("Tensor")
    if kind not in _TYPES:
        raise TypeError(f"set_default_tensor_type: type {t} not available: {[*_TYPES]}")
    set_default_dtype(_TYPES[kind])
