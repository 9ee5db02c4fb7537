"""Weights that are functions of other parameters, computed whenever they are read."""

from __future__ import annotations

from typing import Any, TypeVar

from ...autograd import no_grad
from ...core import Tensor
from ...names import show
from ..container import ModuleDict
from ..module import Module
from ..parameter import Parameter
from .weight_norm import WHOLE, combined, lengths

__all__ = ["weight_norm"]

M = TypeVar("M", bound=Module)


class _WeightNorm(Module):
    """w = g * v / |v| of two tensors, g and v."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        """g and v -> w."""
        return combined(weight_g, weight_v, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """w -> g and v."""
        return lengths(weight, self.dim), weight


class ParametrizationList(Module):
    """The originals of a weight, `original0` and `original1`, and its rule, module `0`."""

    def __init__(self, rule: _WeightNorm, weight: Parameter) -> None:
        super().__init__()
        self.add_module("0", rule)
        with no_grad():
            for number, original in enumerate(rule.right_inverse(weight)):
                made = Parameter(original.detach(), weight.requires_grad)
                self.register_parameter(f"original{number}", made)

    @property
    def rule(self) -> _WeightNorm:
        """The module that computes the weight."""
        rule = self._modules["0"]
        assert isinstance(rule, _WeightNorm)
        return rule

    def forward(self) -> Tensor:
        """Return the weight."""
        weight: Tensor = self.rule(self.original0, self.original1)
        return weight


def _property(name: str) -> Any:
    def get(module: Any) -> Tensor:
        weight: Tensor = module.parametrizations[name]()
        return weight

    def assign(module: Any, weight: Tensor) -> None:
        parameters: ParametrizationList = module.parametrizations[name]
        with no_grad():
            for number, new in enumerate(parameters.rule.right_inverse(weight)):
                getattr(parameters, f"original{number}").copy_(new)

    return property(get, assign)


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Replace a parameter by its lengths and a direction; return the module.

    They are `parametrizations.<name>.original0` and `original1`, and `module.<name>` computes the
    weight whenever it is read: the class of the module becomes a subclass. State dicts made with
    `nn.utils.weight_norm` can be loaded. `parametrize.remove_parametrizations` undoes it.

    - `dim`: the dimension of the lengths, 0 for one for each output; None for a single one.

    ValueError if the module has no such parameter.
    """
    weight = module._parameters.get(name)
    if weight is None:
        raise ValueError(
            f"Module '{type(module).__name__}' does not have a parameter with name '{name}'"
        )
    parametrized = ParametrizationList(_WeightNorm(WHOLE if dim is None else dim), weight)
    delattr(module, name)
    if "parametrizations" not in module._modules:
        module.add_module("parametrizations", ModuleDict())
        cls = type(module)
        module.__class__ = type(f"Parametrized{cls.__name__}", (cls,), {})
    module.get_submodule("parametrizations").add_module(name, parametrized)
    setattr(type(module), name, _property(name))

    def renamed(module: Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        """Give the weights of `nn.utils.weight_norm` the names that they have here."""
        for number, letter in enumerate("gv"):
            key = f"{prefix}{name}_{letter}"
            if key in state:
                state[f"{prefix}parametrizations.{name}.original{number}"] = state.pop(key)

    module.register_load_state_dict_pre_hook(renamed)
    return module


show(__name__)
