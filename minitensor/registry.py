"""Names: where ops and functions put themselves, so that nothing above has to list them.

`attach` is the only way by which a function, method, operator or property comes to Tensor, to
`minitensor` or to `minitensor.nn.functional`. The class of an op calls it when it is defined.
"""

from __future__ import annotations

import functools
import operator as operators
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

_T = TypeVar("_T", bound=type)

OPS: dict[str, Any] = {}  # all classes of ops, by name
NAMESPACES: dict[str, dict[str, Callable[..., Any]]] = {"torch": {}, "functional": {}}
_methods_of: type = object  # Tensor, once it is defined
_modules: dict[str, dict[str, Any]] = {}  # the globals that a namespace is published in
_owners: dict[tuple[str, str], str] = {}  # who attached a name, by namespace and name
_WHERE = {"tensor": "Tensor.", "torch": "minitensor.", "functional": "minitensor.nn.functional."}


def takes_methods(cls: _T) -> _T:
    """Decorate the class whose attributes are the names of the namespace "tensor"."""
    global _methods_of
    _methods_of = cls
    return cls


def publish(space: str, module: dict[str, Any]) -> None:
    """Put the functions of a namespace, also those that are attached later, into a module.

    RuntimeError if the module has another object of one of the names.
    """
    for name, function in NAMESPACES[space].items():
        if module.setdefault(name, function) is not function:
            owner = _owners[space, name]
            raise RuntimeError(f"{owner} cannot become {_WHERE[space]}{name}: the name is taken")
    _modules[space] = module


def attach(space: str, name: str, value: Any) -> None:
    """Attach a function, method, operator or property under `name`.

    `space` is "tensor" (an attribute of Tensor), "torch" (`minitensor.<name>`) or "functional"
    (`minitensor.nn.functional.<name>`). RuntimeError if the name is taken, except by an earlier
    definition of the same name in the same module: a notebook's cell may run twice.
    """
    function = value.fget if isinstance(value, property) else value
    owner = f"{function.__module__}.{getattr(function, '__qualname__', name)}"
    _attach_all(owner, [(space, name, value)])


def _attach_all(owner: str, items: list[tuple[str, str, Any]]) -> None:
    """Attach all (space, name, value), or nothing if one of the names is taken."""
    for space, name, _ in items:
        if space == "tensor":
            taken = any(name in vars(c) for c in _methods_of.__mro__[:-1])
        else:
            taken = name in NAMESPACES[space] or name in _modules.get(space, ())
        holder = _owners.get((space, name), "the library itself")
        # What a user defines again, in a cell or by a reload, replaces itself.
        if taken and (holder != owner or owner.startswith("minitensor.ops.")):
            raise RuntimeError(
                f"{owner} cannot become {_WHERE[space]}{name}: {holder} has that name. Give it "
                "another one (rename the class, or set its `op_name`), or none (`namespaces = ''`)"
            )
    for space, name, value in items:
        _owners[space, name] = owner
        if space == "tensor":
            setattr(_methods_of, name, value)
        else:
            NAMESPACES[space][name] = value
            _modules.get(space, {})[name] = value


class Registered:
    """The part of an op that gives it its names, its cost, and samples to try it on.

    Defining a subclass registers it, unless it is declared `abstract`, a base of others.
    RuntimeError, naming both, if one of its names is taken by another; an op that is defined again
    in the same place, as in a notebook, takes the place of the old one.
    """

    op_name: ClassVar[str] = ""  # the functional name; the class name in snake case by default
    aliases: ClassVar[tuple[str, ...]] = ()  # further names
    namespaces: ClassVar[str] = "torch tensor"  # where the names go, see `attach`
    operators: ClassVar[tuple[str, ...]] = ()  # such as "__add__", "__radd__"
    inplace: ClassVar[bool] = False  # also give it a method with a trailing underscore
    out: ClassVar[str] = ""  # the function takes `out=`, by a rule of `autograd.out.taking_out`
    torch_name: ClassVar[str | None] = ""  # PyTorch's name if it differs; None if it has none

    # Static methods; ClassVar[Callable] would mean ordinary ones.
    call: ClassVar[Any]
    errors: ClassVar[Any] = None
    in_place_method: ClassVar[Any]  # of a class: its method with a trailing underscore
    taking_out: ClassVar[Any]  # of a function: the same with `out=`
    differentiable: ClassVar[bool]

    forward: Callable[..., Any]
    apply: ClassVar[Callable[..., Any]]

    @staticmethod
    def samples(rand: Any) -> Iterator[tuple[Any, ...]]:
        """Yield argument tuples for `call`; `rand(2, 3)` makes a tensor."""
        return iter(())

    @staticmethod
    def flops(args: Sequence[Any], kwargs: Any, outs: Sequence[Any]) -> int:
        """Return the FLOPs of a run's matrix products; x * y + z counts 2."""
        return 0

    @staticmethod
    def backward_flops(
        args: Sequence[Any], kwargs: Any, outs: Sequence[Any], needs: Sequence[bool]
    ) -> int:
        """Return the FLOPs of a fused op's backward rule, for the gradients wanted in `needs`."""
        return 0

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if abstract:
            return
        cls.op_name = cls.__dict__.get("op_name") or _snake(cls.__name__)
        if "call" not in cls.__dict__:
            cls.call = staticmethod(cls.default_call())
        if cls.call.__name__ == "call":
            cls.call.__name__ = cls.call.__qualname__ = cls.op_name
            cls.call.__doc__ = cls.__doc__
        owner = f"{cls.__module__}.{cls.__qualname__}"
        if cls.__name__ in OPS:
            known = OPS[cls.__name__]
            before = f"{known.__module__}.{known.__qualname__}"
            if before != owner:
                raise RuntimeError(f"{owner} cannot be registered: {before} is an op of that name")
        _attach_all(owner, list(cls._names()))
        OPS[cls.__name__] = cls

    @classmethod
    def _names(cls) -> Iterator[tuple[str, str, Any]]:
        """Yield the namespace, the name and the value of all that the op attaches."""
        call = cls.call
        spaces = dict.fromkeys(cls.namespaces.split(), call)
        if cls.out and "torch" in spaces:
            spaces["torch"] = cls.taking_out(call, cls.out, cls.differentiable)
        for name in (cls.op_name, *cls.aliases):
            yield from ((space, name, function) for space, function in spaces.items())
            if cls.inplace:
                yield "tensor", f"{name}_", cls.in_place_method(cls)
        for operator in cls.operators:
            reflected = operator.startswith("__r") and operator != "__rshift__"
            yield "tensor", operator, _reflect(call) if reflected else call
            if cls.inplace and hasattr(operators, f"__i{operator[2:]}"):  # such as +=
                yield "tensor", f"__i{operator[2:]}", cls.in_place_method(cls)

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        """Return the public function of an op that defines no `call`."""

        @functools.wraps(cls.forward)
        def call(*args: Any, **kwargs: Any) -> Any:
            return cls.apply(*args, **kwargs)

        call.__name__ = "call"
        return call


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _reflect(call: Callable[..., Any]) -> Callable[..., Any]:
    def reflected(self: Any, other: Any) -> Any:
        return call(other, self)

    return reflected
