"""Topic `ops`: the cost of small calls, and large kernels at the sizes of a transformer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitensor.core import OPS, Op
from minitensor.testing import leaves, oracle, samples, to_torch

from .measure import HERE, Figure, Sides, compared, geometric_mean, library
from .plan import Plan

Call = Callable[[], Any]


def measure_ops(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure every op on a small sample, forward and recorded; modules; then large kernels."""
    against = [side for side in against if side == "torch"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about deprecated names and strange samples
        yield from measure_small_calls(plan, against)
        yield from measure_kernels(plan, against)


# Small calls


def measure_small_calls(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure the cost of a call of each op, the worst ratio first."""
    figures = []
    for name in plan.small_ops or sorted(OPS):
        sides = small_call(OPS[name], against)
        if sides is not None:
            figures.append(compared(plan, "ops", name, sides, small=True, target=0.3))
    figures.sort(key=lambda figure: figure.ratio or 0.0)
    yield from figures
    yield from geometric_mean("ops", figures, 1.0, f"geometric mean of {len(figures)} small ops")
    yield compared(
        plan, "ops", "add of 8 numbers", every(against, add), small=True,
        target=1.0,
    )  # fmt: skip
    yield compared(
        plan, "ops", "a loss chain of scalars", every(against, scalar_chain), small=True,
        target=1.0,
    )  # fmt: skip
    modules = [
        compared(plan, "ops", f"module {name}", every(against, make), small=True, target=1.0)
        for name, make in MODULES.items()
    ]
    yield from modules
    yield from geometric_mean("ops", modules, 1.0, "geometric mean of the small modules")


def small_call(op: type[Op], against: Sequence[str]) -> Sides | None:
    """Return calls of the first sample that runs on all sides, preferably a recorded one."""
    cases = samples(op, np.float32)
    cases.sort(key=lambda case: not any(t.requires_grad for t in leaves(list(case))))
    for args, kwargs in cases:
        sides: Sides = {HERE: bind(op.call, args, kwargs)}
        if "torch" in against:
            theirs = oracle(op)
            if theirs is None:
                return None
            sides["torch"] = bind(theirs, to_torch(args), to_torch(kwargs))
        try:
            for call in sides.values():
                call()
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
            continue
        return sides
    return None


def bind(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Call:
    """Return the call with these arguments."""
    return lambda: function(*args, **kwargs)


def every(against: Sequence[str], make: Callable[[Any], Call]) -> Sides:
    """Return `make(library)` for each side with PyTorch's names."""
    return {side: make(library(side)) for side in (HERE, *against)}


def add(lib: Any) -> Call:
    """Return a recorded x + y of 8 numbers each."""
    x, y = lib.ones(8, requires_grad=True), lib.ones(8, requires_grad=True)
    return lambda: x + y


def scalar_chain(lib: Any) -> Call:
    """Return a loss of an MLP written number by number, as micrograd has it, both ways.

    The MLP has 2, 16, 16 and 1 units. Each weight and each activation is a tensor of its own, so
    that two points make some 1,300 ops.
    """
    numbers = iter(np.random.RandomState(0).uniform(-1, 1, 337).tolist())

    def neuron(inputs: int) -> list[Any]:
        return [lib.tensor(next(numbers), requires_grad=True) for _ in range(inputs + 1)]

    layers = [[neuron(n) for _ in range(m)] for n, m in ((2, 16), (16, 16), (16, 1))]
    points = [([lib.tensor(a), lib.tensor(b)], y) for a, b, y in ((0.5, -1.0, 1), (-0.3, 0.8, -1))]

    def call() -> None:
        loss = 0.0
        for x, y in points:
            for layer in layers:
                x = [sum((w * v for w, v in zip(ws, x, strict=True)), b).tanh() for *ws, b in layer]
            loss = loss + (x[0] - y) ** 2
        loss.backward()  # type: ignore[attr-defined]

    return call


def module_call(make: Callable[[Any], Any], *inputs: Any) -> Callable[[Any], Call]:
    """Return a function that builds the call of a module, by default on an input (2, 3, 8)."""

    def build(lib: Any) -> Call:
        module = make(lib.nn)
        given = [lib.tensor(x) for x in inputs] or [lib.ones(2, 3, 8)]
        return lambda: module(*given)

    return build


def attention(nn: Any) -> Any:
    """Return self-attention of 2 heads."""
    module = nn.MultiheadAttention(8, 2, batch_first=True)
    return lambda x: module(x, x, x, need_weights=False)


MODULES = {
    "Linear": module_call(lambda nn: nn.Linear(8, 8)),
    "LayerNorm": module_call(lambda nn: nn.LayerNorm(8)),
    "RMSNorm": module_call(lambda nn: nn.RMSNorm(8)),
    "Dropout": module_call(lambda nn: nn.Dropout(0.1)),
    "GELU": module_call(lambda nn: nn.GELU()),
    "Embedding": module_call(lambda nn: nn.Embedding(10, 8), [[1, 2, 3], [4, 5, 6]]),
    "Sequential, an MLP": module_call(
        lambda nn: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    ),
    "CrossEntropyLoss": module_call(
        lambda nn: nn.CrossEntropyLoss(), [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], [0, 2]
    ),
    "MultiheadAttention": module_call(attention),
    "TransformerEncoderLayer": module_call(
        lambda nn: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    ),
}


# Large kernels


@dataclass(frozen=True)
class Kernel:
    """A function of an array, its operations per element, and the arrays it reads or writes.

    Both are given for the forward and for the backward pass. An exponential, a root or a random
    number counts as one operation.
    """

    name: str
    shape: tuple[int, ...]
    call: Callable[[Any, Any], Any]  # of the functional module and the array
    flops: tuple[int, int]
    arrays: tuple[int, int] = (2, 3)


def kernels(plan: Plan) -> list[Kernel]:
    """Return the kernels, at the sizes of the largest training step."""
    step = plan.steps[-1]
    scores = (step.batch, step.heads, step.length, step.length)
    logits = (step.tokens, step.vocabulary)
    model, hidden = (step.tokens, step.d_model), (step.tokens, step.feedforward)
    width = step.d_model
    return [
        Kernel("softmax", scores, lambda F, x: F.softmax(x, -1), (5, 4)),
        Kernel("softmax of logits", logits, lambda F, x: F.softmax(x, -1), (5, 4)),
        Kernel("log_softmax", logits, lambda F, x: F.log_softmax(x, -1), (5, 4)),
        Kernel("layer_norm", model, lambda F, x: F.layer_norm(x, (width,)), (8, 10)),
        Kernel("dropout", hidden, lambda F, x: F.dropout(x, 0.1), (2, 2), (2, 2)),
        Kernel("gelu", hidden, lambda F, x: F.gelu(x), (5, 8)),
        Kernel("relu", hidden, lambda F, x: F.relu(x), (1, 1)),
        Kernel("silu", hidden, lambda F, x: F.silu(x), (4, 6)),
        Kernel("tanh", hidden, lambda F, x: F.tanh(x), (1, 3)),
    ]


def measure_kernels(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure forward and backward of the kernels; loss, embedding and update as they are used."""
    for kernel in kernels(plan):
        count = int(np.prod(kernel.shape))
        for number, part in enumerate(("forward", "backward")):

            def make(lib: Any, kernel: Kernel = kernel, part: str = part) -> Call:
                return kernel_call(lib, kernel, part)

            yield compared(
                plan, "ops", f"{kernel.name} {part} {shown(kernel.shape)}", every(against, make),
                flops=count * kernel.flops[number], bytes=4 * count * kernel.arrays[number],
                target=1.0, label=f"{kernel.name}{'′' * number}" if " " not in kernel.name else "",
            )  # fmt: skip
    step = plan.steps[-1]
    tokens, vocabulary, width = step.tokens, step.vocabulary, step.d_model
    yield compared(
        plan, "ops", f"cross_entropy, both ways {shown((tokens, vocabulary))}",
        every(against, lambda lib: loss_call(lib, tokens, vocabulary)),
        flops=9 * tokens * vocabulary, bytes=4 * 2 * tokens * vocabulary,
        target=1.0, label="cross_entropy",
    )  # fmt: skip
    yield compared(
        plan, "ops", f"embedding, both ways {shown((tokens, vocabulary, width))}",
        every(against, lambda lib: embedding_call(lib, tokens, vocabulary, width)),
        flops=tokens * width, bytes=4 * width * (5 * tokens + vocabulary),
        target=1.0, label="embedding",
    )  # fmt: skip
    shapes = [(step.feedforward, width)] * 4 * step.layers
    count = sum(rows * cols for rows, cols in shapes)
    for name, flops, arrays, update in UPDATES:
        yield compared(
            plan, "ops", f"{name} {count / 1e6:.1f} M parameters",
            every(against, lambda lib, update=update: update(lib, parameters(lib, shapes))),
            flops=flops * count, bytes=4 * arrays * count,
            target=1.0, label=name.split()[0] if flops else "",
        )  # fmt: skip


def shown(shape: Sequence[int]) -> str:
    """Format a shape in few characters."""
    return "x".join(map(str, shape))


def normal(lib: Any, *shape: int) -> Any:
    """Return normal numbers that require grad, the same on all sides."""
    numbers = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
    return lib.from_numpy(numbers).requires_grad_()


def kernel_call(lib: Any, kernel: Kernel, part: str) -> Call:
    """Return a call of the recorded forward pass, or of the backward pass alone."""
    F, x = lib.nn.functional, normal(lib, *kernel.shape)
    if part == "forward":
        return lambda: kernel.call(F, x)
    y, dy = kernel.call(F, x), normal(lib, *kernel.shape).detach()
    return lambda: lib.autograd.grad(y, [x], dy, retain_graph=True)


def loss_call(lib: Any, tokens: int, vocabulary: int) -> Call:
    """Return a call of cross entropy with label smoothing, forward and backward."""
    F, x = lib.nn.functional, normal(lib, tokens, vocabulary)
    target = lib.from_numpy(np.random.RandomState(0).randint(0, vocabulary, tokens))

    def call() -> None:
        lib.autograd.grad(F.cross_entropy(x, target, label_smoothing=0.1), [x])

    return call


def embedding_call(lib: Any, tokens: int, vocabulary: int, width: int) -> Call:
    """Return a call of an embedding lookup, forward and backward."""
    F, table = lib.nn.functional, normal(lib, vocabulary, width)
    chosen = lib.from_numpy(np.random.RandomState(0).randint(0, vocabulary, tokens))
    dy = normal(lib, tokens, width).detach()

    def call() -> None:
        lib.autograd.grad(F.embedding(chosen, table), [table], dy)

    return call


def parameters(lib: Any, shapes: Sequence[tuple[int, int]]) -> list[Any]:
    """Return parameters with gradients."""
    made = [lib.nn.Parameter(normal(lib, *shape).detach()) for shape in shapes]
    for parameter in made:
        parameter.grad = normal(lib, *parameter.shape).detach()
    return made


def clip_call(lib: Any, made: list[Any]) -> Call:
    """Return a call that clips the norm of all gradients."""
    return lambda: lib.nn.utils.clip_grad_norm_(made, 1.0)


def zero_call(lib: Any, made: list[Any]) -> Call:
    """Return a call that sets all gradients to zeros in place."""
    optimizer = lib.optim.SGD(made)
    return lambda: optimizer.zero_grad(set_to_none=False)


# What passes over all parameters: operations per parameter, arrays read or written, and the call.
# PyTorch's steps are the fused ones, which are faster than its defaults.
UPDATES: list[tuple[str, int, int, Callable[[Any, list[Any]], Call]]] = [
    ("Adam step", 12, 7, lambda lib, made: lib.optim.Adam(made, lr=1e-4, fused=True).step),
    ("SGD step", 2, 3, lambda lib, made: lib.optim.SGD(made, lr=1e-4, fused=True).step),
    (
        "SGD(momentum) step", 4, 5,
        lambda lib, made: lib.optim.SGD(made, lr=1e-4, momentum=0.9, fused=True).step,
    ),
    ("clip_grad_norm_", 3, 3, clip_call),
    ("zero_grad", 0, 1, zero_call),
]  # fmt: skip
