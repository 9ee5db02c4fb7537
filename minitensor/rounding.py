"""Arithmetic in half precision: float16 and bfloat16 are stored, and float32 computes.

No op knows of the two types. Its rules get float32 in place of them, and what comes out is rounded
once, to the nearest and ties to even: PyTorch's CPU rounds after each of its operations too. Only
ops that move numbers unchanged, and conversions, take such arrays as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .dtype import FLOATING, DType, float32


def widened(x: Any) -> Any:
    """Return an array or a tensor in float32 if it is in half precision, anything else as it is."""
    if getattr(x, "itemsize", 0) != 2 or x.dtype.kind not in FLOATING:
        return x
    return x.astype(float32) if isinstance(x, np.ndarray) else x.to(float32)


def widen(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return the values with float32 in place of half precision."""
    return tuple([widened(x) for x in values])


def applies(op: Any, dtype: DType) -> bool:
    """Return True if `dtype`, of two bytes, is half precision that the op is to get as float32."""
    return dtype.kind in FLOATING and not (op.moves if op.takes_half is None else op.takes_half)


def run(node: Any, dtype: DType, *arrays: Any, **kwargs: Any) -> Any:
    """Run the forward rule of `node` in float32 and return its results in `dtype`.

    Of what it saves, its arguments and results are kept in half precision, as they are outside.
    """
    given = [a.dtype for a in arrays if isinstance(a, np.ndarray)]
    if node.one_type and any(d != dtype and d.kind in FLOATING for d in given):
        return node.forward(*arrays, **kwargs)  # which raises
    node.half = dtype
    wide = widen(arrays)
    made = node.forward(*wide, **kwargs)
    results = made if type(made) is tuple else (made,)
    kept = {id(w): a for w, a in zip(wide, arrays, strict=True) if w is not a}
    rounded = []
    for result in results:
        array = np.asarray(result)
        if array.dtype == float32:
            array = array.astype(dtype)
        kept[id(result)] = array
        rounded.append(array)
    if type(node._saved) is tuple:
        node._saved = tuple([kept.get(id(v), v) for v in node._saved])
    return tuple(rounded) if type(made) is tuple else rounded[0]
