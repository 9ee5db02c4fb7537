"""Attention from nothing up: each function is its formula, and the packed form is PyTorch's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from shape_names import watch

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor
from minitensor.models import attention
from minitensor.models.attention import Head, MultiheadAttention
from minitensor.nn.masks import causal_mask
from minitensor.testing import assert_close


def draw(*shape: int) -> Tensor:
    return mt.randn(*shape, dtype=mt.float64)


def by_pairs(query: Tensor, key: Tensor, one: Callable[[Any, Any], float]) -> np.ndarray:
    """The similarity of each query with each key, one after the other, of a batch of both."""
    return np.array([[[one(q, k) for k in ks] for q in qs] for qs, ks in both(query, key)])


def both(query: Tensor, key: Tensor) -> zip[tuple[Any, Any]]:
    return zip(query.numpy(), key.numpy(), strict=True)


# Similarities


def test_dot_scaled_dot_and_cosine_are_their_formulas() -> None:
    mt.manual_seed(0)
    query, key = draw(2, 3, 5), draw(2, 4, 5)
    norm = np.linalg.norm
    for similarity, one in (
        (attention.dot, lambda q, k: q @ k),
        (attention.scaled_dot, lambda q, k: q @ k / math.sqrt(5)),
        (attention.cosine, lambda q, k: q @ k / (norm(q) * norm(k))),
    ):
        np.testing.assert_allclose(similarity(query, key).numpy(), by_pairs(query, key, one))


def test_the_general_similarity_is_luongs_and_joins_other_widths() -> None:
    mt.manual_seed(0)
    query, key, weight = draw(2, 3, 5), draw(2, 4, 6), draw(5, 6)
    score = attention.general(query, key, weight)
    expected = by_pairs(query, key, lambda q, k: q @ weight.numpy() @ k)
    np.testing.assert_allclose(score.numpy(), expected)


def test_the_additive_similarity_is_bahdanaus_and_joins_other_widths() -> None:
    mt.manual_seed(0)
    query, key = draw(2, 3, 5), draw(2, 4, 6)
    w1, w2, v = draw(5, 7), draw(6, 7), draw(7)
    score = attention.additive(query, key, w1, w2, v)
    expected = by_pairs(
        query, key, lambda q, k: v.numpy() @ np.tanh(q @ w1.numpy() + k @ w2.numpy())
    )
    np.testing.assert_allclose(score.numpy(), expected)


def test_the_scaled_dot_of_random_vectors_has_the_variance_one_at_any_width() -> None:
    mt.manual_seed(0)
    for width in 4, 256:
        score = attention.scaled_dot(draw(300, width), draw(300, width))
        assert abs(score.var().item() - 1) < 0.1


# Attention


def test_weights_are_a_softmax_and_the_output_is_the_mean_by_them() -> None:
    mt.manual_seed(0)
    score, value = draw(2, 3, 4), draw(2, 4, 5)
    output, weight = attention.attend(score, value)
    e = np.exp(score.numpy())
    np.testing.assert_allclose(weight.numpy(), e / e.sum(-1, keepdims=True))
    np.testing.assert_allclose(output.numpy(), weight.numpy() @ value.numpy())


def test_a_masked_key_gets_no_weight_and_the_others_share_it() -> None:
    score = mt.zeros(2, 4)
    mask = mt.tensor([0.0, -math.inf, 0.0, -math.inf])
    _, weight = attention.attend(score, mt.eye(4), mask)
    assert weight.tolist() == [[0.5, 0.0, 0.5, 0.0]] * 2


def test_a_soft_lookup_becomes_the_hard_one_as_scores_grow() -> None:
    values = mt.tensor([[45.0], [48.0], [160.0]])
    query = mt.tensor([[0.2, 0.7, 0.1]])
    score = attention.dot(query, mt.eye(3))
    found = [attention.attend(scale * score, values)[0].item() for scale in (0.0, 1.0, 1000.0)]
    assert found[0] == pytest.approx(np.mean([45, 48, 160]))
    assert found[0] > found[1] > found[2] == 48


def test_the_same_word_gets_the_same_vector_wherever_it_stands() -> None:
    x = attention.embed()
    new, _ = attention.attend(attention.dot(x, x), x)
    first, second = (n for n, word in enumerate(attention.SENTENCE) if word == "is")
    assert mt.equal(new[first], new[second])


# Heads


def test_one_head_is_the_general_similarity_of_its_weights() -> None:
    mt.manual_seed(0)
    head, x = Head(6, 3), mt.randn(5, 6)
    output, weight = head(x)
    score = attention.general(x, x, head.w_q @ head.w_k.T)
    expected, expected_weight = attention.attend(score / math.sqrt(3), x @ head.w_v)
    assert_close(weight, expected_weight)
    assert_close(output, expected)


@pytest.mark.parametrize(("embed_dim", "num_heads", "shape"), [(4, 2, (4, 2)), (6, 2, (6, 3))])
def test_each_head_has_weights_of_its_own(
    embed_dim: int, num_heads: int, shape: tuple[int, int]
) -> None:
    layer = MultiheadAttention(embed_dim, num_heads)
    names = {f"heads.{n}.{w}" for n in range(num_heads) for w in ("w_q", "w_k", "w_v")}
    shapes = {name: tuple(weight.shape) for name, weight in layer.named_parameters()}
    assert shapes == {**dict.fromkeys(names, shape), "w_o": (embed_dim, embed_dim)}


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    for num_heads in 4, 0:
        with pytest.raises(ValueError, match=f"divisible.*embed_dim=6, num_heads={num_heads}"):
            MultiheadAttention(6, num_heads)


MASKS = {"no mask": None, "causal mask": causal_mask(5)}


@pytest.mark.parametrize("mask", MASKS.values(), ids=list(MASKS))
def test_the_packed_form_gives_the_same_numbers(mask: Tensor | None) -> None:
    mt.manual_seed(0)
    layer, x = MultiheadAttention(12, 3), mt.randn(2, 5, 12)
    output, weight = layer(x, mask)
    packed = attention.packed_weight(layer)
    assert packed.shape == (12, 36)
    assert mt.equal(packed[:, 12 + 4 : 12 + 8], layer.state_dict()["heads.1.w_k"])
    fused = attention.packed_attention(x, packed, layer.w_o, 3, mask)
    assert_close(fused, output, rtol=1e-5, atol=1e-6)
    module_output, module_weight = attention.as_module(layer)(
        x, x, x, attn_mask=mask, average_attn_weights=False
    )
    assert_close(module_output, output, rtol=1e-5, atol=1e-6)
    assert_close(module_weight, weight, rtol=1e-5, atol=1e-6)


def test_the_layer_and_its_packed_form_have_the_same_gradients() -> None:
    mt.manual_seed(0)
    layer, x = MultiheadAttention(6, 2), mt.randn(2, 5, 6)
    dy = mt.randn(2, 5, 6)
    weights = list(layer.parameters())
    stepwise = mt.autograd.grad((layer(x)[0] * dy).sum(), weights)
    fused = attention.packed_attention(x, attention.packed_weight(layer), layer.w_o, 2)
    for own, packed in zip(stepwise, mt.autograd.grad((fused * dy).sum(), weights), strict=True):
        assert_close(own, packed, rtol=1e-4, atol=1e-5)


@needs_torch
@pytest.mark.parametrize("mask", MASKS.values(), ids=list(MASKS))
def test_several_heads_equal_torchs_layer(mask: Tensor | None) -> None:
    import torch

    mt.manual_seed(0)
    layer, x = MultiheadAttention(12, 3), mt.randn(2, 5, 12)
    module = torch.nn.MultiheadAttention(12, 3, bias=False, batch_first=True)
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.tensor(attention.packed_weight(layer).T.tolist()))
        module.out_proj.weight.copy_(torch.tensor(layer.w_o.T.tolist()))
    x_torch = torch.tensor(x.tolist(), requires_grad=True)
    mask_torch = None if mask is None else torch.tensor(mask.tolist())
    expected, expected_weight = module(
        x_torch, x_torch, x_torch, attn_mask=mask_torch, average_attn_weights=False
    )
    output, weight = layer(x.requires_grad_(), mask)
    np.testing.assert_allclose(weight.tolist(), expected_weight.tolist(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output.tolist(), expected.tolist(), rtol=1e-5, atol=1e-5)
    output.sum().backward()
    expected.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.tolist(), x_torch.grad.tolist(), rtol=1e-4, atol=1e-4)


@needs_torch
def test_similarities_equal_torchs() -> None:
    import torch

    mt.manual_seed(0)
    query, key, weight, value = draw(2, 3, 5), draw(2, 4, 6), draw(5, 6), draw(2, 4, 5)
    q, k, w = (torch.tensor(t.tolist(), dtype=torch.float64) for t in (query, key, weight))
    bilinear = torch.nn.functional.bilinear(
        q[:, :, None].expand(2, 3, 4, 5).contiguous(),
        k[:, None].expand(2, 3, 4, 6).contiguous(),
        w[None],
    )
    general = attention.general(query, key, weight)
    np.testing.assert_allclose(general.numpy(), bilinear[..., 0].numpy())
    v = torch.tensor(value.tolist(), dtype=torch.float64)
    cosine = torch.nn.functional.cosine_similarity(q[:, :, None], v[:, None], dim=-1)
    np.testing.assert_allclose(attention.cosine(query, value).numpy(), cosine.numpy())
    output, _ = attention.attend(attention.scaled_dot(query, value), value)
    expected = torch.nn.functional.scaled_dot_product_attention(q, v, v)
    np.testing.assert_allclose(output.numpy(), expected.numpy())
    assert_close(output, F.scaled_dot_product_attention(query, value, value))


# What is printed and drawn


@pytest.fixture(scope="module")
def text() -> str:
    """All that the file prints, with the names of its tensors held to their shapes."""
    import contextlib
    import io

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), watch(attention) as seen:
        assert attention.main([]) == 0
    assert len(seen) > 30
    return printed.getvalue()


def rows(text: str, after: str, count: int) -> list[list[str]]:
    """The cells of the table that follows a sentence: its heads and `count` rows."""
    lines = [line for line in text[text.index(after) :].splitlines() if line.startswith("    ")]
    return [re.split(r"\s+", line.strip()) for line in lines[: 1 + count]]


def test_each_words_weights_are_printed_under_the_words_and_add_up(text: str) -> None:
    words = attention.SENTENCE
    heads, *table = rows(text, "Softmax makes weights", len(words))
    assert heads == words
    assert [row[0] for row in table] == words
    for row in table:
        assert sum(map(float, row[1:])) == pytest.approx(1, abs=0.04)
    bark = dict(zip(words, map(float, table[0][1:]), strict=True))
    assert bark["dog"] > 2 * bark["cute"] > 2 * bark["very"]


def test_every_step_is_printed_with_its_shapes_within_100_columns(text: str) -> None:
    titles = re.findall(r"^(\d)\. .*\n-+$", text, re.MULTILINE)
    assert titles == list("1234567")
    assert text.count("W^Q (4, 2)") == 3
    assert text.count("q (3, 3)") == text.count("k (3, 3)") == text.count("v (3, 3)") == 2
    assert max(map(len, text.splitlines())) <= 100
    assert "-0.00 " not in text


def test_the_printed_proof_is_nothing_but_rounding(text: str) -> None:
    after = text[text.index("The largest difference") :]
    differences = [float(number) for number in re.findall(r"\d+e[-+]\d+", after)]
    assert len(differences) == 4
    assert max(differences) < 1e-6


def test_weights_can_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "weights.png"
    assert attention.main(["--picture", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert attention.main(["--picture", str(tmp_path / "none" / "weights.png")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_its_graph_has_names_for_all_sizes() -> None:
    model, inputs, dims = attention.example()
    graph = mt.graph.trace(model, inputs["x"], dims=dims)
    labels = {graph.values[node.outputs[0]].label for node in graph.nodes.values()}
    assert {"(N, L, E/H)", "(N, L, L)", "(N, L, E)"} <= labels
    assert not [label for label in labels if "16" in label or "8" in label]
