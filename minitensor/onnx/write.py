"""A recorded program as an ONNX model: the nodes that its outputs need, checked by onnx."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..recording import Call, Ref, refs
from .axes import Axes
from .constants import emit_constant
from .emit import Emitter, Tensor
from .runs import Merged
from .sizes import Varying
from .translate import REFUSED, TRANSLATIONS
from .translate import elementwise as elementwise_ops

ON_PACKED = {"Linear", "Cat", "Embedding", "LayerNorm", "LstmLayer", "GruLayer", "RnnLayer", "Pad"}


def model_of(program: Merged, axes: Axes, names: list[str], opset: int, title: str) -> Any:
    """Return the ModelProto of a program. RuntimeError for an op that has no translation."""
    import onnx
    from onnx import helper

    writer = Writer(program, axes, opset)
    outputs = writer.outputs(names)
    inputs = [writer.info(program.values[n].name, n) for n in program.inputs]
    graph = helper.make_graph(
        writer.g.nodes, title, inputs, outputs, writer.g.initializers, value_info=writer.infos
    )
    opsets = [helper.make_opsetid("", opset)]
    made = helper.make_model(
        graph, opset_imports=opsets, producer_name="minitensor",
        ir_version=helper.find_min_ir_version_for(opsets),
    )  # fmt: skip
    if made.ByteSize() < 2**31:  # a larger one can only be checked as a file
        onnx.checker.check_model(made, full_check=True)
    return made


class Writer:
    """Translates the calls of a program, those that an output needs."""

    def __init__(self, program: Merged, axes: Axes, opset: int) -> None:
        self.program, self.solver = program, program.solver
        self.g = Emitter(opset)
        self._infos: dict[str, Any] = {}
        self._constants: dict[Any, Tensor] = {}  # by their numbers in all runs
        self._made: dict[int, Tensor] = {}
        for number in program.inputs:
            value = program.values[number]
            self._made[number] = Tensor(self.g.unique(value.name), value.shape, value.dtype)
            for axis, called in axes.names.get(value.name, {}).items():
                self.g.axes.setdefault(called, (value.name, axis))
        self._needed = self._reached()
        for call in program.calls:
            if self._needed.intersection(call.outs):
                self._translate(call)

    def _reached(self) -> set[int]:
        """Return the values that the outputs need."""
        needed = set(self.program.outputs)
        for call in reversed(self.program.calls):
            if needed.intersection(call.outs):
                needed.update(refs((call.args, call.kwargs)))
        return needed

    # Calls

    def _translate(self, call: Call) -> None:
        g = self.g
        g.call = call
        values = [self.program.values[n] for n in call.outs]
        g.outs = [Tensor("", v.shape, v.dtype) for v in values]
        args, kwargs = self._given(call.args), self._given(call.kwargs)
        translation = TRANSLATIONS.get(call.op)
        if translation is None:
            reason = REFUSED.get(call.op, "minitensor.onnx has no translation of this op yet")
            raise g.error(reason)
        lengths = next((x.lengths for x in args if isinstance(x, Tensor) and x.lengths), "")
        if lengths and call.op != "Pad":
            if call.op not in ON_PACKED and not _is_elementwise(call.op):
                raise g.error(
                    "it cannot be exported on the data of a packed sequence: pad it first"
                )
            for out in g.outs[:1] if call.op.endswith("Layer") else g.outs:
                out.lengths, out.shape = lengths, (Varying(()), *out.shape)
        made = translation(g, *args, **kwargs)
        for number, out, name in zip(
            call.outs, g.outs, [made] if isinstance(made, str) else made, strict=False
        ):
            out.name = name
            if call.op == "Pack":
                out.shape = (Varying(()), *out.shape)
            self._made[number] = out
            self._describe(out)

    def _describe(self, out: Tensor) -> None:
        """Add the shape and type of a result, for readers."""
        if not out.lengths and all(not isinstance(n, Varying) for n in out.shape):
            self._infos[out.name] = _info(out.name, out)

    @property
    def infos(self) -> list[Any]:
        """The shapes and types of results of nodes."""
        made = {name for node in self.g.nodes for name in node.output}
        ends = {self.program.values[n].name for n in self.program.inputs}
        return [i for name, i in self._infos.items() if name in made and name not in ends]

    def _given(self, x: Any) -> Any:
        """Return arguments with tensors of the file in place of the references."""
        if isinstance(x, Ref):
            return self.tensor(x.number)
        if isinstance(x, tuple):
            return tuple(self._given(each) for each in x)
        if isinstance(x, dict):
            return {key: self._given(each) for key, each in x.items()}
        return x

    def tensor(self, number: int) -> Tensor:
        """Return a value as a tensor of the file; RuntimeError for what cannot be in one."""
        if number in self._made:
            return self._made[number]
        value, arrays = self.program.values[number], self.program.arrays[number]
        given = [a for a in arrays if a is not None]
        if len(given) < len(arrays):
            raise self.g.error("it reads a tensor that no exported op made")
        found = Tensor("", value.shape, value.dtype, given[0])
        if value.kind == "weight":
            found.name = self.g.initializer(value.name, given[0])
        else:
            found = self._constant(found, given)
        if not found.name:
            raise self.g.error(self._unknown(number))
        self._made[number] = found
        return found

    def _constant(self, found: Tensor, given: list[np.ndarray]) -> Tensor:
        """Return a constant, one for all that have the same numbers in all runs."""
        key = tuple((a.dtype, a.shape, a.tobytes()) for a in given)
        if key not in self._constants:
            before, self.g.call = self.g.call, Call("", (), {}, [], "constants", "")
            found.name = emit_constant(self.g, given, found.shape, self.solver)
            self.g.call, self._constants[key] = before, found
        return self._constants[key]

    def _unknown(self, number: int) -> str:
        value = self.program.values[number]
        shapes = dict.fromkeys(str(a.shape) for a in self.program.arrays[number] if a is not None)
        return (
            f"it reads a tensor of shape {' or '.join(shapes)} that no op made, first read at "
            f"{value.line}, whose numbers differ between runs in a way that is not known: they "
            "follow from sizes, from the inputs by way of Python or NumPy, or from a random "
            "generator. Compute it by ops from the inputs, make it a buffer, or let the axes it "
            "follows from keep their sizes"
        )

    # Outputs

    def outputs(self, names: list[str]) -> list[Any]:
        """Give the outputs their names, and return what the file says of them."""
        from onnx import helper

        taken = {self.program.values[n].name for n in self.program.inputs}
        made = {name for node in self.g.nodes for name in node.output}
        renamed: dict[str, str] = {}
        for name, number in zip(names, self.program.outputs, strict=True):
            if name in taken:
                raise ValueError(f"export: {name!r} is the name of an input or another output")
            taken.add(name)
            if self.tensor(number).lengths:
                raise RuntimeError(
                    f"export: {name!r} is a packed sequence, which a file has none of: return what "
                    "pad_packed_sequence makes of it"
                )
            source = self.tensor(number).name
            if source in made and source not in renamed:
                renamed[source] = name
            else:  # an input, a weight, or an output already
                node = helper.make_node("Identity", [source], [name], name=f"outputs/{name}")
                self.g.nodes.append(node)
        for node in self.g.nodes:
            for ends in (node.input, node.output):
                ends[:] = [renamed.get(end, end) for end in ends]
        return [self.info(*each) for each in zip(names, self.program.outputs, strict=True)]

    def info(self, name: str, number: int) -> Any:
        """Return what the file says of an input or output: its type, and names of its axes."""
        value = self.program.values[number]
        return _info(name, Tensor(name, value.shape, value.dtype))


def _info(name: str, t: Tensor) -> Any:
    from onnx import helper

    shape = [n if isinstance(n, int) else None if isinstance(n, Varying) else str(n)
             for n in t.shape]  # fmt: skip
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(t.dtype), shape)


def _is_elementwise(op: str) -> bool:
    return TRANSLATIONS[op].__module__ == elementwise_ops.__name__
