"""Weights in panels: the second matrix of a product, laid out once as the microkernel reads it.

    w = Panels(weight)              # (N, K), the weight of a linear layer
    y = w.product(x, bias)          # x w^T + b, as often as wanted

A product packs B = w^T anew each time, for that is little beside the multiplication by hundreds of
rows. By some tens of rows or fewer it is not little, and reading a weight from memory, which bounds
such a product, is fastest where it lies in the order in which it is read. If products are rounded
to bfloat16 when panels are made, panels are half as large, and so is what is read.

Panels are a copy: whoever keeps them has to notice that the weight has changed. In a block of
`reading(panels)` the linear layers of a thread read those weights from them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .. import memory
from .formats import Rounded
from .gemm import GEMM, GEMM_ROUNDED, IN_PANELS, NR_BYTES, WORKSPACE_BYTES, pack
from .jit import COMPILED, get_num_threads
from .matmul import PARALLEL, ROWS_OF_A_READ, WORKSPACE, matmul, run_stack
from .parallel import (
    NativeFunction,
    ParallelKernel,
    address,
    call_native,
    recording,
    tasks_for,
    unpacked,
)
from .precision import rounds
from .simd import itemsize_of

# Rows of a product between which panels pay: for fewer, the weight is read at the speed of memory
# as it is, and for more, packing it is little beside the product.
LEAST, MOST = 8, 256


def _pack_panel(exemplar: Any, to: int, b: int, row: int, col: int, rows: int, cols: int) -> None:
    """Pack one micropanel."""
    pack(exemplar, to, NR_BYTES, b, row, col, rows, cols)


def _pack_panels(arguments: Any, exemplar: Any, task: int, tasks: int) -> None:
    """Pack one task's micropanels of B."""
    s = unpacked(arguments)
    nr = NR_BYTES // itemsize_of(exemplar)
    panels = -(-s.n // nr)
    for panel in range(panels * task // tasks, panels * (task + 1) // tasks):
        left = panel * nr
        cols = nr if s.n - left > nr else s.n - left
        to, b = s.to + left * s.col_bytes, s.b + left * s.b_col
        call_native(s.pack, exemplar, (to, b, s.b_row, s.b_col, s.k, cols))


_PACK = NativeFunction(_pack_panel, 6)
_PACK_ROUNDED = NativeFunction(_pack_panel, 6, pointer=Rounded)
_run_pack = ParallelKernel(_pack_panels, "pack to b b_row b_col n k col_bytes")


def rounded(dtype: np.dtype[Any]) -> bool:
    """Return True if panels of this dtype are of bfloat16 now, as this thread rounds products."""
    return dtype.char == "f" and rounds()


class Panels:
    """A weight (N, K) of float32 or float64 in panels; of another type, the weight itself.

    `rounded` is True if they are of bfloat16.
    """

    def __init__(self, weight: np.ndarray) -> None:
        self.shape, self.dtype = weight.shape, weight.dtype
        self.rounded = rounded(self.dtype)
        self._packed = self.dtype.char in "fd" and COMPILED and weight.size > 0
        if not self._packed:
            self._content = weight
            return
        (n, k), size = self.shape, weight.itemsize
        lanes, units = NR_BYTES // size, -(-k // (2 if self.rounded else 1))
        self._column = units * size
        self._content = memory.lasting_zeros((-(-n // lanes), units, lanes), self.dtype)
        _run_pack(
            self.dtype, tasks_for(weight.size),
            (_PACK_ROUNDED if self.rounded else _PACK).address(self.dtype),
            address(self._content), address(weight), *weight.strides[::-1], n, k, self._column,
        )  # fmt: skip

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """The size of the copy."""
        return self._content.nbytes

    def product(
        self,
        x: np.ndarray,
        bias: np.ndarray | None = None,
        out: np.ndarray | None = None,
        epilogue: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Return x w^T + bias: (M, K), (N,) -> (M, N); `out` and `epilogue` as of `matmul`.

        x is of the weight's dtype; rows of x and of `out` are contiguous, and `bias` is.
        """
        (m, columns), (n, k) = x.shape, self.shape
        if not self._packed:
            return matmul(x, self._content.T, out, bias, epilogue=epilogue)
        if columns != k or x.dtype != self.dtype:
            raise ValueError(f"{x.shape} of {x.dtype} times {self.shape[::-1]} of {self.dtype}")
        if out is None:
            out = memory.empty((m, n), self.dtype)
        if not m:
            return out
        tasks = get_num_threads() if max(m, ROWS_OF_A_READ) * n * k >= PARALLEL else 1
        if WORKSPACE.size < tasks * WORKSPACE_BYTES:
            WORKSPACE.grow(tasks * WORKSPACE_BYTES)
        recording.keep(self._content)
        run_stack(
            self.dtype, tasks,
            (GEMM_ROUNDED if self.rounded else GEMM).address(self.dtype),
            address(out), address(x), address(self._content),
            0 if bias is None else address(bias), 0, *(epilogue or (0, 0)), WORKSPACE.address,
            1, 1, m, n, k, 0, 0, out.strides[0], 0, 0, *x.strides, 0, 0, IN_PANELS, self._column, 0,
        )  # fmt: skip
        return out


class _Reading(threading.local):
    panels: Mapping[Any, Panels] = {}


_reading = _Reading()


def place_of(weight: np.ndarray) -> Any:
    """Return what tells a weight from others: where it lies, and its shape and strides."""
    return address(weight), weight.shape, weight.strides


@contextlib.contextmanager
def reading(panels: Mapping[Any, Panels]) -> Iterator[None]:
    """Let linear layers read weights from panels, each given by its `place_of`, in this block."""
    before, _reading.panels = _reading.panels, panels
    try:
        yield
    finally:
        _reading.panels = before


def panels_for(x: np.ndarray, weight: np.ndarray) -> Panels | None:
    """Return the panels from which a product with x (*, K) reads a weight (N, K), if there are."""
    known = _reading.panels
    return known.get(place_of(weight)) if known and x.flags.c_contiguous else None
