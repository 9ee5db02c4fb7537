"""The precision of products of float32: PyTorch's setting, and what autocast selects."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator


class Setting:
    """The precision that is set.

    `asked` counts "medium" and the blocks of `rounding`; with 0 no product is rounded.
    """

    precision = "highest"
    asked = 0


class _Thread(threading.local):
    """The blocks that a thread is in, the innermost last: True for those that round."""

    def __init__(self) -> None:
        self.blocks: list[bool] = []


setting = Setting()
_thread = _Thread()
_lock = threading.Lock()


def set_float32_matmul_precision(precision: str) -> None:
    """Choose the precision of matrix products of float32 tensors, in all threads from now on.

    - "highest", the default: float32.
    - "high": the same. Three products of bfloat16, which PyTorch allows here, would be slower.
    - "medium": the operands are rounded to bfloat16 (8 bits instead of 24) and the products summed
      in float32. Tensors, parameters and the optimizer's state stay float32. So compute `@`,
      `linear`, attention, convolutions and what is made of them, forward and backward, with the
      setting at the time of the product. Not rounded are products with fewer than 32 rows or
      columns, as they would not be faster, and the steps of recurrent layers.

    Products are only rounded where that is faster: on AMD's processors from Zen 4, with AVX-512
    BF16, where they take half of the time. On others "medium" is the same as "highest": on Intel's,
    whose instruction for it is slower than float32, on those that have none (AVX2), and on ARM's,
    where the gain is not known. `minitensor.kernels.simd.BFLOAT16` tells, and the environment
    variable MINITENSOR_SIMD decides: MINITENSOR_SIMD=avx2+bf16, say, rounds on any processor with
    AVX2, without being faster, and neon+bf16 by ARM's instruction where there is one.

    Another text has no effect and gives a warning, as in PyTorch. Raises RuntimeError for what is
    no text.
    """
    if not isinstance(precision, str):
        raise RuntimeError(
            "set_float32_matmul_precision: expected a str, one of 'highest', 'high' and 'medium', "
            f"got {type(precision).__name__}"
        )
    if precision not in ("highest", "high", "medium"):
        warnings.warn(
            f"{precision} is not one of 'highest', 'high', or 'medium'; "
            "set_float32_matmul_precision has no effect.",
            stacklevel=2,
        )
        return
    with _lock:
        setting.asked += (precision == "medium") - (setting.precision == "medium")
        setting.precision = precision


def get_float32_matmul_precision() -> str:
    """Return what `set_float32_matmul_precision` was given last, at first "highest".

    With "medium", products are rounded to bfloat16 on processors where that is faster: AMD's from
    Zen 4. Elsewhere (AVX-512 of Intel, AVX2, SSE, ARM) they are computed in float32.
    """
    return setting.precision


def rounds() -> bool:
    """Return True if products of float32 in this thread round their operands to bfloat16."""
    from .simd import BFLOAT16  # not before it is asked for: it loads LLVM

    return BFLOAT16 and (setting.precision == "medium" or rounding_asked())


def rounding_asked() -> bool:
    """Return True in a block of `rounding(True)`."""
    return setting.asked > 0 and _thread.blocks[-1:] == [True]


@contextlib.contextmanager
def rounding(on: bool) -> Iterator[None]:
    """Compute this thread's products as "medium" does, or if not `on` as is set, in this block."""
    with _lock:
        setting.asked += 1
    _thread.blocks.append(on)
    try:
        yield
    finally:
        _thread.blocks.pop()
        with _lock:
            setting.asked -= 1
