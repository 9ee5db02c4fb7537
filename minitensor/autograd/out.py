"""`out=`: the result of a function, written into a tensor that is there already.

A class of an op says by `out` that PyTorch's function of its name takes one; the registry then
attaches the function that `taking_out` makes.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .. import memory
from ..core import Op, Tensor, attach, state
from ..dtype import as_dtype
from .grad_mode import no_grad
from .inplace import in_place


def taking_out(call: Callable[..., Any], rule: str, differentiable: bool = True) -> Any:
    """Return `call` with an argument `out`: a tensor, or a tuple for several results.

    The result is written there, and `out` is returned. If its shape differs, it gets that of the
    result, with a warning unless it was empty. RuntimeError while gradients are recorded if an
    argument or `out` requires grad. The rule says what types it may have:

    - "cast": those that the result can be converted to in place; RuntimeError if it cannot, and if
      `out` overlaps an argument without being it.
    - "same": that of the result; RuntimeError for another.
    - "dtype": any; the result is computed in it, as with the argument `dtype`.
    """

    @functools.wraps(call)
    def function(*args: Any, **kwargs: Any) -> Any:
        if not kwargs:  # the quickest way on
            return call(*args)
        out = kwargs.pop("out", None)
        if out is None:
            return call(*args, **kwargs)
        given = [out] if isinstance(out, Tensor) else list(out)
        used = list(_tensors([*args, *kwargs.values()]))
        if state.grad and any(t.requires_grad for t in (given + used if differentiable else given)):
            raise RuntimeError(
                f"{call.__name__}(): functions with out=... arguments don't support automatic "
                "differentiation, but one of the arguments requires grad."
            )
        if rule == "cast":
            _check_overlap(call.__name__, given, used)
        if rule == "dtype":
            wanted = kwargs.setdefault("dtype", out._array.dtype)
            if wanted is None:
                kwargs["dtype"] = out._array.dtype
            elif as_dtype(wanted) != out._array.dtype:
                raise RuntimeError(
                    f"{call.__name__}: dtype {as_dtype(wanted)} does not match dtype of out "
                    f"parameter ({out._array.dtype})"
                )
        with no_grad():
            return _write(call.__name__, rule, call(*args, **kwargs), out)

    function.__signature__ = with_out(inspect.signature(call))  # type: ignore[attr-defined]
    return function


def with_out(plain: inspect.Signature) -> inspect.Signature:
    """Return a signature with the argument `out`: a tensor if the result is one."""
    one = plain.return_annotation in (Tensor, "Tensor")
    return plain.replace(
        parameters=[
            *plain.parameters.values(),
            inspect.Parameter(
                "out",
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Tensor | None if one else Any,
            ),
        ]
    )


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _check_overlap(name: str, outs: list[Tensor], used: list[Tensor]) -> None:
    for out in outs:
        for t in used:
            a, b = out._array, t._array
            same = out.is_set_to(t) or not (a.flags.c_contiguous and b.flags.c_contiguous)
            if not same and np.may_share_memory(a, b):
                raise RuntimeError(
                    f"{name}: unsupported operation: some elements of the input tensor and the "
                    "written-to tensor refer to a single memory location. Please clone() the "
                    "tensor before performing the operation."
                )


def _write(name: str, rule: str, result: Any, out: Any) -> Any:
    """Write a result, or each of several, and return `out` in the type of the result."""
    if isinstance(result, tuple):
        if not isinstance(out, tuple | list) or len(out) != len(result):
            raise TypeError(f"{name}: out must be a tuple of {len(result)} tensors")
        # The indices beside the values have to be int64.
        written = [_write(name, "same", r, o) for r, o in zip(result, out, strict=True)]
        return type(result)(*written) if hasattr(result, "_fields") else tuple(written)
    if not isinstance(out, Tensor):
        raise TypeError(f"{name}: out must be a Tensor, not {type(out).__name__}")
    made, there = result._array, out._array
    if rule == "same" and made.dtype != there.dtype:
        raise RuntimeError(
            f"{name}: Expected out tensor to have dtype {made.dtype}, but got {there.dtype} instead"
        )
    if made.shape != there.shape:
        if there.size:
            warnings.warn(
                "An output with one or more elements was resized since it had shape "
                f"{list(there.shape)}, which does not match the required output shape "
                f"{list(made.shape)}. Resize an output to zero elements before you reuse it, "
                "with out.resize_(0).",
                UserWarning,
                stacklevel=3,
            )
        resize_(out, *made.shape)
    in_place(name, out, lambda _: result)
    if rule == "dtype" and result._requires_grad:  # as a function that makes tensors was asked to
        out.requires_grad_()
    return out


def resize_(self: Tensor, *size: Any, memory_format: Any = None) -> Tensor:
    """Give this tensor another shape, in place: its elements stay in order, new ones are arbitrary.

    A larger one moves to new memory, which it shares with no other tensor. RuntimeError for a
    tensor that requires grad.
    """
    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    if self.requires_grad and state.grad:
        raise RuntimeError("resize_: cannot resize variables that require grad")
    old = self._array.reshape(-1)
    count = int(np.prod(shape, dtype=np.int64))
    if count <= old.size:
        self._array = old[:count].reshape(shape)
    else:
        self._array = memory.empty(shape, old.dtype)
        self._array.reshape(-1)[: old.size] = old
    self._view, self._relaid = None, True
    self._bump()
    return self


def resize_as_(self: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """Give this tensor the shape of another, in place; see `resize_`."""
    return resize_(self, *the_template._array.shape)


Op.taking_out = staticmethod(taking_out)
for _method in (resize_, resize_as_):
    attach("tensor", _method.__name__, _method)
