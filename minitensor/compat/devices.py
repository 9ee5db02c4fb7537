"""Devices that are not there: `cuda`, `mps`, `xpu` and `accelerator`, as PyTorch has them without.

They answer as PyTorch's build for the CPU alone does; where that build fails by accident, with an
attribute or a key that it lacks, the error is the one of all other calls.
"""

from __future__ import annotations

from typing import Any

from ..devices import DeviceError, device
from ..errors import OutOfMemoryError
from . import amp as _amp
from .answers import answer, namespace, refuse

__all__ = ["accelerator", "cpu", "cuda", "mps", "xpu"]


def _is_absent(kind: str) -> Any:
    return refuse(DeviceError, f"minitensor has only the CPU: there is no {kind} device")


def _one(name: str, error: type[Exception], sentence: str, **members: Any) -> type:
    """Return a class that has no instances."""

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        raise error(sentence)

    return type(name, (), {"__init__": init, **members})


def _named(names: str, function: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), function)


class _Nowhere:
    """Nothing, for the time of a block: a device or stream of None. Another one is refused."""

    def __init__(self, device: Any = None) -> None:
        self.device = device

    def __enter__(self) -> None:
        if self.device is not None and self.device != -1:
            _absent()

    def __exit__(self, *args: object) -> None:
        return None


_absent = _is_absent("CUDA")
_TYPES = "Bool Byte Char Short Int Long Half BFloat16 Float Double"
_where = f"{__name__}.cuda"
_no_nvtx = refuse(RuntimeError, "there is no NVTX: minitensor has only the CPU")

cuda = namespace(
    _where,
    "`torch.cuda` on a machine without a GPU.",
    **_named(
        "is_available is_initialized is_bf16_supported is_current_stream_capturing", answer(False)
    ),
    **_named("device_count memory_allocated max_memory_allocated memory_reserved", answer(0)),
    **_named("max_memory_reserved memory_cached max_memory_cached", answer(0)),
    **_named("manual_seed manual_seed_all seed seed_all empty_cache set_rng_state_all", answer()),
    **_named("get_rng_state_all get_arch_list memory_snapshot", answer([])),
    **_named("memory_stats", answer({})),
    **_named("current_device set_device get_device_name get_device_capability", _absent),
    **_named("get_device_properties synchronize ipc_collect init current_stream", _absent),
    **_named("default_stream set_stream mem_get_info memory_summary get_rng_state", _absent),
    **_named("set_rng_state initial_seed reset_peak_memory_stats", _absent),
    **_named("reset_max_memory_allocated set_per_process_memory_fraction utilization", _absent),
    **_named("can_device_access_peer graph make_graphed_callables", _absent),
    device=_Nowhere,
    stream=_Nowhere,
    **{
        name: _one(name, DeviceError, f"minitensor has only the CPU: there is no cuda.{name}")
        for name in ("Event", "Stream", "CUDAGraph")
    },
    **{
        f"{kind}Tensor": _one(
            f"{kind}Tensor",
            TypeError,
            f"type torch.cuda.{kind}Tensor not available: minitensor has only the CPU",
        )
        for kind in _TYPES.split()
    },
    OutOfMemoryError=OutOfMemoryError,
    amp=namespace(
        f"{_where}.amp",
        "`torch.cuda.amp`: the older names of what is in `torch.amp`.",
        autocast=_amp.CudaAutocast,
        GradScaler=_amp.CudaGradScaler,
        custom_fwd=_amp.custom_fwd,
        custom_bwd=_amp.custom_bwd,
    ),
    nvtx=namespace(
        f"{_where}.nvtx",
        "`torch.cuda.nvtx`: marks for NVIDIA's profiler.",
        **_named("mark range_push range_pop range_start range_end range", _no_nvtx),
    ),
)

mps = namespace(
    f"{__name__}.mps",
    "`torch.mps` on a machine without one.",
    **_named("is_available", answer(False)),
    **_named("device_count", answer(0)),
    **_named("manual_seed seed", answer()),
    **_named("empty_cache synchronize current_allocated_memory", _is_absent("MPS")),
    **_named("driver_allocated_memory set_per_process_memory_fraction", _is_absent("MPS")),
)

xpu = namespace(
    f"{__name__}.xpu",
    "`torch.xpu` on a machine without one.",
    **_named("is_available is_initialized", answer(False)),
    **_named("device_count", answer(0)),
    **_named("manual_seed manual_seed_all empty_cache", answer()),
    **_named("synchronize current_device set_device get_device_name", _is_absent("XPU")),
)

cpu = namespace(
    f"{__name__}.cpu",
    "`torch.cpu`: the device there is.",
    **_named("is_available", answer(True)),
    **_named("device_count", answer(1)),
    **_named("current_device", answer("cpu")),
    **_named("synchronize set_device", answer()),
)


def _current_accelerator(check_available: bool = False) -> device | None:
    """Return None: there is no accelerator."""
    return None


_no_accelerator = refuse(
    DeviceError, "Cannot access accelerator device when none is available: there is only the CPU"
)

accelerator = namespace(
    f"{__name__}.accelerator",
    "`torch.accelerator` on a machine without one.",
    **_named("is_available", answer(False)),
    **_named("device_count", answer(0)),
    current_accelerator=_current_accelerator,
    **_named("current_device_index current_device_idx set_device_index", _no_accelerator),
    **_named("set_device_idx synchronize current_stream set_stream", _no_accelerator),
    **_named("memory_allocated max_memory_allocated memory_reserved", _no_accelerator),
    **_named("max_memory_reserved memory_stats empty_cache", _no_accelerator),
    **_named("reset_peak_memory_stats", _no_accelerator),
)
