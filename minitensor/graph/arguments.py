"""The arguments of ops in PyTorch's words: "normalized_shape=(E)", "dim=-1", "+ 1", "causal".

An op of this library may take its arguments in another form than the public function that calls it;
a picture has those of the public function, and leaves out what has the default value.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import optim
from .kinds import op_named
from .model import Graph, Node, Value
from .numbers import argument

# Of ops on two numbers, the sign between them.
SIGNS = dict(add="+", sub="-", mul="*", div="/", pow="**", floor_divide="//", remainder="%")
SIGNS |= dict(eq="==", ne="!=", lt="<", le="<=", gt=">", ge=">=")
SIGNS |= dict(bitwise_and="&", bitwise_or="|", bitwise_xor="^")

# PyTorch's names for arguments that have others here, of all ops or of one.
NAMES = {
    "axes": "dim",
    "heads": "num_heads",
    "slope": "negative_slope",
    "low": "min_val",
    "high": "max_val",
    "kind": "activation",
    "height": "num_embeddings",
    "padding": "padding_idx",
    ("lerp", "w"): "weight",
    ("expand", "size"): "",
    ("view", "shape"): "",
    ("reshape", "shape"): "",
    ("repeat", "repeats"): "",
    ("permute", "dims"): "",
}
DROPPING = "scaled_dot_product_attention packed_attention linear_activation dropout_add "
DROPPING += "dropout_add_layer_norm embedding_positions"  # ops with a dropout inside
UNNAMED = ["args", "chunks", "split_size_or_sections", "indices_or_sections"]
UNNAMED += ["size", "sizes", "shape"]
UNIT = dict(scale=1.0, correction=1)  # defaults that the public function works out


@dataclass(frozen=True)
class Argument:
    """An argument as it is written, "dim" and "-1"; the name is "" where the text says all."""

    name: str
    text: str
    default: bool = False  # True if it has its default value

    def __str__(self) -> str:
        return f"{self.name}={self.text}" if self.name else self.text


def arguments(graph: Graph, node: Node) -> list[Argument]:
    """Return the arguments of an op that are no tensors, those of default value as well."""
    given = node.attributes
    if node.direction == "update":  # an optimizer has settings of its own beside the user's
        known = _defaults(node.op)
        given = {name: value for name, value in given.items() if name in known or not known}
    found = [_argument(graph, node, name, value) for name, value in given.items()]
    if node.op in ("view", "reshape") and "shape" not in node.attributes and node.outputs:
        found.append(Argument("", graph.values[node.outputs[0]].label))
    return found


def of_call(graph: Graph, key: str, node: Node | None) -> list[Argument]:
    """Return the arguments of a public function that are no tensors; `node`: if it ran just one."""
    call, found = graph.calls[key], []
    if call.name == "setitem":
        return _assigned(call.attributes)
    for name, value in call.attributes.items():
        write = _WRITERS.get((call.name, name)) if node is not None else None
        made = write(graph, node, value) if write and node is not None else None
        text = _row(value) if _is_row(value) else argument(value)
        found.append(made or Argument("" if name in UNNAMED else name, text))
    return found


def _assigned(given: dict[str, Any]) -> list[Argument]:
    """Write a change of elements as code has it: "[:, 0] = 0.5"; tensors arrive by edges."""
    index, value = given.get("index"), given.get("value")
    parts = index if isinstance(index, list) else [index]
    key = f"[{', '.join(map(str, parts))}]" if index is not None else "[indices]"
    return [Argument("", key if value is None else f"{key} = {argument(value)}")]


def _argument(graph: Graph, node: Node, name: str, value: Any) -> Argument:
    """Write one argument, in the first of these forms that fits."""
    if node.op in SIGNS and name in ("a", "b"):
        sign = SIGNS[node.op]
        number = argument(value)
        return Argument("", f"{sign} {number}" if name == "b" else f"{number} {sign} x")
    write = _WRITERS.get((node.op, name)) or _WRITERS.get(name)
    made = write(graph, node, value) if write else None
    if made is not None:
        return made
    called = NAMES.get((node.op, name), NAMES.get(name, name))
    text = _row(value) if _is_row(value) else argument(value)
    return Argument(called, text, _is_default(node.op, called, value))


def _is_row(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(n, list) for n in value)


def _row(numbers: list[Any]) -> str:
    return f"({', '.join(map(str, numbers))})"


@functools.cache
def _defaults(op: str) -> dict[str, Any]:
    """The defaults of the public function of an op, and of the op itself."""
    found: dict[str, Any] = {}
    known = op_named(op)
    rules = [getattr(optim, op)] if known is None and hasattr(optim, op) else []
    for function in (known.forward, known.call) if known is not None else rules:
        for name, parameter in inspect.signature(function).parameters.items():
            found[name] = parameter.default
    return found


def _is_default(op: str, name: str, value: Any) -> bool:
    if name in ("p", "lr"):  # always worth saying
        return False
    default = _defaults(op).get(name, inspect.Parameter.empty)
    if default is None or default is inspect.Parameter.empty:
        return value is False or UNIT.get(name) == value
    if isinstance(default, tuple):
        return list(default) == value
    return type(default) in (bool, int, float, str) and default == value


# Forms of their own


def _shape(value: Value, start: int = 0) -> str:
    return f"({', '.join(value.dims[start:])})"


def _normalized(graph: Graph, node: Node, value: Any) -> Argument | None:
    """The sizes of the last dimensions, over which a norm goes."""
    out = graph.values[node.outputs[0]]
    return Argument("normalized_shape", _shape(out, len(out.shape) - value))


def _reduced(graph: Graph, node: Node, value: Any) -> Argument | None:
    """The dimensions that a reduction goes over: none written if it is all of them."""
    rank = len(graph.values[node.inputs[0]].shape)
    text = str(value[0]) if len(value) == 1 else _row(value)
    return Argument("dim", text, len(value) == rank)


def _dropped(graph: Graph, node: Node, value: Any) -> Argument | None:
    """The share that the dropout inside another op drops, if it does."""
    if node.op not in DROPPING.split():
        return None
    return Argument("dropout p", argument(value), not value)


def _causal(graph: Graph, node: Node, value: Any) -> Argument | None:
    return Argument("", "causal" if value else "not causal", not value)


def _scaled(graph: Graph, node: Node, value: Any) -> Argument | None:
    """The scale of attention scores, 1 / sqrt(E) by default, E being the width of a head."""
    width = graph.values[node.inputs[0]].shape[-1]
    if node.op == "packed_attention":
        alone = "kv" not in node.input_names
        width //= node.attributes.get("heads", 1) * (3 if alone else 1)
    default = width > 0 and math.isclose(value, 1 / math.sqrt(width), rel_tol=1e-6)
    return Argument("scale", argument(value), default)


def _target(graph: Graph, node: Node, value: Any) -> Argument | None:
    """A shape that was asked for, with the names of its sizes; -1 stays."""
    dims = graph.values[node.outputs[0]].dims
    if not _is_row(value) or len(value) != len(dims):
        return None
    return Argument("", _row([n if n == -1 else name for n, name in zip(value, dims, strict=True)]))


def _parts(graph: Graph, node: Node, value: Any) -> Argument | None:
    """The sizes of the parts of a tensor, by name: "3 x E" if they are equal."""
    dim = node.attributes.get("dim", 0)
    made = [graph.values[key] for key in node.outputs]
    if len(made) != len(value) or any(not part.dims for part in made):
        return None
    names = [part.dims[dim] for part in made]
    equal = len(names) > 1 and len(set(names)) == 1
    return Argument("sizes", f"{len(names)} x {names[0]}" if equal else _row(names))


def _split(graph: Graph, node: Node, value: Any) -> Argument | None:
    """The size of each part, or the sizes of all, by name."""
    dim = node.attributes.get("dim", 0)
    names = [graph.values[key].dims[dim] for key in node.outputs]
    if _is_row(value):
        return Argument("", _row(names)) if len(names) == len(value) else None
    return Argument("", names[0]) if graph.values[node.outputs[0]].shape[dim] == value else None


def _index(graph: Graph, node: Node, value: Any) -> Argument | None:
    """An index as code has it: "[:, 0]"."""
    parts = value if isinstance(value, list) else [value]
    return Argument("", f"[{', '.join(map(str, parts))}]")


_WRITERS: dict[Any, Callable[[Graph, Node, Any], Argument | None]] = {
    "axes": _reduced,
    "p": _dropped,
    "causal": _causal,
    "is_causal": _causal,
    "key": _index,
    ("layer_norm", "dims"): _normalized,
    ("rms_norm", "dims"): _normalized,
    ("dropout_add_layer_norm", "dims"): _normalized,
    ("scaled_dot_product_attention", "scale"): _scaled,
    ("packed_attention", "scale"): _scaled,
    ("expand", "size"): _target,
    ("view", "shape"): _target,
    ("reshape", "shape"): _target,
    ("split_with_sizes", "sizes"): _parts,
    ("split", "split_size_or_sections"): _split,
    ("broadcast_to", "size"): _target,
}
