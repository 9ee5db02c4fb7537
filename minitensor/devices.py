"""Devices: there is only the CPU.

`device` exists so that code written for several devices runs. Other devices can be named, but no
tensor can be moved to them.
"""

from __future__ import annotations

KINDS = (
    *("cpu", "cuda", "ipu", "xpu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve", "fpga"),
    *("maia", "xla", "lazy", "vulkan", "mps", "meta", "hpu", "mtia", "privateuseone"),
)


class DeviceError(AssertionError, RuntimeError):
    """A device that is not there was asked for.

    PyTorch raises an AssertionError in a build without CUDA, a RuntimeError in one with CUDA.
    """


class device:  # PyTorch's name
    """A kind of device and an optional number: `device("cpu")`, `device("cuda:0")`.

    - `type`: "cpu", "cuda", "cuda:0", another device, or the number of a CUDA device.
    - `index`: the number, if `type` does not include it.

    Raises RuntimeError for a string that is not the name of a device.
    """

    __slots__ = ("index", "type")
    type: str
    index: int | None

    def __init__(self, type: DeviceLike = "cpu", index: int | None = None) -> None:
        if isinstance(type, device):
            text, index = type.type, type.index if index is None else index
        elif isinstance(type, int):
            text, index = "cuda", type
        else:
            text = str(type)
        name, _, number = text.partition(":")
        if not name.isidentifier() or (number and not number.isdigit()):
            raise RuntimeError(f"Invalid device string: {type!r}")
        if name not in KINDS:
            raise RuntimeError(f"no kind of device: {name!r}; there are {', '.join(KINDS)}")
        self.type = name
        self.index = int(number) if number else index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{index})"


CPU = device("cpu")
DeviceLike = device | str | int | None  # of a `device` argument


def check_device(where: DeviceLike) -> None:
    """Raise DeviceError, a RuntimeError, unless `where` is the CPU or None."""
    if where is not None and device(where).type != "cpu":
        raise DeviceError(f"minitensor has only the CPU: a tensor cannot be on {device(where)}")
