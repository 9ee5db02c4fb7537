"""Parametrized modules: recognise them, and make their weights parameters again."""

from __future__ import annotations

from ...names import show
from ..module import Module
from ..parameter import Parameter
from .parametrizations import ParametrizationList

__all__ = ["ParametrizationList", "is_parametrized", "remove_parametrizations"]


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Return True if the named weight, or any, is computed from other parameters."""
    found = module._modules.get("parametrizations")
    if found is None:
        return False
    return bool(found._modules) if tensor_name is None else tensor_name in found._modules


def remove_parametrizations(
    module: Module, tensor_name: str, leave_parametrized: bool = True
) -> Module:
    """Make a weight a parameter again, of its present value; return the module.

    ValueError if it is not parametrized, or without `leave_parametrized`: the originals cannot be
    put back where there are several.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(
            f"Module {type(module).__name__} does not have a parametrization on {tensor_name}"
        )
    if not leave_parametrized:
        raise ValueError("Cannot leave unparametrized a tensor that is computed from several ones")
    lists = module.get_submodule("parametrizations")
    originals = lists.get_submodule(tensor_name).parameters()
    requires_grad = all(p.requires_grad for p in originals)
    weight = Parameter(getattr(module, tensor_name).detach(), requires_grad)
    delattr(lists, tensor_name)
    delattr(type(module), tensor_name)
    module.register_parameter(tensor_name, weight)
    if not lists._modules:
        delattr(module, "parametrizations")
        module.__class__ = type(module).__mro__[1]
    return module


show(__name__)
