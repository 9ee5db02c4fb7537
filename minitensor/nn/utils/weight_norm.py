"""Weight normalisation: a weight as its length times its direction, w = g * v / |v|.

T. Salimans, D. Kingma, "Weight Normalization", 2016.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

from ...autograd import no_grad
from ...core import Tensor
from ..module import Module
from ..parameter import Parameter

M = TypeVar("M", bound=Module)
WHOLE = -1  # the dim of one norm for the whole weight


def lengths(v: Tensor, dim: int) -> Tensor:
    """Return the norms |v| over all dimensions but `dim`: (C, *) -> (C, 1, ...) for dim 0."""
    if dim == WHOLE:
        return v.norm()
    shape = [size if d == dim else 1 for d, size in enumerate(v.shape)]
    return v.transpose(0, dim).reshape(v.shape[dim], -1).norm(2, 1).reshape(shape)


def combined(g: Tensor, v: Tensor, dim: int) -> Tensor:
    """Return the weight g * v / |v|."""
    return v * (g / lengths(v, dim))


class WeightNorm:
    """The hook that computes a weight before each `forward`."""

    def __init__(self, name: str, dim: int) -> None:
        self.name = name
        self.dim = dim

    def compute_weight(self, module: Module) -> Tensor:
        """Return the weight of the module's present g and v."""
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        return combined(g, v, self.dim)

    def __call__(self, module: Module, inputs: Any) -> None:
        """Set the weight, before `forward`."""
        setattr(module, self.name, self.compute_weight(module))


def _hooks(module: Module) -> dict[int, Any]:
    return (module._registered_hooks or {}).get("forward_pre", {})


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Replace a parameter by its lengths, `name_g`, and a direction, `name_v`; return the module.

    The weight is computed before each `forward`.

    - `dim`: the dimension of the lengths, 0 for one for each output; None for a single one.

    RuntimeError if the parameter has it already. Deprecated in PyTorch, as here, in favour of
    `nn.utils.parametrizations.weight_norm`.
    """
    warnings.warn(
        "nn.utils.weight_norm is deprecated in favor of nn.utils.parametrizations.weight_norm.",
        FutureWarning,
        stacklevel=2,
    )
    if any(isinstance(h, WeightNorm) and h.name == name for h, *_ in _hooks(module).values()):
        raise RuntimeError(f"Cannot register two weight_norm hooks on the same parameter {name}")
    hook = WeightNorm(name, WHOLE if dim is None else dim)
    weight = getattr(module, name)
    delattr(module, name)
    with no_grad():
        module.register_parameter(f"{name}_g", Parameter(lengths(weight, hook.dim)))
        module.register_parameter(f"{name}_v", Parameter(weight.data))
    setattr(module, name, hook.compute_weight(module))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Make the weight a parameter again, of its present value; return the module.

    ValueError if it has no weight norm.
    """
    hooks = _hooks(module)
    for number, (hook, *_) in hooks.items():
        if isinstance(hook, WeightNorm) and hook.name == name:
            weight = hook.compute_weight(module)
            for attribute in (name, f"{name}_g", f"{name}_v"):
                delattr(module, attribute)
            setattr(module, name, Parameter(weight.data))
            del hooks[number]
            return module
    raise ValueError(f"weight_norm of '{name}' not found in {module}")
