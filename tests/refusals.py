"""Calls that may be refused: those of the samples of all ops, of layers and of functions, spoilt.

Each call has one thing wrong or odd: an argument of another type, shape or range, one missing or
one too many. `calls()` yields them, and `outcome` makes one in either library: "fine", or the name
of the exception's class. `python tests/refusals.py [name...]` lists where the two differ.
"""

from __future__ import annotations

import operator
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

import minitensor
from minitensor.core import OPS, Tensor
from minitensor.testing import samples


@dataclass
class Array:
    """A tensor of either library."""

    array: np.ndarray
    grad: bool = False

    def __post_init__(self) -> None:
        self.array = np.asarray(self.array)

    def __repr__(self) -> str:
        return f"{self.array.dtype}{list(self.array.shape)}"


@dataclass
class Type:
    """A type of elements of either library."""

    name: str

    def __repr__(self) -> str:
        return self.name


@dataclass
class Call:
    """A call of `space.name`, such as "nn.functional" and "relu", or of a layer and its result."""

    space: str
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[Any, ...] | None = None  # of a layer
    was: Any = None  # the argument that was right,
    now: Any = None  # and what stands in its place

    def __str__(self) -> str:
        shown = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        name = f"{self.space}.{self.name}({', '.join(shown)})".lstrip(".")
        if self.inputs is not None:
            name += f"({', '.join(map(repr, self.inputs))})"
        return name


def made(value: Any, library: Any) -> Any:
    """Return an argument with tensors and types of the library in it."""
    if isinstance(value, Array):
        t = library.from_numpy(value.array.copy())
        return t.requires_grad_(True) if value.grad else t
    if isinstance(value, Type):
        return getattr(library, value.name)
    if isinstance(value, dict):
        return {key: made(v, library) for key, v in value.items()}
    return type(value)(made(v, library) for v in value) if type(value) in (list, tuple) else value


def outcome(call: Call, library: Any) -> str:
    """Make the call: "fine", or the name of the class of what it raises."""
    place: Any = operator if call.space == "operator" else library
    for part in call.space.split(".") if place is library and call.space else ():
        place = getattr(place, part)
    function = getattr(place, call.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args, kwargs = made(call.args, library), made(call.kwargs, library)
        inputs = made(call.inputs, library)
        try:
            result = function(*args, **kwargs)
            if inputs is not None:
                result(*inputs)
        except Exception as error:
            return type(error).__name__.lstrip("_").replace("LinAlgError", "RuntimeError")
    return "fine"


# PyTorch's process may die of these, on states and step sizes that do not fit.
CRASHING = {"lstm", "gru", "rnn_tanh", "rnn_relu"}

# What may stand in the place of an argument


def spoilt_array(x: Array) -> Iterator[Any]:
    a = x.array
    if a.dtype.kind == "f":
        yield Array(np.abs(np.nan_to_num(a, posinf=1, neginf=1) * 3).astype(np.int64))
        yield Array(a > 0)
        yield Array(a.astype(np.float32 if a.dtype == np.float64 else np.float64))
    else:
        yield Array(a.astype(np.float64))
        yield Array(a > 0 if a.dtype.kind != "b" else a.astype(np.uint8))
        yield Array(a + 99 if a.dtype.kind == "i" else a.astype(np.int64))
    yield Array(a.reshape(-1)[:1].reshape(()) if a.size else np.zeros((), a.dtype))
    yield Array(a[None, None])
    yield Array(np.zeros(0, a.dtype))
    yield Array(np.zeros((2, 0, 3), a.dtype))
    yield Array(np.resize(a, [n + 1 for n in a.shape]))
    yield from (2, 2.5, True, None, "x", [1.0, 2.0])


def spoilt(value: Any) -> Iterator[Any]:
    """Yield what may stand in the place of an argument."""
    if isinstance(value, Array):
        yield from spoilt_array(value)
    elif isinstance(value, bool):
        yield from (None, "x", 2)
    elif isinstance(value, int):
        yield from (99, -99, -1, 0, 1.5, None, "x", True, (0,), (0, 0), Array(np.array(1)))
    elif isinstance(value, float):
        yield from (None, "x", -1.0, float("nan"), 2, True, Array(np.array(0.5)))
    elif isinstance(value, str):
        yield from ("bogus", None, 3)
    elif isinstance(value, Type):
        yield from (None, "float32", 3, Type("bool"), Type("int64"))
    elif value is None:
        yield from ("x", 3, -1.5)
    elif type(value) in (tuple, list) and value and isinstance(value[0], Array):
        kind, first = type(value), value[0]
        yield from (kind(), None, 3, kind([2, 3]), kind([first, None]), kind([first, 2]), first)
        for other in list(spoilt_array(first))[:8]:
            yield kind([first, other])
    elif type(value) in (tuple, list):
        kind = type(value)
        yield from (kind(), kind([99]), kind([-99]), kind([0, 0]), None, "x", 1.5, 3, kind([1.5]))
        yield kind([*value, 1])


def variants(call: Call) -> Iterator[Call]:
    """Yield the call and what can be wrong with it, one thing at a time."""
    space, name, args, kwargs, inputs = call.space, call.name, call.args, call.kwargs, call.inputs
    yield call
    for number, value in enumerate(args):
        for other in spoilt(value):
            if isinstance(other, Array) or space != "Tensor" or number:
                changed = (*args[:number], other, *args[number + 1 :])
                yield Call(space, name, changed, kwargs, inputs, value, other)
    for key, value in kwargs.items():
        for other in spoilt(value):
            yield Call(space, name, args, {**kwargs, key: other}, inputs, value, other)
    for number, value in enumerate(inputs or ()):
        for other in spoilt(value):
            assert inputs is not None
            changed = (*inputs[:number], other, *inputs[number + 1 :])
            yield Call(space, name, args, kwargs, changed, value, other)
    if args:
        yield Call(space, name, args[:-1], kwargs, inputs)
    yield Call(space, name, (*args, 7), kwargs, inputs)
    yield Call(space, name, args, {**kwargs, "bogus": 1}, inputs)


# The calls that are right


def plain(value: Any) -> Any:
    """Return a sample's argument with `Array` and `Type` in it."""
    if isinstance(value, Tensor):
        return Array(np.array(value._array), value.requires_grad)
    if isinstance(value, np.dtype):
        return Type(value.name)
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    return type(value)(plain(v) for v in value) if type(value) in (list, tuple) else value


def without_grad(value: Any) -> Any:
    if isinstance(value, Array):
        return Array(value.array)
    if isinstance(value, dict):
        return {key: without_grad(v) for key, v in value.items()}
    return type(value)(map(without_grad, value)) if type(value) in (list, tuple) else value


def of_ops() -> Iterator[Call]:
    """Yield the first samples of each op, as functions, methods and methods in place."""
    for op in OPS.values():
        if (
            op.torch_name is None
            or op.op_name in CRASHING
            or not op.__module__.startswith("minitensor.")
        ):
            continue
        done: set[str] = set()
        for args, kwargs in samples(op, np.float32):
            kind = ", ".join(f"{type(a)}{getattr(a, 'ndim', '')}" for a in args) + str(kwargs)
            if kind in done or len(done) == 3:
                continue
            done.add(kind)
            given, named = plain(tuple(args)), plain(kwargs)
            for name in (op.op_name, *op.aliases):
                spaces = op.namespaces.split()
                if "torch" in spaces:
                    yield Call("", name, given, named)
                if "functional" in spaces:
                    yield Call("nn.functional", name, given, named)
                if "tensor" in spaces and args and isinstance(args[0], Tensor):
                    yield Call("Tensor", name, given, named)
                    if op.inplace:
                        yield Call("Tensor", f"{name}_", without_grad(given), without_grad(named))


def array(*shape: int) -> Array:
    return Array(np.asarray(np.random.RandomState(0).rand(*shape), np.float32))


def whole(*shape: int, high: int = 3) -> Array:
    return Array(np.asarray(np.random.RandomState(0).randint(0, high, shape or None)))


def mask(*shape: int) -> Array:
    return Array(np.random.RandomState(0).rand(*shape) < 0.5)


def functions() -> Iterator[Call]:
    """Yield calls of functions and methods that are no ops."""
    text = """
    zeros(2, 3) | ones((2, 3)) | empty(2) | full((2, 3), 1.5) | arange(0, 5, 1) | arange(5.0)
    linspace(0, 1, 5) | eye(3, 4) | tensor([1.0, 2.0]) | as_tensor([1, 2]) | zeros_like(A(2, 3))
    full_like(A(2, 3), 2) | ones_like(A(2)) | tril_indices(3, 3) | triu_indices(3, 3, 1)
    scalar_tensor(2.0) | asarray([1.0]) | empty_like(A(2)) | from_numpy(A(2))
    rand(2, 3) | randn(2, 3) | randint(0, 5, (2, 3)) | randint(5, (2,)) | randperm(5)
    normal(A(3), A(3)) | normal(0.0, 1.0, (2, 3)) | bernoulli(A(3)) | multinomial(A(4), 2)
    multinomial(A(2, 4), 3, True) | rand_like(A(2)) | randn_like(A(2)) | randint_like(A(2), 3)
    manual_seed(3) | promote_types(D("int64"), D("float32")) | can_cast(D("int64"), D("float32"))
    result_type(A(2), 1) | set_grad_enabled(True) | finfo(D("float32")) | iinfo(D("int64"))
    is_tensor(A(2)) | numel(A(2)) | is_floating_point(A(2)) | equal(A(2), A(2))
    Tensor.view(A(2, 3), 3, 2) | Tensor.reshape(A(2, 3), 3, 2) | Tensor.size(A(2, 3), 1)
    Tensor.permute(A(2, 3), 1, 0) | Tensor.expand(A(1, 3), 2, 3) | Tensor.repeat(A(2), 2, 2)
    Tensor.item(A()) | Tensor.tolist(A(2)) | Tensor.numpy(A(2)) | Tensor.to(A(2), D("float64"))
    Tensor.type(A(2), D("int64")) | Tensor.fill_(A(2), 3.0) | Tensor.copy_(A(2, 3), A(3))
    Tensor.new_zeros(A(2), 3) | Tensor.new_full(A(2), (2,), 1.0) | Tensor.new_tensor(A(2), [1.0])
    Tensor.uniform_(A(3), 0, 1) | Tensor.normal_(A(3), 0, 1) | Tensor.random_(A(3), 0, 4)
    Tensor.bernoulli_(A(3), 0.5) | Tensor.exponential_(A(3), 1.0) | Tensor.zero_(A(2))
    Tensor.type_as(A(2), I(2)) | Tensor.view_as(A(2, 3), A(3, 2)) | Tensor.expand_as(A(3), A(2, 3))
    Tensor.index_fill_(A(3, 2), 0, I(1), 1.0) | Tensor.masked_fill_(A(3), B(3), 0.0)
    Tensor.scatter_(A(3, 3), 0, I(1, 3), A(1, 3))
    Tensor.scatter_add_(A(3, 3), 0, I(1, 3), A(1, 3))
    Tensor.index_add_(A(3, 2), 0, I(2), A(2, 2)) | Tensor.index_copy_(A(3, 2), 0, I(2), A(2, 2))
    Tensor.fill_diagonal_(A(3, 3), 1.0) | Tensor.requires_grad_(A(2), True) | Tensor.dim(A(2))
    Tensor.contiguous(A(2)) | Tensor.clone(A(2)) | Tensor.detach(A(2)) | Tensor.element_size(A(2))
    Tensor.stride(A(2, 3), 1) | Tensor.unflatten(A(6), 0, (2, 3)) | Tensor.backward(A())
    Tensor.__getitem__(A(3, 2), 1) | Tensor.__getitem__(A(3, 2), I(2))
    Tensor.__getitem__(A(3), B(3))
    Tensor.__setitem__(A(3, 2), 1, A(2)) | Tensor.__setitem__(A(3, 2), I(2), 1.0)
    Tensor.__len__(A(2)) | Tensor.__bool__(A()) | Tensor.__int__(A()) | Tensor.__float__(A())
    Tensor.__index__(I()) | Tensor.__contains__(A(2), 1.0) | Tensor.split(A(5), 2)
    split(A(5), [2, 3])
    nn.functional.one_hot(I(3), 4) | nn.functional.pad(A(2, 3), (1, 1))
    broadcast_shapes((2, 1), (3,))
    nn.functional.scaled_dot_product_attention(A(2, 3, 4), A(2, 3, 4), A(2, 3, 4), B(3, 3), 0.0)
    nn.functional.scaled_dot_product_attention(A(2, 3, 4), A(2, 3, 4), A(2, 3, 4), None, 0.0, True)
    nn.functional.scaled_dot_product_attention(A(2, 3, 4), A(2, 3, 4), A(2, 3, 4), B(3, 3), 0, True)
    nn.functional.cross_entropy(A(3, 4), I(3)) | nn.functional.nll_loss(A(3, 4), I(3))
    nn.functional.cross_entropy(A(3, 4), A(3, 4), A(4)) | nn.functional.embedding(I(3), A(4, 2))
    nn.functional.layer_norm(A(2, 3), (3,), A(3), A(3))
    nn.functional.linear(A(2, 3), A(4, 3), A(4))
    nn.functional.dropout(A(3), 0.5, True, False) | nn.functional.gumbel_softmax(A(3, 4), 1.0)
    nn.functional.kl_div(A(2, 3), A(2, 3)) | nn.functional.mse_loss(A(2, 3), A(2, 3))
    nn.functional.binary_cross_entropy(A(3), A(3))
    nn.functional.cosine_similarity(A(2, 3), A(2, 3))
    nn.functional.binary_cross_entropy_with_logits(A(3), A(3)) | nn.functional.normalize(A(2, 3))
    nn.init.uniform_(A(3), 0.0, 1.0) | nn.init.normal_(A(3)) | nn.init.constant_(A(3), 1.0)
    nn.init.xavier_uniform_(A(3, 2)) | nn.init.kaiming_normal_(A(3, 2)) | nn.init.eye_(A(3, 2))
    nn.init.orthogonal_(A(3, 2)) | nn.init.trunc_normal_(A(3)) | nn.init.sparse_(A(3, 2), 0.5)
    nn.init.calculate_gain("relu") | nn.init.zeros_(A(3)) | nn.init.ones_(A(3))
    nn.init.dirac_(A(3, 2, 2))
    nn.utils.clip_grad_norm_([A(3)], 1.0) | nn.utils.clip_grad_value_([A(3)], 1.0)
    nn.utils.parameters_to_vector([A(3), A(2, 2)]) | nn.utils.vector_to_parameters(A(3), [A(3)])
    nn.utils.rnn.pad_sequence([A(3), A(2)]) | nn.utils.rnn.pack_padded_sequence(A(3, 2), I(2), True)
    nn.Parameter(A(3)) | hstack([A(2), A(3)]) | stack([A(2), A(2)]) | cat([A(2), A(2)], 0)
    vstack([A(2), A(2)]) | dstack([A(2), A(2)]) | meshgrid(A(2), A(3))
    einsum("ij,jk", A(2, 3), A(3, 2))
    """
    names: dict[str, Any] = dict(A=array, I=whole, B=mask, D=Type)

    def recorded(name: str) -> Any:
        space, _, last = name.rpartition(".")
        return lambda *args, **kwargs: Call(space, last, args, kwargs)

    for source in (part.strip() for line in text.splitlines() for part in line.split("|")):
        if source:
            name = source[: source.index("(")]
            yield eval("made" + source[len(name) :], {**names, "made": recorded(name)})
    arithmetic = "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"
    bits = "and_", "or_", "xor", "lshift", "rshift"
    for name in (*arithmetic, *bits, "lt", "le", "gt", "ge", "eq", "ne"):
        yield Call("operator", name, (array(3), array(3)))
        yield Call("operator", name, (whole(3), whole(3)))
        yield Call("operator", name, (whole(3), 2))
        yield Call("operator", name, (2, whole(3)))
        if name in (*arithmetic, *bits):
            yield Call("operator", f"i{name.rstrip('_')}", (whole(3), 2))
    for name in ("neg", "pos", "invert", "abs", "index"):
        yield Call("operator", name, (array(3),))
        yield Call("operator", name, (mask(3),))


def layers() -> Iterator[Call]:
    """Yield layers with an input each."""
    x = array(2, 3, 4)
    attention = (x, x, x)
    table: list[tuple[str, tuple[Any, ...], tuple[Any, ...]]] = [
        ("Linear", (4, 5), (x,)),
        ("Bilinear", (4, 4, 2), (x, x)),
        ("Embedding", (5, 3, 0), (whole(2, 3),)),
        ("LayerNorm", (4,), (x,)),
        ("LayerNorm", ((3, 4), 1e-5, True), (x,)),
        ("RMSNorm", (4,), (x,)),
        ("BatchNorm1d", (3,), (x,)),
        ("Dropout", (0.5,), (x,)),
        ("MultiheadAttention", (4, 2), attention),
        ("MultiheadAttention", (4, 2, 0.1, True, False, False, None, None, True), attention),
        ("TransformerEncoderLayer", (4, 2, 8), (x,)),
        ("TransformerDecoderLayer", (4, 2, 8), (x, x)),
        ("Transformer", (4, 2, 1, 1, 8), (x, x)),
        ("RNN", (4, 5), (x,)),
        ("LSTM", (4, 5, 1), (x,)),
        ("GRU", (4, 5, 2), (x,)),
        ("RNNCell", (4, 5), (array(2, 4),)),
        ("LSTMCell", (4, 5), (array(2, 4),)),
        ("GRUCell", (4, 5), (array(2, 4),)),
        ("Softmax", (-1,), (x,)),
        ("LogSoftmax", (1,), (x,)),
        ("Flatten", (1, -1), (x,)),
        ("Unflatten", (2, (2, 2)), (x,)),
        ("PReLU", (3,), (x,)),
        ("CosineSimilarity", (1,), (x, x)),
        ("CrossEntropyLoss", (), (array(3, 4), whole(3))),
        ("CrossEntropyLoss", (array(4), None, 1, None, "sum", 0.1), (array(3, 4), whole(3))),
        ("NLLLoss", (), (array(3, 4), whole(3))),
        ("MSELoss", (), (x, x)),
        ("L1Loss", (None, None, "sum"), (x, x)),
        ("SmoothL1Loss", (), (x, x)),
        ("HuberLoss", ("mean", 1.0), (x, x)),
        ("BCELoss", (), (x, x)),
        ("BCEWithLogitsLoss", (), (x, x)),
        ("KLDivLoss", (), (x, x)),
        ("Identity", (), (x,)),
    ]
    simple = "ReLU", "GELU", "SiLU", "Tanh", "Sigmoid", "ELU", "LeakyReLU", "GLU"
    table += [(name, (), (x,)) for name in simple]
    for name, args, inputs in table:
        yield Call("nn", name, args, {}, inputs)


def shared(call: Call) -> bool:
    """Return True if both libraries have what is called."""
    for library in (minitensor, import_module("torch")):
        place: Any = operator if call.space == "operator" else library
        for part in call.space.split(".") if place is library and call.space else ():
            place = getattr(place, part, None)
        if not hasattr(place, call.name):
            return False
    return True


def calls(*names: str) -> Iterator[Call]:
    """Yield the calls that are right, and those with one thing wrong; of these names, or all."""
    for right in (*of_ops(), *functions(), *layers()):
        if (not names or right.name in names) and shared(right):
            yield from variants(right)


def purpose(call: Call, ours: str, theirs: str) -> str:
    """Return the reason for which the outcomes differ on purpose, "" if there is none."""
    if (ours, theirs) == ("TypeError", "AttributeError"):
        return "PyTorch's Python code looks up an attribute of what is no tensor"
    if theirs == "TypeError" and isinstance(call.was, bool):
        return "any truth value is a bool"
    if theirs == "TypeError" and isinstance(call.now, bool):
        return "True is the number 1"
    if theirs == "TypeError" and ours != "fine":
        return "PyTorch looks at the types of all arguments before their values"
    if call.space == "Tensor" and call.name.endswith("_") and {ours, theirs} <= REFUSED:
        return "in place, the result is refused after the arguments"
    if {ours, theirs} <= {"RuntimeError", "NotImplementedError"}:
        return "a NotImplementedError is a RuntimeError"
    return ""


REFUSED = {"RuntimeError", "TypeError", "ValueError", "IndexError", "NotImplementedError"}


def differences(*names: str) -> Iterator[tuple[Call, str, str]]:
    """Yield the calls whose outcome differs without a purpose: the call, ours and PyTorch's."""
    torch = import_module("torch")
    for call in calls(*names):
        ours, theirs = outcome(call, minitensor), outcome(call, torch)
        if ours != theirs and not purpose(call, ours, theirs):
            yield call, ours, theirs


def main() -> None:
    """List the differences."""
    for call, ours, theirs in differences(*sys.argv[1:]):
        print(f"{ours:20} {theirs:20} {call}")


if __name__ == "__main__":
    main()
