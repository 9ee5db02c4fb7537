"""The graph as plain data: tensors, ops, modules. Every picture is made from it.

A `Graph` is a whole recording, in the order it ran. `api.py` attaches its methods. Every
id comes from module paths and counting, so two runs of one program give the same graph, byte for
byte.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .data import Data, packed, unpacked

if TYPE_CHECKING:
    from .attached import Attached  # the methods of api.py
else:
    Attached = object

VERSION = 2  # of the JSON form
RETURNED = "identity"  # the op of a module that returns its input
ASSIGNING = ("setitem", "copy_", "fill_", "zero_", "index_add")  # functions that are drawn closed
ACCUMULATE = "accumulate_grad"  # the sum of the gradients of a weight that is used several times


@dataclass
class Value:
    """A tensor, made by an op or there before."""

    id: str  # "<node>:<port>", or without a node its kind and name: "input:src"
    kind: str  # input, parameter, buffer, constant, activation, gradient, saved
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    dims: tuple[str, ...] = ()  # the shape in names: ("N", "nhead", "M", "M"), ("3*E", "16")
    names: list[str] = field(default_factory=list)  # what the code calls it, first name first
    producer: str | None = None  # the node that made it
    port: int = 0  # which of its outputs it is
    views: str | None = None  # the value whose memory it shows
    saved_by: list[str] = field(default_factory=list)  # forward nodes that keep it for backward
    # Of a gradient: the value it is the gradient of. Of a value made inside an opened op or a
    # backward rule: the output of the node around it that it equals. Of a weight or a buffer after
    # a change: the one before.
    of: str | None = None
    # Of a gradient inside an opened op: the one that the whole op gives, which it equals, or is a
    # term of if there are several.
    term: str | None = None
    origin: str = ""  # of a constant: the call that made it, "arange(7)"
    group: str | None = None  # of such a constant: the module call that it was made in,
    function: str = ""  # and the function in that, as of a node
    stats: dict[str, float] | None = None  # rms, min, max, nan (a share), if asked for
    grad_norm: float | None = None  # the 2-norm of its gradient, if asked for
    data: Data | None = None  # what it held, if asked for

    @property
    def name(self) -> str:
        """The first name the code gave it, or ""."""
        return self.names[0] if self.names else ""

    @property
    def label(self) -> str:
        """Its shape in names, such as "(N, nhead, M, M)"."""
        return f"({', '.join(self.dims)})"


@dataclass
class Origins:
    """The source of the numbers of a node's outputs: `Op.cell` of that run."""

    tensors: dict[str, str]  # values by their names in the formulas; some the op itself draws
    formulas: list[str] = field(default_factory=list)  # for each output, or
    # for each output the cell that each of its own is a copy of, -1 for a constant: its number in
    # all `tensors`, one after the other
    moved: list[np.ndarray] = field(default_factory=list)


@dataclass
class Node:
    """One run of an op.

    - "forward" is what the program runs itself, also on gradients that it asked for.
    - "backward" is a pass. Its nodes have `of`, the node that each differentiates, and `inside` is
      None. Ops that a backward rule runs have it as `inside`, and no `of`; ops that a pass runs
      between its nodes (sums of gradients, with create_graph) have neither. The last value inside
      has `of`: the output of the backward node that it equals. Where several gradients of one
      output arrive, the node reads each; those inside read their sum, "<node>:in0", which no node
      made.
    - In the backward node of an opened op runs the pass of its decomposition, which the program
      does not run: those nodes have both `of`, the op inside the forward node, and `inside`. They
      read gradients alone, as nothing is kept for them.
    - A second pass over a recorded pass is "backward" too: `of` is then an op inside a backward
      node, or a sum of gradients. A second pass over the same node is "<node>:backward.1".
    - "update": see `direction`.
    """

    id: str  # "<group>/<op>", with ".1", ".2" for later ones; ":backward" for its backward
    op: str  # the functional name: "softmax"
    group: str  # the id of the innermost module call it ran in
    inputs: list[str]  # ids of values, in order
    outputs: list[str]
    input_names: list[str] = field(default_factory=list)  # the op's names for the inputs: "q", "k"
    attributes: dict[str, Any] = field(default_factory=dict)  # the other arguments: {"dim": -1}
    direction: str = "forward"  # or "backward"; "update": it changed a weight
    gradient: bool = True  # False for what passes data on without one: argmax, a trip to NumPy
    function: str = ""  # the innermost function that ran it, with "#2" for a second call of it
    of: str | None = None  # of a backward node: its forward node, if that was recorded
    inside: str | None = None  # the node whose decomposition, or backward pass, ran it
    saved: list[str] = field(default_factory=list)  # of a forward node: values kept for backward
    flops: int = 0  # of its matrix products: 2 for a multiplication and an addition
    seconds: float | None = None  # if measured
    source: str = ""  # "file:line" of the user's code
    code: str = ""  # the text of that line
    origin: str = ""  # "file:line" inside the library, where that called it
    rule: str = ""  # of `compile`, that put it in the place of others
    origins: Origins | None = None  # if values were asked for, and the op tells it


@dataclass
class FunctionCall:
    """One call of a function inside a module: of the user's, or of a public one, such as einsum.

    A public function has a call of its own if it runs several ops, or one of another name.
    """

    name: str  # "apply_rotary", without a number
    function: str = ""  # the call around it in the same module
    public: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)  # of a public one: those given to it
    inputs: list[str] = field(default_factory=list)  # values that it was given
    input_names: list[str] = field(default_factory=list)  # its parameters for them


@dataclass
class Group:
    """One call of a module."""

    id: str  # its path, "encoder.layers.0", with "#2" for a second call; "" is the whole
    path: str
    kind: str  # its class: "EncoderLayer"
    parent: str | None
    parameters: list[str] = field(default_factory=list)  # values, of this module itself
    inputs: list[str] = field(default_factory=list)  # values that its call was given
    input_names: list[str] = field(default_factory=list)  # its names for them: "tgt", "memory"
    settings: str = ""  # what its repr says of it: "in_features=16, out_features=32"
    function: str = ""  # the function that called it, as of a node


@dataclass
class Chapter:
    """A step of a walkthrough of the graph: what is told, and what is looked at meanwhile."""

    title: str
    part: str = ""  # what it is a part of: "Forward"
    text: str = ""  # plain English; an empty line between paragraphs
    formula: str = ""
    facts: dict[str, str] = field(default_factory=dict)  # numbers by their names
    boxes: list[str] = field(default_factory=list)  # ids of groups and nodes that are lit
    values: dict[str, str] = field(default_factory=dict)  # by ids of values: a caption for each
    source: str = ""  # "file:line" of the line that is lit
    code: str = ""  # the text of that line
    inner: list[Chapter] = field(default_factory=list)  # steps that it stands for


@dataclass(repr=False)
class Graph(Attached):
    """A recording: values, nodes in their order, and the modules they ran in."""

    name: str
    dims: dict[str, int] = field(default_factory=dict)  # names of sizes
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    calls: dict[str, FunctionCall] = field(default_factory=dict)  # by module and name, see `call`
    notes: list[str] = field(default_factory=list)  # for the reader: axes without a name, ...
    seed: str = ""  # the output whose gradient the recorder began a backward pass from: "loss"
    timed_runs: int = 0  # the runs of which each `seconds` is the median
    annotations: dict[str, dict[str, float | str]] = field(default_factory=dict)  # a person's own:
    # by name, a number or a text for ids of groups, nodes and values
    labels: dict[str, list[str]] = field(default_factory=dict)  # names for the places along an
    # axis, by the name of its size: {"S": ["I", "like", "apples"]}
    chapters: list[Chapter] = field(default_factory=list)  # of a walkthrough, which pages show

    def call(self, group: str, function: str) -> FunctionCall | None:
        """Return the call of a function in a module, as nodes and groups name it."""
        return self.calls.get(f"{group}/{function}") if function else None

    def function(self, node: Node) -> str:
        """Return the user's own function that ran a node, without a number, or ""."""
        function = node.function
        while (call := self.call(node.group, function)) is not None and call.public:
            function = call.function
        return call.name if call is not None else function.partition("#")[0]

    def weight(self, key: str) -> str:
        """Return the weight or buffer that a value is after a change of it, or the value itself."""
        value = self.values[key]
        while value.kind != "gradient" and value.of is not None:
            value = self.values[value.of]
        return value.id if value.kind in ("parameter", "buffer") else key

    def called(self, key: str) -> str:
        """Return the name of a value, or of the function or op that made it, or ""."""
        value = self.values[key]
        node = self.nodes.get(value.producer or "")
        if value.name or node is None:
            return value.name
        name, call = node.op, self.call(node.group, node.function)
        while call is not None and call.public:
            name, call = call.name, self.call(node.group, call.function)
        return name

    def to_json(self) -> str:
        """Return the graph as JSON, with the version of its form."""
        data = _plain(self)
        for value in data["values"].values():  # JSON has no infinity and no NaN
            if value["grad_norm"] is not None and not math.isfinite(value["grad_norm"]):
                value["grad_norm"] = str(value["grad_norm"])
        return json.dumps({"version": VERSION, **data}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Graph:
        """Return the graph that `to_json` wrote; ValueError for anything else."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ValueError(f"not the JSON of a graph: {error}") from error
        found = data.pop("version", None) if isinstance(data, dict) else None
        if found != VERSION:
            raise ValueError(f"not a graph of version {VERSION}: its version is {found!r}")
        try:
            for value in data["values"].values():
                value["shape"], value["dims"] = tuple(value["shape"]), tuple(value["dims"])
                value["grad_norm"] = value["grad_norm"] and float(value["grad_norm"])
                value["data"] = value["data"] and Data.from_plain(value["data"])
            for node in data["nodes"].values():
                if node["origins"]:
                    node["origins"] = Origins(**node["origins"])
                    node["origins"].moved = [unpacked(m) for m in node["origins"].moved]
            tables = {"values": Value, "nodes": Node, "groups": Group, "calls": FunctionCall}
            for table, kind in tables.items():
                data[table] = {key: kind(**entry) for key, entry in data[table].items()}
            data["chapters"] = [_chapter(entry) for entry in data["chapters"]]
            return cls(**data)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the JSON of a graph: {error}") from error


def _chapter(entry: dict[str, Any]) -> Chapter:
    """Return the chapter of its JSON."""
    return Chapter(**{**entry, "inner": [_chapter(inner) for inner in entry["inner"]]})


def _plain(x: Any) -> Any:
    """Return dataclasses and arrays as JSON has them."""
    if isinstance(x, Data):
        return x.to_plain()
    if isinstance(x, np.ndarray):
        return packed(x)
    if dataclasses.is_dataclass(x):
        return {f.name: _plain(getattr(x, f.name)) for f in dataclasses.fields(x)}
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    return [_plain(value) for value in x] if isinstance(x, list | tuple) else x
