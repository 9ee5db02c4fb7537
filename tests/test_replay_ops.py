"""Every op, replayed: with other numbers than those it was recorded with, bit for bit."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
from both import first_difference, frozen

import minitensor as mt
from minitensor import nn  # noqa: F401  # registers the ops
from minitensor.core import OPS
from minitensor.kernels.jit import COMPILED
from minitensor.ops.samples import Rand
from minitensor.replay import calls_of
from minitensor.testing import leaves, samples

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("one_thread")]

if not COMPILED:
    pytest.skip("nothing is compiled", allow_module_level=True)

CASES = sorted(OPS)


def changed(x: Any, noise: np.random.RandomState) -> Any:
    """Return new tensors in the place of those of a sample: its floats in another order."""
    if isinstance(x, mt.Tensor):
        a = x._array
        if a.dtype.kind == "f" and a.size > 1:
            flat = a.reshape(-1)
            a = flat[noise.permutation(a.size)].reshape(a.shape)
        return mt.tensor(np.array(a)).requires_grad_(x.requires_grad)
    if isinstance(x, list | tuple) and not hasattr(x, "_fields"):
        return type(x)([changed(each, noise) for each in x])
    return {k: changed(v, noise) for k, v in x.items()} if isinstance(x, dict) else x


def outcome(call: Any, args: Any, kwargs: Any) -> Any:
    """Return the results and the gradients of all that requires one."""
    mt.manual_seed(3)
    found = call(*args, **kwargs)
    noise = np.random.RandomState(5)
    graded = [t for t in leaves([found]) if t.requires_grad]
    if graded:
        dys = [mt.tensor(noise.standard_normal(t.shape).astype(t.dtype.name)) for t in graded]
        mt.autograd.backward(graded, dys)
    return frozen([found, [t.grad for t in leaves([args, kwargs])]])


def replay(op: Any, args: Any, kwargs: Any) -> tuple[str, Any, bool]:
    """Call an op four times with other numbers each; return a difference, and what was done."""
    call = op.call
    compiled = mt.compile(lambda *args, **kwargs: call(*args, **kwargs))
    for n in range(4):
        new = [changed([args, kwargs], np.random.RandomState(n)) for _ in range(2)]
        try:
            expected = outcome(call, *new[0])
        except (RuntimeError, ValueError, IndexError) as error:
            with pytest.raises(type(error)):
                outcome(compiled, *new[1])
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            difference = first_difference(expected, outcome(compiled, *new[1]))
        if difference:
            return f"call {n}: {difference}", Counter(), False
    return "", *programs(compiled)


def programs(compiled: Any) -> tuple[Counter[str], bool]:
    """Return how many kernels and steps a compiled function replays, and whether it does."""
    count: Counter[str] = Counter()
    for plan in plans(compiled):
        for program in (plan.forward, plan.backward):
            if program is not None:
                count.update(kernels=program.native, steps=program.steps)
    return count, bool(plans(compiled))


def plans(compiled: Any) -> list[Any]:
    found = []
    for entry in calls_of(compiled).entries:
        for each in entry if isinstance(entry, list) else [entry]:
            found += [plan for plan in each.plans if plan.forward is not None]
    return found


# Ops of which no sample is replayed, and why.
AS_IT_IS = {
    "its result is a view of its argument": """Alias AsStrided Atleast2d Atleast3d BroadcastTensors
        BroadcastTo ExpandAs Hsplit Meshgrid Movedim Permute Reshape ReshapeAs Select
        SplitWithSizes Squeeze TensorSplit Transpose Unbind Unflatten Unfold Unsqueeze ViewAs
        Vsplit""",
    "it reads numbers": """Argwhere Bucketize Histc IndexFill Mode Nanmean Nonzero OneHot Quantile
        RepeatInterleave Searchsorted""",
    "it writes to its argument": "Copy",
}


@pytest.mark.parametrize("name", CASES)
def test_replayed_with_other_numbers(name: str) -> None:
    op = OPS[name]
    done = []
    for args, kwargs in samples(op):
        difference, _, replayed = replay(op, args, kwargs)
        assert not difference, f"{name}{args}{kwargs}: {difference}"
        done.append(replayed)
    assert any(done) or name in " ".join(AS_IT_IS.values()).split()


def _masked(rand: Rand) -> tuple[Any, ...]:
    q, k, v = (rand(2, 2, 40, 16) for _ in range(3))
    return q, k, v, {"is_causal": True}


# Of each op that says `native`, arguments for which kernels do all.
LARGE: dict[str, Any] = {
    "Dropout": lambda rand: (rand(64, 512), 0.3),
    "DropoutAdd": lambda rand: (rand(64, 512), rand(64, 512), 0.3),
    "DropoutAddLayerNorm": lambda rand: (
        *(rand(64, 512), rand(64, 512), [512], rand(512), rand(512)),
        {"p": 0.2},
    ),
    "Gelu": lambda rand: (rand(64, 512),),
    "InProjectionPacked": lambda rand: (
        *(rand(4, 16, 64), rand(4, 16, 64), rand(192, 64), rand(192)),
    ),
    "LayerNorm": lambda rand: (rand(64, 512), [512], rand(512), rand(512)),
    "Linear": lambda rand: (rand(64, 128), rand(64, 128), rand(64)),
    "LinearActivation": lambda rand: (rand(64, 128), rand(64, 128), rand(64), "relu"),
    "LogSoftmax": lambda rand: (rand(64, 512), -1),
    "Matmul": lambda rand: (rand(64, 128), rand(128, 64)),
    "PackedAttention": lambda rand: (rand(2, 40, 96), 2, {"is_causal": True}),
    "Relu": lambda rand: (rand(64, 512),),
    "ScaledDotProductAttention": _masked,
    "Silu": lambda rand: (rand(64, 512),),
    "Softmax": lambda rand: (rand(64, 512), -1),
}


# Those that others stand for.
OTHERS = {
    *("Chain", "LogSoftmaxBackward", "ReluBackward", "SigmoidBackward", "SoftmaxBackward"),
    *("TanhBackward", "RmsNorm", "RotaryEmbedding"),
}


def test_every_native_op_is_listed() -> None:
    assert {name for name in CASES if OPS[name].native} <= LARGE.keys() | OTHERS


@pytest.mark.parametrize("name", list(LARGE))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_native_ops_are_replayed_without_python(name: str, dtype: str) -> None:
    args = list(LARGE[name](Rand(dtype)))
    kwargs = args.pop() if isinstance(args[-1], dict) else {}
    difference, count, replayed = replay(OPS[name], args, kwargs)
    assert not difference
    assert replayed
    assert count["kernels"] > 0
    assert count["steps"] == 0
