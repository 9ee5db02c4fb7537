"""The rules of `compile`: each fires on its sample, which computes the same, and not on others."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from rule_samples import SAMPLES

import minitensor as mt
from minitensor import Tensor, random
from minitensor.nn import functional as F
from minitensor.ops.samples import Rand
from minitensor.replay import calls_of, table
from minitensor.replay.graph import Graph
from minitensor.replay.table import RULES
from models import translation
from models.bert import BertConfig, BertForPreTraining
from models.gpt import GPT, GPTConfig
from models.transformer import Transformer, TransformerConfig

pytestmark = pytest.mark.compiled

Function = Callable[..., Any]
SAME_BITS = {"linear + relu", "linear + gelu", "linear + silu", "attention, packed projection"}


def entry_of(function: Function, *args: Any) -> Any:
    """Return what compile made of a function called with these arguments."""
    function(*args)  # compiles kernels
    entry = calls_of(mt.compile(function)).recorded(args, {})
    assert entry.reason == ""
    return entry


def fired(function: Function, *args: Any) -> list[str]:
    return [each.rule for each in entry_of(function, *args).fired]


def results(function: Function, *args: Any) -> list[np.ndarray]:
    """Return the result and the gradients of the arguments, with the same random numbers."""
    mt.manual_seed(3)
    y = function(*args)
    leaves = [a for a in args if a.requires_grad]
    grads = mt.autograd.grad((y * y.detach().cos()).sum(), leaves) if leaves else ()
    return [y.detach().numpy(), *(g.numpy() for g in grads)]


def rewritten(entry: Any) -> Function:
    """Return a function that runs the ops that the rules left."""
    graph = entry.graph

    def run(*args: Tensor) -> Tensor:
        tensors = dict(zip(graph.inputs, args, strict=True))
        for number, t in graph.tensors.items():
            tensors.setdefault(number, t)
        keys = [random.default_generator.key(size) for size in graph.keys]
        (out,) = graph.run(tensors, keys)
        return out

    return run


def check_same(function: Function, *args: Any, dtype: Any = np.float64, bits: bool = False) -> Any:
    """Check values and gradients of what the rules left; return the names of those that fired."""
    entry = entry_of(function, *args)
    tolerance = 1e-10 if dtype is np.float64 else 1e-5
    for got, want in zip(results(rewritten(entry), *args), results(function, *args), strict=True):
        if bits:
            assert got.tobytes() == want.tobytes()
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    return [each.rule for each in entry.fired]


@pytest.fixture(autouse=True)
def logits_count_as_many_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MANY", 1 << 20)


def test_each_rule_has_a_sample() -> None:
    assert [rule.name for rule in RULES] == list(SAMPLES)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_rule_fires_on_its_sample_and_computes_the_same(name: str, dtype: Any) -> None:
    function, *args = SAMPLES[name](Rand(dtype))
    assert check_same(function, *args, dtype=dtype, bits=name in SAME_BITS)[-1] == name


@pytest.mark.parametrize("name", SAMPLES)
def test_without_gradients_too(name: str) -> None:
    function, *args = SAMPLES[name](Rand())
    with mt.no_grad():
        args = [a.detach() for a in args]
        assert check_same(function, *args)[-1] == name


@pytest.mark.parametrize("name", SAMPLES)
def test_values_that_a_rule_adds_have_the_shapes_of_results(name: str) -> None:
    function, *args = SAMPLES[name](Rand())
    graph = entry_of(function, *args).graph
    numbers = [n for call in graph.calls for n in call.outs]
    every = Graph(graph.values, graph.calls, graph.inputs, numbers)
    given = dict(zip(graph.inputs, args, strict=True)) | graph.tensors
    with mt.no_grad():
        made = every.run(given, range(len(graph.keys)))
    for n, t in zip(numbers, made, strict=True):
        value = graph.values[n]
        assert (tuple(value.shape), value.dtype) == (tuple(t.shape), t._array.dtype)


@pytest.mark.parametrize("name", SAMPLES)
def test_what_a_rule_made_is_replayed(name: str) -> None:
    function, *args = SAMPLES[name](Rand(np.float32))
    want = results(function, *args)
    compiled = mt.compile(function)
    for _ in range(4):
        for got, expected in zip(results(compiled, *args), want, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


# Spellings, as people write them


def attention(
    scores: Function, weights: Function = lambda s: s.softmax(-1), **more: Any
) -> Function:
    return lambda q, k, v: F.dropout(weights(scores(q, k)), 0.2) @ v


def rows_alone(s: Tensor) -> Tensor:
    s = s + mt.tensor([[0.0, -math.inf, 0, 0], [-math.inf] * 4, [1.0] * 4, [0.0] * 4]).to(s)
    alone = s.detach().amax(-1, keepdim=True) == -math.inf
    return s.masked_fill(alone, 0.0).softmax(-1).masked_fill(alone, 0.0)


def later() -> Tensor:
    return mt.triu(mt.ones(1, 1, 4, 4), 1)


ATTENTION: dict[str, tuple[Function, str]] = {
    "scores times a number": (attention(lambda q, k: q @ k.mT * 0.3), "attention"),
    "queries times a number": (attention(lambda q, k: (q * 0.3) @ k.mT), "attention"),
    "keys over a number": (attention(lambda q, k: q @ (k / 3).transpose(2, 3)), "attention"),
    "no scale": (attention(lambda q, k: q @ k.permute(0, 1, 3, 2)), "attention"),
    "scale in a tensor": (
        attention(lambda q, k: mt.matmul(q, k.mT) / mt.full((1,), 2.5).sqrt().to(q)),
        "attention",
    ),
    "causal by multiplication": (
        attention(lambda q, k: (q @ k.mT).masked_fill(later().bool(), -1e10)),
        "attention, scores filled where later",
    ),
    "causal by where": (
        attention(lambda q, k: mt.where(later() == 0, q @ k.mT, -math.inf)),
        "attention, scores kept where not later",
    ),
    "causal by a sum": (
        attention(lambda q, k: later().to(q) * -1e9 + q @ k.mT), "attention, causal mask added"
    ),
    "not quite causal": (
        attention(lambda q, k: (q @ k.mT).masked_fill(mt.ones(4, 4).triu(2) > 0, -math.inf)),
        "attention, scores filled with -inf",
    ),
    "rows with nothing to attend to": (
        attention(lambda q, k: q @ k.mT, rows_alone), "attention, mask added"
    ),
    "rows filled with -1e9 as a whole": (
        attention(lambda q, k: (q @ k.mT).masked_fill(mt.ones(4, 4).tril(-1) == 0, -1e9)),
        "attention, scores filled with -1e9",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTION)
def test_spellings_of_attention(name: str) -> None:
    function, rule = ATTENTION[name]
    rand = Rand()
    assert check_same(function, rand(2, 3, 4, 5), rand(2, 3, 4, 5), rand(2, 3, 4, 6)) == [rule]


NORMS: dict[str, Function] = {
    "product": lambda x, w: w * (x * mt.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)),
    "quotient": lambda x, w: x / mt.sqrt(x.square().mean(2, keepdim=True) + 1e-6) * w,
    "power": lambda x, w: x.double() * (1e-6 + x.pow(2).mean(-1, True)) ** -0.5 * w,
    "inverse": lambda x, w: x * (1 / ((x**2).mean(-1, True) + 1e-6).sqrt()) * w.type_as(x),
}


@pytest.mark.parametrize("name", NORMS)
def test_spellings_of_the_rms_norm(name: str) -> None:
    rand = Rand()
    assert check_same(NORMS[name], rand(2, 5, 3), rand(3)) == ["RMS norm"]


# Near misses


def normed(x: Tensor) -> Tensor:
    return (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()


def twice(x: Tensor, w: Tensor) -> Tensor:
    z = F.linear(x, w)
    return F.relu(z) + z


def weights_used(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = (q @ k.mT).softmax(-1)
    return w @ v + w.sum()


MISSES: dict[str, Callable[[Rand], tuple[Any, ...]]] = {
    "an intermediate result used twice": lambda rand: (twice, rand(5, 3), rand(4, 3)),
    "an intermediate result that is returned": lambda rand: (
        lambda x, w: (z := F.linear(x, w), z.relu()), rand(5, 3), rand(4, 3)
    ),
    "weights of attention used": lambda rand: (weights_used, *[rand(2, 3, 4, 4)] * 3),
    "softmax over another dimension": lambda rand: (
        lambda q, k, v: (q @ k.mT).softmax(-2) @ v, *[rand(2, 3, 4, 4)] * 3
    ),
    "keys that are not transposed": lambda rand: (
        lambda q, k, v: (q @ k).softmax(-1) @ v, *[rand(2, 3, 4, 4)] * 3
    ),
    "heads that broadcast": lambda rand: (
        lambda q, k, v: (q @ k.mT).softmax(-1) @ v,
        rand(2, 3, 4, 4), rand(1, 3, 4, 4), rand(2, 3, 4, 4),
    ),
    "a mask that learns": lambda rand: (
        lambda q, k, v, m: (q @ k.mT + m).softmax(-1) @ v, *[rand(2, 3, 4, 4)] * 3, rand(4, 4)
    ),
    "a mask that makes more of the scores": lambda rand: (
        lambda q, k, v, m: (q @ k.mT + m).softmax(-1) @ v, *[rand(3, 4, 4)] * 3,
        rand.constant(2, 3, 4, 4),
    ),
    "scores filled with a number that is not low": lambda rand: (
        lambda q, k, v: (q @ k.mT).masked_fill(mt.ones(4, 4).tril() == 0, -5.0).softmax(-1) @ v,
        *[rand(2, 3, 4, 4)] * 3,
    ),
    "residuals that broadcast": lambda rand: (
        lambda x, r: r + F.dropout(x, 0.3), rand(2, 5), rand(1, 5)
    ),
    "a mean over another dimension": lambda rand: (
        lambda x, w: x * (x.pow(2).mean(1, keepdim=True) + 1e-6).rsqrt() * w,
        rand(2, 3, 3), rand(3),
    ),
    "a mean of something else": lambda rand: (
        lambda x, r: r * normed(x), rand(2, 3, 3), rand(2, 3, 3)
    ),
    "positions that are tokens": lambda rand: (
        lambda t, w, pos: F.embedding(t, w) + F.embedding(t, pos),
        rand.integers(0, 3, 2, 3), rand(5, 4), rand(3, 4),
    ),
    "positions that differ from row to row": lambda rand: (
        lambda t, w, pos: F.embedding(t, w) + pos,
        rand.integers(0, 3, 2, 3), rand(5, 4), rand(2, 3, 4),
    ),
    "few logits": lambda rand: (
        lambda x, w, t: F.cross_entropy(F.linear(x, w), t),
        rand(5, 3), rand(4, 3), rand.integers(0, 4, 5),
    ),
    "logits of more dimensions": lambda rand: (
        lambda x, w, t: F.cross_entropy(F.linear(x, w).transpose(1, 2).flatten(0, 1), t),
        rand(2, 5, 5), rand(5, 5), rand.integers(0, 4, 10),
    ),
    "thirds in another order": lambda rand: (
        lambda x: F.scaled_dot_product_attention(
            *[y.unflatten(2, (2, 3)).transpose(1, 2) for y in x.chunk(3, 2)[::-1]]
        ).transpose(1, 2).flatten(2),
        rand(2, 4, 18),
    ),
    "heads that are not joined": lambda rand: (
        lambda x: F.scaled_dot_product_attention(
            *[y.unflatten(2, (2, 3)).transpose(1, 2) for y in x.chunk(3, 2)]
        ).flatten(2),
        rand(2, 4, 18),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISSES)
def test_near_misses_stay(name: str) -> None:
    function, *args = MISSES[name](Rand())
    assert fired(function, *args) == []


def test_positions_that_begin_later() -> None:
    rand = Rand()
    args = rand.integers(0, 3, 2, 3), rand(5, 4), rand(4, 4)
    names = check_same(lambda t, w, pos: F.embedding(t, w) + pos[1:], *args)
    assert names == ["embedding + positions"]


def test_a_mask_with_dropout_is_no_constant() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = F.dropout(mt.ones(4, 4).tril(), 0.5)
        return (q @ k.mT).masked_fill(mask == 0, -math.inf).softmax(-1) @ v

    rand = Rand()
    names = fired(attend, *[rand(2, 4, 5) for _ in "qkv"])
    assert names == ["attention, scores filled with -inf"]


def test_a_mask_in_a_buffer_is_watched() -> None:
    """A buffer counts as constant, until it is changed."""
    mask = mt.ones(4, 4).tril()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.mT).masked_fill(mask[:4] == 0, -math.inf).softmax(-1) @ v

    rand = Rand()
    q, k, v = rand(2, 4, 5), rand(2, 4, 5), rand(2, 4, 5)
    attend(q, k, v)
    compiled = mt.compile(attend)
    for _ in range(3):
        assert mt.allclose(compiled(q, k, v), attend(q, k, v))
    mask.fill_(1.0)
    for _ in range(3):
        assert mt.allclose(compiled(q, k, v), attend(q, k, v))


# Models


def classes(y: Any) -> Tensor:
    """Return the cross entropy of scores (..., C) with class 0."""
    y = y[0] if isinstance(y, tuple) else y
    return F.cross_entropy(y.flatten(0, -2), mt.zeros(y[..., 0].numel(), dtype=mt.int64))


def transformer() -> tuple[Function, tuple[Any, ...]]:
    config = TransformerConfig(
        13, 11, d_model=16, nhead=2, num_encoder_layers=2, num_decoder_layers=2,
        dim_feedforward=24, dropout=0.1,
    )  # fmt: skip
    model = Transformer(config)
    loss = lambda src, tgt: translation.token_loss(*translation.predict(model, (src, tgt)), 0.1)  # noqa: E731
    return loss, (mt.randint(3, 13, (2, 7)), mt.randint(3, 11, (2, 5)))


def gpt(**settings: Any) -> tuple[Function, tuple[Any, ...]]:
    model = GPT(GPTConfig(23, 12, 16, 2, num_heads=4, dropout=0.1, **settings))
    return lambda tokens: classes(model(tokens)), (mt.randint(0, 23, (2, 8)),)


def bert() -> tuple[Function, tuple[Any, ...]]:
    model = BertForPreTraining(BertConfig(50, 16, 2, 2, 24, max_position_embeddings=12))
    return lambda tokens: classes(model(tokens)), (mt.randint(1, 50, (2, 9)),)


def example(name: str) -> tuple[Function, tuple[Any, ...]]:
    model, given, _ = importlib.import_module(name).example()
    model.train()
    return lambda *args: classes(model(*args)), tuple(given.values())


WHERE: dict[str, tuple[Function, dict[str, int]]] = {
    "models/transformer.py": (
        transformer,
        {
            "linear + relu": 4,
            "add + layer norm": 10,
            "attention, mask added": 4,
            "attention, causal mask added": 2,
            "attention, packed projection": 4,
            "attention, packed keys and values": 2,
            "attention, one weight of projections": 2,
            "embedding + positions cut from a table": 2,
        },
    ),
    "models/gpt.py": (
        gpt,
        {
            "linear + gelu_tanh": 2,
            "dropout + add": 3,
            "add + layer norm": 1,
            "attention, packed projection split by heads": 2,
            "embedding + positions of an embedding": 1,
        },
    ),
    "models/gpt.py, llama": (
        partial(gpt, variant="llama", num_kv_heads=2),
        {"dropout + add": 4},
    ),
    "models/bert.py": (bert, {"linear + gelu": 3, "add + layer norm": 4}),
    "models/vit.py": (
        partial(example, "models.vit"),
        {
            "linear + gelu": 2,
            "dropout + add": 3,
            "add + layer norm": 1,
            "attention, packed projection": 2,
        },
    ),
    "models/attention.py": (partial(example, "models.attention"), {"attention": 2}),
    "a GPT as in nanoGPT": (
        partial(example, "tests.foreign.nano_gpt"),
        {
            "linear + gelu": 6,
            "add + layer norm": 1,
            "attention, scores filled where later": 6,
            "attention, packed projection": 6,
            "embedding + positions of an embedding": 1,
        },
    ),
    "a LLaMA": (
        partial(example, "tests.foreign.llama"),
        {
            "RMS norm": 7,
            "rotary positions": 6,
            "attention, mask is causal": 3,
            "attention, heads of keys and values repeated": 3,
            "heads joined, copied": 3,
        },
    ),
    "a ViT": (
        partial(example, "tests.foreign.vit"),
        {
            "linear + gelu": 5,
            "dropout + add": 10,
            "attention": 5,
            "attention, packed projection": 5,
        },
    ),
}


@pytest.mark.parametrize("name", WHERE)
def test_where_the_rules_fire_in_models(name: str) -> None:
    """In losses of a training step; models/recurrent.py reads lengths of sentences, and is left."""
    make, expected = WHERE[name]
    loss, given = make()
    assert Counter(fired(loss, *given)) == expected
