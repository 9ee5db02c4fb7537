"""Batches of sequences of unequal lengths: padded to one length, or packed without padding.

A packed batch holds the sequences step by step, the longest sequence first. With B sequences, of
which `batch_sizes[t]` are longer than t, step t takes `batch_sizes[t]` rows of `data`: nothing is
computed for padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from ...core import Tensor, wrap
from ...creation import as_tensor
from ...data import pad_sequence
from ...dtype import int64

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


class _Fields(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Fields):
    """A packed batch of sequences, as `pack_padded_sequence` and `pack_sequence` make it.

    - `data` (R, *): the elements of all sequences, step by step.
    - `batch_sizes` (S,): the number of sequences that reach each step.
    - `sorted_indices` (B,): the place in the batch of each sequence of `data`, longest first; None
      if they were sorted.
    - `unsorted_indices` (B,): the inverse permutation.
    """

    __slots__ = ()

    def __new__(
        cls,
        data: Tensor,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> Self:
        """Make one from its fields, or from `(data, batch_sizes)`."""
        if batch_sizes is None:
            if not isinstance(data, list | tuple) or len(data) != 2:
                raise AssertionError("Expected data to be a list or tuple of length 2")
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return it with `data.to(*args, **kwargs)`; itself if that changes nothing."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        return type(self)(data, *self[1:])

    def cpu(self, *args: Any, **kwargs: Any) -> Self:
        """Return it in the memory of the CPU, where it is."""
        return self.to("cpu", *args, **kwargs)

    def cuda(self, *args: Any, **kwargs: Any) -> Self:
        """Raise the error of `Tensor.cuda`: there is no such device."""
        return type(self)(self.data.cuda(*args, **kwargs), *self[1:])

    def double(self) -> Self:
        """Return it with float64 data."""
        return type(self)(self.data.double(), *self[1:])

    def float(self) -> Self:
        """Return it with float32 data."""
        return type(self)(self.data.float(), *self[1:])

    def half(self) -> Self:
        """Return it with float16 data."""
        return type(self)(self.data.half(), *self[1:])

    def bfloat16(self) -> Self:
        """Return it with bfloat16 data."""
        return type(self)(self.data.bfloat16(), *self[1:])

    def long(self) -> Self:
        """Return it with int64 data."""
        return type(self)(self.data.long(), *self[1:])

    def int(self) -> Self:
        """Return it with int32 data."""
        return type(self)(self.data.int(), *self[1:])

    def short(self) -> Self:
        """Return it with int16 data."""
        return type(self)(self.data.short(), *self[1:])

    def char(self) -> Self:
        """Return it with int8 data."""
        return type(self)(self.data.char(), *self[1:])

    def byte(self) -> Self:
        """Return it with uint8 data."""
        return type(self)(self.data.byte(), *self[1:])

    @property
    def is_cuda(self) -> bool:
        """False: there is no such device."""
        return self.data.is_cuda


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """Return the inverse of a permutation (B,) of 0 to B - 1; None of None."""
    if permutation is None:
        return None
    inverse: Tensor = wrap(np.argsort(permutation._array).astype(permutation._array.dtype))
    return inverse


def pack_padded_sequence(
    input: Tensor,
    lengths: Tensor | list[int],
    batch_first: bool = False,
    enforce_sorted: bool = True,
) -> PackedSequence:
    """Pack a padded batch: (T, B, *), or (B, T, *) with `batch_first`.

    - `lengths` (B,): the number of elements of each sequence, from 1 to T.
    - `enforce_sorted`: take the sequences as they are, the longest first; without it they are
      sorted here, and `pad_packed_sequence` restores their order.

    RuntimeError for an empty batch and for lengths that are not sorted, not positive or not B.
    """
    if not isinstance(lengths, Tensor):
        lengths = as_tensor(lengths, dtype=int64)
    lengths = lengths.long()
    order = None
    if not enforce_sorted:
        order = lengths.argsort(descending=True, stable=True)
        lengths = lengths[order]
        input = input.index_select(0 if batch_first else 1, order)
    batch, longest = (input.size(i) for i in ((0, 1) if batch_first else (1, 0)))
    counts = lengths._array
    if input.numel() == 0:
        raise RuntimeError("Cannot pack empty tensors.")
    if counts.ndim != 1:
        raise RuntimeError(f"'lengths' argument should be a 1D tensor, but got {counts.ndim}D")
    if len(counts) != batch:
        raise RuntimeError(
            "Expected `len(lengths)` to be equal to batch_size, but got "
            f"{len(counts)} (batch_size={batch})"
        )
    if (counts[1:] > counts[:-1]).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You "
            "can pass `enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to "
            "sidestep this requirement."
        )
    if counts[-1] <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' "
            "that is <= 0"
        )
    if counts[0] > longest:
        raise RuntimeError(
            f"pack_padded_sequence: a length of {counts[0]} is more than the {longest} steps of "
            f"the input, whose shape is {tuple(input.shape)}"
        )
    steps, rows, sizes = _places(counts)
    data = input[rows, steps] if batch_first else input[steps, rows]
    return PackedSequence(data, wrap(sizes), order, None)


def _places(lengths: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return the step and the sequence of each row of packed data, and the rows of each step."""
    present = np.arange(lengths[0])[:, None] < lengths
    steps, rows = present.nonzero()
    return wrap(steps), wrap(rows), present.sum(1)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a packed batch padded, (T, B, *) or (B, T, *) with `batch_first`, and lengths (B,).

    - `padding_value`: of the elements after the end of a sequence.
    - `total_length`: T, by default the length of the longest sequence; ValueError if it is less.
    """
    data, sizes = sequence.data, sequence.batch_sizes._array
    longest = len(sizes)
    if total_length is not None and total_length < longest:
        raise ValueError(
            "Expected total_length to be at least the length of the longest sequence in input, but "
            f"got total_length={total_length} and max sequence length being {longest}"
        )
    lengths: Tensor = wrap((np.arange(sizes[0]) < sizes[:, None]).sum(0))
    steps, rows, _ = _places(lengths._array)
    shape = [total_length or longest, int(sizes[0])]
    padded = data.new_full(
        [*(reversed(shape) if batch_first else shape), *data.shape[1:]], padding_value
    )
    padded[(rows, steps) if batch_first else (steps, rows)] = data
    order = sequence.unsorted_indices
    if order is not None:
        return padded.index_select(0 if batch_first else 1, order), lengths[order]
    return padded, lengths


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False
) -> list[Tensor]:
    """Return the sequences of a padded batch (T, B, *), or (B, T, *) with `batch_first`.

    `lengths` (B,) says how long each is.
    """
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    pairs = zip(rows.unbind(0), lengths.tolist(), strict=True)
    return [row[:length] for row, length in pairs]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences, each (L, *): `pad_sequence`, then `pack_padded_sequence`."""
    lengths = [len(x) for x in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """Return the sequences of a packed batch, each (L, *), in the order of the batch."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
