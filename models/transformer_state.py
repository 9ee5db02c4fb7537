"""The memory of `models.transformer` while it writes."""

from __future__ import annotations

from collections.abc import Sequence

import minitensor as mt
from minitensor import Tensor

from .decoding import KVCache
from .transformer_fused import FusedDecoder


class DecoderState:
    """The source, and what the decoder computed for the target tokens so far, of N rows."""

    def __init__(self, memory: Tensor, padding: Tensor, layers: int) -> None:
        self.memory_NSE = memory
        self.padding_NS = padding if padding.any() else None
        self.sources = list(range(memory.shape[0]))  # of each row, the row of `start`
        self.length = 0  # of the target so far
        self.tokens = KVCache()  # for a decoder without caches, the tokens themselves
        # Of each layer, the keys and values of its self-attention, and those of the memory.
        self.caches = [(KVCache(), KVCache()) for _ in range(layers)]
        self.fused: FusedDecoder | None = None  # if given, it has keys and values instead

    def unfuse(self) -> None:
        """Fill the caches with the keys and values of `fused`, and go on without it."""
        fused, self.fused = self.fused, None
        assert fused is not None
        for (target_cache, _), kv in zip(self.caches, fused.keys_and_values(), strict=True):
            target_cache.append(mt.from_numpy(kv))
        self.select_sources(fused.sources.tolist())

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be repeated."""
        if self.fused is not None:
            self.fused.select(rows)
            return
        self.tokens.select(rows)
        for target_cache, _ in self.caches:
            target_cache.select(rows)
        self.select_sources(rows)

    def select_sources(self, rows: Sequence[int]) -> None:
        """Keep the sources of these rows."""
        sources = [self.sources[row] for row in rows]
        if sources == self.sources:  # rows that changed places have the same source
            return
        self.sources = sources
        rows_N = mt.tensor(rows)
        self.memory_NSE = self.memory_NSE[rows_N]
        if self.padding_NS is not None:
            self.padding_NS = self.padding_NS[rows_N]
        for _, memory_cache in self.caches:
            memory_cache.select(rows)
