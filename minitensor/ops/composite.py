"""Functions composed of other ops: as ops with samples of their own, or as plain functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..core import Op, Tensor, attach
from ..errors import no_tensor
from .samples import Rand

_F = TypeVar("_F", bound=Callable[..., Any])
Sampler = Callable[[Rand], Iterable[tuple[Any, ...]]]


def composite(
    *, samples: Sampler, errors: Sampler | None = None, **attributes: Any
) -> Callable[[_F], _F]:
    """Register the decorated function as the `call` of an op that has no rules of its own.

    It needs none: the ops that it calls have theirs. `samples`, `errors` and `attributes` are those
    of `Op`; the class has the function's name, Mm for `mm`, and its docstring.
    """

    def register_op(function: _F) -> _F:
        class_name = "".join(part.capitalize() for part in function.__name__.split("_"))
        rules: dict[str, Any] = {"call": _checked(function), "samples": samples, "errors": errors}
        body: dict[str, Any] = {key: staticmethod(rule) for key, rule in rules.items() if rule}
        body |= {"__doc__": function.__doc__, "__module__": function.__module__}
        body["op_name"] = function.__name__
        body["__firstlineno__"] = function.__code__.co_firstlineno
        type(class_name, (Op,), body | attributes)
        return function

    return register_op


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a TypeError for arguments that should be tensors and are not."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except AttributeError as error:
            raise no_tensor(function.__name__, error) or error from error

    return call


def register(function: _F) -> _F:
    """Register a plain function, not an Op, as `minitensor.<name>` and as a Tensor method."""
    attach("torch", function.__name__, function)
    if not hasattr(Tensor, function.__name__):
        attach("tensor", function.__name__, function)
    return function
