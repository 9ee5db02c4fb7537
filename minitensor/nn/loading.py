"""Loading: copy a state dict into a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..autograd.inplace import overwritten
from ..core import Tensor, wrap
from ..sharing import shared_array
from .parameter import Parameter


class IncompatibleKeys(NamedTuple):
    """The keys by which a state dict and a module differ; returned by `load_state_dict`."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self[0]}, unexpected_keys={self[1]})"


class Loading:
    """One run of `Module.load_state_dict`: its arguments, and its findings so far."""

    def __init__(self, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> None:
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"Expected state_dict to be dict-like, got {type(state_dict).__name__}."
            )
        self.given = dict(state_dict)
        self.strict, self.assign = strict, assign
        self.found = IncompatibleKeys([], [])
        self.errors: list[str] = []
        self.expected: set[str] = set()

    def into(self, module: Any) -> IncompatibleKeys:
        """Load into a module and all inside it; RuntimeError that lists all errors."""
        self._load(module, "")
        found, errors = self.found, self.errors
        found.unexpected_keys.extend(key for key in self.given if key not in self.expected)
        if self.strict:
            for what, keys in (
                ("Unexpected", found.unexpected_keys),
                ("Missing", found.missing_keys),
            ):
                if keys:
                    quoted = ", ".join(f'"{key}"' for key in keys)
                    errors.insert(0, f"{what} key(s) in state_dict: {quoted}. ")
        if errors:
            lines = "\n\t".join(errors)
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(module).__name__}:\n\t{lines}"
            )
        return found

    def _load(self, module: Any, prefix: str) -> None:
        """Load the tensors below the path `prefix` into a module and those inside it."""
        own_hooks = module._registered_hooks or {}
        for hook in own_hooks.get("load_state_dict_pre", {}).values():
            hook(module, self.given, prefix, {}, self.strict, *self.found, self.errors)
        for name, tensor in module._state().items():
            key = prefix + name
            self.expected.add(key)
            if key in self.given:
                self._load_tensor(module, name, tensor, key)
            else:
                self.found.missing_keys.append(key)
        for name, child in module._modules.items():
            if child is not None:
                self._load(child, f"{prefix}{name}.")
        for hook in own_hooks.get("load_state_dict_post", {}).values():
            hook(module, self.found)

    def _load_tensor(self, module: Any, name: str, tensor: Tensor, key: str) -> None:
        """Copy the value given for `key` into a tensor of a module, or assign it."""
        value = self.given[key]
        array = _array_of(value)
        if array is None:
            self.errors.append(
                f'While copying the parameter named "{key}", expected a Tensor or an array '
                f"from checkpoint but received {type(value).__name__}"
            )
        elif array.shape != tensor._array.shape:
            self.errors.append(
                f"size mismatch for {key}: copying a param with shape {tuple(array.shape)} "
                f"from checkpoint, the shape in current model is {tuple(tensor._array.shape)}."
            )
        elif self.assign:
            value = value if isinstance(value, Tensor) else wrap(array)
            if isinstance(tensor, Parameter):
                value = Parameter(value, requires_grad=tensor.requires_grad)
            setattr(module, name, value)
        else:
            tensor._array[...] = array
            overwritten(tensor)


def _array_of(value: Any) -> np.ndarray | None:
    """Return the array of a tensor (of any library) or array; None for anything else."""
    if isinstance(value, Tensor):
        return value._array
    return shared_array(value) if hasattr(value, "__array__") else None
