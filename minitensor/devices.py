"""Where tensors live: in the memory of the CPU, always.

`device` exists so that code written for several devices runs; one that is not the CPU may be named,
but nothing can be moved there.
"""

from __future__ import annotations

from typing import Any


class device:  # PyTorch's name
    """A kind of device and perhaps a number: `device("cpu")`, `device("cuda:0")`.

    RuntimeError for a text that is no such name.
    """

    __slots__ = ("index", "type")
    type: str
    index: int | None

    def __init__(self, type: Any = "cpu", index: int | None = None) -> None:
        if isinstance(type, device):
            type, index = type.type, type.index if index is None else index
        elif isinstance(type, int):
            type, index = "cuda", type  # a bare number means an accelerator
        name, _, number = str(type).partition(":")
        if not name.isidentifier() or (number and not number.isdigit()):
            raise RuntimeError(f"Invalid device string: {type!r}")
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


def check_device(where: Any) -> None:
    """RuntimeError unless `where` (a device, its name, or None) is the CPU."""
    if where is not None and device(where).type != "cpu":
        raise RuntimeError(f"minitensor has only the CPU: a tensor cannot be on {device(where)}")
