"""The file under construction: nodes, constants and sizes, with readable names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dtype import promote_types
from ..recording import Call
from .sizes import Number, Size, Varying

INT64_MAX = 2**63 - 1


def is_float(dtype: Any) -> bool:
    """Return True for a floating type, also one that NumPy has from another package."""
    return dtype.kind not in "biu"


@dataclass
class Tensor:
    """A tensor as translations see it. Axes have a number, a formula, or `Varying`."""

    name: str
    shape: tuple[Any, ...]
    dtype: Any
    array: np.ndarray | None = None  # of a constant that is the same at all sizes
    lengths: str = ""  # of a packed sequence, kept padded (S, N, *): the name of its lengths

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)


class Emitter:
    """Collects what a file consists of; translations call its methods."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.axes: dict[str, tuple[str, int]] = {}  # names of sizes: an input and its axis
        self.call = Call("", (), {}, [], "", "")  # the one that is being translated
        self.outs: list[Tensor] = []  # its results, without their names
        self._names: Counter[str] = Counter()
        self._shared: dict[Any, str] = {}  # constants and sizes, which are made once

    # Names

    def unique(self, name: str) -> str:
        """Return the name, with a number at the end if it is taken."""
        count = self._names[name]
        self._names[name] += 1
        return self.unique(f"{name}_{count}") if count else name

    def error(self, message: str) -> RuntimeError:
        """Return an error about the call that is being translated."""
        where = "".join([
            f" in {self.call.path}" if self.call.path else "",
            f" at {self.call.line}" if self.call.line else "",
        ])  # fmt: skip
        return RuntimeError(f"export: {_snake(self.call.op) or 'a result'}{where}: {message}")

    # Nodes

    def op(
        self, kind: str, *inputs: Any, outputs: int = 1, name: str = "", **attributes: Any
    ) -> Any:
        """Add a node and return the name of its output, or a list of several names.

        An input is a Tensor, a name, or None for one that is left out.
        """
        from onnx import helper

        names = [self.name(x) for x in inputs]
        while names and not names[-1]:
            names.pop()
        name = self.unique(f"{self.call.path}/{name or kind}".lstrip("/"))
        made = [name if not i else f"{name}:{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, made, name=name, **attributes))
        return made[0] if outputs == 1 else made

    @staticmethod
    def name(x: Any) -> str:
        """Return the name of an input of a node."""
        return "" if x is None else x if isinstance(x, str) else x.name

    def initializer(self, name: str, array: np.ndarray) -> str:
        """Add a tensor that is kept in the file, and return its name."""
        from onnx import numpy_helper

        name = self.unique(name)
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(
            array.shape), name))  # fmt: skip
        return name

    def constant(self, x: Any, dtype: Any = np.int64) -> str:
        """Return the name of a constant: a number, or a list of them."""
        array = np.asarray(x, dtype)
        key = array.dtype, array.shape, array.tobytes()
        if key not in self._shared:
            text = ",".join(map(str, array.ravel()[:9]))
            if array.ndim:
                text = f"[{text}]" if array.size < 9 else "x".join(map(str, array.shape))
            self._shared[key] = self.initializer(f"constants/{array.dtype}/{text}", array)
        return self._shared[key]

    def cast(self, x: Any, dtype: Any, given: Any = None) -> str:
        """Return x in a type; `given` is the type of x if x is a name."""
        from onnx import helper

        given = x.dtype if isinstance(x, Tensor) else given
        if given == dtype:
            return self.name(x)
        return self.op("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def operand(self, x: Any, dtype: Any) -> str:
        """Return a tensor, or a number, which may follow from sizes, as a tensor of a type."""
        if isinstance(x, Tensor):
            return self.cast(x, dtype)
        return self.scalar(x, dtype)

    def common(self, *operands: Any) -> Any:
        """Return the type in which an op on tensors and numbers computes."""
        types = [x.dtype for x in operands if isinstance(x, Tensor)]
        dtype = types[0]
        for other in types[1:]:
            dtype = promote_types(dtype, other)
        if not is_float(dtype) and any(isinstance(x, float | Number) for x in operands):
            return np.dtype(np.float32)
        if dtype.kind == "b" and any(type(x) is int for x in operands):
            return np.dtype(np.int64)
        return dtype

    # Sizes

    def size(self, n: Any) -> str:
        """Return a size, a number or a formula, as an int64 tensor of one element."""
        if isinstance(n, int):
            return self.constant([n])
        if not isinstance(n, Size):
            seen = n.values if isinstance(n, Varying) else n
            raise self.error(
                f"a size was {', '.join(map(str, seen))} in runs at different sizes of the inputs, "
                "which is no formula of the names given: name all axes that it follows from, or "
                "let those that it follows from keep their size"
            )
        if n not in self._shared:
            before, self.call = self.call, Call("", (), {}, [], "sizes", "")
            self._shared[n] = self._formula(n)
            self.call = before
        return self._shared[n]

    def _formula(self, n: Size) -> str:
        """Compute a formula from the shapes of inputs."""
        if n.divisor == 1 and len(n.terms) == 1 and n.terms[0][0] == 1 and len(n.terms[0][1]) == 1:
            (name,) = n.terms[0][1]
            source, axis = self.axes[name]
            return self.op("Shape", source, name=name, start=axis, end=axis + 1)
        total = ""
        for factor, names in n.terms:
            parts = [self.size(Size(((1, (name,)),))) for name in names]
            parts += [self.constant([factor])] if factor != 1 or not names else []
            term = parts[0]
            for part in parts[1:]:
                term = self.op("Mul", term, part)
            total = self.op("Add", total, term) if total else term
        return total if n.divisor == 1 else self.op("Div", total, self.constant([n.divisor]))

    def sizes(self, items: Sequence[Any]) -> str:
        """Return sizes as an int64 vector."""
        if all(isinstance(n, int) for n in items):
            return self.constant(list(items))
        key = tuple(items)
        if key not in self._shared:
            parts = [self.size(n) for n in items]
            before, self.call = self.call, Call("", (), {}, [], "sizes", self.call.line)
            self._shared[key] = self.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]
            self.call = before
        return self._shared[key]

    def scalar(self, n: Any, dtype: Any = np.int64) -> str:
        """Return a number, or a formula, as a 0-dim tensor."""
        if isinstance(n, Varying):
            self.size(n)  # raises
        if isinstance(n, Number):
            size = self.scalar(n.size, dtype)
            power = self.op("Pow", size, self.constant(n.power, dtype)) if n.power != 1 else size
            return self.op("Mul", power, self.constant(n.factor, dtype))
        if not isinstance(n, Size):
            return self.constant(n, dtype)
        return self.cast(self.op("Squeeze", self.size(n), self.constant([0])), dtype, np.int64)

    def shape(self, x: Tensor) -> str:
        """Return the shape of a tensor as an int64 vector."""
        known = not any(isinstance(n, Varying) for n in x.shape)
        return self.sizes(x.shape) if known else self.op("Shape", x)

    # What several translations need

    def reshape(self, x: Any, shape: Sequence[Any], given: Sequence[Any] = ()) -> str:
        """Return x reshaped; `given` is its shape, from which equal axes are copied."""
        wanted = list(shape)
        if 0 in wanted:
            return self.op("Reshape", x, self.sizes(wanted), allowzero=1)
        unknown = [i for i, n in enumerate(wanted) if not isinstance(n, int)]
        copies = [i for i in unknown if i < len(given) and given[i] == wanted[i]]
        others = [i for i in unknown if i not in copies]
        if len(others) == 1:
            wanted[others[0]] = -1
        elif others and len(unknown) == 1:
            wanted[unknown[0]] = -1
        for i in copies:
            wanted[i] = 0
        return self.op("Reshape", x, self.sizes(wanted))

    def squeeze(self, x: Any, *axes: int) -> str:
        """Return x without axes of size 1."""
        return self.op("Squeeze", x, self.constant(axes)) if axes else self.name(x)

    def unsqueeze(self, x: Any, *axes: int) -> str:
        """Return x with more axes of size 1."""
        return self.op("Unsqueeze", x, self.constant(axes)) if axes else self.name(x)

    def transpose(self, x: Any, order: Sequence[int]) -> str:
        """Return x with its axes in another order."""
        if list(order) == list(range(len(order))):
            return self.name(x)
        return self.op("Transpose", x, perm=list(order))

    def slice(self, x: Any, axis: int, start: Any, stop: Any, step: int = 1) -> str:
        """Return x[start:stop:step] along an axis; None for an end."""
        begins = self.sizes([0 if start is None else start])
        ends = self.sizes([INT64_MAX if stop is None else stop])
        steps = [self.constant([step])] if step != 1 else []
        return self.op("Slice", x, begins, ends, self.constant([axis]), *steps)

    def range(self, count: Any) -> str:
        """Return 0, 1, ..., count - 1 in int64."""
        if isinstance(count, int):
            return self.constant(np.arange(count))
        key = "range", count
        if key not in self._shared:
            ends = self.constant(0), self.scalar(count), self.constant(1)
            self._shared[key] = self.op("Range", *ends)
        return self._shared[key]


def _snake(name: str) -> str:
    from ..core import OPS

    return OPS[name].op_name if name in OPS else name
