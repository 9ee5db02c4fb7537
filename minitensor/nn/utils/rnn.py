"""PyTorch's place for `pad_sequence`."""

from ...data import pad_sequence

__all__ = ["pad_sequence"]
