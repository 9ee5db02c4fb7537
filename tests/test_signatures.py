"""Public functions have PyTorch's parameter names and say what they return."""

from __future__ import annotations

import builtins
import functools
import inspect
import re
import typing
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor import creation, sampling
from minitensor.core import NAMESPACES, OPS, Op, Tensor
from minitensor.ops import return_types
from minitensor.testing import leaves, oracle, samples, to_torch

# Parameters of PyTorch's that mean nothing here: one layout, one device, no results to write into.
NOT_HERE = {"self", "out", "out_dtype", "layout", "pin_memory", "names", "memory_format"}
NOT_HERE |= {"args", "kwargs"}  # of those that pass all on, as max_pool2d
# Functions whose documented names PyTorch itself does not accept, or of which a part is missing:
# the weights of distances, sections and indices apart, asarray(copy=...).
DIFFERENT = {
    "torch.true_divide",
    "torch.broadcast_to",
    "torch.atleast_1d",
    "torch.atleast_2d",
    "torch.atleast_3d",
    "torch.block_diag",
    "torch.broadcast_tensors",
    "torch.cartesian_prod",
    "torch.meshgrid",
    "torch.einsum",
    "torch.searchsorted",
    "torch.tensor_split",
    "torch.broadcast_shapes",
    "torch.unique",
    "torch.unique_consecutive",
    "torch.asarray",
    "torch.tensor",
    "torch.nn.functional.one_hot",
    "torch.nn.functional.mse_loss",
    "torch.nn.functional.l1_loss",
    "torch.nn.functional.huber_loss",
}


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every function of the package, of nn.functional and of Tensor, with its full name."""
    torch_like = dict(NAMESPACES["torch"])
    torch_like |= {name: getattr(mt, name) for name in (*creation.__all__, *sampling.__all__)}
    for name, function in torch_like.items():
        yield f"torch.{name}", function
    for name, function in NAMESPACES["functional"].items():
        yield f"torch.nn.functional.{name}", function
    for name, value in vars(Tensor).items():
        if not name.startswith("_") and inspect.isfunction(value):
            yield f"torch.Tensor.{name}", value


FUNCTIONS = dict(public_functions())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_shows_its_parameters_and_its_result(name: str) -> None:
    function = FUNCTIONS[name]
    found = inspect.signature(function)
    for parameter in found.parameters.values():
        assert parameter.name != "ctx"
        if name != "torch.from_numpy":
            assert "ndarray" not in str(parameter.annotation), f"{parameter} shows the inside"
    assert found.return_annotation is not inspect.Signature.empty
    inner: Any = inspect.unwrap(getattr(function, "func", function))
    inner = type(inner).__call__ if isinstance(inner, type) else inner  # FloatTensor and its kin
    scope = {**vars(builtins), **inner.__globals__}
    for dotted in re.findall(r"[A-Za-z_][A-Za-z_.]*", str(found.return_annotation)):
        first, *rest = dotted.split(".")
        assert first in scope, f"{dotted} is unknown in {inner.__module__}"
        functools.reduce(getattr, rest, scope[first])


def documented(function: Any) -> list[list[str]]:
    """The parameter names in each signature that PyTorch documents for a function."""
    if inspect.isfunction(function):
        given = inspect.signature(function).parameters
        return [[p for p in given if not p.startswith("_") and p not in NOT_HERE]]
    found = []
    pattern = rf"^\s*(?:\.\. function:: )?(?:torch\.)?{function.__name__}\((.*?)\)\s*(?:->|$)"
    for match in re.finditer(pattern, function.__doc__ or "", re.MULTILINE):
        text = re.sub(r"\[[^][]*(\[[^][]*\][^][]*)*\]|\([^()]*\)", "", match[1])
        names = [re.split(r"[:=]", part)[0].strip(" \\*") for part in text.split(",")]
        found.append([name for name in names if name and name not in NOT_HERE])
    return found


@needs_torch
def test_every_documented_parameter_is_accepted_by_its_name() -> None:
    import torch

    count = 0
    for name in FUNCTIONS.keys() - DIFFERENT:
        space, _, own = name.rpartition(".")
        theirs = getattr(torch.nn.functional if "functional" in space else torch, own, None)
        if space == "torch.Tensor" or theirs is None:
            continue
        for names in documented(theirs):
            try:
                inspect.signature(FUNCTIONS[name]).bind_partial(**dict.fromkeys(names))
            except TypeError as error:
                raise AssertionError(f"{name}({', '.join(names)}): {error}") from error
            count += 1
    assert count > 200


def by_keywords(op: type[Op]) -> dict[str, Any] | None:
    """The op's first sample with every argument by its keyword; None if it has none for some."""
    args, kwargs = samples(op)[0]
    bound = inspect.signature(op.call).bind(*args, **kwargs)
    named: dict[str, Any] = {}
    parameters = list(bound.signature.parameters.values())
    for number, parameter in enumerate(parameters):
        if parameter.name not in bound.arguments:
            continue
        value = bound.arguments[parameter.name]
        if parameter.kind is not parameter.VAR_POSITIONAL:
            named[parameter.name] = value
        elif number + 1 < len(parameters) and parameters[0] is not parameter:
            named[parameters[number + 1].name] = (
                tuple(value[0]) if isinstance(value[0], tuple | list) else value
            )
        else:
            return None
    return named


# Of ops that PyTorch has as methods alone, the first argument is the tensor itself.
NO_KEYWORDS = {
    name for name, op in OPS.items() if not set(op.namespaces.split()) & {"torch", "functional"}
}
NO_KEYWORDS |= {
    "Hsplit",
    "TensorSplit",
    "Vsplit",
}  # PyTorch has another name for numbers than for indices


def torch_leaves(x: Any) -> list[Any]:
    """The tensors in nested results, in order."""
    if isinstance(x, list | tuple):
        return [t for y in x for t in torch_leaves(y)]
    return [x] if hasattr(x, "shape") else []


@needs_torch
@pytest.mark.parametrize("name", sorted(OPS.keys() - NO_KEYWORDS))
def test_pytorch_takes_the_same_keywords(name: str) -> None:
    op = OPS[name]
    theirs, kwargs = oracle(op), by_keywords(op)
    if theirs is None or kwargs is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, other = op.call(**kwargs), theirs(**to_torch(kwargs))
    for a, b in zip(leaves([mine]), torch_leaves([other]), strict=True):
        assert tuple(a.shape) == tuple(b.shape)


def test_names_that_pytorch_has_are_accepted() -> None:
    x = mt.arange(6.0).reshape(2, 3)
    assert mt.transpose(input=x, dim0=0, dim1=1).shape == (3, 2)
    assert mt.swapaxes(input=x, axis0=0, axis1=1).shape == (3, 2)
    assert mt.swapdims(input=x, dim0=0, dim1=1).shape == (3, 2)
    assert mt.unsqueeze(input=x, dim=0).shape == (1, 2, 3)
    assert mt.squeeze(input=x.unsqueeze(0)).shape == (2, 3)
    assert [t.shape for t in mt.unbind(input=x, dim=0)] == [(3,), (3,)]
    assert mt.diagonal(input=x, offset=0).tolist() == [0, 4]


def overloads(op: type[Op]) -> list[Any]:
    """The overloads of an op's call, by the name it has in the class."""
    place = SimpleNamespace(__module__=op.__module__, __qualname__=f"{op.__qualname__}.call")
    return list(typing.get_overloads(place))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Max", "Min", "Median", "Where"])
def test_calls_whose_result_depends_on_their_arguments_have_overloads(name: str) -> None:
    found = [inspect.signature(f).return_annotation for f in overloads(OPS[name])]
    assert len(found) > 1
    assert "Tensor" in found


def test_each_result_has_the_type_that_is_announced() -> None:
    x = mt.arange(6.0).reshape(2, 3)
    assert type(x.max(1)) is return_types.max
    assert type(x.min(1)) is return_types.min
    assert type(x.median(1)) is return_types.median
    assert type(x.sort(1)) is return_types.sort
    assert type(x.topk(2, 1)) is return_types.topk
    assert type(mt.aminmax(x)) is return_types.aminmax
    assert repr(x.max(1)).startswith("minitensor.return_types.max(\nvalues=tensor(")
