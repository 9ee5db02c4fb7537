"""Module: the base class of layers and models."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from ..autograd import no_grad
from ..autograd.gradients import clear_gradients
from ..core import Tensor, state
from ..devices import DeviceError, DeviceLike
from ..dtype import DTypeLike, as_dtype
from ..errors import running
from ..notebook.foldable import module_rendering
from . import hooks
from .loading import IncompatibleKeys, Loading
from .parameter import Buffer, Parameter

# A constructor's arguments are not kept if one of them is large or can be used only once.
_ONCE = (Tensor, np.ndarray, Iterator)


# What makes calls compiled ones: it lies above this module, and `minitensor` puts it here.
compiler: list[Callable[..., Callable[..., Any]]] = []


class _MadeWith(tuple):
    """The arguments of a constructor; copies of a module share them."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _MadeWith:
        return self


class Module(hooks.Hooked):
    """The base class of all layers and models.

    A subclass calls `super().__init__()` first and defines `forward`. Parameters, buffers and
    modules that it assigns to attributes are registered, in the order of their assignment:
    `parameters()`, `state_dict()`, `to()` and the other methods find them.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _compiled: Callable[..., Any] | None = None  # what calls do instead, set by `compile`

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the constructor's arguments: the graph rebuilds a module with other sizes."""
        module = super().__new__(cls)
        if not any(isinstance(a, _ONCE) for a in (*args, *kwargs.values())):
            module.__dict__["_made_with"] = _MadeWith((args, kwargs))
        return module

    def __init__(self) -> None:
        self.__dict__.update(
            training=True,
            _parameters={},
            _buffers={},
            _modules={},
            _non_persistent_buffers_set=set(),
        )

    # Calling

    def forward(self, *input: Any, **kwargs: Any) -> Any:
        """Compute the output; each module defines it. Call the module, which runs hooks too."""
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` between the hooks before and after it, and return its output."""
        if self._compiled is not None:
            return self._compiled(*args, **kwargs)
        return self._call(*args, **kwargs)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        outside = running.modules
        running.modules = (*outside, self)
        try:
            if self._registered_hooks is None:
                result = self.forward(*args, **kwargs)
            else:
                result = hooks.call(self, self._registered_hooks, args, kwargs)
            for observer in state.observers:
                result = observer.returned(self, result)
            return result
        finally:
            running.modules = outside

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the calls of this module from now on, as `minitensor.compile` does."""
        self.__dict__["_compiled"] = compiler[0](self._call, **kwargs)

    # Registration

    def _check_name(self, kind: str, name: str, members: dict[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if name not in members and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")

    def _members(self, kind: str) -> dict[str, Any]:
        """Return the dict of one kind of member, "parameter", "buffer" or "module"."""
        members = self.__dict__.get(f"_{kind}s")
        if members is None:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        return members

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Register a parameter under `name`; None reserves the name.

        Raises TypeError if `param` is not a Parameter, KeyError for a name that is taken, empty or
        contains a dot, AttributeError before `Module.__init__()`.
        """
        members = self._members("parameter")
        self._check_name("parameter", name, members)
        if param is not None:
            if not isinstance(param, Parameter):
                raise TypeError(
                    f"cannot assign '{type(param).__name__}' object to parameter '{name}' "
                    "(nn.Parameter or None required)"
                )
            if param.grad_fn is not None:
                raise ValueError(
                    f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters "
                    f"must be created explicitly. To express '{name}' as a function of another "
                    "Tensor, compute the value in the forward() method."
                )
        members[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a tensor that is not a parameter under `name`; None reserves the name.

        The buffer is part of `state_dict` if `persistent`. Raises as `register_parameter` does.
        """
        members = self._members("buffer")
        self._check_name("buffer", name, members)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' "
                "(Tensor or None required)"
            )
        members[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Register a child module under `name`; None reserves the name.

        Raises as `register_parameter` does.
        """
        members = self._members("module")
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_name("module", name, members)
        members[name] = module

    register_module = add_module

    def _forget(self, name: str) -> None:
        """Remove the attribute or member of this name, so that another kind can take the name."""
        here = self.__dict__
        for members in (here, here["_parameters"], here["_buffers"], here["_modules"]):
            members.pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def __setattr__(self, name: str, value: Any) -> None:
        here = self.__dict__
        if isinstance(value, Parameter):
            if name not in self._members("parameter"):
                self._forget(name)
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            members = self._members("module")
            if name not in members:
                self._forget(name)
            members[name] = value
        elif isinstance(value, Buffer):
            if name not in self._members("buffer"):
                self._forget(name)
            self.register_buffer(name, value, value.persistent)
        else:
            for kind, taken, wanted in _KINDS:
                members = here.get(kind, ())
                if name in members:
                    if value is not None and not (wanted is Tensor and isinstance(value, Tensor)):
                        raise TypeError(
                            f"cannot assign '{type(value).__name__}' as {taken} '{name}' "
                            f"({wanted.__name__} or None expected)"
                        )
                    members[name] = value
                    return
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Tensor | Module:
        here = self.__dict__
        for kind in ("_parameters", "_modules", "_buffers"):
            members = here.get(kind)
            if members and name in members:
                return members[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        for kind, _, _ in _KINDS:
            if name in self.__dict__[kind]:
                del self.__dict__[kind][name]
                self._non_persistent_buffers_set.discard(name)
                return
        super().__delattr__(name)

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__}.union(
            self._parameters, self._buffers, self._modules
        )
        return sorted(name for name in names if not name[0].isdigit())

    # Finding modules, parameters and buffers

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Yield (path, module) for this module and all modules inside it, parents first.

        - `memo`: modules to skip; those yielded are added.
        - `prefix`: the path of this module, "" by default.
        - `remove_duplicate`: yield a module only once if it has several paths.
        """
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from child.named_modules(memo, path, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """Yield this module and all modules inside it, each once if `remove_duplicate`."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for each child, shared ones once."""
        seen = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """Yield each child, shared ones once."""
        for _, child in self.named_children():
            yield child

    def _named_tensors(
        self, kind: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        """Yield (path, tensor) of one kind, `_parameters` or `_buffers`."""
        seen = set()
        for path, module in self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate):
            if not recurse and module is not self:
                return
            for name, tensor in module.__dict__[kind].items():
                if tensor is None or tensor in seen:
                    continue
                if remove_duplicate:
                    seen.add(tensor)
                yield f"{path}.{name}" if path else name, tensor

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield (path, parameter), including those of modules inside if `recurse`.

        A parameter that is shared is yielded once, under its first path, if `remove_duplicate`.
        """
        return self._named_tensors("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield each parameter once, including those of modules inside if `recurse`."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (path, buffer), including those of modules inside if `recurse`.

        A buffer that is shared is yielded once, under its first path, if `remove_duplicate`.
        """
        return self._named_tensors("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield each buffer once, including those of modules inside if `recurse`."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """Return the module at the path `target`; AttributeError if there is none."""
        module: Any = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def _get_tensor(self, kind: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
        if name not in module.__dict__[f"_{kind}s"]:
            raise AttributeError(f"`{name}` is not a {kind}")
        return getattr(module, name)

    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter at the path `target`; AttributeError if there is none."""
        return self._get_tensor("parameter", target)

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer at the path `target`; AttributeError if there is none."""
        return self._get_tensor("buffer", target)

    # Converting, modes and gradients

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on every module inside, then on this one; return this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Replace the data of every parameter, gradient and buffer by `fn` of it."""
        with no_grad():
            for child in self.children():
                child._apply(fn)
            for parameter in self._parameters.values():
                if parameter is not None:
                    parameter.data = fn(parameter)
                    grad = parameter.grad
                    if grad is not None:
                        grad.data = fn(grad)
            for name, buffer in self._buffers.items():
                if buffer is not None:
                    self._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Convert floating point parameters and buffers, with the arguments of `Tensor.to`.

        Raises TypeError for a type that is not floating point.
        """

        def convert(t: Tensor) -> Tensor:
            if not t.is_floating_point():
                return t
            out = t.to(*args, **kwargs)
            if not out.is_floating_point():
                raise TypeError(
                    "nn.Module.to only accepts floating point dtypes, but got desired "
                    f"dtype={out.dtype}"
                )
            return out

        return self._apply(convert)

    def type(self, dst_type: DTypeLike | str) -> Self:
        """Convert all parameters and buffers to a type, integers too."""
        return self._apply(lambda t: t.type(dst_type))

    def float(self) -> Self:
        """Convert floating point parameters and buffers to float32."""
        return self.to(as_dtype(np.float32))

    def double(self) -> Self:
        """Convert floating point parameters and buffers to float64."""
        return self.to(as_dtype(np.float64))

    def half(self) -> Self:
        """Convert floating point parameters and buffers to float16."""
        return self.to(as_dtype(np.float16))

    def bfloat16(self) -> Self:
        """Convert floating point parameters and buffers to bfloat16."""
        return self.to(as_dtype("bfloat16"))

    def cpu(self) -> Self:
        """Return this module, which is on the CPU already."""
        return self

    def cuda(self, device: DeviceLike = None) -> Self:
        """Raise DeviceError, a RuntimeError, as there is only the CPU."""
        raise DeviceError("minitensor has only the CPU: leave out .cuda()")

    def train(self, mode: bool = True) -> Self:
        """Set training mode, or evaluation mode if `mode` is False, also in all modules inside."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """Set evaluation mode: dropout is off, and BatchNorm uses its running averages."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of all parameters."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None, or else to zeros, in one pass over all."""
        clear_gradients(self.parameters(), set_to_none)

    # Saving and loading

    def _state(self) -> dict[str, Tensor]:
        """Return this module's own parameters and persistent buffers."""
        found: dict[str, Any] = {**self._parameters}
        for name, buffer in self._buffers.items():
            if name not in self._non_persistent_buffers_set:
                found[name] = buffer
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def state_dict(
        self,
        *,
        destination: dict[str, Any] | None = None,
        prefix: str = "",
        keep_vars: bool = False,
    ) -> dict[str, Any]:
        """Return all parameters and persistent buffers by path.

        - `destination`: a dict to add them to, instead of a new one.
        - `prefix`: put before every path.
        - `keep_vars`: return the tensors themselves instead of detached ones. Both share memory
          with the module.
        """
        found = OrderedDict() if destination is None else destination
        own_hooks = self._registered_hooks or {}
        for hook in own_hooks.get("state_dict_pre", {}).values():
            hook(self, prefix, keep_vars)
        for name, tensor in self._state().items():
            found[prefix + name] = tensor if keep_vars else tensor.detach()
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(destination=found, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in own_hooks.get("state_dict_post", {}).values():
            hook(self, found, prefix, {})
        return found

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy the values of a state dict into the parameters and buffers.

        - `state_dict`: tensors or arrays by path.
        - `strict`: missing and unexpected keys are errors.
        - `assign`: the values become the parameters and buffers instead of being copied.

        Returns the missing and the unexpected keys. Raises RuntimeError that lists every shape
        that differs and, if `strict`, every such key; TypeError if `state_dict` is not a mapping.
        """
        return Loading(state_dict, strict, assign).into(self)

    # Printing

    def extra_repr(self) -> str:
        """Return the settings that the repr shows."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): {child!r}" for name, child in self._modules.items()]
        return block(self._get_name(), extra.split("\n") if extra else [], children)

    __treescope_repr__ = module_rendering


# Of each kind of member: the dict that holds it, its name in errors, and the type it must have.
_KINDS: tuple[tuple[str, str, Any], ...] = (
    ("_parameters", "parameter", Parameter),
    ("_buffers", "buffer", Tensor),
    ("_modules", "child module", Module),
)


def block(name: str, extra: list[str], children: list[str]) -> str:
    """Format `name(extra)`, or several lines with `children` indented below."""
    if not children and len(extra) <= 1:
        return f"{name}({''.join(extra)})"
    lines = [*extra, *(child.replace("\n", "\n  ") for child in children)]
    return f"{name}(\n  " + "\n  ".join(lines) + "\n)"
