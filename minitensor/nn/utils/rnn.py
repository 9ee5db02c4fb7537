"""Sequences of different lengths in one tensor."""

from ...data import pad_sequence

__all__ = ["pad_sequence"]
