"""MultiheadAttention beside PyTorch's: every option, every mask, with weights and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from shape_names import watch
from twins import assert_same, close, twins

import minitensor
from minitensor import nn
from minitensor.core import wrap
from minitensor.nn import functional as F

N, L, S, E, H = 2, 3, 4, 8, 2
noise = np.random.RandomState(0)


def normal(*shape: int) -> np.ndarray:
    return noise.standard_normal(shape).astype(np.float32)


def blocked(*shape: int) -> np.ndarray:
    """A bool mask that leaves the first key free."""
    mask = noise.rand(*shape) < 0.5
    mask[..., 0] = False
    return mask


def as_numbers(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, -np.inf, 0).astype(np.float32)


class Attend:
    """A module called for self- or cross-attention, so that gradients meet in shared inputs."""

    def __init__(self, module: Any, kind: str) -> None:
        self.module = module
        self.kind = kind

    def __call__(self, *xs: Any, **settings: Any) -> Any:
        forms: dict[str, Callable[..., Any]] = {
            "self": lambda x: (x, x, x),
            "cross": lambda x, y: (x, y, y),
            "all": lambda x, y, z: (x, y, z),
        }
        query, key, value = forms[self.kind](*xs)
        return self.module(query, key, value, **settings)


def compare(
    kind: str,
    arrays: list[np.ndarray],
    tolerance: float = 2e-5,
    training: bool = True,
    **settings: Any,
) -> Any:
    """Same values and gradients of inputs and parameters, with weights and without."""
    call = settings.pop("call", {})
    for need_weights in (True, False):
        mine, theirs = twins(lambda nn: nn.MultiheadAttention(E, H, **settings))
        mine.train(training)
        theirs.train(training)
        out = assert_same(
            Attend(mine, kind),
            Attend(theirs, kind),
            *arrays,
            need_weights=need_weights,
            tolerance=tolerance,
            **call,
        )
        for (name, a), (_, b) in zip(
            mine.named_parameters(), theirs.named_parameters(), strict=True
        ):
            assert a.grad is not None, name
            close(a.grad, b.grad, tolerance, name)
    return out


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "without bias": dict(bias=False),
    "learnt key and value": dict(add_bias_kv=True),
    "zero key and value": dict(add_zero_attn=True),
    "all": dict(add_bias_kv=True, add_zero_attn=True, bias=False),
}


@needs_torch
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ["self", "cross", "all"])
@pytest.mark.parametrize("options", OPTIONS)
def test_equals_pytorch(options: str, kind: str, batch_first: bool) -> None:
    lengths = {"self": [S], "cross": [L, S], "all": [L, S, S]}[kind]
    arrays = [normal(N, n, E) if batch_first else normal(n, N, E) for n in lengths]
    compare(kind, arrays, batch_first=batch_first, **OPTIONS[options])


@needs_torch
@pytest.mark.parametrize("kind", ["self", "cross", "all"])
def test_without_a_batch(kind: str) -> None:
    arrays = [normal(n, E) for n in {"self": [S], "cross": [L, S], "all": [L, S, S]}[kind]]
    length = len(arrays[0])
    compare(kind, arrays)
    compare(kind, arrays, batch_first=True, call=dict(key_padding_mask=blocked(S)))
    compare(kind, arrays, call=dict(attn_mask=as_numbers(blocked(H, length, S))))


@needs_torch
@pytest.mark.parametrize("settings", [dict(kdim=5), dict(vdim=6), dict(kdim=5, vdim=6, bias=False)])
def test_other_widths(settings: dict[str, Any]) -> None:
    arrays = [
        normal(N, L, E),
        normal(N, S, settings.get("kdim", E)),
        normal(N, S, settings.get("vdim", E)),
    ]
    compare("all", arrays, batch_first=True, **settings)
    compare("all", arrays, batch_first=True, add_bias_kv=True, add_zero_attn=True, **settings)


MASKS: dict[str, dict[str, Any]] = {
    "attention, bool": dict(attn_mask=blocked(L, S)),
    "attention, bool, each head": dict(attn_mask=blocked(N * H, L, S)),
    "attention, numbers": dict(attn_mask=normal(L, S)),
    "attention, numbers, each head": dict(attn_mask=normal(N * H, L, S)),
    "attention, -inf": dict(attn_mask=as_numbers(blocked(L, S))),
    "padding, bool": dict(key_padding_mask=blocked(N, S)),
    "padding, numbers": dict(key_padding_mask=normal(N, S)),
    "both, bool": dict(key_padding_mask=blocked(N, S), attn_mask=blocked(L, S)),
    "both, bool, each head": dict(key_padding_mask=blocked(N, S), attn_mask=blocked(N * H, L, S)),
    "both, numbers": dict(
        key_padding_mask=as_numbers(blocked(N, S)), attn_mask=normal(N * H, L, S)
    ),
    "both, mixed": dict(key_padding_mask=blocked(N, S), attn_mask=as_numbers(blocked(L, S))),
    "both, mixed otherwise": dict(key_padding_mask=normal(N, S), attn_mask=blocked(L, S)),
}


@needs_torch
@pytest.mark.filterwarnings("ignore:Support for mismatched")
@pytest.mark.parametrize("options", ["default", "all"])
@pytest.mark.parametrize("masks", MASKS)
def test_masks(masks: str, options: str) -> None:
    compare("cross", [normal(N, L, E), normal(N, S, E)], batch_first=True, call=MASKS[masks])
    compare("cross", [normal(L, N, E), normal(S, N, E)], call=MASKS[masks], **OPTIONS[options])


@needs_torch
@pytest.mark.parametrize("number", [False, True])
def test_a_row_that_may_attend_to_nothing(number: bool) -> None:
    """NaN with weights, 0 without."""
    mask = np.zeros((L, S), np.bool_)
    mask[1] = True
    for need_weights in (True, False):
        mine, theirs = twins(lambda nn: nn.MultiheadAttention(E, H, batch_first=True))
        given: Any = as_numbers(mask) if number else mask
        out, _ = assert_same(
            Attend(mine, "cross"),
            Attend(theirs, "cross"),
            normal(N, L, E),
            normal(N, S, E),
            attn_mask=given,
            need_weights=need_weights,
        )
        row = out[0].detach().numpy()[:, 1]
        assert np.isnan(row).all() if need_weights else (row == 0).all()


@needs_torch
@pytest.mark.parametrize("padding", [False, True])
def test_the_causal_hint(padding: bool) -> None:
    call: dict[str, Any] = dict(attn_mask=np.triu(np.ones((S, S), np.bool_), 1), is_causal=True)
    if padding:
        call["key_padding_mask"] = blocked(N, S)
    compare("self", [normal(N, S, E)], batch_first=True, call=call)


def test_the_causal_hint_needs_a_mask() -> None:
    x = minitensor.ones(2, 3, E)
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        nn.MultiheadAttention(E, H)(x, x, x, is_causal=True)


def test_the_causal_hint_leaves_added_keys_free() -> None:
    """With a learnt key the hint changes nothing: everybody may attend to that key."""
    minitensor.manual_seed(0)
    layer = nn.MultiheadAttention(E, H, add_bias_kv=True)
    x = wrap(normal(S, N, E))
    mask = nn.Transformer.generate_square_subsequent_mask(S)
    plain, _ = layer(x, x, x, attn_mask=mask, need_weights=False)
    hinted, _ = layer(x, x, x, attn_mask=mask, need_weights=False, is_causal=True)
    np.testing.assert_allclose(hinted.detach().numpy(), plain.detach().numpy(), rtol=1e-6)


@needs_torch
def test_weights_by_head() -> None:
    call = dict(average_attn_weights=False)
    compare("cross", [normal(N, L, E), normal(N, S, E)], batch_first=True, call=call)
    compare("cross", [normal(L, E), normal(S, E)], call=call)


@needs_torch
@pytest.mark.parametrize("training", [True, False])
def test_float64(training: bool) -> None:
    x, y = normal(N, L, E).astype(np.float64), normal(N, S, E).astype(np.float64)
    for need_weights in (True, False):
        mine, theirs = twins(lambda nn: nn.MultiheadAttention(E, H, batch_first=True, dropout=0.5))
        mine.train(training).double()
        theirs.train(training).double()
        mine.load_state_dict(theirs.state_dict())
        if not training:
            assert_same(
                Attend(mine, "cross"),
                Attend(theirs, "cross"),
                x,
                y,
                need_weights=need_weights,
                tolerance=1e-10,
            )


def test_dropout_acts_on_the_weights() -> None:
    layer = nn.MultiheadAttention(E, H, dropout=0.5, batch_first=True)
    x = wrap(normal(1, 50, E))
    _, weight = layer(x, x, x, average_attn_weights=False)
    assert 0.4 < (weight.detach().numpy() == 0).mean() < 0.6
    plain = layer(x, x, x, need_weights=False)[0].detach().numpy()
    assert not np.allclose(plain, layer(x, x, x, need_weights=False)[0].detach().numpy())
    layer.eval()
    _, weight = layer(x, x, x)
    np.testing.assert_allclose(weight.sum(-1).detach().numpy(), 1, rtol=1e-5)


@needs_torch
def test_errors_are_pytorchs() -> None:
    import torch

    def errors(nn: Any, make: Any) -> list[type[Exception]]:
        layer = nn.MultiheadAttention(E, H, batch_first=True)
        x, y = make(normal(N, L, E)), make(normal(N, S, E))
        found = []
        for call in (
            lambda: nn.MultiheadAttention(0, 2),
            lambda: nn.MultiheadAttention(5, 2),
            lambda: layer(make(normal(N, 1, L, E)), y, y),
            lambda: layer(x, make(normal(S, E)), y),
            lambda: layer(make(normal(N, L, 6)), y, y),
            lambda: layer(x, y, make(normal(N, L, E))),
            lambda: layer(x, y, y, attn_mask=make(np.zeros((L, S), np.uint8))),
            lambda: layer(x, y, y, key_padding_mask=make(np.zeros((N, S), np.uint8))),
            lambda: layer(x, y, y, attn_mask=make(np.zeros((S, L), np.bool_))),
            lambda: layer(x, y, y, attn_mask=make(np.zeros((N, L, S), np.bool_))),
            lambda: layer(x, y, y, attn_mask=make(np.zeros(S, np.bool_))),
            lambda: layer(x, y, y, key_padding_mask=make(np.zeros((S, N), np.bool_))),
        ):
            with pytest.raises(Exception) as error:
                call()
            found.append(error.type)
        return found

    assert errors(nn, wrap) == errors(torch.nn, torch.from_numpy)


@needs_torch
def test_the_function() -> None:
    """With keys and values projected before."""
    import torch

    arrays = [normal(L, N, E), normal(S, N, E), normal(S, N, E)]
    weight, bias, out = normal(3 * E, E), normal(3 * E), normal(E, E)
    static = [normal(N * H, 5, E // H), normal(N * H, 5, E // H)]
    for settings in ({}, dict(static_k=static[0], static_v=static[1]), dict(need_weights=False)):
        mine, theirs = (
            lambda *a, f=library.functional.multi_head_attention_forward, **k: f(
                *a[:3], E, H, *a[3:5], None, None, False, 0.0, a[5], None, **k
            )
            for library in (nn, torch.nn)
        )
        assert_same(mine, theirs, *arrays, weight, bias, out, **settings)


def test_self_attention_projects_once() -> None:
    """One op makes queries, keys and values of one input or of two, and takes them as they are."""
    layer = nn.MultiheadAttention(E, H, batch_first=True)
    x, y = wrap(normal(N, S, E)), wrap(normal(N, S, E))
    for inputs, expected in (((x, x, x), 2), ((x, y, y), 2), ((x, y, wrap(y._array)), 4)):
        out, _ = layer(*inputs, need_weights=False)
        seen, stack = set(), [out.grad_fn]
        while stack:
            node = stack.pop()
            if node is not None and node not in seen:
                seen.add(node)
                stack += [n for n, _ in getattr(node, "next_functions", ())]
        names = [type(node).__name__ for node in seen]
        assert names.count("Linear") + names.count("InProjectionPacked") == expected
        assert ("PackedAttention" in names) == (expected == 2)


def test_names_tell_the_shapes() -> None:
    """In every variant, a tensor named `..._NHLS` has those dimensions."""
    x, y = wrap(normal(N, L, E)), wrap(normal(N, S, E))
    with watch(nn) as seen:
        for settings in ({}, dict(add_bias_kv=True, add_zero_attn=True), dict(kdim=E + 1)):
            layer = nn.MultiheadAttention(E, H, batch_first=True, **settings)
            for need_weights in (True, False):
                keys = F.pad(y, (0, 1)) if "kdim" in settings else y
                layer(x, keys, y, need_weights=need_weights)
                if "kdim" not in settings:
                    layer(x, y, y, need_weights=need_weights)
                    layer(x, x, x, need_weights=need_weights)
    assert {"q_NHLK", "k_NHSK", "score_NHLS", "weight_NHLS"} <= {name for _, name in seen}
